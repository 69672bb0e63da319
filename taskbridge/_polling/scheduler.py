"""The poll scheduler: a state machine without I/O that decides when each of many tasks is polled.

It serves all connections of a client or bridge; a single `wait` uses a scheduler with one task. Tasks, responses,
errors and events go in, each with the time. `next` returns what to do:

* `PollTask`: poll this task now; pass the response to `on_polled`, an error to `on_poll_failed`.
* `PollList`: read this page of the vendor's list now; pass it to `on_page`, an error to `on_page_failed`.
* `WaitUntil`: nothing to do before that time, unless an event arrives.
* `Idle`: nothing to do until a running poll ends or an event arrives.
* `Done`: no task is waited for.

`next_update` returns what the waiting callers get: one final outcome for each waiter, preceded by each change if the
waiter asks for changes. A task that fails neither stops nor hides another. `observations` holds what observers get.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush
from itertools import count
from math import ceil, inf
from typing import TYPE_CHECKING, Any, Final

from taskbridge._engine.lookup import is_final, unless_deleted
from taskbridge._engine.row_trust import same
from taskbridge._engine.throttle import MAX_PAUSE
from taskbridge._engine.tracing import PollTrace
from taskbridge._polling.commands import Command, Done, Idle, PollList, PollTask, Update, WaitUntil
from taskbridge._polling.entries import PolledTask, RowCheck, Waiter
from taskbridge._polling.queues import LIST_REST, MAX_LIST_FAILURES, TICK, ConnectionQueue
from taskbridge._polling.reports import ObservationBuffer
from taskbridge.errors import ResponseTooLarge
from taskbridge.events import NextPoll, ObservationSource, PollReason
from taskbridge.models import Outcome, Task, TaskRef

if TYPE_CHECKING:
    from collections.abc import Iterable

    from taskbridge._engine.connection import Connection
    from taskbridge._engine.lookup import PollResult
    from taskbridge._polling.lists import ListScan
    from taskbridge.errors import TaskbridgeError
    from taskbridge.provider.submission import Page

CLOSED: Final = "the client was closed while waiting; the task continues"

_MIN_OBSOLETE: Final = 64  # obsolete deadlines that are not worth removing
_LEAST_LONG_POLL: Final = 5.0  # seconds that a long poll must last to be worth another one
_MIN_LIST_RETRY: Final = 0.1  # seconds before a failed page is read again


class PollScheduler:
    """All tasks that are waited for. Not thread-safe: the runtime holds a lock.

    Args:
        max_parallel: Polls that may run at the same time, shared fairly among the connections; None for no limit.
    """

    def __init__(self, max_parallel: int | None = None) -> None:
        self._max_parallel = max_parallel
        self._queues: dict[str, ConnectionQueue] = {}  # by connection name
        self._deadlines: list[tuple[float, int, Waiter]] = []  # a heap; may hold waiters that have left
        self._obsolete = 0  # how many of them have left
        self._serial = count()
        self._updates: deque[Update] = deque()
        self.observations = ObservationBuffer()

    def __len__(self) -> int:
        return sum(len(queue.members) for queue in self._queues.values())

    # Input.

    def add(
        self,
        connection: Connection,
        task_id: str,
        now: float,
        *,
        deadline: float = inf,
        owner: Any = None,
        index: int = 0,
        changes: bool = False,
        long_poll: bool = False,
        known: Task | None = None,
    ) -> Waiter:
        """Wait for a task. Waiters for the same task share its polls.

        With `long_poll`, the vendor's long poll follows the first poll. A `known` snapshot of the caller replaces the
        first poll while it is fresh. See `Waiter` for the others.
        """
        queue = self._queues.get(connection.name)
        if queue is None:
            queue = self._queues[connection.name] = ConnectionQueue(connection)
        entry = queue.members.get(task_id)
        was_polled = entry is not None and entry.polls > 0
        if entry is None:
            ref = TaskRef.of(connection.name, task_id)
            submitted_at = connection.submitted_at(task_id)
            since = now if submitted_at == -inf else submitted_at
            entry = queue.members[task_id] = PolledTask(connection, queue.policy_of, task_id, ref, since)
            due = now if known is None or known.is_terminal else entry.start_from(known, now)
            if queue.can_cover(entry, now):
                queue.cover(entry, due)
            else:
                queue.push(entry, due, PollReason.FIRST if due <= now else None)
        if known is not None:
            entry.note_completed(known)
        entry.long_poll = long_poll
        if changes and entry.polls and not entry.reports_changes:
            entry.reported = entry.snapshot()
        waiter = Waiter(entry, owner, index, now, deadline, changes=changes)
        entry.waiters.append(waiter)
        if deadline != inf:
            heappush(self._deadlines, (deadline, next(self._serial), waiter))
        if changes and was_polled and entry.reported is not None:
            self._updates.append(Update(waiter, Outcome(entry.ref, entry.reported), final=False))
        return waiter

    def drop(self, waiters: Iterable[Waiter]) -> None:
        """Stop waiting, without an outcome."""
        for waiter in waiters:
            self._detach(waiter)

    def close(self, message: str = CLOSED) -> None:
        """End all waits with an error."""
        for entry in [entry for queue in self._queues.values() for entry in queue.members.values()]:
            error = entry.wait_error(message, entry.snapshot())
            self._end(entry, Outcome(entry.ref, error.task, error))

    def on_polled(self, poll: PollTask, now: float, result: PollResult) -> None:
        """Take in the response of a poll."""
        entry, queue = poll.entry, self._finish(poll)
        was_unlisted, entry.was_unlisted = entry.was_unlisted, False
        entry.last_error, entry.failures = None, 0
        queue.has_polled = True
        entry.not_found.see()
        entry.received_at = result.received_at
        asked = None if result.response is None else result.response.retry_after
        entry.not_before = -inf if asked is None else now + min(asked, MAX_PAUSE)
        if entry.check is not None:
            self._compare(entry, result.task)
        if result.task is None:
            entry.connection.counters.unchanged += 1
        else:
            entry.last_seen, entry.native_status = result.seen, result.task.native_status
        delay = entry.record(now, result.task, exact=poll.long_poll, response=result.response)
        if result.task is not None:
            self._report(entry, result.task)
        if entry.waiters:
            if poll.long_poll and now - entry.polled_at < _LEAST_LONG_POLL:
                entry.long_poll = False  # it ended at once, so the vendor's long poll does not help
            queue.needless_polls += was_unlisted
            self._schedule(queue, entry, now)
        if poll.trace is not None:
            source = ObservationSource.LONG_POLL if poll.long_poll else ObservationSource.POLL
            task, same = result.task or entry.observed or entry.snapshot(), result.task is None
            self.observations.add(entry, poll.trace, now, queue.scan_at, source, task=task, unchanged=same, delay=delay)

    def on_poll_failed(self, poll: PollTask, now: float, error: TaskbridgeError) -> None:
        """Take in the error of a poll, which says nothing about the task's state."""
        entry, queue = poll.entry, self._finish(poll)
        if poll.long_poll:
            entry.long_poll = False  # fall back to normal polling
            queue.push(entry, now, PollReason.LONG_POLL_BROKE)
        else:
            if not entry.cut_short(error, now):
                entry.last_error = error
            entry.failures += 1
            if queue.is_refused_by(error):
                self._end_all(queue, error)
            elif (again := entry.not_found.pause(error, now, entry.deadline)) is not None:
                queue.push(entry, now + again, PollReason.RETRY)
            elif is_final(error):
                self._end(entry, Outcome(entry.ref, entry.snapshot(), error))
            elif entry.waiters:
                retry = entry.connection.retry.pause(entry.failures, entry.connection.clock.random())
                pause = max(entry.next_pause(), retry, error.retry_after or 0.0)
                reason = PollReason.RETRY_AFTER if pause == error.retry_after else PollReason.RETRY
                queue.push(entry, now + pause, reason)
        if poll.trace is not None:
            source = ObservationSource.LONG_POLL if poll.long_poll else ObservationSource.POLL
            self.observations.add(entry, poll.trace, now, queue.scan_at, source, error=error)

    def on_page(self, command: PollList, now: float, page: Page) -> None:
        """Take in a page of a list.

        Whole rows are the snapshots of covered tasks, and end those that wait for a poll. Otherwise a covered task that
        the page shows as ended or changed is polled for the full snapshot; the others wait for the next scan.
        """
        scan, queue = command.scan, self._queues[command.connection.name]
        queue.in_flight -= 1
        queue.list_failures = 0
        if queue.scan is not scan:
            return
        found = 0
        for task in page.tasks:
            entry = queue.members.get(task.id)
            if entry is None or not (entry.covered or queue.can_use_row(entry, task)):
                continue
            entry.note_completed(task)
            found += entry.scan is scan
            delay = self._on_row(queue, entry, task, now)
            if command.trace is not None:
                source = ObservationSource.LIST
                self.observations.add(entry, command.trace, now, queue.scan_at, source, task=task, delay=delay)
        scan.on_page(command.cursor, page, found=found)
        if scan.is_over:
            self._finish_scan(queue, scan, now)

    def on_page_failed(self, command: PollList, now: float, error: TaskbridgeError) -> None:
        """Take in the error of a page of a list, which says nothing about any task.

        Whether the list is broken, or the vendor is down or wants fewer requests, only the poll of a task can tell.
        """
        scan, queue = command.scan, self._queues[command.connection.name]
        queue.in_flight -= 1
        if queue.scan is not scan:
            return
        queue.end_scan(scan)
        queue.list_failures += 1
        has_polled, queue.has_polled = queue.has_polled, False
        covered = queue.covered_tasks()
        for entry in covered:
            entry.last_error = error
        if queue.is_refused_by(error):
            self._end_all(queue, error)
        elif isinstance(error, ResponseTooLarge) and queue.shrink_pages():
            queue.list_failures = 0
            queue.scan_at = now
        elif is_final(error):
            queue.list_polling = None
            self._uncover_all(queue, now)
        elif has_polled and queue.list_failures >= MAX_LIST_FAILURES:
            queue.list_failures, queue.lists_from = 0, now + LIST_REST
            self._uncover_all(queue, now)
        else:
            if queue.list_failures >= MAX_LIST_FAILURES - 1 and len(covered) == len(queue):
                self._poll_now(queue, covered[0], now, PollReason.RETRY)
            pause = queue.connection.retry.pause(queue.list_failures, queue.connection.clock.random())
            queue.scan_at = now + max(pause, error.retry_after or 0.0, _MIN_LIST_RETRY)

    def _on_row(self, queue: ConnectionQueue, entry: PolledTask, row: Task, now: float) -> float | None:
        """Take in what a list shows of a covered task; return the delay as `PolledTask.record` does."""
        is_whole = queue.has_whole_row(entry)
        if row.is_terminal:
            if not self._can_end(queue, entry, row, now):
                return None
        elif is_whole:
            if not row.recognized and row.native_status != entry.native_status:
                self._poll_now(queue, entry, now, PollReason.LISTED)  # which reports the unknown word
                return None
        elif entry.reports_changes and entry.is_change(row):
            self._poll_now(queue, entry, now, PollReason.LISTED)
            return None
        queue.mark_seen(entry)
        entry.last_error = None
        entry.not_found.see()
        delay = entry.record(now, row, exact=False)
        if is_whole:
            entry.last_seen, entry.native_status = None, row.native_status
            self._report(entry, row)
            entry.reported = row
        elif row.native_status != entry.native_status:
            entry.native_status, entry.last_seen, entry.reported = row.native_status, None, row
        queue.scan_pause = min(queue.scan_pause, entry.list_pause())
        return delay

    def on_event(self, task: Task, now: float) -> None:
        """Take in a snapshot from a confirmed webhook."""
        queue, entry = self._find(task.connection, task.id)
        if queue is None or entry is None:
            return
        entry.last_seen, entry.reported = None, task
        entry.not_found.see()
        entry.record(now, task, exact=True)
        self._report(entry, task)
        if entry.waiters and not entry.polling and not entry.covered:
            queue.push(entry, now + entry.next_pause(), None)

    def on_hint(self, ref: str, now: float) -> None:
        """Poll a task soon: an unconfirmed event says that it has changed."""
        queue, entry = self._find(*ref.split(":", 1))
        if queue is None or entry is None:
            return
        if entry.polling:
            entry.has_hint = True  # the current poll may have been answered before the event
        else:
            self._poll_now(queue, entry, now, PollReason.EVENT)

    # Output.

    def next(self, now: float) -> Command:
        """Return what to do now; after `PollTask` or `PollList` call it again, since several can run in parallel."""
        self.expire(now)
        for queue in self._queues.values():
            self._release_rows(queue, now)
        if not any(queue.members for queue in self._queues.values()):
            return Done()
        wake = self.next_deadline
        for queue in self._queues.values():
            ready_at = self._ready_at(queue, now)
            command = self._start(queue, now) if ready_at <= now + TICK else None
            if command is not None:
                return command
            wake = min(wake, ready_at)
        return WaitUntil(wake) if wake != inf else Idle()

    def next_update(self) -> Update | None:
        """Return the next update for a waiter; None if there is none."""
        return self._updates.popleft() if self._updates else None

    @property
    def next_deadline(self) -> float:
        """Monotonic seconds at which `expire` may have something to do; infinite without a deadline."""
        return self._deadlines[0][0] if self._deadlines else inf

    def expire(self, now: float) -> None:
        """End the waits whose deadline has passed; `next` does it too."""
        while self._deadlines and (self._deadlines[0][0] <= now or self._deadlines[0][2].entry is None):
            waiter = heappop(self._deadlines)[2]
            entry = waiter.entry
            if entry is None:
                self._obsolete -= 1
            else:
                error = entry.timed_out(waiter.deadline - waiter.since, now)
                waiter.deadline = inf  # it is no longer in the heap
                self._detach(waiter)
                self._updates.append(Update(waiter, Outcome(entry.ref, error.task, error), final=True))

    # For people.

    def next_poll(self, waiter: Waiter, now: float) -> NextPoll | None:
        """Return when and why the task of a waiter is polled next; None if the wait has ended."""
        entry = waiter.entry
        return None if entry is None else entry.next_poll(now, self._queues[entry.connection.name].scan_at)

    def demand(self) -> float:
        """Return the requests per second that polling all tasks at their intervals takes, estimated from some."""
        return sum(queue.demand() for queue in self._queues.values())

    # What to do next.

    def _ready_at(self, queue: ConnectionQueue, now: float) -> float:
        """Return when this connection can send a request; infinite if not before some input."""
        if queue.scan is not None and queue.scan.is_over:  # all its tasks were dropped
            self._finish_scan(queue, queue.scan, now)
        queue.promote_due(now)
        if queue.in_flight >= min(queue.connection.settings.max_in_flight, self._share()):
            return inf
        if not queue.ready and not queue.wants_page(now):
            return min(queue.next_due(), queue.scan_at if queue.covered and queue.scan is None else inf)
        permit = queue.connection.throttle.take(now)
        return now if permit.granted else now + max(permit.wait, TICK * 2)

    def _share(self) -> float:
        """Return how many polls each connection may run."""
        if self._max_parallel is None:
            return inf
        busy = sum(1 for queue in self._queues.values() if queue.members or queue.in_flight)
        return ceil(self._max_parallel / max(1, busy))

    def _start(self, queue: ConnectionQueue, now: float) -> PollTask | PollList | None:
        connection = queue.connection
        observed = connection.observers.wants_tasks
        if queue.is_page_next(now):
            scan = queue.scan or queue.start_scan(now)
            if scan.wants_page:
                queue.in_flight += 1
                query, cursor = scan.next_page()
                trace = PollTrace(None, PollReason.LIST, now) if observed else None
                return PollList(connection, query, cursor, scan, trace)
            self._finish_scan(queue, scan, now)
            queue.promote_due(now)
        entry = queue.pick(now)
        if entry is None:
            connection.throttle.give_back()
            return None
        entry.polling, entry.polled_at = True, now
        queue.in_flight += 1
        overdue = max(0.0, now - entry.due_at)
        trace = PollTrace(entry.ref, entry.poll_reason(), now, overdue) if observed else None
        long_poll = entry.long_poll and entry.polls > 0
        return PollTask(connection, entry.task_id, entry.deadline, entry.last_seen, long_poll, entry, trace)

    # Rows of ended tasks.

    def _can_end(self, queue: ConnectionQueue, entry: PolledTask, row: Task, now: float) -> bool:
        """Return whether its row can end a task; otherwise the task is polled, or the row waits for a check."""
        trust, kind = entry.connection.row_trust, (entry.prefix, row.operation, row.status)
        if queue.has_whole_row(entry):
            if trust.can_use(kind):
                if entry.connection.expects_webhook:
                    entry.connection.note(row)
                return True
            check = queue.checks.get(kind)
            if check is not None:
                check.held[entry] = row
                queue.mark_seen(entry)
                return False
            if trust.can_verify(kind):
                queue.checks[kind] = entry.check = RowCheck(kind, row, entry)
        self._poll_now(queue, entry, now, PollReason.LISTED)
        return False

    def _compare(self, entry: PolledTask, task: Task | None) -> None:
        """Compare the row of an ended task with the answer to its poll."""
        check, entry.check = entry.check, None
        if check is None or task is None or not task.is_terminal:
            return  # the list is ahead of the status requests: another row will be compared
        if same(check.row, task):
            entry.connection.row_trust.verify(check.kind)
        else:
            entry.connection.lose_row_trust(task)

    def _release_rows(self, queue: ConnectionQueue, now: float) -> None:
        """Let rows whose check is over end their tasks, or be compared in turn."""
        for check in [each for each in queue.checks.values() if each.sample.check is not each]:
            del queue.checks[check.kind]
            for entry, row in check.held.items():
                if entry.covered or queue.can_use_row(entry, row):
                    self._on_row(queue, entry, row, now)

    # What happened.

    def _finish(self, poll: PollTask) -> ConnectionQueue:
        poll.entry.polling = poll.entry.is_single = False
        queue = self._queues[poll.connection.name]
        queue.in_flight -= 1
        return queue

    def _find(self, connection: str, task_id: str) -> tuple[ConnectionQueue | None, PolledTask | None]:
        queue = self._queues.get(connection)
        return queue, queue.members.get(task_id) if queue is not None else None

    def _schedule(self, queue: ConnectionQueue, entry: PolledTask, now: float) -> None:
        """Plan the next poll of a task that has not ended, or let the list cover it."""
        if entry.has_hint:
            queue.push(entry, now, PollReason.EVENT)
            entry.has_hint = False
        elif entry.long_poll:
            queue.push(entry, max(now, entry.not_before), PollReason.LONG_POLL)
        elif queue.can_cover(entry, now):
            queue.cover(entry, now + entry.list_pause())
        else:
            due = now + entry.next_pause()
            reason = PollReason.RETRY_AFTER if due < entry.not_before else None
            queue.push(entry, max(due, entry.not_before), reason)

    def _poll_now(self, queue: ConnectionQueue, entry: PolledTask, now: float, reason: PollReason) -> None:
        """Poll a task as soon as possible, even if lists are read."""
        entry.is_single = True
        queue.uncover(entry)
        if entry.ready_index < 0:
            queue.push(entry, now, reason)
        else:
            entry.reason = reason  # it is due already, and keeps its place

    def _finish_scan(self, queue: ConnectionQueue, scan: ListScan, now: float) -> None:
        """Poll what the scan did not show, and plan the next scan."""
        for entry in queue.end_scan(scan):
            entry.was_unlisted = True
            self._poll_now(queue, entry, now, PollReason.UNLISTED)
        queue.record_cost(scan, now)
        if not queue.is_list_worthwhile(now):
            self._uncover_all(queue, now)
        queue.scan_at = scan.started_at + queue.pause_after(scan) if queue.covered else inf

    def _uncover_all(self, queue: ConnectionQueue, now: float) -> None:
        for entry in queue.covered_tasks():
            queue.uncover(entry)
            queue.push(entry, now + entry.next_pause(), None)

    # Ends of waits.

    def _report(self, entry: PolledTask, task: Task) -> None:
        """Send updates for a snapshot."""
        if task.is_terminal:
            self._end(entry, Outcome(entry.ref, unless_deleted(task, entry.completed)))
        elif entry.reports_changes:
            if entry.reported != task:
                for waiter in entry.waiters:
                    if waiter.changes:
                        self._updates.append(Update(waiter, Outcome(entry.ref, task), final=False))
            entry.reported = task

    def _end_all(self, queue: ConnectionQueue, error: TaskbridgeError) -> None:
        for entry in list(queue.members.values()):
            self._end(entry, Outcome(entry.ref, entry.snapshot(), error.again(ref=entry.ref)))

    def _end(self, entry: PolledTask, outcome: Outcome) -> None:
        for waiter in entry.waiters:
            waiter.entry = None
            self._cancel_deadline(waiter)
            self._updates.append(Update(waiter, outcome, final=True))
        entry.waiters = []
        self._forget(entry)

    def _detach(self, waiter: Waiter) -> None:
        entry, waiter.entry = waiter.entry, None
        if entry is not None:
            entry.waiters.remove(waiter)
            self._cancel_deadline(waiter)
            if not entry.waiters:
                self._forget(entry)

    def _cancel_deadline(self, waiter: Waiter) -> None:
        """Count a deadline as obsolete; once most of them are, remove those."""
        self._obsolete += waiter.deadline != inf
        if self._obsolete > max(_MIN_OBSOLETE, len(self._deadlines) // 2):
            self._deadlines = [each for each in self._deadlines if each[2].entry is not None]
            heapify(self._deadlines)
            self._obsolete = 0

    def _forget(self, entry: PolledTask) -> None:
        entry.check = None
        queue = self._queues[entry.connection.name]
        # If the task was added again while this entry was being polled, there is a new entry.
        if queue.members.get(entry.task_id) is entry:
            queue.uncover(entry)
            queue.leave(entry)
            del queue.members[entry.task_id]
