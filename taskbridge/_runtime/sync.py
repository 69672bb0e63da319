"""Carries out operations and waits in threads.

`Runtime` runs one flow of effects in the caller's thread. `WorkerPool` polls many tasks of one client in a few threads,
which end when no caller waits.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeVar, assert_never

from taskbridge._engine.effects import (
    BeforeSubmit,
    BeforeSubmitFailed,
    RefreshCredential,
    RunBlocking,
    Send,
    Sleep,
    UseConnection,
    UseStorage,
    WaitForSlot,
)
from taskbridge._engine.retry import refresh, unsent
from taskbridge._fork import renew_after_fork
from taskbridge._polling.commands import Done, Idle, PollList, PollTask, WaitUntil
from taskbridge._polling.scheduler import PollScheduler
from taskbridge._runtime.base import (
    CREDENTIAL_LATE,
    INTERRUPTED,
    OpenWatch,
    Operation,
    apply_event,
    deadline_after,
    deliver,
    flow_for,
    open_storage,
    require_ended,
)
from taskbridge.errors import ConfigError, TaskbridgeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from taskbridge._engine.connection import Connection
    from taskbridge._engine.lookup import PollResult
    from taskbridge._engine.operations import Pager
    from taskbridge._polling.commands import Update
    from taskbridge._polling.entries import Waiter
    from taskbridge._runtime.base import ManyWait, SingleWait, Target, Transports
    from taskbridge.event_bus import EventBus, TaskUpdate
    from taskbridge.events import NextPoll
    from taskbridge.models import Outcome, Outcomes, Task, TaskRef
    from taskbridge.provider.capabilities import Credential
    from taskbridge.provider.clock import Clock
    from taskbridge.provider.submission import Page
    from taskbridge.transport import Transport

T = TypeVar("T")

_WORKERS: Final = 8  # threads per client
_FORKED: Final = "this wait belongs to the process that was forked; begin it again here"
_CLOSE_TIMEOUT: Final = 5.0  # seconds that `close` gives running polls to end; their threads are daemons


class Runtime:
    """Runs flows of effects in the caller's thread.

    Args:
        clock: Time and chance.
        transports: The transports of the connections.
    """

    def __init__(self, clock: Clock, transports: Transports[Transport]) -> None:
        self.clock = clock
        self._transports = transports

    def run(self, operation: Operation[T]) -> T:
        """Run an operation to its end.

        Raises:
            TaskbridgeError: The operation failed.
            OSError: A local file cannot be used.
        """
        if operation.span is not None:
            with operation.span:
                return self.run(replace(operation, span=None))
        connection, flow = operation.connection, operation.flow
        try:
            with self.clock.acting():
                effect = next(flow)
                while True:
                    if isinstance(effect, BeforeSubmit):
                        refusal = _refusal_of(operation, effect)
                        effect = next(flow) if refusal is None else flow.throw(refusal)
                        continue
                    if isinstance(effect, UseConnection):
                        connection = effect.connection
                        effect = next(flow)
                        continue
                    try:
                        result = self._perform(connection, effect)
                    except Exception as error:  # noqa: BLE001  # the flow decides
                        failure = error
                    else:
                        effect = flow.send(result)
                        continue
                    effect = flow.throw(failure)
        except StopIteration as end:
            value: T = end.value
            return value
        except BeforeSubmitFailed as failed:
            refused = failed.error
        finally:
            flow.close()
        try:
            raise refused
        finally:
            del refused  # or the error and this frame reference each other

    def _perform(
        self, connection: Connection, effect: Send | Sleep | WaitForSlot | RefreshCredential | RunBlocking | UseStorage
    ) -> Any:
        match effect:
            case Send():
                transports = self._transports
                transport = transports.by_name.get(connection.name) or transports.of(connection)
                return transport.send(effect.request, deadline=effect.deadline, max_body=effect.max_body)
            case Sleep():
                return self.clock.sleep(effect.seconds)
            case WaitForSlot():
                return self._wait_for_slot(effect)
            case RunBlocking():
                return effect.work()
            case UseStorage():
                return effect.work(open_storage())
            case RefreshCredential():
                return self._refresh(connection, effect)
            case _:
                assert_never(effect)

    def _wait_for_slot(self, effect: WaitForSlot) -> None:
        changed, throttle = threading.Condition(), effect.throttle
        until = self.clock.monotonic() + effect.seconds

        def wake() -> None:
            with changed:
                changed.notify()

        with throttle.waking(wake), changed:
            while throttle.raises == effect.raises and (seconds := until - self.clock.monotonic()) > 0.0:
                self.clock.wait_on(changed, seconds)

    def _refresh(self, connection: Connection, effect: RefreshCredential) -> Credential:
        """Renew the credential, unless another thread has done so in the meantime."""
        lock = connection.credentials.renewal
        if not self.clock.acquire(lock, max(0.0, effect.deadline - self.clock.monotonic())):
            raise unsent(CREDENTIAL_LATE)
        try:
            return self.run(Operation(connection, refresh(connection, effect)))
        finally:
            lock.release()

    def close(self) -> None:
        """Close the kept connections."""
        for transport in self._transports.end():
            transport.close()

    def pages(self, pager: Pager) -> Iterator[Task]:
        """Yield the tasks of a vendor's list; a page is read when the one before is used up."""
        while not pager.is_done:
            yield from pager.select(self.run(Operation(pager.connection, pager.next_page())))

    def wait(self, wait: SingleWait) -> Task:
        """Wait for one task, in this thread.

        Raises:
            TaskbridgeError: The wait ended without a terminal snapshot.
        """
        if wait.once is not None:
            return require_ended(self.run(wait.once), wait.target.known)
        mutex = threading.RLock()
        arrived = threading.Condition(mutex)

        def wake() -> None:
            with mutex:
                arrived.notify()

        def pause(seconds: float) -> None:
            with mutex:
                if not wait.has_events:
                    self.clock.wait_on(arrived, seconds)

        with self.clock.acting(), wait.running(wake, wake):
            while (task := wait.ended()) is None:
                self.step(wait.scheduler, pause)
        return task

    def step(self, scheduler: PollScheduler, pause: Callable[[float], None] | None = None) -> bool:
        """Carry out the next command of a scheduler in this thread; False if no task is waited for.

        Args:
            scheduler: The scheduler.
            pause: Waits for some seconds, or until an event arrives; None only waits.
        """
        command = scheduler.next(self.clock.monotonic())
        match command:
            case PollTask() | PollList():
                deliver(scheduler, command, self.poll(command), self.clock.monotonic())
                scheduler.observations.deliver()
            case WaitUntil():
                (pause or self.clock.sleep)(max(0.0, command.time - self.clock.monotonic()))
            case Idle():
                raise AssertionError("a scheduler in one thread has no poll running between two steps")
            case Done():
                return False
        return True

    def poll(self, command: PollTask | PollList) -> PollResult | Page | TaskbridgeError:
        """Carry out a scheduler's command; an error is a result, too."""
        try:
            return self.run(Operation(command.connection, flow_for(command, self.clock.monotonic())))
        except TaskbridgeError as error:
            return error


