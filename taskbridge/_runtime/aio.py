"""The asynchronous driver: what `taskbridge.drive` does, in the asyncio tasks of one event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from inspect import isawaitable
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar, assert_never

from taskbridge._engine.effects import Announce, Authorise, Lifted, Local, Send, Sleep
from taskbridge._engine.event_bus import Told
from taskbridge._engine.locate import Located, Rejected
from taskbridge._engine.retry import authorise, lift
from taskbridge._polling.commands import Done, Idle, LookAt, LookAtMany, News, WaitUntil
from taskbridge._polling.entries import Ticket
from taskbridge._polling.scheduler import Fleet
from taskbridge._runtime.base import BROKEN, enlist, flow_of, hear, ignore, land, no_credential
from taskbridge.errors import ConfigError, TaskbridgeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from taskbridge._engine.connection import Channel
    from taskbridge._engine.lookup import Look
    from taskbridge.provider.capabilities import Credential
    from taskbridge.provider.http import Flow
    from taskbridge.provider.policy import Clock
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

    def __init__(self, clock: Clock, transport_for: Callable[[Channel], AsyncTransport]) -> None:
        self.clock = clock
        self._transport_for = transport_for

    async def run(
        self,
        channel: Channel,
        flow: Lifted[T],
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
                if isinstance(action, Announce):
                    told = announce(dict(action.clue))  # its errors are the caller's own, and no business of the flow
                    if isawaitable(told):
                        await told
                    action = next(flow)
                    continue
                try:
                    reply = await self._do(channel, action)
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

    async def call(self, channel: Channel, flow: Flow[T]) -> T:
        """Lift a provider's flow and run it within the connection's `request_timeout`."""
        deadline = self.clock.monotonic() + channel.settings.request_timeout
        try:
            return await self.run(channel, lift(channel, flow, deadline))
        except TaskbridgeError as error:
            fault = channel.told(error)
        raise fault

    async def _do(self, channel: Channel, action: Send | Sleep | Authorise | Local) -> Any:
        match action:
            case Send():
                transport = self._transport_for(channel)
                return await transport.send(action.request, deadline=action.deadline, max_body=action.max_body)
            case Sleep():
                return await self.clock.asleep(action.seconds)
            case Local():
                return await asyncio.to_thread(action.work)
            case Authorise():
                lock = channel.turn = channel.turn or asyncio.Lock()
                late = False
                try:
                    async with asyncio.timeout(max(0.0, action.deadline - self.clock.monotonic())):
                        await lock.acquire()
                except TimeoutError:
                    late = True
                if late:
                    raise no_credential()
                try:
                    return await self._renewed(channel, action)
                finally:
                    lock.release()
            case _:
                assert_never(action)

    async def _renewed(self, channel: Channel, action: Authorise) -> Credential:
        if channel.refusal is not None:
            raise channel.refusal.again()
        if channel.credential is None or channel.credential is action.stale:
            channel.credential = await self.run(channel, authorise(channel, action.deadline))
        return channel.credential

    async def work(self, fleet: Fleet, wake: asyncio.Event, tell: Callable[[], bool]) -> None:
        """Do what the fleet says until nobody waits for anything.

        Args:
            fleet: The fleet.
            wake: Set when something changed.
            tell: Called when the fleet may have news; whether it had any.
        """
        rota = _Rota(self, fleet, wake, tell)
        try:
            while True:
                wake.clear()
                command = rota.begin()
                rota.until = command.time if isinstance(command, WaitUntil) else inf
                match command:
                    case WaitUntil():
                        await self.clock.await_on(wake, max(0.0, command.time - self.clock.monotonic()))
                    case Idle():
                        await wake.wait()
                    case Done():
                        await rota.close()
                        if not len(fleet):  # or somebody began to wait meanwhile
                            return
        finally:
            await rota.close()

    async def step(self, fleet: Fleet, wake: asyncio.Event | None = None) -> bool:
        """Do the next thing that a fleet of one task says; False when nobody waits for anything.

        Args:
            fleet: The fleet.
            wake: Set when somebody has something to say, which ends a pause.
        """
        command = fleet.next(self.clock.monotonic())
        match command:
            case LookAt() | LookAtMany():
                land(fleet, command, await self.look(command), self.clock.monotonic())
                fleet.witness.tell()
            case WaitUntil():
                seconds = max(0.0, command.time - self.clock.monotonic())
                if wake is None:
                    await self.clock.asleep(seconds)
                else:
                    await self.clock.await_on(wake, seconds)
                    wake.clear()
            case Idle():
                raise AssertionError("a fleet of one task has nothing under way between its steps")
            case Done():
                return False
        return True

    async def look(self, command: LookAt | LookAtMany) -> Look | Page | TaskbridgeError:
        """Find out what a fleet wants to know; an error is an answer too."""
        try:
            return await self.run(command.channel, flow_of(command, self.clock.monotonic()))
        except TaskbridgeError as error:
            return error


class _Rota:
    """The asyncio tasks that look for one fleet. Each goes on to the next look by itself, as long as there is one."""

    def __init__(self, driver: AsyncDriver, fleet: Fleet, wake: asyncio.Event, tell: Callable[[], bool]) -> None:
        self._driver = driver
        self._fleet = fleet
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
            command = self._fleet.next(self._driver.clock.monotonic())
            if not isinstance(command, LookAt | LookAtMany):
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

    async def _work(self, command: LookAt | LookAtMany) -> None:
        driver, fleet = self._driver, self._fleet
        while True:
            seen: Look | Page | TaskbridgeError = BROKEN
            try:
                seen = await driver.look(command)
            finally:
                land(fleet, command, seen, driver.clock.monotonic())
                fleet.witness.tell()
            if self._tell():
                await asyncio.sleep(0)  # whoever was told goes on before the next look
            following = fleet.next(driver.clock.monotonic())
            again = isinstance(following, LookAt | LookAtMany)
            rest = self.begin() if again else following  # the look that ended may have made way for several
            if isinstance(rest, Done) or (isinstance(rest, WaitUntil) and rest.time < self.until):
                self._wake.set()
            if not isinstance(following, LookAt | LookAtMany):
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


class Batch:
    """One call's wait for many tasks."""

    def __init__(self, left: int) -> None:
        self._news: deque[News] = deque()
        self._arrived = asyncio.Event()
        self.tickets: list[Ticket] = []
        self.left = left

    def put(self, news: News) -> None:
        """Hand in news."""
        self._news.append(news)
        self._arrived.set()

    async def take(self) -> News | None:
        """The next news; None after the last."""
        if self.left == 0:
            return None
        while not self._news:
            self._arrived.clear()
            await self._arrived.wait()
        news = self._news.popleft()
        self.left -= news.final
        return news


