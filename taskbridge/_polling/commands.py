"""What comes out of a fleet: what its driver is to do next, and what waiting parties are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from taskbridge._engine.connection import Connection
    from taskbridge._engine.tracing import PollTrace
    from taskbridge._polling.entries import PolledTask, Waiter
    from taskbridge._polling.lists import ListScan
    from taskbridge.models import Outcome
    from taskbridge.provider.submission import Query


@dataclass(frozen=True, slots=True)
class PollTask:
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

    connection: Connection
    task_id: str
    deadline: float
    last_body: bytes | None
    long_poll: bool
    entry: PolledTask
    trace: PollTrace | None = None


@dataclass(frozen=True, slots=True)
class PollList:
    """Read one page of a vendor's list now, which tells of many tasks at once.

    Attributes:
        channel: The connection.
        query: What is asked for.
        cursor: Which page; None for the first.
        key: For `listed` and `unlisted`.
        trail: Where its requests are noted, where somebody wants to know.
    """

    connection: Connection
    query: Query
    cursor: str | None
    scan: ListScan
    trace: PollTrace | None = None


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


Command: TypeAlias = PollTask | PollList | WaitUntil | Idle | Done


@dataclass(frozen=True, slots=True)
class Update:
    """What a waiting party is told.

    Attributes:
        ticket: Whom it concerns.
        outcome: The snapshot or the error.
        final: Whether it is the last for this ticket.
    """

    waiter: Waiter
    outcome: Outcome
    final: bool
