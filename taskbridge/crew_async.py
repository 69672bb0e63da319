"""The asyncio task that waits for many tasks of one client or bridge, and what each waiting call gets of its news."""

from __future__ import annotations

import asyncio
from collections import deque

from taskbridge.assemble import Located, Rejected
from taskbridge.drive_async import AsyncDriver
from taskbridge.errors import ConfigError
from taskbridge.fleet import Fleet
from taskbridge.front import enlist, hear
from taskbridge.inbox import Told
from taskbridge.items import Ticket
from taskbridge.steps import News

__all__ = ["Batch", "Crew"]


class Batch:
    """One call's wait for many tasks."""

    def __init__(self, left: int) -> None:
        self._news: deque[News] = deque()
        self._arrived = asyncio.Event()
        self.tickets: list[Ticket] = []
        self.left = left

    def put(self, news: News) -> None:
        """Hand in news."""
        self._news.append(news)
        self._arrived.set()

    async def take(self) -> News | None:
        """The next news; None after the last."""
        if self.left == 0:
            return None
        while not self._news:
            self._arrived.clear()
            await self._arrived.wait()
        news = self._news.popleft()
        self.left -= news.final
        return news


class Crew:
    """The asyncio task of one client or bridge, and the fleet that it works on; it ends when nobody waits."""

    def __init__(self, driver: AsyncDriver) -> None:
        self._driver = driver
        self._fleet = Fleet()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self, places: list[Located | Rejected], timeout: float | None, *, changes: bool) -> Batch:
        """Begin a wait for many tasks.

        Raises:
            ConfigError: The client belongs to another event loop.
        """
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise ConfigError("this client belongs to another event loop; make one per loop")
        batch = Batch(len(places))
        now = self._driver.clock.monotonic()
        batch.tickets, rejected = enlist(self._fleet, places, now, timeout, owner=batch, changes=changes)
        for news in rejected:
            batch.put(news)
        if batch.tickets and (self._task is None or self._task.done()):
            self._task = loop.create_task(self._work(), name="taskbridge-wait")
        self._wake.set()
        return batch

    def hear(self, told: Told) -> None:
        """Take in what came from outside."""
        hear(self._fleet, told, self._driver.clock.monotonic())
        self._tell()
        self._wake.set()

    def leave(self, batch: Batch) -> None:
        """End a wait, also one whose caller broke off."""
        self._fleet.drop(batch.tickets)
        self._wake.set()

    async def close(self) -> None:
        """Tell those who still wait, and end the task."""
        self._fleet.close()
        self._tell()
        if self._task is not None and self._loop is asyncio.get_running_loop():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        whole = False
        try:
            await self._driver.work(self._fleet, self._wake, self._tell)
            whole = True
        finally:
            if not whole:  # nobody shall wait for a task that died
                self._fleet.close("the asyncio task of this client ended")
                self._tell()

    def _tell(self) -> bool:
        told = False
        while (news := self._fleet.news()) is not None:
            news.ticket.owner.put(news)
            told = True
        return told
