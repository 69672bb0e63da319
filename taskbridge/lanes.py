"""What the fleet holds: tickets of waiting parties, tasks, and the lane of each connection; without I/O."""

from __future__ import annotations

from collections import deque
from heapq import heappop
from math import ceil, inf
from typing import TYPE_CHECKING, Any, Final

from taskbridge.flows import translate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from taskbridge.channel import Channel
    from taskbridge.errors import TaskbridgeError
    from taskbridge.model import Task, TaskRef
    from taskbridge.schedule import Pace
    from taskbridge.submission import Bulk, Query

__all__ = ["JUST_NOW", "TROUBLES", "Item", "Lane", "Sweep", "Ticket"]

JUST_NOW: Final = 0.001  # seconds; a clock's grain
_SAMPLE: Final = 16  # tasks compared when more are due than may be looked at
_WORTH: Final = 4  # looks that a page of a list has to save before lists are read
TROUBLES: Final = 3  # failed lists in a row after which single looks are trusted more


class Ticket:
    """One party's wish to know about one task.

    Attributes:
        owner: Whose it is; the fleet never looks at it.
        place: The owner's own number for it.
        since: Monotonic seconds at which the waiting began.
        deadline: Monotonic seconds at which the party stops waiting; infinite for never.
        changes: Whether each change is to be told, not only the end.
    """

    __slots__ = ("changes", "deadline", "item", "owner", "place", "since")

    def __init__(
        self, item: Item | None, owner: Any, place: int, since: float, deadline: float, *, changes: bool
    ) -> None:
        self.item = item
        self.owner = owner
        self.place = place
        self.since = since
        self.deadline = deadline
        self.changes = changes

    @classmethod
    def apart(cls, owner: Any, place: int) -> Ticket:
        """A ticket for what never enters the fleet."""
        return cls(None, owner, place, 0.0, inf, changes=False)


