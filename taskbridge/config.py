"""Connections and their settings: where they are written, who may override them, and what each value came from.

A TOML file names connections. It is looked for at `config=`, then ``TASKBRIDGE_CONFIG``, then ``./taskbridge.toml``,
then the user's configuration folder. ``${VAR}`` in a text takes a value from the environment, and
``TASKBRIDGE_<CONNECTION>__<KEY>`` (dashes as underscores; two underscores before each further key) overrides one value.

Errors name the key and the rule, never the value: a mistyped key may stand before a credential.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from ipaddress import ip_address
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn, Self, TypeAlias, cast
from urllib.parse import urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed lacks it

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from taskbridge.errors import ConfigError, TaskbridgeError, plain
from taskbridge.policy import PollPolicy, RetryPolicy

if TYPE_CHECKING:
    from taskbridge.provider import Provider, ProviderSettings

__all__ = [
    "CommonSettings",
    "Config",
    "Connection",
    "Network",
    "connection_settings",
    "find_config",
    "load_config",
    "network_of",
    "read_config",
]

CONNECTION_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]*", re.ASCII)
_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_HERE: Final = "localhost,127.0.0.1,::1"  # never asked of a proxy that only the environment names
_FROM_VARIABLE: Final = "environment variable "
_MAX_DEPTH: Final = 8  # tables in tables; ours need three
_PLACEHOLDERS: Final = frozenset(
    {"changeme", "change-me", "your-api-key", "your_api_key", "xxx", "todo", "secret", "..."}
)

Table: TypeAlias = Mapping[str, Any]


def _finite(value: float) -> float:
    if not isfinite(value):
        raise ValueError("must be a finite number")
    return value


Seconds: TypeAlias = Annotated[float, AfterValidator(_finite), Field(strict=True, gt=0, le=86_400)]


class _Poll(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True)

    latency: Seconds | None = None
    """Seconds of mean delay aimed at between a task's end and the news of it."""
    interval: Seconds | None = None
    """Seconds between two looks, instead of latency."""
    at_most: Seconds = 300.0
    """Seconds after which any task is looked at again."""

    @model_validator(mode="after")
    def _one_wish(self) -> Self:
        if self.latency is not None and self.interval is not None:
            raise ValueError("takes latency or interval, not both")
        return self


class _Retry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True)

    attempts: Annotated[int, Field(strict=True, ge=1, le=10)] = 3
    """Requests at most for one request of ours, the first included."""
    first: Annotated[float, AfterValidator(_finite), Field(strict=True, ge=0, le=60)] = 0.5
    """Seconds up to which the first pause is drawn; it doubles with each further one."""
    at_most: Annotated[float, AfterValidator(_finite), Field(strict=True, ge=0, le=3600)] = 20.0
    """Seconds up to which a pause may grow."""


class _Submit(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True)

    operation: str | None = None
    """Operation where `client.submit` names none."""
    options: dict[str, Any] = Field(default_factory=dict[str, Any], repr=False)
    """Options of the vendor for that operation, verbatim; options of a call stand above them, key by key."""


