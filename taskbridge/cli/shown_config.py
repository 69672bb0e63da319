"""``config show``: what is set, where each value comes from, and no secret."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr

from taskbridge._config.connections import connection_settings
from taskbridge._config.files import Unset, load_config
from taskbridge._config.registry import load_provider, loaded_providers
from taskbridge._config.settings import CommonSettings
from taskbridge.cli.codes import DONE, USAGE
from taskbridge.errors import TaskbridgeError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic.fields import FieldInfo

    from taskbridge._config.files import ConnectionConfig
    from taskbridge.cli.screen import Screen

__all__ = ["MASK", "Setting", "fault_of", "settings_of", "show_config"]

MASK: Final = "***"
_DEFAULT: Final = "default"
Setting = tuple[str, Any, str]
"""Dotted key, value that may be shown, origin."""


def show_config(screen: Screen, names: Sequence[str], path: str | None, *, everything: bool) -> int:
    """Show the configuration in force; the exit code tells whether its connections can be used.

    Raises:
        ConfigError: There is none, it cannot be read, or has no such connection.
    """
    config = load_config(path)
    chosen = [config.connection(name) for name in names] or list(config.connections.values())
    code = DONE
    if not screen.as_json:
        screen.line(f"{config.path}")
        screen.line(f"default = {config.default or 'none'}")
    for connection in chosen:
        fault = fault_of(connection)
        code = USAGE if fault else code
        rows = list(settings_of(connection, everything=everything))
        if screen.as_json:
            screen.record(_record(connection, rows, fault))
        else:
            screen.line(f"\n{_block(connection, rows, fault)}")
    return code


def _record(connection: ConnectionConfig, rows: Sequence[Setting], fault: str | None) -> dict[str, Any]:
    return {
        "connection": connection.name,
        "provider": connection.provider,
        "settings": {key: {"value": value, "origin": origin} for key, value, origin in rows},
        "problem": fault,
    }


def _block(connection: ConnectionConfig, rows: Sequence[Setting], fault: str | None) -> str:
    told = [("provider", json.dumps(connection.provider), connection.origins.get("provider", ""))]
    told += [(printable(key, 120), _shown(value), origin) for key, value, origin in rows]
    wide, deep = max(len(key) for key, _, _ in told), max(len(value) for _, value, _ in told)
    lines = [f"[{connection.name}]"]
    lines += [
        f"  {key.ljust(wide)} = {value.ljust(min(deep, 40))}  # {printable(origin, 300)}" for key, value, origin in told
    ]
    return "\n".join([*lines, f"  cannot be used: {printable(fault)}"] if fault else lines)


def _shown(value: Any) -> str:
    return value if value == MASK else printable(json.dumps(value, ensure_ascii=False), 300)


def fault_of(connection: ConnectionConfig) -> str | None:
    """Why a connection cannot be used as it is configured, or None."""
    try:
        connection_settings(connection, load_provider(connection.provider), loaded_providers())
    except TaskbridgeError as error:
        return error.message
    return None


def settings_of(connection: ConnectionConfig, *, everything: bool = False) -> Iterator[Setting]:
    """What is set for a connection; secrets, and whatever no model knows, are masked.

    Args:
        connection: The connection.
        everything: Also what is not set, with its default.
    """
    fields = dict(_fields(CommonSettings))
    with suppress(TaskbridgeError):  # else its settings are nobody's, and stay masked
        fields |= _fields(load_provider(connection.provider).Settings)
    values = dict(_flat(connection.values))
    for key, value in values.items():
        yield key, _masked(value, fields.get(key)), connection.origins.get(key, "")
    for key, field in fields.items() if everything else ():
        if not any(name == key or name.startswith(f"{key}.") for name in values) and not field.is_required():
            yield key, field.get_default(call_default_factory=True, validated_data={}), _DEFAULT


def _fields(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for key, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _fields(inner, f"{above}{key}.")
        else:
            yield f"{above}{key}", field


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(cast("dict[str, Any]", value), f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _masked(value: Any, field: FieldInfo | None) -> Any:
    """A value as it may be shown: what is kept out of repr is kept out of here."""
    if isinstance(value, Unset):
        return str(value)  # the text with the variable's name, which holds no value
    if field is None or not field.repr or SecretStr.__name__ in str(field.annotation):
        return MASK
    if isinstance(value, str) and "@" in (urlsplit(value).netloc if "//" in value else ""):
        return MASK  # a user and a password stand in it
    return value
