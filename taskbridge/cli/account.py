"""``account``: show how much is left on the account of a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from taskbridge.cli.exit_codes import DONE
from taskbridge.cli.options import connection_argument, open_client, with_config, with_json
from taskbridge.errors import printable
from taskbridge.models import usage_text

if TYPE_CHECKING:
    from taskbridge.cli.output import Output


@click.command(name="account")
@connection_argument
@with_json
@with_config
@click.pass_obj
def command(output: Output, connection: str | None) -> int:
    """Show how much is left on the account of a connection, where the vendor says so."""
    with output.signals.reporting(output.stopped), open_client(output, connection) as client, output.signals.raising():
        account = client.account()
        if output.as_json:
            record = account.to_dict()
            del record["raw"]
            output.record(record)
        else:
            name = f" ({printable(account.name, 200)})" if account.name else ""
            balance, unit = account.balance, account.unit
            left = "balance unknown" if balance is None or unit is None else f"{usage_text({unit: balance})} left"
            output.line(f"{account.connection}{name}: {left}")
    return DONE
