"""What both transports share: limits, certificates, and the checks of every response.

The header of a response is checked before its body is read. Both transports use the same checks, so that a fault has
the same outcome in each.
"""

from __future__ import annotations

import re
import ssl
import zlib
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import urlsplit

from taskbridge.errors import (
    ConfigError,
    ConnectFailed,
    ContractError,
    DeadlineExceeded,
    MalformedResponse,
    ResponseTooLarge,
    TaskbridgeError,
    TlsError,
    TransportError,
    TruncatedResponse,
)
from taskbridge.provider.http import Request, Response
from taskbridge.provider.sink import ResponseSink

if TYPE_CHECKING:
    from taskbridge.transport import Network

CONNECT_LIMIT: Final = 5.0  # seconds to connect, all addresses and the handshake included
READ_LIMIT: Final = 10.0  # seconds without data while a response is read
LONGEST_LINE: Final = 65_536  # bytes of one header line, as in http.client
BLOCK: Final = 65_536  # bytes read at a time
STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([0-9]{3})(?: [^\r\n]*)?\r?\n")
MOST_LINES: Final = 200  # of a header; `check_headers` refuses more than 99 fields
_URL: Final = re.compile(r"([A-Za-z]+://[!\"$-.0->@-~]+)([!\"$-~]*)(?:#[!-~]*)?")  # origin and target
_FIELD: Final = re.compile(rb"([!-9;-~]+):([^\x00]*)")  # name and value of a header line
_MOST_FIELDS: Final = 99  # header fields, as in http.client
_LONGEST_NUMBER: Final = 18  # digits of a Content-Length; real ones need 10
_GZIP_WINDOW: Final = 31  # zlib's number for a gzip header and trailer
_GZIP: Final = frozenset({"gzip", "x-gzip"})
_NO_ENCODING: Final = frozenset({"", "identity", "none", "binary", "utf-8", "aws-chunked"})  # storage hosts send them


_PORTS: Final = {"http": 80, "https": 443}
_SOCKS_PORT: Final = 1080


# Connecting.

Fault: TypeAlias = tuple[type[TaskbridgeError], str]
"""What may go wrong before a byte of the request is sent: the error, and its message about ``{peer}``."""

HOST: Final = "the host"
UNRESOLVED: Final[Fault] = (ConnectFailed, "the name of {peer} cannot be resolved")
UNREACHABLE: Final[Fault] = (ConnectFailed, "{peer} refuses connections or cannot be reached")
SLOW: Final[Fault] = (ConnectFailed, f"no connection to {{peer}} within {CONNECT_LIMIT:g} s")
LATE: Final[Fault] = (DeadlineExceeded, "the total time for the request ran out before {peer} was reached")
BROKEN: Final[Fault] = (ConnectFailed, "the connection to {peer} broke off before the request was sent")
NO_TUNNEL: Final[Fault] = (ConnectFailed, "{peer} gives no readable answer")
UNTRUSTED: Final[Fault] = (TlsError, "the certificate of {peer} cannot be trusted")
NO_TLS: Final[Fault] = (TlsError, "the TLS handshake with {peer} failed")
UNUSABLE_HOST: Final[Fault] = (ConnectFailed, "the URL's host cannot be used")
UNUSABLE_REQUEST: Final[Fault] = (ConnectFailed, "the URL or a header field cannot be sent")


def connect_error(fault: Fault, peer: str = HOST) -> TaskbridgeError:
    """Return the error for a request of which no byte was sent."""
    error_class, message = fault
    return request_error(error_class, message.format(peer=peer), written=False)


def split_target(url: str) -> tuple[str, str]:
    """Return the origin of a URL as it stands, and the target of its request line, byte for byte.

    Raises:
        ConnectFailed: It cannot be sent.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise connect_error(UNUSABLE_REQUEST)
    target = match[2]
    return match[1], target if target.startswith("/") else f"/{target}"


def address_of(url: str) -> tuple[str, int]:
    """Return the host and the port of an origin or of a proxy."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or _PORTS.get(parts.scheme, _SOCKS_PORT)


def proxy_peer(url: str) -> str:
    """Return how messages name a proxy: by its host and port, never with its credentials."""
    host, port = address_of(url)
    return f"the proxy [{host}]:{port}" if ":" in host else f"the proxy {host}:{port}"


def host_behind(proxy: str) -> str:
    """Return how messages name the host that is reached through a proxy, given as by `proxy_peer`."""
    return f"{HOST} (through {proxy})"


def refused_tunnel_error(status: int, proxy: str) -> TaskbridgeError:
    """Return the error for a proxy that answers CONNECT with anything but success."""
    return connect_error((ConnectFailed, f"{{peer}} refuses to connect to the host (HTTP {status})"), proxy)


