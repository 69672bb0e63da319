"""Files of the emulated Scan Documents: the types of uploads, and the files that operations make.

Generated PNG and PDF files are real and have the size that their properties state; generated JPEG and WebP files are
one pixel, whatever their properties state. The vendor's documents name the types (TASKS) and the properties (NODE).
"""

from __future__ import annotations

import struct
import zlib
from base64 import b64decode
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

from taskbridge.emulator.helpers import count_pdf_pages

if TYPE_CHECKING:
    from collections.abc import Mapping

PNG: Final = "image/png"
JPEG: Final = "image/jpeg"
WEBP: Final = "image/webp"
PDF: Final = "application/pdf"
IMAGES: Final = frozenset({PNG, JPEG, WEBP})  # doc TASKS

# First bytes and file name suffixes -> type. Facts about file formats, not about the vendor.
MAGIC: Final[Mapping[bytes, str]] = {b"\x89PNG": PNG, b"\xff\xd8\xff": JPEG, b"RIFF": WEBP, b"%PDF": PDF}
SUFFIXES: Final[Mapping[str, str]] = {".png": PNG, ".jpg": JPEG, ".jpeg": JPEG, ".webp": WEBP, ".pdf": PDF}

EXAMPLE_SIZE: Final = (800, 600)  # pixels; doc GET-TASK, for images whose size is not read

ONE_PIXEL: Final[Mapping[str, bytes]] = {
    JPEG: b64decode(
        "/9j/4AAQSkZJRgABAQEASABIAAD/2wBDAP" + "/" * 86 + "wgALCAABAAEBAREA/8QAFBABAAAAAAAAAAAAAAAAAAAAAP/aAAgBAQABPxA="
    )
    + b"\xff\xd9",
    WEBP: b64decode("UklGRiIAAABXRUJQVlA4IBYAAAAwAQCdASoBAAEADsD+JaQAA3AAAAAA"),
}


@dataclass(frozen=True, slots=True)
class DocumentFile:
    """A file without its id: the input and output of operations."""

    name: str  # its name in file objects
    type: str
    data: bytes
    width: int = 0  # pixels; 0 for PDF
    height: int = 0  # pixels; 0 for PDF
    pages: int = 1  # pages of a PDF; 1 for images

    def properties(self) -> dict[str, int]:
        """``properties`` of the file object: sdk NODE."""
        if self.type == PDF:
            return {"size": len(self.data), "page_count": self.pages}
        return {"size": len(self.data), "width": self.width, "height": self.height}


def read_document(name: str, data: bytes, hint: str | None, filename: str | None) -> DocumentFile | None:
    """Return an uploaded file; None for a type that the vendor does not list.

    The first bytes decide, then ``hint`` (the sender's content type), then the suffix of the sender's file name.
    """
    by_magic = next((kind for magic, kind in MAGIC.items() if data.startswith(magic)), None)
    by_hint = hint if hint in {*IMAGES, PDF} else None
    kind = by_magic or by_hint or SUFFIXES.get(PurePath(filename or name).suffix.lower())
    if kind is None:
        return None
    if kind == PDF:
        return DocumentFile(name, kind, data, pages=count_pdf_pages(data))
    width, height = _png_size(data) if kind == PNG else EXAMPLE_SIZE
    return DocumentFile(name, kind, data, width, height)


def _png_size(data: bytes) -> tuple[int, int]:
    size = data[16:24]  # width and height of a PNG
    return struct.unpack(">II", size) if len(size) == struct.calcsize(">II") else EXAMPLE_SIZE


def make_image(name: str, kind: str, width: int, height: int) -> DocumentFile:
    """Return a white image of ``width`` by ``height`` pixels; of one pixel if ``kind`` is not PNG."""
    data = ONE_PIXEL.get(kind) or _png(width, height)
    return DocumentFile(name, kind, data, width, height)


def _png(width: int, height: int) -> bytes:
    row = b"\0" + b"\xff" * ((width + 7) // 8)  # filter 0, one bit a pixel
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = (b"IHDR" + head, b"IDAT" + zlib.compress(row * height, 9), b"IEND")
    framed = (struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def make_pdf(name: str, pages: int) -> DocumentFile:
    """Return a PDF with ``pages`` empty pages of 612 by 792 points."""
    kids = " ".join(f"{number} 0 R" for number in range(3, 3 + pages))
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", f"<< /Type /Pages /Kids [{kids}] /Count {pages} >>"]
    objects += ["<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] >>"] * pages
    body, offsets = "%PDF-1.4\n", list[int]()
    for number, text in enumerate(objects, 1):
        offsets.append(len(body))
        body += f"{number} 0 obj\n{text}\nendobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    body += f"xref\n0 {size}\n0000000000 65535 f \n{table}"
    body += f"trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{body.index('xref')}\n%%EOF\n"
    return DocumentFile(name, PDF, body.encode("ascii"), pages=pages)
