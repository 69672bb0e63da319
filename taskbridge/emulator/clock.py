"""Vendor time: runs as fast as asked, and can be moved by hand."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["VendorClock"]


class VendorClock:
    """The time that an emulated vendor lives in.

    It starts at the wall clock's present and runs ``speed`` times as fast. Tests stop it with ``speed=0`` and move it
    with :meth:`advance`, so that a task of twenty minutes takes no time.

    Args:
        speed: Vendor seconds per real second; 0 stands still.
        monotonic: Where real seconds come from.
    """

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
