"""The commands about the life of a task: give it, list it, stop it, bring home what it made; and many at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from taskbridge.cli.completion import complete_connections
from taskbridge.cli.options import chosen_config, number_of_seconds, with_config, with_json, with_refs, with_timeout

if TYPE_CHECKING:
    from taskbridge.cli.screen import Screen
    from taskbridge.client import Bridge
    from taskbridge.models import Task, TaskRef

__all__ = ["VERBS"]

_connection = click.option(
    "--connection",
    metavar="NAME",
    shell_complete=complete_connections,
    help="A connection of the configuration; else its default.",
)
_options = click.option(
    "-o",
    "--option",
    "chosen",
    multiple=True,
    metavar="NAME=VALUE",
    help="The vendor's own option, as it is; a value is JSON where it can be. May be repeated.",
)


@click.command()
@click.argument("operation")
@click.argument("documents", nargs=-1, metavar="[DOCUMENT...]")
@_connection
@_options
@click.option("--external-id", metavar="ID", help="Your id of the order, where the vendor keeps one.")
@click.option("--callback-url", metavar="URL", help="Address that the vendor is to call, where it does.")
@click.option("--name", metavar="NAME", help="What the document is called at the vendor.")
@with_json
@with_config
@click.pass_obj
def submit(
    screen: Screen,
    /,
    operation: str,
    documents: tuple[str, ...],
    connection: str | None,
    chosen: tuple[str, ...],
    **order: Any,
) -> int:
    """Hand a document to a vendor, and show its task.

    OPERATION is a neutral name, such as extract-text, or the vendor's own as native:NAME. A DOCUMENT is a path or a
    URL; several are joined by operations that join. For many orders there is run.
    """
    from taskbridge.cli.doing import submit_one  # noqa: PLC0415  # pydantic
    from taskbridge.cli.inputs import options_of  # noqa: PLC0415  # pydantic

    return submit_one(
        screen,
        operation,
        documents,
        {"options": options_of(chosen), **order},
        connection=connection,
        config=chosen_config(),
    )


@click.command()
@click.argument("recovery_token")
@click.argument("documents", nargs=-1, metavar="[DOCUMENT...]")
@with_json
@with_config
@click.pass_obj
def recover(screen: Screen, recovery_token: str, documents: tuple[str, ...]) -> int:
    """Look for an order that may or may not have come in.

    CLUE is what submit told of it. With the DOCUMENT, an order that the vendor has without it is brought to its end.
    """
    from taskbridge.cli.doing import recover_one  # noqa: PLC0415  # pydantic

    return recover_one(screen, recovery_token, documents, chosen_config())


@click.command(name="list")
@click.argument("connection", required=False, metavar="[CONNECTION]", shell_complete=complete_connections)
@click.option(
    "--status",
    type=click.Choice(["pending", "processing", "completed", "failed"]),
    help="Only these; fetches every page on the way where the vendor cannot pick them out.",
)
@click.option("--limit", type=click.IntRange(0), default=50, show_default=True, help="Tasks at most; 0 for all.")
@click.option("--filter", "words", multiple=True, metavar="NAME=VALUE", help="A filter of the vendor's own.")
@with_json
@with_config
@click.pass_obj
def list_command(screen: Screen, connection: str | None, status: str | None, limit: int, words: tuple[str, ...]) -> int:
    """List the tasks at a vendor, in its order."""
    from taskbridge.cli.doing import list_tasks  # noqa: PLC0415  # pydantic
    from taskbridge.cli.inputs import options_of  # noqa: PLC0415  # pydantic

    return list_tasks(
        screen, connection, chosen_config(), status=status, limit=limit or None, filters=options_of(words)
    )


@click.command()
@with_refs
@with_json
@with_config
@click.pass_obj
def cancel(screen: Screen, refs: tuple[str, ...]) -> int:
    """Stop tasks. One that has ended already is shown as it is."""

    def act(bridge: Bridge, ref: TaskRef) -> Task | None:
        return bridge.cancel(ref)

    return _do(screen, refs, act)


@click.command()
@with_refs
@with_json
@with_config
@click.pass_obj
def retry(screen: Screen, refs: tuple[str, ...]) -> int:
    """Do tasks once more, each as a new task."""

    def act(bridge: Bridge, ref: TaskRef) -> Task | None:
        return bridge.retry(ref)

    return _do(screen, refs, act)


@click.command()
@with_refs
@click.option("--destructive", is_flag=True, help="Must be there: that loss is meant.")
@with_json
@with_config
@click.pass_obj
def restart(screen: Screen, refs: tuple[str, ...], *, destructive: bool) -> int:
    """Do tasks anew under their own ids. What they made, and what people changed in it, is lost."""

    def act(bridge: Bridge, ref: TaskRef) -> Task | None:
        return bridge.restart(ref, destructive=destructive)

    return _do(screen, refs, act)


@click.command()
@with_refs
@with_json
@with_config
@click.pass_obj
def delete(screen: Screen, refs: tuple[str, ...]) -> int:
    """Remove tasks, and what they made, at the vendor."""

    def act(bridge: Bridge, ref: TaskRef) -> Task | None:
        bridge.delete(ref)
        return None

    return _do(screen, refs, act)


def _do(screen: Screen, refs: tuple[str, ...], act: Any) -> int:
    from taskbridge.cli.doing import do_to_all  # noqa: PLC0415  # pydantic

    return do_to_all(screen, refs, chosen_config(), act)


@click.command()
@with_refs
@click.option("--to", default=".", show_default=True, metavar="DIR", help="The folder that the files go to.")
@click.option("--force", is_flag=True, help="Replace files that are there.")
@with_json
@with_config
@click.pass_obj
def download(screen: Screen, refs: tuple[str, ...], to: str, *, force: bool) -> int:
    """Bring home all that tasks made, and show the paths. A task that goes on is not waited for."""
    from taskbridge.cli.doing import download_all  # noqa: PLC0415  # pydantic

    return download_all(screen, refs, to, chosen_config(), force=force)


@click.command(name="run")
@click.argument("words", nargs=-1, metavar="OPERATION FILE...")
@click.option("--to", required=True, metavar="DIR", help="The folder for the results: a folder in it for each file.")
@_connection
@_options
@click.option("--files-from", metavar="LIST", help="A file that names more files, one a line; - for standard input.")
@click.option(
    "--max-in-flight",
    type=click.IntRange(1, 500),
    default=8,
    show_default=True,
    metavar="N",
    help="Files at the vendor at once.",
)
@click.option("--ledger", metavar="PATH", help="Where the run keeps account; else taskbridge-run.sqlite in DIR.")
@click.option("--resume", is_flag=True, help="Go on with the ledger, if it is there; the words may be left out.")
@click.option(
    "--resubmit-uncertain",
    is_flag=True,
    help="Send orders again that may have been taken, where the vendor has no way to look for them.",
)
@click.option(
    "--settle",
    callback=number_of_seconds,
    default="60",
    show_default=True,
    metavar="SECONDS",
    help="How long an order of unknown fate may take to show up at the vendor.",
)
@with_timeout
@with_json
@with_config
@click.pass_obj
def run(
    screen: Screen,
    /,
    *,
    words: tuple[str, ...],
    to: str,
    connection: str | None,
    files_from: str | None,
    max_in_flight: int,
    ledger: str | None,
    timeout: float | None,
    settle: float | None,
    **flags: Any,
) -> int:
    """Submit, wait and download for many files, keeping account.

    A FILE is a path, a folder (the files in it), a pattern, or a URL. One bad file never stops the others. Whatever
    ends the run, the same command with --resume goes on from its ledger, and no file is sent twice: an order of unknown
    fate is looked for first.
    """
    from taskbridge.cli.carrier import Rules  # noqa: PLC0415  # pydantic
    from taskbridge.cli.inputs import options_of  # noqa: PLC0415  # pydantic
    from taskbridge.cli.many import run_many  # noqa: PLC0415  # pydantic
    from taskbridge.cli.plan import Many  # noqa: PLC0415  # pydantic

    if not flags["resume"] and (not words or not (words[1:] or files_from)):
        raise click.UsageError("An operation and at least one file are needed.")
    rules = Rules(max_in_flight, timeout, _LONG if settle is None else settle, flags["resubmit_uncertain"])
    asked = Many(
        words=words,
        listed=files_from,
        to=to,
        connection=connection,
        options=options_of(flags["chosen"]),
        ledger=ledger,
        resume=flags["resume"],
        rules=rules,
        config=chosen_config(),
    )
    return run_many(screen, asked)


@click.command()
@click.argument("connection", required=False, metavar="[CONNECTION]", shell_complete=complete_connections)
@click.option("--port", type=click.IntRange(0, 65_535), default=8080, show_default=True, help="0 takes a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@with_json
@with_config
@click.pass_obj
def listen(screen: Screen, connection: str | None, port: int, host: str) -> int:
    """Receive, verify and show a vendor's webhooks.

    Until Ctrl-C. Each delivery is one line, with the HTTP status that it was answered with; what is not proved is
    refused, and what the proof does not cover is looked up. The vendor reaches this machine through a tunnel or a proxy
    of yours.
    """
    from taskbridge.cli.hear import hear_webhooks  # noqa: PLC0415  # pydantic, and h11

    return hear_webhooks(screen, connection, chosen_config(), host=host, port=port)


_LONG: Final = 86_400.0  # seconds of patience without a limit

VERBS: Final = (submit, recover, list_command, cancel, retry, restart, delete, download, run, listen)
