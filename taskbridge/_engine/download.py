"""Downloads the results of tasks; generators of effects, the same for threads and for asyncio.

The bytes of a file are streamed into a temporary file beside the target, which gets its name once it is complete and on
the disk: a name shows the whole file or nothing. A download that breaks off is resumed where the host allows it, and
otherwise starts again, as long as that makes progress.

The vendor's own host is treated like any other call to it. A link is a capability: it is requested without a
credential, and its host does not count for the connection's rate limit.
"""

from __future__ import annotations

import inspect
import io
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from errno import EEXIST, EISDIR, ENOTDIR
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Protocol, cast

from taskbridge._engine.effects import RunBlocking, Sleep
from taskbridge._engine.filenames import UniqueNames, file_name
from taskbridge._engine.inputs import TemporaryFiles, is_url
from taskbridge._engine.lookup import NotFoundGrace, get
from taskbridge._engine.operations import deadline_for, perform
from taskbridge._engine.redirects import MIN_RATE, follow, follow_links, name_of
from taskbridge._engine.retry import DOWNLOAD, call_provider, with_policies
from taskbridge._engine.storage import StorageFile
from taskbridge._engine.storage_urls import check_storage_url, object_url
from taskbridge.errors import (
    ApiError,
    InvalidInput,
    MalformedResponse,
    PermissionDenied,
    ResponseTooLarge,
    ServerError,
    TaskbridgeError,
    TaskNotFound,
    TransportError,
    TruncatedResponse,
    WaitTimeout,
)
from taskbridge.models import Task, TaskFile, raise_if_failed
from taskbridge.provider.addresses import FetchPolicy, origin_of
from taskbridge.provider.results import GeneratedFile
from taskbridge.provider.sink import ResponseSink
from taskbridge.provider.storage import SCHEMES, is_storage

if TYPE_CHECKING:
    from taskbridge._engine.connection import Connection
    from taskbridge._engine.effects import EffectFlow
    from taskbridge.models import StorageUrl, TaskResult
    from taskbridge.provider.http import Request, Response
    from taskbridge.provider.sink import Progress

MAX_BYTES: Final = 4 << 30  # bytes of one file, unless the caller sets another limit
MAX_READ: Final = 256 << 20  # the same for a file that is read into memory
_JUST_ENDED: Final = 86_400.0  # seconds; a task that ended longer ago did so by any clock
_PROGRESS: Final = 1 << 20  # bytes that failed attempts must have added for the attempts to start again from one
_ON_RESULT: Final = "on a result"  # where a provider's own code raised
_WITH_CONTENT: Final = frozenset({200, 206})
_DEAD_LINK: Final = frozenset({401, 403, 404, 410})  # a new link may work
# Status of a link's host -> error; it says nothing about the connection's account.
_BY_STATUS: Final = {401: PermissionDenied, 403: PermissionDenied, 404: TaskNotFound, 410: TaskNotFound}


class Target(Protocol):
    """Where a file is saved: whole, or not at all."""

    @property
    def target(self) -> Path | StorageUrl:
        """The name that the caller gets."""
        ...

    @property
    def path(self) -> Path:
        """The local file that receives the bytes."""
        ...

    def write(self, content: bytes) -> None:
        """Begin that file with these bytes."""
        ...

    def commit(self) -> EffectFlow[None]:
        """Give the complete file its name."""
        ...

    def discard(self) -> None:
        """Remove the local file."""
        ...


@dataclass(frozen=True, slots=True)
class DownloadOptions:
    """How to download; see `Client.download`. Invalid options raise `InvalidInput`."""

    to: str | os.PathLike[str]
    max_bytes: int | None = MAX_BYTES
    on_progress: Progress | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        to: Any = self.to  # callers need not be typed
        if not isinstance(to, str | os.PathLike) or not isinstance(os.fspath(to), str):
            raise InvalidInput(f"to is the path of a file or folder, not {type(self.to).__name__}")
        if is_storage(os.fspath(self.to)):
            check_storage_url(os.fspath(self.to))
        elif is_url(os.fspath(self.to)):
            known = ", ".join(f"{each}://" for each in SCHEMES)
            raise InvalidInput(f"to is a path, or the URL of a storage, which begins with {known}")
        if self.max_bytes is not None and self.max_bytes < 0:
            raise InvalidInput("max_bytes must be a number of bytes, or None for no limit")
        if inspect.iscoroutinefunction(self.on_progress):
            raise InvalidInput("on_progress must be a plain function; a coroutine would never be awaited")


