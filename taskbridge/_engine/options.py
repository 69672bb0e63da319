"""Translates neutral options into a vendor's own, by the provider's table, before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from taskbridge.errors import InvalidInput, UnsupportedFeature, printable
from taskbridge.provider.options import NEUTRAL_OPTIONS, check_option_name, normalize_option
from taskbridge.provider.submission import NATIVE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge._engine.connection import Connection


def translate_options(connection: Connection, operation: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the vendor's own options for the neutral options of an operation.

    Raises:
        InvalidInput: The operation has no such option, or it cannot have such a value.
        UnsupportedFeature: The vendor cannot do this; the message names what it can.
    """
    translated: dict[str, Any] = {}
    for name, value in given.items():
        _check_name(operation, name)
        translated = merge_options(translated, _translate(connection, operation, name, normalize_option(name, value)))
    return translated


def merge_options(base: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with others above them, key by key, in nested objects too."""
    merged = dict(base)
    for key, value in above.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            value = merge_options(cast("dict[str, Any]", below), cast("dict[str, Any]", value))  # noqa: PLW2901  # the merged one
        merged[key] = value
    return merged


def _check_name(operation: str, name: str) -> None:
    check_option_name(name)
    if operation.startswith(NATIVE):
        raise InvalidInput(f"{name} belongs to neutral operations; {NATIVE}… takes the vendor's own options only")
    taken = NEUTRAL_OPTIONS.get(operation, ())
    if name not in taken:
        raise InvalidInput(f"{printable(operation, 60)} has no option {name}; it has {', '.join(taken) or 'none'}")


def _translate(connection: Connection, operation: str, name: str, value: str | int) -> dict[str, Any]:
    provider = connection.provider
    table = provider.capabilities.options.get(operation, {})
    row = table.get(name)
    if row is None:
        problem = f"{provider.title} has no {name} for {operation}; it has {', '.join(table) or 'no neutral option'}"
    elif isinstance(row, str):
        *outer, key = row.split(".")
        own: dict[str, Any] = {key: value}
        for key in reversed(outer):
            own = {key: own}
        return own
    elif value in row:
        return dict(row[str(value)])
    else:
        problem = f"{provider.title} cannot {operation} with {name}={value}; {name} is one of {', '.join(row)}"
    raise UnsupportedFeature(problem, provider=provider.name, connection=connection.name)
