"""Carries out operations and waits in the asyncio tasks of one event loop.

`Runtime` runs one flow of effects in the caller's asyncio task. `PollLoop` polls many tasks of one client; its asyncio
tasks end when no caller waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import replace
from inspect import isawaitable
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar, assert_never

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
    deliver,
    flow_for,
    open_storage,
    require_ended,
)
from taskbridge._transport.threads import call_soon
from taskbridge.errors import ConfigError, TaskbridgeError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable

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
    from taskbridge.transport import AsyncTransport

T = TypeVar("T")


class Runtime:
    """Runs flows of effects in the caller's asyncio task.

    Args:
        clock: Time and chance.
        transports: The transports of the connections.
    """

    def __init__(self, clock: Clock, transports: Transports[AsyncTransport]) -> None:
        self.clock = clock
        self._transports = transports
        renew_after_fork(self, Runtime._begin_process)

    def _begin_process(self) -> None:
        self._renewals: dict[str, asyncio.Lock] = {}  # held by the task that renews a connection's credential

    async def run(self, operation: Operation[T]) -> T:
        """Run an operation to its end.

        Raises:
            TaskbridgeError: The operation failed.
            OSError: A local file cannot be used.
        """
        if operation.span is not None:
            with operation.span:
                return await self.run(replace(operation, span=None))
        connection, flow = operation.connection, operation.flow
        try:
            effect = next(flow)
            while True:
                if isinstance(effect, BeforeSubmit):
                    refusal = await _refusal_of(operation, effect)
                    effect = next(flow) if refusal is None else flow.throw(refusal)
                    continue
                if isinstance(effect, UseConnection):
                    connection = effect.connection
                    effect = next(flow)
                    continue
                try:
                    result = await self._perform(connection, effect)
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

    async def _perform(
        self, connection: Connection, effect: Send | Sleep | WaitForSlot | RefreshCredential | RunBlocking | UseStorage
    ) -> Any:
        match effect:
            case Send():
                transports = self._transports
                transport = transports.by_name.get(connection.name) or transports.of(connection)
                return await transport.send(effect.request, deadline=effect.deadline, max_body=effect.max_body)
            case Sleep():
                return await self.clock.async_sleep(effect.seconds)
            case WaitForSlot():
                return await self._wait_for_slot(effect)
            case RunBlocking():
                return await asyncio.to_thread(effect.work)
            case UseStorage():
                return await asyncio.to_thread(effect.work, open_storage())
            case RefreshCredential():
                return await self._refresh(connection, effect)
            case _:
                assert_never(effect)

    async def _wait_for_slot(self, effect: WaitForSlot) -> None:
        changed, loop, throttle = asyncio.Event(), asyncio.get_running_loop(), effect.throttle
        with throttle.waking(lambda: call_soon(loop, changed.set)):
            if throttle.raises == effect.raises:
                await self.clock.async_wait_on(changed, effect.seconds)

    async def _refresh(self, connection: Connection, effect: RefreshCredential) -> Credential:
        """Renew the credential, unless another task has done so in the meantime."""
        lock = self._renewals.setdefault(connection.name, asyncio.Lock())
        is_late = False
        try:
            async with asyncio.timeout(max(0.0, effect.deadline - self.clock.monotonic())):
                await lock.acquire()
        except TimeoutError:
            is_late = True
        if is_late:
            raise unsent(CREDENTIAL_LATE)
        try:
            return await self.run(Operation(connection, refresh(connection, effect)))
        finally:
            lock.release()

    async def close(self) -> None:
        """Close the kept connections."""
        for transport in self._transports.end():
            await transport.close()

    async def pages(self, pager: Pager) -> AsyncGenerator[Task]:
        """Yield the tasks of a vendor's list; a page is read when the one before is used up."""
        while not pager.is_done:
            page = await self.run(Operation(pager.connection, pager.next_page()))
            for task in pager.select(page):
                yield task

    async def wait(self, wait: SingleWait) -> Task:
        """Wait for one task, in this asyncio task.

        Raises:
            TaskbridgeError: The wait ended without a terminal snapshot.
        """
        if wait.once is not None:
            return require_ended(await self.run(wait.once), wait.target.known)
        wake, loop, scope = asyncio.Event(), asyncio.get_running_loop(), asyncio.timeout(None)

        def end_scope() -> None:
            with suppress(RuntimeError):  # the wait has just ended
                scope.reschedule(loop.time())

        def interrupt() -> None:
            call_soon(loop, end_scope)

        with wait.running(wake.set, interrupt):
            try:
                async with scope:
                    while (task := wait.ended()) is None:
                        await self.step(wait.scheduler, wake)
            except TimeoutError:  # also a `WaitTimeout`
                if not scope.expired():
                    raise
                task = wait.ended()
        assert task is not None  # noqa: S101  # a wait that was closed has raised
        return task

    async def step(self, scheduler: PollScheduler, wake: asyncio.Event) -> bool:
        """Carry out the next command of a scheduler in this task; False if no task is waited for.

        Args:
            scheduler: The scheduler.
            wake: Set when an event arrives, which ends a pause.
        """
        command = scheduler.next(self.clock.monotonic())
        match command:
            case PollTask() | PollList():
                deliver(scheduler, command, await self.poll(command), self.clock.monotonic())
                scheduler.observations.deliver()
            case WaitUntil():
                await self.clock.async_wait_on(wake, max(0.0, command.time - self.clock.monotonic()))
                wake.clear()
            case Idle():
                raise AssertionError("a scheduler in one task has no poll running between two steps")
            case Done():
                return False
        return True

    async def poll(self, command: PollTask | PollList) -> PollResult | Page | TaskbridgeError:
        """Carry out a scheduler's command; an error is a result, too."""
        try:
            return await self.run(Operation(command.connection, flow_for(command, self.clock.monotonic())))
        except TaskbridgeError as error:
            return error


