"""What both transports share: bodies as streams, and the checks that every answer passes."""

from __future__ import annotations

import mimetypes
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from taskbridge.errors import (
    ContractError,
    MalformedResponse,
    ResponseTooLarge,
    TaskbridgeError,
    TransportError,
    TruncatedResponse,
)
from taskbridge.http import Request, Upload

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["CONNECT_LIMIT", "READ_LIMIT", "Stream", "check_framing", "decoded", "no_answer", "stream"]

CONNECT_LIMIT: Final = 5.0  # seconds for one connection to come about
READ_LIMIT: Final = 10.0  # seconds of silence while an answer is read
BLOCK: Final = 65_536  # bytes read or sent at a time
_BOUNDARY: Final = "taskbridge-7d1f6c0a9b5e4f3c"  # fixed, so that a repeat sends the same bytes
_NO_BODY: Final = frozenset({204, 304})
_GZIP_WINDOW: Final = 31  # zlib's number for a gzip header and trailer


# What goes out.


@dataclass(frozen=True, slots=True)
class Stream:
    """A body on its way out.

    Attributes:
        length: Bytes.
        head: What comes before the file.
        source: The file, if there is one.
        tail: What comes after the file.
        headers: Header fields that the body needs.
    """

    length: int
    head: bytes
    source: Path | None
    tail: bytes
    headers: Mapping[str, str]

    def blocks(self) -> Iterator[bytes]:
        """The bytes, a block at a time; may be asked for again.

        Raises:
            OSError: The file cannot be read, or is not as long as it was.
        """
        if self.head:
            yield self.head
        if self.source is not None:
            left = self.length - len(self.head) - len(self.tail)
            with self.source.open("rb") as file:
                while left > 0:
                    block = file.read(min(BLOCK, left))
                    if not block:
                        raise OSError(f"{self.source.name} became shorter while it was sent")
                    left -= len(block)
                    yield block
        if self.tail:
            yield self.tail


def stream(request: Request) -> Stream | None:
    """A request's body as a stream of known length, or None where it has none.

    Raises:
        OSError: The file is missing, a directory, or unreadable.
    """
    body = request.body
    if body is None:
        return None
    if isinstance(body, bytes):
        return Stream(len(body), body, None, b"", {})
    if isinstance(body, Path):
        return Stream(body.stat().st_size, b"", body, b"", {})
    head, tail = _form(body)
    headers = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
    if isinstance(body.content, bytes):
        whole = head + body.content + tail
        return Stream(len(whole), whole, None, b"", headers)
    size = body.content.stat().st_size
    return Stream(len(head) + size + len(tail), head, body.content, tail, headers)


def _form(upload: Upload) -> tuple[bytes, bytes]:
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{_quoted(name)}"\r\n\r\n{value}\r\n'
        for name, value in upload.fields
    ]
    media_type = upload.media_type
    if media_type == "application/octet-stream":
        media_type = mimetypes.guess_type(upload.filename)[0] or media_type
    parts.append(
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{_quoted(upload.name)}"; '
        f'filename="{_quoted(upload.filename)}"\r\nContent-Type: {media_type}\r\n\r\n'
    )
    return "".join(parts).encode(), f"\r\n--{_BOUNDARY}--\r\n".encode()


def _quoted(text: str) -> str:
    # The HTML standard's escapes for names in multipart/form-data.
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


# What comes in.


def check_framing(status: int, headers: Mapping[str, str], lengths: Sequence[str], *, empty: bool) -> None:
    """Refuse an answer whose frame cannot be trusted.

    Args:
        status: HTTP status.
        headers: Header fields, names in lower case.
        lengths: Every Content-Length that was sent.
        empty: Whether no byte of a body came.

    Raises:
        MalformedResponse: Its lengths are contradictory or no numbers.
        TruncatedResponse: It ended inside its headers, for all that can be told.
    """
    if len(set(lengths)) > 1 or any(not (n.isascii() and n.isdigit()) for n in lengths):
        raise MalformedResponse("the answer's Content-Length cannot be trusted", repeats=1, http_status=status)
    if empty and not lengths and "transfer-encoding" not in headers and status not in _NO_BODY:
        raise TruncatedResponse("the answer ended inside its headers", http_status=status)


def decoded(body: bytes, headers: Mapping[str, str], max_body: int) -> bytes:
    """Undo the answer's content encoding, bounded.

    Raises:
        ResponseTooLarge: It is larger than `max_body`, or in an encoding that cannot be bounded.
        TruncatedResponse: The compressed stream is broken or cut.
    """
    encoding = headers.get("content-encoding", "").strip().lower()
    if len(body) > max_body:
        raise too_large(max_body)
    if encoding in ("", "identity") or not body:
        return body
    if encoding not in ("gzip", "x-gzip"):
        raise ResponseTooLarge("the answer comes in an encoding that was not asked for and cannot be bounded")
    reader = zlib.decompressobj(_GZIP_WINDOW)
    try:
        plain = reader.decompress(body, max_body + 1)
    except zlib.error:
        raise TruncatedResponse("the answer's compressed body is broken") from None
    if len(plain) > max_body:
        raise too_large(max_body)
    if not reader.eof:
        raise TruncatedResponse("the answer's compressed body is cut")
    return plain


def too_large(max_body: int) -> ResponseTooLarge:
    """The error for a body over the limit."""
    return ResponseTooLarge(
        f"the answer is larger than max_body ({max_body} bytes); raise max_body if the vendor's answers are that large"
    )


# What does not come.


def no_answer(kind: type[TaskbridgeError], words: str, *, written: bool, stale: bool = False) -> TaskbridgeError:
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
