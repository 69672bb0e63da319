"""Connections and settings in environment variables, ``TASKBRIDGE_<CONNECTION>__<KEY>``.

The connection's name is in upper case, with an underscore for each dash; two underscores come before each further key.
``TASKBRIDGE_<CONNECTION>__PROVIDER`` alone defines a connection. A name has no underscores, so everything up to the
first two is the name of exactly one connection, unless that has two dashes in a row or one at its end: such a name
looks like a key, and a variable that could mean it is refused.

Errors name the variable, never its value, which may be a credential.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, cast

from taskbridge.errors import ConfigError, printable

FROM_VARIABLE: Final = "environment variable "
"""Beginning of an origin."""

_PREFIX: Final = "TASKBRIDGE_"
_DEFINES: Final = "__PROVIDER"
_NAME: Final = re.compile(r"[A-Z0-9]+(_[A-Z0-9]+)*", re.ASCII)  # of a connection, as it is in a variable
_NUMBER: Final = re.compile(r"-?\d{1,15}(\.\d{1,15})?", re.ASCII)


class Digits(str):
    """Digits from the environment: a number if the setting is one, otherwise text."""

    __slots__ = ()


def variable_of(connection: str, key: str) -> str:
    """Return the variable for a connection's setting."""
    return f"{_prefix(connection)}{key.replace('.', '__').upper()}"


def defined_connections(environ: Mapping[str, str], known: Mapping[str, object]) -> list[str]:
    """Return the names of the connections that the environment defines, besides those that are known.

    Raises:
        ConfigError: A variable defines a connection, but which one is ambiguous.
    """
    found: dict[str, None] = {}
    unclear: list[tuple[str, str]] = []
    for variable in sorted(environ):
        upper = variable.upper()
        if not upper.startswith(_PREFIX) or not upper.endswith(_DEFINES) or not environ[variable]:
            continue
        name = upper[len(_PREFIX) : -len(_DEFINES)]
        if _NAME.fullmatch(name):
            found[name.lower().replace("_", "-")] = None
        else:
            unclear.append((variable, name.partition("__")[0].lower().replace("_", "-")))
    for variable, owner in unclear:
        if owner not in found and owner not in known:  # else it is a key of that connection
            raise ConfigError(
                f"the environment variable {printable(variable, 120)} defines no connection: there, the name of a "
                "connection is letters and digits with single underscores between them"
            )
    return [name for name in found if name not in known]


def override(name: str, values: dict[str, Any], origins: dict[str, str], environ: Mapping[str, str]) -> None:
    """Add the variables of a connection to its values, and where they came from to its origins.

    Raises:
        ConfigError: What a variable means is ambiguous.
    """
    prefix = _prefix(name)
    taken: dict[str, str] = {}
    for variable in sorted(environ, key=lambda each: (each.upper(), each)):  # a setting before the keys within it
        upper = variable.upper()
        if not upper.startswith(prefix) or len(variable) == len(prefix):
            continue
        if _NAME.fullmatch(prefix[len(_PREFIX) : -2]) is None:
            raise ConfigError(
                f"the environment variable {printable(variable, 120)} is ambiguous: two dashes in a row, or one at the "
                f"end, of the connection's name {printable(name, 60)!r} look like the beginning of a key; rename it"
            )
        other = taken.setdefault(upper, variable)
        if environ[other] != environ[variable]:
            raise ConfigError(
                f"the environment variables {printable(other, 120)} and {printable(variable, 120)} differ only in case "
                "and have different values; unset one"
            )
        *tables, last = variable[len(prefix) :].lower().split("__")
        target = values
        for depth, table in enumerate(tables, 1):
            inner = target.get(table)
            if inner and not isinstance(inner, dict):
                _drop_origin(".".join(tables[:depth]), origins, variable)
            target[table] = dict(cast("dict[str, Any]", inner)) if isinstance(inner, dict) else {}
            target = target[table]
        key = next((each for each in target if each.lower() == last), last)  # a vendor's words have capitals
        target[key] = _scalar(environ[variable])
        origins[".".join([*tables, key])] = f"{FROM_VARIABLE}{variable}"


def _drop_origin(key: str, origins: dict[str, str], variable: str) -> None:
    """Forget where a value came from that a variable replaces by a table.

    Raises:
        ConfigError: It came from a variable, too.
    """
    origin = origins.pop(key, "")
    if origin.startswith(FROM_VARIABLE):
        other = printable(origin.removeprefix(FROM_VARIABLE), 120)
        raise ConfigError(
            f"the environment variables {other} and {printable(variable, 120)} give {printable(key, 120)} two values; "
            "unset one"
        )


def _prefix(connection: str) -> str:
    return f"{_PREFIX}{connection.replace('-', '_').upper()}__"


def _scalar(text: str) -> Any:
    """Read a number or a boolean; anything else is text."""
    if text in ("true", "false"):
        return text == "true"
    return Digits(text) if _NUMBER.fullmatch(text) else text
