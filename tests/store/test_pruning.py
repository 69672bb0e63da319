"""What is removed from a store, and what is not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select, update

import taskbridge as tb
from taskbridge.store import State
from taskbridge.store.ownership import Ownership, Seen
from taskbridge.store.schema import DELIVERY, INTENT, RUN, WEBHOOK
from taskbridge.testing import VirtualClock

from .conftest import ended_task

DAY = timedelta(days=1)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(now=datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
def store(tmp_path: Path, clock: VirtualClock) -> Iterator[tb.Store]:
    with tb.Store(tmp_path / "taskbridge.db", clock=clock) as opened:
        yield opened


@pytest.fixture
def owner(store: tb.Store) -> Iterator[Ownership]:
    ownership = Ownership(store.database, "acme")
    assert ownership.take()
    yield ownership
    ownership.release()


def task(number: int | str) -> tb.Task:
    return ended_task(f"t{number}")


def end(store: tb.Store, owner: Ownership, *numbers: int | str) -> None:
    with store.begin() as tx:
        for number in numbers:
            tx.watch(f"acme:t{number}")
    owner.write(Seen(each.ref, State.ENDED, each) for each in map(task, numbers))


def submit(store: tb.Store, key: str) -> int:
    """Store a submission; return its number."""
    store.submit("acme", "convert", "https://files.test/a", key=key)
    with store.database.reading() as opened:
        number: int = opened.execute(select(func.max(INTENT.c.id))).scalar_one()
    return number


def acknowledge(store: tb.Store, consumer: str = "billing", position: int | None = None) -> None:
    for event in list(store.events(consumer)):
        if position is None or event.position <= position:
            event.ack()


def counts(pruned: Any) -> tuple[int, int, int, int]:
    return pruned.events, pruned.submissions, pruned.watches, pruned.webhooks


def test_what_has_ended_and_was_acknowledged_goes_when_it_is_old(
    store: tb.Store, owner: Ownership, clock: VirtualClock
) -> None:
    owner.mark_taken(submit(store, "taken"), task("1"))
    owner.mark_refused(submit(store, "refused"), "no")
    end(store, owner, 2)
    store.watch("acme:dropped")
    store.unwatch("acme:dropped")
    acknowledge(store)
    assert counts(store.prune(DAY)) == (0, 0, 0, 0)  # too young
    clock.advance(2 * DAY.total_seconds())
    assert counts(store.prune(DAY)) == (4, 2, 3, 0)
    assert (store.find(), store.submissions(), list(store.events("new"))) == ([], [], [])
    # Everything can be begun again: no key of an event is in the way.
    owner.mark_taken(submit(store, "taken"), task("1"))
    owner.mark_refused(submit(store, "refused"), "no")
    end(store, owner, 2)
    assert [event.position for event in store.events("billing")] == [5, 6, 7, 8]


def test_what_is_open_uncertain_given_up_or_of_a_run_stays(
    store: tb.Store, owner: Ownership, clock: VirtualClock
) -> None:
    store.watch("acme:open")
    ref = store.watch("acme:gone")
    owner.write([Seen(ref, State.GIVEN_UP, None, "not found")])
    again = store.watch("acme:tagain")
    owner.write([Seen(again, State.GIVEN_UP, None, "not found")])
    store.watch(again)
    store.unwatch(again)  # its next event must be the second
    submit(store, "planned")
    owner.mark_sending(submit(store, "sending"), {})
    owner.mark_uncertain(submit(store, "uncertain"), "?")
    running = submit(store, "running")
    owner.mark_taken(running, tb.Task.from_dict({**task("running").to_dict(), "status": "processing"}))
    of_run = submit(store, "of a run")
    owner.mark_taken(of_run, task("of-run"))
    with store.database.writing() as opened:
        values = {"connection": "acme", "target": "/out", "provider": "acme", "operation": "convert"}
        number = opened.execute(
            insert(RUN).values(**values, options={}, neutral={}, created_at=0.0)
        ).inserted_primary_key
        assert number is not None
        opened.execute(update(INTENT).where(INTENT.c.id == of_run).values(run=number[0]))
    acknowledge(store)
    before = (store.find(), store.submissions())
    clock.advance(9 * DAY.total_seconds())
    pruned = store.prune(DAY)
    assert (pruned.submissions, pruned.watches) == (0, 0)
    assert (store.find(), store.submissions()) == before
    end(store, owner, "again")
    assert [event.key for event in store.events("billing")] == ["acme:tagain/2"]


def test_an_event_stays_until_every_consumer_has_it(store: tb.Store, owner: Ownership, clock: VirtualClock) -> None:
    end(store, owner, *range(6))
    other = Ownership(store.database, "other")
    assert other.take()
    store.watch("other:t1")
    other.write([Seen(tb.TaskRef("other:t1"), State.ENDED, None)])
    clock.advance(2 * DAY.total_seconds())
    assert store.prune(DAY).events == 0  # without a consumer, nothing was read
    next(store.events("billing", connection="acme")).ack()  # the first
    acknowledge(store, "archive", position=4)
    assert store.prune(DAY).events == 1  # "billing" has not seen the others, nor the event of the other connection
    list(store.events("billing", connection="acme"))[-1].ack()
    with store.database.writing() as opened:
        undelivered = {"consumer": "archive", "connection": "acme", "position": 2, "ref": "acme:t1", "attempts": 9}
        opened.execute(insert(DELIVERY).values(**undelivered, error="down", updated_at=0.0))
    assert store.prune(DAY).events == 2  # 3 and 4; one is not delivered yet, and two "archive" has not acknowledged
    assert [event.position for event in store.events("new")] == [2, 5, 6, 1]
    assert store.forget_consumer("archive")
    assert not store.forget_consumer("archive")
    assert store.prune(DAY).events == 3
    assert store.forget_consumer("billing")
    assert store.prune(DAY).events == 0
    assert store.prune(DAY, unread=True).events == 1
    other.release()


def test_many_rows_go_in_pieces_and_webhooks_after_a_week(
    store: tb.Store, owner: Ownership, clock: VirtualClock
) -> None:
    end(store, owner, *range(1203))
    list(store.events("billing"))[-1].ack()
    rows = [
        {"connection": name, "key": f"k{n}", "revision": n, "received_at": clock.now().timestamp()}
        for name in ("acme", "other")
        for n in range(600)
    ]
    with store.database.writing() as opened:
        opened.execute(insert(WEBHOOK), rows)
    clock.advance(2 * DAY.total_seconds())
    assert counts(store.prune(DAY)) == (1203, 0, 1203, 0)
    clock.advance(6 * DAY.total_seconds())
    assert counts(store.prune(DAY)) == (0, 0, 0, 1200)
    for wrong in (timedelta(), -DAY, 5, None):
        with pytest.raises(tb.InvalidInput, match="older_than"):
            store.prune(wrong)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_submission_and_a_watch_stay_as_long_as_one_of_their_events(
    store: tb.Store, owner: Ownership, clock: VirtualClock
) -> None:
    owner.mark_refused(submit(store, "refused"), "no")
    owner.mark_taken(submit(store, "taken"), task("1"))
    clock.advance(2 * DAY.total_seconds())
    assert counts(store.prune(DAY)) == (0, 0, 0, 0)
    acknowledge(store, position=1)  # of the refusal
    assert counts(store.prune(DAY)) == (1, 1, 0, 0)
    acknowledge(store, position=2)
    assert counts(store.prune(DAY)) == (1, 1, 0, 0)  # the end is not acknowledged yet
    acknowledge(store)
    assert counts(store.prune(DAY)) == (1, 0, 1, 0)
