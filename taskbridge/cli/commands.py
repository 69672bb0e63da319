"""The commands and their options. What a command does is imported when it runs; no option takes a key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from taskbridge import __version__
from taskbridge.cli.codes import MEANINGS, USAGE
from taskbridge.cli.comparison import compare
from taskbridge.cli.completion import complete_refs
from taskbridge.cli.options import (
    WIDTH,
    chosen_config,
    number_of_seconds,
    with_config,
    with_json,
    with_refs,
    with_timeout,
)
from taskbridge.cli.upkeep import completion, config, doctor, init, new_provider
from taskbridge.cli.verbs import VERBS

if TYPE_CHECKING:
    from taskbridge.cli.screen import Screen

__all__ = ["app"]


def _exit_codes() -> str:
    rows = (f"  {code:>3}  {meaning}" for code, meaning in MEANINGS.items())
    return "\b\nExit codes:\n" + "\n".join(rows) + "\nOf several, the highest of 0 to 5."


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDTH},
    epilog=_exit_codes(),
)
@click.version_option(__version__, prog_name="taskbridge", message="%(prog)s %(version)s")
@with_config
@click.pass_context
def app(ctx: click.Context) -> int:
    """One interface over the asynchronous task APIs of document vendors.

    A REF is connection:id, such as invoices:44, with a connection of the configuration; a bare id is of the default
    one. Keys come from the configuration and the environment, never from the command line.
    """
    if ctx.invoked_subcommand is not None:
        return 0
    screen: Screen = ctx.obj
    screen.note(ctx.get_help())
    return USAGE


@app.command()
@with_refs
@with_json
@with_config
@click.pass_obj
def get(screen: Screen, refs: tuple[str, ...]) -> int:
    """Look tasks up once, and show them as they are now.

    A dash instead of a REF reads refs from standard input, one a line.
    """
    from taskbridge.cli.look import get_all  # noqa: PLC0415  # pydantic

    return get_all(screen, refs, chosen_config())


@app.command()
@with_refs
@with_timeout
@with_json
@with_config
@click.pass_obj
def wait(screen: Screen, refs: tuple[str, ...], timeout: float | None) -> int:
    """Wait until all tasks have ended, and show each change.

    On a terminal a table that changes in place, elsewhere a line for each change. A wait that times out or is
    interrupted prints the command that resumes it: the tasks go on. A dash instead of a REF reads refs from standard
    input, one a line.
    """
    from taskbridge.cli.wait import wait_for  # noqa: PLC0415  # pydantic

    return wait_for(screen, refs, timeout, chosen_config())


@app.command()
@click.argument("ref", metavar="REF")
@with_timeout
@with_json
@with_config
@click.pass_obj
def result(screen: Screen, ref: str, timeout: float | None) -> int:
    """Show what a task made; waits for its end.

    Links to files are shown: whoever has a link has the file.
    """
    from taskbridge.cli.look import show_result  # noqa: PLC0415  # pydantic

    return show_result(screen, ref, timeout, chosen_config())


@app.command()
@click.argument("ref", metavar="REF", shell_complete=complete_refs)
@click.option(
    "--for",
    "seconds",
    callback=number_of_seconds,
    default="900",
    show_default=True,
    metavar="SECONDS",
    help="How long at most; 'none' for no limit.",
)
@click.option("--once", is_flag=True, help="One look and no more.")
@click.option("--requests", is_flag=True, help="Each request too: method, host, path, status, seconds.")
@with_json
@with_config
@click.pass_obj
def explain(screen: Screen, ref: str, seconds: float | None, *, once: bool, requests: bool) -> int:
    """Show each look at a task, and why it is made.

    A line for each: when, how it was learnt, the HTTP status, the vendor's word, and the next look with its reason.
    """
    from taskbridge.cli.explain import explain as run  # noqa: PLC0415  # pydantic

    return run(screen, ref, seconds, chosen_config(), once=once, requests=requests)


@app.command()
@with_json
@click.pass_obj
def providers(screen: Screen) -> int:
    """List the installed providers, and what is wrong."""
    from taskbridge.cli.listing import list_providers  # noqa: PLC0415  # pydantic

    return list_providers(screen)


@app.command()
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address, and no other.")
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="0, the default, takes a free one.")
@click.option("--speed", type=float, default=1.0, show_default=True, help="Vendor seconds per second.")
@click.option("--json", is_flag=True, expose_value=False, help="Two JSON lines: settings by vendor, then sample ids.")
@click.pass_obj
def emulate(screen: Screen, names: tuple[str, ...], host: str, port: int, speed: float) -> int:
    """Run emulated vendors on this machine, until Ctrl-C.

    Without names, all that are installed. Prints a configuration for them and sample tasks, once they answer.
    """
    from taskbridge.cli.emulate import serve  # noqa: PLC0415  # starlette

    return serve(screen, names, host=host, port=port, speed=speed)


@app.command()
@click.pass_obj
def demo(screen: Screen) -> int:
    """See it work, at four emulated vendors.

    Five tasks are watched side by side.
    """
    from taskbridge.cli.demo import play  # noqa: PLC0415  # starlette

    return play(screen)


for command in (compare, completion, config, doctor, init, new_provider, *VERBS):
    app.add_command(command)
