"""Bringing home what a task made: lifted flows, shared by both sides.

The bytes of a file are streamed into a file beside the target, which gets its name once it is whole and on the disk: a
name shows the whole file or nothing. What breaks off is gone on with where the host allows it, and otherwise begins
anew, for as long as that brings something.

A vendor's own host is asked like any of its calls. A link is a capability: no credential goes along, and its host has
no part in the pace of the connection.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from errno import EEXIST, EISDIR, ENOTDIR
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final, TypeVar

from taskbridge._engine.connection import Connection
from taskbridge._engine.effects import EffectFlow, RunBlocking, Sleep
from taskbridge._engine.filenames import Names, file_name
from taskbridge._engine.lookup import poll
from taskbridge._engine.operations import act
from taskbridge._engine.redirects import hops, name_of
from taskbridge._engine.retry import DOWNLOAD, with_policies
from taskbridge.errors import (
    ApiError,
    ContractError,
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
from taskbridge.models import Task, TaskFile, TaskRef, raise_if_failed
from taskbridge.provider.addresses import Rules, origin_of
from taskbridge.provider.results import GeneratedFile
from taskbridge.provider.sink import ResponseSink

if TYPE_CHECKING:
    from taskbridge.provider.http import Request, Response
    from taskbridge.provider.sink import Progress

# XXDOC Where a download lands: a file of its own beside the target, renamed once it is whole and on the disk.

T = TypeVar("T")


PACE: Final = 20_000.0  # bytes per second that a file has to come with in the mean, once request_timeout is used up


_WORTH: Final = 1 << 20  # bytes that broken attempts must have added, for attempts to be counted anew


_WHOLE: Final = frozenset({200, 206})


_LOST: Final = frozenset({401, 403, 404, 410})  # of a link: it is dead, a fresh one may live


_HOUR: Final = 3600.0


# What a link's host answers -> error; it says nothing of the connection's account.
_BY_STATUS: Final = {401: PermissionDenied, 403: PermissionDenied, 404: TaskNotFound, 410: TaskNotFound}


@dataclass(frozen=True, slots=True)
class DownloadOptions:
    """How files are wanted.

    Attributes:
        to: Where they go.
        max_bytes: Bytes of one file at most; None for no limit.
        on_progress: Told bytes that are there, and in all or None.
        overwrite: Whether files that are there are replaced.

    Raises:
        InvalidInput: It cannot be done so.
    """

    to: str | os.PathLike[str]
    max_bytes: int | None = None
    on_progress: Progress | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        to: Any = self.to  # callers need not be typed
        if not isinstance(to, str | os.PathLike) or not isinstance(os.fspath(to), str):
            raise InvalidInput(f"to is the path of a file or folder, not {type(self.to).__name__}")
        if self.max_bytes is not None and self.max_bytes < 0:
            raise InvalidInput("max_bytes must be a number of bytes, or None for no limit")
        if inspect.iscoroutinefunction(self.on_progress):
            raise InvalidInput("on_progress must be a plain function: nobody would await it")


def download_file(connection: Connection, file: TaskFile, want: DownloadOptions) -> EffectFlow[Path]:
    """Bring one file home.

    Raises:
        OSError: It cannot be written there.
        TaskbridgeError: It cannot be had.
    """
    target = Path(want.to)
    if is_folder(want.to):
        target = folder_of(want.to) / _name(file)
    landing = AtomicFile(target, overwrite=want.overwrite)
    try:
        return (yield from _landed(connection, file, landing, _DownloadProgress(want, [file.size])))
    except TaskbridgeError as error:
        fault = connection.add_context(error)
    raise fault


def download_task(
    connection: Connection, task_id: str, known: Task | None, want: DownloadOptions
) -> EffectFlow[tuple[Path, ...]]:
    """Bring home all that a task made.

    Args:
        channel: The connection.
        task_id: The shared id.
        known: The caller's snapshot of it, which is enough where it has ended.
        want: How the files are wanted.

    Raises:
        OSError: They cannot be written there.
        TaskFailed: The task made nothing: it failed.
        WaitTimeout: It goes on.
        TaskbridgeError: A file cannot be had; those before it are there.
    """
    task = known if known is not None and known.is_terminal else (yield from _seen(connection, task_id))
    raise_if_failed(task)
    if not task.is_terminal:
        raise WaitTimeout(
            f"the task goes on, and has made nothing yet: it is {task.describe()}; wait for its end",
            task=task,
            provider=task.provider,
            connection=task.connection,
            ref=task.ref,
        )
    try:
        return (yield from _all_of(connection, task, want))
    except TaskbridgeError as error:
        fault = connection.add_context(error, TaskRef.of(connection.name, task_id))
    raise fault


def _seen(connection: Connection, task_id: str) -> EffectFlow[Task]:
    found = yield from poll(connection, task_id, connection.clock.monotonic() + connection.settings.request_timeout)
    assert found.task is not None  # noqa: S101  # None only where bytes were given to compare with
    return found.task


def _all_of(connection: Connection, task: Task, want: DownloadOptions) -> EffectFlow[tuple[Path, ...]]:
    pieces = yield from _pieces(connection, task)
    folder, names = folder_of(want.to), Names()
    targets = [folder / names.take(_name(each)) for each in pieces]
    landings = [AtomicFile(target, overwrite=want.overwrite) for target in targets]  # before anything is sent
    haul = _DownloadProgress(want, [_size(each) for each in pieces])
    for n, (piece, landing) in enumerate(zip(pieces, landings, strict=True)):
        if isinstance(piece, GeneratedFile):
            yield from _made(piece, landing, haul)
            continue

        def again(n: int = n, piece: TaskFile = piece) -> EffectFlow[TaskFile | None]:
            fresh = yield from _seen(connection, task.id)
            raise_if_failed(fresh)
            return _same_file(piece, n, (yield from _pieces(connection, fresh)))

        yield from _landed(connection, piece, landing, haul, again)
    return tuple(targets)


def _pieces(connection: Connection, task: Task) -> EffectFlow[Sequence[TaskFile | GeneratedFile]]:
    """The files that a task's result makes."""
    result = task.result
    if result is None or not result.files:
        # What the status answer does not hold, or not in the words of `client.result`.
        result = yield from act(connection, lambda: connection.provider.result(task), task.id)
    found = result
    return _asked(connection, lambda: connection.provider.result_files(task, found))


