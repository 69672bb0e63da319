"""What is stored, what is refused, and what consumers get."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from traceback import format_exception
from typing import Any

import pytest
from sqlalchemy import create_engine, select, text
from sqlalchemy.exc import NoResultFound

import taskbridge as tb
from taskbridge.store import EventKind, Phase, State, StoreUnavailable
from taskbridge.store.ownership import Ownership, OwnershipLost, Seen
from taskbridge.store.schema import EVENT, WATCH
from taskbridge.store.sqlite import refuse_network_file_system
from taskbridge.testing import Emulator

from .conftest import PNG, ended_task, until


def ended(store: tb.Store, consumer: str = "test") -> list[Any]:
    return [event for event in store.events(consumer) if event.kind in (EventKind.ENDED, EventKind.GIVEN_UP)]


def sqlalchemy_url(store_url: str) -> str:
    return (
        store_url.replace("postgresql://", "postgresql+psycopg://") if "://" in store_url else f"sqlite:///{store_url}"
    )


# With a watcher.


def test_a_submission_is_sent_watched_and_reported(store: tb.Store, config: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.png"
    page.write_bytes(PNG)
    submission = store.submit("scan-documents", "extract-text", page, key="INV-7", meta={"order": 7})
    assert submission.phase == "planned"
    with tb.Watcher(store, config=config, interval=0.05) as watcher:
        (end,) = until(lambda: ended(store))
        assert watcher.owned == {"cloudconvert", "scan-documents"}
    submitted = next(iter(store.events("test")))
    assert (submitted.kind, submitted.submission, submitted.ref) == ("submitted", "INV-7", end.ref)
    assert (end.kind, end.task.status, end.meta, end.key) == ("ended", "completed", {"order": 7}, f"{end.ref}/1")
    assert store.submissions()[0].ref == end.ref
    assert store.find()[0].state == "ended"
    # The document's text is not stored, nor a link.
    assert (end.task.raw, end.task.result.text if end.task.result else None) == ({}, None)
    explained = str(store.explain(end.ref))
    assert "ended" in explained
    assert "'INV-7'" in explained
    assert "polled by process" in explained


def test_tasks_are_watched_dropped_and_given_up(store: tb.Store, config: Path, emulator: Emulator) -> None:
    waiting = f"cloudconvert:{emulator.samples('cloudconvert')['waiting-upload']}"
    with tb.Watcher(store, config=config, interval=0.05):
        store.watch(waiting)
        until(lambda: store.find(state="open")[0].task)
        assert store.unwatch(waiting)
        assert not store.unwatch(waiting)
        with store.begin() as tx:
            done = tx.watch(f"cloudconvert:{emulator.samples('cloudconvert')['completed']}", meta={"n": 1})
            unknown = tx.watch("cloudconvert:no such id")
        until(lambda: len(ended(store)) == 2)
        store.watch(waiting, until=datetime.now(UTC) + timedelta(seconds=1.2))
        events = until(lambda: len(found := ended(store)) == 3 and found)
    assert {event.ref: event.kind for event in events} == {done: "ended", unknown: "given_up", waiting: "given_up"}
    assert {each.ref: each.state for each in store.find()} == {each.ref: each.kind for each in events}
    assert "because" in str(store.explain(unknown))


def test_a_refused_key_ends_nothing(store: tb.Store, config: Path, emulator: Emulator, tmp_path: Path) -> None:
    key = emulator.settings("scan-documents")["api_key"]
    config.write_text(config.read_text().replace(key, "another-key-123"))
    ref = store.watch(f"scan-documents:{emulator.samples('scan-documents')['completed']}")
    page = tmp_path / "page.png"
    page.write_bytes(PNG)
    store.submit("scan-documents", "extract-text", page, key="INV-8")
    with tb.Watcher(store, config=config, interval=0.05):
        until(lambda: store.explain(ref).problem)
        assert store.find()[0].state == "open"
        assert store.submissions()[0].phase == "planned"
        assert ended(store) == []
    assert len(emulator.requests) <= 12  # not again and again


def test_the_vendor_refuses_a_submission(store: tb.Store, config: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.png"
    page.write_bytes(PNG)
    store.submit("scan-documents", "no-such-operation", page, key="a")
    changed = tmp_path / "other.png"
    changed.write_bytes(PNG)
    store.submit("scan-documents", "extract-text", changed, key="b")
    changed.write_bytes(PNG + b"x")
    gone = tmp_path / "gone.png"
    gone.write_bytes(PNG)
    store.submit("scan-documents", "extract-text", gone, key="c")
    gone.unlink()
    with tb.Watcher(store, config=config, interval=0.05):
        until(lambda: len(store.submissions(phase="refused")) == 2 and store.submissions(phase="planned")[0].error)
    assert {each.submission: each.kind for each in store.events("test")} == {"a": "refused", "b": "refused"}
    errors = {each.key: each.error or "" for each in store.submissions()}
    assert "no-such-operation" in errors["a"]
    assert "has changed" in errors["b"]
    assert "cannot be read" in errors["c"]


# Without one.


def test_a_key_names_one_submission(store: tb.Store, tmp_path: Path) -> None:
    page = tmp_path / "page.png"
    page.write_bytes(PNG)
    first = store.submit("invoices", "convert", page, key="INV-7", to="pdf", meta={"n": 1})
    assert store.submit("invoices", "convert", page, key="INV-7", to="pdf", meta={"n": 2}) == first
    assert store.submit("others", "convert", page, key="INV-7").connection == "others"
    with pytest.raises(tb.ConfigError, match="with different arguments"):
        store.submit("invoices", "convert", page, key="INV-7", to="docx")
    page.write_bytes(PNG + b"x")
    with pytest.raises(tb.ConfigError, match="with different operation and digest"):
        store.submit("invoices", "extract-text", page, key="INV-7", to="pdf")
    assert len(store.submissions()) == 2


def test_a_transaction_is_all_or_nothing_also_in_the_callers_own(store: tb.Store, store_url: str) -> None:
    with pytest.raises(tb.ConfigError), store.begin() as tx:  # noqa: PT012  # a block that fails in the middle
        tx.watch("invoices:a")
        tx.submit("No name", key="k")
    engine = create_engine(sqlalchemy_url(store_url))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE invoice (ref TEXT)"))
        with store.begin(connection) as tx:
            tx.watch("invoices:b")
            connection.execute(text("INSERT INTO invoice VALUES ('invoices:b')"))
    with engine.connect() as connection, store.begin(connection) as tx:
        tx.watch("invoices:c")  # rolled back with the caller's transaction
    engine.dispose()
    assert [each.ref for each in store.find()] == ["invoices:b"]


def test_a_submission_that_was_sent_is_the_same_without_its_document(store: tb.Store, tmp_path: Path) -> None:
    page = tmp_path / "page.png"
    page.write_bytes(PNG)
    store.submit("acme", "convert", page, key="INV-7", to="pdf")
    owner = owner_of(store)
    changes = owner.changes(-1)
    assert changes is not None
    page.unlink()
    with pytest.raises(FileNotFoundError):  # it must still be sent
        store.submit("acme", "convert", page, key="INV-7", to="pdf")
    owner.mark_taken(changes.intents[0], ended_task("t1"))
    owner.release()
    assert store.submit("acme", "convert", page, key="INV-7", to="pdf").phase is Phase.TAKEN
    page.write_bytes(b"another document under the same name")
    assert store.submit("acme", "convert", page, key="INV-7", to="pdf").phase is Phase.TAKEN
    with pytest.raises(tb.ConfigError, match="with different arguments"):
        store.submit("acme", "convert", page, key="INV-7", to="docx")


def test_a_connection_in_autocommit_mode_is_refused(store: tb.Store, store_url: str) -> None:
    engine = create_engine(sqlalchemy_url(store_url), isolation_level="AUTOCOMMIT")
    with (
        engine.connect() as connection,
        pytest.raises(tb.ConfigError, match="autocommit"),
        store.begin(connection) as tx,
    ):
        tx.submit("invoices", "convert", "https://files.test/a", key="a")
    engine.dispose()
    assert store.submissions() == []


def test_errors_of_the_callers_own_database_stay_as_they_are(store: tb.Store) -> None:
    other = create_engine("sqlite://")
    with pytest.raises(NoResultFound), store.begin() as tx, other.connect() as connection:  # noqa: PT012  # in the block
        tx.watch("invoices:a")
        connection.execute(text("SELECT 1 WHERE 0")).one()
    other.dispose()
    assert store.find() == []


def test_an_error_of_the_database_shows_no_value(store: tb.Store, store_url: str) -> None:
    engine = create_engine(sqlalchemy_url(store_url))
    store.submit("acme", "convert", "https://files.test/a", key="first")
    with engine.begin() as connection:  # so that each other submission fails while its values are stored
        connection.execute(text("CREATE UNIQUE INDEX only_one ON taskbridge_intent (operation)"))
    link, options = "https://files.test/?token=s3cret", {"password": "s3cret"}
    for joins in (False, True):
        with pytest.raises(StoreUnavailable) as caught:  # noqa: PT012  # in the block
            if joins:
                with engine.begin() as connection, store.begin(connection) as tx:
                    tx.submit("acme", "convert", link, key="k", options=options)
            else:
                store.submit("acme", "convert", link, key="k", options=options)
        assert caught.value.__suppress_context__
        assert "s3cret" not in "".join(format_exception(caught.value))
        assert joins or "s3cret" not in str(caught.value.__context__)  # the caller's engine shows what it likes
    engine.dispose()


def test_bad_arguments_are_refused(store: tb.Store, tmp_path: Path) -> None:
    for document in (b"bytes", 7, tmp_path):
        with pytest.raises((tb.InvalidInput, IsADirectoryError)):
            store.submit("invoices", "convert", document, key="k")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    for key in ("", "x" * 201, "a\nb"):
        with pytest.raises(tb.InvalidInput, match="a key is"):
            store.submit("invoices", "convert", key=key)
    for name, wrong in (("options", "abc"), ("name", 5), ("external_id", 5), ("callback_url", 5), ("operation", 5)):
        with pytest.raises(tb.InvalidInput, match=f"{name} must be a"):
            store.submit("invoices", key="k", **{name: wrong})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    for name in ("input", "operation"):
        with pytest.raises(tb.InvalidInput, match="not valid Unicode"):
            store.submit("invoices", key="k", **{name: "a\udcff"})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        with pytest.raises(tb.InvalidInput, match="NUL"):
            store.submit("invoices", key="k", **{name: "https://files.test/\0"})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(tb.InvalidInput, match="until must be a datetime"):
        store.watch("invoices:a", until=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(tb.ConfigError, match="name of a connection"):
        store.submit("Invoices", "convert", key="k")
    for meta in ({"at": datetime.now(UTC)}, {"title": "a\0b"}, {"deep": [{"half": "\ud83d"}]}):
        with pytest.raises(tb.InvalidInput, match="plain JSON"):
            store.watch("invoices:a", meta=meta)
    with pytest.raises(tb.InvalidInput, match="time zone"):
        store.watch("invoices:a", until=datetime.now())  # noqa: DTZ005  # on purpose
    with pytest.raises(tb.InvalidTaskId):
        store.watch("no ref")
    with pytest.raises(tb.InvalidTaskId, match="not in the store"):
        store.explain("invoices:a")
    with pytest.raises(tb.InvalidInput, match="none of open"):
        store.find(state="closed")
    assert store.find() == []


# Events.


def test_texts_that_a_database_cannot_store_are_replaced(store: tb.Store) -> None:
    store.watch("acme:t1")
    owner = owner_of(store)
    task = ended_task("t1", native_status="do\0ne", message="half of \ud83d, and \N{GRINNING FACE}")
    owner.write([Seen(tb.TaskRef("acme:t1"), State.ENDED, task)])
    owner.release()
    (event,) = store.events("test")
    assert event.task is not None
    assert (event.task.native_status, event.task.message) == (
        "do\ufffdne",
        "half of \ufffd, and \N{GRINNING FACE}",
    )


def snapshot(number: int) -> tb.Task:
    return ended_task(
        f"t{number}",
        result=tb.TaskResult(files=(tb.TaskFile(name="a.pdf", url="https://files.test/a?signature=1"),), text="secret"),
        raw={"link": "https://files.test/a?signature=1"},
    )


def owner_of(store: tb.Store) -> Ownership:
    ownership = Ownership(store.database, "acme")
    assert ownership.take()
    return ownership


def end_all(store: tb.Store, ownership: Ownership, numbers: range) -> None:
    with store.begin() as tx:
        for number in numbers:
            tx.watch(f"acme:t{number}")
    ownership.write(Seen(task.ref, State.ENDED, task) for task in map(snapshot, numbers))


def test_each_consumer_gets_each_event_until_it_acknowledges(store: tb.Store) -> None:
    ownership = owner_of(store)
    end_all(store, ownership, range(5))
    events = list(store.events("billing", batch=2))
    assert [event.position for event in events] == [1, 2, 3, 4, 5]
    assert len({event.key for event in events}) == 5
    events[2].ack()
    events[0].ack()  # never moves back
    assert [event.position for event in store.events("billing")] == [4, 5]
    assert [event.position for event in store.events("archive")] == [1, 2, 3, 4, 5]
    assert list(store.events("billing", connection="others")) == []
    with store.database.reading() as connection:
        joined = select(WATCH, EVENT).join(EVENT, EVENT.c.ref == WATCH.c.ref)
        stored = repr([tuple(row) for row in connection.execute(joined)])
    assert "files.test" not in stored
    assert "a.pdf" in stored
    end_all(store, ownership, range(5))  # the same ends again are no events
    assert len(list(store.events("archive"))) == 5
    following = store.events("live", follow=True)
    assert [next(following).position for _ in range(5)] == [1, 2, 3, 4, 5]
    later = threading.Timer(0.05, end_all, [store, ownership, range(5, 6)])
    later.start()
    assert next(following).position == 6
    later.join()
    ownership.release()


def test_a_watch_that_was_given_up_can_be_begun_again(store: tb.Store) -> None:
    ownership = owner_of(store)
    ref = store.watch("acme:t1", until=datetime.now(UTC) + timedelta(hours=1))
    running = replace(snapshot(1), status=tb.TaskStatus.PROCESSING, result=None)
    ownership.write([Seen(ref, State.OPEN, running)])
    ownership.write([Seen(ref, State.GIVEN_UP, None, "not found")])
    assert store.find()[0].task == running  # the last that is known
    store.watch(ref)
    assert store.find()[0].error is None
    end_all(store, ownership, range(1, 2))
    assert [event.key for event in store.events("test")] == ["acme:t1/1", "acme:t1/2"]
    store.watch(ref)
    assert store.find()[0].state == "ended"  # it stays
    ownership.release()


def test_a_task_that_ended_with_its_submission_is_stored_with_its_end(store: tb.Store) -> None:
    ownership = owner_of(store)
    store.submit("acme", "convert", "https://files.test/a", key="k", meta={"n": 1})
    assert ownership.mark_taken(1, snapshot(1))["state"] == "ended"
    events = list(store.events("test"))
    assert [(each.kind, each.ref, each.position) for each in events] == [
        ("submitted", "acme:t1", 1),
        ("ended", "acme:t1", 2),
    ]
    assert events[1].meta == {"n": 1}
    ownership.release()


def test_a_task_that_its_vendor_does_not_keep_is_stored_with_its_end(store: tb.Store) -> None:
    task = replace(snapshot(1), resumable=False)
    with store.begin() as tx:
        tx.watch("acme:t0")
        tx.watch(task, meta={"n": 1})
        tx.watch(task)
    store.watch(task)
    (end,) = store.events("test")
    assert (end.kind, end.key, end.meta) == ("ended", "acme:t1/1", {"n": 1})
    assert end.task is not None
    assert end.task.status == "completed"
    assert {each.ref: each.state for each in store.find()} == {"acme:t0": "open", "acme:t1": "ended"}
    ownership = owner_of(store)
    end_all(store, ownership, range(1))
    assert [event.position for event in store.events("test")] == [1, 2]
    ownership.release()


def test_calls_of_one_transaction_are_stored_in_their_order(store: tb.Store) -> None:
    ownership = owner_of(store)
    store.watch("acme:a")
    changes = ownership.changes(-1)
    assert changes is not None
    with store.begin() as tx:
        tx.watch("acme:b")
        assert tx.unwatch("acme:b")
        tx.watch("acme:b", meta={"n": 1})
        tx.watch("acme:b", meta={"n": 2})
        assert tx.unwatch("acme:a")
    assert {each.ref: (each.state, each.meta) for each in store.find()} == {
        "acme:a": ("dropped", None),
        "acme:b": ("open", {"n": 2}),
    }
    newer = ownership.changes(changes.revision)
    assert newer is not None
    assert {row["ref"]: row["state"] for row in newer.watches} == {"acme:a": "dropped", "acme:b": "open"}
    ownership.release()


def test_an_owner_that_lost_its_lock_writes_nothing(store: tb.Store) -> None:
    first, second = owner_of(store), Ownership(store.database, "acme")
    assert not second.take()
    store.submit("acme", "convert", "https://files.test/a", key="k")
    first.release()
    assert second.take()
    with pytest.raises(OwnershipLost):
        end_all(store, first, range(1))
    with pytest.raises(OwnershipLost):
        first.mark_sending(1, {})
    assert list(store.events("test")) == []
    assert store.submissions()[0].phase is Phase.PLANNED
    second.release()


def test_an_ownership_that_was_released_takes_nothing_afterwards(store: tb.Store) -> None:
    first, second = owner_of(store), Ownership(store.database, "acme")
    first.release()
    assert not first.take()  # as in a thread that begins late
    assert second.take()
    second.release()


def test_a_wait_that_a_caller_has_extended_meanwhile_continues(store: tb.Store) -> None:
    now = datetime.now(UTC)
    passed, later = now - timedelta(seconds=1), now + timedelta(days=1)
    refs = [store.watch(f"acme:{name}", until=passed) for name in ("same", "later", "earlier", "never")]
    ownership = owner_of(store)
    judged = [Seen(ref, State.GIVEN_UP, None, "its time ran out", passed.timestamp()) for ref in refs]
    for name, extended in (("later", later), ("earlier", now - timedelta(seconds=2)), ("never", None)):
        store.watch(f"acme:{name}", until=extended)
    ownership.write(judged)
    assert {each.ref: (each.state, each.error) for each in store.find()} == {
        "acme:same": ("given_up", "its time ran out"),
        "acme:later": ("open", None),
        "acme:earlier": ("given_up", "its time ran out"),
        "acme:never": ("open", None),
    }
    assert {each.ref for each in store.events("test")} == {"acme:same", "acme:earlier"}
    ownership.release()


# The file.


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    damaged, newer, headless = (tmp_path / name for name in ("damaged.db", "newer.db", "headless.db"))
    damaged.write_bytes(b"no database" * 1000)
    tb.Store(newer).close()
    with closing(sqlite3.connect(newer, isolation_level=None)) as database:
        database.execute("UPDATE taskbridge_version SET version_num = '999'")
    tb.Store(headless).close()
    with closing(sqlite3.connect(headless, isolation_level=None)) as database:
        database.execute("DROP TABLE taskbridge_version")
    for path, problem in ((damaged, "not a database"), (newer, "upgrade taskbridge"), (headless, "is damaged")):
        before = path.read_bytes()
        with pytest.raises(tb.ConfigError, match=problem):
            tb.Store(path)
        assert path.read_bytes() == before
    for url, problem in (
        ("mysql://host/db", "mysql"),
        (":memory:", "memory"),
        (tmp_path / "no" / "a.db", "No such"),
    ):
        with pytest.raises(tb.ConfigError, match=problem):
            tb.Store(url)
    assert newer.stat().st_mode & 0o77 == 0


def test_a_network_drive_is_refused(tmp_path: Path) -> None:
    mounts = ["/dev/sda1 / ext4 rw 0 0", f"server:/x {tmp_path} nfs4 rw 0 0"]
    with pytest.raises(tb.ConfigError, match="network drive"):
        refuse_network_file_system(tmp_path / "a.db", mounts)
    for kind in ("fuse.glusterfs", "fuse.s3fs", "fuse.some-new-one", "vboxsf"):
        with pytest.raises(tb.ConfigError, match=kind):
            refuse_network_file_system(tmp_path / "a.db", [f"x {tmp_path} {kind} rw 0 0"])
    for kind in ("fuseblk", "fuse.fuse-overlayfs", "overlay"):
        refuse_network_file_system(tmp_path / "a.db", [f"x {tmp_path} {kind} rw 0 0"])
    refuse_network_file_system(tmp_path / "a.db", mounts[:1])
    refuse_network_file_system(tmp_path.parent / "a.db", mounts)


def test_a_full_disk_stores_nothing_and_says_so(tmp_path: Path) -> None:
    store = tb.Store(tmp_path / "a.db")
    with store.database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")  # of this connection, which stays in the pool
    with pytest.raises(StoreUnavailable, match="full"):  # noqa: PT012  # some rows still fit
        for number in count():
            store.watch(f"invoices:{'x' * 900}{number}")
    with pytest.raises(tb.TaskbridgeError):
        store.watch("invoices:" + "y" * 990)
    store.close()
