"""Time and chance as one object: the computer's own, or a test's."""

from __future__ import annotations

import random
import time
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from threading import Condition, Lock
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from asyncio import Event

_AT_WORK: Final = nullcontext()


class Clock(Protocol):
    """Time and chance, as one object, so that tests can bring their own."""

    def monotonic(self) -> float:
        """Seconds that only grow; every duration is measured on it."""
        ...

    def now(self) -> datetime:
        """Aware UTC wall-clock time; for stored times and HTTP dates only."""
        ...

    def random(self) -> float:
        """A number from 0.0 up to 1.0, for jitter."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait in this thread."""
        ...

    async def asleep(self, seconds: float) -> None:
        """Wait in this asyncio task."""
        ...

    def wait_on(self, condition: Condition, seconds: float | None) -> None:
        """Wait in this thread for a notification, at most ``seconds``."""
        ...

    def acquire(self, lock: Lock, seconds: float) -> bool:
        """Wait in this thread for a lock, at most ``seconds``; whether it was got."""
        ...

    def acting(self) -> AbstractContextManager[None]:
        """What this thread does while it is at work: time that is not real stands still until it waits on the clock."""
        ...

    async def await_on(self, event: Event, seconds: float) -> None:
        """Wait in this asyncio task for an event, at most ``seconds``; it is set afterwards."""
        ...


class SystemClock:
    """The computer's own time."""

    def monotonic(self) -> float:
        """See `Clock`."""
        return time.monotonic()

    def now(self) -> datetime:
        """See `Clock`."""
        return datetime.now(UTC)

    def random(self) -> float:
        """See `Clock`."""
        return random.random()  # noqa: S311  # jitter needs no secrecy

    def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        time.sleep(seconds)  # noqa: TID251  # the one place that waits

    async def asleep(self, seconds: float) -> None:
        """See `Clock`."""
        import asyncio  # noqa: PLC0415  # synchronous users never pay for it

        await asyncio.sleep(seconds)

    def wait_on(self, condition: Condition, seconds: float | None) -> None:
        """See `Clock`."""
        condition.wait(seconds)

    def acquire(self, lock: Lock, seconds: float) -> bool:
        """See `Clock`."""
        return lock.acquire(timeout=seconds)

    def acting(self) -> AbstractContextManager[None]:
        """See `Clock`; real time asks nobody."""
        return _AT_WORK

    async def await_on(self, event: Event, seconds: float) -> None:
        """See `Clock`."""
        import asyncio  # noqa: PLC0415  # synchronous users never pay for it

        timer = asyncio.get_running_loop().call_later(seconds, event.set)
        try:
            await event.wait()
        finally:
            timer.cancel()
