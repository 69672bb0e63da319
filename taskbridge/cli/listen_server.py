"""A small web server for webhooks: one request per connection, and a limit on everything.

It parses requests with h11, which knows HTTP but no sockets. A delivery has a time limit and a size limit for its head
and for its body; beyond them it is rejected before anything reads it.
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
_MAX_DELIVERIES: Final = 32  # at once; more get a 503
_BLOCK: Final = 65_536  # bytes per read
_LINGER: Final = 1.0  # seconds in which the rest of a request is read and dropped, so that the response arrives


@dataclass(frozen=True, slots=True)
class Delivery:
    """A complete request.

    Attributes:
        headers: Header fields as sent.
        body: The bytes.
        url: The address that was called.
    """

    headers: list[tuple[str, str]]
    body: bytes
    url: str


class _RejectedError(Exception):
    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class WebhookServer:
    """A server in its own thread; a context manager.

    Args:
        host: Address to listen on.
        port: Port; 0 picks a free one.
        max_body: Largest body in bytes.
        receive: Called with each delivery; returns the HTTP status of the response.
        rejected: Called with the status and the reason of each request that the server itself rejects.
        head_time: Seconds for the head of a request.
        body_time: Seconds for its body.
        max_deliveries: Deliveries at once.

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
        rejected: Callable[[int, str], None],
        head_time: float = _HEAD_TIME,
        body_time: float = _BODY_TIME,
        max_deliveries: int = _MAX_DELIVERIES,
    ) -> None:
        self._address = (host, port)
        self._max_body = max_body
        self._receive = receive
        self._rejected = rejected
        self._head_time = head_time
        self._body_time = body_time
        self._max_deliveries = max_deliveries
        self._deliveries = 0
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
        self._deliveries += 1
        try:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(self._head_time + self._body_time + 60.0):
                    await self._respond(reader, writer)
        finally:
            self._deliveries -= 1
            writer.close()

    async def _respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
        allow = ""
        try:
            if self._deliveries > self._max_deliveries:
                raise _RejectedError(503, "too many deliveries at once")  # noqa: TRY301  # answered below like the others
            status = await self._receive(await self._read(connection, reader, writer))
        except _RejectedError as error:
            status = error.status
            self._rejected(status, str(error))
            allow = "POST" if status == 405 else ""
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint
            self._rejected(status, "not an HTTP/1.1 request")
        if connection.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        headers = [("Content-Length", "0"), ("Connection", "close"), *([("Allow", allow)] if allow else [])]
        writer.write(connection.send(h11.Response(status_code=status, headers=headers)) or b"")
        await writer.drain()
        if connection.their_state is not h11.DONE:
            writer.write_eof()
            async with asyncio.timeout(_LINGER):
                while await reader.read(_BLOCK):
                    pass

    async def _read(
        self, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Delivery:
        try:
            async with asyncio.timeout(self._head_time):
                head = await _next_event(connection, reader)
        except TimeoutError:
            raise _RejectedError(408, f"the head took more than {self._head_time:g} s") from None
        if not isinstance(head, h11.Request):
            raise ConnectionError("closed without a request")
        if head.method != b"POST":
            raise _RejectedError(405, "not a POST request")
        if int(dict(head.headers).get(b"content-length", 0)) > self._max_body:
            raise _RejectedError(413, f"the body has more than {self._max_body} bytes")
        if connection.they_are_waiting_for_100_continue:
            writer.write(connection.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_time):
                while isinstance(part := await _next_event(connection, reader), h11.Data):
                    body += part.data
                    if len(body) > self._max_body:
                        raise _RejectedError(413, f"the body has more than {self._max_body} bytes")
        except TimeoutError:
            raise _RejectedError(408, f"the body took more than {self._body_time:g} s") from None
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers]
        return Delivery(headers, bytes(body), f"http://{dict(headers).get('host', '')}{head.target.decode('latin-1')}")


async def _next_event(connection: h11.Connection, reader: asyncio.StreamReader) -> object:
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await reader.read(_BLOCK))
    return event
