"""What ``cancel``, ``retry``, ``restart`` and ``delete`` share: one change to each task, and what the task is then."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from taskbridge.cli.exit_codes import DONE, code_of
from taskbridge.cli.formatting import task_line
from taskbridge.cli.options import open_refs, refs_argument, with_config, with_json
from taskbridge.cli.records import result_record, task_record
from taskbridge.errors import TaskbridgeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from taskbridge.cli.output import Output
    from taskbridge.client import Bridge
    from taskbridge.models import Task, TaskRef


def change_command(name: str, help_text: str, change: Callable[[Bridge, TaskRef], Task | None]) -> click.Command:
    """Return a command that makes one change to each task."""

    @click.command(name=name, help=help_text)
    @refs_argument
    @with_json
    @with_config
    @click.pass_obj
    def command(output: Output, refs: tuple[str, ...]) -> int:
        return change_tasks(output, refs, change)

    return command


def change_tasks(output: Output, texts: Sequence[str], change: Callable[[Bridge, TaskRef], Task | None]) -> int:
    """Change each task, also after an error with another one.

    Returns:
        The highest exit code.
    """
    worst = DONE
    with output.signals.reporting(output.stopped):
        bridge, refs = open_refs(output, texts)
        with bridge, output.signals.raising():
            for ref in refs:
                task: Task | None = None
                error: TaskbridgeError | None = None
                try:
                    task = change(bridge, ref)
                except TaskbridgeError as failure:
                    error = failure.about(ref=ref)
                output.signals.check()  # else the error may be the signal's
                worst = max(worst, code_of(error))
                if output.as_json:
                    output.record(result_record(ref, error, task=task_record(task)))
                elif error is not None:
                    output.error(error)
                else:
                    output.line(f"{ref}  deleted" if task is None else task_line(task, len(ref)))
    return worst
