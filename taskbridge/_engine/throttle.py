"""One governor per connection holds its pace: looks, lists and submits share it.

It stands in place of a separate limiter, retry budget and circuit breaker:

* **Rate.** Requests start at most `rate` times a second. A 429 halves what was really flowing; answers let it climb.
* **Budget.** A retry costs a token, an answer earns a tenth of one: while nothing works, retries add at most a few
  requests in all, and 10 % at most beside answers.
* **Outage.** After five failures in a row nothing goes out but one probe at a time, 5 to 7.5 seconds apart. The first
  answer opens the line again, at a rate that doubles each second.

No I/O and no clock: the time goes in with each call. It is used from many threads, so each call takes a lock, briefly.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from threading import Lock
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_FAILURES_TO_PROBE: Final = 5  # failures in a row that make an outage


_PROBE_EVERY: Final = (5.0, 7.5)  # seconds between probes, drawn evenly


_LOST: Final = 60.0  # seconds after which a probe that nobody told of counts as lost


_BUDGET: Final = 10.0  # retries that may be spent before any answer earns new ones


_EARNED: Final = 0.1  # of a retry, for each answer


_BURST: Final = 1.0  # seconds' worth of rate that may go out at once after a silence, for small rates one request


_CUT: Final = 0.5  # of what was flowing, on a 429


_LEAST_RATE: Final = 0.05  # requests a second below which no 429 pushes us


_LEAST_FLOW: Final = 1.0  # requests a second below which no connection counts as flowing: one 429 must not freeze it


_CLIMB: Final = 0.02  # of the rate, for each answer


_FIRST_RATE: Final = 2.0  # requests a second after an outage


_FREE: Final = 500.0  # requests a second above which an unlimited connection counts as unlimited again


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to send, or when to ask again.

    Attributes:
        wait: Seconds to wait.
        granted: Whether the request may be sent after that; else ask again then.
    """

    wait: float
    granted: bool


_NOW: Final = Permit(0.0, granted=True)


