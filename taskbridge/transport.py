"""What a transport of your own implements, and the network settings that it gets; data and protocols only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Protocol

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
        ca_source: The setting or the environment variable that names `ca_bundle`.
    """

    ca_bundle: str | None = None
    proxies: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    direct: str = ""
    ca_source: str = "ca_bundle"

    def proxy_for(self, scheme: str, host: str, port: int | None = None) -> str | None:
        """Return the URL of the proxy for a host and a port (None for the scheme's own), or None."""
        proxy = self.proxies.get(scheme)
        if proxy is None or not self.direct:
            return proxy
        number = port or {"http": 80, "https": 443}.get(scheme)
        is_direct = any(_matches(each.strip().lower(), host.lower(), number) for each in self.direct.split(","))
        return None if is_direct else proxy


def _matches(pattern: str, host: str, port: int | None) -> bool:
    """Whether a host is one of a pattern of ``NO_PROXY``: a name, a suffix, an address, a network, each with a port."""
    if not pattern or pattern == "*":
        return bool(pattern)
    name, _, digits = pattern.rpartition(":")
    if digits.isdigit() and (":" not in name or name.startswith("[")):
        pattern = name
        if int(digits) != port:
            return False
    pattern = pattern.strip("[]")
    try:
        return ip_address(host.strip("[]")) in ip_network(pattern, strict=False)
    except ValueError:  # one of them is a name
        suffix = pattern.removeprefix("*").removeprefix(".")
        return bool(suffix) and (host == suffix or host.endswith(f".{suffix}"))
