"""What tasks cost, added up by unit; each task counts once, however often and in whatever way it is seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from threading import Lock
from typing import Final

from taskbridge._fork import renew_after_fork
from taskbridge.models import Task, UsageUnit

KEPT: Final = 65_536
"""Tasks that a meter remembers; the oldest are forgotten first, and would count again."""


class UsageMeter:
    """Adds up the usage of tasks; for any number of threads.

    A job counts by its tasks, so that a task which is also seen by itself does not count twice, and a task has one
    vendor's id, whichever shared id was used. A restarted task counts again, because the vendor charges again.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], float] = {}  # task and unit -> its amount, in order of arrival
        self._totals: dict[UsageUnit, float] = {}
        renew_after_fork(self, UsageMeter._make_lock)

    def _make_lock(self) -> None:
        self._lock = Lock()

    @property
    def totals(self) -> Mapping[UsageUnit, float]:
        """The sums by unit."""
        with self._lock:
            return dict(self._totals)

    def add(self, task: Task) -> Mapping[UsageUnit, float]:
        """Add what a snapshot shows, and return how much of it is new; a figure that falls changes nothing."""
        grown: dict[UsageUnit, float] = {}
        with self._lock:
            for part in _charged(task):
                assert part.usage is not None  # noqa: S101  # see `_charged`
                amount, unit = part.usage.amount, part.usage.unit
                key = (part.connection, part.native_id, part.restarts, unit)
                known = self._known.pop(key, 0)
                self._known[key] = max(known, amount)
                if amount > known:
                    grown[unit] = grown.get(unit, 0) + amount - known
                if len(self._known) > KEPT:
                    del self._known[next(iter(self._known))]
            for unit, more in grown.items():
                self._totals[unit] = self._totals.get(unit, 0) + more
        return grown


def _charged(task: Task) -> Iterator[Task]:
    """Yield the tasks with a figure that a snapshot shows: those of a job, else the task itself."""
    parts = [part for subtask in task.subtasks for part in _charged(subtask)]
    if parts:
        yield from parts
    elif task.usage is not None:
        yield task
