"""Learned durations: how long the tasks of one connection and operation take, and when their ends are likely.

A life table with bins that grow by a constant factor. An end is only known to lie between two polls, so the latest of
these intervals are kept, and from time to time each is distributed over its bins according to what all of them say
together (an expectation-maximization step for interval-censored data, after Turnbull). The time during which tasks were
watched without ending counts as it is. The result is smoothed over neighboring bins, as far as the data themselves
support: cross-validation chooses the width, so that a narrow peak stays narrow and a broad one becomes smooth.

The result is the hazard (ends per second) at each age. When to poll is computed from it in `taskbridge._polling.plan`.

No I/O and no clock.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import exp, inf, isfinite, log
from operator import sub
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

QUANTILES: Final = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Fractions of all tasks, for people."""

_FIRST: Final = 0.25  # seconds; shorter durations count as this long
_GROWTH: Final = 1.05  # factor from one bin to the next
_BINS: Final = 270  # up to about 35 hours
_EDGES: Final = (0.0, *(_FIRST * _GROWTH**n for n in range(_BINS)))  # lower edges in seconds
_WIDTHS: Final = tuple(upper - lower for lower, upper in zip(_EDGES, (*_EDGES[1:], _EDGES[-1] * _GROWTH), strict=True))
_AGES: Final = tuple(lower + width / 2.0 for lower, width in zip(_EDGES, _WIDTHS, strict=True))  # middles of the bins
_EVENLY: Final = tuple(-edge for edge in (*_EDGES, _EDGES[-1] * _GROWTH))  # for `_distribute`
_LOG_GROWTH: Final = log(_GROWTH)

_ENOUGH: Final = 12  # ends from which on the shape of the durations is trusted
_SAMPLE: Final = 256  # latest ends whose intervals are kept; earlier ones stay in the bins where they were put
_SURPLUS: Final = 64  # by how many the sample may be larger until they are
_FORGET_AFTER: Final = 4000.0  # ends after which all counts are halved, so that the table follows the vendor
_REFIT: Final = (8, 256)  # least and most ends between two fits; in between, a quarter of all ends

_ITERATIONS: Final = 10  # of a fit, each of which starts from the last one
_SMOOTHING: Final = (2, 3, 5, 8, 12)  # bins on either side over which to smooth; one of them is chosen
_SMOOTHING_BETWEEN: Final = 4  # divides the chosen one between two iterations, which blur the data by themselves
_WIDE: Final = 16  # bins on either side for the rate that is assumed where there are no data
_ASSUMED: Final = 0.01  # ends per bin that this assumption is worth
_TAIL: Final = 0.05  # fraction of the ends, the latest ones, whose rate is assumed of older tasks
_FEWEST_IN_TAIL: Final = 3.0  # ends
_TRACE: Final = 0.01  # ends in a bin that count as none
_LARGEST: Final = 1e12  # number in a saved model
_DIGITS: Final = 6  # of a saved number
_MOST_ENDED: Final = 1.6  # expected ends of a task from which on most tasks have ended: four of five


def _bin(age: float) -> int:
    return 0 if age < _FIRST else min(_BINS, 1 + int(log(age / _FIRST) / _LOG_GROWTH))


class _Interval(NamedTuple):
    """Two ages between which a task ended: bins, and the fractions of these bins that lie before the ages."""

    first: int
    before_first: float
    last: int
    before_last: float

    @classmethod
    def of(cls, since: float, until: float) -> _Interval:
        first, last = _bin(since), _bin(until)
        return cls(first, (since - _EDGES[first]) / _WIDTHS[first], last, (until - _EDGES[last]) / _WIDTHS[last])

    @property
    def ages(self) -> tuple[float, float]:
        """The two ages, in seconds."""
        since = _EDGES[self.first] + self.before_first * _WIDTHS[self.first]
        return since, _EDGES[self.last] + self.before_last * _WIDTHS[self.last]


