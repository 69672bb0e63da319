"""Fetching a document from a host that is no vendor's: a flow, by rules that hold at every hop.

No credential goes along, whatever the host. Addresses of this machine and of private networks are refused unless the
connection's `allow_private` says otherwise: literal ones here, in every spelling that a resolver would understand;
those behind a name by the transport, which resolves the name once, checks, and connects to that very address
(`Request.public_only`). Redirects are followed one by one, each checked like the first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urljoin, urlsplit

from taskbridge.errors import InvalidInput
from taskbridge.http import Flow, Request, Response
from taskbridge.submission import safe_name

__all__ = ["Fetched", "Rules", "fetch", "is_http", "is_public", "name_of", "url_fault"]

MOST_HOPS: Final = 5  # redirects of one document
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_LONGEST_URL: Final = 16_384  # characters
_URL_CHARACTERS: Final = "%/:=&?~#+!$,;'@()*[]"  # left as they are, all else is percent-encoded
_LOOPBACK_NAMES: Final = ("localhost", ".localhost")


@dataclass(frozen=True, slots=True)
class Rules:
    """What may be fetched.

    Attributes:
        allow_private: Also from this machine and from private networks.
        allow_http: Also over plain http; over http from this machine where `allow_private` is set.
        max_bytes: Bytes of one document at most.
    """

    allow_private: bool = False
    allow_http: bool = False
    max_bytes: int = 1 << 30


@dataclass(frozen=True, slots=True)
class Fetched:
    """A document that was fetched.

    Attributes:
        path: Where it lies.
        name: Its name, from the address that it was asked at.
        media_type: What its host calls it, or None.
    """

    path: Path
    name: str
    media_type: str | None


def fetch(url: str, save_to: Path, rules: Rules) -> Flow[Fetched]:
    """Fetch a document into a file.

    Args:
        url: Its address.
        save_to: The file; overwritten.
        rules: What may be fetched.

    Raises:
        InvalidInput: The address may not be fetched, or its host does not give the document out.
        ResponseTooLarge: It has more than `Rules.max_bytes`.
        TransportError: Its host cannot be reached.
    """
    here = quote(url, safe=_URL_CHARACTERS)
    for _ in range(MOST_HOPS + 1):
        fault = url_fault(here, rules)
        if fault:
            raise InvalidInput(f"the document's address {fault}")
        response = yield Request(
            "GET",
            here,
            headers={"Accept": "*/*"},
            authorised=False,
            expect="bytes",
            save_to=save_to,
            save_limit=rules.max_bytes,
            fresh=True,
            foreign=True,
            public_only=not rules.allow_private,
        )
        if response.status in _REDIRECTS:
            here = quote(urljoin(here, response.headers.get("location", "")), safe=_URL_CHARACTERS)
            continue
        if response.status != 200:
            raise _refused(response)
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        return Fetched(save_to, name_of(url), kind or None)
    raise InvalidInput(f"the document's address redirects more than {MOST_HOPS} times")


def name_of(url: str) -> str:
    """The file name that an address ends in, made safe."""
    return safe_name(unquote(urlsplit(url).path.rpartition("/")[2], errors="replace"))


def _refused(response: Response) -> InvalidInput:
    again = response.status >= 500 or response.status in (408, 425, 429)
    return InvalidInput(
        f"the document could not be fetched: its host answers HTTP {response.status}",
        http_status=response.status,
        retryable=again,
    )


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
