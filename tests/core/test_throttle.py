"""The rate limiter and circuit breaker of one connection, in virtual time."""

from __future__ import annotations

import heapq
import threading
from random import Random

import pytest

from taskbridge._engine.throttle import Throttle


def starts(throttle: Throttle, count: int, now: float = 0.0) -> list[float]:
    """The start times of requests that are all due at once."""
    found: list[float] = []
    while len(found) < count:
        permit = throttle.take(now)
        if permit.granted:
            found.append(now + permit.wait)
        else:
            now += permit.wait
    return found


def in_outage(now: float = 0.0) -> Throttle:
    throttle = Throttle(None, lambda: 0.5)
    for _ in range(5):
        assert throttle.take(now).granted
        throttle.failed(now)
    assert throttle.is_probing
    return throttle


def refused_for_a_minute(throttle: Throttle, retry_after: float) -> int:
    """The number of requests sent in a minute in which each of them gets a 429."""
    now, sent = 0.0, 0
    for _ in range(10_000):
        permit = throttle.take(now)
        now += permit.wait
        if now >= 60.0:
            break
        if permit.granted:
            sent += 1
            throttle.slow_down(now, retry_after)
    return sent


# Rate.


def test_without_a_limit_all_requests_start_at_once() -> None:
    assert starts(Throttle(None, lambda: 0.5), 1000) == [0.0] * 1000


def test_the_rate_is_kept_under_any_load() -> None:
    times = starts(Throttle(10.0, lambda: 0.5), 100)
    for second in range(10):
        assert sum(second <= time < second + 1 for time in times) <= 20  # a burst of one second, once
    assert times[-1] >= 8.9


def test_after_an_idle_period_one_seconds_worth_may_start_at_once() -> None:
    throttle = Throttle(10.0, lambda: 0.5)
    starts(throttle, 50)
    assert sum(time == 100.0 for time in starts(throttle, 30, now=100.0)) <= 10


def test_a_slow_rate_permits_one_request_and_then_waits() -> None:
    assert starts(Throttle(0.5, lambda: 0.5), 3) == [0.0, 2.0, 4.0]


def test_a_refused_permit_uses_nothing() -> None:
    throttle = Throttle(1.0, lambda: 0.5)
    throttle.take(0.0)
    assert [(g.wait, g.granted) for g in (throttle.take(0.0) for _ in range(3))] == [(1.0, False)] * 3


def test_only_the_next_permit_may_be_taken_ahead() -> None:
    throttle = Throttle(1.0, lambda: 0.5)
    throttle.take(0.0)
    assert [(g.wait, g.granted) for g in (throttle.take(0.0, ahead=True) for _ in range(2))] == [
        (1.0, True),
        (2.0, False),
    ]


def test_a_returned_permit_is_available_again() -> None:
    throttle = Throttle(1.0, lambda: 0.5)
    throttle.take(0.0)
    throttle.give_back()
    assert throttle.take(0.0).granted


def test_a_pause_applies_to_permits_granted_before() -> None:
    throttle = Throttle(1.0, lambda: 0.5)
    assert not throttle.holds(0.0)
    throttle.slow_down(0.0, 60.0)
    assert throttle.holds(59.0)


# Slots that other processes have reserved.


def starts_beside(reserved: int, seconds: int) -> int:
    """The number of requests in so many seconds while others reserve slots each second; the rate is ten a second."""
    throttle, sent = Throttle(10.0, lambda: 0.5), 0
    for second in range(seconds):
        throttle.give_up(reserved, float(second))
        now = float(second)
        while (permit := throttle.take(now)).granted or now + permit.wait < second + 1.0:
            sent += permit.granted
            now += permit.wait
    return sent


def test_slots_of_others_are_given_up() -> None:
    assert 96 <= starts_beside(0, 10) <= 110
    assert 66 <= starts_beside(3, 10) <= 80


def test_others_take_at_most_half_of_the_time_whatever_they_reserve() -> None:
    assert 46 <= starts_beside(5, 10) <= 60
    assert 46 <= starts_beside(1000, 10) <= 60


