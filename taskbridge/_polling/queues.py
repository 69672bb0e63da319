"""Per-connection queues: which task to poll next, and when to read the vendor's list instead. No I/O."""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from itertools import islice
from math import ceil, inf
from typing import TYPE_CHECKING, Final

from taskbridge._engine.logs import log
from taskbridge._polling.intervals import interval_policy
from taskbridge._polling.lists import ListScan, PageRange, QueryKey, is_of_ended, keyed
from taskbridge.events import PollReason
from taskbridge.models import TaskStatus
from taskbridge.provider.clock import clip_seconds

if TYPE_CHECKING:
    from taskbridge._engine.connection import Connection
    from taskbridge._engine.durations import DurationModel
    from taskbridge._engine.row_trust import RowKind
    from taskbridge._polling.entries import PolledTask, RowCheck
    from taskbridge._polling.intervals import IntervalPolicy
    from taskbridge.errors import TaskbridgeError
    from taskbridge.models import Task
    from taskbridge.provider.submission import Query

TICK: Final = 0.001  # seconds; resolution of the clock
MAX_LIST_FAILURES: Final = 3  # failed pages in a row, while polls succeed, after which tasks are polled one by one
LIST_REST: Final = 600.0  # seconds for which they are, before lists are tried again

_PROMOTED: Final = 1000  # due tasks that one step moves, so that a million at once do not hold up the others
_SAMPLE: Final = 16  # tasks compared when more are due than may be polled
_POLLS_PER_PAGE: Final = 4  # polls that a page of a list must save before lists are read
_SAVING: Final = 0.1  # fraction of the pause between two scans that is saved from the mean delay while many tasks end
_STRETCH: Final = 1.1  # factor by which the pause grows while few tasks end
_MOST_STRETCH: Final = 4.0
_PATIENCE: Final = 2.0  # seconds that a poll waits for the end of a scan
_WASTE_MEMORY: Final = 300.0  # seconds for which the cost of an inefficient scan is remembered


