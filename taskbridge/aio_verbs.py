"""The asynchronous interface to what changes something at a vendor, and to its list; `Client` and `Bridge` inherit it.

All that is decided is decided in `taskbridge.lifecycle`, `taskbridge.orders` and `taskbridge.listing`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, overload

from taskbridge.calls import Call
from taskbridge.checkup import Checkup, check
from taskbridge.downloads import Want, download_file, download_task
from taskbridge.drive import ignore
from taskbridge.errors import InvalidInput, TaskbridgeError
from taskbridge.front import Front
from taskbridge.lifecycle import cancel, claim, recover, remove, restart, retry, submit
from taskbridge.listing import Walk, query_of
from taskbridge.model import Task, TaskFile, TaskStatus
from taskbridge.orders import AnyInput, Spool, Wish, prepare, prepare_again

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

    from taskbridge.aio import Client
    from taskbridge.assemble import AnyId
    from taskbridge.channel import Channel
    from taskbridge.drive_async import AsyncDriver
    from taskbridge.sink import Progress

__all__ = ["BridgeVerbs", "ClientVerbs", "Verbs"]


class Verbs(Front):
    """What is done to one task."""

    _driver: AsyncDriver

    async def cancel(self, task: AnyId) -> Task:
        """Stop a task; see `taskbridge.Client.cancel`."""
        place = self._begin(task)
        channel, task_id = place.channel, place.task_id
        claim(channel, "cancel", "cancel a task")
        return await self._driver.run(channel, cancel(channel, task_id))

    async def retry(self, task: AnyId) -> Task:
        """Do a task once more, as a new task; see `taskbridge.Client.retry`."""
        place = self._begin(task)
        claim(place.channel, "retry", "retry a task")
        return await self._driver.run(place.channel, retry(place.channel, place.task_id))

    async def delete(self, task: AnyId) -> None:
        """Remove a task, and what it made, at the vendor; see `taskbridge.Client.delete`."""
        place = self._begin(task)
        claim(place.channel, "delete", "delete a task")
        await self._driver.run(place.channel, remove(place.channel, place.task_id))

    async def restart(self, task: AnyId, *, destructive: bool = False) -> Task:
        """Do a task anew under its own id, losing what it was; see `taskbridge.Client.restart`."""
        place = self._begin(task)
        claim(place.channel, "restart", "restart a task")
        return await self._driver.run(place.channel, restart(place.channel, place.task_id, destructive=destructive))

    async def _brought(self, task: AnyId, want: Want) -> tuple[Path, ...]:
        place = self._begin(task)
        claim(place.channel, "download", "give out files")
        with Call("download", [place.channel], self._clock, [place]):
            return await self._driver.run(place.channel, download_task(place.channel, place.task_id, place.known, want))


class ClientVerbs(Verbs):
    """What is done through one connection."""

    _channel: Channel

    async def submit(
        self,
        operation: str | None = None,
        input: AnyInput = None,  # noqa: A002  # what everybody calls it
        *,
        options: Mapping[str, Any] | None = None,
        external_id: str | None = None,
        callback_url: str | None = None,
        name: str | None = None,
        on_commit: Callable[[Mapping[str, Any]], Awaitable[object] | object] | None = None,
    ) -> Task:
        """Hand a document to the vendor; see `taskbridge.Client.submit`. A stream is read in a thread of its own.

        Where the call is cancelled after its order was logged, the order may have gone; the log has its reference.
        """
        self._refuse_if_closed()
        channel = self._channel
        channel.resume()
        with Call("submit", [channel], self._clock), Spool() as spool:
            wish = Wish(operation, input, options, external_id, callback_url, name)
            prepared = await asyncio.to_thread(prepare, channel, wish, spool)
            return await self._driver.run(channel, submit(channel, prepared), on_commit or ignore)

    def list(
        self, status: TaskStatus | str | None = None, *, limit: int | None = None, **filters: Any
    ) -> AsyncIterator[Task]:
        """The vendor's tasks, in its order; see `taskbridge.Client.list`."""
        self._refuse_if_closed()
        self._channel.resume()
        return self._pages(Walk(self._channel, query_of(self._channel, status, filters), limit))

    async def _pages(self, walk: Walk) -> AsyncGenerator[Task]:
        while walk.goes_on:
            for task in walk.take(await self._driver.run(walk.channel, walk.ask())):
                yield task

    async def check(self) -> Checkup:
        """Ask whether the vendor takes the credential; see `taskbridge.Client.check`."""
        self._refuse_if_closed()
        self._channel.resume()
        return await self._driver.run(self._channel, check(self._channel))

    async def recover(self, error: TaskbridgeError, input: AnyInput = None) -> Task | None:  # noqa: A002  # as in submit
        """Look for the order that a failed submit left in doubt; see `taskbridge.Client.recover`."""
        self._refuse_if_closed()
        channel = self._channel
        channel.resume()
        with Spool() as spool:
            prepared = await asyncio.to_thread(prepare_again, channel, error, input, spool)
            return await self._driver.run(channel, recover(channel, error, prepared))

    @overload
    async def download(
        self,
        what: TaskFile,
        to: str | os.PathLike[str],
        *,
        max_bytes: int | None = None,
        on_progress: Progress | None = None,
        overwrite: bool = False,
    ) -> Path: ...

    @overload
    async def download(
        self,
        what: AnyId,
        to: str | os.PathLike[str],
        *,
        max_bytes: int | None = None,
        on_progress: Progress | None = None,
        overwrite: bool = False,
    ) -> tuple[Path, ...]: ...

    async def download(
        self,
        what: TaskFile | AnyId,
        to: str | os.PathLike[str],
        *,
        max_bytes: int | None = None,
        on_progress: Progress | None = None,
        overwrite: bool = False,
    ) -> Path | tuple[Path, ...]:
        """Bring home a file that a task made, or all that a task made; see `taskbridge.Client.download`."""
        want = Want(to, max_bytes, on_progress, overwrite)
        if not isinstance(what, TaskFile):
            return await self._brought(what, want)
        self._refuse_if_closed()
        self._channel.resume()
        claim(self._channel, "download", "give out files")
        with Call("download", [self._channel], self._clock):
            return await self._driver.run(self._channel, download_file(self._channel, what, want))


