"""A small web server for webhooks: one request per connection, and a limit on everything.

It parses requests with h11, which knows HTTP but no sockets. A delivery has a time limit and a size limit for its head
and for its body; beyond them it is rejected before anything reads it.

A connection has no claim to its place until it has sent a whole request, or a head that proves its sender: if too many
wait, the one that has waited longest is closed. So callers that send slowly, or connect again and again, do not keep
out a real delivery, which arrives at once.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import h11

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_MAX_HEAD: Final = 16_384  # bytes
_HEAD_TIME: Final = 10.0  # seconds
_BODY_TIME: Final = 20.0  # seconds
_MAX_DELIVERIES: Final = 32  # complete or proved ones at once; more get a 503
_MAX_WAITING: Final = 64  # connections without a complete or proved request; one more closes the oldest
_BLOCK: Final = 65_536  # bytes per read
_LINGER: Final = 1.0  # seconds in which the rest of a request is read and dropped, so that the response arrives


@dataclass(frozen=True, slots=True)
class Delivery:
    """A complete request.

    Attributes:
        headers: Header fields as sent.
        body: The bytes; empty as long as only the head has arrived.
        url: The address that was called.
    """

    headers: list[tuple[str, str]]
    body: bytes
    url: str


class RejectedError(Exception):
    """A request that is answered with this status; the text says why, for the log."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(slots=True, eq=False)
class _Connection:
    writer: asyncio.StreamWriter
    admitted: bool = False  # its request is complete or proved
    closed: bool = False  # to make room for another


class WebhookServer:
    """A server in its own thread; a context manager.

    Args:
        host: Address to listen on.
        port: Port; 0 picks a free one.
        max_body: Largest body in bytes.
        receive: Called with each delivery; returns the HTTP status of the response.
        check: Called with the head of each delivery before its body is read: returns whether the head alone proves the
            sender, or raises `RejectedError` if no body could.
        rejected: Called with the status and the reason of each request that the server itself rejects.
        head_time: Seconds for the head of a request.
        body_time: Seconds for its body.
        max_deliveries: Complete or proved deliveries at once.
        max_waiting: Other connections at once.

    Raises:
        OSError: The port is not available.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        max_body: int,
        receive: Callable[[Delivery], Awaitable[int]],
        check: Callable[[Delivery], bool],
        rejected: Callable[[int, str], None],
        head_time: float = _HEAD_TIME,
        body_time: float = _BODY_TIME,
        max_deliveries: int = _MAX_DELIVERIES,
        max_waiting: int = _MAX_WAITING,
    ) -> None:
        self._address = (host, port)
        self._max_body = max_body
        self._receive = receive
        self._check = check
        self._rejected = rejected
        self._head_time = head_time
        self._body_time = body_time
        self._max_deliveries = max_deliveries
        self._max_waiting = max_waiting
        self._deliveries = 0
        self._waiting: dict[_Connection, None] = {}  # those that are not admitted, oldest first
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._started = threading.Event()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="taskbridge-listen", daemon=True)
        self.port = port

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            raise self._error
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(RuntimeError):  # the loop has ended already
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except OSError as error:
            self._error = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._accept, *self._address, limit=_BLOCK)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        async with server:
            await self._stopping.wait()

    # One connection.

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(writer)
        self._wait(connection)
        try:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(self._head_time + self._body_time + 60.0):
                    await self._respond(connection, reader)
        finally:
            self._waiting.pop(connection, None)
            self._deliveries -= connection.admitted
            writer.close()

    def _wait(self, connection: _Connection) -> None:
        if len(self._waiting) >= self._max_waiting:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.closed = True
            oldest.writer.transport.abort()
        self._waiting[connection] = None

    def _admit(self, connection: _Connection) -> None:
        if connection.admitted:
            return
        if self._deliveries >= self._max_deliveries:
            raise RejectedError(503, "too many deliveries at once")
        self._deliveries += 1
        connection.admitted = True
        self._waiting.pop(connection, None)

    async def _respond(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
        writer, allow = connection.writer, ""
        try:
            status = await self._receive(await self._read(connection, protocol, reader))
        except RejectedError as error:
            status = error.status
            self._rejected(status, str(error))
            allow = "POST" if status == 405 else ""
        except (h11.RemoteProtocolError, OSError) as error:
            if connection.closed:
                self._rejected(503, "closed to make room: too many connections without a complete request")
                return
            if isinstance(error, OSError):
                raise
            status = error.error_status_hint
            self._rejected(status, "not an HTTP/1.1 request")
        if protocol.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        headers = [("Content-Length", "0"), ("Connection", "close"), *([("Allow", allow)] if allow else [])]
        writer.write(protocol.send(h11.Response(status_code=status, headers=headers)) or b"")
        await writer.drain()
        if protocol.their_state is not h11.DONE:
            writer.write_eof()
            async with asyncio.timeout(_LINGER):
                while await reader.read(_BLOCK):
                    pass

    async def _read(self, connection: _Connection, protocol: h11.Connection, reader: asyncio.StreamReader) -> Delivery:
        try:
            async with asyncio.timeout(self._head_time):
                head = await _next_event(protocol, reader)
        except TimeoutError:
            raise RejectedError(408, f"the head took more than {self._head_time:g} s") from None
        if not isinstance(head, h11.Request):
            raise ConnectionError("closed without a request")
        if head.method != b"POST":
            raise RejectedError(405, "not a POST request")
        if int(dict(head.headers).get(b"content-length", 0)) > self._max_body:
            raise RejectedError(413, f"the body has more than {self._max_body} bytes")
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers]
        url = f"http://{dict(headers).get('host', '')}{head.target.decode('latin-1')}"
        if self._check(Delivery(headers, b"", url)):
            self._admit(connection)
        if protocol.they_are_waiting_for_100_continue:
            information = h11.InformationalResponse(status_code=100, headers=[])
            connection.writer.write(protocol.send(information) or b"")
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_time):
                while isinstance(part := await _next_event(protocol, reader), h11.Data):
                    body += part.data
                    if len(body) > self._max_body:
                        raise RejectedError(413, f"the body has more than {self._max_body} bytes")
        except TimeoutError:
            raise RejectedError(408, f"the body took more than {self._body_time:g} s") from None
        self._admit(connection)
        return Delivery(headers, bytes(body), url)


async def _next_event(connection: h11.Connection, reader: asyncio.StreamReader) -> object:
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await reader.read(_BLOCK))
    return event
