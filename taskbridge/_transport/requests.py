"""The synchronous transport, on requests' adapter and on urllib3 connections that enforce a total deadline.

It uses the connection pools, proxies and TLS of requests, but not its sessions (redirects, cookies, environment,
hooks). urllib3's time limits are per socket operation: a response that drips a byte at a time never ends. A connection
here checks the total deadline at each name lookup, connection, handshake, read and write. It also records what happened
to the request: whether a byte was sent, whether the connection was reused, whether the peer closed it. Every failure
becomes one of our errors, raised after the library's exception is gone: that one may print a credential.

Parts of other libraries that are not public, and are used here: `_read_status`, `_check_close` and `_method` of
http.client's response (Python 3.11 to 3.13), `_new_conn` of urllib3's connections, `_get_conn` and `_put_conn` of its
pools (urllib3 2.7 and 2.8). `_transport/curl.py` uses none.
"""

from __future__ import annotations

import io
import logging
import os
import re
import socket
import ssl
import time
from contextlib import closing, suppress
from http.client import (
    BadStatusLine,
    HTTPException,
    HTTPMessage,
    HTTPResponse,
    IncompleteRead,
    LineTooLong,
    RemoteDisconnected,
    UnknownProtocol,
)
from io import BytesIO
from threading import Lock, Thread, local
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast
from urllib.parse import SplitResult, urlsplit

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, Retry, Timeout, exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.connection import allowed_gai_family

