"""."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from typing import Final, Protocol, Self

from taskbridge._engine.connection import Connection
from taskbridge._engine.observers import Observers, notify_all
from taskbridge.errors import TaskbridgeError
from taskbridge.events import (
    CallEnded,
    CallStarted,
    Event,
    Observation,
    ObservationSource,
    PollReason,
    RequestEnded,
    WaitOutcome,
)
from taskbridge.models import Outcome, Task, TaskRef
from taskbridge.provider.clock import Clock

_NUMBERS: Final = count(1)


class _HasRef(Protocol):
    @property
    def ref(self) -> TaskRef: ...


class CallSpan:
    """A call that lasts, told to those who observe the connections that it uses; silent where nobody does.

    Args:
        name: Of the method.
        channels: The connections that it uses.
        clock: Time.
        places: The tasks that it waits for.
        timeout: Seconds that it waits at most; None for no deadline.
    """

    def __init__(
        self,
        name: str,
        connections: Iterable[Connection],
        clock: Clock,
        places: Iterable[_HasRef] = (),
        timeout: float | None = None,
    ) -> None:
        self._name = name
        self._connections = {connection.name: connection for connection in connections}
        self._clock = clock
        self._places = places
        self._timeout = timeout
        self._audiences: tuple[Observers, ...] = ()
        self._number = 0
        self._began = 0.0

    def start(self) -> None:
        """Tell that it starts."""
        self._audiences = tuple(each.observers for each in self._connections.values() if each.observers.callbacks)
        if self._audiences:
            self._number, self._began = next(_NUMBERS), self._clock.monotonic()
            refs = tuple(each.ref for each in self._places)
            names = tuple(self._connections)
            self._notify(CallStarted(self._number, self._clock.now(), self._name, names, refs, self._timeout))

    def record_outcome(self, outcome: Outcome) -> None:
        """Tell how waiting for one of its tasks ended."""
        if self._audiences:
            self._notify(WaitOutcome(self._number, self._clock.now(), outcome))

    def end(self, error: BaseException | None = None) -> None:
        """Tell that it ended."""
        if self._audiences:
            took = self._clock.monotonic() - self._began
            self._notify(CallEnded(self._number, self._clock.now(), self._name, took, error))

    def _notify(self, event: Event) -> None:
        notify_all(self._audiences, event)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.end(None if isinstance(error, GeneratorExit) else error)


class PollTrace:
    """What is known of a look while it goes on.

    Args:
        ref: The task; None for a page of a list.
        why: Why it is looked at.
        began: Monotonic seconds.
        late: Seconds since it was due.
    """

    __slots__ = ("began", "requests", "overdue", "ref", "poll_reason")

    def __init__(self, ref: TaskRef | None, poll_reason: PollReason, began: float, overdue: float = 0.0) -> None:
        self.ref = ref
        self.poll_reason = poll_reason
        self.began = began
        self.overdue = overdue
        self.requests: list[RequestEnded] = []


def begin_trace(connection: Connection, task_id: str, poll_reason: PollReason = PollReason.ASKED) -> PollTrace | None:
    """What to note a look in that somebody asked for; None where nobody wants to know.

    Args:
        channel: The connection.
        task_id: A shared id.
        why: Why it is looked at.
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
    """Tell those who want to know what was learnt of a task apart from a wait.

    Args:
        channel: The connection.
        trail: What was noted; None where nobody wants to know.
        source: How it was learnt.
        task: The snapshot.
        error: Why there is none.
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
