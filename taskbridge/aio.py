"""The asynchronous interface to what changes something at a vendor, and to its list; `Client` and `Bridge` inherit it.

All that is decided is decided in `taskbridge._engine.operations`, `taskbridge._engine.inputs` and `taskbridge._engine.operations`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self, overload

from taskbridge._config.defaults import TransportMaker, current_defaults, default_clock
from taskbridge._config.files import load_config
from taskbridge._config.registry import require_extra
from taskbridge._engine.connection import Connection
from taskbridge._engine.download import DownloadOptions, download_file, download_task
from taskbridge._engine.event_bus import listening
from taskbridge._engine.flows import guarded_flow
from taskbridge._engine.inputs import AnyInput, SubmitRequest, TemporaryFiles, prepare, prepare_again
from taskbridge._engine.locate import AnyId, Located, Rejected, connections_of, one_connection
from taskbridge._engine.operations import (
    CheckResult,
    Pager,
    cancel,
    check,
    claim,
    get,
    query_of,
    recover,
    remove,
    restart,
    retry,
    submit,
)
from taskbridge._engine.tracing import CallSpan
from taskbridge._polling.commands import Update
from taskbridge._runtime.aio import AsyncDriver, PollLoop
from taskbridge._runtime.base import (
    DEFAULT_TIMEOUT,
    AllConnections,
    Front,
    OneConnection,
    Transports,
    Waiting,
    ignore,
    in_order,
    no_wait,
)
from taskbridge.errors import InvalidInput, TaskbridgeError
from taskbridge.models import Outcome, Outcomes, Task, TaskFile, TaskResult, TaskStatus, WebhookEvent, raise_if_failed
from taskbridge.provider.clock import Clock
from taskbridge.provider.secrets import redact_errors

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
    from pathlib import Path

    from taskbridge._engine.webhooks import Ingested
    from taskbridge.provider.sink import Progress
    from taskbridge.transport import AsyncTransport, Network

__all__ = ["Bridge", "BridgeVerbs", "Client", "ClientVerbs", "Verbs", "connect"]

# XXDOC The asynchronous interface: the same names as `taskbridge`, awaitable (extra ``async``).
#
# A `Client` and a `Bridge` belong to one event loop. ``await close()`` them, or use them in an ``async with`` statement.
#


class Verbs(Front):
    """What is done to one task."""

    _driver: AsyncDriver

    async def cancel(self, task: AnyId) -> Task:
        """Stop a task; see `taskbridge.Client.cancel`."""
        place = self._begin(task)
        connection, task_id = place.connection, place.task_id
        claim(connection, "cancel", "cancel a task")
        return await self._driver.run(connection, cancel(connection, task_id))

    async def retry(self, task: AnyId) -> Task:
        """Do a task once more, as a new task; see `taskbridge.Client.retry`."""
        place = self._begin(task)
        claim(place.connection, "retry", "retry a task")
        return await self._driver.run(place.connection, retry(place.connection, place.task_id))

    async def delete(self, task: AnyId) -> None:
        """Remove a task, and what it made, at the vendor; see `taskbridge.Client.delete`."""
        place = self._begin(task)
        claim(place.connection, "delete", "delete a task")
        await self._driver.run(place.connection, remove(place.connection, place.task_id))

    async def restart(self, task: AnyId, *, destructive: bool = False) -> Task:
        """Do a task anew under its own id, losing what it was; see `taskbridge.Client.restart`."""
        place = self._begin(task)
        claim(place.connection, "restart", "restart a task")
        return await self._driver.run(
            place.connection, restart(place.connection, place.task_id, destructive=destructive)
        )

    async def _brought(self, task: AnyId, want: DownloadOptions) -> tuple[Path, ...]:
        place = self._begin(task)
        claim(place.connection, "download", "give out files")
        with CallSpan("download", [place.connection], self._clock, [place]):
            return await self._driver.run(
                place.connection, download_task(place.connection, place.task_id, place.known, want)
            )


class ClientVerbs(Verbs):
    """What is done through one connection."""

    _connection: Connection

    async def submit(
        self,
        operation: str | None = None,
        input: AnyInput = None,  # noqa: A002  # what everybody calls it
        *,
        options: Mapping[str, Any] | None = None,
        external_id: str | None = None,
        callback_url: str | None = None,
        name: str | None = None,
        before_submit: Callable[[Mapping[str, Any]], Awaitable[object] | object] | None = None,
    ) -> Task:
        """Hand a document to the vendor; see `taskbridge.Client.submit`. A stream is read in a thread of its own.

        Where the call is cancelled after its order was logged, the order may have gone; the log has its reference.
        """
        self._refuse_if_closed()
        connection = self._connection
        connection.resume()
        with CallSpan("submit", [connection], self._clock), TemporaryFiles() as spool:
            wish = SubmitRequest(operation, input, options, external_id, callback_url, name)
            prepared = await asyncio.to_thread(prepare, connection, wish, spool)
            return await self._driver.run(connection, submit(connection, prepared), before_submit or ignore)

    def list(
        self, status: TaskStatus | str | None = None, *, limit: int | None = None, **filters: Any
    ) -> AsyncIterator[Task]:
        """The vendor's tasks, in its order; see `taskbridge.Client.list`."""
        self._refuse_if_closed()
        self._connection.resume()
        return self._pages(Pager(self._connection, query_of(self._connection, status, filters), limit))

    async def _pages(self, walk: Pager) -> AsyncGenerator[Task]:
        while walk.goes_on:
            for task in walk.take(await self._driver.run(walk.connection, walk.ask())):
                yield task

    async def check(self) -> CheckResult:
        """Ask whether the vendor takes the credential; see `taskbridge.Client.check`."""
        self._refuse_if_closed()
        self._connection.resume()
        return await self._driver.run(self._connection, check(self._connection))

    async def recover(self, error: TaskbridgeError, input: AnyInput = None) -> Task | None:  # noqa: A002  # as in submit
        """Look for the order that a failed submit left in doubt; see `taskbridge.Client.recover`."""
        self._refuse_if_closed()
        connection = self._connection
        connection.resume()
        with TemporaryFiles() as spool:
            prepared = await asyncio.to_thread(prepare_again, connection, error, input, spool)
            return await self._driver.run(connection, recover(connection, error, prepared))

    @overload
    async def download(
        self,
        what: TaskFile,
        to: str | os.PathLike[str],
        *,
        max_bytes: int | None = None,
        on_progress: Progress | None = None,
        overwrite: bool = False,
    ) -> Path: ...

    @overload
    async def download(
        self,
        what: AnyId,
        to: str | os.PathLike[str],
        *,
        max_bytes: int | None = None,
        on_progress: Progress | None = None,
        overwrite: bool = False,
    ) -> tuple[Path, ...]: ...

    async def download(
        self,
        what: TaskFile | AnyId,
        to: str | os.PathLike[str],
        *,
        max_bytes: int | None = None,
        on_progress: Progress | None = None,
        overwrite: bool = False,
    ) -> Path | tuple[Path, ...]:
        """Bring home a file that a task made, or all that a task made; see `taskbridge.Client.download`."""
        want = DownloadOptions(to, max_bytes, on_progress, overwrite)
        if not isinstance(what, TaskFile):
            return await self._brought(what, want)
        self._refuse_if_closed()
        self._connection.resume()
        claim(self._connection, "download", "give out files")
        with CallSpan("download", [self._connection], self._clock):
            return await self._driver.run(self._connection, download_file(self._connection, what, want))


