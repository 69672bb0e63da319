"""``emulate``: run emulated vendors as a server."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from taskbridge.cli.exit_codes import DONE
from taskbridge.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskbridge.cli.output import Output
    from taskbridge.emulator.shell import Emulator


@click.command(name="emulate")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address.")
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="0, the default, picks a free port.")
@click.option("--speed", type=float, default=1.0, show_default=True, help="Vendor seconds per second.")
@click.option(
    "--json", is_flag=True, expose_value=False, help="Two JSON lines: settings by vendor, then samples and control."
)
@click.pass_obj
def command(output: Output, names: tuple[str, ...], host: str, port: int, speed: float) -> int:
    """Run emulated vendors on this machine until Ctrl-C.

    Without names, runs all that are installed. Once they are ready, prints a configuration for them, sample tasks, and
    how to control them over HTTP.
    """
    emulator = make_emulator(names, host=host, port=port, speed=speed)
    problem = ""
    try:
        with output.signals.raising():
            emulator.serve(lambda: _announce(output, emulator))
    except (RuntimeError, ValueError) as error:
        problem = str(error)
    if problem:
        raise ConfigError(problem)
    return DONE


def make_emulator(names: Sequence[str] = (), *, host: str = "127.0.0.1", port: int = 0, speed: float = 1.0) -> Emulator:
    """Return an emulator that is not started yet.

    Raises:
        ConfigError: The extra is missing, a name is unknown, or the host is not a loopback address.
    """
    from taskbridge.emulator import Emulator  # noqa: PLC0415  # an extra

    problem = ""
    try:
        return Emulator(*names, host=host, port=port, speed=speed)
    except (RuntimeError, ValueError, ImportError, TypeError) as error:
        problem = str(error)
    raise ConfigError(problem)


def _announce(output: Output, emulator: Emulator) -> None:
    from taskbridge.emulator.export import config_toml, connections_json, samples_json  # noqa: PLC0415  # as above

    if output.as_json:
        output.line(connections_json(emulator))
        output.line(samples_json(emulator))
        return
    output.line(f"# Emulated vendors are running at {emulator.base_url} until Ctrl-C. As taskbridge.toml:")
    output.line()
    output.line(config_toml(emulator).rstrip("\n"))
    if not sys.stdout.isatty():  # stdout goes to a file: say on the terminal that they are running
        output.note(f"taskbridge: emulated vendors are running at {emulator.base_url} until Ctrl-C")
