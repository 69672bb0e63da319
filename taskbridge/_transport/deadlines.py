"""urllib3's connections, with limits that hold.

urllib3's time limits are per socket operation: an answer that drips a byte at a time never ends. A connection here
checks the total deadline at each look into the resolver, each connection, each handshake, each read and each write,
and notes what happened to the request: whether a byte of it left, whether the connection had been used before, whether
the other side ended it. `trace` holds the request that this thread is sending.
"""

from __future__ import annotations

import io
import logging
import re
import socket
import ssl
import time
from http.client import HTTPException, HTTPMessage, HTTPResponse, LineTooLong, UnknownProtocol
from threading import Thread, local
from typing import Any, Final, cast

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.connection import allowed_gai_family

from taskbridge._transport.responses import CONNECT_LIMIT, LONGEST_LINE, READ_LIMIT, check_headers, header_fields, not_public_error
from taskbridge.errors import TruncatedResponse
from taskbridge.provider.addresses import is_public
from taskbridge.provider.http import Request

_FIELD: Final = re.compile(rb"([!-9;-~]+):([^\x00]*)")  # a name and a value; other lines are none of HTTP's


_MOST_LINES: Final = 200  # of a head; more than a hundred fields are refused by their number


_CONNECT_LEAST: Final = 0.05  # seconds that the last of many addresses gets


_UNLIMITED: Final = 86_400.0  # seconds; only the deadline counts


