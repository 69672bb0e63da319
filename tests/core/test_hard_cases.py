"""Hard cases of waiting for many tasks: requests, threads and asyncio tasks are counted, mostly in virtual time."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

import taskbridge as tb
from taskbridge import aio
from taskbridge._engine.lookup import poll
from taskbridge._engine.retry import RequestOptions
from taskbridge._polling.scheduler import PollScheduler
from taskbridge._runtime.base import Transports
from taskbridge._runtime.sync import Runtime
from taskbridge.provider.http import Request, Response
from taskbridge.testing import AsyncScriptedTransport, ScriptedTransport, VirtualClock

from .conftest import Acme

if TYPE_CHECKING:
    from .conftest import Maker

    Says = Callable[..., Response]


def task_of(request: Request) -> str:
    return request.url.rpartition("/")[2]


def waiting_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("taskbridge-wait")]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    gc.collect()
    for thread in waiting_threads():
        thread.join(5.0)
    assert waiting_threads() == []


# Thousands.


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Do not log each poll."""
    for name in ("taskbridge.requests", "taskbridge.tasks"):
        caplog.set_level(logging.WARNING, logger=name)


def some_missing(says: Says) -> Callable[[Request], Response]:
    """A vendor whose tasks have all ended, except every hundredth, which does not exist."""

    def vendor(request: Request) -> Response:
        task_id = task_of(request)
        return Response(404, {}, b"{}") if int(task_id[1:]) % 100 == 0 else says(task_id, "done")

    return vendor


def check_ten_thousand(outcomes: list[tb.Outcome], requests: int) -> None:
    assert [outcome.ref.id for outcome in outcomes] == [f"t{n}" for n in range(10_000)]
    assert Counter(type(outcome.error) for outcome in outcomes) == {type(None): 9900, tb.TaskNotFound: 100}
    assert requests == 10_000 + 100 * 8  # each that does not exist may be new for ten seconds


@pytest.mark.slow
@pytest.mark.usefixtures("quiet")
def test_ten_thousand_refs_of_which_a_hundred_do_not_exist(acme: Maker, says: Says) -> None:
    harness = acme(some_missing(says))
    most = 0

    def counting(request: Request) -> Response:
        nonlocal most
        most = max(most, len(waiting_threads())) if task_of(request).endswith("00") else most
        return some_missing(says)(request)

    transport = ScriptedTransport(counting, clock=harness.clock)
    with tb.Client(harness.connection, clock=harness.clock, transport=transport) as client:
        outcomes = client.wait_all([f"t{n}" for n in range(10_000)], timeout=None)
    check_ten_thousand(outcomes, len(transport.requests))
    assert 1 <= most <= 8


@pytest.mark.slow
@pytest.mark.usefixtures("quiet")
def test_ten_thousand_refs_asynchronously_without_a_thread(acme: Maker, says: Says) -> None:
    harness = acme(some_missing(says))
    before = threading.active_count()

    async def run() -> None:
        client, transport = harness.asynchronous()
        async with client:
            outcomes = await client.wait_all([f"t{n}" for n in range(10_000)], timeout=None)
            assert threading.active_count() == before
            assert len(asyncio.all_tasks()) <= 2 + harness.connection.settings.max_in_flight
        check_ten_thousand(outcomes, len(transport.requests))

    asyncio.run(run())


# A credential that is refused during a wait.


