"""Canned answers in place of sockets: what is sent is recorded, what comes back is a script.

A script is a list of answers and errors, given out in order, or a function from request to answer. When the list is
used up, a further request is an `AssertionError` that says which: never a StopIteration, which a flow would take for
its end.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from threading import Lock
from typing import TYPE_CHECKING, TypeAlias

from taskbridge._transport.responses import file_writer
from taskbridge.provider.http import Request, Response
from taskbridge.provider.sink import ResponseSink

if TYPE_CHECKING:
    from taskbridge.provider.clock import Clock

__all__ = ["Answer", "AsyncScriptedTransport", "Script", "ScriptedTransport", "save"]

Answer: TypeAlias = Response | Exception
"""What a request gets: an answer, or an error that is raised (`ConnectFailed`, `TruncatedResponse`, …)."""

Script: TypeAlias = Iterable[Answer] | Callable[[Request], Answer]
"""Answers in order, or a function that answers each request."""


class _Recorder:
    """The script, and what was asked of it.

    Args:
        script: Answers in order, or a function that answers each request.
        clock: Stamps the answers with its time; None leaves the stamps that they have.

    Attributes:
        requests: What was sent, in order, with the credential's headers.
        deadlines: By when each answer had to be read, in monotonic seconds.
        limits: Bytes of each answer to be read at most.
        closed: Whether `close` was called.
    """

    def __init__(self, script: Script = (), *, clock: Clock | None = None) -> None:
        self.requests: list[Request] = []
        self.deadlines: list[float] = []
        self.limits: list[int] = []
        self.closed = False
        self._clock = clock
        self._function = script if callable(script) else None
        self._left: deque[Answer] = deque() if callable(script) else deque(script)
        self._lock = Lock()

    @property
    def left(self) -> int:
        """Answers that nobody has asked for yet; 0 for a function."""
        return len(self._left)

    def add(self, *answers: Answer) -> None:
        """Lengthen the script."""
        self._left.extend(answers)

    def _answer(self, request: Request, deadline: float, max_body: int) -> Response:
        with self._lock:
            self.requests.append(request)
            self.deadlines.append(deadline)
            self.limits.append(max_body)
            answer = self._next(request)
        if isinstance(answer, Exception):
            raise answer
        # A copy: the core writes on answers, and a script may give one out twice.
        received_at = answer.received_at if self._clock is None else self._clock.now()
        body = answer.body
        if request.save_to is not None and answer.status < 300:
            save(answer.status, answer.headers, body, request.save_to)
            body = b""
        return Response(answer.status, answer.headers, body, received_at)

    def _next(self, request: Request) -> Answer:
        if self._function is not None:
            return self._function(request)
        if not self._left:
            raise AssertionError(
                f"the script has no answer for request {len(self.requests)}, {request.method} {request.url}"
            )
        return self._left.popleft()


def save(status: int, fields: Mapping[str, str], body: bytes, sink: ResponseSink) -> None:
    """Take a whole body into a file, as transports do it block by block; see `taskbridge._transport.responses.file_writer`."""
    with closing(file_writer(status, fields, sink)) as file:
        next(file)
        if body:
            file.send(body)
        file.send(b"")


class ScriptedTransport(_Recorder):
    """Implements `taskbridge.transport.Transport`; give it to a `Client` as its `transport`.

    Args:
        script: Answers in order, or a function that answers each request.
        clock: Stamps the answers with its time; None leaves the stamps that they have.

    Attributes:
        requests: What was sent, in order, with the credential's headers.
        deadlines: By when each answer had to be read, in monotonic seconds.
        limits: Bytes of each answer to be read at most.
        closed: Whether `close` was called.
    """

    def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        """Answer by the script.

        Raises:
            AssertionError: The script is used up.
        """
        return self._answer(request, deadline, max_body)

    def close(self) -> None:
        """Note that the client closed it."""
        self.closed = True


class AsyncScriptedTransport(_Recorder):
    """The same for `taskbridge.aio`.

    Args:
        script: Answers in order, or a function that answers each request.
        clock: Stamps the answers with its time; None leaves the stamps that they have.

    Attributes:
        requests: What was sent, in order, with the credential's headers.
        deadlines: By when each answer had to be read, in monotonic seconds.
        limits: Bytes of each answer to be read at most.
        closed: Whether `close` was called.
    """

    async def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        """Answer by the script, after letting others run.

        Raises:
            AssertionError: The script is used up.
        """
        await asyncio.sleep(0)
        return self._answer(request, deadline, max_body)

    async def close(self) -> None:
        """Note that the client closed it."""
        self.closed = True