def download_file(connection: Connection, file: TaskFile, options: DownloadOptions) -> EffectFlow[Path | StorageUrl]:
    """Download one file."""
    with TemporaryFiles() as files:
        try:
            target = yield from _open_target(options, _name(file), files, is_folder=False)
            yield from _download(connection, file, target, _TotalProgress(options, [file.size]))
        except TaskbridgeError as error:
            failure = connection.add_context(error)
        else:
            return target.target
    raise failure


def read_file(connection: Connection, file: TaskFile, max_bytes: int | None) -> EffectFlow[bytes]:
    """Return the content of one file."""
    with TemporaryFiles() as files:
        path = yield from _fetch_to(connection, file, max_bytes, files)
        content: bytes = yield RunBlocking(path.read_bytes)
    return content


def open_file(connection: Connection, file: TaskFile, max_bytes: int | None) -> EffectFlow[BinaryIO]:
    """Return a stream of the content of one file, which has arrived completely."""
    files = TemporaryFiles()
    is_open = False
    try:
        path = yield from _fetch_to(connection, file, max_bytes, files)
        stream: BinaryIO = yield RunBlocking(lambda: TemporaryStream(path, files))
        is_open = True
    finally:
        if not is_open:
            files.close()
    return stream


def _fetch_to(connection: Connection, file: TaskFile, max_bytes: int | None, files: TemporaryFiles) -> EffectFlow[Path]:
    """Download one file into a temporary file."""
    path = files.new_path()
    options = DownloadOptions(path, max_bytes)
    try:
        yield from _download(connection, file, TemporaryTarget(path), _TotalProgress(options, [file.size]))
    except TaskbridgeError as error:
        failure = connection.add_context(error)
    else:
        return path
    raise failure


def download_task(
    connection: Connection, task_id: str, known: Task | None, options: DownloadOptions
) -> EffectFlow[tuple[Path, ...] | tuple[StorageUrl, ...]]:
    """Download all results of a task; the caller's snapshot of it is enough if it has ended."""
    task = known if known is not None and known.is_terminal else (yield from _get(connection, task_id))
    raise_if_failed(task)
    if not task.is_terminal:
        raise WaitTimeout(
            f"the task is still running and has no results yet: it is {task.describe()}; wait for its end",
            task=task,
            provider=task.provider,
            connection=task.connection,
            ref=task.ref,
        )
    with TemporaryFiles() as temporary:
        try:
            return (yield from _download_all(connection, task, options, temporary))
        except TaskbridgeError as error:
            failure = connection.add_context(error, task_id)
    raise failure


def _get(connection: Connection, task_id: str) -> EffectFlow[Task]:
    grace, start = NotFoundGrace(connection, task_id), partial(connection.provider.get, task_id)
    return get(connection, task_id, deadline_for(connection), start, grace=grace)


def _download_all(
    connection: Connection, task: Task, options: DownloadOptions, temporary: TemporaryFiles
) -> EffectFlow[tuple[Path, ...] | tuple[StorageUrl, ...]]:
    files = yield from _files_of(connection, task)
    names = UniqueNames()
    if not is_storage(os.fspath(options.to)):
        Path(options.to).mkdir(parents=True, exist_ok=True)
    targets: list[Target] = []  # before anything is sent
    for each in files:
        targets.append((yield from _open_target(options, names.take(_name(each)), temporary, is_folder=True)))  # noqa: PERF401  # no yield in a comprehension
    sizes = [len(each.content) if isinstance(each, GeneratedFile) else each.size for each in files]
    progress = _TotalProgress(options, sizes)
    for index, (file, target) in enumerate(zip(files, targets, strict=True)):
        if isinstance(file, GeneratedFile):
            yield from _write(file, target, progress)
            continue

        def renew(index: int = index, file: TaskFile = file) -> EffectFlow[TaskFile | None]:
            newer = yield from _get(connection, task.id)
            raise_if_failed(newer)
            return _same_file(file, index, (yield from _files_of(connection, newer)))

        yield from _download(connection, file, target, progress, renew if task.resumable else None)
    saved: Any = tuple(each.target for each in targets)  # all of them are of one kind
    return cast("tuple[Path, ...] | tuple[StorageUrl, ...]", saved)