class BridgeVerbs(Verbs):
    """What is done through any connection, by its name."""

    def __getitem__(self, name: str) -> Client:
        """The client of one connection."""
        raise NotImplementedError(name)

    async def submit(
        self,
        connection: str,
        operation: str | None = None,
        input: AnyInput = None,  # noqa: A002  # what everybody calls it
        *,
        options: Mapping[str, Any] | None = None,
        external_id: str | None = None,
        callback_url: str | None = None,
        name: str | None = None,
        before_submit: Callable[[Mapping[str, Any]], Awaitable[object] | object] | None = None,
    ) -> Task:
        """Hand a document to the vendor of a connection; see `taskbridge.Client.submit`."""
        return await self[connection].submit(
            operation,
            input,
            options=options,
            external_id=external_id,
            callback_url=callback_url,
            name=name,
            before_submit=before_submit,
        )

    def list(
        self, connection: str, status: TaskStatus | str | None = None, *, limit: int | None = None, **filters: Any
    ) -> AsyncIterator[Task]:
        """The tasks of a connection's vendor; see `taskbridge.Client.list`."""
        return self[connection].list(status, limit=limit, **filters)

    async def recover(self, error: TaskbridgeError, input: AnyInput = None) -> Task | None:  # noqa: A002  # as in submit
        """Look for the order that a failed submit left in doubt; see `taskbridge.Client.recover`."""
        return await self[str(error.recovery_token.get("connection", error.connection))].recover(error, input)

    async def download(
        self,
        task: AnyId,
        to: str | os.PathLike[str],
        *,
        max_bytes: int | None = None,
        on_progress: Progress | None = None,
        overwrite: bool = False,
    ) -> tuple[Path, ...]:
        """Bring home all that a task made; see `taskbridge.Client.download`.

        A file alone does not say of which connection it is: ``bridge["its name"].download(file, to)``.
        """
        if isinstance(task, TaskFile):
            raise InvalidInput('a file does not say of which connection it is: bridge["its name"].download(file, to)')
        return await self._brought(task, DownloadOptions(to, max_bytes, on_progress, overwrite))


