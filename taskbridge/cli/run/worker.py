"""The work of a run: each file through submit, wait and download, with the ledger written first.

A submission is uncertain if the process was killed or the connection broke while it was sent. The vendor is then
searched for it before anything is submitted again. A vendor may take a moment to list what it accepted: a submission
counts as not accepted only if it has not appeared `settle` seconds after it was sent.

Each file in flight has a thread. Their waits share the client's poll scheduler, so that the vendor is polled for all of
them together. No file stops another.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from taskbridge._engine.download import MAX_BYTES
from taskbridge._engine.inputs import is_url
from taskbridge.cli.formatting import field_errors, os_error_text
from taskbridge.cli.run.ledger import LedgerEntry, LedgerError, Phase, fingerprint, has_changed
from taskbridge.errors import (
    ApiError,
    AuthenticationError,
    PermissionDenied,
    QuotaExceeded,
    ServerError,
    SubmitUncertain,
    TaskbridgeError,
    TaskFailed,
    UnsupportedFeature,
)
from taskbridge.models import total_usage
from taskbridge.provider.payload import read_time

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping

    from taskbridge.cli.run.ledger import Fingerprint, Ledger, RunTerms
    from taskbridge.client import Client
    from taskbridge.models import Task

_ATTEMPTS: Final = 4  # submissions of one file that did not arrive, before the file is left for a later run
_MISSES: Final = 12  # submissions in a row, of any files, that did not arrive, before the run stops submitting
_FIRST_MISSES: Final = 3  # the same, as long as none has ever arrived
_FIRST_PAUSE: Final = 1.0  # seconds after a submission that did not arrive; doubles
_LONGEST_PAUSE: Final = 600.0  # seconds, if the vendor asks for it
_RECOVERY_PAUSE: Final = 0.5  # seconds between two searches for an uncertain submission; doubles up to ten
_PROGRESS_INTERVAL: Final = 0.25  # seconds between two updates during a download
_STOP_TIMEOUT: Final = 5.0  # seconds for idle threads to end

# These refuse the account: the next file would fail in the same way.
_ACCOUNT_ERRORS: Final = (AuthenticationError, PermissionDenied, QuotaExceeded)
_FINAL: Final = frozenset({"done", "changed", "failed", "uncertain", "error", "skipped"})


@dataclass(frozen=True, slots=True)
class RunLimits:
    """The limits of a run.

    Attributes:
        max_in_flight: Most files at the vendor at once.
        timeout: Seconds to wait for one task; None for no limit.
        settle: Seconds after which a submission that the vendor does not show counts as not accepted.
        resubmit_uncertain: Whether to submit again if the vendor cannot be searched for an uncertain submission.
        max_bytes: Largest file to download; None for no limit.
        max_cost: Known usage of the run, in the vendor's unit, from which on nothing more is submitted; None for no
            limit.
    """

    max_in_flight: int = 8
    timeout: float | None = 900.0
    settle: float = 60.0
    resubmit_uncertain: bool = False
    max_bytes: int | None = MAX_BYTES
    max_cost: float | None = None


@dataclass(frozen=True, slots=True)
class FileUpdate:
    """A change in the state of a file.

    Attributes:
        entry: The file, as the ledger has it.
        step: ``submitting``, ``retrying`` (a submission that did not arrive), ``recovering``, ``waiting``,
            ``downloading``; or the end in this run: ``done``,
            ``changed`` (done, but the file has changed since it was submitted), ``failed``, ``uncertain``, ``error``,
            ``skipped`` (nothing was done).
        task: The last snapshot of its task.
        error: What went wrong.
        files: The downloaded files.
        fraction: How much is downloaded, from 0 to 1, if known.
        is_empty: Whether the task completed without any result: no file, or only empty ones.
    """

    entry: LedgerEntry
    step: str
    task: Task | None = None
    error: Exception | None = None
    files: tuple[Path, ...] = ()
    fraction: float | None = None
    is_empty: bool = False

    @property
    def is_final(self) -> bool:
        """Whether this is the file's last update in this run."""
        return self.step in _FINAL