def _refusal_of(operation: Operation[Any], effect: BeforeSubmit) -> BeforeSubmitFailed | None:
    """Call the caller's `before_submit`; return its error, if it raises one."""
    try:
        if operation.before_submit is not None:
            operation.before_submit(dict(effect.recovery_token))
    except Exception as error:  # noqa: BLE001  # the caller's own
        return BeforeSubmitFailed(error)
    return None


class WaitQueue:
    """The updates for one call that waits for many tasks.

    Args:
        mutex: The pool's lock.
        remaining: Number of tasks without a final update.
        expire: Called with the lock held; ends waits whose time is up, and returns the seconds left.
    """

    def __init__(self, mutex: threading.RLock, remaining: int, expire: Callable[[], float | None]) -> None:
        self._updates: deque[Update] = deque()
        self._expire = expire
        self._mutex = mutex
        self._arrived = threading.Condition(mutex)
        self._remaining = remaining
        self.waiters: list[Waiter] = []

    def put(self, update: Update) -> None:
        """Add an update, with the lock held."""
        self._updates.append(update)
        self._arrived.notify()

    def take(self) -> Update | None:
        """Return the next update; None after the last."""
        if self._remaining == 0:
            return None
        with self._mutex:
            while not self._updates:
                # The deadline holds even while every thread is busy with a vendor that hangs.
                seconds = self._expire()
                if not self._updates:
                    self._arrived.wait(seconds)
            update = self._updates.popleft()
        self._remaining -= update.final
        return update


class RunningWatch(OpenWatch):
    """An open watch, whose updates one thread takes while others add and drop tasks.

    Args:
        pool: Polls the tasks.
        stops: Called at its end; they stop the notifications of events.
        changes: Whether to report each change of a task, not only its end.
    """

    def __init__(self, pool: WorkerPool, stops: list[Callable[[], None]], *, changes: bool) -> None:
        super().__init__(changes=changes)
        self.stops = stops
        self._pool = pool
        self.state = pool.state
        self.arrived = threading.Condition(self.state.mutex)

    def put(self, update: Update) -> None:
        """Take an update, with the lock held."""
        super().put(update)
        self.arrived.notify()

    def take(self) -> Outcome | None:
        """Return the next outcome; None once the watch is closed.

        Raises:
            ConfigError: The watch belongs to the parent of this process.
        """
        self._pool.refuse_if_forked(self)
        with self.state.mutex:
            while (outcome := self.next()) is None:
                if self.is_closed:
                    return None
                # A deadline holds even while every thread is busy with a vendor that hangs.
                seconds = self._pool.expire_due()
                if not self.has_updates:
                    self.arrived.wait(seconds)
            return outcome