def _open_target(options: DownloadOptions, name: str, files: TemporaryFiles, *, is_folder: bool) -> EffectFlow[Target]:
    """Return where a file of this name is saved; refuse what exists."""
    to = os.fspath(options.to)
    if is_storage(to):
        stored = StorageFile(object_url(to, name, is_folder=is_folder), files, overwrite=options.overwrite)
        yield from stored.check()
        return stored
    path = Path(to)
    if is_folder:
        path /= name
    elif to.endswith(tuple(filter(None, (os.sep, os.altsep, "/")))) or path.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        path /= name
    return AtomicFile(path, overwrite=options.overwrite)


def _files_of(connection: Connection, task: Task) -> EffectFlow[Sequence[TaskFile | GeneratedFile]]:
    """Return the files that a task's result consists of."""
    result = task.result
    if result is None or not result.files:
        # The vendor keeps the result apart from the status, or it is not made of files.
        result = yield from get_result(connection, task)
    return call_provider(connection, partial(connection.provider.result_files, task, result), _ON_RESULT)


def _same_file(file: TaskFile, index: int, files: Sequence[TaskFile | GeneratedFile]) -> TaskFile | None:
    """Find a file in a newer response: the one of that name at the same index, or the only one of that name."""
    candidate = files[index] if index < len(files) else None
    same = [each for each in files if isinstance(each, TaskFile) and (each.id, each.name) == (file.id, file.name)]
    if isinstance(candidate, TaskFile) and candidate in same:
        return candidate
    return same[0] if len(same) == 1 else None


def _name(file: TaskFile | GeneratedFile) -> str:
    if isinstance(file, GeneratedFile):
        return file_name(file.name)
    return file_name(file.name or (name_of(file.url) if file.url else file.id), file.media_type)


class _TotalProgress:
    """The progress over several files of these sizes in bytes (None where unknown), one after the other."""

    def __init__(self, options: DownloadOptions, sizes: list[int | None]) -> None:
        self.max_bytes = options.max_bytes
        self.report = None if options.on_progress is None else self._report
        self._callback = options.on_progress
        self._before = self._current = 0
        self._sizes = sizes

    def begin(self, size: int | None) -> None:
        """Start the next file, unless it is larger than allowed."""
        if size is not None and self.max_bytes is not None and size > self.max_bytes:
            raise ResponseTooLarge(
                f"the file has {size} bytes, more than max_bytes ({self.max_bytes}); it was not fetched"
            )
        self._before, self._current, self._sizes = self._before + self._current, 0, self._sizes[1:]

    def end(self, size: int) -> None:
        """Finish a file, and report its size unless its last block did."""
        if self.report is not None and (self._current != size or size == 0):
            self.report(size, size)

    def _report(self, done: int, total: int | None) -> None:
        self._current = done
        known = [size for size in self._sizes if size is not None]
        whole = None if total is None or len(known) != len(self._sizes) else self._before + total + sum(known)
        if self._callback is not None:
            self._callback(self._before + done, whole)


# One file.


def _write(file: GeneratedFile, target: Target, progress: _TotalProgress) -> EffectFlow[None]:
    """Write a file whose content was in a response."""
    progress.begin(len(file.content))
    try:
        yield RunBlocking(lambda: target.write(file.content))
        yield from target.commit()
    finally:
        target.discard()
    progress.end(len(file.content))