from taskbridge._transport import responses
from taskbridge._transport.bodies import body_stream, is_local_error
from taskbridge.errors import (
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
    from collections.abc import Iterator

    from urllib3 import BaseHTTPResponse

    from taskbridge.transport import Network

_NO_RETRIES: Final = Retry(False, redirect=False)  # retries are decided elsewhere
_LIMITS: Final = Timeout(connect=responses.CONNECT_LIMIT, read=responses.READ_LIMIT)  # within the deadline
_QUERY: Final = re.compile(r"\?.*", re.DOTALL)
_MOST_LINES: Final = 200  # of a header; `check_headers` refuses more than 99 fields
_MOST_HOSTS: Final = 8  # hosts to which connections are kept
_CONNECT_LEAST: Final = 0.05  # seconds for the last of many addresses
_UNLIMITED: Final = 86_400.0  # seconds; only the deadline counts


class _CurrentRequest(local):
    """The request that this thread is sending, and what has happened to it."""

    request = Request("GET", "")
    max_body = 0
    deadline = 0.0  # monotonic seconds
    silence = responses.READ_LIMIT  # most seconds of one read
    written = False  # whether a byte of the request may have been sent
    reused = False  # whether an open connection was reused
    received = 0  # bytes of the response so far
    ended = False  # whether the peer closed the connection while we were reading
    sending = False  # whether this thread is sending a request of ours
    fields: dict[str, str]  # header fields of the response
    origins: _Origins
    connection: _DeadlineConnection | None = None

    def begin(self, request: Request, deadline: float, max_body: int) -> None:
        """Start a new request."""
        self.request, self.deadline, self.max_body = request, deadline, max_body
        self.silence = max(responses.READ_LIMIT, request.long_poll or 0.0)
        self.written = self.reused = self.ended = False
        self.sending = True
        self.received = 0
        self.fields = {}

    def remaining(self, limit: float) -> float:
        """Return the seconds left for one operation; never zero, which would mean non-blocking."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return min(left, limit)


current: Final = _CurrentRequest()


class RequestsTransport:
    """Sends requests in the caller's thread, and keeps at most `size` connections to each of the last few hosts.

    It is safe to use from several threads and after a fork.
    """

    def __init__(self, network: Network, *, size: int = 32, user_agent: str = "taskbridge") -> None:
        self._network = network
        self._size = size
        self._user_agent = user_agent
        self._origins = _Origins(network, size)

    def close(self) -> None:
        """Close the connections; requests in flight end with an error."""
        self._origins.close()

    def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        """See `taskbridge.transport.Transport`."""
        current.begin(request, deadline, max_body)
        failure: BaseException
        try:
            return self._send(request, max_body)
        except TaskbridgeError as error:
            failure = error
        except Exception as error:  # noqa: BLE001  # one table maps whatever the library raises
            is_closed = self._origins.is_closed
            failure = _local_error(error, request) or _translated(error)
            failure = responses.closed_error(written=current.written) if is_closed else failure
        except BaseException as error:  # noqa: BLE001  # an interruption, without the frames that hold credentials
            failure = error
        finally:
            current.sending = False
        try:
            raise without_traceback(failure)
        finally:
            del failure  # or the error and this frame reference each other

    def _send(self, request: Request, max_body: int) -> Response:
        body = None if request.body is None else body_stream(request)  # one call less in each poll
        headers = {"User-Agent": self._user_agent, "Accept-Encoding": "identity", **request.headers}
        if request.save_to is not None:
            headers.update(request.save_to.headers)
        if body is not None:
            headers.update(body.headers)
            headers["Content-Length"] = str(body.length)
        origins = self._origins
        if origins.is_closed:
            raise responses.closed_error(written=False)
        if origins.pid != os.getpid():
            # After a fork, the parent's connections and locks must not be used.
            origins = self._origins = _Origins(self._network, self._size)
        pool, target = origins.route(request.url)
        current.origins = origins
        try:
            raw: BaseHTTPResponse = pool.urlopen(
                request.method,
                target,
                body=None if body is None else body.head if body.source is None else body.blocks(),
                headers=headers,
                retries=_NO_RETRIES,
                redirect=False,
                assert_same_host=False,
                preload_content=False,
                decode_content=False,
                timeout=_LIMITS,
            )
            try:
                response = _read(raw, request, max_body)
            except BaseException:
                raw.close()
                raise
            raw.release_conn()
        finally:
            origins.in_use.discard(current.connection)
        return response


class _Origins:
    """The connection pools of the origins (scheme, host, port) used last, for one process.

    A pool that is no longer used by a request nor kept here closes its connections.
    """

    def __init__(self, network: Network, size: int) -> None:
        self.pid = os.getpid()
        self._network = network
        self._size = size
        self.in_use: set[_DeadlineConnection | None] = set()
        self.is_closed = False
        self._adapters: dict[bool, _Adapter] = {}  # by whether they need TLS
        self._lock = Lock()
        # By origin, the one used last at the end; whether a forwarding proxy needs the whole URL.
        self._pools: dict[str, tuple[Any, bool]] = {}

    def route(self, url: str) -> tuple[Any, str]:
        """Return the connection pool for a URL, and the target of its request line."""
        parts = urlsplit(url)
        key = f"{parts.scheme}://{parts.netloc}"
        with self._lock:
            found = self._pools.pop(key, None) or self._find(url, parts)
            self._pools[key] = found
            if len(self._pools) > _MOST_HOSTS:
                del self._pools[next(iter(self._pools))]
        pool, forwarded = found
        path = parts.path or "/"
        return pool, url if forwarded else f"{path}?{parts.query}" if parts.query else path

    def _find(self, url: str, parts: SplitResult) -> tuple[Any, bool]:
        proxy = self._network.proxy_for(parts.scheme, parts.hostname or "", parts.port)
        adapter = self._adapter(secure="https" in (parts.scheme, urlsplit(proxy or "").scheme))
        manager: Any = adapter.proxy_manager_for(proxy) if proxy else adapter.poolmanager
        return manager.connection_from_url(url), proxy is not None and parts.scheme == "http"

    def _adapter(self, *, secure: bool) -> _Adapter:
        adapter = self._adapters.get(secure)
        if adapter is None:
            context = responses.tls_context(self._network) if secure else None
            adapter = self._adapters.setdefault(secure, _Adapter(context, self._size))
        return adapter

    def close(self) -> None:
        self.is_closed = True
        with self._lock:
            pools, self._pools = self._pools, {}
        for pool, _ in pools.values():
            pool.close()
        for adapter in self._adapters.values():
            adapter.close()
        self._adapters.clear()
        if self.pid == os.getpid():  # after a fork the parent's sockets are shared with it
            for connection in self.in_use.copy():
                if connection is not None:
                    connection.interrupt()


def _read(raw: BaseHTTPResponse, request: Request, max_body: int) -> Response:
    fields = current.fields
    if request.save_to is not None and raw.status < 300:
        with closing(responses.file_writer(raw.status, fields, request.save_to)) as file:
            next(file)
            while block := raw.read1(responses.BLOCK, decode_content=False):
                current.deadline += file.send(block)
            _check_end()
            file.send(b"")
        return Response(raw.status, fields, b"")
    if "content-length" in fields:
        body = raw.read(int(fields["content-length"]), decode_content=False)
    else:
        whole = BytesIO()
        while block := raw.read(responses.BLOCK, decode_content=False):
            if whole.tell() + len(block) > max_body:
                raise responses.too_large_error(max_body, raw.status)
            whole.write(block)
        body = whole.getvalue()
    _check_end()
    return responses.complete_response(request, raw.status, fields, body, max_body)


def _check_end() -> None:
    """Detect a connection that ended before a body of stated length."""
    if current.ended and ("content-length" in current.fields or "transfer-encoding" in current.fields):
        raise TruncatedResponse("the answer broke off")


# Connections with deadlines.


class _QueryFilter(logging.Filter):
    """Removes the query from what urllib3 logs about our requests: a presigned link is a secret."""

    def filter(self, record: logging.LogRecord) -> bool:
        if current.sending and isinstance(record.args, tuple):
            record.args = tuple(_QUERY.sub("?…", each) if isinstance(each, str) else each for each in record.args)
        return True


logging.getLogger("urllib3.connectionpool").addFilter(_QueryFilter())


class _DeadlineReader(io.RawIOBase):
    """A socket reader that checks the total deadline at each read."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        self._sock.settimeout(current.remaining(current.silence))
        count = cast("int | None", self._raw.readinto(buffer))
        current.received += count or 0
        current.ended = not count
        return count

    def readall(self) -> bytes:
        # http.client reads a chunk of size -1 as "everything".
        raise HTTPException("nothing here reads without a limit")

    def close(self) -> None:
        self._raw.close()
        super().close()


class _DeadlineResponse(HTTPResponse):
    """A response that is read by `_DeadlineReader`, and whose header is checked before its body is read."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_DeadlineReader(self.fp.detach(), sock))

    def begin(self) -> None:
        # Like http.client's own, which uses the parser for mail; that takes half of the time of a request.
        base: Any = self
        if base.headers is not None:
            return
        version, status, reason = base._read_status()  # noqa: SLF001  # our own base class
        pairs = self._pairs()
        while 100 <= status < 200 and status != 101:  # an interim response
            version, status, reason = base._read_status()  # noqa: SLF001  # our own base class
            pairs = self._pairs()
        self.code = self.status = status
        self.reason = reason.strip()
        self.version = 10 if version in ("HTTP/1.0", "HTTP/0.9") else 11
        if not version.startswith(("HTTP/1.", "HTTP/0.9")):
            raise UnknownProtocol(version)
        self.headers = self.msg = HTTPMessage()
        for name, value in pairs:
            self.headers[name] = value
        current.fields = fields = responses.header_fields(pairs)
        responses.check_headers(current.request, status, fields, len(pairs), current.max_body)
        coding, length = fields.get("transfer-encoding", ""), fields.get("content-length")
        self.chunked, self.chunk_left = coding.lower() == "chunked", None
        self.length = None if length is None or self.chunked else int(length)
        if status in (204, 304) or base._method == "HEAD":  # noqa: SLF001  # our own base class
            self.length = 0
        endless = self.length is None and not self.chunked
        self.will_close = endless or base._check_close()  # noqa: SLF001  # our own base class

    def _pairs(self) -> list[tuple[str, str]]:
        """Read the header fields."""
        pairs: list[tuple[str, str]] = []
        for _ in range(_MOST_LINES):
            line = self.fp.readline(responses.LONGEST_LINE + 1)
            if len(line) > responses.LONGEST_LINE:
                raise LineTooLong("header line")
            if current.ended and not line.endswith(b"\n"):  # http.client takes this for the end of the header
                raise TruncatedResponse("the answer ended inside its headers")
            if line in (b"\r\n", b"\n"):
                return pairs
            if not responses.add_field(pairs, line):
                raise HTTPException("a header line cannot be read")
        raise HTTPException(f"got more than {_MOST_LINES} headers")


class _DeadlineConnection(HTTPConnection):
    """A connection that enforces the total deadline and records what happens."""

    response_class = _DeadlineResponse
    reusable = False  # whether a response has arrived over the present socket

    def _new_conn(self) -> socket.socket:
        # Like urllib3's own, but the limit is for all addresses together, not for each.
        until = time.monotonic() + responses.CONNECT_LIMIT
        last_error: OSError | None = None
        addresses = _addresses(self._dns_host, self.port)
        if current.request.public_only and self.proxy is None:
            addresses = [each for each in addresses if is_public(each[4][0])]
            if not addresses:
                raise responses.not_public_error()
        for family, kind, protocol, _, address in addresses:
            sock = socket.socket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                sock.settimeout(_left(until))
                sock.connect(address)
                sock.settimeout(_left(until))  # for the handshake
            except OSError as error:
                last_error = error
                sock.close()
            except BaseException:  # an interruption
                sock.close()
                raise
            else:
                return sock
        raise last_error or OSError("the name has no address")

    def connect(self) -> None:
        self.reusable = current.reused = False
        super().connect()
        current.written = False  # what was sent to a proxy is not the request

    def request(self, *args: Any, **kwargs: Any) -> None:
        current.reused = self.reusable
        super().request(*args, **kwargs)

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        if current.origins.is_closed:  # `close` may have come too early to interrupt this connection
            raise responses.closed_error(written=False)
        cast("socket.socket", self.sock).settimeout(current.remaining(_UNLIMITED))
        current.written = True
        super().send(data)

    def interrupt(self) -> None:
        """End the request of another thread."""
        with suppress(OSError):  # it has just ended
            sock: Any = self.sock  # within the tunnel of a TLS proxy, an object around the socket
            if sock is not None:
                getattr(sock, "socket", sock).shutdown(socket.SHUT_RDWR)

    def getresponse(self) -> Any:
        response = super().getresponse()
        self.reusable = True
        return response


def _left(until: float) -> float:
    return current.remaining(max(_CONNECT_LEAST, until - time.monotonic()))


def _addresses(host: str, port: int) -> list[Any]:
    """Resolve a host name; the resolver has no time limit, so it runs in a thread that may be abandoned."""
    found: list[Any] = []
    errors: list[Exception] = []

    def resolve() -> None:
        try:
            found.extend(socket.getaddrinfo(host, port, allowed_gai_family(), socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            errors.append(error)

    if ":" in host or host.rpartition(".")[2].isdigit():  # an address
        resolve()
    else:
        thread = Thread(target=resolve, name="taskbridge-resolver", daemon=True)
        thread.start()
        thread.join(current.remaining(responses.CONNECT_LIMIT))
    if errors:
        raise errors[0]
    if not found:
        raise TimeoutError
    return found


class _TlsConnection(_DeadlineConnection, HTTPSConnection):
    """The same over TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls: Any = _DeadlineConnection

    def _get_conn(self, timeout: float | None = None) -> Any:
        connection = current.connection = cast("_DeadlineConnection", super()._get_conn(timeout))
        current.origins.in_use.add(connection)
        if current.request.new_connection or current.request.public_only:
            connection.close()  # reopened when used
        return connection

    def _put_conn(self, conn: Any) -> None:
        if conn is not None and self.pool is not None and self.pool.full():
            conn.close()  # more threads than places in the pool; urllib3 would log a warning each time
            return
        if conn is not None and current.request.external:
            conn.close()  # there may be any number of such hosts
        super()._put_conn(conn)


class _TlsPool(_Pool, HTTPSConnectionPool):
    ConnectionCls: Any = _TlsConnection


class _Adapter(HTTPAdapter):
    """requests' adapter with `_DeadlineConnection`; the context is for https."""

    def __init__(self, context: ssl.SSLContext | None, size: int) -> None:
        self._tls: dict[str, Any] = {} if context is None else {"ssl_context": context}
        super().__init__(pool_connections=_MOST_HOSTS, pool_maxsize=size, max_retries=0)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **kwargs: Any) -> None:
        """See `HTTPAdapter`."""
        super().init_poolmanager(connections, maxsize, block, **kwargs, **self._tls)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """See `HTTPAdapter`."""
        manager: Any = super().proxy_manager_for(proxy, **kwargs, **self._tls)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
        return manager


