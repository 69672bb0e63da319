"""What both transports share: limits, certificates, and the checks that every answer passes.

The checks look at the head of an answer before a byte of its body is read, and are the same for both, so that one fault
has one outcome whichever library meets it.
"""

from __future__ import annotations

import ssl
import zlib
from collections.abc import Generator, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from taskbridge.errors import (
    ConfigError,
    ContractError,
    MalformedResponse,
    ResponseTooLarge,
    TaskbridgeError,
    TransportError,
    TruncatedResponse,
)
from taskbridge.provider.http import Request, Response
from taskbridge.provider.sink import ResponseSink

if TYPE_CHECKING:
    from taskbridge.transport import Network

CONNECT_LIMIT: Final = 5.0  # seconds for one connection to come about, all its addresses and the handshake included


READ_LIMIT: Final = 10.0  # seconds of silence while an answer is read


LONGEST_LINE: Final = 65_536  # bytes of one header line, as http.client takes


BLOCK: Final = 65_536  # bytes read at a time


_MOST_FIELDS: Final = 99  # header fields, as http.client takes


_LONGEST_NUMBER: Final = 18  # digits of a Content-Length; real ones need 10


_WITHOUT_BODY: Final = frozenset({204, 304})


_GZIP_WINDOW: Final = 31  # zlib's number for a gzip header and trailer


_GZIP: Final = frozenset({"gzip", "x-gzip"})


# Where it goes.


def not_public_error() -> MalformedResponse:
    """The error for a link that leads into a private network."""
    return MalformedResponse("the link leads to an address that is not of the public internet; nothing was fetched")


def tls_context(network: Network) -> ssl.SSLContext:
    """The one TLS context of a transport.

    Raises:
        ConfigError: The certificates cannot be read.
    """
    bundle = network.ca_bundle
    if bundle is None:
        return _default_context()
    try:
        if Path(bundle).is_dir():
            return ssl.create_default_context(capath=bundle)
        return ssl.create_default_context(cafile=bundle)
    except OSError:
        fault = f"ca_bundle {bundle} cannot be read, or holds no certificates in PEM form"
    raise ConfigError(fault)


@cache
def _default_context() -> ssl.SSLContext:
    import certifi  # noqa: PLC0415  # comes with requests, and only https needs it

    return ssl.create_default_context(cafile=certifi.where())  # tens of milliseconds


# What comes in.