class ConnectionQueue:
    """The tasks of one connection, by the time at which each is due.

    Due tasks move from the heap to `ready`, a bounded number in each step. If a limit binds, many are ready: the next
    poll goes to the one with the largest expected delay among a random sample, but no task waits longer than
    `poll.at_most` behind others.

    If the vendor lists tasks, and there are so many that lists take fewer requests than polls, tasks are covered by the
    list: a scan shows which ones have not ended, and only those that it does not show are polled. Where rows are whole
    tasks, a scan also takes the place of the first polls, and the row of an ended task that of the last one.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._policies: dict[DurationModel, IntervalPolicy] = {}
        self.members: dict[str, PolledTask] = {}  # by shared id
        self.in_flight = 0  # polls and pages

        self._heap: list[tuple[float, int, PolledTask]] = []  # may hold outdated due times
        self._first: deque[tuple[float, PolledTask]] = deque()  # the same for first polls, which are due when added
        self._serial = 0
        self.ready: list[PolledTask] = []  # due and not being polled
        self._arrivals: deque[tuple[float, PolledTask]] = deque()  # `ready` by due time; may hold tasks that have left

        self.list_polling = connection.provider.capabilities.list_polling
        self.list_failures = 0  # in a row
        self.has_polled = False  # whether a poll has succeeded since the last of them
        self.lists_from = -inf  # monotonic seconds before which no list is read
        self.covered = 0  # tasks
        self.scan: ListScan | None = None
        self.scan_at = inf  # monotonic seconds of the next scan
        self.scan_pause = inf  # seconds between scans that the most urgent covered task needs
        self.saved_delay = 0.0  # seconds of expected delay of all tasks, compared with the usual pause between scans
        self.ranges: dict[QueryKey, PageRange] = {}  # pages of each query in the last scan
        self.page_size: int | None = None  # tasks per page to ask for; None for the provider's own
        self.checks: dict[RowKind, RowCheck] = {}  # first rows of their kinds that are being compared
        self.needless_polls = 0  # of tasks that a list omitted although they had not ended
        self.waste = 0.0  # requests of the last scan beyond those for our own tasks
        self.wasted_at = -inf  # monotonic seconds
        self._is_poll_next = False  # although a page is wanted
        connection.add_queue(self)

    def __len__(self) -> int:
        return len(self.members)

    def policy_of(self, operation: str | None) -> IntervalPolicy:
        """Return how often to poll the tasks of an operation."""
        durations = self.connection.durations_of(operation)
        if durations not in self._policies:
            self._policies[durations] = interval_policy(self.connection, durations)
        return self._policies[durations]

    def is_refused_by(self, error: TaskbridgeError) -> bool:
        """Whether the error means that the vendor refuses the account, which ends all waits of the connection."""
        return self.connection.credentials.refusal is not None and self.connection.is_refusal(error)

    def has_whole_row(self, entry: PolledTask) -> bool:
        """Whether the list's row of a task says all that a poll would."""
        return self.connection.row_trust.covers(entry.prefix)

    def can_use_row(self, entry: PolledTask, row: Task) -> bool:
        """Whether a row can take the place of the poll that a task waits for."""
        return (
            row.is_terminal
            and not entry.polling
            and entry.check is None
            and bool(entry.waiters)
            and self.has_whole_row(entry)
        )

    # Single polls.

    def push(self, entry: PolledTask, due: float, reason: PollReason | None) -> None:
        """Poll a task at that time (monotonic seconds)."""
        self.leave(entry)
        entry.due_at, entry.reason = due, reason
        if reason is PollReason.FIRST:
            self._first.append((due, entry))
            return
        self._serial += 1
        heappush(self._heap, (due, self._serial, entry))

    def promote_due(self, now: float) -> None:
        """Move due tasks to `ready`, or let the list cover them; at most `_PROMOTED` of them."""
        first_polls = len(self._first)
        promoted: list[tuple[float, PolledTask]] = []
        for _ in range(_PROMOTED):
            if self.next_due() > now + TICK:
                break
            if self._first and (not self._heap or self._first[0][0] <= self._heap[0][0]):
                due, entry = self._first.popleft()
            else:
                due, _, entry = heappop(self._heap)
                first_polls += not entry.polls
            if entry.due_at == due and entry.waiters and not entry.polling and entry.ready_index < 0:
                promoted.append((due, entry))
        for due, entry in promoted:
            if not entry.is_single and entry.last_error is None and self.can_cover(entry, now, first_polls):
                self.cover(entry, now + entry.list_pause() if entry.polls else now)
            else:
                entry.ready_index = len(self.ready)
                self.ready.append(entry)
                self._arrivals.append((due, entry))

    def next_due(self) -> float:
        """Return the monotonic seconds at which a task may be due; infinite if none is queued."""
        due = self._heap[0][0] if self._heap else inf
        return min(due, self._first[0][0]) if self._first else due

    def pick(self, now: float) -> PolledTask | None:
        """Remove and return the ready task to poll now."""
        if not self.ready:
            return None
        oldest = self._oldest_ready()
        best, size = oldest, len(self.ready)
        first = self._first_of_kind()
        # A task that was never polled goes first, and so does one that has waited too long.
        if first is not None:
            best = first
        elif oldest.polls and size > 1 and now - oldest.due_at <= self.connection.settings.poll.at_most:
            chance = self.connection.clock.random
            sample = self.ready if size <= _SAMPLE else [self.ready[int(chance() * size)] for _ in range(_SAMPLE)]
            best = max(sample, key=lambda entry: entry.expected_delay(now))
        self.leave(best)
        return best

    def _oldest_ready(self) -> PolledTask:
        while (oldest := self._arrivals[0][1]).ready_index < 0 or oldest.due_at != self._arrivals[0][0]:
            self._arrivals.popleft()
        return oldest

    def _first_of_kind(self) -> PolledTask | None:
        """Return a ready task that is to be compared with its row, while all rows of its kind are held for that."""
        is_verified = self.connection.row_trust.is_verified
        held = (each.sample for kind, each in self.checks.items() if not is_verified(kind))
        return next((sample for sample in held if sample.ready_index >= 0), None)

    def leave(self, entry: PolledTask) -> None:
        """Remove a task from `ready`, if it is there."""
        if entry.ready_index >= 0:
            last = self.ready.pop()
            if last is not entry:
                self.ready[entry.ready_index] = last
                last.ready_index = entry.ready_index
            entry.ready_index = -1
            if not self.ready:
                self._arrivals.clear()

    def demand(self) -> float:
        """Return the requests per second that the intervals of its tasks call for, estimated from the oldest ones."""
        single = [entry for entry in islice(self.members.values(), _SAMPLE) if not entry.covered]
        demand = 0.0
        if single:
            pauses = (max(entry.next_pause(), TICK) for entry in single)
            demand = (len(self.members) - self.covered) * sum(1.0 / pause for pause in pauses) / len(single)
        if self.covered:
            covered = next(entry for entry in self.members.values() if entry.covered)
            demand += (self._own_pages() + self.waste) / max(covered.list_pause(), TICK)
        return demand

    # Lists.

    def can_cover(self, entry: PolledTask, now: float, first_polls: int = 0) -> bool:
        """Whether a task should wait for a list scan instead of a poll.

        A scan takes the place of first polls if at least as many are due as it takes pages.
        """
        return (
            self.list_polling is not None
            and (entry.polls > 0 or (first_polls >= self._pages(now) and self.has_whole_row(entry)))
            and not entry.long_poll
            and entry.prefix in self.list_polling.prefixes
            and self.is_list_worthwhile(now)
        )

    def is_list_worthwhile(self, now: float) -> bool:
        """Whether there are so many tasks that lists take fewer requests than polls."""
        return (
            self.list_polling is not None
            and now >= self.lists_from
            and len(self.members) >= self._polls_per_page * self._pages(now)
        )

    @property
    def _polls_per_page(self) -> int:
        """How many polls a page must save.

        A page is larger than a response to a poll, and a scan may take more pages than expected. Once a scan has shown
        how many it takes, and its rows are whole, each page is worth a poll.
        """
        if self.list_polling is None or not self.covered:
            return _POLLS_PER_PAGE
        is_known = self.wasted_at > -inf and any(map(self.connection.row_trust.covers, self.list_polling.prefixes))
        return 1 if is_known else _POLLS_PER_PAGE

    def _pages(self, now: float) -> float:
        """Return the expected requests of a scan."""
        return self._own_pages() + (self.waste if now - self.wasted_at < _WASTE_MEMORY else 0.0)

    def _own_pages(self) -> int:
        """Return the expected pages of a scan if the account has no other tasks."""
        if self.list_polling is None:
            return 0
        queries = [status for status, _ in self.ranges if status is None or not status.is_terminal]
        extra = len(queries) - 1 if queries else self.list_polling.queries  # pessimistic before the first
        return ceil(len(self.members) / (self.page_size or self.list_polling.page_size)) + extra

    def wants_page(self, now: float) -> bool:
        """Whether to read a page of a list now."""
        if self.scan is not None:
            return self.scan.wants_page
        return self.covered > 0 and self.scan_at <= now + TICK < self.next_due()  # a scan shows all that are due

    def is_page_next(self, now: float) -> bool:
        """Whether the next request is for a page of a list.

        Pages and polls take turns once a poll has waited for some time: where a rate limit makes scans long, they
        follow each other without a pause.
        """
        if not self.wants_page(now):
            return False
        if self.ready:
            waited = now - self._oldest_ready().due_at
            self._is_poll_next = (waited > _PATIENCE and not self._is_poll_next) or self._first_of_kind() is not None
            return not self._is_poll_next
        return True

    def cover(self, entry: PolledTask, due: float) -> None:
        """Let a task wait for the next list scan, and start that by the given time (monotonic seconds)."""
        entry.covered = True
        entry.due_at = inf
        self.covered += 1
        self.scan_pause = min(self.scan_pause, entry.list_pause())
        self.scan_at = min(self.scan_at, due)

    def uncover(self, entry: PolledTask) -> None:
        """Stop covering a task, if it is covered."""
        if entry.covered:
            entry.covered = False
            self.covered -= 1
        self.mark_seen(entry)

    def covered_tasks(self) -> list[PolledTask]:
        """Return the tasks that wait for a list scan."""
        return [entry for entry in self.members.values() if entry.covered]

    def start_scan(self, now: float) -> ListScan:
        """Start a scan over the states that covered tasks can be in."""
        self._cover_ready(now)
        covered = self.covered_tasks()
        oldest = min((entry.submitted_at for entry in covered), default=now)
        queries = keyed(self._queries(frozenset(entry.prefix for entry in covered), now - oldest))
        # A task never returns from processing to pending.
        if not any(entry.is_pending or not entry.polls for entry in covered):
            queries = [(key, query) for key, query in queries if query.status is not TaskStatus.PENDING]
        if not any(self.has_whole_row(entry) for entry in covered):
            queries = [(key, query) for key, query in queries if not is_of_ended(query)]
        self.ranges = {key: self.ranges.get(key, PageRange()) for key, _ in queries}
        own_pages = self._own_pages()
        self.scan = scan = ListScan(
            queries,
            now,
            len(covered),
            own_pages=own_pages,
            limit=max(2 * own_pages + 4, len(covered) // self._polls_per_page),
            numbered=self.list_polling is not None and self.list_polling.numbered,
            ranges=self.ranges,
            page_size=self.page_size,
        )
        for entry in covered:
            entry.scan = scan
        self.scan_at = self.scan_pause = inf
        return scan

    def _cover_ready(self, now: float) -> None:
        """Cover what waits for its poll since the scan before, which did not show it or was not worthwhile then."""
        for entry in tuple(self.ready):
            is_free = not entry.is_single or (entry.was_unlisted and self.has_whole_row(entry))
            if is_free and entry.last_error is None and self.can_cover(entry, now, len(self.ready)):
                self.leave(entry)
                entry.is_single = entry.was_unlisted = False
                self.cover(entry, now)

    def shrink_pages(self) -> bool:
        """Ask for pages of half the size from now on; return False if they cannot be smaller."""
        size = self.page_size or (self.list_polling.page_size if self.list_polling is not None else 1)
        if size == 1:
            return False
        self.page_size = size // 2
        self.ranges = {key: pages.resized(2) for key, pages in self.ranges.items()}
        return True

    def _queries(self, prefixes: frozenset[str], age: float) -> tuple[Query, ...]:
        connection, provider = self.connection, self.connection.provider
        try:
            return provider.list_queries(prefixes, connection.clock.now(), clip_seconds(age))
        except Exception as error:  # noqa: BLE001  # a provider may raise anything
            problem = type(error).__name__
            log("list-polling-failed", connection=connection.name, provider=provider.name, error=problem)
        self.list_polling = None
        return ()

    def pause_after(self, scan: ListScan) -> float:
        """Return the seconds from the start of a scan to that of the next one.

        That is the pause that the most urgent covered task needs. It is a little shorter while a scan shows more ends
        than it takes pages; the delay saved in this way is spent on longer pauses when few tasks are left, so that the
        same mean delay takes fewer requests.
        """
        usual, covered = self.scan_pause, self.covered_tasks()
        sample = covered[:: ceil(len(covered) / _SAMPLE)] if covered else []
        if not sample or not all(entry.policy.interval is None and entry.policy.durations.is_known for entry in sample):
            return usual

        def ends(pause: float) -> float:
            expected = sum(entry.policy.durations.expected(entry.age, entry.age + pause) for entry in sample)
            return expected * len(covered) / len(sample)

        pause = usual
        if ends(usual) >= scan.requested:
            if self.saved_delay < _SAVING * usual * len(self.members):
                pause = usual * (1.0 - 2.0 * _SAVING)
        else:
            longest = min(_MOST_STRETCH * usual, self.connection.settings.poll.at_most)
            while (
                (longer := pause * _STRETCH) <= longest
                and ends(pause) < scan.requested
                and ends(longer) * (longer - usual) / 2.0 <= self.saved_delay
            ):
                pause = longer
        self.saved_delay -= ends(pause) * (pause - usual) / 2.0
        return pause

    def mark_seen(self, entry: PolledTask) -> None:
        """Note that the running scan showed a task, or need not show it any more."""
        if entry.scan is not None:
            entry.scan.unseen -= 1
            entry.scan = None

    def end_scan(self, scan: ListScan) -> list[PolledTask]:
        """End a scan; return the tasks that it did not show: they ended, vanished, or fell between two pages."""
        if self.scan is scan:
            self.scan = None
        return [entry for entry in self.members.values() if entry.scan is scan]

    def record_cost(self, scan: ListScan, now: float) -> None:
        """Remember the requests of a scan beyond our own tasks: pages of other tasks, and needless polls."""
        self.waste, self.wasted_at = max(0.0, scan.requested - scan.own_pages) + self.needless_polls, now
        self.needless_polls = 0
