"""The command line (extra ``cli``).

`main` is the entry point. Importing this package loads little: `taskbridge.cli.app` imports the file of a command when
that command is used, and the files of commands import the library when they run.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from taskbridge.cli.signals import Signals

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit code; see `taskbridge.cli.exit_codes`.
    """
    signals = Signals()
    try:
        with signals.handling():
            from taskbridge.cli.app import run  # noqa: PLC0415  # signals are handled before anything heavy is imported

            return run(sys.argv[1:] if args is None else args, signals)
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        from taskbridge._config.registry import require_extra  # noqa: PLC0415  # only for this message

        print(f"taskbridge: {require_extra('click', 'cli', 'the command line').message}", file=sys.stderr)
        return signals.exit_code(2)
    except KeyboardInterrupt:
        return 130  # just before or after `handling`
