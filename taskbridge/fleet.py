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
    from taskbridge.schedule import Pace

__all__ = ["Command", "Done", "Fleet", "Idle", "LookAt", "News", "Ticket", "WaitUntil"]

_SPREAD: Final = 0.1  # of a pause, either way, so that looks do not fall into step
_PHASE: Final = 0.5  # the same for a task's first pause while the schedule is not learnt: a random phase
_SAMPLE: Final = 16  # tasks compared when more are due than may be looked at
_AHEAD: Final = 4.0  # steady pauses that a reported progress may put the next look off, at most
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
        since: Monotonic seconds at which the waiting began.
        deadline: Monotonic seconds at which the party stops waiting; infinite for never.
        changes: Whether each change is to be told, not only the end.
    """

    __slots__ = ("_item", "changes", "deadline", "owner", "place", "since")

    def __init__(
        self, item: _Item | None, owner: Any, place: int, since: float, deadline: float, *, changes: bool
    ) -> None:
        self._item = item
        self.owner = owner
        self.place = place
        self.since = since
        self.deadline = deadline
        self.changes = changes

    @classmethod
    def apart(cls, owner: Any, place: int) -> Ticket:
        """A ticket for what never enters the fleet."""
        return cls(None, owner, place, 0.0, inf, changes=False)


class _Item:
    """One task in the fleet."""

    __slots__ = (
        "age",
        "body",
        "born_at",
        "due_at",
        "error",
        "failures",
        "hold",
        "lane",
        "looking",
        "looks",
        "pace",
        "place",
        "progress",
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
        self.born_at = now  # our best guess, on our clock
        self.due_at = now
        self.age = 0.0  # at the last look, in seconds
        self.pace: Pace | None = None  # known from the first look on
        self.place = -1  # in its lane's `ready`; -1 where it is not there
        self.progress: float | None = None
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
    def is_wanted(self) -> bool:
        return bool(self.tickets) and not self.looking

    def urgency(self, now: float) -> float:
        """Seconds of delay to be expected since the last look, unseen so far; infinite before the first."""
        if self.pace is None:
            return inf
        unseen = max(0.0, now - self.born_at - self.age)
        return self.pace.durations.expected(self.age, self.age + unseen) * unseen / 2.0

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
    """One connection in the fleet: its tasks by the time at which they are due.

    Those that are due wait in `ready`. Where a limit binds there are many, and whoever has most delay to be expected
    goes first (found by sampling); nobody waits longer than `at_most` behind others.
    """

    __slots__ = ("channel", "heap", "in_flight", "ready", "slot", "turns")

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.heap: list[tuple[float, int, _Item]] = []
        self.ready: list[_Item] = []
        self.turns: deque[_Item] = deque()  # those in `ready`, in the order in which they came, and some that left
        self.in_flight = 0
        self.slot: float | None = None  # when the governor lets the next request go, once asked

    def ripen(self, now: float) -> None:
        """Move what is due to `ready`."""
        heap = self.heap
        while heap and heap[0][0] <= now + _JUST_NOW:
            due, _, item = heappop(heap)
            if item.due_at == due and item.is_wanted:
                item.place = len(self.ready)
                self.ready.append(item)
                self.turns.append(item)

    def drop_unwanted(self) -> None:
        """Forget ready tasks that nobody waits for any more."""
        while self.ready and not self.ready[-1].is_wanted:
            self._leave(self.ready[-1])
        while self.turns and (self.turns[0].place < 0 or not self.turns[0].is_wanted):
            self._leave(self.turns.popleft())

    def pick(self, now: float) -> _Item | None:
        """Take the ready task to look at now."""
        self.drop_unwanted()
        if not self.ready:
            return None
        best = self.turns[0]
        if len(self.ready) > 1 and now - best.due_at <= self.channel.settings.poll.at_most:
            chance, size = self.channel.clock.random, len(self.ready)
            picked = self.ready if size <= _SAMPLE else [self.ready[int(chance() * size)] for _ in range(_SAMPLE)]
            best = max((i for i in picked if i.is_wanted), key=lambda i: i.urgency(now), default=best)
        self._leave(best)
        return best

    def _leave(self, item: _Item) -> None:
        if item.place >= 0:
            last = self.ready.pop()
            if last is not item:
                self.ready[item.place] = last
                last.place = item.place
            item.place = -1


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
        known: Task | None = None,
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
            known: A snapshot that the caller has; saves the first look while it is fresh.
        """
        lane = self._lanes.get(channel.name)
        if lane is None:
            lane = self._lanes[channel.name] = _Lane(channel)
        ref = TaskRef.of(channel.name, task_id)
        item = self._items.get(ref)
        if item is None:
            item = self._items[ref] = _Item(lane, task_id, ref, now)
            due = now if known is None or known.is_terminal else self._remember(item, known, now)
            self._queue(item, due)
        item.hold = hold
        ticket = Ticket(item, owner, place, now, deadline, changes=changes)
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
        item.received_at = seen.received_at
        if seen.task is None:
            item.lane.channel.tally.unchanged += 1
        else:
            item.body = seen.body
        self._learn(item, now, seen.task, exact=look.hold)
        if seen.task is not None:
            self._tell(item, seen.task)
        if item.tickets:
            if look.hold:
                item.hold = False  # an answer before the end: the line is of no use
            self._queue(item, now if item.hold else now + self._steady(item))

    def _remember(self, item: _Item, known: Task, now: float) -> float:
        """Begin with a snapshot that somebody has; when to look first (monotonic seconds)."""
        channel = item.lane.channel
        stale = max(0.0, (channel.clock.now() - known.observed_at).total_seconds())
        item.shown = known
        item.pace = channel.pace(known.operation)
        item.age = max(0.0, (known.observed_at - (known.created_at or known.observed_at)).total_seconds())
        item.born_at = now - stale - item.age
        item.progress = known.progress
        item.looks = 1
        return max(now, now - stale + self._steady(item))

    def _learn(self, item: _Item, now: float, task: Task | None, *, exact: bool) -> None:
        """Note what a look says of how long such tasks take; `exact` where an end is told at once."""
        if task is not None and item.pace is None:
            item.pace = item.lane.channel.pace(task.operation)
            if task.created_at is not None:
                item.born_at = min(item.born_at, now - (task.observed_at - task.created_at).total_seconds())
        age, ended = now - item.born_at, task is not None and task.is_terminal
        if item.pace is not None and item.looks:
            tally = item.lane.channel.tally
            tally.ends += ended
            tally.delay += (age - item.age) / 2 if ended and not exact else 0.0
            item.pace.durations.watched(item.age, age, ended=ended and not exact)
            if ended and exact:
                item.pace.durations.watched(age, age, ended=True)
        item.progress = task.progress if task is not None else item.progress
        item.age = age
        item.looks += 1

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
        self._learn(item, now, task, exact=True)
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
            look = self._launch(lane, now) if at <= now + _JUST_NOW else None
            if look is not None:
                return look
            wake = min(wake, at)
        if self._deadlines:
            wake = min(wake, self._deadlines[0][0])
        return WaitUntil(wake) if wake != inf else Idle()

    def news(self) -> News | None:
        """The next thing to tell somebody, or None."""
        return self._news.popleft() if self._news else None

    # Inside.

    def _ready_at(self, lane: _Lane, now: float) -> float:
        """When this lane can look at something; infinite for not before something comes in."""
        lane.ripen(now)
        lane.drop_unwanted()
        if lane.in_flight >= lane.channel.settings.max_in_flight:
            return inf
        if not lane.ready:
            return lane.heap[0][0] if lane.heap else inf
        if lane.slot is None:
            grant = lane.channel.governor.take(now)
            if not grant.granted:
                return now + max(grant.wait, _JUST_NOW * 2)
            lane.slot = now + grant.wait
        return lane.slot

    def _launch(self, lane: _Lane, now: float) -> LookAt | None:
        item = lane.pick(now)
        if item is None:
            return None
        lane.slot = None
        item.looking = True
        lane.in_flight += 1
        return LookAt(lane.channel, item.task_id, item.deadline, item.body, item.hold and item.looks > 0, item)

    def _landed(self, look: LookAt) -> _Item:
        item = look.key
        item.looking = False
        item.lane.in_flight -= 1
        return item

    def _queue(self, item: _Item, due: float) -> None:
        item.due_at = due
        heappush(item.lane.heap, (due, next(self._serial), item))

    def _steady(self, item: _Item) -> float:
        """Seconds to the next look at a task that goes on."""
        lane = item.lane
        pace = item.pace or lane.channel.pace(None)
        pause = pace.pause(item.age)
        if item.progress is not None and 0.0 < item.progress < 1.0:
            left = item.age * (1.0 - item.progress) / item.progress
            pause = min(max(left, pause / 2), pause * _AHEAD)
        spread = _PHASE if item.looks <= 1 and not pace.durations.is_known else _SPREAD
        return pause * (1.0 - spread + 2.0 * spread * lane.channel.clock.random())

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
        self._forget(item)

    def _detach(self, ticket: Ticket) -> None:
        item, ticket._item = ticket._item, None  # noqa: SLF001  # the ticket is ours
        if item is not None:
            item.tickets.remove(ticket)
            if not item.tickets:
                self._forget(item)

    def _forget(self, item: _Item) -> None:
        if self._items.get(item.ref) is item:  # not one that was added again while a look of this one was under way
            del self._items[item.ref]

    def _expire(self, now: float) -> None:
        while self._deadlines and (self._deadlines[0][0] <= now or self._deadlines[0][2]._item is None):  # noqa: SLF001  # ours
            ticket = heappop(self._deadlines)[2]
            item = ticket._item  # noqa: SLF001  # the ticket is ours
            if item is not None:
                waited = ticket.deadline - ticket.since
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
