"""The synchronous transport: requests' adapter, with limits that hold.

requests brings connection pools, proxies and TLS; what its sessions add (redirects, cookies, environment, hooks) is
left out on purpose. Its time limits are per socket operation, so a connection here checks the total deadline at each
read and each write. Every failure is one of our errors, made after the library's
exception is gone: that one may print a credential.
"""

from __future__ import annotations

import io
import os
import socket
import ssl
import time
from http.client import HTTPException, HTTPResponse, IncompleteRead, RemoteDisconnected
from threading import Lock, local
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, Timeout, exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.connection import allowed_gai_family

from taskbridge.errors import (
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
    from collections.abc import Iterator, Mapping

    from urllib3 import BaseHTTPResponse

    from taskbridge.config import Network

__all__ = ["RequestsTransport"]


class _Trace(local):
    """What happens to the request that this thread is sending."""

    deadline = 0.0  # monotonic seconds
    silence = READ_LIMIT  # seconds that one read may take
    fresh = False  # whether a kept connection must not be used
    written = False  # whether a byte of the request may have left
    reused = False  # whether a kept connection was used
    received = 0  # bytes of the answer so far


_trace: Final = _Trace()


def _remaining(limit: float) -> float:
    """Seconds for one socket operation; never zero, which would mean non-blocking."""
    left = _trace.deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return min(left, limit)


class _TimedReader(io.RawIOBase):
    """Reads a socket, checking the total deadline at each read."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        self._sock.settimeout(_remaining(_trace.silence))
        count = self._raw.readinto(buffer)
        _trace.received += count or 0
        return cast("int | None", count)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedResponse(HTTPResponse):
    """An answer whose head and body are read by `_TimedReader`."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_TimedReader(self.fp.detach(), sock))


class _Timed(HTTPConnection):
    """A connection that holds the total deadline, and notes whether anything was sent."""

    response_class = _TimedResponse
    used = 0

    def _new_conn(self) -> socket.socket:
        # As urllib3's own, but the limit is for all addresses together, not for each.
        fault: OSError | None = None
        began = time.monotonic()
        for family, kind, protocol, _, address in socket.getaddrinfo(
            self._dns_host, self.port, allowed_gai_family(), socket.SOCK_STREAM
        ):
            sock = socket.socket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                sock.settimeout(_remaining(max(0.05, CONNECT_LIMIT - (time.monotonic() - began))))
                sock.connect(address)
            except OSError as error:
                fault = error
                sock.close()
            else:
                return sock
        raise fault or OSError("the name has no address")

    def connect(self) -> None:
        super().connect()
        _trace.written = False  # what a proxy was told is not the request

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        self.sock.settimeout(_remaining(86_400.0))
        _trace.written = True
        super().send(data)

    def request(self, *args: Any, **kwargs: Any) -> None:
        _trace.reused = self.used > 0
        self.used += 1
        super().request(*args, **kwargs)


class _TimedTls(_Timed, HTTPSConnection):
    """The same over TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Timed

    def _get_conn(self, timeout: float | None = None) -> Any:
        return self._new_conn() if _trace.fresh else super()._get_conn(timeout)


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TimedTls

    def _get_conn(self, timeout: float | None = None) -> Any:
        return self._new_conn() if _trace.fresh else super()._get_conn(timeout)


class _Adapter(HTTPAdapter):
    """requests' adapter with our connections and one TLS context."""

    def __init__(self, context: ssl.SSLContext, size: int) -> None:
        self._context = context
        super().__init__(pool_connections=8, pool_maxsize=size, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager: Any = super().proxy_manager_for(proxy, **kwargs, ssl_context=self._context)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
        return manager

    def pool_for(self, url: str, proxy: str | None) -> Any:
        manager: Any = self.proxy_manager_for(proxy) if proxy else self.poolmanager
        return manager.connection_from_url(url)


class RequestsTransport:
    """Sends requests in the caller's thread; any number of threads may use it.

    Args:
        network: Proxy and certificates.
        size: Connections kept per host.
        user_agent: User-Agent header.
    """

    def __init__(self, network: Network, *, size: int = 32, user_agent: str = "taskbridge") -> None:
        self._network = network
        self._size = size
        self._user_agent = user_agent
        self._lock = Lock()
        self._open()

    def _open(self) -> None:
        self._pid = os.getpid()
        self._adapter = _Adapter(tls_context(self._network), self._size)
        self._pools: dict[str, Any] = {}

    def close(self) -> None:
        """Close the kept connections."""
        self._pools.clear()
        self._adapter.close()

    def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        """See `taskbridge.transport.Transport`."""
        trace = _trace
        trace.deadline = deadline
        trace.silence = max(READ_LIMIT, request.hold or 0.0)
        trace.fresh = request.fresh
        trace.written = trace.reused = False
        trace.received = 0
        fault: tuple[type[TaskbridgeError], str] | None = None
        try:
            return self._send(request, max_body)
        except (TaskbridgeError, OSError) as error:
            if isinstance(error, TaskbridgeError) or _is_local(error, request):
                raise
            fault = _named(error, deadline)
        except Exception as error:  # noqa: BLE001  # whatever the library below may raise is named by one table
            fault = _named(error, deadline)
        stale = trace.reused and trace.received == 0
        raise no_answer(*fault, written=trace.written, stale=stale)

    def _send(self, request: Request, max_body: int) -> Response:
        body = stream(request)
        headers = {"User-Agent": self._user_agent, "Accept-Encoding": "identity", **request.headers}
        if body is not None:
            headers.update(body.headers)
            headers["Content-Length"] = str(body.length)
        answer: BaseHTTPResponse = self._pool(request.url).urlopen(
            request.method,
            _target(request.url),
            body=_outgoing(body),
            headers=headers,
            retries=False,
            redirect=False,
            assert_same_host=False,
            preload_content=False,
            decode_content=False,
            timeout=Timeout(connect=CONNECT_LIMIT, read=READ_LIMIT),
        )
        whole = False
        try:
            response = self._read(answer, request, max_body)
            whole = True
        finally:
            if whole:
                answer.release_conn()
            else:
                answer.close()
        return response

    def _read(self, answer: BaseHTTPResponse, request: Request, max_body: int) -> Response:
        fields = answer.headers
        headers = {name.lower(): value for name, value in fields.items()}
        original = getattr(answer, "_original_response", None)
        if original is not None and original.msg.defects:
            raise MalformedResponse("the answer's headers cannot be read", repeats=1, http_status=answer.status)
        lengths = fields.getlist("content-length") if "content-length" in headers else []
        if request.save_to is not None and answer.status < 300:
            return self._save(answer, request, headers)
        body = answer.read(max_body + 1, decode_content=False)
        check_framing(answer.status, headers, lengths, empty=not body)
        if len(body) > max_body:
            raise too_large(max_body)
        return Response(answer.status, headers, decoded(body, headers, max_body))

    def _save(self, answer: BaseHTTPResponse, request: Request, headers: Mapping[str, str]) -> Response:
        assert request.save_to is not None  # noqa: S101  # the caller asked
        with request.save_to.open("wb") as file:
            while block := answer.read(BLOCK, decode_content=False):
                file.write(block)
        return Response(answer.status, headers, b"")

    def _pool(self, url: str) -> Any:
        if self._pid != os.getpid():
            self._open()  # after a fork the parent's connections are not ours to use
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        pool = self._pools.get(origin)
        if pool is None:
            with self._lock:
                pool = self._pools[origin] = self._adapter.pool_for(
                    url, self._network.proxy_for(parts.scheme, parts.hostname or "")
                )
        return pool


def tls_context(network: Network) -> ssl.SSLContext:
    """The one TLS context of a transport.

    Raises:
        OSError: The certificates cannot be read.
    """
    if network.ca_bundle is None:
        import certifi  # noqa: PLC0415  # comes with requests

        return ssl.create_default_context(cafile=certifi.where())
    if os.path.isdir(network.ca_bundle):  # noqa: PTH112  # a text from the settings
        return ssl.create_default_context(capath=network.ca_bundle)
    return ssl.create_default_context(cafile=network.ca_bundle)


def _target(url: str) -> str:
    parts = urlsplit(url)
    path = parts.path or "/"
    return f"{path}?{parts.query}" if parts.query else path


def _outgoing(body: Stream | None) -> bytes | Iterator[bytes] | None:
    if body is None:
        return None
    return body.head if body.source is None else body.blocks()


def _is_local(error: OSError, request: Request) -> bool:
    """Whether a file of ours, not the network, is at fault."""
    return error.filename is not None and (request.body is not None or request.save_to is not None)


# Library's exception -> our class and words, the most specific first.
_NAMES: Final[tuple[tuple[type[BaseException], type[TaskbridgeError], str], ...]] = (
    (exceptions.NameResolutionError, ConnectFailed, "the host's name cannot be resolved"),
    (socket.gaierror, ConnectFailed, "the host's name cannot be resolved"),
    (exceptions.ConnectTimeoutError, ConnectFailed, f"no connection within {CONNECT_LIMIT:g} s"),
    (exceptions.NewConnectionError, ConnectFailed, "the host refuses connections or cannot be reached"),
    (exceptions.ProxyError, ConnectFailed, "the proxy cannot be reached"),
    (ssl.SSLCertVerificationError, TlsError, "the host's certificate cannot be trusted"),
    (exceptions.SSLError, TlsError, "no TLS connection came about"),
    (exceptions.ReadTimeoutError, DeadlineExceeded, f"nothing came for {READ_LIMIT:g} s"),
    (TimeoutError, DeadlineExceeded, f"nothing came for {READ_LIMIT:g} s"),
    (ssl.SSLEOFError, TruncatedResponse, "the connection broke off"),
    (ssl.SSLError, TlsError, "no TLS connection came about"),
    (exceptions.IncompleteRead, TruncatedResponse, "the answer broke off"),
    (exceptions.InvalidChunkLength, TruncatedResponse, "the answer broke off"),
    (IncompleteRead, TruncatedResponse, "the answer broke off"),
    (RemoteDisconnected, TruncatedResponse, "the host closed the connection without an answer"),
    (HTTPException, MalformedResponse, "the answer is not HTTP"),
    (ConnectionRefusedError, ConnectFailed, "the host refuses connections"),
    (OSError, TruncatedResponse, "the connection broke off"),
    (exceptions.HeaderParsingError, MalformedResponse, "the answer's headers cannot be read"),
    (exceptions.ProtocolError, TruncatedResponse, "the connection broke off"),
    (exceptions.LocationParseError, ConnectFailed, "the URL's host cannot be used"),
    (UnicodeError, ConnectFailed, "the URL's host cannot be used"),
    (exceptions.HTTPError, TransportError, "the request failed"),
)


def _named(error: BaseException, deadline: float) -> tuple[type[TaskbridgeError], str]:
    chain = list(_causes(error))
    if time.monotonic() >= deadline and any(isinstance(e, TimeoutError | exceptions.TimeoutError) for e in chain):
        return DeadlineExceeded, "the total time for the request ran out"
    if not _trace.written and any(isinstance(e, OSError) for e in chain) and not _is_tls(chain):
        return _before_sending(chain)
    for kind, ours, words in _NAMES:
        if any(isinstance(e, kind) for e in chain):
            return ours, words
    return TransportError, f"the request failed ({type(error).__name__})"


def _before_sending(chain: list[BaseException]) -> tuple[type[TaskbridgeError], str]:
    if any(isinstance(e, socket.gaierror) for e in chain):
        return ConnectFailed, "the host's name cannot be resolved"
    if any(isinstance(e, TimeoutError) for e in chain):
        return ConnectFailed, f"no connection within {CONNECT_LIMIT:g} s"
    return ConnectFailed, "the host refuses connections or cannot be reached"


def _is_tls(chain: list[BaseException]) -> bool:
    return any(isinstance(e, ssl.SSLError | exceptions.SSLError) for e in chain)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and what it wraps, outermost first."""
    found: BaseException | None = error
    for _ in range(6):
        if found is None:
            return
        yield found
        inner = [a for a in found.args if isinstance(a, BaseException)]
        found = inner[0] if inner else getattr(found, "reason", None) or found.__cause__ or found.__context__
        if not isinstance(found, BaseException):
            return
