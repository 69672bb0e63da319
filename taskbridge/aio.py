"""The asynchronous interface: the same names as `taskbridge`, awaitable (extra ``async``).

A `Client` and a `Bridge` belong to one event loop. ``await close()`` them, or use them in an ``async with`` statement.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, NoReturn, Self

from taskbridge.assemble import AnyId, Located, Locator, Rejected, channels_of, network_key, one_channel
from taskbridge.client import DEFAULT_TIMEOUT, deadline_after, settled, user_agent
from taskbridge.config import load_config
from taskbridge.drive import AsyncDriver
from taskbridge.errors import ConfigError
from taskbridge.fleet import Fleet, News, Ticket
from taskbridge.flows import Channel, look
from taskbridge.model import Outcome, Task, TaskResult, raise_if_failed
from taskbridge.policy import Clock, SystemClock
from taskbridge.registry import require_extra

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from taskbridge.provider import Capabilities
    from taskbridge.transport import AsyncTransport

__all__ = ["Bridge", "Client", "connect"]


def connect(
    provider: str | None = None,
    /,
    *,
    connection: str | None = None,
    config: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> Client:
    """Open a connection to a vendor; see `taskbridge.connect`. Nothing is sent yet."""
    clock = SystemClock()
    channel, known = one_channel(provider, connection, config, settings, clock)
    return Client(channel, known=known, clock=clock)


class _Front:
    """What `Client` and `Bridge` share: everything but where an id belongs."""

    def __init__(
        self, channels: Mapping[str, Channel], locate: Locator, clock: Clock, transport: AsyncTransport | None
    ) -> None:
        if transport is None:
            _require_aiohttp()
        self._channels = channels
        self._locate = locate
        self._clock = clock
        self._given = transport
        self._transports: dict[object, AsyncTransport] = {}
        self._by_channel: dict[str, AsyncTransport] = {}
        self._driver = AsyncDriver(clock, self._transport)
        self._crew = _Crew(self._driver)
        self._closed = False

    # One task.

    async def get(self, task: AnyId) -> Task:
        """Look a task up once; see `taskbridge.Client.get`."""
        place = self._begin(task)
        channel = place.channel
        deadline = self._clock.monotonic() + channel.settings.request_timeout
        seen = await self._driver.run(channel, look(channel, place.task_id, deadline))
        assert seen.task is not None  # noqa: S101  # None only where bytes were given to compare with
        return seen.task

    async def wait(
        self,
        task: AnyId,
        timeout: float | None = DEFAULT_TIMEOUT,  # noqa: ASYNC109  # the same names as the synchronous side
        on_update: Callable[[Task], object] | None = None,
    ) -> Task:
        """Wait until a task is completed or failed; see `taskbridge.Client.wait`."""
        place = self._begin(task)
        fleet = Fleet()
        now = self._clock.monotonic()
        fleet.add(
            place.channel,
            place.task_id,
            now,
            deadline=deadline_after(now, timeout),
            changes=on_update is not None,
            hold=on_update is None,
        )
        while True:
            while (news := fleet.news()) is not None:
                seen = news.outcome.task
                if news.outcome.error is None and on_update is not None and seen is not None:
                    on_update(seen)
                if news.final:
                    return settled(news.outcome)
            await self._driver.step(fleet)

    async def result(
        self,
        task: AnyId,
        timeout: float | None = DEFAULT_TIMEOUT,  # noqa: ASYNC109  # the same names as the synchronous side
    ) -> TaskResult:
        """What a task made; see `taskbridge.Client.result`."""
        ended = task if isinstance(task, Task) and task.is_terminal else await self.wait(task, timeout)
        raise_if_failed(ended)
        channel = self._begin(ended).channel
        return await self._driver.call(channel, channel.provider.result(ended))

    # Many tasks.

    def as_completed(self, tasks: Iterable[AnyId], timeout: float | None = DEFAULT_TIMEOUT) -> AsyncIterator[Outcome]:
        """Wait for many tasks, and tell of each as it ends; see `taskbridge.Client.as_completed`."""
        return self._follow(self._begin_many(tasks), timeout, changes=False)

    async def wait_all(
        self,
        tasks: Iterable[AnyId],
        timeout: float | None = DEFAULT_TIMEOUT,  # noqa: ASYNC109  # the same names as the synchronous side
    ) -> list[Outcome]:
        """Wait for many tasks; see `taskbridge.Client.wait_all`."""
        places = self._begin_many(tasks)
        batch = self._crew.open(places, timeout, changes=False)
        found: dict[int, Outcome] = {}
        try:
            while (news := await batch.take()) is not None:
                found[news.ticket.place] = news.outcome
        finally:
            self._crew.leave(batch)
        return [found[n] for n in range(len(places))]

    def watch(self, tasks: Iterable[AnyId], timeout: float | None = DEFAULT_TIMEOUT) -> AsyncIterator[Outcome]:
        """Wait for many tasks, and tell of every change of each; see `taskbridge.Client.watch`."""
        return self._follow(self._begin_many(tasks), timeout, changes=True)

    # Housekeeping.

    async def close(self) -> None:
        """End the waits for many, and close the kept connections."""
        self._closed = True
        await self._crew.close()
        for transport in self._transports.values():
            await transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} holds credentials and is not pickled; pass its name instead")

    def _begin(self, task: AnyId) -> Located:
        if self._closed:
            raise ConfigError(f"this {type(self).__name__} is closed")
        place = self._locate(task)
        place.channel.resume()
        return place

    def _begin_many(self, tasks: Iterable[AnyId]) -> list[Located | Rejected]:
        if self._closed:
            raise ConfigError(f"this {type(self).__name__} is closed")
        places = self._locate.many(tasks)
        for channel in {id(p.channel): p.channel for p in places if isinstance(p, Located)}.values():
            channel.resume()
        return places

    async def _follow(
        self, places: list[Located | Rejected], timeout: float | None, *, changes: bool
    ) -> AsyncIterator[Outcome]:
        batch = self._crew.open(places, timeout, changes=changes)
        try:
            while (news := await batch.take()) is not None:
                yield news.outcome
        finally:
            self._crew.leave(batch)

    def _transport(self, channel: Channel) -> AsyncTransport:
        if self._given is not None:
            return self._given
        transport = self._by_channel.get(channel.name)
        if transport is None:
            from taskbridge.transport.aiohttp import AiohttpTransport  # noqa: PLC0415  # only once something is sent

            network, key = network_key(channel)
            transport = self._transports.get(key)
            if transport is None:
                transport = self._transports[key] = AiohttpTransport(network, user_agent=user_agent(channel))
            self._by_channel[channel.name] = transport
        return transport


class Client(_Front):
    """One connection to a vendor; made by `connect`.

    Args:
        channel: The connection at work.
        known: Names of other configured connections, whose refs are recognised and refused.
        clock: Time and chance; tests bring their own.
        transport: Sends the requests; None for the default.
    """

    def __init__(
        self,
        channel: Channel,
        *,
        known: frozenset[str] = frozenset(),
        clock: Clock | None = None,
        transport: AsyncTransport | None = None,
    ) -> None:
        channels = {channel.name: channel}
        super().__init__(channels, Locator(channels, channel.name, known), clock or channel.clock, transport)
        self._channel = channel

    @property
    def name(self) -> str:
        """The connection's name."""
        return self._channel.name

    @property
    def provider(self) -> str:
        """Entry-point name of the provider."""
        return self._channel.provider.name

    @property
    def capabilities(self) -> Capabilities:
        """What the vendor can do."""
        return self._channel.provider.capabilities

    def __repr__(self) -> str:
        return f"<Client {self.name} ({self.provider})>"


