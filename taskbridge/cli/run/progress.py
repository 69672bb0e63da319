"""The state of a run's files, and how it is printed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from taskbridge._engine.error_text import error_text
from taskbridge._engine.inputs import is_url
from taskbridge.cli.exit_codes import UNREACHABLE, code_of
from taskbridge.cli.formatting import EMPTY, detail_text, native_text
from taskbridge.cli.records import error_record, task_record
from taskbridge.cli.resume import stop_record
from taskbridge.errors import TaskbridgeError, WaitTimeout, printable
from taskbridge.events import Observation
from taskbridge.models import UsageUnit, total_usage, usage_text
from taskbridge.store.runs.files import FilePhase, FileUpdate, RunFile
from taskbridge.store.runs.worker import age_of, ended_before

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from taskbridge.cli.output import Output
    from taskbridge.events import Event

_MOST: Final = 500  # characters of an error on one line
_MOST_WORDS: Final = 5  # different status words on one line
_ENDED: Final = frozenset({FilePhase.DONE, FilePhase.FAILED, FilePhase.FORGOTTEN})
_PLACES: Final = (
    *("at the vendor", "submitting", "uncertain", "forgotten", "failed", "not done", "changed", "not submitted"),
)

# Step -> how the end of a file is printed.
_VERDICTS: Final[Mapping[str, str]] = {
    "done": "done",
    "failed": "failed",
    "forgotten": "forgotten",
    "error": "not done",
    "uncertain": "uncertain",
    "changed": "changed",
}


_EXPLANATIONS: Final[Mapping[str, str]] = {
    "changed": "after it was submitted; the result is of the earlier content; use another folder to redo it",
    "forgotten": "its uncertain submission was given up; use another folder to submit it again",
}


@dataclass(frozen=True, slots=True)
class ResumeCommand:
    """The command that resumes a run.

    Attributes:
        line: The command, quoted for a shell, without secrets.
        note: What it lacks; None if it lacks nothing.
    """

    line: str
    note: str | None = None


class RunProgress:
    """The state of the files of a run.

    Attributes:
        files: All files, by number.
        latest: The last update of each file, by number.
        due: Monotonic second of the next poll, by ref.
        poll_errors: Why the last poll failed, by ref; removed by the next one that succeeds.
        steps: How many files are at which step.
        places: How many files are where, as `summary` counts them.
    """

    def __init__(self, files: Iterable[RunFile]) -> None:
        self.files = {each.number: each for each in files}
        self.latest: dict[int, FileUpdate] = {}
        self.due: dict[str, float] = {}
        self.poll_errors: dict[str, TaskbridgeError] = {}
        self._began = monotonic()
        self._earlier = max((_age(each) for each in self.files.values()), default=0.0)  # seconds in earlier runs
        self._finished = 0  # files that came to their end in this run
        self._times: dict[int, tuple[float, float | None]] = {}  # monotonic seconds of the first and the final update
        self.steps = Counter(self._initial_step(each) for each in self.files.values())
        self.places = Counter(_place(each, "") for each in self.files.values())

    @staticmethod
    def _initial_step(file: RunFile) -> str:
        return "done" if file.phase is FilePhase.DONE else "queued"

    def known_updates(self) -> Iterator[FileUpdate]:
        """Yield what an earlier run already found: files that failed, were forgotten, or have changed since."""
        for each in list(self.files.values()):
            if each.phase in _ENDED and (update := ended_before(each)).step != "done":
                yield update

    def unfinished(self) -> list[RunFile]:
        """Return the files that still need work."""
        return [each for each in self.files.values() if each.phase not in _ENDED]

    def update(self, update: FileUpdate) -> None:
        """Record an update."""
        number = update.file.number
        before, known = self.latest.get(number), self.files[number]
        self.steps[before.step if before is not None else self._initial_step(known)] -= 1
        self.steps[update.step] += 1
        self.places[_place(known, before.step if before is not None else "")] -= 1
        self.places[_place(update.file, update.step)] += 1
        self.files[number], self.latest[number] = update.file, update
        began, _ = self._times.get(number, (monotonic() - (0.0 if update.is_final else _age(known)), None))
        self._times[number] = (began, monotonic() if update.is_final else None)
        self._finished += update.is_final and before is not None

    def stop(self, files: Iterable[RunFile]) -> None:
        """Take over what the store says of the files, now that the run has stopped."""
        self.files = {each.number: each for each in files}
        ends = {number: update.step if update.is_final else "" for number, update in self.latest.items()}
        self.places = Counter(_place(each, ends.get(number, "")) for number, each in self.files.items())

    def observe(self, event: Event) -> None:
        """Record how a poll went, and when the next one is due."""
        if not isinstance(event, Observation):
            return
        if event.error is None:
            self.poll_errors.pop(event.ref, None)
        else:
            self.poll_errors[event.ref] = event.error
        if event.next_poll_in is not None:
            self.due[event.ref] = monotonic() + event.next_poll_in

    def age(self, number: int) -> float:
        """Return the seconds that a file has taken since it was submitted, until its end."""
        began, ended = self._times[number]
        return (monotonic() if ended is None else ended) - began

    @property
    def elapsed(self) -> float:
        """Seconds since the first submission, also by an earlier process."""
        return self._earlier + monotonic() - self._began

    @property
    def time_left(self) -> float | None:
        """Estimated seconds until all files have come to their end; None before the first one in this run."""
        running = sum(self.places[place] for place in ("at the vendor", "submitting", "not submitted"))
        return (monotonic() - self._began) * running / self._finished if self._finished and running else None

    @property
    def unreachable(self) -> frozenset[str]:
        """The connections whose outage ended a wait."""
        errors = [update.error for update in self.latest.values()]
        late = [error for error in errors if isinstance(error, WaitTimeout) and code_of(error) == UNREACHABLE]
        return frozenset(error.connection or "" for error in late)

    def waiting_for(self) -> str:
        """Return what the vendor says of the tasks that are waited for: ``3 InReview, 1 no status yet``."""
        waiting = [update for update in self.latest.values() if update.step == "waiting"]
        words = Counter("no status yet" if each.task is None else native_text(each.task) for each in waiting)
        return ", ".join(f"{count} {word}" for word, count in words.most_common(_MOST_WORDS))

    @property
    def is_complete(self) -> bool:
        """Whether every file is done."""
        return self.steps["done"] == len(self.files)

    @property
    def is_resumable(self) -> bool:
        """Whether another run can finish more files."""
        return bool(self.unfinished())

    @property
    def usage(self) -> Mapping[UsageUnit, float]:
        """What the files cost so far, in this run and in earlier ones, by unit."""
        return total_usage(each.usage for each in self.files.values())

    def summary(self) -> str:
        """Return how many files are where, and what they cost: ``2 of 5 done, 3 at the vendor, 2 credits``."""
        parts = [f"{self.places[place]} {place}" for place in _PLACES if self.places[place]]
        empty = sum(update.is_empty for update in list(self.latest.values()))
        parts += [f"{empty} without any result"] if empty else []
        cost = [usage_text(self.usage)] if self.usage else []
        return ", ".join([f"{self.places['done']} of {len(self.files)} done", *parts, *cost])


def _place(file: RunFile, step: str) -> str:
    """Return where a file is, by the store and its last step; the step is empty before the first one."""
    if file.phase is FilePhase.DONE:
        return "changed" if step == "changed" else "done"
    if file.phase in (FilePhase.FAILED, FilePhase.FORGOTTEN):
        return file.phase.value
    if step == "error":
        return "not done"
    if file.phase is FilePhase.ACCEPTED:
        return "at the vendor"
    if step in ("submitting", "recovering"):
        return "submitting"
    return "uncertain" if file.phase is FilePhase.SUBMITTING or step == "uncertain" else "not submitted"


def _age(file: RunFile) -> float:
    """Return the seconds since a file was submitted; 0 if it was not."""
    return 0.0 if file.recovery_token is None else age_of(file.recovery_token)


def show_line(output: Output, width: int, update: FileUpdate) -> None:
    """Write a line, or one JSON object, for a file that has come to its end in this run."""
    if update.step not in _VERDICTS:
        return
    if output.as_json:
        output.record(_record(update))
    else:
        name = printable(update.file.folder, 200).ljust(width)
        output.line(f"{name}  {_VERDICTS[update.step]:<9}  {end_text(update)}")


def end_text(update: FileUpdate) -> str:
    """Return the result of a file, or what went wrong, on one line."""
    if update.step == "done" and update.is_empty:
        return f"warning: {EMPTY}"
    if update.step == "done":
        return printable(str(update.files[0]) if len(update.files) == 1 else f"{len(update.files)} files", _MOST)
    if update.step == "failed" and update.task is not None:
        return f"{update.task.ref}: {detail_text(update.task)}"
    if update.step in _EXPLANATIONS:
        return _EXPLANATIONS[update.step]
    if isinstance(update.error, WaitTimeout) and update.error.state:
        return printable(f"{update.error.ref}: timed out: {update.error.state}", _MOST)
    return printable(error_text(update.error) if update.error is not None else update.file.error or "", _MOST)


def _record(update: FileUpdate) -> dict[str, Any]:
    file, error = update.file, update.error
    source = file.source.partition("?")[0] if is_url(file.source) else file.source
    return {
        "file": source,
        "folder": file.folder,
        "state": update.step,
        "ref": file.ref,
        "task": task_record(update.task),
        "files": [str(path) for path in update.files],
        "warning": EMPTY if update.is_empty else None,
        "error": None
        if error is None
        else error_record(error)
        if isinstance(error, TaskbridgeError)
        else {"type": type(error).__name__, "message": printable(str(error))},
    }


def show_stop(output: Output, word: str, progress: RunProgress, resume: ResumeCommand, *, in_table: bool) -> None:
    """Write where a run stopped, unless its table says so, and the command that resumes it."""
    if output.as_json:
        at_vendor = [each.ref for each in progress.files.values() if each.phase is FilePhase.ACCEPTED and each.ref]
        output.record({**stop_record(word, at_vendor, resume.line), "resume_note": resume.note})
        return
    output.note(f"taskbridge: {word}" if in_table else f"taskbridge: {word}; {progress.summary()}")
    note_resume(output, resume)


def note_resume(output: Output, resume: ResumeCommand) -> None:
    """Write the command that resumes a run."""
    output.note(f"resume with: {resume.line}")
    if resume.note is not None:
        output.note(resume.note)
