"""Poll intervals: learned durations, and requests against delay."""

from __future__ import annotations

import math
import random
import tracemalloc
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskbridge._engine.durations import DurationModel
from taskbridge._polling.intervals import IntervalPolicy

Draw = Callable[[random.Random], float]

LATENCY: Final = 0.9  # seconds of mean delay aimed at


def poll_all(
    policy: IntervalPolicy, draw: Draw, count: int, chance: random.Random, *, learn: bool = True
) -> tuple[float, float]:
    """Requests per task and mean delay of tasks polled one after the other; the policy learns from them."""
    requests, delay = 0, 0.0
    for _ in range(count):
        end, age = max(0.05, draw(chance)), 0.0
        while age < end:
            at = age + policy.jittered(policy.pause(age), age, chance.random(), first=age == 0.0)
            if learn:
                policy.durations.observe(age, at, ended=at >= end)
            age = at
            requests += 1
        delay += age - end
    return requests / count, delay / count


def steady(interval: float) -> IntervalPolicy:
    return IntervalPolicy(None, interval, 300.0)


DISTRIBUTIONS: Final[dict[str, Draw]] = {
    "lognormal": lambda chance: chance.lognormvariate(math.log(8), 1.0),
    "narrow": lambda chance: chance.lognormvariate(math.log(8), 0.5),
    "uniform": lambda chance: chance.uniform(2.0, 20.0),
    "two kinds": lambda chance: chance.gauss(2.0, 0.3) if chance.random() < 0.5 else chance.gauss(60.0, 5.0),
}


def test_without_knowledge_the_pause_is_twice_the_latency() -> None:
    assert IntervalPolicy(3.0, None, 300.0).pause(0.0) == 6.0
    assert IntervalPolicy(3.0, None, 300.0).pause(1000.0) == 6.0


def test_without_latency_or_knowledge_the_pause_is_proportional_to_the_age() -> None:
    policy = IntervalPolicy(None, None, 300.0)
    assert policy.pause(0.0) == pytest.approx(0.5)
    assert policy.pause(30.0) == pytest.approx(4.0)
    assert policy.pause(7200.0) == pytest.approx(40.0)


def test_without_latency_short_tasks_are_not_slowed_down_by_long_ones() -> None:
    policy = IntervalPolicy(None, None, 300.0)
    for n in range(200):  # two seconds to two hours, evenly in the logarithm
        duration = 2.0 * 3600.0 ** (n / 199)
        policy.durations.observe(0.0, duration, ended=False)
        policy.durations.observe(duration, duration, ended=True)
    polls, age, delays = 0, 0.0, list[float]()
    while age < 7200.0:
        pause = policy.pause(age)
        polls += 1
        delays.append(pause / 2.0 / max(age, 2.0))  # mean relative delay of tasks that end in that pause
        age += pause
    assert max(delays) < 0.5
    assert polls < 250  # of the longest task; polling every second would take 7,200


def test_a_fixed_interval_ignores_learned_durations() -> None:
    policy = steady(2.0)
    poll_all(policy, DISTRIBUTIONS["narrow"], 50, random.Random(1))
    assert {policy.pause(age) for age in (0.0, 1.0, 8.0, 500.0)} == {2.0}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_learned_intervals_cost_no_more_than_a_steady_one_with_the_same_delay(name: str) -> None:
    chance = random.Random(7)
    policy = IntervalPolicy(LATENCY, None, 300.0)
    poll_all(policy, DISTRIBUTIONS[name], 200, chance)
    requests, delay = poll_all(policy, DISTRIBUTIONS[name], 1000, chance)
    fixed_requests, fixed_delay = poll_all(steady(2.0 * delay), DISTRIBUTIONS[name], 1000, chance)
    assert requests * delay < 1.08 * fixed_requests * fixed_delay
    assert delay == pytest.approx(LATENCY, rel=0.35)


@pytest.mark.parametrize("name", ["narrow", "uniform", "two kinds"])
def test_learned_intervals_cost_less_if_durations_are_concentrated(name: str) -> None:
    chance = random.Random(7)
    policy = IntervalPolicy(LATENCY, None, 300.0)
    poll_all(policy, DISTRIBUTIONS[name], 200, chance)
    requests, delay = poll_all(policy, DISTRIBUTIONS[name], 1000, chance)
    fixed_requests, fixed_delay = poll_all(steady(2.0 * delay), DISTRIBUTIONS[name], 1000, chance)
    assert requests * delay < 0.9 * fixed_requests * fixed_delay


def test_a_gap_between_two_kinds_of_tasks_is_not_polled() -> None:
    chance = random.Random(3)
    policy = IntervalPolicy(LATENCY, None, 300.0)
    poll_all(policy, DISTRIBUTIONS["two kinds"], 400, chance)
    assert policy.pause(10.0) > 15.0  # nothing ends between 3 and 45 seconds
    assert policy.pause(58.0) < 6.0


