"""What a transport of your own implements, and the network settings that it gets; data and protocols only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed lacks it

if TYPE_CHECKING:
    from taskbridge.provider.http import Request, Response

__all__ = ["AsyncTransport", "Network", "Transport"]


class Transport(Protocol):
    """Sends one request and reads its response, in this thread."""

    def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        """Send a request.

        Args:
            request: What to send; its headers contain the credential.
            deadline: Monotonic time in seconds by which the whole response must be read.
            max_body: Most bytes of the decoded response to read.

        Raises:
            TransportError: No complete response; `written` says whether a byte may have been sent.
            ContractError: The response is too large, or not HTTP.
        """
        ...

    def close(self) -> None:
        """Close the open connections."""
        ...


class AsyncTransport(Protocol):
    """`Transport`, awaitable."""

    async def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        """See `Transport.send`."""
        ...

    async def close(self) -> None:
        """See `Transport.close`."""
        ...


@dataclass(frozen=True)
class Network:
    """Certificates and proxies of a connection.

    Attributes:
        ca_bundle: File or folder of certificates to trust, or None for the default ones.
        proxies: URL of the proxy by scheme; hidden from repr, because it may contain a password.
        direct: Hosts that are reached without a proxy, in the form of ``NO_PROXY``.
    """

    ca_bundle: str | None = None
    proxies: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    direct: str = ""

    def proxy_for(self, scheme: str, host: str) -> str | None:
        """Return the URL of the proxy for a host, or None."""
        if self.direct and proxy_bypass_environment(host, {"no": self.direct}):
            return None
        return self.proxies.get(scheme)
