"""Whether the rows of the vendor's list are whole tasks, as its provider claims; samples are compared with `get`.

A row that ends a task takes the place of a status request. So the first ended row of each kind, operation and status is
compared with the answer to one, and then one in a hundred. If one differs, no row counts as whole any more.

No I/O.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge.models import Task, TaskFile, TaskStatus

RowKind = tuple[str, "str | None", "TaskStatus"]
"""Rows that are verified together: the prefix of the ids, the operation, and the status."""

_INTERVAL: Final = 100  # rows of which one is compared
_MOST_KINDS: Final = 256  # kinds that are remembered; rows of further ones are not taken as whole


class RowTrust:
    """The state of one connection.

    Args:
        claims: `ListPolling.whole_rows`.
    """

    __slots__ = ("_prefixes", "_used")

    def __init__(self, claims: Mapping[str, str]) -> None:
        self._prefixes = frozenset(claims)
        self._used: dict[RowKind, int] = {}  # verified kinds, and how many of their rows were used

    def covers(self, prefix: str) -> bool:
        """Whether the rows of these ids count as whole."""
        return prefix in self._prefixes

    def can_use(self, kind: RowKind) -> bool:
        """Whether a row of this kind may end its task without being compared."""
        used = self._used.get(kind)
        if used is None:
            return False
        self._used[kind] = used + 1
        return (used + 1) % _INTERVAL != 0

    def can_verify(self, kind: RowKind) -> bool:
        """Whether rows of this kind can be used once one of them was compared."""
        return kind in self._used or len(self._used) < _MOST_KINDS

    def is_verified(self, kind: RowKind) -> bool:
        """Whether a row of this kind was compared."""
        return kind in self._used

    def verify(self, kind: RowKind) -> None:
        """Note that a row of this kind was the same as the answer to a status request."""
        self._used.setdefault(kind, 0)

    def lose(self) -> bool:
        """Take no row as whole any more; return whether any was until now."""
        had, self._prefixes = bool(self._prefixes), frozenset[str]()
        return had


def same(row: Task, task: Task) -> bool:
    """Whether a row says the same about a task as the answer to a status request."""
    return _comparable(row) == _comparable(task)


def _comparable(task: Task) -> Task:
    """Return a task without the queries of its links, which the vendor may sign anew for each answer."""
    result = task.result
    if result is not None and any(file.url for file in result.files):
        files = tuple(_without_query(file) for file in result.files)
        result = replace(result, files=files)
    return replace(task, result=result, subtasks=tuple(map(_comparable, task.subtasks)))


def _without_query(file: TaskFile) -> TaskFile:
    return replace(file, url=file.url and file.url.partition("?")[0])
