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

from typing import Final

from taskbridge._engine.connection import Connection
from taskbridge._engine.durations import REACH, SHARE, DurationModel
from taskbridge.events import PollReason

_DELAYS: Final = (0.25, 20.0)  # seconds of mean delay where the user stated no wish, least and most


class IntervalPolicy:
    """How often to look at tasks of one connection and operation.

    Args:
        latency: Seconds of mean delay aimed at; None where the user stated no wish.
        interval: Seconds between looks, instead of all this.
        longest: Seconds after which to look in any case.
        durations: What has been learnt; None for nothing.
    """

    __slots__ = ("_interval", "_latency", "_longest", "durations")

    def __init__(
        self, latency: float | None, interval: float | None, longest: float, durations: DurationModel | None = None
    ) -> None:
        self._latency = latency
        self._interval = interval
        self._longest = longest
        self.durations = DurationModel() if durations is None else durations

    def pause(self, age: float) -> float:
        """Seconds to the next look.

        Args:
            age: The task's age in seconds.
        """
        if self._interval is not None:
            return min(self._interval, self._longest)
        known = self.durations.is_known
        latency = self._latency or self._wish(age, known=known)
        if not known:
            return min(2.0 * latency, self._longest)
        return self.durations.pause(age, self.durations.price(latency), self._longest)

    def cause(self, age: float) -> PollReason:
        """Why the pause is as it is, in a word.

        Args:
            age: The task's age in seconds.
        """
        if self.pause(age) >= self._longest:
            return PollReason.AT_MOST
        if self._interval is not None:
            return PollReason.INTERVAL
        if self.durations.is_known:
            return PollReason.LEARNED
        return PollReason.AGE if self._latency is None else PollReason.LATENCY

    def period(self, age: float) -> float:
        """Seconds between two looks that cost the same however many tasks they tell of.

        Args:
            age: The task's age in seconds.
        """
        if self._interval is not None:
            return min(self._interval, self._longest)
        latency = self._latency or self._wish(age, known=self.durations.is_known)
        return min(2.0 * latency, self._longest)

    def _wish(self, age: float, *, known: bool) -> float:
        least, most = _DELAYS
        span = max(age, 2.0)
        if known:
            # Some take seconds and others hours: a short one shall not wait for what is right for the long ones, and
            # one that outlives the others is not looked at as if it were about to end.
            span = min(max(self.durations.mean, span), REACH * span)
        return min(max(span * SHARE, least), most)


class Intervals:
    """The interval policies of one connection, by the vendor's word for the operation.

    Args:
        channel: The connection; what it learnt of durations outlives this object.
    """

    __slots__ = ("_connection", "_policies")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._policies: dict[str | None, IntervalPolicy] = {}

    def of(self, operation: str | None) -> IntervalPolicy:
        """The policy for one operation."""
        found = self._policies.get(operation)
        if found is None:
            poll = self._connection.settings.poll_policy
            durations = self._connection.durations_of(operation)
            found = self._policies[operation] = IntervalPolicy(poll.latency, poll.interval, poll.at_most, durations)
        return found
