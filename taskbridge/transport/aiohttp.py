"""The asynchronous transport: aiohttp, with the same limits and the same errors as the synchronous one."""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final

import aiohttp
from yarl import URL

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
from taskbridge.http import Request, Response
from taskbridge.transport.shared import (
    BLOCK,
    CONNECT_LIMIT,
    READ_LIMIT,
    Stream,
    check_framing,
    decoded,
    no_answer,
    stream,
    too_large,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from taskbridge.config import Network

__all__ = ["AiohttpTransport"]

_LONGEST_LINE: Final = 65_536  # bytes of one header line, as the synchronous transport takes


@dataclass(slots=True)
class _Trace:
    """What happens to one request."""

    written: bool = False


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
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def close(self) -> None:
        """Close the kept connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        """See `taskbridge.transport.Transport`."""
        session = self._ready()
        trace = _Trace()
        fault: tuple[type[TaskbridgeError], str] | None = None
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                return await self._send(session, request, max_body, trace)
        except TaskbridgeError:
            raise
        except OSError as error:
            if error.filename is not None and (request.body is not None or request.save_to is not None):
                raise
            fault = _named(error, deadline, written=trace.written)
        except Exception as error:  # noqa: BLE001  # whatever the library below may raise is named by one table
            fault = _named(error, deadline, written=trace.written)
        raise no_answer(*fault, written=trace.written)

    def _ready(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None:
            self._loop = loop
            self._session = self._open()
        elif self._loop is not loop:
            raise ConfigError("this client belongs to another event loop; make one per loop")
        return self._session

    def _open(self) -> aiohttp.ClientSession:
        async def written(_session: object, context: SimpleNamespace, _params: object) -> None:  # awaited
            context.trace_request_ctx.written = True

        tracer = aiohttp.TraceConfig()
        tracer.on_request_headers_sent.append(written)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._size, ssl=_context(self._network)),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_LIMIT, sock_read=READ_LIMIT),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": self._user_agent, "Accept-Encoding": "identity"},
            auto_decompress=False,
            trust_env=False,
            max_line_size=_LONGEST_LINE,
            max_field_size=_LONGEST_LINE,
            trace_configs=[tracer],
        )

    async def _send(self, session: aiohttp.ClientSession, request: Request, max_body: int, trace: _Trace) -> Response:
        body = stream(request)
        headers = dict(request.headers)
        if body is not None:
            headers.update(body.headers)
            headers["Content-Length"] = str(body.length)
        if request.fresh:
            headers["Connection"] = "close"
        url = URL(request.url, encoded=True)
        silence = max(READ_LIMIT, request.hold or 0.0)
        async with session.request(
            request.method,
            url,
            data=_outgoing(body),
            headers=headers,
            allow_redirects=False,
            proxy=self._network.proxy_for(url.scheme, url.host or ""),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_LIMIT, sock_read=silence),
            trace_request_ctx=trace,
        ) as answer:
            return await _read(answer, request, max_body)


async def _read(answer: aiohttp.ClientResponse, request: Request, max_body: int) -> Response:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    if request.save_to is not None and answer.status < 300:
        with request.save_to.open("wb") as file:  # local files are fast, and order matters
            async for block in answer.content.iter_chunked(BLOCK):
                file.write(block)
        return Response(answer.status, headers, b"")
    blocks: list[bytes] = []
    size = 0
    async for block in answer.content.iter_any():
        blocks.append(block)
        size += len(block)
        if size > max_body:
            answer.close()
            raise too_large(max_body)
    body = b"".join(blocks)
    check_framing(answer.status, headers, answer.headers.getall("Content-Length", []), empty=not body)
    return Response(answer.status, headers, decoded(body, headers, max_body))


def _context(network: Network) -> ssl.SSLContext:
    from taskbridge.transport.requests import tls_context  # noqa: PLC0415  # the same certificates for both

    return tls_context(network)


async def _blocks(body: Stream) -> AsyncIterator[bytes]:
    for block in body.blocks():
        yield block


def _outgoing(body: Stream | None) -> bytes | AsyncIterator[bytes] | None:
    if body is None:
        return None
    return body.head if body.source is None else _blocks(body)


# Library's exception -> our class and words, the most specific first.
_NAMES: Final[tuple[tuple[type[BaseException], type[TaskbridgeError], str], ...]] = (
    (aiohttp.ClientConnectorCertificateError, TlsError, "the host's certificate cannot be trusted"),
    (aiohttp.ClientConnectorDNSError, ConnectFailed, "the host's name cannot be resolved"),
    (aiohttp.ClientConnectorSSLError, TlsError, "no TLS connection came about"),
    (aiohttp.ClientProxyConnectionError, ConnectFailed, "the proxy cannot be reached"),
    (aiohttp.ClientConnectorError, ConnectFailed, "the host refuses connections or cannot be reached"),
    (aiohttp.ConnectionTimeoutError, ConnectFailed, f"no connection within {CONNECT_LIMIT:g} s"),
    (aiohttp.ServerTimeoutError, DeadlineExceeded, f"nothing came for {READ_LIMIT:g} s"),
    (TimeoutError, DeadlineExceeded, "the total time for the request ran out"),
    (aiohttp.ServerDisconnectedError, TruncatedResponse, "the host closed the connection without an answer"),
    (aiohttp.ClientPayloadError, TruncatedResponse, "the answer broke off"),
    (aiohttp.ClientResponseError, MalformedResponse, "the answer is not HTTP"),
    (aiohttp.InvalidURL, ConnectFailed, "the URL's host cannot be used"),
    (UnicodeError, ConnectFailed, "the URL's host cannot be used"),
    (OSError, TruncatedResponse, "the connection broke off"),
    (aiohttp.ClientError, TransportError, "the request failed"),
)


def _named(error: Exception, deadline: float, *, written: bool) -> tuple[type[TaskbridgeError], str]:
    if isinstance(error, TimeoutError) and time.monotonic() >= deadline:
        return DeadlineExceeded, "the total time for the request ran out"
    for kind, ours, words in _NAMES:
        if isinstance(error, kind):
            if ours is TruncatedResponse and not written:
                return ConnectFailed, "the connection broke off before the request was sent"
            return ours, words
    return TransportError, f"the request failed ({type(error).__name__})"
