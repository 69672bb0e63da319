"""Time and randomness as one object: the computer's own, or a test's."""

from __future__ import annotations

import random
import time
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from threading import Condition, Lock
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from asyncio import Event


LONGEST: Final = 10 * 365 * 86_400.0  # seconds; locks and dates cannot take much more


def clip_seconds(seconds: float) -> float:
    """Return a duration that a vendor or a caller gave, clipped to ten years, so that every clock can take it."""
    return min(seconds, LONGEST)


class Clock(Protocol):
    """Time and randomness, as one object that tests can replace."""

    def monotonic(self) -> float:
        """Seconds that never go back; every duration is measured with it."""
        ...

    def now(self) -> datetime:
        """Aware UTC time; for stored times and HTTP dates only."""
        ...

    def random(self) -> float:
        """A number from 0.0 up to, but not including, 1.0, for jitter."""
        ...

    def sleep(self, seconds: float, /) -> None:
        """Wait in this thread."""
        ...

    async def async_sleep(self, seconds: float) -> None:
        """Wait in this asyncio task."""
        ...

    def wait_on(self, condition: Condition, seconds: float | None) -> None:
        """Wait in this thread for a notification, at most ``seconds``; None means no limit."""
        ...

    def acquire(self, lock: Lock, seconds: float) -> bool:
        """Wait in this thread for a lock, at most ``seconds``; return whether it was acquired."""
        ...

    def acting(self) -> AbstractContextManager[None]:
        """Mark this thread as working: virtual time stops until it waits on the clock."""
        ...

    async def async_wait_on(self, event: Event, seconds: float) -> None:
        """Wait in this asyncio task for an event, at most ``seconds``; afterwards the event is set."""
        ...


class SystemClock:
    """The computer's own time."""

    monotonic = staticmethod(time.monotonic)
    random = staticmethod(random.random)
    sleep = staticmethod(time.sleep)  # noqa: TID251  # the one place that waits
    acting = staticmethod(nullcontext)  # real time needs no mark

    def now(self) -> datetime:
        """See `Clock`."""
        return datetime.now(UTC)

    async def async_sleep(self, seconds: float) -> None:
        """See `Clock`."""
        import asyncio  # noqa: PLC0415  # synchronous users never pay for it

        await asyncio.sleep(seconds)

    def wait_on(self, condition: Condition, seconds: float | None) -> None:
        """See `Clock`."""
        condition.wait(seconds)

    def acquire(self, lock: Lock, seconds: float) -> bool:
        """See `Clock`."""
        return lock.acquire(timeout=seconds)

    async def async_wait_on(self, event: Event, seconds: float) -> None:
        """See `Clock`."""
        import asyncio  # noqa: PLC0415  # synchronous users never pay for it

        timer = asyncio.get_running_loop().call_later(seconds, event.set)
        try:
            await event.wait()
        finally:
            timer.cancel()
