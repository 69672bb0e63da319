"""``recover``: find the task of an uncertain submission."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import click

from taskbridge.cli.exit_codes import DONE
from taskbridge.cli.options import open_client, with_config, with_json
from taskbridge.errors import InvalidInput, SubmitUncertain, TaskNotFound
from taskbridge.models import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge.cli.output import Output


@click.command(name="recover")
@click.argument("token")
@click.argument("documents", nargs=-1, metavar="[DOCUMENT...]")
@with_json
@with_config
@click.pass_obj
def command(output: Output, token: str, documents: tuple[str, ...]) -> int:
    """Find the task of a submission that may or may not have arrived.

    TOKEN is the recovery token that submit printed. If you give the DOCUMENT too, a submission that reached the vendor
    without it is completed.
    """
    with output.signals.reporting(output.stopped):
        uncertain = SubmitUncertain("the vendor may or may not have accepted it", recovery_token=_parse(token))
        client = open_client(output, str(uncertain.recovery_token["connection"]))
        given: Any = list(documents) if len(documents) > 1 else next(iter(documents), None)
        with output.signals.raising():
            task = client.recover(uncertain, given)
        if task is None:
            raise TaskNotFound("the vendor does not have the submission, or does not list it yet: retry in a minute")
        output.outcome(Outcome(task.ref, task))
    client.close()
    return DONE


def _parse(text: str) -> Mapping[str, Any]:
    try:
        token: object = json.loads(text)
    except ValueError:
        token = None
    if not isinstance(token, dict) or "connection" not in token:
        raise InvalidInput("TOKEN is the recovery token that submit printed: a JSON object in quotes")
    return cast("Mapping[str, Any]", token)
