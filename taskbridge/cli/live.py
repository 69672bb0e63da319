"""The table of ``wait`` on a terminal. It takes `rich.text.Text` only, which reads no markup in a vendor's words.

Every task has a row as long as the terminal has room for all. Beyond that the rows are for those that go on, and the
lines below them count the rest by connection.
"""

from __future__ import annotations

from collections import Counter
from time import monotonic
from typing import TYPE_CHECKING, Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from taskbridge.cli.screen import colourful
from taskbridge.cli.texts import COLOURS, share_of, span, until, words_of
from taskbridge.errors import printable
from taskbridge.models import TaskStatus

if TYPE_CHECKING:
    from taskbridge.cli.board import Board
    from taskbridge.cli.screen import Screen
    from taskbridge.models import Outcome, TaskRef

__all__ = ["LiveTable"]

_REST: Final = 50  # columns of the terminal that are not for the task's ref
_LEAST: Final = 20  # columns of a ref
_MARGIN: Final = 3  # lines of the terminal that are not for tasks: the head, the sum, and the cursor's


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
        self._longest = max(len(printable(ref, 600)) for ref in board.refs)
        self._console = Console(highlight=False, markup=False, no_color=not colourful() or None)
        self._over = False
        self._live = Live(get_renderable=self.picture, console=self._console, refresh_per_second=4)

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

    def picture(self) -> Group:
        """What is to be seen now."""
        sums = self._sums() if len(self._board.refs) > self._room(0) else []
        shown = self._told_at_the_end() if self._over else self._fitting(self._room(len(sums)))
        width = max(_LEAST, min(self._longest, self._console.width - _REST))
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", expand=True)
        table.add_column("task", overflow="ellipsis", no_wrap=True, width=width)
        table.add_column("status", no_wrap=True, width=10)
        table.add_column("done", no_wrap=True, justify="right", width=4)
        table.add_column("time", no_wrap=True, justify="right", width=6)
        table.add_column("next", no_wrap=True, justify="right", width=5)
        table.add_column("vendor says", overflow="ellipsis", no_wrap=True, ratio=1)
        for ref in shown:
            table.add_row(*self._cells(ref, width))
        return Group(*([table] if shown else []), *sums, self._sum(len(self._board.refs) - len(shown)))

    def _room(self, sums: int) -> int:
        return max(1, self._console.height - _MARGIN - sums)

    def _fitting(self, room: int) -> list[TaskRef]:
        """As many as the terminal has lines, in the order given; what has ended gives way first."""
        board = self._board
        first = sorted(board.refs, key=lambda ref: ref in board.ended)[:room]
        keep = frozenset(first)
        return [ref for ref in board.refs if ref in keep]

    def _told_at_the_end(self) -> list[TaskRef]:
        """All, or where they are too many those that did not complete."""
        board = self._board
        if len(board.refs) <= self._room(0):
            return list(board.refs)
        return [ref for ref in board.refs if not board.is_completed(ref)]

    def _cells(self, ref: TaskRef, width: int) -> tuple[Text, ...]:
        board = self._board
        task = board.tasks.get(ref)
        name = Text(_middle(printable(ref, 600), width))
        words = self._words(ref)
        if task is None:
            return name, Text(""), Text(""), Text(""), Text(self._due(ref)), words
        return (
            name,
            Text(task.status, style=COLOURS[task.status]),
            Text(share_of(task)),
            Text(span(board.age(task))),
            Text(self._due(ref)),
            words,
        )

    def _words(self, ref: TaskRef) -> Text:
        """What the vendor says of the task; else why nothing is known of it, or nothing new."""
        board = self._board
        task, end, trouble = board.tasks.get(ref), board.ended.get(ref), board.troubles.get(ref)
        if end is not None and end.error is not None:
            known = f"{words_of(task, share=False)}; stopped waiting" if task is not None else None
            return Text(known or printable(end.error.message), style="" if known else COLOURS["failed"])
        if end is None and trouble is not None:
            return Text(printable(trouble.message), style=COLOURS["failed"])
        return Text(words_of(task, share=False) if task is not None else "")

    def _due(self, ref: TaskRef) -> str:
        """How long until the next look."""
        return until(None if ref in self._board.ended else self._board.due.get(ref))

    def _sums(self) -> list[Text]:
        """A line for each connection: how many tasks are where."""
        board = self._board
        counts: dict[str, Counter[str]] = {}
        for ref in board.refs:
            counts.setdefault(ref.connection, Counter())[board.word(ref)] += 1
        wide = max(len(printable(name, 60)) for name in counts)
        lines: list[Text] = []
        for name, count in counts.items():
            line = Text(printable(name, 60).ljust(wide), no_wrap=True, overflow="ellipsis")
            for word in (*TaskStatus, "no answer", "not seen"):
                if count[word]:
                    line.append(f"  {count[word]:,} {word}", style=COLOURS.get(word, "dim"))
            lines.append(line)
        return lines

    def _sum(self, hidden: int) -> Text:
        beyond = f", {hidden:,} not shown" if hidden else ""
        ended, whole = len(self._board.ended), len(self._board.refs)
        return Text(f"{ended:,} of {whole:,} ended{beyond}, {span(monotonic() - self._began)}", style="dim")


def _middle(text: str, width: int) -> str:
    """A text that fits; what is left out of it, is left out of its middle."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 3
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"
