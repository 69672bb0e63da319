"""``config show``: print what is set and where each value comes from, but no secret."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import urlsplit

import click

from taskbridge.cli.exit_codes import DONE, USAGE
from taskbridge.cli.options import config_path, connections_argument, with_config, with_json
from taskbridge.errors import TaskbridgeError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from taskbridge._config.files import ConnectionConfig
    from taskbridge.cli.output import Output

MASK: Final = "***"
Setting: TypeAlias = tuple[str, Any, str]
"""Dotted key, value that may be shown, origin."""


@click.group(name="config")
def command() -> None:
    """Print the configuration."""


@command.command()
@connections_argument
@click.option("--all", "everything", is_flag=True, help="Include settings that are not set, with their defaults.")
@with_json
@with_config
@click.pass_obj
def show(output: Output, connections: tuple[str, ...], *, everything: bool) -> int:
    """Print each setting and where its value comes from. Secrets are masked."""
    from taskbridge._config.files import load_config  # noqa: PLC0415  # heavy

    config = load_config(config_path())
    chosen = [config.connection(name) for name in connections] or list(config.connections.values())
    code = DONE
    if not output.as_json:
        output.line(f"{config.path}")
        output.line(f"default = {config.default or 'none'}")
    for connection in chosen:
        problem = _problem(connection)
        code = USAGE if problem else code
        rows = list(connection_settings(connection, everything=everything))
        if output.as_json:
            settings = {key: {"value": value, "origin": origin} for key, value, origin in rows}
            record = {"connection": connection.name, "provider": connection.provider, "settings": settings}
            output.record({**record, "problem": problem})
        else:
            output.line(f"\n{_block(connection, rows, problem)}")
    return code


def _block(connection: ConnectionConfig, settings: Sequence[Setting], problem: str | None) -> str:
    rows = [("provider", json.dumps(connection.provider), connection.origins.get("provider", ""))]
    rows += [(printable(key, 120), _value(value), origin) for key, value, origin in settings]
    key_width = max(len(key) for key, _, _ in rows)
    value_width = min(40, max(len(value) for _, value, _ in rows))
    lines = [f"[{connection.name}]"]
    lines += [
        f"  {key.ljust(key_width)} = {value.ljust(value_width)}  # {printable(from_, 300)}"
        for key, value, from_ in rows
    ]
    return "\n".join([*lines, f"  cannot be used: {printable(problem)}"] if problem else lines)


def _value(value: Any) -> str:
    return value if value == MASK else printable(json.dumps(value, ensure_ascii=False), 300)


def _problem(connection: ConnectionConfig) -> str | None:
    """Why a connection cannot be used as configured, or None."""
    from taskbridge._config import connections, registry  # noqa: PLC0415  # heavy

    try:
        provider = registry.load_provider(connection.provider)
        connections.connection_settings(connection, provider, registry.load_builtin_providers())
    except TaskbridgeError as error:
        return error.message
    return None


def connection_settings(connection: ConnectionConfig, *, everything: bool = False) -> Iterator[Setting]:
    """Yield what is set for a connection; secrets, and settings that no model knows, are masked."""
    from taskbridge._config.files import leaves  # noqa: PLC0415  # heavy
    from taskbridge._config.registry import load_provider  # noqa: PLC0415  # as above
    from taskbridge._config.settings import CommonSettings  # noqa: PLC0415  # as above

    fields = dict(setting_fields(CommonSettings))
    with suppress(TaskbridgeError):  # an unusable provider has no fields: its settings stay masked
        fields |= setting_fields(load_provider(connection.provider).Settings)
    values = dict(leaves(connection.values))
    for key, value in values.items():
        yield key, _masked(value, fields.get(key)), connection.origins.get(key, "")
    for key, field in fields.items() if everything else ():
        if not any(name == key or name.startswith(f"{key}.") for name in values) and not field.is_required():
            yield key, field.get_default(call_default_factory=True, validated_data={}), "default"


def setting_fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield the dotted key and the field of each setting of a model."""
    from pydantic import BaseModel  # noqa: PLC0415  # heavy

    for key, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from setting_fields(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", field


def _masked(value: Any, field: FieldInfo | None) -> Any:
    """Return a value as it may be shown: a field that its model hides from repr is masked."""
    from taskbridge._config.files import Unset  # noqa: PLC0415  # heavy

    if isinstance(value, Unset):
        return str(value)  # the text with the variable's name, without its value
    if field is None or not field.repr or "SecretStr" in str(field.annotation):
        return MASK
    if isinstance(value, str) and "@" in (urlsplit(value).netloc if "//" in value else ""):
        return MASK  # a URL with a password
    return value
