"""The fleet: every task that is waited for, of all connections; a state machine without I/O.

Refs, answers, errors and outside events go in, with the time; what to do next comes out:

* `LookAt`: look this task up now; hand the answer to `looked`, the error to `failed`.
* `WaitUntil`: nothing to do before that time, unless something comes in.
* `Idle`: nothing to do before one of the looks under way ends, or something comes in.
* `Done`: nobody waits for anything.

What the waiting parties are told comes out of `news`: a final outcome for each ticket, and before it every change where
the ticket asks for changes. One bad task never stops or hides another.

Of a task in flight the fleet keeps the last body as bytes: it recognises an unchanged answer before anything is parsed,
and the snapshot is translated again when somebody needs it. A single `wait` is a fleet of one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from taskbridge.errors import TaskbridgeError, WaitTimeout, plain
from taskbridge.flows import is_final, translate
from taskbridge.model import Outcome, Task, TaskRef

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from taskbridge.flows import Channel, Look

__all__ = ["Command", "Done", "Fleet", "Idle", "LookAt", "News", "Ticket", "WaitUntil"]

_INTERVAL: Final = 2.0  # seconds between looks where the user states no wish
_SPREAD: Final = 0.1  # of an interval, either way, so that looks do not fall into step
_JUST_NOW: Final = 0.001  # seconds; a clock's grain


# What comes out.


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
    """

    channel: Channel
    task_id: str
    deadline: float
    seen: bytes | None
    hold: bool
    key: _Item


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


Command: TypeAlias = LookAt | WaitUntil | Idle | Done


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


class Ticket:
    """One party's wish to know about one task.

    Attributes:
        owner: Whose it is; the fleet never looks at it.
        place: The owner's own number for it.
        deadline: Monotonic seconds at which the party stops waiting; infinite for never.
        changes: Whether each change is to be told, not only the end.
    """

    __slots__ = ("_item", "changes", "deadline", "owner", "place")

    def __init__(self, item: _Item | None, owner: Any, place: int, deadline: float, *, changes: bool) -> None:
        self._item = item
        self.owner = owner
        self.place = place
        self.deadline = deadline
        self.changes = changes

    @classmethod
    def apart(cls, owner: Any, place: int) -> Ticket:
        """A ticket for what never enters the fleet."""
        return cls(None, owner, place, inf, changes=False)


class _Item:
    """One task in the fleet."""

    __slots__ = (
        "added_at",
        "body",
        "due_at",
        "error",
        "failures",
        "hold",
        "lane",
        "looking",
        "looks",
        "received_at",
        "ref",
        "shown",
        "task_id",
        "tickets",
    )

    def __init__(self, lane: _Lane, task_id: str, ref: TaskRef, now: float) -> None:
        self.lane = lane
        self.task_id = task_id
        self.ref = ref
        self.added_at = now
        self.due_at = now
        self.tickets: list[Ticket] = []
        self.body: bytes | None = None
        self.received_at: datetime | None = None
        self.shown: Task | None = None  # what the watching parties were last told
        self.error: TaskbridgeError | None = None
        self.failures = 0
        self.looks = 0
        self.looking = False
        self.hold = False

    @property
    def changes(self) -> bool:
        return any(t.changes for t in self.tickets)

    @property
    def deadline(self) -> float:
        return max((t.deadline for t in self.tickets), default=-inf)

    def snapshot(self) -> Task | None:
        if self.body is None or self.received_at is None:
            return self.shown
        return translate(self.lane.channel, self.task_id, self.body, self.received_at)


class _Lane:
    """One connection in the fleet: its tasks by the time at which they are due."""

    __slots__ = ("channel", "heap", "in_flight", "slot")

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.heap: list[tuple[float, int, _Item]] = []
        self.in_flight = 0
        self.slot: float | None = None  # when the governor lets the next request go, once asked

    def pause(self) -> float:
        """Seconds to the next steady look."""
        policy = self.channel.settings.poll
        interval = policy.interval or (2.0 * policy.latency if policy.latency else _INTERVAL)
        return min(interval, policy.at_most)


