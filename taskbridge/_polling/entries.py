"""The scheduler's state of one task: its waiters, the last response, and when and why to poll it next.

Between polls an entry keeps the last response as bytes: an unchanged response is recognized without parsing it, and the
snapshot is translated again when a caller needs it. No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, Final

from taskbridge._engine.lookup import NotFoundGrace, StatusResponse, translate
from taskbridge._engine.unknown_words import mapping_advice
from taskbridge._polling.intervals import pause_for_progress
from taskbridge.errors import DeadlineExceeded, TaskbridgeError, WaitTimeout, printable
from taskbridge.events import NextPoll, PollReason
from taskbridge.models import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from taskbridge._engine.connection import Connection
    from taskbridge._engine.row_trust import RowKind
    from taskbridge._polling.intervals import IntervalPolicy
    from taskbridge._polling.lists import ListScan
    from taskbridge.models import Task, TaskRef
    from taskbridge.provider.http import Response

_WEBHOOK_FACTOR: Final = 5.0  # pauses grow by this factor while a webhook is expected
_PATIENCE: Final = 5.0  # seconds after which a status request without a response says that something is wrong
_MARGIN: Final = 0.1  # seconds; a request may end a little before its deadline
_OVERDUE_FACTOR: Final = 2.0  # mean ages at the end after which the webhook counts as lost and normal polling resumes


@dataclass(slots=True, eq=False)
class Waiter:
    """One caller's wait for one task."""

    entry: PolledTask | None  # None once the wait has ended, and for a task that never enters the scheduler
    owner: Any  # the caller's object that receives updates; the scheduler does not use it
    index: int  # the owner's own number for this task
    since: float = 0.0  # monotonic seconds at which the wait began
    deadline: float = inf  # monotonic seconds at which the wait times out
    changes: bool = False  # whether the waiter wants an update for each change, not only for the end


@dataclass(slots=True, eq=False)
class RowCheck:
    """A list row of an ended task that is compared with the response to a poll of that task."""

    kind: RowKind
    row: Task
    sample: PolledTask  # the task; while the check runs, it is its `check`
    held: dict[PolledTask, Task] = field(default_factory=dict["PolledTask", "Task"])  # rows that wait for the result


