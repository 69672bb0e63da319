"""``submit``: submit a document and print its task."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from taskbridge._engine.error_text import field_errors, os_error_text
from taskbridge.cli.exit_codes import DONE, code_of
from taskbridge.cli.formatting import result_block
from taskbridge.cli.options import open_client, with_config, with_connection, with_json, with_neutral, with_options
from taskbridge.cli.records import result_record
from taskbridge.cli.resume import command_line
from taskbridge.errors import InvalidInput, InvalidRequest, SubmitUncertain, TaskbridgeError
from taskbridge.models import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taskbridge.cli.output import Output
    from taskbridge.models import Task, TaskResult


@click.command(name="submit")
@click.argument("operation")
@click.argument("documents", nargs=-1, metavar="[DOCUMENT...]")
@with_connection
@with_neutral
@with_options
@click.option("--external-id", metavar="ID", help="Your own id for the task, if the vendor stores one.")
@click.option("--callback-url", metavar="URL", help="Address for the vendor's webhook, if it takes one per task.")
@click.option("--name", metavar="NAME", help="The document's name at the vendor.")
@with_json
@with_config
@click.pass_obj
def command(
    output: Output,
    /,
    *,
    operation: str,
    documents: tuple[str, ...],
    connection: str | None,
    neutral: Mapping[str, Any],
    **fields: Any,
) -> int:
    """Submit a document and print its task.

    OPERATION is a shared name, such as extract-text, or the vendor's own as native:NAME. A DOCUMENT is a path or a URL;
    give several to an operation that merges them. To submit many documents, use run.
    """
    token: dict[str, Any] = {}

    def record(recovery_token: Mapping[str, Any]) -> None:
        token.clear()  # of the member of a group that refused
        token.update(recovery_token)

    def report(word: str) -> None:
        output.stopped(word)
        if token:
            _show_recovery(output, token, documents)

    with output.signals.reporting(report):
        client = open_client(output, connection)
        given: Any = list(documents) if len(documents) > 1 else next(iter(documents), None)
        task: Task | None = None
        problem = ""
        try:
            with output.signals.raising():
                task = client.submit(operation, given, before_submit=record, **fields, **neutral)
        except SubmitUncertain as error:
            output.signals.check()
            output.error(error)
            _show_recovery(output, error.recovery_token, documents)
            return code_of(error)
        except InvalidRequest as error:
            output.signals.check()
            raise error.again(message=f"{error.message} {field_errors(error)}".strip()) from None
        except OSError as error:
            if isinstance(error, TaskbridgeError):
                raise
            problem = os_error_text(error)
        if task is None:
            raise InvalidInput(problem)
        output.outcome(Outcome(task.ref, task))
        if task.result is not None and not task.resumable:  # the vendor cannot be asked for it later
            _show_result(output, task.ref, task.result)
    client.close()
    return DONE


def _show_result(output: Output, ref: str, result: TaskResult) -> None:
    if output.as_json:
        output.record(result_record(ref, None, result=result.to_dict()))
    else:
        output.line(result_block(ref, result))


def _show_recovery(output: Output, token: Mapping[str, Any], documents: Sequence[str]) -> None:
    """Write the command that finds an uncertain submission."""
    recover = command_line("recover", json.dumps(dict(token)), *documents)
    if output.as_json:
        output.note_record({"recover": recover})
    else:
        output.note(f"find out with: {recover}")