def test_a_401_during_a_wait_pauses_its_connection_only_and_the_wait_can_be_resumed(
    acme: Maker, says: Says, caplog: pytest.LogCaptureFixture
) -> None:
    numbers = count()
    repaired = threading.Event()

    def vendor(request: Request) -> Response:
        if "//refuses." in request.url and next(numbers) >= 10 and not repaired.is_set():
            return Response(401, {}, b"{}")
        return says(task_of(request), "done" if repaired.is_set() or "//works." in request.url else "working")

    harnesses = {
        name: acme(name=name, base_url=f"https://{name}.test/v1", poll={"interval": 5.0})
        for name in ("refuses", "works")
    }
    clock = harnesses["works"].clock
    transport = ScriptedTransport(vendor, clock=clock)
    refused = [f"refuses:t{n}" for n in range(20)]
    with (
        caplog.at_level(logging.WARNING, logger="taskbridge"),
        tb.Bridge(
            {name: each.connection for name, each in harnesses.items()}, clock=clock, transport=transport
        ) as bridge,
    ):
        outcomes = bridge.wait_all([*refused, *(f"works:t{n}" for n in range(20))], timeout=600.0)
        assert {type(outcome.error) for outcome in outcomes[:20]} == {tb.AuthenticationError}
        assert len({str(outcome.error).replace(outcome.ref, "") for outcome in outcomes[:20]}) == 1
        assert [outcome.unwrap().status for outcome in outcomes[20:]] == ["completed"] * 20
        sent = sum("//refuses." in request.url for request in transport.requests)
        assert sent <= 10 + 8  # those in flight when the first 401 arrived
        repaired.set()
        assert {outcome.unwrap().status for outcome in bridge.wait_all(refused, timeout=600.0)} == {"completed"}
    # The threads of the bridge have ended; one of them may have logged after the waits were over.
    assert sum("pauses" in record.getMessage() for record in caplog.records) == 1


# Tasks added during a wait, and callers that leave.


def test_tasks_are_added_while_iterating(acme: Maker, says: Says) -> None:
    harness = acme(lambda request: says(task_of(request), "done"))
    with harness.client as client:
        seen: list[str] = []
        for outcome in client.as_completed(["t1", "t2"]):
            seen.append(outcome.ref.id)
            if len(seen) <= 2:
                seen += [each.ref.id for each in client.as_completed([f"u{len(seen)}", f"v{len(seen)}"])]
    assert sorted(seen)[:2] == ["t1", "t2"]
    assert len(seen) == len(harness.transport.requests)
    assert all(number == 1 for number in Counter(map(task_of, harness.transport.requests)).values())


def test_tasks_are_added_while_iterating_asynchronously(acme: Maker, says: Says) -> None:
    harness = acme(lambda request: says(task_of(request), "done"))

    async def run() -> list[str]:
        client, transport = harness.asynchronous()
        seen: list[str] = []
        async with client:
            async for outcome in client.as_completed(["t1", "t2"]):
                seen.append(outcome.ref.id)
                seen += [each.ref.id for each in await client.wait_all([f"u{len(seen)}", f"v{len(seen)}"])]
        assert len(seen) == len(transport.requests)
        return seen

    assert len(asyncio.run(run())) == 6


# A process of its own: the first poll sends it the interrupt.
INTERRUPTED_WAIT = """
import gc, json, os, signal, sys, threading
import taskbridge as tb
from taskbridge.provider import Response
from taskbridge.testing import ScriptedTransport

def vendor(request):
    if waiting:
        waiting.clear()
        os.kill(os.getpid(), signal.SIGINT)
    task = {"id": request.url.rpartition("/")[2], "status": "processing", "operation": "convert"}
    return Response(200, {}, json.dumps({"data": task}).encode())

waiting = [True]
ids = [f"{n:08x}-0000-4000-8000-000000000000" for n in range(int(sys.argv[1]))]
signal.signal(signal.SIGINT, signal.default_int_handler)
settings = {"api_key": "key-of-a-test", "poll": {"interval": 60.0}}
with tb.connect("cloudconvert", **settings, transport=ScriptedTransport(vendor)) as client:
    try:
        client.wait_all(ids, timeout=30.0)
    except KeyboardInterrupt:
        print("interrupted")
    gc.collect()
    for thread in threading.enumerate():
        if thread.name.startswith("taskbridge-wait"):
            thread.join(10.0)
    print([each.name for each in threading.enumerate() if each.name.startswith("taskbridge-wait")])
    print(client.get(ids[0]).status)
"""


