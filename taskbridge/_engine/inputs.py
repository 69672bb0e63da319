"""Turns what a caller passes to `submit` into a submission that can be sent, and sent again.

Whatever is known to be wrong is refused here, before any request: an operation or option that the vendor does not have,
a kind of input or a media type that it does not accept, a file that is missing, empty or over the stated limit. Local
files are checked and streams are copied into a temporary file; nothing here uses the network.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Self, TypeAlias, TypeGuard
from uuid import uuid4

from taskbridge._engine.media_types import check_media_type
from taskbridge._engine.options import merge_options, translate_options
from taskbridge._engine.redirects import name_of
from taskbridge._engine.storage_urls import check_storage_url
from taskbridge.errors import InvalidInput, UnsupportedFeature, printable
from taskbridge.models import StorageUrl, Support, TaskFile
from taskbridge.provider.addresses import is_http
from taskbridge.provider.capabilities import LOCAL
from taskbridge.provider.options import NEUTRAL_OPTIONS
from taskbridge.provider.storage import SCHEMES, is_storage
from taskbridge.provider.submission import NATIVE, Document, Link, Source, Stored, Submission, safe_name

if TYPE_CHECKING:
    from taskbridge._engine.connection import Connection
    from taskbridge.provider.capabilities import Capabilities

OneInput: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | TaskFile
AnyInput: TypeAlias = OneInput | Sequence[OneInput] | None
"""A path, a URL (a text with ``://``, also of a storage), bytes, an open binary stream or a `TaskFile`; several to be
joined."""

STAGE_HINT: Final = '; to hand over local documents by a signed link, set stage = "s3://bucket/prefix"'
"""What to do about a vendor that takes only URLs, for messages."""

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_BLOCK: Final = 1 << 20  # bytes of a stream per read
_UNUSUAL: Final = re.compile(r"[^\w.-]+", re.ASCII)  # in the name of a temporary file
_MAX_ID: Final = 512  # characters of an external_id
# First bytes -> name of a document without a name: some vendors go by the suffix.
_NAMES: Final = {b"%PDF-": "document.pdf", b"\x89PNG\r\n": "document.png", b"\xff\xd8\xff": "document.jpg"}


class TemporaryFiles:
    """A folder for temporary files, created when first needed and removed at the end."""

    def __init__(self) -> None:
        self._folder: TemporaryDirectory[str] | None = None
        self._count = 0

    def new_path(self, name: str = "") -> Path:
        """Return a path that does not exist yet; it ends with the name, if there is one, in plain characters."""
        if self._folder is None:
            self._folder = TemporaryDirectory(prefix="taskbridge-", ignore_cleanup_errors=True)
        self._count += 1
        return Path(self._folder.name, f"{self._count}-{_UNUSUAL.sub('_', name)}" if name else str(self._count))

    def save(self, stream: BinaryIO, name: str = "") -> Path:
        """Read a stream to its end, into a file that can be sent again; its path is that of `new_path`.

        Raises:
            InvalidInput: It is a text stream.
            OSError: It cannot be read, or the disk is full.
        """
        path = self.new_path(name)
        with path.open("wb") as file:
            while block := stream.read(_BLOCK):
                if not isinstance(block, bytes | bytearray | memoryview):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers need not be typed
                    raise InvalidInput('the stream gives text, not bytes; open it with mode "rb"')
                file.write(block)
        return path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the folder."""
        if self._folder is not None:
            self._folder.cleanup()


@dataclass(frozen=True, slots=True)
class SubmitRequest:
    """What a caller wants to submit, not yet checked."""

    operation: str | None
    inputs: AnyInput
    options: Mapping[str, Any] | None = None
    external_id: str | None = None
    callback_url: str | None = None
    name: str | None = None
    neutral: Mapping[str, Any] = field(default_factory=dict[str, Any])  # neutral options


@dataclass(frozen=True, slots=True)
class PreparedSubmission:
    """A submission that can be sent once its links in `fetch_to` are fetched, and its objects of storages resolved."""

    submission: Submission
    fetch_to: Mapping[int, Path]  # index of a source that is a link -> the file to save it to


def prepare(connection: Connection, request: SubmitRequest, files: TemporaryFiles) -> PreparedSubmission:
    """Check a request, and make a submission of it; `files` keeps the contents of streams.

    Raises:
        UnsupportedFeature: The vendor has no such operation or option, or does not accept such an input.
        InvalidInput: A document or an option cannot be sent.
        OSError: A file cannot be read.
    """
    submission = _without_sources(connection, request)
    inputs = _as_tuple(request.inputs)
    name = request.name if len(inputs) == 1 else None
    native = submission.native_operation
    sources = tuple(_source(connection, native, each, name, files) for each in inputs)
    fetches = connection.provider.capabilities.fetches_urls
    is_fetched = (fetches and isinstance(source, Link) and not is_storage(source.url) for source in sources)
    links = (index for index, found in enumerate(is_fetched) if found)
    return PreparedSubmission(replace(submission, sources=sources), {index: files.new_path() for index in links})


def can_submit(connection: Connection, request: SubmitRequest) -> Support:
    """Return whether `prepare` and the provider would refuse a request, without sending or writing anything.

    A stream, a URL and a file that does not exist are judged by their names.

    Raises:
        OSError: A file cannot be read.
    """
    files = TemporaryFiles()  # stays empty: streams are not read
    try:
        submission = _without_sources(connection, request)
        inputs = _as_tuple(request.inputs)
        name = request.name if len(inputs) == 1 else None
        native = submission.native_operation
        found = [_inspect(connection, native, each, name, files) for each in inputs]
        sources = tuple(source for source in found if source is not None)
        if sources and len(sources) == len(found):
            with closing(connection.provider.submit(replace(submission, sources=sources))) as flow:
                next(flow, None)  # what only the provider can check
    except (UnsupportedFeature, InvalidInput) as error:
        return Support(error.again())
    return Support()


def _without_sources(connection: Connection, request: SubmitRequest) -> Submission:
    """Check everything about a request but its documents."""
    provider = connection.provider
    can = provider.capabilities
    if not can.operations:
        raise provider.unsupported("submit")
    _require_operation_first(request, can, provider.title)
    operation = request.operation or connection.settings.submit.operation or ""
    native = native_operation(operation, can, provider.title)
    if request.external_id is not None:
        if not can.external_id:
            raise provider.unsupported("keep an external_id")
        given: Any = request.external_id  # callers need not be typed
        if not isinstance(given, str) or not 0 < len(given) <= _MAX_ID or not given.isprintable():
            raise InvalidInput(f"external_id must be 1 to {_MAX_ID} printable characters")
    if request.callback_url is not None:
        if not can.callback:
            raise provider.unsupported("call a callback_url")
        if not is_http(request.callback_url):
            raise InvalidInput("callback_url must begin with https:// or http://")
    inputs = _as_tuple(request.inputs)
    _check_number(connection, native, len(inputs))
    return Submission(
        operation=operation,
        native_operation=native,
        reference=request.external_id or f"taskbridge-{uuid4().hex}",
        options=_options(connection, request, operation),
        external_id=request.external_id,
        callback_url=request.callback_url,
        name=None if request.name is None else safe_name(request.name),
    )


def _check_number(connection: Connection, native: str, count: int) -> None:
    """Refuse more documents than an operation takes in one submission."""
    title, accepts = connection.provider.title, connection.provider.capabilities.accepts
    several = sorted(word for word, each in accepts.items() if each.several)
    if count > 1 and native not in several:
        raise UnsupportedFeature(
            f"{title} takes one document for {printable(native, 60)}; several only for "
            f"{', '.join(several) or 'none of its operations'}"
        )
    limit = accepts[native].at_most if native in several else None
    if limit is not None and count > limit:
        raise UnsupportedFeature(
            f"{title} takes at most {limit} documents at once for {printable(native, 60)}, not {count}; "
            "submit them in parts"
        )


class _SavedStream:
    """The content of a stream, which can be read any number of times; after its end it begins again."""

    def __init__(self, path: Path, name: object) -> None:
        self.name = name
        self._path = path
        self._file: BinaryIO | None = None

    def read(self, size: int) -> bytes:
        if self._file is None:
            self._file = self._path.open("rb")
        block = self._file.read(size)
        if not block:
            self._file.close()
            self._file = None
        return block


def rereadable(inputs: AnyInput, files: TemporaryFiles) -> AnyInput:
    """Return inputs that can be prepared several times: streams are read into `files`.

    Raises:
        InvalidInput: A stream gives text.
        OSError: A stream cannot be read, or the disk is full.
    """
    copies: list[Any] = [
        _SavedStream(files.save(each), getattr(each, "name", None)) if _is_stream(each) else each
        for each in _as_tuple(inputs)
    ]
    return copies if isinstance(inputs, list | tuple) else next(iter(copies), None)


# Operations and options.


def _require_operation_first(request: SubmitRequest, can: Capabilities, title: str) -> None:
    """Refuse a document in place of the operation, with the call that is right.

    Raises:
        InvalidInput: It is a path, a URL or anything else that is no word.
    """
    given: Any = request.operation  # callers need not be typed
    if given is None or (isinstance(given, str) and (given in can.operations or given.startswith(NATIVE))):
        return
    example = "convert" if "convert" in can.operations else min(can.operations)
    if not isinstance(given, str):
        shown = repr(given.name) if isinstance(given, Path) else "document"
        raise InvalidInput(f"operation first: submit({example!r}, {printable(shown, 80)})")
    is_document = is_url(given) or Path(given).suffix or os.sep in given
    is_swapped = isinstance(request.inputs, str) and request.inputs in can.operations
    if is_swapped or (is_document and request.inputs is None):
        shown = "url" if is_url(given) else repr(given)  # the query of a URL may be a key
        known = ", ".join(sorted(can.operations))
        example = str(request.inputs) if is_swapped else example
        raise InvalidInput(f"operation first: submit({example!r}, {printable(shown, 80)}); {title} has {known}")


def native_operation(operation: str, can: Capabilities, title: str) -> str:
    """Return the vendor's word for an operation as the caller named it, which may be empty.

    Raises:
        UnsupportedFeature: It has no such operation; the message suggests the nearest.
    """
    table = can.operations
    known = ", ".join(sorted(table))
    if not operation:
        raise UnsupportedFeature(
            f"name an operation, or set submit.operation for the connection; {title} has {known}, "
            "and its own as native:…"
        )
    if operation.startswith(NATIVE) and len(operation) > len(NATIVE):
        return operation.removeprefix(NATIVE)
    if operation in table:
        return table[operation]
    own = {f"{NATIVE}{word}" for word in table.values()}
    near = get_close_matches(operation, [*table, *own], n=3) or get_close_matches(f"{NATIVE}{operation}", own, n=1)
    hint = f"did you mean {' or '.join(repr(word) for word in near)}? " if near else ""
    raise UnsupportedFeature(
        f"{title} has no operation {printable(operation, 60)!r}; {hint}it has {known}, and its own as native:…"
    )


def _options(connection: Connection, request: SubmitRequest, operation: str) -> dict[str, Any]:
    """What a call says overrides what the connection says, and the vendor's own options override neutral ones."""
    defaults = connection.settings.submit
    said = translate_options(connection, operation, request.neutral)
    translated, own = said, dict(request.options or {})
    if defaults.operation in (None, operation):  # options for another operation do not apply
        names = (name for name in NEUTRAL_OPTIONS.get(operation, ()) if name not in request.neutral)
        usual = {name: value for name in names if (value := getattr(defaults, name)) is not None}
        translated = merge_options(translate_options(connection, operation, usual), said)
        own = {key: value for key, value in defaults.options.items() if key not in said} | own
    options = merge_options(translated, own)
    try:
        json.dumps(options, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        problem = "options must be what JSON can hold: texts, finite numbers, true, false, None, lists and mappings"
    else:
        return options
    raise InvalidInput(problem)


# Documents.


def is_url(text: str) -> bool:
    """Whether a text is a URL, and not a path."""
    return _SCHEME.match(text) is not None


def _as_tuple(given: AnyInput) -> tuple[OneInput, ...]:
    if given is None:
        return ()
    if isinstance(given, list | tuple):
        return tuple(given)
    return (given,)  # type: ignore[return-value]  # other sequences are texts and bytes


def _is_stream(given: OneInput) -> TypeGuard[BinaryIO]:
    return callable(getattr(given, "read", None))


def _source(connection: Connection, native: str, given: OneInput, name: str | None, files: TemporaryFiles) -> Source:
    if isinstance(given, TaskFile):
        return _from_task_file(connection, native, given, name)
    if isinstance(given, str) and is_url(given):
        return _from_url(connection, native, given, name)
    if isinstance(given, bytes | bytearray | memoryview):
        _require_kind(connection, "bytes")
        content = bytes(given)
        fallback = next((name for start, name in _NAMES.items() if content.startswith(start)), "document")
        return _checked(Document(safe_name(name or fallback), content, len(content)), connection, native)
    if isinstance(given, str | os.PathLike):
        _require_kind(connection, "path")
        path = Path(given)
        return _checked(Document(safe_name(name or path.name), path, _size(path)), connection, native)
    if _is_stream(given):
        _require_kind(connection, "stream")
        label = _stream_name(given, name)
        path = files.save(given, label)
        return _checked(Document(label, path, path.stat().st_size), connection, native)
    raise InvalidInput(
        f"a document is a path, a URL, bytes, an open binary stream or a TaskFile, not {type(given).__name__}"
    )


def _from_url(connection: Connection, native: str, url: str, name: str | None) -> Link:
    """A document in the web or in a storage; if it is fetched here, its content is checked then."""
    can = connection.provider.capabilities
    if is_storage(url):
        if not connection.takes_uploads:
            _require_kind(connection, "url")
        check_storage_url(url)
        name, is_fetched = name or StorageUrl(url).name, connection.takes_uploads
    else:
        _require_kind(connection, "url")
        if not is_http(url):
            raise InvalidInput(
                "a document's URL must begin with https:// or http://, and hold no spaces; that of an object in a "
                f"storage with {', '.join(f'{each}://' for each in SCHEMES)}"
            )
        is_fetched = can.fetches_urls
    if not is_fetched:
        check_media_type(connection, native, name or name_of(url), b"")
    return Link(url, None if name is None else safe_name(name))


def _inspect(
    connection: Connection, native: str, given: OneInput, name: str | None, files: TemporaryFiles
) -> Source | None:
    """As `_source`; None for a document whose content is not available."""
    if isinstance(given, str) and is_url(given):
        source = _source(connection, native, given, name, files)
        check_media_type(connection, native, name or name_of(given), b"")
        return source
    if callable(getattr(given, "read", None)):
        _require_kind(connection, "stream")
        check_media_type(connection, native, _stream_name(given, name), b"")
        return None
    if isinstance(given, str | os.PathLike) and not Path(given).exists():
        _require_kind(connection, "path")
        check_media_type(connection, native, safe_name(name or Path(given).name), b"")
        return None
    return _source(connection, native, given, name, files)


def _stream_name(stream: object, name: str | None) -> str:
    own = getattr(stream, "name", None)
    return safe_name(name or (own if isinstance(own, str) else "document"))


def _from_task_file(connection: Connection, native: str, file: TaskFile, name: str | None) -> Source:
    """A file of a result: by its id if the vendor accepts its own files, else by its link."""
    takes_files = "file" in connection.provider.capabilities.inputs
    label = name or file.name
    check_media_type(connection, native, label or "the file", b"", file.media_type)
    if file.id is not None and takes_files:
        return Stored(file.id, None if label is None else safe_name(label))
    if file.url is not None:
        _require_kind(connection, "url")
        return Link(file.url, safe_name(label) if label else name_of(file.url))
    _require_kind(connection, "file")
    raise InvalidInput("the file has neither an id nor a link, so it cannot be handed to the vendor")


def _require_kind(connection: Connection, kind: str) -> None:
    inputs = connection.capabilities.inputs
    if kind not in inputs:
        taken = ", ".join(sorted(inputs)) or "nothing"
        hint = STAGE_HINT if "url" in inputs and kind in LOCAL else ""
        raise UnsupportedFeature(
            f"{connection.provider.title} takes no document given as {kind}; it takes: {taken}{hint}",
            provider=connection.provider.name,
            connection=connection.name,
        )


def _size(path: Path) -> int:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
        raise InvalidInput(f"{path.name} is no regular file; hand it over as an open stream")
    with path.open("rb"):  # a directory, or a file that may not be read, says so
        return found.st_size


def _checked(document: Document, connection: Connection, native: str) -> Document:
    if document.size == 0:
        raise InvalidInput(f"{document.name} is empty; a stream may have been read before")
    check_document(document, connection, native)
    return document


def check_document(document: Document, connection: Connection, native: str) -> None:
    """Refuse a document that is larger than the vendor's stated limit, or of a type that the operation does not take.

    Raises:
        InvalidInput: It is too large.
        UnsupportedFeature: The operation does not take its media type.
    """
    title, limit = connection.provider.title, connection.provider.capabilities.upload_limit
    if limit is not None and document.size > limit:
        raise InvalidInput(f"{document.name} has {document.size} bytes; {title} takes documents of at most {limit}")
    check_media_type(connection, native, document.name, document.content)
