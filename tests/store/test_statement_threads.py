"""The threads in which a watcher waits for the database: none holds up another connection, and none is left behind."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import psycopg
import pytest

import taskbridge as tb
from taskbridge.store import StoreUnavailable
from taskbridge.testing import Emulator

from .conftest import PNG, until
from .postgresql import Cluster

NAMES = [f"account-{number}" for number in range(6)]
*LOCKED, FREE = NAMES


@pytest.fixture
def accounts(config: Path, tmp_path: Path) -> Path:
    """A configuration with many connections of one vendor."""
    complete = config.read_text(encoding="utf-8")
    begin = complete.index("[connections.scan-documents]")
    section = complete[begin:].partition("\n[")[0]
    head = re.sub(r"(?m)^default = .*$", "", complete[: complete.index("[connections.")])
    path = tmp_path / "accounts.toml"
    sections = [section.replace("connections.scan-documents", f"connections.{name}") for name in NAMES]
    path.write_text("\n".join([head, *sections]), encoding="utf-8")
    return path


@pytest.fixture
def other(store: tb.Store, store_url: str) -> Iterator[tb.Store]:
    """The store, as another process has it."""
    assert store.database.name  # its tables exist
    with tb.Store(store_url) as opened:
        yield opened


def can_be_owned(store: tb.Store, name: str) -> bool:
    lock = store.database.owner_lock(name)
    try:
        return lock.take()
    finally:
        lock.release()


def waiting(url: str) -> int:
    """Return how many statements wait for a row that another transaction has locked."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with psycopg.connect(url, autocommit=True) as monitor:
        row = monitor.execute(query.encode()).fetchone()
    return 0 if row is None else row[0]


def statement_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("taskbridge-store-account")]


def run_with_few_threads(work: Callable[[], Awaitable[None]]) -> None:
    """Run asynchronous work where asyncio's own threads are fewer than the connections, as they are on a computer."""

    async def run() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
        await work()

    asyncio.run(run())


async def reach(condition: Callable[[], object]) -> None:
    """Wait for a condition without a thread of asyncio."""
    end = monotonic() + 25.0  # before a statement gives up to wait for a row
    while not condition():
        assert monotonic() < end, "it took too long"
        await asyncio.sleep(0.02)


def test_a_watcher_that_is_cancelled_while_it_takes_connections_leaves_none_locked(
    store: tb.Store, other: tb.Store, accounts: Path
) -> None:
    async def work() -> None:
        async with tb.aio.Bridge.from_config(accounts) as bridge:
            with store.begin() as tx:
                for name in NAMES:
                    tx.watch(f"{name}:task_a")  # the accounts are locked until the block ends
                running = asyncio.create_task(tb.aio.Watcher(store, bridge, interval=0.05).run())
                await reach(lambda: sum(not can_be_owned(other, name) for name in NAMES) >= 2)
                running.cancel()
                for _ in range(20):
                    await asyncio.sleep(0)  # now everything that ends with it has begun to end
            with pytest.raises(asyncio.CancelledError):
                await running
            assert statement_threads() == []

    run_with_few_threads(work)
    assert [name for name in NAMES if not can_be_owned(other, name)] == []


def test_a_watcher_that_is_cancelled_while_the_program_uses_all_threads_leaves_no_connection_locked(
    store: tb.Store, other: tb.Store, accounts: Path
) -> None:
    async def work() -> None:
        loop, done = asyncio.get_running_loop(), threading.Event()
        async with tb.aio.Bridge.from_config(accounts) as bridge:
            watcher = tb.aio.Watcher(store, bridge, interval=0.05)
            running = asyncio.create_task(watcher.run())
            await reach(lambda: len(watcher.owned) == len(NAMES))
            used = [loop.run_in_executor(None, done.wait) for _ in range(2)]
            try:
                running.cancel()
                await asyncio.wait([running], timeout=25.0)
                assert running.cancelled()
                assert statement_threads() == []
                assert [name for name in NAMES if not can_be_owned(other, name)] == []
            finally:
                done.set()
                await asyncio.gather(*used)

    run_with_few_threads(work)


def test_a_watcher_whose_bridge_is_closed_before_it_owns_a_connection_leaves_none_locked(
    store: tb.Store, other: tb.Store, accounts: Path
) -> None:
    locks = [other.database.owner_lock(name) for name in NAMES]
    assert all(lock.take() for lock in locks)

    async def work() -> None:
        async with tb.aio.Bridge.from_config(accounts) as bridge:
            running = asyncio.create_task(tb.aio.Watcher(store, bridge, interval=0.05).run())
            await reach(lambda: len(statement_threads()) == len(NAMES))  # they compete
            await bridge.close()
            for lock in locks:
                lock.release()
            with pytest.raises(tb.ConfigError, match="closed"):
                await running
            assert statement_threads() == []

    run_with_few_threads(work)
    assert [name for name in NAMES if not can_be_owned(other, name)] == []


