"""Vendor time: runs as fast as asked, and can be moved by hand."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

__all__ = ["TOOK", "SharedClock", "VendorClock", "VirtualTime"]

TOOK: Final = "taskbridge-took"
"""Header that says how many seconds an answer would have taken, where time is virtual and nobody really waits."""

_STEP: Final = 0.5  # virtual seconds between two looks of a request that is held


class VendorClock:
    """The time that an emulated vendor lives in.

    It starts at the wall clock's present and runs ``speed`` times as fast. Tests stop it with ``speed=0`` and move it
    with :meth:`advance`, so that a task of twenty minutes takes no time.

    Args:
        speed: Vendor seconds per real second; 0 stands still.
        monotonic: Where real seconds come from.

    Attributes:
        is_virtual: Whether a test's clock gives the time.
    """

    is_virtual = False

    def __init__(self, speed: float = 1.0, monotonic: Callable[[], float] = time.monotonic) -> None:
        if not 0 <= speed <= 1_000_000:
            raise ValueError(f"speed must be between 0 and 1000000, not {speed!r}")
        self.speed = speed
        self._monotonic = monotonic
        self._began = monotonic()
        self._epoch = time.time()
        self._skipped = 0.0
        self._lock = Lock()

    def time(self) -> float:
        """Vendor time in seconds since the epoch (UTC)."""
        return self._epoch + (self._monotonic() - self._began) * self.speed + self._skipped

    def now(self) -> datetime:
        """Vendor time as an aware UTC datetime."""
        return datetime.fromtimestamp(self.time(), UTC)

    def advance(self, seconds: float) -> None:
        """Move vendor time forward by ``seconds`` at once."""
        with self._lock:
            self._skipped += seconds

    def wall(self) -> float:
        """The time that the callers live in, in seconds since the epoch (UTC); signatures are made at it."""
        return time.time()

    async def pause(self, seconds: float) -> float:
        """Let time pass while a request is held.

        Args:
            seconds: Seconds of real time; where time is virtual, a step of its own.

        Returns:
            The seconds that passed.
        """
        before = time.monotonic()
        await asyncio.sleep(seconds)
        return time.monotonic() - before


class VirtualTime(Protocol):
    """What an emulator needs of a `taskbridge.testing.VirtualClock`."""

    def now(self) -> datetime:
        """Aware UTC time."""
        ...

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        ...

    def lent(self) -> AbstractContextManager[None]:
        """Let time pass although a caller is at work."""
        ...

    async def asleep(self, seconds: float) -> None:
        """Sleep on it."""
        ...


class SharedClock(VendorClock):
    """The time of a test's virtual clock: the vendors live in it together with their callers.

    Args:
        virtual: The clock.
    """

    is_virtual = True

    def __init__(self, virtual: VirtualTime) -> None:
        super().__init__(speed=0)
        self._virtual = virtual

    def time(self) -> float:
        """Virtual time in seconds since the epoch (UTC)."""
        return self._virtual.now().timestamp()

    def advance(self, seconds: float) -> None:
        """Move the time of all who share the clock."""
        self._virtual.advance(seconds)

    def wall(self) -> float:
        """See `VendorClock.wall`."""
        return self.time()

    async def pause(self, seconds: float) -> float:
        """See `VendorClock.pause`."""
        del seconds
        with self._virtual.lent():
            await self._virtual.asleep(_STEP)
        return _STEP
