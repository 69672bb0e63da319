"""The way of one file: through submit, wait and download, with a ledger that is told first.

An order whose fate is not known, because the process was killed or the line broke, is looked for before anything is
sent again. A vendor may take a moment to list what it took: only when it has not shown up for `patience` seconds after
it was sent does the vendor count as not having it.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from taskbridge._engine.inputs import is_url
from taskbridge.cli.inputs import differs, print_of
from taskbridge.cli.ledger import Entry, LedgerError, Phase
from taskbridge.cli.texts import complaints, words_of_file
from taskbridge.errors import (
    AuthenticationError,
    PermissionDenied,
    QuotaExceeded,
    ServerError,
    SubmitUncertain,
    TaskbridgeError,
    TaskFailed,
    UnsupportedFeature,
)
from taskbridge.provider.payload import read_time

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from taskbridge.cli.ledger import Ledger, Print, Terms
    from taskbridge.client import Client
    from taskbridge.models import Task

__all__ = ["Again", "Carrier", "News", "Rules", "Stopped", "said"]

_TRIES: Final = 4  # orders of one file that did not arrive, before it is left for later
_IN_A_ROW: Final = 12  # orders that did not arrive, of any files, before no more are sent
_AT_FIRST: Final = 3  # the same, where none ever arrived
_FIRST_PAUSE: Final = 1.0  # seconds after an order that did not arrive; it doubles
_LONGEST_PAUSE: Final = 600.0  # seconds, where the vendor asks for it
_LOOKS: Final = 0.5  # seconds before an order is looked for again; it doubles up to ten
_PICTURE: Final = 0.25  # seconds between two words about a file that is fetched

# A refusal of these is about the account: the next file would get the same.
_OF_THE_ACCOUNT: Final = (AuthenticationError, PermissionDenied, QuotaExceeded)


@dataclass(frozen=True, slots=True)
class Rules:
    """How a run is done.

    Attributes:
        most: Files at the vendor at once.
        timeout: Seconds to wait for one task; None for no limit.
        patience: Seconds after which an order that the vendor does not show was not taken.
        resubmit: Whether an order of unknown fate that cannot be looked for is sent again.
    """

    most: int = 8
    timeout: float | None = 900.0
    patience: float = 60.0
    resubmit: bool = False


@dataclass(frozen=True, slots=True)
class News:
    """Something became known of a file.

    Attributes:
        entry: The file, as its ledger has it.
        step: ``sending``, ``looking``, ``waiting``, ``fetching``; or its end here: ``done``, ``changed`` (done, and the
            file is no longer what was sent), ``failed``, ``uncertain``, ``error``, ``left`` (nothing was done).
        task: Its task, as last seen.
        error: What went wrong.
        files: What was brought home.
        share: How much of it is here while it is fetched, where that is known.
    """

    entry: Entry
    step: str
    task: Task | None = None
    error: Exception | None = None
    files: tuple[Path, ...] = ()
    share: float | None = None

    @property
    def is_final(self) -> bool:
        """Whether nothing more comes of this file in this run."""
        return self.step in _FINAL


_FINAL: Final = frozenset({"done", "changed", "failed", "uncertain", "error", "left"})


class Stopped(Exception):
    """A way out, no error."""


class Again(Exception):
    """A way back into the queue, no error.

    Args:
        pause: Seconds until then.
    """

    def __init__(self, pause: float) -> None:
        super().__init__(pause)
        self.pause = pause


@dataclass(frozen=True, slots=True)
class _Unsent:
    """An order that ended in an error.

    Attributes:
        error: Which.
        seen: What the file was.
        committed: Whether the ledger holds it as being sent.
    """

    error: TaskbridgeError
    seen: Print | None
    committed: bool

    @property
    def is_doubtful(self) -> bool:
        """Whether the vendor may have it; a server that failed may have failed after it took the order."""
        error = self.error
        return isinstance(error, SubmitUncertain) or (
            self.committed and ("task" in error.recovery_token or isinstance(error, ServerError))
        )


class Carrier:
    """Carries files, for as many threads as want to.

    Args:
        client: The connection.
        ledger: What became of each file.
        terms: What is done to each file.
        home: The folder under which each file's results get a folder of their own.
        rules: How.

    Attributes:
        news: What became known; None after the last.
        refusal: Why no more orders are given.
        stopping: Set when nothing more is to be begun.
    """

    def __init__(self, client: Client, ledger: Ledger, terms: Terms, home: Path, rules: Rules) -> None:
        self.news: SimpleQueue[News | None] = SimpleQueue()
        self.refusal: TaskbridgeError | None = None
        self.stopping = threading.Event()
        self._client = client
        self._ledger = ledger
        self._terms = terms
        self._home = home
        self._rules = rules
        self._sent_all = threading.Condition()
        self._sends = 0
        self._first = threading.Lock()
        self._trusted = False  # whether an order was taken
        self._misses = 0  # in a row
        self._tries: dict[int, int] = {}

    def stop(self) -> None:
        """Send nothing more, and wait for what is being sent."""
        with self._sent_all:
            self.stopping.set()
            while self._sends:
                self._sent_all.wait()
        self._client.close()

    def carry(self, entry: Entry) -> News:
        """Bring one file to its end.

        Raises:
            Stopped: It was left where it is.
            Again: Its order did not arrive, and may be given once more later.
            LedgerError: The ledger cannot be written.
        """
        try:
            placed = self._placed(entry)
            if isinstance(placed, News):
                return placed
            entry, task = placed
            return self._fetched(*self._ended(entry, task))
        except TaskFailed as failure:
            self._ledger.ended(entry.number, Phase.FAILED, str(failure))
            return News(replace(entry, phase=Phase.FAILED), "failed", failure.task, failure)
        except (TaskbridgeError, OSError) as error:
            if isinstance(error, LedgerError):
                raise
            if self.stopping.is_set():
                raise Stopped from None  # the closed client, or a broken line that nobody waits for
            if isinstance(error, AuthenticationError):
                self.refusal = self.refusal or error
            self._ledger.noted(entry.number, said(error))
            return News(entry, "error", error=error)

    def _placed(self, entry: Entry) -> tuple[Entry, Task | None] | News:
        """See to it that the vendor has the file; its task where it was just seen."""
        if entry.phase is Phase.SENDING:
            found = self._sought(entry)
            if isinstance(found, News):
                return found
            entry, task = found
            if task is not None:
                return entry, task
        if entry.phase is Phase.PLANNED:
            return self._sent(entry)
        return entry, None

    def _sent(self, entry: Entry) -> tuple[Entry, Task | None] | News:
        """Give the order; until one was taken, one after the other, so that a refused key is tried once."""
        with nullcontext() if self._trusted else self._first:
            given = self._given(entry)
        return self._unsent(entry, given) if isinstance(given, _Unsent) else given

    def _given(self, entry: Entry) -> tuple[Entry, Task | None] | News | _Unsent:
        if self.refusal is not None:
            return News(entry, "left")
        seen = print_of(entry.source)
        clues: list[Mapping[str, Any]] = []

        def keep(recovery_token: Mapping[str, Any]) -> None:
            self._leave_if_stopped()
            self._ledger.sending(entry.number, recovery_token, seen)
            clues.append(recovery_token)

        with self._sending():
            self.news.put(News(entry, "sending"))
            try:
                task = self._client.submit(
                    self._terms.operation, entry.source, options=self._terms.options, before_submit=keep
                )
            except TaskbridgeError as error:
                if isinstance(error, _OF_THE_ACCOUNT):
                    self.refusal = error
                return _Unsent(error, seen, committed=bool(clues))
            except OSError as error:
                if not clues:
                    raise
                self._ledger.noted(entry.number, said(error))  # the file went away after its order
                return News(_known(entry, clues[-1], seen), "uncertain", error=error)
            self._ledger.taken(entry.number, task.ref)
            self._misses, self._trusted = 0, True
            return replace(entry, phase=Phase.TAKEN, ref=task.ref, seen=seen), task

    def _unsent(self, entry: Entry, unsent: _Unsent) -> tuple[Entry, Task | None] | News:
        """What comes of an order that was not taken, as far as is known."""
        error = unsent.error
        tries = self._tries[entry.number] = self._tries.get(entry.number, 0) + 1
        if unsent.is_doubtful:
            doubtful = _known(entry, error.recovery_token, unsent.seen)
            self._ledger.sending(entry.number, error.recovery_token, unsent.seen)
            return self._placed(doubtful) if tries < _TRIES else News(doubtful, "uncertain", error=error)
        if unsent.committed:
            self._ledger.planned(entry.number, said(error))
        if isinstance(error, _OF_THE_ACCOUNT):
            return News(entry, "left", error=error)
        if error.retryable:
            self._misses += 1
            if self._misses >= (_IN_A_ROW if self._trusted else _AT_FIRST):
                self.refusal = self.refusal or error
                return News(entry, "left", error=error)
            if tries < _TRIES:
                raise Again(min(_LONGEST_PAUSE, max(error.retry_after or 0.0, _FIRST_PAUSE * 2.0 ** (tries - 1))))
        raise error

    def _sought(self, entry: Entry) -> tuple[Entry, Task | None] | News:
        """Look for an order of unknown fate; without a task where it may be given again."""
        assert entry.recovery_token is not None  # noqa: S101  # written with the phase
        uncertainty = SubmitUncertain("nobody knows whether the vendor took it", recovery_token=entry.recovery_token)
        given = entry.source if _is_there(entry.source) else None
        self.news.put(News(entry, "looking"))
        pause, begun = _LOOKS, monotonic()
        while True:
            self._leave_if_stopped()
            unfound: TaskbridgeError | None = None
            try:
                with self._sending():
                    task = self._client.recover(uncertainty, given)
            except UnsupportedFeature as error:
                if self._rules.resubmit:
                    break
                return News(entry, "uncertain", error=error)
            except _OF_THE_ACCOUNT as error:
                self.refusal = error
                return News(entry, "uncertain", error=error)
            except TaskbridgeError as error:
                task, unfound = None, error
            if task is not None:
                self._ledger.taken(entry.number, task.ref)
                return replace(entry, phase=Phase.TAKEN, ref=task.ref), task
            left = self._rules.patience - max(_age(entry.recovery_token), monotonic() - begun)
            if left <= 0.0:
                if unfound is not None:
                    return News(entry, "uncertain", error=unfound)
                break
            self.stopping.wait(min(pause, left + 0.05))
            pause = min(10.0, pause * 2.0)
        self._leave_if_stopped()
        self._ledger.planned(entry.number, None)
        return replace(entry, phase=Phase.PLANNED, recovery_token=None), None

    def _ended(self, entry: Entry, task: Task | None) -> tuple[Entry, Task]:
        """Wait for the end of its task."""
        assert entry.ref is not None  # noqa: S101  # the vendor has it
        self.news.put(News(entry, "waiting", task))
        for outcome in self._client.watch([entry.ref], self._rules.timeout):
            self._leave_if_stopped()
            if outcome.error is not None:
                raise outcome.error
            task = outcome.task
            self.news.put(News(entry, "waiting", task))
        self._leave_if_stopped()
        assert task is not None  # noqa: S101  # the last outcome is an end
        return entry, task

    def _fetched(self, entry: Entry, task: Task) -> News:
        """Bring its results home."""
        told = monotonic()

        def tell(done: int, whole: int | None) -> None:
            nonlocal told
            self._leave_if_stopped()
            if whole and monotonic() - told > _PICTURE:
                told = monotonic()
                self.news.put(News(entry, "fetching", task, share=done / whole))

        self.news.put(News(entry, "fetching", task))
        files = self._client.download(task, self._home / entry.folder, on_progress=tell, overwrite=True)
        self._ledger.ended(entry.number, Phase.DONE)
        step = "changed" if differs(entry.source, entry.seen) else "done"
        return News(replace(entry, phase=Phase.DONE), step, task, files=files)

    # Stopping.

    def _leave_if_stopped(self) -> None:
        if self.stopping.is_set():
            raise Stopped

    @contextmanager
    def _sending(self) -> Generator[None]:
        """What is in here is finished before a stop."""
        with self._sent_all:
            self._leave_if_stopped()
            self._sends += 1
        try:
            yield
        finally:
            with self._sent_all:
                self._sends -= 1
                self._sent_all.notify_all()


def said(error: Exception) -> str:
    """An error in words; of a file, without its number."""
    if isinstance(error, OSError) and not isinstance(error, TaskbridgeError):
        return words_of_file(error)
    words = str(error) if isinstance(error, TaskbridgeError) else f"{type(error).__name__}: {error}"
    return f"{words} {complaints(error)}".strip()


def _is_there(source: str) -> bool:
    """Whether a document is a file that can be read."""
    return not is_url(source) and os.access(source, os.R_OK) and Path(source).is_file()


def _known(entry: Entry, recovery_token: Mapping[str, Any], seen: Print | None) -> Entry:
    return replace(entry, phase=Phase.SENDING, recovery_token=recovery_token, seen=seen)


def _age(recovery_token: Mapping[str, Any]) -> float:
    """Seconds since an order left; 0 where the clock was set back."""
    sent = read_time(recovery_token.get("time"))
    return 0.0 if sent is None else max(0.0, (datetime.now(UTC) - sent).total_seconds())
