"""Fetching a document or a file by its link: flows, by rules that hold at every hop.

No credential goes to a host that is not the vendor's own. Addresses of this machine and of private networks are refused
unless the connection's `allow_private` says otherwise, or the host is the one that the connection names as the
vendor's: literal ones here, in every spelling that a resolver would understand; those behind a name by the transport,
which resolves the name once, checks, and connects to that very address (`Request.public_only`). Redirects are followed
one by one, each checked like the first; a credential and all header fields but ``Accept`` stay behind where a hop
leaves the origin, and do not come back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

__all__ = ["Rules", "is_http", "is_public", "origin_of", "url_fault"]

_LONGEST_URL: Final = 16_384  # characters


_LOOPBACK_NAMES: Final = ("localhost", ".localhost")


_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Rules:
    """What may be fetched.

    Attributes:
        allow_private: Also from this machine and from private networks.
        allow_http: Also over plain http; over http from this machine where `allow_private` is set.
        max_bytes: Bytes of one document at most.
        own: Origin that the connection names as its vendor's, which may be asked wherever it is; empty for none.
    """

    allow_private: bool = False
    allow_http: bool = False
    max_bytes: int = 1 << 30
    own: str = ""


def origin_of(url: str) -> str:
    """Scheme, host and port of an address; empty where it has none."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return ""
    return f"{parts.scheme}://{host}:{port}" if host and "@" not in parts.netloc else ""


# Addresses.

_NAT64: Final = ip_network("64:ff9b::/96")  # an IPv4 address in its last 32 bits, although it counts as global


_NETLOC: Final = re.compile(
    r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]*)?", re.ASCII | re.IGNORECASE
)  # urlsplit takes more


_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+", re.ASCII)  # what inet_aton takes for a part of an address


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet; IPv6 forms that carry an IPv4 address count as that one.

    Args:
        address: As a resolver gives it.
    """
    try:
        return _is_public(ip_address(address))
    except ValueError:
        return False


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return _is_public(inner)
        if address.scope_id is not None:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def url_fault(url: str, rules: Rules) -> str | None:
    """Why an address may not be fetched, in words that follow it; None where it may.

    Args:
        url: The address.
        rules: What may be fetched.
    """
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
    return _host_fault(host.rstrip("."), parts.scheme, rules)


def _host_fault(host: str, scheme: str, rules: Rules) -> str | None:
    literal: IPv4Address | IPv6Address | None = None
    try:
        literal = ip_address(host)
    except ValueError:
        # Resolvers read 127.1, 0x7f000001, 2130706433 and 0177.0.0.1 as addresses: whose last part is a number is one.
        if _NUMBER.fullmatch(host.rpartition(".")[2]):
            return "writes its host in an odd form"
    loopback = host.endswith(_LOOPBACK_NAMES) if literal is None else literal.is_loopback
    private = loopback if literal is None else not _is_public(literal)
    if private and not rules.allow_private:
        return "leads to a private network; set allow_private = true where that is meant"
    if scheme == "http" and not (rules.allow_http or loopback):
        return "is plain http; use https, or set allow_http = true where the network between is trusted"
    return None


def is_http(url: str) -> bool:
    """Whether a vendor that fetches for itself can be given this address."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and url.isprintable() and " " not in url
    except ValueError:
        return False