def _asked(connection: Connection, ask: Callable[[], T]) -> T:
    """What a provider's own code says.

    Raises:
        ContractError: It tripped.
    """
    try:
        return ask()
    except TaskbridgeError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever a provider's own code may raise
        fault = f"the provider {connection.provider.name} is broken: it raised {type(error).__name__} on a result"
    raise ContractError(fault)


def _same_file(file: TaskFile, n: int, pieces: Sequence[TaskFile | GeneratedFile]) -> TaskFile | None:
    """The same file in a newer answer: of that name at that place, or the only one of that name."""
    there = pieces[n] if n < len(pieces) else None
    same = [each for each in pieces if isinstance(each, TaskFile) and (each.id, each.name) == (file.id, file.name)]
    if isinstance(there, TaskFile) and there in same:
        return there
    return same[0] if len(same) == 1 else None


def _name(piece: TaskFile | GeneratedFile) -> str:
    if isinstance(piece, GeneratedFile):
        return file_name(piece.name)
    return file_name(piece.name or (name_of(piece.url) if piece.url else piece.id), piece.media_type)


def _size(piece: TaskFile | GeneratedFile) -> int | None:
    return len(piece.content) if isinstance(piece, GeneratedFile) else piece.size


class _DownloadProgress:
    """Files on their way home, one after the other, and what they brought.

    Args:
        want: How they are wanted.
        sizes: Bytes of each, None where unknown.
    """

    def __init__(self, want: DownloadOptions, sizes: list[int | None]) -> None:
        self.limit = want.max_bytes
        self.tell = None if want.on_progress is None else self._told
        self._want = want
        self._before = self._now = 0
        self._after = sizes

    def begin(self, size: int | None) -> None:
        """Begin the next file.

        Raises:
            ResponseTooLarge: It has more bytes than are wanted.
        """
        if size is not None and self.limit is not None and size > self.limit:
            raise ResponseTooLarge(f"the file has {size} bytes, more than max_bytes ({self.limit}); it was not fetched")
        self._before, self._now, self._after = self._before + self._now, 0, self._after[1:]

    def end(self, size: int) -> None:
        """End a file; where no block told of it, this does."""
        if self.tell is not None and (self._now != size or size == 0):
            self.tell(size, size)

    def _told(self, done: int, total: int | None) -> None:
        self._now = done
        known = [size for size in self._after if size is not None]
        whole = None if total is None or len(known) != len(self._after) else self._before + total + sum(known)
        if self._want.on_progress is not None:
            self._want.on_progress(self._before + done, whole)


