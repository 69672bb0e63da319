"""A watch that stays open while tasks are added and dropped; a rate that changes while tasks are polled."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

import taskbridge as tb
from taskbridge._engine.durations import DurationModel
from taskbridge._engine.throttle import Throttle
from taskbridge._polling.commands import PollTask, WaitUntil
from taskbridge._polling.scheduler import PollScheduler
from taskbridge.provider.http import Request, Response

from .conftest import Maker

Says = Callable[..., Response]
MISSING = Response(404, {}, b"{}")


def task_of(request: Request) -> str:
    return request.url.rpartition("/")[2]


class Vendor:
    """Answers with the state of each task; a list is used up, its last word stays."""

    def __init__(self, says: Says, **states: list[str]) -> None:
        self._says = says
        self.states = states
        self.polled: list[str] = []

    def __call__(self, request: Request) -> Response:
        task_id = task_of(request)
        self.polled.append(task_id)
        states = self.states[task_id]
        return self._says(task_id, states.pop(0) if len(states) > 1 else states[0])


def summary(outcome: tb.Outcome) -> tuple[str, str]:
    return outcome.ref.id, outcome.task.status if outcome.task else type(outcome.error).__name__


def test_tasks_are_added_and_dropped_while_it_runs(acme: Maker, says: Says) -> None:
    vendor = Vendor(says, a=["waiting", "working", "done"], b=["working"], c=["broken"])
    with acme(vendor).client.open_watch() as watch:
        assert watch.add("a") == "acme:a"
        assert [summary(next(watch)) for _ in range(3)] == [("a", "pending"), ("a", "processing"), ("a", "completed")]
        assert len(watch) == 0
        watch.add("b")
        assert summary(next(watch)) == ("b", "processing")
        watch.add("b")
        assert len(watch) == 1
        assert watch.drop("acme:b")
        assert not watch.drop("b")
        watch.add("c")
        assert summary(next(watch)) == ("c", "failed")
        watch.add("c")
        assert summary(next(watch)) == ("c", "failed")
        with pytest.raises(tb.InvalidTaskId):
            watch.add("no such id")
    assert list(watch) == []
    with pytest.raises(tb.ConfigError, match="closed"):
        watch.add("a")


def test_a_task_that_ended_and_that_the_vendor_does_not_keep_is_not_polled(acme: Maker, says: Says) -> None:
    vendor = Vendor(says, a=["done"])
    harness = acme(vendor)
    known = replace(harness.client.get("a"), resumable=False)

    async def run() -> tb.Outcome:
        client, _ = harness.asynchronous()
        async with client, client.open_watch() as opened:
            waiting = asyncio.create_task(anext(opened))
            await asyncio.sleep(0)
            opened.add(known)
            return await waiting

    with harness.client.open_watch() as watch:
        watch.add(known)
        assert next(watch).task == asyncio.run(run()).task == known
        assert len(watch) == 0
    assert vendor.polled == ["a"]


def test_it_works_in_asyncio_too(acme: Maker, says: Says) -> None:
    vendor = Vendor(says, a=["waiting", "done"], b=["working"])

    async def run() -> list[tuple[str, str]]:
        client, _ = acme(vendor).asynchronous()
        async with client, client.open_watch(changes=False) as watch:
            watch.add("a")
            found = [summary(await anext(watch))]
            watch.add("b", timeout=30.0)
            watch.add("a")
            found += [summary(await anext(watch)), summary(await anext(watch))]
            watch.add("b")
            assert watch.drop("b")
            watch.close()
            return found + [summary(outcome) async for outcome in watch]

    assert asyncio.run(run()) == [("a", "completed"), ("a", "completed"), ("b", "processing")]


def test_a_task_is_polled_at_once_on_request(acme: Maker, says: Says) -> None:
    vendor = Vendor(says, a=["waiting", "done"], b=["waiting", "done"])
    harness = acme(vendor, poll={"interval": 3600.0})
    began = harness.clock.monotonic()
    with harness.clock.acting(), harness.client.open_watch() as watch:
        watch.add("a")
        assert summary(next(watch)) == ("a", "pending")
        assert watch.poll_now("a")
        assert summary(next(watch)) == ("a", "completed")
        assert not watch.poll_now("a")
    assert harness.clock.monotonic() - began < 60.0

    async def run() -> list[tuple[str, str]]:
        client, _ = harness.asynchronous()
        async with client, client.open_watch() as opened:
            opened.add("b")
            found = [summary(await anext(opened))]
            assert opened.poll_now("acme:b")
            found.append(summary(await anext(opened)))
            assert not opened.poll_now("b")
            return found

    assert asyncio.run(run()) == [("b", "pending"), ("b", "completed")]
    assert harness.clock.monotonic() - began < 120.0


def test_its_deadlines_are_per_task_and_close_ends_it(acme: Maker, says: Says) -> None:
    harness = acme(Vendor(says, a=["working"], b=["working"]))
    watch = harness.client.open_watch(changes=False)
    began = harness.clock.monotonic()
    watch.add("a", timeout=20.0)
    watch.add("b")
    outcome = next(watch)
    assert isinstance(outcome.error, tb.WaitTimeout)
    assert outcome.ref == "acme:a"
    assert harness.clock.monotonic() - began >= 20.0
    closer = threading.Thread(target=harness.client.close)
    closer.start()
    (outcome,) = watch
    assert isinstance(outcome.error, tb.WaitTimeout)  # which says that the client was closed
    assert outcome.ref == "acme:b"
    closer.join()


# The rate.


def test_a_higher_rate_ends_a_wait_for_the_next_slot() -> None:
    throttle = Throttle(0.01, lambda: 0.5)
    assert throttle.take(0.0).granted
    assert throttle.take(0.0).wait == pytest.approx(100.0)
    throttle.set_ceiling(10.0, 0.0)
    assert throttle.take(0.0).wait == pytest.approx(0.1)
    throttle.set_ceiling(None, 0.0)
    assert [throttle.take(0.0).granted for _ in range(100)] == [True] * 100
    throttle.set_ceiling(2.0, 0.0)
    assert throttle.rate == 2.0


def test_a_rate_that_was_cut_stays_cut() -> None:
    throttle = Throttle(100.0, lambda: 0.5)
    throttle.slow_down(0.0, None)
    cut = throttle.rate
    assert cut < 100.0
    throttle.set_ceiling(200.0, 0.0)
    assert throttle.rate == cut
    for _ in range(1000):
        throttle.answered(0.0, {})
    assert throttle.rate == 200.0


def test_waits_plan_anew_when_the_rate_rises(acme: Maker, says: Says) -> None:
    vendor = Vendor(says, **{f"t{n}": ["done"] for n in range(5)})

    def answer(request: Request) -> Response:
        if len(vendor.polled) == 1:
            harness.client.limit_rate(None)
        return vendor(request)

    harness = acme(answer, requests_per_second=1e-4)  # a request every three hours
    watch = harness.client.open_watch()
    began = harness.clock.monotonic()
    for n in range(5):
        watch.add(f"t{n}")
    assert len({next(watch).ref for _ in range(5)}) == 5
    assert harness.clock.monotonic() - began <= 10_001.0  # the one slot before the second request
    for wrong in (0, -1.0, float("nan"), "5", True):
        with pytest.raises(tb.InvalidInput, match="requests per second"):
            harness.client.limit_rate(wrong)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_get_that_waits_for_its_slot_uses_a_higher_rate_at_once(acme: Maker, says: Says) -> None:
    harness = acme(Vendor(says, a=["working"]), requests_per_second=0.001, request_timeout=3000.0)
    raised = threading.Event()
    harness.client.get("a")  # uses the first slot
    began = harness.clock.monotonic()

    def raise_rate() -> None:
        with harness.clock.acting():  # time stops until this thread sleeps
            started.set()
            harness.clock.sleep(5.0)
            harness.client.limit_rate(10.0)
            raised.set()

    started = threading.Event()
    thread = threading.Thread(target=raise_rate)
    thread.start()
    started.wait()
    got = [threading.Thread(target=harness.client.get, args=("a",)) for _ in range(3)]
    for each in got:
        each.start()
    for each in (*got, thread):
        each.join()
    assert raised.is_set()
    assert 5.0 <= harness.clock.monotonic() - began < 10.0

    async def run() -> float:
        client, _ = acme(Vendor(says, a=["working"]), requests_per_second=0.001, request_timeout=3000.0).asynchronous()
        async with client:
            await client.get("a")
            began = harness.clock.monotonic()
            waiting = [asyncio.create_task(client.get("a")) for _ in range(3)]
            await harness.clock.async_sleep(5.0)
            client.limit_rate(10.0)
            await asyncio.gather(*waiting)
            return harness.clock.monotonic() - began

    assert 5.0 <= asyncio.run(run()) < 10.0


def test_a_slot_that_was_reserved_is_kept_when_the_rate_falls(acme: Maker, says: Says) -> None:
    async def run() -> float:
        harness = acme(Vendor(says, a=["working"]), requests_per_second=0.1)
        client, _ = harness.asynchronous()
        async with client:
            await client.get("a")
            began = harness.clock.monotonic()
            waiting = asyncio.create_task(client.get("a"))
            await harness.clock.async_sleep(5.0)
            client.limit_rate(0.01)
            await waiting
            return harness.clock.monotonic() - began

    assert asyncio.run(run()) == pytest.approx(10.0, abs=0.1)


# Submitted elsewhere.


def test_the_time_of_a_submission_gives_get_its_patience(acme: Maker, says: Says) -> None:
    harness = acme(lambda _: MISSING if harness.clock.monotonic() - began < 3.0 else says("t1", "working"))
    began = harness.clock.monotonic()
    now = harness.clock.now()
    with pytest.raises(tb.TaskNotFound):
        harness.client.get("t1")
    assert harness.client.get("t1", submitted_at=now).status == "processing"
    assert harness.clock.monotonic() - began >= 3.0


@pytest.mark.parametrize("hours", [1.0, -1.0], ids=["long ago", "by a clock that is ahead"])
def test_a_time_long_ago_or_to_come_gives_no_more_patience_than_usual(hours: float, acme: Maker) -> None:
    harness = acme(lambda _: MISSING)
    began = harness.clock.monotonic()
    with pytest.raises(tb.TaskNotFound):
        harness.client.get("t1", submitted_at=harness.clock.now() - timedelta(hours=hours))
    assert harness.clock.monotonic() - began <= 12.0  # and the last pause
    with pytest.raises(tb.InvalidInput, match="time zone"):
        harness.client.wait("t1", submitted_at=datetime.now(UTC).replace(tzinfo=None))
    with pytest.raises(tb.InvalidInput, match="time zone"):
        harness.client.get("t1", submitted_at="2026-01-01")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# Many tasks at once.


def calls_of(work: Callable[[], Any]) -> int:
    """The number of function calls that some work takes."""
    count = 0

    def record(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(record)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def test_one_step_costs_the_same_however_many_tasks_are_due(acme: Maker) -> None:
    costs: list[int] = []
    for count in (3_000, 30_000):
        connection = acme(name=f"acme{count}").connection
        scheduler = PollScheduler()
        for n in range(count):
            scheduler.add(connection, f"t{n}", 0.0)
        costs.append(calls_of(partial(scheduler.next, 0.0)))
    assert costs[1] <= costs[0] * 1.2


def test_all_that_are_due_are_polled_in_order(acme: Maker) -> None:
    connection, scheduler = acme().connection, PollScheduler()
    for n in range(5_000):
        scheduler.add(connection, f"t{n}", 0.0)
    polled: list[str] = []
    for _ in range(20_000):
        command = scheduler.next(0.0)
        if isinstance(command, PollTask):
            polled.append(command.task_id)
            scheduler.on_poll_failed(command, 0.0, tb.PermissionDenied("no"))  # which ends it
        elif not isinstance(command, WaitUntil) or command.time > 0.0:
            break
    assert polled == [f"t{n}" for n in range(5_000)]


def test_a_watch_says_when_and_why_a_task_is_polled_next(acme: Maker, says: Says) -> None:
    vendor = Vendor(says, a=["working"])
    with acme(vendor, poll={"interval": 5.0}).client.open_watch() as watch:
        assert watch.next_poll("a") is None
        watch.add("a")
        assert summary(next(watch)) == ("a", "processing")
        planned = watch.next_poll("a")
        assert planned is not None
        assert planned.seconds is not None
        assert 0.0 <= planned.seconds <= 7.5  # with the jitter of the first pause
        assert planned.reason is tb.PollReason.INTERVAL
        assert 1 / 7.5 <= watch.demand() <= 1 / 2.5
        watch.drop("a")
        assert watch.next_poll("a") is None
        assert watch.demand() == 0.0


def test_quantiles_follow_the_durations() -> None:
    model = DurationModel()
    assert model.quantiles is None
    for number in range(200):
        model.observe(0.0, 9.0 + number / 100.0, ended=False)
        model.observe(9.0 + number / 100.0, 9.1 + number / 100.0, ended=True)
    model.hazard()
    found = model.quantiles
    assert found is not None
    assert sorted(found) == list(found)
    assert 8.0 < found[0] < found[2] < found[4] < 12.5
    assert 9.0 < found[2] < 11.0
