"""The asynchronous transport: aiohttp, with the same limits and the same errors as the synchronous one."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import closing, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache, partial
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

import aiohttp
from aiohttp.abc import ResolveResult
from aiohttp.helpers import is_ip_address
from aiohttp.http import HttpProcessingError
from yarl import URL

from taskbridge._transport import responses
from taskbridge._transport.bodies import BodyStream, body_stream, is_local_error
from taskbridge.errors import (
    ConfigError,
    ConnectFailed,
    DeadlineExceeded,
    MalformedResponse,
    TaskbridgeError,
    TlsError,
    TransportError,
    TruncatedResponse,
)
from taskbridge.provider.addresses import is_public
from taskbridge.provider.http import Request, Response
from taskbridge.provider.secrets import without_traceback

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from taskbridge.transport import Network

_CHECK_INTERVAL: Final = 0.1  # seconds without data after which to check the connection


@dataclass(slots=True)
class _RequestState:
    """What has happened to one request."""

    written: bool = False  # whether a byte of it may have been sent
    reused: bool = False  # whether an open connection was reused
    local_errors: list[OSError] = field(default_factory=list[OSError])  # of a local file


_current: ContextVar[_RequestState] = ContextVar("_current")  # the request that this asyncio task is sending


class _ClientRequest(aiohttp.ClientRequest):
    """A request that records whether it was sent, and how; aiohttp's own tracing costs as much as the request."""

    used: WeakSet[Any]

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        state, protocol = _current.get(), conn.protocol
        state.reused = protocol in self.used
        self.used.add(protocol)
        written = True
        try:
            return await super().send(conn)
        except aiohttp.ClientConnectionResetError:
            written = False  # the connection was already closed
            raise
        finally:
            state.written = written


class _NoResponseError(aiohttp.ClientError):
    """The connection broke before a whole response header arrived."""


class _ClientResponse(aiohttp.ClientResponse):
    """A response whose failure aiohttp does not hide, and whose connection is recorded.

    aiohttp silently sends a request again if the connection breaks before the response header, even on new connections.
    Retries are decided elsewhere, in one place.
    """

    opened: WeakSet[Any]

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        transport = connection.transport
        if transport is not None:
            with suppress(TypeError):  # some event loops' transports allow no weak references
                self.opened.add(transport)
        try:
            return await super().start(connection)
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
            pass
        raise _NoResponseError


