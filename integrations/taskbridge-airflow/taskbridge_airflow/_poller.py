"""One poller per connection and event loop, which all triggers of a triggerer share.

A client per trigger would multiply the requests: each client has its own rate limit, and none could cover many tasks
with one list request.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from hashlib import sha256
from typing import Any, Final
from weakref import WeakKeyDictionary

import taskbridge as tb

_POLLERS: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Poller]]] = WeakKeyDictionary()


class Waiter:
    """Waits for the end of one task.

    Attributes:
        task: The last snapshot; None if no status request succeeded yet.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.task: tb.Task | None = None
        self._ended: asyncio.Future[tb.Outcome] = loop.create_future()

    def put(self, outcome: tb.Outcome) -> None:
        """Take an outcome; one with an error or of an ended task is the last."""
        self.task = outcome.task or self.task
        if not self._ended.done() and is_final(outcome):
            self._ended.set_result(outcome)

    def fail(self, error: BaseException) -> None:
        """Take what ended the poller."""
        if not self._ended.done():
            self._ended.set_exception(error)

    async def end(self) -> tb.Outcome:
        """Return the last outcome."""
        return await self._ended


def is_final(outcome: tb.Outcome) -> bool:
    """Whether no further outcome of the task follows."""
    return outcome.error is not None or (outcome.task is not None and outcome.task.is_terminal)


class Poller:
    """Polls the tasks of one connection while triggers wait for them.

    Args:
        client: The client of the connection, which is closed with the poller.
    """

    def __init__(self, client: tb.aio.Client) -> None:
        self.users = 0
        self._client = client
        self._watch = client.open_watch()
        self._waiters: dict[tb.TaskRef, set[Waiter]] = {}
        self._reader = asyncio.create_task(self._read(), name="taskbridge-poller")

    @property
    def is_running(self) -> bool:
        """Whether it still polls."""
        return not self._reader.done()

    @asynccontextmanager
    async def waiting(self, ref: str, submitted_at: datetime | None) -> AsyncIterator[Waiter]:
        """Poll a task until the block ends.

        Args:
            ref: The task.
            submitted_at: When it was submitted, if that is known.

        Raises:
            InvalidTaskId: The connection cannot have such a task.
        """
        waiter = Waiter(asyncio.get_running_loop())
        found = self._watch.add(ref, submitted_at=submitted_at)
        waiters = self._waiters.setdefault(found, set())
        waiters.add(waiter)
        try:
            yield waiter
        finally:
            waiters.discard(waiter)
            if not waiters and self._waiters.get(found) is waiters:
                del self._waiters[found]
                self._watch.drop(found)

    async def close(self) -> None:
        """End the polling, and close the client."""
        self._watch.close()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self._client.close()

    async def _read(self) -> None:
        failure: BaseException = tb.ConfigError("the poller was closed while a trigger waited for a task")
        try:
            async for outcome in self._watch:
                final = is_final(outcome)  # then the watch has dropped the task, which may be added again
                waiters = self._waiters.pop(outcome.ref, set()) if final else self._waiters.get(outcome.ref, set())
                for waiter in tuple(waiters):
                    waiter.put(outcome)
        except Exception as error:  # noqa: BLE001  # the triggers raise it
            failure = error
        finally:
            for waiter in [each for waiters in self._waiters.values() for each in waiters]:
                waiter.fail(failure)


@asynccontextmanager
async def shared_poller(provider: str, settings: Mapping[str, Any]) -> AsyncIterator[Poller]:
    """Use the poller of a connection in this event loop; the first user opens it, and the last one closes it.

    Args:
        provider: Name of the provider.
        settings: Settings of the connection; other settings, such as a new credential, get a poller of their own.

    Raises:
        ConfigError: A setting is invalid.
        ProviderNotFound: No such provider is installed.
    """
    pollers = _POLLERS.setdefault(asyncio.get_running_loop(), {})
    key = sha256(json.dumps([provider, settings], sort_keys=True).encode()).hexdigest()
    poller = pollers.get(key)
    if poller is None or not poller.is_running:
        poller = pollers[key] = Poller(tb.aio.connect(provider, **settings))
    poller.users += 1
    try:
        yield poller
    finally:
        poller.users -= 1
        if not poller.users:
            if pollers.get(key) is poller:
                del pollers[key]
            await poller.close()
