"""The work of a run: each file through submit, wait and download, with each step stored first.

A submission is uncertain if the process was killed or the connection broke while it was sent. The vendor is then
searched for it before anything is submitted again. A vendor may take a moment to list what it accepted: a submission
counts as not accepted only if it has not appeared `settle` seconds after it was sent.

Each file in flight has a thread. Their waits share the client's poll scheduler, so that the vendor is polled for all of
them together. No file stops another.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from taskbridge._engine.download import MAX_BYTES
from taskbridge._engine.error_text import error_text
from taskbridge._engine.inputs import is_url
from taskbridge._engine.operations import sending_time
from taskbridge.errors import (
    ApiError,
    AuthenticationError,
    InvalidInput,
    PermissionDenied,
    QuotaExceeded,
    SubmitUncertain,
    TaskbridgeError,
    TaskFailed,
    UnsupportedFeature,
    WaitTimeout,
)
from taskbridge.models import raise_if_failed, total_usage
from taskbridge.provider.payload import read_time
from taskbridge.store.database import StoreUnavailable
from taskbridge.store.intents import (
    awaits_upload,
    fingerprint,
    has_changed,
    is_readable,
    is_repeatable,
    may_be_accepted,
)
from taskbridge.store.ownership import OwnershipLost
from taskbridge.store.runs.files import FilePhase, FileUpdate, RunFile
from taskbridge.store.runs.plan import in_use
from taskbridge.store.runs.stored import Forgotten
from taskbridge.store.schema import Phase, State

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping

    from taskbridge.client import Client
    from taskbridge.models import Task
    from taskbridge.store.intents import Fingerprint
    from taskbridge.store.runs.files import RunTerms
    from taskbridge.store.runs.stored import FileState, StoredRun

MOST_IN_FLIGHT: Final = 500  # files at the vendor at once; each has a thread
_ATTEMPTS: Final = 4  # submissions of one file that did not arrive, before the file is left for a later run
_MISSES: Final = 12  # submissions in a row, of any files, that did not arrive, before the run stops submitting
_FIRST_MISSES: Final = 3  # the same, as long as none has ever arrived
_FIRST_PAUSE: Final = 1.0  # seconds after a submission that did not arrive; doubles
_LONGEST_PAUSE: Final = 600.0  # seconds, if the vendor asks for it
_RECOVERY_PAUSE: Final = 0.5  # seconds between two searches for an uncertain submission; doubles up to ten
_OWNER_PAUSE: Final = 0.5  # seconds between two reads of what the owner has done with a file
_OWNER_PAUSE_EACH: Final = 0.01  # the same for each file in flight, so that there are at most a hundred reads a second
_PROGRESS_INTERVAL: Final = 0.25  # seconds between two updates during a download
_STOP_TIMEOUT: Final = 5.0  # seconds for idle threads to end

# These refuse the account: the next file would fail in the same way.
_ACCOUNT_ERRORS: Final = (AuthenticationError, PermissionDenied, QuotaExceeded)


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
        recorded: Whether the store has it as ``submitting``.
    """

    error: TaskbridgeError
    content: Fingerprint | None
    recorded: bool

    @property
    def is_uncertain(self) -> bool:
        """Whether the vendor may have it."""
        return self.recorded and may_be_accepted(self.error)


