"""Events for observers: observations of tasks, HTTP requests, and the calls that cause them.

An observer is a function that takes one event. It is called in the thread, or the asyncio task, in which the event
happens, so it should return quickly and must not block. The events of one connection may come from several threads. If
an observer raises, the error is logged once for that observer and has no other effect.

    def show(event):
        match event:
            case tb.Observation():
                print(event.ref, event.native_status, event.next_poll_in, event.next_poll_reason)

    with client.observe(show):
        client.wait_all(ids)

Without observers, no events are created, except an `Outage`, which `ConnectionStats` shows too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from taskbridge.models import Outcome, Reason, Task, TaskRef, TaskStatus

if TYPE_CHECKING:
    from datetime import datetime

    from taskbridge.errors import TaskbridgeError

__all__ = [
    "CallEnded",
    "CallStarted",
    "Event",
    "NextPoll",
    "Observation",
    "ObservationSource",
    "Observer",
    "Outage",
    "PollReason",
    "RequestEnded",
    "WaitOutcome",
]


class ObservationSource(StrEnum):
    """How the state of a task was learned."""

    POLL = "poll"
    """A status request."""
    LONG_POLL = "long-poll"
    """A status request that the vendor keeps open until the task ends."""
    LIST = "list"
    """A page of the vendor's task list."""
    WEBHOOK = "webhook"
    """A verified webhook event."""
    SUBMIT = "submit"
    """The vendor's response to the submission."""


class PollReason(StrEnum):
    """Why a task is polled at a certain time, or not polled."""

    FIRST = "first"
    """The first poll of a wait; it is made at once."""
    ASKED = "asked"
    """A call such as `get` asked for it."""
    AGE = "age"
    """The interval grows with the age of the task: nothing is configured and nothing learned yet."""
    LATENCY = "latency"
    """The interval follows from the configured `poll.latency`; nothing is learned yet."""
    INTERVAL = "interval"
    """The configured `poll.interval`."""
    LEARNED = "learned"
    """The task is likely to end then, judging by the durations of earlier tasks."""
    AT_MOST = "at-most"
    """`poll.at_most`, the upper limit of every interval."""
    PROGRESS = "progress"
    """The task is likely to end then, judging by the progress that the vendor reports."""
    WEBHOOK_EXPECTED = "webhook-expected"
    """A webhook is expected to report the end, so polls are rare."""
    EVENT = "event"
    """An event from outside, such as a webhook, calls for a poll at once."""
    LONG_POLL = "long-poll"
    """The vendor keeps the request open until the task ends."""
    LONG_POLL_BROKE = "long-poll-broke"
    """The long poll broke before the task ended; normal polling resumes."""
    LIST = "list"
    """The vendor's list covers many tasks with one request."""
    LISTED = "listed"
    """The list shows a change; a poll gets the complete task."""
    UNLISTED = "unlisted"
    """The task is missing from the list: it ended, or was skipped between two pages."""
    RETRY = "retry"
    """The last poll failed and is retried."""
    RETRY_AFTER = "retry-after"
    """The vendor's Retry-After time."""
    DEADLINE = "deadline"
    """No further poll: the wait ends before the next one is due."""
    NOTIFIED = "notified"
    """No poll was needed: a webhook event had the state."""


POLL_REASONS: Final[Mapping[PollReason, str]] = {
    PollReason.FIRST: "first poll",
    PollReason.ASKED: "requested by the caller",
    PollReason.AGE: "by the task's age",
    PollReason.LATENCY: "poll.latency",
    PollReason.INTERVAL: "poll.interval",
    PollReason.LEARNED: "learned durations",
    PollReason.AT_MOST: "poll.at_most",
    PollReason.PROGRESS: "by its progress",
    PollReason.WEBHOOK_EXPECTED: "waiting for a webhook",
    PollReason.EVENT: "an event arrived",
    PollReason.LONG_POLL: "long poll",
    PollReason.LONG_POLL_BROKE: "the long poll broke",
    PollReason.LIST: "by the vendor's list",
    PollReason.LISTED: "the list shows a change",
    PollReason.UNLISTED: "missing from the list",
    PollReason.RETRY: "the poll failed",
    PollReason.RETRY_AFTER: "the vendor's Retry-After",
    PollReason.DEADLINE: "the wait ends first",
    PollReason.NOTIFIED: "notified by a webhook",
}
"""The same for people, in a few words."""


