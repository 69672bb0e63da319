"""``list``: list the tasks at a vendor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from taskbridge.cli.exit_codes import DONE
from taskbridge.cli.formatting import detail_text
from taskbridge.cli.options import connection_argument, open_client, parse_pairs, with_config, with_json
from taskbridge.cli.records import outcome_record
from taskbridge.errors import ConfigError, printable
from taskbridge.models import Outcome, TaskStatus

if TYPE_CHECKING:
    from taskbridge.cli.output import Output


@click.command(name="list")
@connection_argument
@click.option(
    "--status",
    type=click.Choice([each.value for each in TaskStatus]),
    help="Only these; if the vendor cannot filter by status, every page is fetched and filtered here.",
)
@click.option("--limit", type=click.IntRange(0), default=50, show_default=True, help="Most tasks to list; 0 for all.")
@click.option(
    "--filter", "filters", multiple=True, callback=parse_pairs, metavar="NAME=VALUE", help="A filter of the vendor."
)
@with_json
@with_config
@click.pass_obj
def command(output: Output, connection: str | None, status: str | None, limit: int, filters: dict[str, Any]) -> int:
    """List the tasks at a vendor, in the vendor's order."""
    with output.signals.reporting(output.stopped):
        if names := {"status", "limit", "self"} & set(filters):
            raise ConfigError(f"--filter takes the vendor's filters; {min(names)!r} is none: see --status and --limit")
        client = open_client(output, connection)
        with client, output.signals.raising():
            for task in client.list(status, limit=limit or None, **filters):
                if output.as_json:
                    output.record(outcome_record(Outcome(task.ref, task)))
                else:
                    created = f"{task.created_at:%Y-%m-%d %H:%M} UTC" if task.created_at else "-"
                    output.line(f"{printable(task.ref, 600)}  {created:<20}  {task.status:<10}  {detail_text(task)}")
    return DONE