def header_fields(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Header fields with names in lower case; what was sent several times is joined by commas (RFC 9110, 5.3).

    Args:
        pairs: Names and values, in the order in which they came.
    """
    fields: dict[str, str] = {}
    for name, value in pairs:
        key = name.lower()
        printable = value if value.isprintable() else " ".join(value.split())  # a folded line
        fields[key] = f"{fields[key]}, {printable}" if key in fields else printable
    return fields


def check_headers(request: Request, status: int, fields: Mapping[str, str], count: int, max_body: int) -> None:
    """Refuse an answer whose head cannot be trusted, before its body is read.

    Args:
        request: What was asked.
        status: HTTP status.
        fields: Header fields, as `header_fields` makes them.
        count: How many header lines came.
        max_body: Bytes of the body at most.

    Raises:
        MalformedResponse: Its status is none, its length is contradictory or no number, or its fields are too many.
        ResponseTooLarge: It announces more than `max_body`.
    """
    length, coding = fields.get("content-length"), fields.get("transfer-encoding")
    fault = ""
    if not 200 <= status <= 599:
        fault = f"HTTP {status} is no answer"
    elif count > _MOST_FIELDS:
        fault = f"the answer has more than {_MOST_FIELDS} header fields"
    elif length is not None and not (length.isascii() and length.isdigit() and len(length) <= _LONGEST_NUMBER):
        fault = "the answer's Content-Length cannot be trusted"
    elif coding is not None and (length is not None or coding.lower() != "chunked"):
        fault = "the answer's Transfer-Encoding cannot be trusted"
    if fault:
        raise MalformedResponse(fault, repeats=1, http_status=status)
    if length is None or not _has_body(request, status):
        return
    if request.save_to is not None and status < 300:
        request.save_to.check_size(int(length) - (0 if status == 206 else request.save_to.received), status)
    elif int(length) > max_body:
        raise too_large_error(max_body, status)


def _has_body(request: Request, status: int) -> bool:
    return request.method != "HEAD" and status not in _WITHOUT_BODY


def complete_response(request: Request, status: int, fields: Mapping[str, str], body: bytes, max_body: int) -> Response:
    """An answer of which the body is there, with its content encoding undone.

    Raises:
        TruncatedResponse: It ended inside its headers, for all that can be told, and then has its `http_status`: the
            same answer twice is one without a body. Or its compressed body is cut.
        ResponseTooLarge: It is larger than `max_body`, or in an encoding that cannot be bounded.
    """
    framed = "content-length" in fields or "transfer-encoding" in fields
    if not body and not framed and _has_body(request, status):
        raise TruncatedResponse("the answer ended inside its headers", http_status=status)
    if len(body) > max_body:
        raise too_large_error(max_body, status)
    encoding = _encoding(fields)
    if encoding and body:
        body = _unpacked(body, encoding, max_body, status)
    return Response(status, fields, body)


def _encoding(fields: Mapping[str, str]) -> str:
    """The content encoding; empty where there is none."""
    encoding = fields.get("content-encoding", "").strip().lower()
    return "" if encoding == "identity" else encoding


def _unpacked(body: bytes, encoding: str, max_body: int, status: int) -> bytes:
    if encoding not in _GZIP:
        raise ResponseTooLarge(
            "the answer comes in an encoding that was not asked for and cannot be bounded", http_status=status
        )
    unpack = zlib.decompressobj(_GZIP_WINDOW)
    try:
        printable = unpack.decompress(body, max_body + 1)
    except zlib.error:
        raise TruncatedResponse("the answer's compressed body is broken") from None
    if len(printable) > max_body:
        raise too_large_error(max_body, status)
    if not unpack.eof:
        raise TruncatedResponse("the answer's compressed body is cut")
    if unpack.unused_data:
        raise TruncatedResponse("the answer's compressed body has something behind its end")
    return printable


def file_writer(status: int, fields: Mapping[str, str], sink: ResponseSink) -> Generator[float, bytes, None]:
    """Takes the blocks of a body into a file: start it, send it the blocks and then an empty one, close it.

    What it gives back for a block are the seconds by which the request's deadline moves.

    Args:
        status: HTTP status, below 300.
        fields: Header fields, as `header_fields` makes them.
        sink: The file.

    Raises:
        MalformedResponse: The answer has a content encoding that was not asked for and is not gzip, or is another part
            of the file than was asked for.
        ResponseTooLarge: It is larger than the file may be.
        TruncatedResponse: It has ended before its end.
        OSError: The file cannot be written; `filename` says which.
    """
    encoding = _encoding(fields)
    if encoding and (encoding not in _GZIP or status == 206):
        raise MalformedResponse("the file comes in an encoding that was not asked for", repeats=1, http_status=status)
    unpack = zlib.decompressobj(_GZIP_WINDOW) if encoding else None
    start = sink.begin(status, fields, compressed=unpack is not None)
    try:
        with sink.path.open("r+b" if start else "wb") as file:
            file.seek(start)
            file.truncate()
            earned = 0.0
            while block := (yield earned):
                earned = 0.0
                for piece in (block,) if unpack is None else _pieces(unpack, block):
                    sink.check_size(len(piece), status)
                    file.write(piece)
                    earned += sink.add(len(piece))
    except OSError as error:
        error.filename = error.filename or str(sink.path)  # a full disk does not say where, as a network would not
        raise
    if unpack is not None and not unpack.eof:
        raise TruncatedResponse("the file's compressed body is cut")
    sink.finish(framed="content-length" in fields or "transfer-encoding" in fields, status=status)
    yield 0.0


def _pieces(unpack: Any, block: bytes) -> Iterator[bytes]:
    """What a block of a packed body holds, a bounded piece at a time."""
    if unpack.eof:
        raise TruncatedResponse("the file's compressed body has something behind its end")
    try:
        while piece := unpack.decompress(block, BLOCK):
            yield piece
            block = unpack.unconsumed_tail
    except zlib.error:
        broken = True
    else:
        broken = bool(unpack.unused_data)
    if broken:
        raise TruncatedResponse("the file's compressed body is broken")


def too_large_error(max_body: int, status: int | None = None) -> ResponseTooLarge:
    """The error for a body over the limit."""
    return ResponseTooLarge(
        f"the answer is larger than max_body ({max_body} bytes); raise max_body if the vendor's answers are that large",
        http_status=status,
    )


# What does not come.


def request_error(kind: type[TaskbridgeError], words: str, *, written: bool, stale: bool = False) -> TaskbridgeError:
    """Our error for a failure of the library below; built after its exception is gone, which may print a credential.

    Args:
        kind: The class.
        words: What happened.
        written: Whether a byte of the request may have left.
        stale: Whether a kept connection was closed before a byte of the answer came.
    """
    if issubclass(kind, ContractError):
        return kind(words, repeats=1)
    error = kind(words)
    if isinstance(error, TransportError):
        error.written = written
    if isinstance(error, TruncatedResponse):
        error.stale = stale
    return error
