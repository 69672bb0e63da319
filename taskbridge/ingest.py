"""Taking a webhook's event in: what is true of it, and who is told.

An event goes the same way each time:

    WebhookEvent ──► seen before? ──► look-up, where the proof covers no time ──► waits end ──► Ingested
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from taskbridge.attempts import Lifted
from taskbridge.errors import TaskNotFound, plain
from taskbridge.logs import log
from taskbridge.looking import look
from taskbridge.model import Task, TaskRef, WebhookEvent
from taskbridge.observing import Source, Why
from taskbridge.witness import begin_trail, tell_seen

if TYPE_CHECKING:
    from taskbridge.channel import Channel

__all__ = ["Ingested", "Note", "ingest"]


class Note(StrEnum):
    """What became of an event."""

    APPLIED = "applied"
    """`Ingested.task` is the truth; waits for it were told."""
    DUPLICATE = "duplicate"
    """It was taken in before; nothing was done."""
    LATE = "late"
    """It tells of a state before the end that is known already; nothing was done."""
    UNKNOWN = "unknown"
    """The vendor does not know the task, or no longer."""
    NO_TASK = "no-task"
    """It tells no state of a task."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """What came of an event.

    Attributes:
        event: The event.
        note: What was done with it.
        task: The task as it truly is; None unless `note` is ``applied``.
    """

    event: WebhookEvent
    note: Note
    task: Task | None = None


def ingest(channel: Channel, event: WebhookEvent, deadline: float, *, confirm: bool | None) -> Lifted[Ingested]:
    """Find out the truth of an event, and tell those who wait.

    Args:
        channel: The connection.
        event: What `receive` made of a delivery.
        deadline: Monotonic seconds by which a look-up must be over.
        confirm: Look the task up before believing the event; None does where `needs_confirmation` says so.

    Raises:
        TaskbridgeError: The look-up failed; the event counts as not yet seen.
    """
    inbox = channel.inbox
    if not inbox.take(event.duplicate_key):
        return Ingested(event, Note.DUPLICATE)
    settled = False
    try:
        told = yield from _truth(channel, event, deadline, confirm=confirm)
        # A mere hint is remembered only once it led to the end, or anybody could use it up before its time.
        settled = not event.needs_confirmation or told.note is Note.UNKNOWN or _is_over(told)
    finally:
        if not settled:
            inbox.give_back(event.duplicate_key)
    return told


def _truth(channel: Channel, event: WebhookEvent, deadline: float, *, confirm: bool | None) -> Lifted[Ingested]:
    if event.ref is None:
        return Ingested(event, Note.NO_TASK)
    if event.needs_confirmation if confirm is None else confirm:
        return (yield from _confirmed(channel, event, event.ref, deadline))
    if event.task is None:
        channel.inbox.tell(event.ref)
        return Ingested(event, Note.NO_TASK)
    if event.task.is_terminal:
        channel.inbox.saw(event.task)
        tell_seen(channel, begin_trail(channel, event.ref.id, Why.HEARD), Source.WEBHOOK, task=event.task)
        return _apply(channel, event, event.task)
    if channel.inbox.has_ended(event.ref):
        log("webhook-late", connection=channel.name, type=plain(event.type, 60), ref=event.ref)
        return Ingested(event, Note.LATE)
    tell_seen(channel, begin_trail(channel, event.ref.id, Why.HEARD), Source.WEBHOOK, task=event.task)
    channel.inbox.tell(event.ref)  # an event tells less than a look-up: those who watch look for themselves
    return Ingested(event, Note.APPLIED, event.task)


def _confirmed(channel: Channel, event: WebhookEvent, ref: TaskRef, deadline: float) -> Lifted[Ingested]:
    trail = begin_trail(channel, ref.id, Why.EVENT)
    try:
        seen = yield from look(channel, ref.id, deadline, trail=trail)
    except TaskNotFound:
        log("webhook-unknown", connection=channel.name, ref=ref)
        return Ingested(event, Note.UNKNOWN)
    assert seen.task is not None  # noqa: S101  # None only where bytes were given to compare with
    tell_seen(channel, trail, task=seen.task)
    return _apply(channel, event, seen.task)


def _apply(channel: Channel, event: WebhookEvent, task: Task) -> Ingested:
    channel.inbox.tell(task)
    for part in task.subtasks:
        channel.inbox.tell(part)
    for kind in channel.provider.capabilities.kinds:
        if kind.identity == "external_id" and task.external_id and kind.pattern.fullmatch(task.external_id):
            channel.inbox.tell(task.model_copy(update={"id": f"{kind.prefix}/{task.external_id}"}))
    return Ingested(event, Note.APPLIED, task)


def _is_over(told: Ingested) -> bool:
    return told.task is not None and told.task.is_terminal
