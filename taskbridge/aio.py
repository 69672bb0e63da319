"""The asynchronous interface: the same names as `taskbridge`, awaitable (extra ``async``).

A `Client` and a `Bridge` belong to one event loop. ``await close()`` them, or use them in an ``async with`` statement.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, Self, Unpack, overload

from taskbridge._config.defaults import TransportMaker, current_defaults, default_clock
from taskbridge._config.files import load_config
from taskbridge._engine import operations
from taskbridge._engine.connection import Connection, Group, open_connection, open_connections, open_groups
from taskbridge._engine.download import MAX_BYTES, MAX_READ, DownloadOptions
from taskbridge._engine.inputs import SubmitRequest
from taskbridge._runtime.aio import PollLoop, RunningWatch, Runtime
from taskbridge._runtime.base import DEFAULT_TIMEOUT, AnyId, ClientBase, Transports, checked, connection_of, ended
from taskbridge.errors import TaskbridgeError
from taskbridge.models import TaskFile
from taskbridge.provider.secrets import strip_tracebacks

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
    from datetime import datetime
    from pathlib import Path

    from taskbridge._engine.inputs import AnyInput
    from taskbridge._engine.operations import CheckResult
    from taskbridge._engine.sharing import SharedLimits
    from taskbridge._engine.webhooks import Headers, Ingested
    from taskbridge._runtime.base import Target
    from taskbridge.event_bus import EventBus
    from taskbridge.events import NextPoll
    from taskbridge.models import (
        Account,
        OperationInfo,
        Outcome,
        Outcomes,
        StorageUrl,
        Support,
        Task,
        TaskRef,
        TaskResult,
        TaskStatus,
        WebhookEndpoint,
        WebhookEvent,
    )
    from taskbridge.provider.base import Provider
    from taskbridge.provider.capabilities import Capabilities
    from taskbridge.provider.clock import Clock
    from taskbridge.provider.options import NeutralOptions
    from taskbridge.provider.sink import Progress
    from taskbridge.store.relay import AsyncRelay
    from taskbridge.store.watcher import Watcher as Watcher  # noqa: PLC0414  # exported
    from taskbridge.transport import AsyncTransport, Network

    Relay = AsyncRelay  # exported

__all__ = ["Bridge", "Client", "Watch", "connect"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Return `Relay` or `Watcher`, which need the extra ``store``."""
        if name == "Relay":
            from taskbridge.store.relay import AsyncRelay  # noqa: PLC0415  # most programs have no store

            return AsyncRelay
        if name == "Watcher":
            from taskbridge.store.watcher import Watcher  # noqa: PLC0415  # as above

            return Watcher
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@strip_tracebacks
def connect(
    provider: str | type[Provider[Any]] | None = None,
    /,
    *,
    connection: str | None = None,
    config: str | os.PathLike[str] | None = None,
    clock: Clock | None = None,
    transport: AsyncTransport | TransportMaker | str | None = None,
    event_bus: Callable[[str], EventBus] | None = None,
    limits: Callable[[str], SharedLimits] | None = None,
    **settings: Any,
) -> Client:
    """Open a connection to a vendor; see `taskbridge.connect`. Nothing is sent yet."""
    clock = clock or default_clock()
    if isinstance(transport, str):
        settings, transport = {**settings, "transport": transport}, None
    opened, known = open_connection(provider, connection, config, settings, clock)
    for each in opened.members if isinstance(opened, Group) else (opened,):
        each.use_event_bus(event_bus)
        each.share_limits(limits)
    return Client(opened, known=known, clock=clock, transport=transport)


