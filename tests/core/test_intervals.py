"""When to look: what is learnt of durations, and what a look costs."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskbridge._engine.durations import DurationModel
from taskbridge._polling.intervals import IntervalPolicy

Draw = Callable[[random.Random], float]

LATENCY: Final = 0.9  # seconds of mean delay aimed at


def watched(pace: IntervalPolicy, draw: Draw, count: int, chance: random.Random) -> tuple[float, float]:
    """Requests a task and mean delay, of tasks watched one after the other; the pace learns from them."""
    requests, delay = 0, 0.0
    for _ in range(count):
        end, age = max(0.05, draw(chance)), 0.0
        while age < end:
            at = age + pace.pause(age) * chance.uniform(0.9, 1.1)
            pace.durations.observe(age, at, ended=at >= end)
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


def test_nothing_known_looks_at_twice_the_latency() -> None:
    assert IntervalPolicy(3.0, None, 300.0).pause(0.0) == 6.0
    assert IntervalPolicy(3.0, None, 300.0).pause(1000.0) == 6.0


def test_no_wish_and_nothing_known_looks_in_proportion_to_the_age() -> None:
    pace = IntervalPolicy(None, None, 300.0)
    assert pace.pause(0.0) == pytest.approx(0.5)
    assert pace.pause(30.0) == pytest.approx(4.0)
    assert pace.pause(7200.0) == pytest.approx(40.0)


def test_without_a_wish_short_tasks_do_not_wait_for_what_is_right_for_long_ones() -> None:
    pace = IntervalPolicy(None, None, 300.0)
    for n in range(200):  # two seconds to two hours, evenly in the logarithm
        duration = 2.0 * 3600.0 ** (n / 199)
        pace.durations.observe(0.0, duration, ended=False)
        pace.durations.observe(duration, duration, ended=True)
    looks, age, late = 0, 0.0, list[float]()
    while age < 7200.0:
        pause = pace.pause(age)
        looks += 1
        late.append(pause / 2.0 / max(age, 2.0))  # mean delay of whoever ends in that pause
        age += pause
    assert max(late) < 0.5
    assert looks < 250  # of the longest; every second that would be 7,200


def test_a_plain_interval_is_kept_whatever_is_learnt() -> None:
    pace = steady(2.0)
    watched(pace, DISTRIBUTIONS["narrow"], 50, random.Random(1))
    assert {pace.pause(age) for age in (0.0, 1.0, 8.0, 500.0)} == {2.0}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_what_is_learnt_costs_no_more_than_a_steady_interval_with_the_same_delay(name: str) -> None:
    chance = random.Random(7)
    pace = IntervalPolicy(LATENCY, None, 300.0)
    watched(pace, DISTRIBUTIONS[name], 200, chance)
    requests, delay = watched(pace, DISTRIBUTIONS[name], 1000, chance)
    fixed_requests, fixed_delay = watched(steady(2.0 * delay), DISTRIBUTIONS[name], 1000, chance)
    assert requests * delay < 1.08 * fixed_requests * fixed_delay
    assert delay == pytest.approx(LATENCY, rel=0.35)


@pytest.mark.parametrize("name", ["narrow", "uniform", "two kinds"])
def test_where_the_durations_have_a_shape_it_costs_less(name: str) -> None:
    chance = random.Random(7)
    pace = IntervalPolicy(LATENCY, None, 300.0)
    watched(pace, DISTRIBUTIONS[name], 200, chance)
    requests, delay = watched(pace, DISTRIBUTIONS[name], 1000, chance)
    fixed_requests, fixed_delay = watched(steady(2.0 * delay), DISTRIBUTIONS[name], 1000, chance)
    assert requests * delay < 0.9 * fixed_requests * fixed_delay


def test_a_gap_between_two_kinds_of_tasks_is_slept_through() -> None:
    chance = random.Random(3)
    pace = IntervalPolicy(LATENCY, None, 300.0)
    watched(pace, DISTRIBUTIONS["two kinds"], 400, chance)
    assert pace.pause(10.0) > 15.0  # nothing ends between 3 and 45 seconds
    assert pace.pause(58.0) < 6.0


def test_nobody_is_left_alone_for_longer_than_said() -> None:
    pace = IntervalPolicy(LATENCY, None, 30.0)
    watched(pace, DISTRIBUTIONS["narrow"], 100, random.Random(5))
    assert all(pace.pause(age) <= 30.0 for age in (0.0, 100.0, 10_000.0, 1e9))


def test_more_is_to_be_expected_of_whoever_was_not_looked_at_for_longer() -> None:
    durations = DurationModel()
    pace = IntervalPolicy(LATENCY, None, 300.0)
    pace.durations = durations
    watched(pace, DISTRIBUTIONS["lognormal"], 100, random.Random(5))
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
def test_whatever_was_seen_the_next_look_is_soon_enough_and_not_at_once(
    steps: list[tuple[float, float, bool]], age: float, latency: float | None
) -> None:
    pace = IntervalPolicy(latency, None, 300.0)
    for since, until, ended in steps:
        pace.durations.observe(since, until, ended=ended)
    assert 0.0 < pace.pause(age) <= 300.0
