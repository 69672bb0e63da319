"""Time that passes at once: whoever sleeps on it wakes up in the future, and no test waits.

The clock counts two times, as computers do: monotonic seconds, by which durations are measured, and the wall clock,
which people and their servers set. `advance` moves both, as time does; `step_wall` and `step_monotonic` move one of
them, as a correction or a suspended machine does.
"""

from __future__ import annotations

from bisect import insort
from datetime import UTC, datetime, timedelta
from random import Random
from threading import Lock
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from threading import Condition

__all__ = ["VirtualClock"]

_START: Final = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


class VirtualClock:
    """Implements `taskbridge.policy.Clock`; may be used from many threads.

    Args:
        now: Aware wall-clock time to start at.
        monotonic: Monotonic seconds to start at.
        seed: Seed of the random numbers; the same seed gives the same numbers.
        pinned: A number from 0.0 to 1.0 that `random` always gives, instead of random ones.

    Attributes:
        slept: Seconds asked for by every call that waited, in order.
    """

    def __init__(
        self,
        *,
        now: datetime = _START,
        monotonic: float = 1000.0,
        seed: int = 0,
        pinned: float | None = None,
    ) -> None:
        if now.tzinfo is None:
            raise ValueError("now must be an aware time")
        self.slept: list[float] = []
        self.pinned = pinned
        self._wall = now.astimezone(UTC)
        self._monotonic = monotonic
        self._random = Random(seed)  # noqa: S311  # jitter needs no secrecy
        self._sleepers: list[float] = []  # when asyncio tasks wake up, the earliest first
        self._lock = Lock()

    # What a clock says.

    def monotonic(self) -> float:
        """See `taskbridge.policy.Clock`."""
        return self._monotonic

    def now(self) -> datetime:
        """See `taskbridge.policy.Clock`."""
        return self._wall

    def random(self) -> float:
        """See `taskbridge.policy.Clock`."""
        return self._random.random() if self.pinned is None else self.pinned

    # Moving it.

    def advance(self, seconds: float) -> None:
        """Let time pass.

        Args:
            seconds: How much; not negative.
        """
        if seconds < 0:
            raise ValueError("time does not run backwards; see step_wall")
        with self._lock:
            self._monotonic += seconds
            self._wall += timedelta(seconds=seconds)

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock, either way, without time passing: a correction, or daylight saving."""
        with self._lock:
            self._wall += timedelta(seconds=seconds)

    def step_monotonic(self, seconds: float) -> None:
        """Let monotonic time pass while the wall clock stands still."""
        if seconds < 0:
            raise ValueError("monotonic time does not run backwards")
        with self._lock:
            self._monotonic += seconds

    # Waiting on it.

    def sleep(self, seconds: float) -> None:
        """See `taskbridge.policy.Clock`; returns at once, later."""
        self.slept.append(seconds)
        self.advance(max(0.0, seconds))

    async def asleep(self, seconds: float) -> None:
        """See `taskbridge.policy.Clock`; of several sleepers the earliest wakes first."""
        import asyncio  # noqa: PLC0415  # synchronous tests never pay for it

        self.slept.append(seconds)
        wake = self._monotonic + max(0.0, seconds)
        insort(self._sleepers, wake)
        try:
            await asyncio.sleep(0)  # whoever has something to do now does it before time moves
            while self._monotonic < wake:
                if self._sleepers[0] >= wake:
                    self.advance(wake - self._monotonic)
                else:
                    await asyncio.sleep(0)
        finally:
            self._sleepers.remove(wake)

    def wait_on(self, condition: Condition, seconds: float | None) -> None:
        """See `taskbridge.policy.Clock`; without a limit it really waits, for somebody has to notify."""
        if seconds is None:
            condition.wait()
        elif not condition.wait(0.0):  # lets others have the lock
            self.slept.append(seconds)
            self.advance(max(0.0, seconds))
