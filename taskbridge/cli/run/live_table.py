"""The live table of ``run`` on a terminal. It uses `rich.text.Text` only, which reads no markup in a vendor's words."""

from __future__ import annotations

from contextlib import AbstractContextManager
from time import monotonic
from typing import TYPE_CHECKING, Final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from taskbridge.cli.formatting import detail_text, duration_text, time_left
from taskbridge.cli.output import use_color
from taskbridge.cli.run.progress import end_text
from taskbridge.errors import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from taskbridge.cli.run.progress import RunProgress
    from taskbridge.cli.run.worker import FileUpdate

_OTHER_COLUMNS: Final = 50  # columns of the terminal that are not for the file's name
_OTHER_LINES: Final = 4  # lines of the terminal that are not for files

# Step -> what the table says, and in which color.
_STEPS: Final[Mapping[str, tuple[str, str]]] = {
    "submitting": ("submitting", "blue"),
    "recovering": ("recovering", "blue"),
    "waiting": ("at vendor", "yellow"),
    "downloading": ("download", "cyan"),
    "done": ("done", "green"),
    "changed": ("changed", "magenta"),
    "failed": ("failed", "red"),
    "error": ("not done", "red"),
    "uncertain": ("uncertain", "magenta"),
    "skipped": ("skipped", "dim"),
}
_COUNTED_ONLY: Final = frozenset({"done", "skipped"})  # not listed at the end


class RunTable(AbstractContextManager["Callable[[FileUpdate], None]", None]):
    """A table of the files in progress that updates in place; at the end, files that are not done stay."""

    def __init__(self, progress: RunProgress) -> None:
        self._progress = progress
        self._started = monotonic()
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
            shown = sorted(ranked[:room], key=lambda update: update.entry.number)
        width = min(
            max([8, *(len(printable(update.entry.folder)) for update in shown)]),
            max(20, console.width - _OTHER_COLUMNS),
        )
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", expand=True)
        table.add_column("file", overflow="fold", width=width)
        table.add_column("state", width=10)
        table.add_column("time", no_wrap=True, justify="right", width=6)
        table.add_column("next", no_wrap=True, justify="right", width=5)
        table.add_column("", overflow="fold" if self._finished else "ellipsis", no_wrap=not self._finished, ratio=1)
        for update in shown:
            word, color = _STEPS[update.step]
            due = progress.due.get(update.task.ref) if update.task is not None and update.step == "waiting" else None
            table.add_row(
                Text(printable(update.entry.folder, 200)),
                Text(word, style=color),
                Text(duration_text(progress.age(update.entry.number))),
                Text(time_left(due)),
                Text(_detail(update)),
            )
        total = f"{progress.summary()}, {duration_text(monotonic() - self._started)}"
        return Group(*([table] if shown else []), Text(total, style="dim"))


def _detail(update: FileUpdate) -> str:
    if update.step == "downloading":
        return "" if update.fraction is None else f"{update.fraction:.0%}"
    if update.is_final:
        return end_text(update)
    return "" if update.task is None else detail_text(update.task)
