"""Reads of the store for the page: in threads of their own, and no more often than the store can bear.

The event loop's own threads are for the work. They are few, and the server waits for them when it stops, so a long
query of a page that is open would hold up both.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Final, Generic, TypeAlias, TypeVar

from taskbridge.store import StoreUnavailable

_PAUSE: Final = 1.0  # least seconds between two readings
_LOAD: Final = 10.0  # a pause lasts at least this many times as long as the reading before

T = TypeVar("T")
_Call: TypeAlias = "tuple[Future[Any], Callable[[], Any]]"


class Threads:
    """Threads that the end of the process does not wait for, whatever they read; started with the first call.

    Args:
        name: Of the threads, for people.
        count: How many.
    """

    def __init__(self, name: str, count: int = 1) -> None:
        self._name = name
        self._count = count
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._is_started = self._is_closed = False

    async def run(self, call: Callable[[], T]) -> T:
        """Call something in one of them; a call that is cancelled before it has begun never begins.

        Raises:
            StoreUnavailable: The threads were closed.
        """
        if self._is_closed:
            raise StoreUnavailable("the server is being stopped", retryable=True)
        if not self._is_started:
            self._is_started = True
            for _ in range(self._count):
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
        future: Future[T] = Future()
        self._calls.put((future, call))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """End them after the calls that were made; returns at once."""
        self._is_closed = True
        for _ in range(self._count):
            self._calls.put(None)

    def _work(self) -> None:
        while (given := self._calls.get()) is not None:
            future, call = given
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001  # passed on to the caller
                future.set_exception(error)
            else:
                future.set_result(result)


class Cached(Generic[T]):
    """Something that is read at most once a second, and less often if that takes long, however many ask for it.

    Args:
        read: Reads it.
    """

    def __init__(self, read: Callable[[], Awaitable[T]]) -> None:
        self._read = read
        self._latest: asyncio.Task[T] | None = None
        self._next_at = 0.0

    async def get(self, *, fresh: bool = False) -> T:
        """Return it; `fresh` reads it now.

        Raises:
            StoreUnavailable: It cannot be read.
        """
        if fresh and self._latest is not None and not self._latest.done():
            await asyncio.wait([self._latest])  # which has begun before
        latest = self._latest
        if latest is None or (latest.done() and (fresh or time.monotonic() >= self._next_at)):
            latest = self._latest = asyncio.ensure_future(self._read_once())
        return await asyncio.shield(latest)  # a page that is closed does not end what others wait for

    async def _read_once(self) -> T:
        began = time.monotonic()
        pause = _PAUSE
        try:
            found = await self._read()
            pause = max(_PAUSE, _LOAD * (time.monotonic() - began))
        finally:
            self._next_at = time.monotonic() + pause
        return found