class Fleet:
    """Every task that is waited for. Not for several threads at once: its driver takes care of that."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}
        self._items: dict[str, _Item] = {}
        self._deadlines: list[tuple[float, int, Ticket]] = []
        self._serial = count()
        self._news: deque[News] = deque()

    def __len__(self) -> int:
        return len(self._items)

    # In.

    def add(
        self,
        channel: Channel,
        task_id: str,
        now: float,
        *,
        deadline: float = inf,
        owner: Any = None,
        place: int = 0,
        changes: bool = False,
        hold: bool = False,
    ) -> Ticket:
        """Wait for a task; the same task twice is looked up once and told twice.

        Args:
            channel: The connection.
            task_id: A shared id.
            now: Monotonic seconds.
            deadline: Monotonic seconds at which to stop waiting.
            owner: Whose the ticket is.
            place: The owner's number for it.
            changes: Tell every change, not only the end.
            hold: Ask on a held line after the first look, where the vendor has one.
        """
        lane = self._lanes.get(channel.name)
        if lane is None:
            lane = self._lanes[channel.name] = _Lane(channel)
        ref = TaskRef.of(channel.name, task_id)
        item = self._items.get(ref)
        if item is None:
            item = self._items[ref] = _Item(lane, task_id, ref, now)
            self._queue(item, now)
        item.hold = hold
        ticket = Ticket(item, owner, place, deadline, changes=changes)
        item.tickets.append(ticket)
        if deadline != inf:
            heappush(self._deadlines, (deadline, next(self._serial), ticket))
        if changes and item.looks and not item.changes:
            item.shown = item.snapshot()
        return ticket

    def drop(self, tickets: Iterable[Ticket]) -> None:
        """Stop waiting, without an outcome."""
        for ticket in tickets:
            self._detach(ticket)

    def close(self) -> None:
        """Tell everybody that the waiting ends here."""
        for item in list(self._items.values()):
            channel = item.lane.channel
            error = WaitTimeout(
                "the client was closed while waiting; the task goes on",
                task=item.snapshot(),
                last_error=item.error,
                provider=channel.provider.name,
                connection=channel.name,
                ref=item.ref,
            )
            self._end(item, Outcome(item.ref, error.task, error))

    def looked(self, look: LookAt, now: float, seen: Look) -> None:
        """A look ended with an answer."""
        item = self._landed(look)
        item.error, item.failures = None, 0
        item.looks += 1
        item.received_at = seen.received_at
        if seen.task is not None:
            item.body = seen.body
            self._tell(item, seen.task)
        if item.tickets:
            if look.hold:
                item.hold = False  # an answer before the end: the line is of no use
            due = now if item.hold else now + self._steady(item)
            self._queue(item, due)

    def failed(self, look: LookAt, now: float, error: TaskbridgeError) -> None:
        """A look ended with an error, which says nothing of the task."""
        item = self._landed(look)
        if look.hold:
            item.hold = False  # the line broke: from now on we ask
            self._queue(item, now)
            return
        item.error = error
        item.failures += 1
        if look.channel.refusal is not None and look.channel.blames_account(error):
            for other in [i for i in self._items.values() if i.lane is item.lane]:
                self._end(other, Outcome(other.ref, other.snapshot(), error.again(ref=other.ref)))
        elif is_final(error):
            self._end(item, Outcome(item.ref, item.snapshot(), error))
        elif item.tickets:
            retry = item.lane.channel.retry
            chance = item.lane.channel.clock.random()
            wait = max(self._steady(item), retry.pause(item.failures, chance), error.retry_after or 0.0)
            self._queue(item, now + wait)

    def heard(self, task: Task, now: float) -> None:
        """An event from outside told the truth about a task (a confirmed webhook)."""
        item = self._items.get(task.ref)
        if item is None:
            return
        item.body, item.shown = None, task
        item.looks += 1
        self._tell(item, task)
        if item.tickets and not item.looking:
            self._queue(item, now + self._steady(item))

    def hint(self, ref: str, now: float) -> None:
        """An event from outside may be true: look soon."""
        item = self._items.get(ref)
        if item is not None and not item.looking:
            self._queue(item, now)

    # Out.

    def next(self, now: float) -> Command:
        """What to do now; after `LookAt` ask again, several looks may be under way."""
        self._expire(now)
        if not self._items:
            return Done()
        wake = inf
        for lane in self._lanes.values():
            at = self._ready_at(lane, now)
            if at <= now + _JUST_NOW:
                return self._launch(lane)
            wake = min(wake, at)
        if self._deadlines:
            wake = min(wake, self._deadlines[0][0])
        return WaitUntil(wake) if wake != inf else Idle()

    def news(self) -> News | None:
        """The next thing to tell somebody, or None."""
        return self._news.popleft() if self._news else None

    # Inside.

    def _ready_at(self, lane: _Lane, now: float) -> float:
        heap = lane.heap
        while heap and (heap[0][2].due_at != heap[0][0] or heap[0][2].looking or not heap[0][2].tickets):
            heappop(heap)  # moved, under way, or no longer wanted
        if not heap or lane.in_flight >= lane.channel.settings.max_in_flight:
            return inf
        if heap[0][0] > now + _JUST_NOW:
            return heap[0][0]
        if lane.slot is None:
            grant = lane.channel.governor.take(now)
            if not grant.granted:
                return now + max(grant.wait, _JUST_NOW * 2)
            lane.slot = now + grant.wait
        return lane.slot

    def _launch(self, lane: _Lane) -> LookAt:
        lane.slot = None
        _, _, item = heappop(lane.heap)
        item.looking = True
        lane.in_flight += 1
        deadline = item.deadline
        return LookAt(lane.channel, item.task_id, deadline, item.body, item.hold and item.looks > 0, item)

    def _landed(self, look: LookAt) -> _Item:
        item = look.key
        item.looking = False
        item.lane.in_flight -= 1
        return item

    def _queue(self, item: _Item, due: float) -> None:
        item.due_at = due
        heappush(item.lane.heap, (due, next(self._serial), item))

    def _steady(self, item: _Item) -> float:
        pause = item.lane.pause()
        chance = item.lane.channel.clock.random()
        if item.looks <= 1:
            return pause * (0.1 + 0.9 * chance)  # a random phase
        return pause * (1.0 - _SPREAD + 2.0 * _SPREAD * chance)

    def _tell(self, item: _Item, task: Task) -> None:
        if task.is_terminal:
            self._end(item, Outcome(item.ref, task))
        elif item.changes:
            if item.shown != task:
                for ticket in item.tickets:
                    if ticket.changes:
                        self._news.append(News(ticket, Outcome(item.ref, task), final=False))
            item.shown = task

    def _end(self, item: _Item, outcome: Outcome) -> None:
        for ticket in item.tickets:
            ticket._item = None  # noqa: SLF001  # the ticket is ours
            self._news.append(News(ticket, outcome, final=True))
        item.tickets = []
        self._items.pop(item.ref, None)

    def _detach(self, ticket: Ticket) -> None:
        item, ticket._item = ticket._item, None  # noqa: SLF001  # the ticket is ours
        if item is not None:
            item.tickets.remove(ticket)
            if not item.tickets:
                self._items.pop(item.ref, None)

    def _expire(self, now: float) -> None:
        while self._deadlines and (self._deadlines[0][0] <= now or self._deadlines[0][2]._item is None):  # noqa: SLF001  # ours
            ticket = heappop(self._deadlines)[2]
            item = ticket._item  # noqa: SLF001  # the ticket is ours
            if item is not None:
                waited = ticket.deadline - item.added_at
                outcome = Outcome(item.ref, task := item.snapshot(), _timeout(item, task, waited))
                self._detach(ticket)
                self._news.append(News(ticket, outcome, final=True))


def _timeout(item: _Item, task: Task | None, waited: float) -> WaitTimeout:
    channel = item.lane.channel
    if task is None:
        seen = "it was never seen" if item.error is None else f"every look failed, the last with: {item.error.message}"
    elif not task.recognised:
        seen = f"the vendor says {plain(task.native_status or 'nothing', 60)!r}, a word that taskbridge does not know"
    else:
        seen = f"it is {task.describe()}"
    hint = f"; {channel.provider.wait_hint}" if channel.provider.wait_hint else ""
    return WaitTimeout(
        f"stopped waiting after {waited:g} s, the task goes on: {seen}{hint}; wait again with its ref to resume",
        task=task,
        last_error=item.error,
        provider=channel.provider.name,
        connection=channel.name,
        ref=item.ref,
    )