def _download(
    connection: Connection,
    file: TaskFile,
    target: Target,
    progress: _TotalProgress,
    renew: Callable[[], EffectFlow[TaskFile | None]] | None = None,
) -> EffectFlow[None]:
    """Download a file to its name; if its link is dead, ask the vendor for a new one."""
    request = call_provider(connection, partial(connection.provider.download_request, file), _ON_RESULT)
    progress.begin(file.size)
    sink = ResponseSink(
        target.path, progress.max_bytes, expected=file.size, bytes_per_second=MIN_RATE, on_progress=progress.report
    )
    try:
        target.write(b"")
        dead: ApiError | None = None
        try:
            yield from _fetch(connection, file, request, sink)
        except ApiError as error:
            if request.authorized or error.http_status not in _DEAD_LINK or renew is None:
                raise
            dead = error
        if dead is not None and renew is not None:
            newer = yield from _renew(connection, dead, renew)
            if newer is None:
                raise dead
            other = call_provider(connection, partial(connection.provider.download_request, newer), _ON_RESULT)
            if other.url == request.url:
                raise dead
            yield from _fetch(connection, newer, other, sink)
        yield from target.commit()
    except TaskbridgeError:
        if sink.progress_error is not None:
            raise sink.progress_error from None
        raise
    finally:
        target.discard()
    progress.end(sink.received)


def _renew(
    connection: Connection, dead: ApiError, renew: Callable[[], EffectFlow[TaskFile | None]]
) -> EffectFlow[TaskFile | None]:
    """Ask for the file again; None if the task is gone, which the error of the dead link then says."""
    try:
        return (yield from renew())
    except TaskNotFound:
        dead.message = f"{dead.message}; {connection.provider.title} no longer has the task either"
        dead.args = (dead.message,)
        return None


def get_result(connection: Connection, task: Task) -> EffectFlow[TaskResult]:
    """Get the result of a task that was seen completed; one that ended just now may not be there yet.

    What the vendor gives a link to is fetched under the rules for downloads.
    """
    ended_at = task.finished_at
    is_old = ended_at is not None and (task.observed_at - ended_at).total_seconds() > _JUST_ENDED
    grace = NotFoundGrace(connection, task.id, patient=not is_old, seen=is_old)
    deadline, policy, flow = deadline_for(connection), _link_policy(connection), connection.provider.result
    while True:
        try:
            return (yield from perform(connection, lambda: follow_links(flow(task), policy, _invalid_link), task.id))
        except TaskNotFound as error:
            pause = grace.pause(error, connection.clock.monotonic(), deadline)
            if pause is None:
                raise
        yield Sleep(pause)


def _link_policy(connection: Connection) -> FetchPolicy:
    settings = connection.settings
    return FetchPolicy(settings.allow_private, settings.allow_http, own=origin_of(connection.provider.base_url))


def _fetch(connection: Connection, file: TaskFile, request: Request, sink: ResponseSink) -> EffectFlow[None]:
    """Fetch a file; resume where it broke off as long as that makes progress."""
    settings, clock, policy = connection.settings, connection.clock, _link_policy(connection)
    request = replace(request, save_to=sink)
    started = clock.monotonic()
    while True:
        before = sink.most_received
        deadline = started + settings.request_timeout + sink.extra_seconds
        try:
            last, response = yield from with_policies(
                connection, lambda: follow(request, policy, _invalid_link), deadline, DOWNLOAD
            )
        except (TransportError, MalformedResponse) as error:
            if not error.retryable or not sink.headers or sink.most_received - before < _PROGRESS:
                raise
        else:
            if response.status != 416 or not sink.received:
                break
            sink.reset()  # the host no longer has the missing part
        yield Sleep(connection.retry.pause(1, clock.random()))
    if response.status not in _WITH_CONTENT:
        raise _error_for(connection, file, last, response)
    if file.size is not None and sink.received != file.size:
        raise TruncatedResponse(f"the file has {sink.received} bytes, where the vendor says {file.size}")


def _invalid_link(words: str) -> MalformedResponse:
    return MalformedResponse(f"the link {words}; nothing was fetched")