class Watch:
    """Tasks that are polled until they end, while tasks are added and dropped; see `taskbridge.Watch`.

    It belongs to the event loop in which it was opened.

    Args:
        loop: Polls the tasks.
        running: The state of the watch.
        locate: Finds a task and its deadline.
    """

    def __init__(
        self,
        loop: PollLoop,
        running: RunningWatch,
        locate: Callable[[AnyId, float | None, datetime | None], tuple[Target, float]],
    ) -> None:
        self._loop = loop
        self._running = running
        self._locate = locate

    def add(self, task: AnyId, *, timeout: float | None = None, submitted_at: datetime | None = None) -> TaskRef:
        """Wait for a task, too, and return its ref; see `taskbridge.Watch.add`."""
        return self._loop.add(self._running, *self._locate(task, timeout, submitted_at))

    def drop(self, task: AnyId) -> bool:
        """Stop waiting for a task, without an outcome; return False if it was not waited for."""
        return self._loop.drop(self._running, self._locate(task, None, None)[0].ref)

    def poll_now(self, task: AnyId) -> bool:
        """Poll a task at once; see `taskbridge.Watch.poll_now`."""
        return self._loop.poll_now(self._running, self._locate(task, None, None)[0].ref)

    def next_poll(self, task: AnyId) -> NextPoll | None:
        """Return when and why a task is polled next; None if it is not waited for."""
        return self._loop.next_poll(self._running, self._locate(task, None, None)[0].ref)

    def demand(self) -> float:
        """Return the requests per second that polling all tasks of the client takes; see `taskbridge.Watch.demand`."""
        return self._loop.demand()

    def __len__(self) -> int:
        """Return how many tasks are being waited for."""
        return len(self._running.waiters)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        outcome = await self._running.take()
        if outcome is None:
            raise StopAsyncIteration
        return outcome

    def close(self) -> None:
        """Stop waiting for all tasks; they continue at the vendor."""
        self._loop.end(self._running)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class _AsyncClient(ClientBase):
    """What `Client` and `Bridge` have in common."""

    def _use_runtime(self, runtime: Runtime, *, is_shared: bool = False) -> None:
        self._runtime = runtime
        self._poll_loop = PollLoop(runtime)
        self._owns_runtime = not is_shared

    async def get(
        self, task: AnyId, *, options: Mapping[str, Any] | None = None, submitted_at: datetime | None = None
    ) -> Task:
        """Ask for the status of a task once; see `taskbridge.Client.get`."""
        return await self._runtime.run(self._get(task, options, submitted_at))

    async def wait(
        self,
        task: AnyId,
        *,
        timeout: float | None = DEFAULT_TIMEOUT,  # noqa: ASYNC109  # the same names as the synchronous side
        on_update: Callable[[Task], object] | None = None,
        submitted_at: datetime | None = None,
        check: bool = False,
    ) -> Task:
        """Wait until a task has completed or failed; see `taskbridge.Client.wait`."""
        last = await self._runtime.wait(self._wait(task, timeout, on_update, submitted_at))
        return checked(last, check=check)

    async def result(
        self,
        task: AnyId,
        *,
        timeout: float | None = DEFAULT_TIMEOUT,  # noqa: ASYNC109  # the same names as the synchronous side
    ) -> TaskResult:
        """Wait until a task has completed; see `taskbridge.Client.result`."""
        return await self._runtime.run(self._result(ended(task, timeout) or await self.wait(task, timeout=timeout)))

    async def cancel(self, task: AnyId) -> Task:
        """Stop a task; see `taskbridge.Client.cancel`."""
        return await self._runtime.run(self._change(operations.cancel, task))

    async def retry(self, task: AnyId) -> Task:
        """Run a task once more; see `taskbridge.Client.retry`."""
        return await self._runtime.run(self._change(operations.retry, task))

    async def delete(self, what: AnyId | TaskFile) -> None:
        """Delete a task and its results at the vendor, or a file; see `taskbridge.Client.delete`."""
        return await self._runtime.run(self._delete(what))

    async def mark(self, task: AnyId, label: str) -> None:
        """Mark a task with a text of your own; see `taskbridge.Client.mark`."""
        return await self._runtime.run(self._change(partial(operations.mark, label=label), task))

    async def restart(self, task: AnyId, *, destructive: bool = False) -> Task:
        """Run a task again under its own id; see `taskbridge.Client.restart`."""
        return await self._runtime.run(self._change(partial(operations.restart, destructive=destructive), task))

    def as_completed(
        self, tasks: Iterable[AnyId], *, timeout: float | None = DEFAULT_TIMEOUT
    ) -> AsyncIterator[Outcome]:
        """Wait for many tasks; see `taskbridge.Client.as_completed`."""
        return self._poll_loop.outcomes(self._many("as_completed", tasks, timeout))

    async def wait_all(
        self,
        tasks: Iterable[AnyId],
        *,
        timeout: float | None = DEFAULT_TIMEOUT,  # noqa: ASYNC109  # the same names as the synchronous side
    ) -> Outcomes:
        """Wait for many tasks; see `taskbridge.Client.wait_all`."""
        return await self._poll_loop.wait_all(self._many("wait_all", tasks, timeout))

    def watch(self, tasks: Iterable[AnyId], *, timeout: float | None = DEFAULT_TIMEOUT) -> AsyncIterator[Outcome]:
        """Wait for many tasks; see `taskbridge.Client.watch`."""
        return self._poll_loop.outcomes(self._many("watch", tasks, timeout, changes=True))

    def open_watch(self, *, changes: bool = True) -> Watch:
        """Open a watch without tasks; see `taskbridge.Client.open_watch`."""
        return Watch(self._poll_loop, self._poll_loop.open_watch(self._buses(), changes=changes), self._watched)

    async def ingest(self, event: WebhookEvent, *, confirm: bool | None = None) -> Ingested:
        """Process an event of `parse_webhook`; see `taskbridge.Client.ingest`."""
        async with self.ingesting(event, confirm=confirm) as ingested:
            return ingested

    @asynccontextmanager
    async def ingesting(self, event: WebhookEvent, *, confirm: bool | None = None) -> AsyncGenerator[Ingested]:
        """Process an event, and act on it in the block of ``async with``; see `taskbridge.Client.ingesting`."""
        ingested, is_claimed = await self._runtime.run(self._ingest(event, confirm))
        try:
            yield ingested
        except BaseException:
            if is_claimed:
                with suppress(TaskbridgeError):  # then the claim expires
                    await self.forget(event)
            raise
        if is_claimed:
            await self._runtime.run(self._settle(event))

    async def forget(self, event: WebhookEvent) -> None:
        """Forget that an event was ingested; see `taskbridge.Client.forget`."""
        await self._runtime.run(self._forget(event))

    async def close(self) -> None:
        """End all waits, and close the kept connections; see `taskbridge.Client.close`."""
        self._end_waits()
        await self._poll_loop.close()
        if self._owns_runtime:
            await self._runtime.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Client(_AsyncClient):
    """One connection to a vendor, or a group of connections; made by `connect`.

    Attributes:
        members: The clients of a group's members, in order; empty for one connection. They end with this client.

    Args:
        connection: The open connection or group.
        known: Names of other configured connections, whose refs are recognized and refused.
        clock: Time and chance; None for the connection's.
        transport: Sends the requests; None for the default.
        runtime: Carries out the operations; None for one of its own. A `Bridge` shares its runtime.
    """

    def __init__(
        self,
        connection: Connection | Group,
        *,
        known: frozenset[str] = frozenset(),
        clock: Clock | None = None,
        transport: AsyncTransport | TransportMaker | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        group = connection if isinstance(connection, Group) else None
        opened = (connection,) if isinstance(connection, Connection) else connection.members
        clock = clock or opened[0].clock
        self._name = connection.name
        groups = {} if group is None else {group.name: group}
        super().__init__({each.name: each for each in opened}, clock, only=self._name, known=known, groups=groups)
        runtime, is_shared = runtime or _make_runtime(clock, transport, opened), runtime is not None
        self._use_runtime(runtime, is_shared=is_shared)
        self.members = tuple(
            type(self)(each, known=self._known, clock=clock, runtime=runtime)
            for each in (group.members if group else ())
        )

    @property
    def name(self) -> str:
        """The name of the connection or group."""
        return self._name

    @property
    def provider(self) -> str:
        """Entry-point name of the provider."""
        return self._connection.provider.name

    @property
    def capabilities(self) -> Capabilities:
        """What the vendor can do, and this connection through its `stage`."""
        return self._connection.capabilities

    def limit_rate(self, requests_per_second: float | None) -> None:
        """Change how many requests per second may start; see `taskbridge.Client.limit_rate`."""
        self._limit_rate(requests_per_second)

    def pause_until(self, moment: datetime) -> None:
        """Send nothing before a time; see `taskbridge.Client.pause_until`."""
        self._pause_until(moment)

    def save_durations(self) -> dict[str, Any]:
        """Return what was learned about the durations of tasks; see `taskbridge.Client.save_durations`."""
        return self._save_durations()

    def load_durations(self, saved: Mapping[str, Any]) -> None:
        """Add what another process learned about durations; see `taskbridge.Client.load_durations`."""
        self._load_durations(saved)

    async def submit(
        self,
        operation: str | None = None,
        input: AnyInput = None,  # noqa: A002  # the usual name
        *,
        options: Mapping[str, Any] | None = None,
        external_id: str | None = None,
        callback_url: str | None = None,
        name: str | None = None,
        before_submit: Callable[[Mapping[str, Any]], Awaitable[object] | object] | None = None,
        **neutral: Unpack[NeutralOptions],
    ) -> Task:
        """Submit a document to the vendor, and return the new task; see `taskbridge.Client.submit`.

        If the call is cancelled after its submission was logged, the vendor may have accepted it; the log has its
        reference.
        """
        request = SubmitRequest(operation, input, options, external_id, callback_url, name, neutral)
        return await self._runtime.run(self._submit(self.name, request, before_submit))

    def can(
        self,
        operation: str | None = None,
        input: AnyInput = None,  # noqa: A002  # as in submit
        *,
        options: Mapping[str, Any] | None = None,
        external_id: str | None = None,
        callback_url: str | None = None,
        name: str | None = None,
        **neutral: Unpack[NeutralOptions],
    ) -> Support:
        """Return whether `submit` would accept these arguments; nothing is sent. See `taskbridge.Client.can`."""
        request = SubmitRequest(operation, input, options, external_id, callback_url, name, neutral)
        return self._can(self.name, request)

    def list(
        self, status: TaskStatus | str | None = None, *, limit: int | None = None, **filters: Any
    ) -> AsyncIterator[Task]:
        """Yield the vendor's tasks; see `taskbridge.Client.list`."""
        return self._runtime.pages(self._list(self.name, status, limit, filters))

    async def check(self) -> CheckResult:
        """Check whether the vendor accepts the credential; see `taskbridge.Client.check`."""
        return await self._runtime.run(self._check())

    async def account(self) -> Account:
        """Ask for the account of the connection; see `taskbridge.Client.account`."""
        return await self._runtime.run(self._account())

    async def operations(
        self, name: str | None = None, *, input_format: str | None = None, output_format: str | None = None
    ) -> tuple[OperationInfo, ...]:
        """Ask which operations the vendor has; see `taskbridge.Client.operations`."""
        return await self._runtime.run(self._operations(name, input_format, output_format))

    async def webhooks(self) -> tuple[WebhookEndpoint, ...]:
        """Ask for the webhooks of the account; see `taskbridge.Client.webhooks`."""
        return await self._runtime.run(self._webhooks())

    async def add_webhook(self, url: str, events: Iterable[str] | None = None) -> WebhookEndpoint:
        """Make the vendor send events to a URL; see `taskbridge.Client.add_webhook`."""
        return await self._runtime.run(self._add_webhook(url, events))

    async def remove_webhook(self, webhook: WebhookEndpoint | str) -> None:
        """Remove a webhook of the account; see `taskbridge.Client.remove_webhook`."""
        return await self._runtime.run(self._remove_webhook(webhook))

    async def recover(self, error: TaskbridgeError, input: AnyInput = None) -> Task | None:  # noqa: A002  # as in submit
        """Search for the submission that a failed `submit` left uncertain; see `taskbridge.Client.recover`."""
        return await self._runtime.run(self._recover(self.name, error, input))

    @overload
    async def download(  # type: ignore[overload-overlap]  # a StorageUrl is a text, too: the first that fits counts
        self,
        what: TaskFile,
        to: StorageUrl,
        *,
        max_bytes: int | None = MAX_BYTES,
        on_progress: Progress | None = None,
        overwrite: bool = False,
    ) -> StorageUrl: ...

    @overload
    async def download(  # type: ignore[overload-overlap]  # a StorageUrl is a text, too: the first that fits counts
        self,
        what: AnyId,
        to: StorageUrl,
        *,
        max_bytes: int | None = MAX_BYTES,
        on_progress: Progress | None = None,
        overwrite: bool = False,
    ) -> tuple[StorageUrl, ...]: ...

    @overload
    async def download(
        self,
        what: TaskFile,
        to: str | os.PathLike[str],
        *,
        max_bytes: int | None = MAX_BYTES,
        on_progress: Progress | None = None,
        overwrite: bool = False,
    ) -> Path: ...

    @overload
    async def download(
        self,
        what: AnyId,
        to: str | os.PathLike[str],
        *,
        max_bytes: int | None = MAX_BYTES,
        on_progress: Progress | None = None,
        overwrite: bool = False,
    ) -> tuple[Path, ...]: ...

    async def download(
        self,
        what: TaskFile | AnyId,
        to: str | os.PathLike[str],
        *,
        max_bytes: int | None = MAX_BYTES,
        on_progress: Progress | None = None,
        overwrite: bool = False,
    ) -> Path | StorageUrl | tuple[Path, ...] | tuple[StorageUrl, ...]:
        """Download one file of a result, or all results of a task; see `taskbridge.Client.download`."""
        options = DownloadOptions(to, max_bytes, on_progress, overwrite)
        if isinstance(what, TaskFile):
            return await self._runtime.run(self._download_file(what, options))
        return await self._runtime.run(self._download(what, options))

    def delivery_limit(self) -> int:
        """Return the most bytes of a webhook delivery; see `taskbridge.Client.delivery_limit`."""
        return self._delivery_limit(self.name)

    async def read(self, file: TaskFile, *, max_bytes: int | None = MAX_READ) -> bytes:
        """Return the content of one file of a result; see `taskbridge.Client.read`."""
        return await self._runtime.run(self._read_file(file, max_bytes))

    async def open(self, file: TaskFile, *, max_bytes: int | None = MAX_BYTES) -> BinaryIO:
        """Return a stream of the content of one file of a result; see `taskbridge.Client.open`.

        The stream reads a local file, and is not awaited: ``with await client.open(file) as stream:``.
        """
        return await self._runtime.run(self._open_file(file, max_bytes))

    @strip_tracebacks
    def parse_webhook(
        self,
        headers: Headers,
        raw_body: bytes | bytearray | memoryview,
        *,
        url: str | None = None,
        now: datetime | None = None,
    ) -> WebhookEvent:
        """Verify and read a webhook delivery; see `taskbridge.Client.parse_webhook`."""
        return self._parse_webhook(self.name, headers, raw_body, url, now)

    async def close(self) -> None:
        """End the waits for many tasks, and close the kept connections."""
        for member in self.members:
            await member.close()
        await super().close()


class Bridge(_AsyncClient):
    """Every connection of a configuration at once, addressed by ref; made by `from_config`.

    Args:
        connections: The open connections, by name.
        groups: Groups of these connections, by name.
        clock: Time and chance; None for the default.
        transport: Sends the requests; None for the default.
    """

    def __init__(
        self,
        connections: Mapping[str, Connection],
        *,
        clock: Clock | None = None,
        transport: AsyncTransport | TransportMaker | None = None,
        groups: Mapping[str, Group] = MappingProxyType({}),
    ) -> None:
        clock = clock or default_clock()
        super().__init__(connections, clock, groups=groups)
        self._use_runtime(_make_runtime(clock, transport, connections.values()))
        self._clients: dict[str, Client] = {}

    @classmethod
    @strip_tracebacks
    def from_config(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        event_bus: Callable[[str], EventBus] | None = None,
        limits: Callable[[str], SharedLimits] | None = None,
    ) -> Self:
        """Open every connection of a configuration. Nothing is sent yet; see `taskbridge.Bridge.from_config`."""
        clock = default_clock()
        config = load_config(path)
        connections = open_connections(config, clock)
        for each in connections.values():
            each.use_event_bus(event_bus)
            each.share_limits(limits)
        return cls(connections, clock=clock, groups=open_groups(config, connections))

    @property
    def connections(self) -> tuple[str, ...]:
        """Names of the connections."""
        return tuple(self._connections)

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups."""
        return tuple(self._groups)

    def __getitem__(self, name: str) -> Client:
        """Return the client of a connection or group; it shares rate and credential, and is closed with the bridge."""
        client = self._clients.get(name)
        if client is None:
            self._refuse_if_closed()
            opened = self._groups.get(name) or self._named(name)
            client = Client(opened, known=self._known, clock=self._clock, runtime=self._runtime)
            self._clients[name] = client
        return client

    async def submit(
        self,
        connection: str,
        operation: str | None = None,
        input: AnyInput = None,  # noqa: A002  # the usual name
        *,
        options: Mapping[str, Any] | None = None,
        external_id: str | None = None,
        callback_url: str | None = None,
        name: str | None = None,
        before_submit: Callable[[Mapping[str, Any]], Awaitable[object] | object] | None = None,
        **neutral: Unpack[NeutralOptions],
    ) -> Task:
        """Submit a document to the vendor of a connection; see `Client.submit`."""
        request = SubmitRequest(operation, input, options, external_id, callback_url, name, neutral)
        return await self._runtime.run(self._submit(connection, request, before_submit))

    def list(
        self, connection: str, status: TaskStatus | str | None = None, *, limit: int | None = None, **filters: Any
    ) -> AsyncIterator[Task]:
        """Yield the tasks of a connection's vendor; see `Client.list`."""
        return self._runtime.pages(self._list(connection, status, limit, filters))

    async def recover(self, error: TaskbridgeError, input: AnyInput = None) -> Task | None:  # noqa: A002  # as in submit
        """Search for the submission that a failed `submit` left uncertain; see `Client.recover`."""
        return await self._runtime.run(self._recover(connection_of(error), error, input))

    @overload
    async def download(  # type: ignore[overload-overlap]  # a StorageUrl is a text, too: the first that fits counts
        self,
        task: AnyId,
        to: StorageUrl,
        *,
        max_bytes: int | None = MAX_BYTES,
        on_progress: Progress | None = None,
        overwrite: bool = False,
    ) -> tuple[StorageUrl, ...]: ...

    @overload
    async def download(
        self,
        task: AnyId,
        to: str | os.PathLike[str],
        *,
        max_bytes: int | None = MAX_BYTES,
        on_progress: Progress | None = None,
        overwrite: bool = False,
    ) -> tuple[Path, ...]: ...

    async def download(
        self,
        task: AnyId,
        to: str | os.PathLike[str],
        *,
        max_bytes: int | None = MAX_BYTES,
        on_progress: Progress | None = None,
        overwrite: bool = False,
    ) -> tuple[Path, ...] | tuple[StorageUrl, ...]:
        """Download all results of a task; see `taskbridge.Client.download`."""
        return await self._runtime.run(self._download(task, DownloadOptions(to, max_bytes, on_progress, overwrite)))

    @strip_tracebacks
    def parse_webhook(
        self,
        connection: str,
        headers: Headers,
        raw_body: bytes | bytearray | memoryview,
        *,
        url: str | None = None,
        now: datetime | None = None,
    ) -> WebhookEvent:
        """Verify and read a webhook delivery for a connection; see `Client.parse_webhook`."""
        return self._parse_webhook(connection, headers, raw_body, url, now)

    async def close(self) -> None:
        """End all waits, and close the kept connections; see `taskbridge.Client.close`."""
        for client in list(self._clients.values()):
            await client.close()
        await super().close()


def _make_runtime(
    clock: Clock, transport: AsyncTransport | TransportMaker | None, connections: Iterable[Connection]
) -> Runtime:
    maker = transport if isinstance(transport, TransportMaker) else current_defaults().transports
    given = None if isinstance(transport, TransportMaker) else transport
    return Runtime(
        clock, Transports(_make_transport, given, None if maker is None else maker.async_transport, connections)
    )


def _make_transport(network: Network, user_agent: str, size: int, kind: str) -> AsyncTransport:
    from taskbridge._transport.choice import make_async_transport  # noqa: PLC0415  # only once something is sent

    return make_async_transport(network, user_agent, size, kind)
