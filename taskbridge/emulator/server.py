"""uvicorn on a loopback socket, in its own thread: starts and stops in milliseconds."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Final, cast

import uvicorn

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from starlette.types import ASGIApp, Scope

START_LIMIT: Final = 10.0  # seconds of real time after which the server counts as broken
STOP_LIMIT: Final = 2.0  # seconds of real time for requests in flight to end after their connections were closed
TICK: Final = 0.1  # seconds, uvicorn's own: its date header counts ten of them


def listen(host: str, port: int) -> socket.socket:
    """Return a bound socket on a loopback address; port 0 picks a free one.

    Raises:
        ValueError: The address is not a loopback address.
        RuntimeError: The port is in use, or binding it is not allowed.
    """
    address = loopback(host)
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    # name the protocol: only then does asyncio turn Nagle's algorithm off, which costs 40 ms per response
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((str(address), port))
        bound.listen()
    except BaseException as error:
        bound.close()
        if not isinstance(error, OSError):
            raise
        why = "is already in use" if error.errno == errno.EADDRINUSE else f"cannot be opened ({error.strerror})"
        raise RuntimeError(f"port {port} on {host} {why}; choose another one, or port 0 for any free one") from None
    return bound


def loopback(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the loopback address that ``host`` names; a `ValueError` says that it is none."""
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
        if address.is_loopback:
            return address
    raise ValueError(f"an emulator listens on loopback addresses only (127.0.0.1, ::1, localhost), not on {host!r}")


class LoopbackServer(uvicorn.Server):
    """uvicorn that reports when it is ready and stops without delay.

    Args:
        app: The application to serve.
        bound: The socket to serve on; closed when the server ends.
        ready: Called in the server's thread once it responds.
        background: Runs beside the server, in its loop, until it stops.
        also: A second socket to serve on; closed likewise.
    """

    def __init__(
        self,
        app: ASGIApp,
        bound: socket.socket,
        ready: Callable[[], None] | None = None,
        background: Callable[[], Coroutine[None, None, None]] | None = None,
        also: socket.socket | None = None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="asyncio",
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                log_level="error",  # only an emulator's traceback is worth reading
                access_log=False,
                server_header=False,
                date_header=True,
            )
        )
        self._bound = [bound] if also is None else [bound, also]
        self._ready = ready
        self._background = background
        self._wake: Callable[[], object] = lambda: None
        self._started_or_failed = Event()
        self._thread: Thread | None = None

    def serve_here(self) -> None:
        """Serve in this thread until stopped; in the main thread Ctrl-C stops it normally."""
        with contextlib.suppress(KeyboardInterrupt):
            self._run()

    def start(self) -> None:
        """Serve in a daemon thread; returns once the server responds."""
        self._thread = Thread(target=self._run, name="taskbridge-emulator", daemon=True)
        self._thread.start()
        if not self._started_or_failed.wait(START_LIMIT) or not self.started:
            raise RuntimeError("the emulator's server did not start; its traceback is above")

    def stop(self) -> None:
        """Stop serving; returns once the server's own thread, if any, has ended."""
        self.should_exit = True
        self._wake()
        if self._thread is not None:
            self._thread.join()

    def transport_of(self, scope: Scope) -> asyncio.Transport | None:
        """Return the TCP connection of a request, for faults that break it."""
        client = tuple(scope["client"] or ())
        for connection in tuple(self.server_state.connections):
            if getattr(connection, "client", None) == client:
                return cast("asyncio.Transport", cast("Any", connection).transport)
        return None

    def _run(self) -> None:
        try:
            self.run(sockets=self._bound)
        finally:
            for bound in self._bound:
                bound.close()
            self._started_or_failed.set()

    # uvicorn's life cycle, without its waits of a tenth of a second.

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, then report it."""
        await super().startup(sockets)
        self._started_or_failed.set()
        if self._ready is not None:
            self._ready()

    async def main_loop(self) -> None:
        """Run until `stop` is called."""
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended already
                loop.call_soon_threadsafe(stopping.set)

        self._wake = wake
        background = None if self._background is None else loop.create_task(self._background())
        ticks = 0
        try:
            while not await self.on_tick(ticks):
                ticks += 1
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), TICK)
        finally:
            if background is not None:
                background.cancel()
                await asyncio.gather(background, return_exceptions=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close everything; a held request sees its caller disconnect."""
        for server in self.servers:
            server.close()
        for bound in sockets or ():
            bound.close()
        state = self.server_state
        for connection in tuple(state.connections):
            connection.transport.close()
        latest = asyncio.get_running_loop().time() + STOP_LIMIT
        while (state.connections or state.tasks) and asyncio.get_running_loop().time() < latest:  # noqa: ASYNC110  # uvicorn has sets here, no event
            await asyncio.sleep(0.001)