def test_a_wait_that_is_extended_while_the_owner_gives_it_up_continues(
    store: tb.Store, config: Path, emulator: Emulator
) -> None:
    waiting = f"cloudconvert:{emulator.samples('cloudconvert')['waiting-upload']}"
    passes, later = datetime.now(UTC) + timedelta(seconds=3), datetime.now(UTC) + timedelta(days=1)
    store.watch(waiting, until=passes)
    with tb.Watcher(store, config=config, connections=["cloudconvert"], interval=0.05):
        until(lambda: store.find()[0].task)
        with store.begin() as tx:
            tx.watch(waiting, until=later)  # the owner's writes wait until the block ends
            until(lambda: datetime.now(UTC) > passes + timedelta(seconds=1))
        polls = emulator.count("cloudconvert")
        until(lambda: emulator.count("cloudconvert") > polls + 2)
        assert [(each.state, each.until) for each in store.find()] == [("open", later)]
        assert list(store.events("test")) == []


# What only PostgreSQL has: rows that are locked one by one, and a server that hangs.


@pytest.mark.slow
def test_a_transaction_on_some_connections_holds_up_no_other(
    postgres_url: str, accounts: Path, emulator: Emulator, tmp_path: Path
) -> None:
    page = tmp_path / "page.png"
    page.write_bytes(PNG)
    processing = emulator.samples("scan-documents")["processing"]

    def lock(caller: psycopg.Connection[Any]) -> None:
        with store.begin(caller) as tx:
            for name in LOCKED:
                tx.watch(f"{name}:{processing}")

    async def work() -> None:
        async with tb.aio.Bridge.from_config(accounts) as bridge:
            watcher = tb.aio.Watcher(store, bridge, interval=0.05)
            with psycopg.connect(postgres_url) as caller:
                lock(caller)
                running = asyncio.create_task(watcher.run())
                store.submit(FREE, "extract-text", page, key="a")
                await reach(lambda: store.find(state="ended"))
                assert watcher.owned == {FREE}
                assert len(statement_threads()) <= len(NAMES)
            await reach(lambda: len(watcher.owned) == len(NAMES))
            with psycopg.connect(postgres_url) as caller:
                lock(caller)
                await reach(lambda: waiting(postgres_url) == len(LOCKED))  # what each owner reports from time to time
                store.submit(FREE, "extract-text", page, key="b")
                await reach(lambda: len(store.find(state="ended")) == 2)
                assert watcher.owned == set(NAMES)
            watcher.stop()
            await running
            assert statement_threads() == []

    with tb.Store(postgres_url) as store:
        run_with_few_threads(work)


@pytest.mark.slow
def test_threads_of_callers_that_wait_for_a_row_hold_up_no_owner(
    postgres_url: str, accounts: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.png"
    page.write_bytes(PNG)
    with tb.Store(postgres_url) as store, tb.Store(postgres_url) as other:
        with psycopg.connect(postgres_url) as caller:
            with store.begin(caller) as tx:
                tx.watch(f"{LOCKED[0]}:task_a")
            threads = [threading.Thread(target=store.watch, args=[f"{LOCKED[0]}:task_{n}"]) for n in range(40)]
            for thread in threads:
                thread.start()
            until(lambda: waiting(postgres_url) >= 30)
            with tb.Watcher(store, config=accounts, connections=[FREE], interval=0.05):
                other.submit(FREE, "extract-text", page, key="a")
                until(lambda: other.find(state="ended"), 20.0)
            caller.rollback()
            for thread in threads:
                thread.join()
        assert len(other.find(connection=LOCKED[0])) == 40


@pytest.mark.slow
@pytest.mark.parametrize("is_lost", [False, True])
def test_a_watcher_stops_while_the_database_hangs(
    postgres: Cluster,
    postgres_url: str,
    accounts: Path,
    is_lost: bool,
) -> None:
    with tb.Store(postgres_url) as store:
        store.watch(f"{FREE}:task_a")
        watcher = tb.Watcher(store, config=accounts, interval=0.05)
        watcher.start()
        until(lambda: len(watcher.owned) == len(NAMES))
        stopping = threading.Thread(target=watcher.stop, daemon=True)
        with postgres.frozen():
            if is_lost:
                until(lambda: not watcher.owned)
            begun = monotonic()
            stopping.start()
            stopping.join(30.0)
            assert not stopping.is_alive()
            assert monotonic() - begun < 13.0
            until(lambda: not statement_threads(), 1.0)


@pytest.mark.slow
def test_a_call_ends_while_the_database_hangs(
    postgres: Cluster, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from taskbridge.store import postgresql  # noqa: PLC0415  # needs psycopg, as the fixtures do

    monkeypatch.setattr(postgresql, "_ANSWER", 1.0)  # instead of a minute
    monkeypatch.setattr(postgresql, "_CONNECT", {"connect_timeout": 2})
    with tb.Store(postgres_url) as store:
        ref = store.watch("acme:a")
        with postgres.frozen():
            with pytest.raises(StoreUnavailable, match="does not answer"):
                store.watch("acme:b")
            with pytest.raises(StoreUnavailable, match="timeout"):  # on a new connection
                store.find()
        store.watch("acme:c")
        assert ref in [each.ref for each in store.find()]
