"""What commands write: outcomes to stdout, everything else to stderr; as text, or as one JSON object per line.

Vendors' words pass `taskbridge.errors.printable` before they get here. A character that the terminal cannot show is
escaped. JSON is pure ASCII.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from taskbridge.cli.exit_codes import USAGE
from taskbridge.cli.signals import Signals
from taskbridge.errors import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge.errors import TaskbridgeError
    from taskbridge.models import Outcome


class Output:
    """The output of one command.

    Args:
        as_json: Write JSON for scripts.
        signals: The command's signals.
    """

    def __init__(self, *, as_json: bool, signals: Signals | None = None) -> None:
        self.as_json = as_json
        self.signals = signals or Signals()
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")

    # To stdout.

    def line(self, text: str = "") -> None:
        """Write a line of text."""
        print(f"{text}\n", end="", flush=True)  # at once: a process that is killed leaves no line without an end

    def record(self, record: Mapping[str, Any]) -> None:
        """Write a line of JSON."""
        self.line(_json(record))

    def outcome(self, outcome: Outcome) -> None:
        """Write all about a task; in text mode an error goes to stderr."""
        if self.as_json:
            from taskbridge.cli.records import outcome_record  # noqa: PLC0415  # the version and the help need none

            self.record(outcome_record(outcome))
        elif outcome.error is not None:
            self.error(outcome.error)
        elif outcome.task is not None:
            from taskbridge.cli.formatting import task_block  # noqa: PLC0415  # as above

            self.line(task_block(outcome.task))

    # To stderr.

    def note(self, text: str) -> None:
        """Write a line of text; a closed stderr is ignored."""
        with suppress(OSError):
            print(f"{text}\n", end="", file=sys.stderr or io.StringIO(), flush=True)

    def note_record(self, record: Mapping[str, Any]) -> None:
        """Write a line of JSON."""
        self.note(_json(record))

    def error(self, error: TaskbridgeError, context: str = "") -> None:
        """Write an error that belongs to no line of stdout; in text, after some words on what it means."""
        from taskbridge.cli.records import error_record  # noqa: PLC0415  # needed for errors only

        self._message("error", error_record(error), f"{context}{printable(str(error))}")

    def usage_error(self, message: str, command: str) -> None:
        """Write what is wrong with a command line."""
        text = printable(message)
        record = {"type": "UsageError", "message": text, "exit_code": USAGE}
        self._message("error", record, f"{text} (see: {command} --help)")

    def warning(self, message: str) -> None:
        """Write a warning."""
        text = printable(message)
        self._message("warning", {"message": text}, text)

    def stopped(self, word: str) -> None:
        """Write that a signal stopped the command."""
        self.note(_json({"stopped": word}) if self.as_json else f"taskbridge: {word}")

    def _message(self, kind: str, record: Mapping[str, Any], text: str) -> None:
        self.note(_json({kind: record}) if self.as_json else f"taskbridge: {text}")


def _json(value: Mapping[str, Any]) -> str:
    import json  # noqa: PLC0415  # the version and the help need none

    return json.dumps(value)


def is_live() -> bool:
    """Whether stdout is a terminal that can redraw lines."""
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}


def use_color() -> bool:
    """Whether to write colors; ``NO_COLOR`` turns them off."""
    return is_live() and not os.environ.get("NO_COLOR")