class CommonSettings(BaseModel):
    """Settings that every connection takes, in the file and as keywords of `taskbridge.connect` alike."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, defer_build=True, hide_input_in_errors=True, use_attribute_docstrings=True
    )

    request_timeout: Seconds = 30.0
    """Total seconds for one look-up or other call, all its attempts and token renewals included; uploads get more."""
    retry: _Retry = _Retry()
    """What one failing look-up is worth."""
    poll: _Poll = _Poll()
    """How often to look at a task that is not finished."""
    submit: _Submit = _Submit()
    """What this connection submits where a call says nothing."""
    allow_private: Annotated[bool, Field(strict=True)] = False
    """Fetch documents and files from this machine and from private networks too, where a link leads there."""
    requests_per_second: Annotated[float, AfterValidator(_finite), Field(strict=True, gt=0, le=100_000)] | None = None
    """Requests a second at most over the whole connection."""
    max_in_flight: Annotated[int, Field(strict=True, ge=1, le=1000)] = 32
    """Requests of this connection under way at the same time, at most."""
    max_body: Annotated[int, Field(strict=True, ge=1024, le=1 << 31)] | None = None
    """Bytes of a decoded answer that are read at most; the provider has its own default."""
    strict: Annotated[bool, Field(strict=True)] = False
    """Raise ContractError for a word that the mapping table does not know."""
    allow_http: Annotated[bool, Field(strict=True)] = False
    """Allow plain http for hosts other than this machine."""
    ca_bundle: str | None = None
    """Path of the certificates to trust, instead of the default ones."""
    proxy: SecretStr | None = None
    """URL of the proxy; it may hold a password."""
    webhook_secrets: tuple[SecretStr, ...] = ()
    """Signing secrets of webhooks; several at once for rotation."""
    user_agent_suffix: str | None = None
    """Text after our own User-Agent."""

    def __reduce__(self) -> NoReturn:
        raise TypeError("settings hold credentials and are not pickled; pass the connection's name instead")

    @property
    def retry_policy(self) -> RetryPolicy:
        """`retry` as the core takes it."""
        return RetryPolicy(self.retry.attempts, self.retry.first, self.retry.at_most)

    @property
    def poll_policy(self) -> PollPolicy:
        """`poll` as the core takes it."""
        return PollPolicy(self.poll.latency, self.poll.interval, self.poll.at_most)


@dataclass(frozen=True)
class Connection:
    """One connection of a configuration, not yet checked against its provider.

    Attributes:
        name: Its name.
        provider: Entry-point name of its provider.
        values: What is set, by key; out of repr.
        origins: Where each value came from, by dotted key.
    """

    name: str
    provider: str
    values: Table = field(repr=False)
    origins: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Config:
    """A configuration.

    Attributes:
        path: The file that it was read from, or None.
        connections: By name.
        default: Name of the connection that is meant where none is named.
    """

    path: Path | None
    connections: Mapping[str, Connection]
    default: str | None = None

    def connection(self, name: str | None = None) -> Connection:
        """The connection of that name, or the default one.

        Raises:
            ConfigError: There is none; the nearest names are offered.
        """
        chosen = name or self.default or (next(iter(self.connections)) if len(self.connections) == 1 else None)
        where = f" in {self.path}" if self.path else ""
        if chosen is None:
            raise ConfigError(
                f'name a connection: connect(connection="…"); there are {_listed(self.connections)}{where}'
            )
        if chosen not in self.connections:
            raise ConfigError(
                f"there is no connection {plain(chosen, 60)!r}{where}; "
                f"{_nearest(chosen, self.connections)}add [connections.{_bare(chosen)}] to the file"
            )
        return self.connections[chosen]


# Finding and reading.


def find_config(path: str | os.PathLike[str] | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """The configuration file in force.

    Raises:
        ConfigError: There is none; the message says where it was looked for.
    """
    named = os.fspath(path) if path is not None else environ.get("TASKBRIDGE_CONFIG")
    if named:
        chosen = Path(named).expanduser()
        if chosen.is_file():
            return chosen
        origin = "config=" if path is not None else "TASKBRIDGE_CONFIG"
        kind = "is a directory" if chosen.is_dir() else "does not exist"
        raise ConfigError(f"the configuration {chosen} (from {origin}) {kind}", raw=str(chosen))
    from platformdirs import user_config_path  # noqa: PLC0415  # only where no file is named

    places = (Path("taskbridge.toml"), user_config_path("taskbridge") / "taskbridge.toml")
    for place in places:
        if place.is_file():
            return place
    raise ConfigError(
        f"no configuration found; looked at TASKBRIDGE_CONFIG (not set), {places[0].absolute()} and {places[1]}. "
        'Write one, or name the provider and its settings: connect("cloudconvert", api_key=…)'
    )


def load_config(path: str | os.PathLike[str] | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """Read the configuration file in force.

    Args:
        path: The file; None looks in the usual places.
        environ: Environment variables.

    Raises:
        ConfigError: There is no file, or it cannot be used.
    """
    chosen = find_config(path, environ)
    try:
        text = chosen.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        kind = type(error).__name__
        raise ConfigError(f"the configuration {chosen} cannot be read ({kind})", raw=str(chosen)) from None
    return read_config(text, path=chosen, environ=environ)


def read_config(text: str, *, path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """Read the text of a configuration.

    Args:
        text: TOML.
        path: Where it came from, for messages.
        environ: Environment variables.

    Raises:
        ConfigError: It cannot be used.
    """
    place = str(path) if path else "the configuration"
    document, fault = _parse(text)
    if fault:
        raise ConfigError(f"{place} is no valid TOML{fault}", raw=str(path) if path else None)
    if _too_deep(document):
        raise ConfigError(f"{place} nests its tables more than {_MAX_DEPTH} deep")
    _refuse_unknown(document, {"default", "connections"}, f"{place}: ")
    tables = document.get("connections", {})
    if not isinstance(tables, dict):
        raise ConfigError(f"{place}: connections must be tables, such as [connections.invoices]")
    named = cast("dict[str, Any]", tables)
    connections = {name: _connection(name, table, place, environ) for name, table in named.items()}
    default = document.get("default")
    if default is not None and (not isinstance(default, str) or default not in connections):
        raise ConfigError(f"{place}: default must name one of the connections: {_listed(connections)}")
    return Config(path, connections, default)


def _parse(text: str) -> tuple[dict[str, Any], str]:
    # The parser's own messages may quote the text, and the text may hold a credential: only the place is told.
    try:
        return tomllib.loads(text), ""
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at (line \d+, column \d+|end of document)\)", str(error))
        return {}, f" (at {found[1]})" if found else ""
    except (RecursionError, ValueError):
        return {}, " (nested too deep, or a number too long)"


def _too_deep(value: object, level: int = 0) -> bool:
    if level > _MAX_DEPTH:
        return True
    if isinstance(value, dict):
        return any(_too_deep(v, level + 1) for v in cast("dict[str, object]", value).values())
    if isinstance(value, list):
        return any(_too_deep(v, level + 1) for v in cast("list[object]", value))
    return False


def _connection(name: str, table: object, place: str, environ: Mapping[str, str]) -> Connection:
    if CONNECTION_NAME.fullmatch(name) is None:
        raise ConfigError(f"{place}: a connection's name is lower-case letters, digits and dashes: {plain(name, 60)!r}")
    if not isinstance(table, dict):
        raise ConfigError(f"{place}: connections.{name} must be a table")
    values = dict(cast("dict[str, Any]", table))
    origins: dict[str, str] = {}
    _trace(values, place, "", origins)
    _override(name, values, origins, environ)
    _fill_in(values, f"connections.{name}", "", origins, environ)
    provider = values.pop("provider", None)
    if not isinstance(provider, str) or not provider:
        raise ConfigError(f'{place}: connections.{name} names no provider; add provider = "cloudconvert", for example')
    return Connection(name, provider, values, origins)


def _trace(values: Mapping[str, Any], place: str, above: str, origins: dict[str, str]) -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            _trace(cast("dict[str, Any]", value), place, f"{above}{key}.", origins)
        else:
            origins[f"{above}{key}"] = place


def _override(name: str, values: dict[str, Any], origins: dict[str, str], environ: Mapping[str, str]) -> None:
    prefix = f"TASKBRIDGE_{name.replace('-', '_').upper()}__"
    for variable in sorted(environ):
        if not variable.upper().startswith(prefix) or len(variable) == len(prefix):
            continue
        *tables, key = variable[len(prefix) :].lower().split("__")
        target = values
        for table in tables:
            inner = target.get(table)
            target[table] = dict(cast("dict[str, Any]", inner)) if isinstance(inner, dict) else {}
            target = target[table]
        target[key] = _scalar(environ[variable])
        origins[".".join([*tables, key])] = f"{_FROM_VARIABLE}{variable}"


def _scalar(text: str) -> Any:
    """A number or a truth value from the environment; anything else is text."""
    if text in ("true", "false"):
        return text == "true"
    if re.fullmatch(r"-?\d{1,15}", text, re.ASCII):
        return _Numeric(text)
    if re.fullmatch(r"-?\d{1,15}\.\d{1,15}", text, re.ASCII):
        return _Numeric(text)
    return text


class _Numeric(str):
    """Digits from the environment: a number where a number is wanted, else the text that they are."""

    __slots__ = ()


def _fill_in(
    values: dict[str, Any], place: str, above: str, origins: dict[str, str], environ: Mapping[str, str]
) -> None:
    for key, value in values.items():
        dotted = f"{above}{key}"
        if isinstance(value, dict):
            inner = values[key] = dict(cast("dict[str, Any]", value))
            _fill_in(inner, place, f"{dotted}.", origins, environ)
        elif isinstance(value, list):
            items: list[Any] = value  # pyright: ignore[reportUnknownVariableType]  # any TOML
            values[key] = [_expand(item, f"{place}.{dotted}", environ) for item in items]
        elif isinstance(value, str) and "${" in value and not origins.get(dotted, "").startswith(_FROM_VARIABLE):
            values[key] = _expand(value, f"{place}.{dotted}", environ)
            origins[dotted] = f"{_FROM_VARIABLE}{', '.join(_VARIABLE.findall(value))} (named in {origins[dotted]})"


def _expand(value: Any, place: str, environ: Mapping[str, str]) -> Any:
    if not isinstance(value, str):
        return value

    def one(found: re.Match[str]) -> str:
        variable = found[1]
        if not environ.get(variable):
            raise ConfigError(f"{place} takes its value from the environment variable {variable}, which is not set")
        return environ[variable]

    return _VARIABLE.sub(one, value)


# Checking against the models.


def connection_settings(
    connection: Connection, provider: type[Provider[Any]], siblings: Mapping[str, type[Provider[Any]]] | None = None
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
    ours = _validate(CommonSettings, {k: v for k, v in values.items() if k in common}, place, connection)
    theirs = _validate(provider.Settings, {k: v for k, v in values.items() if k in own}, place, connection)
    _check_urls(theirs, ours, place)
    return ours, theirs


def _stray(key: str, place: str, provider: type[Provider[Any]], siblings: Mapping[str, type[Provider[Any]]]) -> str:
    shown = plain(key, 60)
    owners = [name for name, other in siblings.items() if key in other.Settings.model_fields]
    known = [*provider.Settings.model_fields, *CommonSettings.model_fields]
    if owners:
        takes = ", ".join(provider.Settings.model_fields)
        return f"{place}: {shown} is a setting of {' and '.join(owners)}, not of {provider.name}, which takes {takes}"
    return f"{place}: unknown setting {shown!r}; {_nearest(key, known)}{provider.name} takes {', '.join(known)}"


def _validate(model: type[BaseModel], values: dict[str, Any], place: str, connection: Connection) -> Any:
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
            faults.append(f"{plain(key, 120) or 'settings'}{told}: {words}")
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
    return f"unknown key; {_nearest(key, known)}{table} takes {', '.join(known)}"


def _missing(key: str) -> str:
    return f'{key} is missing; add {key} = "${{{key.upper()}}}" to the connection, or pass {key}=…'


def _prepare(model: type[BaseModel], key: str, value: Any, place: str, connection: Connection) -> Any:
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
    if isinstance(value, _Numeric):
        return str(value) if annotation is str or annotation == str | None else _number(value)
    return value


def _numbers(value: Any) -> Any:
    if isinstance(value, _Numeric):
        return _number(value)
    return {k: _numbers(v) for k, v in cast("dict[str, Any]", value).items()} if isinstance(value, dict) else value


def _number(text: str) -> float | int:
    return float(text) if "." in text else int(text)


def _secret(value: object, key: str, place: str, connection: Connection) -> SecretStr:
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
    if text.strip().lower() in _PLACEHOLDERS or _VARIABLE.search(text) or (text.startswith("<") and text.endswith(">")):
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


def _refuse_unknown(table: Mapping[str, Any], known: set[str], place: str) -> None:
    for key in table:
        if key not in known:
            raise ConfigError(
                f"{place}unknown key {plain(key, 60)!r}; {_nearest(key, known)}known are {_listed(known)}"
            )


def _nearest(word: str, known: Any) -> str:
    near = get_close_matches(word, [str(k) for k in known], n=1)
    return f"did you mean {near[0]!r}? " if near else ""


def _listed(names: Any) -> str:
    return ", ".join(sorted(str(n) for n in names)) or "none"


def _bare(name: str) -> str:
    return name if CONNECTION_NAME.fullmatch(name) else "name"


# The network.


@dataclass(frozen=True)
class Network:
    """How a connection reaches the world.

    Attributes:
        ca_bundle: File or folder of certificates to trust, or None for the default ones.
        proxies: URL of the proxy by scheme; out of repr, it may hold a password.
        direct: Hosts that are reached without a proxy, as ``NO_PROXY`` has them.
    """

    ca_bundle: str | None = None
    proxies: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    direct: str = ""

    def proxy_for(self, scheme: str, host: str) -> str | None:
        """URL of the proxy for a host, or None."""
        if self.direct and proxy_bypass_environment(host, {"no": self.direct}):
            return None
        return self.proxies.get(scheme)


def network_of(settings: CommonSettings, environ: Mapping[str, str] = os.environ) -> Network:
    """How a connection reaches the world: its own settings, and the environment only where those say nothing.

    ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY`` count where `proxy` is not set, ``SSL_CERT_FILE`` and
    ``REQUESTS_CA_BUNDLE`` where `ca_bundle` is not. ``.netrc`` is never read.

    Raises:
        ConfigError: The file of certificates does not exist.
    """
    bundle = settings.ca_bundle or environ.get("SSL_CERT_FILE") or environ.get("REQUESTS_CA_BUNDLE") or None
    if bundle is not None and not Path(bundle).exists():
        raise ConfigError(f"ca_bundle {bundle} does not exist")
    if settings.proxy is not None:
        proxy = settings.proxy.get_secret_value()
        return Network(bundle, {"http": proxy, "https": proxy})
    lower = {key.lower(): value for key, value in environ.items() if value}
    proxies = {s: lower[f"{s}_proxy"] for s in ("http", "https") if f"{s}_proxy" in lower}
    return Network(bundle, proxies, f"{lower.get('no_proxy', '')},{_HERE}")
