"""The table of ``wait`` on a terminal. It takes `rich.text.Text` only, which reads no markup in a vendor's words."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from taskbridge.cli.texts import COLOURS, words_of
from taskbridge.errors import plain

if TYPE_CHECKING:
    from taskbridge.cli.screen import Screen
    from taskbridge.cli.wait import Board
    from taskbridge.model import Outcome, TaskRef

__all__ = ["LiveTable"]

_REST: Final = 36  # columns of the terminal that are not for the task's ref
_MARGIN: Final = 4  # lines of the terminal that are not for tasks


class LiveTable:
    """Shows the board, and changes in place.

    Args:
        screen: For the errors, which are told in full at the end.
        board: What to show.
    """

    def __init__(self, screen: Screen, board: Board) -> None:
        self._screen = screen
        self._board = board
        self._began = monotonic()
        self._longest = max(len(plain(ref, 600)) for ref in board.refs)
        self._console = Console(highlight=False, markup=False)
        self._over = False
        self._live = Live(get_renderable=self._picture, console=self._console, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._over = error[0] is None
        self._live.__exit__(None, None, None)
        for end in self._board.ended.values():
            if end.error is not None:
                self._screen.problem(end.error)

    def show(self, outcome: Outcome) -> None:
        """Nothing to do: the next picture has it."""

    def _picture(self) -> Group:
        shown = self._board.refs if self._over else self._fitting()
        width = max(20, min(self._longest, self._console.width - _REST))
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold", expand=True)
        table.add_column("task", overflow="fold", width=width)
        table.add_column("status", width=10)
        table.add_column("vendor says", overflow="ellipsis", no_wrap=True, ratio=1)
        for ref in shown:
            table.add_row(*self._cells(ref))
        return Group(table, Text(self._summary(len(self._board.refs) - len(shown)), style="dim"))

    def _fitting(self) -> list[TaskRef]:
        """As many as the terminal has lines, in the order given; what has ended gives way first."""
        room = max(1, self._console.height - _MARGIN)
        first = sorted(self._board.refs, key=lambda ref: ref in self._board.ended)[:room]
        keep = frozenset(first)
        return [ref for ref in self._board.refs if ref in keep]

    def _cells(self, ref: TaskRef) -> tuple[Text, Text, Text]:
        task, end = self._board.tasks.get(ref), self._board.ended.get(ref)
        name = Text(plain(ref, 600))
        if task is None:
            return name, Text(""), Text("no answer" if end else "")
        broken = end is not None and end.error is not None
        words = f"{words_of(task)}{'; stopped waiting' if broken else ''}"
        return name, Text(task.status, style=COLOURS[task.status]), Text(words)

    def _summary(self, hidden: int) -> str:
        seconds = int(monotonic() - self._began)
        beyond = f", {hidden} not shown" if hidden else ""
        ended = len(self._board.ended)
        return f"{ended} of {len(self._board.refs)} ended{beyond}, {seconds // 60}:{seconds % 60:02}"
