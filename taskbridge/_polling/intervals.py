"""How often a task is polled: the pause between two polls, its jitter, and what lengthens or shortens it.

With hazard rate h (ends per second among tasks of that age), polling every τ seconds costs 1/τ requests a second and
detects an end τ/2 late on average. Once it is known when tasks tend to end, `taskbridge._polling.plan` finds the poll
times that take the fewest requests for a given mean delay. A steady interval is the special case of a steady hazard;
exponential back-off is never optimal.

The hazard is learned from the durations of earlier tasks (see `taskbridge._engine.durations`). Until enough is known,
pauses are twice the configured mean delay (`poll.latency`), or proportional to the task's age if none is configured.
`poll.interval` replaces all of this, and no pause exceeds `poll.at_most`.

No I/O and no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from taskbridge._engine.connection import Connection
from taskbridge._engine.durations import DurationModel
from taskbridge._polling.plan import PollPlan
from taskbridge.events import PollReason

# Without a configured delay the target is a fraction of the expected duration.
_DELAY_FRACTION: Final = 1 / 15
_MIN_DELAY: Final = 0.25  # seconds
_MAX_DELAY: Final = 20.0  # seconds
_MAX_AGE_FACTOR: Final = 2.0  # the duration expected for that fraction is at most this many times the task's age

JITTER: Final = 0.1  # fraction of a pause, either way, so that polls do not synchronize
FIRST_POLL_JITTER: Final = 0.5  # the same for a task's first pause until durations are known: a random phase

_MAX_PROGRESS_FACTOR: Final = 4.0  # how many pauses a reported progress may postpone the next poll by


@dataclass(slots=True, eq=False)
class IntervalPolicy:
    """How often to poll tasks of one connection and operation."""

    latency: float | None  # target for the mean delay in seconds; None if not configured
    interval: float | None  # fixed seconds between polls; None to compute them
    longest: float  # upper bound of any pause, in seconds
    durations: DurationModel = field(default_factory=DurationModel)  # what is known of how long such tasks take
    _plan: PollPlan | None = field(default=None, init=False)

    def pause(self, age: float) -> float:
        """Seconds until the next poll of a task of that age in seconds."""
        if self.interval is not None or not self.durations.is_known:
            return self.steady_pause(age)
        return self._current_plan().pause(age)

    def steady_pause(self, age: float) -> float:
        """Seconds until the next poll, regardless of when tasks tend to end; also the pause between list scans."""
        return min(self.interval or 2.0 * self._target_delay(age), self.longest)

    def reason(self, age: float) -> PollReason:
        """Which rule determines `pause`."""
        if self.pause(age) >= self.longest:
            return PollReason.AT_MOST
        if self.interval is not None:
            return PollReason.INTERVAL
        if self.durations.is_known:
            return PollReason.LEARNED
        return PollReason.AGE if self.latency is None else PollReason.LATENCY

    def jittered(self, pause: float, age: float, chance: float, *, first: bool) -> float:
        """Spread the pause after a poll at that age by a random number from 0 to 1."""
        jitter, spread = JITTER, pause
        if not self.durations.is_known:
            jitter = FIRST_POLL_JITTER if first else JITTER
        elif self.interval is None:
            # A long pause may end where tasks end within seconds: it is spread no further than the shorter ones there.
            spread = min(pause, self._current_plan().spread(age))
        return pause + jitter * spread * (2.0 * chance - 1.0)

    def _current_plan(self) -> PollPlan:
        """Return the plan for what is known; a new one only after the durations were fitted again."""
        hazard = self.durations.hazard()
        plan = self._plan
        if plan is None or plan.hazard is not hazard:
            target = self._target_delay if self.latency is None else self.latency
            plan = self._plan = PollPlan(hazard, target, self.longest)
        return plan

    def _target_delay(self, age: float) -> float:
        if self.latency is not None:
            return self.latency
        duration = max(age, 2.0)
        if self.durations.is_known:
            # Some tasks take seconds, others hours: the pauses of a short task must not follow the long ones, and a
            # task that outlives the others must not be polled as if it were about to end.
            duration = min(max(self.durations.mean, duration), _MAX_AGE_FACTOR * duration)
        return min(max(duration * _DELAY_FRACTION, _MIN_DELAY), _MAX_DELAY)


def pause_for_progress(pause: float, age: float, progress: float, stalled: float) -> float:
    """Move a poll to when the progress (0 to 1) predicts the end; it has not changed for `stalled` seconds."""
    remaining = age * (1.0 - progress) / progress
    remaining = max(remaining, stalled / 2.0)  # a stalled figure predicts nothing
    return min(max(remaining, pause / 2), pause * _MAX_PROGRESS_FACTOR)


def interval_policy(connection: Connection, durations: DurationModel) -> IntervalPolicy:
    """Return the policy for operations with these durations."""
    poll = connection.settings.poll
    return IntervalPolicy(poll.latency, poll.interval, poll.at_most, durations)
