"""The live table of ``run`` on a terminal. It uses `rich.text.Text` only, which reads no markup in a vendor's words."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from taskbridge.cli.formatting import duration_text, native_text, note_text, time_left
from taskbridge.cli.output import use_color
from taskbridge.cli.run.progress import end_text
from taskbridge.errors import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from taskbridge.cli.run.progress import RunProgress
    from taskbridge.store.runs.files import FileUpdate

_OTHER_COLUMNS: Final = 60  # columns of the terminal that are not for the file's name
_OTHER_LINES: Final = 4  # lines of the terminal that are not for files

# Step -> what the table says, and in which color.
_STEPS: Final[Mapping[str, tuple[str, str]]] = {
    "submitting": ("submitting", "blue"),
    "retrying": ("retrying", "blue"),
    "recovering": ("recovering", "blue"),
    "waiting": ("at vendor", "yellow"),
    "downloading": ("download", "cyan"),
    "done": ("done", "green"),
    "changed": ("changed", "magenta"),
    "failed": ("failed", "red"),
    "forgotten": ("forgotten", "dim"),
    "error": ("not done", "red"),
    "uncertain": ("uncertain", "magenta"),
    "skipped": ("skipped", "dim"),
}
_COUNTED_ONLY: Final = frozenset({"done", "skipped"})  # not listed at the end


class RunTable(AbstractContextManager["Callable[[FileUpdate], None]", None]):
    """A table of the files in progress that updates in place; at the end, files that are not done stay."""

    def __init__(self, progress: RunProgress) -> None:
        self._progress = progress
        self._console = Console(highlight=False, markup=False, no_color=not use_color() or None)
        self._finished = False
        self._live = Live(get_renderable=self.render, console=self._console, refresh_per_second=4)

    def __enter__(self) -> Callable[[FileUpdate], None]:
        self._live.__enter__()
        return lambda _: None  # the next refresh shows an update

    def __exit__(self, *_: object) -> None:
        self._finished = True
        self._live.__exit__(None, None, None)

    def render(self) -> Group:
        """Return the table as it is now."""
        progress, console = self._progress, self._console
        latest = list(progress.latest.values())
        if self._finished:
            shown = [update for update in latest if update.step not in _COUNTED_ONLY]
        else:
            room = max(1, console.height - _OTHER_LINES)
            # files in progress first, then those that went wrong, then those that are done
            ranked = sorted(latest, key=lambda update: (update.is_final, update.step in _COUNTED_ONLY))
            shown = sorted(ranked[:room], key=lambda update: update.file.number)
        width = min(
            max([8, *(len(printable(update.file.folder)) for update in shown)]),
            max(20, console.width - _OTHER_COLUMNS),
        )
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", expand=True)
        table.add_column("file", overflow="fold", width=width)
        table.add_column("state", width=10)
        table.add_column("time", no_wrap=True, justify="right", width=6)
        table.add_column("next poll", no_wrap=True, justify="right", width=9)
        table.add_column("vendor status", overflow="ellipsis", no_wrap=True, width=13)
        table.add_column("", overflow="fold" if self._finished else "ellipsis", no_wrap=not self._finished, ratio=1)
        for update in shown:
            word, color = _STEPS[update.step]
            is_waiting = update.step == "waiting"
            due = progress.due.get(update.file.ref or "") if is_waiting else None
            table.add_row(
                Text(printable(update.file.folder, 200)),
                Text(word, style=color),
                Text(duration_text(progress.age(update.file.number))),
                Text(time_left(due)),
                Text("" if update.task is None or update.is_final else native_text(update.task)),
                self._detail(update),
            )
        left = progress.time_left
        estimate = "" if left is None or self._finished else f", about {duration_text(left)} left"
        total = f"{progress.summary()}, {duration_text(progress.elapsed)}{estimate}"
        return Group(*([table] if shown else []), Text(total, style="dim"))

    def _detail(self, update: FileUpdate) -> Text:
        poll_error = self._progress.poll_errors.get(update.file.ref or "")
        if update.step == "downloading":
            return Text("" if update.fraction is None else f"{update.fraction:.0%}")
        if update.is_final or update.error is not None:
            return Text(end_text(update))
        if poll_error is not None:
            return Text(printable(poll_error.message), style="red")
        return Text("" if update.task is None else note_text(update.task))
