"""The output files of emulated CloudConvert tasks.

The bytes are the same in every run, but the formats are not real: a text output names its source, any other output
is the bytes of the input under a new name. Names that the documentation does not give are marked as assumed.
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

Options: TypeAlias = Mapping[str, Any]

ZIP_TIME: Final = (2018, 9, 19, 14, 42, 58)
"""Time of every archive member, so that an archive has the same bytes in every run."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file in the vendor's storage."""

    name: str
    content: bytes


def source_name(options: Options) -> str:
    """The caller's name for the document of an import or website capture; empty if there is none."""
    return " ".join(str(options[key]) for key in ("filename", "url", "key") if options.get(key))


def make_files(operation: str, options: Options, inputs: Sequence[StoredFile]) -> list[StoredFile]:
    """Return the result files of a finished task; its inputs are the result files of the tasks that it depends on."""
    make = _OPERATIONS.get(operation)
    if make is None:
        make = _remote if operation.startswith("import/") else _same
    return make(options, inputs)


def _same(_payload: Options, inputs: Sequence[StoredFile]) -> list[StoredFile]:
    return list(inputs)


def _remote(options: Options, _inputs: Sequence[StoredFile]) -> list[StoredFile]:
    """A file that the vendor would fetch; the emulator fetches nothing."""
    source = str(options.get("url") or options.get("key") or options.get("filename") or "document")
    name = str(options.get("filename") or PurePosixPath(unquote(urlsplit(source).path)).name or "document")
    return [StoredFile(name, f"Emulated contents of {source}\n".encode())]


def _base64(options: Options, _inputs: Sequence[StoredFile]) -> list[StoredFile]:
    return [StoredFile(str(options["filename"]), base64.b64decode(str(options["file"])))]


def _raw(options: Options, _inputs: Sequence[StoredFile]) -> list[StoredFile]:
    return [StoredFile(str(options["filename"]), str(options["file"]).encode())]


def _convert(options: Options, inputs: Sequence[StoredFile]) -> list[StoredFile]:
    suffix = str(options.get("output_format") or "png")  # assumed default of thumbnail
    return [_converted(file, suffix, options.get("filename") if len(inputs) == 1 else None) for file in inputs]


def _converted(file: StoredFile, suffix: str, name: str | None) -> StoredFile:
    name = name or f"{PurePosixPath(file.name).stem}.{suffix}"
    return StoredFile(name, f"Text of {file.name}\n".encode() if suffix == "txt" else file.content)


def _capture(options: Options, _inputs: Sequence[StoredFile]) -> list[StoredFile]:
    url = str(options["url"])
    name = str(options.get("filename") or f"{urlsplit(url).hostname}.{options['output_format']}")  # assumed
    return [StoredFile(name, f"Emulated capture of {url}\n".encode())]


def _merge(options: Options, inputs: Sequence[StoredFile]) -> list[StoredFile]:
    name = str(options.get("filename") or f"merged.{options.get('output_format') or 'pdf'}")  # assumed
    return [StoredFile(name, b"".join(file.content for file in inputs))]


def _archive(options: Options, inputs: Sequence[StoredFile]) -> list[StoredFile]:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number, file in enumerate(inputs):
            duplicate = any(file.name == other.name for other in inputs[:number])
            name = f"{number + 1}-{file.name}" if duplicate else file.name  # assumed
            archive.writestr(zipfile.ZipInfo(name, ZIP_TIME), file.content)
    return [StoredFile(str(options.get("filename") or "archive.zip"), packed.getvalue())]  # assumed name


def _export(options: Options, inputs: Sequence[StoredFile]) -> list[StoredFile]:
    return _archive({}, inputs) if options.get("archive_multiple_files") and len(inputs) > 1 else list(inputs)


_OPERATIONS: Final[Mapping[str, Callable[[Options, Sequence[StoredFile]], list[StoredFile]]]] = {
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
