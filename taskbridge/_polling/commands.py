"""What comes out of a fleet: what its driver is to do next, and what waiting parties are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from taskbridge._engine.connection import Channel
    from taskbridge._engine.tracing import Trail
    from taskbridge._polling.entries import Item, Ticket
    from taskbridge._polling.lists import Sweep
    from taskbridge.models import Outcome
    from taskbridge.provider.submission import Query


@dataclass(frozen=True, slots=True)
class LookAt:
    """Look a task up now.

    Attributes:
        channel: The connection.
        task_id: A shared id.
        deadline: Monotonic seconds by which it must be over.
        seen: The last answer's bytes, to recognise an unchanged one.
        hold: Whether to ask on the line that the vendor holds.
        key: For `looked` and `failed`.
        trail: Where its requests are noted, where somebody wants to know.
    """

    channel: Channel
    task_id: str
    deadline: float
    seen: bytes | None
    hold: bool
    key: Item
    trail: Trail | None = None


@dataclass(frozen=True, slots=True)
class LookAtMany:
    """Read one page of a vendor's list now, which tells of many tasks at once.

    Attributes:
        channel: The connection.
        query: What is asked for.
        cursor: Which page; None for the first.
        key: For `listed` and `unlisted`.
        trail: Where its requests are noted, where somebody wants to know.
    """

    channel: Channel
    query: Query
    cursor: str | None
    key: Sweep
    trail: Trail | None = None


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Nothing to do before that time (monotonic seconds), unless something comes in."""

    time: float


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing to do before a look ends or something comes in."""


@dataclass(frozen=True, slots=True)
class Done:
    """Nobody waits for anything."""


Command: TypeAlias = LookAt | LookAtMany | WaitUntil | Idle | Done


@dataclass(frozen=True, slots=True)
class News:
    """What a waiting party is told.

    Attributes:
        ticket: Whom it concerns.
        outcome: The snapshot or the error.
        final: Whether it is the last for this ticket.
    """

    ticket: Ticket
    outcome: Outcome
    final: bool
