"""The transport on libcurl (extra ``curl``), for the synchronous and the asynchronous interface alike.

While requests are in flight, one thread runs libcurl's multi interface for all of them, and hands the responses of each
turn over at once. libcurl sends a request again by itself where a kept connection has died; here such a second attempt
is stopped before its first byte, because retries are decided in one place, elsewhere.
"""

from __future__ import annotations

import asyncio
import re
import selectors
import socket
import threading
import time
import weakref
from collections import defaultdict, deque
from functools import lru_cache
from io import BytesIO
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self
from urllib.parse import urlsplit

import certifi
import pycurl

from taskbridge._fork import renew_after_fork
from taskbridge._transport import responses
from taskbridge._transport.bodies import BodyStream, body_stream
from taskbridge.errors import (
    DeadlineExceeded,
    MalformedResponse,
    TaskbridgeError,
    TransportError,
    TruncatedResponse,
)
from taskbridge.provider.addresses import is_public
from taskbridge.provider.http import Response
from taskbridge.provider.secrets import without_traceback

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from taskbridge.provider.http import Request
    from taskbridge.transport import Network

_CHECK_INTERVAL: Final = 1.0  # seconds; most time between two checks for a host that has fallen silent
_MOST_HEADERS: Final = 16  # headers whose lines are kept; polls all have the same
_MOST_NAMES: Final = 256  # host names whose addresses are kept
_IDLE: Final = 0.5  # seconds without a request after which the thread ends
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # a method
_FIELD: Final = re.compile(
    r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+[:;][\t\x20-\x7e\x80-\xff]*"
)  # a header field that may be sent
_BODY_METHODS: Final = frozenset({"POST", "PUT", "PATCH"})  # send a length even without a body
_E_PROXY: Final = 97  # codes that pycurl does not name
_E_TOO_LARGE: Final = 100
_TLS_ENDED: Final = ("unexpected eof", "error:00000000")  # OpenSSL's words for a peer that closes in the handshake
_NAME_LIFE: Final = 60.0  # seconds for which the addresses of a name are used, as in libcurl
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
# What libcurl waits for at a socket -> the same for the selector.
_EVENTS: Final = {pycurl.POLL_IN: _READ, pycurl.POLL_OUT: _WRITE, pycurl.POLL_INOUT: _READ | _WRITE}


class CurlTransport:
    """Sends requests from any number of threads, over at most `size` connections at a time.

    Args:
        network: Certificates and proxies.
        size: Most connections.
        user_agent: The User-Agent header.
    """

    def __init__(self, network: Network, *, size: int = 32, user_agent: str = "taskbridge") -> None:
        self._engines = _Engines(network, size, user_agent).closed_with(self)

    def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        """See `taskbridge.transport.Transport`."""
        engine = self._engines.current()
        transfer = _Transfer(request, body_stream(request), deadline, max_body)
        arrived = transfer.arrived = threading.Lock()
        arrived.acquire()
        try:
            engine.start(transfer)
            arrived.acquire()  # a signal may interrupt it
        except BaseException:
            engine.cancel(transfer)
            raise
        return _result(transfer)

    def close(self) -> None:
        """Close the connections; requests in flight end with an error."""
        self._engines.close()


class AsyncCurlTransport:
    """`CurlTransport`, awaitable from any event loop."""

    def __init__(self, network: Network, *, size: int = 32, user_agent: str = "taskbridge") -> None:
        self._engines = _Engines(network, size, user_agent).closed_with(self)

    async def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        """See `taskbridge.transport.AsyncTransport`."""
        engine = self._engines.current()
        transfer = _Transfer(request, body_stream(request), deadline, max_body)
        loop = transfer.loop = asyncio.get_running_loop()
        future = transfer.future = loop.create_future()
        try:
            engine.start(transfer)
            await future
        except BaseException:
            engine.cancel(transfer)
            raise
        return _result(transfer)

    async def close(self) -> None:
        """Close the connections; requests in flight end with an error."""
        self._engines.close()


def _result(transfer: _Transfer) -> Response:
    outcome = transfer.outcome
    if isinstance(outcome, Response):
        return outcome
    try:
        raise without_traceback(outcome or TransportError("the request ended without an outcome"))
    finally:
        del outcome, transfer  # or the error and this frame reference each other