async def _refusal_of(operation: Operation[Any], effect: BeforeSubmit) -> BeforeSubmitFailed | None:
    """Call the caller's `before_submit`; return its error, if it raises one."""
    try:
        if operation.before_submit is not None:
            called = operation.before_submit(dict(effect.recovery_token))
            if isawaitable(called):
                await called
    except Exception as error:  # noqa: BLE001  # the caller's own
        return BeforeSubmitFailed(error)
    return None


class AsyncWaitQueue:
    """The updates for one call that waits for many tasks.

    Args:
        remaining: Number of tasks without a final update.
    """

    def __init__(self, remaining: int) -> None:
        self._updates: deque[Update] = deque()
        self._arrived = asyncio.Event()
        self._remaining = remaining
        self.waiters: list[Waiter] = []

    def put(self, update: Update) -> None:
        """Add an update."""
        self._updates.append(update)
        self._arrived.set()

    async def take(self) -> Update | None:
        """Return the next update; None after the last."""
        if self._remaining == 0:
            return None
        while not self._updates:
            self._arrived.clear()
            await self._arrived.wait()
        update = self._updates.popleft()
        self._remaining -= update.final
        return update


class RunningWatch(OpenWatch):
    """An open watch of one event loop.

    Args:
        stops: Called at its end; they stop the notifications of events.
        changes: Whether to report each change of a task, not only its end.
    """

    def __init__(self, stops: list[Callable[[], None]], *, changes: bool) -> None:
        super().__init__(changes=changes)
        self.stops = stops
        self.arrived = asyncio.Event()

    def put(self, update: Update) -> None:
        """Take an update."""
        super().put(update)
        self.arrived.set()

    async def take(self) -> Outcome | None:
        """Return the next outcome; None once the watch is closed."""
        while (outcome := self.next()) is None:
            if self.is_closed:
                return None
            self.arrived.clear()
            await self.arrived.wait()
        return outcome


