"""Connections whose callers send no request: they are closed, so that they do not keep others out.

uvicorn limits how many connections there are, and how long one may be idle after a response, but not how long a caller
may take to send the head of a request.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol


def protocol_with_time(seconds: float) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol with a time limit.

    Args:
        seconds: For the complete head of a request, from when the caller has connected or got the last response.
    """

    class TimedProtocol(H11Protocol):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self._late: asyncio.TimerHandle | None = None
            app: Any = self.app

            async def timed_app(scope: Scope, receive: Receive, send: Send) -> None:
                self._end_wait()  # the head is complete
                try:
                    await app(scope, receive, send)
                finally:
                    self._begin_wait()

            self.app: Any = timed_app

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # narrower there
            self._begin_wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._end_wait()
            super().connection_lost(exc)

        def _begin_wait(self) -> None:
            self._end_wait()
            if not self.transport.is_closing():
                self._late = asyncio.get_running_loop().call_later(seconds, self.transport.close)

        def _end_wait(self) -> None:
            if self._late is not None:
                self._late.cancel()

    return TimedProtocol
