"""uvicorn on a loopback socket, in a thread of its own: up in milliseconds, gone in milliseconds."""

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

__all__ = ["LoopbackServer", "listen", "loopback"]

START_LIMIT: Final = 10.0  # seconds of real time until we call the server broken
STOP_LIMIT: Final = 2.0  # seconds of real time for requests in flight to end after their connections were closed
TICK: Final = 0.1  # seconds, uvicorn's own: its date header counts ten of them


def listen(host: str, port: int) -> socket.socket:
    """A bound socket on a loopback address.

    Args:
        host: ``localhost`` or a loopback address.
        port: 0 takes a free one.

    Raises:
        ValueError: The address is not a loopback one.
        RuntimeError: The port is in use, or not ours to take.
    """
    address = loopback(host)
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    # the protocol must be said: asyncio turns Nagle's algorithm off only then, and 40 ms per answer are at stake
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((str(address), port))
        bound.listen()
    except OSError as failure:
        bound.close()
        why = "is already in use" if failure.errno == errno.EADDRINUSE else f"cannot be had ({failure.strerror})"
        raise RuntimeError(f"port {port} on {host} {why}; choose another one, or port 0 for any that is free") from None
    except BaseException:
        bound.close()
        raise
    return bound


def loopback(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address that ``host`` stands for.

    Raises:
        ValueError: It is no loopback address.
    """
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
        if address.is_loopback:
            return address
    raise ValueError(f"an emulator listens on loopback addresses only (127.0.0.1, ::1, localhost), not on {host!r}")


class LoopbackServer(uvicorn.Server):
    """uvicorn that tells when it is up and that does not linger.

    Args:
        app: What it serves.
        bound: The socket to serve on; closed when the server ends.
        ready: Called in the server's thread once it answers.
        beside: What runs beside the server, in its loop, until it stops.
    """

    def __init__(
        self,
        app: ASGIApp,
        bound: socket.socket,
        ready: Callable[[], None] | None = None,
        beside: Callable[[], Coroutine[None, None, None]] | None = None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="asyncio",
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                log_level="error",  # a vendor's traceback is worth reading, nothing else is
                access_log=False,
                server_header=False,
                date_header=True,
            )
        )
        self._bound = bound
        self._ready = ready
        self._beside = beside
        self._leave: Callable[[], object] = lambda: None
        self._settled = Event()
        self._thread: Thread | None = None

    def serve_here(self) -> None:
        """Serve in this thread until stopped; in the main thread Ctrl-C stops, as a normal end."""
        with contextlib.suppress(KeyboardInterrupt):
            self._run()

    def start(self) -> None:
        """Serve in a daemon thread; returns once the server answers."""
        self._thread = Thread(target=self._run, name="taskbridge-emulator", daemon=True)
        self._thread.start()
        if not self._settled.wait(START_LIMIT) or not self.started:
            raise RuntimeError("the emulator's server did not start; its traceback is above")

    def stop(self) -> None:
        """Stop serving; returns once the server's own thread, where it has one, is gone."""
        self.should_exit = True
        self._leave()
        if self._thread is not None:
            self._thread.join()

    def line_of(self, scope: Scope) -> asyncio.Transport | None:
        """The connection that a request came on; for faults that break it."""
        caller = tuple(scope["client"] or ())
        for connection in tuple(self.server_state.connections):
            if getattr(connection, "client", None) == caller:
                return cast("asyncio.Transport", cast("Any", connection).transport)
        return None

    def _run(self) -> None:
        try:
            self.run(sockets=[self._bound])
        finally:
            self._bound.close()
            self._settled.set()

    # uvicorn's own life cycle, without its waits of a tenth of a second.

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, then tell."""
        await super().startup(sockets)
        self._settled.set()
        if self._ready is not None:
            self._ready()

    async def main_loop(self) -> None:
        """Tick until told to leave."""
        leaving = asyncio.Event()
        loop = asyncio.get_running_loop()

        def leave() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                loop.call_soon_threadsafe(leaving.set)

        self._leave = leave
        beside = None if self._beside is None else loop.create_task(self._beside())
        ticks = 0
        try:
            while not await self.on_tick(ticks):
                ticks += 1
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(leaving.wait(), TICK)
        finally:
            if beside is not None:
                beside.cancel()
                await asyncio.gather(beside, return_exceptions=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close everything; a request that is being held sees its caller leave."""
        for server in self.servers:
            server.close()
        for bound in sockets or ():
            bound.close()
        state = self.server_state
        for connection in tuple(state.connections):
            connection.transport.close()
        latest = asyncio.get_running_loop().time() + STOP_LIMIT
        while (state.connections or state.tasks) and asyncio.get_running_loop().time() < latest:  # noqa: ASYNC110  # uvicorn keeps sets, it sets no event
            await asyncio.sleep(0.001)