# One file.


def _made(piece: GeneratedFile, landing: AtomicFile, haul: _DownloadProgress) -> EffectFlow[None]:
    """Write what an answer held to its name."""
    haul.begin(len(piece.content))
    try:
        yield RunBlocking(lambda: landing.write(piece.content))
        yield RunBlocking(landing.settle)
    finally:
        landing.drop()
    haul.end(len(piece.content))


def _landed(
    connection: Connection,
    file: TaskFile,
    landing: AtomicFile,
    haul: _DownloadProgress,
    again: Callable[[], EffectFlow[TaskFile | None]] | None = None,
) -> EffectFlow[Path]:
    """Fetch a file to its name."""
    request = _asked(connection, lambda: connection.provider.source(file))
    haul.begin(file.size)
    sink = ResponseSink(landing.path, haul.limit, expected=file.size, pace=PACE, on_progress=haul.tell)
    try:
        landing.write(b"")
        dead = yield from _tried(connection, file, request, sink)
        if dead is not None:
            fresh = None if again is None else (yield from _fresh(connection, dead, again))
            other = None if fresh is None else _asked(connection, lambda: connection.provider.source(fresh))
            if fresh is None or other is None or other.url == request.url:
                raise dead
            yield from _fetched(connection, fresh, other, sink)
        yield RunBlocking(landing.settle)
    except TaskbridgeError:
        if sink.broken is not None:
            raise sink.broken from None
        raise
    finally:
        landing.drop()
    haul.end(sink.received)
    return landing.target


def _tried(connection: Connection, file: TaskFile, request: Request, sink: ResponseSink) -> EffectFlow[ApiError | None]:
    """Fetch a file; the error where its link is dead."""
    try:
        yield from _fetched(connection, file, request, sink)
    except ApiError as error:
        if request.authorized or error.http_status not in _LOST:
            raise
        return error
    return None


def _fresh(
    connection: Connection, dead: ApiError, again: Callable[[], EffectFlow[TaskFile | None]]
) -> EffectFlow[TaskFile | None]:
    """The file by the vendor's present word; None where the task is gone, which the dead link's error then says."""
    try:
        return (yield from again())
    except TaskNotFound:
        dead.message = f"{dead.message}; {connection.provider.title} no longer has the task either"
        dead.args = (dead.message,)
        return None


def _fetched(connection: Connection, file: TaskFile, request: Request, sink: ResponseSink) -> EffectFlow[None]:
    """Fetch a file, going on where it broke off for as long as that adds something."""
    settings, clock = connection.settings, connection.clock
    rules = Rules(settings.allow_private, settings.allow_http, own=origin_of(connection.provider.base_url))
    request = replace(request, save_to=sink)
    begun = clock.monotonic()
    while True:
        before = sink.furthest
        deadline = begun + settings.request_timeout + sink.earned
        try:
            last, answer = yield from with_policies(connection, hops(request, rules, _unsafe), deadline, plan=DOWNLOAD)
        except (TransportError, MalformedResponse) as error:
            if not error.retryable or not sink.headers or sink.furthest - before < _WORTH:
                raise
        else:
            if answer.status != 416 or not sink.received:
                break
            sink.forget()  # the host no longer has the part that is missing
        yield Sleep(connection.retry.pause(1, clock.random()))
    if answer.status not in _WHOLE:
        raise _refusal(connection, file, last, answer)
    if file.size is not None and sink.received != file.size:
        raise TruncatedResponse(f"the file has {sink.received} bytes, where the vendor says {file.size}")


