"""Webhooks below ``/hooks/``: for callers on the internet, who are proved by the vendor's signature only.

The application behind it answers nothing but deliveries of the connections with `webhook_secrets`. Here is what keeps
slow callers from holding up the page.
"""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LONGEST: Final = 10.0  # seconds for a caller to send its request
_MOST: Final = 200  # requests at the same time


class _TooSlow(Exception):
    """A caller has not sent its request in time."""


class Hooks:
    """Passes requests on to an application that may be replaced; answers 404 while there is none.

    Args:
        longest: Seconds for a caller to send its request.
        most: Requests at the same time; further ones are answered 503, so that the vendor delivers again.
    """

    def __init__(self, *, longest: float = _LONGEST, most: int = _MOST) -> None:
        self.app: ASGIApp | None = None
        self._longest = longest
        self._most = most
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; see the ASGI specification."""
        status = 404 if self.app is None else 503 if self._running >= self._most else 0
        if self.app is not None and not status:
            ends = asyncio.get_running_loop().time() + self._longest

            async def receive_in_time() -> Message:
                try:
                    async with asyncio.timeout_at(ends):
                        return await receive()
                except TimeoutError:
                    raise _TooSlow from None

            self._running += 1
            try:
                await self.app(scope, receive_in_time, send)
            except _TooSlow:
                status = 408
            finally:
                self._running -= 1
        if status:
            headers = {"retry-after": "10"} if status == 503 else {"connection": "close"} if status == 408 else {}
            await Response(status_code=status, headers=headers)(scope, receive, send)
