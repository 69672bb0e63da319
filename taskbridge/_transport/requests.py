"""The synchronous transport, on requests' adapter and on urllib3 connections that enforce a total deadline.

It uses the connection pools and proxy managers of requests, but not its sessions (redirects, cookies, environment,
hooks). urllib3's time limits are per socket operation: a response that drips a byte at a time never ends. A connection
here opens its own socket, tunnel and TLS, so that it knows which peer failed, and checks the total deadline at each
name lookup, connection, handshake, read and write. It also records what happened to the request: whether a byte was
sent, whether the connection was reused, whether the peer closed it. Every failure becomes one of our errors, raised
after the library's exception is gone: that one may print a credential.

No private part of another library is used. What is replaced are public members: `connect`, `set_tunnel`, `request`,
`send` and `getresponse` of urllib3's connections, `ConnectionCls` and `QueueCls` of its pools, `begin` of http.client's
response. It was tried with urllib3 2.7 and 2.8, and with Python 3.11 to 3.13.
"""

from __future__ import annotations

import io
import socket
import ssl
import time
from collections import deque
from contextlib import closing, suppress
from http.client import HTTPException, HTTPMessage, HTTPResponse, IncompleteRead, LineTooLong, RemoteDisconnected
from io import BytesIO
from queue import Empty
from threading import Lock, Thread, local
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast
from urllib.parse import urlsplit

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, Retry, Timeout, exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.connection import allowed_gai_family
from urllib3.util.ssltransport import SSLTransport

from taskbridge._fork import renew_after_fork
from taskbridge._transport import responses
from taskbridge._transport.bodies import body_stream, is_local_error
from taskbridge.errors import (
    DeadlineExceeded,
    MalformedResponse,
    TaskbridgeError,
    TransportError,
    TruncatedResponse,
)
from taskbridge.provider.addresses import is_public
from taskbridge.provider.http import Request, Response
from taskbridge.provider.secrets import without_traceback

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from urllib3 import BaseHTTPResponse

    from taskbridge.transport import Network

_NO_RETRIES: Final = Retry(False, redirect=False)  # retries are decided elsewhere
_LIMITS: Final = Timeout(connect=responses.CONNECT_LIMIT, read=responses.READ_LIMIT)  # within the deadline
_MOST_HOSTS: Final = 8  # hosts to which connections are kept
_CONNECT_LEAST: Final = 0.05  # seconds for the last of many addresses
_UNLIMITED: Final = 86_400.0  # seconds; only the deadline counts
_PROXY_HEAD: Final = 65_536  # bytes of a proxy's answer


