"""``watch``: store that tasks are to be watched until they end."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from taskbridge.cli.exit_codes import DONE
from taskbridge.cli.options import (
    parse_pairs,
    parse_seconds,
    read_refs,
    refs_argument,
    warn_of_missing_connections,
    with_config,
    with_json,
)
from taskbridge.cli.store_options import open_store, with_store

if TYPE_CHECKING:
    from taskbridge.cli.output import Output


@click.command(name="watch")
@refs_argument
@with_store
@click.option(
    "--for",
    "seconds",
    callback=parse_seconds,
    default="none",
    show_default=True,
    metavar="SECONDS",
    help="When to give up; 'none' for never.",
)
@click.option(
    "--meta",
    multiple=True,
    callback=parse_pairs,
    metavar="NAME=VALUE",
    help="Data of your own, which events repeat; the value is JSON where possible. May be repeated.",
)
@with_json
@with_config
@click.pass_obj
def command(output: Output, refs: tuple[str, ...], store: str, seconds: float | None, meta: dict[str, Any]) -> int:
    """Store that tasks are to be watched; the process that owns their connection polls them.

    Returns at once, and sends nothing: `taskbridge serve` does the work, and `taskbridge events` prints what happened.
    A dash instead of a REF reads refs from standard input, one per line.
    """
    with output.signals.reporting(output.stopped):
        found = read_refs(output, refs)
        with open_store(store) as opened:
            until = None if seconds is None else opened.clock.now() + timedelta(seconds=seconds)
            with opened.begin() as tx:
                stored = [tx.watch(ref, meta=meta or None, until=until) for ref in found]
        warn_of_missing_connections(output, stored)
    for ref in stored:
        if output.as_json:
            output.record({"ref": ref, "watched": True})
        else:
            output.line(ref)
    return DONE