class PollLoop:
    """The asyncio tasks of one client that poll many tasks.

    One of them watches the clock and starts the others. Each of those polls, and continues with the next poll that is
    due.

    Args:
        runtime: Carries out the polls.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._clock = runtime.clock
        renew_after_fork(self, PollLoop._begin_process)

    def _begin_process(self) -> None:
        """Begin without an event loop and waits: that of a parent does not run in its child."""
        self._scheduler = PollScheduler()
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._workers: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None  # what broke a worker
        self._watched_until = -inf  # monotonic seconds at which the clock is watched next
        self._watches: set[RunningWatch] = set()

    # For the calls that wait.

    async def outcomes(self, wait: ManyWait) -> AsyncGenerator[Outcome]:
        """Yield the outcomes of a wait as they arrive; it begins when the first one is taken."""
        updates = self.updates(wait)
        try:
            async for update in updates:
                yield update.outcome
        finally:
            await updates.aclose()

    async def wait_all(self, wait: ManyWait) -> Outcomes:
        """Wait for all tasks; return their outcomes in the caller's order."""
        return wait.in_order([update async for update in self.updates(wait)])

    async def updates(self, wait: ManyWait) -> AsyncGenerator[Update]:
        """Yield the updates of a wait as they arrive."""
        queue = AsyncWaitQueue(len(wait.targets))
        try:
            self._begin(wait, queue)
            with wait.listening(self._on_event), wait.span() as span:
                while (update := await queue.take()) is not None:
                    if update.final:
                        span.record_outcome(update.outcome)
                    yield update
        finally:
            self._scheduler.drop(queue.waiters)  # also if the caller breaks off
            self._wake.set()

    def open_watch(self, buses: Iterable[EventBus], *, changes: bool) -> RunningWatch:
        """Return a watch that listens to these event buses, and has no tasks yet."""
        self._enter_loop()
        watch = RunningWatch([bus.listen(self._on_event) for bus in buses], changes=changes)
        self._watches.add(watch)
        return watch

    def add(self, watch: RunningWatch, target: Target, deadline: float) -> TaskRef:
        """Add a task to a watch; return its ref."""
        loop = self._enter_loop()
        watch.add(self._scheduler, target, self._clock.monotonic(), deadline)
        watch.arrived.set()
        self._deliver()
        self._start(loop)
        return target.ref

    def drop(self, watch: RunningWatch, ref: TaskRef) -> bool:
        """Drop a task from a watch; False if it was not waited for."""
        return watch.drop(self._scheduler, ref)

    def poll_now(self, watch: RunningWatch, ref: TaskRef) -> bool:
        """Poll a task of a watch at once; False if it is not waited for."""
        if ref not in watch.waiters:
            return False
        self._on_event(ref)
        return True

    def next_poll(self, watch: RunningWatch, ref: TaskRef) -> NextPoll | None:
        """Return when and why a task is polled next."""
        return watch.next_poll(self._scheduler, ref, self._clock.monotonic())

    def demand(self) -> float:
        """Return the requests per second that all polls together call for."""
        return self._scheduler.demand()

    def end(self, watch: RunningWatch) -> None:
        """End a watch."""
        self._watches.discard(watch)
        for stop in watch.stops:
            stop()
        watch.end(self._scheduler)
        watch.arrived.set()
        self._wake.set()

    async def close(self) -> None:
        """End the waits, and the tasks; from another event loop, as soon as their own runs."""
        if self._loop not in (None, asyncio.get_running_loop()):
            call_soon(self._loop, self._end)
            return
        self._end()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    def _end(self) -> None:
        self._scheduler.close()
        self._deliver()
        for watch in self._watches.copy():
            self.end(watch)
        if self._task is not None:
            self._task.cancel()

    def _begin(self, wait: ManyWait, queue: AsyncWaitQueue) -> None:
        wait.refuse_if_closed()
        loop = self._enter_loop()
        wait.begin(self._scheduler, queue)
        if queue.waiters:
            self._start(loop)
        self._wake.set()

    def _enter_loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise ConfigError("this client belongs to another event loop; make one per loop")
        return loop

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the task that watches the clock, unless it runs."""
        if self._task is None or self._task.done():
            self._failure = None
            self._task = loop.create_task(self._run(), name="taskbridge-wait")
        self._wake.set()

    def _on_event(self, update: TaskUpdate) -> None:
        apply_event(self._scheduler, update, self._clock.monotonic())
        self._deliver()
        self._wake.set()

    def _deliver(self) -> bool:
        """Hand the scheduler's updates to the calls that wait; whether there were any."""
        any_delivered = False
        while (update := self._scheduler.next_update()) is not None:
            update.waiter.owner.put(update)
            any_delivered = True
        return any_delivered

    # The asyncio tasks.

    async def _run(self) -> None:
        is_done = False
        try:
            await self._watch()
            is_done = True
        finally:
            await self._stop_workers()
            if not is_done:  # no caller may wait for a task that died
                self._scheduler.close("the asyncio task of this client ended; the task continues")
                self._deliver()

    async def _watch(self) -> None:
        """Start polls when they are due, until no task is waited for."""
        while True:
            self._wake.clear()
            command = self._start_due()
            self._watched_until = command.time if isinstance(command, WaitUntil) else inf
            match command:
                case WaitUntil():
                    await self._clock.async_wait_on(self._wake, max(0.0, command.time - self._clock.monotonic()))
                case Idle():
                    await self._wake.wait()
                case Done():
                    await self._stop_workers()
                    if not len(self._scheduler):  # unless a call began to wait in the meantime
                        return

    def _start_due(self) -> WaitUntil | Idle | Done:
        """Start a worker for each poll that is due; return what comes after them.

        Raises:
            BaseException: What broke one of the workers.
        """
        if self._failure is not None:
            raise self._failure
        while True:
            command = self._scheduler.next(self._clock.monotonic())
            if not isinstance(command, PollTask | PollList):
                self._deliver()
                return command
            worker = asyncio.get_running_loop().create_task(self._work(command))
            self._workers.add(worker)
            worker.add_done_callback(self._on_worker_done)

    def _on_worker_done(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        if not worker.cancelled() and (failure := worker.exception()) is not None:
            self._failure = failure
            self._wake.set()

    async def _work(self, command: PollTask | PollList) -> None:
        """Carry out a poll, then the next one that is due, as long as there is one."""
        scheduler, clock = self._scheduler, self._clock
        while True:
            result: PollResult | Page | TaskbridgeError = INTERRUPTED
            try:
                result = await self._runtime.poll(command)
            finally:
                deliver(scheduler, command, result, clock.monotonic())
                scheduler.observations.deliver()
            if self._deliver():
                await asyncio.sleep(0)  # callers continue before the next poll
            following = scheduler.next(clock.monotonic())
            is_poll = isinstance(following, PollTask | PollList)
            rest = self._start_due() if is_poll else following  # the poll that ended may have made room for several
            if isinstance(rest, Done) or (isinstance(rest, WaitUntil) and rest.time < self._watched_until):
                self._wake.set()
            if not isinstance(following, PollTask | PollList):
                self._deliver()
                return
            command = following

    async def _stop_workers(self) -> None:
        """Cancel the running polls; return at once if there are none."""
        if self._workers:
            for worker in self._workers:
                worker.cancel()
            await asyncio.gather(*self._workers, return_exceptions=True)
