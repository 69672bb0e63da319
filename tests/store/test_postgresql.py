"""What only PostgreSQL has: several machines, a server that stops, and networks that do."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

import taskbridge as tb
from taskbridge.provider.clock import SystemClock
from taskbridge.store import StoreUnavailable
from taskbridge.store.ownership import Ownership, OwnershipLost, Seen
from taskbridge.store.schema import State
from taskbridge.testing import Emulator

from .conftest import OWNER, PNG, ended_task, until
from .postgresql import PASSWORD, USER, Cluster
from .relay import Relay, relay

pytestmark = pytest.mark.slow

AUDIT = """
CREATE TABLE audit (program text, at timestamptz);
CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN INSERT INTO audit VALUES (current_setting(''application_name''), clock_timestamp()); RETURN NULL; END';
CREATE TRIGGER audit AFTER INSERT OR UPDATE ON taskbridge_watch EXECUTE FUNCTION audit();
CREATE TRIGGER audit AFTER INSERT OR UPDATE ON taskbridge_event EXECUTE FUNCTION audit();
CREATE TRIGGER audit AFTER INSERT OR UPDATE ON taskbridge_intent EXECUTE FUNCTION audit();
CREATE TRIGGER audit AFTER INSERT OR UPDATE ON taskbridge_account EXECUTE FUNCTION audit();
"""


@pytest.fixture
def store(postgres_url: str) -> Iterator[tb.Store]:
    with tb.Store(postgres_url) as opened:
        yield opened


@pytest.fixture
def owner(config: Path) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Start a process that owns the connections."""
    started: list[subprocess.Popen[bytes]] = []

    def start(url: str) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, "-c", OWNER, url, str(config), "", "", "1"]))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@contextmanager
def connected(url: str, *, autocommit: bool = True) -> Generator[psycopg.Connection[Any]]:
    with psycopg.connect(url, autocommit=autocommit) as connection:
        yield connection


def row(url: str, query: str) -> Any:
    with connected(url) as connection:
        return connection.execute(query.encode()).fetchone()


def submit(store: tb.Store, folder: Path, numbers: range) -> None:
    for number in numbers:
        path = folder / f"page-{number}.png"
        path.write_bytes(PNG + bytes([number]))
        store.submit("scan-documents", "extract-text", path, key=f"page-{number}")


def wait(seconds: float) -> None:
    """Let so much time pass."""
    end = monotonic() + seconds
    until(lambda: monotonic() > end)


@contextmanager
def relayed(postgres: Cluster, url: str) -> Generator[tuple[Relay, tb.Store]]:
    """Open a store through a relay."""
    with relay(postgres.port) as between, tb.Store(url.replace(f":{postgres.port}/", f":{between.port}/")) as opened:
        yield between, opened


WAITS = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
STUCK = (
    "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event = 'ClientRead' "
    "AND state_change < clock_timestamp() - interval '0.6 s'"
)
LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock'"


def kinds(store: tb.Store) -> Counter[str]:
    return Counter(each.kind for each in store.events("test"))


def created(emulator: Emulator) -> int:
    submits = [each for each in emulator.requests if each.method == "POST" and "-operations/" in each.path]
    return sum(each.status < 300 for each in submits)


def finished(number: int) -> tb.Task:
    return ended_task(f"t{number}", resumable=False)


# Owners.


