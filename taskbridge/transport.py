"""The only sockets: one transport on requests, one on aiohttp, behind the same two methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol
from urllib.request import proxy_bypass_environment

if TYPE_CHECKING:
    from taskbridge.provider.http import Request, Response

__all__ = ["AsyncTransport", "Network", "Transport"]


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


# The network.


@dataclass(frozen=True)
class Network:
    """How a connection reaches the world.

    Attributes:
        ca_bundle: File or folder of certificates to trust, or None for the default ones.
        proxies: URL of the proxy by scheme; out of repr, it may hold a password.
        direct: Hosts that are reached without a proxy, as ``NO_PROXY`` has them.
    """

    ca_bundle: str | None = None
    proxies: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    direct: str = ""

    def proxy_for(self, scheme: str, host: str) -> str | None:
        """URL of the proxy for a host, or None."""
        if self.direct and proxy_bypass_environment(host, {"no": self.direct}):
            return None
        return self.proxies.get(scheme)