class _PublicResolver(aiohttp.ThreadedResolver):
    """Resolves a name to its public addresses only."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        addresses = [each for each in await super().resolve(host, port, family) if is_public(each["host"])]
        if not addresses:
            raise responses.not_public_error()
        return addresses


class AiohttpTransport:
    """Sends requests from the asyncio tasks of one event loop, over at most `size` open connections."""

    def __init__(self, network: Network, *, size: int = 100, user_agent: str = "taskbridge") -> None:
        self._size = size
        self._user_agent = user_agent
        self._sessions: dict[tuple[bool, bool], aiohttp.ClientSession] = {}  # by (used once, public addresses only)
        self._proxy_for = cache(network.proxy_for)
        self._tls = cache(partial(responses.tls_context, network))
        self._used = WeakSet[Any]()  # connections that have carried a request
        self._opened = WeakSet[Any]()  # connections that may still be closing
        self._loop: asyncio.AbstractEventLoop | None = None

    async def close(self) -> None:
        """Close the open connections."""
        sessions = list(self._sessions.values())
        self._sessions.clear()
        for session in sessions:
            await session.close()
        # A closing connection waits until everything is sent, with TLS also for the peer's close: maybe forever.
        for transport in list(self._opened):
            transport.abort()
        await asyncio.sleep(0)  # lets the aborted connections close

    async def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        """See `taskbridge.transport.Transport`."""
        state = _RequestState()
        _current.set(state)
        failure: BaseException
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())) as limit:
                return await self._send(request, max_body, state, limit)
        except TaskbridgeError as error:
            failure = error
        except Exception as error:  # noqa: BLE001  # one table maps whatever the library raises
            is_local = isinstance(error, OSError) and is_local_error(error, request)
            local = [error] if is_local else state.local_errors
            failure = local[0] if local else _translated(error, deadline, state)
        except BaseException as error:  # noqa: BLE001  # a cancellation, without the frames that hold credentials
            failure = error
        try:
            raise without_traceback(failure)
        finally:
            del failure  # or the error and this frame reference each other

    def _session(self, request: Request, proxy: str | None) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise ConfigError("this client belongs to another event loop; make one per loop")
        key = once, public = request.new_connection or request.public_only, request.public_only and proxy is None
        if key in self._sessions:
            return self._sessions[key]
        resolver = _PublicResolver() if public else aiohttp.ThreadedResolver()
        session = self._sessions[key] = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._size, force_close=once, resolver=resolver),
            request_class=type("_TaskbridgeRequest", (_ClientRequest,), {"used": self._used}),
            response_class=type("_TaskbridgeResponse", (_ClientResponse,), {"opened": self._opened}),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": self._user_agent, "Accept-Encoding": "identity"},
            auto_decompress=False,
            trust_env=False,
            max_line_size=responses.LONGEST_LINE,
            max_field_size=responses.LONGEST_LINE,
        )
        return session

    async def _send(self, request: Request, max_body: int, state: _RequestState, limit: asyncio.Timeout) -> Response:
        body = body_stream(request)
        headers = {**request.headers, **(request.save_to.headers if request.save_to is not None else {})}
        data: bytes | AsyncIterator[bytes] | None = None
        if body is not None:
            headers.update(body.headers)
            headers["Content-Length"] = str(body.length)
            # aiohttp warns about larger bodies in one piece.
            data = body.head if body.source is None and body.length <= responses.BLOCK else _blocks(body, state)
        url = URL(request.url, encoded=True)
        proxy = self._proxy_for(url.scheme, url.host or "")
        session = self._session(request, proxy)
        if request.public_only and proxy is None and is_ip_address(url.host) and not is_public(url.host or ""):
            raise responses.not_public_error()
        read_limit = max(responses.READ_LIMIT, request.long_poll or 0.0)
        async with session.request(
            request.method,
            url,
            data=data,
            headers=headers,
            allow_redirects=False,
            proxy=proxy,
            ssl=self._tls() if url.scheme == "https" or proxy is not None else True,
            timeout=_timeout(read_limit),
        ) as response:
            return await _read(response, request, max_body, limit)


@cache
def _timeout(read_limit: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=responses.CONNECT_LIMIT, sock_read=read_limit)


async def _read(response: aiohttp.ClientResponse, request: Request, max_body: int, limit: asyncio.Timeout) -> Response:
    fields = responses.header_fields((name, _text(value)) for name, value in response.headers.items())
    responses.check_headers(request, response.status, fields, len(response.headers), max_body)
    if request.save_to is not None and response.status < 300:
        with closing(responses.file_writer(response.status, fields, request.save_to)) as file:  # local files are fast
            next(file)
            while block := await _block(response):
                if (extra := file.send(block)) and (end := limit.when()) is not None:
                    limit.reschedule(end + extra)
            file.send(b"")
        return Response(response.status, fields, b"")
    body = BytesIO()
    while block := await _block(response):
        if body.tell() + len(block) > max_body:
            raise responses.too_large_error(max_body, response.status)
        body.write(block)
    return responses.complete_response(request, response.status, fields, body.getvalue(), max_body)


async def _block(response: aiohttp.ClientResponse) -> bytes:
    """Return the next bytes of a body; empty at its end."""
    content = response.content
    while not content.at_eof():
        if block := content.read_nowait():
            return block
        try:
            async with asyncio.timeout(_CHECK_INTERVAL):
                return await content.readany()
        except TimeoutError as error:
            if isinstance(error, aiohttp.ServerTimeoutError):
                raise  # no data within the limit
        if content.is_eof() or content.exception() is not None:
            continue  # it ended while the event loop was busy
        # If a chunk is invalid, aiohttp closes the connection without waking the reader of the body.
        connection = response.connection
        if connection is None or connection.protocol is None or not connection.protocol.is_connected():
            raise MalformedResponse("the answer's chunks cannot be read", repeats=1, http_status=response.status)
    return b""


def _text(value: str) -> str:
    # aiohttp decodes what is not UTF-8 as lone surrogates.
    return value if value.isascii() else value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


async def _blocks(body: BodyStream, state: _RequestState) -> AsyncIterator[bytes]:
    try:
        for block in body.blocks():
            yield block
    except OSError as error:
        state.local_errors.append(error)
        raise


# Library's exception -> our class and message, the most specific first.
_ERRORS: Final[tuple[tuple[type[BaseException], type[TaskbridgeError], str], ...]] = (
    (_NoResponseError, TruncatedResponse, "the host closed the connection without an answer"),
    (aiohttp.ClientConnectorCertificateError, TlsError, "the host's certificate cannot be trusted"),
    (aiohttp.ClientConnectorDNSError, ConnectFailed, "the host's name cannot be resolved"),
    (aiohttp.ClientConnectorSSLError, TlsError, "the TLS handshake failed"),
    (aiohttp.ClientProxyConnectionError, ConnectFailed, "the proxy cannot be reached"),
    (aiohttp.ClientConnectorError, ConnectFailed, "the host refuses connections or cannot be reached"),
    (aiohttp.ConnectionTimeoutError, ConnectFailed, f"no connection within {responses.CONNECT_LIMIT:g} s"),
    (TimeoutError, DeadlineExceeded, f"no data for {responses.READ_LIMIT:g} s"),
    (aiohttp.ClientPayloadError, TruncatedResponse, "the answer broke off"),
    (aiohttp.ClientResponseError, MalformedResponse, "the answer is not HTTP"),
    (HttpProcessingError, MalformedResponse, "the answer's chunks cannot be read"),
    (aiohttp.InvalidURL, ConnectFailed, "the URL's host cannot be used"),
    (ValueError, ConnectFailed, "the URL or a header field cannot be sent"),
    (OSError, TruncatedResponse, "the connection broke off"),
    (aiohttp.ClientError, TransportError, "the request failed"),
)


def _translated(error: Exception, deadline: float, state: _RequestState) -> TaskbridgeError:
    """Return our error for one of the library."""
    error_class, message = _classify(error, deadline, written=state.written)
    stale = state.reused and isinstance(error, _NoResponseError)
    return responses.request_error(error_class, message, written=state.written, stale=stale)


def _classify(error: Exception, deadline: float, *, written: bool) -> tuple[type[TaskbridgeError], str]:
    name = type(error).__name__
    if isinstance(error, TimeoutError) and time.monotonic() >= deadline:
        return DeadlineExceeded, "the total time for the request ran out"
    for kind, error_class, message in _ERRORS:
        if isinstance(error, kind):
            if error_class is ConnectFailed and written:
                break
            if error_class is TruncatedResponse and not written:
                return ConnectFailed, "the connection broke off before the request was sent"
            return error_class, message
    return TransportError, f"the request failed ({name})"