def test_a_rate_that_was_cut_is_not_given_up_altogether() -> None:
    throttle = Throttle(10.0, lambda: 0.5)
    throttle.take(0.0)
    throttle.slow_down(0.0, None)
    assert throttle.rate == 0.5
    sent = 0
    for tenth in range(600):
        if tenth % 10 == 0:
            throttle.give_up(5, tenth / 10)
        sent += throttle.take(tenth / 10).granted
    assert 12 <= sent <= 20  # half of thirty


def test_without_a_limit_there_is_nothing_to_give_up() -> None:
    throttle = Throttle(None, lambda: 0.5)
    throttle.give_up(1000, 0.0)
    assert throttle.take(0.0).granted


# 429.


def test_a_429_halves_the_rate_and_responses_raise_it() -> None:
    throttle = Throttle(None, lambda: 0.5)
    for n in range(200):  # a hundred a second
        throttle.take(n / 100)
        throttle.answered(n / 100, {})
    throttle.slow_down(2.0, None)
    assert 40 <= throttle.rate <= 60
    cut = throttle.rate
    for n in range(10):
        throttle.answered(2.0 + n, {})
    assert cut < throttle.rate < 2 * cut


def test_a_thousand_429s_slow_the_connection_but_never_stop_it() -> None:
    throttle = Throttle(100.0, lambda: 0.5)
    now = 0.0
    for _ in range(1000):
        permit = throttle.take(now)
        now += permit.wait
        if permit.granted:
            throttle.slow_down(now, None)
    assert 0.0 < throttle.rate <= 0.1
    assert throttle.take(now).wait <= 30.0


def test_after_an_outage_no_earlier_429_lets_the_rate_climb_faster() -> None:
    throttle = Throttle(None, lambda: 0.5)
    for n in range(200):
        throttle.take(n / 100)
        throttle.answered(n / 100, {})
    throttle.slow_down(2.0, None)
    for _ in range(5):
        throttle.failed(3.0)
    assert throttle.take(10.0).granted
    throttle.answered(10.0, {})
    for n in range(20):
        throttle.answered(10.0 + n / 100, {})
    assert throttle.rate == 2.0


def test_a_connection_recovers_within_a_minute_after_a_storm_of_429() -> None:
    throttle = Throttle(100.0, lambda: 0.5)
    now = 0.0
    while now < 60.0:
        permit = throttle.take(now)
        now += permit.wait
        if permit.granted:
            throttle.slow_down(now, None)
    assert throttle.rate <= 0.1
    ended = now
    while throttle.rate < 1.0:
        permit = throttle.take(now)
        now += permit.wait
        if permit.granted:
            throttle.answered(now, {})
    assert now - ended <= 60.0


def test_one_429_on_a_quiet_connection_does_not_freeze_it() -> None:
    throttle = Throttle(None, lambda: 0.5)
    throttle.take(0.0)
    throttle.slow_down(1.5, None)  # a slow response
    assert starts(throttle, 3, now=1.5)[-1] <= 1.5 + 6.0


def test_a_reduced_rate_recovers_to_its_limit_and_no_further() -> None:
    throttle = Throttle(20.0, lambda: 0.5)
    throttle.take(0.0)
    throttle.slow_down(0.0, None)
    now = 0.0
    for _ in range(2000):
        permit = throttle.take(now)
        now += permit.wait
        throttle.answered(now, {})
    assert throttle.rate == 20.0


def test_retry_after_pauses_the_whole_connection_and_adds_jitter() -> None:
    throttle = Throttle(None, lambda: 0.5)
    throttle.take(0.0)
    throttle.slow_down(0.0, 30.0)
    permit = throttle.take(1.0)
    assert not permit.granted
    assert 29.0 <= permit.wait <= 40.0


def test_retry_after_every_second_costs_few_requests() -> None:
    throttle = Throttle(None, Random(1).random)
    assert refused_for_a_minute(throttle, 1.0) <= 10


def test_an_empty_rate_limit_window_pauses_briefly() -> None:
    throttle = Throttle(None, lambda: 0.5)
    throttle.answered(0.0, {"x-ratelimit-remaining": "0"})
    assert not throttle.take(0.5).granted
    assert throttle.take(1.0).granted


# Outage.


