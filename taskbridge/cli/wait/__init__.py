"""``wait``: wait for tasks, and show how to resume the wait if it stops early."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

import click

from taskbridge.cli.formatting import task_line
from taskbridge.cli.options import open_refs, refs_argument, with_config, with_json, with_timeout
from taskbridge.cli.output import is_live
from taskbridge.cli.records import outcome_record
from taskbridge.cli.resume import show_resume
from taskbridge.cli.wait.progress import WaitProgress
from taskbridge.errors import WaitTimeout, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskbridge.cli.output import Output
    from taskbridge.models import Outcome


@click.command(name="wait")
@refs_argument
@with_timeout
@with_json
@with_config
@click.pass_obj
def command(output: Output, refs: tuple[str, ...], timeout: float | None) -> int:
    """Wait until all tasks have ended, and print each change.

    On a terminal, shows a table that updates in place; elsewhere, prints a line for each change. A wait that times out
    or is interrupted prints the command that resumes it; the tasks continue. A dash instead of a REF reads refs from
    standard input, one per line; it takes the output of `list --json`, too.
    """
    progress: WaitProgress | None = None

    def report(cause: str) -> None:
        running = progress.running if progress is not None else dict.fromkeys(refs)
        if running:
            in_table = progress is not None and cause != "timeout" and is_live()
            show_resume(output, cause, running, "wait", listed=not in_table)

    with output.signals.reporting(report):  # without closing the bridge, which would wait for requests in flight
        bridge, opened = open_refs(output, refs)
        progress = WaitProgress(opened)
        with bridge.observe(progress.observe), _view(output, progress) as show, output.signals.raising():
            for outcome in bridge.watch(opened, timeout=timeout):
                output.signals.check()  # else its error may be the signal's
                progress.update(outcome)
                show(outcome)
    report("timeout")
    bridge.close()
    return progress.exit_code


def _view(output: Output, progress: WaitProgress) -> AbstractContextManager[Callable[[Outcome], None]]:
    """Return the view of a wait: entering it returns a function that shows a change."""
    if output.as_json or not is_live():
        return nullcontext(partial(_show_line, output, max(len(printable(ref, 600)) for ref in progress.refs)))
    try:
        from taskbridge.cli.wait.live_table import WaitTable  # noqa: PLC0415  # needs rich, on terminals only
    except ModuleNotFoundError as error:
        from taskbridge._config.registry import require_extra  # noqa: PLC0415  # only for this message

        raise require_extra(error.name or "rich", "cli", "the table of a wait") from None
    return WaitTable(output, progress)


def _show_line(output: Output, width: int, outcome: Outcome) -> None:
    if output.as_json:
        output.record(outcome_record(outcome))
    elif isinstance(outcome.error, WaitTimeout):
        return  # the report at the end has it
    elif outcome.error is not None:
        output.error(outcome.error)
    elif outcome.task is not None:
        output.line(task_line(outcome.task, width))
