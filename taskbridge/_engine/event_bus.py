"""What a connection was told, by webhooks and by look-ups, and who wants to hear it.

A vendor repeats its deliveries and promises no order, so a connection remembers which events it took in, and which
tasks it knows to have ended. Both records live in memory, hold the newest `KEPT` entries each, and end with the
process: an application that must not act twice keeps `WebhookEvent.duplicate_key` unique in its own database.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from threading import Lock
from typing import Final, TypeAlias

from taskbridge.models import Task, TaskRef

KEPT: Final = 16_384
"""Entries of each record; the oldest go first."""


TaskUpdate: TypeAlias = Task | TaskRef
"""The truth about a task, or the ref of one that is worth a look."""


Listener: TypeAlias = Callable[[TaskUpdate], object]


class EventBus:
    """The memory of one connection, and those who listen; for any number of threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._taken: dict[str, None] = {}  # in order of arrival
        self._ended: dict[str, None] = {}
        self._listeners: dict[TaskRef | None, list[Listener]] = {}

    # Events.

    def take(self, key: str) -> bool:
        """Take an event in; False where it was taken in before."""
        with self._lock:
            if key in self._taken:
                return False
            _keep(self._taken, key)
            return True

    def give_back(self, key: str) -> None:
        """Take an event as not yet seen, so that the vendor's next delivery of it counts."""
        with self._lock:
            self._taken.pop(key, None)

    # Ends.

    def saw(self, task: Task) -> None:
        """Remember what the vendor said of a task: that it ended, or that it goes on."""
        if task.is_terminal:
            with self._lock:
                _keep(self._ended, task.ref)
        elif self._ended:
            with self._lock:
                self._ended.pop(task.ref, None)

    def has_ended(self, ref: TaskRef) -> bool:
        """Whether the task is known to have ended."""
        return ref in self._ended

    # Listeners.

    def listen(self, hear: Listener, ref: TaskRef | None = None) -> Callable[[], None]:
        """Hear of a task, or of all; the result ends it."""
        with self._lock:
            self._listeners.setdefault(ref, []).append(hear)

        def leave() -> None:
            with self._lock:
                around = self._listeners[ref]
                around.remove(hear)
                if not around:
                    del self._listeners[ref]

        return leave

    def tell(self, told: TaskUpdate) -> None:
        """Tell those who listen."""
        ref = told.ref if isinstance(told, Task) else told
        with self._lock:
            around = [*self._listeners.get(ref, ()), *self._listeners.get(None, ())]
        for hear in around:
            hear(told)


def _keep(record: dict[str, None], key: str) -> None:
    record.pop(key, None)
    record[key] = None
    if len(record) > KEPT:
        del record[next(iter(record))]


@contextmanager
def listening(event_buses: Iterable[EventBus], hear: Listener) -> Generator[None]:
    """Hear of all tasks of several connections, for as long as the block lasts."""
    leaves = [event_bus.listen(hear) for event_bus in event_buses]
    try:
        yield
    finally:
        for leave in leaves:
            leave()
