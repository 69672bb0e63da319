"""``delete``: delete tasks at the vendor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from taskbridge.cli.change_tasks import change_tasks
from taskbridge.cli.options import refs_argument, with_config, with_json

if TYPE_CHECKING:
    from taskbridge.cli.output import Output


@click.command(name="delete")
@refs_argument
@with_json
@with_config
@click.pass_obj
def command(output: Output, refs: tuple[str, ...]) -> int:
    """Delete tasks and their results at the vendor."""
    return change_tasks(output, refs, lambda bridge, ref: bridge.delete(ref))
