"""What a store returns: watches, submissions, events and explanations, as frozen data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from taskbridge.models import Task, TaskRef
from taskbridge.store.schema import EventKind, Phase, State


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

        Raises:
            StoreUnavailable: It cannot be stored; the event will be delivered again.
        """
        self._ack()


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


def without_contents(values: dict[str, Any]) -> dict[str, Any]:
    """Return a task's dictionary without `raw`, and without what a result contains or links to."""
    kept: dict[str, Any] = {**values, "raw": {}}
    result: dict[str, Any] | None = values.get("result")
    if result is not None:
        given: list[dict[str, Any]] = result["files"]
        files: list[dict[str, Any]] = [{**each, "url": None, "properties": {}} for each in given]
        kept["result"] = {**result, "files": files, "text": None, "data": None}
    kept["subtasks"] = [without_contents(each) for each in values.get("subtasks", ())]
    return kept
