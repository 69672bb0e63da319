"""Delivering events: order, retries, dead letters, and a relay that is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy.exc import OperationalError

import taskbridge as tb
from taskbridge.store import DeliveryPolicy, Event, State, StoreUnavailable
from taskbridge.store.ownership import Ownership, Seen
from taskbridge.testing import VirtualClock

from .conftest import ended_task, until

ONCE: Final = DeliveryPolicy(attempts=1)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def store(store_url: str, clock: VirtualClock) -> Iterator[tb.Store]:
    with tb.Store(store_url, clock=clock) as opened:
        yield opened


@pytest.fixture
def end(store: tb.Store) -> Iterator[Callable[..., None]]:
    """Store the ends of tasks, each again if it is named again."""
    ownerships: dict[str, Ownership] = {}

    def write(*refs: str) -> None:
        for ref in map(tb.TaskRef, refs):
            if ref.connection not in ownerships:
                ownership = ownerships[ref.connection] = Ownership(store.database, ref.connection)
                assert ownership.take()
            store.watch(ref)
            ownerships[ref.connection].write([Seen(ref, State.GIVEN_UP, None, "time ran out")])

    yield write
    for each in ownerships.values():
        each.release()


class Recorder:
    """A handler that raises for the refs in `broken`."""

    def __init__(self, *broken: str) -> None:
        self.broken = set(broken)
        self.got: list[str] = []  # keys
        self.tried = 0

    def __call__(self, event: Event) -> None:
        self.tried += 1
        if str(event.ref) in self.broken:
            raise LookupError(f"no room for {event.ref}")
        self.got.append(event.key)
        event.ack()  # changes nothing


class Asynchronous(Recorder):
    async def __call__(self, event: Event) -> None:  # type: ignore[override]  # a coroutine function on purpose
        await asyncio.sleep(0)
        super().__call__(event)


def deliver(kind: str, store: tb.Store, handler: Recorder, **options: Any) -> int:
    """Deliver what is due, as one of the two relays does."""
    if kind == "sync":
        return tb.Relay(store, "billing", handler, **options).deliver()
    if kind == "coroutine":
        coroutine = Asynchronous()
        coroutine.__dict__ = handler.__dict__
        handler = coroutine
        options.setdefault("concurrency", 4)

    async def run() -> int:
        return await tb.aio.Relay(store, "billing", handler, **options).deliver()

    return asyncio.run(run())


KINDS: Final = pytest.mark.parametrize("kind", ["sync", "thread", "coroutine"])


@KINDS
def test_a_task_waits_for_its_failed_event_and_the_others_do_not(
    kind: str, store: tb.Store, end: Callable[..., None], clock: VirtualClock
) -> None:
    end("acme:a", "acme:b", "acme:a", "other:c")
    handler = Recorder("acme:a")
    assert deliver(kind, store, handler) == 2
    assert sorted(handler.got) == ["acme:b/1", "other:c/1"]
    assert handler.tried == 3
    end("acme:a", "acme:d")  # after the cursor has passed the first
    assert deliver(kind, store, handler) == 1
    first, second, third = store.undelivered("billing")
    assert (first.event.key, first.attempts, first.error, first.is_dead) == (
        "acme:a/1",
        1,
        "LookupError: no room for acme:a",
        False,
    )
    assert [(each.event.key, each.attempts) for each in (second, third)] == [("acme:a/2", 0), ("acme:a/3", 0)]
    handler.broken.clear()
    assert deliver(kind, store, handler) == 0  # the pause is not over
    clock.advance(2)
    assert deliver(kind, store, handler) == 3
    assert handler.got[-3:] == ["acme:a/1", "acme:a/2", "acme:a/3"]
    assert store.undelivered() == []
    assert list(store.events("billing")) == []
    assert len(list(store.events("archive"))) == 6  # another consumer


@KINDS
def test_an_event_that_fails_too_often_becomes_a_dead_letter(
    kind: str, store: tb.Store, end: Callable[..., None], clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    end("acme:a", "acme:a", "acme:b")
    handler = Recorder("acme:a")
    policy = DeliveryPolicy(attempts=3, first=10.0, at_most=15.0)
    assert deliver(kind, store, handler, policy=policy) == 1
    pauses: list[float] = []
    while not store.dead_letters():
        (waits, _) = store.undelivered()
        assert waits.next_at is not None
        pauses.append((waits.next_at - clock.now()).total_seconds())
        clock.advance(pauses[-1] + 0.001)  # microseconds are rounded
        assert len(pauses) < 3
        deliver(kind, store, handler, policy=policy)
    assert 5 <= pauses[0] <= 10
    assert 7.5 <= pauses[1] <= 15
    assert "acme:a/1 is a dead letter after 3 attempts: LookupError" in caplog.text
    clock.advance(10_000)
    assert deliver(kind, store, handler, policy=policy) == 0
    assert [each.event.key for each in store.dead_letters("billing")] == ["acme:a/1"]
    assert store.dead_letters("archive") == []
    assert store.redeliver("archive") == 0
    assert store.redeliver("billing") == 1
    assert store.dead_letters() == []
    deliver(kind, store, handler, policy=policy)
    assert store.undelivered()[0].attempts == 1  # as often as a new one
    assert store.discard("billing", "acme:a/1")
    assert not store.discard("billing", "acme:a/1")
    handler.broken.clear()
    assert deliver(kind, store, handler, policy=policy) == 1
    assert handler.got[-1] == "acme:a/2"


def test_one_undelivered_event_is_tried_at_once(store: tb.Store, end: Callable[..., None]) -> None:
    end("acme:a", "acme:b")
    handler = Recorder("acme:a", "acme:b")
    deliver("sync", store, handler)
    handler.broken.clear()
    assert store.redeliver("billing", "acme:b/1") == 1
    assert store.redeliver("billing", "acme:unknown/1") == 0
    assert deliver("sync", store, handler) == 1
    assert handler.got == ["acme:b/1"]


@KINDS
def test_an_outage_of_the_consumer_does_not_make_every_event_a_failure(
    kind: str, store: tb.Store, end: Callable[..., None], clock: VirtualClock
) -> None:
    refs = [f"acme:t{number}" for number in range(100)]
    end(*refs)
    handler = Recorder(*refs)
    deliver(kind, store, handler)
    assert 5 <= len(store.undelivered()) <= 8  # with 4 at the same time
    assert handler.tried <= 8
    handler.broken.clear()
    clock.advance(10)
    assert deliver(kind, store, handler) == 100
    assert Counter(handler.got) == {f"{ref}/1": 1 for ref in refs}


@KINDS
def test_events_that_fail_for_ever_hold_up_no_others(
    kind: str, store: tb.Store, end: Callable[..., None], clock: VirtualClock
) -> None:
    broken = [f"acme:broken{number}" for number in range(30)]
    handler = Recorder(*broken)
    end(*broken)
    for hour in range(4):
        end(f"acme:good{hour}")
        for _ in range(10):
            deliver(kind, store, handler)
            clock.advance(60)
        assert f"acme:good{hour}/1" in handler.got
        clock.advance(3000)


def test_a_relay_that_runs_holds_up_no_event_for_those_that_fail_for_ever(
    store: tb.Store, end: Callable[..., None], clock: VirtualClock
) -> None:
    broken = [f"acme:broken{number}" for number in range(30)]
    end(*broken, "acme:good")
    handler = Recorder(*broken)
    relay = tb.Relay(store, "billing", handler)
    for _ in range(35):  # one event after the other once some have failed
        relay.deliver()
        clock.advance(1)
    assert handler.got == ["acme:good/1"]
    end("acme:better")
    clock.advance(1000)  # all that failed are due again
    tried = handler.tried
    relay.deliver()
    assert handler.got == ["acme:good/1", "acme:better/1"]
    assert handler.tried == tried + 31


@KINDS
def test_a_relay_that_was_stopped_delivers_nothing_more(kind: str, store: tb.Store, end: Callable[..., None]) -> None:
    end("acme:a", "acme:b")
    got: list[str] = []

    def handle(event: Event) -> None:
        got.append(event.key)
        relay.stop()

    if kind == "sync":
        relay: Any = tb.Relay(store, "billing", handle)
        assert relay.deliver() == 1
        assert relay.deliver() == 0
    else:

        async def run() -> tuple[int, int]:
            nonlocal relay
            relay = tb.aio.Relay(store, "billing", handle)
            return await relay.deliver(), await relay.deliver()

        assert asyncio.run(run()) == (1, 0)
    assert got == ["acme:a/1"]


def test_only_the_events_of_some_connections(store: tb.Store, end: Callable[..., None]) -> None:
    end("acme:a", "other:b")
    handler, owned = Recorder(), set[str]()
    relay = tb.Relay(store, "billing", handler, connections=lambda: owned)
    assert relay.deliver() == 0
    owned.add("other")
    assert relay.deliver() == 1
    assert handler.got == ["other:b/1"]
    assert tb.Relay(store, "billing", handler, connections=["acme"]).deliver() == 1


@KINDS
def test_many_events_are_delivered_once_and_in_order(kind: str, store: tb.Store, end: Callable[..., None]) -> None:
    end(*[f"{connection}:t{number}" for _ in range(3) for connection in ("acme", "other") for number in range(20)])
    handler = Recorder()
    assert deliver(kind, store, handler, batch=7) == 120
    assert len(set(handler.got)) == 120
    for ref in {key.rpartition("/")[0] for key in handler.got}:
        assert [key for key in handler.got if key.startswith(f"{ref}/")] == [f"{ref}/{number}" for number in (1, 2, 3)]


def test_two_relays_under_one_name_lose_nothing(
    store: tb.Store, end: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    end("acme:a", "acme:b", "acme:c")
    second = Recorder("acme:c")

    def first(event: Event) -> None:
        if event.ref == "acme:a":
            assert deliver("sync", store, second) == 2
        first_got.append(event.key)

    first_got: list[str] = []
    tb.Relay(store, "billing", first).deliver()
    assert second.got == ["acme:a/1", "acme:b/1"]
    assert "another process delivers" in caplog.text
    assert [each.event.key for each in store.undelivered()] == ["acme:c/1"]  # the second one's result counts


@KINDS
def test_results_are_not_stored_while_the_database_is_away(
    kind: str, store: tb.Store, end: Callable[..., None]
) -> None:
    end("acme:a")
    handler, is_away = Recorder(), True

    def fail(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if is_away and statement.startswith("INSERT INTO taskbridge_cursor"):
            raise OperationalError(statement, None, Exception("disk I/O error"))

    sqlalchemy_event.listen(store.database.engine, "before_cursor_execute", fail)
    with pytest.raises(StoreUnavailable):
        deliver(kind, store, handler)
    is_away = False
    assert deliver(kind, store, handler) == 1
    assert handler.got == ["acme:a/1", "acme:a/1"]


def test_an_interrupted_handler_is_called_again_and_those_before_are_not(
    store: tb.Store, end: Callable[..., None]
) -> None:
    end("acme:a", "acme:b", "acme:c")
    got: list[str] = []

    def interrupt(event: Event) -> None:
        got.append(event.key)
        if got == ["acme:a/1", "acme:b/1"]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tb.Relay(store, "billing", interrupt).deliver()
    tb.Relay(store, "billing", interrupt).deliver()
    assert got == ["acme:a/1", "acme:b/1", "acme:b/1", "acme:c/1"]


def test_a_cancelled_relay_stores_what_was_delivered(store: tb.Store, end: Callable[..., None]) -> None:
    end("acme:a", "acme:b")

    async def handler(event: Event) -> None:
        if event.ref == "acme:b":
            has_begun.set()
            await asyncio.Event().wait()

    has_begun = asyncio.Event()

    async def run() -> None:
        running = asyncio.create_task(tb.aio.Relay(store, "billing", handler).run())
        await has_begun.wait()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    asyncio.run(run())
    assert [event.key for event in store.events("billing")] == ["acme:b/1"]


def test_an_event_that_is_overtaken_by_those_of_other_tasks_is_not_lost(
    store: tb.Store, end: Callable[..., None]
) -> None:
    end("acme:a", "acme:b", "acme:c")
    got: list[str] = []

    async def handler(event: Event) -> None:
        if event.ref == "acme:a" and not is_over:
            await asyncio.Event().wait()
        got.append(event.key)
        if event.ref == "acme:c":
            others_done.set()

    others_done, is_over = asyncio.Event(), False

    async def run() -> None:
        running = asyncio.create_task(tb.aio.Relay(store, "billing", handler, concurrency=2).run())
        await others_done.wait()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    asyncio.run(run())
    assert got == ["acme:b/1", "acme:c/1"]
    is_over = True
    assert asyncio.run(tb.aio.Relay(store, "billing", handler).deliver()) == 3


def test_relays_run_until_they_are_stopped(tmp_path: Path) -> None:
    got: list[str] = []
    with tb.Store(tmp_path / "real.db") as store:
        relay = tb.Relay(store, "threads", lambda event: got.append(event.key), interval=0.05)
        thread = threading.Thread(target=relay.run)
        thread.start()
        ownership = Ownership(store.database, "acme")
        assert ownership.take()

        def end_one(name: str) -> None:
            ref = store.watch(name)
            ownership.write([Seen(ref, State.GIVEN_UP, None, "time ran out")])

        end_one("acme:a")
        until(lambda: got == ["acme:a/1"])
        relay.stop()
        thread.join(10)
        assert not thread.is_alive()

        async def run() -> None:
            asynchronous = tb.aio.Relay(store, "tasks", lambda event: got.append(event.key), interval=0.05)
            running = asyncio.create_task(asynchronous.run())
            await asyncio.to_thread(until, lambda: got == ["acme:a/1", "acme:a/1"])
            await asyncio.to_thread(end_one, "acme:b")
            await asyncio.to_thread(until, lambda: got[-1] == "acme:b/1")
            asynchronous.stop()
            await running

        asyncio.run(run())
        ownership.release()


def test_bad_arguments_are_refused(store: tb.Store) -> None:
    wrong: Any
    for wrong in ({"batch": 0}, {"interval": 0}):
        with pytest.raises(tb.ConfigError, match="batch of a relay"):
            tb.Relay(store, "billing", print, **wrong)
    with pytest.raises(tb.ConfigError, match="function of an event, not str"):
        tb.Relay(store, "billing", "handler")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(tb.ConfigError, match=r"taskbridge\.aio\.Relay"):
        tb.Relay(store, "billing", asyncio.sleep)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(tb.InvalidInput, match="a key is"):
        tb.Relay(store, "", print)
    with pytest.raises(tb.ConfigError, match="concurrency"):
        tb.aio.Relay(store, "billing", print, concurrency=0)
    for wrong in ({"attempts": 0}, {"first": 0}, {"at_most": "long"}):
        with pytest.raises(tb.ConfigError, match=next(iter(wrong))):
            DeliveryPolicy(**wrong)


def test_an_event_survives_json(store: tb.Store) -> None:
    task = ended_task("t1", resumable=False)
    store.watch(task, meta={"order": 7})
    (event,) = store.events("billing")
    text = json.dumps(event.to_dict())
    read = Event.from_dict(json.loads(text))
    assert read == event
    assert read.to_dict() == json.loads(text)
    read.ack()
    assert list(store.events("billing")) == [event]  # that of a queue acknowledges nothing
    wrong: list[Any] = [{}, {**event.to_dict(), "kind": "no such"}, {**event.to_dict(), "at": 5}, []]
    for damaged in wrong:
        with pytest.raises(tb.InvalidInput, match=r"no dictionary of Event\.to_dict"):
            Event.from_dict(damaged)


KILLED: Final = """
import os, signal, sys
import taskbridge as tb
path, log, fatal = sys.argv[1:]
def handler(event):
    with open(log, "a") as file:
        print(event.key, file=file, flush=True)
    if event.key == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
tb.Relay(tb.Store(path), "billing", handler, batch=5).deliver()
"""


def test_a_relay_that_is_killed_between_handling_and_storing_delivers_again_under_the_same_key(
    store: tb.Store, store_url: str, end: Callable[..., None], tmp_path: Path
) -> None:
    end(*[f"acme:t{number}" for number in range(12)])
    log = tmp_path / "log"
    for fatal, status in (("acme:t7/1", -signal.SIGKILL), ("", 0)):
        words = [sys.executable, "-c", KILLED, store_url, str(log), fatal]
        assert subprocess.run(words, check=False, env=dict(os.environ)).returncode == status
    counts = Counter(log.read_text().split())
    assert set(counts) == {f"acme:t{number}/1" for number in range(12)}
    assert counts["acme:t7/1"] == 2
    assert counts["acme:t4/1"] == 1  # of the batch before
    assert list(store.events("billing")) == []
