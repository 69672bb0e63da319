"""Files that the vendor keeps are deleted: on request, and uploaded documents after the end of their task."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
import requests

import taskbridge as tb
from taskbridge.emulator import Plan
from taskbridge.provider.http import Request, Response
from taskbridge.testing import Emulator
from taskbridge.testing.conformance.samples import connection_of

from .conftest import PDF, PNG, SETTINGS, Both, Scripted

VENDOR = "scan-documents"
FILES = "/v1/files/"


def inputs_kept(vendors: Emulator) -> int:
    """How many documents named ``mine.png`` the vendor has."""
    settings = vendors.settings(VENDOR)
    headers = {"x-api-key": settings["api_key"]}
    page = requests.get(f"{settings['base_url']}/files", {"take": 100}, headers=headers, timeout=5).json()
    return [each["name"] for each in page["data"]].count("mine.png")


def test_uploads_stay_unless_the_connection_deletes_them(both: Callable[..., Both], own_vendors: Emulator) -> None:
    client = both(VENDOR)
    client.wait(client.submit("extract-text", PNG, name="mine.png"), timeout=20)
    assert inputs_kept(own_vendors) == 1


def test_uploads_are_deleted_once_their_task_has_ended(own_vendors: Emulator) -> None:
    settings: dict[str, Any] = {**own_vendors.settings(VENDOR), "poll": {"interval": 0.02}, "delete_inputs": True}
    with tb.connect(VENDOR, **settings) as client:
        own_vendors.plan_next(VENDOR, Plan(queued=20, working=40), Plan(outcome="failed"))
        running = client.submit("extract-text", PNG, name="mine.png")
        client.get(running)
        assert inputs_kept(own_vendors) == 1  # it is still needed
        failed = client.submit("extract-text", PNG, name="mine.png")
        merged = client.submit("merge", [PNG, PDF])
        ended = client.wait_all([running, failed, merged], timeout=20)
        assert [str(each.task and each.task.status) for each in ended] == ["completed", "failed", "completed"]
        assert inputs_kept(own_vendors) == 0
        assert client.result(ended[0].task or "").text
        deleted = own_vendors.count(VENDOR, "DELETE", FILES)
        client.get(running)
        assert deleted == own_vendors.count(VENDOR, "DELETE", FILES) == 4


def test_the_asynchronous_client_deletes_them_too(own_vendors: Emulator) -> None:
    import asyncio  # noqa: PLC0415  # only here

    from taskbridge import aio  # noqa: PLC0415  # as above

    async def work() -> None:
        settings: dict[str, Any] = {**own_vendors.settings(VENDOR), "poll": {"interval": 0.02}, "delete_inputs": True}
        async with aio.connect(VENDOR, **settings) as client:
            await client.wait(await client.submit("extract-text", PNG, name="mine.png"), timeout=20)

    asyncio.run(work())
    assert inputs_kept(own_vendors) == 0


def test_the_upload_of_a_refused_submission_is_deleted(both: Callable[..., Both], own_vendors: Emulator) -> None:
    client = both(VENDOR, delete_inputs=True)
    with pytest.raises(tb.InvalidRequest):
        client.submit("convert", PNG, name="mine.png")  # target_format is missing
    assert (inputs_kept(own_vendors), own_vendors.count(VENDOR, "DELETE", FILES)) == (0, 1)


def test_a_file_that_cannot_be_deleted_is_logged_and_tried_again(
    scripted: Callable[..., Scripted], caplog: pytest.LogCaptureFixture
) -> None:
    task = {"id": "task_1", "status": "completed", "operation": "extract-text", "result": {"content": "text"}}
    deletes: list[int] = []

    def answer(request: Request) -> Response:
        if request.method == "DELETE":
            deletes.append(len(deletes))
            return Response(403 if len(deletes) == 1 else 204, {}, b"")
        body = {"id": "file_1"} if request.url.endswith("/files") else {**task}
        if request.method == "POST" and "extract-text" in request.url:
            body["status"] = "pending"
        return Response(200, {}, json.dumps(body).encode())

    vendor = scripted(VENDOR, answer, delete_inputs=True)
    submitted = vendor.client.submit("extract-text", PNG)
    with caplog.at_level(logging.WARNING, "taskbridge"):
        assert vendor.client.get(submitted).status == "completed"  # a get says what the task is, whatever else fails
    (record,) = caplog.records
    assert "the uploaded document file_1 could not be deleted" in record.getMessage()
    vendor.client.get(submitted)
    vendor.client.get(submitted)
    assert len(deletes) == 2


# On request.


def test_a_file_of_a_result_is_deleted_on_request(both: Callable[..., Both], own_vendors: Emulator) -> None:
    client = both(VENDOR)
    (file,) = client.result(own_vendors.samples(VENDOR)["completed"]).files
    client.delete(file)
    with pytest.raises(tb.TaskNotFound):
        client.delete(tb.TaskFile(id=file.id))


def test_what_cannot_be_deleted_is_refused_before_anything_is_sent(
    both: Callable[..., Both], own_vendors: Emulator
) -> None:
    with pytest.raises(tb.UnsupportedFeature, match="delete a file"):
        both("cloudconvert").delete(tb.TaskFile(id="file_1"))
    with pytest.raises(tb.InvalidInput, match="no id"):
        both(VENDOR).delete(tb.TaskFile(name="mine.png"))
    with (
        tb.Bridge({"scans": connection_of(VENDOR, SETTINGS[VENDOR])}) as bridge,
        pytest.raises(tb.InvalidInput, match="which connection"),
    ):
        bridge.delete(tb.TaskFile(id="file_1"))
    assert own_vendors.count() == 0
