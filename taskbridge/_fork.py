"""State that a forked process must not inherit as it is.

A fork copies every lock, but only the thread that forks: a lock that another thread holds stays locked in the child,
and what that thread was about to finish is never finished. So each object with a lock, or with the work of threads,
names a function here that gives it new ones in the child.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final, TypeVar
from weakref import ref

X = TypeVar("X")

_RENEWALS: Final[dict[tuple[int, Callable[[Any], None]], ref[Any]]] = {}
"""The objects, by their id and what renews them; a copy is atomic, so there is no lock."""

_PREPARATIONS: Final[dict[tuple[int, Callable[[Any], None]], ref[Any]]] = {}
"""The objects that get ready for a fork, in the same form."""


def renew_after_fork(owner: X, renew: Callable[[X], None]) -> None:
    """Call a function with an object now, and in every forked child as long as the object exists."""
    _register(_RENEWALS, owner, renew)
    renew(owner)


def prepare_for_fork(owner: X, prepare: Callable[[X], None]) -> None:
    """Call a function with an object before each fork of this process, for what the child must not inherit at all."""
    _register(_PREPARATIONS, owner, prepare)


def _register(calls: dict[tuple[int, Callable[[Any], None]], ref[Any]], owner: X, call: Callable[[X], None]) -> None:
    key = (id(owner), call)
    calls[key] = ref(owner, lambda _: calls.pop(key, None))


def _call_all(calls: dict[tuple[int, Callable[[Any], None]], ref[Any]]) -> None:
    for (_, call), reference in list(calls.items()):
        owner = reference()
        if owner is not None:
            call(owner)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=lambda: _call_all(_PREPARATIONS), after_in_child=lambda: _call_all(_RENEWALS))
