"""When to look at a task again: not exponentially, but when it is likely to have ended.

With hazard rate h (ends per second among tasks of that age), looking every τ seconds costs 1/τ requests a second and a
mean delay of τ/2 for those that end. The least requests for a mean delay are sent when each look comes as soon as the
delay that has piled up unseen since the last one, ∫ h(u)·(t - u) du, reaches a constant price. A steady interval is the
special case of a steady hazard; exponential back-off is never the answer.

What is not known is learnt: a life table of durations per connection and operation, in bins that grow by a constant
factor, from the ends that were seen and the time that was watched without one. Until enough is known it looks at steady
intervals, or, where the user stated no wish, in proportion to the task's age.

No I/O and no clock.
"""

from __future__ import annotations

from math import exp, inf, log, sqrt
from typing import Final

_FIRST: Final = 0.25  # seconds; shorter durations count as this long


_GROWTH: Final = 1.1  # factor from one bin to the next


_BINS: Final = 138  # up to about 35 hours


_EDGES: Final = tuple([0.0] + [_FIRST * _GROWTH**n for n in range(_BINS)])


_LOG_GROWTH: Final = log(_GROWTH)


_ENOUGH: Final = 12  # ends before the shape of the durations is believed


_PRIOR: Final = 8.0  # tasks' worth of belief that the hazard is steady


_FORGET_AFTER: Final = 4000.0  # ends after which the table is halved, so that it follows the vendor


_REFRESH: Final = 16  # ends, at least, after which derived figures are made anew; more once more is known


SHARE: Final = 1 / 15  # of the duration that the mean delay may be where the user stated no wish


REACH: Final = 2.0  # times a task's age that it is expected to take at most, for that share


def _bin(age: float) -> int:
    return 0 if age < _FIRST else min(_BINS, 1 + int(log(age / _FIRST) / _LOG_GROWTH))


def _upper(n: int) -> float:
    return _EDGES[n + 1] if n < _BINS else inf


