"""A small web server for webhooks: one request a connection, nothing unbounded.

It reads by h11, which knows HTTP and no sockets. A delivery has so many seconds for its head and for its body, and so
many bytes for each; beyond that it is refused before anybody looks at it.
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

__all__ = ["Came", "Door"]

_HEAD: Final = 16_384  # bytes of a request's head at most
_HEAD_TIME: Final = 10.0  # seconds for it
_BODY_TIME: Final = 20.0  # seconds for a body
_MOST: Final = 32  # deliveries at once; more are told to come back
_BLOCK: Final = 65_536  # bytes that are read at a time
_LINGER: Final = 1.0  # seconds in which what is still on its way is read and thrown away, so that the answer arrives


@dataclass(frozen=True, slots=True)
class Came:
    """A request, read whole.

    Attributes:
        headers: Header fields, as they were sent.
        body: The bytes.
        url: The address that was called.
    """

    headers: list[tuple[str, str]]
    body: bytes
    url: str


class _RefusedError(Exception):
    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Door:
    """A server in a thread of its own; a context manager.

    Args:
        host: Address to listen at.
        port: Port; 0 takes a free one.
        largest: Bytes of a body at most.
        hear: Is given each delivery, and gives the HTTP status to answer with.
        refuse: Is told the status and the reason of what was refused here.
        head_time: Seconds for the head of a request.
        body_time: Seconds for its body.
        most: Deliveries at once.

    Raises:
        OSError: The port cannot be had.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        largest: int,
        hear: Callable[[Came], Awaitable[int]],
        refuse: Callable[[int, str], None],
        head_time: float = _HEAD_TIME,
        body_time: float = _BODY_TIME,
        most: int = _MOST,
    ) -> None:
        self._address = (host, port)
        self._largest = largest
        self._hear = hear
        self._refuse = refuse
        self._times = (head_time, body_time)
        self._most = most
        self._at_once = 0
        self._loop = asyncio.new_event_loop()
        self._leave = asyncio.Event()
        self._open = threading.Event()
        self._fault: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="taskbridge-listen", daemon=True)
        self.port = port

    def __enter__(self) -> Self:
        self._thread.start()
        self._open.wait()
        if self._fault is not None:
            raise self._fault
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._leave.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except OSError as error:
            self._fault = error
        finally:
            self._open.set()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._greet, *self._address, limit=_BLOCK)
        self.port = server.sockets[0].getsockname()[1]
        self._open.set()
        async with server:
            await self._leave.wait()

    # One connection.

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._at_once += 1
        try:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(sum(self._times) + 60.0):
                    await self._talk(reader, writer)
        finally:
            self._at_once -= 1
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD)
        allow = ""
        try:
            if self._at_once > self._most:
                raise _RefusedError(503, "too many deliveries at once")  # noqa: TRY301  # answered below like the others
            status = await self._hear(await self._read(talk, reader, writer))
        except _RefusedError as error:
            status = error.status
            self._refuse(status, str(error))
            allow = "POST" if status == 405 else ""
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint
            self._refuse(status, "it is no HTTP/1.1 request")
        if talk.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        fields = [("Content-Length", "0"), ("Connection", "close"), *([("Allow", allow)] if allow else [])]
        writer.write(talk.send(h11.Response(status_code=status, headers=fields)) or b"")
        await writer.drain()
        if talk.their_state is not h11.DONE:
            writer.write_eof()
            async with asyncio.timeout(_LINGER):
                while await reader.read(_BLOCK):
                    pass

    async def _read(self, talk: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Came:
        head_time, body_time = self._times
        try:
            async with asyncio.timeout(head_time):
                head = await _next(talk, reader)
        except TimeoutError:
            raise _RefusedError(408, f"its head took more than {head_time:g} s") from None
        if not isinstance(head, h11.Request):
            raise ConnectionError("it left without a request")
        if head.method != b"POST":
            raise _RefusedError(405, "it is no POST")
        said = dict(head.headers)
        if int(said.get(b"content-length", 0)) > self._largest:
            raise _RefusedError(413, f"its body has more than {self._largest} bytes")
        if talk.they_are_waiting_for_100_continue:
            writer.write(talk.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
        body = bytearray()
        try:
            async with asyncio.timeout(body_time):
                while isinstance(part := await _next(talk, reader), h11.Data):
                    body += part.data
                    if len(body) > self._largest:
                        raise _RefusedError(413, f"its body has more than {self._largest} bytes")
        except TimeoutError:
            raise _RefusedError(408, f"its body took more than {body_time:g} s") from None
        host, target = said.get(b"host", b"").decode("latin-1"), head.target.decode("latin-1")
        fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers]
        return Came(fields, bytes(body), f"http://{host}{target}")


async def _next(talk: h11.Connection, reader: asyncio.StreamReader) -> object:
    while (event := talk.next_event()) is h11.NEED_DATA:
        talk.receive_data(await reader.read(_BLOCK))
    return event
