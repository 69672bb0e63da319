"""Many files on their way, each carried by a thread of its own; none of them stops another.

The threads' waits share the client's fleet, so that the vendor is asked about all of them together.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from taskbridge.cli.carrier import Again, Carrier, News, Stopped
from taskbridge.cli.ledger import Entry, LedgerError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from queue import SimpleQueue

    from taskbridge.errors import TaskbridgeError

__all__ = ["Batch"]

_LEAVING: Final = 5.0  # seconds for threads to end that have nothing to finish


class Batch:
    """A run at work.

    Args:
        carrier: Carries each file.
        most: Files at the vendor at once.
    """

    def __init__(self, carrier: Carrier, most: int) -> None:
        self.lost: LedgerError | None = None
        self._carrier = carrier
        self._most = most
        self._changed = threading.Condition()
        self._ready: deque[Entry] = deque()
        self._left = 0
        self._threads: list[threading.Thread] = []

    @property
    def news(self) -> SimpleQueue[News | None]:
        """What became known; None after the last."""
        return self._carrier.news

    @property
    def refusal(self) -> TaskbridgeError | None:
        """Why no more orders were given."""
        return self._carrier.refusal

    def start(self, entries: Iterable[Entry]) -> None:
        """Set out with these files; `news` ends with None when all of them have come to an end here."""
        self._ready.extend(entries)
        self._left = len(self._ready)
        if not self._left:
            self.news.put(None)
        for _ in range(min(self._most, self._left)):
            thread = threading.Thread(target=self._work, name="taskbridge-run", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Send nothing more, wait for what is being sent, and leave the rest where it is."""
        self._carrier.stop()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout=_LEAVING)

    def rest(self) -> list[News]:
        """What became known since `news` was read last, after a stop."""
        found: list[News] = []
        while not self.news.empty():
            news = self.news.get()
            if news is not None:
                found.append(news)
        return found

    # Threads.

    def _work(self) -> None:
        while (entry := self._next()) is not None:
            try:
                news = self._carrier.carry(entry)
            except Again as again:
                self._put_back(entry, again.pause)
                continue
            except Stopped:
                news = News(entry, "left")
            except LedgerError as error:
                self.lost = self.lost or error
                self._carrier.stopping.set()
                self.news.put(None)
                return
            except Exception as error:  # noqa: BLE001  # a bug met by one file is no reason to leave the others
                news = News(entry, "error", error=error)
            self.news.put(news)
            with self._changed:
                self._left -= 1
                if self._left == 0:
                    self.news.put(None)
                self._changed.notify_all()

    def _next(self) -> Entry | None:
        with self._changed:
            while not self._ready:
                if self._left == 0 or self._carrier.stopping.is_set():
                    return None
                self._changed.wait()
            return self._ready.popleft()

    def _put_back(self, entry: Entry, pause: float) -> None:
        self._carrier.stopping.wait(pause)
        with self._changed:
            self._ready.append(entry)
            self._changed.notify()
