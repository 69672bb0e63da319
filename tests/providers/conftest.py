"""Fixtures for driving a provider's flows by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from taskbridge.provider.http import Flow, Request, Response

SEEN_AT = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def run(flow: Flow[Any], *responses: Response) -> tuple[Any, list[Request]]:
    """Send a flow the responses in order; return its result and its requests."""
    requests: list[Request] = []
    try:
        requests.append(next(flow))
        for response in responses:
            requests.append(flow.send(response))  # noqa: PERF401  # the end of the flow ends it
    except StopIteration as end:
        assert len(requests) == len(responses), "the flow ended before all responses were used"
        return end.value, requests
    raise AssertionError(f"the flow sent one request more: {requests[-1]!r}")


@pytest.fixture
def drive() -> Callable[..., tuple[Any, list[Request]]]:
    return run


@pytest.fixture
def respond() -> Callable[..., Response]:
    def build(status: int = 200, body: object = b"", **headers: str) -> Response:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return Response(status, {name.replace("_", "-"): value for name, value in headers.items()}, data, SEEN_AT)

    return build
