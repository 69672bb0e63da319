"""``webhooks``: list, add and remove the webhooks of an account."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from taskbridge.cli.exit_codes import DONE
from taskbridge.cli.options import connection_argument, open_client, with_config, with_connection, with_json
from taskbridge.errors import printable

if TYPE_CHECKING:
    from taskbridge.cli.output import Output
    from taskbridge.models import WebhookEndpoint


@click.group(name="webhooks")
def command() -> None:
    """List, add and remove the webhooks of an account, where the vendor's API can."""


@command.command(name="list")
@connection_argument
@with_json
@with_config
@click.pass_obj
def list_(output: Output, connection: str | None) -> int:
    """List the webhooks of an account. Their secrets are not shown."""
    with output.signals.reporting(output.stopped), open_client(output, connection) as client, output.signals.raising():
        for webhook in client.webhooks():
            if output.as_json:
                output.record(_record(webhook))
            else:
                flags = {"disabled": webhook.disabled, "failing": webhook.failing}
                words = [webhook.id, webhook.url, ",".join(webhook.events), *(flag for flag in flags if flags[flag])]
                output.line(printable("  ".join(words), 600))
    return DONE


@command.command()
@click.argument("url", metavar="URL")
@with_connection
@click.option("--event", "events", multiple=True, metavar="EVENT", help="An event to send; default: all.")
@with_json
@with_config
@click.pass_obj
def add(output: Output, url: str, *, connection: str | None, events: tuple[str, ...]) -> int:
    """Add a webhook and print its signing secret, which belongs in webhook_secrets."""
    with output.signals.reporting(output.stopped), open_client(output, connection) as client, output.signals.raising():
        webhook = client.add_webhook(url, events or None)
        if output.as_json:
            output.record({**_record(webhook), "secret": webhook.secret})
        else:
            output.line(f"{printable(webhook.id, 100)}  {printable(webhook.secret or 'no secret', 300)}")
    return DONE


@command.command()
@click.argument("webhook", metavar="ID")
@with_connection
@with_json
@with_config
@click.pass_obj
def remove(output: Output, webhook: str, *, connection: str | None) -> int:
    """Remove a webhook."""
    with output.signals.reporting(output.stopped), open_client(output, connection) as client, output.signals.raising():
        client.remove_webhook(webhook)
        if output.as_json:
            output.record({"id": webhook, "removed": True})
        else:
            output.line(f"{printable(webhook, 100)}  removed")
    return DONE


def _record(webhook: WebhookEndpoint) -> dict[str, Any]:
    record = webhook.to_dict()
    del record["raw"], record["secret"]
    return record
