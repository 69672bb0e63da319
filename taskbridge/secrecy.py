"""Keeping credentials out of tracebacks: people's error reports print what every frame holds.

A credential is a `SecretStr` until a provider makes header fields of it, and `Hidden` from there to the wire. Where a
library below needs it as it is, the error that comes out of there is made `bare`: its traceback begins where we let it
pass, and shows no frame of those that held it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from taskbridge.errors import TaskbridgeError

__all__ = ["Hidden", "bare", "guarded"]

E = TypeVar("E", bound=BaseException)
P = ParamSpec("P")
R = TypeVar("R")


class Hidden(str):
    """A text that goes into a header as it is, and shows as stars wherever it is only looked at."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def bare(error: E) -> E:
    """An error without the frames that it went through, and without the strangers that it came from.

    Args:
        error: To be raised anew, outside of the ``except`` that caught it.
    """
    error.__context__ = None
    if not isinstance(error.__cause__, TaskbridgeError):
        error.__cause__ = None
    return error.with_traceback(None)


def guarded(function: Callable[P, R]) -> Callable[P, R]:
    """A function that holds credentials in plain, or the environment: its errors are ours, and bare."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except TaskbridgeError as error:
            fault = error
        del args, kwargs
        try:
            raise bare(fault)
        finally:
            del fault  # or the error and this frame hold each other

    return call
