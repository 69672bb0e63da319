"""Acme Docs' own statuses and errors, and one document from submission to download."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import taskbridge as tb
from taskbridge.models import Reason, Task, TaskStatus
from taskbridge.provider import Flow, Response
from taskbridge.testing import Emulator

from taskbridge_acme_docs import AcmeDocs, AcmeDocsSettings

TASK_ID = "t_4f0c2a9b7d1e"


def provider() -> AcmeDocs:
    return AcmeDocs(AcmeDocsSettings.model_validate({"api_key": "key-for-tests"}), "test")


def run(flow: Flow[Any], document: object, status: int = 200) -> Any:
    """Run a flow with one response, without a server; return its result."""
    next(flow)
    try:
        flow.send(Response(status, {}, json.dumps(document).encode()))
    except StopIteration as end:
        return end.value
    raise AssertionError("the flow sends another request")


@pytest.mark.parametrize(
    ("word", "status", "reason"),
    [
        ("waiting", TaskStatus.PENDING, None),
        ("working", TaskStatus.PROCESSING, None),
        ("done", TaskStatus.COMPLETED, None),
        ("broken", TaskStatus.FAILED, None),
        ("stopped", TaskStatus.FAILED, Reason.CANCELLED),
    ],
)
def test_each_status_is_translated(word: str, status: TaskStatus, reason: Reason | None) -> None:
    task: Task = run(provider().get(TASK_ID), {"id": TASK_ID, "state": word})
    assert (task.status, task.reason, task.native_status) == (status, reason, word)


def test_an_error_code_decides_the_error_class() -> None:
    with pytest.raises(tb.QuotaExceeded, match="Buy some") as caught:
        run(provider().get(TASK_ID), {"code": "out_of_credits", "message": "Buy some.", "request": "r1"}, 403)
    assert (caught.value.vendor_code, caught.value.request_id) == ("out_of_credits", "r1")


def test_a_document_is_converted_and_downloaded(tmp_path: Path) -> None:
    with Emulator("acme-docs", speed=100) as emulator:
        settings: dict[str, Any] = {**emulator.settings(), "poll": {"interval": 0.02}}
        with tb.connect("acme-docs", **settings) as client:
            task = client.submit("convert", b"a letter", to="pdf", name="letter.docx")
            [path] = client.download(client.wait(task), tmp_path)
    assert (path.name, path.read_text()) == ("letter.pdf", "letter.docx, converted\n")
