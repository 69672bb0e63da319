"""Documents that taskbridge fetches for the vendor: which addresses are allowed, at each redirect."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import taskbridge as tb
from taskbridge._engine.redirects import fetch, name_of
from taskbridge.provider.addresses import FetchPolicy, is_public, url_problem
from taskbridge.provider.http import Response
from taskbridge.testing import Emulator

Maker = Callable[..., Any]

OPEN = FetchPolicy()
PRIVATE = FetchPolicy(allow_private=True)

# F60 of docs/reliability.md, and similar cases.
REFUSED = [
    "https://169.254.169.254/latest/meta-data",
    "https://127.0.0.1/",
    "https://127.1/",
    "https://0x7f000001/",
    "https://2130706433/",
    "https://0177.0.0.1/",
    "https://0x7f.1/",
    "https://0/",
    "https://10.0.0.1/",
    "https://192.168.1.1/",
    "https://100.64.0.1/",
    "https://[::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[2002:7f00:1::]/",
    "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/",
    "https://[fc00::1]/",
    "https://224.0.0.1/",
    "https://localhost/",
    "https://localhost./",
    "https://a.localhost/",
    "https://good.example@evil.example/",
    "https://good.example\\@evil.example/",
    "https://good.example%2f@evil.example/",
    "https://user:pw@example.com/",
    "http://example.com/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "https://",
    "https:///path",
    "https://exa mple.com/",
    "https://example.com:99999/",
    "https://[::1/",
    "https://例え.jp/",
    "https://example.com/" + "a" * 20_000,
]


@pytest.mark.parametrize("url", REFUSED)
def test_a_forbidden_url_is_refused(url: str) -> None:
    assert url_problem(url, OPEN) is not None


@pytest.mark.parametrize(
    "url",
    [
        "https://127.1/", "https://0x7f000001/", "https://2130706433/", "https://a@b/", "file:///x", "https://[",
        "https://;[2606:2800:220:1::]/", "https://a;b/",
    ],
)  # fmt: skip
def test_odd_notations_are_always_refused(url: str) -> None:
    assert url_problem(url, FetchPolicy(allow_private=True, allow_http=True)) is not None


@pytest.mark.parametrize(
    ("url", "rules"),
    [
        ("https://example.com/a.pdf?token=x", OPEN),
        ("https://93.184.216.34/", OPEN),
        ("https://[2606:2800:220:1::]/", OPEN),
        ("https://example.com:8443/", OPEN),
        ("http://example.com/", FetchPolicy(allow_http=True)),
        ("http://127.0.0.1:8000/", PRIVATE),
        ("http://localhost/", PRIVATE),
        ("https://10.0.0.1/", PRIVATE),
    ],
)
def test_an_allowed_url_is_accepted(url: str, rules: FetchPolicy) -> None:
    assert url_problem(url, rules) is None


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::", True),
        ("64:ff9b::5db8:d822", True),
        ("64:ff9b::7f00:1", False),
        ("::ffff:10.0.0.1", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),
        ("not an address", False),
    ],
)
def test_an_address_is_public_or_private_in_every_notation(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_a_fetch_sends_no_credential_and_follows_redirects_one_by_one(tmp_path: Path) -> None:
    flow = fetch("https://example.com/dir/a b.pdf", tmp_path / "1", OPEN)
    first = next(flow)
    assert first.url == "https://example.com/dir/a%20b.pdf"
    assert (first.authorized, first.external, first.new_connection, first.public_only) == (False, True, True, True)
    assert first.save_to is not None
    assert (first.save_to.path, first.save_to.limit) == (tmp_path / "1", OPEN.max_bytes)
    second = flow.send(Response(302, {"location": "../b.pdf"}))
    assert second.url == "https://example.com/b.pdf"
    assert dict(second.headers) == {"Accept": "*/*"}
    with pytest.raises(StopIteration) as end:
        flow.send(Response(200, {"content-type": "application/pdf; charset=x"}))
    assert (end.value.value.name, end.value.value.media_type) == ("a b.pdf", "application/pdf")


@pytest.mark.parametrize("target", [*REFUSED[:8], "//127.0.0.1/x", "http://example.com/", "javascript:alert(1)"])
def test_every_hop_is_checked(target: str, tmp_path: Path) -> None:
    flow = fetch("https://example.com/a.pdf", tmp_path / "1", OPEN)
    next(flow)
    with pytest.raises(tb.InvalidInput, match="the document's address"):
        flow.send(Response(302, {"location": target}))


def test_a_redirect_loop_ends(tmp_path: Path) -> None:
    flow = fetch("https://example.com/a.pdf", tmp_path / "1", OPEN)
    next(flow)
    for _ in range(5):
        flow.send(Response(301, {"location": "/a.pdf"}))
    with pytest.raises(tb.InvalidInput, match="redirects more than 5 times"):
        flow.send(Response(301, {"location": "/a.pdf"}))


@pytest.mark.parametrize(
    ("url", "name"), [("https://e.com/a/%2e%2e%2fb.pdf?x=1", "b.pdf"), ("https://e.com/", "document")]
)
def test_the_file_name_is_the_end_of_the_url(url: str, name: str) -> None:
    assert name_of(url) == name


# Through a client.


@pytest.mark.parametrize(
    "case",
    [
        ("/none.png", "HTTP 404"),
        ("/empty.png", "empty file"),
        ("/loop.png", "redirects more than 5 times"),
        ("/to-file.png", "must begin with https"),
        ("/huge.png", "larger than"),
    ],
)
@pytest.mark.parametrize("vendor", ["scan-documents", "expertai-extract"])
def test_a_document_that_cannot_be_fetched_is_not_submitted(
    vendor: str, case: tuple[str, str], both: Maker, documents: Any, own_vendors: Emulator
) -> None:
    path, words = case
    with pytest.raises(tb.TaskbridgeError, match=words):
        both(vendor).submit("extract-text", f"{documents.url}{path}")
    assert own_vendors.count(vendor, "POST", "operations") == 0
    assert own_vendors.count(vendor, "POST", "layout") == 0


def test_this_machine_is_refused_unless_allow_private_is_set(both: Maker, documents: Any) -> None:
    with pytest.raises(tb.InvalidInput, match="allow_private"):
        both("scan-documents", allow_private=False).submit("extract-text", f"{documents.url}/invoice.png")
    assert documents.requests == []


def test_a_host_name_that_resolves_to_this_machine_is_refused(both: Maker, documents: Any, monkeypatch: Any) -> None:
    real = socket.getaddrinfo

    def resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
        return real("127.0.0.1" if host == "documents.example" else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    port = documents.url.rpartition(":")[2]
    client = both("scan-documents", allow_private=False, allow_http=True)
    with pytest.raises(tb.TaskbridgeError, match="public internet"):
        client.submit("extract-text", f"http://documents.example:{port}/invoice.png")
    assert documents.requests == []


def test_a_failing_document_host_does_not_throttle_the_vendor(scripted: Maker) -> None:
    def respond(request: Any) -> Response:
        if request.external:
            return Response(503, {}, b"")
        raise AssertionError("the vendor got a request")

    harness = scripted("scan-documents", respond)
    with pytest.raises(tb.InvalidInput, match="HTTP 503") as caught:
        harness.client.submit("extract-text", "https://example.com/a.png")
    assert caught.value.retryable
    assert len(harness.transport.requests) == 3
    assert harness.client._connection.throttle.take(harness.clock.monotonic()).wait == 0.0
