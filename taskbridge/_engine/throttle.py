"""The rate limiter of one connection, with a circuit breaker: polls, lists and submissions share it.

It takes the place of a separate limiter, retry budget and circuit breaker:

* **Rate.** At most `rate` requests start per second. A 429 cuts the rate to half of the actual flow; successful
  responses let it climb back. Each further 429 before such a response halves it again; after a row of them the rate
  doubles with each response up to what the first one left, as TCP does after time-outs (RFC 5681, 3.1).
* **Retry budget.** A retry costs one token, a response earns a tenth of one. While nothing works, retries add a few
  requests in all; otherwise they add at most 10 %.
* **Outage.** After five failures in a row, only one probe at a time is sent, 5 to 7.5 seconds apart. The first response
  closes the circuit again, at a rate that doubles every second.

No I/O and no clock: each call gets the time in monotonic seconds. Calls come from many threads, so each takes a lock,
briefly.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from threading import Lock
from typing import TYPE_CHECKING, Final

from taskbridge._fork import renew_after_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

_FAILURES_TO_PROBE: Final = 5  # failures in a row that count as an outage
_PROBE_INTERVAL: Final = (5.0, 7.5)  # seconds between probes, drawn evenly
_PROBE_LOST: Final = 60.0  # seconds after which a probe without any result counts as lost
_BUDGET: Final = 10.0  # retries that may be spent before the first response earns new ones
_EARNED: Final = 0.1  # of a retry, for each response
_BURST: Final = 1.0  # seconds' worth of the rate that may start at once after silence; one request for small rates
MAX_PAUSE: Final = 3600.0  # seconds; a vendor that asks for more is asked again after an hour
_CUT: Final = 0.5  # of the actual flow, on a 429
_MIN_RATE: Final = 0.05  # requests per second; no 429 pushes the rate below
_MIN_FLOW: Final = 1.0  # requests per second that every connection counts as flowing: one 429 must not freeze it
_CLIMB: Final = 0.02  # of the rate, for each response
_LEAST_CLIMB: Final = 0.05  # requests per second, for each response
_FIRST_RATE: Final = 2.0  # requests per second after an outage
_UNLIMITED: Final = 500.0  # requests per second from which an unlimited connection counts as unlimited again
_GIVEN_UP: Final = 0.5  # of the time, at most, for the slots that other processes have reserved
_LONGEST_GAP: Final = 2.0  # seconds between two calls of `give_up` that count as time
_MOST_OWED: Final = 10.0  # seconds of the rate; what others reserve beyond is not made up for


@dataclass(frozen=True, slots=True)
class Permit:
    """Permission to send one request after `wait` seconds; unless `granted`, ask again then."""

    wait: float
    granted: bool


_NOW: Final = Permit(0.0, granted=True)


class Throttle:
    """Limits the rate of one connection to a number of requests per second; None for no limit."""

    def __init__(self, rate: float | None, random: Callable[[], float]) -> None:
        self._ceiling = rate or inf
        self._rate = self._ceiling
        self._random = random
        self.raises = 0
        """How often waiting callers were to ask again: a higher rate was allowed, or slots were reserved for them."""
        renew_after_fork(self, Throttle._begin_process)
        self._next_slot = -inf
        self._paused_until = -inf
        self._failures = 0
        self.failing_since = -inf
        """Monotonic seconds of the first of the failures in a row."""
        self._probe_at = inf  # finite during an outage
        self._probed_at = -inf
        self._doubling_at: float | None = None
        self._owed = 0.0  # seconds of the rate that other processes have used, or will
        self._given_up_at = -inf
        self._first_cut = 0.0  # rate after the first 429 since the last response
        self._is_first_cut = True
        self._retries = RetryBudget()
        self._flow = _Flow()

    def _begin_process(self) -> None:
        self._lock = Lock()
        self._probing = False  # the probe of another thread ends in the parent
        self._wakers: set[Callable[[], object]] = set()  # of waits for a slot

    @property
    def rate(self) -> float:
        """Maximum requests per second at present; infinite without a limit."""
        return self._rate

    @property
    def ceiling(self) -> float:
        """Maximum requests per second that the configuration allows; infinite without a limit."""
        return self._ceiling

    def set_ceiling(self, rate: float | None, now: float) -> None:
        """Allow another number of requests per second from now on; None for no limit.

        A rate that a 429 or an outage has cut below the new ceiling climbs on from where it is.
        """
        with self._lock:
            before, was_cut = self._rate, self._rate < self._ceiling
            self._ceiling = rate or inf
            self._rate = min(self._rate, self._ceiling) if was_cut else self._ceiling
            self._next_slot = min(self._next_slot, now + 1.0 / self._rate)
            self.raises += self._rate > before
            wakers = list(self._wakers) if self._rate > before else []
        for wake in wakers:
            wake()

    def wake(self) -> None:
        """Let callers that wait for a slot ask again."""
        with self._lock:
            self.raises += 1
            wakers = list(self._wakers)
        for wake in wakers:
            wake()

    def give_up(self, count: int, now: float) -> None:
        """Leave slots to other processes, which have reserved so many since the last call; call it every second or so.

        They get at most half of the time, also if they reserve more, so that polls never stop.
        """
        with self._lock:
            elapsed, self._given_up_at = min(now - self._given_up_at, _LONGEST_GAP), now
            self._owed = min(self._owed + count / self._ceiling, _MOST_OWED)
            if self._owed > 0.0:
                given = min(self._owed, _GIVEN_UP * elapsed)
                self._owed -= given
                self._next_slot = max(self._next_slot, now) + given  # and no burst besides

    @contextmanager
    def waking(self, wake: Callable[[], object]) -> Generator[None]:
        """Call a function, in any thread, when a waiting caller is to ask again while the block runs."""
        with self._lock:
            self._wakers.add(wake)
        try:
            yield
        finally:
            with self._lock:
                self._wakers.discard(wake)

    @property
    def paused_until(self) -> float:
        """Monotonic seconds before which nothing is sent, because the vendor asked for that."""
        return self._paused_until

    def pause_until(self, moment: float) -> None:
        """Send nothing before that many monotonic seconds; never shortens a pause."""
        with self._lock:
            self._paused_until = max(self._paused_until, moment)

    @property
    def is_probing(self) -> bool:
        """Whether the vendor seems to be down, so that only probes are sent."""
        return self._probe_at != inf

    def take(self, now: float, latest: float = inf, *, ahead: bool = False) -> Permit:
        """Ask for permission to send one request.

        With `ahead`, the caller takes the next slot now and waits for it, unless that is at `latest` or later. Only the
        next slot can be reserved, so that a pause or an outage holds for every caller, and a caller that gives up
        leaves no gap.
        """
        with self._lock:
            if self._probe_at != inf:
                if self._probing and now - self._probed_at > _PROBE_LOST:
                    self._probing = False  # the probe was never sent, or its result never reported
                if self._probing or now < self._probe_at:
                    least = _PROBE_INTERVAL[0] if self._probing else 0.0
                    return Permit(max(self._probe_at - now, least), granted=False)
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
        """Whether nothing may be sent now, even with a slot that was reserved earlier."""
        with self._lock:
            return now < self._paused_until or (self._probe_at != inf and not self._probing)

    def give_back(self) -> None:
        """Return a permit: the request will not be sent."""
        with self._lock:
            self._probing = False
            if self._rate != inf:
                self._next_slot -= 1.0 / self._rate

    def may_retry(self) -> bool:
        """Spend one retry of the budget; False if there is none left."""
        return self._retries.spend()

    def answered(self, now: float, headers: Mapping[str, str]) -> None:
        """Report that the vendor responded, whatever it said; names of header fields are in lower case."""
        with self._lock:
            self._failures = 0
            self._is_first_cut = True
            self._retries.earn()
            if self._probe_at != inf:
                self._end_outage()
                self._doubling_at = now + 1.0
            elif self._rate < self._ceiling:
                self._climb(now)
            if headers.get("x-ratelimit-remaining") == "0":
                self._paused_until = max(self._paused_until, now + 1.0)

    def _end_outage(self) -> None:
        self._probe_at, self._probing = inf, False
        self._rate = min(self._ceiling, _FIRST_RATE)
        self._first_cut, self._is_first_cut = 0.0, True  # what the vendor could bear before says nothing now

    def _climb(self, now: float) -> None:
        if self._rate < self._first_cut:
            self._rate = min(2.0 * self._rate, self._first_cut)
        elif self._doubling_at is None:
            self._rate += max(_CLIMB * self._rate, _LEAST_CLIMB)
        elif now >= self._doubling_at:
            self._rate *= 2.0
            self._doubling_at = now + 1.0
        if self._rate >= min(self._ceiling, _UNLIMITED):
            self._rate = self._ceiling
            self._doubling_at = None

    def slow_down(self, now: float, retry_after: float | None) -> None:
        """Report a 429, or a 503 with a time to wait in seconds."""
        with self._lock:
            if self._probe_at != inf:
                self._end_outage()  # the vendor is back, and busy: its own request to wait counts
            self._failures = 0
            flowing = max(self._flow.rate(now), _MIN_FLOW)
            self._rate = max(_MIN_RATE, min(self._rate, flowing) * _CUT)
            if self._is_first_cut:
                self._is_first_cut, self._first_cut = False, self._rate
            self._doubling_at = None
            self._next_slot = max(self._next_slot, now)
            if retry_after:
                jitter = self._random() * min(1.0 + retry_after * 0.1, 10.0)
                self._paused_until = max(self._paused_until, now + retry_after + jitter)

    def failed(self, now: float) -> None:
        """Report that the vendor did not respond, or that its server failed."""
        with self._lock:
            if self._failures == 0:
                self.failing_since = now
            self._failures += 1
            if self._failures >= _FAILURES_TO_PROBE:
                least, most = _PROBE_INTERVAL
                if self._probing or self._probe_at == inf:
                    self._probe_at = now + least + (most - least) * self._random()
                self._probing = False

    def abandoned(self) -> None:
        """Report that a request was sent and its response will not be read."""
        with self._lock:
            self._probing = False


class RetryBudget:
    """How many retries may be spent; responses earn new ones."""

    def __init__(self) -> None:
        self._tokens = _BUDGET
        renew_after_fork(self, RetryBudget._make_lock)

    def _make_lock(self) -> None:
        self._lock = Lock()

    def spend(self) -> bool:
        """Spend one retry; False if there is none left."""
        with self._lock:
            if self._tokens < 1.0:
                return False
            self._tokens -= 1.0
            return True

    def earn(self) -> None:
        """Report a response of a host that works."""
        with self._lock:
            self._tokens = min(_BUDGET, self._tokens + _EARNED)


class _Flow:
    """The actual flow: requests per second over about the last second."""

    __slots__ = ("_at", "_count")

    def __init__(self) -> None:
        self._at = -inf
        self._count = 0.0

    def add(self, now: float) -> None:
        self._count = self.rate(now) + 1.0
        self._at = now

    def rate(self, now: float) -> float:
        return self._count * max(0.0, 1.0 - (now - self._at)) if self._at != -inf else 0.0
