"""The fleet: every task that is waited for, of all connections; a state machine without I/O.

Refs, answers, errors and outside events go in, with the time; what to do next comes out:

* `LookAt`: look this task up now; hand the answer to `looked`, the error to `failed`.
* `LookAtMany`: read this page of the vendor's list now; hand it to `listed`, the error to `unlisted`.
* `WaitUntil`: nothing to do before that time, unless something comes in.
* `Idle`: nothing to do before one of the looks under way ends, or something comes in.
* `Done`: nobody waits for anything.

What the waiting parties are told comes out of `news`: a final outcome for each ticket, and before it every change where
the ticket asks for changes. One bad task never stops or hides another. What is for those who observe is in `witness`.

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
from taskbridge._engine.tracing import Trail
from taskbridge._polling.commands import Command, Done, Idle, LookAt, LookAtMany, News, WaitUntil
from taskbridge._polling.entries import Item, Ticket
from taskbridge._polling.lists import Sweep
from taskbridge._polling.queues import JUST_NOW, TROUBLES, Lane
from taskbridge._polling.reports import Witness
from taskbridge.events import Source, Why
from taskbridge.models import Outcome, Task, TaskRef

if TYPE_CHECKING:
    from collections.abc import Iterable

    from taskbridge._engine.connection import Channel
    from taskbridge._engine.lookup import Look
    from taskbridge.errors import TaskbridgeError
    from taskbridge.provider.submission import Page

_FEW: Final = 64  # tickets that nobody waits for, which are not worth tidying up


_LEAST_PAUSE: Final = 0.1  # seconds before a list that failed is read again


class Fleet:
    """Every task that is waited for. Not for several threads at once: its driver takes care of that.

    Args:
        hands: Looks that can be under way at the same time in all; no connection gets so many that others starve.
    """

    def __init__(self, hands: int | None = None) -> None:
        self._hands = hands
        self._lanes: dict[str, Lane] = {}
        self._deadlines: list[tuple[float, int, Ticket]] = []
        self._gone = 0  # tickets in it that nobody waits for any more
        self._serial = count()
        self._news: deque[News] = deque()
        self.witness = Witness()

    def __len__(self) -> int:
        return sum(len(lane.members) for lane in self._lanes.values())

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
            lane = self._lanes[channel.name] = Lane(channel)
        item = lane.members.get(task_id)
        joined = item is not None and item.looks > 0  # somebody else has seen it already
        if item is None:
            item = lane.members[task_id] = Item(
                channel, lane.intervals, task_id, TaskRef.of(channel.name, task_id), now
            )
            due = now if known is None or known.is_terminal else item.remember(known, now)
            if lane.may_park(item, now):
                lane.park(item, due)
            else:
                self._queue(item, due, Why.FIRST if due <= now else None)
        item.hold = hold
        if changes and item.looks and not item.changes:
            item.shown = item.snapshot()
        ticket = Ticket(item, owner, place, now, deadline, changes=changes)
        item.tickets.append(ticket)
        if deadline != inf:
            heappush(self._deadlines, (deadline, next(self._serial), ticket))
        if changes and joined and item.shown is not None:
            self._news.append(News(ticket, Outcome(item.ref, item.shown), final=False))
        return ticket

    def drop(self, tickets: Iterable[Ticket]) -> None:
        """Stop waiting, without an outcome."""
        for ticket in tickets:
            self._detach(ticket)

    def expire(self, now: float) -> None:
        """Tell those whose time is up; `next` does it too."""
        self._expire(now)

    def close(self, why: str = "the client was closed while waiting") -> None:
        """Tell everybody that the waiting ends here."""
        for item in [i for lane in self._lanes.values() for i in lane.members.values()]:
            error = item.given_up(f"{why}; the task goes on", item.snapshot())
            self._end(item, Outcome(item.ref, error.task, error))

    def looked(self, look: LookAt, now: float, seen: Look) -> None:
        """A look ended with an answer."""
        item = self._landed(look)
        missed, item.is_missed = item.is_missed, False
        before = item.age if item.looks else None
        item.error, item.failures = None, 0
        item.received_at = seen.received_at
        if seen.task is None:
            item.channel.tally.unchanged += 1
        else:
            item.body, item.native = seen.body, seen.task.native_status
        item.learn(now, seen.task, exact=look.hold)
        if seen.task is not None:
            self._tell(item, seen.task)
        if item.tickets:
            if look.hold:
                item.hold = False  # an answer before the end: the line is of no use
            self._lane(item).futile += missed
            self._later(item, now)
        if look.trail is not None:
            source = Source.LINE if look.hold else Source.LOOK
            task = seen.task or item.told or item.snapshot()
            self.witness.note(
                item,
                look.trail,
                now,
                self._lane(item).sweep_at,
                source,
                task=task,
                unchanged=seen.task is None,
                before=before,
            )

    def failed(self, look: LookAt, now: float, error: TaskbridgeError) -> None:
        """A look ended with an error, which says nothing of the task."""
        item = self._landed(look)
        if look.hold:
            item.hold = False  # the line broke: from now on we ask
            self._queue(item, now, Why.LINE_BROKE)
            if look.trail is not None:
                self.witness.note(item, look.trail, now, self._lane(item).sweep_at, Source.LINE, error=error)
            return
        item.error = error
        item.failures += 1
        if look.channel.refusal is not None and look.channel.blames_account(error):
            self._end_all(self._lane(item), error)
        elif is_final(error):
            self._end(item, Outcome(item.ref, item.snapshot(), error))
        elif item.tickets:
            retry = item.channel.retry
            chance = item.channel.clock.random()
            wait = max(item.steady(), retry.pause(item.failures, chance), error.retry_after or 0.0)
            self._queue(item, now + wait, Why.RETRY_AFTER if wait == error.retry_after else Why.RETRY)
        if look.trail is not None:
            self.witness.note(item, look.trail, now, self._lane(item).sweep_at, Source.LOOK, error=error)

    def listed(self, look: LookAtMany, now: float, page: Page) -> None:
        """A page of a list came.

        A task that it shows goes on; one that it shows as ended is looked at once more, for the whole snapshot.
        """
        sweep = look.key
        lane = self._lanes[look.channel.name]
        lane.in_flight -= 1
        lane.troubles = 0
        if lane.sweep is not sweep:
            return
        for task in page.tasks:
            item = lane.members.get(task.id)
            if item is None or not item.parked:
                continue
            if task.is_terminal or (item.changes and item.is_news(task)):
                self._unpark(item, now, Why.LISTED)
            else:
                lane.saw(item)
                item.learn(now, task, exact=False)
                if task.native_status != item.native:
                    item.native, item.body, item.shown = task.native_status, None, task
                lane.period = min(lane.period, item.period())
            if look.trail is not None:
                self.witness.note(item, look.trail, now, self._lane(item).sweep_at, Source.LIST, task=task)
        sweep.answered(look.cursor, page)
        if sweep.is_over:
            self._swept(lane, sweep, now)

    def unlisted(self, look: LookAtMany, now: float, error: TaskbridgeError) -> None:
        """A page of a list could not be had, which says nothing of any task."""
        sweep = look.key
        lane = self._lanes[look.channel.name]
        lane.in_flight -= 1
        if lane.sweep is not sweep:
            return
        lane.end(sweep)
        lane.troubles += 1
        if look.channel.refusal is not None and look.channel.blames_account(error):
            self._end_all(lane, error)
        elif is_final(error) or lane.troubles >= TROUBLES:
            lane.bulk = None  # single looks are surer
            self._unpark_all(lane, now)
        else:
            pause = lane.channel.retry.pause(lane.troubles, lane.channel.clock.random())
            lane.sweep_at = now + max(pause, error.retry_after or 0.0, _LEAST_PAUSE)

    def heard(self, task: Task, now: float) -> None:
        """An event from outside told the truth about a task (a confirmed webhook)."""
        item = self._find(task.connection, task.id)
        if item is None:
            return
        item.body, item.shown = None, task
        item.learn(now, task, exact=True)
        self._tell(item, task)
        if item.tickets and not item.looking and not item.parked:
            self._queue(item, now + item.steady(), None)

    def hint(self, ref: str, now: float) -> None:
        """An event from outside may be true: look soon."""
        item = self._find(*ref.split(":", 1))
        if item is not None and item.looking:
            item.hinted = True  # the look under way may be older than the event
        elif item is not None:
            self._unpark(item, now, Why.EVENT)

    # Out.

    def next(self, now: float) -> Command:
        """What to do now; after `LookAt` ask again, several looks may be under way."""
        self._expire(now)
        if not any(lane.members for lane in self._lanes.values()):
            return Done()
        wake = inf
        for lane in self._lanes.values():
            at = self._ready_at(lane, now)
            look = self._launch(lane, now) if at <= now + JUST_NOW else None
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

    def _ready_at(self, lane: Lane, now: float) -> float:
        """When this lane can look at something; infinite for not before something comes in."""
        if lane.sweep is not None and lane.sweep.is_over:
            self._swept(lane, lane.sweep, now)  # nobody is left whom it could tell of
        lane.ripen(now)
        lane.drop_unwanted()
        if lane.in_flight >= min(lane.channel.settings.max_in_flight, self._share()):
            return inf
        if not lane.ready and not lane.wants_page(now):
            swept_at = lane.sweep_at if lane.parked and lane.sweep is None else inf
            return min(lane.heap[0][0], swept_at) if lane.heap else swept_at
        grant = lane.channel.governor.take(now)
        return now if grant.granted else now + max(grant.wait, JUST_NOW * 2)

    def _share(self) -> float:
        if self._hands is None:
            return inf
        busy = sum(1 for lane in self._lanes.values() if lane.members or lane.in_flight)
        return ceil(self._hands / max(1, busy))

    def _launch(self, lane: Lane, now: float) -> LookAt | LookAtMany | None:
        if lane.wants_page(now):
            sweep = lane.sweep or lane.begin(now)
            if sweep.wants_page:
                lane.in_flight += 1
                trail = Trail(None, Why.LIST, now) if lane.channel.audience.hears_tasks else None
                return LookAtMany(lane.channel, *sweep.ask(), sweep, trail)
            self._swept(lane, sweep, now)
            lane.ripen(now)
        item = lane.pick(now)
        if item is None:
            lane.channel.governor.give_back()
            return None
        item.looking = True
        lane.in_flight += 1
        trail = self.witness.trail(item, now) if lane.channel.audience.hears_tasks else None
        return LookAt(lane.channel, item.task_id, item.deadline, item.body, item.hold and item.looks > 0, item, trail)

    def _landed(self, look: LookAt) -> Item:
        item = look.key
        item.looking = item.is_alone = False
        self._lane(item).in_flight -= 1
        return item

    def _lane(self, item: Item) -> Lane:
        return self._lanes[item.channel.name]

    def _find(self, connection: str, task_id: str) -> Item | None:
        lane = self._lanes.get(connection)
        return lane.members.get(task_id) if lane is not None else None

    def _swept(self, lane: Lane, sweep: Sweep, now: float) -> None:
        """A sweep is over: look at what it did not show, and say when the next one is due."""
        for item in lane.end(sweep):
            item.is_missed = True
            self._unpark(item, now, Why.UNLISTED)
        lane.weigh(sweep, now)
        if not lane.is_worth(now):
            self._unpark_all(lane, now)
        lane.sweep_at = sweep.began + lane.period if lane.parked else inf

    def _unpark(self, item: Item, now: float, why: Why) -> None:
        """Look at it soon, whatever lists there are."""
        item.is_alone = True
        self._lane(item).unpark(item)
        self._queue(item, now, why)

    def _unpark_all(self, lane: Lane, now: float) -> None:
        for item in [i for i in lane.members.values() if i.parked]:
            lane.unpark(item)
            self._queue(item, now + item.steady(), None)

    def _end_all(self, lane: Lane, error: TaskbridgeError) -> None:
        for item in list(lane.members.values()):
            self._end(item, Outcome(item.ref, item.snapshot(), error.again(ref=item.ref)))

    def _later(self, item: Item, now: float) -> None:
        """Look again in time, alone or with others."""
        if item.hold or item.hinted:
            self._queue(item, now, Why.EVENT if item.hinted else Why.LINE)
            item.hinted = False
        elif self._lane(item).may_park(item, now):
            self._lane(item).park(item, now + item.period())
        else:
            self._queue(item, now + item.steady(), None)

    def _queue(self, item: Item, due: float, why: Why | None) -> None:
        item.why = why
        item.due_at = due
        heappush(self._lane(item).heap, (due, next(self._serial), item))

    def _tell(self, item: Item, task: Task) -> None:
        if task.is_terminal:
            self._end(item, Outcome(item.ref, task))
        elif item.changes:
            if item.shown != task:
                for ticket in item.tickets:
                    if ticket.changes:
                        self._news.append(News(ticket, Outcome(item.ref, task), final=False))
            item.shown = task

    def _end(self, item: Item, outcome: Outcome) -> None:
        for ticket in item.tickets:
            ticket.item = None
            self._leave(ticket)
            self._news.append(News(ticket, outcome, final=True))
        item.tickets = []
        self._forget(item)

    def _detach(self, ticket: Ticket) -> None:
        item, ticket.item = ticket.item, None
        if item is not None:
            item.tickets.remove(ticket)
            self._leave(ticket)
            if not item.tickets:
                self._forget(item)

    def _leave(self, ticket: Ticket) -> None:
        """Note that a ticket's deadline counts no more; when most of them do not, forget those."""
        self._gone += ticket.deadline != inf
        if self._gone > max(_FEW, len(self._deadlines) // 2):
            self._deadlines = [each for each in self._deadlines if each[2].item is not None]
            heapify(self._deadlines)
            self._gone = 0

    def _forget(self, item: Item) -> None:
        # Not one that was added again while a look of this one was under way.
        if self._lane(item).members.get(item.task_id) is item:
            self._lane(item).unpark(item)
            del self._lane(item).members[item.task_id]

    def _expire(self, now: float) -> None:
        while self._deadlines and (self._deadlines[0][0] <= now or self._deadlines[0][2].item is None):
            ticket = heappop(self._deadlines)[2]
            item = ticket.item
            if item is None:
                self._gone -= 1
            else:
                waited = ticket.deadline - ticket.since
                ticket.deadline = inf  # it is in the heap no more
                outcome = Outcome(item.ref, task := item.snapshot(), item.timeout(task, waited))
                self._detach(ticket)
                self._news.append(News(ticket, outcome, final=True))
