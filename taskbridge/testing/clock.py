"""Virtual time: a sleep ends at once, at a later time of the clock, so that no test waits.

The clock has two times, as computers do: monotonic seconds, which measure durations, and the wall clock, which people
and time servers set. `advance` moves both; `step_wall` and `step_monotonic` move one of them, as a correction or a
suspended machine does.

Time advances only while everything sleeps. A thread at work (`acting`), a request in flight (`busy`) and a runnable
asyncio task hold it; of several sleepers the earliest wakes first. Results therefore do not depend on the speed of the
computer. A thread at work stops holding time after one real second without contact with the clock: it is blocked, for
example in a callback that waits for another thread.
"""

from __future__ import annotations

import time
from bisect import insort
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from math import inf
from random import Random
from threading import Condition, Lock, get_ident, local
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asyncio import Event
    from collections.abc import Generator
    from typing import Self

_START: Final = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
_CHECK_INTERVAL: Final = 0.0005  # seconds of real time between a sleeper's checks whether all the others sleep
_BLOCKED_AFTER: Final = 1.0  # seconds of real time after which a thread at work counts as blocked
_TURNS: Final = 20  # turns of an event loop after which none of its tasks is runnable


class _Depth(local):
    """How many nested operations the thread is in."""

    level = 0


class _Timeline:
    """The two times, and everything that holds them."""

    def __init__(self, wall: datetime, monotonic: float) -> None:
        self.wall = wall
        self.monotonic = monotonic
        self._in_flight = 0  # asyncio's requests in flight, minus the released ones
        self._working: dict[int, float] = {}  # thread -> real time of its last contact with the clock
        self._wake_times: list[float] = []  # of all sleepers, the earliest first
        self._lock = Lock()

    def move(self, wall: float, monotonic: float) -> None:
        with self._lock:
            self._move(wall, monotonic)

    def _move(self, wall: float, monotonic: float) -> None:
        self.wall += timedelta(seconds=wall)
        self.monotonic += monotonic

    def start_work(self, thread: int, until: float | None = None) -> None:
        """Count a thread as at work; ``until`` is infinite while it has a request in flight."""
        with self._lock:
            self._working[thread] = until or time.monotonic()

    def end_work(self, thread: int) -> None:
        with self._lock:
            self._working.pop(thread, None)

    def count_in_flight(self, change: int) -> None:
        with self._lock:
            self._in_flight += change

    def add(self, sleeper: _Sleeper) -> None:
        with self._lock:
            if sleeper.thread is not None:
                self._working.pop(sleeper.thread, None)
            if sleeper.until is not None:
                insort(self._wake_times, sleeper.until)

    def remove(self, sleeper: _Sleeper) -> None:
        with self._lock:
            self._remove(sleeper)

    def _remove(self, sleeper: _Sleeper) -> None:
        if sleeper.thread is not None:
            self._working[sleeper.thread] = time.monotonic()
        if sleeper.until is not None:
            self._wake_times.remove(sleeper.until)

    @property
    def is_held(self) -> bool:
        if not self._working:
            return self._in_flight > 0
        blocked = time.monotonic() - _BLOCKED_AFTER
        return self._in_flight + sum(since > blocked for since in tuple(self._working.values())) > 0

    def is_next(self, until: float) -> bool:
        """Return whether time is not held, and no sleeper wakes before ``until``."""
        return self._wake_times[0] >= until and not self.is_held

    def wake_if_due(self, sleeper: _Sleeper, *, may_move: bool) -> bool:
        """Return whether a sleeper is due, moving time for it if allowed; if so, it is removed."""
        until = sleeper.until
        with self._lock:
            if until is None:
                return False
            if self.monotonic < until:
                if not may_move or not self.is_next(until):
                    return False
                self._move(until - self.monotonic, 0.0)
                self.monotonic = until
            self._remove(sleeper)
            return True


class _Sleeper:
    """One sleep; a context manager.

    Args:
        timeline: The times.
        seconds: How long; None until it is notified.
        thread: The sleeping thread, if it is otherwise at work.
    """

    __slots__ = ("_timeline", "_woken", "thread", "until")

    def __init__(self, timeline: _Timeline, seconds: float | None, thread: int | None) -> None:
        self._timeline = timeline
        self._woken = False
        self.thread = thread
        self.until = None if seconds is None else timeline.monotonic + max(0.0, seconds)

    def __enter__(self) -> Self:
        self._timeline.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._woken:
            self._timeline.remove(self)

    @property
    def is_next(self) -> bool:
        return self.until is not None and self._timeline.is_next(self.until)

    def is_over(self, *, may_move: bool = True) -> bool:
        self._woken = self._timeline.wake_if_due(self, may_move=may_move)
        return self._woken


