"""The asynchronous transport: aiohttp, with the same limits and the same errors as the synchronous one."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from contextlib import closing, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

import aiohttp
from aiohttp.abc import ResolveResult
from aiohttp.helpers import is_ip_address
from aiohttp.http import HttpProcessingError
from yarl import URL

from taskbridge._transport.bodies import BodyStream, is_local_error, body_stream
from taskbridge._transport.responses import (
    BLOCK,
    CONNECT_LIMIT,
    LONGEST_LINE,
    READ_LIMIT,
    check_headers,
    header_fields,
    complete_response,
    request_error,
    not_public_error,
    file_writer,
    tls_context,
    too_large_error,
)
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

_GLANCE: Final = 0.1  # seconds of silence after which to look whether the connection is still there


@dataclass(slots=True)
class _Trace:
    """What happens to one request.

    Attributes:
        written: Whether a byte of it may have left.
        reused: Whether a kept connection was used.
        local: What was wrong with a file of ours.
    """

    written: bool = False
    reused: bool = False
    local: list[OSError] = field(default_factory=list[OSError])


_sending: ContextVar[_Trace] = ContextVar("_sending")  # of the request that this asyncio task sends


class _Request(aiohttp.ClientRequest):
    """A request that notes whether it left, and over what; aiohttp's own tracing costs as much as the request."""

    used: WeakSet[Any]

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        trace, protocol = _sending.get(), conn.protocol
        trace.reused = protocol in self.used
        self.used.add(protocol)
        left = True
        try:
            return await super().send(conn)
        except aiohttp.ClientConnectionResetError:
            left = False  # it was closed before
            raise
        finally:
            trace.written = left


class _NoAnswerError(aiohttp.ClientError):
    """The connection broke before a whole head of an answer came."""


class _Answer(aiohttp.ClientResponse):
    """An answer whose failure aiohttp does not hide, and whose connection we know.

    aiohttp sends a request again, without a word, when the connection breaks before the head of its answer, on new
    connections too. Whether and how often to ask again is decided in one place only, and that is not here.
    """

    opened: WeakSet[Any]

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        transport = connection.transport
        if transport is not None:
            with suppress(TypeError):  # other event loops' may allow no weak references
                self.opened.add(transport)
        try:
            return await super().start(connection)
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
            pass
        raise _NoAnswerError