def _distribute(
    intervals: Iterable[_Interval], alive: Sequence[float], ended: list[float], watched: list[float]
) -> None:
    """Add the ends within intervals, and the time from their beginnings until the ends, to the counts by bin.

    Args:
        intervals: Between which ages tasks ended.
        alive: Fraction of tasks still running at the edges of the bins, of which only the differences count.
        ended: Ends by bin.
        watched: Seconds by bin.
    """
    drops = [before - after for before, after in pairwise(alive)]
    # An end lies in bin n with the probability share · drops[n]: shares are summed over the bins at the end.
    shares, after, open_ = [0.0] * len(drops), [0.0] * len(drops), [0] * len(drops)
    for first, before_first, last, before_last in intervals:
        stop = alive[last] - before_last * drops[last]
        total = alive[first] - before_first * drops[first] - stop
        if first == last or total <= 0.0:
            ended[last] += 1.0
            watched[last] += max(0.0, before_last - before_first) * _WIDTHS[last] / 2.0
            continue
        share = 1.0 / total
        shares[first] += share
        after[first] += share * stop
        shares[last] -= share
        after[last] -= share * stop
        open_[first] += 1
        open_[last] -= 1
        outside, inside = share * before_first * drops[first], share * before_last * drops[last]
        ended[first] -= outside
        watched[first] -= before_first * _WIDTHS[first] * (share * (alive[first] - stop) - outside / 2.0)
        ended[last] += inside
        watched[last] += before_last * _WIDTHS[last] * inside / 2.0
    sums = zip(accumulate(open_), accumulate(shares), accumulate(after), strict=True)
    for n, (intervals_here, share, stops) in enumerate(sums):
        if intervals_here:  # otherwise rounding errors remain
            ended[n] += share * drops[n]
            watched[n] += _WIDTHS[n] * max(0.0, share * (alive[n] - drops[n] / 2.0) - stops)


