"""The state of a run's files, and how it is printed."""

from __future__ import annotations

from collections import Counter
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from taskbridge._engine.inputs import is_url
from taskbridge.cli.formatting import detail_text
from taskbridge.cli.records import error_record, task_record
from taskbridge.cli.resume import stop_record
from taskbridge.cli.run.ledger import LedgerEntry, Phase, has_changed
from taskbridge.cli.run.worker import FileUpdate, error_text
from taskbridge.errors import TaskbridgeError, printable
from taskbridge.events import Observation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from taskbridge.cli.output import Output
    from taskbridge.events import Event

_MOST: Final = 500  # characters of an error on one line
_ENDED: Final = frozenset({Phase.DONE, Phase.FAILED})

# Step -> how the end of a file is printed.
_VERDICTS: Final[Mapping[str, str]] = {
    "done": "done",
    "failed": "failed",
    "error": "not done",
    "uncertain": "uncertain",
    "changed": "changed",
}


class RunProgress:
    """The state of the files of a run.

    Attributes:
        entries: All files, by number.
        latest: The last update of each file, by number.
        due: Monotonic second of the next poll, by ref.
        steps: How many files are at which step.
    """

    def __init__(self, entries: Iterable[LedgerEntry]) -> None:
        self.entries = {each.number: each for each in entries}
        self.latest: dict[int, FileUpdate] = {}
        self.due: dict[str, float] = {}
        self._times: dict[int, tuple[float, float | None]] = {}  # monotonic seconds of the first and the final update
        self.steps = Counter(self._initial_step(each) for each in self.entries.values())

    @staticmethod
    def _initial_step(entry: LedgerEntry) -> str:
        return "done" if entry.phase is Phase.DONE else "queued"

    def known_updates(self) -> Iterator[FileUpdate]:
        """Yield what an earlier run already found: files that failed, and files that changed after their submission."""
        for each in list(self.entries.values()):
            if each.phase is Phase.FAILED:
                yield FileUpdate(each, "failed")
            elif each.phase is Phase.DONE and has_changed(each.source, each.submitted):
                yield FileUpdate(each, "changed")

    def unfinished(self) -> list[LedgerEntry]:
        """Return the files that still need work."""
        return [each for each in self.entries.values() if each.phase not in _ENDED]

    def update(self, update: FileUpdate) -> None:
        """Record an update."""
        number = update.entry.number
        before = self.latest.get(number)
        self.steps[before.step if before is not None else self._initial_step(self.entries[number])] -= 1
        self.steps[update.step] += 1
        self.entries[number], self.latest[number] = update.entry, update
        began, _ = self._times.get(number, (monotonic(), None))
        self._times[number] = (began, monotonic() if update.is_final else None)

    def observe(self, event: Event) -> None:
        """Record when a task is polled next."""
        if isinstance(event, Observation) and event.next_poll_in is not None:
            self.due[event.ref] = monotonic() + event.next_poll_in

    def age(self, number: int) -> float:
        """Return the seconds that a file has taken in this run, until its end."""
        began, ended = self._times[number]
        return (monotonic() if ended is None else ended) - began

    @property
    def is_complete(self) -> bool:
        """Whether every file is done."""
        return self.steps["done"] == len(self.entries)

    @property
    def is_resumable(self) -> bool:
        """Whether another run can finish more files."""
        return bool(self.unfinished())

    def summary(self) -> str:
        """Return how many files are where: ``2 of 5 done, 1 failed, 2 in progress``."""
        steps = self.steps
        counts = {
            "failed": steps["failed"],
            "not done": steps["error"],
            "uncertain": steps["uncertain"],
            "changed": steps["changed"],
            "in progress": sum(steps[step] for step in ("submitting", "recovering", "waiting", "downloading")),
            "not started": steps["queued"] + steps["skipped"],
        }
        parts = [f"{count} {name}" for name, count in counts.items() if count]
        return ", ".join([f"{steps['done']} of {len(self.entries)} done", *parts])


def show_line(output: Output, width: int, update: FileUpdate) -> None:
    """Write a line, or one JSON object, for a file that has come to its end in this run."""
    if update.step not in _VERDICTS:
        return
    if output.as_json:
        output.record(_record(update))
    else:
        name = printable(update.entry.folder, 200).ljust(width)
        output.line(f"{name}  {_VERDICTS[update.step]:<9}  {end_text(update)}")


def end_text(update: FileUpdate) -> str:
    """Return the result of a file, or what went wrong, on one line."""
    if update.step == "done":
        return printable(str(update.files[0]) if len(update.files) == 1 else f"{len(update.files)} files", _MOST)
    if update.step == "failed" and update.task is not None:
        return f"{update.task.ref}: {detail_text(update.task)}"
    if update.step == "changed":
        return "after it was submitted; the result is of the earlier content; use another ledger to redo it"
    return printable(error_text(update.error) if update.error is not None else update.entry.error or "", _MOST)


def _record(update: FileUpdate) -> dict[str, Any]:
    entry, error = update.entry, update.error
    source = entry.source.partition("?")[0] if is_url(entry.source) else entry.source
    return {
        "file": source,
        "folder": entry.folder,
        "state": update.step,
        "ref": entry.ref,
        "task": task_record(update.task),
        "files": [str(path) for path in update.files],
        "error": None
        if error is None
        else error_record(error)
        if isinstance(error, TaskbridgeError)
        else {"type": type(error).__name__, "message": printable(str(error))},
    }


def show_stop(output: Output, word: str, entries: Sequence[LedgerEntry], resume: str) -> None:
    """Write where a run stopped, and the command that resumes it."""
    if output.as_json:
        output.record(
            stop_record(word, [each.ref for each in entries if each.phase is Phase.ACCEPTED and each.ref], resume)
        )
        return
    phases = Counter(each.phase for each in entries)
    counts = {
        "at the vendor": phases[Phase.ACCEPTED],
        "uncertain": phases[Phase.SUBMITTING],
        "failed": phases[Phase.FAILED],
        "not submitted": phases[Phase.PLANNED],
    }
    parts = [f"{count} {name}" for name, count in counts.items() if count]
    output.note(f"taskbridge: {word}; {', '.join([f'{phases[Phase.DONE]} of {len(entries)} done', *parts])}")
    output.note(f"resume with: {resume}")