class Bridge(_Front):
    """Every connection of a configuration at once, addressed by ref; made by `from_config`.

    Args:
        channels: The connections at work, by name.
        clock: Time and chance; tests bring their own.
        transport: Sends the requests; None for the default.
    """

    def __init__(
        self, channels: Mapping[str, Channel], *, clock: Clock | None = None, transport: AsyncTransport | None = None
    ) -> None:
        super().__init__(channels, Locator(channels), clock or SystemClock(), transport)
        self._clients: dict[str, Client] = {}

    @classmethod
    def from_config(cls, path: str | os.PathLike[str] | None = None) -> Self:
        """Open every connection of a configuration; see `taskbridge.Bridge.from_config`. Nothing is sent yet."""
        clock = SystemClock()
        return cls(channels_of(load_config(path), clock), clock=clock)

    @property
    def connections(self) -> tuple[str, ...]:
        """Names of the connections."""
        return tuple(self._channels)

    def __getitem__(self, name: str) -> Client:
        """The client of one connection; it shares the pace and the credential, and is closed with the bridge."""
        channel = self._channels.get(name)
        if channel is None:
            raise ConfigError(f"there is no connection {name!r}; there are {', '.join(self._channels)}")
        client = self._clients.get(name)
        if client is None:
            known = frozenset(self._channels)
            client = self._clients[name] = Client(channel, known=known, clock=self._clock, transport=self._given)
        return client

    async def close(self) -> None:
        """End the waits for many, and close the kept connections."""
        for client in self._clients.values():
            await client.close()
        await super().close()

    def __repr__(self) -> str:
        return f"<Bridge {', '.join(self._channels)}>"


def _require_aiohttp() -> None:
    try:
        import aiohttp  # noqa: F401, PLC0415  # pyright: ignore[reportUnusedImport]  # only whether it is there
    except ImportError:
        missing = require_extra("aiohttp", "async", "taskbridge.aio")
    else:
        return
    raise missing


# One asyncio task for waiting for many.


class _Batch:
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


class _Crew:
    """The asyncio task of one client or bridge, and the fleet that it works on; it ends when nobody waits."""

    def __init__(self, driver: AsyncDriver) -> None:
        self._driver = driver
        self._fleet = Fleet()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def open(self, places: list[Located | Rejected], timeout: float | None, *, changes: bool) -> _Batch:
        """Begin a wait for many tasks."""
        batch = _Batch(len(places))
        now = self._driver.clock.monotonic()
        for place, found in enumerate(places):
            if isinstance(found, Rejected):
                batch.put(News(Ticket.apart(batch, place), found.outcome, final=True))
                continue
            ticket = self._fleet.add(
                found.channel,
                found.task_id,
                now,
                deadline=deadline_after(now, timeout),
                owner=batch,
                place=place,
                changes=changes,
            )
            batch.tickets.append(ticket)
        if batch.tickets and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(
                self._driver.work(self._fleet, self._wake, self._tell), name="taskbridge-wait"
            )
        self._wake.set()
        return batch

    def leave(self, batch: _Batch) -> None:
        """End a wait, also one whose caller broke off."""
        self._fleet.drop(batch.tickets)
        self._wake.set()

    async def close(self) -> None:
        """Tell those who still wait, and end the task."""
        self._fleet.close()
        self._tell()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _tell(self) -> None:
        while (news := self._fleet.news()) is not None:
            news.ticket.owner.put(news)
