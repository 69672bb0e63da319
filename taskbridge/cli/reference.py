"""The help of every command as Markdown: ``python -m taskbridge.cli.reference > docs/cli.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final

import click

from taskbridge._config.registry import distribution_name
from taskbridge.cli.app import app
from taskbridge.cli.exit_codes import MEANINGS
from taskbridge.cli.options import WIDTH

_INTRODUCTION: Final = """\
# The command line

<!-- Generated from the commands. To change it, change those, then: python -m taskbridge.cli.reference > docs/cli.md -->

The commands need the extra `cli`; `emulate` and `demo` also need `emulator`:
`pip install '{distribution}[cli,emulator]'`. `python -m taskbridge` does the same as `taskbridge`.

Results go to stdout, everything else to stderr. With `--json`, each line is one object:

- `get`, `wait`, `submit`, `recover` and `list`: `{{"ref", "task", "error", "final", "exit_code"}}`
- `cancel`, `retry`, `restart` and `delete`: `{{"ref", "task", "error", "exit_code"}}` with the task after the change
- `result`: `{{"ref", "result", "error", "exit_code"}}`
- `download`: `{{"ref", "files", "error", "exit_code"}}`
- `run`: `{{"file", "folder", "state", "ref", "task", "files", "error"}}` for each document, and
  `{{"files", "counts", "resume"}}` at the end; see [Running batches](running-batches.md)
- `listen`: `{{"time", "status", "type", "ref", "ingest_status", "task", …}}` for each delivery, or
  `{{"time", "status", "rejected"}}`
- `explain`: an object for each [event](observing.md#events), named by its `"event"`, and at the end one as for `wait`

Other errors are `{{"error": {{"type", "message", "exit_code", …}}}}` on stderr. A wait or a run that stops early ends
with `{{"stopped", "refs", "resume"}}`; `"resume"` is the command that resumes it.

`NO_COLOR` turns colors off. Control characters in a vendor's words are escaped.
"""


def help_text() -> str:
    """Return the help of every command at 80 columns, and the exit codes, as Markdown."""
    codes = "\n".join(f"| {code} | {meaning} |" for code, meaning in MEANINGS.items())
    introduction = _INTRODUCTION.format(distribution=distribution_name())
    parts = [introduction, f"## Exit codes\n\n| code | meaning |\n| ---: | --- |\n{codes}\n"]
    parts += [_section(each) for each in _contexts(_context(app, None))]
    return "\n".join(parts)


def _contexts(context: click.Context) -> Iterator[click.Context]:
    """Yield a command and its subcommands."""
    yield context
    group = context.command
    if isinstance(group, click.Group):
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None  # noqa: S101  # the group lists it
            yield from _contexts(_context(command, context))


def _context(command: click.Command, parent: click.Context | None) -> click.Context:
    name = "taskbridge" if parent is None else command.name
    return click.Context(
        command, info_name=name, parent=parent, terminal_width=WIDTH, help_option_names=["-h", "--help"]
    )


def _section(context: click.Context) -> str:
    lines = (line.rstrip() for line in context.get_help().splitlines())
    return f"## {context.command_path}\n\n```text\n" + "\n".join(lines) + "\n```\n"


if __name__ == "__main__":
    sys.stdout.write(help_text())
