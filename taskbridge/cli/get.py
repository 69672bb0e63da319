"""``get``: ask for the status of tasks once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from taskbridge.cli.exit_codes import DONE, outcome_code
from taskbridge.cli.options import hide_warnings, open_refs, refs_argument, with_config, with_json
from taskbridge.errors import AuthenticationError, TaskbridgeError
from taskbridge.models import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from taskbridge.cli.output import Output
    from taskbridge.client import Bridge
    from taskbridge.models import TaskRef


@click.command(name="get")
@refs_argument
@with_json
@with_config
@click.pass_obj
def command(output: Output, refs: tuple[str, ...]) -> int:
    """Get tasks once and print their current state.

    A dash instead of a REF reads refs from standard input, one per line; it takes the output of `list --json`, too.
    """
    worst = DONE
    with output.signals.reporting(output.stopped):
        bridge, opened = open_refs(output, refs)
        if len(opened) == 1:
            hide_warnings()
        with bridge, output.signals.raising():
            for outcome in _outcomes(bridge, opened):
                output.signals.check()  # else its error may be the signal's
                output.outcome(outcome)
                if len(opened) > 1 and outcome.task is not None and not output.as_json:
                    output.line()
                worst = max(worst, outcome_code(outcome))
    return worst


def _outcomes(bridge: Bridge, refs: Sequence[TaskRef]) -> Iterator[Outcome]:
    refused: dict[str, TaskbridgeError] = {}  # a refused key is not tried again for each task
    for ref in refs:
        try:
            if ref.connection in refused:
                yield Outcome(ref, None, refused[ref.connection].again(ref=ref))
            else:
                yield Outcome(ref, bridge.get(ref))
        except AuthenticationError as error:
            refused[ref.connection] = error
            yield Outcome(ref, None, error.about(ref=ref))
        except TaskbridgeError as error:
            yield Outcome(ref, None, error.about(ref=ref))
