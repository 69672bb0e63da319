"""What the library tells of itself while it works: observations of tasks, requests, and the calls that they belong to.

An observer is a function of one argument, the event. It is called in the thread, or the asyncio task, in which the
thing happened, so it should be quick and must not block; events of one connection may come from several threads. What
it raises is logged, once for each observer, and hurts nothing.

    def show(event):
        match event:
            case tb.Observation():
                print(event.ref, event.native_status, event.next_in, event.next_why)

    with client.observe(show):
        client.wait_all(ids)

Where nobody listens, nothing is made: an audience is asked before an event is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

from taskbridge.models import Outcome, Reason, Task, TaskRef, TaskStatus

if TYPE_CHECKING:
    from datetime import datetime

    from taskbridge.errors import TaskbridgeError

__all__ = [
    "CallEnded",
    "CallStarted",
    "Event",
    "RequestEnded",
    "Observation",
    "Observer",
    "ObservationSource",
    "WaitOutcome",
    "PollReason",
]


class ObservationSource(StrEnum):
    """How something was learnt of a task."""

    POLL = "poll"
    """A look-up of its own."""
    LONG_POLL = "long-poll"
    """A look-up on a line that the vendor holds until the end."""
    LIST = "list"
    """A page of the vendor's list."""
    WEBHOOK = "webhook"
    """An event of the vendor, proved or confirmed."""
    SUBMIT = "submit"
    """The vendor's answer to the order."""


class PollReason(StrEnum):
    """Why a task is looked at, or why not."""

    FIRST = "first"
    """The first look of a wait comes at once."""
    ASKED = "asked"
    """A single look: somebody asked for it."""
    AGE = "age"
    """Nothing is stated and nothing learnt: pauses in proportion to the task's age."""
    LATENCY = "latency"
    """Pauses from the `poll.latency` that is stated; nothing is learnt yet."""
    INTERVAL = "interval"
    """The `poll.interval` that is stated."""
    LEARNED = "learned"
    """The end is likely then, by the durations learnt."""
    AT_MOST = "at-most"
    """`poll.at_most`: whatever is known, no pause is longer."""
    PROGRESS = "progress"
    """The end is likely then, by the progress that the vendor reports."""
    WEBHOOK_EXPECTED = "webhook-expected"
    """The vendor is to tell the end, so looks are rare."""
    EVENT = "event"
    """Something came from outside that is worth a look at once."""
    LONG_POLL = "long-poll"
    """The vendor holds the line until the end."""
    LONG_POLL_BROKE = "long-poll-broke"
    """The held line broke before the end: from now on, looks."""
    LIST = "list"
    """The vendor's list is read for many tasks at once."""
    LISTED = "listed"
    """The list shows a change; a look has the whole of it."""
    UNLISTED = "unlisted"
    """The list did not show it: it ended, or fell between two pages."""
    RETRY = "retry"
    """The last look failed; the pause of a retry."""
    RETRY_AFTER = "retry-after"
    """The vendor said when to come back."""
    DEADLINE = "deadline"
    """No further look: the wait ends before it would be due."""
    NOTIFIED = "notified"
    """The vendor told unasked."""


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """A request that was sent, and what came of it.

    Attributes:
        time: Aware UTC time at which it was sent.
        provider: Entry-point name of the provider.
        connection: Name of the connection.
        kind: What it was for: look, hold, list, submit, download, token, other.
        ref: The task that it was about, where it was a look at one.
        method: HTTP method.
        scheme: ``https`` or ``http``.
        host: Whom it was sent to.
        port: Port there.
        path: Path of the URL, without query. Only of requests that carry the credential or fetch it: another address
            (of a presigned upload, of a file) may be a key as a whole, and has no path here.
        http_status: Of the answer; None where there was none.
        error: Name of the error's class, where no usable answer came.
        resends: How often the same was sent before.
        retry_after: Seconds after which the vendor wants to be asked again, where it says so.
        duration: Seconds until the answer was read, or missing.
    """

    time: datetime
    provider: str
    connection: str
    kind: str
    ref: TaskRef | None
    method: str
    scheme: str
    host: str
    port: int
    path: str | None
    http_status: int | None
    error: str | None
    resends: int
    retry_after: float | None
    duration: float

    def record(self) -> dict[str, Any]:
        """What it says, as JSON has it."""
        return {
            "event": "request",
            "time": self.time.isoformat(),
            "provider": self.provider,
            "connection": self.connection,
            "kind": self.kind,
            "ref": self.ref,
            "method": self.method,
            "scheme": self.scheme,
            "host": self.host,
            "port": self.port,
            "path": self.path,
            "http_status": self.http_status,
            "error": self.error,
            "resends": self.resends,
            "retry_after": self.retry_after,
            "duration": self.duration,
        }


