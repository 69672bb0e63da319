"""The fleet: every task that is waited for, of all connections; a state machine without I/O.

Refs, answers, errors and outside events go in, with the time; what to do next comes out:

* `PollTask`: look this task up now; hand the answer to `looked`, the error to `failed`.
* `PollList`: read this page of the vendor's list now; hand it to `poll_list`, the error to `unlisted`.
* `WaitUntil`: nothing to do before that time, unless something comes in.
* `Idle`: nothing to do before one of the looks under way ends, or something comes in.
* `Done`: nobody waits for anything.

What the waiting parties are told comes out of `update`: a final outcome for each ticket, and before it every change where
the ticket asks for changes. One bad task never stops or hides another. What is for those who observe is in `observations`.

Of a task in flight the fleet keeps the last body as bytes: it recognises an unchanged answer before anything is parsed,
and the snapshot is translated again when somebody needs it. A single `wait` is a fleet of one.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush
from itertools import count
from math import ceil, inf
from typing import TYPE_CHECKING, Any, Final

from taskbridge._engine.lookup import is_final
from taskbridge._engine.tracing import PollTrace
from taskbridge._polling.commands import Command, Done, Idle, PollList, PollTask, Update, WaitUntil
from taskbridge._polling.entries import PolledTask, Waiter
from taskbridge._polling.lists import ListScan
from taskbridge._polling.queues import JUST_NOW, TROUBLES, ConnectionQueue
from taskbridge._polling.reports import ObservationBuffer
from taskbridge.events import ObservationSource, PollReason
from taskbridge.models import Outcome, Task, TaskRef

if TYPE_CHECKING:
    from collections.abc import Iterable

    from taskbridge._engine.connection import Connection
    from taskbridge._engine.lookup import PollResult
    from taskbridge.errors import TaskbridgeError
    from taskbridge.provider.submission import Page

_FEW: Final = 64  # tickets that nobody waits for, which are not worth tidying up


_LEAST_PAUSE: Final = 0.1  # seconds before a list that failed is read again


class PollScheduler:
    """Every task that is waited for. Not for several threads at once: its driver takes care of that.

    Args:
        max_parallel: Looks that can be under way at the same time in all; no connection gets so many that others starve.
    """

    def __init__(self, max_parallel: int | None = None) -> None:
        self._max_parallel = max_parallel
        self._queues: dict[str, ConnectionQueue] = {}
        self._deadlines: list[tuple[float, int, Waiter]] = []
        self._gone = 0  # tickets in it that nobody waits for any more
        self._serial = count()
        self._updates: deque[Update] = deque()
        self.observations = ObservationBuffer()

    def __len__(self) -> int:
        return sum(len(queue.members) for queue in self._queues.values())

    # In.

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
        queue = self._queues.get(connection.name)
        if queue is None:
            queue = self._queues[connection.name] = ConnectionQueue(connection)
        item = queue.members.get(task_id)
        joined = item is not None and item.looks > 0  # somebody else has seen it already
        if item is None:
            item = queue.members[task_id] = PolledTask(
                connection, queue.intervals, task_id, TaskRef.of(connection.name, task_id), now
            )
            due = now if known is None or known.is_terminal else item.remember(known, now)
            if queue.may_park(item, now):
                queue.park(item, due)
            else:
                self._queue(item, due, PollReason.FIRST if due <= now else None)
        item.long_poll = long_poll
        if changes and item.looks and not item.changes:
            item.shown = item.snapshot()
        waiter = Waiter(item, owner, index, now, deadline, changes=changes)
        item.waiters.append(waiter)
        if deadline != inf:
            heappush(self._deadlines, (deadline, next(self._serial), waiter))
        if changes and joined and item.shown is not None:
            self._updates.append(Update(waiter, Outcome(item.ref, item.shown), final=False))
        return waiter

    def drop(self, waiters: Iterable[Waiter]) -> None:
        """Stop waiting, without an outcome."""
        for waiter in waiters:
            self._detach(waiter)

    def expire(self, now: float) -> None:
        """Tell those whose time is up; `next` does it too."""
        self._expire(now)

    def close(self, why: str = "the client was closed while waiting") -> None:
        """Tell everybody that the waiting ends here."""
        for item in [i for queue in self._queues.values() for i in queue.members.values()]:
            error = item.given_up(f"{why}; the task goes on", item.snapshot())
            self._end(item, Outcome(item.ref, error.task, error))

    def on_polled(self, poll: PollTask, now: float, seen: PollResult) -> None:
        """A look ended with an answer."""
        item = self._landed(poll)
        missed, item.is_missed = item.is_missed, False
        before = item.age if item.looks else None
        item.error, item.failures = None, 0
        item.received_at = seen.received_at
        if seen.task is None:
            item.connection.counters.unchanged += 1
        else:
            item.body, item.native = seen.body, seen.task.native_status
        item.learn(now, seen.task, exact=poll.long_poll)
        if seen.task is not None:
            self._tell(item, seen.task)
        if item.waiters:
            if poll.long_poll:
                item.long_poll = False  # an answer before the end: the line is of no use
            self._lane(item).futile += missed
            self._later(item, now)
        if poll.trace is not None:
            source = ObservationSource.LONG_POLL if poll.long_poll else ObservationSource.POLL
            task = seen.task or item.told or item.snapshot()
            self.observations.note(
                item,
                poll.trace,
                now,
                self._lane(item).scan_at,
                source,
                task=task,
                unchanged=seen.task is None,
                before=before,
            )

    def on_poll_failed(self, poll: PollTask, now: float, error: TaskbridgeError) -> None:
        """A look ended with an error, which says nothing of the task."""
        item = self._landed(poll)
        if poll.long_poll:
            item.long_poll = False  # the line broke: from now on we ask
            self._queue(item, now, PollReason.LONG_POLL_BROKE)
            if poll.trace is not None:
                self.observations.note(
                    item, poll.trace, now, self._lane(item).scan_at, ObservationSource.LONG_POLL, error=error
                )
            return
        item.error = error
        item.failures += 1
        if poll.connection.refusal is not None and poll.connection.blames_account(error):
            self._end_all(self._lane(item), error)
        elif is_final(error):
            self._end(item, Outcome(item.ref, item.snapshot(), error))
        elif item.waiters:
            retry = item.connection.retry
            chance = item.connection.clock.random()
            wait = max(item.steady(), retry.pause(item.failures, chance), error.retry_after or 0.0)
            self._queue(item, now + wait, PollReason.RETRY_AFTER if wait == error.retry_after else PollReason.RETRY)
        if poll.trace is not None:
            self.observations.note(item, poll.trace, now, self._lane(item).scan_at, ObservationSource.POLL, error=error)

    def on_page(self, poll: PollList, now: float, page: Page) -> None:
        """A page of a list came.

        A task that it shows goes on; one that it shows as ended is looked at once more, for the whole snapshot.
        """
        sweep = poll.scan
        queue = self._queues[poll.connection.name]
        queue.in_flight -= 1
        queue.troubles = 0
        if queue.sweep is not sweep:
            return
        for task in page.tasks:
            item = queue.members.get(task.id)
            if item is None or not item.parked:
                continue
            if task.is_terminal or (item.changes and item.is_news(task)):
                self._unpark(item, now, PollReason.LISTED)
            else:
                queue.saw(item)
                item.learn(now, task, exact=False)
                if task.native_status != item.native:
                    item.native, item.body, item.shown = task.native_status, None, task
                queue.period = min(queue.period, item.period())
            if poll.trace is not None:
                self.observations.note(
                    item, poll.trace, now, self._lane(item).scan_at, ObservationSource.LIST, task=task
                )
        sweep.answered(poll.cursor, page)
        if sweep.is_over:
            self._swept(queue, sweep, now)

    def on_page_failed(self, poll: PollList, now: float, error: TaskbridgeError) -> None:
        """A page of a list could not be had, which says nothing of any task."""
        sweep = poll.scan
        queue = self._queues[poll.connection.name]
        queue.in_flight -= 1
        if queue.sweep is not sweep:
            return
        queue.end(sweep)
        queue.troubles += 1
        if poll.connection.refusal is not None and poll.connection.blames_account(error):
            self._end_all(queue, error)
        elif is_final(error) or queue.troubles >= TROUBLES:
            queue.list_polling = None  # single looks are surer
            self._unpark_all(queue, now)
        else:
            pause = queue.connection.retry.pause(queue.troubles, queue.connection.clock.random())
            queue.scan_at = now + max(pause, error.retry_after or 0.0, _LEAST_PAUSE)

    def on_event(self, task: Task, now: float) -> None:
        """An event from outside told the truth about a task (a confirmed webhook)."""
        item = self._find(task.connection, task.id)
        if item is None:
            return
        item.body, item.shown = None, task
        item.learn(now, task, exact=True)
        self._tell(item, task)
        if item.waiters and not item.looking and not item.parked:
            self._queue(item, now + item.steady(), None)

    def on_hint(self, ref: str, now: float) -> None:
        """An event from outside may be true: look soon."""
        item = self._find(*ref.split(":", 1))
        if item is not None and item.looking:
            item.hinted = True  # the look under way may be older than the event
        elif item is not None:
            self._unpark(item, now, PollReason.EVENT)

    # Out.

    def next(self, now: float) -> Command:
        """What to do now; after `PollTask` ask again, several looks may be under way."""
        self._expire(now)
        if not any(queue.members for queue in self._queues.values()):
            return Done()
        wake = inf
        for queue in self._queues.values():
            at = self._ready_at(queue, now)
            poll = self._launch(queue, now) if at <= now + JUST_NOW else None
            if poll is not None:
                return poll
            wake = min(wake, at)
        if self._deadlines:
            wake = min(wake, self._deadlines[0][0])
        return WaitUntil(wake) if wake != inf else Idle()

    def next_update(self) -> Update | None:
        """The next thing to tell somebody, or None."""
        return self._updates.popleft() if self._updates else None

    # Inside.

    def _ready_at(self, queue: ConnectionQueue, now: float) -> float:
        """When this lane can look at something; infinite for not before something comes in."""
        if queue.sweep is not None and queue.sweep.is_over:
            self._swept(queue, queue.sweep, now)  # nobody is left whom it could tell of
        queue.promote_due(now)
        queue.drop_unwanted()
        if queue.in_flight >= min(queue.connection.settings.max_in_flight, self._share()):
            return inf
        if not queue.ready and not queue.wants_page(now):
            swept_at = queue.scan_at if queue.parked and queue.sweep is None else inf
            return min(queue.heap[0][0], swept_at) if queue.heap else swept_at
        permit = queue.connection.throttle.take(now)
        return now if permit.granted else now + max(permit.wait, JUST_NOW * 2)

    def _share(self) -> float:
        if self._max_parallel is None:
            return inf
        busy = sum(1 for queue in self._queues.values() if queue.members or queue.in_flight)
        return ceil(self._max_parallel / max(1, busy))

    def _launch(self, queue: ConnectionQueue, now: float) -> PollTask | PollList | None:
        if queue.wants_page(now):
            sweep = queue.sweep or queue.begin(now)
            if sweep.wants_page:
                queue.in_flight += 1
                trace = PollTrace(None, PollReason.LIST, now) if queue.connection.observers.wants_tasks else None
                return PollList(queue.connection, *sweep.ask(), sweep, trace)
            self._swept(queue, sweep, now)
            queue.promote_due(now)
        item = queue.pick(now)
        if item is None:
            queue.connection.throttle.give_back()
            return None
        item.looking = True
        queue.in_flight += 1
        trace = self.observations.trace(item, now) if queue.connection.observers.wants_tasks else None
        return PollTask(
            queue.connection, item.task_id, item.deadline, item.body, item.long_poll and item.looks > 0, item, trace
        )

    def _landed(self, poll: PollTask) -> PolledTask:
        item = poll.entry
        item.looking = item.is_alone = False
        self._lane(item).in_flight -= 1
        return item

    def _lane(self, item: PolledTask) -> ConnectionQueue:
        return self._queues[item.connection.name]

    def _find(self, connection: str, task_id: str) -> PolledTask | None:
        queue = self._queues.get(connection)
        return queue.members.get(task_id) if queue is not None else None

    def _swept(self, queue: ConnectionQueue, sweep: ListScan, now: float) -> None:
        """A sweep is over: look at what it did not show, and say when the next one is due."""
        for item in queue.end(sweep):
            item.is_missed = True
            self._unpark(item, now, PollReason.UNLISTED)
        queue.weigh(sweep, now)
        if not queue.is_worth(now):
            self._unpark_all(queue, now)
        queue.scan_at = sweep.began + queue.period if queue.parked else inf

    def _unpark(self, item: PolledTask, now: float, why: PollReason) -> None:
        """Look at it soon, whatever lists there are."""
        item.is_alone = True
        self._lane(item).unpark(item)
        self._queue(item, now, why)

    def _unpark_all(self, queue: ConnectionQueue, now: float) -> None:
        for item in [i for i in queue.members.values() if i.parked]:
            queue.unpark(item)
            self._queue(item, now + item.steady(), None)

    def _end_all(self, queue: ConnectionQueue, error: TaskbridgeError) -> None:
        for item in list(queue.members.values()):
            self._end(item, Outcome(item.ref, item.snapshot(), error.again(ref=item.ref)))

    def _later(self, item: PolledTask, now: float) -> None:
        """Look again in time, alone or with others."""
        if item.long_poll or item.hinted:
            self._queue(item, now, PollReason.EVENT if item.hinted else PollReason.LONG_POLL)
            item.hinted = False
        elif self._lane(item).may_park(item, now):
            self._lane(item).park(item, now + item.period())
        else:
            self._queue(item, now + item.steady(), None)

    def _queue(self, item: PolledTask, due: float, why: PollReason | None) -> None:
        item.why = why
        item.due_at = due
        heappush(self._lane(item).heap, (due, next(self._serial), item))

    def _tell(self, item: PolledTask, task: Task) -> None:
        if task.is_terminal:
            self._end(item, Outcome(item.ref, task))
        elif item.changes:
            if item.shown != task:
                for waiter in item.waiters:
                    if waiter.changes:
                        self._updates.append(Update(waiter, Outcome(item.ref, task), final=False))
            item.shown = task

    def _end(self, item: PolledTask, outcome: Outcome) -> None:
        for waiter in item.waiters:
            waiter.entry = None
            self._leave(waiter)
            self._updates.append(Update(waiter, outcome, final=True))
        item.waiters = []
        self._forget(item)

    def _detach(self, waiter: Waiter) -> None:
        item, waiter.entry = waiter.entry, None
        if item is not None:
            item.waiters.remove(waiter)
            self._leave(waiter)
            if not item.waiters:
                self._forget(item)

    def _leave(self, waiter: Waiter) -> None:
        """Note that a ticket's deadline counts no more; when most of them do not, forget those."""
        self._gone += waiter.deadline != inf
        if self._gone > max(_FEW, len(self._deadlines) // 2):
            self._deadlines = [each for each in self._deadlines if each[2].entry is not None]
            heapify(self._deadlines)
            self._gone = 0

    def _forget(self, item: PolledTask) -> None:
        # Not one that was added again while a look of this one was under way.
        if self._lane(item).members.get(item.task_id) is item:
            self._lane(item).unpark(item)
            del self._lane(item).members[item.task_id]

    def _expire(self, now: float) -> None:
        while self._deadlines and (self._deadlines[0][0] <= now or self._deadlines[0][2].entry is None):
            waiter = heappop(self._deadlines)[2]
            item = waiter.entry
            if item is None:
                self._gone -= 1
            else:
                waited = waiter.deadline - waiter.since
                waiter.deadline = inf  # it is in the heap no more
                outcome = Outcome(item.ref, task := item.snapshot(), item.timeout(task, waited))
                self._detach(waiter)
                self._updates.append(Update(waiter, outcome, final=True))
