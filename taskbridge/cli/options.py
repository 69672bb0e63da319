"""The options and arguments that several commands take. No option takes a key."""

from __future__ import annotations

from typing import Final

import click

from taskbridge.cli.completion import complete_refs

__all__ = ["WIDTH", "chosen_config", "number_of_seconds", "with_config", "with_json", "with_refs", "with_timeout"]

_CONFIG: Final = "taskbridge.config"  # where the path is kept, wherever on the line it was given
_LONGEST: Final = 366 * 86_400.0  # seconds of a wait; beyond that, none
WIDTH: Final = 80  # columns of the help


def number_of_seconds(_ctx: click.Context, _param: click.Parameter, value: str) -> float | None:
    """A number of seconds; None for ``none``."""
    if value == "none":
        return None
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 < number <= _LONGEST:  # nor not-a-number
        raise click.BadParameter(f"{value!r} is no number of seconds above 0 (or 'none', to wait without a limit).")
    return number


def _keep_config(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.meta[_CONFIG] = value


def chosen_config() -> str | None:
    """The path that was given with ``--config``, wherever on the line."""
    path: str | None = click.get_current_context().meta.get(_CONFIG)
    return path


with_config = click.option(
    "--config",
    metavar="PATH",
    expose_value=False,
    callback=_keep_config,
    help="The configuration; else TASKBRIDGE_CONFIG, ./taskbridge.toml, and the user's folder are looked at.",
)
# The screen knows already: errors of this very line are told in JSON too.
with_json = click.option("--json", is_flag=True, expose_value=False, help="One JSON object a line, errors too.")
with_timeout = click.option(
    "--timeout",
    callback=number_of_seconds,
    default="900",
    show_default=True,
    metavar="SECONDS",
    help="How long to wait; 'none' for no limit.",
)
with_refs = click.argument("refs", nargs=-1, required=True, metavar="REF...", shell_complete=complete_refs)
