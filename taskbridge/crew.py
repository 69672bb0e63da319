"""The threads that wait for many tasks of one client or bridge, and what each waiting call gets of their news."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final

from taskbridge.assemble import Located, Rejected
from taskbridge.drive import Driver, Shift
from taskbridge.fleet import Fleet
from taskbridge.front import deadline_of, enlist, hear
from taskbridge.inbox import Told
from taskbridge.items import Ticket
from taskbridge.steps import News

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Batch", "Crew"]

_WORKERS: Final = 8  # threads
_PATIENCE: Final = 5.0  # seconds that `close` gives looks under way to end; their threads are daemons


class Batch:
    """One call's wait for many tasks."""

    def __init__(self, mutex: threading.RLock, left: int, expire: Callable[[], float | None]) -> None:
        self._news: deque[News] = deque()
        self._expire = expire
        self._arrived = threading.Condition(mutex)  # the same lock, another queue
        self.tickets: list[Ticket] = []
        self.left = left

    def put(self, news: News) -> None:
        """Hand in news, with the lock held."""
        self._news.append(news)
        self._arrived.notify()

    def take(self) -> News | None:
        """The next news; None after the last."""
        if self.left == 0:
            return None
        with self._arrived:
            while not self._news:
                # The deadline holds even where every thread is busy with a vendor that hangs.
                left = self._expire()
                if not self._news:
                    self._arrived.wait(left)
            news = self._news.popleft()
        self.left -= news.final
        return news


class Crew:
    """The threads of one client or bridge, and the fleet that they work on; they end when nobody waits."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._fleet = Fleet(_WORKERS)
        self._shift = Shift(self._tell, self._left)
        self._threads: set[threading.Thread] = set()

    def open(self, places: list[Located | Rejected], timeout: float | None, *, changes: bool) -> Batch:
        """Begin a wait for many tasks."""
        if self._pid != os.getpid():
            self._reset()  # after a fork the parent's threads are not here
        lock, clock = self._shift.lock, self._driver.clock
        deadline = deadline_of(clock.monotonic(), timeout)
        batch = Batch(self._shift.mutex, len(places), lambda: self._expire(deadline))
        with lock:
            now = clock.monotonic()
            batch.tickets, rejected = enlist(self._fleet, places, now, timeout, owner=batch, changes=changes)
            for news in rejected:
                batch.put(news)
            self._hire(min(_WORKERS, len(self._fleet)))
            lock.notify()
        return batch

    def _expire(self, deadline: float) -> float | None:
        """Tell those whose time is up, with the lock held; seconds left to a deadline, None for no deadline."""
        now = self._driver.clock.monotonic()
        if now >= deadline:
            self._fleet.expire(now)
            self._tell()
        return None if deadline == inf else max(0.001, deadline - now)

    def hear(self, told: Told) -> None:
        """Take in what came from outside."""
        with self._shift.lock:
            hear(self._fleet, told, self._driver.clock.monotonic())
            self._tell()
            self._shift.lock.notify_all()

    def leave(self, batch: Batch) -> None:
        """End a wait, also one whose caller broke off."""
        with self._shift.lock:
            self._fleet.drop(batch.tickets)
            self._shift.lock.notify()

    def close(self) -> None:
        """Tell those who still wait, and end the threads."""
        with self._shift.lock:
            self._fleet.close()
            self._tell()
            self._shift.lock.notify_all()
            threads = list(self._threads)
        until = time.monotonic() + _PATIENCE
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(timeout=max(0.0, until - time.monotonic()))

    def _hire(self, wanted: int) -> None:
        for _ in range(wanted - len(self._threads)):
            thread = threading.Thread(target=self._work, name="taskbridge-wait", daemon=True)
            self._threads.add(thread)
            thread.start()

    def _work(self) -> None:
        whole = False
        try:
            self._driver.work(self._fleet, self._shift)
            whole = True
        finally:
            with self._shift.lock:
                self._left()
                if not whole:  # nobody shall wait for a thread that died
                    self._fleet.close("a thread of this client broke down")
                    self._tell()

    def _left(self) -> None:
        self._threads.discard(threading.current_thread())

    def _tell(self) -> None:
        while (news := self._fleet.news()) is not None:
            news.ticket.owner.put(news)
