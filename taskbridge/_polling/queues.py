"""What the fleet holds of each connection: its tasks by the time at which they are due, and its lists; no I/O."""

from __future__ import annotations

from collections import deque
from heapq import heappop
from math import ceil, inf
from typing import TYPE_CHECKING, Final

from taskbridge._engine.logs import log
from taskbridge._polling.intervals import Intervals
from taskbridge._polling.lists import ListScan
from taskbridge.models import TaskStatus

if TYPE_CHECKING:
    from taskbridge._engine.connection import Connection
    from taskbridge._polling.entries import PolledTask
    from taskbridge.provider.submission import Query

JUST_NOW: Final = 0.001  # seconds; a clock's grain


_SAMPLE: Final = 16  # tasks compared when more are due than may be looked at


_WORTH: Final = 4  # looks that a page of a list has to save before lists are read


_REMEMBER: Final = 300.0  # seconds for which a list that was of little use counts as such


TROUBLES: Final = 3  # failed lists in a row after which single looks are trusted more


class ConnectionQueue:
    """One connection in the fleet: its tasks by the time at which they are due.

    Those that are due wait in `ready`. Where a limit binds there are many, and whoever has most delay to be expected
    goes first (found by sampling); nobody waits longer than `at_most` behind others.

    Where the vendor lists tasks and so many wait that a list costs fewer requests than looks, they are parked: a sweep
    over the list tells which go on, and only those that it does not show are looked at.
    """

    __slots__ = (
        "list_polling",
        "connection",
        "futile",
        "heap",
        "in_flight",
        "intervals",
        "lengths",
        "members",
        "parked",
        "period",
        "ready",
        "sweep",
        "scan_at",
        "troubles",
        "turns",
        "waste",
        "wasted_at",
    )

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.intervals = Intervals(connection)
        self.members: dict[str, PolledTask] = {}  # by shared id
        self.heap: list[tuple[float, int, PolledTask]] = []
        self.ready: list[PolledTask] = []
        self.turns: deque[tuple[float, PolledTask]] = (
            deque()
        )  # `ready` in order of coming, by due time, and some that left
        self.in_flight = 0
        self.list_polling = connection.provider.capabilities.list_polling
        self.parked = 0
        self.period = inf  # seconds between sweeps that the most urgent parked task asks for
        self.sweep: ListScan | None = None
        self.scan_at = inf
        self.lengths: dict[TaskStatus | None, int] = {}  # pages that each query had the last time
        self.troubles = 0
        self.futile = 0  # looks at tasks that a list had left out and that went on
        self.waste = 0.0  # requests of the last sweep beyond those for our own tasks
        self.wasted_at = -inf  # monotonic seconds

    # Lists.

    def may_park(self, item: PolledTask, now: float) -> bool:
        """Whether a task should wait for a list."""
        if (
            self.list_polling is None
            or item.long_poll
            or item.pace is None
            or item.prefix not in self.list_polling.prefixes
        ):
            return False
        return self.is_worth(now)

    def is_worth(self, now: float) -> bool:
        """Whether so many wait that a list costs less than looks."""
        if self.list_polling is None:
            return False
        waste = self.waste if now - self.wasted_at < _REMEMBER else 0.0
        return len(self.members) >= _WORTH * (self.own_pages + waste)

    @property
    def is_numbered(self) -> bool:
        """Whether any page can be asked for by its number."""
        return self.list_polling is not None and self.list_polling.numbered

    @property
    def own_pages(self) -> int:
        """Pages that a sweep takes where nobody else has tasks, as far as can be told before."""
        if self.list_polling is None:
            return 0
        beside = len(self.lengths) - 1 if self.lengths else self.list_polling.queries  # more, as long as nobody knows
        return ceil(len(self.members) / self.list_polling.page_size) + beside

    def wants_page(self, now: float) -> bool:
        """Whether a page of a list should be read now."""
        if self.sweep is not None:
            return self.sweep.wants_page
        return self.parked > 0 and self.scan_at <= now + JUST_NOW

    def park(self, item: PolledTask, due: float) -> None:
        """Let a task wait for the next sweep, and have one at that time (monotonic seconds) at the latest."""
        item.parked = True
        item.due_at = inf
        self.parked += 1
        self.period = min(self.period, item.period())
        self.scan_at = min(self.scan_at, due)

    def unpark(self, item: PolledTask) -> None:
        """Take a task out of those that wait for a sweep."""
        if item.parked:
            item.parked = False
            self.parked -= 1
        self.saw(item)

    def begin(self, now: float) -> ListScan:
        """Begin a sweep: ask for what parked tasks can be, as they go on from pending to processing and no way back."""
        parked = [i for i in self.members.values() if i.parked]
        oldest = min((i.submitted_at for i in parked), default=now)
        prefixes = frozenset(i.prefix for i in parked)
        queries = self._queries(prefixes, now - oldest)
        if not any(i.is_pending for i in parked):
            queries = tuple(query for query in queries if query.status is not TaskStatus.PENDING)
        self.lengths = {query.status: self.lengths.get(query.status, 1) for query in queries}
        self.sweep = sweep = ListScan(
            queries,
            now,
            len(parked),
            own_pages=self.own_pages,
            numbered=self.is_numbered,
            lengths=self.lengths,
        )
        for item in parked:
            item.awaited = sweep
        self.scan_at = self.period = inf
        return sweep

    def _queries(self, prefixes: frozenset[str], age: float) -> tuple[Query, ...]:
        connection = self.connection
        try:
            return connection.provider.list_queries(prefixes, connection.clock.now(), age)
        except Exception as error:  # noqa: BLE001  # whatever a provider's own code may raise
            log(
                "list-polling-failed",
                connection=connection.name,
                provider=connection.provider.name,
                error=type(error).__name__,
            )
        self.list_polling = None  # single looks are surer
        return ()

    def saw(self, item: PolledTask) -> None:
        """A list told of a task, or it waits no more for one."""
        if item.awaited is not None:
            item.awaited.unseen -= 1
            item.awaited = None

    def end(self, sweep: ListScan) -> list[PolledTask]:
        """End a sweep; parked tasks that it did not show: they ended, vanished, or fell between two pages."""
        if self.sweep is sweep:
            self.sweep = None
        return [item for item in self.members.values() if item.awaited is sweep]

    def weigh(self, sweep: ListScan, now: float) -> None:
        """Remember what a sweep cost beyond what our own tasks take: others' tasks, and looks that told nothing."""
        self.waste, self.wasted_at = max(0.0, sweep.pages - sweep.own) + self.futile, now
        self.futile = 0

    # Looks.

    def promote_due(self, now: float) -> None:
        """Move what is due to `ready`."""
        heap = self.heap
        while heap and heap[0][0] <= now + JUST_NOW:
            due, _, item = heappop(heap)
            if item.due_at == due and item.is_wanted and item.place < 0:
                if item.looks and not item.is_alone and item.error is None and self.may_park(item, now):
                    self.park(item, now + item.period())
                    continue
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

    def pick(self, now: float) -> PolledTask | None:
        """Take the ready task to look at now."""
        self.drop_unwanted()
        if not self.ready:
            return None
        best = self.turns[0][1] if self.turns else self.ready[-1]
        waits = best.pace is not None and len(self.ready) > 1  # a task that nobody has seen yet goes first
        if waits and now - best.due_at <= self.connection.settings.poll.at_most:
            chance, size = self.connection.clock.random, len(self.ready)
            picked = self.ready if size <= _SAMPLE else [self.ready[int(chance() * size)] for _ in range(_SAMPLE)]
            best = max((i for i in picked if i.is_wanted), key=lambda i: i.urgency(now), default=best)
        self._leave(best)
        return best

    def _leave(self, item: PolledTask) -> None:
        if item.place >= 0:
            last = self.ready.pop()
            if last is not item:
                self.ready[item.place] = last
                last.place = item.place
            item.place = -1
