"""``run``: many files through submit, wait and download, with a ledger that a later run goes on from."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol, Self

from taskbridge._config.registry import require_extra
from taskbridge.cli.batch import Batch
from taskbridge.cli.carrier import Carrier, News, said
from taskbridge.cli.codes import BROKEN, DONE, PARTIAL, code_of
from taskbridge.cli.inputs import differs
from taskbridge.cli.ledger import Entry, Ledger, Phase
from taskbridge.cli.plan import Many, opened
from taskbridge.cli.records import file_record, stop_record
from taskbridge.cli.refs import listen
from taskbridge.cli.screen import is_live
from taskbridge.cli.texts import words_of
from taskbridge.errors import printable
from taskbridge.events import Observation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from taskbridge.cli.screen import Screen
    from taskbridge.events import Event

__all__ = ["Progress", "end_of", "run_many"]

_WORDS: Final = 500  # characters of an error on one line

_OVER: Final = frozenset({Phase.DONE, Phase.FAILED})  # nothing more is to be done

# How the end of a file is told.
_VERDICTS: Final[Mapping[str, str]] = {
    "done": "done",
    "failed": "failed",
    "error": "not done",
    "uncertain": "uncertain",
    "changed": "changed",
}


class Progress:
    """What is known of the files of a run.

    Args:
        entries: All of them.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries = {each.number: each for each in entries}
        self.latest: dict[int, News] = {}
        self.due: dict[str, float] = {}  # ref of a task -> monotonic seconds of the next look
        self._times: dict[int, tuple[float, float | None]] = {}  # monotonic seconds of the first and of the final news
        self.steps = Counter("done" if each.phase is Phase.DONE else "waits" for each in self.entries.values())

    def take(self, news: News) -> None:
        """Learn of something."""
        number = news.entry.number
        before = self.latest.get(number)
        was_done = self.entries[number].phase is Phase.DONE
        self.steps[before.step if before is not None else "done" if was_done else "waits"] -= 1
        self.steps[news.step] += 1
        self.entries[number], self.latest[number] = news.entry, news
        began, _ = self._times.get(number, (monotonic(), None))
        self._times[number] = (began, monotonic() if news.is_final else None)

    def observe(self, event: Event) -> None:
        """Learn when a task is looked at next."""
        if isinstance(event, Observation) and event.next_poll_in is not None:
            self.due[event.ref] = monotonic() + event.next_poll_in

    def age(self, number: int) -> float:
        """Seconds that a file has taken in this run, until its end."""
        began, ended = self._times[number]
        return (monotonic() if ended is None else ended) - began

    @property
    def is_whole(self) -> bool:
        """Whether every file is done."""
        return self.steps["done"] == len(self.entries)

    @property
    def may_go_on(self) -> bool:
        """Whether another run may bring more."""
        return any(each.phase not in _OVER for each in self.entries.values())

    def summary(self) -> str:
        """How many files have come how far."""
        steps = self.steps
        going = sum(steps[step] for step in ("sending", "looking", "waiting", "fetching"))
        counts = {
            "failed": steps["failed"],
            "not done": steps["error"],
            "uncertain": steps["uncertain"],
            "changed": steps["changed"],
            "under way": going,
            "not begun": steps["waits"] + steps["left"],
        }
        told = [f"{count} {name}" for name, count in counts.items() if count]
        return ", ".join([f"{steps['done']} of {len(self.entries)} done", *told])