class BridgeVerbs(Verbs):
    """What is done through any connection, by its name."""

    def __getitem__(self, name: str) -> Client:
        """The client of one connection."""
        raise NotImplementedError(name)

    async def submit(
        self,
        connection: str,
        operation: str | None = None,
        input: AnyInput = None,  # noqa: A002  # what everybody calls it
        *,
        options: Mapping[str, Any] | None = None,
        external_id: str | None = None,
        callback_url: str | None = None,
        name: str | None = None,
        on_commit: Callable[[Mapping[str, Any]], Awaitable[object] | object] | None = None,
    ) -> Task:
        """Hand a document to the vendor of a connection; see `taskbridge.Client.submit`."""
        return await self[connection].submit(
            operation,
            input,
            options=options,
            external_id=external_id,
            callback_url=callback_url,
            name=name,
            on_commit=on_commit,
        )

    def list(
        self, connection: str, status: TaskStatus | str | None = None, *, limit: int | None = None, **filters: Any
    ) -> AsyncIterator[Task]:
        """The tasks of a connection's vendor; see `taskbridge.Client.list`."""
        return self[connection].list(status, limit=limit, **filters)

    async def recover(self, error: TaskbridgeError, input: AnyInput = None) -> Task | None:  # noqa: A002  # as in submit
        """Look for the order that a failed submit left in doubt; see `taskbridge.Client.recover`."""
        return await self[str(error.clue.get("connection", error.connection))].recover(error, input)

    async def download(
        self,
        task: AnyId,
        to: str | os.PathLike[str],
        *,
        max_bytes: int | None = None,
        on_progress: Progress | None = None,
        overwrite: bool = False,
    ) -> tuple[Path, ...]:
        """Bring home all that a task made; see `taskbridge.Client.download`.

        A file alone does not say of which connection it is: ``bridge["its name"].download(file, to)``.
        """
        if isinstance(task, TaskFile):
            raise InvalidInput('a file does not say of which connection it is: bridge["its name"].download(file, to)')
        return await self._brought(task, Want(to, max_bytes, on_progress, overwrite))
