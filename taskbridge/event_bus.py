"""What one connection knows from outside a poll, and who is notified of it.

A vendor repeats its webhook deliveries and promises no order. So a connection remembers which events it has processed
and which tasks have ended. `MemoryEventBus` keeps both in memory: the newest `KEPT` entries each, which end with the
process. Processes that receive the webhooks of one account can share what they have processed by an `EventBus` of their
own; `taskbridge.store.Store.event_bus` is one, and `taskbridge.testing.check_event_bus` checks others.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from threading import Lock
from typing import Final, Protocol, TypeAlias, runtime_checkable

from taskbridge._fork import renew_after_fork
from taskbridge.models import Task, TaskRef

__all__ = ["EventBus", "Listener", "MemoryEventBus", "TaskUpdate"]

KEPT: Final = 16_384
"""Entries of each record; the oldest are dropped first."""

_LONGEST_KEY: Final = 200  # characters; a longer key is remembered by its digest

TaskUpdate: TypeAlias = Task | TaskRef | None
"""A snapshot that is known to be true, or the ref of a task that should be polled now; None asks to plan anew."""

Listener: TypeAlias = Callable[[TaskUpdate], object]


@runtime_checkable
class EventBus(Protocol):
    """The events of one connection; any number of threads use it at the same time.

    An implementation may derive from `MemoryEventBus` and replace what processes are to share: mostly `claim`,
    `settle`, `is_settled`, `release` and `doubt`. An error that one of these raises ends the call of `ingest`.
    """

    @property
    def blocks(self) -> bool:
        """Whether the methods from `claim` to `doubt` may block, so that asyncio calls them in a thread."""
        ...

    def claim(self, key: str) -> bool:
        """Start to process an event; False if it has been processed before, or another caller is doing so.

        A claim that is neither settled nor released, because the process ended, should expire after some minutes; until
        then, `ingest` asks the vendor to deliver the event again.

        Args:
            key: `WebhookEvent.duplicate_key`, of any length.
        """
        ...

    def settle(self, key: str) -> None:
        """Note that a claimed event has been processed, so that the vendor's further deliveries do not count."""
        ...

    def is_settled(self, key: str) -> bool:
        """Whether an event has been processed; False if it is only claimed."""
        ...

    def release(self, key: str) -> None:
        """Treat an event as not yet processed, so that the vendor's next delivery counts."""
        ...

    def doubt(self, key: str) -> bool:
        """Note that the vendor does not know the task of an event; False if it was so before."""
        ...

    def record(self, task: Task) -> None:
        """Remember whether the vendor said that a task has ended; called for each snapshot, so it must be quick."""
        ...

    def has_ended(self, ref: TaskRef) -> bool:
        """Whether the task is known to have ended; it must be quick."""
        ...

    def listen(self, listener: Listener, ref: TaskRef | None = None) -> Callable[[], None]:
        """Notify a listener of this process of one task, or of all; call the result to stop."""
        ...

    def publish(self, update: TaskUpdate) -> None:
        """Notify the listeners of this process, in any thread; None notifies all of them."""
        ...


class MemoryEventBus:
    """An `EventBus` in the memory of one process, which is what a connection has by default."""

    blocks = False

    def __init__(self) -> None:
        self._settled: dict[str, None] = {}  # duplicate keys, the oldest first
        self._doubted: dict[str, None] = {}  # duplicate keys
        self._ended: dict[str, None] = {}  # refs
        renew_after_fork(self, MemoryEventBus._begin_process)

    def _begin_process(self) -> None:
        self._lock = Lock()
        self._claimed: dict[str, None] = {}  # duplicate keys, the oldest first; a parent processes its own
        self._listeners: dict[TaskRef | None, list[Listener]] = {}  # those of a parent wait in its threads

    def claim(self, key: str) -> bool:
        """Start to process an event; False if it has been processed before, or another caller is doing so."""
        key = _short(key)
        with self._lock:
            if key in self._claimed or key in self._settled:
                return False
            _keep(self._claimed, key)
            return True

    def settle(self, key: str) -> None:
        """Note that a claimed event has been processed, so that the vendor's further deliveries do not count."""
        key = _short(key)
        with self._lock:
            self._claimed.pop(key, None)
            _keep(self._settled, key)

    def is_settled(self, key: str) -> bool:
        """Whether an event has been processed; False if it is only claimed."""
        return _short(key) in self._settled

    def release(self, key: str) -> None:
        """Treat an event as not yet processed, so that the vendor's next delivery counts."""
        key = _short(key)
        with self._lock:
            self._claimed.pop(key, None)
            self._settled.pop(key, None)

    def doubt(self, key: str) -> bool:
        """Note that the vendor does not know the task of an event; False if it was so before."""
        key = _short(key)
        with self._lock:
            is_first = key not in self._doubted
            _keep(self._doubted, key)
            return is_first

    def record(self, task: Task) -> None:
        """Remember whether the vendor said that a task has ended."""
        if task.is_terminal:
            with self._lock:
                _keep(self._ended, _short(task.ref))
        elif self._ended:
            with self._lock:
                self._ended.pop(_short(task.ref), None)

    def has_ended(self, ref: TaskRef) -> bool:
        """Whether the task is known to have ended."""
        return _short(ref) in self._ended

    def listen(self, listener: Listener, ref: TaskRef | None = None) -> Callable[[], None]:
        """Notify a listener of one task, or of all; call the result to stop."""
        with self._lock:
            self._listeners.setdefault(ref, []).append(listener)

        def stop() -> None:
            with self._lock:
                others = self._listeners.get(ref, [])
                if listener in others:
                    others.remove(listener)
                if not others:
                    self._listeners.pop(ref, None)

        return stop

    def publish(self, update: TaskUpdate) -> None:
        """Notify the listeners; those of one task also if every wait should plan anew."""
        ref = update.ref if isinstance(update, Task) else update
        with self._lock:
            if ref is None:
                listeners = [listener for each in self._listeners.values() for listener in each]
            else:
                listeners = [*self._listeners.get(ref, ()), *self._listeners.get(None, ())]
        for listener in listeners:
            listener(update)


def _short(key: str) -> str:
    return key if len(key) <= _LONGEST_KEY else sha256(key.encode(errors="backslashreplace")).hexdigest()


def _keep(record: dict[str, None], key: str) -> None:
    record.pop(key, None)
    record[key] = None
    if len(record) > KEPT:
        del record[next(iter(record))]