class Throttle:
    """Holds the pace of one connection.

    Args:
        rate: Requests a second at most; None for no limit of ours.
        random: Source of numbers from 0.0 up to 1.0.
    """

    def __init__(self, rate: float | None, random: Callable[[], float]) -> None:
        self._ceiling = rate or inf
        self._rate = self._ceiling
        self._random = random
        self._lock = Lock()
        self._next_slot = -inf
        self._paused_until = -inf
        self._failures = 0
        self._probe_at = inf  # finite during an outage
        self._probing = False
        self._probed_at = -inf
        self._doubling_at: float | None = None
        self._budget = _BUDGET
        self._flow = _Flow()

    @property
    def rate(self) -> float:
        """Requests a second at most, now; infinite where nothing limits us."""
        return self._rate

    @property
    def is_probing(self) -> bool:
        """Whether the vendor seems to be out, and only probes go out."""
        return self._probe_at != inf

    def take(self, now: float, latest: float = inf, *, ahead: bool = False) -> Permit:
        """Ask to send one request.

        Nothing is promised further ahead than the next slot, so that a pause or an outage holds for everybody, and
        whoever goes away leaves no gap.

        Args:
            now: Monotonic seconds.
            latest: Monotonic seconds from which on a slot is of no use.
            ahead: Whether the next slot may be taken now and waited for.
        """
        with self._lock:
            if self.is_probing:
                if self._probing and now - self._probed_at > _LOST:
                    self._probing = False  # whoever had the leave never sent, or never told
                if self._probing or now < self._probe_at:
                    return Permit(max(self._probe_at - now, _PROBE_EVERY[0] if self._probing else 0.0), granted=False)
                self._probing, self._probed_at = True, now
                self._flow.add(now)
                return _NOW
            if now < self._paused_until:
                return Permit(self._paused_until - now, granted=False)
            if self._rate == inf:
                self._flow.add(now)
                return _NOW
            gap = 1.0 / self._rate
            slot = max(self._next_slot, now - max(0.0, _BURST - gap) if self._doubling_at is None else now)
            if slot > now and not (ahead and slot - now <= gap and slot < latest):
                return Permit(slot - now, granted=False)
            self._flow.add(now)
            self._next_slot = slot + gap
            return _NOW if slot <= now else Permit(slot - now, granted=True)

    def holds(self, now: float) -> bool:
        """Whether nothing may go out, also by a slot that was taken before."""
        with self._lock:
            return now < self._paused_until or (self.is_probing and not self._probing)

    def give_back(self) -> None:
        """A granted request will not be sent."""
        with self._lock:
            self._probing = False
            if self._rate != inf:
                self._next_slot -= 1.0 / self._rate

    def may_retry(self) -> bool:
        """Spend one retry of the budget, if there is one."""
        with self._lock:
            if self._budget < 1.0:
                return False
            self._budget -= 1.0
            return True

    def answered(self, now: float, headers: Mapping[str, str]) -> None:
        """The vendor answered, whatever it said.

        Args:
            now: Monotonic seconds.
            headers: The answer's fields, names in lower case.
        """
        with self._lock:
            self._failures = 0
            self._budget = min(_BUDGET, self._budget + _EARNED)
            if self.is_probing:
                self._probe_at, self._probing = inf, False
                self._rate = min(self._ceiling, _FIRST_RATE)
                self._doubling_at = now + 1.0
            elif self._rate < self._ceiling:
                self._climb(now)
            if headers.get("x-ratelimit-remaining") == "0":
                self._paused_until = max(self._paused_until, now + 1.0)

    def _climb(self, now: float) -> None:
        if self._doubling_at is None:
            self._rate *= 1.0 + _CLIMB
        elif now >= self._doubling_at:
            self._rate *= 2.0
            self._doubling_at = now + 1.0
        if self._rate >= min(self._ceiling, _FREE):
            self._rate = self._ceiling
            self._doubling_at = None

    def slow_down(self, now: float, retry_after: float | None) -> None:
        """The vendor said 429, or 503 with a time to wait.

        Args:
            now: Monotonic seconds.
            retry_after: Seconds that it asks us to wait, if it says so.
        """
        with self._lock:
            if self.is_probing:
                # It is there again, and busy: the probes end, what it asks for counts.
                self._probe_at, self._probing = inf, False
                self._rate = min(self._ceiling, _FIRST_RATE)
            self._failures = 0
            flowing = max(self._flow.rate(now), _LEAST_FLOW)
            self._rate = max(_LEAST_RATE, min(self._rate, flowing) * _CUT)
            self._doubling_at = None
            self._next_slot = max(self._next_slot, now)
            if retry_after:
                jitter = self._random() * min(1.0 + retry_after * 0.1, 10.0)
                self._paused_until = max(self._paused_until, now + retry_after + jitter)

    def failed(self, now: float) -> None:
        """The vendor did not answer, or its server failed.

        Args:
            now: Monotonic seconds.
        """
        with self._lock:
            self._failures += 1
            if self._failures >= _FAILURES_TO_PROBE:
                least, most = _PROBE_EVERY
                if self._probing or not self.is_probing:
                    self._probe_at = now + least + (most - least) * self._random()
                self._probing = False

    def abandoned(self) -> None:
        """Nobody waited for the answer to a request that went out."""
        with self._lock:
            self._probing = False


class _Flow:
    """How many requests a second really went out, over about the last second."""

    __slots__ = ("_at", "_count")

    def __init__(self) -> None:
        self._at = -inf
        self._count = 0.0

    def add(self, now: float) -> None:
        self._count = self.rate(now) + 1.0
        self._at = now

    def rate(self, now: float) -> float:
        return self._count * max(0.0, 1.0 - (now - self._at)) if self._at != -inf else 0.0
