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
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urljoin, urlsplit

from taskbridge.errors import InvalidInput, TaskbridgeError
from taskbridge.http import Flow, Request, Response
from taskbridge.sink import Sink
from taskbridge.submission import safe_name

__all__ = ["Fetched", "Rules", "fetch", "hops", "is_http", "is_public", "name_of", "origin_of", "url_fault"]

MOST_HOPS: Final = 5  # redirects of one document
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_LONGEST_URL: Final = 16_384  # characters
_URL_CHARACTERS: Final = "%/:=&?~#+!$,;'@()*[]"  # left as they are, all else is percent-encoded
_LOOPBACK_NAMES: Final = ("localhost", ".localhost")
_PORTS: Final = {"http": 80, "https": 443}
_KEPT_FIELDS: Final = frozenset({"accept"})  # header fields that go along to another origin


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
    request = Request(
        "GET",
        url,
        headers={"Accept": "*/*"},
        authorised=False,
        expect="bytes",
        save_to=Sink(save_to, rules.max_bytes),
        fresh=True,
        foreign=True,
    )
    _, response = yield from hops(request, rules, _document_fault)
    if response.status != 200:
        raise _refused(response)
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return Fetched(save_to, name_of(url), kind or None)


def hops(request: Request, rules: Rules, fault: Callable[[str], TaskbridgeError]) -> Flow[tuple[Request, Response]]:
    """Send a request, and follow to where it is redirected; the last request, and the answer to it.

    Args:
        request: The request for a document or a file.
        rules: What may be fetched.
        fault: Makes the error for an address that may not be asked, from words that follow "the address".

    Raises:
        TaskbridgeError: What `fault` made.
    """
    request = replace(request, url=quote(request.url, safe=_URL_CHARACTERS))
    for _ in range(MOST_HOPS + 1):
        own = bool(rules.own) and origin_of(request.url) == rules.own
        wrong = None if own else url_fault(request.url, rules)
        if wrong:
            raise fault(wrong)
        request = replace(request, public_only=not (own or rules.allow_private))
        response = yield request
        if response.status not in _REDIRECTS:
            return request, response
        request = _redirected(request, response.headers.get("location", ""))
    raise fault(f"redirects more than {MOST_HOPS} times")


def _redirected(request: Request, location: str) -> Request:
    try:
        url = quote(urljoin(request.url, location), safe=_URL_CHARACTERS)
    except ValueError:
        url = ""  # is no URL
    if origin_of(url) == origin_of(request.url):
        return replace(request, url=url)
    kept = {name: value for name, value in request.headers.items() if name.lower() in _KEPT_FIELDS}
    return replace(request, url=url, headers=kept, authorised=False, foreign=True)


def origin_of(url: str) -> str:
    """Scheme, host and port of an address; empty where it has none."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return ""
    return f"{parts.scheme}://{host}:{port}" if host and "@" not in parts.netloc else ""


def _document_fault(words: str) -> InvalidInput:
    return InvalidInput(f"the document's address {words}")


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