def _error_for(connection: Connection, file: TaskFile, request: Request, response: Response) -> TaskbridgeError:
    """Return the error for a response that is not the file."""
    provider = connection.provider
    if request.authorized or not 400 <= response.status <= 599:
        error = provider.error(response)
        return connection.refused(error) if request.authorized else error
    status = response.status
    kind = _BY_STATUS.get(status, ServerError if status >= 500 else ApiError)
    words = f"the file's link answers HTTP {status}"
    if status in _DEAD_LINK:
        words = f"{words}: it is dead{_lifetime(connection, file)}"
    if response.attempts > 1:
        words = f"{words} (after {response.attempts} attempts)"
    is_transient = status >= 500 or status in (408, 425, 429)
    error = kind(words, http_status=status, retry_after=response.retry_after, retryable=is_transient)
    error.authorized = False
    return error


def _lifetime(connection: Connection, file: TaskFile) -> str:
    """How long links live, in words that follow "it is dead"."""
    can = connection.provider.capabilities.downloads
    hours = None if can is None or can.link_ttl is None else can.link_ttl / 3600.0
    words = "" if hours is None else f"; links of {connection.provider.title} live {hours:g} hours"
    return words if file.expires_at is None else f"{words}, this one until {file.expires_at:%Y-%m-%d %H:%M} UTC"


# Files on the disk.


_TEMPORARY: Final = ".taskbridge-{}.part"


def remove_temporary_files(folder: Path) -> None:
    """Remove what a killed process left in a folder into which nothing is being downloaded; ignore what cannot be."""
    for path in folder.glob(_TEMPORARY.format("*")):
        with suppress(OSError):
            path.unlink()


class AtomicFile:
    """A file that gets its name once it is complete.

    Raises `OSError` if the target is a folder, exists and may not be overwritten, or if its folder does not exist.
    """

    def __init__(self, target: Path, *, overwrite: bool) -> None:
        self.target = target
        self.path = target.with_name(_TEMPORARY.format(token_hex(8)))  # temporary
        self._overwrite = overwrite
        if target.is_dir():
            raise IsADirectoryError(EISDIR, os.strerror(EISDIR), str(target))
        if not overwrite and (target.exists() or target.is_symlink()):
            raise _exists(target)
        if not target.parent.is_dir():
            raise NotADirectoryError(ENOTDIR, "there is no such folder", str(target.parent))

    def write(self, content: bytes) -> None:
        """Write the content."""
        try:
            with self.path.open("xb") as file:
                file.write(content)
        except OSError as error:
            error.filename = error.filename or str(self.path)
            raise

    def commit(self) -> EffectFlow[None]:
        """Write it to the disk and give it its name: a reader of that name sees the whole file."""
        yield RunBlocking(self._commit)

    def _commit(self) -> None:
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
        if self._overwrite:
            self.path.replace(self.target)
        else:
            self._link()
        _sync_folder(self.target.parent)

    def _link(self) -> None:
        """Give it its name unless that exists; a rename would replace the existing file."""
        try:
            os.link(self.path, self.target)
        except FileExistsError:
            raise _exists(self.target) from None
        except OSError:  # a file system without hard links
            if self.target.exists():
                raise _exists(self.target) from None
            self.path.rename(self.target)
        else:
            self.path.unlink()

    def discard(self) -> None:
        """Remove it unless it was committed."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


class TemporaryTarget:
    """A file that is read here and then removed, so that it needs no name of its own."""

    def __init__(self, path: Path) -> None:
        self.path = self.target = path

    def write(self, content: bytes) -> None:
        """Write the content."""
        self.path.write_bytes(content)

    def commit(self) -> EffectFlow[None]:
        """Leave it where it is."""
        yield from ()

    def discard(self) -> None:
        """Leave it to the folder for temporary files."""


class TemporaryStream(io.BufferedReader):
    """A stream from a temporary file, which is removed when the stream is closed."""

    def __init__(self, path: Path, files: TemporaryFiles) -> None:
        super().__init__(io.FileIO(os.fspath(path)))
        self._files = files

    def close(self) -> None:
        """Close the stream and remove the file."""
        super().close()
        self._files.close()


def _exists(target: Path) -> FileExistsError:
    return FileExistsError(EEXIST, "exists; overwrite=True replaces it", str(target))


def _sync_folder(folder: Path) -> None:
    """Write a folder's entries to the disk, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