class VirtualClock:
    """Implements `taskbridge.provider.clock.Clock`; may be used from many threads.

    Args:
        now: Aware wall-clock time to start at.
        monotonic: Monotonic seconds to start at.
        seed: Seed of the random numbers; the same seed gives the same numbers.
        pinned: A number from 0.0 to 1.0 that `random` always returns, instead of random ones.

    Attributes:
        slept: Seconds that each call waited, in order.
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
        self._timeline = _Timeline(now.astimezone(UTC), monotonic)
        self._random = Random(seed)  # noqa: S311  # jitter needs no secrecy
        self._depth = _Depth()
        self._pause = Condition()

    # Reading it.

    def monotonic(self) -> float:
        """See `taskbridge.provider.clock.Clock`."""
        return self._timeline.monotonic

    def now(self) -> datetime:
        """See `taskbridge.provider.clock.Clock`."""
        return self._timeline.wall

    def random(self) -> float:
        """See `taskbridge.provider.clock.Clock`."""
        return self._random.random() if self.pinned is None else self.pinned

    # Moving it.

    def advance(self, seconds: float) -> None:
        """Move both times forward.

        Args:
            seconds: How much; not negative.
        """
        if seconds < 0:
            raise ValueError("time does not run backwards; see step_wall")
        self._timeline.move(seconds, seconds)

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back, without time passing, as a correction does."""
        self._timeline.move(seconds, 0.0)

    def step_monotonic(self, seconds: float) -> None:
        """Let monotonic time pass while the wall clock stops."""
        if seconds < 0:
            raise ValueError("monotonic time does not run backwards")
        self._timeline.move(0.0, seconds)

    # Holding it.

    @contextmanager
    def acting(self) -> Generator[None]:
        """See `taskbridge.provider.clock.Clock`."""
        depth, thread = self._depth, get_ident()
        depth.level += 1
        self._timeline.start_work(thread)
        try:
            yield
        finally:
            depth.level -= 1
            if depth.level:
                self._timeline.start_work(thread)
            else:
                self._timeline.end_work(thread)

    @contextmanager
    def busy(self) -> Generator[None]:
        """Hold time during something that takes real time, such as a request."""
        if self._depth.level:
            self._timeline.start_work(get_ident(), inf)
            try:
                yield
            finally:
                self._timeline.start_work(get_ident())
            return
        self._timeline.count_in_flight(1)
        try:
            yield
        finally:
            self._timeline.count_in_flight(-1)

    @contextmanager
    def released(self) -> Generator[None]:
        """Let time pass although a request is in flight, because the emulator that calls this holds it: a long poll."""
        self._timeline.count_in_flight(-1)
        try:
            yield
        finally:
            self._timeline.count_in_flight(1)

    # Waiting on it.

    def sleep(self, seconds: float) -> None:
        """See `taskbridge.provider.clock.Clock`; takes no real time."""
        self.slept.append(seconds)
        with self._sleeper(seconds) as sleeper:
            while not sleeper.is_over():
                with self._pause:
                    self._pause.wait(_CHECK_INTERVAL)

    async def async_sleep(self, seconds: float) -> None:
        """See `taskbridge.provider.clock.Clock`; takes no real time."""
        import asyncio  # noqa: PLC0415  # synchronous tests never pay for it

        self.slept.append(seconds)
        idle_turns = 0  # in which every other runnable task had a chance to run
        await asyncio.sleep(0)
        with _Sleeper(self._timeline, seconds, None) as sleeper:
            while not sleeper.is_over(may_move=idle_turns >= _TURNS):
                idle_turns = idle_turns + 1 if sleeper.is_next else 0
                await asyncio.sleep(_CHECK_INTERVAL if self._timeline.is_held else 0)

    async def async_wait_on(self, event: Event, seconds: float) -> None:
        """See `taskbridge.provider.clock.Clock`."""
        import asyncio  # noqa: PLC0415  # synchronous tests never pay for it

        def set_event(_: asyncio.Task[None]) -> None:
            event.set()

        timer = asyncio.ensure_future(self.async_sleep(seconds))
        timer.add_done_callback(set_event)
        try:
            await event.wait()
        finally:
            timer.remove_done_callback(set_event)  # or its end would set the event during the next wait
            timer.cancel()

    def wait_on(self, condition: Condition, seconds: float | None) -> None:
        """See `taskbridge.provider.clock.Clock`; without a limit it waits in real time for the notification.

        With a limit it may return early, as waiting on a condition may: the caller checks its condition again.
        """
        with self._sleeper(seconds) as sleeper:
            if seconds is None:
                condition.wait()
            elif sleeper.is_over():  # checked while the lock is held
                self.slept.append(seconds)
                condition.wait(0.0)  # lets other threads acquire the lock
            else:
                condition.wait(_CHECK_INTERVAL)

    def acquire(self, lock: Lock, seconds: float) -> bool:
        """See `taskbridge.provider.clock.Clock`."""
        if lock.acquire(blocking=False):
            return True
        with self._sleeper(seconds) as sleeper:
            while not lock.acquire(timeout=_CHECK_INTERVAL):
                if sleeper.is_over():
                    return False
            return True

    def _sleeper(self, seconds: float | None) -> _Sleeper:
        return _Sleeper(self._timeline, seconds, get_ident() if self._depth.level else None)
