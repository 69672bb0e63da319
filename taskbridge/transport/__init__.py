"""The only sockets: one transport on requests, one on aiohttp, behind the same two methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from taskbridge.http import Request, Response

__all__ = ["AsyncTransport", "Transport"]


class Transport(Protocol):
    """Sends one request and reads its answer, in this thread."""

    def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        """Send a request.

        Args:
            request: What to send; its headers hold the credential.
            deadline: Monotonic seconds by which the whole answer must be read.
            max_body: Bytes of the decoded answer to read at most.

        Raises:
            TransportError: No whole answer; `written` tells whether a byte may have left.
            ContractError: The answer is too large, or not HTTP.
        """
        ...

    def close(self) -> None:
        """Close the kept connections."""
        ...


class AsyncTransport(Protocol):
    """The same, awaitable."""

    async def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        """See `Transport.send`."""
        ...

    async def close(self) -> None:
        """See `Transport.close`."""
        ...