def test_five_consecutive_failures_make_an_outage_and_a_response_resets_the_count() -> None:
    throttle = Throttle(None, lambda: 0.5)
    for _ in range(4):
        throttle.failed(0.0)
    throttle.answered(0.0, {})
    for _ in range(4):
        throttle.failed(0.0)
    assert not throttle.is_probing
    throttle.failed(0.0)
    assert throttle.is_probing


def test_in_an_outage_one_probe_is_sent_at_a_time() -> None:
    throttle = in_outage()
    assert not throttle.take(4.9).granted
    assert throttle.take(7.5).granted
    assert not throttle.take(7.5).granted
    assert not throttle.take(20.0).granted
    throttle.failed(20.0)
    assert not throttle.take(24.9).granted
    assert throttle.take(27.5).granted


def test_a_probe_that_was_never_sent_permits_another() -> None:
    throttle = in_outage()
    assert throttle.take(7.5).granted
    throttle.abandoned()
    assert throttle.take(7.5).granted


def test_the_first_response_ends_the_outage_and_the_rate_ramps_up() -> None:
    throttle = in_outage()
    throttle.take(7.5)
    throttle.answered(8.0, {})
    assert not throttle.is_probing
    assert len([time for time in starts(throttle, 20, now=8.0) if time < 9.0]) <= 2
    for second in range(1, 12):
        throttle.answered(8.0 + second, {})
    assert throttle.rate == float("inf")


def test_a_probe_answered_with_429_does_not_permit_another_at_once() -> None:
    assert refused_for_a_minute(in_outage(), 10.0) <= 10


# Budget.


def test_retries_use_a_budget_that_responses_refill() -> None:
    throttle = Throttle(None, lambda: 0.5)
    assert sum(throttle.may_retry() for _ in range(100)) == 10
    for _ in range(200):
        throttle.answered(0.0, {})
    assert sum(throttle.may_retry() for _ in range(100)) == 10


def test_retries_add_at_most_a_tenth_to_the_requests() -> None:
    throttle = Throttle(None, lambda: 0.5)
    retries = 0
    for _ in range(1000):
        throttle.answered(0.0, {})
        retries += throttle.may_retry() + throttle.may_retry()
    assert retries <= 1000 * 0.1 + 10


def test_ten_threads_do_not_overspend_the_retry_budget() -> None:
    throttle = Throttle(None, lambda: 0.5)
    spent: list[bool] = []

    def spend() -> None:
        spent.extend(throttle.may_retry() for _ in range(100))

    threads = [threading.Thread(target=spend) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(spent) == 10


# Many tasks.


@pytest.mark.parametrize("tasks", [1000, 10_000])
def test_many_tasks_cost_little_in_an_outage_and_resume_gently(tasks: int) -> None:
    """Many tasks polled every ten seconds; the vendor answers 503 from second 30 to second 90."""
    random = Random(7)
    throttle = Throttle(200.0, random.random)
    due = [(random.random() * 10.0, n) for n in range(tasks)]
    heapq.heapify(due)
    per_second: dict[int, int] = {}
    in_flight: list[tuple[float, float, int]] = []  # answered at, sent at, task
    now = 0.0
    for _ in range(500_000):
        if now >= 120.0:
            break
        while in_flight and in_flight[0][0] <= now:
            answered, sent_at, task = heapq.heappop(in_flight)
            if 30.0 <= sent_at < 90.0:
                throttle.failed(answered)
            else:
                throttle.answered(answered, {})
            heapq.heappush(due, (answered + 10.0, task))
        if due and due[0][0] <= now and len(in_flight) < 32:
            permit = throttle.take(now)
            if permit.granted and now + permit.wait < 120.0:
                begin = now + permit.wait
                per_second[int(begin)] = per_second.get(int(begin), 0) + 1
                heapq.heappush(in_flight, (begin + 0.1, begin, heapq.heappop(due)[1]))
                continue
            wake = now + max(permit.wait, 0.001)
        else:
            wake = due[0][0] if due and len(in_flight) < 32 else 1e9
        now = min(wake, in_flight[0][0] if in_flight else wake)
    outage = sum(count for second, count in per_second.items() if 30 <= second < 90)
    assert outage <= 100
    assert max(per_second.values()) <= 400  # a burst of a second's worth on top of the rate
    assert max(count for second, count in per_second.items() if second >= 90) <= 201
    assert sum(count for second, count in per_second.items() if second >= 110) > 0