class PoolState:
    """What the threads of a pool share.

    One of them watches the clock; the others sleep until there is something to do.

    Everywhere, `with` takes the lock itself and not the condition on it: a KeyboardInterrupt in the condition's code
    would leave the lock taken.
    """

    def __init__(self) -> None:
        self.mutex = threading.RLock()
        self.changed = threading.Condition(self.mutex)
        self._watched: float | None = None  # monotonic seconds, by the thread that watches the clock

    def wait(self, clock: Clock, seconds: float | None) -> None:
        """Wait for something to do, with the lock held.

        One thread watches the clock for each time that is earlier than those being watched; the others just sleep.
        """
        until = None if seconds is None else clock.monotonic() + max(0.0, seconds)
        if seconds is None or until is None or (self._watched is not None and self._watched <= until):
            clock.wait_on(self.changed, None)
            return
        self._watched = until
        try:
            clock.wait_on(self.changed, max(0.0, seconds))
        finally:
            if self._watched == until:
                self._watched = None


class WorkerPool:
    """The threads of one client that poll many tasks.

    Args:
        runtime: Carries out the polls.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._clock = runtime.clock
        renew_after_fork(self, WorkerPool._begin_process)

    def _begin_process(self) -> None:
        """Begin without threads and waits: those of a parent do not exist in its child."""
        self._scheduler = PollScheduler(_WORKERS)
        self.state = PoolState()
        self._threads: set[threading.Thread] = set()
        self._watches: set[RunningWatch] = set()

    # For the calls that wait.

    def outcomes(self, wait: ManyWait) -> Iterator[Outcome]:
        """Yield the outcomes of a wait as they arrive; it begins when the first one is taken."""
        for update in self.updates(wait):
            yield update.outcome

    def wait_all(self, wait: ManyWait) -> Outcomes:
        """Wait for all tasks; return their outcomes in the caller's order."""
        return wait.in_order(self.updates(wait))

    def updates(self, wait: ManyWait) -> Iterator[Update]:
        """Yield the updates of a wait as they arrive."""
        wait.refuse_if_closed()
        deadline = deadline_after(self._clock.monotonic(), wait.timeout)
        state = self.state
        queue = WaitQueue(state.mutex, len(wait.targets), lambda: self._expire(deadline))
        try:
            self._begin(wait, queue)
            with wait.listening(self._on_event), wait.span() as span:
                while (update := queue.take()) is not None:
                    if update.final:
                        span.record_outcome(update.outcome)
                    yield update
                    if self.state is not state:
                        raise ConfigError(_FORKED)
        finally:
            if self.state is state:
                with state.mutex:  # also if the caller breaks off, even while the wait begins
                    self._scheduler.drop(queue.waiters)
                    state.changed.notify()

    def open_watch(self, buses: Iterable[EventBus], *, changes: bool) -> RunningWatch:
        """Return a watch that listens to these event buses, and has no tasks yet."""
        watch = RunningWatch(self, [bus.listen(self._on_event) for bus in buses], changes=changes)
        with self.state.mutex:
            self._watches.add(watch)
        return watch

    def add(self, watch: RunningWatch, target: Target, deadline: float) -> TaskRef:
        """Add a task to a watch; return its ref."""
        self.refuse_if_forked(watch)
        with self.state.mutex:
            watch.add(self._scheduler, target, self._clock.monotonic(), deadline)
            self._deliver()
            watch.arrived.notify()  # the deadline may be earlier than those before
            self._start_workers()
        return target.ref

    def drop(self, watch: RunningWatch, ref: TaskRef) -> bool:
        """Drop a task from a watch; False if it was not waited for."""
        self.refuse_if_forked(watch)
        with self.state.mutex:
            return watch.drop(self._scheduler, ref)

    def poll_now(self, watch: RunningWatch, ref: TaskRef) -> bool:
        """Poll a task of a watch at once; False if it is not waited for."""
        self.refuse_if_forked(watch)
        with self.state.mutex:
            is_waited_for = ref in watch.waiters
        if is_waited_for:
            self._on_event(ref)
        return is_waited_for

    def next_poll(self, watch: RunningWatch, ref: TaskRef) -> NextPoll | None:
        """Return when and why a task is polled next."""
        self.refuse_if_forked(watch)
        with self.state.mutex:
            return watch.next_poll(self._scheduler, ref, self._clock.monotonic())

    def demand(self) -> float:
        """Return the requests per second that all polls together call for."""
        with self.state.mutex:
            return self._scheduler.demand()

    def end(self, watch: RunningWatch) -> None:
        """End a watch; in a forked child, its tasks are the parent's."""
        if watch.state is not self.state:
            return
        for stop in watch.stops:
            stop()
        with self.state.mutex:
            self._watches.discard(watch)
            watch.end(self._scheduler)
            watch.arrived.notify_all()
            self.state.changed.notify_all()

    def refuse_if_forked(self, watch: RunningWatch) -> None:
        """Raise `ConfigError` if a watch belongs to the parent of this process."""
        if watch.state is not self.state:
            raise ConfigError(_FORKED)

    def expire_due(self) -> float | None:
        """End the waits whose time is up, with the lock held; return the seconds to the next deadline, if any."""
        now = self._clock.monotonic()
        self._scheduler.expire(now)
        self._deliver()
        deadline = self._scheduler.next_deadline
        return None if deadline == inf else max(0.001, deadline - now)

    def close(self) -> None:
        """End the waits, and the threads."""
        for watch in self._watches.copy():
            for stop in watch.stops:
                stop()
        with self.state.mutex:
            self._scheduler.close()
            self._deliver()
            for watch in self._watches:
                watch.is_closed = True
                watch.arrived.notify_all()
            self._watches.clear()
            self.state.changed.notify_all()
            threads = list(self._threads)
        until = time.monotonic() + _CLOSE_TIMEOUT
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(timeout=max(0.0, until - time.monotonic()))

    def _begin(self, wait: ManyWait, queue: WaitQueue) -> None:
        with self.state.mutex:
            wait.begin(self._scheduler, queue)
            self._start_workers()

    def _start_workers(self) -> None:
        """Start as many threads as there are tasks to poll, up to a limit, with the lock held."""
        for _ in range(min(_WORKERS, len(self._scheduler)) - len(self._threads)):
            self._start_worker()
        self.state.changed.notify()

    def _start_worker(self) -> None:
        thread = threading.Thread(target=self._run_worker, name="taskbridge-wait", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the process may have no more threads
            if not self._threads:
                raise
        else:
            self._threads.add(thread)

    def _expire(self, deadline: float) -> float | None:
        """End the waits whose time is up, with the lock held; return the seconds left, or None for no deadline."""
        now = self._clock.monotonic()
        if now >= deadline:
            self._scheduler.expire(now)
            self._deliver()
        return None if deadline == inf else max(0.001, deadline - now)

    def _on_event(self, update: TaskUpdate) -> None:
        with self.state.mutex:
            apply_event(self._scheduler, update, self._clock.monotonic())
            self._deliver()
            self.state.changed.notify_all()

    def _deliver(self) -> None:
        """Hand the scheduler's updates to the calls that wait, with the lock held."""
        while (update := self._scheduler.next_update()) is not None:
            update.waiter.owner.put(update)

    # The threads.

    def _run_worker(self) -> None:
        is_done = False
        try:
            self.work()
            is_done = True
        finally:
            with self.state.mutex:
                self._threads.discard(threading.current_thread())
                if not is_done:  # no caller may wait for a thread that died
                    self._scheduler.close("a thread of this client broke down; the task continues")
                    self._deliver()

    def work(self) -> None:
        """Carry out the scheduler's commands until no task is waited for; several threads do it together."""
        scheduler, state, clock = self._scheduler, self.state, self._clock
        with state.mutex, clock.acting():
            while True:
                command = scheduler.next(clock.monotonic())
                self._deliver()
                match command:
                    case PollTask() | PollList():
                        self._poll(command)
                    case WaitUntil():
                        state.wait(clock, command.time - clock.monotonic())
                    case Idle():
                        state.wait(clock, None)
                    case Done():
                        self._threads.discard(threading.current_thread())
                        state.changed.notify_all()
                        return

    def _poll(self, command: PollTask | PollList) -> None:
        """Carry out a poll, without the lock meanwhile."""
        scheduler, state = self._scheduler, self.state
        state.changed.notify()  # another thread may find the next thing to do
        state.mutex.release()
        result: PollResult | Page | TaskbridgeError = INTERRUPTED
        try:
            result = self._runtime.poll(command)
        finally:
            state.mutex.acquire()
            deliver(scheduler, command, result, self._clock.monotonic())
        if scheduler.observations:
            state.mutex.release()
            try:
                scheduler.observations.deliver()
            finally:
                state.mutex.acquire()