@pytest.mark.slow
@pytest.mark.parametrize(("how", "limit"), [(signal.SIGKILL, 3.0), (signal.SIGSTOP, 8.0)])
def test_another_owner_takes_over_within_seconds_and_the_first_writes_nothing_more(  # noqa: PLR0917  # fixtures
    store: tb.Store,
    postgres_url: str,
    owner: Callable[[str], subprocess.Popen[bytes]],
    config: Path,
    emulator: Emulator,
    tmp_path: Path,
    how: signal.Signals,
    limit: float,
) -> None:
    with connected(postgres_url) as connection:
        connection.execute(AUDIT)
    first = owner(f"{postgres_url}?application_name=first")
    submit(store, tmp_path, range(3))
    until(lambda: kinds(store)["ended"] == 3)
    waiting = store.watch(f"cloudconvert:{emulator.samples('cloudconvert')['waiting-upload']}")
    until(lambda: store.explain(waiting).watch.task)
    with tb.Store(f"{postgres_url}?application_name=second") as other, tb.Watcher(other, config=config) as second:
        until(lambda: row(postgres_url, LOCKS)[0] == 2)
        os.kill(first.pid, how)
        begun = monotonic()
        until(lambda: len(second.owned) == 2)
        assert monotonic() - begun < limit
        submit(store, tmp_path, range(3, 6))
        until(lambda: kinds(store)["ended"] == 6)
        os.kill(first.pid, signal.SIGCONT)
        # The first competes again: it tries to take the locks.
        if how is signal.SIGSTOP:
            until(
                lambda: row(
                    postgres_url,
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'first' AND "
                    "query LIKE '%pg_try_advisory_lock%'",
                )[0]
            )
        store.unwatch(waiting)
        submit(store, tmp_path, range(6, 8))
        until(lambda: kinds(store)["ended"] == 8)
        since = "(SELECT to_timestamp(max(owner_since)) FROM taskbridge_account)"
        assert row(postgres_url, "SELECT count(*) FROM audit WHERE program = 'first'") > (0,)
        assert row(postgres_url, f"SELECT count(*) FROM audit WHERE program = 'first' AND at > {since}") == (0,)
        assert len(second.owned) == 2
    assert kinds(store) == {"submitted": 8, "ended": 8}
    assert created(emulator) == 8


@pytest.mark.slow
def test_a_database_that_was_killed_loses_and_doubles_nothing(  # noqa: PLR0917  # fixtures
    store: tb.Store,
    postgres: Cluster,
    owner: Callable[[str], subprocess.Popen[bytes]],
    postgres_url: str,
    emulator: Emulator,
    tmp_path: Path,
) -> None:
    process = owner(postgres_url)
    submit(store, tmp_path, range(4))
    until(lambda: kinds(store)["submitted"] >= 1)
    for number in range(4, 8, 2):
        submit(store, tmp_path, range(number, number + 2))
        postgres.stop(immediate=True)
        with pytest.raises(StoreUnavailable, match="cannot be used"):
            store.watch("scan-documents:a")
        wait(3.0)  # so long is it away
        postgres.start()
        submit(store, tmp_path, range(number, number + 2))  # as a caller does who got an error
    until(lambda: kinds(store)["ended"] == 8, 60.0)
    assert kinds(store) == {"submitted": 8, "ended": 8}
    assert created(emulator) == 8
    assert process.poll() is None


@pytest.mark.slow
def test_the_owner_before_an_outage_of_the_database_is_the_owner_after_it(
    store: tb.Store, postgres: Cluster, postgres_url: str, config: Path
) -> None:
    with (
        tb.Store(postgres_url) as other,
        tb.Watcher(store, config=config) as first,
        tb.Watcher(other, config=config) as second,
    ):
        until(lambda: len(first.owned | second.owned) == 2)
        owned = first.owned, second.owned
        for _ in range(3):
            wait(2.0)  # both have noticed who the owner is
            postgres.stop(immediate=True)
            until(lambda: not first.owned | second.owned)
            wait(2.0)  # both have noticed the outage
            postgres.start()
            until(lambda: len(first.owned | second.owned) == 2)
            assert (first.owned, second.owned) == owned


@pytest.mark.slow
def test_an_owner_that_is_killed_soon_after_an_outage_of_the_database_is_followed_within_seconds(
    store: tb.Store,
    postgres: Cluster,
    postgres_url: str,
    owner: Callable[[str], subprocess.Popen[bytes]],
    config: Path,
) -> None:
    first = owner(postgres_url)
    until(lambda: row(postgres_url, LOCKS)[0] == 2)
    with tb.Watcher(store, config=config) as second:
        wait(2.0)  # the second has tried
        postgres.stop(immediate=True)
        wait(2.0)  # both have noticed the outage
        postgres.start()
        until(lambda: row(postgres_url, LOCKS)[0] == 2)
        assert not second.owned
        wait(1.0)
        first.kill()
        begun = monotonic()
        until(lambda: len(second.owned) == 2)
        assert monotonic() - begun < 3.0


