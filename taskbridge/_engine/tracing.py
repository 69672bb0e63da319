"""Calls and single polls, as reported to observers."""

from __future__ import annotations

from collections.abc import Iterable
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
    """Notifies observers when a call starts and ends; does nothing for connections without observers.

    Args:
        name: Name of the method.
        connections: The connections that the call uses.
        clock: The clock.
        refs: The tasks that the call is about; read only if there are observers.
        timeout: Seconds to wait at most; None for no deadline.
    """

    def __init__(
        self,
        name: str,
        connections: Iterable[Connection],
        clock: Clock,
        refs: Iterable[TaskRef] = (),
        timeout: float | None = None,
    ) -> None:
        self._name = name
        self._connections = {connection.name: connection for connection in connections}
        self._clock = clock
        self._refs = refs
        self._timeout = timeout
        self._groups: tuple[Observers, ...] = ()
        self._number = 0
        self._started = 0.0

    def start(self) -> None:
        """Notify observers that the call starts."""
        self._groups = tuple(each.observers for each in self._connections.values() if each.observers.callbacks)
        if self._groups:
            self._number, self._started = next(_NUMBERS), self._clock.monotonic()
            refs = tuple(self._refs)
            names = tuple(self._connections)
            started = CallStarted(self._number, self._clock.now(), self._name, names, refs, self._timeout)
            notify_all(self._groups, started)

    def record_outcome(self, outcome: Outcome) -> None:
        """Notify observers that waiting for one of the tasks ended."""
        if self._groups:
            notify_all(self._groups, WaitOutcome(self._number, self._clock.now(), outcome))

    def end(self, error: BaseException | None = None) -> None:
        """Notify observers that the call ended."""
        if self._groups:
            duration = self._clock.monotonic() - self._started
            notify_all(self._groups, CallEnded(self._number, self._clock.now(), self._name, duration, error))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.end(None if isinstance(error, GeneratorExit) else error)


class PollTrace:
    """The facts about a poll in progress, for its `Observation`.

    Args:
        ref: The task; None for a page of a list.
        poll_reason: Why the poll is made.
        began: When it began, in monotonic seconds.
        overdue: Seconds between the time at which it was due and its start.
    """

    __slots__ = ("began", "overdue", "poll_reason", "ref", "requests")

    def __init__(self, ref: TaskRef | None, poll_reason: PollReason, began: float, overdue: float = 0.0) -> None:
        self.ref = ref
        self.poll_reason = poll_reason
        self.began = began
        self.overdue = overdue
        self.requests: list[RequestEnded] = []


def begin_trace(connection: Connection, task_id: str, poll_reason: PollReason = PollReason.ASKED) -> PollTrace | None:
    """Return a trace for a poll outside of a wait; None if no observer wants it.

    Args:
        connection: The connection.
        task_id: A shared id.
        poll_reason: Why the poll is made.
    """
    if not connection.observers.wants_tasks:
        return None
    return PollTrace(TaskRef.of(connection.name, task_id), poll_reason, connection.clock.monotonic())


def report_observation(
    connection: Connection,
    trace: PollTrace | None,
    source: ObservationSource = ObservationSource.POLL,
    *,
    task: Task | None = None,
    error: TaskbridgeError | None = None,
) -> None:
    """Notify observers of a task's state, learned outside of a wait.

    Args:
        connection: The connection.
        trace: The trace of the poll; None if no observer wants it.
        source: How the state was learned.
        task: The snapshot.
        error: Why there is no snapshot.
    """
    ref = task.ref if task is not None else trace.ref if trace is not None else None
    if trace is None or ref is None:
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
