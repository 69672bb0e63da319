"""Read connections from a TOML file and the environment; their values are not validated yet.

The file is the first of: `config=`, ``TASKBRIDGE_CONFIG``, ``./taskbridge.toml``, ``taskbridge.toml`` in the user's
configuration folder. ``${VAR}`` in a text inserts an environment variable; anything else in ``${…}`` is an error.
Variables override the file's values and define connections of their own (`taskbridge._config.environment`), also
without any file.

Errors name the key and the rule, never the value: the value of a mistyped key may be a credential.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

from taskbridge._config.environment import FROM_VARIABLE, defined_connections, override, variable_of
from taskbridge.errors import ConfigError, printable
from taskbridge.provider.secrets import strip_tracebacks

CONNECTION_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]*", re.ASCII)
VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
PLACEHOLDER: Final = re.compile(r"\$\{[^}]*\}")  # also one that is no variable, such as ${A-B}
_MAX_DEPTH: Final = 8  # nested tables; ours need three

Table: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class ConnectionConfig:
    """One connection of a configuration, not yet validated against its provider."""

    name: str
    provider: str = field(repr=False)  # entry-point name, if it is not a credential in the wrong place
    values: Table = field(repr=False)
    origins: Mapping[str, str] = field(default_factory=dict[str, str])  # where each value came from, by dotted key


@dataclass(frozen=True)
class GroupConfig:
    """A group of connections: the first of them that accepts a submission gets it."""

    name: str
    first: tuple[str, ...]  # names of the members, in order
    origin: str


@dataclass(frozen=True)
class Config:
    """A configuration."""

    path: Path | None  # the file that it was read from; None for the environment alone
    connections: Mapping[str, ConnectionConfig]  # by name
    default: str | None = None  # name of the connection or group to use if none is named
    groups: Mapping[str, GroupConfig] = field(default_factory=dict[str, GroupConfig])  # by name

    @property
    def place(self) -> str:
        """Where it was read, for messages."""
        return str(self.path) if self.path else "the environment"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the connections and groups."""
        return (*self.connections, *self.groups)

    def find(self, name: str | None = None) -> ConnectionConfig | GroupConfig:
        """Return the connection or group of that name, or the default one.

        Raises:
            ConfigError: There is none; the message offers the nearest name.
        """
        chosen = name or self.default or (self.names[0] if len(self.names) == 1 else None)
        if chosen is None:
            known = _listed(self.names)
            raise ConfigError(f'name a connection: connect(connection="…"); there are {known} in {self.place}')
        if chosen not in self.names:
            table = chosen if CONNECTION_NAME.fullmatch(chosen) else "name"
            remedy = f"add [connections.{table}] to the file" if self.path else f"set {variable_of(table, 'provider')}"
            hint = f"{nearest(chosen, self.names)}{remedy}"
            raise ConfigError(f"there is no connection {printable(chosen, 60)!r} in {self.place}; {hint}")
        return self.connections.get(chosen) or self.groups[chosen]

    def connection(self, name: str | None = None) -> ConnectionConfig:
        """Return the connection of that name, or the default one.

        Raises:
            ConfigError: There is none, or it is a group.
        """
        found = self.find(name)
        if isinstance(found, ConnectionConfig):
            return found
        raise ConfigError(f"{found.name!r} is a group; name one of its members: {', '.join(found.first)}")


# Finding and reading.


@strip_tracebacks
def find_config(path: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None) -> Path:
    """Return the path of the configuration file in force.

    Raises:
        ConfigError: There is none; the message lists the places that were searched.
    """
    named = os.fspath(path) if path is not None else _environment(environ).get("TASKBRIDGE_CONFIG")
    if named:
        chosen = Path(named).expanduser()
        if chosen.is_file():
            return chosen
        origin = "" if path is not None else " (from TASKBRIDGE_CONFIG)"
        kind = "is a directory" if chosen.is_dir() else "does not exist"
        raise ConfigError(f"the configuration {chosen}{origin} {kind}", raw=str(chosen))
    places = _usual_places()
    for place in places:
        if place.is_file():
            return place
    raise ConfigError(
        f"no configuration found; tried TASKBRIDGE_CONFIG (not set), {places[0].absolute()} and {places[1]}. "
        "Write one (taskbridge init begins it), define a connection by TASKBRIDGE_<NAME>__PROVIDER in the environment, "
        'or name the provider and its settings: connect("cloudconvert", api_key=…)'
    )


def _usual_places() -> tuple[Path, Path]:
    from platformdirs import user_config_path  # noqa: PLC0415  # only if no file is named

    return Path("taskbridge.toml"), user_config_path("taskbridge") / "taskbridge.toml"