def test_after_a_gap_the_jitter_is_as_small_as_the_pauses_there() -> None:
    policy = IntervalPolicy(LATENCY, None, 300.0)
    poll_all(policy, DISTRIBUTIONS["two kinds"], 400, random.Random(3))
    pause = policy.pause(10.0)
    assert 0.0 < policy.jittered(pause, 10.0, 1.0, first=False) - pause < 1.0  # a tenth of the pause is over 3


@pytest.mark.parametrize(
    ("name", "most"), [("lognormal", 1.06), ("narrow", 1.06), ("uniform", 1.08), ("two kinds", 1.1)]
)
def test_after_200_tasks_the_plan_is_nearly_as_good_as_after_1500(name: str, most: float) -> None:
    """Requests times delay, beside those of a plan from the exact durations of very many tasks."""
    few, many = (IntervalPolicy(LATENCY, None, 300.0) for _ in range(2))
    poll_all(few, DISTRIBUTIONS[name], 200, random.Random(7))
    chance = random.Random(8)
    for _ in range(1500):
        end = max(0.05, DISTRIBUTIONS[name](chance))
        many.durations.observe(0.0, end, ended=False)
        many.durations.observe(end, end, ended=True)
    products = [
        math.prod(poll_all(each, DISTRIBUTIONS[name], 1000, random.Random(9), learn=False)) for each in (few, many)
    ]
    assert products[0] < most * products[1]


def test_a_peak_is_found_although_each_end_is_only_known_to_lie_between_two_polls() -> None:
    durations, chance = DurationModel(), random.Random(5)
    for _ in range(200):
        end = chance.gauss(60.0, 1.0)
        polled = end + chance.uniform(0.0, 12.0)
        durations.observe(0.0, polled - 12.0, ended=False)
        durations.observe(polled - 12.0, polled, ended=True)
    assert durations.expected(0.0, 55.0) < 0.2
    assert durations.expected(55.0, 65.0) > 1.6


def test_what_is_learned_is_computed_again_only_after_many_ends() -> None:
    policy = IntervalPolicy(LATENCY, None, 300.0)
    poll_all(policy, DISTRIBUTIONS["lognormal"], 400, random.Random(5))
    fits = set[int]()
    for n in range(400):
        policy.durations.observe(8.0 + n % 5, 9.0 + n % 5, ended=True)
        fits.add(id(policy.durations.hazard()))
        policy.pause(8.0)
    assert len(fits) <= 5


def test_what_is_learned_takes_bounded_memory() -> None:
    durations = DurationModel()

    def learn(ends: int) -> None:
        for n in range(ends):
            durations.observe(8.0 + n % 20, 9.0 + n % 20, ended=True)

    learn(400)
    tracemalloc.start()
    learn(800)
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < 100_000


def test_while_most_tasks_are_still_running_they_are_polled_as_if_nothing_were_known() -> None:
    policy = IntervalPolicy(LATENCY, None, 300.0)
    for n in range(500):  # a few ended early
        policy.durations.observe(0.0, 2.0, ended=False)
        if n % 40 == 0:
            policy.durations.observe(1.0, 2.0, ended=True)
    assert policy.durations.is_known
    assert LATENCY < policy.pause(2.0) < 4.0 * LATENCY


def test_no_pause_exceeds_the_longest() -> None:
    policy = IntervalPolicy(LATENCY, None, 30.0)
    poll_all(policy, DISTRIBUTIONS["narrow"], 100, random.Random(5))
    assert all(policy.pause(age) <= 30.0 for age in (0.0, 100.0, 10_000.0, 1e9))


def test_the_expected_ends_grow_with_the_time_since_the_last_poll() -> None:
    durations = DurationModel()
    policy = IntervalPolicy(LATENCY, None, 300.0)
    policy.durations = durations
    poll_all(policy, DISTRIBUTIONS["lognormal"], 100, random.Random(5))
    assert 0.0 == durations.expected(4.0, 4.0) < durations.expected(4.0, 6.0) < durations.expected(4.0, 12.0)


def test_the_mean_is_the_mean() -> None:
    durations = DurationModel()
    for end in (4.0, 8.0, 12.0):
        durations.observe(0.0, end, ended=False)
        durations.observe(end, end, ended=True)
    assert durations.mean == pytest.approx(8.0)


@given(
    steps=st.lists(
        st.tuples(st.floats(0, 1e6), st.floats(0, 1e6), st.booleans()).map(lambda s: (min(s[:2]), max(s[:2]), s[2])),
        max_size=60,
    ),
    age=st.floats(0, 1e7),
    latency=st.none() | st.floats(0.01, 1000.0),
)
def test_every_pause_is_positive_and_bounded(
    steps: list[tuple[float, float, bool]], age: float, latency: float | None
) -> None:
    policy = IntervalPolicy(latency, None, 300.0)
    for since, until, ended in steps:
        policy.durations.observe(since, until, ended=ended)
    assert 0.0 < policy.pause(age) <= 300.0
