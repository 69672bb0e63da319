"""Learned durations: how long the tasks of one connection and operation take, and when their ends are likely.

A life table with bins that grow by a constant factor. It learns from the ends that were seen and from the time during
which tasks were watched without ending, and gives the hazard (ends per second) at each age. The schedule computed
from it is explained in `taskbridge._polling.intervals`.

No I/O and no clock.
"""

from __future__ import annotations

from math import exp, inf, log, sqrt
from typing import Final

_FIRST: Final = 0.25  # seconds; shorter durations count as this long
_GROWTH: Final = 1.1  # factor from one bin to the next
_BINS: Final = 138  # up to about 35 hours
_EDGES: Final = (0.0, *(_FIRST * _GROWTH**n for n in range(_BINS)))  # lower edges in seconds
_LOG_GROWTH: Final = log(_GROWTH)
_ENOUGH: Final = 12  # ends from which on the shape of the durations is trusted
_PRIOR: Final = 8.0  # weight of the assumption of a steady hazard, in tasks
_FORGET_AFTER: Final = 4000.0  # ends after which all counts are halved, so that the table follows the vendor
_REFRESH: Final = 16  # minimum number of ends between two computations of the hazard; grows with the table


def _bin(age: float) -> int:
    return 0 if age < _FIRST else min(_BINS, 1 + int(log(age / _FIRST) / _LOG_GROWTH))


def _upper(n: int) -> float:
    return _EDGES[n + 1] if n < _BINS else inf


class DurationModel:
    """A life table: how long tasks take, as observed so far."""

    __slots__ = ("_ended", "_hazard", "_integral", "_lifetimes", "_stale", "_sums", "_total", "_watched", "ends")

    def __init__(self) -> None:
        self._ended = [0.0] * (_BINS + 1)  # ends in each bin
        self._watched = [0.0] * (_BINS + 1)  # seconds watched in each bin
        self._total = 0.0  # seconds watched in all
        self._lifetimes = 0.0  # sum of the ages at which tasks ended
        self.ends = 0.0
        self._hazard: list[float] = []
        self._sums: list[float] = []  # expected ends before each bin
        self._integral = 0.0
        self._stale = 0  # ends until the hazard is computed again

    @property
    def is_known(self) -> bool:
        """Whether enough ends were seen to trust their shape."""
        return self.ends >= _ENOUGH

    @property
    def mean(self) -> float:
        """Mean duration in seconds; running tasks count with the time for which they were watched."""
        return self._total / self.ends if self.ends else inf

    @property
    def mean_age_at_end(self) -> float:
        """Mean age in seconds at which tasks ended; unlike `mean`, it ignores running tasks."""
        return self._lifetimes / self.ends if self.ends else inf

    def observe(self, since: float, until: float, *, ended: bool) -> None:
        """Record that a task was watched from one age in seconds to another, and whether it ended in between."""
        first, last = _bin(since), _bin(until)
        if ended:
            self._add_end(since, until, first, last)
        else:
            for n in range(first, last + 1):
                self._add_time(n, since, until, 1.0)
        if self.ends > _FORGET_AFTER:
            self._halve()

    def _add_time(self, n: int, since: float, until: float, fraction: float) -> None:
        seconds = fraction * (min(until, _upper(n)) - max(since, _EDGES[n]))
        self._watched[n] += seconds
        self._total += seconds

    def _add_end(self, since: float, until: float, first: int, last: int) -> None:
        """Distribute an end between two polls over their bins, by what is known of such ages so far."""
        hazard = self._hazard
        alive, weights = 1.0, list[float]()
        for n in range(first, last + 1):
            width = min(until, _upper(n)) - max(since, _EDGES[n])
            left = alive * exp(-hazard[n] * width) if hazard else alive - width / max(until - since, 1e-9)
            weights.append(alive - left)
            alive = left
        total = sum(weights)
        if total <= 0.0:
            weights[-1] = total = 1.0  # no time passed, or the hazard was zero throughout
        beyond = 1.0
        for n, weight in zip(range(first, last + 1), weights, strict=True):
            fraction = weight / total
            self._ended[n] += fraction
            beyond -= fraction
            self._add_time(n, since, until, max(0.0, beyond) + fraction / 2)
        self.ends += 1.0
        self._lifetimes += (since + until) / 2
        self._stale -= 1

    def _halve(self) -> None:
        self._ended = [n / 2 for n in self._ended]
        self._watched = [n / 2 for n in self._watched]
        self.ends /= 2
        self._total /= 2
        self._lifetimes /= 2

    def hazard(self) -> list[float]:
        """Return ends per second by bin, smoothed towards a steady hazard where there is little data."""
        if self._stale <= 0 or not self._hazard:
            self._refresh()
        return self._hazard

    def expected(self, since: float, until: float) -> float:
        """Return the expected number of ends between two ages of a task that had not ended at the first."""
        return self._cumulative(until) - self._cumulative(since)

    def _cumulative(self, age: float) -> float:
        hazard = self.hazard()
        n = _bin(age)
        return self._sums[n] + hazard[n] * (age - _EDGES[n])

    def price(self, latency: float) -> float:
        """Return the price of a poll at which the mean delay becomes `latency` seconds.

        With the best schedule for a price: mean delay = √(price / 2) · ∫ √(f S) dt.
        """
        self.hazard()
        return 2.0 * (latency / self._integral) ** 2

    def _refresh(self) -> None:
        steady = max(self.ends, 0.5) / self._total if self._total else 1.0
        hazard: list[float] = []
        sums: list[float] = []
        alive, integral, cumulative = 1.0, 0.0, 0.0
        for n in range(_BINS + 1):
            near = range(max(0, n - 1), min(_BINS, n + 1) + 1)
            ended = sum(self._ended[k] * (2.0 if k == n else 1.0) for k in near)
            watched = sum(self._watched[k] * (2.0 if k == n else 1.0) for k in near)
            width = (_EDGES[n + 1] if n < _BINS else _EDGES[n] * _GROWTH) - _EDGES[n]
            prior = _PRIOR * alive * (1.0 - exp(-steady * width)) / steady  # seconds that the prior watched this bin
            rate = (ended + prior * steady) / (watched + prior) if watched + prior > 0.0 else steady
            hazard.append(rate)
            sums.append(cumulative)
            cumulative += rate * width
            left = alive * exp(-rate * width)
            # ∫ √(f S) over the bin, with f = rate · S and S falling exponentially.
            integral += (alive - left) / sqrt(rate) if rate > 0.0 else 0.0
            alive = left
        self._hazard, self._sums = hazard, sums
        self._integral = max(integral, 1e-6)
        self._stale = max(_REFRESH, int(self.ends / 32))

    def pause(self, age: float, price: float, longest: float) -> float:
        """Return the seconds until the expected delay since a poll at `age` reaches the price; at most `longest`."""
        hazard = self.hazard()
        n, at, delay, expected = _bin(age), age, 0.0, 0.0
        while True:
            rate = hazard[n]
            width = (_EDGES[n + 1] if n < _BINS else inf) - at
            # Within the bin: delay + expected·x + rate·x²/2 = price.
            root = sqrt(expected * expected + 2.0 * rate * (price - delay))
            step = (root - expected) / rate if rate > 0.0 else (price - delay) / expected if expected > 0.0 else inf
            if step <= width or at + width - age >= longest:
                return min(at + step - age, longest)
            delay += expected * width + rate * width * width / 2.0
            expected += rate * width
            at += width
            n += 1
