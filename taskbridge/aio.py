"""The asynchronous interface: the same names as `taskbridge`, awaitable (extra ``async``).

A `Client` and a `Bridge` belong to one event loop. ``await close()`` them, or use them in an ``async with`` statement.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

from taskbridge.aio_verbs import BridgeVerbs, ClientVerbs
from taskbridge.assemble import AnyId, Located, Rejected, channels_of, one_channel
from taskbridge.calls import Call
from taskbridge.channel import Channel
from taskbridge.config import load_config
from taskbridge.crew_async import Crew
from taskbridge.drive_async import AsyncDriver
from taskbridge.flows import opened
from taskbridge.front import (
    DEFAULT_TIMEOUT,
    AllConnections,
    Front,
    OneConnection,
    Transports,
    Waiting,
    in_order,
    no_wait,
)
from taskbridge.inbox import listening
from taskbridge.lifecycle import get
from taskbridge.model import Outcome, Outcomes, Task, TaskResult, WebhookEvent, raise_if_failed
from taskbridge.policy import Clock
from taskbridge.registry import require_extra
from taskbridge.secrecy import guarded
from taskbridge.steps import News
from taskbridge.surroundings import TransportMaker, clock_here, surroundings

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping

    from taskbridge.config import Network
    from taskbridge.ingest import Ingested
    from taskbridge.transport import AsyncTransport

__all__ = ["Bridge", "Client", "connect"]


@guarded
def connect(
    provider: str | None = None,
    /,
    *,
    connection: str | None = None,
    config: str | os.PathLike[str] | None = None,
    clock: Clock | None = None,
    transport: AsyncTransport | TransportMaker | None = None,
    **settings: Any,
) -> Client:
    """Open a connection to a vendor; see `taskbridge.connect`. Nothing is sent yet."""
    chosen = clock or clock_here()
    channel, known = one_channel(provider, connection, config, settings, chosen)
    return Client(channel, known=known, clock=chosen, transport=transport)


class _Calls(Front):
    """What `Client` and `Bridge` do alike."""

    def _open(self, transport: AsyncTransport | TransportMaker | None) -> None:
        if transport is None and surroundings().transports is None:
            _require_aiohttp()
        maker = transport if isinstance(transport, TransportMaker) else surroundings().transports
        given = None if isinstance(transport, TransportMaker) else transport
        self._transports = Transports(_make_transport, given, None if maker is None else maker.async_transport)
        self._driver = AsyncDriver(self._clock, self._transports)
        self._crew = Crew(self._driver)

    # One task.

    async def get(self, task: AnyId, *, options: Mapping[str, Any] | None = None) -> Task:
        """Look a task up once; see `taskbridge.Client.get`."""
        place = self._begin(task)
        return await self._driver.run(place.channel, get(place.channel, place.task_id, options))

    async def wait(
        self,
        task: AnyId,
        timeout: float | None = DEFAULT_TIMEOUT,  # noqa: ASYNC109  # the same names as the synchronous side
        on_update: Callable[[Task], object] | None = None,
    ) -> Task:
        """Wait until a task is completed or failed; see `taskbridge.Client.wait`."""
        if timeout is not None and timeout <= 0:
            return no_wait(await self.get(task))
        heard = asyncio.Event()
        with Waiting(self._begin(task), self._clock, timeout, on_update, heard.set) as waiting:
            while (ended := waiting.ended()) is None:
                await self._driver.step(waiting.fleet, heard)
        return ended

    async def result(
        self,
        task: AnyId,
        timeout: float | None = DEFAULT_TIMEOUT,  # noqa: ASYNC109  # the same names as the synchronous side
    ) -> TaskResult:
        """What a task made; see `taskbridge.Client.result`."""
        ended = task if isinstance(task, Task) and task.is_terminal else await self.wait(task, timeout)
        raise_if_failed(ended)
        channel = self._begin(ended).channel
        return await self._driver.call(channel, opened(channel, channel.provider.result, ended))

    # Many tasks.

    def as_completed(self, tasks: Iterable[AnyId], timeout: float | None = DEFAULT_TIMEOUT) -> AsyncIterator[Outcome]:
        """Wait for many tasks, and tell of each as it ends; see `taskbridge.Client.as_completed`."""
        return _outcomes(self._follow("as_completed", self._begin_many(tasks), timeout))

    async def wait_all(
        self,
        tasks: Iterable[AnyId],
        timeout: float | None = DEFAULT_TIMEOUT,  # noqa: ASYNC109  # the same names as the synchronous side
    ) -> Outcomes:
        """Wait for many tasks; see `taskbridge.Client.wait_all`."""
        places = self._begin_many(tasks)
        news = [one async for one in self._follow("wait_all", places, timeout)]
        return in_order(news, len(places))

    def watch(self, tasks: Iterable[AnyId], timeout: float | None = DEFAULT_TIMEOUT) -> AsyncIterator[Outcome]:
        """Wait for many tasks, and tell of every change of each; see `taskbridge.Client.watch`."""
        return _outcomes(self._follow("watch", self._begin_many(tasks), timeout, changes=True))

    # What the vendor tells unasked.

    async def ingest(self, event: WebhookEvent, *, confirm: bool | None = None) -> Ingested:
        """Take in an event of `parse_webhook`; see `taskbridge.Client.ingest`."""
        return await self._driver.run(*self._ingestion(event, confirm))

    # Housekeeping.

    async def close(self) -> None:
        """End the waits for many, and close the kept connections."""
        self._closed = True
        await self._crew.close()
        for transport in self._transports.opened():
            await transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _follow(
        self,
        call: str,
        places: list[Located | Rejected],
        timeout: float | None,  # noqa: ASYNC109  # the fleet keeps it
        *,
        changes: bool = False,
    ) -> AsyncGenerator[News]:
        channels = {place.channel.name: place.channel for place in places if isinstance(place, Located)}
        self._refuse_if_closed()
        batch = self._crew.open(places, timeout, changes=changes)
        try:
            with (
                listening([channel.inbox for channel in channels.values()], self._crew.hear),
                Call(call, channels.values(), self._clock, places, timeout) as told,
            ):
                while (news := await batch.take()) is not None:
                    if news.final:
                        told.tell(news.outcome)
                    yield news
        finally:
            self._crew.leave(batch)


async def _outcomes(followed: AsyncGenerator[News]) -> AsyncGenerator[Outcome]:
    try:
        async for news in followed:
            yield news.outcome
    finally:
        await followed.aclose()


class Client(OneConnection, _Calls, ClientVerbs):
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
        transport: AsyncTransport | TransportMaker | None = None,
    ) -> None:
        super().__init__(channel, known, clock)
        self._open(transport)


class Bridge(AllConnections, _Calls, BridgeVerbs):
    """Every connection of a configuration at once, addressed by ref; made by `from_config`.

    Args:
        channels: The connections at work, by name.
        clock: Time and chance; tests bring their own.
        transport: Sends the requests; None for the default.
    """

    def __init__(
        self,
        channels: Mapping[str, Channel],
        *,
        clock: Clock | None = None,
        transport: AsyncTransport | TransportMaker | None = None,
    ) -> None:
        super().__init__(channels, clock or clock_here())
        self._open(transport)
        self._transport = transport
        self._clients: dict[str, Client] = {}

    @classmethod
    @guarded
    def from_config(cls, path: str | os.PathLike[str] | None = None) -> Self:
        """Open every connection of a configuration; see `taskbridge.Bridge.from_config`. Nothing is sent yet."""
        clock = clock_here()
        return cls(channels_of(load_config(path), clock), clock=clock)

    def __getitem__(self, name: str) -> Client:
        """The client of one connection; it shares the pace and the credential, and is closed with the bridge."""
        client = self._clients.get(name)
        if client is None:
            self._refuse_if_closed()  # nobody would close it
            known = frozenset(self._channels)
            client = Client(self._named(name), known=known, clock=self._clock, transport=self._transport)
            self._clients[name] = client
        return client

    async def close(self) -> None:
        """End the waits for many, and close the kept connections."""
        self._closed = True
        for client in list(self._clients.values()):
            await client.close()
        await super().close()


def _make_transport(network: Network, user_agent: str, size: int) -> AsyncTransport:
    from taskbridge.transport.aiohttp import AiohttpTransport  # noqa: PLC0415  # only once something is sent

    return AiohttpTransport(network, user_agent=user_agent, size=size)


def _require_aiohttp() -> None:
    try:
        import aiohttp  # noqa: F401, PLC0415  # pyright: ignore[reportUnusedImport]  # only whether it is there
    except ImportError:
        missing = require_extra("aiohttp", "async", "taskbridge.aio")
    else:
        return
    raise missing


# One asyncio task for waiting for many.
