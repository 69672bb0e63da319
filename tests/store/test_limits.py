"""Clients of several processes that share the limits of a connection with its owner, over real HTTP."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Final

import pytest
from sqlalchemy import event, select, text, update
from sqlalchemy.exc import OperationalError

import taskbridge as tb
from taskbridge.emulator.export import config_toml
from taskbridge.store.schema import ACCOUNT, LIMITS
from taskbridge.testing import Emulator

from .conftest import until
from .postgresql import Cluster

RATE: Final = 10.0
NAME: Final = "cloudconvert"

CLIENT: Final = """
import sys, threading, time, taskbridge as tb
url, config, task, seconds = sys.argv[1:5]
with tb.Store(url) as store, tb.connect(connection="cloudconvert", config=config, limits=store.limits) as client:
    client.get(task)
    print("ready", flush=True)
    end = time.monotonic() + float(seconds)
    def work():
        while time.monotonic() < end:
            client.get(task)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads: each.start()
    for each in threads: each.join()
"""


@dataclass(frozen=True, slots=True)
class Vendor:
    """An emulated vendor with two tasks.

    Attributes:
        emulator: The emulator; its seconds are real ones.
        config: A configuration with a rate.
        wrong: The same with a wrong key.
        polled: A task that does not end, which the owner polls.
        asked: A task that clients ask for.
    """

    emulator: Emulator
    config: Path
    wrong: Path
    polled: str
    asked: str

    @property
    def ref(self) -> str:
        """The ref of the task that the owner polls."""
        return f"{NAME}:{self.polled}"

    def times(self, task: str = "") -> list[float]:
        """When requests arrived, in seconds; all of them, or those about a task."""
        return sorted(each.time for each in self.emulator.requests if task in each.path)


@pytest.fixture
def vendor(tmp_path: Path) -> Iterator[Vendor]:
    with Emulator(NAME) as running:
        config, wrong = tmp_path / "taskbridge.toml", tmp_path / "wrong.toml"
        limits = f'requests_per_second = {RATE}\npoll.interval = 0.05\nretry.first = 0.05\nprovider = "'
        config.write_text(config_toml(running).replace('provider = "', limits), encoding="utf-8")
        wrong.write_text(config.read_text().replace(running.settings(NAME)["api_key"], "another-key-123"))
        samples = running.samples()
        yield Vendor(running, config, wrong, samples["waiting-upload"], samples["completed"])


@pytest.fixture
def client(store: tb.Store, vendor: Vendor) -> Iterator[tb.Client]:
    with tb.connect(connection=NAME, config=vendor.config, limits=store.limits) as opened:
        yield opened


@pytest.fixture
def other(store_url: str, store: tb.Store, vendor: Vendor) -> Iterator[tb.Client]:
    """A client of another process, as far as the store can tell."""
    assert store.database.name  # its tables exist
    with (
        tb.Store(store_url) as opened,
        tb.connect(connection=NAME, config=vendor.config, limits=opened.limits) as connected,
    ):
        yield connected


@contextmanager
def watching(store: tb.Store, vendor: Vendor) -> Generator[tb.Watcher]:
    """Poll a task, as the owner of the connection."""
    store.watch(vendor.ref)
    with tb.Watcher(store, config=vendor.config, interval=0.2) as watcher:
        until(lambda: store.find()[0].task)
        until(lambda: store.accounts()[0].status)
        yield watcher


def most(arrived: list[float], seconds: float) -> int:
    """The most requests within so many seconds."""
    return max(sum(first <= each < first + seconds for each in arrived) for first in arrived)


def assert_rate_is_kept(arrived: list[float]) -> None:
    for seconds in (1.0, 2.0, 4.0):
        assert most(arrived, seconds) <= RATE * seconds + RATE  # a second's worth may come at once


def ask_for(client: tb.Client, task: str, seconds: float, threads: int = 4) -> int:
    """Ask as fast as the limits permit; return how often."""
    end, count = monotonic() + seconds, [0] * threads

    def work(number: int) -> None:
        while monotonic() < end:
            client.get(task)
            count[number] += 1

    running = [threading.Thread(target=work, args=[number]) for number in range(threads)]
    for each in running:
        each.start()
    for each in running:
        each.join()
    return sum(count)


def pass_time(seconds: float) -> None:
    later = monotonic() + seconds
    until(lambda: monotonic() > later)


# The rate.


@pytest.mark.slow
def test_two_processes_and_a_watcher_keep_the_rate_and_polls_continue(
    store: tb.Store, store_url: str, vendor: Vendor
) -> None:
    words = [sys.executable, "-c", CLIENT, store_url, str(vendor.config), vendor.asked, "8"]
    with watching(store, vendor), ExitStack() as stack:
        started = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        clients = [stack.enter_context(each) for each in started]
        for each in clients:
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        vendor.emulator.clear_requests()
        for each in clients:
            each.communicate()
            assert each.returncode == 0
    assert_rate_is_kept(vendor.times())
    polls, gets = vendor.times(vendor.polled), vendor.times(vendor.asked)
    assert most(gets, 4.0) <= RATE / 2 * 4.0 + RATE
    assert len(gets) >= RATE / 2 * 8 * 0.7
    assert len(polls) >= RATE / 2 * 8 * 0.7


def test_two_clients_share_the_whole_rate_without_an_owner(client: tb.Client, other: tb.Client, vendor: Vendor) -> None:
    counts: list[int] = []
    second = threading.Thread(target=lambda: counts.append(ask_for(other, vendor.asked, 4.0)))
    second.start()
    counts.append(ask_for(client, vendor.asked, 4.0))
    second.join()
    assert_rate_is_kept(vendor.times())
    assert sum(counts) >= RATE * 4 * 0.7
    assert min(counts) >= RATE  # neither takes all


def test_an_owner_that_has_ended_leaves_the_rate_to_the_clients(
    store: tb.Store, client: tb.Client, vendor: Vendor
) -> None:
    with watching(store, vendor):
        pass
    with store.database.writing() as opened:  # two minutes later
        ago = {"status_at": ACCOUNT.c.status_at - 120.0, "owner_since": ACCOUNT.c.owner_since - 120.0}
        opened.execute(update(ACCOUNT).values(ago))
    vendor.emulator.clear_requests()
    assert ask_for(client, vendor.asked, 3.0) >= RATE * 3 * 0.8
    assert_rate_is_kept(vendor.times())


@pytest.mark.parametrize("requests", [1, 30])
def test_an_idle_client_sends_no_statement_and_a_busy_one_few(
    store: tb.Store, client: tb.Client, requests: int, vendor: Vendor
) -> None:
    statements: list[str] = []

    def count(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "taskbridge_limits" in statement:
            statements.append(statement)

    event.listen(store.database.engine, "before_cursor_execute", count)
    began = monotonic()
    for _ in range(requests):
        client.get(vendor.asked)
    transactions = sum("SELECT" in each for each in statements)
    assert 1 <= transactions <= (monotonic() - began) * 1.5 + 4
    statements.clear()
    pass_time(1.5)
    assert statements == []


def test_a_clock_that_was_set_back_stops_no_client(store: tb.Store, client: tb.Client, vendor: Vendor) -> None:
    client.get(vendor.asked)
    with store.database.writing() as opened:
        opened.execute(update(LIMITS).values(next_slot=LIMITS.c.next_slot + 86_400.0))
    pass_time(1.7)  # the slots of the first reservation are late
    client.get(vendor.asked)


def test_the_asynchronous_client_shares_and_keeps_its_event_loop_free(
    store: tb.Store, store_url: str, vendor: Vendor
) -> None:
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            before = monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, monotonic() - before)

    @contextmanager
    def locked() -> Generator[None]:
        with tb.Store(store_url) as blocking, blocking.database.writing() as opened:
            opened.execute(update(LIMITS).values(reserved=LIMITS.c.reserved))
            yield

    async def run() -> float:
        async with tb.aio.connect(connection=NAME, config=vendor.config, limits=store.limits) as client:
            await client.get(vendor.asked)
            await asyncio.sleep(1.7)
            began = monotonic()
            await asyncio.gather(*[client.get(vendor.asked) for _ in range(30)])
            took = monotonic() - began
            await asyncio.sleep(1.7)
            ticking = asyncio.create_task(tick())
            is_locked, released = threading.Event(), threading.Event()
            holding = asyncio.create_task(asyncio.to_thread(hold, is_locked, released))
            await asyncio.to_thread(is_locked.wait)
            waiting = asyncio.create_task(client.get(vendor.asked))
            await asyncio.sleep(0.8)
            assert not waiting.done()  # its reservation waits for the row
            released.set()
            await holding
            await waiting
            ticking.cancel()
            return took

    def hold(is_locked: threading.Event, released: threading.Event) -> None:
        with locked():
            is_locked.set()
            released.wait(10.0)

    assert asyncio.run(run()) >= 30 / RATE - 1.5
    assert_rate_is_kept(vendor.times())
    assert longest < 2.0  # the reservation would give up after three seconds


# Pauses.


def test_a_client_keeps_the_pause_that_the_owner_was_asked_for(
    store: tb.Store, client: tb.Client, vendor: Vendor
) -> None:
    with watching(store, vendor):
        vendor.emulator.fail_next(429, retry_after=4, path_contains=vendor.polled)
        until(lambda: "asked for a pause" in (store.explain(vendor.ref).problem or ""))
        (refused,) = [each.time for each in vendor.emulator.requests if each.status == 429]
        client.get(vendor.asked)
        (got,) = vendor.times(vendor.asked)
        assert got - refused >= 3.9


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_owner_and_other_clients_keep_the_pause_that_a_client_was_asked_for(
    store: tb.Store, other: tb.Client, vendor: Vendor, *, asynchronous: bool
) -> None:
    def get() -> tb.Task:
        with tb.connect(connection=NAME, config=vendor.config, limits=store.limits) as client:
            return client.get(vendor.asked)

    async def get_asynchronously() -> tb.Task:
        async with tb.aio.connect(connection=NAME, config=vendor.config, limits=store.limits) as client:
            return await client.get(vendor.asked)

    with watching(store, vendor):
        vendor.emulator.fail_next(429, retry_after=5, path_contains=vendor.asked)
        if asynchronous:
            first = threading.Thread(target=lambda: asyncio.run(get_asynchronously()))
        else:
            first = threading.Thread(target=get)
        first.start()
        until(lambda: "asked for a pause" in (store.explain(vendor.ref).problem or ""))
        (refused,) = [each.time for each in vendor.emulator.requests if each.status == 429]
        other.get(vendor.asked)
        first.join()
        got = vendor.times(vendor.asked)
        assert got[1] - refused >= 4.9
        assert not [each for each in vendor.times(vendor.polled) if refused + 1.0 < each < refused + 4.9]
        until(lambda: vendor.times(vendor.polled)[-1] > refused + 4.9)


# Refusals.


def test_a_refusal_of_the_owner_holds_for_clients(store: tb.Store, client: tb.Client, vendor: Vendor) -> None:
    store.watch(vendor.ref)
    with tb.Watcher(store, config=vendor.wrong, interval=0.2):
        until(lambda: "Unauthenticated" in (store.explain(vendor.ref).problem or ""))
        with pytest.raises(tb.AuthenticationError, match=r"another process: .*Unauthenticated"):
            client.get(vendor.asked)
    assert vendor.times(vendor.asked) == []
    with tb.connect(connection=NAME, config=vendor.config, limits=store.limits) as later:
        later.get(vendor.asked)  # a client that is opened afterwards may have another credential


def test_a_refusal_of_a_client_holds_for_the_owner_and_others_for_some_time(
    store: tb.Store, other: tb.Client, monkeypatch: pytest.MonkeyPatch, vendor: Vendor
) -> None:
    for place in ("taskbridge.store.limits._REFUSED", "taskbridge.store.watcher._REFUSED_PAUSE"):
        monkeypatch.setattr(place, 5.0)
    with watching(store, vendor):
        with (
            tb.connect(connection=NAME, config=vendor.wrong, limits=store.limits) as client,
            pytest.raises(tb.AuthenticationError, match="Unauthenticated"),
        ):
            client.get(vendor.asked)
        until(lambda: "Unauthenticated" in (store.explain(vendor.ref).problem or ""))
        pass_time(0.3)  # polls that were under way
        before = len(vendor.emulator.requests)
        with pytest.raises(tb.AuthenticationError, match="another process"):
            other.get(vendor.asked)
        pass_time(1.5)
        assert len(vendor.emulator.requests) == before
        assert store.find()[0].state == "open"
        until(lambda: len(vendor.emulator.requests) > before)
        until(lambda: store.explain(vendor.ref).problem is None)
        other.get(vendor.asked)
    with store.database.reading() as opened:
        assert "another-key-123" not in str(opened.execute(select(LIMITS)).all())


# Outages.


@pytest.mark.slow
def test_a_client_sends_nothing_while_the_owner_finds_the_vendor_away(store: tb.Store, vendor: Vendor) -> None:
    with watching(store, vendor):
        vendor.emulator.fail_next(500, times=1000, path_contains=vendor.polled)
        until(lambda: (status := store.accounts()[0].status) and status.outage_since)
        with tb.connect(connection=NAME, config=vendor.config, limits=store.limits, request_timeout=3.0) as client:
            with pytest.raises(tb.CircuitOpen, match="unreachable since"):
                client.get(vendor.asked)
            assert vendor.times(vendor.asked) == []
            vendor.emulator.clear_faults()
            until(lambda: (status := store.accounts()[0].status) and status.outage_since is None)
            client.get(vendor.asked)


# The database.


def failing(store: tb.Store, is_away: Callable[[], bool]) -> None:
    def fail(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if is_away() and "taskbridge_limits" in statement:
            raise OperationalError(statement, None, sqlite3.OperationalError("disk I/O error"))

    event.listen(store.database.engine, "before_cursor_execute", fail)


def test_without_the_database_a_client_goes_slowly_and_does_not_fail(
    store: tb.Store, client: tb.Client, caplog: pytest.LogCaptureFixture, vendor: Vendor
) -> None:
    failing(store, lambda: True)
    assert 2 <= ask_for(client, vendor.asked, 3.0) <= 10
    assert most(vendor.times(), 2.0) <= 4  # one a second
    assert caplog.text.count("does not share its limits") == 1
    assert "disk I/O error" in caplog.text
    assert "SELECT" not in caplog.text


@pytest.mark.slow
def test_a_client_continues_while_postgresql_is_away(
    postgres: Cluster, postgres_url: str, caplog: pytest.LogCaptureFixture, vendor: Vendor
) -> None:
    with (
        tb.Store(postgres_url) as store,
        tb.connect(connection=NAME, config=vendor.config, limits=store.limits) as client,
    ):
        client.get(vendor.asked)
        postgres.stop(immediate=True)
        assert ask_for(client, vendor.asked, 3.0) >= 2
        assert "does not share its limits" in caplog.text
        assert "not-to-be-shown" not in caplog.text
        postgres.start()
        pass_time(10.0)  # between two attempts
        assert ask_for(client, vendor.asked, 3.0) >= RATE * 3 * 0.6


@pytest.mark.slow
def test_a_database_that_hangs_holds_a_request_up_for_a_few_seconds(
    store_url: str, client: tb.Client, vendor: Vendor
) -> None:
    client.get(vendor.asked)
    with tb.Store(store_url) as blocking, blocking.database.writing() as opened:
        opened.execute(update(LIMITS).values(reserved=LIMITS.c.reserved))
        pass_time(1.7)
        began = monotonic()
        client.get(vendor.asked)
        assert 1.0 <= monotonic() - began <= 8.0
        began = monotonic()
        client.get(vendor.asked)
        assert monotonic() - began <= 3.0  # it is not tried again so soon


# A long transaction of a caller locks the account's row in PostgreSQL, and not the limits.


@pytest.mark.slow
def test_a_transaction_of_a_caller_holds_up_no_client(postgres_url: str, vendor: Vendor) -> None:
    with (
        tb.Store(postgres_url) as store,
        tb.connect(connection=NAME, config=vendor.config, limits=store.limits) as client,
        store.begin() as tx,
    ):
        tx.watch(vendor.ref)
        began = monotonic()
        client.get(vendor.asked)
        assert monotonic() - began < 1.0
        with store.database.reading() as opened:
            assert opened.execute(text("SELECT reserved FROM taskbridge_limits")).scalar() == 1


# What is refused.


def test_the_bridge_of_a_watcher_shares_no_limits(store: tb.Store, vendor: Vendor) -> None:
    async def run() -> None:
        async with tb.aio.Bridge.from_config(vendor.config, limits=store.limits) as bridge:
            with pytest.raises(tb.ConfigError, match="limits="):
                await tb.aio.Watcher(store, bridge).run()

    asyncio.run(run())


def test_a_bridge_shares_the_limits_of_each_connection(store: tb.Store, vendor: Vendor) -> None:
    with tb.Bridge.from_config(vendor.config, limits=store.limits) as bridge:
        bridge.get(f"{NAME}:{vendor.asked}")
    with store.database.reading() as opened:
        rows: list[Any] = list(opened.execute(select(LIMITS.c.connection, LIMITS.c.reserved)))
    assert rows == [(NAME, 1)]
    assert len(vendor.times(vendor.asked)) == 1
