"""What tasks cost and what is left on the account, at the emulated vendors and with scripted responses."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

import taskbridge as tb
from taskbridge import aio
from taskbridge._engine.usage import KEPT, UsageMeter
from taskbridge.models import UsageUnit, usage_text
from taskbridge.provider.http import Request, Response
from taskbridge.testing import Emulator

from .conftest import PDF, Both, Scripted

ONE_CREDIT = {"credits": 1}


def shown(usage: tb.Usage | None) -> str | None:
    return None if usage is None else str(usage)


# The vendors' figures.


def test_a_job_costs_what_its_tasks_cost(both: Callable[..., Both]) -> None:
    client = both("cloudconvert")
    started = client.submit("convert", PDF, options={"output_format": "txt"})
    ended = client.wait(started, timeout=20)
    figures = {task.operation: shown(task.usage) for task in ended.subtasks}
    assert figures == {"import/base64": "0 credits", "convert": "1 credit", "export/url": "0 credits"}
    assert shown(ended.usage) == "1 credit"
    assert tb.Task.from_dict(ended.to_dict()).usage == ended.usage


def test_pages_are_what_the_vendor_counts(both: Callable[..., Both]) -> None:
    client = both("expertai-extract")
    ended = client.wait(client.submit("extract-text", PDF), timeout=20)
    assert ended.usage == tb.Usage(amount=ended.raw["result"]["header"]["totPages"], unit=tb.UsageUnit.PAGES)


def test_a_vendor_without_figures_says_nothing(both: Callable[..., Both], own_vendors: Emulator) -> None:
    task = both("scan-documents").get(own_vendors.samples("scan-documents")["completed"])
    assert (task.status, task.usage) == ("completed", None)


@pytest.mark.parametrize(
    ("state", "pages", "expected"),
    [
        ("QueuedForPreProcessing", 0, None),  # "may be 0 if request is made immediately after Task creation"
        ("InReview", 3, "3 pages"),
        ("PreProcessingFailed", 0, "0 pages"),
        ("Processed", None, None),
        ("Processed", True, None),
        ("Processed", -1, None),
        pytest.param("Processed", 10**400, None, id="absurd"),
        ("Processed", "12", None),
    ],
)
def test_only_a_sound_figure_counts(
    scripted: Callable[..., Scripted], state: str, pages: object, expected: str | None
) -> None:
    answer = json.dumps({"taskId": 44, "taskStatusText": state, "totalPages": pages}).encode()
    assert shown(scripted("smartdocumentor", Response(200, {}, answer)).client.get("44").usage) == expected


def test_minutes_are_a_setting_because_no_answer_says_what_is_counted(scripted: Callable[..., Scripted]) -> None:
    answer = b'{"taskId": 44, "taskStatusText": "Processed", "totalPages": 7}'
    media = scripted("smartdocumentor", Response(200, {}, answer), usage_unit="minutes")
    assert shown(media.client.get("44").usage) == "7 minutes"


# Sums.


def test_a_task_counts_once_however_often_and_however_it_is_seen(own_vendors: Emulator) -> None:
    settings: dict[str, Any] = {**own_vendors.settings("cloudconvert"), "poll": {"interval": 0.05}}
    with tb.connect("cloudconvert", **settings) as client:
        job = client.submit("convert", PDF, options={"output_format": "txt"})
        assert client.stats()["cloudconvert"].usage == {}
        ended = client.wait(job, timeout=20)
        client.wait(job, timeout=20)
        client.get(job)
        client.wait_all([job, job.ref, *ended.subtasks], timeout=20)
        assert client.stats()["cloudconvert"].usage == ONE_CREDIT
        list(client.list())  # what others submitted
        assert client.stats()["cloudconvert"].usage == ONE_CREDIT


def test_a_task_that_a_webhook_reports_counts_once(own_vendors: Emulator) -> None:
    secret = "a-signing-secret-of-usage"
    settings: dict[str, Any] = {**own_vendors.settings("cloudconvert"), "webhook_secrets": [secret]}
    with tb.connect("cloudconvert", **settings) as client:
        done = own_vendors.samples("cloudconvert")["job"]
        native = done.removeprefix("job/")
        body = json.dumps({"event": "job.finished", "job": {"id": native, "status": "finished"}}).encode()
        headers = {"CloudConvert-Signature": hmac.new(secret.encode(), body, "sha256").hexdigest()}
        assert client.ingest(client.parse_webhook(headers, body)).status == "applied"
        assert client.stats()["cloudconvert"].usage == ONE_CREDIT
        client.wait(done, timeout=20)
        assert client.stats()["cloudconvert"].usage == ONE_CREDIT


def test_the_asynchronous_client_counts_too(own_vendors: Emulator) -> None:
    async def cost() -> Mapping[Any, float]:
        settings: dict[str, Any] = {**own_vendors.settings("cloudconvert"), "poll": {"interval": 0.05}}
        async with aio.connect("cloudconvert", **settings) as client:
            job = await client.submit("convert", PDF, options={"output_format": "txt"})
            async for _ in client.as_completed([job, job], timeout=20):
                pass
            return client.stats()["cloudconvert"].usage

    assert asyncio.run(cost()) == ONE_CREDIT


def test_one_task_has_one_cost_under_both_of_its_ids_and_again_after_a_restart(
    scripted: Callable[..., Scripted],
) -> None:
    restarts: list[int] = []

    def answer(_: Request) -> Response:
        count = f', "restartCount": {len(restarts)}' if restarts else ""
        body = f'{{"taskId": 44, "externalId": "INV-7", "taskStatusText": "Processed", "totalPages": 10{count}}}'
        return Response(200, {}, body.encode())

    client = scripted("smartdocumentor", answer).client
    client.get("44")
    client.get("external/INV-7")
    assert client.stats()["smartdocumentor"].usage == {"pages": 10}
    restarts.append(1)
    client.get("44")
    assert client.stats()["smartdocumentor"].usage == {"pages": 20}


def task(number: int, amount: float, **more: Any) -> tb.Task:
    template = tb.Task.from_dict(
        {
            "provider": "p",
            "connection": "c",
            "id": str(number),
            "native_id": number,
            "status": "processing",
            "observed_at": "2026-01-01T00:00:00Z",
            "usage": {"amount": amount, "unit": "pages"},
        }
    )
    return tb.Task.from_dict({**template.to_dict(), **more})


def test_a_figure_that_grows_adds_the_difference_and_one_that_falls_nothing() -> None:
    meter = UsageMeter()
    grown = [dict(meter.add(task(1, amount))) for amount in (2, 5, 5, 3, 6)]
    assert grown == [{"pages": 2}, {"pages": 3}, {}, {}, {"pages": 1}]
    assert meter.totals == {"pages": 6}


def test_a_meter_remembers_a_bounded_number_of_tasks() -> None:
    meter, first = UsageMeter(), task(0, 1)
    meter.add(first)
    for number in range(1, KEPT):
        meter.add(replace(first, native_id=number, id=str(number)))
    assert meter.add(first) == {}
    assert meter.totals == {"pages": KEPT}


def test_amounts_read_well() -> None:
    assert usage_text({UsageUnit.PAGES: 1234, UsageUnit.CREDITS: 12.5}) == "12.5 credits, 1,234 pages"
    assert usage_text({UsageUnit.MINUTES: 1}) == "1 minute"


# The account.


def test_the_balance_falls_by_what_a_task_costs(both: Callable[..., Both], own_vendors: Emulator) -> None:
    client = both("cloudconvert")
    client.wait(own_vendors.samples("cloudconvert")["job-running"], timeout=20)  # costs a credit as well
    before = client.account()
    client.wait(client.submit("convert", PDF, options={"output_format": "txt"}), timeout=20)
    after = client.account()
    assert (before.balance - after.balance, after.unit, after.name) == (1, "credits", "emulator")
    assert after.id == str(after.raw["id"])
    assert "example.com" not in repr(after)  # the address of a person


@pytest.mark.parametrize("provider", ["scan-documents", "smartdocumentor", "expertai-extract"])
def test_other_vendors_do_not_tell(both: Callable[..., Both], own_vendors: Emulator, provider: str) -> None:
    with pytest.raises(tb.UnsupportedFeature, match="left on the account"):
        both(provider).account()
    assert own_vendors.count(provider) == 0


def test_a_key_that_may_not_read_the_account_is_named_so(scripted: Callable[..., Scripted]) -> None:
    refused = scripted("cloudconvert", Response(403, {}, b'{"message": "Invalid scope(s) provided."}'))
    with pytest.raises(tb.PermissionDenied):
        refused.client.account()