class View(Protocol):
    """How a run is shown while it goes on."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, news: News) -> None:
        """Show what became known."""
        ...


class _Lines:
    """One line for each file that has come to an end here."""

    def __init__(self, screen: Screen, progress: Progress) -> None:
        self._screen = screen
        self._width = min(60, max((len(each.folder) for each in progress.entries.values()), default=0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def show(self, news: News) -> None:
        """Write it."""
        if news.step not in _VERDICTS:
            return
        if self._screen.as_json:
            self._screen.record(file_record(news))
        else:
            self._screen.line(f"{printable(news.entry.folder, 200).ljust(self._width)}  {end_of(news)}")


def end_of(news: News) -> str:
    """What became of a file, in a line."""
    verdict = f"{_VERDICTS[news.step]:<9}"
    if news.step == "done":
        where = str(news.files[0]) if len(news.files) == 1 else f"{len(news.files)} files"
        return f"{verdict}  {printable(where, _WORDS)}"
    if news.step == "failed" and news.task is not None:
        return f"{verdict}  {news.task.ref}: {words_of(news.task)}"
    if news.step == "changed":
        return f"{verdict}  since it was sent, and the result is of what it was; another ledger does it anew"
    words = said(news.error) if news.error is not None else news.entry.fault or ""
    return f"{verdict}  {printable(words, _WORDS)}"


def _view(screen: Screen, progress: Progress) -> View:
    if screen.as_json or not is_live():
        return _Lines(screen, progress)
    try:
        from taskbridge.cli.live_run import LiveRun  # noqa: PLC0415  # rich, for terminals only
    except ModuleNotFoundError as error:
        raise require_extra(error.name or "rich", "cli", "the table of a run") from None
    return LiveRun(screen, progress)


def run_many(screen: Screen, asked: Many) -> int:
    """Carry all files as far as they come; the exit code."""
    ledger: Ledger | None = None

    def tell(word: str) -> None:
        if ledger is None:
            screen.stopped(word)
        else:
            _tell_stop(screen, word, ledger.entries(), asked.resume_command())

    listen(screen)
    with ExitStack() as stack, screen.signals.told(tell):
        ledger, client, terms = opened(asked)
        stack.enter_context(ledger)
        batch = Batch(Carrier(client, ledger, terms, asked.home, asked.rules), asked.rules.most)
        progress = Progress(ledger.entries())
        with client.observe(progress.observe), _view(screen, progress) as view:
            try:
                with screen.signals.raising():
                    for told in _known(ledger.entries()):
                        progress.take(told)
                        view.show(told)
                    batch.start(each for each in progress.entries.values() if each.phase not in _OVER)
                    while (news := batch.news.get()) is not None:
                        progress.take(news)
                        view.show(news)
            finally:
                batch.stop()
                for last in batch.rest():
                    progress.take(last)
    return _end(screen, asked, batch, progress)


def _known(entries: Iterable[Entry]) -> Iterable[News]:
    """What an earlier run has to say once more: what failed, and what is no longer what was sent."""
    for each in entries:
        if each.phase is Phase.FAILED:
            yield News(each, "failed")
        elif each.phase is Phase.DONE and differs(each.source, each.seen):
            yield News(each, "changed")


def _end(screen: Screen, asked: Many, batch: Batch, progress: Progress) -> int:
    """Tell how it ended; the exit code."""
    if batch.refusal is not None:
        screen.problem(batch.refusal)
    if batch.lost is not None:
        screen.note(f"taskbridge: {batch.lost}")
    resume = asked.resume_command() if progress.may_go_on else None
    if screen.as_json:
        counts = {step: count for step, count in sorted(progress.steps.items()) if count}
        screen.record({"files": len(progress.entries), "counts": counts, "resume": resume})
    else:
        if not is_live():  # the table says so
            screen.note(f"taskbridge: {progress.summary()}")
        if progress.steps["uncertain"]:
            screen.note("an order of unknown fate is sent again with --resubmit-uncertain; look at the vendor first")
        if resume is not None:
            screen.note(f"resume with: {resume}")
    if batch.lost is not None:
        return BROKEN
    if batch.refusal is not None:
        return code_of(batch.refusal)
    return DONE if progress.is_whole else PARTIAL


def _tell_stop(screen: Screen, word: str, entries: Sequence[Entry], resume: str) -> None:
    if screen.as_json:
        screen.record(
            stop_record(word, [each.ref for each in entries if each.phase is Phase.TAKEN and each.ref], resume)
        )
        return
    phases = Counter(each.phase for each in entries)
    told = {
        "at the vendor": phases[Phase.TAKEN],
        "of unknown fate": phases[Phase.SENDING],
        "failed": phases[Phase.FAILED],
        "not sent": phases[Phase.PLANNED],
    }
    counts = [f"{count} {name}" for name, count in told.items() if count]
    screen.note(f"taskbridge: {word}; {', '.join([f'{phases[Phase.DONE]} of {len(entries)} done', *counts])}")
    screen.note(f"resume with: {resume}")
