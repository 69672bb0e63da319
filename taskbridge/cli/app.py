"""The command group, and from signals, streams and errors to exit codes.

Click's own ``main`` is not used: it answers Ctrl-C and a closed output with exit code 1, which here means that a task
failed.
"""

from __future__ import annotations

import os
import sys
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Final

import click

from taskbridge import __version__
from taskbridge.cli.exit_codes import BROKEN, CLOSED, DONE, MEANINGS, USAGE, code_of
from taskbridge.cli.options import WIDTH, with_config
from taskbridge.cli.output import Output
from taskbridge.cli.signals import Interrupted, Signals
from taskbridge.errors import TaskbridgeError

if TYPE_CHECKING:
    from collections.abc import Sequence

# Each is `command` in the module of its name.
COMMANDS: Final = (
    "account",
    "cancel",
    "compare",
    "completion",
    "config",
    "delete",
    "demo",
    "doctor",
    "download",
    "emulate",
    "events",
    "explain",
    "get",
    "init",
    "list",
    "listen",
    "new-provider",
    "operations",
    "providers",
    "recover",
    "restart",
    "result",
    "retry",
    "run",
    "serve",
    "store",
    "submit",
    "wait",
    "watch",
    "webhooks",
)
COMPLETION_VARIABLE: Final = "_TASKBRIDGE_COMPLETE"  # click's variable for shell completion


class LazyGroup(click.Group):
    """Imports the module of a command when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # as above
        """Import and return a command; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"taskbridge.cli.{cmd_name.replace('-', '_')}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command to run, or name the nearest one."""
        name = args[0]
        near = get_close_matches(name, COMMANDS, 1)
        if name not in COMMANDS and near and not ctx.resilient_parsing:
            ctx.fail(f"No such command {name!r}; did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)


def _exit_codes() -> str:
    rows = (f"  {code:>3}  {meaning}" for code, meaning in MEANINGS.items())
    return "\b\nExit codes:\n" + "\n".join(rows) + "\nOf several, the highest of 0 to 5."


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDTH},
    epilog=_exit_codes(),
)
@click.version_option(__version__, prog_name="taskbridge", message="%(prog)s %(version)s")
@with_config
@click.pass_context
def app(ctx: click.Context) -> int:
    """One interface over the asynchronous task APIs of document vendors.

    A REF is connection:id, such as invoices:44, with a connection of the configuration; a bare id belongs to the
    default connection. Keys come from the configuration and the environment, never from the command line.
    """
    if ctx.invoked_subcommand is not None:
        return DONE
    output: Output = ctx.obj
    output.note(ctx.get_help())
    return USAGE


def run(args: Sequence[str], signals: Signals) -> int:
    """Run a command.

    Returns:
        The exit code.
    """
    output = Output(as_json="--json" in args, signals=signals)
    try:
        return signals.exit_code(_invoke(list(args), output))
    except Interrupted as stop:
        return stop.code
    except BrokenPipeError:
        _discard_stdout()
        return signals.exit_code(CLOSED)
    except OSError as error:
        if signals.received is None:
            from taskbridge._engine.error_text import os_error_text  # noqa: PLC0415  # rarely needed

            output.note(f"taskbridge: {os_error_text(error)}")
    except Exception:  # noqa: BLE001  # Python's exit code for a bug would be 1, which means a failed task
        if signals.received is None:
            import traceback  # noqa: PLC0415  # rarely needed

            traceback.print_exc()
    _discard_stdout()
    return signals.exit_code(BROKEN)


def _invoke(args: list[str], output: Output) -> int:
    try:
        if instruction := os.environ.get(COMPLETION_VARIABLE):
            from click.shell_completion import shell_complete  # noqa: PLC0415  # only for shells

            return shell_complete(app, {}, "taskbridge", COMPLETION_VARIABLE, instruction)
        with app.make_context("taskbridge", args, obj=output) as context:
            code: int = app.invoke(context)
            return code
    except click.exceptions.Exit as end:
        return end.exit_code or DONE
    except click.ClickException as error:
        output.signals.check()
        failed = error.ctx if isinstance(error, click.UsageError) else None
        output.usage_error(error.format_message(), "taskbridge" if failed is None else failed.command_path)
        return USAGE
    except TaskbridgeError as error:
        output.signals.check()
        output.error(error)
        return code_of(error)


def _discard_stdout() -> None:
    """Discard what is still buffered, so that the interpreter does not complain at exit."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        return  # stdout has no file descriptor
