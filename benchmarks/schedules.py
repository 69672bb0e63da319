"""When to look: the real scheduler in virtual time beside other schedules and the exact optimum."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from statistics import NormalDist, fmean
from typing import Any, Final

from benchmarks import sim
from benchmarks.virtual import waits

LATENCY: Final = 0.9  # seconds of mean delay that the learnt schedules aim at
_NORMAL: Final = NormalDist()


@dataclass(frozen=True)
class Distribution:
    """How long tasks take.

    Attributes:
        title: For people.
        quantile: Duration that a share of the tasks does not exceed.
        cdf: Share of tasks that last no longer.
        longest: Seconds at which durations are cut, so that sums stay finite.
        step: Seconds of the optimum's grid.
    """

    title: str
    quantile: Callable[[float], float]
    cdf: Callable[[float], float]
    longest: float
    step: float

    def drawn(self, chance: Random, number: int) -> list[float]:
        """Durations by chance."""
        return [self._cut(self.quantile(chance.uniform(1e-9, 1.0 - 1e-9))) for _ in range(number)]

    def spread(self, chance: Random, number: int) -> list[float]:
        """Durations that are spread as evenly as the distribution is, in any order: samples without luck."""
        found = [self._cut(self.quantile((n + 0.5) / number)) for n in range(number)]
        chance.shuffle(found)
        return found

    def _cut(self, duration: float) -> float:
        return min(self.longest, max(0.05, duration))


def _lognormal(sigma: float, longest: float, step: float) -> Distribution:
    return Distribution(
        f"lognormal(8 s, {sigma:g})",
        lambda share: 8.0 * math.exp(sigma * _NORMAL.inv_cdf(share)),
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
        "exponential(8 s)", lambda share: -8.0 * math.log1p(-share), lambda t: -math.expm1(-t / 8.0), 110.0, 0.1
    ),
    "uniform": Distribution(
        "uniform(2 s, 20 s)",
        lambda share: 2.0 + 18.0 * share,
        lambda t: min(1.0, max(0.0, (t - 2.0) / 18.0)),
        20.5,
        0.05,
    ),
    "bimodal": Distribution(
        "half 2 s, half 60 s",
        lambda share: _SHORT.inv_cdf(2 * share) if share < 0.5 else _LONG.inv_cdf(max(1e-9, 2 * share - 1)),
        lambda t: 0.5 * _SHORT.cdf(t) + 0.5 * _LONG.cdf(t),
        85.0,
        0.1,
    ),
}


@dataclass(frozen=True)
class Size:
    """How much to simulate.

    Attributes:
        tasks: In one round.
        rounds: With seeds of their own.
        seconds: Of the closed loop under a limit.
        coarse: Factor by which the optimum's grid is coarser.
        names: Of the distributions.
        limits: Looks a second.
        bulk: Tasks in flight for bulk look-ups.
    """

    tasks: int = 1000
    rounds: int = 5
    seconds: float = 200.0
    coarse: float = 1.0
    names: tuple[str, ...] = tuple(DISTRIBUTIONS)
    limits: tuple[float, ...] = (50.0, 100.0, 200.0)
    list_polling: int = 1000


QUICK: Final = Size(tasks=300, rounds=2, seconds=80.0, coarse=2.0, limits=(100.0,), list_polling=300)
TINY: Final = Size(
    tasks=60, rounds=1, seconds=12.0, coarse=6.0, names=("exponential",), limits=(50.0,), list_polling=40
)


def run(*, quick: bool) -> dict[str, Any]:
    """All of it."""
    return simulations(QUICK if quick else Size())


def simulations(size: Size) -> dict[str, Any]:
    """All of it, in a size."""
    return {
        "others": others(size),
        "distributions": {name: distribution(name, size) for name in size.names},
        "unknown_scale": unknown_scale(size),
        "one_limit": {f"{limit:g}": one_limit(limit, size) for limit in size.limits},
        "waiting": waiting(size),
        "bulk": list_polling(size),
    }


def _figures(seen: sim.Seen, tasks: int) -> dict[str, float]:
    looks = seen.looks / tasks
    return {"looks": looks, "mean": seen.mean, "p95": seen.percentile(0.95), "product": looks * seen.mean}


def others(size: Size) -> dict[str, Any]:
    """What the schedules of others cost, as they are, for lognormal(8 s, 1); the peers look at once as well."""
    chance = Random(11)
    durations = DISTRIBUTIONS["lognormal-1"].spread(chance, size.tasks * size.rounds)
    sides: dict[str, tuple[Callable[[], Any], bool]] = {
        "every second": (lambda: sim.fixed(1.0), False),
        "every 2 seconds": (lambda: sim.fixed(2.0), False),
        "every 5 seconds": (lambda: sim.fixed(5.0), False),
        "exponential, 1 to 30 s by 1.5": (lambda: sim.exponential(1.0, 1.5, 30.0), False),
        "exponential, 1 to 30 s by 2": (lambda: sim.exponential(1.0, 2.0, 30.0), False),
        "google-api-core, as it comes": (lambda: sim.google(chance), True),
        "azure-core, as it comes (30 s)": (lambda: sim.fixed(30.0), True),
        "boto3 waiter, every 15 s": (lambda: sim.fixed(15.0), True),
        "a tenth of the age, at least 0.5 s": (lambda: sim.share_of_age(0.1, 0.5, 1e9), False),
    }
    return {
        name: _figures(sim.follow(durations, schedule, at_once=at_once), len(durations))
        for name, (schedule, at_once) in sides.items()
    }


def _jobs(durations: list[float], chance: Random, start: float, within: float) -> list[sim.Job]:
    return [sim.Job(start + chance.uniform(0.0, within), duration) for duration in durations]


def distribution(name: str, size: Size) -> dict[str, Any]:
    """Cold and learnt, beside fixed, exponential and the optimum at the same mean delay."""
    kind = DISTRIBUTIONS[name]
    optimum = sim.Optimum(kind.cdf, kind.longest, kind.step * size.coarse)
    cold, learnt = [], []
    for seed in range(size.rounds):
        clock = sim.Time(seed)
        fresh = sim.connection(clock, poll={"latency": LATENCY})
        durations = kind.spread(clock.chance, size.tasks)
        seen, _ = sim.simulate(_jobs(durations, clock.chance, 0.0, 20.0), fresh, clock)
        cold.append({**_figures(seen, size.tasks), **_beside(seen, durations)})
        learnt.append(_learnt(kind, size, seed))
    found: dict[str, Any] = {"title": kind.title, "cold": _means(cold), "learnt": _means(learnt)}
    looks, mean = found["learnt"]["looks"], found["learnt"]["mean"]
    found["optimum"] = {"looks": optimum.looks(mean), "mean": mean}
    found["learnt_to_optimum"] = looks / found["optimum"]["looks"]
    return found


def _beside(seen: sim.Seen, durations: list[float]) -> dict[str, float]:
    """Our requests as a ratio to those of other schedules with the same mean delay for the same tasks."""
    steady = sim.at_latency(durations, lambda pause: lambda: sim.fixed(pause), seen.mean)
    growing = sim.at_latency(durations, lambda first: lambda: sim.exponential(first, 1.5, 30.0 * first), seen.mean)
    return {"to_fixed": seen.looks / steady.looks, "to_exponential": seen.looks / growing.looks}


def _learnt(kind: Distribution, size: Size, seed: int) -> dict[str, float]:
    """After 200 tasks, and with what those taught, no more."""
    clock = sim.Time(1000 + seed)
    through = sim.connection(clock, poll={"latency": LATENCY})
    sim.simulate(_jobs(kind.drawn(clock.chance, min(200, size.tasks)), clock.chance, 0.0, 60.0), through, clock)
    sim.freeze(through)
    durations = kind.spread(clock.chance, size.tasks)
    seen, _ = sim.simulate(_jobs(durations, clock.chance, clock.at, 20.0), through, clock)
    return {**_figures(seen, size.tasks), **_beside(seen, durations)}


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: fmean(row[key] for row in rows) for key in rows[0]}


def unknown_scale(size: Size) -> dict[str, Any]:
    """Durations from 2 s to 2 h, evenly spread in the logarithm, and nobody says what delay is wanted."""
    number = size.tasks
    clock = sim.Time(5)
    durations = [2.0 * 3600.0 ** ((n + 0.5) / number) for n in range(number)]
    arrivals = [clock.chance.uniform(0.0, 3600.0) for _ in durations]
    found: dict[str, Any] = {}
    # Neighbours in the order of durations share an operation, so that each operation has a scale of its own.
    for name, operations in {
        "taskbridge, operations of one scale each": 20,
        "taskbridge, all in one operation": 1,
    }.items():
        clock = sim.Time(5)
        jobs = [
            sim.Job(start, duration, f"operation-{n * operations // number}")
            for n, (start, duration) in enumerate(zip(arrivals, durations, strict=True))
        ]
        seen, _ = sim.simulate(jobs, sim.connection(clock), clock)
        found[name] = _shares(seen, durations)
    for name, schedule in {
        "every second": lambda: sim.fixed(1.0),
        "a tenth of the age, 1 to 30 s": lambda: sim.share_of_age(0.1, 1.0, 30.0),
    }.items():
        found[name] = _shares(sim.follow(durations, schedule, at_once=False), durations)
    return found


def _shares(seen: sim.Seen, durations: list[float]) -> dict[str, float]:
    shares = sorted(seen.delays[n] / duration for n, duration in enumerate(durations))
    return {
        "looks": seen.looks / len(durations),
        "mean": seen.mean,
        "median_share": shares[len(shares) // 2],
        "p95_share": shares[int(0.95 * len(shares))],
    }


MEDIANS: Final = {"short": 2.0, "middle": 8.0, "long": 60.0}  # seconds, by vendor


def one_limit(limit: float, size: Size) -> dict[str, Any]:
    """500 tasks of three vendors in flight under one binding limit; each that ends is replaced by a like one."""
    warm = size.seconds / 4
    kinds = list(MEDIANS)
    ratios, ours, theirs = [], [], []
    for seed in range(min(3, size.rounds)):
        clock = sim.Time(40 + seed)

        def like(clock: sim.Time = clock) -> sim.Job:
            kind = kinds[int(clock.random() * len(kinds))]
            return sim.Job(clock.at, clock.chance.lognormvariate(math.log(MEDIANS[kind]), 1.0), kind)

        through = sim.connection(clock, requests_per_second=limit, poll={"latency": 0.05})
        seen, jobs = sim.simulate(
            [like() for _ in range(500)], through, clock, round_trip=0.05, refill=like, until=size.seconds
        )
        settled = [delay for number, delay in seen.delays.items() if jobs[number].end + delay > warm]
        chance = Random(40 + seed)

        def draw(chance: Random = chance) -> float:
            return chance.lognormvariate(math.log(MEDIANS[kinds[int(chance.random() * len(kinds))]]), 1.0)

        ours.append(fmean(settled))
        theirs.append(sim.round_robin(draw, limit, 500, size.seconds, warm))
        ratios.append(ours[-1] / theirs[-1])
    return {"taskbridge": fmean(ours), "round_robin": fmean(theirs), "ratio": fmean(ratios)}


def waiting(size: Size) -> dict[str, float]:
    """The peers' table without cut durations: 0.8 s aimed at, with what 400 tasks taught."""
    kind, rows = DISTRIBUTIONS["lognormal-1"], []
    for seed in range(size.rounds):
        clock = sim.Time(300 + seed)
        through = sim.connection(clock, poll={"latency": 0.8})
        sim.simulate(_jobs(kind.drawn(clock.chance, 400), clock.chance, 0.0, 60.0), through, clock)
        durations = kind.spread(clock.chance, size.tasks)
        seen, _ = sim.simulate(_jobs(durations, clock.chance, clock.at, 0.0), through, clock, round_trip=0.05)
        rows.append(_figures(seen, size.tasks))
    return _means(rows)


def list_polling(size: Size) -> dict[str, Any]:
    """Lists in place of single looks."""
    chance = Random(77)
    durations = DISTRIBUTIONS["lognormal-1"].spread(chance, size.list_polling)
    with_lists = waits(durations, latency=0.5)
    singles = sim.at_latency(durations, lambda pause: lambda: sim.fixed(pause), max(0.05, with_lists["mean"]))
    before_final = max(1, with_lists["requests"] - with_lists["final"])  # the lists, and looks that saw no end
    return {
        **with_lists,
        "single_looks": singles.looks,
        "fewer": singles.looks / before_final,
        "fewer_in_all": singles.looks / with_lists["requests"],
    }
