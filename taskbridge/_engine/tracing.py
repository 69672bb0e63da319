"""Calls and single polls, as reported to observers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Final, Self

from taskbridge._engine.connection import Connection
from taskbridge._engine.observers import Observers, notify_all
from taskbridge.errors import TaskbridgeError
from taskbridge.events import (
    CallEnded,
    CallStarted,
    Observation,
    ObservationSource,
    PollReason,
    RequestEnded,
    WaitOutcome,
)
from taskbridge.models import Outcome, Task, TaskRef
from taskbridge.provider.clock import Clock

_NUMBERS: Final = count(1)


class CallSpan:
    """Notifies observers when a call starts and ends; does nothing for connections without observers."""

    def __init__(
        self,
        name: str,
        connections: Iterable[Connection],
        clock: Clock,
        refs: Iterable[TaskRef] = (),
        timeout: float | None = None,
    ) -> None:
        self._name = name
        self._connections = tuple(connections)
        self._clock = clock
        self._refs = refs  # read only if there are observers
        self._timeout = timeout  # seconds; None for no deadline
        self._groups: tuple[Observers, ...] = ()
        self._number = 0
        self._started = 0.0

    def record_outcome(self, outcome: Outcome) -> None:
        """Notify observers that waiting for one of the tasks ended."""
        if self._groups:
            notify_all(self._groups, WaitOutcome(self._number, self._clock.now(), outcome))

    def __enter__(self) -> Self:
        self._groups = tuple(each.observers for each in self._connections if each.observers.callbacks)
        if self._groups:
            self._number, self._started = next(_NUMBERS), self._clock.monotonic()
            names, refs = tuple(each.name for each in self._connections), tuple(self._refs)
            started = CallStarted(self._number, self._clock.now(), self._name, names, refs, self._timeout)
            notify_all(self._groups, started)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._groups:
            duration = self._clock.monotonic() - self._started
            cause = None if isinstance(error, GeneratorExit) else error
            notify_all(self._groups, CallEnded(self._number, self._clock.now(), self._name, duration, cause))


@dataclass(slots=True)
class PollTrace:
    """The facts about a poll in progress, for its `Observation`."""

    ref: TaskRef | None  # None for a page of a list
    poll_reason: PollReason
    began: float  # monotonic seconds
    overdue: float = 0.0  # seconds between the time at which it was due and its start
    requests: list[RequestEnded] = field(default_factory=list[RequestEnded])


def begin_trace(
    connection: Connection, task_id: str | None, poll_reason: PollReason = PollReason.ASKED
) -> PollTrace | None:
    """Return a trace for a request outside of a wait; None if no observer wants it."""
    if not connection.observers.wants_tasks:
        return None
    ref = None if task_id is None else TaskRef.of(connection.name, task_id)
    return PollTrace(ref, poll_reason, connection.clock.monotonic())


def report_observation(
    connection: Connection,
    trace: PollTrace | None,
    source: ObservationSource = ObservationSource.POLL,
    *,
    task: Task | None = None,
    error: TaskbridgeError | None = None,
) -> None:
    """Notify observers of a task's state, learned outside of a wait, or of the error instead."""
    if trace is None:
        return
    ref = task.ref if task is not None else trace.ref
    if ref is None:
        return
    observation = Observation(
        time=connection.clock.now(),
        provider=connection.provider.name,
        ref=ref,
        source=source,
        poll_reason=trace.poll_reason,
        task=task,
        error=error,
        requests=tuple(trace.requests),
        duration=connection.clock.monotonic() - trace.began,
    )
    connection.observers.notify(observation)