@pytest.mark.slow
def test_a_watcher_far_from_the_database_takes_over_after_an_outage(
    store: tb.Store, postgres: Cluster, postgres_url: str, config: Path
) -> None:
    with (
        relayed(postgres, postgres_url) as (between, far),
        tb.Watcher(far, config=config, connections=["cloudconvert"], interval=0.05) as second,
    ):
        until(lambda: second.owned)
        with connected(postgres_url) as connection:  # another owner, from before the outage
            first = Ownership(store.database, "cloudconvert")
            connection.execute(b"SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
            until(first.take)
        wait(2.0)  # the second has tried
        postgres.stop(immediate=True)
        wait(2.0)  # both have noticed the outage
        between.delay = 0.12
        postgres.start()
        until(first.take)
        first.release()
        until(lambda: second.owned, 15.0)


@pytest.mark.slow
def test_an_owner_that_cannot_reach_the_database_stops_asking_the_vendor(  # noqa: PLR0917  # fixtures
    store: tb.Store,
    postgres: Cluster,
    owner: Callable[[str], subprocess.Popen[bytes]],
    postgres_url: str,
    config: Path,
    emulator: Emulator,
) -> None:
    waiting = store.watch(f"cloudconvert:{emulator.samples('cloudconvert')['waiting-upload']}")
    with relay(postgres.port) as between:
        owner(postgres_url.replace(f":{postgres.port}/", f":{between.port}/"))
        until(lambda: store.explain(waiting).watch.task)
        polls = len(emulator.requests)
        until(lambda: len(emulator.requests) > polls + 2)
        between.silence()
        begun = monotonic()
        with tb.Watcher(store, config=config, connections=["scan-documents"]) as other:  # does not ask cloudconvert
            until(lambda: other.owned)
            assert monotonic() - begun < 8.0
            polls = len(emulator.requests)
            quiet = monotonic() + 2.0
            until(lambda: monotonic() > quiet)
            assert len(emulator.requests) == polls


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["silence_in", "silence_after"])
def test_an_owner_that_is_cut_off_while_it_sends_a_long_statement_is_followed_within_seconds(
    store: tb.Store, postgres: Cluster, postgres_url: str, moment: str
) -> None:
    with relayed(postgres, postgres_url) as (between, cut_off):
        first, second = Ownership(cut_off.database, "acme"), Ownership(store.database, "acme")
        assert first.take()

        def write() -> None:
            with suppress(StoreUnavailable, OwnershipLost), first.writing() as opened:
                getattr(between, moment)(4096)
                opened.exec_driver_sql("SELECT %s::text", ("x" * 200_000,))

        writing = threading.Thread(target=write)
        writing.start()
        until(lambda: between.is_silent)
        begun = monotonic()
        until(second.take)  # which needs the row that the first has locked
        assert monotonic() - begun < 8.0
        writing.join(30.0)
        assert not writing.is_alive()
        second.release()


