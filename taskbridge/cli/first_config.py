"""``init``: a commented configuration to begin with, made from the settings models of what is installed."""

from __future__ import annotations

import json
import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, SecretStr

from taskbridge._config.registry import load_provider, providers
from taskbridge._config.settings import CommonSettings
from taskbridge.cli.codes import DONE
from taskbridge.errors import ConfigError, InvalidInput, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic.fields import FieldInfo

    from taskbridge.cli.screen import Screen
    from taskbridge.provider.base import Provider

__all__ = ["config_text", "write_config"]

_WIDTH: Final = 100  # columns of a comment
_HEAD: Final = """\
# The configuration of taskbridge. It is looked for here (./taskbridge.toml), where TASKBRIDGE_CONFIG points, and in the
# user's configuration folder. ${VARIABLE} takes a value from the environment: no key has to stand in this file.
# A connection's name becomes part of every ref (invoices:c85f…): choose one that outlives the vendor.
"""


def write_config(screen: Screen, names: Sequence[str], path: str, *, force: bool) -> int:
    """Write a configuration; the exit code.

    Raises:
        ConfigError: There is a file already, or it cannot be written.
        ProviderNotFound: A provider is not installed.
        ProviderLoadError: A provider cannot be used.
    """
    target = Path(path)
    chosen = list(dict.fromkeys(names)) or _usable()[:1]
    text = config_text(chosen)
    fault = _put(target, text, force=force)
    if fault:
        raise ConfigError(f"{printable(str(target), 300)} {fault}", raw=str(target))
    variables = [variable for name in chosen for variable in _variables(name)]
    if screen.as_json:
        screen.record({"path": str(target), "connections": chosen, "variables": variables})
        return DONE
    screen.line(f"wrote {target}: {', '.join(chosen)}")
    screen.line("next:")
    screen.line("  1. set " + ", ".join(variables) if variables else "  1. fill in the settings")
    screen.line("  2. taskbridge doctor    looks whether the vendor takes them")
    screen.line(f"  3. taskbridge get {chosen[0]}:ID")
    return DONE


def _put(target: Path, text: str, *, force: bool) -> str | None:
    """Write the file, readable by its owner only; why that is not possible, or None."""
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
    try:
        with os.fdopen(os.open(target, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return "exists already; name another file with --to, or overwrite it with --force"
    except OSError as error:
        return f"cannot be written: {error.strerror or type(error).__name__}"
    return None


def _usable() -> list[str]:
    return [info.name for info in providers() if info.problem is None]


def config_text(names: Sequence[str]) -> str:
    """The text of a configuration: these providers ready to use, every other installed one as a comment.

    Args:
        names: Entry-point names of providers; the first is the default connection.

    Raises:
        InvalidInput: There is no provider.
        ProviderNotFound: A provider is not installed.
        ProviderLoadError: A provider cannot be used.
    """
    if not names:
        raise InvalidInput("no provider is installed that can be used; see: taskbridge providers")
    others = [name for name in _usable() if name not in names]
    lines = [_HEAD, f"default = {json.dumps(names[0])}"]
    for name in names:
        lines += ["", *_section(load_provider(name))]
    for name in others:
        lines += ["", *(_commented(line) for line in _section(load_provider(name)))]
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
    """The settings that a first configuration states."""
    model = provider.Settings
    return model.usual or tuple(key for key, field in model.model_fields.items() if field.is_required())


def _variables(name: str) -> list[str]:
    return [_variable(name, key) for key in _usual(load_provider(name))]


def _variable(connection: str, key: str) -> str:
    return f"{connection}_{key}".replace("-", "_").upper()


def _settings(model: type[BaseModel], connection: str, usual: Sequence[str], above: str = "") -> Iterator[str]:
    for key, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _settings(inner, connection, usual, f"{above}{key}.")
            continue
        yield from textwrap.wrap(
            " ".join((field.description or key).replace("``", "").replace("`", "").split()),
            _WIDTH,
            initial_indent="# ",
            subsequent_indent="# ",
        )
        if key in usual:
            yield f'{above}{key} = "${{{_variable(connection, key)}}}"'
        else:
            yield f"#{above}{key} = {_default(field)}"


def _default(field: FieldInfo) -> str:
    value: object = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, bool | int | float | str):
        return json.dumps(value)
    if value == ():
        return '["${WEBHOOK_SECRET}"]' if SecretStr.__name__ in str(field.annotation) else "[]"
    if value == {}:
        return "{}"
    return '"${VARIABLE}"' if SecretStr.__name__ in str(field.annotation) else "…"
