"""A text result that is behind a link of the vendor is fetched under the rules for downloads."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

import taskbridge as tb
from taskbridge.provider.http import Request, Response
from taskbridge.testing import AsyncScriptedTransport, ScriptedTransport

if TYPE_CHECKING:
    from collections.abc import Callable

JOB = "73df1e16-fd8b-47a1-a156-f197babde91a"
API = "https://api.cloudconvert.com"
KEY = "canary-of-the-text-links"


def job(link: str) -> Response:
    export = {"id": "e1", "name": "export-1", "operation": "export/url", "status": "finished"}
    export["result"] = {"files": [{"filename": "a.txt", "url": link}]}  # type: ignore[assignment]
    text = {"id": "t1", "name": "extract-text", "operation": "convert", "status": "finished"}
    tasks = [{**each, "job_id": JOB, "created_at": "2026-11-01T10:00:00+00:00"} for each in (text, export)]
    data = {"id": JOB, "status": "finished", "created_at": "2026-11-01T10:00:00+00:00", "tasks": tasks}
    return Response(200, {}, json.dumps({"data": data}).encode())


def result_of(
    link: str, storage: Callable[[Request], Response], *, asynchronous: bool, **settings: Any
) -> tuple[tb.TaskResult, list[Request]]:
    """The result of a job whose text is behind the link, and the requests that went to links."""

    def vendor(request: Request) -> Response:
        return job(link) if request.url.startswith(f"{API}/v2/jobs/") else storage(request)

    if not asynchronous:
        transport = ScriptedTransport(vendor)
        with tb.connect("cloudconvert", api_key=KEY, transport=transport, **settings) as client:
            found = client.result(f"job/{JOB}")
        return found, transport.requests[1:]

    async def get() -> tuple[tb.TaskResult, list[Request]]:
        transport = AsyncScriptedTransport(vendor)
        async with tb.aio.connect("cloudconvert", api_key=KEY, transport=transport, **settings) as client:
            return await client.result(f"job/{JOB}"), transport.requests[1:]

    return asyncio.run(get())


def redirecting(request: Request) -> Response:
    if "/first" in request.url:
        return Response(302, {"location": "https://other.example/second?sig=2"})
    return Response(200, {}, b"the text")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_redirects_are_followed_hop_by_hop_without_a_credential(*, asynchronous: bool) -> None:
    result, sent = result_of("https://storage.example/first?sig=1", redirecting, asynchronous=asynchronous)
    assert result.text == "the text"
    assert [request.url for request in sent] == [
        "https://storage.example/first?sig=1",
        "https://other.example/second?sig=2",
    ]
    assert all(request.public_only and request.external for request in sent)
    assert all(KEY not in str(request.headers) for request in sent)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("link", "words"),
    [
        ("https://127.0.0.1/a.txt", "private network"),
        ("https://10.0.0.7/a.txt", "private network"),
        ("https://[fec0::1]/a.txt", "private network"),
        ("http://storage.example/a.txt", "plain http"),
        ("file:///etc/hostname", "must begin with https"),
    ],
)
def test_an_address_that_may_not_be_used_is_refused(link: str, words: str, *, asynchronous: bool) -> None:
    with pytest.raises(tb.TaskbridgeError, match=words):
        result_of(link, redirecting, asynchronous=asynchronous)


def test_a_redirect_to_an_address_that_may_not_be_used_is_refused() -> None:
    with pytest.raises(tb.TaskbridgeError, match="private network"):
        result_of(
            "https://storage.example/first",
            lambda _: Response(307, {"location": "https://169.254.169.254/latest"}),
            asynchronous=False,
        )


def test_private_addresses_can_be_allowed() -> None:
    result, sent = result_of("https://10.0.0.7/a.txt", redirecting, asynchronous=False, allow_private=True)
    assert result.text == "the text"
    assert not sent[0].public_only