def _smooth(values: Sequence[float], reach: int) -> Sequence[float]:
    """Return weighted sums over neighbors, with weights that fall linearly to zero beyond this many bins."""
    for before, after in ((reach // 2, reach - reach // 2), (reach - reach // 2, reach // 2)):
        sums = list(accumulate(values, initial=0.0))
        padded = [0.0] * before + sums + [sums[-1]] * after
        values = list(map(sub, padded[before + after + 1 :], padded))
    return values


@dataclass(frozen=True, slots=True)
class _Counts:
    """Ends and watched time by bin; time is divided by the age, since rates per unit of its logarithm change less.

    Attributes:
        ended: Ends.
        watched: Watched seconds, divided by the age.
        assumed: Rates where there are no data.
    """

    ended: Sequence[float]
    watched: Sequence[float]
    assumed: Sequence[float]

    @classmethod
    def of(cls, ended: Sequence[float], seconds: Sequence[float]) -> _Counts:
        watched = [each / age for each, age in zip(seconds, _AGES, strict=False)]
        overall, steady = sum(watched) / sum(ended), sum(ended) / sum(seconds)
        wide = zip(_smooth(ended, _WIDE), _smooth(watched, _WIDE), _AGES, strict=False)
        return cls(ended, watched, [min((ends + 1.0) / (time + overall), steady * age) for ends, time, age in wide])

    def rates(self, reach: int) -> list[float]:
        """Return the smoothed ends per unit of the logarithm of the age."""
        ended = _smooth([each + _ASSUMED for each in self.ended], reach)
        assumed = zip(self.watched, self.assumed, strict=True)
        watched = _smooth([each + _ASSUMED / rate for each, rate in assumed], reach)
        return [ends / time for ends, time in zip(ended, watched, strict=True)]


def _likelihood(rates: Iterable[float], counts: _Counts) -> float:
    """Return the logarithm of the likelihood of what was counted, if these are the rates."""
    rows = zip(rates, counts.ended, counts.watched, strict=True)
    return sum(ends * log(rate) - rate * time for rate, ends, time in rows)


@dataclass(frozen=True, slots=True)
class Hazard:
    """Ends per second by age, as fitted to what was observed.

    Attributes:
        edges: Lower ages of the bins, in seconds.
        rates: Ends per second in each bin.
        sums: Expected ends before each bin.
        horizon: Number of the last bin that ends were seen in; rates of later ones are extrapolated.
    """

    edges: Sequence[float]
    rates: Sequence[float]
    sums: Sequence[float]
    horizon: int

    def alive(self) -> list[float]:
        """Return the fraction of tasks still running at the lower edge of each bin, and at the end of the last one."""
        return [exp(-expected) for expected in (*self.sums, self.until(self.edges[-1] * _GROWTH))]

    @staticmethod
    def bin(age: float) -> int:
        """Return the number of the bin of an age."""
        return _bin(age)

    def until(self, age: float) -> float:
        """Return the expected ends of a task until an age."""
        n = _bin(age)
        return self.sums[n] + self.rates[n] * (age - self.edges[n])

    def quantiles(self) -> tuple[float, ...]:
        """Return the ages in seconds by which the fractions in `QUANTILES` of all tasks have ended."""
        alive, edges, found = self.alive(), (*self.edges, self.edges[-1] * _GROWTH), list[float]()
        for fraction in QUANTILES:
            left = 1.0 - fraction
            n = next((n for n, running in enumerate(alive) if running <= left), len(alive) - 1)
            drop = alive[n - 1] - alive[n] if n else 0.0
            part = min(1.0, (alive[n - 1] - left) / drop) if drop > 0.0 else 1.0
            found.append(edges[n - 1] + part * (edges[n] - edges[n - 1]) if n else edges[0])
        return tuple(found)


def _extrapolated(rates: Sequence[float], counts: _Counts, ends: float, mean: float) -> Hazard:
    """Return the hazard; beyond the last ends, it is the mean one.

    If most tasks ended before, it falls with the age as the last ends suggest: some distributions have long tails.
    """
    last = max((n for n, ended in enumerate(counts.ended) if ended > _TRACE), default=0)
    hazard = [rate / age for rate, age in zip(rates, _AGES, strict=False)]
    sums, certain = _expected(hazard), log(ends + 1.0)  # of so many tasks, one is expected to last longer
    horizon = next((n for n in range(last) if sums[n + 1] > certain), last)
    ended = watched = 0.0
    for n in range(horizon, -1, -1):
        ended += counts.ended[n]
        watched += counts.watched[n]
        if ended >= max(_FEWEST_IN_TAIL, _TAIL * ends) - _TRACE:  # a sum of fractions
            break
    tail = ended / watched if sums[horizon + 1] > _MOST_ENDED and watched > 0.0 else inf
    hazard[horizon + 1 :] = [min(1.0 / mean, tail / age) for age in _AGES[horizon + 1 :]]
    return Hazard(_EDGES, array("d", hazard), array("d", _expected(hazard)[:-1]), horizon)


def _expected(hazard: Sequence[float]) -> list[float]:
    """Return the expected ends of a task before each bin, and after the last one."""
    return list(accumulate((rate * width for rate, width in zip(hazard, _WIDTHS, strict=False)), initial=0.0))


class DurationModel:
    """How long tasks take, as observed so far."""

    __slots__ = ("_ended", "_hazard", "_lifetimes", "_sample", "_stale", "_total", "_watched", "_whole", "ends")

    def __init__(self) -> None:
        self._watched = [0.0] * (_BINS + 1)  # seconds watched in each bin, without those of `_whole`
        self._whole = [0] * (_BINS + 1)  # by how many more tasks a bin was watched from end to end than the one before
        self._ended = [0.0] * (_BINS + 1)  # ends in each bin that have left the sample
        self._sample: list[_Interval] = []  # the ages between which the latest tasks ended
        self._total = 0.0  # seconds watched in all
        self._lifetimes = 0.0  # sum of the ages at which tasks ended
        self.ends = 0.0
        self._hazard: Hazard | None = None
        self._stale = 0  # ends until the next fit

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

    @property
    def quantiles(self) -> tuple[float, ...] | None:
        """Ages by which the fractions in `QUANTILES` have ended, as last fitted; None before. Any thread may ask."""
        hazard = self._hazard
        return None if hazard is None else hazard.quantiles()

    def observe(self, since: float, until: float, *, ended: bool) -> None:
        """Record that a task was watched from one age in seconds to another, and whether it ended in between."""
        until = max(since, until)
        if not ended:
            self._total += until - since
            first, last = _bin(since), _bin(until)
            if first == last:
                self._watched[first] += until - since
            else:  # the first poll of an old task covers hundreds of bins
                self._watched[first] += _EDGES[first + 1] - since
                self._watched[last] += until - _EDGES[last]
                self._whole[first + 1] += 1
                self._whole[last] -= 1
            return
        self._total += (until - since) / 2.0
        self._lifetimes += (since + until) / 2.0
        self.ends += 1.0
        self._stale -= 1
        self._sample.append(_Interval.of(since, until))
        self._limit()

    def _limit(self) -> None:
        """Move the oldest of a full sample into the bins, and forget half of very many ends."""
        if len(self._sample) > _SAMPLE + _SURPLUS:
            surplus = len(self._sample) - _SAMPLE - 1
            oldest, self._sample = self._sample[:surplus], self._sample[surplus:]
            _distribute(oldest, self.hazard().alive(), self._ended, self._watched)
        if self.ends > _FORGET_AFTER:
            self._halve()

    def _seconds(self) -> list[float]:
        """Return the seconds watched in each bin, including those that were watched from end to end."""
        tasks = accumulate(self._whole)
        return [some + n * width for some, n, width in zip(self._watched, tasks, _WIDTHS, strict=True)]

    def _add_whole(self) -> None:
        self._watched, self._whole = self._seconds(), [0] * (_BINS + 1)

    def _halve(self) -> None:
        self._add_whole()
        self._ended = [n / 2.0 for n in self._ended]
        self._watched = [n / 2.0 for n in self._watched]
        self._sample = self._sample[len(self._sample) // 2 :]
        self.ends /= 2.0
        self._total /= 2.0
        self._lifetimes /= 2.0

    # Between processes.

    def save(self) -> dict[str, Any]:
        """Return what was observed, as plain JSON of some kilobytes."""
        sample = [[_rounded(age) for age in interval.ages] for interval in list(self._sample)]
        return {
            "watched": _without_zeros(self._seconds()),
            "ended": _without_zeros(self._ended),
            "sample": sample,
            "total": _rounded(self._total),
            "lifetimes": _rounded(self._lifetimes),
        }

    @classmethod
    def load(cls, saved: object) -> Self:
        """Return the model that was saved.

        Raises:
            ValueError: It is no saved model, or polls cannot be planned with it.
        """
        model = cls()
        if not isinstance(saved, dict):
            raise ValueError("no mapping")  # noqa: TRY004  # for the caller it is one kind of problem
        values = cast("dict[str, object]", saved)
        for name, bins in (("watched", model._watched), ("ended", model._ended)):
            given = _numbers(values.get(name), name)
            if len(given) > len(bins):
                raise ValueError(f"{name} is too long")
            bins[: len(given)] = given
        sample = _list(values.get("sample"), "sample")
        if len(sample) > _SAMPLE + _SURPLUS:
            raise ValueError("sample is too long")
        for each in sample:
            since, until = _numbers(each, "sample", 2)
            model._sample.append(_Interval.of(since, max(since, until)))
        model._total, model._lifetimes = _numbers([values.get("total"), values.get("lifetimes")], "total, lifetimes")
        model.ends = sum(model._ended) + len(model._sample)
        if model.ends > _FORGET_AFTER + 1.0 or (model.ends and not model._total):
            raise ValueError("the ends and the total do not fit together")
        if model.is_known:
            try:
                usable = isfinite(model.hazard().sums[-1])
            except (ArithmeticError, ValueError):
                usable = False
            if not usable:
                raise ValueError("the counts do not fit together")
        return model

    def merge(self, earlier: DurationModel) -> None:
        """Add what another model has observed; where something must be forgotten, its observations count as older."""
        self._watched = [one + other for one, other in zip(self._watched, earlier._seconds(), strict=True)]
        self._ended = [one + other for one, other in zip(self._ended, earlier._ended, strict=True)]
        self._sample = [*earlier._sample, *self._sample]
        self._total += earlier._total
        self._lifetimes += earlier._lifetimes
        self.ends += earlier.ends
        self._stale = 0
        self._limit()

    # What follows from it.

    def hazard(self) -> Hazard:
        """Return the hazard, if enough is known of it; a new object after each fit."""
        if self._hazard is None or self._stale <= 0:
            least, most = _REFIT
            self._stale = int(min(max(least, self.ends / 4.0), most))
            self._hazard = self._fit()
        return self._hazard

    def expected(self, since: float, until: float) -> float:
        """Return the expected number of ends between two ages of a task that had not ended at the first."""
        if not self.is_known:  # assume that it does not depend on the age
            return (until - since) * (max(self.ends, 0.5) / self._total if self._total else 1.0)
        hazard = self.hazard()
        return hazard.until(until) - hazard.until(since)

    def _fit(self) -> Hazard:
        self._add_whole()
        sample = self._sample
        used = max(n for n, seconds in enumerate(self._watched) if seconds > 0.0 or n == 0)
        used = max(used, *(interval.last for interval in sample)) + 1
        known, watched = self._ended[:used], self._watched[:used]
        reach = self._smoothing(sample, known, watched)
        alive: Sequence[float] = _EVENLY if self._hazard is None else self._hazard.alive()

        def step(reach: int) -> tuple[_Counts, list[float]]:
            ended, seconds = known.copy(), watched.copy()
            _distribute(sample, alive[: used + 1], ended, seconds)
            counts = _Counts.of(ended, seconds)
            return counts, counts.rates(reach)

        for _ in range(_ITERATIONS - 1):
            rates = step(reach // _SMOOTHING_BETWEEN)[1]
            hazard = [rate / age for rate, age in zip(rates, _AGES, strict=False)]
            alive = [exp(-ends) for ends in _expected(hazard)]
        counts, rates = step(reach)
        return _extrapolated(rates, counts, self.ends, self.mean)

    def _smoothing(self, sample: Sequence[_Interval], known: Sequence[float], watched: Sequence[float]) -> int:
        """Choose over how many bins to smooth: as one half of the ends predicts the other half best."""
        halves: list[_Counts] = []
        for number in range(2):
            ended, seconds = [each / 2.0 for each in known], [each / 2.0 for each in watched]
            _distribute(sample[number::2], _EVENLY[: len(known) + 1], ended, seconds)
            halves.append(_Counts.of(ended, seconds))
        one, other = halves

        def prediction(reach: int) -> float:
            return _likelihood(one.rates(reach), other) + _likelihood(other.rates(reach), one)

        return max(_SMOOTHING, key=prediction)


def _rounded(number: float) -> float:
    return float(f"{max(0.0, number):.{_DIGITS}g}")


def _without_zeros(numbers: Sequence[float]) -> list[float]:
    """Return rounded numbers, without the zeros at the end."""
    rounded = [_rounded(each) for each in numbers]
    used = max((n for n, each in enumerate(rounded) if each), default=-1) + 1
    return rounded[:used]


def _list(given: object, name: str) -> list[object]:
    """Return a list that was saved; raise `ValueError` for anything else."""
    if not isinstance(given, list):
        raise ValueError(f"{name} is no list")  # noqa: TRY004  # for the caller it is one kind of problem
    return cast("list[object]", given)


def _numbers(given: object, name: str, count: int | None = None) -> list[float]:
    """Return a list of saved numbers; raise `ValueError` for anything else, or another length."""
    items = _list(given, name)
    found = [
        float(each)
        for each in items
        if isinstance(each, int | float) and not isinstance(each, bool) and 0.0 <= each <= _LARGEST
    ]
    if len(found) != len(items) or count not in (None, len(items)):
        raise ValueError(f"{name} has something else than numbers from 0 on")
    return found