class _Engines:
    """The engine of this process: after a fork, the parent's thread and connections must not be used."""

    def __init__(self, network: Network, size: int, user_agent: str) -> None:
        self._options, self._size = _Options(network, user_agent), size
        self._engine: _Engine | None = None
        self._is_closed = False
        renew_after_fork(self, _Engines._begin_process)

    def _begin_process(self) -> None:
        """Begin without an engine: that of a parent must not be used in its child."""
        if self._engine is not None:
            _INHERITED.append(self._engine)
            self._engine = None
        self._lock = threading.Lock()

    def closed_with(self, owner: object) -> Self:
        """Close the engine once its owner is gone, or the process ends."""
        weakref.finalize(owner, self.close)
        return self

    def current(self) -> _Engine:
        engine = self._engine
        if engine is None:
            with self._lock:
                if self._is_closed:
                    raise responses.closed_error(written=False)
                engine = self._engine = self._engine or _Engine(self._options, self._size)
        return engine

    def close(self) -> None:
        self._is_closed = True
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()


# One request.


class _Proxy(NamedTuple):
    """A proxy on the way to a host.

    Attributes:
        url: Its URL, with the port; it may contain a password.
        peer: How messages name it.
        is_socks: Whether it is a SOCKS proxy, which sees connections and no requests.
    """

    url: str
    peer: str
    is_socks: bool


