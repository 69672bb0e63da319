"""The operations of the emulated Scan Documents, and the files that they read and make.

The vendor's documents give the fields (TASKS, OPS, NODE, NODE-NEW), the shapes of results and one text of a validation
error; all other texts of validation errors are assumed. Invalid fields are refused when a task is created (422); an
unsuitable document, such as one without the requested page or of an unsupported type, fails the task.

Generated PNG and PDF files are real and have the size that their properties state; generated JPEG and WebP files are
one pixel, whatever their properties state. The vendor's documents name the types (TASKS) and the properties (NODE).
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Final, TypeAlias

from taskbridge.emulator.helpers import as_list, as_object, count_pdf_pages

Body: TypeAlias = Mapping[str, Any]
Check: TypeAlias = Callable[[Any, Body], str | None]  # a field's value (None if absent) and the body -> error text
Output: TypeAlias = "list[DocumentFile] | dict[str, Any]"

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

EFFECTS: Final = ("grayscale", "scanner", "black-background")  # doc OPS
SCHEMA_TYPES: Final = ("string", "number", "integer", "boolean", "array", "object")  # sdk NODE
FORMATS: Final[Mapping[str, str]] = {  # text of doc TASKS; the other formats have the same text
    "plain": "This is the extracted text content",
    "markdown": "**This** is the *extracted* text content",
    "html": "<p><strong>This</strong> is the <em>extracted</em> text content</p>",
}
MAX_SIDE: Final = 5000  # pixels; a limit of this emulator, not of the vendor
DPI: Final = 300  # dots per inch by default: sdk NODE
PAGES: Final = re.compile(r"[0-9]{1,6}(-[0-9]{1,6})?(,[0-9]{1,6}(-[0-9]{1,6})?)*")  # "2-7", "2,3,7": sdk NODE
INVALID_PAGES: Final = "Invalid page range"  # named as a cause by doc TASKS
INVALID_FILE: Final = "Invalid file ID"  # named as a cause by doc TASKS
INVALID_TYPE: Final = "Unsupported format"  # named as a cause by doc TASKS


# Files.


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


# Checks of fields.


class OperationFailed(Exception):  # the task failed; the emulator did not
    """The document is unsuitable for the operation; the text becomes ``result.error``."""


def _one_of(*words: str) -> Check:
    return lambda value, _: None if value in words else f"must be one of {', '.join(words)}."


def _integer(low: int, high: int) -> Check:
    return lambda value, _: None if type(value) is int and low <= value <= high else f"must be {low} to {high}."


def _optional(check: Check) -> Check:
    return lambda value, body: None if value is None else check(value, body)


def _text(value: Any, _: Body) -> str | None:
    return None if isinstance(value, str) else "must be a string."


def _uri(value: Any, _: Body) -> str | None:
    return None if isinstance(value, str) and re.match(r"https?://.", value) else "must be a valid URI."


def _pages(value: Any, _: Body) -> str | None:
    return None if isinstance(value, str) and PAGES.fullmatch(value) else "is not a valid page range."


def _quality(value: Any, body: Body) -> str | None:
    needed = body.get("target_format") in {JPEG, WEBP}
    return _integer(1, 100)(value, body) if needed or value is not None else None


def _schema(value: Any, body: Body) -> str | None:
    if body.get("format") != "json":
        return None
    return None if (as_object(value) or {}).get("type") in SCHEMA_TYPES else "must be a schema."


def _vertices(value: Any, _: Body) -> str | None:
    points = [as_object(point) or {} for point in as_list(value) or []]
    numbers: list[Any] = [point.get(axis) for point in points for axis in "xy"]
    valid = all(type(number) in {int, float} and abs(number) <= MAX_SIDE for number in numbers)
    return None if valid and len(points) == 4 else "must be 4 points of x and y."


# Outputs of operations.


def _same_size(kind: Callable[[Body], str]) -> Callable[[Body, Sequence[DocumentFile]], Output]:
    def make(body: Body, inputs: Sequence[DocumentFile]) -> Output:
        source = inputs[0]
        return [make_image(_name(body, source), kind(body), source.width, source.height)]

    return make


def _detect(_: Body, inputs: Sequence[DocumentFile]) -> Output:
    source = inputs[0]
    left, top = source.width // 10, source.height // 10
    right, bottom = source.width - left, source.height - top
    box = {"left": left, "top": top, "width": right - left, "height": bottom - top}
    corners = [{"x": x, "y": y} for x, y in ((left, top), (right, top), (right, bottom), (left, bottom))]
    return {"documents": [{"bounding_box": box, "vertices": corners}]}


def _extract_text(body: Body, _: Sequence[DocumentFile]) -> Output:
    word: str = body["format"]
    content = json.dumps(_instance(body["schema"])) if word == "json" else FORMATS[word]
    return {"format": word, "content": content}


def _instance(schema: Body) -> Any:
    if "example" in schema:
        return schema["example"]
    match schema.get("type"):
        case "object":
            properties = as_object(schema.get("properties")) or {}
            return {key: _instance(as_object(value) or {}) for key, value in properties.items()}
        case "array":
            return [_instance(as_object(schema.get("items")) or {})]
        case kind:
            return {"integer": 1, "number": 1.5, "boolean": True}.get(str(kind), FORMATS["plain"])


def _warp(body: Body, inputs: Sequence[DocumentFile]) -> Output:
    spans = [[point[axis] for point in body["vertices"]] for axis in "xy"]
    width, height = (min(max(int(max(span) - min(span)), 1), MAX_SIDE) for span in spans)
    return [make_image(_name(body, inputs[0]), PNG, width, height)]


def _render(body: Body, inputs: Sequence[DocumentFile]) -> Output:
    source, dpi = inputs[0], body.get("dpi") or DPI
    width, height = 612 * dpi // 72, 792 * dpi // 72  # letter paper in points of 1/72 inch
    pages = _page_numbers(body.get("pages"), source.pages)
    return [make_image(_name(body, source), PNG, width, height) for _ in pages]


def _split(body: Body, inputs: Sequence[DocumentFile]) -> Output:
    return [make_pdf(_name(body, inputs[0]), 1) for _ in range(inputs[0].pages)]


def _merge(body: Body, inputs: Sequence[DocumentFile]) -> Output:
    return [make_pdf(_name(body, inputs[0]), sum(document.pages for document in inputs))]


def _extract_pages(body: Body, inputs: Sequence[DocumentFile]) -> Output:
    return [make_pdf(_name(body, inputs[0]), len(_page_numbers(body["pages"], inputs[0].pages)))]


def _name(body: Body, source: DocumentFile) -> str:
    return body.get("name") or source.name


def _page_numbers(pages: str | None, count: int) -> Sequence[int]:
    if pages is None:
        return range(1, count + 1)
    numbers = list[int]()
    for part in pages.split(","):
        first, _, last = part.partition("-")
        if not 1 <= int(first) <= int(last or first) <= count:
            raise OperationFailed(INVALID_PAGES)
        numbers.extend(range(int(first), int(last or first) + 1))
    return numbers


# The operations: doc TASKS OPS, sdk NODE NODE-NEW.


@dataclass(frozen=True, slots=True)
class OperationSpec:
    """One kind of task."""

    folder: str  # the part of the path before the operation's name
    takes: frozenset[str]  # media types of its inputs
    # Returns its output for a validated body and its inputs: files, or the result itself.
    make: Callable[[Body, Sequence[DocumentFile]], Output]
    # Its fields other than ``input`` and ``callback_url``.
    checks: Mapping[str, Check] = field(default_factory=dict[str, Check])
    many: bool = False  # whether `input` is a list

    def field_errors(self, body: Body) -> dict[str, list[str]]:
        """``errors`` of a 422 for every invalid field except ``input``."""
        checks = {**self.checks, "callback_url": _optional(_uri)}
        errors = {name: check(body.get(name), body) for name, check in checks.items()}
        return {name: [f"{name} {text}"] for name, text in errors.items() if text}

    def parameters(self, body: Body) -> dict[str, Any]:
        """The fields of ``body`` that the task repeats."""
        known = {"input", "callback_url", *self.checks}
        return {name: value for name, value in body.items() if name in known}

    def run(self, body: Body, inputs: Sequence[DocumentFile]) -> Output:
        """Run the operation, or raise `OperationFailed` if the inputs are unsuitable."""
        if not inputs:
            raise OperationFailed(INVALID_FILE)
        if any(document.type not in self.takes for document in inputs):
            raise OperationFailed(INVALID_TYPE)
        return self.make(body, inputs)


def _image(make: Callable[[Body, Sequence[DocumentFile]], Output], **checks: Check) -> OperationSpec:
    return OperationSpec("image-operations", IMAGES, make, checks)


def _pdf(make: Callable[[Body, Sequence[DocumentFile]], Output], **checks: Check) -> OperationSpec:
    return OperationSpec("pdf-operations", frozenset({PDF}), make, {"name": _optional(_text), **checks})


OPERATIONS: Final[Mapping[str, OperationSpec]] = {
    "convert": _image(
        _same_size(lambda body: body["target_format"]),
        name=_optional(_text),
        target_format=_one_of(PNG, JPEG, WEBP),
        quality=_quality,
    ),
    "detect-documents": _image(_detect),
    "extract-text": _image(_extract_text, format=_one_of(*FORMATS, "json"), schema=_schema),
    "warp": _image(_warp, name=_optional(_text), vertices=_vertices),
    "apply-effect": _image(_same_size(lambda _: PNG), name=_optional(_text), effect=_one_of(*EFFECTS)),
    "scan": _image(
        _same_size(lambda _: PNG),
        name=_optional(_text),
        effect=_one_of("none", *EFFECTS),
        scan_mode=_one_of("none", "standard"),
    ),
    "render": _pdf(_render, dpi=_optional(_integer(1, 1200)), pages=_optional(_pages)),
    "split": _pdf(_split),
    "merge": OperationSpec("pdf-operations", IMAGES | {PDF}, _merge, {"name": _optional(_text)}, many=True),
    "extract-pages": _pdf(_extract_pages, pages=_pages),
}
