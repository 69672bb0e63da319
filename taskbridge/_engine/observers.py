"""Observers of a connection, and how they are notified. See `taskbridge.events` for the events."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from threading import Lock
from typing import Any, Self

from taskbridge._engine.logs import REQUESTS, TASKS, log
from taskbridge._fork import renew_after_fork
from taskbridge.events import Event, Observation, Observer, RequestEnded


class Observers:
    """The observers of one connection; safe to use from any number of threads."""

    __slots__ = ("__weakref__", "_lock", "callbacks", "failed")

    def __init__(self) -> None:
        renew_after_fork(self, Observers._make_lock)
        self.callbacks: tuple[Observer, ...] = ()
        self.failed: tuple[Observer, ...] = ()  # those that have raised

    def _make_lock(self) -> None:
        self._lock = Lock()

    @property
    def wants_tasks(self) -> bool:
        """Whether an observer or the log takes `Observation` events."""
        return bool(self.callbacks) or TASKS.isEnabledFor(logging.DEBUG)

    def add(self, observer: Observer) -> None:
        """Add an observer; adding it again has no effect."""
        with self._lock:
            if observer not in self.callbacks:
                self.callbacks = (*self.callbacks, observer)

    def remove(self, observer: Observer) -> None:
        """Remove an observer."""
        with self._lock:
            self.callbacks = tuple(each for each in self.callbacks if each != observer)
            self.failed = tuple(each for each in self.failed if each != observer)

    def notify(self, event: Event) -> None:
        """Call each observer with the event, and log the event at DEBUG."""
        notify_all((self,), event)
        if isinstance(event, RequestEnded):
            if REQUESTS.isEnabledFor(logging.DEBUG):
                log(**_request_record(event))
        elif isinstance(event, Observation) and TASKS.isEnabledFor(logging.DEBUG):
            log(**_observation_record(event))


def notify_all(groups: Iterable[Observers], event: Event) -> None:
    """Call the observers of several connections with an event, each observer once."""
    notified: list[Observer] = []  # not a set: a callable need not be hashable
    for observers in groups:
        for observer in observers.callbacks:
            if observer in notified:
                continue
            notified.append(observer)
            try:
                observer(event)
            except Exception as error:  # noqa: BLE001  # application code; it must not end a wait
                if observer not in observers.failed:
                    observers.failed = (*observers.failed, observer)
                    log("observer-failed", error=type(error).__name__, raised=error)


def _request_record(event: RequestEnded) -> dict[str, Any]:
    outcome = f"HTTP {event.http_status}" if event.http_status is not None else str(event.error)
    return {**event.record(), "path": event.path or "", "outcome": outcome}


def _observation_record(event: Observation) -> dict[str, Any]:
    record = event.record()
    result = event.task.describe() if event.task is not None else f"the request failed with {record['error']}"
    plan = "none" if event.next_poll_in is None else f"in {event.next_poll_in:.2f} s"
    reason = f" ({event.next_poll_reason})" if event.next_poll_reason else ""
    return {**record, "result": result, "plan": f"{plan}{reason}"}


class ObserverHandle:
    """A registered observer; `close` it, or use it in a ``with`` statement, to remove the observer."""

    def __init__(self, groups: Iterable[Observers], observer: Observer) -> None:
        self._groups = tuple(groups)
        self._observer = observer
        for observers in self._groups:
            observers.add(observer)

    def close(self) -> None:
        """Remove the observer."""
        for observers in self._groups:
            observers.remove(self._observer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
