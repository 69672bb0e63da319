"""When to poll: the real scheduler in virtual time, compared with other schedules and the exact optimum."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from statistics import NormalDist, fmean
from typing import Any, Final

from benchmarks import sim
from benchmarks.virtual import waits

LATENCY: Final = 0.9  # target for the mean delay of the learned schedules, in seconds
_NORMAL: Final = NormalDist()


@dataclass(frozen=True)
class Distribution:
    """How long tasks take.

    Attributes:
        title: For display.
        quantile: Duration that a fraction of the tasks does not exceed.
        cdf: Fraction of tasks that last no longer.
        longest: Longer durations are cut to this many seconds, so that sums stay finite.
        step: Grid of the optimum, in seconds.
    """

    title: str
    quantile: Callable[[float], float]
    cdf: Callable[[float], float]
    longest: float
    step: float

    def drawn(self, chance: Random, number: int) -> list[float]:
        """Return random durations."""
        return [self._cut(self.quantile(chance.uniform(1e-9, 1.0 - 1e-9))) for _ in range(number)]

    def spread(self, chance: Random, number: int) -> list[float]:
        """Return evenly spaced quantiles in random order: a sample without sampling noise."""
        durations = [self._cut(self.quantile((n + 0.5) / number)) for n in range(number)]
        chance.shuffle(durations)
        return durations

    def _cut(self, duration: float) -> float:
        return min(self.longest, max(0.05, duration))


def _lognormal(sigma: float, longest: float, step: float) -> Distribution:
    return Distribution(
        f"lognormal(8 s, {sigma:g})",
        lambda q: 8.0 * math.exp(sigma * _NORMAL.inv_cdf(q)),
        lambda t: _NORMAL.cdf(math.log(t / 8.0) / sigma) if t > 0.0 else 0.0,
        longest,
        step,
    )


_SHORT, _LONG = NormalDist(2.0, 0.3), NormalDist(60.0, 5.0)

DISTRIBUTIONS: Final = {
    "lognormal-1": _lognormal(1.0, 200.0, 0.1),
    "lognormal-0.5": _lognormal(0.5, 60.0, 0.05),
    "lognormal-2": _lognormal(2.0, 600.0, 0.3),
    "exponential": Distribution(
        "exponential(8 s)", lambda q: -8.0 * math.log1p(-q), lambda t: -math.expm1(-t / 8.0), 110.0, 0.1
    ),
    "uniform": Distribution(
        "uniform(2 s, 20 s)",
        lambda q: 2.0 + 18.0 * q,
        lambda t: min(1.0, max(0.0, (t - 2.0) / 18.0)),
        20.5,
        0.05,
    ),
    "bimodal": Distribution(
        "half 2 s, half 60 s",
        lambda q: _SHORT.inv_cdf(2 * q) if q < 0.5 else _LONG.inv_cdf(max(1e-9, 2 * q - 1)),
        lambda t: 0.5 * _SHORT.cdf(t) + 0.5 * _LONG.cdf(t),
        85.0,
        0.1,
    ),
}


@dataclass(frozen=True)
class Size:
    """How much to simulate.

    Attributes:
        tasks: Tasks per round.
        rounds: Rounds, each with its own seed.
        seconds: Duration of the closed loop under a rate limit.
        coarse: Factor by which the optimum's grid is coarser.
        names: Distributions.
        limits: Polls per second.
        listed: Tasks in flight for list polling.
        handed_in: Ids of which nothing is known, for list polling.
    """

    tasks: int = 1000
    rounds: int = 5
    seconds: float = 200.0
    coarse: float = 1.0
    names: tuple[str, ...] = tuple(DISTRIBUTIONS)
    limits: tuple[float, ...] = (50.0, 100.0, 200.0)
    listed: int = 1000
    handed_in: int = 3000


QUICK: Final = Size(tasks=300, rounds=2, seconds=80.0, coarse=2.0, limits=(100.0,), listed=300, handed_in=1000)
TINY: Final = Size(
    tasks=60, rounds=1, seconds=12.0, coarse=6.0, names=("exponential",), limits=(50.0,), listed=40, handed_in=100
)


def run(*, quick: bool) -> dict[str, Any]:
    """Run all simulations."""
    return simulations(QUICK if quick else Size())


def simulations(size: Size) -> dict[str, Any]:
    """Run all simulations in a given size."""
    return {
        "others": others(size),
        "distributions": {name: distribution(name, size) for name in size.names},
        "unknown_scale": unknown_scale(size),
        "one_limit": {f"{limit:g}": one_limit(limit, size) for limit in size.limits},
        "waiting": waiting(size),
        "lists": lists(size),
        "handed_in": {f"{latency:g}": handed_in(latency, size) for latency in LATENCIES},
    }


def _figures(record: sim.Record, tasks: int) -> dict[str, float]:
    polls = record.polls / tasks
    return {"polls": polls, "mean": record.mean, "p95": record.percentile(0.95), "product": polls * record.mean}


def others(size: Size) -> dict[str, Any]:
    """Measure other schedules with their default settings, for lognormal(8 s, 1)."""
    chance = Random(11)
    durations = DISTRIBUTIONS["lognormal-1"].spread(chance, size.tasks * size.rounds)
    sides: dict[str, tuple[Callable[[], Any], bool]] = {
        "every second": (lambda: sim.fixed(1.0), False),
        "every 2 seconds": (lambda: sim.fixed(2.0), False),
        "every 5 seconds": (lambda: sim.fixed(5.0), False),
        "exponential, 1 to 30 s by 1.5": (lambda: sim.exponential(1.0, 1.5, 30.0), False),
        "exponential, 1 to 30 s by 2": (lambda: sim.exponential(1.0, 2.0, 30.0), False),
        "google-api-core, default": (lambda: sim.google(chance), True),
        "azure-core, default (30 s)": (lambda: sim.fixed(30.0), True),
        "boto3 waiter, every 15 s": (lambda: sim.fixed(15.0), True),
        "a tenth of the age, at least 0.5 s": (lambda: sim.fraction_of_age(0.1, 0.5, 1e9), False),
    }
    return {
        name: _figures(sim.follow(durations, schedule, at_once=at_once), len(durations))
        for name, (schedule, at_once) in sides.items()
    }


def _jobs(durations: list[float], chance: Random, start: float, within: float) -> list[sim.Job]:
    return [sim.Job(start + chance.uniform(0.0, within), duration) for duration in durations]


def distribution(name: str, size: Size) -> dict[str, Any]:
    """Compare cold and learned schedules with fixed, exponential and optimal ones at the same mean delay."""
    kind = DISTRIBUTIONS[name]
    optimum = sim.Optimum(kind.cdf, kind.longest, kind.step * size.coarse)
    cold, learned = [], []
    for seed in range(size.rounds):
        clock = sim.Time(seed)
        connection = sim.connection(clock, poll={"latency": LATENCY})
        durations = kind.spread(clock.chance, size.tasks)
        record, _ = sim.simulate(_jobs(durations, clock.chance, 0.0, 20.0), connection, clock)
        cold.append({**_figures(record, size.tasks), **_compared(record, durations)})
        learned.append(_learned(kind, size, seed))
    measured: dict[str, Any] = {"title": kind.title, "cold": _means(cold), "learned": _means(learned)}
    polls, mean = measured["learned"]["polls"], measured["learned"]["mean"]
    measured["optimum"] = {"polls": optimum.polls(mean), "mean": mean}
    measured["learned_to_optimum"] = polls / measured["optimum"]["polls"]
    return measured


def _compared(record: sim.Record, durations: list[float]) -> dict[str, float]:
    """Return our requests relative to those of other schedules with the same mean delay for the same tasks."""
    steady = sim.at_latency(durations, lambda pause: lambda: sim.fixed(pause), record.mean)
    growing = sim.at_latency(durations, lambda first: lambda: sim.exponential(first, 1.5, 30.0 * first), record.mean)
    return {"to_fixed": record.polls / steady.polls, "to_exponential": record.polls / growing.polls}


def _learned(kind: Distribution, size: Size, seed: int) -> dict[str, float]:
    """Measure after learning from 200 tasks, without further learning."""
    clock = sim.Time(1000 + seed)
    through = sim.connection(clock, poll={"latency": LATENCY})
    sim.simulate(_jobs(kind.drawn(clock.chance, min(200, size.tasks)), clock.chance, 0.0, 60.0), through, clock)
    sim.freeze(through)
    durations = kind.spread(clock.chance, size.tasks)
    record, _ = sim.simulate(_jobs(durations, clock.chance, clock.at, 20.0), through, clock)
    return {**_figures(record, size.tasks), **_compared(record, durations)}


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: fmean(row[key] for row in rows) for key in rows[0]}


def unknown_scale(size: Size) -> dict[str, Any]:
    """Measure durations from 2 s to 2 h, evenly spread in the logarithm, without a configured delay."""
    number = size.tasks
    clock = sim.Time(5)
    durations = [2.0 * 3600.0 ** ((n + 0.5) / number) for n in range(number)]
    arrivals = [clock.chance.uniform(0.0, 3600.0) for _ in durations]
    measured: dict[str, Any] = {}
    # Tasks with similar durations share an operation, so that each operation has its own scale.
    for name, operations in {
        "taskbridge, one operation for each scale": 20,
        "taskbridge, all in one operation": 1,
    }.items():
        clock = sim.Time(5)
        jobs = [
            sim.Job(start, duration, f"operation-{n * operations // number}")
            for n, (start, duration) in enumerate(zip(arrivals, durations, strict=True))
        ]
        record, _ = sim.simulate(jobs, sim.connection(clock), clock)
        measured[name] = _relative(record, durations)
    for name, schedule in {
        "every second": lambda: sim.fixed(1.0),
        "a tenth of the age, 1 to 30 s": lambda: sim.fraction_of_age(0.1, 1.0, 30.0),
    }.items():
        measured[name] = _relative(sim.follow(durations, schedule, at_once=False), durations)
    return measured


def _relative(record: sim.Record, durations: list[float]) -> dict[str, float]:
    fractions = sorted(record.delays[n] / duration for n, duration in enumerate(durations))
    return {
        "polls": record.polls / len(durations),
        "mean": record.mean,
        "median_fraction": fractions[len(fractions) // 2],
        "p95_fraction": fractions[int(0.95 * len(fractions))],
    }


MEDIANS: Final = {"short": 2.0, "middle": 8.0, "long": 60.0}  # seconds, by kind of task


def one_limit(limit: float, size: Size) -> dict[str, Any]:
    """Measure 500 tasks of three kinds in flight under one binding limit; each that ends is replaced by a similar one."""
    warm = size.seconds / 4
    kinds = list(MEDIANS)
    ratios, delays, round_robin = [], [], []
    for seed in range(min(3, size.rounds)):
        clock = sim.Time(40 + seed)

        def similar(clock: sim.Time = clock) -> sim.Job:
            kind = kinds[int(clock.random() * len(kinds))]
            return sim.Job(clock.at, clock.chance.lognormvariate(math.log(MEDIANS[kind]), 1.0), kind)

        through = sim.connection(clock, requests_per_second=limit, poll={"latency": 0.05})
        record, jobs = sim.simulate(
            [similar() for _ in range(500)], through, clock, round_trip=0.05, refill=similar, until=size.seconds
        )
        settled = [delay for number, delay in record.delays.items() if jobs[number].end + delay > warm]
        chance = Random(40 + seed)

        def draw(chance: Random = chance) -> float:
            return chance.lognormvariate(math.log(MEDIANS[kinds[int(chance.random() * len(kinds))]]), 1.0)

        delays.append(fmean(settled))
        round_robin.append(sim.round_robin(draw, limit, 500, size.seconds, warm))
        ratios.append(delays[-1] / round_robin[-1])
    return {"taskbridge": fmean(delays), "round_robin": fmean(round_robin), "ratio": fmean(ratios)}


def waiting(size: Size) -> dict[str, float]:
    """Simulate the table of peers with uncut durations: target 0.8 s, after learning from 400 tasks."""
    kind, rows = DISTRIBUTIONS["lognormal-1"], []
    for seed in range(size.rounds):
        clock = sim.Time(300 + seed)
        through = sim.connection(clock, poll={"latency": 0.8})
        sim.simulate(_jobs(kind.drawn(clock.chance, 400), clock.chance, 0.0, 60.0), through, clock)
        durations = kind.spread(clock.chance, size.tasks)
        record, _ = sim.simulate(_jobs(durations, clock.chance, clock.at, 0.0), through, clock, round_trip=0.05)
        rows.append(_figures(record, size.tasks))
    return _means(rows)


LATENCIES: Final = (1.0, 2.5, 5.0)  # targets for the mean delay of ids that are handed in, in seconds


def handed_in(latency: float, size: Size) -> dict[str, Any]:
    """Measure ids of which nothing is known, beside as many running tasks of others and ten times as many ended ones."""
    number = size.handed_in
    durations = DISTRIBUTIONS["lognormal-1"].spread(Random(77), number)
    result = waits(durations, latency=latency, running=number, ended=10 * number, known=False)
    return {**result, "per_task": result["requests"] / number}


def lists(size: Size) -> dict[str, Any]:
    """Compare list polling with single polls."""
    chance = Random(77)
    durations = DISTRIBUTIONS["lognormal-1"].spread(chance, size.listed)
    with_lists = waits(durations, latency=0.5)
    singles = sim.at_latency(durations, lambda pause: lambda: sim.fixed(pause), max(0.05, with_lists["mean"]))
    before_final = max(1, with_lists["requests"] - with_lists["final"])  # pages, and polls of running tasks
    return {
        **with_lists,
        "single_polls": singles.polls,
        "fewer": singles.polls / before_final,
        "fewer_in_all": singles.polls / with_lists["requests"],
    }
