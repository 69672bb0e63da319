"""The synchronous transport, on requests' adapter.

It uses the connection pools, proxies and TLS of requests, but not its sessions (redirects, cookies, environment,
hooks). The connections are those of `deadlines`, which enforce the total deadline. Every failure becomes one of our
errors, raised after the library's exception is gone: that one may print a credential.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from contextlib import closing
from dataclasses import dataclass
from http.client import BadStatusLine, HTTPException, IncompleteRead, RemoteDisconnected
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from urllib3 import Retry, Timeout, exceptions

from taskbridge._transport.bodies import body_stream, is_local_error
from taskbridge._transport.deadlines import Adapter, current
from taskbridge._transport.responses import (
    BLOCK,
    CONNECT_LIMIT,
    READ_LIMIT,
    complete_response,
    file_writer,
    request_error,
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

_NO_RETRIES: Final = Retry(False, redirect=False)  # retries are decided elsewhere
_LIMITS: Final = Timeout(connect=CONNECT_LIMIT, read=READ_LIMIT)  # within the deadline


class RequestsTransport:
    """Sends requests in the caller's thread; safe to use from several threads and after a fork.

    Args:
        network: Proxy and certificates.
        size: Most open connections per host.
        user_agent: User-Agent header.
    """

    def __init__(self, network: Network, *, size: int = 32, user_agent: str = "taskbridge") -> None:
        self._network = network
        self._size = size
        self._user_agent = user_agent
        self._origins = _Origins(network, size)

    def close(self) -> None:
        """Close the open connections."""
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
            failure = _local_error(error, request) or _translated(error)
        except BaseException as error:  # noqa: BLE001  # an interruption, without the frames that hold credentials
            failure = error
        finally:
            current.sending = False
        try:
            raise without_traceback(failure)
        finally:
            del failure  # or the error and this frame reference each other

    def _send(self, request: Request, max_body: int) -> Response:
        body = body_stream(request)
        headers = {"User-Agent": self._user_agent, "Accept-Encoding": "identity", **request.headers}
        if request.save_to is not None:
            headers.update(request.save_to.headers)
        if body is not None:
            headers.update(body.headers)
            headers["Content-Length"] = str(body.length)
        origins = self._origins
        if origins.pid != os.getpid():
            # After a fork, the parent's connections and locks must not be used.
            origins = self._origins = _Origins(self._network, self._size)
        origin = origins.get(request.url)
        raw: BaseHTTPResponse = origin.pool.urlopen(
            request.method,
            origin.target(request.url),
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
        return response


@dataclass(frozen=True, slots=True)
class _Origin:
    """One origin (scheme, host, port).

    Attributes:
        pool: Its connection pool.
        full_url: Whether the request line holds the whole URL, for a forwarding proxy.
    """

    pool: Any
    full_url: bool

    def target(self, url: str) -> str:
        """Return the target of the request line."""
        if self.full_url:
            return url
        parts = urlsplit(url)
        path = parts.path or "/"
        return f"{path}?{parts.query}" if parts.query else path


class _Origins:
    """All origins, for one process. Needs no lock: if two threads create the same entry, one of them is kept."""

    def __init__(self, network: Network, size: int) -> None:
        self.pid = os.getpid()
        self._network = network
        self._size = size
        self._adapters: dict[bool, Adapter] = {}
        self._origins: dict[str, _Origin] = {}

    def get(self, url: str) -> _Origin:
        parts = urlsplit(url)
        key = f"{parts.scheme}://{parts.netloc}"
        origin = self._origins.get(key)
        if origin is None:
            proxy = self._network.proxy_for(parts.scheme, parts.hostname or "")
            secure = "https" in (parts.scheme, urlsplit(proxy or "").scheme)
            pool = self._adapter(secure=secure).pool_for(url, proxy)
            full_url = proxy is not None and parts.scheme == "http"
            origin = self._origins.setdefault(key, _Origin(pool, full_url))
        return origin

    def _adapter(self, *, secure: bool) -> Adapter:
        adapter = self._adapters.get(secure)
        if adapter is None:
            context = tls_context(self._network) if secure else None
            adapter = self._adapters.setdefault(secure, Adapter(context, self._size))
        return adapter

    def close(self) -> None:
        for origin in self._origins.values():
            origin.pool.close()
        self._origins.clear()
        for adapter in self._adapters.values():
            adapter.close()
        self._adapters.clear()


def _read(raw: BaseHTTPResponse, request: Request, max_body: int) -> Response:
    fields = current.fields
    if request.save_to is not None and raw.status < 300:
        with closing(file_writer(raw.status, fields, request.save_to)) as file:
            next(file)
            while block := raw.read1(BLOCK, decode_content=False):
                current.deadline += file.send(block)
            _check_end()
            file.send(b"")
        return Response(raw.status, fields, b"")
    if "content-length" in fields:
        body = raw.read(int(fields["content-length"]), decode_content=False)
    else:
        whole = BytesIO()
        while block := raw.read(BLOCK, decode_content=False):
            if whole.tell() + len(block) > max_body:
                raise too_large_error(max_body, raw.status)
            whole.write(block)
        body = whole.getvalue()
    _check_end()
    return complete_response(request, raw.status, fields, body, max_body)


def _check_end() -> None:
    """Detect a connection that ended before a body of stated length."""
    if current.ended and ("content-length" in current.fields or "transfer-encoding" in current.fields):
        raise TruncatedResponse("the answer broke off")


# Library's exception -> our class and message, the most specific first.
_ERRORS: Final[tuple[tuple[type[BaseException], type[TaskbridgeError], str], ...]] = (
    (ssl.SSLCertVerificationError, TlsError, "the host's certificate cannot be trusted"),
    (exceptions.ReadTimeoutError, DeadlineExceeded, f"no data for {READ_LIMIT:g} s"),
    (TimeoutError, DeadlineExceeded, f"no data for {READ_LIMIT:g} s"),
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
_ERRORS_BEFORE: Final[tuple[tuple[type[BaseException], type[TaskbridgeError], str], ...]] = (
    (ssl.SSLCertVerificationError, TlsError, "the host's certificate cannot be trusted"),
    (exceptions.ProxyError, ConnectFailed, "the proxy cannot be reached"),
    (socket.gaierror, ConnectFailed, "the host's name cannot be resolved"),
    (TimeoutError, ConnectFailed, f"no connection within {CONNECT_LIMIT:g} s"),
    (ssl.SSLEOFError, ConnectFailed, "the connection broke off before the request was sent"),
    (ssl.SSLZeroReturnError, ConnectFailed, "the connection broke off before the request was sent"),
    (ConnectionResetError, ConnectFailed, "the connection broke off before the request was sent"),
    (BrokenPipeError, ConnectFailed, "the connection broke off before the request was sent"),
    (ssl.SSLError, TlsError, "the TLS handshake failed"),
    (exceptions.SSLError, TlsError, "the TLS handshake failed"),
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
    return request_error(error_class, message, written=current.written, stale=current.reused and current.received == 0)


def _classify(error: BaseException) -> tuple[type[TaskbridgeError], str]:
    chain = list(_causes(error))
    late = any(isinstance(e, TimeoutError | exceptions.TimeoutError) for e in chain)
    if late and time.monotonic() >= current.deadline:
        return DeadlineExceeded, "the total time for the request ran out"
    if current.ended and any(_is_cut(e) for e in chain):
        return TruncatedResponse, "the answer ended inside its status line"
    if not current.ended and any(isinstance(e, IncompleteRead) for e in chain):
        return MalformedResponse, "the answer's chunks cannot be read"
    for kind, error_class, message in _ERRORS if current.written else _ERRORS_BEFORE:
        if any(isinstance(e, kind) for e in chain):
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