class _Transfer:
    """A request on its way, and what has happened to it; its callbacks run in the engine's thread and never raise.

    Attributes:
        arrived: Released at the end, for a thread that waits.
        loop: The event loop of an asyncio task that waits.
        future: Resolved in that loop.
        outcome: The response, or the error.
        written: Whether a byte of the request may have been sent.
        repeated: Whether libcurl wanted to send the request again: its kept connection had died.
        refused_address: Whether an address was refused because it is not public.
        proxy: The proxy on the way, if there is one.
        is_forwarded: Whether that proxy gets the request itself, not a tunnel to the host.
    """

    __slots__ = (
        "_blocks",
        "_body",
        "_file",
        "_length",
        "_lines",
        "_pairs",
        "_rest",
        "_silence",
        "_unsent",
        "arrived",
        "curl",
        "deadline",
        "failure",
        "fields",
        "future",
        "has_head",
        "is_added",
        "is_ended",
        "is_forwarded",
        "is_resolving",
        "last_byte",
        "loop",
        "max_body",
        "outcome",
        "proxy",
        "received",
        "refused_address",
        "repeated",
        "request",
        "status",
        "stream",
        "written",
    )

    def __init__(self, request: Request, stream: BodyStream | None, deadline: float, max_body: int) -> None:
        self.request = request
        self.stream = stream
        self.deadline = deadline  # monotonic seconds
        self.max_body = max_body
        self.arrived: threading.Lock | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.future: asyncio.Future[None] | None = None
        self.outcome: Response | BaseException | None = None
        self.is_added = self.is_ended = self.is_resolving = self.is_forwarded = False
        self.proxy: _Proxy | None = None
        self.curl: Any = None
        self.failure: BaseException | None = None  # what a callback noted
        self.written = self.repeated = self.refused_address = False
        self.last_byte = time.monotonic()
        self.received = 0  # bytes of the response
        self.status = 0
        self.fields: dict[str, str] = {}
        self.has_head = False
        self._silence = max(responses.READ_LIMIT, request.long_poll or 0.0)  # seconds
        self._lines = 0
        self._pairs: list[tuple[str, str]] = []
        self._body = BytesIO()
        self._length = 0  # bytes of the body so far
        self._file: Generator[float, bytes, None] | None = None
        self._blocks: Iterator[bytes] = iter(()) if stream is None else stream.blocks()
        self._rest = b""
        self._unsent = 0 if stream is None else stream.length  # bytes

    def limit(self) -> float:
        """Return the monotonic second at which it is too late, as things are."""
        if self.is_resolving:
            return min(self.deadline, self.last_byte + responses.CONNECT_LIMIT)
        if not self.written or self._unsent:
            return self.deadline
        return min(self.deadline, self.last_byte + self._silence)

    # Callbacks.

    def on_request(self, *_: object) -> int:
        """Allow libcurl to send the request once, and once more if that is harmless: its kept connection had died."""
        self.last_byte = time.monotonic()
        may_send = not self.written or (not self.repeated and self.request.may_repeat and self.stream is None)
        self.repeated, self.written = self.written, True
        return int(pycurl.PREREQFUNC_OK if may_send else pycurl.PREREQFUNC_ABORT)

    def on_read(self, size: int) -> bytes | int:
        """Return the next bytes of the request's body."""
        self.last_byte = time.monotonic()
        try:
            block = self._rest or next(self._blocks, b"")
        except BaseException as error:  # noqa: BLE001  # of a local file
            self.failure = error
            return int(pycurl.READFUNC_ABORT)
        self._rest = block[size:]
        self._unsent -= len(block[:size])
        return block[:size]

    def on_header(self, line: bytes) -> int | None:
        """Take a line of the response's header."""
        self.last_byte = time.monotonic()
        if not self.written or self.has_head:
            return None  # a proxy's answer to CONNECT, or a trailer
        self.received += len(line)
        try:
            self._header_line(line)
        except BaseException as error:  # noqa: BLE001  # a callback never raises
            self.failure = error
            return -1
        return None

    def on_body(self, block: bytes) -> int | None:
        """Take a part of the response's body."""
        self.last_byte = time.monotonic()
        self.received += len(block)
        try:
            self._body_block(block)
        except BaseException as error:  # noqa: BLE001  # a callback never raises
            self.failure = error
            return -1
        return None

    def on_socket(self, _purpose: int, address: Any) -> Any:
        """Open a socket to a public address only."""
        family, kind, protocol, target = address
        host = target[0] if isinstance(target[0], str) else target[0].decode()
        if not is_public(host):
            self.refused_address = True
            return pycurl.SOCKET_BAD
        return socket.socket(family, kind, protocol)

    def _header_line(self, line: bytes) -> None:
        if not line.endswith(b"\n"):
            return  # cut off
        if not self.status:
            match = responses.STATUS_LINE.fullmatch(line)
            if match is None:
                raise MalformedResponse("the answer is not HTTP", repeats=1)
            self.status = int(match[2]) or -1
        elif line in (b"\r\n", b"\n"):
            self._end_of_header()
        else:
            self._lines += 1
            readable = self._lines <= responses.MOST_LINES and len(line) <= responses.LONGEST_LINE
            if not readable or not responses.add_field(self._pairs, line):
                raise MalformedResponse("the answer's headers cannot be read", repeats=1)

    def _end_of_header(self) -> None:
        if 100 <= self.status < 200 and self.status != 101:  # an interim response
            self.status, self._lines = 0, 0
            self._pairs.clear()
            return
        status = max(self.status, 0)
        self.fields = responses.header_fields(self._pairs)
        if self.proxy is not None and self.is_forwarded:
            responses.check_forwarded(status, self.proxy.peer)
        responses.check_headers(self.request, status, self.fields, len(self._pairs), self.max_body)
        self.has_head = True
        if self.request.save_to is not None and status < 300:
            self._file = responses.file_writer(status, self.fields, self.request.save_to)
            next(self._file)

    def _body_block(self, block: bytes) -> None:
        if self._file is not None:
            self.deadline += self._file.send(block)
            return
        self._length += len(block)
        if self._length > self.max_body:
            raise responses.too_large_error(self.max_body, self.status)
        self._body.write(block)

    # The end.

    def finish(self, code: int) -> None:
        """Note the outcome, from libcurl's code for it."""
        try:
            self.outcome = self._outcome(code)
        except BaseException as error:  # noqa: BLE001  # raised again where the request was sent
            self.outcome = error
        finally:
            self.is_ended = True
            if self._file is not None:
                self._file.close()

    def expire(self, now: float) -> None:
        """Note that it has taken too long."""
        if self.written:
            is_late = now >= self.deadline
            message = "the total time for the request ran out" if is_late else f"no data for {self._silence:g} s"
            self.failure = responses.request_error(DeadlineExceeded, message, written=True)
        else:
            fault = responses.LATE if now >= self.deadline else responses.SLOW
            self.failure = responses.connect_error(fault, self._peer(pycurl.E_OPERATION_TIMEDOUT))

    def _outcome(self, code: int) -> Response | BaseException:
        if self.failure is not None:
            return self.failure
        if code == pycurl.E_OK or self._is_whole(code):
            return self._response()
        if self.refused_address and not self.written:
            return responses.not_public_error()
        if not self.written:
            return self._connect_error(code)
        error_class, message = self._classify(code)
        stale = not self.received and not self.repeated and not self.curl.getinfo(pycurl.NUM_CONNECTS)
        return responses.request_error(error_class, message, written=True, stale=stale)

    def _is_whole(self, code: int) -> bool:
        """Whether all of a response has arrived, although libcurl reports an error."""
        if not self.has_head or self._file is not None:
            return False
        length = self.fields.get("content-length")
        if length is not None:
            return self._length == int(length)  # the host did not wait for the rest of the request
        # A body without a length ends with the connection, over TLS also without a close_notify.
        is_chunked = "transfer-encoding" in self.fields
        return code == pycurl.E_RECV_ERROR and not is_chunked and not self._system_error()

    def _system_error(self) -> int:
        """The operating system's number of what broke the connection; 0 if it was not broken."""
        return int(self.curl.getinfo(pycurl.OS_ERRNO))

    def _response(self) -> Response:
        if not self.has_head:
            raise TruncatedResponse("the answer ended inside its headers")
        if self._file is not None:
            self._file.send(b"")
            return Response(self.status, self.fields, b"")
        body = self._body.getvalue()
        return responses.complete_response(self.request, self.status, self.fields, body, self.max_body)

    def _classify(self, code: int) -> tuple[type[TaskbridgeError], str]:
        # libcurl has one code for a connection that broke off and for chunks that cannot be read; its words differ.
        if code == pycurl.E_RECV_ERROR and "transfer-encoding" in self.fields and "chunk" in self.curl.errstr():
            return MalformedResponse, "the answer's chunks cannot be read"
        return _ERRORS.get(code, (TransportError, f"the request failed (libcurl's error {code})"))

    def _connect_error(self, code: int) -> TaskbridgeError:
        """Return the error for a request of which no byte was sent."""
        status = int(self.curl.getinfo(pycurl.HTTP_CONNECTCODE))
        if self.proxy is not None and status >= 300:
            return responses.refused_tunnel_error(status, self.proxy.peer)
        fault = _FAULTS.get(code, responses.BROKEN)
        if code == pycurl.E_SSL_CONNECT_ERROR:
            text = self.curl.errstr().lower()
            is_ended = self._system_error() or any(each in text for each in _TLS_ENDED)
            fault = responses.BROKEN if is_ended else responses.NO_TLS
        return responses.connect_error(fault, self._peer(code))

    def _peer(self, code: int) -> str:
        """Return how messages name what was being connected to when libcurl reported this code."""
        proxy = self.proxy
        if proxy is None:
            return responses.HOST
        if proxy.is_socks:  # it is only known whether it was reached, and whether it refused
            was_reached = code not in _FAULTS_OF_PROXY
        else:
            was_reached = self.curl.getinfo(pycurl.HTTP_CONNECTCODE) != 0
        return responses.host_behind(proxy.peer) if was_reached else proxy.peer