@dataclass(slots=True, eq=False)
class PolledTask:
    """A task in the scheduler."""

    connection: Connection
    policy_of: Callable[[str | None], IntervalPolicy]  # by operation
    task_id: str
    ref: TaskRef
    submitted_at: float  # best guess, in our monotonic seconds
    waiters: list[Waiter] = field(default_factory=list[Waiter])

    # What is known of the task.
    is_dated: bool = False  # whether the vendor's own clock has said how old it is
    policy: IntervalPolicy = field(init=False)  # the connection's default until the operation is known
    age: float = 0.0  # seconds, at the last poll
    polls: int = 0  # successful ones, including snapshots from elsewhere
    is_pending: bool = False  # at the last poll
    native_status: str | None = None
    progress: float | None = None
    progressed_at: float = 0.0  # age at which the progress last changed
    last_seen: StatusResponse | None = None  # the response that was translated last
    received_at: datetime | None = None  # time of the last body
    reported: Task | None = None  # last snapshot for waiters that want changes
    observed: Task | None = None  # last snapshot for observers
    not_found: NotFoundGrace = field(init=False)
    completed: Task | None = None  # snapshot of its success, if a caller or a list has shown one
    last_error: TaskbridgeError | None = None  # of the last poll
    failures: int = 0  # failed polls in a row

    # The next poll.
    due_at: float = 0.0  # monotonic seconds
    polled_at: float = 0.0  # monotonic seconds at which the last poll began
    not_before: float = -inf  # monotonic seconds until which the vendor wants no poll
    reason: PollReason | None = PollReason.FIRST  # None if the interval policy decides
    ready_index: int = -1  # position in the queue's `ready`; -1 if not in it
    polling: bool = False
    long_poll: bool = False  # whether to use the vendor's long poll
    has_hint: bool = False  # whether a hint arrived during the current poll

    # List scans.
    covered: bool = False  # whether it waits for a list scan instead of a poll
    scan: ListScan | None = None  # the running scan that has not shown it yet
    is_single: bool = False  # whether to poll it even if lists are read
    was_unlisted: bool = False  # whether the reason is that a scan did not show it
    listed_state: tuple[object, ...] = ()  # what a list showed when it last caused a poll
    check: RowCheck | None = None  # of its row, which its next poll answers

    def __post_init__(self) -> None:
        self.policy = self.policy_of(None)
        self.not_found = NotFoundGrace(self.connection, self.task_id, patient=True)

    @property
    def prefix(self) -> str:
        """The kind of its id: the part before the slash, empty for a plain id."""
        return self.task_id.partition("/")[0] if "/" in self.task_id else ""

    @property
    def reports_changes(self) -> bool:
        """Whether a waiter wants each change."""
        return any(waiter.changes for waiter in self.waiters)

    @property
    def deadline(self) -> float:
        """Monotonic seconds at which the last waiter times out."""
        return max((waiter.deadline for waiter in self.waiters), default=-inf)

    def snapshot(self) -> Task | None:
        """Return the last known snapshot."""
        if self.last_seen is None or self.received_at is None:
            return self.reported
        return translate(self.connection, self.task_id, self.last_seen, self.received_at)

    def is_change(self, listed: Task) -> bool:
        """Whether a list shows a change that waiters do not know, so that the full snapshot is worth a poll."""
        last = self.reported
        state = (listed.native_status, listed.progress, listed.message)
        known = (
            (last.native_status, last.progress, last.message) if last is not None else (self.native_status, None, None)
        )
        if state == self.listed_state or all(new in (None, old) for new, old in zip(state, known, strict=True)):
            return False
        self.listed_state = state
        return True

    # Learning from snapshots.

    def note_completed(self, task: Task) -> None:
        """Remember a snapshot of its success: the vendor may have deleted the task by the time of the next poll."""
        if task.status is TaskStatus.COMPLETED:
            self.completed = task

    def start_from(self, known: Task, now: float) -> float:
        """Start with a snapshot that the caller has; return when to poll first (monotonic seconds)."""
        stale = max(0.0, (self.connection.clock.now() - known.observed_at).total_seconds())
        self.reported = known
        self.policy = self.policy_of(known.operation)
        self.submitted_at = min(self.submitted_at, now - stale)
        self.age = now - stale - self.submitted_at
        self.progress, self.progressed_at = known.progress, self.age
        self.is_pending = known.status is TaskStatus.PENDING
        self.polls = 1
        return max(now, now - stale + self.next_pause())

    def record(self, now: float, task: Task | None, *, exact: bool, response: Response | None = None) -> float | None:
        """Learn from a poll or an event; return the expected delay in seconds with which an end was detected.

        The snapshot is None if it is unchanged. `exact` says that an end is reported at once, by a long poll or an
        event. Only the `response` of a poll has the vendor's time, with which its times can be compared. The result is
        None if the task has not ended, or the delay is unknown.
        """
        if task is not None and self.polls == 0:
            self.policy = self.policy_of(task.operation)
        if task is not None and response is not None and not self.is_dated:
            self._date(now, task, response)
        age, ended = now - self.submitted_at, task is not None and task.is_terminal
        delay = None
        if self.polls:
            counters, durations = self.connection.counters, self.policy.durations
            counters.finished += ended
            if ended and not exact:
                delay = (age - self.age) / 2
                counters.detection_delay += delay
            durations.observe(self.age, age, ended=ended and not exact)
            if ended and exact:
                durations.observe(age, age, ended=True)
        if task is not None:
            if task.progress != self.progress:
                self.progress, self.progressed_at = task.progress, age
            self.is_pending = task.status is TaskStatus.PENDING
        self.age = age
        self.polls += 1
        return delay

    def _date(self, now: float, task: Task, response: Response) -> None:
        """Learn a task's age from the vendor's clock, unless this process knows when it was submitted."""
        self.is_dated = True
        skew = response.skew
        if task.created_at is None or skew is None or self.connection.submitted_at(self.task_id) != -inf:
            return
        age = (response.received_at - task.created_at).total_seconds() - skew
        older = max(0.0, self.submitted_at - (now - age))
        self.submitted_at -= older
        if self.polls:  # a snapshot of the caller's came first, and could not say how old the task was
            self.age += older
            self.progressed_at += older

    # When to poll next, and why.

    def next_pause(self) -> float:
        """Return the seconds until the next poll of a task that has not ended."""
        pause = self.policy.pause(self.age)
        if self.progress is not None and 0.0 < self.progress < 1.0:
            pause = pause_for_progress(pause, self.age, self.progress, self.age - self.progressed_at)
        at_most = self.connection.settings.poll.at_most
        pause = max(pause, min(pause * _WEBHOOK_FACTOR, at_most, self.webhook_due_in()))
        return self.policy.jittered(pause, self.age, self.connection.clock.random(), first=self.polls <= 1)

    def list_pause(self) -> float:
        """Return the seconds between two list scans: a scan costs the same however many tasks it shows."""
        return self.policy.steady_pause(self.age)

    def webhook_due_in(self) -> float:
        """Return the seconds in which a webhook should report the end; 0 if it is overdue or none is expected."""
        if not self.connection.expects_webhook:
            return 0.0
        # Not `mean`, which counts running tasks: a task whose webhook was lost would postpone its own overdue time.
        return max(0.0, _OVERDUE_FACTOR * self.policy.durations.mean_age_at_end - self.age)

    def poll_reason(self) -> PollReason:
        """Return why the next poll happens when it does."""
        if self.covered:
            return PollReason.LIST
        if self.reason is not None:
            return self.reason
        if self.webhook_due_in() > 0.0:
            return PollReason.WEBHOOK_EXPECTED
        if self.progress is not None and 0.0 < self.progress < 1.0:
            return PollReason.PROGRESS
        return self.policy.reason(self.age)

    def expected_delay(self, now: float) -> float:
        """Return the expected seconds since an end that was not seen yet; infinite before the first poll."""
        if not self.polls:
            return inf
        unseen = max(0.0, now - self.submitted_at - self.age)
        return self.policy.durations.expected(self.age, self.age + unseen) * unseen / 2.0

    def next_poll(self, now: float, scan_at: float) -> NextPoll:
        """Return when and why it is polled next; times are in monotonic seconds, that of the next scan included."""
        if self.polling:
            return NextPoll(0.0, self.poll_reason())
        due = min(scan_at, now + self.list_pause()) if self.covered else self.due_at
        if due >= self.deadline:
            return NextPoll(None, PollReason.DEADLINE)
        return NextPoll(max(0.0, due - now), self.poll_reason())

    # Errors of waits that end before the task.

    def wait_error(
        self, message: str, task: Task | None, last_error: TaskbridgeError | None = None, state: str = ""
    ) -> WaitTimeout:
        """Return the error for a wait that ends before the task does."""
        return WaitTimeout(
            message,
            task=task,
            last_error=last_error or self.last_error,
            state=state,
            provider=self.connection.provider.name,
            connection=self.connection.name,
            ref=self.ref,
        )

    def cut_short(self, error: TaskbridgeError, now: float) -> bool:
        """Whether a poll failed only because the wait was over soon after it began, which says nothing."""
        return (
            isinstance(error, DeadlineExceeded)
            and self.polls > 0
            and now >= self.deadline - _MARGIN
            and now - self.polled_at < _PATIENCE
        )

    def _unreachable(self, now: float) -> TaskbridgeError | None:
        """Return why the state of the task is not known at present; None if it is."""
        unanswered = now - self.polled_at
        if self.last_error is None and self.polling and (not self.polls or unanswered >= _PATIENCE):
            return DeadlineExceeded(f"no response to the status request after {unanswered:.3g} s")
        outage = self.connection.outage
        return self.last_error or (None if outage is None else outage.error.again())

    def timed_out(self, waited: float, now: float) -> WaitTimeout:
        """Return the error for a wait whose deadline has passed, after so many seconds."""
        task, error = self.snapshot(), self._unreachable(now)
        if task is None:
            state = "it was never seen"
        elif not task.recognized:
            word = printable(task.native_status or "nothing", 60)
            advice = mapping_advice(self.connection.name, task.native_status)
            state = f"the vendor says {word!r}, a word that taskbridge does not know; {advice}"
        else:
            state = f"it is {task.describe()}"
        if task is not None:
            hints = self.connection.provider.wait_hints
            hint = (hints.get(task.reason) if task.reason else None) or hints.get(task.status)
            state = f"{state}; {hint}" if hint else state
            state = f"{state}; last seen {max(0.0, now - self.submitted_at - self.age):.3g} s ago"
        if error is not None:
            state = f"{state}, last error: {error.summary}"
        return self.wait_error(
            f"stopped waiting after {waited:.3g} s, the task continues: {state}; wait again with its ref to resume",
            task,
            error,
            state,
        )
