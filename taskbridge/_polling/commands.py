"""The scheduler's output: commands for the runtime, and updates for the callers that wait."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from taskbridge._engine.connection import Connection
    from taskbridge._engine.lookup import StatusResponse
    from taskbridge._engine.tracing import PollTrace
    from taskbridge._polling.entries import PolledTask, Waiter
    from taskbridge._polling.lists import ListScan
    from taskbridge.models import Outcome
    from taskbridge.provider.submission import Query


@dataclass(frozen=True, slots=True)
class PollTask:
    """Poll one task now."""

    connection: Connection
    task_id: str
    deadline: float  # monotonic seconds by which the poll must end
    last_seen: StatusResponse | None  # the last response, to recognize an unchanged one
    long_poll: bool  # whether to use the vendor's long poll
    entry: PolledTask
    trace: PollTrace | None = None  # collects the requests of this poll; None if there are no observers


@dataclass(frozen=True, slots=True)
class PollList:
    """Read one page of the vendor's list now, which shows many tasks at once."""

    connection: Connection
    query: Query
    cursor: str | None  # None for the first page
    scan: ListScan
    trace: PollTrace | None = None  # collects the requests of this page; None if there are no observers


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Nothing to do before that time (monotonic seconds), unless an event arrives."""

    time: float


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing to do until a running poll ends or an event arrives."""


@dataclass(frozen=True, slots=True)
class Done:
    """No task is waited for."""


Command: TypeAlias = PollTask | PollList | WaitUntil | Idle | Done


@dataclass(frozen=True, slots=True)
class Update:
    """A change or the end of a task, for one waiter."""

    waiter: Waiter
    outcome: Outcome
    final: bool  # whether this is the waiter's last update
