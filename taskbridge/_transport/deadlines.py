"""urllib3 connections that enforce a total deadline.

urllib3's time limits are per socket operation: a response that drips a byte at a time never ends. A connection here
checks the total deadline at each name lookup, connection, handshake, read and write. It also records what happened to
the request: whether a byte was sent, whether the connection was reused, whether the peer closed it. `current` holds the
request that this thread is sending.
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

from taskbridge._transport.responses import (
    CONNECT_LIMIT,
    LONGEST_LINE,
    READ_LIMIT,
    check_headers,
    header_fields,
    not_public_error,
)
from taskbridge.errors import TruncatedResponse
from taskbridge.provider.addresses import is_public
from taskbridge.provider.http import Request

_FIELD: Final = re.compile(rb"([!-9;-~]+):([^\x00]*)")  # name and value of a header line
_MOST_LINES: Final = 200  # of a header; `check_headers` refuses more than 99 fields
_CONNECT_LEAST: Final = 0.05  # seconds for the last of many addresses
_UNLIMITED: Final = 86_400.0  # seconds; only the deadline counts


class _CurrentRequest(local):
    """The request that this thread is sending, and what has happened to it."""

    request = Request("GET", "")
    max_body = 0
    deadline = 0.0  # monotonic seconds
    silence = READ_LIMIT  # most seconds of one read
    written = False  # whether a byte of the request may have been sent
    reused = False  # whether an open connection was reused
    received = 0  # bytes of the response so far
    ended = False  # whether the peer closed the connection while we were reading
    sending = False  # whether this thread is sending a request of ours
    fields: dict[str, str]  # header fields of the response

    def begin(self, request: Request, deadline: float, max_body: int) -> None:
        """Start a new request."""
        self.request, self.deadline, self.max_body = request, deadline, max_body
        self.silence = max(READ_LIMIT, request.long_poll or 0.0)
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


class _QueryFilter(logging.Filter):
    """Removes the query from what urllib3 logs about our requests: a presigned link is a secret."""

    def filter(self, record: logging.LogRecord) -> bool:
        if current.sending and isinstance(record.args, tuple):
            record.args = tuple(_without_query(each) if isinstance(each, str) else each for each in record.args)
        return True


def _without_query(text: str) -> str:
    path, mark, _ = text.partition("?")
    return f"{path}?…" if mark else text


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
        if cast("Any", self).headers is not None:
            return
        version, status, reason = self._status()
        pairs = self._pairs()
        while 100 <= status < 200 and status != 101:  # an interim response
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
        current.fields = fields = header_fields((name, _text(value)) for name, value in pairs)
        check_headers(current.request, status, fields, len(pairs), current.max_body)
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
        """Read the header fields, names and values as received."""
        pairs: list[tuple[str, str]] = []
        for _ in range(_MOST_LINES):
            line = self.fp.readline(LONGEST_LINE + 1)
            if len(line) > LONGEST_LINE:
                raise LineTooLong("header line")
            if current.ended and not line.endswith(b"\n"):  # http.client takes this for the end of the header
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
    # Decoded as Latin-1 so far; the asynchronous transport decodes UTF-8.
    return value if value.isascii() else value.encode("latin-1", "replace").decode("utf-8", "replace")


class _DeadlineConnection(HTTPConnection):
    """A connection that enforces the total deadline and records what happens."""

    response_class = _DeadlineResponse
    reusable = False  # whether a response has arrived over the present socket

    def _new_conn(self) -> socket.socket:
        # Like urllib3's own, but the limit is for all addresses together, not for each.
        until = time.monotonic() + CONNECT_LIMIT
        last_error: OSError | None = None
        addresses = _addresses(self._dns_host, self.port)
        if current.request.public_only and self.proxy is None:
            addresses = [each for each in addresses if is_public(each[4][0])]
            if not addresses:
                raise not_public_error()
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
        cast("socket.socket", self.sock).settimeout(current.remaining(_UNLIMITED))
        current.written = True
        super().send(data)

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

    if _is_address(host):
        resolve()
    else:
        thread = Thread(target=resolve, name="taskbridge-resolver", daemon=True)
        thread.start()
        thread.join(current.remaining(CONNECT_LIMIT))
    if errors:
        raise errors[0]
    if not found:
        raise TimeoutError
    return found


def _is_address(host: str) -> bool:
    return ":" in host or host.rpartition(".")[2].isdigit()


class _TlsConnection(_DeadlineConnection, HTTPSConnection):
    """The same over TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls: Any = _DeadlineConnection

    def _get_conn(self, timeout: float | None = None) -> Any:
        connection = super()._get_conn(timeout)
        if current.request.new_connection or current.request.public_only:
            connection.close()  # reopened when used
        return connection

    def _put_conn(self, conn: Any) -> None:
        if conn is not None and self.pool is not None and self.pool.full():
            conn.close()  # more threads than places in the pool; urllib3 would log a warning each time
            return
        super()._put_conn(conn)


class _TlsPool(_Pool, HTTPSConnectionPool):
    ConnectionCls: Any = _TlsConnection


class Adapter(HTTPAdapter):
    """requests' adapter with `_DeadlineConnection`.

    Args:
        context: For https; None if nothing needs it.
        size: Most open connections per host.
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
        """Return the connection pool for the host of a URL.

        Args:
            url: The URL.
            proxy: URL of the proxy, or None.
        """
        manager: Any = self.proxy_manager_for(proxy) if proxy else self.poolmanager
        return manager.connection_from_url(url)
