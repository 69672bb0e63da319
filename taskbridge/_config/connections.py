"""Connections and their settings: where they are written, who may override them, and what each value came from.

`taskbridge._config.files` reads them from the file and the environment, `taskbridge._config.settings` says what there is to set;
here the one is checked against the other. Errors name the key and the rule, never the value: a mistyped key may stand
before a credential.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr, ValidationError

from taskbridge._config.files import (
    VARIABLE,
    ConnectionConfig,
    Digits,
    nearest,
    unset_values,
)
from taskbridge._config.settings import CommonSettings
from taskbridge.errors import ConfigError, TaskbridgeError, printable
from taskbridge.provider.policy import PollPolicy, RetryPolicy
from taskbridge.provider.secrets import redact_errors

if TYPE_CHECKING:
    from taskbridge.provider.base import Provider, ProviderSettings

_PLACEHOLDERS: Final = frozenset(
    {"changeme", "change-me", "your-api-key", "your_api_key", "xxx", "todo", "secret", "..."}
)


@redact_errors
def connection_settings(
    connection: ConnectionConfig,
    provider: type[Provider[Any]],
    siblings: Mapping[str, type[Provider[Any]]] | None = None,
) -> tuple[CommonSettings, ProviderSettings]:
    """Check a connection's values against what every connection and what its provider takes.

    Args:
        connection: The connection.
        provider: Its provider.
        siblings: Other providers already loaded, to say whose setting a stray one is.

    Raises:
        ConfigError: A key is unknown or a value breaks its rule; the message names the key, never the value.
    """
    common, own = CommonSettings.model_fields, provider.Settings.model_fields
    place = f"connection {connection.name!r}"
    values = dict(connection.values)
    for key in values:
        if key not in common and key not in own:
            raise ConfigError(_stray(key, place, provider, siblings or {}), connection=connection.name)
    for key, value in unset_values(values):
        raise ConfigError(value.fault(f"connections.{connection.name}.{key}"), connection=connection.name)
    ours = _validate(CommonSettings, {k: v for k, v in values.items() if k in common}, place, connection)
    theirs = _validate(provider.Settings, {k: v for k, v in values.items() if k in own}, place, connection)
    _check_urls(theirs, ours, place)
    return ours, theirs


def _stray(key: str, place: str, provider: type[Provider[Any]], siblings: Mapping[str, type[Provider[Any]]]) -> str:
    shown = printable(key, 60)
    owners = [name for name, other in siblings.items() if key in other.Settings.model_fields]
    known = [*provider.Settings.model_fields, *CommonSettings.model_fields]
    if owners:
        takes = ", ".join(provider.Settings.model_fields)
        return f"{place}: {shown} is a setting of {' and '.join(owners)}, not of {provider.name}, which takes {takes}"
    return f"{place}: unknown setting {shown!r}; {nearest(key, known)}{provider.name} takes {', '.join(known)}"


def _validate(model: type[BaseModel], values: dict[str, Any], place: str, connection: ConnectionConfig) -> Any:
    prepared = {key: _prepare(model, key, value, place, connection) for key, value in values.items()}
    faults: list[str] = []
    try:
        return model.model_validate(prepared)
    except ValidationError as error:
        # The error prints the input, which may be a credential: only the place and the rule are kept of it.
        for fault in error.errors(include_input=False, include_url=False, include_context=False):
            key = ".".join(str(part) for part in fault["loc"])
            if fault["type"] == "missing":
                faults.append(_missing(key))
                continue
            origin = connection.origins.get(key)
            told = f" (from {origin})" if origin else ""
            words = fault["msg"].removeprefix("Value error, ")
            if fault["type"] == "extra_forbidden":
                words = _unknown_within(model, fault["loc"])
            faults.append(f"{printable(key, 120) or 'settings'}{told}: {words}")
    except TaskbridgeError as error:
        faults.append(error.message)
    raise ConfigError(f"{place}: {'; '.join(faults)}", connection=connection.name, provider=connection.provider)


def _unknown_within(model: type[BaseModel], place: tuple[int | str, ...]) -> str:
    """What to say of an unknown key in a table of the settings."""
    table, key = place[0], str(place[-1])
    inner = model.model_fields[str(table)].annotation if str(table) in model.model_fields else None
    if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
        return "unknown key"
    known = inner.model_fields
    return f"unknown key; {nearest(key, known)}{table} takes {', '.join(known)}"


def _missing(key: str) -> str:
    return f'{key} is missing; add {key} = "${{{key.upper()}}}" to the connection, or pass {key}=…'


def _prepare(model: type[BaseModel], key: str, value: Any, place: str, connection: ConnectionConfig) -> Any:
    annotation = model.model_fields[key].annotation
    if isinstance(value, PollPolicy | RetryPolicy):
        return {name: number for name, number in asdict(value).items() if number is not None}
    if isinstance(value, dict):
        return {k: _numbers(v) for k, v in cast("dict[str, Any]", value).items()}
    if annotation is SecretStr or annotation == SecretStr | None:
        return _secret(value, key, place, connection)
    if key == "webhook_secrets" and isinstance(value, list | tuple):
        several: tuple[Any, ...] = tuple(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]  # TOML
        return tuple(_secret(v, key, place, connection) for v in several)
    if isinstance(value, Digits):
        return str(value) if annotation is str or annotation == str | None else _number(value)
    return value


def _numbers(value: Any) -> Any:
    if isinstance(value, Digits):
        return _number(value)
    return {k: _numbers(v) for k, v in cast("dict[str, Any]", value).items()} if isinstance(value, dict) else value


def _number(text: str) -> float | int:
    return float(text) if "." in text else int(text)


def _secret(value: object, key: str, place: str, connection: ConnectionConfig) -> SecretStr:
    """A credential as it may go into a header: one trailing newline of a mounted file is forgiven, nothing else."""
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not isinstance(text, str):
        raise ConfigError(f"{place}: {key} must be a text", connection=connection.name)
    text = str(text).rstrip("\r\n")
    rule = _secret_fault(text)
    if rule:
        origin = connection.origins.get(key)
        told = f" (from {origin})" if origin else ""
        raise ConfigError(f"{place}: {key}{told} {rule}", connection=connection.name)
    return SecretStr(text)


def _secret_fault(text: str) -> str | None:
    if not text.strip():
        return "is empty"
    if text.strip().lower() in _PLACEHOLDERS or VARIABLE.search(text) or (text.startswith("<") and text.endswith(">")):
        return "is a placeholder; put the real one there"
    if not text.isascii():
        return "holds a character outside ASCII, such as a smart quote or an ellipsis; copy it again"
    if not text.isprintable() or text != text.strip():
        return "holds a control character, a line break or a space at an end; copy it again"
    return None


def _check_urls(theirs: ProviderSettings, ours: CommonSettings, place: str) -> None:
    for key in type(theirs).model_fields:
        value = getattr(theirs, key)
        if not key.endswith("_url") or not isinstance(value, str):
            continue
        fault = _url_fault(value, allow_http=ours.allow_http)
        if fault:
            raise ConfigError(f"{place}: {key} {fault}")


def _url_fault(url: str, *, allow_http: bool) -> str | None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return "is no URL"
    if parts.scheme not in ("https", "http") or not host or not url.isascii() or not url.isprintable() or "\\" in url:
        return "must be an https:// URL"
    if parts.username or parts.password or parts.query or parts.fragment:
        return "must hold no user, password, query or fragment"
    if parts.scheme == "http" and not allow_http and not _is_loopback(host):
        return (
            "is plain http, which would send the credential in clear; use https, or set allow_http = true where the "
            "network between is trusted"
        )
    return None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
