"""Validate the values of a connection against the settings of every connection and those of its provider.

Errors name the key and the rule, never the value: the value of a mistyped key may be a credential.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr, ValidationError

from taskbridge._config.files import PLACEHOLDER, ConnectionConfig, Digits, nearest, unset_values
from taskbridge._config.settings import CommonSettings
from taskbridge._redaction import mask
from taskbridge.errors import ConfigError, TaskbridgeError, printable
from taskbridge.provider.policy import PollPolicy, RetryPolicy
from taskbridge.provider.secrets import strip_tracebacks

if TYPE_CHECKING:
    from taskbridge.provider.base import Provider, ProviderSettings

_PLACEHOLDERS: Final = frozenset(
    {"changeme", "change-me", "your-api-key", "your_api_key", "xxx", "todo", "secret", "..."}
)


@strip_tracebacks
def connection_settings(
    connection: ConnectionConfig,
    provider: type[Provider[Any]],
    siblings: Mapping[str, type[Provider[Any]]] | None = None,
) -> tuple[CommonSettings, ProviderSettings]:
    """Return a connection's validated settings: the common ones and its provider's own.

    `siblings` are other loaded providers, to say whose setting a misplaced one is.

    Raises:
        ConfigError: A key is unknown or a value breaks its rule; the message names the key, never the value.
    """
    common_fields, own_fields = CommonSettings.model_fields, provider.Settings.model_fields
    place = f"connection {connection.name!r}"
    values = dict(connection.values)
    for key in values:
        if key not in common_fields and key not in own_fields:
            raise ConfigError(_unknown(key, place, provider, siblings or {}), connection=connection.name)
    for key, value in unset_values(values):
        raise ConfigError(value.problem(f"connections.{connection.name}.{key}"), connection=connection.name)
    common = _validate(CommonSettings, {k: v for k, v in values.items() if k in common_fields}, place, connection)
    own = _validate(provider.Settings, {k: v for k, v in values.items() if k in own_fields}, place, connection)
    _check_urls(own, common, place)
    if common.ca_bundle is not None and not os.path.exists(common.ca_bundle):  # noqa: PTH110  # False for a NUL, too
        raise ConfigError(
            f"{place}: ca_bundle{_source(connection, 'ca_bundle')} is the path of a file or folder that does not exist"
        )
    return common, own


def _unknown(key: str, place: str, provider: type[Provider[Any]], siblings: Mapping[str, type[Provider[Any]]]) -> str:
    shown = printable(key, 60)
    owners = [name for name, other in siblings.items() if key in other.Settings.model_fields]
    known = [*provider.Settings.model_fields, *CommonSettings.model_fields]
    if owners:
        takes = ", ".join(provider.Settings.model_fields)
        return f"{place}: {shown} is a setting of {' and '.join(owners)}, not of {provider.name}, which takes {takes}"
    return f"{place}: unknown setting {shown!r}; {nearest(key, known)}{provider.name} takes {', '.join(known)}"


def _validate(model: type[BaseModel], values: dict[str, Any], place: str, connection: ConnectionConfig) -> Any:
    prepared = {key: _prepare(model, key, value, place, connection) for key, value in values.items()}
    problems: list[str] = []
    try:
        return model.model_validate(prepared)
    except ValidationError as error:
        # The error prints the input, which may be a credential: keep only the key and the rule.
        for each in error.errors(include_input=False, include_url=False, include_context=False):
            key = ".".join(str(part) for part in each["loc"])
            if each["type"] == "missing":
                missing = f'{key} is missing; add {key} = "${{{key.upper()}}}" to the connection, or pass {key}=…'
                problems.append(missing)
                continue
            message = each["msg"].removeprefix("Value error, ")
            if each["type"] == "extra_forbidden":
                message = _unknown_within(model, each["loc"])
            problems.append(f"{printable(key, 120) or 'settings'}{_source(connection, key)}: {message}")
    except TaskbridgeError as error:
        problems.append(error.message)
    # The validator of a plugin may quote the value.
    problem = mask("; ".join(problems), _texts_of_secrets(prepared))
    raise ConfigError(f"{place}: {problem}", connection=connection.name, provider=connection.provider)


def _texts_of_secrets(values: Mapping[str, Any]) -> Iterator[str]:
    for value in values.values():
        several = cast("tuple[object, ...]", value) if isinstance(value, tuple) else (value,)
        yield from (each.get_secret_value() for each in several if isinstance(each, SecretStr))


def _unknown_within(model: type[BaseModel], place: tuple[int | str, ...]) -> str:
    """Describe an unknown key in a table of the settings."""
    table, key = place[0], str(place[-1])
    inner = model.model_fields[str(table)].annotation if str(table) in model.model_fields else None
    if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
        return "unknown key"
    known = inner.model_fields
    return f"unknown key; {nearest(key, known)}{table} takes {', '.join(known)}"


def _source(connection: ConnectionConfig, key: str) -> str:
    origin = connection.origins.get(key)
    return f" (from {origin})" if origin else ""


def _prepare(model: type[BaseModel], key: str, value: Any, place: str, connection: ConnectionConfig) -> Any:
    annotation = model.model_fields[key].annotation
    if isinstance(value, PollPolicy | RetryPolicy):
        return {name: number for name, number in asdict(value).items() if number is not None}
    if isinstance(value, dict):
        return _numbers(cast("dict[str, Any]", value))
    if annotation is SecretStr or annotation == SecretStr | None:
        return _secret(value, key, place, connection)
    if key == "webhook_secrets" and isinstance(value, list | tuple):
        several: tuple[Any, ...] = tuple(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]  # TOML
        return tuple(_secret(v, key, place, connection) for v in several)
    if isinstance(value, Digits):
        return str(value) if annotation is str or annotation == str | None else _numbers(value)
    return value


def _numbers(value: Any) -> Any:
    """Return a value, or all in a table, with digits as numbers."""
    if isinstance(value, Digits):
        return float(value) if "." in value else int(value)
    return {k: _numbers(v) for k, v in cast("dict[str, Any]", value).items()} if isinstance(value, dict) else value


def _secret(value: object, key: str, place: str, connection: ConnectionConfig) -> SecretStr:
    """Check a credential for use in a header; only the final newline of a mounted file is removed."""
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not isinstance(text, str):
        raise ConfigError(f"{place}: {key} must be a text", connection=connection.name)
    text = str(text).rstrip("\r\n")
    problem = _secret_problem(text)
    if problem:
        raise ConfigError(f"{place}: {key}{_source(connection, key)} {problem}", connection=connection.name)
    return SecretStr(text)


def _secret_problem(text: str) -> str | None:
    if not text.strip():
        return "is empty"
    if (
        text.strip().lower() in _PLACEHOLDERS
        or PLACEHOLDER.search(text)
        or (text.startswith("<") and text.endswith(">"))
    ):
        return "is a placeholder; put the real one there"
    if not text.isascii():
        return "holds a character outside ASCII, such as a smart quote or an ellipsis; copy it again"
    if not text.isprintable() or text != text.strip():
        return "holds a control character, a line break or a space at an end; copy it again"
    return None


def _check_urls(own: ProviderSettings, common: CommonSettings, place: str) -> None:
    for key in type(own).model_fields:
        value = getattr(own, key)
        if key.endswith("_url") and isinstance(value, str):
            problem = url_problem(value, allow_http=common.allow_http)
            if problem:
                raise ConfigError(f"{place}: {key} {problem}")


def url_problem(url: str, *, allow_http: bool) -> str | None:
    """Why a URL is no address of a vendor, or None."""
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
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"
