"""Who observes a connection, and how they are told (`taskbridge.events` has what)."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from threading import Lock
from typing import TYPE_CHECKING, Any, Self

from taskbridge._engine.logs import REQUESTS, TASKS, log
from taskbridge.events import Event, Observation, Observer, RequestEnded

if TYPE_CHECKING:
    from types import TracebackType


# XXDOC Calls that last, told to those who observe.


class Observers:
    """Those who listen to one connection; for any number of threads."""

    __slots__ = ("_lock", "failed", "callbacks")

    def __init__(self) -> None:
        self._lock = Lock()
        self.callbacks: tuple[Observer, ...] = ()
        self.failed: tuple[Observer, ...] = ()  # those that have raised

    @property
    def wants_requests(self) -> bool:
        """Whether anybody wants to know of requests."""
        return bool(self.callbacks) or REQUESTS.isEnabledFor(logging.DEBUG)

    @property
    def wants_tasks(self) -> bool:
        """Whether anybody wants to know of observations."""
        return bool(self.callbacks) or TASKS.isEnabledFor(logging.DEBUG)

    def add(self, observer: Observer) -> None:
        """Let somebody hear; once, however often it joins."""
        with self._lock:
            if observer not in self.callbacks:
                self.callbacks = (*self.callbacks, observer)

    def remove(self, observer: Observer) -> None:
        """Let somebody hear no more."""
        with self._lock:
            self.callbacks = tuple(each for each in self.callbacks if each != observer)
            self.failed = tuple(each for each in self.failed if each != observer)

    def notify(self, event: Event) -> None:
        """Tell everybody."""
        notify_all((self,), event)
        if isinstance(event, RequestEnded):
            if REQUESTS.isEnabledFor(logging.DEBUG):
                log(**_request_record(event))
        elif isinstance(event, Observation) and TASKS.isEnabledFor(logging.DEBUG):
            log(**_observation_record(event))


def notify_all(audiences: Iterable[Observers], event: Event) -> None:
    """Tell the members of several audiences, each once."""
    told: list[Observer] = []  # not a set: what can be called need not be hashable
    for observers in audiences:
        for observer in observers.callbacks:
            if observer in told:
                continue
            told.append(observer)
            try:
                observer(event)
            except Exception as error:  # noqa: BLE001  # a stranger's code; no wait may end by it
                if observer not in observers.failed:
                    observers.failed = (*observers.failed, observer)
                    log("observer-failed", error=type(error).__name__, raised=error)


def _request_record(event: RequestEnded) -> dict[str, Any]:
    outcome = f"HTTP {event.http_status}" if event.http_status is not None else str(event.error)
    return {**event.record(), "path": event.path or "", "outcome": outcome}


def _observation_record(event: Observation) -> dict[str, Any]:
    record = event.record()
    said = event.task.describe() if event.task is not None else f"the look failed with {record['error']}"
    plan = "no look" if event.next_poll_in is None else f"a look in {event.next_poll_in:.2f} s"
    return {**record, "said": said, "plan": f"{plan} ({event.next_poll_reason})" if event.next_poll_reason else plan}


class ObserverHandle:
    """An observer at its place; `close` it, or use it in a ``with`` statement, to end that."""

    def __init__(self, audiences: Iterable[Observers], observer: Observer) -> None:
        self._audiences = tuple(audiences)
        self._observer = observer
        for observers in self._audiences:
            observers.add(observer)

    def close(self) -> None:
        """Tell it no more."""
        for observers in self._audiences:
            observers.remove(self._observer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# Looks apart from a wait.
