"""Reading lists instead of looking one by one, and who goes first where a limit binds."""

from __future__ import annotations

import json
from typing import Any

import pytest

import taskbridge as tb
from taskbridge.channel import Channel
from taskbridge.fleet import Fleet
from taskbridge.http import Response
from taskbridge.looking import Look
from taskbridge.provider import PLAIN_ID, Capabilities, IdKind
from taskbridge.steps import Done, LookAt, LookAtMany, WaitUntil
from taskbridge.submission import Bulk, Listing, Page, Query

from .conftest import Acme, Maker


class Listed(Acme):
    """Acme with a list of the tasks that go on."""

    capabilities = Capabilities(
        kinds=(IdKind(PLAIN_ID, example="t1"),), authentication="API key", listing=Listing(10), bulk=Bulk(10)
    )

    def sweep(self, prefixes: frozenset[str], now: Any, age: float) -> tuple[Query, ...]:
        assert prefixes == {""}
        del now, age
        return (Query(tb.TaskStatus.PROCESSING),)


class Vendor:
    """A vendor in virtual time: tasks end when their time has come, lists show those that go on."""

    def __init__(self, channel: Channel, ends: dict[str, float]) -> None:
        self.channel = channel
        self.fleet = Fleet()
        self.ends = ends
        self.now = 0.0
        self.looks: list[str] = []
        self.times: list[float] = []
        self.pages = 0
        self.delays: dict[str, float] = {}
        self.missing: set[str] = set()  # what the list wrongly leaves out
        self.fails: list[tb.TaskbridgeError] = []
        for task_id in ends:
            self.fleet.add(channel, task_id, 0.0)

    def task(self, task_id: str) -> bytes:
        return json.dumps({"id": task_id, "state": "done" if self.now >= self.ends[task_id] else "working"}).encode()

    def snapshot(self, task_id: str) -> tb.Task:
        flow = self.channel.provider.get(task_id)
        next(flow)
        with pytest.raises(StopIteration) as end:
            flow.send(Response(200, {}, self.task(task_id)))
        task: tb.Task = end.value.value
        return task

    def look(self, command: LookAt) -> None:
        self.looks.append(command.task_id)
        self.times.append(self.now)
        seen = Look(self.snapshot(command.task_id), self.task(command.task_id), self.channel.clock.now())
        self.fleet.looked(command, self.now, seen)

    def list(self, command: LookAtMany) -> None:
        self.pages += 1
        if self.fails:
            self.fleet.unlisted(command, self.now, self.fails.pop(0))
            return
        going = [i for i, end in self.ends.items() if self.now < end and i not in self.missing]
        first = int(command.cursor or 0)
        more = str(first + 10) if len(going) > first + 10 else None
        self.fleet.listed(command, self.now, Page(tuple(map(self.snapshot, going[first : first + 10])), more))

    def run(self, until: float = 1e6) -> None:
        for _ in range(100_000):
            command = self.fleet.next(self.now)
            while (news := self.fleet.news()) is not None:
                self.delays[news.outcome.ref.id] = self.now - self.ends[news.outcome.ref.id]
            match command:
                case LookAt():
                    self.look(command)
                case LookAtMany():
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
def listed(acme: Maker) -> Channel:
    return acme(provider=Listed, poll={"latency": 1.0}, max_in_flight=1000).channel


def ends(count: int) -> dict[str, float]:
    return {f"t{n}": 5.0 + n % 50 for n in range(count)}


def test_many_tasks_are_told_by_lists_and_each_end_by_one_look(listed: Channel) -> None:
    vendor = Vendor(listed, ends(500))
    vendor.run()
    assert len(vendor.delays) == 500
    assert len(vendor.looks) <= 2 * 500 + 50  # the first, the last, and some that are seen while few are left
    assert vendor.pages < 2000
    assert sum(vendor.delays.values()) / 500 < 1.6


def test_a_few_tasks_are_looked_at_one_by_one(listed: Channel) -> None:
    vendor = Vendor(listed, ends(5))
    vendor.run()
    assert vendor.pages == 0
    assert len(vendor.delays) == 5