def check_forwarded(status: int, proxy: str) -> None:
    """Refuse a proxy's own answer to a request that it was to forward.

    Raises:
        ConnectFailed: The proxy wants credentials: the request did not reach the vendor.
    """
    if status == 407:
        raise connect_error((ConnectFailed, f"{{peer}} refuses to forward the request (HTTP {status})"), proxy)


def closed_error(*, written: bool) -> TransportError:
    """Return the error for a request through a transport that was closed."""
    error = TransportError("the transport was closed", retryable=False)
    error.written = written
    return error


def not_public_error() -> MalformedResponse:
    """Return the error for a link that leads into a private network."""
    return MalformedResponse("the link leads to an address that is not of the public internet; nothing was fetched")


def tls_context(network: Network) -> ssl.SSLContext:
    """Return the TLS context of a transport.

    Raises:
        ConfigError: The certificates cannot be read.
    """
    bundle = network.ca_bundle
    if bundle is None:
        return _default_context()
    with suppress(OSError):
        if Path(bundle).is_dir():
            return _for_http1(ssl.create_default_context(capath=bundle))
        return _for_http1(ssl.create_default_context(cafile=bundle))
    raise ConfigError(f"{network.ca_source} {bundle} cannot be read, or holds no certificates in PEM form")


@cache
def _default_context() -> ssl.SSLContext:
    import certifi  # noqa: PLC0415  # only https needs it

    return _for_http1(ssl.create_default_context(cafile=certifi.where()))  # takes tens of milliseconds


def _for_http1(context: ssl.SSLContext) -> ssl.SSLContext:
    context.set_alpn_protocols(["http/1.1"])
    return context


# Responses.


