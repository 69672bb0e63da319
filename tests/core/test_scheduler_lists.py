"""Reading lists instead of looking one by one, and who goes first where a limit binds."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

import taskbridge as tb
from taskbridge._engine.connection import Connection
from taskbridge._engine.lookup import PollResult
from taskbridge._polling.commands import Done, PollList, PollTask, WaitUntil
from taskbridge._polling.scheduler import PollScheduler
from taskbridge.provider.capabilities import PLAIN_ID, Capabilities, IdKind
from taskbridge.provider.http import Response
from taskbridge.provider.submission import Listing, ListPolling, Page, Query

from .conftest import Acme, Maker


class Listed(Acme):
    """Acme with a list of the tasks that go on."""

    capabilities = Capabilities(
        kinds=(IdKind(PLAIN_ID, example="t1"),),
        authentication="API key",
        listing=Listing(10),
        list_polling=ListPolling(10),
    )

    def list_queries(self, prefixes: frozenset[str], now: Any, age: float) -> tuple[Query, ...]:
        assert prefixes == {""}
        del now, age
        return (Query(tb.TaskStatus.PROCESSING),)


class Numbered(Acme):
    """Acme with a list of what waits and one of what is being done, whose pages have numbers."""

    capabilities = Capabilities(
        kinds=(IdKind(PLAIN_ID, example="t1"),),
        authentication="API key",
        listing=Listing(10),
        list_polling=ListPolling(10, queries=2, numbered=True),
    )

    def list_queries(self, prefixes: frozenset[str], now: Any, age: float) -> tuple[Query, ...]:
        del prefixes, now, age
        return (Query(tb.TaskStatus.PENDING), Query(tb.TaskStatus.PROCESSING))


class Vendor:
    """A vendor in virtual time: tasks end when their time has come, lists show those that go on."""

    def __init__(self, connection: Connection, ends: dict[str, float]) -> None:
        self.connection = connection
        self.scheduler = PollScheduler()
        self.ends = ends
        self.now = 0.0
        self.looks: list[str] = []
        self.times: list[float] = []
        self.pages = 0
        self.delays: dict[str, float] = {}
        self.missing: set[str] = set()  # what the list wrongly leaves out
        self.fails: list[tb.TaskbridgeError] = []
        for task_id in ends:
            self.scheduler.add(connection, task_id, 0.0)

    def task(self, task_id: str) -> bytes:
        return json.dumps({"id": task_id, "state": "done" if self.now >= self.ends[task_id] else "working"}).encode()

    def snapshot(self, task_id: str) -> tb.Task:
        flow = self.connection.provider.get(task_id)
        next(flow)
        with pytest.raises(StopIteration) as end:
            flow.send(Response(200, {}, self.task(task_id)))
        task: tb.Task = end.value.value
        return task

    def poll(self, command: PollTask) -> None:
        self.looks.append(command.task_id)
        self.times.append(self.now)
        seen = PollResult(self.snapshot(command.task_id), self.task(command.task_id), self.connection.clock.now())
        self.scheduler.on_polled(command, self.now, seen)

    def list(self, command: PollList) -> None:
        self.pages += 1
        if self.fails:
            self.scheduler.on_page_failed(command, self.now, self.fails.pop(0))
            return
        going = [i for i, end in self.ends.items() if self.now < end and i not in self.missing]
        first = int(command.cursor or 0)
        more = str(first + 10) if len(going) > first + 10 else None
        self.scheduler.on_page(command, self.now, Page(tuple(map(self.snapshot, going[first : first + 10])), more))

    def run(self, until: float = 1e6) -> None:
        for _ in range(100_000):
            command = self.scheduler.next(self.now)
            while (news := self.scheduler.next_update()) is not None:
                self.delays[news.outcome.ref.id] = self.now - self.ends[news.outcome.ref.id]
            match command:
                case PollTask():
                    self.poll(command)
                case PollList():
                    self.list(command)
                case WaitUntil():
                    assert command.time > self.now, "the fleet spins"
                    self.now = command.time
                case _:
                    assert command == Done()
                    return
            if self.now > until:
                return
        raise AssertionError("the fleet never ends")


@pytest.fixture
def poll_list(acme: Maker) -> Connection:
    return acme(provider=Listed, poll={"latency": 1.0}, max_in_flight=1000).connection


@pytest.fixture
def numbered(acme: Maker) -> Connection:
    return acme(provider=Numbered, poll={"latency": 1.0}, max_in_flight=1000).connection


class Reader:
    """Reads the lists of a fleet by hand: each page that is asked for stays open until it is handed in."""

    def __init__(self, connection: Connection, count: int, *, changes: bool = False) -> None:
        self.vendor = Vendor(connection, {})
        self.vendor.ends = {f"t{n:03}": 1e9 for n in range(count)}
        self.scheduler = self.vendor.scheduler
        for task_id in self.vendor.ends:
            self.scheduler.add(connection, task_id, 0.0, changes=changes)
        self.now = 0.0

    def next(self) -> list[PollTask | PollList]:
        """Everything that is asked for next, the time running on to it; each task's first look is answered."""
        found: list[PollTask | PollList] = []
        while len(found) < 1000:
            command = self.scheduler.next(self.now)
            if isinstance(command, PollTask) and command.entry.polls == 0:
                self.vendor.poll(command)
            elif isinstance(command, PollTask | PollList):
                found.append(command)
            elif isinstance(command, WaitUntil) and not found:
                self.now = self.vendor.now = command.time
            else:
                break
        return found

    def page(self, command: PollTask | PollList, *ids: str, more: str | None = None, **told: Any) -> None:
        """Hand in a page with the tasks named, as they are but for what is told of the first."""
        assert isinstance(command, PollList)
        tasks = [self.vendor.snapshot(each) for each in ids]
        tasks[:1] = [replace(task, **told) for task in tasks[:1]]
        self.scheduler.on_page(command, self.now, Page(tuple(tasks), more))

    def whole(self) -> tuple[list[PollTask | PollList], list[str]]:
        """The next sweep, every page of which is full of ours; the pages in order, and the ids."""
        ids = list(self.vendor.ends)
        asked: list[PollTask | PollList] = []
        while commands := self.next():
            for command in commands:
                assert isinstance(command, PollList)
                asked.append(command)
                first = 10 * (int(command.cursor or 1) - 1)
                shown = ids[first : first + 10]
                more = str(first // 10 + 2) if first + 10 < len(ids) else None
                self.page(command, *shown, more=more)
            if len(asked) >= -(-len(ids) // 10):
                break
        return asked, ids


def cursors(commands: list[PollTask | PollList]) -> list[str | None]:
    return [command.cursor for command in commands if isinstance(command, PollList)]


def ends(count: int) -> dict[str, float]:
    return {f"t{n}": 5.0 + n % 50 for n in range(count)}


def test_many_tasks_are_told_by_lists_and_each_end_by_one_look(poll_list: Connection) -> None:
    vendor = Vendor(poll_list, ends(500))
    vendor.run()
    assert len(vendor.delays) == 500
    assert len(vendor.looks) <= 2 * 500 + 50  # the first, the last, and some that are seen while few are left
    assert vendor.pages < 2000
    assert sum(vendor.delays.values()) / 500 < 1.6


def test_a_few_tasks_are_looked_at_one_by_one(poll_list: Connection) -> None:
    vendor = Vendor(poll_list, ends(5))
    vendor.run()
    assert vendor.pages == 0
    assert len(vendor.delays) == 5


def test_what_a_list_leaves_out_is_looked_at_and_goes_on(poll_list: Connection) -> None:
    vendor = Vendor(poll_list, ends(200))
    vendor.missing = {"t49", "t99"}
    vendor.run()
    assert len(vendor.delays) == 200
    assert vendor.looks.count("t49") > 5


def test_lists_that_fail_three_times_are_given_up(poll_list: Connection) -> None:
    vendor = Vendor(poll_list, ends(200))
    vendor.fails = [tb.ServerError("the vendor's server failed") for _ in range(3)]
    vendor.run()
    assert vendor.pages == 3
    assert len(vendor.delays) == 200


def test_a_list_that_the_vendor_refuses_is_given_up_at_once(poll_list: Connection) -> None:
    vendor = Vendor(poll_list, ends(200))
    vendor.fails = [tb.PermissionDenied("the credential may not do this")]
    vendor.run()
    assert vendor.pages == 1
    assert len(vendor.delays) == 200


def test_a_refused_account_ends_every_wait_with_one_error(poll_list: Connection) -> None:
    vendor = Vendor(poll_list, ends(200))
    refusal = tb.AuthenticationError("the vendor refused the credential")
    vendor.fails = [refusal]
    told: list[tb.Outcome] = []
    while not isinstance(command := vendor.scheduler.next(vendor.now), Done):
        if isinstance(command, PollTask):
            vendor.poll(command)
        elif isinstance(command, PollList):
            poll_list.refuse(refusal)
            vendor.list(command)
        elif isinstance(command, WaitUntil):
            vendor.now = command.time
        while (news := vendor.scheduler.next_update()) is not None:
            told.append(news.outcome)
    assert len(told) == 200
    assert {type(outcome.error) for outcome in told} == {tb.AuthenticationError}
    assert vendor.pages == 1


def test_a_snapshot_in_hand_saves_the_first_look(acme: Maker) -> None:
    made = acme(poll={"interval": 10.0})
    vendor = Vendor(made.connection, {})
    vendor.ends = {"t1": 3.0}
    vendor.scheduler.add(made.connection, "t1", 0.0, known=vendor.snapshot("t1"))
    vendor.run()
    assert vendor.looks == ["t1"]
    assert vendor.now > 3.0


def test_where_a_limit_binds_nobody_starves(acme: Maker) -> None:
    made = acme(poll={"interval": 0.05, "at_most": 40.0}, requests_per_second=5.0, max_in_flight=1)
    vendor = Vendor(made.connection, {f"t{n}": 1e9 for n in range(40)})
    vendor.run(until=300.0)
    assert len(vendor.looks) == pytest.approx(1500, abs=20)
    for task_id in vendor.ends:
        at = [when for when, seen in zip(vendor.times, vendor.looks, strict=True) if seen == task_id]
        assert max(b - a for a, b in zip([0.0, *at], [*at, 300.0], strict=True)) < 60.0


def test_where_a_limit_binds_those_likely_to_have_ended_go_first(acme: Maker) -> None:
    made = acme(poll={"latency": 0.05, "at_most": 300.0}, requests_per_second=5.0, max_in_flight=1)
    quick, slow = made.connection.durations_of("quick"), made.connection.durations_of("slow")
    for n in range(60):  # what was learnt before
        quick.observe(1.0 + n % 2, 2.0 + n % 2, ended=True)
        slow.observe(100.0 + n, 200.0 + n, ended=True)
    vendor = Vendor(made.connection, {})
    vendor.ends = {f"t{n}": 1e9 for n in range(40)}
    for n, task_id in enumerate(vendor.ends):
        known = replace(vendor.snapshot(task_id), operation="quick" if n < 20 else "slow")
        vendor.scheduler.add(made.connection, task_id, 0.0, known=known)
    vendor.run(until=20.0)
    first = [task_id for task_id in vendor.looks if int(task_id[1:]) < 20]
    assert len(first) > 0.8 * len(vendor.looks)


def test_numbered_pages_are_asked_for_at_the_same_time_the_last_first(numbered: Connection) -> None:
    reader = Reader(numbered, 40)
    asked, _ = reader.whole()
    assert cursors(asked) == [None, "2", "3", "4"]  # nothing is known of the length at first
    assert cursors(reader.next()) == ["4", "3", "2", None]


def test_a_list_that_grew_is_read_to_its_end_and_one_that_shrank_is_asked_for_less(numbered: Connection) -> None:
    reader = Reader(numbered, 40)
    reader.whole()
    ids = list(reader.vendor.ends)
    last, third, second, first = reader.next()
    reader.page(last, *ids[30:39], more="5")
    more = reader.next()
    assert cursors(more) == ["5"]
    reader.page(third)  # somebody else's tasks went
    reader.page(second, *ids[10:20])
    reader.page(first, *ids[:10], more="2")
    reader.page(more[0], ids[39])
    looks = reader.next()
    assert sorted(each.task_id for each in looks if isinstance(each, PollTask)) == ids[20:30]


def test_what_waits_is_not_asked_for_where_nothing_waits(numbered: Connection) -> None:
    reader = Reader(numbered, 40)
    asked, _ = reader.whole()
    assert {each.query.status for each in asked if isinstance(each, PollList)} == {tb.TaskStatus.PROCESSING}


def test_where_something_waits_both_lists_are_read_one_after_the_other(numbered: Connection) -> None:
    reader = Reader(numbered, 40)
    waiting = replace(reader.vendor.snapshot("t000"), status=tb.TaskStatus.PENDING)
    first = reader.scheduler.next(0.0)
    assert isinstance(first, PollTask)
    reader.scheduler.on_polled(first, 0.0, PollResult(waiting, None, waiting.observed_at))
    (pending,) = reader.next()
    assert isinstance(pending, PollList)
    assert pending.query.status is tb.TaskStatus.PENDING
    reader.page(pending, "t000", status=tb.TaskStatus.PENDING)
    (processing,) = reader.next()
    assert isinstance(processing, PollList)
    assert processing.query.status is tb.TaskStatus.PROCESSING


def test_reading_ends_once_every_task_was_seen(poll_list: Connection) -> None:
    reader = Reader(poll_list, 40)
    (page,) = reader.next()
    reader.page(page, *reader.vendor.ends, more="10")  # the newest first, and a thousand pages of old ones behind
    (page,) = reader.next()
    assert isinstance(page, PollList)
    assert page.cursor is None


def test_a_list_full_of_strangers_is_given_up_and_tried_again_later(poll_list: Connection) -> None:
    reader = Reader(poll_list, 40)
    number = 0
    while isinstance((command := reader.next()[0]), PollList):
        number += 1
        reader.page(command, more=str(10 * number))
    assert number == 2 * 4 + 4  # pages, and then the list is no use: everybody is looked at, again and again
    vendor = reader.vendor
    vendor.now = reader.now
    vendor.poll(command)
    vendor.run(until=reader.now + 280.0)
    assert vendor.pages == 0
    vendor.run(until=reader.now + 320.0)
    assert vendor.pages > 0


def test_tasks_that_begin_to_wait_while_a_list_is_read_do_not_count_as_missed(numbered: Connection) -> None:
    reader = Reader(numbered, 40)
    (page,) = reader.next()
    late = [f"u{n:03}" for n in range(10)]
    for task_id in late:
        reader.vendor.ends[task_id] = 1e9
        reader.scheduler.add(numbered, task_id, reader.now)
    assert reader.next() == []  # their first looks
    ids = list(reader.vendor.ends)
    for n in range(4):
        reader.page(page, *ids[10 * n : 10 * n + 10], more=None if n == 3 else str(n + 2))
        if n < 3:
            (page,) = reader.next()
    assert all(isinstance(each, PollList) for each in reader.next())


def test_a_vendor_whose_list_lags_costs_looks_only_until_that_is_seen(poll_list: Connection) -> None:
    reader = Reader(poll_list, 40)
    (page,) = reader.next()
    reader.page(page)  # the list does not have them yet
    vendor = reader.vendor
    vendor.missing = set(vendor.ends)
    vendor.now = reader.now
    vendor.run(until=reader.now + 60.0)
    assert vendor.pages <= 2
    assert len(vendor.looks) < 40 * 35  # no more than without a list, at 2 s between two looks


@pytest.mark.parametrize("told", [{"progress": 0.5}, {"message": "page 3 of 7"}, {"native_status": "rendering"}])
def test_watching_parties_hear_of_what_a_list_tells_by_one_look(poll_list: Connection, told: dict[str, Any]) -> None:
    reader = Reader(poll_list, 40, changes=True)
    (page,) = reader.next()
    others = list(reader.vendor.ends)[1:]
    reader.page(page, "t000", more="10", **told)
    (page, poll) = sorted(reader.next(), key=lambda each: isinstance(each, PollTask))
    assert isinstance(poll, PollTask)
    assert poll.task_id == "t000"
    while reader.scheduler.next_update() is not None:
        pass
    seen = replace(reader.vendor.snapshot("t000"), **told)
    reader.scheduler.on_polled(poll, reader.now, PollResult(seen, b"", seen.observed_at))
    news = reader.scheduler.next_update()
    assert news is not None
    assert news.outcome.task == seen
    reader.page(page, *others)
    (page,) = reader.next()
    reader.page(page, "t000", *others, **told)  # told before, and no reason to look
    assert all(isinstance(each, PollList) for each in reader.next())


def test_a_list_that_nobody_waits_for_any_more_holds_up_nobody(poll_list: Connection) -> None:
    reader = Reader(poll_list, 0)
    waiters = [reader.scheduler.add(poll_list, f"t{n:03}", 0.0) for n in range(40)]
    reader.vendor.ends = {f"t{n:03}": 1e9 for n in range(40)}
    (page,) = reader.next()
    reader.page(page, "t000", more="10")
    reader.scheduler.drop(waiters)  # before the next page is asked for
    for task_id in reader.vendor.ends:
        reader.scheduler.add(poll_list, task_id, reader.now)
    (page,) = reader.next()
    assert isinstance(page, PollList)
    assert page.cursor is None


def test_a_cursor_that_is_no_number_after_all_is_followed(numbered: Connection) -> None:
    reader = Reader(numbered, 40)
    ids = list(reader.vendor.ends)
    (page,) = reader.next()
    reader.page(page, *ids[:20], more="next:abc")
    (page,) = reader.next()
    assert cursors([page]) == ["next:abc"]
    reader.page(page, *ids[20:])
    assert all(isinstance(each, PollList) for each in reader.next())


def test_a_provider_that_trips_over_its_list_ends_no_wait(acme: Maker, caplog: pytest.LogCaptureFixture) -> None:
    class Tripping(Listed):
        def list_queries(self, prefixes: frozenset[str], now: Any, age: float) -> tuple[Query, ...]:
            raise ZeroDivisionError(f"{prefixes}{now}{age}")

    connection = acme(provider=Tripping, poll={"latency": 1.0}, max_in_flight=1000).connection
    vendor = Vendor(connection, {f"t{n:03}": 20.0 + n / 10 for n in range(100)})
    vendor.run()
    assert len(vendor.delays) == 100
    assert vendor.pages == 0
    told = [record for record in caplog.records if getattr(record, "event", "") == "list-polling-failed"]
    assert [record.levelname for record in told] == ["WARNING"]
