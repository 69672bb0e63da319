"""The asynchronous driver: what `taskbridge._runtime.sync` does, in the asyncio tasks of one event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from inspect import isawaitable
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar, assert_never

from taskbridge._engine.effects import BeforeSubmit, EffectFlow, RefreshCredential, RunBlocking, Send, Sleep
from taskbridge._engine.event_bus import TaskUpdate
from taskbridge._engine.locate import Located, Rejected
from taskbridge._engine.retry import authorize, with_policies
from taskbridge._polling.commands import Done, Idle, PollList, PollTask, Update, WaitUntil
from taskbridge._polling.entries import Waiter
from taskbridge._polling.scheduler import PollScheduler
from taskbridge._runtime.base import BROKEN, credential_timeout, enlist, flow_for, hear, ignore, land
from taskbridge.errors import ConfigError, TaskbridgeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from taskbridge._engine.connection import Connection
    from taskbridge._engine.lookup import PollResult
    from taskbridge.provider.capabilities import Credential
    from taskbridge.provider.clock import Clock
    from taskbridge.provider.http import Flow
    from taskbridge.provider.submission import Page
    from taskbridge.transport import AsyncTransport

# XXDOC The asyncio task that waits for many tasks of one client or bridge, and what each waiting call gets of its news.

T = TypeVar("T")


class AsyncDriver:
    """Runs flows in the caller's asyncio task.

    Args:
        clock: Time and chance.
        transport_for: The transport of a connection.
    """

    def __init__(self, clock: Clock, transport_for: Callable[[Connection], AsyncTransport]) -> None:
        self.clock = clock
        self._transport_for = transport_for

    async def run(
        self,
        connection: Connection,
        flow: EffectFlow[T],
        announce: Callable[[Mapping[str, Any]], Awaitable[object] | object] = ignore,
    ) -> T:
        """Run a lifted flow to its end.

        Args:
            channel: The connection.
            flow: The flow, not yet started.
            announce: Called, and awaited where it can be, before an order leaves; what it raises ends the flow, and the
                order stays here.

        Raises:
            TaskbridgeError: What the flow raises.
        """
        try:
            action = next(flow)
            while True:
                if isinstance(action, BeforeSubmit):
                    told = announce(
                        dict(action.recovery_token)
                    )  # its errors are the caller's own, and no business of the flow
                    if isawaitable(told):
                        await told
                    action = next(flow)
                    continue
                try:
                    reply = await self._do(connection, action)
                except TaskbridgeError as error:
                    fault = error
                else:
                    action = flow.send(reply)
                    continue
                action = flow.throw(fault)
        except StopIteration as end:
            value: T = end.value
            return value
        finally:
            flow.close()

    async def call(self, connection: Connection, flow: Flow[T]) -> T:
        """Lift a provider's flow and run it within the connection's `request_timeout`."""
        deadline = self.clock.monotonic() + connection.settings.request_timeout
        try:
            return await self.run(connection, with_policies(connection, flow, deadline))
        except TaskbridgeError as error:
            fault = connection.add_context(error)
        raise fault

    async def _do(self, connection: Connection, action: Send | Sleep | RefreshCredential | RunBlocking) -> Any:
        match action:
            case Send():
                transport = self._transport_for(connection)
                return await transport.send(action.request, deadline=action.deadline, max_body=action.max_body)
            case Sleep():
                return await self.clock.async_sleep(action.seconds)
            case RunBlocking():
                return await asyncio.to_thread(action.work)
            case RefreshCredential():
                lock = connection.turn = connection.turn or asyncio.Lock()
                late = False
                try:
                    async with asyncio.timeout(max(0.0, action.deadline - self.clock.monotonic())):
                        await lock.acquire()
                except TimeoutError:
                    late = True
                if late:
                    raise credential_timeout()
                try:
                    return await self._renewed(connection, action)
                finally:
                    lock.release()
            case _:
                assert_never(action)

    async def _renewed(self, connection: Connection, action: RefreshCredential) -> Credential:
        if connection.refusal is not None:
            raise connection.refusal.again()
        if connection.credential is None or connection.credential is action.stale:
            connection.credential = await self.run(connection, authorize(connection, action.deadline))
        return connection.credential

    async def work(self, scheduler: PollScheduler, wake: asyncio.Event, tell: Callable[[], bool]) -> None:
        """Do what the fleet says until nobody waits for anything.

        Args:
            fleet: The fleet.
            wake: Set when something changed.
            tell: Called when the fleet may have news; whether it had any.
        """
        rota = _Workers(self, scheduler, wake, tell)
        try:
            while True:
                wake.clear()
                command = rota.begin()
                rota.until = command.time if isinstance(command, WaitUntil) else inf
                match command:
                    case WaitUntil():
                        await self.clock.async_wait_on(wake, max(0.0, command.time - self.clock.monotonic()))
                    case Idle():
                        await wake.wait()
                    case Done():
                        await rota.close()
                        if not len(scheduler):  # or somebody began to wait meanwhile
                            return
        finally:
            await rota.close()

    async def step(self, scheduler: PollScheduler, wake: asyncio.Event | None = None) -> bool:
        """Do the next thing that a fleet of one task says; False when nobody waits for anything.

        Args:
            fleet: The fleet.
            wake: Set when somebody has something to say, which ends a pause.
        """
        command = scheduler.next(self.clock.monotonic())
        match command:
            case PollTask() | PollList():
                land(scheduler, command, await self.poll(command), self.clock.monotonic())
                scheduler.observations.deliver()
            case WaitUntil():
                seconds = max(0.0, command.time - self.clock.monotonic())
                if wake is None:
                    await self.clock.async_sleep(seconds)
                else:
                    await self.clock.async_wait_on(wake, seconds)
                    wake.clear()
            case Idle():
                raise AssertionError("a fleet of one task has nothing under way between its steps")
            case Done():
                return False
        return True

    async def poll(self, command: PollTask | PollList) -> PollResult | Page | TaskbridgeError:
        """Find out what a fleet wants to know; an error is an answer too."""
        try:
            return await self.run(command.connection, flow_for(command, self.clock.monotonic()))
        except TaskbridgeError as error:
            return error


class _Workers:
    """The asyncio tasks that look for one fleet. Each goes on to the next look by itself, as long as there is one."""

    def __init__(
        self, driver: AsyncDriver, scheduler: PollScheduler, wake: asyncio.Event, tell: Callable[[], bool]
    ) -> None:
        self._driver = driver
        self._scheduler = scheduler
        self._wake = wake
        self._tell = tell
        self.until = -inf  # monotonic seconds at which the clock is looked at next
        self._hands: set[asyncio.Task[None]] = set()
        self._fault: BaseException | None = None

    def begin(self) -> WaitUntil | Idle | Done:
        """Begin all that can be begun now; what comes after it.

        Raises:
            BaseException: What broke one of the tasks.
        """
        if self._fault is not None:
            raise self._fault
        while True:
            command = self._scheduler.next(self._driver.clock.monotonic())
            if not isinstance(command, PollTask | PollList):
                self._tell()
                return command
            hand = asyncio.get_running_loop().create_task(self._work(command))
            self._hands.add(hand)
            hand.add_done_callback(self._left)

    def _left(self, hand: asyncio.Task[None]) -> None:
        self._hands.discard(hand)
        if not hand.cancelled() and (fault := hand.exception()) is not None:
            self._fault = fault
            self._wake.set()

    async def _work(self, command: PollTask | PollList) -> None:
        driver, scheduler = self._driver, self._scheduler
        while True:
            seen: PollResult | Page | TaskbridgeError = BROKEN
            try:
                seen = await driver.poll(command)
            finally:
                land(scheduler, command, seen, driver.clock.monotonic())
                scheduler.observations.deliver()
            if self._tell():
                await asyncio.sleep(0)  # whoever was told goes on before the next look
            following = scheduler.next(driver.clock.monotonic())
            again = isinstance(following, PollTask | PollList)
            rest = self.begin() if again else following  # the look that ended may have made way for several
            if isinstance(rest, Done) or (isinstance(rest, WaitUntil) and rest.time < self.until):
                self._wake.set()
            if not isinstance(following, PollTask | PollList):
                self._tell()
                return
            command = following

    async def close(self) -> None:
        """Break off the looks under way; without any it does not wait."""
        if not self._hands:
            return
        for hand in self._hands:
            hand.cancel()
        await asyncio.gather(*self._hands, return_exceptions=True)


class AsyncWaitQueue:
    """One call's wait for many tasks."""

    def __init__(self, left: int) -> None:
        self._updates: deque[Update] = deque()
        self._arrived = asyncio.Event()
        self.waiters: list[Waiter] = []
        self.left = left

    def put(self, update: Update) -> None:
        """Hand in news."""
        self._updates.append(update)
        self._arrived.set()

    async def take(self) -> Update | None:
        """The next news; None after the last."""
        if self.left == 0:
            return None
        while not self._updates:
            self._arrived.clear()
            await self._arrived.wait()
        update = self._updates.popleft()
        self.left -= update.final
        return update


