"""The scripted vendor: tasks that follow a script, in virtual time, sync and async."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

import taskbridge as tb
from taskbridge import aio
from taskbridge.testing import ScriptedVendor

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def vendor() -> Iterator[ScriptedVendor]:
    with ScriptedVendor() as vendor:
        yield vendor


@pytest.fixture
def client(vendor: ScriptedVendor) -> Iterator[tb.Client]:
    del vendor
    with tb.connect("scripted") as client:
        yield client


def test_a_task_follows_its_script(vendor: ScriptedVendor, client: tb.Client) -> None:
    vendor.task("t1", {0: "pending", 30: "processing", 1200: "completed"}, text="Total: 12 EUR", files=["a.pdf"])
    states: list[str] = []
    result = client.result(client.wait("t1", timeout=1800, on_update=lambda task: states.append(task.status)))
    assert (result.text, [file.name for file in result.files]) == ("Total: 12 EUR", ["a.pdf"])
    assert states == ["pending", "processing", "completed"]


def test_an_asynchronous_client_sees_the_same(vendor: ScriptedVendor) -> None:
    vendor.task("t1", {0: "pending", 1200: "completed"})

    async def run() -> str:
        async with aio.connect("scripted") as client:
            return (await client.wait("t1", timeout=1800)).status

    assert asyncio.run(run()) == "completed"


def test_reasons_errors_and_unknown_statuses(vendor: ScriptedVendor, client: tb.Client) -> None:
    vendor.task("t1", {0: "failed/expired"}, code="gone", message="too late")
    vendor.task("t2", {0: "on-holiday"})
    failed, unknown = client.get("t1"), client.get("t2")
    assert (failed.reason, failed.error) == ("expired", tb.TaskFailure(code="gone", message="too late"))
    assert (unknown.status, unknown.recognized, unknown.native_status) == ("processing", False, "on-holiday")


def test_a_request_can_fail_while_the_task_continues(vendor: ScriptedVendor, client: tb.Client) -> None:
    vendor.task("t1", {0: "pending", 10: 503, 60: "completed"})
    assert client.wait("t1", timeout=600).status == "completed"
    with pytest.raises(tb.TaskNotFound):
        client.get("missing")


def test_submitted_tasks_follow_the_planned_scripts(vendor: ScriptedVendor, client: tb.Client) -> None:
    vendor.plan_next({0: "pending", 5: "failed"}, message="unreadable")
    first = client.submit("extract-text", b"bytes", external_id="INV-7")
    second = client.submit("native:anything", b"bytes")
    assert (first.operation, first.external_id, second.operation) == ("extract-text", "INV-7", "anything")
    assert [outcome.task and outcome.task.status for outcome in client.wait_all([first, second])] == [
        "failed",
        "completed",
    ]


def test_a_task_can_be_cancelled_unless_it_has_ended(vendor: ScriptedVendor, client: tb.Client) -> None:
    vendor.task("t1", {0: "processing"})
    vendor.task("t2", {0: "completed"})
    assert client.cancel("t1").reason == "cancelled"
    assert client.cancel("t2").status == "completed"


@pytest.mark.parametrize("script", [{}, {1: "pending"}, {-1: "pending", 0: "completed"}])
def test_a_script_must_start_at_zero(vendor: ScriptedVendor, script: dict[float, str | int]) -> None:
    with pytest.raises(ValueError, match="starts at 0 seconds"):
        vendor.task("t1", script)


def test_an_unknown_field_is_rejected(vendor: ScriptedVendor) -> None:
    with pytest.raises(ValueError, match=r"has the fields code, .*, text, not color"):
        vendor.task("t1", {0: "pending"}, color="red")


def test_it_does_not_exist_after_its_block() -> None:
    with ScriptedVendor():
        pass
    with pytest.raises(tb.ProviderNotFound):
        tb.connect("scripted")
