"""``init``: write a commented configuration, made from the settings of the installed providers."""

from __future__ import annotations

import json
import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from taskbridge.cli.exit_codes import DONE
from taskbridge.cli.options import complete_providers, with_json
from taskbridge.errors import ConfigError, InvalidInput, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from taskbridge.cli.output import Output
    from taskbridge.provider.base import Provider

_WIDTH: Final = 100  # columns of a comment
_HEAD: Final = """\
# The configuration of taskbridge. It is read from here (./taskbridge.toml), from the path in TASKBRIDGE_CONFIG, or from
# the user's configuration folder. ${VARIABLE} takes a value from the environment, so that no key is in this file.
# A connection's name becomes part of every ref (invoices:c85f…): choose one that outlives the vendor.
"""


@click.command(name="init")
@click.argument("providers", nargs=-1, metavar="[PROVIDER...]", shell_complete=complete_providers)
@click.option("--to", default="taskbridge.toml", show_default=True, metavar="PATH", help="The file to write.")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@with_json
@click.pass_obj
def command(output: Output, providers: tuple[str, ...], to: str, *, force: bool) -> int:
    """Write a commented configuration to start from.

    The named providers are ready to use once their environment variables are set; the others are included as comments.
    """
    target = Path(to)
    names = list(dict.fromkeys(providers)) or _usable()[:1]
    problem = _write(target, _config_text(names), force=force)
    if problem:
        raise ConfigError(f"{printable(str(target), 300)} {problem}", raw=str(target))
    variables = [variable for name in names for variable in _variables(name)]
    if output.as_json:
        output.record({"path": str(target), "connections": names, "variables": variables})
        return DONE
    output.line(f"wrote {target}: {', '.join(names)}")
    output.line("next:")
    output.line("  1. set " + ", ".join(variables) if variables else "  1. fill in the settings")
    output.line("  2. taskbridge doctor    checks that the vendor accepts them")
    output.line(f"  3. taskbridge get {names[0]}:ID")
    return DONE


def _write(target: Path, text: str, *, force: bool) -> str | None:
    """Write the file, readable by its owner only; return what prevents that, or None."""
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
    try:
        with os.fdopen(os.open(target, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return "exists already; name another file with --to, or overwrite it with --force"
    except OSError as error:
        return f"cannot be written: {error.strerror or type(error).__name__}"
    return None


def _provider(name: str) -> type[Provider[Any]]:
    from taskbridge._config.registry import load_provider  # noqa: PLC0415  # heavy

    return load_provider(name)


def _usable() -> list[str]:
    from taskbridge._config.registry import providers  # noqa: PLC0415  # heavy

    return [info.name for info in providers() if info.problem is None]


def _config_text(names: Sequence[str]) -> str:
    """Return a configuration with these providers ready to use, and every other installed one as a comment.

    Raises:
        InvalidInput: There is no provider.
        ProviderNotFound: A provider is not installed.
        ProviderLoadError: A provider cannot be used.
    """
    from taskbridge._config.settings import CommonSettings  # noqa: PLC0415  # heavy

    if not names:
        raise InvalidInput("no usable provider is installed; see: taskbridge providers")
    lines = [_HEAD, f"default = {json.dumps(names[0])}"]
    for name in names:
        lines += ["", *_section(_provider(name))]
    for name in _usable():
        if name not in names:
            lines += ["", *(_commented(line) for line in _section(_provider(name)))]
    lines += ["", "# Settings that every connection takes, with their defaults:", "#"]
    lines += [_commented(line) for line in _settings(CommonSettings, "", usual=())]
    return "\n".join(lines) + "\n"


def _commented(line: str) -> str:
    return line if line.startswith("#") else f"# {line}".rstrip()


def _section(provider: type[Provider[Any]]) -> Iterator[str]:
    name = provider.name
    yield f"[connections.{name}]  # {provider.title}: {provider.docs}"
    yield f"provider = {json.dumps(name)}"
    yield from _settings(provider.Settings, name, usual=_usual(provider))


def _usual(provider: type[Provider[Any]]) -> tuple[str, ...]:
    """The settings that a first configuration sets."""
    model = provider.Settings
    return model.usual or tuple(key for key, field in model.model_fields.items() if field.is_required())


def _variables(name: str) -> list[str]:
    return [_variable(name, key) for key in _usual(_provider(name))]


def _variable(connection: str, key: str) -> str:
    customary = _provider(connection).Settings.variables.get(key) if connection else None
    return customary or f"{connection}_{key}".replace("-", "_").upper()


def _settings(model: type[BaseModel], connection: str, usual: Sequence[str]) -> Iterator[str]:
    from taskbridge._config.descriptions import describe  # noqa: PLC0415  # heavy
    from taskbridge.cli.config import setting_fields  # noqa: PLC0415  # heavy

    descriptions = describe(model)
    for key, field in setting_fields(model):
        yield from textwrap.wrap(
            " ".join(descriptions.get(key, key).replace("``", "").replace("`", "").split()),
            _WIDTH,
            initial_indent="# ",
            subsequent_indent="# ",
        )
        if key in usual:
            yield f'{key} = "${{{_variable(connection, key)}}}"'
        else:
            yield f"#{key} = {_default(field)}"


def _default(field: FieldInfo) -> str:
    value: object = field.get_default(call_default_factory=True, validated_data={})
    secret = "SecretStr" in str(field.annotation)
    if isinstance(value, bool | int | float | str):
        return json.dumps(value)
    if value == ():
        return '["${WEBHOOK_SECRET}"]' if secret else "[]"
    if value == {}:
        return "{}"
    return '"${VARIABLE}"' if secret else "…"
