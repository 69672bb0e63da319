"""The asynchronous transport without libcurl: a synchronous one in a bounded number of threads."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from taskbridge._fork import renew_after_fork

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskbridge.provider.http import Request, Response
    from taskbridge.transport import Transport

_IDLE: Final = 5.0  # seconds without a request after which a thread ends


class ThreadedTransport:
    """Sends requests through a synchronous transport, in at most `size` threads.

    The threads are daemons: a request whose caller has left does not keep the process alive.
    """

    def __init__(self, transport: Transport, *, size: int = 32) -> None:
        self._transport = transport
        self._size = size
        renew_after_fork(self, ThreadedTransport._begin_process)

    def _begin_process(self) -> None:
        """Begin without threads and requests: those of a parent do not exist in its child."""
        self._changed = threading.Condition()
        self._jobs: deque[Callable[[], None]] = deque()
        self._threads = 0
        self._idle = 0

    async def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        """See `taskbridge.transport.AsyncTransport`; a cancelled request ends by itself at its deadline."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Response] = loop.create_future()

        def job() -> None:
            if future.cancelled():
                return
            try:
                response = self._transport.send(request, deadline=deadline, max_body=max_body)
            except BaseException as error:  # noqa: BLE001  # raised again in the caller's task
                call_soon(loop, partial(_fail, future, error))
            else:
                call_soon(loop, partial(_succeed, future, response))

        self._start(job)
        return await future

    async def close(self) -> None:
        """Close the kept connections."""
        self._transport.close()

    def _start(self, job: Callable[[], None]) -> None:
        with self._changed:
            self._jobs.append(job)
            if self._idle >= len(self._jobs) or self._threads == self._size:
                self._changed.notify()
                return
            self._threads += 1
            try:
                threading.Thread(target=self._run, name="taskbridge-request", daemon=True).start()
            except RuntimeError:  # the process may have no more threads
                self._threads -= 1
                if not self._threads:
                    self._jobs.pop()
                    raise

    def _run(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                self._changed.wait_for(lambda: bool(self._jobs), _IDLE)
                self._idle -= 1
                if not self._jobs:
                    self._threads -= 1
                    return
                job = self._jobs.popleft()
            job()
            del job


def call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Call a function in an event loop, from any thread."""
    with suppress(RuntimeError):  # the loop is closed: none of its tasks waits any more
        loop.call_soon_threadsafe(callback)


def _succeed(future: asyncio.Future[Response], response: Response) -> None:
    if not future.done():
        future.set_result(response)


def _fail(future: asyncio.Future[Response], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