class Crew:
    """The asyncio task of one client or bridge, and the fleet that it works on; it ends when nobody waits."""

    def __init__(self, driver: AsyncDriver) -> None:
        self._driver = driver
        self._fleet = Fleet()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self, places: list[Located | Rejected], timeout: float | None, *, changes: bool) -> Batch:
        """Begin a wait for many tasks.

        Raises:
            ConfigError: The client belongs to another event loop.
        """
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise ConfigError("this client belongs to another event loop; make one per loop")
        batch = Batch(len(places))
        now = self._driver.clock.monotonic()
        batch.tickets, rejected = enlist(self._fleet, places, now, timeout, owner=batch, changes=changes)
        for news in rejected:
            batch.put(news)
        if batch.tickets and (self._task is None or self._task.done()):
            self._task = loop.create_task(self._work(), name="taskbridge-wait")
        self._wake.set()
        return batch

    def hear(self, told: Told) -> None:
        """Take in what came from outside."""
        hear(self._fleet, told, self._driver.clock.monotonic())
        self._tell()
        self._wake.set()

    def leave(self, batch: Batch) -> None:
        """End a wait, also one whose caller broke off."""
        self._fleet.drop(batch.tickets)
        self._wake.set()

    async def close(self) -> None:
        """Tell those who still wait, and end the task."""
        self._fleet.close()
        self._tell()
        if self._task is not None and self._loop is asyncio.get_running_loop():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        whole = False
        try:
            await self._driver.work(self._fleet, self._wake, self._tell)
            whole = True
        finally:
            if not whole:  # nobody shall wait for a task that died
                self._fleet.close("the asyncio task of this client ended")
                self._tell()

    def _tell(self) -> bool:
        told = False
        while (news := self._fleet.news()) is not None:
            news.ticket.owner.put(news)
            told = True
        return told
