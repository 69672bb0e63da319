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

from taskbridge.provider.http import Base64, Form, FormFile, Request, Upload

_BLOCK: Final = 65_535  # bytes sent at a time; a multiple of three, for base64


@dataclass(frozen=True, slots=True)
class _File:
    """A file to send."""

    path: Path
    size: int  # bytes
    encoded: bool = False  # whether it is sent as base64

    @property
    def length(self) -> int:
        """Bytes to send."""
        return 4 * -(-self.size // 3) if self.encoded else self.size

    def blocks(self) -> Iterator[bytes]:
        left = self.size
        with self.path.open("rb") as file:
            while left > 0:
                block = file.read(min(_BLOCK, left))
                if not block:
                    raise OSError(errno.EIO, "the file became shorter while it was sent", str(self.path))
                left -= len(block)
                yield b64encode(block) if self.encoded else block


@dataclass(frozen=True, slots=True)
class BodyStream:
    """A request body to send."""

    length: int  # bytes
    parts: tuple[bytes | _File, ...] = field(repr=False)
    headers: Mapping[str, str]  # header fields that the body needs

    @property
    def whole(self) -> bytes | None:
        """The body, if no file has to be read for it."""
        part = self.parts[0] if len(self.parts) == 1 else None
        return part if isinstance(part, bytes) else None

    def blocks(self) -> Iterator[bytes]:
        """Yield the bytes, a block at a time; may be called again.

        Raises:
            OSError: A file cannot be read, or has become shorter.
        """
        for part in self.parts:
            if not isinstance(part, bytes):
                yield from part.blocks()
            elif part:
                yield part


def body_stream(request: Request) -> BodyStream | None:
    """Return a request's body as a stream of known length, or None if it has none.

    Raises:
        OSError: A file is missing, a directory, or unreadable.
    """
    body = request.body
    if body is None:
        return None
    if isinstance(body, bytes | Path):
        return _stream((_content(body),), {})
    if isinstance(body, Base64):
        return _stream((body.head, _content(body.content, encoded=True), body.tail), {})
    boundary = f"taskbridge-{token_hex(16)}"  # random, so that no document can contain it
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    files = body.files if isinstance(body, Form) else (body,)
    parts: list[bytes | _File] = [_fields(body.fields, boundary)]
    for file in files:
        parts += [_file_head(file, boundary), _content(file.content), b"\r\n"]
    return _stream((*parts, f"--{boundary}--\r\n".encode()), headers)


def _stream(parts: tuple[bytes | _File, ...], headers: Mapping[str, str]) -> BodyStream:
    """Return a stream of parts; if none of them is read from a file, they become one."""
    texts = [part for part in parts if isinstance(part, bytes)]
    if len(texts) == len(parts):
        parts = (b"".join(texts),)
    length = sum(len(part) if isinstance(part, bytes) else part.length for part in parts)
    return BodyStream(length, parts, headers)


def _content(content: bytes | Path, *, encoded: bool = False) -> bytes | _File:
    if isinstance(content, bytes):
        return b64encode(content) if encoded else content
    if not content.is_file():
        # A directory has a size too; opening it raises the right error.
        content.open("rb").close()
    return _File(content, content.stat().st_size, encoded)


def _file_head(file: Upload | FormFile, boundary: str) -> bytes:
    media_type = file.media_type
    if media_type == "application/octet-stream":
        media_type = mimetypes.guess_type(file.filename)[0] or media_type
    return (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(file.name)}"; '
        f'filename="{_quoted(file.filename)}"\r\nContent-Type: {media_type}\r\n\r\n'
    ).encode()


def _fields(fields: Iterable[tuple[str, str]], boundary: str) -> bytes:
    return "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"\r\n\r\n{value}\r\n'
        for name, value in fields
    ).encode()


def _quoted(text: str) -> str:
    # The HTML standard's escapes for names in multipart/form-data.
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def is_local_error(error: OSError, request: Request) -> bool:
    """Return whether an error comes from a local file, not from the network."""
    return error.filename is not None and (request.body is not None or request.save_to is not None)