@strip_tracebacks
def load_config(path: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """Read the configuration in force; without a path, search the usual places, then the environment alone.

    Raises:
        ConfigError: There is none, or it cannot be used.
    """
    variables = _environment(environ)
    is_named = path is not None or variables.get("TASKBRIDGE_CONFIG")
    if not is_named and not any(place.is_file() for place in _usual_places()) and defined_connections(variables, {}):
        return read_config("", environ=environ)
    chosen = find_config(path, environ)
    try:
        text = chosen.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        kind = type(error).__name__
        raise ConfigError(f"the configuration {chosen} cannot be read ({kind})", raw=str(chosen)) from None
    return read_config(text, path=chosen, environ=environ)


@strip_tracebacks
def read_config(text: str, *, path: Path | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """Read the text of a configuration, and what the environment adds to it; the path is for messages.

    Raises:
        ConfigError: It cannot be used.
    """
    place = str(path) if path else "the configuration"
    document, problem = _parse(text.removeprefix("\ufeff"))  # some editors put a byte order mark there
    if problem:
        raise ConfigError(f"{place} is no valid TOML{problem}", raw=str(path) if path else None)
    if _too_deep(document):
        raise ConfigError(f"{place} nests its tables more than {_MAX_DEPTH} deep")
    known = ("connections", "default")
    for key in document:
        if key not in known:
            hint = f"{nearest(key, known)}known are {_listed(known)}"
            raise ConfigError(f"{place}: unknown key {printable(key, 60)!r}; {hint}")
    tables = document.get("connections", {})
    if not isinstance(tables, dict):
        raise ConfigError(f"{place}: connections must be tables, such as [connections.invoices]")
    variables = _environment(environ)
    named: dict[str, Any] = dict(cast("dict[str, Any]", tables))
    named |= {name: {} for name in defined_connections(variables, named)}
    read = [_connection(name, table, place, variables) for name, table in named.items()]
    connections = {each.name: each for each in read if isinstance(each, ConnectionConfig)}
    groups = {each.name: each for each in read if isinstance(each, GroupConfig)}
    for group in groups.values():
        _check_members(group, connections, groups)
    default = document.get("default")
    if default is not None and (not isinstance(default, str) or default not in named):
        raise ConfigError(f"{place}: default must name one of the connections: {_listed(named)}")
    return Config(path, connections, default, groups)


def _environment(environ: Mapping[str, str] | None) -> Mapping[str, str]:
    return os.environ if environ is None else environ


def _parse(text: str) -> tuple[dict[str, Any], str]:
    # The parser's messages may quote the text, which may contain a credential: keep only the place.
    try:
        return tomllib.loads(text), ""
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at (line \d+, column \d+|end of document)\)", str(error))
        return {}, f" (at {found[1]})" if found else ""
    except (RecursionError, ValueError):
        return {}, " (nested too deep, or a number too long)"


def _too_deep(value: object, level: int = 0) -> bool:
    if level > _MAX_DEPTH or not isinstance(value, dict | list):
        return level > _MAX_DEPTH
    inner = cast("dict[str, object]", value).values() if isinstance(value, dict) else cast("list[object]", value)
    return any(_too_deep(each, level + 1) for each in inner)


def _connection(name: str, table: object, place: str, environ: Mapping[str, str]) -> ConnectionConfig | GroupConfig:
    if CONNECTION_NAME.fullmatch(name) is None:
        rule = "a connection's name is lower-case letters, digits and dashes"
        raise ConfigError(f"{place}: {rule}: {printable(name, 60)!r}")
    if not isinstance(table, dict):
        raise ConfigError(f"{place}: connections.{name} must be a table")
    values = dict(cast("dict[str, Any]", table))
    origins = {key: place for key, _ in leaves(values)}
    override(name, values, origins, environ)
    _expand_variables(values, "", origins, environ)
    if "first" in values:
        return _group(name, values, origins)
    provider = values.pop("provider", None)
    if isinstance(provider, Unset):
        raise ConfigError(provider.problem(f"connections.{name}.provider"))
    if not isinstance(provider, str) or not provider:
        raise ConfigError(f'{place}: connections.{name} names no provider; add provider = "cloudconvert", for example')
    return ConnectionConfig(name, provider, values, origins)


@strip_tracebacks
def provider_connection(provider: str, settings: Table, environ: Mapping[str, str] | None = None) -> ConnectionConfig:
    """Return the connection that ``connect(provider, **settings)`` means: it is named after its provider.

    Raises:
        ConfigError: The environment says that the connection of that name has another provider, or is ambiguous.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    override(provider, values, origins, _environment(environ))
    if values.pop("provider", provider) != provider:
        variable = origins["provider"].removeprefix(FROM_VARIABLE)
        raise ConfigError(
            f"the environment variable {variable} gives the connection {provider!r} another provider; rename that "
            f"connection, or open it: connect(connection={provider!r})"
        )
    return with_keywords(ConnectionConfig(provider, provider, values, origins), settings)


def with_keywords(connection: ConnectionConfig, settings: Table) -> ConnectionConfig:
    """Return a connection with settings that were passed to `connect`, which replace whole tables."""
    kept = {key: origin for key, origin in connection.origins.items() if key.partition(".")[0] not in settings}
    origins = {**kept, **dict.fromkeys(settings, "connect()")}
    return ConnectionConfig(connection.name, connection.provider, {**connection.values, **settings}, origins)


def _group(name: str, values: Mapping[str, Any], origins: Mapping[str, str]) -> GroupConfig:
    where = f"{origins['first']}: connections.{name}"
    others = sorted(printable(key, 60) for key in values if key != "first")
    if "provider" in values:
        raise ConfigError(f"{where} has provider and first: it is one connection, or a group of others, not both")
    if others:
        raise ConfigError(
            f"{where} is a group, which takes first only, not {', '.join(others)}; set it for its members"
        )
    given: Any = values["first"]
    if not isinstance(given, list) or not all(isinstance(each, str) for each in cast("list[object]", given)):
        raise ConfigError(f'{where}.first must be a list of connections, such as ["scans", "layouts"]')
    members = cast("list[str]", given)
    if not members:
        raise ConfigError(f"{where}.first is empty; name the connections that may take a submission, in order")
    if len(set(members)) < len(members):
        raise ConfigError(f"{where}.first names a connection twice")
    return GroupConfig(name, tuple(members), origins["first"])


def _check_members(
    group: GroupConfig, connections: Mapping[str, ConnectionConfig], groups: Mapping[str, GroupConfig]
) -> None:
    where = f"{group.origin}: connections.{group.name}.first"
    for member in group.first:
        if member in groups:
            which = "the group itself" if member == group.name else "a group, too"
            raise ConfigError(f"{where} names {member!r}, which is {which}; a group consists of connections only")
        if member not in connections:
            hint = f"{nearest(member, connections)}there are {_listed(connections)}"
            raise ConfigError(f"{where} names {printable(member, 60)!r}, which is no connection; {hint}")


def leaves(values: Table, above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of all tables, by dotted key."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(cast("dict[str, Any]", value), f"{above}{key}.")
        else:
            yield f"{above}{key}", value


class Unset(str):
    """Text with a ``${VAR}`` that is not set or no name; an error only when its connection is used."""

    __slots__ = ()

    def problem(self, key: str) -> str:
        """Return what is wrong with the value of this dotted key."""
        if not _are_variables(self):
            return f"{key} has something in ${{…}} that is no name of a variable: letters, digits and underscores"
        missing = ", ".join(dict.fromkeys(VARIABLE.findall(self)))
        return f"{key} takes its value from the environment variable {missing}, which is not set"


def unset_values(values: Table) -> Iterator[tuple[str, Unset]]:
    """Yield the values with a variable that is not set, by dotted key."""
    for key, value in leaves(values):
        for item in cast("list[object]", value if isinstance(value, list) else [value]):
            inner = cast("dict[str, object]", item).values() if isinstance(item, dict) else [item]
            yield from ((key, each) for each in inner if isinstance(each, Unset))


def _expand_variables(values: dict[str, Any], above: str, origins: dict[str, str], environ: Mapping[str, str]) -> None:
    for key, value in values.items():
        dotted = f"{above}{key}"
        if isinstance(value, dict):
            inner = values[key] = dict(cast("dict[str, Any]", value))
            _expand_variables(inner, f"{dotted}.", origins, environ)
        elif isinstance(value, list):
            items: list[Any] = value  # pyright: ignore[reportUnknownVariableType]  # any TOML
            values[key] = [_expand(item, environ) for item in items]
        elif isinstance(value, str) and "${" in value and not origins.get(dotted, "").startswith(FROM_VARIABLE):
            values[key] = _expand(value, environ)
            if names := ", ".join(VARIABLE.findall(value)):
                origins[dotted] = f"{FROM_VARIABLE}{names} (named in {origins[dotted]})"


def _expand(value: Any, environ: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _expand(each, environ) for key, each in cast("dict[str, Any]", value).items()}
    if not isinstance(value, str):
        return value
    known = {name: environ.get(name, "") for name in VARIABLE.findall(value)}
    if not all(known.values()) or not _are_variables(value):
        return Unset(value)
    return VARIABLE.sub(lambda found: known[found[1]], value)


def _are_variables(text: str) -> bool:
    return all(VARIABLE.fullmatch(each) for each in PLACEHOLDER.findall(text))


def nearest(word: str, known: Any) -> str:
    """Return the beginning of a hint with the nearest known word; empty if none is near."""
    near = get_close_matches(word, [str(k) for k in known], n=1)
    return f"did you mean {near[0]!r}? " if near else ""


def _listed(names: Any) -> str:
    return ", ".join(sorted(str(n) for n in names)) or "none"
