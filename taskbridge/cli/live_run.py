"""The table of ``run`` on a terminal. It takes `rich.text.Text` only, which reads no markup in a vendor's words."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from taskbridge.cli.many import end_of
from taskbridge.cli.screen import colourful
from taskbridge.cli.texts import span, until, words_of
from taskbridge.errors import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge.cli.carrier import News
    from taskbridge.cli.many import Progress
    from taskbridge.cli.screen import Screen

__all__ = ["LiveRun"]

_REST: Final = 50  # columns of the terminal that are not for the document's name
_MARGIN: Final = 4  # lines of the terminal that are not for documents

# Step -> what is shown, and in which colour.
_STEPS: Final[Mapping[str, tuple[str, str]]] = {
    "sending": ("sending", "blue"),
    "looking": ("looking", "blue"),
    "waiting": ("at vendor", "yellow"),
    "fetching": ("fetching", "cyan"),
    "done": ("done", "green"),
    "changed": ("changed", "magenta"),
    "failed": ("failed", "red"),
    "error": ("not done", "red"),
    "uncertain": ("uncertain", "magenta"),
    "left": ("left", "dim"),
}
_QUIET: Final = frozenset({"done", "left"})  # counted at the end, and not named


class LiveRun:
    """Shows the files under way, and changes in place; at the end the ones that are not done stay.

    Args:
        screen: Unused; what is wrong stands in the table.
        progress: What to show.
    """

    def __init__(self, screen: Screen, progress: Progress) -> None:
        del screen
        self._progress = progress
        self._began = monotonic()
        self._console = Console(highlight=False, markup=False, no_color=not colourful() or None)
        self._over = False
        self._live = Live(get_renderable=self._picture, console=self._console, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._live.__exit__(None, None, None)

    def show(self, news: News) -> None:
        """Nothing to do: the next picture has it."""

    def _picture(self) -> Group:
        latest = list(self._progress.latest.values())
        if self._over:
            shown = [news for news in latest if news.step not in _QUIET]
        else:
            room = max(1, self._console.height - _MARGIN)
            # what goes on comes first, then what went wrong, then what is done
            ranked = sorted(latest, key=lambda news: (news.is_final, news.step in _QUIET))
            shown = sorted(ranked[:room], key=lambda news: news.entry.number)
        width = max([8, *(len(news.entry.folder) for news in shown)])
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", expand=True)
        table.add_column("file", overflow="fold", width=min(width, max(20, self._console.width - _REST)))
        table.add_column("state", width=10)
        table.add_column("time", no_wrap=True, justify="right", width=6)
        table.add_column("next", no_wrap=True, justify="right", width=5)
        table.add_column("", overflow="fold" if self._over else "ellipsis", no_wrap=not self._over, ratio=1)
        for news in shown:
            word, colour = _STEPS[news.step]
            due = self._progress.due.get(news.task.ref) if news.task is not None and news.step == "waiting" else None
            table.add_row(
                Text(printable(news.entry.folder, 200)),
                Text(word, style=colour),
                Text(span(self._progress.age(news.entry.number))),
                Text(until(due)),
                Text(_words(news)),
            )
        told = f"{self._progress.summary()}, {span(monotonic() - self._began)}"
        return Group(*([table] if shown else []), Text(told, style="dim"))


def _words(news: News) -> str:
    """What else is to be said of a file."""
    if news.step == "fetching":
        return "" if news.share is None else f"{news.share:.0%}"
    if news.is_final:
        return end_of(news).partition("  ")[2].lstrip()
    return "" if news.task is None else words_of(news.task)
