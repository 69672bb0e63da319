"""Runs a command: signals, streams, and from errors to exit codes.

Click's own way of running is not used: it answers Ctrl-C and a closed output with 1, which here means a failed task.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

import click

from taskbridge.cli.codes import BROKEN, CLOSED, DONE, USAGE, code_of
from taskbridge.cli.commands import app
from taskbridge.cli.screen import Interrupted, Screen
from taskbridge.errors import TaskbridgeError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from types import FrameType

__all__ = ["run"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def run(args: Sequence[str]) -> int:
    """Run a command; the exit code.

    Args:
        args: Its words.
    """
    screen = Screen(as_json="--json" in args)
    try:
        with _signals():
            return _invoke(list(args), screen)
    except Interrupted as stop:
        return stop.code
    except BrokenPipeError:
        _hush()
        return CLOSED
    except OSError as error:
        screen.note(f"taskbridge: {error}")
    except Exception:  # noqa: BLE001  # a bug here must not look like a failed task, whose code Python would give it
        import traceback  # noqa: PLC0415  # else not needed

        traceback.print_exc()
    _hush()
    return BROKEN


def _invoke(args: list[str], screen: Screen) -> int:
    try:
        with app.make_context("taskbridge", args, obj=screen) as context:
            code: int = app.invoke(context)
            return code
    except click.exceptions.Exit as end:
        return end.exit_code or DONE
    except click.ClickException as error:
        screen.misused(error.format_message(), _asked(error))
        return USAGE
    except TaskbridgeError as error:
        screen.problem(error)
        return code_of(error)


def _asked(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return context.command_path if context is not None else "taskbridge"


def _hush() -> None:
    """Let what is still to be written go nowhere, so that the interpreter's end says nothing."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        return  # no file behind it: nothing to hush


@contextmanager
def _signals() -> Generator[None]:
    """Turn Ctrl-C and SIGTERM into `Interrupted`; a second one ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    heard = [number for number, handler in before.items() if handler is not signal.SIG_IGN]

    def stop(number: int, _frame: FrameType | None) -> NoReturn:
        for other in heard:
            signal.signal(other, _leave)
        raise Interrupted(number)

    for number in heard:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(128 + number)
