"""Keep credentials out of tracebacks, and out of vendors' texts.

Error reporting tools print the local variables of every frame. So a credential is a `SecretStr` until a provider puts
it into header fields, and a `SecretHeader` from there to the wire. Where another library needs the plain text, its
error is raised again `without_traceback`: no frame that held the text is left in it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast
from urllib.parse import quote, unquote

from taskbridge._redaction import MASK, mask
from taskbridge.errors import TaskbridgeError

E = TypeVar("E", bound=BaseException)
P = ParamSpec("P")
R = TypeVar("R")


# Tracebacks.


class SecretHeader(str):
    """Text of a header field whose repr shows stars."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"'{MASK}'"


class SignedLink(str):
    """A link that is valid for all who have it; its repr shows stars for its query."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"'{self.partition('?')[0]}?{MASK}'"


def without_traceback(error: E) -> E:
    """Strip an error of its traceback, and of causes that are not ours; raise it outside of its ``except`` block."""
    error.__context__ = None
    if not isinstance(error.__cause__, TaskbridgeError):
        error.__cause__ = None
    return error.with_traceback(None)


def strip_tracebacks(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that holds plain credentials or the environment: strip its errors of their traceback."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except TaskbridgeError as error:
            caught = error
        del args, kwargs
        try:
            raise without_traceback(caught)
        finally:
            del caught  # or the error and this frame reference each other

    return call


# Redaction.


def secrets_of(settings: Any, *, leave_out: str = "") -> frozenset[str]:
    """Return the secrets of a settings model but one, in every spelling in which a response may echo them."""
    from pydantic import SecretStr  # noqa: PLC0415  # the settings imported it already

    found: set[str] = set()
    for name, value in settings.__dict__.items():
        values = cast("tuple[object, ...]", value) if isinstance(value, tuple) else (value,)
        if name != leave_out:
            found.update(v.get_secret_value() for v in values if isinstance(v, SecretStr))
    return _spellings(s for s in found if len(s) >= 4)  # shorter ones occur in any text


def secrets_in_url(url: str) -> frozenset[str]:
    """Return the credentials in a URL, in the same spellings; its host and port are none."""
    user_info = url.partition("://")[2].rpartition("@")[0]
    password = user_info.partition(":")[2]
    found = {user_info, unquote(user_info), password, unquote(password)}
    return _spellings(s for s in found if len(s) >= 4)


def secrets_in_headers(headers: Mapping[str, str]) -> frozenset[str]:
    """Return the secrets in header fields: whole values and their words of at least 8 characters."""
    values = headers.values()
    return _spellings(part for value in values for part in (value, *value.split()) if len(part) >= 8)


def _spellings(secrets: Iterable[str]) -> frozenset[str]:
    """Add the percent-encoded and base64 forms."""
    plain = frozenset(secrets)
    encoded = (b64encode(s.encode()).decode().rstrip("=") for s in plain)
    return plain | {quote(s, safe="") for s in plain} | frozenset(encoded)


def redact(value: Any, secrets: frozenset[str], depth: int = 0) -> Any:
    """Replace secrets by stars in a text, or in all texts of a JSON document (cut below 8 levels)."""
    if isinstance(value, str):
        return mask(value, secrets)
    if depth > 8:
        return "…"
    if isinstance(value, Mapping):
        pairs: Mapping[Any, Any] = value  # pyright: ignore[reportUnknownVariableType]  # any JSON
        return {redact(k, secrets, depth + 1): redact(v, secrets, depth + 1) for k, v in pairs.items()}
    if isinstance(value, list):
        items: list[Any] = value  # pyright: ignore[reportUnknownVariableType]  # any JSON
        return [redact(v, secrets, depth + 1) for v in items]
    return value
