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
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import inf
from random import Random
from threading import Condition, Lock, get_ident, local
from typing import TYPE_CHECKING, Final

from taskbridge._fork import renew_after_fork

if TYPE_CHECKING:
    from asyncio import Event
    from collections.abc import Generator
    from contextlib import AbstractContextManager
    from typing import Self

_START: Final = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
_CHECK_INTERVAL: Final = 0.0005  # seconds of real time between a sleeper's checks whether all the others sleep
_BLOCKED_AFTER: Final = 1.0  # seconds of real time after which a thread at work counts as blocked
_TURNS: Final = 20  # turns of an event loop after which none of its tasks is runnable


class _Depth(local):
    """How many nested operations the thread is in."""

    level = 0


@dataclass
class _Timeline:
    """The two times, and everything that holds them; they change while its lock is held."""

    wall: datetime
    monotonic: float
    in_flight: int = 0  # asyncio's requests in flight, minus the released ones
    working: dict[int, float] = field(default_factory=dict[int, float])  # thread -> real time of its last contact
    wake_times: list[float] = field(default_factory=list[float])  # of all sleepers, the earliest first
    lock: Lock = field(default_factory=Lock)

    def move(self, wall: float, monotonic: float) -> None:
        with self.lock:
            self.wall += timedelta(seconds=wall)
            self.monotonic += monotonic

    def start_work(self, thread: int, until: float | None = None) -> None:
        """Count a thread as at work; ``until`` is infinite while it has a request in flight."""
        with self.lock:
            self.working[thread] = until or time.monotonic()

    @contextmanager
    def in_flight_changed(self, change: int) -> Generator[None]:
        with self.lock:
            self.in_flight += change
        try:
            yield
        finally:
            with self.lock:
                self.in_flight -= change

    @property
    def is_held(self) -> bool:
        if not self.working:
            return self.in_flight > 0
        blocked = time.monotonic() - _BLOCKED_AFTER
        return self.in_flight + sum(since > blocked for since in tuple(self.working.values())) > 0


class _Sleeper:
    """One sleep; a context manager.

    Args:
        timeline: The times.
        seconds: How long; None until it is notified.
        thread: The sleeping thread, if it is otherwise at work.
    """

    __slots__ = ("_thread", "_timeline", "_until", "_woken")

    def __init__(self, timeline: _Timeline, seconds: float | None, thread: int | None) -> None:
        self._timeline = timeline
        self._woken = False
        self._thread = thread
        self._until = None if seconds is None else timeline.monotonic + max(0.0, seconds)

    def __enter__(self) -> Self:
        with self._timeline.lock:
            if self._thread is not None:
                self._timeline.working.pop(self._thread, None)
            if self._until is not None:
                insort(self._timeline.wake_times, self._until)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._woken:
            with self._timeline.lock:
                self._wake()

    def _wake(self) -> None:
        self._woken = True
        if self._thread is not None:
            self._timeline.working[self._thread] = time.monotonic()
        if self._until is not None:
            self._timeline.wake_times.remove(self._until)

    @property
    def is_next(self) -> bool:
        """Whether time is not held, and no other sleeper wakes earlier."""
        return self._until is not None and self._timeline.wake_times[0] >= self._until and not self._timeline.is_held

    def is_over(self, *, may_move: bool = True) -> bool:
        """Return whether it is due, moving time for it if allowed."""
        timeline, until = self._timeline, self._until
        with timeline.lock:
            if until is None:
                return False
            if timeline.monotonic < until:
                if not may_move or not self.is_next:
                    return False
                timeline.wall += timedelta(seconds=until - timeline.monotonic)
                timeline.monotonic = until
            self._wake()
            return True


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
        renew_after_fork(self, VirtualClock._begin_process)

    def _begin_process(self) -> None:
        self._timeline.lock = Lock()
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
        """Move both times forward; ``seconds`` is not negative."""
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
                with self._timeline.lock:
                    self._timeline.working.pop(thread, None)

    @contextmanager
    def busy(self) -> Generator[None]:
        """Hold time during something that takes real time, such as a request."""
        if not self._depth.level:
            with self._timeline.in_flight_changed(+1):
                yield
            return
        self._timeline.start_work(get_ident(), inf)
        try:
            yield
        finally:
            self._timeline.start_work(get_ident())

    def released(self) -> AbstractContextManager[None]:
        """Let time pass although a request is in flight, because the emulator that calls this holds it: a long poll."""
        return self._timeline.in_flight_changed(-1)

    # Waiting on it.

    def sleep(self, seconds: float, /) -> None:
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
