"""``wait``: watch tasks until they have ended, and leave a way back where that is not waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, Self

from taskbridge._config.registry import require_extra
from taskbridge.cli.board import Board
from taskbridge.cli.records import outcome_record, resume_command, stop_record
from taskbridge.cli.refs import open_refs
from taskbridge.cli.screen import is_live
from taskbridge.cli.texts import row
from taskbridge.errors import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taskbridge.cli.screen import Screen
    from taskbridge.models import Outcome, Task

__all__ = ["tell_resume", "wait_for"]


_MOST_TOLD: Final = 50  # tasks that go on, one by one


class View(Protocol):
    """How changes are shown while they come."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, outcome: Outcome) -> None:
        """Show a change."""
        ...


class _Lines:
    """One line for each change."""

    def __init__(self, screen: Screen, board: Board) -> None:
        self._screen = screen
        self._width = max(len(printable(ref, 600)) for ref in board.refs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def show(self, outcome: Outcome) -> None:
        """Write it."""
        if self._screen.as_json:
            self._screen.record(outcome_record(outcome))
        elif outcome.error is not None:
            self._screen.problem(outcome.error)
        elif outcome.task is not None:
            self._screen.line(row(outcome.task, self._width))


def _view(screen: Screen, board: Board) -> View:
    if screen.as_json or not is_live():
        return _Lines(screen, board)
    try:
        from taskbridge.cli.live import LiveTable  # noqa: PLC0415  # rich, for terminals only
    except ModuleNotFoundError as error:
        raise require_extra(error.name or "rich", "cli", "the table of a wait") from None
    return LiveTable(screen, board)


def wait_for(screen: Screen, texts: Sequence[str], timeout: float | None, config: str | None) -> int:
    """Wait until all tasks have ended; the exit code."""
    board: Board | None = None

    def tell(cause: str) -> None:
        going_on = board.going_on if board is not None else dict.fromkeys(texts)
        if going_on:
            tell_resume(screen, cause, going_on, resume_command("wait", going_on, config))

    with screen.signals.told(tell):  # without closing the bridge: that would wait for looks under way
        bridge, refs = open_refs(screen, config, texts)
        board = Board(refs)
        with bridge.observe(board.observe), _view(screen, board) as view, screen.signals.raising():
            for outcome in bridge.watch(refs, timeout):
                screen.signals.check()  # else its error may be the signal's
                board.take(outcome)
                view.show(outcome)
    tell("timeout")
    bridge.close()
    return board.code


def tell_resume(screen: Screen, cause: str, tasks: Mapping[str, Task | None], resume: str) -> None:
    """Tell which tasks go on, and the command that waits for them again.

    Args:
        screen: Where to.
        cause: ``timeout``, ``interrupted`` or ``terminated``.
        tasks: Refs and what was last seen.
        resume: The command.
    """
    if screen.as_json:
        screen.record(stop_record(cause, tasks, resume))
        return
    happened = "stopped waiting" if cause == "timeout" else cause
    screen.note(f"taskbridge: {happened}; the work goes on at the vendors")
    told = dict(list(tasks.items())[:_MOST_TOLD])
    width = max(len(printable(ref, 600)) for ref in told)
    for ref, task in told.items():
        screen.note(
            f"  {row(task, width)}" if task is not None else f"  {printable(ref, 600).ljust(width)}  not seen yet"
        )
    if len(tasks) > len(told):
        screen.note(f"  and {len(tasks) - len(told):,} more")
        screen.note("resume with: the same command again; what has ended is told at once")
    else:
        screen.note(f"resume with: {resume}")
