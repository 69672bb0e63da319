"""Poll times computed from learned durations: the fewest requests for a mean delay.

Each poll has a price in seconds of delay. The best time of the next poll follows from the best times after it, so the
plan is found by dynamic programming from the oldest age to the youngest: the cost of a poll at an age is its price, the
expected delay of what ends until the next one, and the cost of what is then still running. A rule that considers the
time since the last poll only (poll when its expected delay reaches the price) is as good where the hazard changes
little between two polls; it is used beyond the planned ages, and where a task takes very many polls.

No I/O and no clock.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from math import ceil, exp, expm1, inf, log, sqrt
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from taskbridge._engine.durations import Hazard

_PER_POLL: Final = 8  # planned ages for each pause
_MOST_POLLS: Final = 200.0  # of one task; beyond that nothing is planned
_ROUNDS: Final = 4  # plans that are made to find the price for a mean delay
_TOLERANCE: Final = 0.03  # of the mean delay
_EXPONENT: Final = 1.6  # delays grow with about the square root of the price; a smaller step does not overshoot
_MOST_CHANGE: Final = 10.0  # factor by which the price may change in a round
_LEAST_RATE: Final = 1e-9  # ends per second


class PollPlan:
    """When to poll tasks of one operation.

    Args:
        hazard: What is known of their ends.
        target: The mean delay in seconds to aim at, by age; a number if it is the same at every age.
        longest: Upper bound of any pause, in seconds.
    """

    __slots__ = ("_ages", "_following", "_longest", "_price", "_spread", "_target", "hazard")

    def __init__(self, hazard: Hazard, target: float | Callable[[float], float], longest: float) -> None:
        self.hazard = hazard
        self._longest = longest
        self._target = target
        self._price = 2.0 / _delay_factor(hazard) ** 2
        self._ages, self._following, self._spread = array("d"), array("d"), array("d")
        self._make()

    def pause(self, age: float) -> float:
        """Return the seconds until the next poll of a task that was polled at that age."""
        n = bisect_left(self._ages, age)
        if n < len(self._ages):
            return min(self._following[n] - age, self._longest)
        return _pause_by_delay(self.hazard, age, self._price_at(age), self._longest)

    def spread(self, age: float) -> float:
        """Return the seconds between the next poll and the one after it: how exact the time of the next one must be."""
        n = bisect_left(self._ages, age)
        return self._spread[n] if n < len(self._ages) else inf

    def _price_at(self, age: float) -> float:
        target = self._target(age) if callable(self._target) else self._target
        return self._price * target * target

    def _make(self) -> None:
        ages = self._grid()
        if not ages:
            return
        alive, area = _survival(self.hazard, ages)
        following = self._best(ages, alive, area)
        if not callable(self._target):
            for _ in range(_ROUNDS - 1):
                beyond = alive[-1] * sqrt(self._price_at(ages[-1]) / (2.0 * _rate_beyond(self.hazard)))
                change = self._target / max(_planned_delay(ages, alive, area, following) + beyond, 1e-9)
                if abs(log(change)) < _TOLERANCE:
                    break
                self._price *= min(max(change**_EXPONENT, 1.0 / _MOST_CHANGE), _MOST_CHANGE)
                following = self._best(ages, alive, area)
        last = len(ages) - 1
        self._ages = array("d", ages[:-1])
        self._following = array("d", (ages[n] for n in following))
        self._spread = array("d", (ages[following[n]] - ages[n] if n < last else inf for n in following))

    def _grid(self) -> list[float]:
        """Return the ages for which to plan, close together where polls are; nothing if polls are too many."""
        hazard, pauses = self.hazard, list[float]()
        for n in range(hazard.horizon + 1):
            rate = max(hazard.rates[n], _LEAST_RATE)
            pauses.append(min(sqrt(2.0 * self._price_at(hazard.edges[n]) / rate), self._longest))
        widths = [upper - lower for lower, upper in zip(hazard.edges, hazard.edges[1 : len(pauses) + 1], strict=False)]
        if sum(width / pause for width, pause in zip(widths, pauses, strict=False)) > _MOST_POLLS:
            return []
        ages = [0.0]
        for lower, width, pause in zip(hazard.edges, widths, pauses, strict=False):
            parts = ceil(_PER_POLL * width / pause)
            ages += [lower + width * part / parts for part in range(1, parts + 1)]
        return ages if len(ages) > 1 else []

    def _best(self, ages: Sequence[float], alive: Sequence[float], area: Sequence[float]) -> list[int]:
        """Return the number of the age of the next poll after a poll at each age but the last."""
        last = len(ages) - 1
        price = self._price_at(ages[last])
        costs = [0.0] * last + [
            alive[last] * sqrt(2.0 * price / max(self.hazard.rates[self.hazard.horizon], _LEAST_RATE))
        ]
        following, latest = [last] * last, last
        for n in range(last - 1, -1, -1):
            here, until = alive[n], ages[n] + self._longest
            best, chosen = inf, n + 1
            # The next poll after an earlier age is never later than the one after a later age.
            for later in range(n + 1, latest + 1):
                cost = here * ages[later] - area[later] + costs[later]
                if cost < best and (ages[later] <= until or later == n + 1):
                    best, chosen = cost, later
            following[n] = latest = chosen
            costs[n] = best - here * ages[n] + area[n] + self._price_at(ages[n]) * here
        return following


def _delay_factor(hazard: Hazard) -> float:
    """Return the mean delay divided by √(price / 2), for the best schedule: ∫ √(f S) dt.

    Here f is the density hazard · S, and S the fraction that is still running. Beyond the ages at which ends were seen
    the hazard counts as steady.
    """
    total, edges = 0.0, hazard.edges
    last = min(hazard.horizon, len(edges) - 2)
    for n in range(last + 1):
        rate, alive = hazard.rates[n], exp(-hazard.sums[n])
        if rate > 0.0:
            total -= alive * expm1(-rate * (edges[n + 1] - edges[n])) / sqrt(rate)
    return max(total + exp(-hazard.sums[last + 1]) / sqrt(_rate_beyond(hazard)), 1e-6)


def _rate_beyond(hazard: Hazard) -> float:
    """Return the ends per second right after the ages at which ends were seen."""
    return max(hazard.rates[min(hazard.horizon + 1, len(hazard.rates) - 1)], _LEAST_RATE)


def _survival(hazard: Hazard, ages: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return the fraction of tasks still running at each age, and its integral until then."""
    alive, area = [exp(-hazard.until(age)) for age in ages], [0.0]
    for n in range(1, len(ages)):
        ended, seconds = alive[n - 1] - alive[n], ages[n] - ages[n - 1]
        steady = ended < 1e-9 * alive[n - 1] or alive[n] <= 0.0
        area.append(area[-1] + seconds * (alive[n - 1] if steady else ended / log(alive[n - 1] / alive[n])))
    return alive, area


def _planned_delay(
    ages: Sequence[float], alive: Sequence[float], area: Sequence[float], following: Sequence[int]
) -> float:
    """Return the delay in seconds of the tasks that end within the planned ages, per task."""
    delay, n = 0.0, 0
    while n < len(following):
        later = following[n]
        delay += alive[n] * (ages[later] - ages[n]) - (area[later] - area[n])
        n = later
    return delay


def _pause_by_delay(hazard: Hazard, age: float, price: float, longest: float) -> float:
    """Return the seconds until the expected delay since a poll at that age reaches the price; at most `longest`."""
    n, at, delay, expected = hazard.bin(age), age, 0.0, 0.0
    while True:
        rate = hazard.rates[n]
        width = (hazard.edges[n + 1] if n + 1 < len(hazard.edges) else inf) - at
        # Within the bin: delay + expected·x + rate·x²/2 = price.
        root = sqrt(expected * expected + 2.0 * rate * (price - delay))
        step = (root - expected) / rate if rate > 0.0 else (price - delay) / expected if expected > 0.0 else inf
        if step <= width or at + width - age >= longest:
            return min(at + step - age, longest)
        delay += expected * width + rate * width * width / 2.0
        expected += rate * width
        at += width
        n += 1
