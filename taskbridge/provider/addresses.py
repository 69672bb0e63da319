"""Which addresses may be fetched: public ones, unless the connection's settings allow more.

Addresses of this machine and of private networks are refused unless the connection sets `allow_private`, or the host
is the vendor's own. Literal addresses are checked here, in every spelling that a resolver understands. Host names are
checked by the transport, which resolves the name once, checks the address, and connects to that same address
(`Request.public_only`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

_LONGEST_URL: Final = 16_384  # characters
_LOOPBACK_NAMES: Final = ("localhost", ".localhost")
_PORTS: Final = {"http": 80, "https": 443}
_NAT64: Final = ip_network("64:ff9b::/96")  # global, but with an IPv4 address in the last 32 bits
# Not public, whatever the version of Python knows.  https://www.iana.org/assignments/iana-ipv6-special-registry
_SPECIAL: Final = tuple(
    map(
        ip_network,
        (
            "192.0.0.0/24",  # protocol assignments
            "3fff::/20",  # documentation
            "5f00::/16",  # segment routing
            "64:ff9b:1::/48",  # local translation
            "fec0::/10",  # site-local, deprecated
        ),
    )
)
_NETLOC: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]*)?", re.ASCII | re.IGNORECASE)  # urlsplit is laxer
_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+", re.ASCII)  # what inet_aton accepts as a part of an address


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """What may be fetched."""

    allow_private: bool = False  # this machine and private networks
    allow_http: bool = False  # plain http; http from this machine needs only `allow_private`
    max_bytes: int = 1 << 30  # of one document
    own: str = ""  # the vendor's own origin, which is allowed wherever it is; empty for none


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL; empty if it has none."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return ""
    return f"{parts.scheme}://{host}:{port}" if host and "@" not in parts.netloc else ""


def is_public(host: str | IPv4Address | IPv6Address) -> bool:
    """Return whether an IP address belongs to the public internet; IPv6 forms of an IPv4 address count as that."""
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.scope_id is not None:
            return False
    if any(address in network for network in _SPECIAL):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def url_problem(url: str, policy: FetchPolicy) -> str | None:
    """Return why a URL may not be fetched, in words that follow the URL; None if it may."""
    if len(url) > _LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return "is no URL"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return "is no URL"
    if parts.scheme not in ("http", "https"):
        return "must begin with https://"
    if not host or _NETLOC.fullmatch(parts.netloc) is None:
        return "must hold a host, and no user or password"
    return _host_problem(host.rstrip("."), parts.scheme, policy)


def _host_problem(host: str, scheme: str, policy: FetchPolicy) -> str | None:
    literal = None
    try:
        literal = ip_address(host)
    except ValueError:
        # Resolvers read 127.1, 0x7f000001, 2130706433 and 0177.0.0.1 as addresses: the last part is a number.
        if _NUMBER.fullmatch(host.rpartition(".")[2]):
            return "writes its host in an odd form"
    loopback = host.endswith(_LOOPBACK_NAMES) if literal is None else literal.is_loopback
    private = loopback if literal is None else not is_public(literal)
    if private and not policy.allow_private:
        return "leads to a private network; set allow_private = true where that is meant"
    if scheme == "http" and not (policy.allow_http or loopback):
        return "is plain http; use https, or set allow_http = true where the network between is trusted"
    return None


def is_http(url: str) -> bool:
    """Return whether this URL can be given to a vendor that fetches documents itself."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and url.isprintable() and " " not in url
    except ValueError:
        return False
