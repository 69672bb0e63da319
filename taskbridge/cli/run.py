"""Runs a command: signals, streams, and from errors to exit codes.

Click's own way of running is not used: it answers Ctrl-C and a closed output with 1, which here means a failed task.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from taskbridge.cli.codes import BROKEN, CLOSED, DONE, USAGE, code_of
from taskbridge.cli.commands import app
from taskbridge.cli.completion import answer_shell
from taskbridge.cli.screen import Screen
from taskbridge.cli.signals import Interrupted, Signals
from taskbridge.errors import TaskbridgeError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["run"]


def run(args: Sequence[str], signals: Signals) -> int:
    """Run a command; the exit code, which a signal decides, whatever else happened.

    Args:
        args: Its words.
        signals: Those that are heard.
    """
    screen = Screen(as_json="--json" in args, signals=signals)
    try:
        return signals.code(_invoke(list(args), screen))
    except Interrupted as stop:
        return stop.code
    except BrokenPipeError:
        _hush()
        return signals.code(CLOSED)
    except OSError as error:
        if signals.stop is None:
            from taskbridge.cli.texts import words_of_file  # noqa: PLC0415  # else not needed

            screen.note(f"taskbridge: {words_of_file(error)}")
    except Exception:  # noqa: BLE001  # a bug here must not look like a failed task, whose code Python would give it
        if signals.stop is None:
            import traceback  # noqa: PLC0415  # else not needed

            traceback.print_exc()
    _hush()
    return signals.code(BROKEN)


def _invoke(args: list[str], screen: Screen) -> int:
    try:
        if (answered := answer_shell(app)) is not None:
            return answered
        with app.make_context("taskbridge", args, obj=screen) as context:
            code: int = app.invoke(context)
            return code
    except click.exceptions.Exit as end:
        return end.exit_code or DONE
    except click.ClickException as error:
        screen.signals.check()
        screen.misused(error.format_message(), _asked(error))
        return USAGE
    except TaskbridgeError as error:
        screen.signals.check()
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