@dataclass(frozen=True, slots=True)
class Observation:
    """What was learnt of a task, or that a look at it failed.

    Attributes:
        time: Aware UTC time.
        provider: Entry-point name of the provider.
        ref: Which task.
        source: How it was learnt.
        poll_reason: Why the look was made.
        task: The snapshot; None where the look failed.
        unchanged: Whether the answer was the one before, byte for byte.
        error: Why the look failed; that says nothing of the task.
        exchanges: The requests that it took, in order; none where the vendor told unasked.
        duration: Seconds that it took.
        overdue: Seconds by which the look came after it was due: a limit (pace, connections, Retry-After) held it.
        delay: Seconds by which the end is older than the news of it, as far as can be expected; None before the end,
            and where the vendor tells at once.
        next_poll_in: Seconds to the next look; None where there is none.
        next_poll_reason: Why then, or why not; None where nothing is left to look for.
    """

    time: datetime
    provider: str
    ref: TaskRef
    source: ObservationSource
    poll_reason: PollReason
    task: Task | None = None
    unchanged: bool = False
    error: TaskbridgeError | None = None
    requests: tuple[RequestEnded, ...] = field(default=(), repr=False)
    duration: float = 0.0
    overdue: float = 0.0
    delay: float | None = None
    next_poll_in: float | None = None
    next_poll_reason: PollReason | None = None

    @property
    def connection(self) -> str:
        """Name of the connection."""
        return self.ref.connection

    @property
    def status(self) -> TaskStatus | None:
        """Ours."""
        return None if self.task is None else self.task.status

    @property
    def reason(self) -> Reason | None:
        """Ours."""
        return None if self.task is None else self.task.reason

    @property
    def native_status(self) -> str | None:
        """The vendor's word, verbatim."""
        return None if self.task is None else self.task.native_status

    @property
    def http_status(self) -> int | None:
        """Of the last answer."""
        if self.requests:
            return self.requests[-1].http_status
        return None if self.error is None else self.error.http_status

    @property
    def is_final(self) -> bool:
        """Whether the task has ended."""
        return self.task is not None and self.task.is_terminal

    def record(self) -> dict[str, Any]:
        """What it says, as JSON has it; without results, links and the vendor's object."""
        task = self.task
        return {
            "event": "observation",
            "time": self.time.isoformat(),
            "provider": self.provider,
            "connection": self.connection,
            "ref": self.ref,
            "source": self.source.value,
            "poll_reason": self.poll_reason.value,
            "status": None if task is None else str(task.status),
            "reason": None if task is None or task.reason is None else str(task.reason),
            "native_status": None if task is None else task.native_status,
            "recognized": None if task is None else task.recognized,
            "progress": None if task is None else task.progress,
            "unchanged": self.unchanged,
            "http_status": self.http_status,
            "error": None if self.error is None else type(self.error).__name__,
            "attempts": len(self.requests),
            "duration": self.duration,
            "overdue": self.overdue,
            "delay": self.delay,
            "next_poll_in": self.next_poll_in,
            "next_poll_reason": None if self.next_poll_reason is None else self.next_poll_reason.value,
        }


@dataclass(frozen=True, slots=True)
class CallStarted:
    """Somebody called ``wait``, ``wait_all``, ``as_completed``, ``watch``, ``submit`` or ``download``.

    Attributes:
        number: Of the call, within this process; its further events have the same.
        time: Aware UTC time.
        call: Name of the method.
        connections: Names of the connections that it uses.
        refs: The tasks that are waited for, duplicates included.
        timeout: Seconds to wait at most; None for no deadline.
    """

    number: int
    time: datetime
    call: str
    connections: tuple[str, ...]
    refs: tuple[TaskRef, ...] = ()
    timeout: float | None = None

    def record(self) -> dict[str, Any]:
        """What it says, as JSON has it."""
        return {
            "event": "call-started",
            "time": self.time.isoformat(),
            "number": self.number,
            "call": self.call,
            "connections": list(self.connections),
            "refs": list(self.refs),
            "timeout": self.timeout,
        }


@dataclass(frozen=True, slots=True)
class WaitOutcome:
    """Waiting for one of the tasks of a call ended.

    Attributes:
        number: Of the call.
        time: Aware UTC time.
        outcome: How.
    """

    number: int
    time: datetime
    outcome: Outcome

    def record(self) -> dict[str, Any]:
        """What it says, as JSON has it."""
        task, error = self.outcome.task, self.outcome.error
        return {
            "event": "outcome",
            "time": self.time.isoformat(),
            "number": self.number,
            "ref": self.outcome.ref,
            "status": None if task is None else str(task.status),
            "error": None if error is None else type(error).__name__,
        }


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A call ended.

    Attributes:
        number: Of the call.
        time: Aware UTC time.
        call: Name of the method.
        duration: Seconds that it took.
        error: What it raised, if it is ours.
    """

    number: int
    time: datetime
    call: str
    duration: float
    error: BaseException | None = None

    def record(self) -> dict[str, Any]:
        """What it says, as JSON has it."""
        return {
            "event": "call-ended",
            "time": self.time.isoformat(),
            "number": self.number,
            "call": self.call,
            "duration": self.duration,
            "error": None if self.error is None else type(self.error).__name__,
        }


Event: TypeAlias = Observation | RequestEnded | CallStarted | WaitOutcome | CallEnded


Observer: TypeAlias = Callable[[Event], object]
