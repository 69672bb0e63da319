"""What is written where: outcomes on stdout, everything else on stderr; as text or as one JSON object a line.

A vendor's words pass `taskbridge.errors.printable` before they come here. A character that the terminal cannot show is
spelt out. JSON is pure ASCII.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from taskbridge.cli.codes import USAGE
from taskbridge.cli.signals import Signals
from taskbridge.errors import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge.errors import TaskbridgeError

__all__ = ["Screen", "colourful", "is_live"]


class Screen:
    """Where a command writes to.

    Args:
        as_json: Whether scripts read it.
        signals: What ends the command early.
    """

    def __init__(self, *, as_json: bool, signals: Signals | None = None) -> None:
        self.as_json = as_json
        self.signals = signals or Signals()
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")

    def line(self, text: str = "") -> None:
        """Write a line of text on stdout."""
        print(text, flush=True)

    def record(self, record: Mapping[str, Any]) -> None:
        """Write a line of JSON on stdout."""
        print(_json(record), flush=True)

    def note(self, text: str) -> None:
        """Write a line of text on stderr; where nobody listens, that is no error."""
        with suppress(OSError):
            print(text, file=sys.stderr or io.StringIO(), flush=True)

    def note_record(self, record: Mapping[str, Any]) -> None:
        """Write a line of JSON on stderr."""
        self.note(_json(record))

    def problem(self, error: TaskbridgeError) -> None:
        """Tell of an error that belongs to no line of the output."""
        from taskbridge.cli.records import error_record  # noqa: PLC0415  # only where something is wrong

        self._told("error", error_record(error), printable(str(error)))

    def misused(self, message: str, command: str) -> None:
        """Tell of a command that cannot be understood.

        Args:
            message: What is wrong.
            command: The words whose ``--help`` says more.
        """
        words = printable(message)
        record = {"type": "UsageError", "message": words, "exit_code": USAGE}
        self._told("error", record, f"{words} ({command} --help tells more)")

    def warn(self, message: str) -> None:
        """Tell of something odd that stops nothing."""
        words = printable(message)
        self._told("warning", {"message": words}, words)

    def stopped(self, word: str) -> None:
        """Tell of a signal that ended a command before its end.

        Args:
            word: What happened.
        """
        self.note(_json({"stopped": word}) if self.as_json else f"taskbridge: {word}")

    def _told(self, kind: str, record: Mapping[str, Any], text: str) -> None:
        self.note(_json({kind: record}) if self.as_json else f"taskbridge: {text}")


def _json(value: Mapping[str, Any]) -> str:
    import json  # noqa: PLC0415  # the version and the help need none

    return json.dumps(value)


def is_live() -> bool:
    """Whether stdout is a terminal that can be written over."""
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}


def colourful() -> bool:
    """Whether colours are welcome; ``NO_COLOR`` says no."""
    return is_live() and not os.environ.get("NO_COLOR")
