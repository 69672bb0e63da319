"""The live table of ``wait`` on a terminal. It uses `rich.text.Text` only, which reads no markup in a vendor's words.

Every task has a row if the terminal has room for all. Otherwise running tasks get the rows, and the lines below count
all tasks by connection.
"""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager
from time import monotonic
from typing import TYPE_CHECKING, Final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from taskbridge.cli.formatting import COLORS, detail_text, duration_text, time_left
from taskbridge.cli.output import use_color
from taskbridge.errors import WaitTimeout, printable
from taskbridge.models import TaskStatus
from taskbridge.notebook import progress_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskbridge.cli.output import Output
    from taskbridge.cli.wait.progress import WaitProgress
    from taskbridge.models import Outcome, TaskRef

_OTHER_COLUMNS: Final = 50  # columns of the terminal that are not for the task's ref
_SHORTEST_REF: Final = 20  # columns
_OTHER_LINES: Final = 3  # lines of the terminal that are not for tasks: heading, total, and the cursor's line


class WaitTable(AbstractContextManager["Callable[[Outcome], None]", None]):
    """A table that updates in place.

    At the end, tasks without an answer are no longer in it: errors are printed in full below, and so are the waits that
    timed out.
    """

    def __init__(self, output: Output, progress: WaitProgress) -> None:
        self._output = output
        self._progress = progress
        self._started = monotonic()
        self._longest = max(len(printable(ref, 600)) for ref in progress.refs)
        self._console = Console(highlight=False, markup=False, no_color=not use_color() or None)
        self._finished = self._stopped = False
        self._live = Live(get_renderable=self.render, console=self._console, refresh_per_second=4)

    def __enter__(self) -> Callable[[Outcome], None]:
        self._live.__enter__()
        return lambda _: None  # the next refresh shows a change

    def __exit__(self, *error: object) -> None:
        self._finished, self._stopped = error[0] is None, True
        self._live.__exit__(None, None, None)
        for end in self._progress.ended.values():
            if end.error is not None and not isinstance(end.error, WaitTimeout):
                self._output.error(end.error)

    def render(self) -> Group:
        """Return the table as it is now."""
        refs = self._progress.refs
        counts = self._counts() if len(refs) > self._room(0) else []
        shown = self._final_rows() if self._finished else self._fitting(self._room(len(counts)))
        hidden = len(refs) - len(shown)
        if self._stopped:
            ended = self._progress.ended
            shown = [ref for ref in shown if ref not in ended or ended[ref].error is None]
        width = max(_SHORTEST_REF, min(self._longest, self._console.width - _OTHER_COLUMNS))
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", expand=True)
        table.add_column("task", overflow="ellipsis", no_wrap=True, width=width)
        table.add_column("status", no_wrap=True, width=10)
        table.add_column("done", no_wrap=True, justify="right", width=4)
        table.add_column("time", no_wrap=True, justify="right", width=6)
        table.add_column("next", no_wrap=True, justify="right", width=5)
        table.add_column("vendor says", overflow="ellipsis", no_wrap=True, ratio=1)
        for ref in shown:
            table.add_row(*self._cells(ref, width))
        return Group(*([table] if shown else []), *counts, self._total(hidden))

    def _room(self, count_lines: int) -> int:
        return max(1, self._console.height - _OTHER_LINES - count_lines)

    def _fitting(self, room: int) -> list[TaskRef]:
        """As many tasks as fit, in the order given; those that have ended are dropped first."""
        progress = self._progress
        kept = frozenset(sorted(progress.refs, key=lambda ref: ref in progress.ended)[:room])
        return [ref for ref in progress.refs if ref in kept]

    def _final_rows(self) -> list[TaskRef]:
        """All tasks, or if they are too many, those that did not complete."""
        progress = self._progress
        if len(progress.refs) <= self._room(0):
            return list(progress.refs)
        return [ref for ref in progress.refs if not progress.is_completed(ref)]

    def _cells(self, ref: TaskRef, width: int) -> tuple[Text, ...]:
        progress = self._progress
        task = progress.tasks.get(ref)
        name, detail = Text(_shorten(printable(ref, 600), width)), self._detail(ref)
        due = Text(time_left(None if ref in progress.ended else progress.due.get(ref)))
        if task is None:
            return name, Text(""), Text(""), Text(""), due, detail
        status = Text(task.status, style=COLORS[task.status])
        share = Text("" if task.is_terminal else progress_text(task) or "")
        return name, status, share, Text(duration_text(progress.age(task))), due, detail

    def _detail(self, ref: TaskRef) -> Text:
        """The vendor's words about the task, or why there are none, or none that are new."""
        progress = self._progress
        task, end, poll_error = progress.tasks.get(ref), progress.ended.get(ref), progress.poll_errors.get(ref)
        if end is not None and end.error is not None:
            return Text(printable(end.error.message), style=COLORS["failed"])
        if end is None and poll_error is not None:
            return Text(printable(poll_error.message), style=COLORS["failed"])
        return Text(detail_text(task, progress=False) if task is not None else "")

    def _counts(self) -> list[Text]:
        """A line for each connection: how many tasks are in which state."""
        counts: dict[str, Counter[str]] = {}
        for ref in self._progress.refs:
            counts.setdefault(ref.connection, Counter())[self._progress.state(ref)] += 1
        width = max(len(printable(name, 60)) for name in counts)
        lines: list[Text] = []
        for name, count in counts.items():
            line = Text(printable(name, 60).ljust(width), no_wrap=True, overflow="ellipsis")
            for state in (*TaskStatus, "no answer", "no status yet"):
                if count[state]:
                    line.append(f"  {count[state]:,} {state}", style=COLORS.get(state, "dim"))
            lines.append(line)
        return lines

    def _total(self, hidden: int) -> Text:
        more = f", {hidden:,} not shown" if hidden else ""
        timed_out, total = len(self._progress.timed_out), len(self._progress.refs)
        ended = len(self._progress.ended) - timed_out
        late = f", {timed_out:,} timed out" if timed_out else ""
        elapsed = duration_text(monotonic() - self._started)
        return Text(f"{ended:,} of {total:,} ended{late}{more}, {elapsed}", style="dim")


def _shorten(text: str, width: int) -> str:
    """Cut the middle out of a text that is too long."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 3
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"
