"""Fetching a document or a file by its link: flows, by rules that hold at every hop.

No credential goes to a host that is not the vendor's own. Addresses of this machine and of private networks are refused
unless the connection's `allow_private` says otherwise, or the host is the one that the connection names as the
vendor's: literal ones here, in every spelling that a resolver would understand; those behind a name by the transport,
which resolves the name once, checks, and connects to that very address (`Request.public_only`). Redirects are followed
one by one, each checked like the first; a credential and all header fields but ``Accept`` stay behind where a hop
leaves the origin, and do not come back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urljoin, urlsplit

from taskbridge.errors import InvalidInput, TaskbridgeError
from taskbridge.provider.addresses import Rules, origin_of, url_fault
from taskbridge.provider.http import Flow, Request, Response
from taskbridge.provider.sink import ResponseSink
from taskbridge.provider.submission import safe_name

MOST_HOPS: Final = 5  # redirects of one document


_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


_URL_CHARACTERS: Final = "%/:=&?~#+!$,;'@()*[]"  # left as they are, all else is percent-encoded


_KEPT_FIELDS: Final = frozenset({"accept"})  # header fields that go along to another origin


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
        authorized=False,
        response_type="bytes",
        save_to=ResponseSink(save_to, rules.max_bytes),
        new_connection=True,
        external=True,
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
    return replace(request, url=url, headers=kept, authorized=False, external=True)


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