class _Stopped(Exception):
    """The run is stopping; not an error."""


class _RetryLater(Exception):
    """Sends a file back to the queue; not an error."""

    def __init__(self, pause: float) -> None:
        super().__init__(pause)
        self.pause = pause


@dataclass(frozen=True, slots=True)
class _FailedSubmission:
    """A submission that raised an error.

    Attributes:
        error: The error.
        content: Fingerprint of the file.
        recorded: Whether the ledger has it as ``submitting``.
    """

    error: TaskbridgeError
    content: Fingerprint | None
    recorded: bool

    @property
    def is_uncertain(self) -> bool:
        """Whether the vendor may have it; a server error may come after the server accepted it."""
        error = self.error
        return isinstance(error, SubmitUncertain) or (
            self.recorded and ("task" in error.recovery_token or isinstance(error, ServerError))
        )


class FileRunner:
    """Takes files through submit, wait and download; used by many threads.

    Attributes:
        updates: The updates of all files; None after the last.
        refusal: Why nothing more is submitted.
        is_cost_reached: Whether a file was not submitted because the limit of the cost is reached.
        stopping: Set when nothing new may start.
    """

    def __init__(self, client: Client, ledger: Ledger, terms: RunTerms, folder: Path, limits: RunLimits) -> None:
        self.updates: SimpleQueue[FileUpdate | None] = SimpleQueue()
        self.refusal: TaskbridgeError | None = None
        self.is_cost_reached = False
        self.stopping = threading.Event()
        self._client = client
        self._ledger = ledger
        self._terms = terms
        self._folder = folder
        self._limits = limits
        self._submissions_done = threading.Condition()
        self._submissions = 0
        self._first = threading.Lock()
        self._account_works = False  # a submission was accepted
        self._misses = 0  # in a row
        self._attempts: dict[int, int] = {}
        self._usage = {each.number: each.usage for each in ledger.entries() if each.usage is not None}

    def stop(self) -> None:
        """Submit nothing more, wait for submissions in flight, and close the client."""
        with self._submissions_done:
            self.stopping.set()
            while self._submissions:
                self._submissions_done.wait()
        self._client.close()

    def run(self, entry: LedgerEntry) -> FileUpdate:
        """Take one file as far as possible; return its last update.

        Raises:
            _Stopped: The run is stopping; the file was left as it is.
            _RetryLater: Its submission did not arrive, and may be repeated later.
            LedgerError: The ledger cannot be written.
        """
        try:
            placed = self._place(entry)
            if isinstance(placed, FileUpdate):
                return placed
            entry, task = placed
            entry, task = self._wait(entry, task)
            return self._download(entry, task)
        except TaskFailed as failure:
            self._ledger.mark_ended(entry.number, Phase.FAILED, str(failure))
            return FileUpdate(replace(entry, phase=Phase.FAILED), "failed", failure.task, failure)
        except (TaskbridgeError, OSError) as error:
            if isinstance(error, LedgerError):
                raise
            if self.stopping.is_set():
                raise _Stopped from None  # the error comes from the closed client
            if isinstance(error, AuthenticationError) and error.authorized:
                self.refusal = self.refusal or error
            self._ledger.record_error(entry.number, error_text(error))
            return FileUpdate(replace(entry, usage=self._usage.get(entry.number)), "error", error=error)

    def _place(self, entry: LedgerEntry) -> tuple[LedgerEntry, Task | None] | FileUpdate:
        """Make sure that the vendor has the file; return its task if this call saw it."""
        if entry.phase is Phase.SUBMITTING:
            recovered = self._recover(entry)
            if isinstance(recovered, FileUpdate):
                return recovered
            entry, task = recovered
            if task is not None:
                return entry, task
        if entry.phase is not Phase.PLANNED:
            return entry, None
        # One at a time until a submission is accepted, so that a refused key is tried once.
        with nullcontext() if self._account_works else self._first:
            submitted = self._submit(entry)
        return self._settle(entry, submitted) if isinstance(submitted, _FailedSubmission) else submitted

    def _submit(self, entry: LedgerEntry) -> tuple[LedgerEntry, Task | None] | FileUpdate | _FailedSubmission:
        if self.refusal is not None:
            return FileUpdate(entry, "skipped")
        if self._has_reached_cost():
            self.is_cost_reached = True
            return FileUpdate(entry, "skipped")
        content = fingerprint(entry.source)
        tokens: list[Mapping[str, Any]] = []

        def record(recovery_token: Mapping[str, Any]) -> None:
            self._check_stop()
            self._ledger.mark_submitting(entry.number, recovery_token, content)
            tokens.append(recovery_token)

        with self._submitting():
            self.updates.put(FileUpdate(entry, "submitting"))
            try:
                task = self._client.submit(
                    self._terms.operation,
                    entry.source,
                    options=self._terms.options,
                    before_submit=record,
                    **self._terms.neutral,
                )
            except TaskbridgeError as error:
                if _refuses_account(error):
                    self.refusal = error
                return _FailedSubmission(error, content, recorded=bool(tokens))
            except OSError as error:
                if not tokens:
                    raise
                self._ledger.record_error(entry.number, error_text(error))  # the file vanished during the submission
                return FileUpdate(_uncertain(entry, tokens[-1], content), "uncertain", error=error)
            self._ledger.mark_accepted(entry.number, task.ref)
            self._misses, self._account_works = 0, True
            return replace(entry, phase=Phase.ACCEPTED, ref=task.ref, submitted=content), task

    def _settle(self, entry: LedgerEntry, failed: _FailedSubmission) -> tuple[LedgerEntry, Task | None] | FileUpdate:
        """Decide what happens after a submission that raised an error."""
        error = failed.error
        attempts = self._attempts[entry.number] = self._attempts.get(entry.number, 0) + 1
        if failed.is_uncertain:
            uncertain = _uncertain(entry, error.recovery_token, failed.content)
            self._ledger.mark_submitting(entry.number, error.recovery_token, failed.content)
            return self._place(uncertain) if attempts < _ATTEMPTS else FileUpdate(uncertain, "uncertain", error=error)
        if failed.recorded:
            self._ledger.mark_planned(entry.number, error_text(error))
        if _refuses_account(error):
            return FileUpdate(entry, "skipped", error=error)
        if error.retryable:
            self._misses += 1
            if self._misses >= (_MISSES if self._account_works else _FIRST_MISSES):
                self.refusal = self.refusal or error
                return FileUpdate(entry, "skipped", error=error)
            if attempts < _ATTEMPTS:
                pause = max(error.retry_after or 0.0, _FIRST_PAUSE * 2.0 ** (attempts - 1))
                self.updates.put(FileUpdate(entry, "retrying", error=error))
                raise _RetryLater(min(_LONGEST_PAUSE, pause))
        raise error

    def _recover(self, entry: LedgerEntry) -> tuple[LedgerEntry, Task | None] | FileUpdate:
        """Search for an uncertain submission; return no task if the file may be submitted again."""
        assert entry.recovery_token is not None  # noqa: S101  # written together with the phase
        lost = SubmitUncertain("the vendor may or may not have accepted it", recovery_token=entry.recovery_token)
        given = entry.source if _is_readable(entry.source) else None
        self.updates.put(FileUpdate(entry, "recovering"))
        pause, started = _RECOVERY_PAUSE, monotonic()
        while True:
            self._check_stop()
            failure: TaskbridgeError | None = None
            try:
                with self._submitting():
                    task = self._client.recover(lost, given)
            except UnsupportedFeature as error:
                if self._limits.resubmit_uncertain:
                    break
                return FileUpdate(entry, "uncertain", error=error)
            except TaskbridgeError as error:
                if _refuses_account(error):
                    self.refusal = error
                    return FileUpdate(entry, "uncertain", error=error)
                if isinstance(error, ApiError) and not error.authorized and not error.retryable:
                    raise  # the job is known, and the host of its upload form refuses the document
                task, failure = None, error
            if task is not None:
                self._ledger.mark_accepted(entry.number, task.ref)
                return replace(entry, phase=Phase.ACCEPTED, ref=task.ref), task
            left = self._limits.settle - max(age_of(entry.recovery_token), monotonic() - started)
            if left <= 0.0:
                if failure is not None:
                    return FileUpdate(entry, "uncertain", error=failure)
                break
            self.stopping.wait(min(pause, left + 0.05))
            pause = min(10.0, pause * 2.0)
        self._check_stop()
        self._ledger.mark_planned(entry.number, None)
        return replace(entry, phase=Phase.PLANNED, recovery_token=None), None

    def _has_reached_cost(self) -> bool:
        limit = self._limits.max_cost
        return limit is not None and any(amount >= limit for amount in total_usage([*self._usage.values()]).values())

    def _record_usage(self, entry: LedgerEntry, task: Task | None) -> LedgerEntry:
        """Record what the file's task cost so far; a figure that the vendor repeats changes nothing."""
        if task is None or task.usage is None or task.usage == entry.usage:
            return entry
        self._ledger.record_usage(entry.number, task.usage)
        self._usage[entry.number] = task.usage
        return replace(entry, usage=task.usage)

    def _wait(self, entry: LedgerEntry, task: Task | None) -> tuple[LedgerEntry, Task]:
        """Wait for the end of the file's task."""
        ref = entry.ref
        assert ref is not None  # noqa: S101  # the vendor has accepted it
        entry = self._record_usage(entry, task)
        self.updates.put(FileUpdate(entry, "waiting", task))
        watched = ref if task is None or task.resumable else task
        for outcome in self._client.watch([watched], timeout=self._limits.timeout):
            self._check_stop()
            if outcome.error is not None:
                raise outcome.error
            task = outcome.task
            entry = self._record_usage(entry, task)
            self.updates.put(FileUpdate(entry, "waiting", task))
        self._check_stop()
        assert task is not None  # noqa: S101  # the last outcome is an end
        return entry, task

    def _download(self, entry: LedgerEntry, task: Task) -> FileUpdate:
        shown = monotonic()

        def on_progress(received: int, total: int | None) -> None:
            nonlocal shown
            self._check_stop()
            if total and monotonic() - shown > _PROGRESS_INTERVAL:
                shown = monotonic()
                self.updates.put(FileUpdate(entry, "downloading", task, fraction=received / total))

        self.updates.put(FileUpdate(entry, "downloading", task))
        files = self._client.download(
            task,
            self._folder / entry.folder,
            max_bytes=self._limits.max_bytes,
            on_progress=on_progress,
            overwrite=True,
        )
        self._ledger.mark_ended(entry.number, Phase.DONE)
        step = "changed" if has_changed(entry.source, entry.submitted) else "done"
        is_empty = not any(path.stat().st_size for path in files)
        return FileUpdate(replace(entry, phase=Phase.DONE), step, task, files=files, is_empty=is_empty)

    def _check_stop(self) -> None:
        if self.stopping.is_set():
            raise _Stopped

    @contextmanager
    def _submitting(self) -> Generator[None]:
        """Let `stop` wait until this block is done."""
        with self._submissions_done:
            self._check_stop()
            self._submissions += 1
        try:
            yield
        finally:
            with self._submissions_done:
                self._submissions -= 1
                self._submissions_done.notify_all()