@dataclass(frozen=True, slots=True)
class NextPoll:
    """When and why a task is polled next.

    Attributes:
        seconds: Seconds until then; 0 if it is due or being polled, None if the wait ends before.
        reason: Why then.
    """

    seconds: float | None
    reason: PollReason


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """An HTTP request ended, with or without a response.

    Attributes:
        time: When it was sent; aware UTC time.
        provider: Entry-point name of the provider.
        connection: Name of the connection.
        kind: Purpose of the request: poll, long-poll, list, submit, download, token or other.
        ref: The task, if the request is a poll of a single task.
        method: HTTP method.
        scheme: ``https`` or ``http``.
        host: Host name of the URL.
        port: Port of the URL.
        path: Path of the URL, without the query; only for requests that carry or fetch the credential. None for
            other URLs (presigned uploads, files), which may be secret as a whole.
        http_status: Status of the response; None without a response.
        error: Name of the error class, if there is no usable response.
        resends: How many times the same request was sent before.
        retry_after: Seconds to wait before the next request, if the vendor says so.
        duration: Seconds until the response was read or the request failed.
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
        """Return the event as a JSON-compatible dictionary."""
        return _record("request", self)


@dataclass(frozen=True, slots=True)
class Observation:
    """The state of a task was learned, or a poll failed.

    Attributes:
        time: When it was learned; aware UTC time.
        provider: Entry-point name of the provider.
        ref: The task.
        source: How the state was learned.
        poll_reason: Why the poll was made.
        task: The snapshot; None if the poll failed.
        unchanged: Whether the response is identical to the previous one, byte for byte.
        error: Why the poll failed; this says nothing about the task itself.
        requests: The HTTP requests of the poll, in order; empty for a webhook event.
        duration: Seconds that the poll took.
        overdue: Seconds by which the poll started late because of a limit (rate, connections, Retry-After).
        detection_delay: Expected seconds between the end of the task and its detection; None before the end, and if the
            vendor reports the end at once.
        next_poll_in: Seconds until the next poll; None if there is none.
        next_poll_reason: Why then, or why there is no next poll; None if the task has ended.
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
    detection_delay: float | None = None
    next_poll_in: float | None = None
    next_poll_reason: PollReason | None = None

    @property
    def connection(self) -> str:
        """Name of the connection."""
        return self.ref.connection

    @property
    def status(self) -> TaskStatus | None:
        """The normalized status; None if the poll failed."""
        return None if self.task is None else self.task.status

    @property
    def reason(self) -> Reason | None:
        """The normalized reason."""
        return None if self.task is None else self.task.reason

    @property
    def native_status(self) -> str | None:
        """The vendor's status word, verbatim."""
        return None if self.task is None else self.task.native_status

    @property
    def http_status(self) -> int | None:
        """Status of the last HTTP response."""
        if self.requests:
            return self.requests[-1].http_status
        return None if self.error is None else self.error.http_status

    @property
    def is_terminal(self) -> bool:
        """Whether the task has ended."""
        return self.task is not None and self.task.is_terminal

    def record(self) -> dict[str, Any]:
        """Return the event as a JSON-compatible dictionary, without results, links and the vendor's object."""
        task = self.task
        return {
            "event": "observation",
            "time": self.time.isoformat(),
            "provider": self.provider,
            "connection": self.connection,
            "ref": self.ref,
            "source": self.source.value,
            "poll_reason": self.poll_reason.value,
            "status": None if task is None else task.status.value,
            "reason": None if task is None or task.reason is None else task.reason.value,
            "native_status": self.native_status,
            "recognized": None if task is None else task.recognized,
            "progress": None if task is None else task.progress,
            "unchanged": self.unchanged,
            "http_status": self.http_status,
            "error": _class_name(self.error),
            "attempts": len(self.requests),
            "duration": self.duration,
            "overdue": self.overdue,
            "detection_delay": self.detection_delay,
            "next_poll_in": self.next_poll_in,
            "next_poll_reason": None if self.next_poll_reason is None else self.next_poll_reason.value,
        }


