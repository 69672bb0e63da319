"""Durations that are saved, loaded and merged: the plan stays the same, and damage changes nothing."""

from __future__ import annotations

import asyncio
import json
import math
import random
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import taskbridge as tb
from taskbridge._engine.durations import DurationModel
from taskbridge._polling.intervals import IntervalPolicy

from .conftest import Maker

AGES = (0.0, 1.0, 3.0, 7.0, 15.0, 40.0)


def learn(model: DurationModel, count: int, seed: int, *, median: float = 8.0, spread: float = 0.5) -> None:
    """Observe tasks that are polled every second."""
    chance = random.Random(seed)
    for _ in range(count):
        end = chance.lognormvariate(math.log(median), spread)
        since = math.floor(end)
        model.observe(0.0, since, ended=False)
        model.observe(since, since + 1.0, ended=True)


def copied(model: DurationModel) -> DurationModel:
    return DurationModel.load(json.loads(json.dumps(model.save())))


def plan(model: DurationModel) -> list[float]:
    policy = IntervalPolicy(0.9, None, 300.0)
    policy.durations = model
    return [policy.pause(age) for age in AGES]


def expected(model: DurationModel) -> list[float]:
    return [model.expected(0.0, age) for age in AGES[1:]]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 320), st.integers(0, 1000), st.floats(0.5, 3000.0), st.floats(0.05, 1.5))
@example(14, 14, 1.5, 1.5)  # the tail begins at a whole number of ends
def test_what_was_saved_gives_the_same_plan(count: int, seed: int, median: float, spread: float) -> None:
    model = DurationModel()
    learn(model, count, seed, median=median, spread=spread)
    loaded = copied(model)
    assert loaded.is_known == model.is_known
    assert (loaded.ends, loaded.mean) == pytest.approx((model.ends, model.mean), rel=1e-4)
    assert loaded.mean_age_at_end == pytest.approx(model.mean_age_at_end, rel=1e-4)
    assert plan(loaded) == pytest.approx(plan(model), rel=0.05)
    assert copied(loaded).save() == loaded.save()


def test_after_many_ends_the_plan_is_the_same_too_and_what_is_saved_stays_small() -> None:
    model = DurationModel()
    learn(model, 6000, 1, spread=1.0)
    assert expected(copied(model)) == pytest.approx(expected(model), rel=0.05)
    assert len(json.dumps(model.save())) < 12_000


@pytest.mark.parametrize("counts", [(100, 100), (600, 600), (200, 3000), (3500, 3500)])
def test_two_halves_merge_into_the_whole(counts: tuple[int, int]) -> None:
    whole, halves = DurationModel(), [DurationModel(), DurationModel()]
    for number, count in enumerate(counts):
        learn(whole, count, number)
        learn(halves[number], count, number)
    one, other = copied(halves[1]), copied(halves[0])
    one.merge(copied(halves[0]))
    other.merge(copied(halves[1]))
    assert 0.5 * min(sum(counts), 4000) <= one.ends <= 4000
    assert one.ends == pytest.approx(other.ends, abs=1.0)
    for merged in (one, other):
        assert merged.mean == pytest.approx(whole.mean, rel=0.05)
        assert expected(merged)[2:] == pytest.approx(expected(whole)[2:], rel=0.2)


def test_a_client_saves_and_loads(acme: Maker) -> None:
    first, second = acme(), acme(name="other")
    learn(first.connection.durations_of("convert"), 50, 1)
    learn(first.connection.durations_of(None), 20, 2)
    saved = json.loads(json.dumps(first.client.save_durations()))
    second.client.load_durations(saved)
    assert second.client.stats()["other"].durations == pytest.approx(first.client.stats()["acme"].durations, rel=1e-4)
    assert set(second.client.stats()["other"].durations) == {"convert", ""}

    async def again() -> dict[str, Any]:
        client, _ = acme(name="third").asynchronous()
        async with client:
            client.load_durations(saved)
            return client.save_durations()

    assert asyncio.run(again()) == saved


damage = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_damage_is_an_error_or_harmless(data: st.DataObject) -> None:
    model = DurationModel()
    learn(model, 60, 3)
    saved: Any = deepcopy(model.save())
    key = data.draw(st.sampled_from(sorted(saved)))
    if isinstance(saved[key], list) and saved[key] and data.draw(st.booleans()):
        saved[key][data.draw(st.integers(0, len(saved[key]) - 1))] = data.draw(damage)
    else:
        saved[key] = data.draw(damage | st.just([]) | st.lists(st.floats(0, 1e12), max_size=300))
    try:
        loaded = DurationModel.load(saved)
    except ValueError:
        return
    model.merge(loaded)
    learn(model, 10, 4)
    assert all(0.0 < pause <= 300.0 for pause in plan(model))


def test_what_is_not_saved_durations_is_refused_and_adds_nothing(acme: Maker) -> None:
    harness = acme()
    learn(harness.connection.durations_of("convert"), 50, 1)
    saved = harness.client.save_durations()
    good = saved["operations"]["convert"]
    wrong: list[Any] = [
        None,
        [],
        {},
        {"version": 2, "operations": {}},
        {"version": 1, "operations": {"good": good, "bad": {**good, "sample": [[1.0, math.nan]]}}},
        {"version": 1, "operations": {"a": {**good, "ended": [5000.0]}}},
        {"version": 1, "operations": {"a": {**good, "sample": [[0, 0]] * 20, "watched": []}}},
        {"version": 1, "operations": {str(n): good for n in range(65)}},
    ]
    for each in wrong:
        with pytest.raises(tb.ConfigError, match="no saved durations"):
            harness.client.load_durations(each)
    assert harness.client.save_durations() == saved