# libcurl's code -> our class and message.                      https://curl.se/libcurl/c/libcurl-errors.html
_ERRORS: Final[dict[int, tuple[type[TaskbridgeError], str]]] = {
    pycurl.E_UNSUPPORTED_PROTOCOL: (MalformedResponse, "the answer is not HTTP"),
    pycurl.E_FTP_WEIRD_SERVER_REPLY: (MalformedResponse, "the answer is not HTTP"),
    pycurl.E_PARTIAL_FILE: (TruncatedResponse, "the answer broke off"),
    pycurl.E_OPERATION_TIMEDOUT: (DeadlineExceeded, "the total time for the request ran out"),
    pycurl.E_ABORTED_BY_CALLBACK: (TruncatedResponse, "the host closed the connection without an answer"),
    pycurl.E_GOT_NOTHING: (TruncatedResponse, "the host closed the connection without an answer"),
    pycurl.E_SEND_ERROR: (TruncatedResponse, "the connection broke off"),
    pycurl.E_RECV_ERROR: (TruncatedResponse, "the connection broke off"),
    _E_TOO_LARGE: (MalformedResponse, "the answer's headers cannot be read"),
}

# libcurl's code -> what went wrong before a byte of the request was sent.
_FAULTS: Final[dict[int, responses.Fault]] = {
    pycurl.E_URL_MALFORMAT: responses.UNUSABLE_HOST,
    pycurl.E_COULDNT_RESOLVE_PROXY: responses.UNRESOLVED,
    pycurl.E_COULDNT_RESOLVE_HOST: responses.UNRESOLVED,
    pycurl.E_COULDNT_CONNECT: responses.UNREACHABLE,
    pycurl.E_OPERATION_TIMEDOUT: responses.SLOW,
    pycurl.E_PEER_FAILED_VERIFICATION: responses.UNTRUSTED,
    pycurl.E_SSL_CACERT_BADFILE: responses.NO_TLS,
    pycurl.E_UNSUPPORTED_PROTOCOL: responses.NO_TUNNEL,
    pycurl.E_FTP_WEIRD_SERVER_REPLY: responses.NO_TUNNEL,
    _E_TOO_LARGE: responses.NO_TUNNEL,
    _E_PROXY: responses.NO_TUNNEL,
}
_FAULTS_OF_PROXY: Final = frozenset({pycurl.E_COULDNT_CONNECT, pycurl.E_COULDNT_RESOLVE_PROXY, _E_PROXY})