def header_fields(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return header fields by lower-case name; repeated fields are joined by commas (RFC 9110, 5.3)."""
    fields: dict[str, str] = {}
    for name, value in pairs:
        key = name.lower()
        text = value if value.isprintable() else " ".join(value.split())  # a folded line
        fields[key] = f"{fields[key]}, {text}" if key in fields else text
    return fields


def add_field(pairs: list[tuple[str, str]], line: bytes) -> bool:
    """Add a line of a header to the fields; False if it cannot be read."""
    field = _FIELD.match(line)
    if field is not None:
        pairs.append((field[1].decode("ascii"), field[2].strip(b" \t\r\n").decode("utf-8", "replace")))
    elif line[:1] in (b" ", b"\t") and pairs:  # a folded line
        name, value = pairs[-1]
        pairs[-1] = (name, f"{value} {line.strip().decode('utf-8', 'replace')}")
    else:
        return False
    return True


def check_headers(request: Request, status: int, fields: Mapping[str, str], count: int, max_body: int) -> None:
    """Refuse a response whose header, of `count` lines, cannot be trusted, before its body is read.

    Raises:
        MalformedResponse: The status is invalid, the length is contradictory or not a number, or there are too many
            fields.
        ResponseTooLarge: It announces more than `max_body`.
    """
    length, coding = fields.get("content-length"), fields.get("transfer-encoding")
    problem = ""
    if not 200 <= status <= 599:
        problem = f"HTTP {status} is no answer"
    elif count > _MOST_FIELDS:
        problem = f"the answer has more than {_MOST_FIELDS} header fields"
    elif length is not None and not (length.isascii() and length.isdigit() and len(length) <= _LONGEST_NUMBER):
        problem = "the answer's Content-Length cannot be trusted"
    elif coding is not None and (length is not None or coding.lower() != "chunked"):
        problem = "the answer's Transfer-Encoding cannot be trusted"
    if problem:
        raise MalformedResponse(problem, repeats=1, http_status=status)
    if length is None or not _has_body(request, status):
        return
    if request.save_to is not None and status < 300:
        request.save_to.check_limit(int(length) - (0 if status == 206 else request.save_to.received), status)
    elif int(length) > max_body:
        raise too_large_error(max_body, status)


def _has_body(request: Request, status: int) -> bool:
    return request.method != "HEAD" and status not in (204, 304)


def complete_response(request: Request, status: int, fields: Mapping[str, str], body: bytes, max_body: int) -> Response:
    """Return a response with its whole body, decompressed.

    Raises:
        TruncatedResponse: It seems to have ended inside its headers; then the error has its `http_status`, since the
            same response twice is one without a body. Or its compressed body is cut.
        ResponseTooLarge: It is larger than `max_body`, or in an encoding whose size cannot be limited.
    """
    framed = "content-length" in fields or "transfer-encoding" in fields
    if not body and not framed and _has_body(request, status):
        raise TruncatedResponse("the answer ended inside its headers", http_status=status)
    if len(body) > max_body:
        raise too_large_error(max_body, status)
    if body and (encoding := _encoding(fields)):
        body = _decompressed(body, encoding, max_body, status)
    return Response(status, fields, body, datetime.now(UTC))


def _encoding(fields: Mapping[str, str]) -> str:
    """The content encoding; empty if there is none."""
    listed = (each.strip() for each in fields.get("content-encoding", "").lower().split(","))
    return ", ".join(each for each in listed if each not in _NO_ENCODING)


def _decompressed(body: bytes, encoding: str, max_body: int, status: int) -> bytes:
    if encoding not in _GZIP:
        message = "the answer comes in an encoding that was not asked for and cannot be bounded"
        raise ResponseTooLarge(message, http_status=status)
    gunzip = _Gunzip()
    content = BytesIO()
    for start in range(0, len(body), BLOCK):  # what is behind a member is copied, so a block must be small
        for piece in gunzip.pieces(body[start : start + BLOCK], "answer"):
            if content.tell() + len(piece) > max_body:
                raise too_large_error(max_body, status)
            content.write(piece)
    if not gunzip.is_complete:
        raise TruncatedResponse("the answer's compressed body is cut")
    return content.getvalue()


class _Gunzip:
    """Decompresses a body of gzip members, a bounded piece at a time; zeros may follow each (RFC 1952, 2.2)."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP_WINDOW)

    @property
    def is_complete(self) -> bool:
        """Whether the last member has ended."""
        return self._member.eof

    def pieces(self, block: bytes, what: str) -> Iterator[bytes]:
        """Yield what a block holds.

        Raises:
            TruncatedResponse: It cannot be decompressed.
        """
        while True:
            if self._member.eof:
                block = block.lstrip(b"\0")
                if not block:
                    return
                self._member = zlib.decompressobj(_GZIP_WINDOW)
            try:
                piece = self._member.decompress(block, BLOCK)
            except zlib.error:
                raise TruncatedResponse(f"the {what}'s compressed body is broken") from None
            if piece:
                yield piece
            block = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if not piece and not block:
                return


def file_writer(status: int, fields: Mapping[str, str], sink: ResponseSink) -> Generator[float, bytes, None]:
    """Write the blocks of a body to a file: start the generator, send it the blocks and then an empty one, close it.

    For each block it yields the seconds by which the request's deadline is extended.

    Raises:
        MalformedResponse: The response has a content encoding other than gzip, is another part of the file than was
            requested, or is longer than it or the vendor says.
        ResponseTooLarge: It is larger than the file may be.
        TruncatedResponse: It ended early.
        OSError: The file cannot be written; `filename` is its path.
    """
    encoding = _encoding(fields)
    if encoding and (encoding not in _GZIP or status == 206):
        raise MalformedResponse("the file comes in an encoding that was not asked for", repeats=1, http_status=status)
    gunzip = _Gunzip() if encoding else None
    start = sink.begin(status, fields, compressed=gunzip is not None)
    try:
        with sink.path.open("r+b" if start else "wb") as file:
            file.seek(start)
            file.truncate()
            extra_seconds = 0.0
            while block := (yield extra_seconds):
                extra_seconds = 0.0
                for piece in (block,) if gunzip is None else gunzip.pieces(block, "file"):
                    sink.check_size(len(piece), status)
                    file.write(piece)
                    extra_seconds += sink.add(len(piece))
    except OSError as error:
        error.filename = error.filename or str(sink.path)  # a full disk does not say where
        raise
    if gunzip is not None and not gunzip.is_complete:
        raise TruncatedResponse("the file's compressed body is cut")
    sink.finish(framed="content-length" in fields or "transfer-encoding" in fields, status=status)
    yield 0.0


def too_large_error(max_body: int, status: int | None = None) -> ResponseTooLarge:
    """Return the error for a body over the limit."""
    return ResponseTooLarge(
        f"the answer is larger than max_body ({max_body} bytes); raise max_body if the vendor's answers are that large",
        http_status=status,
    )


# Failures.


def request_error(
    error_class: type[TaskbridgeError], message: str, *, written: bool, stale: bool = False
) -> TaskbridgeError:
    """Return our error for an HTTP library's, built after the latter is gone: it may print a credential."""
    if issubclass(error_class, ContractError):
        return error_class(message, repeats=1)
    error = error_class(message)
    if isinstance(error, TransportError):
        error.written = written
    if isinstance(error, TruncatedResponse):
        error.stale = stale
    return error