@pytest.mark.parametrize("number", [1, 50])
def test_an_interrupt_ends_the_wait_and_leaves_no_thread(number: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_WAIT, str(number)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout.splitlines(), done.stderr) == (["interrupted", "[]", "processing"], "")


def test_a_thread_that_cannot_start_leaves_the_client_usable(
    acme: Maker, says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = acme(lambda request: says(task_of(request), "done"))
    start = threading.Thread.start
    left = [2]

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "taskbridge-wait" and left[0]:
            left[0] -= 1
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="new thread"):
        harness.client.wait_all(["t1"])  # there is no other thread
    left[0] = 0
    assert [outcome.unwrap().id for outcome in harness.client.wait_all(["t1"])] == ["t1"]


# Event loops.


def test_an_event_loop_closed_during_a_wait_blocks_no_later_wait(acme: Maker, says: Says) -> None:
    harness = acme(lambda request: says(task_of(request), "done" if task_of(request) == "t1" else "working"))
    transport = AsyncScriptedTransport(lambda request: says(task_of(request), "done"), clock=harness.clock)
    first = asyncio.new_event_loop()

    async def begin() -> aio.Client:
        client, _ = harness.asynchronous()
        async for outcome in client.as_completed(["t1", "t2"], timeout=None):
            assert outcome.ref.id == "t1"
            break
        return client

    client = first.run_until_complete(begin())
    first.run_until_complete(first.shutdown_asyncgens())
    first.close()

    async def resume() -> None:
        with pytest.raises(tb.ConfigError, match="another event loop"):
            await client.wait_all(["t1"])
        await client.close()
        async with aio.Client(harness.connection, clock=harness.clock, transport=transport) as other:
            assert [outcome.unwrap().id for outcome in await other.wait_all(["t1", "t2"])] == ["t1", "t2"]

    asyncio.run(resume())


def test_a_bridge_and_its_client_renew_a_credential_once(acme: Maker, says: Says, clock: VirtualClock) -> None:
    def vendor(request: Request) -> Response:
        if request.method == "POST":
            return Response(200, {}, b'{"token": "token-of-acme"}', clock.now())
        return says(task_of(request), "done")

    class Slow(AsyncScriptedTransport):
        async def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
            await asyncio.sleep(0)  # let other tasks run
            return await super().send(request, deadline=deadline, max_body=max_body)

    transport = Slow(vendor, clock=clock)

    async def run() -> None:
        harness = acme(token_life=3600.0)
        async with aio.Bridge({"acme": harness.connection}, clock=clock, transport=transport) as bridge:
            await asyncio.gather(bridge.get("acme:t1"), bridge["acme"].get("t2"), bridge["acme"].get("t3"))

    asyncio.run(run())
    assert Counter(request.method for request in transport.requests) == {"POST": 1, "GET": 3}


# Clocks.


class Slept:
    """Tasks that end after a while, in virtual time; the clock is changed during the wait."""

    def __init__(self, acme: Maker, says: Says, clock: VirtualClock, *, number: int, ends: float) -> None:
        self.clock, self.ends = clock, clock.monotonic() + ends
        self.polls: list[float] = []
        self.harness = acme(poll={"interval": 10.0}, max_in_flight=100)

        def vendor(request: Request) -> Response:
            self.polls.append(clock.monotonic())
            return says(task_of(request), "done" if clock.monotonic() >= self.ends else "working")

        transport = ScriptedTransport(vendor, clock=clock)

        def make(*_: object) -> ScriptedTransport:
            return transport

        self.runtime = Runtime(clock, Transports(make, transport, None))
        self.scheduler = PollScheduler()
        for n in range(number):
            self.scheduler.add(self.harness.connection, f"t{n}", clock.monotonic(), deadline=clock.monotonic() + 900.0)
        self.outcomes: list[tb.Outcome] = []

    def run(self, change: Callable[[], object] | None = None, at: float = 0.0) -> None:
        began = self.clock.monotonic()
        while self.runtime.step(self.scheduler):
            while (update := self.scheduler.next_update()) is not None:
                self.outcomes.append(update.outcome)
            if change is not None and self.clock.monotonic() >= began + at:
                change()
                change = None
        while (update := self.scheduler.next_update()) is not None:
            self.outcomes.append(update.outcome)