# Errors.

# Library's exceptions -> our class and message, the most specific first.
_Kinds: TypeAlias = type[BaseException] | tuple[type[BaseException], ...]
_INCOMPLETE: Final = (exceptions.IncompleteRead, exceptions.InvalidChunkLength, IncompleteRead)
_ERRORS: Final[tuple[tuple[_Kinds, type[TaskbridgeError], str], ...]] = (
    (ssl.SSLCertVerificationError, TlsError, "the host's certificate cannot be trusted"),
    ((exceptions.ReadTimeoutError, TimeoutError), DeadlineExceeded, f"no data for {responses.READ_LIMIT:g} s"),
    (ssl.SSLError, TruncatedResponse, "the connection broke off"),
    (_INCOMPLETE, TruncatedResponse, "the answer broke off"),
    (RemoteDisconnected, TruncatedResponse, "the host closed the connection without an answer"),
    (HTTPException, MalformedResponse, "the answer is not HTTP"),
    (OSError, TruncatedResponse, "the connection broke off"),
    (exceptions.HeaderParsingError, MalformedResponse, "the answer's headers cannot be read"),
    (exceptions.ProtocolError, TruncatedResponse, "the connection broke off"),
)

# The same before a byte of the request was sent.
_BROKEN: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionResetError, BrokenPipeError)
_ERRORS_BEFORE: Final[tuple[tuple[_Kinds, type[TaskbridgeError], str], ...]] = (
    (ssl.SSLCertVerificationError, TlsError, "the host's certificate cannot be trusted"),
    (exceptions.ProxyError, ConnectFailed, "the proxy cannot be reached"),
    (socket.gaierror, ConnectFailed, "the host's name cannot be resolved"),
    (TimeoutError, ConnectFailed, f"no connection within {responses.CONNECT_LIMIT:g} s"),
    (_BROKEN, ConnectFailed, "the connection broke off before the request was sent"),
    ((ssl.SSLError, exceptions.SSLError), TlsError, "the TLS handshake failed"),
    (OSError, ConnectFailed, "the host refuses connections or cannot be reached"),
    (exceptions.LocationParseError, ConnectFailed, "the URL's host cannot be used"),
    (ValueError, ConnectFailed, "the URL or a header field cannot be sent"),
)


