"""Vendor time: runs at any speed, and can be advanced by hand."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Final, Protocol

from taskbridge._fork import renew_after_fork

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

SIMULATED_SECONDS: Final = "taskbridge-simulated-seconds"
"""Response header: how many seconds the response would have taken, if time is virtual and nothing really waits."""

_STEP: Final = 0.5  # virtual seconds between two checks while a request is held


class VendorClock:
    """The clock of an emulated vendor.

    It starts at the present and runs ``speed`` times as fast as real time. Tests stop it with ``speed=0`` and move it
    with :meth:`advance`, so that a task of twenty minutes takes no time.

    Args:
        speed: Vendor seconds per real second; 0 stops the clock.
        monotonic: Source of real seconds.

    Attributes:
        is_virtual: Whether it follows a test's virtual clock.
    """

    is_virtual = False

    def __init__(self, speed: float = 1.0, monotonic: Callable[[], float] = time.monotonic) -> None:
        if not 0 <= speed <= 1_000_000:
            raise ValueError(f"speed must be between 0 and 1000000, not {speed!r}")
        self.speed = speed
        self._monotonic = monotonic
        self._started_at = monotonic()
        self._epoch = time.time()
        self._skipped = 0.0
        renew_after_fork(self, VendorClock._make_lock)

    def _make_lock(self) -> None:
        self._lock = Lock()

    def time(self) -> float:
        """Return vendor time in seconds since the epoch (UTC)."""
        return self._epoch + (self._monotonic() - self._started_at) * self.speed + self._skipped

    def now(self) -> datetime:
        """Return vendor time as an aware UTC datetime."""
        return datetime.fromtimestamp(self.time(), UTC)

    def advance(self, seconds: float) -> None:
        """Move vendor time forward by ``seconds`` at once."""
        with self._lock:
            self._skipped += seconds

    def wall(self) -> float:
        """Return the callers' time in seconds since the epoch (UTC), for the timestamps in signatures."""
        return time.time()

    async def hold(self, seconds: float) -> float:
        """Hold a request for seconds of real time, or for a step of a virtual clock; return the seconds that passed."""
        before = time.monotonic()
        await asyncio.sleep(seconds)
        return time.monotonic() - before


class VirtualTime(Protocol):
    """What an emulator needs of a `taskbridge.testing.VirtualClock`."""

    def now(self) -> datetime:
        """Return aware UTC time."""
        ...

    def advance(self, seconds: float) -> None:
        """Move time forward."""
        ...

    def released(self) -> AbstractContextManager[None]:
        """Let time pass although a request is in flight."""
        ...

    async def async_sleep(self, seconds: float) -> None:
        """Sleep in virtual time."""
        ...


class SharedClock(VendorClock):
    """A vendor clock that follows a test's virtual clock, so that vendors and their callers share one time."""

    is_virtual = True

    def __init__(self, virtual: VirtualTime) -> None:
        super().__init__(speed=0)
        self._virtual = virtual

    def time(self) -> float:
        """Return virtual time in seconds since the epoch (UTC)."""
        return self._virtual.now().timestamp()

    def advance(self, seconds: float) -> None:
        """Move the shared time forward."""
        self._virtual.advance(seconds)

    def wall(self) -> float:
        """See `VendorClock.wall`."""
        return self.time()

    async def hold(self, seconds: float) -> float:
        """See `VendorClock.hold`."""
        del seconds
        with self._virtual.released():
            await self._virtual.async_sleep(_STEP)
        return _STEP
