"""Tasks that the vendor's list alone finds and ends, where its rows are whole tasks."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Final

import pytest

import taskbridge as tb
from taskbridge import aio
from taskbridge._config.defaults import override_defaults
from taskbridge._engine.connection import Connection
from taskbridge._engine.lookup import PollResult, StatusResponse
from taskbridge._polling.commands import Command, Done, PollList, PollTask, Update, WaitUntil
from taskbridge._polling.scheduler import PollScheduler
from taskbridge.emulator import Plan
from taskbridge.provider.capabilities import PLAIN_ID, Capabilities, IdKind
from taskbridge.provider.submission import Listing, ListPolling, Page, Query
from taskbridge.testing import Emulator, VirtualClock
from taskbridge.testing.conformance.samples import connection_of
from taskbridge.testing.virtual_connections import RealTransports

from .conftest import Acme, Maker

PENDING, PROCESSING, COMPLETED, FAILED = tb.TaskStatus
PER_PAGE: Final = 20
STATUSES: Final = (PENDING, PROCESSING, COMPLETED, FAILED)


class Whole(Acme):
    """Acme with numbered lists by status, whose rows are whole tasks."""

    capabilities = Capabilities(
        kinds=(IdKind(PLAIN_ID, example="t1"),),
        authentication="API key",
        listing=Listing(PER_PAGE),
        list_polling=ListPolling(PER_PAGE, queries=4, numbered=True, whole_rows={"": "https://acme.test/docs/list"}),
    )

    def list_queries(self, prefixes: frozenset[str], now: Any, age: float) -> tuple[Query, ...]:
        del prefixes, now, age
        return tuple(map(Query, STATUSES))


class Large(Whole):
    """The same with pages of a hundred tasks."""

    capabilities = replace(
        Whole.capabilities,
        list_polling=ListPolling(100, queries=4, numbered=True, whole_rows={"": "https://acme.test/docs/list"}),
    )


@dataclass
class Vendor:
    """Acme in virtual time: tasks with the times of their ends, listed newest first."""

    connection: Connection
    ends: dict[str, float]  # ours and those of others, oldest first
    failed: frozenset[str] = frozenset()
    message: str | None = None  # that single responses have and rows lack
    begun: float = 0.0  # when the first was added
    now: float = 0.0
    scheduler: PollScheduler = field(default_factory=PollScheduler)
    polled: list[str] = field(default_factory=list[str])
    pages: list[Query] = field(default_factory=list[Query])
    updates: deque[Update] = field(default_factory=deque[Update])
    delays: list[float] = field(default_factory=list[float])
    listed: tuple[object, list[str]] = (None, [])  # of the last page: its time and query, and the ids

    def task(self, task_id: str, **fields: Any) -> tb.Task:
        over = self.now >= self.ends[task_id]
        status = (FAILED if task_id in self.failed else COMPLETED) if over else PROCESSING
        return tb.Task(
            provider="acme",
            connection="acme",
            id=task_id,
            native_id=task_id,
            status=status,
            native_status=status.value,
            observed_at=self.connection.clock.now(),
            result=tb.TaskResult(text="the text") if status is COMPLETED else None,
            **fields,
        )

    def add(self, ids: list[str], **options: Any) -> None:
        for task_id in ids:
            self.scheduler.add(self.connection, task_id, self.now, **options)

    def page(self, query: Query, cursor: str | None) -> Page:
        list_polling = self.connection.provider.capabilities.list_polling
        assert list_polling is not None
        size, number = query.page_size or list_polling.page_size, int(cursor or 1)
        if self.listed[0] != (self.now, query.status):
            over = query.status in {COMPLETED, FAILED}
            listed = [
                each
                for each in reversed(self.ends)
                if over == (self.now >= self.ends[each])
                and (not over or (each in self.failed) == (query.status is FAILED))
                and query.status is not PENDING
            ]
            self.listed = (self.now, query.status), listed
        listed = self.listed[1]
        shown = tuple(map(self.task, listed[(number - 1) * size : number * size]))
        return Page(shown, str(number + 1) if len(listed) > number * size else None)

    def answer(self, command: PollTask | PollList) -> None:
        if isinstance(command, PollList):
            self.pages.append(command.query)
            self.scheduler.on_page(command, self.now, self.page(command.query, command.cursor))
        else:
            self.polled.append(command.task_id)
            task = self.task(command.task_id, message=self.message)
            self.scheduler.on_polled(command, self.now, PollResult(task, StatusResponse(b""), task.observed_at))

    def commands(self) -> list[PollTask | PollList]:
        """What is requested now, unanswered."""
        found: list[PollTask | PollList] = []
        while isinstance(command := self._next(), PollTask | PollList):
            found.append(command)
        return found

    def _next(self) -> Command:
        command = self.scheduler.next(self.now)
        for _ in range(10):  # a step processes a bounded number of tasks that are due
            if not isinstance(command, WaitUntil) or command.time > self.now:
                break
            command = self.scheduler.next(self.now)
        while (update := self.scheduler.next_update()) is not None:
            self.updates.append(update)
            if update.final:
                self.delays.append(self.now - max(self.begun, self.ends[update.outcome.ref.id]))
        return command

    def run(self, until: float = math.inf) -> None:
        while not isinstance(command := self._next(), Done):
            if isinstance(command, PollTask | PollList):
                self.answer(command)
            else:
                assert isinstance(command, WaitUntil)
                if command.time > until:
                    self.now = until
                    return
                assert command.time > self.now, "the scheduler spins"
                self.now = command.time


@pytest.fixture
def whole(acme: Maker) -> Connection:
    return acme(provider=Whole, poll={"latency": 1.0}, max_in_flight=1000).connection


def names(count: int, letter: str = "t") -> list[str]:
    return [f"{letter}{n:04}" for n in range(count)]


def evenly(count: int, first: float = 5.0, last: float = 25.0) -> dict[str, float]:
    return {task_id: first + (last - first) * n / count for n, task_id in enumerate(names(count))}


def test_ids_are_found_and_ended_by_rows_alone(whole: Connection) -> None:
    vendor = Vendor(whole, evenly(200))
    vendor.add(names(200))
    vendor.run()
    assert len(vendor.updates) == 200
    assert len(vendor.polled) <= 4  # rows that are compared, and the last task
    assert all(update.outcome.unwrap().result == tb.TaskResult(text="the text") for update in vendor.updates)


def test_beside_many_tasks_of_others_rows_take_few_requests_for_each_task(acme: Maker) -> None:
    connection = acme(provider=Large, poll={"latency": 2.5}, max_in_flight=1000).connection
    chance = Random(3)
    durations = [chance.lognormvariate(math.log(8.0), 1.0) for _ in range(1000)]
    ours, others = dict(zip(names(1000), durations, strict=True)), dict.fromkeys(names(1000, "o"), 1e6)
    mixed = dict(each for pair in zip(ours.items(), others.items(), strict=True) for each in pair)
    vendor = Vendor(connection, {**dict.fromkeys(names(5000, "old"), -1.0), **mixed})
    vendor.add(names(1000))
    vendor.run()
    assert len(vendor.delays) == 1000
    assert sum(vendor.delays) / 1000 <= 2.6
    assert (len(vendor.polled) + len(vendor.pages)) / 1000 <= 0.45


def test_a_scan_begins_once_every_id_that_is_due_can_be_found_by_it(acme: Maker) -> None:
    connection = acme(provider=Large, poll={"latency": 2.5}, max_in_flight=1000).connection
    ids = names(5000)
    vendor = Vendor(connection, dict.fromkeys(ids, 0.0))
    vendor.add(ids)
    vendor.run()
    assert len(vendor.polled) + len(vendor.pages) < 60


@pytest.mark.parametrize(
    ("count", "begun", "longest"), [(10_000, 0.0, 50.0), (10_000, 100.0, 50.0), (25_000, 150.0, 100.0)]
)
def test_many_tasks_at_a_low_rate_are_ended_by_rows_soon(acme: Maker, count: int, begun: float, longest: float) -> None:
    connection = acme(provider=Large, max_in_flight=1000, requests_per_second=count / 1000.0).connection
    chance = Random(7)
    ends = {each: min(chance.lognormvariate(math.log(60.0), 0.7), 300.0) for each in names(count)}
    vendor = Vendor(connection, ends, begun=begun, now=begun)
    for first in range(0, count, 500):  # as a store is read, while the first scan runs already
        vendor.add([*ends][first : first + 500])
        vendor.run(vendor.now)
    vendor.run()
    assert len(vendor.delays) == count
    assert sum(vendor.delays) / count <= 20.0  # a scan takes ten seconds and more
    assert max(vendor.delays) <= longest
    assert len(vendor.polled) + len(vendor.pages) <= 0.25 * count


def test_failed_tasks_are_ended_by_rows_too(whole: Connection) -> None:
    vendor = Vendor(whole, evenly(200), failed=frozenset(names(200)[::4]))
    vendor.add(names(200))
    vendor.run()
    statuses = [update.outcome.task.status for update in vendor.updates if update.outcome.task is not None]
    assert (statuses.count(FAILED), statuses.count(COMPLETED)) == (50, 150)
    assert len(vendor.polled) <= 10


def test_tasks_that_ended_long_ago_are_found_among_others(whole: Connection) -> None:
    old = dict.fromkeys(names(1000, "old"), -1.0)
    vendor = Vendor(whole, {**old, **dict.fromkeys(names(200), -1.0), **dict.fromkeys(names(100, "new"), -1.0)})
    vendor.add(names(200))
    vendor.run()
    assert len(vendor.updates) == 200
    assert vendor.now == 0.0
    assert len(vendor.polled) + len(vendor.pages) < 40


def test_a_list_of_ended_tasks_that_shows_none_of_ours_is_not_read_far(whole: Connection) -> None:
    vendor = Vendor(whole, {**dict.fromkeys(names(200), -1.0), **dict.fromkeys(names(5000, "new"), -1.0)})
    vendor.add(names(200))
    vendor.run()
    assert sorted(vendor.polled) == names(200)
    assert len(vendor.pages) <= 200 / 8 + 5


def test_a_few_ids_are_polled_one_by_one(whole: Connection) -> None:
    vendor = Vendor(whole, evenly(10))
    vendor.add(names(10))
    vendor.run()
    assert vendor.pages == []


def test_an_id_that_the_list_does_not_show_is_polled(whole: Connection) -> None:
    vendor = Vendor(whole, evenly(200))
    vendor.add([*names(200), "absent"])
    for command in iter(vendor.commands, []):
        for each in command:
            if isinstance(each, PollTask):
                assert each.task_id == "absent"
                return
            vendor.answer(each)
    pytest.fail("it was not polled")


def test_rows_wait_until_the_first_of_their_kind_is_compared(whole: Connection) -> None:
    vendor = Vendor(whole, evenly(100, first=0.0, last=0.0))
    vendor.add(names(100))
    polls: list[PollTask] = []
    while commands := vendor.commands():
        polls += [each for each in commands if isinstance(each, PollTask)]
        for each in commands:
            if isinstance(each, PollList):
                vendor.answer(each)
    assert len(polls) == 1
    assert not vendor.updates
    vendor.answer(polls[0])
    assert vendor.commands() == []
    assert len(vendor.updates) == 100


def test_if_the_compared_task_is_no_longer_waited_for_another_one_is_compared(whole: Connection) -> None:
    vendor = Vendor(whole, evenly(100, first=0.0, last=0.0))
    waiters = {each: vendor.scheduler.add(whole, each, 0.0) for each in names(100)}
    polls: list[PollTask] = []
    while len(polls) < 2:
        commands = vendor.commands()
        for each in commands:
            if isinstance(each, PollList):
                vendor.answer(each)
            else:
                polls.append(each)
                if len(polls) == 1:
                    vendor.scheduler.drop([waiters[each.task_id]])
    vendor.answer(polls[1])
    vendor.run()
    assert len(vendor.updates) == 99


def test_a_vendor_whose_rows_are_not_whole_is_noticed_once(whole: Connection, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "taskbridge"):
        for _ in range(2):
            vendor = Vendor(whole, evenly(200), message="only in a status response")
            vendor.add(names(200))
            vendor.run()
            ends = [update.outcome.unwrap() for update in vendor.updates if update.final]
            assert len(ends) == 200
            assert {task.message for task in ends} == {"only in a status response"}
            assert sum(vendor.delays) / 200 < 1.5
    assert [getattr(record, "event", None) for record in caplog.records] == ["list-rows-incomplete"]


def test_rows_that_become_incomplete_later_are_noticed(whole: Connection) -> None:
    vendor = Vendor(whole, evenly(1000))
    vendor.add(names(1000))
    vendor.run(until=10.0)
    vendor.message = "only in a status response"
    vendor.run()
    messages = [update.outcome.unwrap().message for update in vendor.updates]
    assert messages.count("only in a status response") > 500


def test_links_that_are_signed_anew_are_the_same(acme: Maker) -> None:
    connection = acme(provider=Whole, poll={"latency": 1.0}).connection

    class Signing(Vendor):
        def task(self, task_id: str, **fields: Any) -> tb.Task:
            task = super().task(task_id, **fields)
            if task.result is None:
                return task
            url = f"https://files.test/{task_id}?signature={len(self.polled)}"
            return replace(task, result=tb.TaskResult(files=(tb.TaskFile(name="a.pdf", url=url),)))

    vendor = Signing(connection, evenly(200))
    vendor.add(names(200))
    vendor.run()
    assert len(vendor.polled) <= 4


def test_watchers_get_changes_from_rows(whole: Connection) -> None:
    vendor = Vendor(whole, evenly(100))
    vendor.add(names(100), changes=True)
    vendor.run()
    first = [update.outcome.unwrap().status for update in vendor.updates if update.outcome.ref.id == "t0050"]
    assert first == [PROCESSING, COMPLETED]
    assert len(vendor.polled) <= 4


def test_an_unknown_word_in_a_row_is_polled_once_and_logged(whole: Connection) -> None:
    class Novel(Vendor):
        def task(self, task_id: str, **fields: Any) -> tb.Task:
            task = super().task(task_id, **fields)
            if task_id == "t0007" and not task.is_terminal:
                return replace(task, native_status="pondering", recognized=False)
            return task

    vendor = Novel(whole, evenly(100, first=20.0, last=40.0))
    vendor.add(names(100))
    vendor.run(until=15.0)
    assert vendor.polled == ["t0007"]


def test_a_page_that_is_too_large_halves_the_page_size(whole: Connection) -> None:
    vendor = Vendor(whole, evenly(100))
    vendor.add(names(100))
    (page,) = vendor.commands()
    assert isinstance(page, PollList)
    vendor.scheduler.on_page_failed(page, 0.0, tb.ResponseTooLarge("the response is too large"))
    vendor.run()
    assert {query.page_size for query in vendor.pages} == {10}
    assert len(vendor.updates) == 100
    assert len(vendor.polled) <= 4


def test_pages_that_are_too_large_at_any_size_end_list_polling(whole: Connection) -> None:
    vendor = Vendor(whole, evenly(100))
    vendor.add(names(100))
    for _ in range(20):
        commands = vendor.commands()
        for each in commands:
            if isinstance(each, PollList):
                vendor.scheduler.on_page_failed(each, vendor.now, tb.ResponseTooLarge("the response is too large"))
        if any(isinstance(each, PollTask) for each in commands):
            return
        vendor.now += 1.0
    pytest.fail("the list is read for ever")


# The built-in vendors.


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    clock = VirtualClock()
    with override_defaults(clock=clock, transports=RealTransports()):
        yield clock


def submitted(vendor: str, client: tb.Client) -> list[str]:
    """Submit work for at least fifty tasks, and return their ids."""
    if vendor == "cloudconvert":
        jobs = [client.submit("convert", b"text", options={"output_format": "pdf"}) for _ in range(20)]
        return [task.id for job in jobs for task in job.subtasks]
    return [client.submit("extract-text", b"\x89PNG\r\n\x1a\n" + bytes(40)).id for _ in range(50)]


def wait_sync(vendor: str, settings: dict[str, Any], ids: list[str]) -> list[tb.Task]:
    with tb.connect(vendor, **settings) as client:
        return [outcome.unwrap() for outcome in client.wait_all(ids, timeout=600)]


def wait_async(vendor: str, settings: dict[str, Any], ids: list[str]) -> list[tb.Task]:
    async def run() -> list[tb.Task]:
        async with aio.connect(vendor, **settings) as client:
            return [outcome.unwrap() for outcome in await client.wait_all(ids, timeout=600)]

    return asyncio.run(run())


@pytest.mark.parametrize("wait", [wait_sync, wait_async])
@pytest.mark.parametrize("vendor", ["cloudconvert", "scan-documents"])
def test_built_in_vendors_end_tasks_by_rows(
    vendor: str, wait: Callable[[str, dict[str, Any], list[str]], list[tb.Task]], clock: VirtualClock
) -> None:
    with Emulator(clock=clock, plan=Plan(queued=5, working=20)) as emulator:
        settings: dict[str, Any] = {**emulator.settings(vendor), "poll": {"latency": 2.0}}
        with tb.connect(vendor, **settings) as client:
            ids = submitted(vendor, client)
            emulator.clear_requests()
            tasks = wait(vendor, settings, ids)
            single = [each for each in emulator.requests if each.path.rsplit("/", 1)[-1] in set(ids)]
            assert len(single) <= 10
            assert len(emulator.requests) < len(ids)
            assert [client.get(task) for task in tasks[:5]] == tasks[:5]


@pytest.mark.parametrize(
    ("vendor", "parameter"),
    [("cloudconvert", "per_page=7"), ("scan-documents", "take=7"), ("smartdocumentor", "pageSize=7")],
)
def test_built_in_vendors_are_asked_for_smaller_pages(vendor: str, parameter: str) -> None:
    with Emulator(vendor) as emulator:
        provider = connection_of(vendor, emulator.settings(vendor)).provider
        request = next(provider.list_page(Query(page_size=7), None))
    assert parameter in request.url
