"""The help of every command as Markdown: ``python -m taskbridge.cli.reference > docs/cli.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final

import click

from taskbridge.cli.codes import MEANINGS
from taskbridge.cli.commands import app

__all__ = ["help_text"]

_WIDTH: Final = 80  # columns

_INTRODUCTION: Final = """\
# The command line

<!-- Made from the commands; change those, then: python -m taskbridge.cli.reference > docs/cli.md -->

Install it with `pip install 'taskbridge[cli]'`; `emulate` and `demo` need `taskbridge[emulator]` as well.
`python -m taskbridge` does the same as `taskbridge`.

Outcomes go to stdout, everything else to stderr. With `--json` each line is one object. `get`, `wait`, `submit`,
`recover` and `list` write `{"ref", "task", "error", "final", "exit_code"}`; `result` has `"result"` and `download` has
`"files"` in place of the task; `cancel`, `retry`, `restart` and `delete` tell in `"task"` what is there after them.
`run` writes `{"file", "folder", "state", "ref", "task", "files", "error"}` for each document and `{"files", "counts",
"resume"}` at the end; see [Running batches](running-batches.md). `listen` writes `{"time", "status", "type", "ref",
"task", …}` for each delivery, or `{"time", "status", "refused"}`. `explain` writes an object for each
[event](observing.md#events), whose `"event"` says what it is, and the outcome last, as `wait` does. What belongs to
none of these is `{"error": {"type", "message", "exit_code", …}}` on stderr. A wait or a run that is stopped ends with
`{"stopped", "refs", "resume"}`, where `resume` is the command that goes on.

`NO_COLOR` turns colours off. A vendor's words are shown with control characters spelt out.
"""


def help_text() -> str:
    """The help of every command at 80 columns, and the exit codes."""
    codes = "\n".join(f"| {code} | {meaning} |" for code, meaning in MEANINGS.items())
    parts = [_INTRODUCTION, f"## Exit codes\n\n| code | meaning |\n| ---: | --- |\n{codes}\n"]
    context = _context(app, None)
    parts += [_section(each) for each in _all_of(context)]
    return "\n".join(parts)


def _all_of(context: click.Context) -> Iterator[click.Context]:
    """A command and those below it."""
    yield context
    if isinstance(context.command, click.Group):
        for _, command in sorted(context.command.commands.items()):
            yield from _all_of(_context(command, context))


def _context(command: click.Command, parent: click.Context | None) -> click.Context:
    name = "taskbridge" if parent is None else command.name
    return click.Context(
        command, info_name=name, parent=parent, terminal_width=_WIDTH, help_option_names=["-h", "--help"]
    )


def _section(context: click.Context) -> str:
    lines = (line.rstrip() for line in context.get_help().splitlines())
    return f"## {context.command_path}\n\n```text\n" + "\n".join(lines) + "\n```\n"


if __name__ == "__main__":
    sys.stdout.write(help_text())
