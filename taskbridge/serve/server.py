"""The server: HTTP and the watchers of its connections, in one event loop, until it is stopped.

A new configuration is read when `reload` is called: the watchers finish what they are sending and begin anew with it.
One that cannot be used is reported, and the old one stays in use.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, Protocol

import uvicorn
from starlette.types import ASGIApp

from taskbridge.aio import Bridge
from taskbridge.contrib.asgi import StoredWebhooks
from taskbridge.errors import ConfigError, TaskbridgeError, printable
from taskbridge.serve.access import Access
from taskbridge.serve.app import Page
from taskbridge.serve.connections import protocol_with_time
from taskbridge.serve.hooks import Hooks
from taskbridge.serve.view import Workers
from taskbridge.store import Store
from taskbridge.store.watcher import Watcher

_STOP_TIME: Final = 8.0  # seconds for submissions that are being sent
_HTTP_TIME: Final = 2  # seconds for responses that are being sent
_HEAD_TIME: Final = 10.0  # seconds for the head of a request
_NEWS_PAUSE: Final = 0.5  # seconds between two checks of what this server owns


class Job(Protocol):
    """Work beside the watchers, such as delivering events."""

    async def run(self) -> None:
        """Work until `stop` is called."""
        ...

    def stop(self) -> None:
        """Let `run` end, once what has begun is done."""
        ...


class Server:
    """Shows the page of a store, and works on it.

    Args:
        store: The store.
        bound: The socket to serve on.
        access: Who may see the page.
        open_bridge: Opens the connections of the configuration; None only to show the page.
        report: Called with each line for the operator.
        jobs: Other work, which ends with the server, and whose errors end it.
        works: Whether to work on the connections.
        receives: Whether to receive the webhooks of those with `webhook_secrets`, below ``/hooks/``.
        connections: Names of the connections to work on; none for all.
        head_time: Seconds for a caller to send the head of a request.
    """

    def __init__(
        self,
        store: Store,
        bound: socket.socket,
        access: Access,
        open_bridge: Callable[[], Bridge] | None,
        report: Callable[[str], None],
        *,
        jobs: Sequence[Job] = (),
        works: bool = True,
        receives: bool = False,
        connections: Sequence[str] = (),
        head_time: float = _HEAD_TIME,
    ) -> None:
        self._store = store
        self._names = tuple(connections)
        self._bound = bound
        self._open_bridge = open_bridge
        self._report = report
        self._jobs = jobs
        self._stopping = asyncio.Event()
        self._reloading = asyncio.Event()
        self._watcher: Watcher | None = None
        self._bridge: Bridge | None = None
        self._failure: str | None = None
        self._notice = ""
        self._works = works and open_bridge is not None
        self._hooks = Hooks() if receives else None
        self._page = Page(
            store,
            access,
            self._workers,
            failure=lambda: self._failure,
            notice=lambda: self._notice,
            hooks=self._hooks,
        )
        self._http = _Http(self._page.app, head_time)

    @property
    def owned(self) -> frozenset[str]:
        """Names of the connections that this server works on at present."""
        return frozenset() if self._watcher is None else self._watcher.owned

    def stop(self) -> None:
        """Let `run` end; from the event loop."""
        self._stopping.set()

    def reload(self) -> None:
        """Read the configuration again; from the event loop."""
        self._reloading.set()

    async def run(self) -> None:
        """Serve until `stop` is called.

        Raises:
            ConfigError: The configuration cannot be used, or no connection of it can receive webhooks as wanted.
        """
        self._bridge = None if self._open_bridge is None else await self._open(self._open_bridge)
        http = asyncio.ensure_future(self._http.serve([self._bound]))
        news = asyncio.ensure_future(self._report_owners())
        work = asyncio.ensure_future(self._work())
        jobs = [asyncio.ensure_future(job.run()) for job in self._jobs]
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({http, work, stopped, *jobs}, return_when=asyncio.FIRST_COMPLETED)
            self._stopping.set()
            for job in self._jobs:
                job.stop()
            await work  # raises what ended it
            if jobs:
                await asyncio.wait(jobs, timeout=_STOP_TIME)
            for each in jobs:
                if each.done():
                    each.result()
        finally:
            self._page.close()
            self._http.should_exit = True
            news.cancel()
            stopped.cancel()
            work.cancel()
            for each in jobs:
                each.cancel()
            await asyncio.gather(http, work, news, stopped, *jobs, return_exceptions=True)

    def _workers(self) -> Workers:
        configured = frozenset(self._bridge.connections) if self._works and self._bridge is not None else None
        return Workers(configured, self.owned)

    # The work.

    async def _work(self) -> None:
        while not self._stopping.is_set():
            self._reloading.clear()
            if self._works and self._bridge is not None:
                await self._watch(self._bridge)
            else:
                await self._until_asked()
            if self._reloading.is_set() and self._open_bridge is not None and not self._stopping.is_set():
                await self._read_config(self._open_bridge)
        if self._bridge is not None:
            await self._bridge.close()

    async def _watch(self, bridge: Bridge) -> None:
        """Work until the server stops or the configuration is to be read again."""
        self._watcher = watcher = Watcher(self._store, bridge, connections=self._names or None)
        running = asyncio.ensure_future(watcher.run())
        try:
            await self._until_asked(running)
            watcher.stop()
            _, late = await asyncio.wait([running], timeout=_STOP_TIME)
            if late:
                self._report("a submission is still being sent; the next owner searches for it")
                running.cancel()
                await asyncio.wait([running])
            else:
                running.result()
        except TaskbridgeError as error:
            self._failure = f"the work has ended: {error.message}"
            raise
        finally:
            running.cancel()
            self._watcher = None

    async def _open(self, open_bridge: Callable[[], Bridge]) -> Bridge:
        """Open the connections, and receive their webhooks from now on."""
        bridge = open_bridge()
        try:
            for name in self._names:
                bridge[name]  # raises for a name that is not configured
            if self._hooks is not None:
                self._hooks.app = StoredWebhooks(self._store, bridge)
        except BaseException:
            await bridge.close()
            raise
        return bridge

    async def _read_config(self, open_bridge: Callable[[], Bridge]) -> None:
        try:
            bridge = await self._open(open_bridge)
        except TaskbridgeError as error:
            self._notice = f"The configuration was not changed, because the new one cannot be used: {error.message}"
            self._report(f"the configuration stays as it was: {error.message}")
            return
        self._notice, old, self._bridge = "", self._bridge, bridge
        if old is not None:
            await old.close()
        self._report(f"read the configuration again: {', '.join(bridge.connections) or 'no connections'}")

    async def _until_asked(self, *running: asyncio.Future[None]) -> None:
        """Wait until the server stops, the configuration is to be read again, or something that runs has ended."""
        asked = [asyncio.create_task(each.wait()) for each in (self._stopping, self._reloading)]
        try:
            waiting: list[asyncio.Future[Any]] = [*running, *asked]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in asked:
                each.cancel()

    async def _report_owners(self) -> None:
        """Report which connections this server works on, and which it waits for, whenever that changes."""
        last: tuple[object, ...] = ()
        while self._works:
            await asyncio.sleep(_NEWS_PAUSE)
            if self._stopping.is_set() or self._reloading.is_set():
                continue  # connections are being given up, not lost
            workers = self._workers()
            wanted = self._names or workers.configured or ()
            owned, others = sorted(workers.owned), sorted(set(wanted) - set(workers.owned))
            if self._watcher is None or (owned, others) == last:
                continue
            owners: dict[str, str | None] = {}
            with suppress(TaskbridgeError):
                owners = {each.connection: each.owner for each in await asyncio.to_thread(self._store.accounts)}
            last = (owned, others)
            if owned:
                self._report(f"works on {', '.join(owned)}")
            for name in others:
                self._report(f"stands by for {name}, which belongs to {owners.get(name) or 'another process'}")


class _Http(uvicorn.Server):
    """uvicorn without its signal handlers: the command has its own."""

    def __init__(self, app: ASGIApp, head_time: float) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol_with_time(head_time),
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                proxy_headers=False,  # `Access` decides which proxy is trusted
                limit_concurrency=500,
                timeout_graceful_shutdown=_HTTP_TIME,
            )
        )

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals to the command."""
        yield


def listen(host: str, port: int) -> socket.socket:
    """Return a bound socket; port 0 picks a free one.

    Raises:
        ConfigError: The address cannot be used.
    """
    problem = ""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.socket(found[0], socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            if os.name == "posix":
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(found[4])
            bound.listen(128)
        except BaseException:
            bound.close()
            raise
    except OSError as error:
        is_used = error.errno == errno.EADDRINUSE
        problem = "is in use" if is_used else f"cannot be used ({error.strerror})"
    else:
        return bound
    raise ConfigError(f"{printable(host, 100)}:{port} {problem}; choose another address with --http")