class RunPool:
    """The threads of a run.

    Attributes:
        updates: The updates of all files; None after the last.
        ledger_error: Why the ledger could not be written, which ends the run.
    """

    def __init__(self, runner: FileRunner, size: int) -> None:
        self.updates = runner.updates
        self.ledger_error: LedgerError | None = None
        self._runner = runner
        self._size = size
        self._changed = threading.Condition()
        self._queue: deque[LedgerEntry] = deque()
        self._unfinished = 0
        self._threads: list[threading.Thread] = []

    @property
    def refusal(self) -> TaskbridgeError | None:
        """Why nothing more was submitted."""
        return self._runner.refusal

    @property
    def is_cost_reached(self) -> bool:
        """Whether a file was not submitted because the limit of the cost is reached."""
        return self._runner.is_cost_reached

    def start(self, entries: Iterable[LedgerEntry]) -> None:
        """Start work on these files; `updates` ends with None when all have come to their end in this run."""
        self._queue.extend(entries)
        self._unfinished = len(self._queue)
        if not self._unfinished:
            self.updates.put(None)
        for _ in range(min(self._size, self._unfinished)):
            thread = threading.Thread(target=self._work, name="taskbridge-run", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Submit nothing more, wait for submissions in flight, and leave the other files as they are."""
        self._runner.stop()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout=_STOP_TIMEOUT)

    def drain(self) -> list[FileUpdate]:
        """Return the updates that were not read before `stop`."""
        remaining: list[FileUpdate] = []
        while not self.updates.empty():
            update = self.updates.get()
            if update is not None:
                remaining.append(update)
        return remaining

    def _work(self) -> None:
        while (entry := self._next()) is not None:
            try:
                update = self._runner.run(entry)
            except _RetryLater as later:
                self._runner.stopping.wait(later.pause)
                with self._changed:
                    self._queue.append(entry)
                    self._changed.notify()
                continue
            except _Stopped:
                update = FileUpdate(entry, "skipped")
            except LedgerError as error:
                self.ledger_error = self.ledger_error or error
                self._runner.stopping.set()
                self.updates.put(None)
                return
            except Exception as error:  # noqa: BLE001  # a bug that one file hits must not stop the others
                update = FileUpdate(entry, "error", error=error)
            self.updates.put(update)
            with self._changed:
                self._unfinished -= 1
                if self._unfinished == 0:
                    self.updates.put(None)
                self._changed.notify_all()

    def _next(self) -> LedgerEntry | None:
        with self._changed:
            while not self._queue:
                if self._unfinished == 0 or self._runner.stopping.is_set():
                    return None
                self._changed.wait()
            return self._queue.popleft()


def error_text(error: Exception) -> str:
    """Return an error as text, with the vendor's complaints about each field."""
    if isinstance(error, OSError) and not isinstance(error, TaskbridgeError):
        return os_error_text(error)
    text = str(error) if isinstance(error, TaskbridgeError) else f"{type(error).__name__}: {error}"
    return f"{text} {field_errors(error)}".strip()


def _refuses_account(error: TaskbridgeError) -> bool:
    """Whether nothing more can be submitted; in a group, another member may accept the next file later."""
    return isinstance(error, _ACCOUNT_ERRORS) and error.authorized and not error.retryable


def _is_readable(source: str) -> bool:
    return not is_url(source) and os.access(source, os.R_OK) and Path(source).is_file()


def _uncertain(entry: LedgerEntry, recovery_token: Mapping[str, Any], content: Fingerprint | None) -> LedgerEntry:
    return replace(entry, phase=Phase.SUBMITTING, recovery_token=recovery_token, submitted=content)


def age_of(recovery_token: Mapping[str, Any]) -> float:
    """Return the seconds since a submission was sent; 0 if that is unknown, or the clock was set back."""
    sent = read_time(recovery_token.get("time"))
    return 0.0 if sent is None else max(0.0, (datetime.now(UTC) - sent).total_seconds())
