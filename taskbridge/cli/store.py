"""``store``: create, upgrade, check, adopt and prune the database of a store."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from taskbridge.cli.exit_codes import DONE, USAGE
from taskbridge.cli.options import parse_age, with_json
from taskbridge.cli.store_options import open_existing_store, open_store, with_store
from taskbridge.errors import ConfigError, printable

if TYPE_CHECKING:
    from datetime import timedelta

    from taskbridge.cli.output import Output
    from taskbridge.store import Account, Store


@click.group(name="store", invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> int:
    """Create, upgrade, check, adopt and prune a store."""
    if ctx.invoked_subcommand is None:
        ctx.obj.note(ctx.get_help())
        return USAGE
    return DONE


@command.command()
@with_store
@with_json
@click.pass_obj
def init(output: Output, store: str) -> int:
    """Create the tables of a store; one that exists stays as it is."""
    with output.signals.reporting(output.stopped), open_store(store) as opened:
        _show(output, opened, "is ready")
    return DONE


@command.command()
@with_store
@with_json
@click.pass_obj
def upgrade(output: Output, store: str) -> int:
    """Upgrade the tables of a store to this version of taskbridge.

    Every command does so when it opens a store. Stop processes of an older version before, and make a backup.
    """
    with output.signals.reporting(output.stopped), open_existing_store(store) as opened:
        _show(output, opened, "is up to date")
    return DONE


@command.command()
@with_store
@with_json
@click.pass_obj
def check(output: Output, store: str) -> int:
    """Check a store for damage, and print what it has for each connection."""
    with output.signals.reporting(output.stopped), open_existing_store(store) as opened:
        problems = _damage(opened)
        accounts = opened.accounts()
        if problems:
            raise ConfigError(f"the store {opened.database.name} is damaged: {'; '.join(problems)}; restore a backup")
        if output.as_json:
            output.record({"store": opened.database.name, "accounts": [_record(each) for each in accounts]})
            return DONE
        output.line(f"{opened.database.name} has no damage")
        for each in accounts:
            counts = [*each.watches.items(), *each.submissions.items()]
            shown = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts) or "empty"
            output.line(f"  {each.connection}: {shown}; owner: {printable(each.owner or 'none yet', 200)}")
    return DONE


@command.command()
@with_store
@click.option("--connection", metavar="NAME", help="Only this connection; default: all.")
@with_json
@click.pass_obj
def adopt(output: Output, store: str, connection: str | None) -> int:
    """Accept a store that lacks the last changes, as after a failover or from a backup.

    Check before what the vendors have of its planned submissions: they may have been sent.
    """
    with output.signals.reporting(output.stopped), open_existing_store(store) as opened:
        for name in opened.adopt(connection):
            if output.as_json:
                output.record({"connection": name, "adopted": True})
            else:
                output.line(f"adopted {printable(name, 200)}")
    return DONE


@command.command()
@with_store
@click.option(
    "--older-than",
    "age",
    callback=parse_age,
    required=True,
    metavar="AGE",
    help="What is newer stays: such as 30d, 12h, 45m or 90s.",
)
@click.option("--unread", is_flag=True, help="Remove events also while no consumer has ever acknowledged one.")
@with_json
@click.pass_obj
def prune(output: Output, store: str, age: timedelta, *, unread: bool) -> int:
    """Remove events that all consumers have acknowledged, and what has ended.

    What is open, uncertain or given up stays, and so do the submissions of a run. A key whose submission was removed is
    submitted again if it is used again.
    """
    with output.signals.reporting(output.stopped), open_existing_store(store) as opened:
        removed = asdict(opened.prune(age, unread=unread))
        if output.as_json:
            output.record({"removed": removed})
        else:
            output.line(f"removed {', '.join(f'{count} {name}' for name, count in removed.items())}")
    return DONE


def _show(output: Output, store: Store, word: str) -> None:
    from taskbridge.store.schema import HEAD  # noqa: PLC0415  # an extra

    name = store.database.name
    if output.as_json:
        output.record({"store": name, "revision": HEAD})
    else:
        output.line(f"{name} {word} (tables of revision {HEAD})")


def _damage(store: Store) -> list[str]:
    """Return what the database itself says is wrong with its file; a server's database is checked by its own tools."""
    with store.database.reading() as opened:
        if opened.dialect.name != "sqlite":
            return []
        found = [str(row[0]) for row in opened.exec_driver_sql("PRAGMA quick_check(5)")]
        orphans = len(opened.exec_driver_sql("PRAGMA foreign_key_check").all())
    problems = [printable(each, 200) for each in found if each != "ok"]
    return [*problems, *([f"{orphans} rows refer to missing ones"] if orphans else [])]


def _record(account: Account) -> dict[str, Any]:
    return {
        "connection": account.connection,
        "owner": account.owner,
        "problem": account.problem,
        "watches": {state.value: count for state, count in account.watches.items()},
        "submissions": {phase.value: count for phase, count in account.submissions.items()},
    }