def _unsafe(words: str) -> MalformedResponse:
    return MalformedResponse(f"the link {words}; nothing was fetched")


def _refusal(connection: Connection, file: TaskFile, request: Request, answer: Response) -> TaskbridgeError:
    """The error for an answer that is not the file."""
    provider = connection.provider
    if request.authorized or not 400 <= answer.status <= 599:
        error = provider.error(answer)
        if request.authorized and connection.blames_account(error):
            connection.refuse(error)
        return error
    status = answer.status
    kind = _BY_STATUS.get(status, ServerError if status >= 500 else ApiError)
    words = f"the file's link answers HTTP {status}"
    if status in _LOST:
        words = f"{words}: it is dead{_life(connection, file)}"
    if answer.attempts > 1:
        words = f"{words} (after {answer.attempts} attempts)"
    again = status >= 500 or status in (408, 425, 429)
    return kind(words, http_status=status, retry_after=answer.retry_after, retryable=again)


def _life(connection: Connection, file: TaskFile) -> str:
    """How long links live, in words that follow "it is dead"."""
    can = connection.provider.capabilities.downloads
    lives = None if can is None or can.link_ttl is None else can.link_ttl / _HOUR
    said = "" if lives is None else f"; links of {connection.provider.title} live {lives:g} hours"
    return f"{said}, this one until {file.expires_at:%Y-%m-%d %H:%M} UTC" if file.expires_at is not None else said


class AtomicFile:
    """A file on its way to its name.

    Args:
        target: Its name in the end.
        overwrite: Whether a file of that name is replaced.

    Attributes:
        target: Its name in the end.
        path: Its name until then, in the same folder.

    Raises:
        OSError: There is such a file, or a folder; or there is no folder to write in.
    """

    def __init__(self, target: Path, *, overwrite: bool) -> None:
        self.target = target
        self.path = target.with_name(f".taskbridge-{token_hex(8)}.part")
        self._overwrite = overwrite
        if target.is_dir():
            raise IsADirectoryError(EISDIR, os.strerror(EISDIR), str(target))
        if not overwrite and (target.exists() or target.is_symlink()):
            raise _there(target)
        if not target.parent.is_dir():
            raise NotADirectoryError(ENOTDIR, "there is no such folder", str(target.parent))

    def write(self, content: bytes) -> None:
        """Write all of it."""
        try:
            with self.path.open("xb") as file:
                file.write(content)
        except OSError as error:
            error.filename = error.filename or str(self.path)
            raise

    def settle(self) -> None:
        """Bring it to the disk, then to its name: whoever sees the name sees the whole file.

        Raises:
            OSError: The disk is full or broken, or a file of that name has appeared meanwhile.
        """
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
        if self._overwrite:
            self.path.replace(self.target)
        else:
            self._link()
        _sync_folder(self.target.parent)

    def _link(self) -> None:
        """Give it its name unless somebody else has it; a rename would replace what is there."""
        try:
            os.link(self.path, self.target)
        except FileExistsError:
            raise _there(self.target) from None
        except OSError:  # a file system without hard links
            if self.target.exists():
                raise _there(self.target) from None
            self.path.rename(self.target)
        else:
            self.path.unlink()

    def drop(self) -> None:
        """Remove it where it has not got its name."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


def _there(target: Path) -> FileExistsError:
    return FileExistsError(EEXIST, "exists; overwrite=True replaces it", str(target))


def _sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def is_folder(to: str | os.PathLike[str]) -> bool:
    """Whether a folder is meant: there is one, or the text ends in a separator."""
    text = os.fspath(to)
    return text.endswith(tuple(filter(None, (os.sep, os.altsep, "/")))) or Path(text).is_dir()


def folder_of(to: str | os.PathLike[str]) -> Path:
    """The folder that is meant, made where it is missing.

    Raises:
        OSError: It cannot be made, or is a file.
    """
    folder = Path(to)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
