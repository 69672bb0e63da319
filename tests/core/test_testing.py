"""The virtual clock and the scripted transports."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import pytest

import taskbridge as tb
from taskbridge import testing
from taskbridge.provider.clock import Clock
from taskbridge.provider.http import Flow, Request, Response
from taskbridge.testing import AsyncScriptedTransport, ScriptedTransport, VirtualClock
from taskbridge.transport import AsyncTransport, Transport

REQUEST = Request("GET", "https://acme.test/tasks/t1")


def test_a_virtual_clock_is_a_clock_and_scripts_are_transports() -> None:
    clock: Clock = VirtualClock()
    transport: Transport = ScriptedTransport()
    other: AsyncTransport = AsyncScriptedTransport()
    assert clock.now().tzinfo is UTC
    transport.close()
    asyncio.run(other.close())


def test_sleeping_moves_both_times_instantly() -> None:
    clock = VirtualClock(now=datetime(2026, 1, 1, tzinfo=UTC), monotonic=5.0)
    clock.sleep(3600.0)
    asyncio.run(clock.async_sleep(60.0))
    assert clock.monotonic() == 3665.0
    assert clock.now() == datetime(2026, 1, 1, 1, 1, tzinfo=UTC)
    assert clock.slept == [3600.0, 60.0]


def test_each_time_can_be_moved_alone() -> None:
    clock = VirtualClock()
    wall, monotonic = clock.now(), clock.monotonic()
    clock.step_wall(-3600.0)
    clock.step_monotonic(10.0)
    assert (clock.now() - wall, clock.monotonic() - monotonic) == (timedelta(hours=-1), 10.0)


@pytest.mark.parametrize("move", ["advance", "step_monotonic"])
def test_monotonic_time_never_runs_backwards(move: str) -> None:
    with pytest.raises(ValueError, match="backwards"):
        getattr(VirtualClock(), move)(-1.0)


def test_a_naive_time_is_rejected() -> None:
    with pytest.raises(ValueError, match="aware"):
        VirtualClock(now=datetime(2026, 1, 1))  # noqa: DTZ001  # naive on purpose


def test_random_numbers_are_seeded_or_pinned() -> None:
    assert [VirtualClock(seed=7).random() for _ in range(3)] == [VirtualClock(seed=7).random() for _ in range(3)]
    clock = VirtualClock(seed=7)
    assert clock.random() != clock.random()
    assert VirtualClock(pinned=0.25).random() == 0.25


def test_of_several_sleepers_the_earliest_wakes_first() -> None:
    clock = VirtualClock()
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, *pauses: float) -> None:
        for pause in pauses:
            await clock.async_sleep(pause)
            woken.append((name, clock.monotonic() - 1000.0))

    async def run() -> None:
        await asyncio.gather(sleeper("slow", 10.0), sleeper("quick", 3.0, 3.0, 6.0), sleeper("now", 0.0))

    asyncio.run(run())
    assert woken == [("now", 0.0), ("quick", 3.0), ("quick", 6.0), ("slow", 10.0), ("quick", 12.0)]


def test_a_cancelled_sleeper_does_not_hold_time() -> None:
    clock = VirtualClock()

    async def run() -> None:
        early = asyncio.ensure_future(clock.async_sleep(1.0))
        await asyncio.sleep(0)
        early.cancel()
        await clock.async_sleep(5.0)

    asyncio.run(run())
    assert clock.monotonic() == 1005.0


def test_waiting_on_a_condition_ends_by_time_or_notification() -> None:
    clock, condition = VirtualClock(), threading.Condition()
    with condition:
        clock.wait_on(condition, 30.0)
    assert clock.monotonic() == 1030.0
    ready = threading.Event()

    def notify() -> None:
        ready.wait()
        with condition:
            condition.notify_all()

    thread = threading.Thread(target=notify)
    thread.start()
    with condition:
        ready.set()
        clock.wait_on(condition, None)
    thread.join()
    assert clock.monotonic() == 1030.0


def test_a_script_is_played_in_order_and_requests_are_recorded() -> None:
    transport = ScriptedTransport([Response(503), tb.ConnectFailed("no")])
    transport.add(Response(200))
    assert transport.send(REQUEST, deadline=9.0, max_body=7).status == 503
    with pytest.raises(tb.ConnectFailed):
        transport.send(REQUEST, deadline=9.0, max_body=7)
    assert transport.remaining == 1
    assert transport.send(REQUEST, deadline=8.0, max_body=6).status == 200
    assert (transport.requests, transport.deadlines, transport.limits) == ([REQUEST] * 3, [9.0, 9.0, 8.0], [7, 7, 6])


def test_a_script_may_be_a_function_and_uses_the_given_clock() -> None:
    clock = VirtualClock()
    transport = ScriptedTransport(lambda request: Response(200, {}, request.url.encode()), clock=clock)
    clock.advance(60.0)
    response = transport.send(REQUEST, deadline=0.0, max_body=0)
    assert (response.body, response.received_at) == (b"https://acme.test/tasks/t1", clock.now())


def test_a_used_up_script_raises_and_never_ends_a_flow() -> None:
    def flow() -> Flow[str]:
        transport = ScriptedTransport()
        yield Request("GET", transport.send(REQUEST, deadline=0.0, max_body=0).body.decode())
        return "never"

    with pytest.raises(AssertionError, match=r"no answer for request 1, GET https://acme\.test/tasks/t1"):
        next(flow())
    with pytest.raises(AssertionError, match="no answer for request 1"):
        asyncio.run(AsyncScriptedTransport().send(REQUEST, deadline=0.0, max_body=0))


def test_close_is_recorded() -> None:
    transport, other = ScriptedTransport(), AsyncScriptedTransport()
    transport.close()
    asyncio.run(other.close())
    assert transport.closed
    assert other.closed


def test_the_package_lists_its_names() -> None:
    assert testing.__all__ == sorted(testing.__all__)
    assert {name for name in testing.__all__ if getattr(testing, name) is None} == set()
    assert dir(testing) == testing.__all__
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        testing.Nothing  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
