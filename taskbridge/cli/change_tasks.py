"""What ``cancel``, ``retry``, ``restart`` and ``delete`` share: one change to each task, and what the task is then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.cli.exit_codes import DONE, code_of
from taskbridge.cli.formatting import task_line
from taskbridge.cli.options import open_refs
from taskbridge.cli.records import error_or_none, task_record
from taskbridge.errors import TaskbridgeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from taskbridge.cli.output import Output
    from taskbridge.client import Bridge
    from taskbridge.models import Task, TaskRef


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
                    record = {"ref": ref, "task": task_record(task), "error": error_or_none(error)}
                    output.record({**record, "exit_code": code_of(error)})
                elif error is not None:
                    output.error(error)
                else:
                    output.line(f"{ref}  deleted" if task is None else task_line(task, len(ref)))
    return worst
