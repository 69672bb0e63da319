"""``operations``: list the operations of a vendor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from taskbridge.cli.exit_codes import DONE
from taskbridge.cli.options import connection_argument, open_client, with_config, with_json
from taskbridge.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskbridge.cli.output import Output
    from taskbridge.models import OperationInfo


@click.command(name="operations")
@connection_argument
@click.option("--name", metavar="NAME", help="Only the operation that the vendor calls so, with its options.")
@click.option("--from", "input_format", metavar="FORMAT", help="Only conversions from this format, with their options.")
@click.option("--into", "output_format", metavar="FORMAT", help="Only conversions to this format, with their options.")
@with_json
@with_config
@click.pass_obj
def command(
    output: Output, connection: str | None, name: str | None, input_format: str | None, output_format: str | None
) -> int:
    """List a vendor's operations and conversions, where the vendor lists them.

    An operation is submitted as native:NAME. Nothing is submitted here, and nothing costs.
    """
    with output.signals.reporting(output.stopped), open_client(output, connection) as client, output.signals.raising():
        found = client.operations(name, input_format=input_format, output_format=output_format)
        for each in found:
            if output.as_json:
                record = each.to_dict()
                del record["raw"]
                output.record(record)
            else:
                for line in _lines(each):
                    output.line(printable(line, 300))
    return DONE


def _lines(operation: OperationInfo) -> Iterator[str]:
    formats = [operation.input_format, operation.output_format]
    flags = {"deprecated": operation.deprecated, "experimental": operation.experimental}
    yield "  ".join(
        [
            operation.name,
            *([" > ".join(each or "any" for each in formats)] if any(formats) else []),
            *([f"({operation.engine})"] if operation.engine else []),
            *(flag for flag, is_set in flags.items() if is_set),
        ]
    )
    for option in operation.options:
        kind = f" ({option.type})" if option.type else ""
        default = f", default {option.default}" if option.default is not None else ""
        choices = f", one of {', '.join(map(str, option.choices))}" if option.choices else ""
        yield f"    {option.name}{kind}{default}{choices}"