@pytest.mark.slow
def test_a_caller_that_is_cut_off_while_it_sends_a_long_statement_holds_up_no_new_owner(
    store: tb.Store, postgres: Cluster, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskbridge.store.postgresql._STUCK", 0.5)
    with relayed(postgres, postgres_url) as (between, cut_off):
        owner = Ownership(store.database, "acme")

        def write() -> None:
            with suppress(StoreUnavailable), cut_off.begin() as tx:
                tx.watch("acme:t1")  # locks the account's row
                between.silence_after(4096)
                tx.watch("acme:t2", meta={"text": "x" * 200_000})

        writing = threading.Thread(target=write, daemon=True)
        writing.start()
        until(lambda: row(postgres_url, STUCK)[0])
        assert owner.take()
        owner.release()
        assert not store.find()
    writing.join(30.0)
    assert not writing.is_alive()


def test_a_restart_of_the_database_between_two_calls_is_no_error(store: tb.Store, postgres: Cluster) -> None:
    for number, immediate in enumerate((False, True)):
        store.watch(f"acme:t{number}")
        postgres.stop(immediate=immediate)
        postgres.start()
    assert len(store.find()) == 2


def test_locks_that_the_database_ended_are_lost_at_once(store: tb.Store, postgres_url: str) -> None:
    first = Ownership(store.database, "acme")
    assert first.take()
    store.watch("acme:t1")
    query = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
    assert row(postgres_url, query) == (True,)
    until(lambda: not first.is_held, 5.0)
    with pytest.raises(OwnershipLost):
        first.write([Seen(tb.TaskRef("acme:t1"), State.ENDED, finished(1))])
    with tb.Store(postgres_url) as other:
        second = Ownership(other.database, "acme")
        assert second.take()
        assert not first.take()
        second.release()
        until(first.take)
    first.release()
    until(lambda: row(postgres_url, LOCKS) == (0,))


def test_an_idle_owner_sends_few_statements(postgres: Cluster, postgres_url: str, config: Path) -> None:
    name = postgres_url.rpartition("/")[2]
    with connected(postgres_url) as connection:
        connection.execute(f"ALTER DATABASE {name} SET log_statement = 'all'".encode())
    with tb.Store(postgres_url) as logged, tb.Watcher(logged, config=config, connections=["cloudconvert"]) as watcher:
        until(lambda: watcher.owned)
        begun = monotonic() + 2.0  # then what an owner does once is done
        until(lambda: monotonic() > begun)
        before = postgres.statements(name)
        until(lambda: monotonic() > begun + 4.0)
        assert 0 < postgres.statements(name) - before <= 2 * 4 + 1


FORK = """
import os, sys, taskbridge as tb
from taskbridge.store.ownership import Ownership
store = tb.Store(sys.argv[1])
store.watch("acme:a")
owner = Ownership(store.database, "acme")
assert owner.take()
child = os.fork()
if child == 0:
    assert not owner.is_held
    assert not owner.take()  # its parent owns the connection
    store.watch("acme:b")
    owner.release()
    store.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert owner.is_held
store.watch("acme:c")
assert owner.changes(-1) is not None
owner.release()
assert [each.ref for each in store.find()] == ["acme:a", "acme:b", "acme:c"]
store.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_has_connections_and_locks_of_its_own(postgres_url: str) -> None:
    subprocess.run([sys.executable, "-c", FORK, postgres_url], check=True, timeout=60)


# A database that lacks what was stored.


def test_a_database_without_the_last_changes_is_refused_until_a_person_adopts_it(
    store: tb.Store, postgres_url: str
) -> None:
    first = Ownership(store.database, "acme")
    assert first.take()
    store.watch("acme:t1")
    first.release()
    with connected(postgres_url) as connection:
        backup = connection.execute("SELECT epoch, revision, position FROM taskbridge_account").fetchone()
        second = Ownership(store.database, "acme")
        assert second.take()
        store.watch("acme:t2")
        store.watch(finished(1))
        second.release()
        restore = "UPDATE taskbridge_account SET (epoch, revision, position) = (%s, %s, %s)"
        connection.execute(restore, backup)
        refused = Ownership(store.database, "acme")
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match=r"lacks changes to 'acme'.*Store\.adopt"):
                refused.take()
        assert connection.execute("SELECT epoch FROM taskbridge_account").fetchone() == backup[:1] if backup else ()
    with tb.Store(postgres_url) as person:
        with pytest.raises(tb.ConfigError, match="does not have"):
            person.adopt("others")
        assert person.adopt() == ["acme"]
    assert refused.take()
    (seen,) = store.events("test")
    store.watch(finished(2))
    later = list(store.events("test"))[-1]
    assert later.position > seen.position + 1  # no reader skips it
    refused.release()


def test_a_standby_is_refused(postgres: Cluster, postgres_url: str) -> None:
    signal_file = postgres.data / "standby.signal"
    postgres.stop()
    try:
        signal_file.touch()
        postgres.start()
        with pytest.raises(tb.ConfigError, match=r"is a standby.*target_session_attrs"):
            tb.Store(postgres_url)
    finally:
        postgres.stop()
        signal_file.unlink()
        postgres.start()
    tb.Store(postgres_url).close()


# Callers.


def test_what_is_stored_with_a_psycopg_connection_depends_on_its_transaction(
    store: tb.Store, postgres_url: str
) -> None:
    with connected(postgres_url, autocommit=False) as connection:
        connection.row_factory = dict_row
        connection.execute("CREATE TABLE invoice (ref text)")
        with store.begin(connection) as tx:
            tx.watch("acme:a", meta={"n": 1})
            tx.submit("acme", "convert", "https://files.test/a", key="k", meta={"n": 2})
            assert not tx.unwatch("acme:b")
        connection.execute("INSERT INTO invoice VALUES ('acme:a')")
        assert store.find() == []
        connection.commit()
        with store.begin(connection) as tx:
            tx.watch("acme:b")
        connection.rollback()
        with store.begin(connection) as tx, pytest.raises(tb.ConfigError, match="different operation"):
            tx.submit("acme", "compress", "https://files.test/a", key="k")
    assert [(each.ref, each.meta) for each in store.find()] == [("acme:a", {"n": 1})]
    assert [each.key for each in store.submissions()] == ["k"]
    with connected(postgres_url) as connection:
        with pytest.raises(tb.ConfigError, match="autocommit"), store.begin(connection):
            pass
        with connection.transaction(), store.begin(connection) as tx:
            tx.watch("acme:c")
    assert [each.ref for each in store.find()] == ["acme:a", "acme:c"]
    with pytest.raises(tb.ConfigError, match="not str"), store.begin("postgresql://"):  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        pass


def test_a_reader_skips_no_event_of_transactions_that_commit_late(store: tb.Store, postgres_url: str) -> None:
    with connected(postgres_url, autocommit=False) as early, connected(postgres_url, autocommit=False) as late:
        with store.begin(early) as tx:
            tx.watch(finished(1))
        begun = threading.Event()

        def store_second() -> None:
            begun.set()
            with store.begin(late) as tx:
                tx.watch(finished(2))
            late.commit()  # before the first, unless it waits for it

        thread = threading.Thread(target=store_second)
        thread.start()
        begun.wait()
        until(lambda: row(postgres_url, WAITS)[0] or not thread.is_alive())
        seen = list(store.events("billing"))
        for each in seen:
            each.ack()
        early.commit()
        thread.join()
    seen += store.events("billing")
    assert [(each.ref, each.position) for each in seen] == [("acme:t1", 1), ("acme:t2", 2)]


def test_owners_and_callers_change_the_same_watch_one_after_the_other(store: tb.Store, postgres_url: str) -> None:
    ref = store.watch("acme:t1")
    ownership = Ownership(store.database, "acme")
    assert ownership.take()
    with connected(postgres_url, autocommit=False) as caller:
        with store.begin(caller) as tx:
            assert tx.unwatch(ref)
        ended = [Seen(ref, State.ENDED, replace(finished(1), resumable=True))]
        thread = threading.Thread(target=ownership.write, args=[ended])
        thread.start()
        until(lambda: row(postgres_url, WAITS)[0] or not thread.is_alive())
        caller.commit()
        thread.join()
    assert [each.state for each in store.find()] == ["dropped"]
    assert list(store.events("test")) == []
    ownership.release()


def test_times_are_by_the_clock_of_the_database(postgres_url: str) -> None:
    class Fast(SystemClock):
        def now(self) -> datetime:
            return super().now() + timedelta(minutes=10)

    with tb.Store(postgres_url, clock=Fast()) as store:
        store.watch("acme:a")
        age = datetime.now(UTC) - store.find()[0].created_at
        assert abs(age.total_seconds()) < 5.0
        assert abs(store.database.now() - datetime.now(UTC).timestamp()) < 5.0


# The URL.


def test_a_url_is_refused_without_its_password(postgres: Cluster, postgres_url: str) -> None:
    wrong = postgres_url.replace(PASSWORD, "wrong-secret")
    for url, error, problem in (
        (wrong, StoreUnavailable, "authentication failed"),
        (
            postgres_url.replace(f":{postgres.port}", ":1").replace(PASSWORD, "wrong-secret"),
            StoreUnavailable,
            "refused",
        ),
        (f"postgresql://{USER}:wrong@secret@127.0.0.1/a", tb.ConfigError, "percent escapes"),
        (f"postgresql://{USER}:12/secret@127.0.0.1/a", tb.ConfigError, "percent escapes"),
        (f"postgresql://{USER}:wrong-secret@127.0.0.1:secret/a", tb.ConfigError, "percent escapes"),
        ("postgresql+asyncpg://a:wrong-secret@127.0.0.1/a", tb.ConfigError, "begin with postgresql://"),
    ):
        with pytest.raises(error, match=problem) as raised:
            tb.Store(url)
        assert "secret" not in str(raised.value)
    with tb.Store(postgres_url.replace("postgresql://", "postgresql+psycopg://")) as store:
        assert PASSWORD not in f"{store!r} {store.database.name} {store.database.engine!r}"
    with pytest.raises(tb.ConfigError, match="lock_url is for"):
        tb.Store("a.db", lock_url=postgres_url)


def test_tables_of_a_newer_version_are_refused(store: tb.Store, postgres_url: str) -> None:
    with connected(postgres_url) as connection:
        connection.execute("UPDATE taskbridge_version SET version_num = '999'")
    with pytest.raises(tb.ConfigError, match="upgrade taskbridge"):
        tb.Store(postgres_url)
    assert store.database.dialect == "postgresql"


def test_processes_that_open_an_empty_database_at_the_same_time_create_its_tables_once(postgres_url: str) -> None:
    program = "import sys, taskbridge as tb; tb.Store(sys.argv[1]).watch('acme:a')"
    processes = [subprocess.Popen([sys.executable, "-c", program, postgres_url]) for _ in range(3)]
    assert [each.wait(60) for each in processes] == [0, 0, 0]
    with closing(tb.Store(postgres_url)) as store:
        assert len(store.find()) == 1


@pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="PgBouncer is not installed")
def test_a_connection_pooler_needs_a_direct_url_for_the_locks(postgres: Cluster, postgres_url: str) -> None:
    with postgres.pooler("transaction") as port:
        pooled = postgres_url.replace(f":{postgres.port}/", f":{port}/")
        for url, lock_url in ((pooled, None), (postgres_url, pooled)):
            with pytest.raises(tb.ConfigError, match=r"connection pooler.*lock_url"):
                tb.Store(url, lock_url=lock_url)
        with tb.Store(pooled, lock_url=postgres_url) as store:
            ownership = Ownership(store.database, "acme")
            assert ownership.take()
            for number in range(20):
                store.watch(f"acme:t{number}")
            ownership.write([Seen(tb.TaskRef("acme:t1"), State.ENDED, finished(1))])
            assert [each.ref for each in store.events("test")] == ["acme:t1"]
            ownership.release()
        words = [sys.executable, "-m", "taskbridge", "store", "check", "--store", pooled]
        for variables, expected in (({}, 2), ({"TASKBRIDGE_LOCK_URL": postgres_url}, 0)):
            assert subprocess.run(words, env={**os.environ, **variables}, check=False).returncode == expected
    with postgres.pooler("session") as port:
        pooled = postgres_url.replace(f":{postgres.port}/", f":{port}/")
        with tb.Store(pooled) as store:
            ownership = Ownership(store.database, "acme")
            assert ownership.take()
            ownership.release()
