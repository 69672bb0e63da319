"""What emulated CloudConvert tasks make out of their inputs.

The bytes are real and the same in every run, the formats are not: a text output mentions its source, anything else
is the input's bytes under the new name. Names that the documentation does not give are marked as assumed.
"""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final, TypeAlias
from urllib.parse import unquote, urlsplit

__all__ = ["Payload", "StoredFile", "make_files", "source_name"]

Payload: TypeAlias = Mapping[str, Any]

ZIP_TIME: Final = (2018, 9, 19, 14, 42, 58)
"""Time of every archive member, so that an archive has the same bytes in every run."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file in the vendor's storage.

    Attributes:
        name: Its file name.
        content: Its bytes.
    """

    name: str
    content: bytes


def source_name(payload: Payload) -> str:
    """What a caller called the document of an import or of a website capture; empty where nothing was said."""
    return " ".join(str(payload[key]) for key in ("filename", "url", "key") if payload.get(key))


def make_files(operation: str, payload: Payload, inputs: Sequence[StoredFile]) -> list[StoredFile]:
    """The result files of a finished task.

    Args:
        operation: The vendor's operation, e.g. ``convert``.
        payload: The options that were submitted.
        inputs: The result files of the tasks it depends on, in their order.
    """
    make = _MAKERS.get(operation)
    if make is None:
        make = _remote if operation.startswith("import/") else _same
    return make(payload, inputs)


def _same(_payload: Payload, inputs: Sequence[StoredFile]) -> list[StoredFile]:
    return list(inputs)


def _remote(payload: Payload, _inputs: Sequence[StoredFile]) -> list[StoredFile]:
    """A file that the vendor would fetch; nothing is fetched here."""
    source = str(payload.get("url") or payload.get("key") or payload.get("filename") or "document")
    name = str(payload.get("filename") or PurePosixPath(unquote(urlsplit(source).path)).name or "document")
    return [StoredFile(name, f"Emulated contents of {source}\n".encode())]


def _base64(payload: Payload, _inputs: Sequence[StoredFile]) -> list[StoredFile]:
    return [StoredFile(str(payload["filename"]), base64.b64decode(str(payload["file"])))]


def _raw(payload: Payload, _inputs: Sequence[StoredFile]) -> list[StoredFile]:
    return [StoredFile(str(payload["filename"]), str(payload["file"]).encode())]


def _convert(payload: Payload, inputs: Sequence[StoredFile]) -> list[StoredFile]:
    suffix = str(payload.get("output_format") or "png")  # assumed default of thumbnail
    return [_converted(file, suffix, payload.get("filename") if len(inputs) == 1 else None) for file in inputs]


def _converted(file: StoredFile, suffix: str, name: str | None) -> StoredFile:
    name = name or f"{PurePosixPath(file.name).stem}.{suffix}"
    return StoredFile(name, f"Text of {file.name}\n".encode() if suffix == "txt" else file.content)


def _capture(payload: Payload, _inputs: Sequence[StoredFile]) -> list[StoredFile]:
    url = str(payload["url"])
    name = str(payload.get("filename") or f"{urlsplit(url).hostname}.{payload['output_format']}")  # assumed
    return [StoredFile(name, f"Emulated capture of {url}\n".encode())]


def _merge(payload: Payload, inputs: Sequence[StoredFile]) -> list[StoredFile]:
    name = str(payload.get("filename") or f"merged.{payload.get('output_format') or 'pdf'}")  # assumed
    return [StoredFile(name, b"".join(file.content for file in inputs))]


def _archive(payload: Payload, inputs: Sequence[StoredFile]) -> list[StoredFile]:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number, file in enumerate(inputs):
            taken = any(file.name == other.name for other in inputs[:number])
            name = f"{number + 1}-{file.name}" if taken else file.name  # assumed: two of one name would be one
            archive.writestr(zipfile.ZipInfo(name, ZIP_TIME), file.content)
    return [StoredFile(str(payload.get("filename") or "archive.zip"), packed.getvalue())]  # assumed name


def _export(payload: Payload, inputs: Sequence[StoredFile]) -> list[StoredFile]:
    return _archive({}, inputs) if payload.get("archive_multiple_files") and len(inputs) > 1 else list(inputs)


_MAKERS: Final[Mapping[str, Callable[[Payload, Sequence[StoredFile]], list[StoredFile]]]] = {
    "import/base64": _base64,
    "import/raw": _raw,
    "convert": _convert,
    "thumbnail": _convert,
    "capture-website": _capture,
    "merge": _merge,
    "pdf/merge": _merge,
    "archive": _archive,
    "export/url": _export,
}
