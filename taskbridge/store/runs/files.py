"""What is known of a run: what its files have in common, how far each is, and what changes.

    planned ──► submitting ──► accepted ──► done
                   │              └───────► failed
                   ├──► planned, if the vendor certainly does not have it
                   └──► forgotten, if a person says so while it is uncertain

The tables have more words for it, which other callers of a store use: see `StoredRun`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from taskbridge.errors import TaskbridgeError
from taskbridge.models import Task, Usage, UsageUnit
from taskbridge.store.intents import Fingerprint

_FINAL: Final = frozenset({"done", "changed", "failed", "forgotten", "uncertain", "error", "skipped"})


class FilePhase(StrEnum):
    """How far a file is."""

    PLANNED = "planned"
    """The vendor does not have it."""
    SUBMITTING = "submitting"
    """The vendor may have it."""
    ACCEPTED = "accepted"
    """The vendor has it."""
    DONE = "done"
    """Its results are downloaded."""
    FAILED = "failed"
    """Its task failed."""
    FORGOTTEN = "forgotten"
    """Its submission was uncertain, and `Store.forget` ended it: nothing more happens with it."""


@dataclass(frozen=True, slots=True)
class RunTerms:
    """What all files of a run have in common.

    Attributes:
        connection: Name of the connection or group.
        provider: Entry-point name of its provider; of a group, those of its members.
        operation: The operation.
        options: The vendor's own options.
        neutral: Neutral options.
    """

    connection: str
    provider: str
    operation: str
    options: Mapping[str, Any]
    neutral: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class RunFile:
    """One file of a run.

    Attributes:
        number: Its position, from 1.
        source: An absolute path, or a URL.
        folder: Name of the folder for its results.
        phase: How far it is.
        submitted: Fingerprint of the file when it was submitted; None for a URL, and before.
        recovery_token: Finds its submission again.
        ref: Its task, once it has one.
        error: The last error.
        usage: What its task cost so far, as far as the vendor says.
    """

    number: int
    source: str
    folder: str
    phase: FilePhase = FilePhase.PLANNED
    submitted: Fingerprint | None = None
    recovery_token: Mapping[str, Any] | None = None
    ref: str | None = None
    error: str | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class FileUpdate:
    """A change in the state of a file.

    Attributes:
        file: The file, as the store has it.
        step: ``submitting``, ``retrying`` (a submission that did not arrive), ``recovering``, ``waiting``,
            ``downloading``; or the end in this run: ``done``,
            ``changed`` (done, but the file has changed since it was submitted), ``failed``, ``forgotten`` (its
            submission was uncertain, and `Store.forget` ended it), ``uncertain``, ``error``, ``skipped`` (nothing was
            done).
        task: The last snapshot of its task.
        error: What went wrong.
        files: The downloaded files.
        fraction: How much is downloaded, from 0 to 1, if known.
        is_empty: Whether the task completed without any result: no file, or only empty ones.
    """

    file: RunFile
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


@dataclass(frozen=True, slots=True)
class RunSummary:
    """How far the files of a run are, at the end of `Store.run`.

    Attributes:
        files: The last update of each file, in order, also of those that were done before.
        usage: What the files cost so far, also before, by unit; of vendors that say so.
        refusal: Why nothing more was submitted: the vendor refused the account, or could not be reached.
        is_cost_reached: Whether files were not submitted because of `max_cost`.
    """

    files: tuple[FileUpdate, ...]
    usage: Mapping[UsageUnit, float]
    refusal: TaskbridgeError | None
    is_cost_reached: bool

    @property
    def counts(self) -> Mapping[str, int]:
        """How many files ended at which step; see `FileUpdate`."""
        return Counter(update.step for update in self.files)

    @property
    def is_complete(self) -> bool:
        """Whether the results of every file are in their folder, and no file has changed since."""
        return all(update.step == "done" for update in self.files)
