"""Scripted transports: canned responses instead of sockets; every request is recorded.

A script is a list of responses and errors, used in order, or a function from request to response. When the list is used
up, a further request is an `AssertionError` that names it: never a StopIteration, which a flow would take for its end.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import closing
from threading import Lock
from typing import TYPE_CHECKING, TypeAlias

from taskbridge._fork import renew_after_fork
from taskbridge._transport.responses import file_writer
from taskbridge.provider.http import Request, Response

if TYPE_CHECKING:
    from taskbridge.provider.clock import Clock

Answer: TypeAlias = Response | Exception
"""The outcome of a request: a response, or an error that is raised (`ConnectFailed`, `TruncatedResponse`, …)."""

Script: TypeAlias = Iterable[Answer] | Callable[[Request], Answer]
"""Answers in order, or a function that answers each request."""


class _ScriptPlayer:
    """The script, and what was requested."""

    def __init__(self, script: Script = (), *, clock: Clock | None = None) -> None:
        self.requests: list[Request] = []
        self.deadlines: list[float] = []
        self.limits: list[int] = []
        self.closed = False
        self._clock = clock
        self._function = script if callable(script) else None
        self._answers: deque[Answer] = deque() if callable(script) else deque(script)
        renew_after_fork(self, _ScriptPlayer._make_lock)

    def _make_lock(self) -> None:
        self._lock = Lock()

    @property
    def remaining(self) -> int:
        """Number of answers not yet used; 0 for a function."""
        return len(self._answers)

    def add(self, *answers: Answer) -> None:
        """Append answers to the script."""
        self._answers.extend(answers)

    def _answer(self, request: Request, deadline: float, max_body: int) -> Response:
        with self._lock:
            self.requests.append(request)
            self.deadlines.append(deadline)
            self.limits.append(max_body)
            answer = self._next(request)
        if isinstance(answer, Exception):
            raise answer
        # A copy: the core writes on responses, and a script may use one twice.
        received_at = answer.received_at if self._clock is None else self._clock.now()
        if request.save_to is None or answer.status >= 300:
            return Response(answer.status, answer.headers, answer.body, received_at)
        headers = {"content-length": str(len(answer.body)), **answer.headers}
        with closing(file_writer(answer.status, headers, request.save_to)) as file:  # block by block in real transports
            next(file)
            if answer.body:
                file.send(answer.body)
            file.send(b"")
        return Response(answer.status, answer.headers, b"", received_at)

    def _next(self, request: Request) -> Answer:
        if self._function is not None:
            return self._function(request)
        if not self._answers:
            raise AssertionError(
                f"the script has no answer for request {len(self.requests)}, {request.method} {request.url}"
            )
        return self._answers.popleft()


class ScriptedTransport(_ScriptPlayer):
    """Implements `taskbridge.transport.Transport`; pass it to a `Client` as its `transport`.

    Args:
        script: Answers in order, or a function that answers each request.
        clock: Sets the responses' time of receipt; None leaves it as it is.

    Attributes:
        requests: What was sent, in order, with the credential's headers.
        deadlines: Each request's deadline, in monotonic seconds.
        limits: Most bytes to read of each response.
        closed: Whether `close` was called.
    """

    def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        """Answer by the script.

        Raises:
            AssertionError: The script is used up.
        """
        return self._answer(request, deadline, max_body)

    def close(self) -> None:
        """Record that the client closed it."""
        self.closed = True


class AsyncScriptedTransport(_ScriptPlayer):
    """Implements `taskbridge.transport.AsyncTransport`; see `ScriptedTransport` for its arguments and attributes."""

    async def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        """Answer by the script, after other asyncio tasks had a chance to run.

        Raises:
            AssertionError: The script is used up.
        """
        await asyncio.sleep(0)
        return self._answer(request, deadline, max_body)

    async def close(self) -> None:
        """Record that the client closed it."""
        self.closed = True
