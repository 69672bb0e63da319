"""The command that compares two connections, and its options."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from taskbridge.cli.completion import complete_connections
from taskbridge.cli.options import chosen_config, with_config, with_json, with_timeout

if TYPE_CHECKING:
    from taskbridge.cli.screen import Screen

__all__ = ["compare"]


@click.command()
@click.argument("old", metavar="A", shell_complete=complete_connections)
@click.argument("new", metavar="B", shell_complete=complete_connections)
@click.argument("documents", nargs=-1, required=True, metavar="DOCUMENT...")
@click.option("--operation", default="extract-text", show_default=True, metavar="NAME", help="What is asked of both.")
@with_timeout
@with_json
@with_config
@click.pass_obj
def compare(
    screen: Screen, /, old: str, new: str, *, documents: tuple[str, ...], operation: str, timeout: float | None
) -> int:
    """Show what two vendors make of the same documents.

    Both connections get them. Shown is how long each took, by which words of its vendor, what it made or why not, and
    where two texts differ. Both vendors really do the work, and count it. 0 means that every document was completed by
    both, however alike they are.
    """
    from taskbridge.cli.compare import compare as rehearse  # noqa: PLC0415  # pydantic

    return rehearse(screen, (old, new), documents, operation, timeout=timeout, config=chosen_config())