@dataclass(frozen=True, slots=True)
class CallStarted:
    """A call of ``wait``, ``wait_all``, ``as_completed``, ``watch``, ``submit`` or ``download`` started.

    Attributes:
        number: Identifies the call within this process; its later events have the same number.
        time: Aware UTC time.
        call: Name of the method.
        connections: Names of the connections that it uses.
        refs: The tasks to wait for, duplicates included.
        timeout: Seconds to wait at most; None for no deadline.
    """

    number: int
    time: datetime
    call: str
    connections: tuple[str, ...]
    refs: tuple[TaskRef, ...] = ()
    timeout: float | None = None

    def record(self) -> dict[str, Any]:
        """Return the event as a JSON-compatible dictionary."""
        return {**_record("call-started", self), "connections": list(self.connections), "refs": list(self.refs)}


@dataclass(frozen=True, slots=True)
class WaitOutcome:
    """A call stopped waiting for one of its tasks.

    Attributes:
        number: Number of the call.
        time: Aware UTC time.
        outcome: How the wait for the task ended.
    """

    number: int
    time: datetime
    outcome: Outcome

    def record(self) -> dict[str, Any]:
        """Return the event as a JSON-compatible dictionary."""
        task = self.outcome.task
        return {
            "event": "outcome",
            "time": self.time.isoformat(),
            "number": self.number,
            "ref": self.outcome.ref,
            "status": None if task is None else task.status.value,
            "error": _class_name(self.outcome.error),
        }


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A call ended.

    Attributes:
        number: Number of the call.
        time: Aware UTC time.
        call: Name of the method.
        duration: Seconds that it took.
        error: The error that it raised; None if it returned.
    """

    number: int
    time: datetime
    call: str
    duration: float
    error: BaseException | None = None

    def record(self) -> dict[str, Any]:
        """Return the event as a JSON-compatible dictionary."""
        return {**_record("call-ended", self), "error": _class_name(self.error)}


@dataclass(frozen=True, slots=True)
class Outage:
    """A connection became unreachable, or is reachable again: its vendor gave no usable response for a time.

    It begins after five failed requests in a row. As long as it lasts, only one request every few seconds is sent.

    Attributes:
        time: Aware UTC time.
        provider: Entry-point name of the provider.
        connection: Name of the connection.
        host: Host name of the failed request.
        error: Why the request failed with which the outage was detected.
        since: When the first of the requests failed; aware UTC time.
        waiting: Tasks of this connection that are being waited for.
        duration: Seconds that the outage lasted; None while it lasts.
    """

    time: datetime
    provider: str
    connection: str
    host: str
    error: TaskbridgeError
    since: datetime
    waiting: int
    duration: float | None = None

    def record(self) -> dict[str, Any]:
        """Return the event as a JSON-compatible dictionary."""
        return {**_record("outage", self), "since": self.since.isoformat(), "error": _class_name(self.error)}


Event: TypeAlias = Observation | RequestEnded | CallStarted | WaitOutcome | CallEnded | Outage
"""Anything that an observer may be called with."""

Observer: TypeAlias = Callable[[Event], object]
"""A function that takes an event; its result is ignored."""


def _record(kind: str, event: RequestEnded | CallStarted | CallEnded | Outage) -> dict[str, Any]:
    values = {each.name: getattr(event, each.name) for each in fields(event)}
    return {"event": kind, **values, "time": event.time.isoformat()}


def _class_name(error: BaseException | None) -> str | None:
    return None if error is None else type(error).__name__