@pytest.mark.parametrize("seconds", [3600.0, -3600.0, 86_400.0, -0.5])
def test_setting_the_wall_clock_changes_nothing(acme: Maker, says: Says, clock: VirtualClock, seconds: float) -> None:
    steady = Slept(acme, says, clock, number=5, ends=200.0)
    steady.run(lambda: clock.step_wall(seconds), at=55.0)
    assert [outcome.unwrap().status for outcome in steady.outcomes] == ["completed"] * 5
    assert len(steady.polls) == pytest.approx(5 * 21, abs=5 * 2)


def test_after_a_long_suspend_each_task_is_polled_once_without_a_burst(
    acme: Maker, says: Says, clock: VirtualClock
) -> None:
    slept = Slept(acme, says, clock, number=50, ends=100.0)  # they end during the suspend
    before = clock.monotonic()
    slept.run(lambda: clock.advance(800.0), at=50.0)
    after = [when for when in slept.polls if when > before + 800.0]
    assert [outcome.unwrap().status for outcome in slept.outcomes] == ["completed"] * 50
    assert len(after) == 50


def test_a_deadline_that_passed_during_a_suspend_reports_the_last_snapshot(
    acme: Maker, says: Says, clock: VirtualClock
) -> None:
    slept = Slept(acme, says, clock, number=5, ends=1e9)
    slept.run(lambda: clock.advance(3600.0), at=50.0)
    errors = [outcome.error for outcome in slept.outcomes]
    assert [type(error) for error in errors] == [tb.WaitTimeout] * 5
    assert all(outcome.task is not None and outcome.task.status == "processing" for outcome in slept.outcomes)
    assert max(slept.polls) < 1000.0 + 100.0  # no poll after the deadline


# A task whose state moves backwards.


def test_a_task_whose_state_moves_backwards_is_reported_as_it_is(acme: Maker, says: Says) -> None:
    states = iter(["working", "waiting", "working", "done"])
    harness = acme(lambda _: says("t1", next(states)), poll={"interval": 1.0})
    with harness.client as client:
        seen = [outcome.unwrap().native_status for outcome in client.watch(["t1"], timeout=60.0)]
    assert seen == ["working", "waiting", "working", "done"]


# Leftovers.


class Owner:
    """The owner of a wait."""


def test_finished_waits_release_their_owners(acme: Maker) -> None:
    harness, scheduler = acme(), PollScheduler()
    owners: list[weakref.ref[Owner]] = []

    def wait(number: int) -> None:
        owner = Owner()
        owners.append(weakref.ref(owner))
        scheduler.drop([scheduler.add(harness.connection, f"t{number}", 0.0, deadline=1e6 + number, owner=owner)])

    for number in range(1000):
        wait(number)
    gc.collect()
    assert sum(each() is not None for each in owners) < 100


class Broken(Acme):
    """A provider that raises before its first request."""

    def get(self, task_id: str) -> Any:
        raise ZeroDivisionError(task_id)


def test_an_unused_permit_to_probe_is_given_back(acme: Maker) -> None:
    harness = acme(provider=Broken)
    throttle, now = harness.connection.throttle, harness.clock.monotonic()
    for _ in range(5):
        throttle.failed(now)
    assert throttle.is_probing
    assert throttle.take(now + 8.0).granted
    with pytest.raises(tb.ContractError, match="broken"):
        next(poll(harness.connection, "t1", now + 60.0, RequestOptions("poll", attempts=1, has_permit=True)))
    assert throttle.take(now + 8.0).granted  # at once, for the next request
