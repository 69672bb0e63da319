"""``restart``: re-run tasks under the same ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from taskbridge.cli.change_tasks import change_tasks
from taskbridge.cli.options import refs_argument, with_config, with_json

if TYPE_CHECKING:
    from taskbridge.cli.output import Output


@click.command(name="restart")
@refs_argument
@click.option("--destructive", is_flag=True, help="Required: confirms that existing results will be discarded.")
@with_json
@with_config
@click.pass_obj
def command(output: Output, refs: tuple[str, ...], *, destructive: bool) -> int:
    """Re-run tasks under the same ids; existing results are lost."""
    return change_tasks(output, refs, lambda bridge, ref: bridge.restart(ref, destructive=destructive))
