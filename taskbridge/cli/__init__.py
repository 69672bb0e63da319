"""The command line (extra ``cli``).

`main` is all that the entry point needs. Importing this package loads little; what a command needs is imported when
it runs, so that ``taskbridge --version`` costs little more than importing click.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from taskbridge.cli.signals import Signals

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["help_text", "main"]


def main(args: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        args: Its words; None takes those of this process.

    Returns:
        The exit code; `taskbridge.cli.codes` has the table.
    """
    signals = Signals()
    try:
        with signals.listening():
            from taskbridge.cli.run import run  # noqa: PLC0415  # click may be missing

            return run(sys.argv[1:] if args is None else args, signals)
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        print(
            "taskbridge: the command line needs click; install it with: pip install 'taskbridge[cli]'", file=sys.stderr
        )
        return signals.code(2)
    except KeyboardInterrupt:
        return 130  # just before or after the listening


def help_text() -> str:
    """The help of every command at 80 columns, as Markdown; ``docs/cli.md`` holds it."""
    from taskbridge.cli.reference import help_text as render  # noqa: PLC0415  # needs click

    return render()
