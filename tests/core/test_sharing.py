"""A client that shares its limits with others, through limits that a test controls; in virtual time."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from typing import TYPE_CHECKING, Any, Final

import pytest

import taskbridge as tb
from taskbridge._engine.sharing import Reservation, Sharing
from taskbridge._engine.throttle import Throttle
from taskbridge.provider.http import Request, Response
from taskbridge.testing import VirtualClock

if TYPE_CHECKING:
    from .conftest import AcmeHarness, Maker


class Limits:
    """What other processes would share: so many slots a second, and whatever a test says."""

    def __init__(self, clock: VirtualClock, share: float = 5.0) -> None:
        self.share = share
        self.pause_until = 0.0
        self.refusal: str | None = None
        self.outage: str | None = None
        self.is_away = False
        self.wanted: list[int] = []
        self.pauses: list[float] = []
        self.refusals: list[str] = []
        self._clock = clock
        self._next = 0.0

    def reserve(self, rate: float | None, count: int) -> Reservation:
        self.wanted.append(count)
        self._refuse_if_away()
        now = self._clock.monotonic()
        pause = max(0.0, self.pause_until - now)
        if pause or self.refusal or self.outage or not count or rate is None:
            return Reservation(pause=pause, refusal=self.refusal, outage=self.outage)
        count = min(count, max(1, int(self.share)))
        first = max(self._next, now)
        self._next = first + count / self.share
        return Reservation(count, first - now, 1.0 / self.share)

    def report_pause(self, seconds: float) -> None:
        self._refuse_if_away()
        self.pauses.append(seconds)

    def report_refusal(self, reason: str) -> None:
        self._refuse_if_away()
        self.refusals.append(reason)

    def _refuse_if_away(self) -> None:
        if self.is_away:
            raise tb.TaskbridgeError("the limits are away")


ANSWER: Final = Response(200, {}, b'{"id": "t1", "state": "working"}')


def working(request: Request) -> Response:
    return Response(200, {}, json.dumps({"id": request.url.rpartition("/")[2], "state": "working"}).encode())


def sharing(harness: AcmeHarness, **values: Any) -> Limits:
    limits = Limits(harness.clock, **values)
    harness.connection.share_limits(lambda _: limits)
    return limits


def get(harness: AcmeHarness, count: int, *, asynchronous: bool) -> float:
    """Get a task so many times, one after the other; return the seconds that it took."""
    began = harness.clock.monotonic()
    if asynchronous:

        async def get_all() -> None:
            client, _ = harness.asynchronous()
            async with client:
                for _ in range(count):
                    await client.get("t1")

        asyncio.run(get_all())
    else:
        for _ in range(count):
            harness.client.get("t1")
    return harness.clock.monotonic() - began


both = pytest.mark.parametrize("asynchronous", [False, True])


@both
def test_requests_wait_for_slots_and_few_are_reserved_at_a_time(acme: Maker, *, asynchronous: bool) -> None:
    harness = acme(working, requests_per_second=10.0)
    limits = sharing(harness, share=5.0)
    assert 9.0 <= get(harness, 50, asynchronous=asynchronous) <= 11.0
    assert max(limits.wanted[:3]) < 5  # a short-lived client leaves most to the others
    assert len(limits.wanted) <= 10 + 3


@both
def test_without_a_rate_only_pauses_are_asked_for(acme: Maker, *, asynchronous: bool) -> None:
    harness = acme(working)
    limits = sharing(harness)
    assert get(harness, 50, asynchronous=asynchronous) == 0.0
    assert limits.wanted == [0]


def test_nothing_is_asked_without_a_request(acme: Maker) -> None:
    harness = acme(working, requests_per_second=10.0)
    limits = sharing(harness)
    get(harness, 1, asynchronous=False)
    asked = len(limits.wanted)
    harness.clock.advance(60.0)
    assert len(limits.wanted) == asked == 1


def test_slots_that_were_not_used_in_time_are_lost(acme: Maker) -> None:
    harness = acme(working, requests_per_second=10.0)
    sharing(harness, share=5.0)
    get(harness, 20, asynchronous=False)
    harness.clock.advance(60.0)
    assert get(harness, 20, asynchronous=False) >= 3.0  # and no burst


@both
def test_a_pause_of_another_process_is_kept(acme: Maker, *, asynchronous: bool) -> None:
    harness = acme(working, requests_per_second=10.0)
    limits = sharing(harness)
    get(harness, 1, asynchronous=False)
    limits.pause_until = harness.clock.monotonic() + 8.0
    harness.clock.advance(2.0)  # what was learned counts for a moment
    assert 5.9 <= get(harness, 1, asynchronous=asynchronous) <= 7.0
    limits.pause_until = harness.clock.monotonic() + 100.0
    harness.clock.advance(2.0)
    with pytest.raises(tb.CircuitOpen, match="beyond the deadline"):
        get(harness, 1, asynchronous=asynchronous)


def test_a_pause_of_another_process_lasts_an_hour_at_most(acme: Maker) -> None:
    harness = acme(working, requests_per_second=10.0)
    limits = sharing(harness)
    limits.pause_until = harness.clock.monotonic() + 1e9
    with pytest.raises(tb.CircuitOpen):
        get(harness, 1, asynchronous=False)
    limits.pause_until = 0.0
    harness.clock.advance(3600.0)
    get(harness, 1, asynchronous=False)


@both
def test_a_pause_that_the_vendor_asks_for_is_reported_before_it_is_kept(acme: Maker, *, asynchronous: bool) -> None:
    harness = acme([Response(429, {"retry-after": "7"}), ANSWER], requests_per_second=10.0)
    limits = sharing(harness)
    assert get(harness, 1, asynchronous=asynchronous) >= 7.0
    (pause,) = limits.pauses
    assert 7.0 <= pause <= 8.0  # with the jitter of this client


def test_a_429_without_a_time_is_no_pause_for_others(acme: Maker) -> None:
    harness = acme([Response(429), ANSWER], requests_per_second=10.0)
    limits = sharing(harness)
    get(harness, 1, asynchronous=False)
    assert limits.pauses == []


@both
def test_a_refusal_is_reported_once_and_without_the_credential(acme: Maker, *, asynchronous: bool) -> None:
    refused = Response(401, {}, b'{"message": "bad key key-of-acme-123"}')
    harness = acme([refused, refused], requests_per_second=10.0)
    limits = sharing(harness)
    with pytest.raises(tb.AuthenticationError):
        get(harness, 1, asynchronous=asynchronous)
    (reason,) = limits.refusals
    assert "HTTP 401" in reason
    assert "key-of-acme-123" not in reason


@both
def test_a_refusal_of_another_process_is_raised_and_not_reported(acme: Maker, *, asynchronous: bool) -> None:
    harness = acme(working, requests_per_second=10.0)
    limits = sharing(harness)
    limits.refusal = "Unauthenticated"
    for _ in range(3):
        with pytest.raises(tb.AuthenticationError, match="another process: Unauthenticated"):
            get(harness, 1, asynchronous=asynchronous)
    assert harness.transport.requests == []
    assert limits.refusals == []
    assert len(limits.wanted) == 1  # not with each call
    now = harness.clock.monotonic()
    assert all(harness.connection.throttle.take(now).granted for _ in range(9))  # none of its permits is lost
    limits.refusal = None
    harness.clock.advance(2.0)
    get(harness, 1, asynchronous=asynchronous)


def test_a_refusal_of_another_process_ends_a_wait_for_many(acme: Maker) -> None:
    harness = acme(working, requests_per_second=10.0)
    limits = sharing(harness)
    limits.refusal = "Unauthenticated"
    outcomes = harness.client.wait_all([f"t{number}" for number in range(20)], timeout=60.0)
    assert {type(each.error) for each in outcomes} == {tb.AuthenticationError}
    assert harness.transport.requests == []


def test_a_client_tries_the_account_itself_after_a_minute(acme: Maker) -> None:
    harness = acme(working, requests_per_second=10.0)
    limits = sharing(harness)
    limits.refusal = "Unauthenticated"  # of a process that has a wrong credential, and continues to ask
    with pytest.raises(tb.AuthenticationError):
        get(harness, 1, asynchronous=False)
    harness.clock.advance(61.0)
    limits.refusal = None
    get(harness, 1, asynchronous=False)


@both
def test_during_an_outage_that_another_process_reports_nothing_is_sent(acme: Maker, *, asynchronous: bool) -> None:
    harness = acme(working, requests_per_second=10.0, request_timeout=5.0)
    limits = sharing(harness)
    limits.outage = "the vendor has been unreachable since noon"
    with pytest.raises(tb.CircuitOpen, match="unreachable since noon"):
        get(harness, 1, asynchronous=asynchronous)
    assert 2 <= len(limits.wanted) <= 7
    limits.outage = None
    harness.clock.advance(2.0)
    get(harness, 1, asynchronous=asynchronous)


def test_a_slot_beyond_the_deadline_is_left_to_other_calls(acme: Maker) -> None:
    harness = acme(working, requests_per_second=10.0, request_timeout=5.0)
    limits = sharing(harness, share=0.05)
    get(harness, 1, asynchronous=False)
    with pytest.raises(tb.CircuitOpen, match="other processes use its rate"):
        get(harness, 1, asynchronous=False)
    harness.clock.advance(19.0)
    assert limits.wanted == [1, 2]
    assert get(harness, 1, asynchronous=False) <= 1.0


@both
def test_without_the_limits_a_client_sends_a_tenth_of_its_rate(
    acme: Maker, caplog: pytest.LogCaptureFixture, *, asynchronous: bool
) -> None:
    harness = acme(working, requests_per_second=10.0)
    limits = sharing(harness)
    limits.is_away = True
    assert 18.0 <= get(harness, 20, asynchronous=asynchronous) <= 20.0
    assert len(limits.wanted) <= 3  # it is not tried with each request
    assert caplog.text.count("does not share its limits") == 1
    assert "the limits are away" in caplog.text
    limits.is_away = False
    harness.clock.advance(10.0)
    assert get(harness, 20, asynchronous=asynchronous) <= 5.0


def test_without_the_limits_a_pause_and_a_refusal_are_the_clients_own(acme: Maker) -> None:
    harness = acme([Response(429, {"retry-after": "2"}), Response(401), Response(401)], requests_per_second=10.0)
    limits = sharing(harness)
    limits.is_away = True
    with pytest.raises(tb.AuthenticationError):
        get(harness, 1, asynchronous=False)
    assert limits.pauses == []
    assert limits.refusals == []


def test_all_waits_share_the_slots(acme: Maker) -> None:
    harness = acme(working, requests_per_second=10.0, poll={"interval": 0.1})
    sharing(harness, share=2.0)
    outcomes = harness.client.wait_all([f"t{number}" for number in range(4)], timeout=20.0)
    assert {type(each.error) for each in outcomes} == {tb.WaitTimeout}
    assert 32 <= len(harness.transport.requests) <= 44


def test_one_caller_reserves_and_the_others_wait_for_it(clock: VirtualClock) -> None:
    limits = Limits(clock, share=100.0)
    throttle = Throttle(200.0, clock.random)
    shared = Sharing(limits, "acme", throttle, clock)
    now = clock.monotonic()
    assert shared.take(now, now + 30.0, has_slot=False) is None
    waiting = [shared.take(now, now + 30.0, has_slot=False) for _ in range(20)]
    assert not any(each is None or each.granted for each in waiting)
    woken: list[int] = []
    with throttle.waking(lambda: woken.append(1)):
        shared.renew()
    assert woken == [1]
    assert limits.wanted == [21]


def test_a_reservation_that_hangs_holds_up_no_other_caller_for_long(clock: VirtualClock) -> None:
    shared = Sharing(Limits(clock), "acme", Throttle(10.0, clock.random), clock)
    began = clock.monotonic()
    assert shared.take(began, began + 30.0, has_slot=False) is None  # and does not call `renew`
    clock.advance(1.5)
    permit = shared.take(clock.monotonic(), began + 30.0, has_slot=False)
    assert permit is not None
    assert permit.granted
    clock.advance(60.0)
    assert shared.take(clock.monotonic(), began + 90.0, has_slot=False) is None  # it is lost


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_begins_without_the_slots_of_its_parent(clock: VirtualClock) -> None:
    limits = Limits(clock, share=100.0)
    shared = Sharing(limits, "acme", Throttle(200.0, clock.random), clock)
    now = clock.monotonic()
    assert shared.take(now, now + 30.0, has_slot=False) is None
    shared.renew()
    child = os.fork()
    if child == 0:
        os._exit(0 if shared.take(now, now + 30.0, has_slot=False) is None else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    permit = shared.take(now, now + 30.0, has_slot=False)
    assert permit is not None
    assert permit.granted


def test_a_client_that_shares_leaves_no_thread(acme: Maker) -> None:
    harness = acme(working, requests_per_second=10.0)
    sharing(harness)
    before = set(threading.enumerate())
    get(harness, 5, asynchronous=False)
    get(harness, 5, asynchronous=True)
    harness.client.close()
    assert set(threading.enumerate()) <= before
