"""Validate the values of a connection against the settings of every connection and those of its provider.

A secret may be kept elsewhere (`taskbridge._config.secret_sources`), and what the vendor's own clients read from the
environment counts where nothing else is set (`add_vendor_variables`).

Errors name the key and the rule, never the value: the value of a mistyped key may be a credential.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from ipaddress import ip_address
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Union, cast, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr, ValidationError

from taskbridge._config.environment import FROM_VARIABLE, Digits, variable_of
from taskbridge._config.files import PLACEHOLDER, ConnectionConfig, nearest, unset_values
from taskbridge._config.registry import require_extra
from taskbridge._config.secret_sources import has_sources, is_source, read_source
from taskbridge._config.settings import CommonSettings
from taskbridge._redaction import mask
from taskbridge.errors import ConfigError, TaskbridgeError, printable
from taskbridge.provider.policy import PollPolicy, RetryPolicy
from taskbridge.provider.secrets import strip_tracebacks
from taskbridge.provider.storage import missing_package

if TYPE_CHECKING:
    from taskbridge.provider.base import Provider, ProviderSettings

_KEYWORD: Final = "connect()"  # the origin of what a program passes
_COMMON_SECRETS: Final = ("proxy", "webhook_secrets")
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
    if common.stage is not None and (package := missing_package(common.stage)) is not None:
        error = require_extra(package, "fsspec", f"{place}: stage{_source(connection, 'stage')}")
        raise error.about(connection=connection.name)
    return common, own


@strip_tracebacks
def add_vendor_variables(
    connection: ConnectionConfig, provider: type[Provider[Any]], environ: Mapping[str, str] | None = None
) -> ConnectionConfig:
    """Return a connection with what the vendor's customary environment variables say about settings without a value.

    They do not count where the connection has a credential of another kind, such as a token instead of a password.
    """
    model, variables = provider.Settings, provider.Settings.variables
    others = {key for key in secret_settings(provider) if key in model.model_fields and key not in variables}
    if others & set(connection.values):
        return connection
    environ = os.environ if environ is None else environ
    found = {
        key: (variable, environ[variable])
        for key, variable in variables.items()
        if key not in connection.values and environ.get(variable)
    }
    values = {**connection.values, **{key: value for key, (_, value) in found.items()}}
    origins = {key: f"{FROM_VARIABLE}{variable}" for key, (variable, _) in found.items()}
    return ConnectionConfig(connection.name, connection.provider, values, {**connection.origins, **origins})


def secret_settings(provider: type[Provider[Any]]) -> frozenset[str]:
    """Return the settings that may name where they are kept: all secrets, and the user name that belongs to one."""
    model = provider.Settings
    own = (key for key, field in model.model_fields.items() if _is_secret(field.annotation))
    return frozenset({*own, *model.usual, *_COMMON_SECRETS})


def keeps_secrets_elsewhere(connection: ConnectionConfig, provider: type[Provider[Any]]) -> bool:
    """Whether a secret of the connection is in a file or the keyring, or given by a function."""
    return has_sources(connection.values, secret_settings(provider))


def credential_origin(connection: ConnectionConfig, provider: type[Provider[Any]]) -> str:
    """Return where the connection's credential was set, for messages; empty if the program passed it."""
    keys = sorted(secret_settings(provider) - set(_COMMON_SECRETS))
    found = {key: origin for key in keys if (origin := origin_of(connection, key)) not in ("", _KEYWORD)}
    return ", ".join(f"{key} from {origin}" for key, origin in found.items())


def origin_of(connection: ConnectionConfig, key: str) -> str:
    """Return where a setting, or the first value in its table, comes from; empty if that is not known."""
    within = (origin for dotted, origin in connection.origins.items() if dotted.startswith(f"{key}."))
    return connection.origins.get(key) or next(within, "")


def _is_secret(annotation: object) -> bool:
    return annotation is SecretStr or annotation == SecretStr | None


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
                problems.append(_missing(model, key, connection))
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


def _missing(model: type[BaseModel], key: str, connection: ConnectionConfig) -> str:
    customary: Mapping[str, str] = getattr(model, "variables", {})
    variable = customary.get(key) or variable_of(connection.name, key)
    return (
        f'{key} is missing; set the environment variable {variable}, add {key} = "${{{variable}}}" to the connection, '
        f"or pass {key}=…"
    )


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
    origin = origin_of(connection, key)
    return f" (from {origin})" if origin else ""


def _prepare(model: type[BaseModel], key: str, value: Any, place: str, connection: ConnectionConfig) -> Any:
    annotation = model.model_fields[key].annotation
    if isinstance(value, PollPolicy | RetryPolicy):
        return {name: number for name, number in asdict(value).items() if number is not None}
    if _is_secret(annotation):
        return _secret(value, key, place, connection)
    if key == "webhook_secrets":
        return _webhook_secrets(value, place, connection)
    if is_source(value) and key in getattr(model, "usual", ()):
        return _read(value, key, place, connection)[0]
    return _numbers(value, annotation)


def _webhook_secrets(value: Any, place: str, connection: ConnectionConfig) -> Any:
    key = "webhook_secrets"
    # A variable cannot hold a list, and a source gives one secret.
    is_variable = origin_of(connection, key) == f"{FROM_VARIABLE}{variable_of(connection.name, key)}"
    is_single = is_source(value) or (isinstance(value, str) and is_variable)
    if not is_single and not isinstance(value, list | tuple):
        return value
    several = cast("list[object]", [value] if is_single else value)
    return tuple(_secret(each, key, place, connection) for each in several)


def _numbers(value: Any, annotation: Any = None) -> Any:
    """Return a value, or all in a table, with digits as numbers, except where the setting is a text."""
    if isinstance(value, Digits):
        if _is_text(annotation):
            return str(value)
        return float(value) if "." in value else int(value)
    if not isinstance(value, dict):
        return value
    known: dict[str, Any] = {}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        known = {key: field.annotation for key, field in annotation.model_fields.items()}
    return {k: _numbers(v, known.get(k)) for k, v in cast("dict[str, Any]", value).items()}


def _is_text(annotation: Any) -> bool:
    """Whether a setting is a text, with a rule or without, or None."""
    if get_origin(annotation) is Annotated:
        return _is_text(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return all(each is NoneType or _is_text(each) for each in get_args(annotation))
    return annotation is str


def _secret(value: object, key: str, place: str, connection: ConnectionConfig) -> SecretStr:
    """Check a credential for use in a header; only the final newline of a file is removed."""
    text, where = (value, "") if not is_source(value) else _read(value, key, place, connection)
    text = text.get_secret_value() if isinstance(text, SecretStr) else text
    if not isinstance(text, str):
        raise ConfigError(f"{place}: {key} must be a text", connection=connection.name)
    text = str(text).rstrip("\r\n")
    problem = _secret_problem(text)
    if problem:
        described = f"{key}{_source(connection, key)}{where}"
        raise ConfigError(f"{place}: {described} {problem}", connection=connection.name)
    return SecretStr(text)


def _read(value: object, key: str, place: str, connection: ConnectionConfig) -> tuple[str, str]:
    """Read a secret that is kept elsewhere; return it without its final newline, and for messages where it is kept."""
    try:
        text, where = read_source(value, f"{key}{_source(connection, key)}")
    except ConfigError as error:
        problem = error.message
    else:
        text = text.rstrip("\r\n")
        if text:
            return text, f", {where},"
        problem = f"{key}{_source(connection, key)}, {where}, is empty"
    raise ConfigError(f"{place}: {problem}", connection=connection.name)


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
