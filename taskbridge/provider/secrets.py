"""Keeping credentials out of tracebacks: people's error reports print what every frame holds.

A credential is a `SecretStr` until a provider makes header fields of it, and `SecretHeader` from there to the wire. Where a
library below needs it as it is, the error that comes out of there is made `without_traceback`: its traceback begins where we let it
pass, and shows no frame of those that held it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast
from urllib.parse import quote

from taskbridge.errors import TaskbridgeError

__all__ = ["SecretHeader", "without_traceback", "redact_errors"]

E = TypeVar("E", bound=BaseException)


P = ParamSpec("P")


R = TypeVar("R")


class SecretHeader(str):
    """A text that goes into a header as it is, and shows as stars wherever it is only looked at."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def without_traceback(error: E) -> E:
    """An error without the frames that it went through, and without the strangers that it came from.

    Args:
        error: To be raised anew, outside of the ``except`` that caught it.
    """
    error.__context__ = None
    if not isinstance(error.__cause__, TaskbridgeError):
        error.__cause__ = None
    return error.with_traceback(None)


def redact_errors(function: Callable[P, R]) -> Callable[P, R]:
    """A function that holds credentials in plain, or the environment: its errors are ours, and bare."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except TaskbridgeError as error:
            fault = error
        del args, kwargs
        try:
            raise without_traceback(fault)
        finally:
            del fault  # or the error and this frame hold each other

    return call


def secrets_of(settings: Any) -> frozenset[str]:
    from pydantic import SecretStr  # noqa: PLC0415  # the settings brought it already

    found: set[str] = set()
    for value in settings.__dict__.values():
        values = cast("tuple[object, ...]", value) if isinstance(value, tuple) else (value,)
        found.update(v.get_secret_value() for v in values if isinstance(v, SecretStr))
    return _spelt(s for s in found if len(s) >= 4)  # shorter ones are words of every text


def secrets_in_headers(headers: Mapping[str, str]) -> frozenset[str]:
    values = headers.values()
    return _spelt(part for value in values for part in (value, *value.split()) if len(part) >= 8)


def _spelt(secrets: Iterable[str]) -> frozenset[str]:
    """Secrets, also as an echo may spell them: percent-encoded, or in base64."""
    plain_ones = frozenset(secrets)
    encoded = (b64encode(s.encode()).decode().rstrip("=") for s in plain_ones)
    return plain_ones | {quote(s, safe="") for s in plain_ones} | frozenset(encoded)


def scrub(value: Any, secrets: frozenset[str], depth: int = 0) -> Any:
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, "***")
        return value
    if depth > 8:
        return "…"
    if isinstance(value, Mapping):
        pairs: Mapping[Any, Any] = value  # pyright: ignore[reportUnknownVariableType]  # any JSON
        return {scrub(k, secrets, depth + 1): scrub(v, secrets, depth + 1) for k, v in pairs.items()}
    if isinstance(value, list):
        items: list[Any] = value  # pyright: ignore[reportUnknownVariableType]  # any JSON
        return [scrub(v, secrets, depth + 1) for v in items]
    return value
