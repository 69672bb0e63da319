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


def renew_after_fork(owner: X, renew: Callable[[X], None]) -> None:
    """Call a function with an object now, and in every forked child as long as the object exists."""
    key = (id(owner), renew)
    _RENEWALS[key] = ref(owner, lambda _: _RENEWALS.pop(key, None))
    renew(owner)


def _renew_all() -> None:
    for (_, renew), reference in list(_RENEWALS.items()):
        owner = reference()
        if owner is not None:
            renew(owner)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