class _CurrentRequest(local):
    """The request that this thread is sending, and what has happened to it."""

    request = Request("GET", "")
    target = ""  # of the request line
    proxy = ""  # that forwards the request, as messages name it; empty for none
    max_body = 0
    deadline = 0.0  # monotonic seconds
    silence = responses.READ_LIMIT  # most seconds of one read
    written = False  # whether a byte of the request may have been sent
    reused = False  # whether an open connection was reused
    received = 0  # bytes of the response so far
    ended = False  # whether the peer closed the connection while we were reading
    fields: dict[str, str]  # header fields of the response
    origins: _Origins
    connection: _DeadlineConnection | None = None

    def begin(self, request: Request, deadline: float, max_body: int) -> None:
        """Start a new request."""
        self.request, self.deadline, self.max_body = request, deadline, max_body
        self.silence = max(responses.READ_LIMIT, request.long_poll or 0.0)
        self.written = self.reused = self.ended = False
        self.received = 0
        self.fields = {}
        self.connection = None

    def use(self, connection: _DeadlineConnection) -> None:
        """Note the connection, so that `close` can end the request."""
        self.connection = connection
        self.origins.in_use.add(connection)

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
        renew_after_fork(self, RequestsTransport._begin_process)

    def _begin_process(self) -> None:
        """Begin without connections: those of a parent must not be used in its child."""
        self._origins = _Origins(self._network, self._size)

    def close(self) -> None:
        """Close the connections; requests in flight end with an error."""
        self._origins.close()

    def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        """See `taskbridge.transport.Transport`."""
        current.begin(request, deadline, max_body)
        failure: BaseException
        try:
            return self._send(request, max_body)
        except Exception as error:  # noqa: BLE001  # one table maps whatever the library raises
            is_ours = isinstance(error, TaskbridgeError)
            failure = error if is_ours else _local_error(error, request) or _translated(error)
            if self._origins.is_closed:  # and so the connection broke off, or what was read of the response is a part
                failure = responses.closed_error(written=current.written)
        except BaseException as error:  # noqa: BLE001  # an interruption, without the frames that hold credentials
            failure = error
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
        pool, origin, current.target, current.proxy = origins.route(request.url)
        current.origins = origins
        try:
            raw: BaseHTTPResponse = pool.urlopen(
                request.method,
                origin,
                body=None if body is None else body.blocks() if body.whole is None else body.whole,
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
            if current.connection is not None:
                origins.in_use.discard(current.connection)
        return response


class _Origins:
    """The connection pools of the origins (scheme, host, port) used last, for one process.

    A pool that is no longer used by a request nor kept here closes its connections.
    """

    def __init__(self, network: Network, size: int) -> None:
        self._network = network
        self._size = size
        self.in_use: set[_DeadlineConnection] = set()
        self.is_closed = False
        self._adapters: dict[bool, _Adapter] = {}  # by whether they need TLS
        # By origin, the one used last at the end; and the proxy that forwards its requests.
        self._pools: dict[str, tuple[Any, str]] = {}
        renew_after_fork(self, _Origins._make_lock)

    def _make_lock(self) -> None:
        self._lock = Lock()

    def route(self, url: str) -> tuple[Any, str, str, str]:
        """Return how a URL is reached.

        They are: the connection pool, the URL for it, the target of the request line, the proxy that forwards the
        request. A pool would rewrite the target (``%2f``, dots), and log it: it gets the origin only.
        """
        origin, target = responses.split_target(url)
        with self._lock:
            found = self._pools.pop(origin, None) or self._find(origin)
            self._pools[origin] = found
            if len(self._pools) > _MOST_HOSTS:
                del self._pools[next(iter(self._pools))]
        pool, forwarding = found
        return (pool, f"{origin}/", f"{origin}{target}", forwarding) if forwarding else (pool, "/", target, "")

    def _find(self, origin: str) -> tuple[Any, str]:
        parts = urlsplit(origin)
        proxy = self._network.proxy_for(parts.scheme, parts.hostname or "", parts.port)
        adapter = self._adapter(secure="https" in (parts.scheme, urlsplit(proxy or "").scheme))
        manager: Any = adapter.proxy_manager_for(proxy) if proxy else adapter.poolmanager
        forwarding = responses.proxy_peer(proxy) if proxy and parts.scheme == "http" else ""
        return manager.connection_from_url(origin), forwarding

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
        for connection in self.in_use.copy():
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
        version, status = self._status_line()
        pairs = self._pairs()
        while 100 <= status < 200 and status != 101:  # an interim response
            version, status = self._status_line()
            pairs = self._pairs()
        self.code = self.status = status
        self.reason, self.version = "", version
        self.headers = self.msg = HTTPMessage()
        for name, value in pairs:
            self.headers[name] = value
        current.fields = fields = responses.header_fields(pairs)
        if current.proxy:
            responses.check_forwarded(status, current.proxy)
        responses.check_headers(current.request, status, fields, len(pairs), current.max_body)
        coding, length = fields.get("transfer-encoding", ""), fields.get("content-length")
        self.chunked, self.chunk_left = coding.lower() == "chunked", None
        self.length = None if length is None or self.chunked else int(length)
        if status in (204, 304) or current.request.method == "HEAD":
            self.length = 0
        endless = self.length is None and not self.chunked
        self.will_close = endless or version == 10 or "close" in fields.get("connection", "").lower()

    def _status_line(self) -> tuple[int, int]:
        """Read the status line; return the version as http.client numbers it, and the status."""
        line = self.fp.readline(responses.LONGEST_LINE + 1)
        if not line:
            raise RemoteDisconnected("no answer")
        match = responses.STATUS_LINE.fullmatch(line)
        if match is not None:
            return 10 + int(match[1]), int(match[2])
        begins_well = any(line[:9] == start[: len(line)] for start in (b"HTTP/1.1 ", b"HTTP/1.0 "))
        if current.ended and not line.endswith(b"\n") and begins_well:
            raise TruncatedResponse("the answer ended inside its status line")
        raise MalformedResponse("the answer is not HTTP", repeats=1)

    def _pairs(self) -> list[tuple[str, str]]:
        """Read the header fields."""
        pairs: list[tuple[str, str]] = []
        for _ in range(responses.MOST_LINES):
            line = self.fp.readline(responses.LONGEST_LINE + 1)
            if len(line) > responses.LONGEST_LINE:
                raise LineTooLong("header line")
            if current.ended and not line.endswith(b"\n"):  # http.client takes this for the end of the header
                raise TruncatedResponse("the answer ended inside its headers")
            if line in (b"\r\n", b"\n"):
                return pairs
            if not responses.add_field(pairs, line):
                raise HTTPException("a header line cannot be read")
        raise HTTPException(f"got more than {responses.MOST_LINES} headers")


class _DeadlineConnection(HTTPConnection):
    """A connection that enforces the total deadline and records what happens."""

    response_class = _DeadlineResponse
    reusable = False  # whether a response has arrived over the present socket

    def __init__(self, host: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(host, *args, **kwargs)
        self._full_name = host  # with a final dot, which the resolver needs and a certificate does not have
        self._wanted_tunnel: tuple[str, Mapping[str, str], bool] | None = None

    @property
    def has_connected_to_proxy(self) -> bool:
        """Whether urllib3 may leave errors as they are: those of `connect` say which peer failed."""
        return True

    def set_tunnel(
        self, host: str, port: int | None = None, headers: Mapping[str, str] | None = None, scheme: str = "http"
    ) -> None:
        """Ask the proxy for a tunnel when connecting; the scheme is the proxy's."""
        super().set_tunnel(host, port, headers, scheme)  # the Host header depends on it
        name = f"[{host}]" if ":" in host and not host.startswith("[") else host
        self._wanted_tunnel = (f"{name}:{port or 443}", headers or {}, scheme == "https")

    def connect(self) -> None:
        """Open the socket, the tunnel and TLS, all within one limit.

        Raises:
            TaskbridgeError: It is one of `responses.Fault`, and names the peer that failed.
        """
        current.use(self)
        self.reusable = current.reused = False
        until = time.monotonic() + responses.CONNECT_LIMIT
        proxy = None if self.proxy is None else responses.proxy_peer(str(self.proxy))
        peer = proxy or responses.HOST
        sock: Any = None
        failure: TaskbridgeError | None = None
        try:
            sock = self._open(until)
            if self._wanted_tunnel is not None and proxy is not None:
                target, headers, is_secure = self._wanted_tunnel
                if is_secure:
                    sock = _encrypted(sock, self.context, self.host, until)
                spare = _open_tunnel(sock, target, headers, proxy, until)
                peer = responses.host_behind(proxy)
                if spare:
                    raise responses.connect_error(responses.NO_TLS, peer)
                sock = _encrypted(sock, self.context, target.rpartition(":")[0].strip("[]"), until)
            elif self.context is not None:
                sock = _encrypted(sock, self.context, self.host, until)
            self.sock, self.is_verified, sock = sock, True, None
        except TaskbridgeError as error:
            failure = error
        except (OSError, ValueError) as error:
            failure = _connect_error(error, peer)
        finally:
            if sock is not None:
                sock.close()
        if failure is not None:
            raise failure

    @property
    def context(self) -> ssl.SSLContext | None:
        """The certificates to trust; None for plain http."""
        return None

    def _open(self, until: float) -> socket.socket:
        # The limit is for all addresses together, not for each.
        last_error: OSError | None = None
        addresses = _addresses(self._full_name, self.port)
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
            except OSError as error:
                last_error = error
                sock.close()
            except BaseException:  # an interruption
                sock.close()
                raise
            else:
                return sock
        raise last_error or OSError("the name has no address")

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002  # see `_Origins.route`
        """Send the request with its own target, in place of the one that the pool was given."""
        current.use(self)
        current.reused = self.reusable
        super().request(method, current.target, *args, **kwargs)

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


def _encrypted(sock: Any, context: ssl.SSLContext | None, host: str, until: float) -> Any:
    """Return a connection with TLS over a socket, which may have TLS itself."""
    trusted, name = cast("ssl.SSLContext", context), host.rstrip(".")
    sock.settimeout(_left(until))
    if isinstance(sock, ssl.SSLSocket):
        return SSLTransport(sock, trusted, name)
    return trusted.wrap_socket(sock, server_hostname=name)


def _open_tunnel(sock: Any, target: str, headers: Mapping[str, str], proxy: str, until: float) -> bytes:
    """Ask a proxy for a connection to a host; return what it sent behind its answer."""
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", *(f"{name}: {text}" for name, text in headers.items())]
    sock.settimeout(_left(until))
    sock.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1"))
    answer = b""
    while b"\r\n\r\n" not in answer and len(answer) <= _PROXY_HEAD:
        sock.settimeout(_left(until))
        block = sock.recv(4096)
        if not block:
            raise responses.connect_error(responses.BROKEN, proxy)
        answer += block
    head, _, rest = answer.partition(b"\r\n\r\n")
    match = responses.STATUS_LINE.fullmatch(head.partition(b"\n")[0] + b"\n")
    if match is None or len(head) > _PROXY_HEAD:
        raise responses.connect_error(responses.NO_TUNNEL, proxy)
    if not 200 <= (status := int(match[2])) <= 299:
        raise responses.refused_tunnel_error(status, proxy)
    return rest


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

    @property
    def context(self) -> ssl.SSLContext | None:
        base: Any = self
        found: ssl.SSLContext | None = base.ssl_context
        return found


class _KeptConnections:
    """The connections of a pool that are open and not in use, the newest first.

    Without a lock: a fork would copy one that another thread holds.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._connections: deque[Any] = deque()

    def get(self, block: bool = False, timeout: float | None = None) -> Any:  # noqa: ARG002  # as a queue
        try:
            connection = self._connections.pop()
        except IndexError:
            raise Empty from None
        if current.request.new_connection or current.request.public_only:
            connection.close()  # reopened when used
        return connection

    def put(self, connection: Any, block: bool = False, timeout: float | None = None) -> None:  # noqa: ARG002
        if connection is None:  # urllib3's placeholder for one that is not open
            return
        if len(self._connections) < self._size and not current.request.external:
            self._connections.append(connection)
        else:
            connection.close()  # more threads than places, or one of any number of hosts


class _Pool(HTTPConnectionPool):
    ConnectionCls: Any = _DeadlineConnection
    QueueCls: Any = _KeptConnections


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls: Any = _TlsConnection
    QueueCls: Any = _KeptConnections


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

_Kinds: TypeAlias = type[BaseException] | tuple[type[BaseException], ...]

# While connecting: exceptions -> the fault, the most specific first.
_ENDED: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionResetError, BrokenPipeError)
_CONNECTING: Final[tuple[tuple[_Kinds, responses.Fault], ...]] = (
    (ssl.SSLCertVerificationError, responses.UNTRUSTED),
    (socket.gaierror, responses.UNRESOLVED),
    (TimeoutError, responses.SLOW),
    (_ENDED, responses.BROKEN),
    (ssl.SSLError, responses.NO_TLS),
    (OSError, responses.UNREACHABLE),
    (ValueError, responses.UNUSABLE_HOST),
)

# Otherwise before a byte of the request was sent.
_UNSENT: Final[tuple[tuple[_Kinds, responses.Fault], ...]] = (
    (exceptions.LocationParseError, responses.UNUSABLE_HOST),
    (ValueError, responses.UNUSABLE_REQUEST),
)

# Later: exceptions -> our class and message.
_INCOMPLETE: Final = (exceptions.IncompleteRead, exceptions.InvalidChunkLength, IncompleteRead)
_ERRORS: Final[tuple[tuple[_Kinds, type[TaskbridgeError], str], ...]] = (
    ((exceptions.ReadTimeoutError, TimeoutError), DeadlineExceeded, f"no data for {responses.READ_LIMIT:g} s"),
    (ssl.SSLError, TruncatedResponse, "the connection broke off"),
    (_INCOMPLETE, TruncatedResponse, "the answer broke off"),
    (RemoteDisconnected, TruncatedResponse, "the host closed the connection without an answer"),
    (HTTPException, MalformedResponse, "the answer is not HTTP"),
    (OSError, TruncatedResponse, "the connection broke off"),
    (exceptions.HeaderParsingError, MalformedResponse, "the answer's headers cannot be read"),
    (exceptions.ProtocolError, TruncatedResponse, "the connection broke off"),
)


def _local_error(error: Exception, request: Request) -> OSError | None:
    """Return the error of a local file; urllib3 wraps it if it occurs while the body is sent."""
    return next((each for each in _causes(error) if isinstance(each, OSError) and is_local_error(each, request)), None)


def _connect_error(error: Exception, peer: str) -> TaskbridgeError:
    """Return our error for one that arose while connecting."""
    if isinstance(error, TimeoutError) and time.monotonic() >= current.deadline:
        return responses.connect_error(responses.LATE, peer)
    return responses.connect_error(next(fault for kinds, fault in _CONNECTING if isinstance(error, kinds)), peer)


def _translated(error: Exception) -> TaskbridgeError:
    """Return our error for one of the library."""
    chain = list(_causes(error))
    ours = next((each for each in chain if isinstance(each, TaskbridgeError)), None)
    if ours is not None:  # urllib3 takes a deadline for a timeout of its own
        return ours
    if not current.written:
        faults = (fault for kinds, fault in _UNSENT if any(isinstance(each, kinds) for each in chain))
        if (fault := next(faults, None)) is not None:
            return responses.connect_error(fault)
    error_class, message = _classify(chain)
    stale = current.reused and current.received == 0
    return responses.request_error(error_class, message, written=current.written, stale=stale)


def _classify(chain: list[BaseException]) -> tuple[type[TaskbridgeError], str]:
    late = any(isinstance(e, TimeoutError | exceptions.TimeoutError) for e in chain)
    if late and time.monotonic() >= current.deadline:
        return DeadlineExceeded, "the total time for the request ran out"
    if not current.ended and any(isinstance(e, IncompleteRead) for e in chain):
        return MalformedResponse, "the answer's chunks cannot be read"
    for kinds, error_class, message in _ERRORS:
        if any(isinstance(e, kinds) for e in chain):
            return error_class, message
    kind = type(chain[0]).__name__
    if current.received:
        return MalformedResponse, f"the answer is not HTTP ({kind})"
    return TransportError, f"the request failed ({kind})"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it wraps, outermost first."""
    found: object = error
    for _ in range(6):
        if not isinstance(found, BaseException):
            return
        yield found
        inner = [a for a in found.args if isinstance(a, BaseException)]
        found = inner[0] if inner else getattr(found, "reason", None) or found.__cause__ or found.__context__