class _PublicResolver(aiohttp.ThreadedResolver):
    """Resolves a name to those of its addresses that are of the public internet."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = [each for each in await super().resolve(host, port, family) if is_public(each["host"])]
        if not found:
            raise not_public_error()
        return found


class AiohttpTransport:
    """Sends requests from asyncio tasks of one event loop.

    Args:
        network: Proxy and certificates.
        size: Connections at most.
        user_agent: User-Agent header.
    """

    def __init__(self, network: Network, *, size: int = 100, user_agent: str = "taskbridge") -> None:
        self._network = network
        self._size = size
        self._user_agent = user_agent
        self._sessions: dict[tuple[bool, bool], aiohttp.ClientSession] = {}  # by: used once, public addresses only
        self._proxies: dict[tuple[str, str], str | None] = {}  # by scheme and host
        self._context: ssl.SSLContext | None = None
        self._used = WeakSet[Any]()  # connections over which something was sent
        self._opened = WeakSet[Any]()  # connections, of which some may not be closed to their end
        self._loop: asyncio.AbstractEventLoop | None = None

    async def close(self) -> None:
        """Close the kept connections."""
        sessions = list(self._sessions.values())
        self._sessions.clear()
        for session in sessions:
            await session.close()
        # One that closes waits for what is still to leave, over TLS for the other side's good-bye too: maybe for ever.
        for transport in list(self._opened):
            transport.abort()
        await asyncio.sleep(0)  # in which aborted connections close

    async def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        """See `taskbridge.transport.Transport`."""
        trace = _Trace()
        _sending.set(trace)
        ours: BaseException
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())) as limit:
                return await self._send(request, max_body, trace, limit)
        except TaskbridgeError as error:
            ours = error
        except Exception as error:  # noqa: BLE001  # whatever the library below may raise is named by one table
            local = [error] if isinstance(error, OSError) and is_local_error(error, request) else trace.local
            ours = local[0] if local else _fault(error, deadline, trace)
        except BaseException as error:  # noqa: BLE001  # a cancellation goes on, without what the frames below hold
            ours = error
        try:
            raise without_traceback(ours)
        finally:
            del ours  # or the error and this frame hold each other

    def _session(self, request: Request, proxy: str | None) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise ConfigError("this client belongs to another event loop; make one per loop")
        key = (request.new_connection or request.public_only, request.public_only and proxy is None)
        session = self._sessions.get(key)
        if session is None:
            session = self._sessions[key] = self._open(once=key[0], public=key[1])
        return session

    def _open(self, *, once: bool, public: bool) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._size, force_close=once, resolver=_PublicResolver() if public else aiohttp.ThreadedResolver()
            ),
            request_class=type("_OurRequest", (_Request,), {"used": self._used}),
            response_class=type("_OurAnswer", (_Answer,), {"opened": self._opened}),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": self._user_agent, "Accept-Encoding": "identity"},
            auto_decompress=False,
            trust_env=False,
            max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_LINE,
        )

    async def _send(self, request: Request, max_body: int, trace: _Trace, limit: asyncio.Timeout) -> Response:
        body = body_stream(request)
        headers = {**request.headers, **(request.save_to.headers if request.save_to is not None else {})}
        if body is not None:
            headers.update(body.headers)
            headers["Content-Length"] = str(body.length)
        url = URL(request.url, encoded=True)
        proxy = self._proxy(url.scheme, url.host or "")
        session = self._session(request, proxy)
        if request.public_only and proxy is None and is_ip_address(url.host) and not is_public(url.host or ""):
            raise not_public_error()
        silence = max(READ_LIMIT, request.long_poll or 0.0)
        async with session.request(
            request.method,
            url,
            data=_outgoing(body, trace),
            headers=headers,
            allow_redirects=False,
            proxy=proxy,
            ssl=self._tls() if url.scheme == "https" or proxy is not None else True,
            timeout=_limits(silence),
        ) as answer:
            return await _read(answer, request, max_body, limit)

    def _proxy(self, scheme: str, host: str) -> str | None:
        key = (scheme, host)
        if key not in self._proxies:
            self._proxies[key] = self._network.proxy_for(scheme, host)
        return self._proxies[key]

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = tls_context(self._network)
        return self._context


@cache
def _limits(silence: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_LIMIT, sock_read=silence)


async def _read(answer: aiohttp.ClientResponse, request: Request, max_body: int, limit: asyncio.Timeout) -> Response:
    fields = header_fields((name, _text(value)) for name, value in answer.headers.items())
    check_headers(request, answer.status, fields, len(answer.headers), max_body)
    if request.save_to is not None and answer.status < 300:
        with closing(file_writer(answer.status, fields, request.save_to)) as file:  # local files are fast
            next(file)
            while block := await _block(answer):
                if (earned := file.send(block)) and (end := limit.when()) is not None:
                    limit.reschedule(end + earned)
            file.send(b"")
        return Response(answer.status, fields, b"")
    body = BytesIO()
    while block := await _block(answer):
        if body.tell() + len(block) > max_body:
            raise too_large_error(max_body, answer.status)
        body.write(block)
    return complete_response(request, answer.status, fields, body.getvalue(), max_body)


async def _block(answer: aiohttp.ClientResponse) -> bytes:
    """The next bytes of a body, as many as there are; none at its end."""
    content = answer.content
    while not content.at_eof():
        if block := content.read_nowait():
            return block
        try:
            async with asyncio.timeout(_GLANCE):
                return await content.readany()
        except TimeoutError as error:
            if isinstance(error, aiohttp.ServerTimeoutError):
                raise  # the limit for silence
        if content.is_eof() or content.exception() is not None:
            continue  # it ended while the event loop was busy with something else
        # When a chunk cannot be read, aiohttp closes the connection and tells nobody who waits for the body.
        connection = answer.connection
        if connection is None or connection.protocol is None or not connection.protocol.is_connected():
            raise MalformedResponse("the answer's chunks cannot be read", repeats=1, http_status=answer.status)
    return b""


def _text(value: str) -> str:
    # aiohttp keeps what is not UTF-8 as lone surrogates.
    return value if value.isascii() else value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


async def _blocks(body: BodyStream, trace: _Trace) -> AsyncIterator[bytes]:
    try:
        for block in body.blocks():
            yield block
    except OSError as error:
        trace.local.append(error)
        raise


def _outgoing(body: BodyStream | None, trace: _Trace) -> bytes | AsyncIterator[bytes] | None:
    if body is None:
        return None
    # aiohttp warns of much more than that in one piece.
    return body.head if body.source is None and body.length <= BLOCK else _blocks(body, trace)


# Library's exception -> our class and words, the most specific first.
_NAMES: Final[tuple[tuple[type[BaseException], type[TaskbridgeError], str], ...]] = (
    (_NoAnswerError, TruncatedResponse, "the host closed the connection without an answer"),
    (aiohttp.ClientConnectorCertificateError, TlsError, "the host's certificate cannot be trusted"),
    (aiohttp.ClientConnectorDNSError, ConnectFailed, "the host's name cannot be resolved"),
    (aiohttp.ClientConnectorSSLError, TlsError, "no TLS connection came about"),
    (aiohttp.ClientProxyConnectionError, ConnectFailed, "the proxy cannot be reached"),
    (aiohttp.ClientConnectorError, ConnectFailed, "the host refuses connections or cannot be reached"),
    (aiohttp.ConnectionTimeoutError, ConnectFailed, f"no connection within {CONNECT_LIMIT:g} s"),
    (TimeoutError, DeadlineExceeded, f"nothing came for {READ_LIMIT:g} s"),
    (aiohttp.ClientPayloadError, TruncatedResponse, "the answer broke off"),
    (aiohttp.ClientResponseError, MalformedResponse, "the answer is not HTTP"),
    (HttpProcessingError, MalformedResponse, "the answer's chunks cannot be read"),
    (aiohttp.InvalidURL, ConnectFailed, "the URL's host cannot be used"),
    (ValueError, ConnectFailed, "the URL or a header field cannot be sent"),
    (OSError, TruncatedResponse, "the connection broke off"),
    (aiohttp.ClientError, TransportError, "the request failed"),
)


def _fault(error: Exception, deadline: float, trace: _Trace) -> TaskbridgeError:
    """Our error for one of the library below."""
    kind, words = _named(error, deadline, written=trace.written)
    stale = trace.reused and isinstance(error, _NoAnswerError)
    return request_error(kind, words, written=trace.written, stale=stale)


def _named(error: Exception, deadline: float, *, written: bool) -> tuple[type[TaskbridgeError], str]:
    name = type(error).__name__
    if isinstance(error, TimeoutError) and time.monotonic() >= deadline:
        return DeadlineExceeded, "the total time for the request ran out"
    for kind, ours, words in _NAMES:
        if isinstance(error, kind):
            if ours is ConnectFailed and written:
                break
            if ours is TruncatedResponse and not written:
                return ConnectFailed, "the connection broke off before the request was sent"
            return ours, words
    return TransportError, f"the request failed ({name})"
