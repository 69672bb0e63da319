"""Signed requests: a provider's `sign` gets each request with a credential, each time that it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

import taskbridge as tb
from taskbridge.provider.http import Flow, Request, Response

from .conftest import Acme, Maker

Says = Callable[..., Response]


class Signed(Acme):
    """Acme, which signs the time and the credential."""

    def sign(self, request: Request, now: datetime) -> Request:
        text = f"{now.isoformat()} {request.headers.get('X-Key') or request.headers['X-Token']}"
        return replace(request, headers={**request.headers, "X-Signature": text})


class Broken(Acme):
    """Acme, whose signature cannot be made."""

    def sign(self, request: Request, now: datetime) -> Request:
        raise KeyError(request.headers["X-Signature"], now)

    def retry(self, task_id: str) -> Flow[tb.Task]:
        yield self.request("POST", "/tasks", starts_work=True)
        return (yield from self.get(task_id))


class Forgetful(Acme):
    """Acme, whose `sign` returns nothing."""

    def sign(self, request: Request, now: datetime) -> Any:
        del request, now


def test_each_attempt_is_signed_with_the_time_of_sending(acme: Maker, says: Says) -> None:
    harness = acme([Response(503), says("t1", "done")], provider=Signed, retry={"first": 5.0})
    harness.client.get("t1")
    signatures = [each.headers["X-Signature"] for each in harness.transport.requests]
    assert len(set(signatures)) == 2
    assert all(each.endswith(" key-of-acme-123") for each in signatures)


def test_the_asynchronous_client_signs_too(acme: Maker, says: Says) -> None:
    async def get() -> Request:
        client, transport = acme([says("t1", "done")], provider=Signed).asynchronous()
        async with client:
            await client.get("t1")
        return transport.requests[0]

    assert "X-Signature" in asyncio.run(get()).headers


def test_the_request_for_a_token_is_not_signed(acme: Maker, says: Says) -> None:
    token = Response(200, {}, b'{"token": "token-1"}')
    harness = acme([token, says("t1", "done")], provider=Signed, token_life=3600.0)
    harness.client.get("t1")
    first, second = harness.transport.requests
    assert "X-Signature" not in first.headers
    assert second.headers["X-Signature"].endswith(" token-1")


@pytest.mark.parametrize(("provider", "problem"), [(Broken, "KeyError while signing"), (Forgetful, "no Request")])
def test_a_signature_that_cannot_be_made_is_a_broken_provider(acme: Maker, provider: Any, problem: str) -> None:
    harness = acme(provider=provider)
    for _ in range(3):  # and the rate limiter waits for no answer
        with pytest.raises(tb.ContractError, match=problem):
            harness.client.get("t1")
    assert harness.transport.requests == []


def test_a_submission_that_cannot_be_signed_is_not_uncertain(acme: Maker) -> None:
    capabilities = replace(Acme.capabilities, retry=True)
    harness = acme(provider=type("Retrying", (Broken,), {"capabilities": capabilities}))
    with pytest.raises(tb.ContractError, match="KeyError while signing"):
        harness.client.retry("t1")
    assert harness.transport.requests == []
