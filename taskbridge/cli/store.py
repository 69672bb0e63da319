"""``store``: create, upgrade and check the database of a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from taskbridge.cli.exit_codes import DONE, USAGE
from taskbridge.cli.options import with_json
from taskbridge.cli.store_options import open_existing_store, open_store, with_store
from taskbridge.errors import ConfigError, printable

if TYPE_CHECKING:
    from taskbridge.cli.output import Output
    from taskbridge.store import Account, Store


@click.group(name="store", invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> int:
    """Create, upgrade and check a store."""
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