def test_what_a_list_leaves_out_is_looked_at_and_goes_on(listed: Channel) -> None:
    vendor = Vendor(listed, ends(200))
    vendor.missing = {"t49", "t99"}
    vendor.run()
    assert len(vendor.delays) == 200
    assert vendor.looks.count("t49") > 5


def test_lists_that_fail_three_times_are_given_up(listed: Channel) -> None:
    vendor = Vendor(listed, ends(200))
    vendor.fails = [tb.ServerError("the vendor's server failed") for _ in range(3)]
    vendor.run()
    assert vendor.pages == 3
    assert len(vendor.delays) == 200


def test_a_list_that_the_vendor_refuses_is_given_up_at_once(listed: Channel) -> None:
    vendor = Vendor(listed, ends(200))
    vendor.fails = [tb.PermissionDenied("the credential may not do this")]
    vendor.run()
    assert vendor.pages == 1
    assert len(vendor.delays) == 200


def test_a_refused_account_ends_every_wait_with_one_error(listed: Channel) -> None:
    vendor = Vendor(listed, ends(200))
    refusal = tb.AuthenticationError("the vendor refused the credential")
    vendor.fails = [refusal]
    told: list[tb.Outcome] = []
    while not isinstance(command := vendor.fleet.next(vendor.now), Done):
        if isinstance(command, LookAt):
            vendor.look(command)
        elif isinstance(command, LookAtMany):
            listed.refuse(refusal)
            vendor.list(command)
        elif isinstance(command, WaitUntil):
            vendor.now = command.time
        while (news := vendor.fleet.news()) is not None:
            told.append(news.outcome)
    assert len(told) == 200
    assert {type(outcome.error) for outcome in told} == {tb.AuthenticationError}
    assert vendor.pages == 1


def test_a_snapshot_in_hand_saves_the_first_look(acme: Maker) -> None:
    made = acme(poll={"interval": 10.0})
    vendor = Vendor(made.channel, {})
    vendor.ends = {"t1": 3.0}
    vendor.fleet.add(made.channel, "t1", 0.0, known=vendor.snapshot("t1"))
    vendor.run()
    assert vendor.looks == ["t1"]
    assert vendor.now > 3.0


def test_where_a_limit_binds_nobody_starves(acme: Maker) -> None:
    made = acme(poll={"interval": 0.05, "at_most": 40.0}, requests_per_second=5.0, max_in_flight=1)
    vendor = Vendor(made.channel, {f"t{n}": 1e9 for n in range(40)})
    vendor.run(until=300.0)
    assert len(vendor.looks) == pytest.approx(1500, abs=20)
    for task_id in vendor.ends:
        at = [when for when, seen in zip(vendor.times, vendor.looks, strict=True) if seen == task_id]
        assert max(b - a for a, b in zip([0.0, *at], [*at, 300.0], strict=True)) < 60.0


def test_where_a_limit_binds_those_likely_to_have_ended_go_first(acme: Maker) -> None:
    made = acme(poll={"latency": 0.05, "at_most": 300.0}, requests_per_second=5.0, max_in_flight=1)
    quick, slow = made.channel.pace("quick"), made.channel.pace("slow")
    for n in range(60):  # what was learnt before
        quick.durations.watched(1.0 + n % 2, 2.0 + n % 2, ended=True)
        slow.durations.watched(100.0 + n, 200.0 + n, ended=True)
    vendor = Vendor(made.channel, {})
    vendor.ends = {f"t{n}": 1e9 for n in range(40)}
    for n, task_id in enumerate(vendor.ends):
        known = vendor.snapshot(task_id).model_copy(update={"operation": "quick" if n < 20 else "slow"})
        vendor.fleet.add(made.channel, task_id, 0.0, known=known)
    vendor.run(until=20.0)
    first = [task_id for task_id in vendor.looks if int(task_id[1:]) < 20]
    assert len(first) > 0.8 * len(vendor.looks)
