"""What a command prints when it stops before its tasks end: which tasks continue, and the command that resumes it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final

from taskbridge.cli.formatting import task_line
from taskbridge.cli.options import config_path
from taskbridge.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from taskbridge.cli.output import Output
    from taskbridge.models import Task

_MOST_SHOWN: Final = 50  # tasks


def command_line(command: str, *words: str, **options: str | None) -> str:
    """Return a command, with its flags, as a line for a shell; options that are None are left out."""
    given = {**options, "config": config_path()}
    parts = [part for name, value in given.items() if value is not None for part in (f"--{name}", value)]
    if any(word.startswith("-") for word in words):
        parts.append("--")  # a ref or a path is not an option
    return shlex.join(["taskbridge", *command.split(), *parts, *words])


def stop_record(cause: str, refs: Iterable[str], resume: str) -> dict[str, Any]:
    """Return the JSON record of a command that stopped before its tasks ended."""
    return {"stopped": cause, "refs": list(refs), "resume": resume}


def show_resume(output: Output, cause: str, tasks: Mapping[str, Task | None], command: str) -> None:
    """Write which tasks continue, and the command that waits for them again."""
    resume = command_line(command, *tasks)
    if output.as_json:
        output.record(stop_record(cause, tasks, resume))
        return
    output.note(f"taskbridge: {'stopped waiting' if cause == 'timeout' else cause}; the tasks continue at the vendors")
    shown = dict(list(tasks.items())[:_MOST_SHOWN])
    width = max(len(printable(ref, 600)) for ref in shown)
    for ref, task in shown.items():
        output.note(
            f"  {task_line(task, width)}"
            if task is not None
            else f"  {printable(ref, 600).ljust(width)}  no status yet"
        )
    if len(tasks) > len(shown):
        output.note(f"  and {len(tasks) - len(shown):,} more")
        output.note("resume with: the same command again; tasks that have ended are reported at once")
    else:
        output.note(f"resume with: {resume}")
