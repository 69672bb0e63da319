"""Time that passes at once: whoever sleeps on it wakes up in the future, and no test waits.

The clock counts two times, as computers do: monotonic seconds, by which durations are measured, and the wall clock,
which people and their servers set. `advance` moves both, as time does; `step_wall` and `step_monotonic` move one of
them, as a correction or a suspended machine does.

Time passes only while everybody sleeps: a thread that is at work (`acting`), a request that is on its way (`busy`), and
in asyncio whatever is ready to run hold it, and of several sleepers the earliest wakes first. So what happens does not
depend on how fast the computer is. Only a thread that is at work and for a second of real time does nothing that we
know of, such as a callback that waits for another thread, does not hold it any longer.
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

__all__ = ["VirtualClock"]

_START: Final = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
_GLANCE: Final = 0.0005  # seconds of real time after which a sleeper looks whether all the others sleep
_PATIENCE: Final = 1.0  # seconds of real time after which a thread at work counts as blocked
_TURNS: Final = 20  # turns of an event loop after which nothing in it is ready to run


class _Depth(local):
    """How many operations a thread is in, one within the other."""

    level = 0


class _Times:
    """The two times, and who keeps them from moving."""

    def __init__(self, wall: datetime, monotonic: float) -> None:
        self.wall = wall
        self.monotonic = monotonic
        self._outside = 0  # requests of asyncio on their way, less the callers for whom somebody lets time pass
        self._at_work: dict[int, float] = {}  # thread -> real time at which it last did something we know of
        self._sleepers: list[float] = []  # when they wake up, the earliest first
        self._lock = Lock()

    def move(self, wall: float, monotonic: float) -> None:
        with self._lock:
            self._move(wall, monotonic)

    def _move(self, wall: float, monotonic: float) -> None:
        self.wall += timedelta(seconds=wall)
        self.monotonic += monotonic

    def work(self, thread: int, until: float | None = None) -> None:
        """Count a thread as at work; ``until`` is infinite while a request of it is on its way."""
        with self._lock:
            self._at_work[thread] = until or time.monotonic()

    def rest(self, thread: int) -> None:
        """Count it no longer."""
        with self._lock:
            self._at_work.pop(thread, None)

    def count(self, change: int) -> None:
        """Count what happens outside of all threads."""
        with self._lock:
            self._outside += change

    def settle(self, sleeper: _Sleeper) -> None:
        """Count somebody who goes to sleep."""
        with self._lock:
            if sleeper.thread is not None:
                self._at_work.pop(sleeper.thread, None)
            if sleeper.until is not None:
                insort(self._sleepers, sleeper.until)

    def rouse(self, sleeper: _Sleeper) -> None:
        """Count somebody who wakes up."""
        with self._lock:
            self._rouse(sleeper)

    def _rouse(self, sleeper: _Sleeper) -> None:
        if sleeper.thread is not None:
            self._at_work[sleeper.thread] = time.monotonic()
        if sleeper.until is not None:
            self._sleepers.remove(sleeper.until)

    @property
    def stands(self) -> bool:
        """Whether somebody is at work."""
        if not self._at_work:
            return self._outside > 0
        blocked = time.monotonic() - _PATIENCE
        return self._outside + sum(since > blocked for since in tuple(self._at_work.values())) > 0

    def is_next(self, until: float) -> bool:
        """Whether everybody sleeps, and nobody wakes up before that time."""
        return self._sleepers[0] >= until and not self.stands

    def is_over(self, sleeper: _Sleeper, *, may_move: bool) -> bool:
        """Whether a sleeper's time has come, for which time moves if it may; if so he counts as awake at once."""
        until = sleeper.until
        with self._lock:
            if until is None:
                return False
            if self.monotonic < until:
                if not may_move or not self.is_next(until):
                    return False
                self._move(until - self.monotonic, 0.0)
                self.monotonic = until
            self._rouse(sleeper)
            return True


class _Sleeper:
    """Somebody who sleeps; a context manager.

    Args:
        times: Where.
        seconds: How long; None until somebody wakes him.
        thread: The thread that counts as at work otherwise; None where none does.
    """

    __slots__ = ("_roused", "_times", "thread", "until")

    def __init__(self, times: _Times, seconds: float | None, thread: int | None) -> None:
        self._times = times
        self._roused = False
        self.thread = thread
        self.until = None if seconds is None else times.monotonic + max(0.0, seconds)

    def __enter__(self) -> Self:
        self._times.settle(self)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._roused:
            self._times.rouse(self)

    @property
    def is_next(self) -> bool:
        return self.until is not None and self._times.is_next(self.until)

    def is_over(self, *, may_move: bool = True) -> bool:
        self._roused = self._times.is_over(self, may_move=may_move)
        return self._roused