class _Trace(local):
    """What happens to the request that this thread is sending."""

    request = Request("GET", "")
    max_body = 0
    deadline = 0.0  # monotonic seconds
    silence = READ_LIMIT  # seconds that one read may take
    written = False  # whether a byte of the request may have left
    reused = False  # whether a kept connection was used
    received = 0  # bytes of the answer so far
    ended = False  # whether the other side closed while we wanted more
    sending = False  # whether a request of ours is under way here
    fields: dict[str, str]  # header fields of the answer

    def begin(self, request: Request, deadline: float, max_body: int) -> None:
        """Forget the request before."""
        self.request, self.deadline, self.max_body = request, deadline, max_body
        self.silence = max(READ_LIMIT, request.long_poll or 0.0)
        self.written = self.reused = self.ended = False
        self.sending = True
        self.received = 0
        self.fields = {}

    def remaining(self, limit: float) -> float:
        """Seconds for one operation; never zero, which would mean non-blocking."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return min(left, limit)


trace: Final = _Trace()


class _Discreet(logging.Filter):
    """Takes the query out of what urllib3 logs of our requests: a presigned link is a key."""

    def filter(self, record: logging.LogRecord) -> bool:
        if trace.sending and isinstance(record.args, tuple):
            record.args = tuple(_without_query(each) if isinstance(each, str) else each for each in record.args)
        return True


def _without_query(text: str) -> str:
    path, mark, _ = text.partition("?")
    return f"{path}?…" if mark else text


logging.getLogger("urllib3.connectionpool").addFilter(_Discreet())


class _Reader(io.RawIOBase):
    """Reads a socket, checking the total deadline at each read."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        self._sock.settimeout(trace.remaining(trace.silence))
        count = cast("int | None", self._raw.readinto(buffer))
        trace.received += count or 0
        trace.ended = not count
        return count

    def readall(self) -> bytes:
        # http.client takes a chunk of size -1 for "all there is".
        raise HTTPException("nothing here reads without a limit")

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(HTTPResponse):
    """An answer whose head and body are read by `_Reader`, and whose head is checked before its body is read."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Reader(self.fp.detach(), sock))

    def begin(self) -> None:
        # As http.client's own, which hands the head to a parser for mail; that takes half of the time of a request.
        if cast("Any", self).headers is not None:
            return
        version, status, reason = self._status()
        pairs = self._pairs()
        while 100 <= status < 200 and status != 101:  # an interim answer
            version, status, reason = self._status()
            pairs = self._pairs()
        self.code = self.status = status
        self.reason = reason.strip()
        self.version = 10 if version in ("HTTP/1.0", "HTTP/0.9") else 11
        if not version.startswith(("HTTP/1.", "HTTP/0.9")):
            raise UnknownProtocol(version)
        self.headers = self.msg = HTTPMessage()
        for name, value in pairs:
            self.headers[name] = value
        trace.fields = fields = header_fields((name, _text(value)) for name, value in pairs)
        check_headers(trace.request, status, fields, len(pairs), trace.max_body)
        coding, length = fields.get("transfer-encoding", ""), fields.get("content-length")
        self.chunked, self.chunk_left = coding.lower() == "chunked", None
        self.length = None if length is None or self.chunked else int(length)
        if status in (204, 304) or cast("Any", self)._method == "HEAD":  # noqa: SLF001  # our own base class
            self.length = 0
        endless = self.length is None and not self.chunked
        self.will_close = endless or cast("Any", self)._check_close()  # noqa: SLF001  # our own base class

    def _status(self) -> tuple[str, int, str]:
        return cast("tuple[str, int, str]", cast("Any", self)._read_status())  # noqa: SLF001  # our own base class

    def _pairs(self) -> list[tuple[str, str]]:
        """The header fields, names and values as they came."""
        pairs: list[tuple[str, str]] = []
        for _ in range(_MOST_LINES):
            line = self.fp.readline(LONGEST_LINE + 1)
            if len(line) > LONGEST_LINE:
                raise LineTooLong("header line")
            if trace.ended and not line.endswith(b"\n"):  # http.client takes this end for the end of the head
                raise TruncatedResponse("the answer ended inside its headers")
            if line in (b"\r\n", b"\n"):
                return pairs
            field = _FIELD.match(line)
            if field is not None:
                pairs.append((field[1].decode("ascii"), field[2].strip(b" \t\r\n").decode("latin-1")))
            elif line[:1] in b" \t" and pairs:  # a folded line
                name, value = pairs[-1]
                pairs[-1] = (name, f"{value} {line.strip().decode('latin-1')}")
            else:
                raise HTTPException("a header line cannot be read")
        raise HTTPException(f"got more than {_MOST_LINES} headers")


def _text(value: str) -> str:
    # The bytes are read as Latin-1; the asynchronous transport reads UTF-8.
    return value if value.isascii() else value.encode("latin-1", "replace").decode("utf-8", "replace")


class _Connection(HTTPConnection):
    """A connection that holds the total deadline, and notes what happens."""

    response_class = _Answer
    kept = False  # whether an answer came over the present socket

    def _new_conn(self) -> socket.socket:
        # As urllib3's own, but the limit is for all addresses together, not for each.
        until = time.monotonic() + CONNECT_LIMIT
        fault: OSError | None = None
        found = _addresses(self._dns_host, self.port)
        if trace.request.public_only and self.proxy is None:
            found = [each for each in found if is_public(each[4][0])]
            if not found:
                raise not_public_error()
        for family, kind, protocol, _, address in found:
            sock = socket.socket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                sock.settimeout(_left(until))
                sock.connect(address)
                sock.settimeout(_left(until))  # for the handshake
            except OSError as error:
                fault = error
                sock.close()
            except BaseException:  # an interruption
                sock.close()
                raise
            else:
                return sock
        raise fault or OSError("the name has no address")

    def connect(self) -> None:
        self.kept = trace.reused = False
        super().connect()
        trace.written = False  # what a proxy was told is not the request

    def request(self, *args: Any, **kwargs: Any) -> None:
        trace.reused = self.kept
        super().request(*args, **kwargs)

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        cast("socket.socket", self.sock).settimeout(trace.remaining(_UNLIMITED))
        trace.written = True
        super().send(data)

    def getresponse(self) -> Any:
        answer = super().getresponse()
        self.kept = True
        return answer


def _left(until: float) -> float:
    return trace.remaining(max(_CONNECT_LEAST, until - time.monotonic()))


def _addresses(host: str, port: int) -> list[Any]:
    """Look a host up; the resolver has no time limit of its own, so it works in a thread that may be left behind."""
    found: list[Any] = []
    fault: list[Exception] = []

    def ask() -> None:
        try:
            found.extend(socket.getaddrinfo(host, port, allowed_gai_family(), socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            fault.append(error)

    if _is_address(host):
        ask()
    else:
        thread = Thread(target=ask, name="taskbridge-resolver", daemon=True)
        thread.start()
        thread.join(trace.remaining(CONNECT_LIMIT))
    if fault:
        raise fault[0]
    if not found:
        raise TimeoutError
    return found


def _is_address(host: str) -> bool:
    return ":" in host or host.rpartition(".")[2].isdigit()


class _TlsConnection(_Connection, HTTPSConnection):
    """The same over TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls: Any = _Connection

    def _get_conn(self, timeout: float | None = None) -> Any:
        connection = super()._get_conn(timeout)
        if trace.request.new_connection or trace.request.public_only:
            connection.close()  # it opens anew when used
        return connection

    def _put_conn(self, conn: Any) -> None:
        if conn is not None and self.pool is not None and self.pool.full():
            conn.close()  # more threads than places; urllib3 would log a warning each time
            return
        super()._put_conn(conn)


class _TlsPool(_Pool, HTTPSConnectionPool):
    ConnectionCls: Any = _TlsConnection


class Adapter(HTTPAdapter):
    """requests' adapter with our connections.

    Args:
        context: For https; None where nothing needs it.
        size: Connections kept per host.
    """

    def __init__(self, context: ssl.SSLContext | None, size: int) -> None:
        self._tls: dict[str, Any] = {} if context is None else {"ssl_context": context}
        super().__init__(pool_connections=8, pool_maxsize=size, max_retries=0)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **kwargs: Any) -> None:
        """See `HTTPAdapter`."""
        super().init_poolmanager(connections, maxsize, block, **kwargs, **self._tls)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """See `HTTPAdapter`."""
        manager: Any = super().proxy_manager_for(proxy, **kwargs, **self._tls)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
        return manager

    def pool_for(self, url: str, proxy: str | None) -> Any:
        """The connections to the host of a URL.

        Args:
            url: The URL.
            proxy: URL of the proxy, or None.
        """
        manager: Any = self.proxy_manager_for(proxy) if proxy else self.poolmanager
        return manager.connection_from_url(url)
