"""What the fleet holds of each connection: its tasks by the time at which they are due, and its lists; no I/O."""

from __future__ import annotations

from collections import deque
from heapq import heappop
from math import ceil, inf
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskbridge.channel import Channel
    from taskbridge.items import Item
    from taskbridge.submission import Bulk, Query

__all__ = ["JUST_NOW", "TROUBLES", "Lane", "Sweep"]

JUST_NOW: Final = 0.001  # seconds; a clock's grain
_SAMPLE: Final = 16  # tasks compared when more are due than may be looked at
_WORTH: Final = 4  # looks that a page of a list has to save before lists are read
TROUBLES: Final = 3  # failed lists in a row after which single looks are trusted more


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
