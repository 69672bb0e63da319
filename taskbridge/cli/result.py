"""``result``: wait for a task and print its result."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from taskbridge.cli.exit_codes import code_of
from taskbridge.cli.formatting import result_block
from taskbridge.cli.options import open_refs, ref_argument, with_config, with_json, with_timeout
from taskbridge.cli.records import result_record
from taskbridge.cli.resume import show_resume
from taskbridge.errors import TaskbridgeError, WaitTimeout

if TYPE_CHECKING:
    from taskbridge.cli.output import Output
    from taskbridge.models import TaskResult


@click.command(name="result")
@ref_argument
@with_timeout
@with_json
@with_config
@click.pass_obj
def command(output: Output, ref: str, timeout: float | None) -> int:
    """Wait for a task and print its result.

    Prints links to files: anyone who has a link can download the file.
    """
    shown = ref

    def report(cause: str) -> None:
        show_resume(output, cause, {shown: None}, "result")

    result: TaskResult | None = None
    error: TaskbridgeError | None = None
    with output.signals.reporting(report):
        bridge, (opened,) = open_refs(output, [ref])
        shown = opened
        try:
            with output.signals.raising():
                result = bridge.result(opened, timeout=timeout)
        except TaskbridgeError as failure:
            error = failure.about(ref=opened)
    with output.signals.raising():
        if output.as_json:
            output.record(result_record(opened, error, result=None if result is None else result.to_dict()))
        elif error is not None and not isinstance(error, WaitTimeout):
            output.error(error)
        elif result is not None:
            output.line(result_block(opened, result))
        if isinstance(error, WaitTimeout):
            show_resume(output, "timeout", {opened: error}, "result")
    if error is None:
        bridge.close()
    return code_of(error)
