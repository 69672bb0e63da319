"""Who observes a connection, and how they are told (`taskbridge.observing` has what)."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from threading import Lock
from typing import TYPE_CHECKING, Any, Self

from taskbridge._engine.logs import REQUESTS, TASKS, log
from taskbridge.events import Event, Exchange, Observation, Observer

if TYPE_CHECKING:
    from types import TracebackType


# XXDOC Calls that last, told to those who observe.


class Audience:
    """Those who listen to one connection; for any number of threads."""

    __slots__ = ("_lock", "failed", "observers")

    def __init__(self) -> None:
        self._lock = Lock()
        self.observers: tuple[Observer, ...] = ()
        self.failed: tuple[Observer, ...] = ()  # those that have raised

    @property
    def hears_requests(self) -> bool:
        """Whether anybody wants to know of requests."""
        return bool(self.observers) or REQUESTS.isEnabledFor(logging.DEBUG)

    @property
    def hears_tasks(self) -> bool:
        """Whether anybody wants to know of observations."""
        return bool(self.observers) or TASKS.isEnabledFor(logging.DEBUG)

    def join(self, observer: Observer) -> None:
        """Let somebody hear; once, however often it joins."""
        with self._lock:
            if observer not in self.observers:
                self.observers = (*self.observers, observer)

    def leave(self, observer: Observer) -> None:
        """Let somebody hear no more."""
        with self._lock:
            self.observers = tuple(each for each in self.observers if each != observer)
            self.failed = tuple(each for each in self.failed if each != observer)

    def tell(self, event: Event) -> None:
        """Tell everybody."""
        tell_all((self,), event)
        if isinstance(event, Exchange):
            if REQUESTS.isEnabledFor(logging.DEBUG):
                log(**_request_record(event))
        elif isinstance(event, Observation) and TASKS.isEnabledFor(logging.DEBUG):
            log(**_observation_record(event))


def tell_all(audiences: Iterable[Audience], event: Event) -> None:
    """Tell the members of several audiences, each once."""
    told: list[Observer] = []  # not a set: what can be called need not be hashable
    for audience in audiences:
        for observer in audience.observers:
            if observer in told:
                continue
            told.append(observer)
            try:
                observer(event)
            except Exception as error:  # noqa: BLE001  # a stranger's code; no wait may end by it
                if observer not in audience.failed:
                    audience.failed = (*audience.failed, observer)
                    log("observer-failed", error=type(error).__name__, raised=error)


def _request_record(event: Exchange) -> dict[str, Any]:
    outcome = f"HTTP {event.http_status}" if event.http_status is not None else str(event.error)
    return {**event.record(), "path": event.path or "", "outcome": outcome}


def _observation_record(event: Observation) -> dict[str, Any]:
    record = event.record()
    said = event.task.describe() if event.task is not None else f"the look failed with {record['error']}"
    plan = "no look" if event.next_in is None else f"a look in {event.next_in:.2f} s"
    return {**record, "said": said, "plan": f"{plan} ({event.next_why})" if event.next_why else plan}


class Observing:
    """An observer at its place; `close` it, or use it in a ``with`` statement, to end that."""

    def __init__(self, audiences: Iterable[Audience], observer: Observer) -> None:
        self._audiences = tuple(audiences)
        self._observer = observer
        for audience in self._audiences:
            audience.join(observer)

    def close(self) -> None:
        """Tell it no more."""
        for audience in self._audiences:
            audience.leave(self._observer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# Looks apart from a wait.
