"""Fetches documents and result files by their links, and follows redirects hop by hop.

No credential is sent to a host that is not the vendor's own. Addresses of this machine and of private networks are
refused, unless the connection's `allow_private` allows them or the host is the one that the connection names as the
vendor's: literal addresses here, in every spelling that a resolver understands; those behind a name in the transport,
which resolves the name once, checks the address, and connects to that very address (`Request.public_only`). Each hop is
checked like the first. Where a redirect leaves the origin, the credential and all header fields except ``Accept`` are
dropped, and do not come back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote, unquote, urljoin, urlsplit

from taskbridge.errors import InvalidInput, TaskbridgeError
from taskbridge.provider.addresses import FetchPolicy, origin_of, url_problem
from taskbridge.provider.http import Flow, Request, Response
from taskbridge.provider.sink import ResponseSink
from taskbridge.provider.submission import safe_name

T = TypeVar("T")

MIN_RATE: Final = 20_000.0  # bytes per second on average that a file must arrive with after request_timeout
_MAX_REDIRECTS: Final = 5
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_URL_CHARACTERS: Final = "%/:=&?~#+!$,;'@()*[]"  # left as they are; everything else is percent-encoded
_KEPT_FIELDS: Final = frozenset({"accept"})  # header fields that are sent to another origin


@dataclass(frozen=True, slots=True)
class Fetched:
    """A document that was fetched."""

    name: str  # from the address that was asked for
    media_type: str | None  # what its host calls it


def fetch(url: str, save_to: Path, policy: FetchPolicy) -> Flow[Fetched]:
    """Fetch a document into a file, which is overwritten.

    Raises:
        InvalidInput: The address may not be fetched, or its host does not deliver the document.
        ResponseTooLarge: It is larger than `FetchPolicy.max_bytes`.
        TransportError: Its host cannot be reached.
    """
    request = Request(
        "GET",
        url,
        headers={"Accept": "*/*"},
        authorized=False,
        response_type="bytes",
        save_to=ResponseSink(save_to, policy.max_bytes, bytes_per_second=MIN_RATE),
        new_connection=True,
        external=True,
    )
    _, response = yield from follow(request, policy, _invalid_address)
    if response.status != 200:
        raise InvalidInput(
            f"the document could not be fetched: its host answers HTTP {response.status}",
            http_status=response.status,
            retryable=response.status >= 500 or response.status in (408, 425, 429),
        )
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return Fetched(name_of(url), media_type or None)


def follow(
    request: Request, policy: FetchPolicy, problem: Callable[[str], TaskbridgeError]
) -> Flow[tuple[Request, Response]]:
    """Send a request and follow its redirects; return the last request and its response.

    `problem` makes the error for an address that may not be used, from words that follow "the address".
    """
    request = replace(request, url=quote(request.url, safe=_URL_CHARACTERS))
    for _ in range(_MAX_REDIRECTS + 1):
        is_vendor = bool(policy.own) and origin_of(request.url) == policy.own
        reason = None if is_vendor else url_problem(request.url, policy)
        if reason:
            raise problem(reason)
        request = replace(request, public_only=not (is_vendor or policy.allow_private))
        response = yield request
        if response.status not in _REDIRECTS:
            return request, response
        request = _redirected(request, response.headers.get("location", ""))
    raise problem(f"redirects more than {_MAX_REDIRECTS} times")


def follow_links(flow: Flow[T], policy: FetchPolicy, problem: Callable[[str], TaskbridgeError]) -> Flow[T]:
    """Run a flow of a provider; what it fetches from a link of the vendor is fetched like any other link."""
    received: Response | TaskbridgeError | None = None
    try:
        while True:
            if received is None:
                request = next(flow)
            elif isinstance(received, TaskbridgeError):
                request = flow.throw(received)
            else:
                request = flow.send(received)
            try:
                if request.external and request.method == "GET":
                    _, received = yield from follow(request, policy, problem)
                else:
                    received = yield request
            except TaskbridgeError as error:
                received = error
    except StopIteration as end:
        value: T = end.value
        return value
    finally:
        flow.close()


def _redirected(request: Request, location: str) -> Request:
    try:
        url = quote(urljoin(request.url, location), safe=_URL_CHARACTERS)
    except ValueError:
        url = ""  # not a URL
    if origin_of(url) == origin_of(request.url):
        return replace(request, url=url)
    kept = {name: value for name, value in request.headers.items() if name.lower() in _KEPT_FIELDS}
    return replace(request, url=url, headers=kept, authorized=False, external=True)


def _invalid_address(words: str) -> InvalidInput:
    return InvalidInput(f"the document's address {words}")


def name_of(url: str) -> str:
    """Return the file name at the end of an address, made safe."""
    return safe_name(unquote(urlsplit(url).path.rpartition("/")[2], errors="replace"))
