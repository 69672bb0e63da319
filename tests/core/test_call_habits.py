"""Calls that are easy to get wrong: what is a keyword, what comes first, and failures that are raised on request."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest

import taskbridge as tb
from taskbridge import aio
from taskbridge.testing import ScriptedVendor


@pytest.mark.parametrize("owner", [tb.Client, tb.Bridge, aio.Client, aio.Bridge], ids=lambda owner: owner.__module__)
def test_timeout_and_callbacks_are_keywords_everywhere(owner: type[Any]) -> None:
    found = [
        (name, parameter)
        for name, method in inspect.getmembers(owner, inspect.isfunction)
        if not name.startswith("_")
        for parameter in inspect.signature(method).parameters.values()
        if parameter.name in ("timeout", "on_update", "on_progress", "before_submit", "check")
    ]
    assert {name for name, _ in found} >= {"wait", "result", "as_completed", "wait_all", "watch", "download"}
    assert {parameter.kind for _, parameter in found} == {inspect.Parameter.KEYWORD_ONLY}


def test_wait_raises_for_a_failed_task_if_asked_to() -> None:
    async def check(ref: str) -> None:
        async with aio.connect("scripted") as client:
            assert (await client.wait(ref)).status is tb.TaskStatus.FAILED
            with pytest.raises(tb.TaskFailed, match="no such page"):
                await client.wait(ref, check=True)

    with ScriptedVendor() as vendor, tb.connect("scripted") as client:
        bad = vendor.task("bad", {0: "processing", 30: "failed"}, message="no such page", code="PAGES")
        good = vendor.task("good", {0: "completed"})
        assert client.wait(bad).status is tb.TaskStatus.FAILED
        for timeout in (900.0, 0.0):
            with pytest.raises(tb.TaskFailed, match="no such page") as caught:
                client.wait(bad, timeout=timeout, check=True)
            assert (caught.value.vendor_code, caught.value.task.id) == ("PAGES", "bad")
        assert client.wait(good, check=True).status is tb.TaskStatus.COMPLETED
        asyncio.run(check(bad))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("report.pdf",), "operation first: submit('convert', 'report.pdf')"),
        (("scans/report",), "operation first: submit('convert', 'scans/report')"),
        ((Path("scans/report.pdf"),), "operation first: submit('convert', 'report.pdf')"),
        ((b"%PDF-",), "operation first: submit('convert', document)"),
        (("https://files.test/a?key=0123456789abcdef",), "operation first: submit('convert', url); "),
        (("report.pdf", "extract-text"), "operation first: submit('extract-text', 'report.pdf')"),
        (("convrt", "report.pdf"), "did you mean 'convert' or"),
        ((), "name an operation"),
    ],
    ids=str,
)
def test_a_document_in_place_of_the_operation_gets_the_right_call(arguments: tuple[Any, ...], words: str) -> None:
    with ScriptedVendor() as vendor, tb.connect("scripted") as client:
        with pytest.raises((tb.InvalidInput, tb.UnsupportedFeature)) as caught:
            client.submit(*arguments)
        assert words in str(caught.value)
        assert str(client.can(*arguments)) == caught.value.message
        assert "0123456789abcdef" not in str(caught.value)
        assert vendor.requests == []