# All requests.


class _Route(NamedTuple):
    """How a host is reached."""

    proxy: _Proxy | None
    is_tls: bool  # to the host or to the proxy
    is_forwarded: bool  # whether the proxy gets the whole URL
    goal: tuple[str, int]  # the host and the port that the connection goes to


class _Options:
    """Sets the options of libcurl's handles for requests."""

    def __init__(self, network: Network, user_agent: str) -> None:
        self._network = network
        self._bundle: str | None = None
        self._user_agent = user_agent
        self._route = lru_cache(_MOST_NAMES)(self._find_route)
        self._lines = lru_cache(_MOST_HEADERS)(_header_lines)

    def apply(self, curl: Any, transfer: _Transfer) -> tuple[str, int]:
        """Prepare a handle for a request; return the host and the port that it connects to.

        Raises:
            ConfigError: The certificates cannot be read.
            ConnectFailed: The URL or a header field cannot be sent.
        """
        request, stream, set_option = transfer.request, transfer.stream, curl.setopt
        url = request.url
        origin, target = responses.split_target(url)
        if not _TOKEN.fullmatch(request.method):
            raise responses.connect_error(responses.UNUSABLE_REQUEST)
        route = self._route(origin)
        transfer.proxy, transfer.is_forwarded = route.proxy, route.is_forwarded
        set_option(pycurl.URL, url)
        set_option(pycurl.REQUEST_TARGET, f"{origin}{target}" if transfer.is_forwarded else target)
        set_option(pycurl.PATH_AS_IS, 1)
        set_option(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        set_option(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        set_option(pycurl.NOSIGNAL, 1)
        set_option(pycurl.PROXY, route.proxy.url if route.proxy else "")  # never the environment's
        set_option(pycurl.NOPROXY, "")
        set_option(pycurl.CONNECTTIMEOUT_MS, int(responses.CONNECT_LIMIT * 1000))
        if route.is_tls:
            for option, bundle in self._certificates():
                set_option(option, bundle)
        set_option(pycurl.PREREQFUNCTION, transfer.on_request)
        set_option(pycurl.HEADERFUNCTION, transfer.on_header)
        set_option(pycurl.WRITEFUNCTION, transfer.on_body)
        if stream is not None or not request.may_repeat or request.new_connection or request.public_only:
            set_option(pycurl.FRESH_CONNECT, 1)
        set_option(pycurl.FORBID_REUSE, int(request.external))  # there may be any number of such hosts
        if request.public_only and not route.proxy:
            set_option(pycurl.OPENSOCKETFUNCTION, transfer.on_socket)
        set_option(pycurl.HTTPHEADER, self._lines(tuple(self._fields(curl, transfer).items())))
        set_option(pycurl.CUSTOMREQUEST, request.method)
        return route.goal

    def _fields(self, curl: Any, transfer: _Transfer) -> dict[str, str]:
        """Prepare a handle for the body; return the header fields by lower-case name."""
        request, stream = transfer.request, transfer.stream
        fields = {"user-agent": self._user_agent, "accept-encoding": "identity"}
        fields.update((name.lower(), value) for name, value in request.headers.items())
        if request.save_to is not None:
            fields.update((name.lower(), value) for name, value in request.save_to.headers.items())
        if stream is not None:
            fields.update((name.lower(), value) for name, value in stream.headers.items())
            curl.setopt(pycurl.UPLOAD, 1)
            curl.setopt(pycurl.INFILESIZE_LARGE, stream.length)
            curl.setopt(pycurl.READFUNCTION, transfer.on_read)
        elif request.method == "HEAD":
            curl.setopt(pycurl.NOBODY, 1)
        elif request.method in _BODY_METHODS:
            fields["content-length"] = "0"
        return fields

    def _find_route(self, origin: str) -> _Route:
        """Return how to reach the host of a URL's beginning."""
        parts = urlsplit(origin)
        is_tls = parts.scheme == "https"
        url = self._network.proxy_for(parts.scheme, parts.hostname or "", parts.port)
        if url is None:
            return _Route(None, is_tls, False, responses.address_of(origin))
        goal, address = urlsplit(url), responses.address_of(url)
        if goal.port is None:  # libcurl's default for every kind is 1080
            url = f"{goal.scheme}://{goal.netloc}:{address[1]}"
        is_socks = goal.scheme.startswith("socks")
        proxy = _Proxy(url, responses.proxy_peer(url), is_socks)
        return _Route(proxy, is_tls or goal.scheme == "https", not is_tls and not is_socks, address)

    def _certificates(self) -> Iterable[tuple[int, str]]:
        if self._bundle is None:
            if self._network.ca_bundle is not None:
                responses.tls_context(self._network)  # libcurl would not say what is wrong with it
            self._bundle = self._network.ca_bundle or certifi.where()
        if Path(self._bundle).is_dir():
            return ((pycurl.CAPATH, self._bundle), (pycurl.PROXY_CAPATH, self._bundle))
        return ((pycurl.CAINFO, self._bundle), (pycurl.PROXY_CAINFO, self._bundle))


def _header_lines(fields: tuple[tuple[str, str], ...]) -> list[bytes]:
    """Return header lines as libcurl takes them: one with nothing behind the colon removes libcurl's own."""
    # A semicolon in place of the colon sends a field without a value.
    texts = [f"{name.title()}: {value}" if value.strip() else f"{name.title()};" for name, value in fields]
    if not all(map(_FIELD.fullmatch, texts)):
        raise responses.connect_error(responses.UNUSABLE_REQUEST)
    own = [] if any(name == "accept" for name, _ in fields) else [b"Accept:"]
    return [b"Expect:", *own, *(text.encode("latin-1") for text in texts)]


_INHERITED: Final[list[_Engine]] = []
"""Engines of a parent process; kept, because libcurl would end the parent's TLS connections with them."""


class _Engine:
    """Runs the transfers of one transport in a thread that ends when there are none."""

    def __init__(self, options: _Options, size: int) -> None:
        self._options = options
        self._size = size
        self._lock = threading.RLock()  # the garbage collector may call `close` wherever it is held
        self._started: deque[_Transfer] = deque()
        self._cancelled: deque[_Transfer] = deque()
        self._resolved: deque[tuple[tuple[str, int], list[str] | responses.Fault]] = deque()
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._is_asleep = False
        # Used by the thread only.
        self._multi: Any = None
        self._selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = socket.socketpair()
        for each in (self._wake_reader, self._wake_writer):
            each.setblocking(False)
        self._selector.register(self._wake_reader, _READ)
        self._watched: dict[int, int] = {}  # the selector's events by file descriptor
        self._active: dict[Any, _Transfer] = {}  # by handle
        self._added = 0  # handles that libcurl has
        self._queue: deque[_Transfer] = deque()  # those that wait for one of the connections
        self._resolving: dict[tuple[str, int], list[_Transfer]] = defaultdict(list)  # by host and port
        self._names: dict[tuple[str, int], tuple[tuple[str, ...], float]] = {}  # addresses, and until when they hold
        self._spare: list[Any] = []  # handles
        self._next_check = inf  # monotonic seconds at which to see whether a transfer is late
        self._has_new = False  # whether libcurl has handles that have not begun
        self._due = inf  # monotonic seconds at which libcurl wants to be called
        self._finished: list[_Transfer] = []

    # From any thread.

    def start(self, transfer: _Transfer) -> None:
        """Begin a transfer."""
        with self._lock:
            if self._is_closed:
                raise responses.closed_error(written=False)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="taskbridge-curl", daemon=True)
                thread.start()
                self._thread = thread
            self._started.append(transfer)
            self._wake()

    def cancel(self, transfer: _Transfer) -> None:
        """End a transfer whose caller has left."""
        with self._lock:
            if self._thread is not None:
                self._cancelled.append(transfer)
                self._wake()

    def close(self) -> None:
        """End all transfers, and the thread."""
        with self._lock:
            self._is_closed = True
            thread = self._thread
            self._wake()
        if thread is None:
            self._release()
        elif thread is not threading.current_thread():
            thread.join(5.0)

    def _wake(self) -> None:
        if self._is_asleep:
            self._is_asleep = False
            self._wake_writer.send(b"\0")

    # The thread.

    def _run(self) -> None:
        idle_since: float | None = None
        started: deque[_Transfer] = deque()
        try:
            while True:
                with self._lock:
                    started, self._started = self._started, deque()
                    cancelled, self._cancelled = self._cancelled, deque()
                    resolved, self._resolved = self._resolved, deque()
                    now = time.monotonic()
                    is_idle = not started and not self._active
                    idle_since = (idle_since or now) if is_idle else None
                    is_closed = self._is_closed
                    if is_closed or (idle_since is not None and now - idle_since >= _IDLE):
                        self._thread = None
                        break
                    self._is_asleep = True
                for goal, found in resolved:
                    self._on_resolved(goal, found)
                for transfer in started:
                    self._begin(transfer)
                for transfer in cancelled:
                    self._drop(transfer)
                self._turn(now, None if idle_since is None else idle_since + _IDLE)
        except BaseException as error:  # no caller may wait for a thread that died
            with self._lock:
                self._is_closed, self._thread = True, None
            self._end_all(error, [*started, *self._started])
            raise
        if is_closed:
            self._end_all(None, started)
            self._release()

    def _turn(self, now: float, until: float | None) -> None:
        """Wait for something to happen, at most until a time, and carry it out."""
        if self._has_new:  # libcurl itself would begin a millisecond later
            self._has_new = False
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
            self._read_results()
        due = min(self._due, self._next_check, inf if until is None else until)
        timeout = 0.0 if self._finished else None if due == inf else max(0.0, due - now)
        events = self._selector.select(timeout)
        self._is_asleep = False
        for key, mask in events:
            if key.fileobj is self._wake_reader:
                self._wake_reader.recv(4096)
            else:
                bits = (pycurl.CSELECT_IN if mask & _READ else 0) | (pycurl.CSELECT_OUT if mask & _WRITE else 0)
                self._multi.socket_action(key.fd, bits)
        now = time.monotonic()
        if now >= self._due:
            self._due = inf
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        self._read_results()
        if now >= self._next_check:
            self._end_late(now)
        self._hand_over()

    def _begin(self, transfer: _Transfer) -> None:
        if self._multi is None:
            self._multi = pycurl.CurlMulti()
            self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket)
            self._multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)
            self._multi.setopt(pycurl.M_MAX_TOTAL_CONNECTIONS, self._size)
            self._multi.setopt(pycurl.M_MAXCONNECTS, self._size)
        curl = transfer.curl = self._spare.pop() if self._spare else pycurl.Curl()
        self._active[curl] = transfer
        try:
            goal = self._options.apply(curl, transfer)
        except Exception as error:  # noqa: BLE001  # raised again where the request was sent
            is_ours = isinstance(error, TaskbridgeError)
            transfer.failure = error if is_ours else responses.connect_error(responses.UNUSABLE_REQUEST)
            self._finish(transfer, pycurl.E_FAILED_INIT)
            return
        transfer.last_byte = now = time.monotonic()
        self._next_check = min(self._next_check, transfer.limit(), now + _CHECK_INTERVAL)
        addresses, until = self._names.get(goal, ((), 0.0))
        if _is_address(goal[0]):
            self._connect(transfer)
        elif now < until:
            self._connect_to(transfer, goal, addresses)
        else:
            transfer.is_resolving = True
            self._resolving[goal].append(transfer)
            if len(self._resolving[goal]) == 1:
                self._start_resolver(goal)

    def _start_resolver(self, goal: tuple[str, int]) -> None:
        thread = threading.Thread(target=self._resolve, args=goal, name="taskbridge-resolver", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the process may have no more threads
            self._on_resolved(goal, responses.UNRESOLVED)

    def _resolve(self, host: str, port: int) -> None:
        """Resolve a name, in a thread that may be abandoned: the resolver has no time limit and blocks."""
        found: list[str] | responses.Fault
        try:
            resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found = [str(address[0]) for *_, address in resolved]
        except OSError:
            found = responses.UNRESOLVED
        except UnicodeError:
            found = responses.UNUSABLE_HOST
        with self._lock:
            self._resolved.append(((host, port), found))
            if self._thread is not None:
                self._wake()

    def _on_resolved(self, goal: tuple[str, int], found: list[str] | responses.Fault) -> None:
        waiting = self._resolving.pop(goal, [])
        if isinstance(found, list):
            if len(self._names) >= _MOST_NAMES:
                self._names.clear()
            self._names[goal] = (tuple(found), time.monotonic() + _NAME_LIFE)
        for transfer in waiting:
            if transfer.is_ended:
                continue
            transfer.is_resolving = False
            if isinstance(found, list):
                self._connect_to(transfer, goal, found)
            else:
                transfer.failure = responses.connect_error(
                    found, transfer.proxy.peer if transfer.proxy else responses.HOST
                )
                self._finish(transfer, pycurl.E_COULDNT_RESOLVE_HOST)

    def _connect_to(self, transfer: _Transfer, goal: tuple[str, int], addresses: Iterable[str]) -> None:
        host, port = goal
        listed = ",".join(f"[{each}]" if ":" in each else each for each in addresses)
        transfer.curl.setopt(pycurl.RESOLVE, [f"+{host}:{port}:{listed}"])
        self._connect(transfer)

    def _connect(self, transfer: _Transfer) -> None:
        """Give a transfer to libcurl once a connection is free: there, the wait would count as connecting."""
        if self._added >= self._size:
            self._queue.append(transfer)
            return
        self._added += 1
        transfer.is_added = True
        self._multi.add_handle(transfer.curl)
        self._has_new = True

    def _drop(self, transfer: _Transfer) -> None:
        if transfer.curl is not None and not transfer.is_ended:
            transfer.failure = TransportError("the request was cancelled")
            self._finish(transfer, pycurl.E_ABORTED_BY_CALLBACK)

    def _end_late(self, now: float) -> None:
        for transfer in [each for each in self._active.values() if each.limit() <= now]:
            transfer.expire(now)
            self._finish(transfer, pycurl.E_OPERATION_TIMEDOUT)
        soonest = min((each.limit() for each in self._active.values()), default=inf)
        self._next_check = min(soonest, now + _CHECK_INTERVAL) if self._active else inf

    def _read_results(self) -> None:
        while self._active:
            left, succeeded, failed = self._multi.info_read()
            for curl in succeeded:
                self._finish(self._active[curl], pycurl.E_OK)
            for curl, code, _ in failed:
                self._finish(self._active[curl], code)
            if not left:
                return

    def _finish(self, transfer: _Transfer, code: int) -> None:
        curl = transfer.curl
        del self._active[curl]
        transfer.finish(code)
        if transfer.is_added:
            self._multi.remove_handle(curl)
            self._added -= 1
        self._recycle(curl)
        self._finished.append(transfer)
        while self._queue and self._added < self._size:
            following = self._queue.popleft()
            if not following.is_ended:
                self._connect(following)

    def _recycle(self, curl: Any) -> None:
        if len(self._spare) < self._size:
            curl.reset()
            self._spare.append(curl)

    def _hand_over(self) -> None:
        """Wake those who wait; an event loop is woken once for all of its tasks."""
        if not self._finished:
            return
        by_loop: dict[asyncio.AbstractEventLoop, list[_Transfer]] = defaultdict(list)
        for transfer in self._finished:
            if transfer.loop is not None:
                by_loop[transfer.loop].append(transfer)
            elif transfer.arrived is not None:
                transfer.arrived.release()
        self._finished = []
        for loop, transfers in by_loop.items():
            try:
                loop.call_soon_threadsafe(_wake_tasks, transfers)
            except RuntimeError:  # the loop is closed: no task of it waits any more
                continue

    def _end_all(self, error: BaseException | None, started: Iterable[_Transfer]) -> None:
        """End all transfers with an error; None if the transport was closed."""
        for transfer in {*self._active.values(), *started}:
            if transfer.is_ended:
                continue
            transfer.failure = error or responses.closed_error(written=transfer.written)
            transfer.finish(pycurl.E_ABORTED_BY_CALLBACK)
            self._finished.append(transfer)
        self._hand_over()

    def _release(self) -> None:
        for curl, transfer in self._active.items():
            if transfer.is_added:
                self._multi.remove_handle(curl)
            curl.close()
        self._active.clear()
        for curl in self._spare:
            curl.close()
        self._spare.clear()
        if self._multi is not None:
            self._multi.close()
        self._selector.close()
        self._wake_reader.close()
        self._wake_writer.close()

    # libcurl's callbacks.

    def _on_socket(self, event: int, descriptor: int, _multi: Any, _data: Any) -> None:
        wanted = _EVENTS.get(event)
        known = self._watched.get(descriptor)
        if wanted == known:
            return
        if wanted is None:
            del self._watched[descriptor]
            self._selector.unregister(descriptor)
            return
        self._watched[descriptor] = wanted
        if known is None:
            self._selector.register(descriptor, wanted)
        else:
            self._selector.modify(descriptor, wanted)

    def _on_timer(self, milliseconds: int) -> None:
        self._due = inf if milliseconds < 0 else time.monotonic() + milliseconds / 1000


def _is_address(host: str) -> bool:
    return ":" in host or host.rpartition(".")[2].isdigit()


def _wake_tasks(transfers: Iterable[_Transfer]) -> None:
    for transfer in transfers:
        if transfer.future is not None and not transfer.future.done():
            transfer.future.set_result(None)