def _local_error(error: Exception, request: Request) -> OSError | None:
    """Return the error of a local file; urllib3 wraps it if it occurs while the body is sent."""
    return next((each for each in _causes(error) if isinstance(each, OSError) and is_local_error(each, request)), None)


def _translated(error: Exception) -> TaskbridgeError:
    """Return our error for one of the library."""
    error_class, message = _classify(error)
    return responses.request_error(
        error_class, message, written=current.written, stale=current.reused and current.received == 0
    )


def _classify(error: BaseException) -> tuple[type[TaskbridgeError], str]:
    chain = list(_causes(error))
    late = any(isinstance(e, TimeoutError | exceptions.TimeoutError) for e in chain)
    if late and time.monotonic() >= current.deadline:
        return DeadlineExceeded, "the total time for the request ran out"
    if current.ended and any(_is_cut(e) for e in chain):
        return TruncatedResponse, "the answer ended inside its status line"
    if not current.ended and any(isinstance(e, IncompleteRead) for e in chain):
        return MalformedResponse, "the answer's chunks cannot be read"
    for kinds, error_class, message in _ERRORS if current.written else _ERRORS_BEFORE:
        if any(isinstance(e, kinds) for e in chain):
            return error_class, message
    if current.received:
        return MalformedResponse, f"the answer is not HTTP ({type(error).__name__})"
    return TransportError, f"the request failed ({type(error).__name__})"


def _is_cut(error: BaseException) -> bool:
    """Whether a status line is the beginning of a valid one."""
    if not isinstance(error, BadStatusLine):
        return False
    line = str(error.args[0])
    return not line.endswith("\n") and any(line[:9] == start[: len(line)] for start in ("HTTP/1.1 ", "HTTP/1.0 "))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it wraps, outermost first."""
    found: object = error
    for _ in range(6):
        if not isinstance(found, BaseException):
            return
        yield found
        inner = [a for a in found.args if isinstance(a, BaseException)]
        found = inner[0] if inner else getattr(found, "reason", None) or found.__cause__ or found.__context__