class Item:
    """One task in the fleet."""

    __slots__ = (
        "age",
        "body",
        "born_at",
        "due_at",
        "error",
        "failures",
        "hinted",
        "hold",
        "joined",
        "lane",
        "looking",
        "looks",
        "native",
        "pace",
        "parked",
        "place",
        "progress",
        "received_at",
        "ref",
        "seen_in",
        "shown",
        "task_id",
        "tickets",
    )

    def __init__(self, lane: Lane, task_id: str, ref: TaskRef, now: float) -> None:
        self.lane = lane
        self.task_id = task_id
        self.ref = ref
        self.joined = now
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
        self.hinted = False  # whether an event came during the look under way
        self.native: str | None = None  # the vendor's word at the last look
        self.parked = False  # whether it waits for a list instead of a look of its own
        self.seen_in: Sweep | None = None  # the last list that had it

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for it and no look is under way."""
        return bool(self.tickets) and not self.looking

    @property
    def prefix(self) -> str:
        """Its kind, by what stands before the slash of its id."""
        return self.task_id.partition("/")[0] if "/" in self.task_id else ""

    def urgency(self, now: float) -> float:
        """Seconds of delay to be expected since the last look, unseen so far; infinite before the first."""
        if self.pace is None:
            return inf
        unseen = max(0.0, now - self.born_at - self.age)
        return self.pace.durations.expected(self.age, self.age + unseen) * unseen / 2.0

    @property
    def changes(self) -> bool:
        """Whether somebody wants to hear of each change."""
        return any(t.changes for t in self.tickets)

    @property
    def deadline(self) -> float:
        """Monotonic seconds at which the last party stops waiting."""
        return max((t.deadline for t in self.tickets), default=-inf)

    def snapshot(self) -> Task | None:
        """What was last seen of it."""
        if self.body is None or self.received_at is None:
            return self.shown
        return translate(self.lane.channel, self.task_id, self.body, self.received_at)


class Sweep:
    """One reading of a vendor's list, for all tasks of a kind in a lane.

    Args:
        bulk: How the vendor lists that kind.
        queries: What is asked for, one query after the other.
        began: Monotonic seconds.
        most: Pages to read at most.
    """

    def __init__(self, bulk: Bulk, queries: Iterator[Query], began: float, most: int) -> None:
        self.bulk = bulk
        self._queries = queries
        self.began = began
        self.left = most
        self.pages = 0
        self.query: Query | None = next(queries, None)
        self.cursor: str | None = None

    def turn(self, cursor: str | None) -> None:
        """Go on after a page."""
        self.pages += 1
        self.left -= 1
        self.cursor = cursor
        if cursor is None:
            self.query = next(self._queries, None)
        if self.left <= 0:
            self.query = None


class Lane:
    """One connection in the fleet: its tasks by the time at which they are due.

    Those that are due wait in `ready`. Where a limit binds there are many, and whoever has most delay to be expected
    goes first (found by sampling); nobody waits longer than `at_most` behind others.

    Where the vendor lists tasks and so many wait that a list costs fewer requests than looks, they are parked: a sweep
    over the list tells which go on, and only those that it does not show are looked at.
    """

    __slots__ = (
        "asking",
        "bulk",
        "channel",
        "heap",
        "in_flight",
        "members",
        "parked",
        "period",
        "ready",
        "sweep",
        "sweep_at",
        "troubles",
        "turns",
    )

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.members: dict[str, Item] = {}  # by shared id
        self.heap: list[tuple[float, int, Item]] = []
        self.ready: list[Item] = []
        self.turns: deque[tuple[float, Item]] = deque()  # `ready` in order of coming, by due time, and some that left
        self.in_flight = 0
        self.bulk = channel.provider.capabilities.bulk
        self.parked = 0
        self.period = inf  # seconds between sweeps that the most urgent parked task asks for
        self.sweep: Sweep | None = None
        self.sweep_at = inf
        self.asking = False  # whether a page of the sweep is under way
        self.troubles = 0

    # Lists.

    def may_park(self, item: Item) -> bool:
        """Whether a task should wait for a list."""
        if self.bulk is None or item.hold or item.pace is None or item.prefix not in self.bulk.prefixes:
            return False
        return len(self.members) >= self.worth

    @property
    def worth(self) -> int:
        """Members from which on a list costs less than looks."""
        return _WORTH * self.pages

    def wants_page(self, now: float) -> bool:
        """Whether the next page of a list should be read now."""
        if self.asking:
            return False
        return self.sweep is not None or (self.parked > 0 and self.sweep_at <= now + JUST_NOW)

    @property
    def pages(self) -> int:
        """Pages that a sweep takes, as far as can be told before."""
        assert self.bulk is not None  # noqa: S101  # asked only where there are lists
        return ceil(len(self.members) / self.bulk.page_size) + self.bulk.queries

    def park(self, item: Item, now: float, pause: float) -> None:
        """Let a task wait for the next sweep."""
        item.parked = True
        item.due_at = inf
        self.parked += 1
        self.period = min(self.period, pause)
        self.sweep_at = min(self.sweep_at, now + pause)

    def unpark(self, item: Item) -> None:
        """Take a task out of those that wait for a sweep."""
        if item.parked:
            item.parked = False
            self.parked -= 1

    def begin(self, now: float) -> Sweep:
        """Begin a sweep."""
        assert self.bulk is not None  # noqa: S101  # something is parked
        parked = [i for i in self.members.values() if i.parked]
        oldest = min((i.born_at for i in parked), default=now)
        prefixes = frozenset(i.prefix for i in parked)
        queries = self.channel.provider.sweep(prefixes, self.channel.clock.now(), now - oldest)
        self.sweep = Sweep(self.bulk, iter(queries), now, 2 * self.pages + 4)
        self.sweep_at = self.period = inf
        return self.sweep

    def missed(self, sweep: Sweep) -> list[Item]:
        """Parked tasks that a sweep did not show: they ended, vanished, or fell between two pages."""
        return [i for i in self.members.values() if i.parked and i.seen_in is not sweep and i.joined <= sweep.began]

    # Looks.

    def ripen(self, now: float) -> None:
        """Move what is due to `ready`."""
        heap = self.heap
        while heap and heap[0][0] <= now + JUST_NOW:
            due, _, item = heappop(heap)
            if item.due_at == due and item.is_wanted and item.place < 0:
                item.place = len(self.ready)
                self.ready.append(item)
                self.turns.append((due, item))

    def drop_unwanted(self) -> None:
        """Forget ready tasks that nobody waits for any more."""
        while self.ready and not self.ready[-1].is_wanted:
            self._leave(self.ready[-1])
        while self.turns:
            due, item = self.turns[0]
            if item.place >= 0 and item.due_at == due and item.is_wanted:
                return
            self.turns.popleft()
            if not item.is_wanted:
                self._leave(item)

    def pick(self, now: float) -> Item | None:
        """Take the ready task to look at now."""
        self.drop_unwanted()
        if not self.ready:
            return None
        best = self.turns[0][1] if self.turns else self.ready[-1]
        if len(self.ready) > 1 and now - best.due_at <= self.channel.settings.poll.at_most:
            chance, size = self.channel.clock.random, len(self.ready)
            picked = self.ready if size <= _SAMPLE else [self.ready[int(chance() * size)] for _ in range(_SAMPLE)]
            best = max((i for i in picked if i.is_wanted), key=lambda i: i.urgency(now), default=best)
        self._leave(best)
        return best

    def _leave(self, item: Item) -> None:
        if item.place >= 0:
            last = self.ready.pop()
            if last is not item:
                self.ready[item.place] = last
                last.place = item.place
            item.place = -1
