"""The synchronous transport: requests' adapter, with limits that hold.

requests brings connection pools, proxies and TLS; what its sessions add (redirects, cookies, environment, hooks) is
left out on purpose. Its time limits are per socket operation, so the connections are ours (`timed.py`) and check the
total deadline at each read and each write. Every failure is one of our errors, made after the library's exception is
gone: that one may print a credential.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from contextlib import closing
from http.client import BadStatusLine, HTTPException, IncompleteRead, RemoteDisconnected
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from urllib3 import Retry, Timeout, exceptions

from taskbridge._transport.bodies import BodyStream, is_local_error, body_stream
from taskbridge._transport.deadlines import Adapter, trace
from taskbridge._transport.responses import (
    BLOCK,
    CONNECT_LIMIT,
    READ_LIMIT,
    complete_response,
    request_error,
    file_writer,
    tls_context,
    too_large_error,
)
from taskbridge.errors import (
    ConnectFailed,
    DeadlineExceeded,
    MalformedResponse,
    TaskbridgeError,
    TlsError,
    TransportError,
    TruncatedResponse,
)
from taskbridge.provider.http import Request, Response
from taskbridge.provider.secrets import without_traceback

if TYPE_CHECKING:
    from collections.abc import Iterator

    from urllib3 import BaseHTTPResponse

    from taskbridge.transport import Network

_NO_RETRIES: Final = Retry(False, redirect=False)  # whether to ask again is decided elsewhere


_LIMITS: Final = Timeout(connect=CONNECT_LIMIT, read=READ_LIMIT)  # the deadline stands above them


class RequestsTransport:
    """Sends requests in the caller's thread; any number of threads may use it, and processes forked from this one.

    Args:
        network: Proxy and certificates.
        size: Connections kept per host.
        user_agent: User-Agent header.
    """

    def __init__(self, network: Network, *, size: int = 32, user_agent: str = "taskbridge") -> None:
        self._network = network
        self._size = size
        self._user_agent = user_agent
        self._routes = _Routes(network, size)

    def close(self) -> None:
        """Close the kept connections."""
        self._routes.close()

    def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        """See `taskbridge.transport.Transport`."""
        trace.begin(request, deadline, max_body)
        ours: BaseException
        try:
            return self._send(request, max_body)
        except TaskbridgeError as error:
            ours = error
        except Exception as error:  # noqa: BLE001  # whatever the library below may raise is named by one table
            ours = _local(error, request) or _fault(error)
        except BaseException as error:  # noqa: BLE001  # an interruption goes on, without what the frames below hold
            ours = error
        finally:
            trace.sending = False
        try:
            raise without_traceback(ours)
        finally:
            del ours  # or the error and this frame hold each other

    def _send(self, request: Request, max_body: int) -> Response:
        body = body_stream(request)
        headers = {"User-Agent": self._user_agent, "Accept-Encoding": "identity", **request.headers}
        if request.save_to is not None:
            headers.update(request.save_to.headers)
        if body is not None:
            headers.update(body.headers)
            headers["Content-Length"] = str(body.length)
        route = self._route(request.url)
        answer: BaseHTTPResponse = route.pool.urlopen(
            request.method,
            route.target(request.url),
            body=_outgoing(body),
            headers=headers,
            retries=_NO_RETRIES,
            redirect=False,
            assert_same_host=False,
            preload_content=False,
            decode_content=False,
            timeout=_LIMITS,
        )
        whole = False
        try:
            response = _read(answer, request, max_body)
            whole = True
        finally:
            if whole:
                answer.release_conn()
            else:
                answer.close()
        return response

    def _route(self, url: str) -> _Route:
        routes = self._routes
        if routes.pid != os.getpid():
            # After a fork the parent's connections are not ours to use, nor its locks.
            routes = self._routes = _Routes(self._network, self._size)
        return routes.to(url)


class _Route:
    """The way to one origin.

    Attributes:
        pool: Its connections.
    """

    __slots__ = ("_whole", "pool")

    def __init__(self, pool: Any, *, whole: bool) -> None:
        self.pool = pool
        self._whole = whole

    def target(self, url: str) -> str:
        """What stands in the request line: the path, or the whole URL for a proxy that asks in our name."""
        if self._whole:
            return url
        parts = urlsplit(url)
        path = parts.path or "/"
        return f"{path}?{parts.query}" if parts.query else path


class _Routes:
    """The ways to all origins, for one process. No lock of ours: what two threads make at once, one of them keeps."""

    def __init__(self, network: Network, size: int) -> None:
        self.pid = os.getpid()
        self._network = network
        self._size = size
        self._adapters: dict[bool, Adapter] = {}
        self._routes: dict[str, _Route] = {}

    def to(self, url: str) -> _Route:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        route = self._routes.get(origin)
        if route is None:
            proxy = self._network.proxy_for(parts.scheme, parts.hostname or "")
            secure = "https" in (parts.scheme, urlsplit(proxy or "").scheme)
            pool = self._adapter(secure=secure).pool_for(url, proxy)
            route = self._routes.setdefault(origin, _Route(pool, whole=proxy is not None and parts.scheme == "http"))
        return route

    def _adapter(self, *, secure: bool) -> Adapter:
        adapter = self._adapters.get(secure)
        if adapter is None:
            context = tls_context(self._network) if secure else None
            adapter = self._adapters.setdefault(secure, Adapter(context, self._size))
        return adapter

    def close(self) -> None:
        for route in self._routes.values():
            route.pool.close()
        self._routes.clear()
        for adapter in self._adapters.values():
            adapter.close()
        self._adapters.clear()


def _read(answer: BaseHTTPResponse, request: Request, max_body: int) -> Response:
    fields = trace.fields
    if request.save_to is not None and answer.status < 300:
        with closing(file_writer(answer.status, fields, request.save_to)) as file:
            next(file)
            while block := answer.read1(BLOCK, decode_content=False):
                trace.deadline += file.send(block)
            _check_end()
            file.send(b"")
        return Response(answer.status, fields, b"")
    if "content-length" in fields:
        body = answer.read(int(fields["content-length"]), decode_content=False)
    else:
        whole = BytesIO()
        while block := answer.read(BLOCK, decode_content=False):
            if whole.tell() + len(block) > max_body:
                raise too_large_error(max_body, answer.status)
            whole.write(block)
        body = whole.getvalue()
    _check_end()
    return complete_response(request, answer.status, fields, body, max_body)


def _check_end() -> None:
    """Notice the end of a connection before the end of a body that tells its length."""
    if trace.ended and ("content-length" in trace.fields or "transfer-encoding" in trace.fields):
        raise TruncatedResponse("the answer broke off")


def _outgoing(body: BodyStream | None) -> bytes | Iterator[bytes] | None:
    if body is None:
        return None
    return body.head if body.source is None else body.blocks()


# Library's exception -> our class and words, the most specific first.
_NAMES: Final[tuple[tuple[type[BaseException], type[TaskbridgeError], str], ...]] = (
    (ssl.SSLCertVerificationError, TlsError, "the host's certificate cannot be trusted"),
    (exceptions.ReadTimeoutError, DeadlineExceeded, f"nothing came for {READ_LIMIT:g} s"),
    (TimeoutError, DeadlineExceeded, f"nothing came for {READ_LIMIT:g} s"),
    (ssl.SSLError, TruncatedResponse, "the connection broke off"),
    (exceptions.IncompleteRead, TruncatedResponse, "the answer broke off"),
    (exceptions.InvalidChunkLength, TruncatedResponse, "the answer broke off"),
    (IncompleteRead, TruncatedResponse, "the answer broke off"),
    (RemoteDisconnected, TruncatedResponse, "the host closed the connection without an answer"),
    (HTTPException, MalformedResponse, "the answer is not HTTP"),
    (OSError, TruncatedResponse, "the connection broke off"),
    (exceptions.HeaderParsingError, MalformedResponse, "the answer's headers cannot be read"),
    (exceptions.ProtocolError, TruncatedResponse, "the connection broke off"),
)


# The same before a byte of the request was sent.
_NAMES_BEFORE: Final[tuple[tuple[type[BaseException], type[TaskbridgeError], str], ...]] = (
    (ssl.SSLCertVerificationError, TlsError, "the host's certificate cannot be trusted"),
    (exceptions.ProxyError, ConnectFailed, "the proxy cannot be reached"),
    (socket.gaierror, ConnectFailed, "the host's name cannot be resolved"),
    (TimeoutError, ConnectFailed, f"no connection within {CONNECT_LIMIT:g} s"),
    (ssl.SSLEOFError, ConnectFailed, "the connection broke off before the request was sent"),
    (ssl.SSLZeroReturnError, ConnectFailed, "the connection broke off before the request was sent"),
    (ConnectionResetError, ConnectFailed, "the connection broke off before the request was sent"),
    (BrokenPipeError, ConnectFailed, "the connection broke off before the request was sent"),
    (ssl.SSLError, TlsError, "no TLS connection came about"),
    (exceptions.SSLError, TlsError, "no TLS connection came about"),
    (OSError, ConnectFailed, "the host refuses connections or cannot be reached"),
    (exceptions.LocationParseError, ConnectFailed, "the URL's host cannot be used"),
    (ValueError, ConnectFailed, "the URL or a header field cannot be sent"),
)


def _local(error: Exception, request: Request) -> OSError | None:
    """What was wrong with a file of ours; urllib3 wraps it where it came while the body was leaving."""
    return next((each for each in _causes(error) if isinstance(each, OSError) and is_local_error(each, request)), None)


def _fault(error: Exception) -> TaskbridgeError:
    """Our error for one of the library below."""
    kind, words = _named(error)
    return request_error(kind, words, written=trace.written, stale=trace.reused and trace.received == 0)


def _named(error: BaseException) -> tuple[type[TaskbridgeError], str]:
    chain = list(_causes(error))
    late = any(isinstance(e, TimeoutError | exceptions.TimeoutError) for e in chain)
    if late and time.monotonic() >= trace.deadline:
        return DeadlineExceeded, "the total time for the request ran out"
    if trace.ended and any(_is_cut(e) for e in chain):
        return TruncatedResponse, "the answer ended inside its status line"
    if not trace.ended and any(isinstance(e, IncompleteRead) for e in chain):
        return MalformedResponse, "the answer's chunks cannot be read"
    for kind, ours, words in _NAMES if trace.written else _NAMES_BEFORE:
        if any(isinstance(e, kind) for e in chain):
            return ours, words
    if trace.received:
        return MalformedResponse, f"the answer is not HTTP ({type(error).__name__})"
    return TransportError, f"the request failed ({type(error).__name__})"


def _is_cut(error: BaseException) -> bool:
    """Whether a status line is the beginning of a good one."""
    if not isinstance(error, BadStatusLine):
        return False
    line = str(error.args[0])
    return not line.endswith("\n") and any(line[:9] == start[: len(line)] for start in ("HTTP/1.1 ", "HTTP/1.0 "))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and what it wraps, outermost first."""
    found: object = error
    for _ in range(6):
        if not isinstance(found, BaseException):
            return
        yield found
        inner = [a for a in found.args if isinstance(a, BaseException)]
        found = inner[0] if inner else getattr(found, "reason", None) or found.__cause__ or found.__context__
