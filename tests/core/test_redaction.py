"""A text is redacted before it is clipped, so that no part of a key remains at the cut."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal
from uuid import uuid4

import pytest

import taskbridge as tb
from taskbridge import aio
from taskbridge._redaction import without_secrets
from taskbridge.errors import printable
from taskbridge.provider.http import Request, Response
from taskbridge.testing import AsyncScriptedTransport, ScriptedTransport, VirtualClock

from ..canaries import Watch  # noqa: TID252  # beside this folder

KEY: Final = "key-5d1f0c-" + "0123456789abcdefghijklmnopqrstuvwxyz"
LEFT: Final = KEY[:12]  # as much of the key as may never remain
JOB: Final = "73df1e16-fd8b-47a1-a156-f197babde91a"

# Vendor -> the setting of its key, and an id of a task.
VENDORS: Final[Mapping[str, tuple[str, str]]] = {
    "cloudconvert": ("api_key", f"job/{JOB}"),
    "expertai-extract": ("access_token", JOB),
    "scan-documents": ("api_key", "task_1"),
    "smartdocumentor": ("access_token", "44"),
}


class Answers:
    """Makes transports that answer every request alike."""

    def __init__(self, response: Response | Callable[[Request], Response]) -> None:
        self._script: Callable[[Request], Response] = response if callable(response) else lambda _: response

    def transport(self, connection: object) -> ScriptedTransport:
        del connection
        return ScriptedTransport(self._script)

    def async_transport(self, connection: object) -> AsyncScriptedTransport:
        del connection
        return AsyncScriptedTransport(self._script)


def padded(length: int) -> str:
    """A text with the key across this position."""
    return f"{'x' * (length - 14)} {KEY} is wrong"


def failure_of(
    driver: Literal["sync", "async"], vendor: str, call: str, response: Response, **options: Any
) -> tb.TaskbridgeError:
    setting, task_id = VENDORS[vendor]
    settings: dict[str, Any] = {
        setting: KEY,
        "retry": {"attempts": 1},
        "clock": VirtualClock(),
        "transport": Answers(response),
    }

    async def run() -> Any:
        async with aio.connect(vendor, **settings) as client:
            return await getattr(client, call)(task_id, **options)

    try:
        if driver == "async":
            asyncio.run(run())
        else:
            with tb.connect(vendor, **settings) as client:
                getattr(client, call)(task_id, **options)
    except tb.TaskbridgeError as error:
        return error
    raise AssertionError("no error")


@pytest.mark.parametrize("limit", [80, 500, 2048])
@pytest.mark.parametrize("status", [200, 400, 401, 403, 500])
@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("driver", ["sync", "async"])
def test_an_error_keeps_no_part_of_a_key_that_the_response_echoes(
    driver: Literal["sync", "async"], vendor: str, status: int, limit: int
) -> None:
    text = padded(limit)
    document = {"message": text, "error_description": text, "code": text, "type": text, "error": text}
    for body in (json.dumps(document).encode(), text.encode(), f"<title>{text}</title>".encode()):
        error = failure_of(driver, vendor, "get", Response(status, {"x-request-id": text}, body))
        assert LEFT not in f"{error} {error!r} {error.__dict__}"


@pytest.mark.parametrize("driver", ["sync", "async"])
def test_the_message_of_a_failed_task_is_redacted_before_it_is_clipped(
    driver: Literal["sync", "async"], watch: Watch
) -> None:
    document = {"id": "task_1", "status": "failed", "result": {"error": padded(500)}}
    error = failure_of(driver, "scan-documents", "result", Response(200, {}, json.dumps(document).encode()))
    assert isinstance(error, tb.TaskFailed)
    assert LEFT not in f"{error} {error!r} {error.task!r}"
    watch.errors.clear()  # `raw` of the snapshot is the vendor's own object


@pytest.mark.parametrize("limit", [60, 80])
@pytest.mark.parametrize("driver", ["sync", "async"])
def test_an_unknown_status_word_is_redacted_in_errors_and_log_records(
    driver: Literal["sync", "async"], limit: int, caplog: pytest.LogCaptureFixture, watch: Watch
) -> None:
    document = {"id": "task_1", "status": padded(limit)}
    response = Response(200, {}, json.dumps(document).encode())
    with caplog.at_level(logging.DEBUG, "taskbridge"):
        error = failure_of(driver, "scan-documents", "wait", response, timeout=5)
    assert isinstance(error, tb.WaitTimeout)
    assert LEFT not in str(error)
    assert any(record.levelno == logging.WARNING for record in caplog.records)
    assert LEFT not in " ".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    watch.errors.clear()  # the status word of the snapshot is verbatim


def test_a_text_that_is_shown_keeps_no_part_of_a_key_in_use() -> None:
    key = f"key-{uuid4().hex}"
    client = tb.connect("scan-documents", api_key=key)
    assert printable(f"{'x' * 70} {key}", 80) == f"{'x' * 70} ***"
    assert without_secrets(f"a {key}-{key}") == "a ***-***"
    client.close()


def test_the_longer_of_two_keys_is_redacted_first() -> None:
    short, long = (f"key-{uuid4().hex}" for _ in range(2))
    long = short + long
    clients = [tb.connect("scan-documents", api_key=key) for key in (short, long)]
    assert without_secrets(f"{long} {short}") == "*** ***"
    for client in clients:
        client.close()


def test_a_key_is_forgotten_with_its_client() -> None:
    key = f"key-{uuid4().hex}"
    client = tb.connect("scan-documents", api_key=key)
    client.close()
    del client
    gc.collect()
    assert without_secrets(key) == key