@redact_errors
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
    chosen = clock or default_clock()
    guarded_flow, known = one_connection(provider, connection, config, settings, chosen)
    return Client(guarded_flow, known=known, clock=chosen, transport=transport)


class _Calls(Front):
    """What `Client` and `Bridge` do alike."""

    def _open(self, transport: AsyncTransport | TransportMaker | None) -> None:
        if transport is None and current_defaults().transports is None:
            _require_aiohttp()
        maker = transport if isinstance(transport, TransportMaker) else current_defaults().transports
        given = None if isinstance(transport, TransportMaker) else transport
        self._transports = Transports(_make_transport, given, None if maker is None else maker.async_transport)
        self._driver = AsyncDriver(self._clock, self._transports)
        self._pool = PollLoop(self._driver)

    # One task.

    async def get(self, task: AnyId, *, options: Mapping[str, Any] | None = None) -> Task:
        """Look a task up once; see `taskbridge.Client.get`."""
        place = self._begin(task)
        return await self._driver.run(place.connection, get(place.connection, place.task_id, options))

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
                await self._driver.step(waiting.scheduler, heard)
        return ended

    async def result(
        self,
        task: AnyId,
        timeout: float | None = DEFAULT_TIMEOUT,  # noqa: ASYNC109  # the same names as the synchronous side
    ) -> TaskResult:
        """What a task made; see `taskbridge.Client.result`."""
        ended = task if isinstance(task, Task) and task.is_terminal else await self.wait(task, timeout)
        raise_if_failed(ended)
        connection = self._begin(ended).connection
        return await self._driver.call(connection, guarded_flow(connection, connection.provider.result, ended))

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
        update = [one async for one in self._follow("wait_all", places, timeout)]
        return in_order(update, len(places))

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
        await self._pool.close()
        for transport in self._transports.created():
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
    ) -> AsyncGenerator[Update]:
        connections = {place.connection.name: place.connection for place in places if isinstance(place, Located)}
        self._refuse_if_closed()
        waits = self._pool.open(places, timeout, changes=changes)
        try:
            with (
                listening([connection.event_bus for connection in connections.values()], self._pool.hear),
                CallSpan(call, connections.values(), self._clock, places, timeout) as told,
            ):
                while (update := await waits.take()) is not None:
                    if update.final:
                        told.record_outcome(update.outcome)
                    yield update
        finally:
            self._pool.leave(waits)


async def _outcomes(followed: AsyncGenerator[Update]) -> AsyncGenerator[Outcome]:
    try:
        async for update in followed:
            yield update.outcome
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
        connection: Connection,
        *,
        known: frozenset[str] = frozenset(),
        clock: Clock | None = None,
        transport: AsyncTransport | TransportMaker | None = None,
    ) -> None:
        super().__init__(connection, known, clock)
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
        connections: Mapping[str, Connection],
        *,
        clock: Clock | None = None,
        transport: AsyncTransport | TransportMaker | None = None,
    ) -> None:
        super().__init__(connections, clock or default_clock())
        self._open(transport)
        self._transport = transport
        self._clients: dict[str, Client] = {}

    @classmethod
    @redact_errors
    def from_config(cls, path: str | os.PathLike[str] | None = None) -> Self:
        """Open every connection of a configuration; see `taskbridge.Bridge.from_config`. Nothing is sent yet."""
        clock = default_clock()
        return cls(connections_of(load_config(path), clock), clock=clock)

    def __getitem__(self, name: str) -> Client:
        """The client of one connection; it shares the pace and the credential, and is closed with the bridge."""
        client = self._clients.get(name)
        if client is None:
            self._refuse_if_closed()  # nobody would close it
            known = frozenset(self._connections)
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
    from taskbridge._transport.aiohttp import AiohttpTransport  # noqa: PLC0415  # only once something is sent

    return AiohttpTransport(network, user_agent=user_agent, size=size)


def _require_aiohttp() -> None:
    try:
        import aiohttp  # noqa: F401, PLC0415  # pyright: ignore[reportUnusedImport]  # only whether it is there
    except ImportError:
        missing = require_extra("aiohttp", "async", "taskbridge.aio")
    else:
        return
    raise missing
