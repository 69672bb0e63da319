"""The failures of a store that need neither two owners nor a network of their own: disks, clocks, versions, outages.

`test_owners`, `test_postgresql` and `test_relay` have the others; `make test-kills` plays several at random.
"""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Final

import pytest
from sqlalchemy import event, text

import taskbridge as tb
from benchmarks.server import Connection
from taskbridge.provider.clock import SystemClock
from taskbridge.store import StoreUnavailable
from taskbridge.testing import Emulator

from .conftest import PNG, until
from .kills.vendor import Accounts
from .postgresql import Cluster


def kinds(store: tb.Store) -> Counter[str]:
    return Counter(each.kind for each in store.events("test"))


def submit(store: tb.Store, folder: Path, key: str) -> None:
    path = folder / f"{key}.png"
    path.write_bytes(PNG + key.encode())
    store.submit("scan-documents", "extract-text", path, key=key)


def created(emulator: Emulator) -> int:
    submits = [each for each in emulator.requests if each.method == "POST" and "-operations/" in each.path]
    return sum(each.status < 300 for each in submits)


# The database.


def test_a_database_that_goes_away_while_a_store_is_opened_is_an_outage(
    postgres: Cluster, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from taskbridge.store.postgresql import PostgresDatabase  # noqa: PLC0415  # needs psycopg, as the fixtures do

    real = PostgresDatabase.prepare

    def prepare(self: PostgresDatabase) -> None:
        postgres.stop(immediate=True)  # between the check of the server and that of the tables
        real(self)

    monkeypatch.setattr(PostgresDatabase, "prepare", prepare)
    with pytest.raises(StoreUnavailable, match="cannot be opened") as raised:
        tb.Store(postgres_url)
    assert raised.value.retryable
    postgres.start()


@pytest.mark.slow
def test_a_database_that_is_away_for_half_a_minute_loses_nothing(
    postgres: Cluster, postgres_url: str, config: Path, emulator: Emulator, tmp_path: Path
) -> None:
    with tb.Store(postgres_url) as store, tb.Watcher(store, config=config, interval=0.05) as watcher:
        for number in range(4):
            submit(store, tmp_path, f"page-{number}")
        until(lambda: kinds(store)["submitted"])
        postgres.stop(immediate=True)
        back = monotonic() + 30.0
        until(lambda: not watcher.owned)
        asked = len(emulator.requests)
        until(lambda: monotonic() > back, 60.0)
        assert len(emulator.requests) == asked  # an owner without its lock asks nothing
        postgres.start()
        until(lambda: kinds(store) == {"submitted": 4, "ended": 4}, 60.0)
        assert created(emulator) == 4


FULL_DISK = """
import resource, sys, time, taskbridge as tb
url, config, connection = sys.argv[1:4]
watcher = tb.Watcher(tb.Store(url), config=config, connections=[connection], interval=0.05)
watcher.start()
while not watcher.owned:
    time.sleep(0.01)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
print("owner", flush=True)
sys.stdin.readline()
resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))  # each write to a file fails, as on a full disk
print("full", flush=True)
while watcher.owned:
    time.sleep(0.01)
print("given up", flush=True)
sys.stdin.readline()
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
sys.stdin.readline()
watcher.stop()
"""


def test_an_owner_whose_disk_is_full_sends_nothing_until_it_can_write(
    tmp_path: Path, config: Path, emulator: Emulator
) -> None:
    path = tmp_path / "taskbridge.db"
    with tb.Store(path) as store:
        words = [sys.executable, "-B", "-c", FULL_DISK, str(path), str(config), "scan-documents"]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
            assert owner.stdin is not None
            assert owner.stdout is not None

            def go_on() -> None:
                assert owner.stdin is not None
                owner.stdin.write("\n")
                owner.stdin.flush()

            assert owner.stdout.readline() == "owner\n"
            go_on()
            assert owner.stdout.readline() == "full\n"
            submit(store, tmp_path, "page")
            # It reads the submission, cannot store that it sends it, and gives the connection up for a while.
            assert owner.stdout.readline() == "given up\n"
            assert created(emulator) == 0
            assert store.submissions()[0].phase == "planned"
            go_on()
            until(lambda: kinds(store) == {"submitted": 1, "ended": 1})
            assert created(emulator) == 1
            go_on()


# Versions.


def test_an_owner_goes_on_while_a_newer_version_adds_to_the_tables(
    store: tb.Store, store_url: str, config: Path, tmp_path: Path
) -> None:
    with tb.Watcher(store, config=config, interval=0.05) as watcher:
        submit(store, tmp_path, "before")
        until(lambda: len(watcher.owned) == 2 and kinds(store) == {"submitted": 1, "ended": 1})
        with store.database.writing() as opened:  # as the migration of a newer version does
            opened.execute(text("ALTER TABLE taskbridge_watch ADD COLUMN color VARCHAR(20)"))
            opened.execute(text("UPDATE taskbridge_version SET version_num = '999'"))
        submit(store, tmp_path, "after")
        until(lambda: kinds(store) == {"submitted": 2, "ended": 2})
    with pytest.raises(tb.ConfigError, match="written by a newer taskbridge"):
        tb.Store(store_url)


# Clocks.


class Jumping(SystemClock):
    """A clock that can be set."""

    ahead = timedelta()

    def now(self) -> datetime:
        return super().now() + self.ahead


@pytest.mark.parametrize("ahead", [timedelta(days=2), timedelta(days=-2)])
def test_a_clock_that_jumps_ends_no_watch(
    store_url: str, config: Path, emulator: Emulator, tmp_path: Path, ahead: timedelta
) -> None:
    clock = Jumping()
    with tb.Store(store_url, clock=clock) as store, tb.Watcher(store, config=config, interval=0.05) as watcher:
        waiting = store.watch(
            f"cloudconvert:{emulator.samples('cloudconvert')['waiting-upload']}",
            until=datetime.now(UTC) + timedelta(hours=1),
        )
        submit(store, tmp_path, "before")
        until(lambda: kinds(store)["submitted"] and store.explain(waiting).watch.task)
        clock.ahead = ahead
        submit(store, tmp_path, "after")
        until(lambda: kinds(store)["ended"] == 2)
        requests = emulator.count("cloudconvert")
        until(lambda: emulator.count("cloudconvert") > requests + 1)
        assert kinds(store) == {"submitted": 2, "ended": 2}
        assert store.explain(waiting).watch.state == "open"
        assert len(watcher.owned) == 2


# The vendor.


DOWN: Final = (503, b"", b'{"message": "down for maintenance"}')
SLOW_DOWN: Final = (429, b"Retry-After: 1\r\n", b'{"message": "too many requests"}')


class Away(Accounts):
    """A vendor that may answer everything in the same way."""

    answer: tuple[int, bytes, bytes] | None = DOWN
    refused = 0

    def respond(self, method: str, target: str, body: bytes, host: str) -> tuple[int, bytes, bytes]:
        if self.answer is not None:
            self.refused += 1
            return self.answer
        return super().respond(method, target, body, host)


@pytest.fixture
def vendor() -> Iterator[tuple[Away, str]]:
    """A vendor that is away at first, and its address."""
    accounts, loop, begun = Away(1.0), asyncio.new_event_loop(), threading.Event()
    ports: list[int] = []

    servers: list[asyncio.Server] = []

    async def serve() -> None:
        server = await loop.create_server(lambda: Connection(accounts, "http"), "127.0.0.1", 0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # it only responds
        servers.append(server)
        ports.append(server.sockets[0].getsockname()[1])
        begun.set()

    def run() -> None:
        task = loop.create_task(serve())
        loop.run_forever()
        del task

    thread = threading.Thread(target=run)
    thread.start()
    begun.wait(10.0)
    yield accounts, f"http://127.0.0.1:{ports[0]}"
    loop.call_soon_threadsafe(servers[0].close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def config_of_one(folder: Path, address: str) -> Path:
    config = folder / "one.toml"
    config.write_text(
        f'[connections.one]\nprovider = "cloudconvert"\napi_key = "{"k" * 20}"\n'
        f'base_url = "{address}/owner/one/v2"\nrequests_per_second = 500\npoll.interval = 0.5\n'
    )
    return config


def watch_many(store: tb.Store, accounts: Away, count: int) -> list[str]:
    names = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(count)]
    accounts.add("one", dict.fromkeys(names, 0.0))
    with store.begin() as tx:
        for name in names:
            tx.watch(f"one:{name}")
    return names


@pytest.mark.slow
def test_a_storm_of_429_gets_few_requests_and_costs_no_submission(
    store: tb.Store, vendor: tuple[Away, str], tmp_path: Path
) -> None:
    accounts, address = vendor
    accounts.answer = SLOW_DOWN
    watch_many(store, accounts, 1000)
    for number in range(20):
        store.submit("one", "convert", f"https://files.test/{number}.docx", key=f"key-{number}", to="pdf")
    with tb.Watcher(store, config=config_of_one(tmp_path, address), interval=0.1) as watcher:
        until(lambda: watcher.owned)
        until(lambda: accounts.refused)
        refused, later = accounts.refused, monotonic() + 3.0
        until(lambda: monotonic() > later)
        assert accounts.refused - refused < 15  # one probe a second, and not 1,020 requests
        assert {each.phase for each in store.submissions()} <= {"planned", "sending"}
        accounts.answer = None
        until(lambda: kinds(store) == {"submitted": 20, "ended": 1020}, 120.0)
    assert set(accounts.report().submissions.values()) == {1}


@pytest.mark.slow
def test_thousands_of_ends_at_once_after_an_outage_are_stored_in_few_statements(
    store: tb.Store, vendor: tuple[Away, str], tmp_path: Path
) -> None:
    accounts, address = vendor
    config = config_of_one(tmp_path, address)
    names = watch_many(store, accounts, 4000)
    with tb.Watcher(store, config=config) as watcher:
        until(lambda: watcher.owned)
        until(lambda: "unreachable" in (store.explain(f"one:{names[0]}").problem or ""))
        refused, later = accounts.refused, monotonic() + 5.0
        until(lambda: monotonic() > later)
        assert accounts.refused - refused < 100  # and not 4,000
        statements = 0

        def count(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            nonlocal statements
            statements += not statement.lstrip().startswith(("BEGIN", "SELECT"))  # those of this test

        event.listen(store.database.engine, "before_cursor_execute", count)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        accounts.answer = None
        until(lambda: not store.find(state="open", limit=1), 120.0)
        event.remove(store.database.engine, "before_cursor_execute", count)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    ends = Counter(each.ref for each in store.events("test", batch=5000))
    assert ends == Counter(f"one:{name}" for name in names)
    assert grown < 60_000  # KiB
    assert statements < len(names) / 2


# The configuration.


def test_a_connection_that_is_not_configured_for_a_time_keeps_its_tasks(
    store: tb.Store, config: Path, emulator: Emulator, tmp_path: Path
) -> None:
    complete = config.read_text()
    first = tmp_path / "first.toml"
    first.write_text(complete[: complete.index("[connections.scan-documents]")])
    submit(store, tmp_path, "page")
    store.submit("cloudconvert", "extract-text", "https://files.test/a.pdf", key="job")
    with tb.Watcher(store, config=first, interval=0.05) as watcher:
        until(lambda: kinds(store) == {"submitted": 1, "ended": 1})
        assert watcher.owned == {"cloudconvert"}
    assert {each.connection: each.phase for each in store.submissions()} == {
        "cloudconvert": "taken",
        "scan-documents": "planned",
    }
    assert {each.connection for each in store.accounts()} == {"cloudconvert", "scan-documents"}
    with tb.Watcher(store, config=config, interval=0.05):
        until(lambda: kinds(store) == {"submitted": 2, "ended": 2})
    assert created(emulator) == 1
