"""``events``: print what has happened in a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from taskbridge.cli.exit_codes import DONE
from taskbridge.cli.options import with_json
from taskbridge.cli.records import task_record
from taskbridge.cli.store_options import open_existing_store, with_store
from taskbridge.errors import printable

if TYPE_CHECKING:
    from typing import Any

    from taskbridge.cli.output import Output
    from taskbridge.store import Event

_READER: Final = "taskbridge events"  # acknowledges nothing, so that it reads from the beginning


@click.command(name="events")
@with_store
@click.option("--consumer", metavar="NAME", help="Acknowledge what was printed under this name, and print it once.")
@click.option("--connection", metavar="NAME", help="Only events of this connection.")
@click.option("--follow", is_flag=True, help="Wait for further events until Ctrl-C.")
@with_json
@click.pass_obj
def command(output: Output, store: str, consumer: str | None, connection: str | None, *, follow: bool) -> int:
    """Print what has happened: submissions, and ends of tasks.

    Without --consumer, prints all events that the store has. With it, prints those that the consumer has not
    acknowledged, and acknowledges each after it was printed.
    """
    with (
        output.signals.reporting(output.stopped),
        open_existing_store(store) as opened,
        output.signals.raising(),
    ):
        for event in opened.events(consumer or _READER, connection=connection, follow=follow):
            if output.as_json:
                output.record(_record(event))
            else:
                output.line(_line(event))
            if consumer is not None:
                event.ack()
    return DONE


def _line(event: Event) -> str:
    about = event.ref or f"{event.connection}, {event.submission!r}"
    status = "" if event.task is None else f"  {event.task.status}"
    error = event.error or (event.task.error.message if event.task is not None and event.task.error else "")
    text = f"{event.at:%Y-%m-%d %H:%M:%S}  {event.kind:<9}  {about}{status}"
    return printable(f"{text}  {error}" if error else text, 1000)


def _record(event: Event) -> dict[str, Any]:
    return {
        "key": event.key,
        "kind": event.kind.value,
        "connection": event.connection,
        "position": event.position,
        "at": event.at.isoformat(),
        "ref": event.ref,
        "submission": event.submission,
        "task": task_record(event.task),
        "error": event.error,
        "meta": event.meta,
    }
