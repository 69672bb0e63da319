"""`before_submit` gets the recovery token before a submission is sent; after a crash, the token recovers it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import taskbridge as tb
from taskbridge import aio
from taskbridge.provider.http import Request, Response
from taskbridge.testing import Emulator

Maker = Callable[..., Any]

PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)
PDF = b"%PDF-1.4\n1 0 obj << /Type /Page >> endobj\n"
INPUTS: dict[str, Any] = {
    "cloudconvert": PDF,
    "scan-documents": PNG,
    "smartdocumentor": "https://example.com/invoice.pdf",
}
# Path of the request that starts the work.
SUBMIT_PATHS = {"cloudconvert": "/v2/jobs", "scan-documents": "-operations/", "smartdocumentor": "/process"}


class Crash(Exception):  # stands for the end of the process
    pass


@pytest.mark.parametrize("vendor", INPUTS)
def test_the_recovery_token_is_passed_before_the_submission_is_sent_and_finds_it(
    vendor: str, both: Maker, own_vendors: Emulator
) -> None:
    tokens: list[tuple[str, int]] = []

    def store(recovery_token: Mapping[str, Any]) -> None:
        tokens.append((json.dumps(recovery_token), own_vendors.count(vendor, "POST", SUBMIT_PATHS[vendor])))

    client = both(vendor)
    task = client.submit("extract-text", INPUTS[vendor], before_submit=store)

    ((recovery_token, sent),) = tokens
    assert sent == 0
    found = client.recover(tb.SubmitUncertain("the process was killed", recovery_token=json.loads(recovery_token)))
    assert found.id == task.id


@pytest.mark.parametrize("vendor", INPUTS)
def test_an_exception_in_before_submit_prevents_the_submission(vendor: str, both: Maker, own_vendors: Emulator) -> None:
    def refuse(recovery_token: Mapping[str, Any]) -> None:
        raise Crash(recovery_token["reference"])

    client = both(vendor, max_in_flight=1)
    with pytest.raises(Crash, match="taskbridge-"):
        client.submit("extract-text", INPUTS[vendor], before_submit=refuse)
    assert own_vendors.count(vendor, "POST", SUBMIT_PATHS[vendor]) == 0


def test_an_exception_in_before_submit_leaves_the_rate_limit_unchanged(scripted: Maker) -> None:
    harness = scripted("smartdocumentor", Response(200, {}, b'{"taskId": 44}'), max_in_flight=1)

    def refuse(_token: Mapping[str, Any]) -> None:
        raise Crash

    for _ in range(3):
        with pytest.raises(Crash):
            harness.client.submit("extract-text", INPUTS["smartdocumentor"], before_submit=refuse)
    assert harness.client.submit("extract-text", INPUTS["smartdocumentor"]).id == "44"


def test_before_submit_is_called_for_each_attempt(scripted: Maker) -> None:
    refused = tb.ConnectFailed("connection refused")
    harness = scripted("smartdocumentor", refused, Response(200, {}, b'{"taskId": 44}'))
    tokens: list[Mapping[str, Any]] = []

    harness.client.submit("extract-text", INPUTS["smartdocumentor"], before_submit=tokens.append)

    first, second = tokens
    assert first == second
    assert first["external_id"].startswith("taskbridge-")


def test_before_submit_gets_the_same_token_as_the_error(scripted: Maker) -> None:
    def vendor(request: Request) -> Response:
        return Response(504 if request.starts_work else 200, {}, b'{"id": "file_1"}')

    harness = scripted("scan-documents", vendor)
    tokens: list[Mapping[str, Any]] = []
    with pytest.raises(tb.SubmitUncertain) as caught:
        harness.client.submit("extract-text", PNG, before_submit=tokens.append)
    assert tokens == [caught.value.recovery_token]
    assert tokens[0]["files"] == ["file_1"]


def test_the_async_client_awaits_before_submit(own_vendors: Emulator) -> None:
    settings = own_vendors.settings("smartdocumentor")
    tokens: list[str] = []

    async def store(recovery_token: Mapping[str, Any]) -> None:
        await asyncio.sleep(0)
        tokens.append(recovery_token["reference"])

    async def go() -> tb.Task:
        async with aio.connect("smartdocumentor", **settings) as client:
            return await client.submit("extract-text", INPUTS["smartdocumentor"], before_submit=store)

    assert asyncio.run(go()).external_id == tokens[0]


# CloudConvert accepts the job first and its document second.


def test_recover_uploads_the_missing_document(both: Maker, own_vendors: Emulator, tmp_path: Path) -> None:
    path = tmp_path / "invoice.pdf"
    path.write_bytes(PDF)
    tokens: list[Mapping[str, Any]] = []

    def lose(recovery_token: Mapping[str, Any]) -> None:
        tokens.append(recovery_token)
        path.unlink()

    client = both("cloudconvert")
    with pytest.raises((tb.TaskbridgeError, OSError)):
        client.submit("extract-text", path, before_submit=lose)
    lost = tb.SubmitUncertain("the process was killed", recovery_token=tokens[0])
    assert tb.Reason.AWAITING_UPLOAD in {part.reason for part in client.recover(lost).subtasks}
    path.write_bytes(PDF)

    found = client.recover(lost, path)
    again = client.recover(lost, path)

    assert client.result(found.id, timeout=20).text == "Text of invoice.pdf\n"
    assert found.id == again.id
    assert own_vendors.count("cloudconvert", "POST", "/v2/jobs") == 1
    uploads = [seen for seen in own_vendors.requests if seen.method == "POST" and "/v2/" not in seen.path]
    assert len(uploads) == 1
