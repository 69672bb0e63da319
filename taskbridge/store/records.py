"""What a store returns: watches, submissions, events and explanations, as frozen data."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, cast

from sqlalchemy import RowMapping

from taskbridge.errors import InvalidInput, printable
from taskbridge.events import PollReason
from taskbridge.models import Task, TaskRef
from taskbridge.store.schema import EventKind, Phase, State

_NOT_STORED: Final = re.compile("[\\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Watched:
    """A watch.

    Attributes:
        ref: Its task.
        state: How far it is.
        task: The last snapshot that was stored, without `raw`, links, text and data of its result.
        error: Why it was given up.
        until: When it is given up.
        meta: The caller's own data.
        submitted_at: When the task was submitted, if that is known.
        created_at: When it was stored.
        updated_at: When it changed last.
    """

    ref: TaskRef
    state: State
    task: Task | None
    error: str | None
    until: datetime | None
    meta: Mapping[str, Any] | None
    submitted_at: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class StoredSubmission:
    """A submission.

    Attributes:
        connection: Name of its connection.
        key: The caller's key, unique on the connection.
        phase: How far it is.
        ref: Its task, once the vendor accepted it.
        error: The last error.
        created_at: When it was stored.
        updated_at: When it changed last.
    """

    connection: str
    key: str
    phase: Phase
    ref: TaskRef | None
    error: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class AccountStatus:
    """What the owner of a connection reported last; counts are since the owner's process opened the connection.

    Attributes:
        watched: Tasks that are being waited for.
        in_flight: Polls and pages of lists that waited for their response.
        rate: Requests per second allowed at that time; None without a limit.
        limit: Requests per second allowed by the configuration; None without a limit.
        demand: Requests per second that polling all tasks at their intervals takes.
        requests: Requests sent, by kind, as in `ConnectionStats`.
        failures: Requests without a usable response.
        slowed_down: Responses that asked for fewer requests: a 429, or a 503 with a time to wait.
        finished: Ends of tasks that were found by polling.
        mean_delay: Mean expected seconds between the end of a task and its detection; None before the first.
        durations: Mean seconds that tasks take, by operation; of tasks without one under the empty text.
        quantiles: Seconds within which a tenth, a quarter, half, three quarters and nine tenths of the tasks end, by
            operation.
        usage: Cost of the tasks, by unit, as far as the vendor says.
        is_refused: Whether the vendor refuses the credential.
        outage_since: When the vendor stopped responding; None while it responds.
        outage_error: The error of the request with which that was noticed.
        next_polls: When the tasks that are watched the longest are polled next, and why, by ref; the time is None if
            their wait ends before.
    """

    watched: int = 0
    in_flight: int = 0
    rate: float | None = None
    limit: float | None = None
    demand: float = 0.0
    requests: Mapping[str, int] = field(default_factory=dict[str, int])
    failures: int = 0
    slowed_down: int = 0
    finished: int = 0
    mean_delay: float | None = None
    durations: Mapping[str, float] = field(default_factory=dict[str, float])
    quantiles: Mapping[str, tuple[float, ...]] = field(default_factory=dict[str, tuple[float, ...]])
    usage: Mapping[str, float] = field(default_factory=dict[str, float])
    is_refused: bool = False
    outage_since: datetime | None = None
    outage_error: str | None = None
    next_polls: Mapping[TaskRef, tuple[datetime | None, PollReason]] = field(
        default_factory=dict[TaskRef, tuple[datetime | None, PollReason]]
    )

    @property
    def overload(self) -> float:
        """By what factor polling at the intervals takes more requests than the rate allows; 1 or less if it fits."""
        return self.demand / self.rate if self.rate else 0.0


@dataclass(frozen=True, slots=True)
class Account:
    """A connection of which a store has something.

    Attributes:
        connection: Its name.
        owner: The process that polls its tasks and sends its submissions, or did so last; None if none ever did.
        owner_since: When that process took it over.
        problem: Why nothing is polled or sent at present.
        paused_until: Until when the vendor wants no requests.
        status: What the owner reported last; None if it has reported nothing.
        status_at: When it did so. An owner that works reports every few seconds.
        watches: How many watches there are, by state.
        submissions: How many submissions there are, by phase.
    """

    connection: str
    owner: str | None
    owner_since: datetime | None
    problem: str | None
    paused_until: datetime | None
    status: AccountStatus | None
    status_at: datetime | None
    watches: Mapping[State, int]
    submissions: Mapping[Phase, int]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, for a consumer.

    Attributes:
        key: Unique to this event and the same each time it is delivered: act once per key.
        kind: What it is about.
        connection: Name of the connection.
        position: Its number on the connection; later events have higher ones.
        at: When it was stored.
        ref: The task, if there is one.
        submission: Key of the submission that it is about, if it is about one.
        task: The final snapshot, without `raw`, links, text and data of its result; `Client.result` gets those.
        error: What went wrong.
        meta: The caller's own data.
    """

    key: str
    kind: EventKind
    connection: str
    position: int
    at: datetime
    ref: TaskRef | None
    submission: str | None
    task: Task | None
    error: str | None
    meta: Mapping[str, Any] | None
    _ack: Callable[[], None] = field(repr=False, compare=False)

    def ack(self) -> None:
        """Store that the consumer has processed this event, and all before it on the same connection.

        Events of `Store.events` only; a `Relay` acknowledges those that it delivers, and then this does nothing.

        Raises:
            StoreUnavailable: It cannot be stored; the event will be delivered again.
        """
        self._ack()

    def to_dict(self) -> dict[str, Any]:
        """Return the event as plain JSON data, for a queue or an HTTP request.

        `at` is in ISO 8601, `task` is as `Task.to_dict` returns it, and the other values are as they are here.
        """
        return {
            "key": self.key,
            "kind": str(self.kind),
            "connection": self.connection,
            "position": self.position,
            "at": self.at.isoformat(),
            "ref": None if self.ref is None else str(self.ref),
            "submission": self.submission,
            "task": None if self.task is None else self.task.to_dict(),
            "error": self.error,
            "meta": None if self.meta is None else dict(self.meta),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Event:
        """Return the event of a dictionary of `to_dict`.

        Args:
            values: The dictionary; keys of a newer version are ignored.

        Raises:
            InvalidInput: It is no such dictionary.
        """
        try:
            ref, task = values["ref"], values["task"]
            return cls(
                key=values["key"],
                kind=EventKind(values["kind"]),
                connection=values["connection"],
                position=values["position"],
                at=datetime.fromisoformat(values["at"]),
                ref=None if ref is None else TaskRef(ref),
                submission=values["submission"],
                task=None if task is None else Task.from_dict(task),
                error=values["error"],
                meta=values["meta"],
                _ack=acknowledged,
            )
        except (KeyError, TypeError, ValueError) as error:
            problem = f"{type(error).__name__}: {printable(str(error), 200)}"
        raise InvalidInput(f"this is no dictionary of Event.to_dict: {problem}")


@dataclass(frozen=True, slots=True)
class Undelivered:
    """An event whose handler failed, or that waits for an earlier event of its task.

    Attributes:
        consumer: Name of the consumer that has not got it.
        event: The event.
        attempts: How often its handler failed; 0 if it only waits.
        next_at: When it is tried again, or since when it waits; None for a dead letter, which is not tried any more.
        error: What the handler raised last, or what the event waits for.
        updated_at: When it failed last.
    """

    consumer: str
    event: Event
    attempts: int
    next_at: datetime | None
    error: str
    updated_at: datetime

    @property
    def is_dead(self) -> bool:
        """Whether it is a dead letter: tried again only after `Store.redeliver`."""
        return self.next_at is None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a watch is in its state; its text says it in a few lines.

    Attributes:
        watch: The watch.
        submission: The submission that created its task, if the store has it.
        owner: Which process polls its connection, or did so last; None if none ever did.
        problem: Why that process polls nothing, or only tries now and then: the vendor refuses the account, has asked
            for a pause, or has been unreachable for some time.
        events: What happened to it.
    """

    watch: Watched
    submission: StoredSubmission | None
    owner: str | None
    problem: str | None
    events: tuple[tuple[EventKind, datetime], ...]

    def __str__(self) -> str:
        watch = self.watch
        lines = [f"{watch.ref} is {watch.state}, since {_text(watch.updated_at)}"]
        if watch.task is not None:
            lines.append(f"last seen {_text(watch.task.observed_at)}: {watch.task.describe()}")
        if watch.error:
            lines.append(f"because: {watch.error}")
        if watch.until is not None and watch.state is State.OPEN:
            lines.append(f"given up at {_text(watch.until)}")
        if self.submission is not None:
            lines.append(f"submitted with the key {self.submission.key!r}")
        lines.append(f"polled by {self.owner}" if self.owner else "no process has polled its connection yet")
        if self.problem:
            lines.append(f"held up at present: {self.problem}")
        lines += [f"{_text(at)}: {kind}" for kind, at in self.events]
        return "\n".join(lines)


def acknowledged() -> None:
    """Do nothing: the event is acknowledged by what delivered it."""


def event_of(row: RowMapping, ack: Callable[[], None] = acknowledged) -> Event:
    """Return a row of the events.

    Args:
        row: The row.
        ack: What `Event.ack` does.
    """
    body = row["body"]
    return Event(
        key=row["key"],
        kind=EventKind(row["kind"]),
        connection=row["connection"],
        position=row["position"],
        at=datetime.fromtimestamp(row["at"], UTC),
        ref=None if row["ref"] is None else TaskRef(row["ref"]),
        submission=row["submission"],
        task=None if body.get("task") is None else Task.from_dict(body["task"]),
        error=body.get("error"),
        meta=body.get("meta"),
        _ack=ack,
    )


def moment(seconds: float | None) -> datetime | None:
    """Return an aware time, from seconds since the epoch."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def seconds(what: str, given: datetime | None) -> float | None:
    """Return seconds since the epoch.

    Raises:
        ValueError: The time has no time zone.
    """
    if given is not None and given.tzinfo is None:
        raise ValueError(f"{what} has no time zone; take datetime.now(UTC)")
    return None if given is None else given.timestamp()


def _text(at: datetime) -> str:
    return at.isoformat(sep=" ", timespec="seconds")


def storable(value: Any) -> Any:
    """Return a value of JSON with U+FFFD for what PostgreSQL cannot store: NUL, and halves of surrogate pairs."""
    if isinstance(value, str):
        return _NOT_STORED.sub("\ufffd", value)
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value)
        return {storable(name): storable(each) for name, each in items.items()}
    if isinstance(value, list | tuple):
        return [storable(each) for each in cast("Sequence[Any]", value)]
    return value


def without_contents(values: dict[str, Any]) -> dict[str, Any]:
    """Return a task's dictionary without `raw`, without what a result contains or links to, and `storable`."""
    kept: dict[str, Any] = {**values, "raw": {}}
    result: dict[str, Any] | None = values.get("result")
    if result is not None:
        given: list[dict[str, Any]] = result["files"]
        files: list[dict[str, Any]] = [{**each, "url": None, "properties": {}} for each in given]
        kept["result"] = {**result, "files": files, "text": None, "data": None}
    kept["subtasks"] = [without_contents(each) for each in values.get("subtasks", ())]
    stored: dict[str, Any] = storable(kept)
    return stored