class FileRunner:
    """Takes files through submit, wait and download; used by many threads.

    Attributes:
        updates: The updates of all files; None after the last.
        refusal: Why nothing more is submitted.
        is_cost_reached: Whether a file was not submitted because the limit of the cost is reached.
        stopping: Set when nothing new may start.
    """

    def __init__(self, client: Client, run: StoredRun, terms: RunTerms, limits: RunLimits) -> None:
        self.updates: SimpleQueue[FileUpdate | None] = SimpleQueue()
        self.refusal: TaskbridgeError | None = None
        self.is_cost_reached = False
        self.stopping = threading.Event()
        self._client = client
        self._run = run
        self._terms = terms
        self._limits = limits
        self._submissions_done = threading.Condition()
        self._submissions = 0
        self._first = threading.Lock()
        self._account_works = False  # a submission was accepted
        self._misses = 0  # in a row
        self._attempts: dict[int, int] = {}
        self._owning = threading.Lock()
        self._next_attempt = 0.0  # to own the connection, if another process does
        self._usage = {each.number: each.usage for each in run.files() if each.usage is not None}

    def stop(self) -> None:
        """Submit nothing more, wait for submissions in flight, and close the client."""
        with self._submissions_done:
            self.stopping.set()
            while self._submissions:
                self._submissions_done.wait()
        self._client.close()
        if not self._run.is_owner:
            with suppress(StoreUnavailable):
                self._run.take_back()

    def run(self, file: RunFile) -> FileUpdate:
        """Take one file as far as possible; return its last update.

        Raises:
            _Stopped: The run is stopping; the file was left as it is.
            _RetryLater: Its submission did not arrive, and may be repeated later.
            StoreUnavailable: The store cannot be written.
            OwnershipLost: Another process has taken over the connection.
        """
        try:
            if not self._run.is_owner:
                given = self._leave_to_owner(file)
                if isinstance(given, FileUpdate):
                    return given
                file = given
            placed = self._place(file)
            if isinstance(placed, FileUpdate):
                return placed
            file, task = placed
            file, task = self._wait(file, task)
            return self._download(file, task)
        except TaskFailed as failure:
            return FileUpdate(replace(file, phase=FilePhase.FAILED), "failed", failure.task, failure)
        except Forgotten:
            return FileUpdate(replace(file, phase=FilePhase.FORGOTTEN), "forgotten")
        except StoreUnavailable:
            raise
        except (TaskbridgeError, OSError) as error:
            if self.stopping.is_set():
                raise _Stopped from None  # the error comes from the closed client
            if isinstance(error, AuthenticationError) and error.authorized:
                self.refusal = self.refusal or error
            self._run.record_error(file.number, error_text(error))
            return FileUpdate(replace(file, usage=self._usage.get(file.number)), "error", error=error)

    # Where another process owns the connection.

    def _leave_to_owner(self, file: RunFile) -> FileUpdate | RunFile:
        """Let the owner submit a file and poll its task, and download the results.

        Returns:
            The last update; or the file, if this process owns the connection by now.
        """
        state = self._run.state_of(file.number)
        is_sent = state.phase is Phase.SENDING
        may_submit = state.phase in (Phase.PLANNED, Phase.REFUSED) or (
            state.phase is Phase.UNCERTAIN and self._limits.resubmit_uncertain
        )
        if is_sent or may_submit:
            if may_submit and self._has_reached_cost():
                self.is_cost_reached = True
                return FileUpdate(file, "skipped")
            self._check_stop()
            self._run.hand_over(file.number, self._terms.connection)
        pause, accepted = max(_OWNER_PAUSE, self._limits.max_in_flight * _OWNER_PAUSE_EACH), None
        shown: tuple[str, Task | None] | None = None
        while True:
            self._check_stop()
            if self._owns_by_now():
                return self._run.state_of(file.number).file
            state = self._run.state_of(file.number)
            file = state.file
            if file.usage is not None:
                self._usage[file.number] = file.usage
            ended = self._end_by_owner(state)
            if ended is not None:
                return ended
            step = "waiting" if state.phase is Phase.TAKEN else "submitting"
            if shown != (step, state.task):
                shown = (step, state.task)
                self.updates.put(FileUpdate(file, step, state.task))
            if state.phase is Phase.TAKEN:
                accepted = accepted or monotonic()
                if self._limits.timeout is not None and monotonic() - accepted > self._limits.timeout:
                    raise WaitTimeout(
                        f"the task did not end within {self._limits.timeout:g} seconds", task=state.task, ref=file.ref
                    )
            self.stopping.wait(pause)

    def _end_by_owner(self, state: FileState) -> FileUpdate | None:
        """Return the last update of a file whose submission or task has come to an end."""
        file = state.file
        if state.phase is Phase.FORGOTTEN:
            return FileUpdate(file, "forgotten")
        if state.phase is Phase.REFUSED:
            return FileUpdate(file, "error", error=TaskbridgeError(state.problem, connection=self._terms.connection))
        if state.phase is Phase.UNCERTAIN:
            token = file.recovery_token or {}
            return FileUpdate(file, "uncertain", error=SubmitUncertain(state.problem, recovery_token=token))
        if state.state in (State.GIVEN_UP, State.DROPPED):
            raise TaskbridgeError(state.problem or "the task is not watched any more", ref=file.ref)
        if state.state is not State.ENDED or file.ref is None:
            return None if self.refusal is None else FileUpdate(file, "skipped")
        if state.task is not None:
            raise_if_failed(state.task)
        return self._download(file, self._client.get(file.ref))

    def _owns_by_now(self) -> bool:
        """Whether this process owns the connection, because the owner has ended."""
        with self._owning:
            if not self._run.is_owner and monotonic() >= self._next_attempt:
                if self._run.own([self._terms.connection]) is None:
                    self._run.take_back()
                elif self._run.is_owned_by_run(self._terms.connection):
                    self.refusal = in_use(self._run, self._terms.connection)
                self._next_attempt = monotonic() + _OWNER_PAUSE
            return self._run.is_owner

    # Where this process owns it.

    def store_error(self, error: StoreUnavailable | OwnershipLost) -> StoreUnavailable:
        """Return why the store cannot be written."""
        if isinstance(error, OwnershipLost):
            name = self._run.database.name
            error = StoreUnavailable(f"another process has taken over the connection in the store {name}")
        return error

    def _place(self, file: RunFile) -> tuple[RunFile, Task | None] | FileUpdate:
        """Make sure that the vendor has the file; return its task if this call saw it."""
        if file.phase is FilePhase.SUBMITTING:
            recovered = self._recover(file)
            if isinstance(recovered, FileUpdate):
                return recovered
            file, task = recovered
            if task is not None:
                return file, task
        if file.phase is not FilePhase.PLANNED:
            return file, None
        # One at a time until a submission is accepted, so that a refused key is tried once.
        with nullcontext() if self._account_works else self._first:
            submitted = self._submit(file)
        return self._settle(file, submitted) if isinstance(submitted, _FailedSubmission) else submitted

    def _submit(self, file: RunFile) -> tuple[RunFile, Task | None] | FileUpdate | _FailedSubmission:
        if self.refusal is not None:
            return FileUpdate(file, "skipped")
        if self._has_reached_cost():
            self.is_cost_reached = True
            return FileUpdate(file, "skipped")
        content = None if is_url(file.source) else fingerprint(Path(file.source))
        tokens: list[Mapping[str, Any]] = []

        def record(recovery_token: Mapping[str, Any]) -> None:
            self._check_stop()
            self._run.mark_submitting(file.number, recovery_token, content)
            tokens.append(recovery_token)

        with self._submitting():
            self.updates.put(FileUpdate(file, "submitting"))
            try:
                task = self._client.submit(
                    self._terms.operation,
                    file.source,
                    options=self._terms.options,
                    before_submit=record,
                    **self._terms.neutral,
                )
            except StoreUnavailable:
                raise
            except TaskbridgeError as error:
                if _refuses_account(error):
                    self.refusal = error
                return _FailedSubmission(error, content, recorded=bool(tokens))
            except OSError as error:
                if not tokens:
                    raise
                self._run.record_error(file.number, error_text(error))  # the file vanished during the submission
                return FileUpdate(_uncertain(file, tokens[-1], content), "uncertain", error=error)
            self._run.mark_accepted(file.number, task)
            self._misses, self._account_works = 0, True
            return replace(file, phase=FilePhase.ACCEPTED, ref=task.ref, submitted=content), task

    def _settle(self, file: RunFile, failed: _FailedSubmission) -> tuple[RunFile, Task | None] | FileUpdate:
        """Decide what happens after a submission that raised an error."""
        error = failed.error
        attempts = self._attempts[file.number] = self._attempts.get(file.number, 0) + 1
        if failed.is_uncertain:
            uncertain = _uncertain(file, error.recovery_token, failed.content)
            self._run.mark_submitting(file.number, error.recovery_token, failed.content)
            if not is_repeatable(error):
                return self._find_or_raise(uncertain, error)
            return self._place(uncertain) if attempts < _ATTEMPTS else FileUpdate(uncertain, "uncertain", error=error)
        if failed.recorded:
            self._run.mark_planned(file.number, error_text(error))
        if _refuses_account(error):
            return FileUpdate(file, "skipped", error=error)
        if error.retryable:
            self._misses += 1
            if self._misses >= (_MISSES if self._account_works else _FIRST_MISSES):
                self.refusal = self.refusal or error
                return FileUpdate(file, "skipped", error=error)
            if attempts < _ATTEMPTS:
                pause = max(error.retry_after or 0.0, _FIRST_PAUSE * 2.0 ** (attempts - 1))
                self.updates.put(FileUpdate(file, "retrying", error=error))
                raise _RetryLater(min(_LONGEST_PAUSE, pause))
        raise error

    def _find_or_raise(self, file: RunFile, refusal: TaskbridgeError) -> tuple[RunFile, Task | None] | FileUpdate:
        """Search for a submission that was refused, and that the vendor may have all the same."""
        recovered = self._recover(file)
        if isinstance(recovered, FileUpdate) or recovered[1] is not None:
            return recovered
        raise refusal

    def _recover(self, file: RunFile) -> tuple[RunFile, Task | None] | FileUpdate:
        """Search for an uncertain submission; return no task if the file may be submitted again."""
        assert file.recovery_token is not None  # noqa: S101  # written together with the phase
        lost = SubmitUncertain("the vendor may or may not have accepted it", recovery_token=file.recovery_token)
        self.updates.put(FileUpdate(file, "recovering"))
        pause, started = _RECOVERY_PAUSE, monotonic()
        while True:
            self._check_stop()
            failure: TaskbridgeError | None = None
            try:
                with self._submitting():
                    file, task = self._search(file, lost)
            except UnsupportedFeature as error:
                if self._limits.resubmit_uncertain:
                    break
                self._run.mark_uncertain(file.number, error_text(error))
                return FileUpdate(file, "uncertain", error=error)
            except TaskbridgeError as error:
                if _refuses_account(error):
                    self.refusal = error
                    return FileUpdate(file, "uncertain", error=error)
                if not _is_of_search(error):
                    raise
                task, failure = None, error
            if task is not None:
                self._run.mark_accepted(file.number, task)
                return replace(file, phase=FilePhase.ACCEPTED, ref=task.ref), task
            size = 0 if file.submitted is None else file.submitted.size
            left = self._limits.settle + sending_time(size) - max(age_of(lost.recovery_token), monotonic() - started)
            if left <= 0.0:
                if failure is not None:
                    self._run.mark_uncertain(file.number, error_text(failure))
                    return FileUpdate(file, "uncertain", error=failure)
                break
            self.stopping.wait(min(pause, left + 0.05))
            pause = min(10.0, pause * 2.0)
        self._check_stop()
        self._run.mark_planned(file.number, None)
        return replace(file, phase=FilePhase.PLANNED, recovery_token=None), None

    def _search(self, file: RunFile, lost: SubmitUncertain) -> tuple[RunFile, Task | None]:
        """Search for an uncertain submission once, and send its document if the vendor does not have that."""
        task = self._client.recover(lost)
        if task is None or not awaits_upload(task) or not is_readable(file.source):
            return file, task
        if not is_url(file.source):
            content = fingerprint(Path(file.source))  # it may have changed since the submission
            self._run.mark_uploading(file.number, task, content)
            file = replace(file, submitted=content)
        return file, self._client.recover(lost, file.source)

    def _has_reached_cost(self) -> bool:
        limit = self._limits.max_cost
        return limit is not None and any(amount >= limit for amount in total_usage([*self._usage.values()]).values())

    def _record(self, file: RunFile, task: Task) -> RunFile:
        """Store the end of the file's task, and what it cost so far, unless that is known."""
        known = 0.0 if file.usage is None else file.usage.amount
        is_new_cost = task.usage is not None and task.usage.amount != known
        if is_new_cost or task.is_terminal:
            self._run.mark_seen(file.number, task)
        if task.usage is None:
            return file
        self._usage[file.number] = task.usage
        return replace(file, usage=task.usage)

    def _wait(self, file: RunFile, task: Task | None) -> tuple[RunFile, Task]:
        """Wait for the end of the file's task."""
        ref = file.ref
        assert ref is not None  # noqa: S101  # the vendor has accepted it
        if task is not None and task.usage is not None:  # stored as the task was accepted
            self._usage[file.number] = task.usage
            file = replace(file, usage=task.usage)
        self.updates.put(FileUpdate(file, "waiting", task))
        watched = ref if task is None or task.resumable else task
        for outcome in self._client.watch([watched], timeout=self._limits.timeout):
            self._check_stop()
            if outcome.error is not None:
                raise outcome.error
            task = outcome.task
            if task is not None:
                file = self._record(file, task)
            self.updates.put(FileUpdate(file, "waiting", task))
        self._check_stop()
        assert task is not None  # noqa: S101  # the last outcome is an end
        return file, task

    def _download(self, file: RunFile, task: Task) -> FileUpdate:
        shown = monotonic()

        def on_progress(received: int, total: int | None) -> None:
            nonlocal shown
            self._check_stop()
            if total and monotonic() - shown > _PROGRESS_INTERVAL:
                shown = monotonic()
                self.updates.put(FileUpdate(file, "downloading", task, fraction=received / total))

        self.updates.put(FileUpdate(file, "downloading", task))
        files = self._client.download(
            task,
            self._run.folder / file.folder,
            max_bytes=self._limits.max_bytes,
            on_progress=on_progress,
            overwrite=True,
        )
        self._run.mark_downloaded(file.number)
        step = "changed" if has_changed(file.source, file.submitted) else "done"
        is_empty = not any(path.stat().st_size for path in files)
        return FileUpdate(replace(file, phase=FilePhase.DONE), step, task, files=files, is_empty=is_empty)

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
        store_error: Why the store could not be written, which ends the run.
    """

    def __init__(self, runner: FileRunner, size: int) -> None:
        self.updates = runner.updates
        self.store_error: StoreUnavailable | None = None
        self._runner = runner
        self._size = size
        self._changed = threading.Condition()
        self._queue: deque[RunFile] = deque()
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

    def start(self, files: Iterable[RunFile]) -> None:
        """Start work on these files; `updates` ends with None when all have come to their end in this run."""
        self._queue.extend(files)
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
        while (file := self._next()) is not None:
            try:
                update = self._runner.run(file)
            except _RetryLater as later:
                self._runner.stopping.wait(later.pause)
                with self._changed:
                    self._queue.append(file)
                    self._changed.notify()
                continue
            except _Stopped:
                update = FileUpdate(file, "skipped")
            except (StoreUnavailable, OwnershipLost) as error:
                self.store_error = self.store_error or self._runner.store_error(error)
                self._runner.stopping.set()
                self.updates.put(None)
                return
            except Exception as error:  # noqa: BLE001  # a bug that one file hits must not stop the others
                update = FileUpdate(file, "error", error=error)
            self.updates.put(update)
            with self._changed:
                self._unfinished -= 1
                if self._unfinished == 0:
                    self.updates.put(None)
                self._changed.notify_all()

    def _next(self) -> RunFile | None:
        with self._changed:
            while not self._queue:
                if self._unfinished == 0 or self._runner.stopping.is_set():
                    return None
                self._changed.wait()
            return self._queue.popleft()


def ended_before(file: RunFile) -> FileUpdate:
    """Return how a file ended in an earlier run; ``skipped`` if it still needs work."""
    if file.phase in (FilePhase.FAILED, FilePhase.FORGOTTEN):
        return FileUpdate(file, file.phase.value)
    if file.phase is FilePhase.DONE:
        return FileUpdate(file, "changed" if has_changed(file.source, file.submitted) else "done")
    return FileUpdate(file, "skipped")


def _refuses_account(error: TaskbridgeError) -> bool:
    """Whether nothing more can be submitted; in a group, another member may accept the next file later."""
    return isinstance(error, _ACCOUNT_ERRORS) and error.authorized and not error.retryable


def _is_of_search(error: TaskbridgeError) -> bool:
    """Whether the search for a submission failed; False if that found it, and its document cannot be sent or stored."""
    is_refused_upload = isinstance(error, ApiError) and not error.authorized and not error.retryable
    return not is_refused_upload and not isinstance(error, InvalidInput | StoreUnavailable)


def _uncertain(file: RunFile, recovery_token: Mapping[str, Any], content: Fingerprint | None) -> RunFile:
    return replace(file, phase=FilePhase.SUBMITTING, recovery_token=recovery_token, submitted=content)


def age_of(recovery_token: Mapping[str, Any]) -> float:
    """Return the seconds since a submission was sent; 0 if that is unknown, or the clock was set back."""
    sent = read_time(recovery_token.get("time"))
    return 0.0 if sent is None else max(0.0, (datetime.now(UTC) - sent).total_seconds())