class PollLoop:
    """The asyncio task of one client or bridge, and the fleet that it works on; it ends when nobody waits."""

    def __init__(self, driver: AsyncDriver) -> None:
        self._driver = driver
        self._scheduler = PollScheduler()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self, places: list[Located | Rejected], timeout: float | None, *, changes: bool) -> AsyncWaitQueue:
        """Begin a wait for many tasks.

        Raises:
            ConfigError: The client belongs to another event loop.
        """
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise ConfigError("this client belongs to another event loop; make one per loop")
        waits = AsyncWaitQueue(len(places))
        now = self._driver.clock.monotonic()
        waits.waiters, rejected = enlist(self._scheduler, places, now, timeout, owner=waits, changes=changes)
        for update in rejected:
            waits.put(update)
        if waits.waiters and (self._task is None or self._task.done()):
            self._task = loop.create_task(self._work(), name="taskbridge-wait")
        self._wake.set()
        return waits

    def hear(self, told: TaskUpdate) -> None:
        """Take in what came from outside."""
        hear(self._scheduler, told, self._driver.clock.monotonic())
        self._tell()
        self._wake.set()

    def leave(self, waits: AsyncWaitQueue) -> None:
        """End a wait, also one whose caller broke off."""
        self._scheduler.drop(waits.waiters)
        self._wake.set()

    async def close(self) -> None:
        """Tell those who still wait, and end the task."""
        self._scheduler.close()
        self._tell()
        if self._task is not None and self._loop is asyncio.get_running_loop():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        whole = False
        try:
            await self._driver.work(self._scheduler, self._wake, self._tell)
            whole = True
        finally:
            if not whole:  # nobody shall wait for a task that died
                self._scheduler.close("the asyncio task of this client ended")
                self._tell()

    def _tell(self) -> bool:
        told = False
        while (update := self._scheduler.next_update()) is not None:
            update.waiter.owner.put(update)
            told = True
        return told