class VirtualClock:
    """Implements `taskbridge.provider.clock.Clock`; may be used from many threads.

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
        self._times = _Times(now.astimezone(UTC), monotonic)
        self._random = Random(seed)  # noqa: S311  # jitter needs no secrecy
        self._depth = _Depth()
        self._glance = Condition()

    # What a clock says.

    def monotonic(self) -> float:
        """See `taskbridge.provider.clock.Clock`."""
        return self._times.monotonic

    def now(self) -> datetime:
        """See `taskbridge.provider.clock.Clock`."""
        return self._times.wall

    def random(self) -> float:
        """See `taskbridge.provider.clock.Clock`."""
        return self._random.random() if self.pinned is None else self.pinned

    # Moving it.

    def advance(self, seconds: float) -> None:
        """Let time pass.

        Args:
            seconds: How much; not negative.
        """
        if seconds < 0:
            raise ValueError("time does not run backwards; see step_wall")
        self._times.move(seconds, seconds)

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock, either way, without time passing: a correction, or daylight saving."""
        self._times.move(seconds, 0.0)

    def step_monotonic(self, seconds: float) -> None:
        """Let monotonic time pass while the wall clock stands still."""
        if seconds < 0:
            raise ValueError("monotonic time does not run backwards")
        self._times.move(0.0, seconds)

    # Being at work.

    @contextmanager
    def acting(self) -> Generator[None]:
        """See `taskbridge.provider.clock.Clock`."""
        depth, thread = self._depth, get_ident()
        depth.level += 1
        self._times.work(thread)
        try:
            yield
        finally:
            depth.level -= 1
            if depth.level:
                self._times.work(thread)
            else:
                self._times.rest(thread)

    @contextmanager
    def busy(self) -> Generator[None]:
        """Hold time while something outside is awaited that takes real time, as a request does."""
        if self._depth.level:
            self._times.work(get_ident(), inf)
            try:
                yield
            finally:
                self._times.work(get_ident())
            return
        self._times.count(1)
        try:
            yield
        finally:
            self._times.count(-1)

    @contextmanager
    def lent(self) -> Generator[None]:
        """Let time pass although somebody is at work: he waits for whoever calls this, as a held line does."""
        self._times.count(-1)
        try:
            yield
        finally:
            self._times.count(1)

    # Waiting on it.

    def sleep(self, seconds: float) -> None:
        """See `taskbridge.provider.clock.Clock`; returns at once, later."""
        self.slept.append(seconds)
        with self._sleeper(seconds) as sleeper:
            while not sleeper.is_over():
                with self._glance:
                    self._glance.wait(_GLANCE)

    async def async_sleep(self, seconds: float) -> None:
        """See `taskbridge.provider.clock.Clock`; of several sleepers the earliest wakes first."""
        import asyncio  # noqa: PLC0415  # synchronous tests never pay for it

        self.slept.append(seconds)
        quiet = 0  # turns in which whoever has something to do could do it before time moves
        await asyncio.sleep(0)
        with _Sleeper(self._times, seconds, None) as sleeper:
            while not sleeper.is_over(may_move=quiet >= _TURNS):
                quiet = quiet + 1 if sleeper.is_next else 0
                await asyncio.sleep(_GLANCE if self._times.stands else 0)

    async def async_wait_on(self, event: Event, seconds: float) -> None:
        """See `taskbridge.provider.clock.Clock`."""
        import asyncio  # noqa: PLC0415  # synchronous tests never pay for it

        def ring(_: asyncio.Task[None]) -> None:
            event.set()

        timer = asyncio.ensure_future(self.async_sleep(seconds))
        timer.add_done_callback(ring)
        try:
            await event.wait()
        finally:
            timer.remove_done_callback(ring)  # or its end would ring for the next wait
            timer.cancel()

    def wait_on(self, condition: Condition, seconds: float | None) -> None:
        """See `taskbridge.provider.clock.Clock`; without a limit it really waits, for somebody has to notify.

        With a limit it may return before, as a condition may: whoever waits looks again at what he waits for.
        """
        with self._sleeper(seconds) as sleeper:
            if seconds is None:
                condition.wait()
            elif sleeper.is_over():  # as things stand while the lock is held
                self.slept.append(seconds)
                condition.wait(0.0)  # lets others have the lock
            else:
                condition.wait(_GLANCE)  # the caller looks again at what there is to do

    def acquire(self, lock: Lock, seconds: float) -> bool:
        """See `taskbridge.provider.clock.Clock`."""
        if lock.acquire(blocking=False):
            return True
        with self._sleeper(seconds) as sleeper:
            while not lock.acquire(timeout=_GLANCE):
                if sleeper.is_over():
                    return False
            return True

    def _sleeper(self, seconds: float | None) -> _Sleeper:
        return _Sleeper(self._times, seconds, get_ident() if self._depth.level else None)
