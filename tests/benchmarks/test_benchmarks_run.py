"""The simulated benchmarks run and produce figures; their values are not tested."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from math import isfinite
from pathlib import Path
from typing import Any, Final, cast

import pytest

pytestmark = pytest.mark.slow

ROOT: Final = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def benchmarks_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])


def figures(results: Any) -> Iterator[float]:
    if isinstance(results, dict):
        for value in cast("Mapping[str, Any]", results).values():
            yield from figures(value)
    elif isinstance(results, int | float):
        yield float(results)


def test_the_schedules_produce_figures() -> None:
    schedules = import_module("benchmarks.schedules")
    results = schedules.simulations(schedules.TINY)
    assert {"others", "distributions", "unknown_scale", "one_limit", "waiting", "lists"} <= set(results)
    assert all(isfinite(value) and value > 0.0 for value in figures(results))


def test_the_optimum_is_no_worse_than_a_steady_interval() -> None:
    schedules, sim = import_module("benchmarks.schedules"), import_module("benchmarks.sim")
    uniform = schedules.DISTRIBUTIONS["uniform"]
    best = sim.Optimum(uniform.cdf, uniform.longest, 0.2).polls(0.9)

    def fixed(pause: float) -> Callable[[], Any]:
        return lambda: sim.fixed(pause)

    steady = sim.at_latency(uniform.spread(sim.Random(1), 200), fixed, 0.9)
    assert 1.0 < best <= steady.polls / 200 * 1.02


def test_many_tasks_are_polled_in_virtual_time() -> None:
    virtual = import_module("benchmarks.virtual")
    assert virtual.InFlight(20).poll(30) > 0.0
    assert virtual.memory_of(20) > 0.0


def test_without_results_every_target_is_not_measured() -> None:
    targets = import_module("benchmarks.targets")
    evaluated = targets.evaluate({})
    assert set(evaluated) == set(targets.TARGETS)
    assert {result.verdict for result in evaluated.values()} == {"not measured"}
    assert set(targets.REASONS) | set(targets.MISSES) <= set(targets.TARGETS)


def test_the_page_has_a_place_for_every_table_and_no_other() -> None:
    report = import_module("benchmarks.report")
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    names = [mark[2] for mark in report._MARKED.finditer(text)]
    assert sorted(names) == sorted(report._TABLES)
    assert report.filled(text, {}) == text


def test_many_tasks_and_a_store_lose_and_double_no_end() -> None:
    pytest.importorskip("numpy", reason="numpy comes with the packages of the benchmarks")
    results = import_module("benchmarks.million").virtual(400, 4)
    assert (results["tasks"], results["lost"], results["doubled"]) == (400, 0, 0)
    assert all(isfinite(value) for value in figures(results))