class DurationModel:
    """A life table: how long tasks take, as far as has been seen."""

    __slots__ = ("_ended", "_hazard", "_integral", "_lived", "_stale", "_sums", "_total", "_watched", "ends")

    def __init__(self) -> None:
        self._ended = [0.0] * (_BINS + 1)
        self._watched = [0.0] * (_BINS + 1)  # seconds watched in the bin
        self._total = 0.0  # seconds watched in all
        self._lived = 0.0  # ages of those that ended
        self.ends = 0.0
        self._hazard: list[float] = []
        self._sums: list[float] = []  # ends to be expected before each bin
        self._integral = 0.0
        self._stale = 0

    @property
    def is_known(self) -> bool:
        """Whether enough ends were seen to believe their shape."""
        return self.ends >= _ENOUGH

    @property
    def mean(self) -> float:
        """Mean duration in seconds, as far as has been seen."""
        return self._total / self.ends if self.ends else inf

    @property
    def mean_end(self) -> float:
        """Mean age in seconds at which tasks ended; those that still go on do not count, as they do in `mean`."""
        return self._lived / self.ends if self.ends else inf

    def watched(self, since: float, until: float, *, ended: bool) -> None:
        """A task was watched from one age to another.

        Args:
            since: Its age in seconds at the last look.
            until: Its age at this look, or the age at which it ended.
            ended: Whether it ended then.
        """
        first, last = _bin(since), _bin(until)
        if not ended:
            for n in range(first, last + 1):
                self._live(n, since, until, 1.0)
        else:
            self._end(since, until, first, last)
        if self.ends > _FORGET_AFTER:
            self._forget()

    def _live(self, n: int, since: float, until: float, share: float) -> None:
        seconds = share * (min(until, _upper(n)) - max(since, _EDGES[n]))
        self._watched[n] += seconds
        self._total += seconds

    def _end(self, since: float, until: float, first: int, last: int) -> None:
        """It ended somewhere between two looks: share the end out by what is known of such ages so far."""
        hazard = self._hazard
        alive, shares = 1.0, list[float]()
        for n in range(first, last + 1):
            width = min(until, _upper(n)) - max(since, _EDGES[n])
            left = alive * exp(-hazard[n] * width) if hazard else alive - width / max(until - since, 1e-9)
            shares.append(alive - left)
            alive = left
        whole = sum(shares)
        if whole <= 0.0:
            shares[-1] = whole = 1.0  # no time passed, or none in which it could have ended
        beyond = 1.0
        for n, share in zip(range(first, last + 1), shares, strict=True):
            here = share / whole
            self._ended[n] += here
            beyond -= here
            self._live(n, since, until, max(0.0, beyond) + here / 2)
        self.ends += 1.0
        self._lived += (since + until) / 2
        self._stale -= 1

    def _forget(self) -> None:
        self._ended = [n / 2 for n in self._ended]
        self._watched = [n / 2 for n in self._watched]
        self.ends /= 2
        self._total /= 2
        self._lived /= 2

    def hazard(self) -> list[float]:
        """Ends per second by bin, drawn towards a steady hazard where little was seen."""
        if self._stale <= 0 or not self._hazard:
            self._refresh()
        return self._hazard

    def expected(self, since: float, until: float) -> float:
        """Ends to be expected between two ages of a task that had not ended at the first."""
        return self._piled_up(until) - self._piled_up(since)

    def _piled_up(self, age: float) -> float:
        hazard = self.hazard()
        n = _bin(age)
        return self._sums[n] + hazard[n] * (age - _EDGES[n])

    def price(self, latency: float) -> float:
        """The price of a look at which the mean delay becomes `latency` seconds.

        It follows from the best schedule for the price: mean delay = √(price / 2) · ∫ √(f S) dt.
        """
        self.hazard()
        return 2.0 * (latency / self._integral) ** 2

    def _refresh(self) -> None:
        steady = max(self.ends, 0.5) / self._total if self._total else 1.0
        hazard: list[float] = []
        sums: list[float] = []
        alive, integral, piled = 1.0, 0.0, 0.0
        for n in range(_BINS + 1):
            near = range(max(0, n - 1), min(_BINS, n + 1) + 1)
            ended = sum(self._ended[k] * (2.0 if k == n else 1.0) for k in near)
            watched = sum(self._watched[k] * (2.0 if k == n else 1.0) for k in near)
            width = (_EDGES[n + 1] if n < _BINS else _EDGES[n] * _GROWTH) - _EDGES[n]
            belief = _PRIOR * alive * (1.0 - exp(-steady * width)) / steady  # seconds that the prior watched here
            rate = (ended + belief * steady) / (watched + belief) if watched + belief > 0.0 else steady
            hazard.append(rate)
            sums.append(piled)
            piled += rate * width
            left = alive * exp(-rate * width)
            # ∫ √(f S) over the bin, with f = rate · S and S falling exponentially.
            integral += (alive - left) / sqrt(rate) if rate > 0.0 else 0.0
            alive = left
        self._hazard, self._sums = hazard, sums
        self._integral = max(integral, 1e-6)
        self._stale = max(_REFRESH, int(self.ends / 32))

    def pause(self, age: float, price: float, longest: float) -> float:
        """Seconds until the delay that piles up unseen reaches the price.

        Args:
            age: The task's age in seconds.
            price: See `price`.
            longest: Seconds after which to look in any case.
        """
        hazard = self.hazard()
        n, at, piled, expected = _bin(age), age, 0.0, 0.0
        while True:
            rate = hazard[n]
            width = (_EDGES[n + 1] if n < _BINS else inf) - at
            # Within the bin: piled + expected·x + rate·x²/2 = price.
            root = sqrt(expected * expected + 2.0 * rate * (price - piled))
            step = (root - expected) / rate if rate > 0.0 else (price - piled) / expected if expected > 0.0 else inf
            if step <= width or at + width - age >= longest:
                return min(at + step - age, longest)
            piled += expected * width + rate * width * width / 2.0
            expected += rate * width
            at += width
            n += 1
