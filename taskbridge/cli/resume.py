"""What a command prints when it stops before its tasks end: which tasks continue, and the command that resumes it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final

from taskbridge.cli.exit_codes import UNREACHABLE, code_of
from taskbridge.cli.formatting import state_line
from taskbridge.cli.options import config_path
from taskbridge.errors import WaitTimeout, printable

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


def show_resume(
    output: Output, cause: str, tasks: Mapping[str, Task | WaitTimeout | None], command: str, *, listed: bool = True
) -> None:
    """Write which tasks continue, and the command that waits for them again.

    Args:
        output: Gets the text or the JSON record.
        cause: Why the command stopped: ``timeout``, ``interrupted`` or ``terminated``.
        tasks: What is known of each task that continues: its last snapshot, or the error that ended its wait.
        command: The command that resumes.
        listed: Whether to list the tasks; False if a table shows them already.
    """
    resume = command_line(command, *tasks)
    if output.as_json:
        output.record(stop_record(cause, tasks, resume))
        return
    output.note(f"taskbridge: {_heading(cause, tasks.values())}; the tasks continue at the vendors")
    shown = dict(list(tasks.items())[: _MOST_SHOWN if listed else 0])
    width = max((len(printable(ref, 600)) for ref in shown), default=0)
    for ref, known in shown.items():
        text = known.state if isinstance(known, WaitTimeout) else state_line(known)
        output.note(f"  {printable(ref, 600).ljust(width)}  {printable(text)}")
    if listed and len(tasks) > len(shown):
        output.note(f"  and {len(tasks) - len(shown):,} more")
    if len(tasks) > _MOST_SHOWN:
        output.note("resume with: the same command again; tasks that have ended are reported at once")
    else:
        output.note(f"resume with: {resume}")


def _heading(cause: str, known: Iterable[Task | WaitTimeout | None]) -> str:
    if cause != "timeout":
        return cause
    errors = [each for each in known if isinstance(each, WaitTimeout)]
    silent = dict.fromkeys(each.connection or "" for each in errors if code_of(each) == UNREACHABLE)
    return f"timed out because {', '.join(silent)} could not be reached" if silent else "timed out"
