"""What the fleet holds of each task: the tickets of those who wait, what was last seen, when to look again; no I/O."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, Final

from taskbridge._engine.lookup import translate
from taskbridge.errors import TaskbridgeError, WaitTimeout, printable
from taskbridge.events import PollReason
from taskbridge.models import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from taskbridge._engine.connection import Connection
    from taskbridge._polling.intervals import IntervalPolicy, Intervals
    from taskbridge._polling.lists import ListScan
    from taskbridge.models import Reason, Task, TaskRef

_SPREAD: Final = 0.1  # of a pause, either way, so that looks do not fall into step


_PHASE: Final = 0.5  # the same for a task's first pause while the schedule is not learnt: a random phase


_SAFETY_NET: Final = 5.0  # factor on the pause where a webhook is expected to tell first


_OVERDUE: Final = 2.0  # mean ages at the end, after which an event counts as lost, and looking goes on as ever


_AHEAD: Final = 4.0  # steady pauses that a reported progress may put the next look off, at most


class Waiter:
    """One party's wish to know about one task.

    Attributes:
        owner: Whose it is; the fleet never looks at it.
        place: The owner's own number for it.
        since: Monotonic seconds at which the waiting began.
        deadline: Monotonic seconds at which the party stops waiting; infinite for never.
        changes: Whether each change is to be told, not only the end.
    """

    __slots__ = ("changes", "deadline", "entry", "owner", "index", "since")

    def __init__(
        self, entry: PolledTask | None, owner: Any, index: int, since: float, deadline: float, *, changes: bool
    ) -> None:
        self.entry = entry
        self.owner = owner
        self.index = index
        self.since = since
        self.deadline = deadline
        self.changes = changes

    @classmethod
    def detached(cls, owner: Any, index: int) -> Waiter:
        """A ticket for what never enters the fleet."""
        return cls(None, owner, index, 0.0, inf, changes=False)


class PolledTask:
    """One task in the fleet."""

    __slots__ = (
        "_intervals",
        "age",
        "awaited",
        "body",
        "submitted_at",
        "due_at",
        "error",
        "failures",
        "hinted",
        "long_poll",
        "is_alone",
        "is_missed",
        "is_pending",
        "connection",
        "listed",
        "looking",
        "looks",
        "moved",
        "native",
        "pace",
        "parked",
        "place",
        "progress",
        "received_at",
        "ref",
        "shown",
        "task_id",
        "waiters",
        "told",
        "why",
    )

    def __init__(self, connection: Connection, intervals: Intervals, task_id: str, ref: TaskRef, now: float) -> None:
        self.connection = connection
        self._intervals = intervals
        self.task_id = task_id
        self.ref = ref
        self.submitted_at = now  # our best guess, on our clock
        self.due_at = now
        self.told: Task | None = None  # what those who observe were last told
        self.why: PollReason | None = PollReason.FIRST  # why it is looked at next; None for its pace
        self.age = 0.0  # at the last look, in seconds
        self.pace: IntervalPolicy | None = None  # known from the first look on
        self.place = -1  # in its lane's `ready`; -1 where it is not there
        self.progress: float | None = None
        self.moved = 0.0  # age at which the progress was last another
        self.waiters: list[Waiter] = []
        self.body: bytes | None = None
        self.received_at: datetime | None = None
        self.shown: Task | None = None  # what the watching parties were last told
        self.error: TaskbridgeError | None = None
        self.failures = 0
        self.looks = 0
        self.looking = False
        self.long_poll = False
        self.hinted = False  # whether an event came during the look under way
        self.native: str | None = None  # the vendor's word at the last look
        self.parked = False  # whether it waits for a list instead of a look of its own
        self.awaited: ListScan | None = None  # the list under way that is to tell of it
        self.is_alone = False  # whether it is looked at, whatever lists there are
        self.is_missed = False  # whether that is because a list left it out
        self.listed: tuple[object, ...] = ()  # what a list told for which it was looked at
        self.is_pending = False  # at the last look

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for it and no look is under way."""
        return bool(self.waiters) and not self.looking

    @property
    def prefix(self) -> str:
        """Its kind, by what stands before the slash of its id."""
        return self.task_id.partition("/")[0] if "/" in self.task_id else ""

    def urgency(self, now: float) -> float:
        """Seconds of delay to be expected since the last look, unseen so far; infinite before the first."""
        if self.pace is None:
            return inf
        unseen = max(0.0, now - self.submitted_at - self.age)
        return self.pace.durations.expected(self.age, self.age + unseen) * unseen / 2.0

    @property
    def changes(self) -> bool:
        """Whether somebody wants to hear of each change."""
        return any(t.changes for t in self.waiters)

    @property
    def deadline(self) -> float:
        """Monotonic seconds at which the last party stops waiting."""
        return max((t.deadline for t in self.waiters), default=-inf)

    def snapshot(self) -> Task | None:
        """What was last seen of it."""
        if self.body is None or self.received_at is None:
            return self.shown
        return translate(self.connection, self.task_id, self.body, self.received_at)

    def is_news(self, listed: Task) -> bool:
        """Whether a list tells watching parties something new, so that the whole snapshot is worth a look."""
        shown = self.shown
        told = (listed.native_status, listed.progress, listed.message)
        known = (shown.native_status, shown.progress, shown.message) if shown is not None else (self.native, None, None)
        if told == self.listed or all(mine in (None, theirs) for mine, theirs in zip(told, known, strict=True)):
            return False
        self.listed = told
        return True

    # What is learnt, and when to look again.

    @property
    def known_policy(self) -> IntervalPolicy:
        """How often to look at tasks like it, as far as its operation is known."""
        return self.pace or self._intervals.of(None)

    def remember(self, known: Task, now: float) -> float:
        """Begin with a snapshot that somebody has; when to look first (monotonic seconds)."""
        connection = self.connection
        stale = max(0.0, (connection.clock.now() - known.observed_at).total_seconds())
        self.shown = known
        self.pace = self._intervals.of(known.operation)
        self.age = max(0.0, (known.observed_at - (known.created_at or known.observed_at)).total_seconds())
        self.submitted_at = now - stale - self.age
        self.progress, self.moved = known.progress, self.age
        self.is_pending = known.status is TaskStatus.PENDING
        self.looks = 1
        return max(now, now - stale + self.steady())

    def learn(self, now: float, task: Task | None, *, exact: bool) -> None:
        """Note what a look says of how long such tasks take; `exact` where an end is told at once."""
        connection = self.connection
        if task is not None and self.pace is None:
            self.pace = self._intervals.of(task.operation)
            if task.created_at is not None:
                self.submitted_at = min(self.submitted_at, now - (task.observed_at - task.created_at).total_seconds())
        age, ended = now - self.submitted_at, task is not None and task.is_terminal
        if self.pace is not None and self.looks:
            counters = connection.counters
            counters.finished += ended
            counters.detection_delay += (age - self.age) / 2 if ended and not exact else 0.0
            self.pace.durations.watched(self.age, age, ended=ended and not exact)
            if ended and exact:
                self.pace.durations.watched(age, age, ended=True)
        if task is not None:
            if task.progress != self.progress:
                self.moved = age
            self.progress = task.progress
            self.is_pending = task.status is TaskStatus.PENDING
        self.age = age
        self.looks += 1

    def period(self) -> float:
        """Seconds between two looks that cost the same however many tasks they tell of."""
        return self.known_policy.period(self.age)

    def event_within(self) -> float:
        """Seconds in which a webhook is to tell its end; none where it is overdue, or nothing tells."""
        if not self.connection.expects_webhook:
            return 0.0
        # Not the mean over all that was watched: a task whose event was lost would put off its own overdue time.
        return max(0.0, _OVERDUE * self.known_policy.durations.mean_end - self.age)

    def steady(self) -> float:
        """Seconds to the next look at a task that goes on."""
        connection, pace = self.connection, self.known_policy
        pause = pace.pause(self.age)
        if self.progress is not None and 0.0 < self.progress < 1.0:
            left = self.age * (1.0 - self.progress) / self.progress
            left = max(left, (self.age - self.moved) / 2.0)  # a figure that stands still foretells nothing
            pause = min(max(left, pause / 2), pause * _AHEAD)
        pause = max(pause, min(pause * _SAFETY_NET, connection.settings.poll.at_most, self.event_within()))
        spread = _PHASE if self.looks <= 1 and not pace.durations.is_known else _SPREAD
        return pause * (1.0 - spread + 2.0 * spread * connection.clock.random())

    def cause(self) -> PollReason:
        """Why it is looked at next, in a word; for those who want to know."""
        if self.parked:
            return PollReason.LIST
        if self.why is not None:
            return self.why
        if self.event_within() > 0.0:
            return PollReason.WEBHOOK_EXPECTED
        if self.progress is not None and 0.0 < self.progress < 1.0:
            return PollReason.PROGRESS
        return self.known_policy.cause(self.age)

    # How a wait for it ends without its end.

    def given_up(self, why: str, task: Task | None) -> WaitTimeout:
        """The error for a wait that ends while the task goes on.

        Args:
            why: What ended it.
            task: What was last seen.
        """
        connection = self.connection
        return WaitTimeout(
            why,
            task=task,
            last_error=self.error,
            provider=connection.provider.name,
            connection=connection.name,
            ref=self.ref,
        )

    def timeout(self, task: Task | None, waited: float) -> WaitTimeout:
        """The error for a wait whose time is up."""
        if task is None:
            error = self.error
            seen = "it was never seen" if error is None else f"every look failed, the last with: {error.message}"
        elif not task.recognized:
            seen = f"the vendor says {printable(task.native_status or 'nothing', 60)!r}, a word that taskbridge does not know"
        else:
            seen = f"it is {task.describe()}"
        hint = _hint(self.connection.provider.wait_hints, task)
        told = f"{seen}; {hint}" if hint else seen
        return self.given_up(
            f"stopped waiting after {waited:g} s, the task goes on: {told}; wait again with its ref to resume", task
        )


def _hint(hints: Mapping[TaskStatus | Reason, str], task: Task | None) -> str | None:
    if task is None:
        return None
    return (hints.get(task.reason) if task.reason else None) or hints.get(task.status)
