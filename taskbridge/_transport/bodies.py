"""Request bodies as streams of known length; files are read only when they are sent."""

from __future__ import annotations

import errno
import mimetypes
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Final

from taskbridge.provider.http import Base64, Form, Request

_BLOCK: Final = 65_535  # bytes sent at a time; a multiple of three, for base64


@dataclass(frozen=True, slots=True)
class BodyStream:
    """A request body to send."""

    length: int  # bytes
    head: bytes = field(repr=False)  # what precedes the file, or the whole body
    source: Path | None  # the file, if there is one
    tail: bytes = field(repr=False)  # what follows the file
    headers: Mapping[str, str]  # header fields that the body needs
    size: int = 0  # bytes of the file
    encoded: bool = False  # whether the file is sent as base64

    def blocks(self) -> Iterator[bytes]:
        """Yield the bytes, a block at a time; may be called again.

        Raises:
            OSError: The file cannot be read, or has become shorter.
        """
        if self.head:
            yield self.head
        if self.source is not None:
            left = self.size
            with self.source.open("rb") as file:
                while left > 0:
                    block = file.read(min(_BLOCK, left))
                    if not block:
                        raise OSError(errno.EIO, "the file became shorter while it was sent", str(self.source))
                    left -= len(block)
                    yield b64encode(block) if self.encoded else block
        if self.tail:
            yield self.tail


def body_stream(request: Request) -> BodyStream | None:
    """Return a request's body as a stream of known length, or None if it has none.

    Raises:
        OSError: The file is missing, a directory, or unreadable.
    """
    body = request.body
    if body is None:
        return None
    if isinstance(body, bytes | Path):
        return _with_file(b"", body, b"", {})
    if isinstance(body, Base64):
        return _with_file(body.head, body.content, body.tail, {}, encoded=True)
    boundary = f"taskbridge-{token_hex(16)}"  # random, so that no document can contain it
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    fields, end = _fields(body.fields, boundary), f"--{boundary}--\r\n"
    if isinstance(body, Form):
        return _with_file(b"", f"{fields}{end}".encode(), b"", headers)
    media_type = body.media_type
    if media_type == "application/octet-stream":
        media_type = mimetypes.guess_type(body.filename)[0] or media_type
    head = (
        f"{fields}--{boundary}\r\nContent-Disposition: form-data; "
        f'name="{_quoted(body.name)}"; filename="{_quoted(body.filename)}"\r\nContent-Type: {media_type}\r\n\r\n'
    )
    return _with_file(head.encode(), body.content, f"\r\n{end}".encode(), headers)


def _with_file(
    head: bytes, content: bytes | Path, tail: bytes, headers: Mapping[str, str], *, encoded: bool = False
) -> BodyStream:
    if isinstance(content, bytes):
        whole = head + (b64encode(content) if encoded else content) + tail
        return BodyStream(len(whole), whole, None, b"", headers)
    if not content.is_file():
        # A directory has a size too; opening it raises the right error.
        content.open("rb").close()
    size = content.stat().st_size
    sent = 4 * -(-size // 3) if encoded else size
    return BodyStream(len(head) + sent + len(tail), head, content, tail, headers, size, encoded)


def _fields(fields: Iterable[tuple[str, str]], boundary: str) -> str:
    return "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"\r\n\r\n{value}\r\n'
        for name, value in fields
    )


def _quoted(text: str) -> str:
    # The HTML standard's escapes for names in multipart/form-data.
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def is_local_error(error: OSError, request: Request) -> bool:
    """Return whether an error comes from a local file, not from the network."""
    return error.filename is not None and (request.body is not None or request.save_to is not None)
