"""Reading the vendor's list instead of polling each task, and which task goes first when a limit binds."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

import taskbridge as tb
from taskbridge._engine.connection import Connection
from taskbridge._engine.lookup import PollResult, StatusResponse
from taskbridge._polling.commands import Done, PollList, PollTask, WaitUntil
from taskbridge._polling.scheduler import PollScheduler
from taskbridge.provider.capabilities import PLAIN_ID, Capabilities, IdKind
from taskbridge.provider.http import Response
from taskbridge.provider.submission import Listing, ListPolling, Page, Query

from .conftest import Acme, Maker


class Listed(Acme):
    """Acme with a list of running tasks."""

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
    """Acme with numbered lists of pending and of processing tasks."""

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
    """A vendor in virtual time: each task ends at its own time, lists show those that have not ended."""

    def __init__(self, connection: Connection, ends: dict[str, float]) -> None:
        self.connection = connection
        self.scheduler = PollScheduler()
        self.ends = ends
        self.now = 0.0
        self.polled: list[str] = []
        self.times: list[float] = []
        self.pages = 0
        self.delays: dict[str, float] = {}
        self.missing: set[str] = set()  # tasks that the list wrongly omits
        self.errors: list[tb.TaskbridgeError] = []
        self.is_down = False
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
        if self.is_down:
            self.scheduler.on_poll_failed(command, self.now, tb.ServerError("the vendor's server failed"))
            return
        self.polled.append(command.task_id)
        self.times.append(self.now)
        seen = PollResult(
            self.snapshot(command.task_id), StatusResponse(self.task(command.task_id)), self.connection.clock.now()
        )
        self.scheduler.on_polled(command, self.now, seen)

    def list(self, command: PollList) -> None:
        self.pages += 1
        if self.is_down:
            self.scheduler.on_page_failed(command, self.now, tb.ServerError("the vendor's server failed"))
            return
        if self.errors:
            self.scheduler.on_page_failed(command, self.now, self.errors.pop(0))
            return
        running = [i for i, end in self.ends.items() if self.now < end and i not in self.missing]
        first = int(command.cursor or 0)
        more = str(first + 10) if len(running) > first + 10 else None
        self.scheduler.on_page(command, self.now, Page(tuple(map(self.snapshot, running[first : first + 10])), more))

    def run(self, until: float = 1e6) -> None:
        for _ in range(100_000):
            command = self.scheduler.next(self.now)
            while (update := self.scheduler.next_update()) is not None:
                self.delays[update.outcome.ref.id] = self.now - self.ends[update.outcome.ref.id]
            match command:
                case PollTask():
                    self.poll(command)
                case PollList():
                    self.list(command)
                case WaitUntil():
                    assert command.time > self.now, "the scheduler spins"
                    self.now = command.time
                case _:
                    assert command == Done()
                    return
            if self.now > until:
                return
        raise AssertionError("the scheduler never ends")


@pytest.fixture
def listing(acme: Maker) -> Connection:
    return acme(provider=Listed, poll={"latency": 1.0}, max_in_flight=1000).connection


@pytest.fixture
def numbered(acme: Maker) -> Connection:
    return acme(provider=Numbered, poll={"latency": 1.0}, max_in_flight=1000).connection


class Reader:
    """Reads the lists of a scheduler by hand: each requested page stays in flight until `page` answers it."""

    def __init__(self, connection: Connection, count: int, *, changes: bool = False) -> None:
        self.vendor = Vendor(connection, {})
        self.vendor.ends = {f"t{n:03}": 1e9 for n in range(count)}
        self.scheduler = self.vendor.scheduler
        for task_id in self.vendor.ends:
            self.scheduler.add(connection, task_id, 0.0, changes=changes)
        self.now = 0.0

    def next(self) -> list[PollTask | PollList]:
        """Everything that is requested next, advancing the time to it; first polls are answered at once."""
        commands: list[PollTask | PollList] = []
        while len(commands) < 1000:
            command = self.scheduler.next(self.now)
            if isinstance(command, PollTask) and command.entry.polls == 0:
                self.vendor.poll(command)
            elif isinstance(command, PollTask | PollList):
                commands.append(command)
            elif isinstance(command, WaitUntil) and not commands:
                self.now = self.vendor.now = command.time
            else:
                break
        return commands

    def page(self, command: PollTask | PollList, *ids: str, more: str | None = None, **changes: Any) -> None:
        """Answer with a page of these tasks, with changes to the first."""
        assert isinstance(command, PollList)
        tasks = [self.vendor.snapshot(each) for each in ids]
        tasks[:1] = [replace(task, **changes) for task in tasks[:1]]
        self.scheduler.on_page(command, self.now, Page(tuple(tasks), more))

    def scan(self) -> tuple[list[PollTask | PollList], list[str]]:
        """Run the next scan, with pages full of our tasks; return the requests in order, and the ids."""
        ids = list(self.vendor.ends)
        requested: list[PollTask | PollList] = []
        while commands := self.next():
            for command in commands:
                assert isinstance(command, PollList)
                requested.append(command)
                first = 10 * (int(command.cursor or 1) - 1)
                shown = ids[first : first + 10]
                more = str(first // 10 + 2) if first + 10 < len(ids) else None
                self.page(command, *shown, more=more)
            if len(requested) >= -(-len(ids) // 10):
                break
        return requested, ids


def cursors(commands: list[PollTask | PollList]) -> list[str | None]:
    return [command.cursor for command in commands if isinstance(command, PollList)]


def ends(count: int) -> dict[str, float]:
    return {f"t{n}": 5.0 + n % 50 for n in range(count)}


def test_lists_show_many_tasks_and_each_end_takes_one_poll(listing: Connection) -> None:
    vendor = Vendor(listing, ends(500))
    vendor.run()
    assert len(vendor.delays) == 500
    assert len(vendor.polled) <= 2 * 500 + 50  # the first, the last, and some while few are left
    assert vendor.pages < 2000
    assert sum(vendor.delays.values()) / 500 < 1.6


def test_a_few_tasks_are_polled_one_by_one(listing: Connection) -> None:
    vendor = Vendor(listing, ends(5))
    vendor.run()
    assert vendor.pages == 0
    assert len(vendor.delays) == 5


def test_a_running_task_that_the_list_omits_is_polled(listing: Connection) -> None:
    vendor = Vendor(listing, ends(200))
    vendor.missing = {"t49", "t99"}
    vendor.run()
    assert len(vendor.delays) == 200
    assert vendor.polled.count("t49") > 5


def test_after_three_failed_pages_tasks_are_polled_one_by_one(listing: Connection) -> None:
    vendor = Vendor(listing, ends(200))
    vendor.errors = [tb.ServerError("the vendor's server failed") for _ in range(3)]
    vendor.run()
    assert vendor.pages == 3
    assert len(vendor.delays) == 200


def test_lists_that_failed_are_tried_again_later(listing: Connection) -> None:
    vendor = Vendor(listing, {f"t{n}": 2000.0 + n % 50 for n in range(200)})
    vendor.run(100.0)
    before = vendor.pages
    vendor.errors = [tb.ServerError("the vendor's server failed") for _ in range(3)]
    vendor.run(300.0)
    assert vendor.pages == before + 3
    vendor.run()
    assert vendor.pages > before + 50
    assert len(vendor.delays) == 200


def test_lists_are_read_again_after_an_outage(listing: Connection) -> None:
    vendor = Vendor(listing, {f"t{n}": 2000.0 + n % 50 for n in range(200)})
    vendor.run(100.0)
    vendor.is_down = True
    before = vendor.pages
    vendor.run(1900.0)
    assert vendor.pages < before + 200  # with growing pauses
    vendor.is_down = False
    polled, pages = len(vendor.polled), vendor.pages
    vendor.run()
    assert len(vendor.delays) == 200
    assert len(vendor.polled) - polled <= 200 + 50  # the last poll of each, and few others
    assert vendor.pages > pages + 20


def test_a_permanent_error_of_a_list_ends_list_polling_at_once(listing: Connection) -> None:
    vendor = Vendor(listing, ends(200))
    vendor.errors = [tb.PermissionDenied("the credential may not do this")]
    vendor.run()
    assert vendor.pages == 1
    assert len(vendor.delays) == 200


def test_a_refused_account_ends_every_wait_after_one_error(listing: Connection) -> None:
    vendor = Vendor(listing, ends(200))
    refusal = tb.AuthenticationError("the vendor refused the credential")
    vendor.errors = [refusal]
    outcomes: list[tb.Outcome] = []
    while not isinstance(command := vendor.scheduler.next(vendor.now), Done):
        if isinstance(command, PollTask):
            vendor.poll(command)
        elif isinstance(command, PollList):
            listing.credentials.refuse(refusal, listing.name)
            vendor.list(command)
        elif isinstance(command, WaitUntil):
            vendor.now = command.time
        while (update := vendor.scheduler.next_update()) is not None:
            outcomes.append(update.outcome)
    assert len(outcomes) == 200
    assert {type(outcome.error) for outcome in outcomes} == {tb.AuthenticationError}
    assert vendor.pages == 1


def test_a_known_snapshot_saves_the_first_poll(acme: Maker) -> None:
    harness = acme(poll={"interval": 10.0})
    vendor = Vendor(harness.connection, {})
    vendor.ends = {"t1": 3.0}
    vendor.scheduler.add(harness.connection, "t1", 0.0, known=vendor.snapshot("t1"))
    vendor.run()
    assert vendor.polled == ["t1"]
    assert vendor.now > 3.0


def test_when_a_limit_binds_no_task_starves(acme: Maker) -> None:
    harness = acme(poll={"interval": 0.05, "at_most": 40.0}, requests_per_second=5.0, max_in_flight=1)
    vendor = Vendor(harness.connection, {f"t{n}": 1e9 for n in range(40)})
    vendor.run(until=300.0)
    assert len(vendor.polled) == pytest.approx(1500, abs=20)
    for task_id in vendor.ends:
        at = [when for when, seen in zip(vendor.times, vendor.polled, strict=True) if seen == task_id]
        assert max(b - a for a, b in zip([0.0, *at], [*at, 300.0], strict=True)) < 60.0


def test_when_a_limit_binds_tasks_likely_to_have_ended_go_first(acme: Maker) -> None:
    harness = acme(poll={"latency": 0.05, "at_most": 300.0}, requests_per_second=5.0, max_in_flight=1)
    harness.clock.pinned = None  # tasks are compared in random samples
    quick, slow = harness.connection.durations_of("quick"), harness.connection.durations_of("slow")
    for n in range(60):  # learned before
        quick.observe(1.0 + n % 2, 2.0 + n % 2, ended=True)
        slow.observe(100.0 + n, 200.0 + n, ended=True)
    vendor = Vendor(harness.connection, {})
    vendor.ends = {f"t{n}": 1e9 for n in range(40)}
    for n, task_id in enumerate(vendor.ends):
        known = replace(vendor.snapshot(task_id), operation="quick" if n < 20 else "slow")
        vendor.scheduler.add(harness.connection, task_id, 0.0, known=known)
    vendor.run(until=20.0)
    first = [task_id for task_id in vendor.polled if int(task_id[1:]) < 20]
    assert len(first) > 0.8 * len(vendor.polled)


def test_numbered_pages_are_requested_in_parallel_the_last_first(numbered: Connection) -> None:
    reader = Reader(numbered, 40)
    requested, _ = reader.scan()
    assert cursors(requested) == [None, "2", "3", "4"]  # the length is unknown at first
    assert cursors(reader.next()) == ["4", "3", "2", None]


def test_a_longer_list_is_read_to_its_end_and_a_shorter_one_takes_fewer_pages(numbered: Connection) -> None:
    reader = Reader(numbered, 40)
    reader.scan()
    ids = list(reader.vendor.ends)
    last, third, second, first = reader.next()
    reader.page(last, *ids[30:39], more="5")
    more = reader.next()
    assert cursors(more) == ["5"]
    reader.page(third)  # the tasks of others ended
    reader.page(second, *ids[10:20])
    reader.page(first, *ids[:10], more="2")
    reader.page(more[0], ids[39])
    polls = reader.next()
    assert sorted(each.task_id for each in polls if isinstance(each, PollTask)) == ids[20:30]


def test_pending_tasks_are_not_listed_if_none_is_pending(numbered: Connection) -> None:
    reader = Reader(numbered, 40)
    requested, _ = reader.scan()
    assert {each.query.status for each in requested if isinstance(each, PollList)} == {tb.TaskStatus.PROCESSING}


def test_with_a_pending_task_both_lists_are_read_one_after_the_other(numbered: Connection) -> None:
    reader = Reader(numbered, 40)
    snapshot = replace(reader.vendor.snapshot("t000"), status=tb.TaskStatus.PENDING)
    first = reader.scheduler.next(0.0)
    assert isinstance(first, PollTask)
    reader.scheduler.on_polled(first, 0.0, PollResult(snapshot, None, snapshot.observed_at))
    (pending,) = reader.next()
    assert isinstance(pending, PollList)
    assert pending.query.status is tb.TaskStatus.PENDING
    reader.page(pending, "t000", status=tb.TaskStatus.PENDING)
    (processing,) = reader.next()
    assert isinstance(processing, PollList)
    assert processing.query.status is tb.TaskStatus.PROCESSING


def test_a_scan_ends_once_every_task_was_seen(listing: Connection) -> None:
    reader = Reader(listing, 40)
    (page,) = reader.next()
    reader.page(page, *reader.vendor.ends, more="10")  # newest first, followed by a thousand pages of old tasks
    (page,) = reader.next()
    assert isinstance(page, PollList)
    assert page.cursor is None


def test_a_list_full_of_others_tasks_is_abandoned_and_tried_again_later(listing: Connection) -> None:
    reader = Reader(listing, 40)
    number = 0
    while isinstance((command := reader.next()[0]), PollList):
        number += 1
        reader.page(command, more=str(10 * number))
    assert number == 2 * 4 + 4  # pages; then the list is not worth it, and each task is polled
    vendor = reader.vendor
    vendor.now = reader.now
    vendor.poll(command)
    vendor.run(until=reader.now + 280.0)
    assert vendor.pages == 0
    vendor.run(until=reader.now + 320.0)
    assert vendor.pages > 0


def test_tasks_added_during_a_scan_do_not_count_as_unlisted(numbered: Connection) -> None:
    reader = Reader(numbered, 40)
    (page,) = reader.next()
    late = [f"u{n:03}" for n in range(10)]
    for task_id in late:
        reader.vendor.ends[task_id] = 1e9
        reader.scheduler.add(numbered, task_id, reader.now)
    assert reader.next() == []  # their first polls are answered
    ids = list(reader.vendor.ends)
    for n in range(4):
        reader.page(page, *ids[10 * n : 10 * n + 10], more=None if n == 3 else str(n + 2))
        if n < 3:
            (page,) = reader.next()
    assert all(isinstance(each, PollList) for each in reader.next())


def test_a_lagging_list_causes_extra_polls_only_at_first(listing: Connection) -> None:
    reader = Reader(listing, 40)
    (page,) = reader.next()
    reader.page(page)  # the list does not have them yet
    vendor = reader.vendor
    vendor.missing = set(vendor.ends)
    vendor.now = reader.now
    vendor.run(until=reader.now + 60.0)
    assert vendor.pages <= 2
    assert len(vendor.polled) < 40 * 35  # no more than without a list, at 2 s between polls


@pytest.mark.parametrize("changes", [{"progress": 0.5}, {"message": "page 3 of 7"}, {"native_status": "rendering"}])
def test_a_change_in_the_list_causes_one_poll_for_waiters_that_want_changes(
    listing: Connection, changes: dict[str, Any]
) -> None:
    reader = Reader(listing, 40, changes=True)
    (page,) = reader.next()
    others = list(reader.vendor.ends)[1:]
    reader.page(page, "t000", more="10", **changes)
    (page, poll) = sorted(reader.next(), key=lambda each: isinstance(each, PollTask))
    assert isinstance(poll, PollTask)
    assert poll.task_id == "t000"
    while reader.scheduler.next_update() is not None:
        pass
    seen = replace(reader.vendor.snapshot("t000"), **changes)
    reader.scheduler.on_polled(poll, reader.now, PollResult(seen, StatusResponse(b""), seen.observed_at))
    update = reader.scheduler.next_update()
    assert update is not None
    assert update.outcome.task == seen
    reader.page(page, *others)
    (page,) = reader.next()
    reader.page(page, "t000", *others, **changes)  # known, so not polled
    assert all(isinstance(each, PollList) for each in reader.next())


def test_a_scan_without_waiters_does_not_block_new_ones(listing: Connection) -> None:
    reader = Reader(listing, 0)
    waiters = [reader.scheduler.add(listing, f"t{n:03}", 0.0) for n in range(40)]
    reader.vendor.ends = {f"t{n:03}": 1e9 for n in range(40)}
    (page,) = reader.next()
    reader.page(page, "t000", more="10")
    reader.scheduler.drop(waiters)  # before the next page is requested
    for task_id in reader.vendor.ends:
        reader.scheduler.add(listing, task_id, reader.now)
    (page,) = reader.next()
    assert isinstance(page, PollList)
    assert page.cursor is None


def test_a_cursor_that_is_unexpectedly_not_a_number_is_followed(numbered: Connection) -> None:
    reader = Reader(numbered, 40)
    ids = list(reader.vendor.ends)
    (page,) = reader.next()
    reader.page(page, *ids[:20], more="next:abc")
    (page,) = reader.next()
    assert cursors([page]) == ["next:abc"]
    reader.page(page, *ids[20:])
    assert all(isinstance(each, PollList) for each in reader.next())


def test_a_provider_that_fails_to_list_ends_no_wait(acme: Maker, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Listed):
        def list_queries(self, prefixes: frozenset[str], now: Any, age: float) -> tuple[Query, ...]:
            raise ZeroDivisionError(f"{prefixes}{now}{age}")

    connection = acme(provider=Broken, poll={"latency": 1.0}, max_in_flight=1000).connection
    vendor = Vendor(connection, {f"t{n:03}": 20.0 + n / 10 for n in range(100)})
    vendor.run()
    assert len(vendor.delays) == 100
    assert vendor.pages == 0
    records = [record for record in caplog.records if getattr(record, "event", "") == "list-polling-failed"]
    assert [record.levelname for record in records] == ["WARNING"]
