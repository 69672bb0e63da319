"""Figures that a caller or a vendor gives: any number is accepted and clipped, anything else is refused alike."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import inf, nan
from pathlib import Path
from typing import Any, Final

import click
import pytest

import taskbridge as tb
from taskbridge import aio
from taskbridge.cli.options import parse_seconds
from taskbridge.models import TaskFile
from taskbridge.provider.clock import LONGEST
from taskbridge.provider.http import Request, Response
from taskbridge.provider.policy import parse_retry_after
from taskbridge.testing import AsyncScriptedTransport, ScriptedTransport, VirtualClock

CALLS: Final = ("wait", "result", "result of a snapshot", "wait_all", "as_completed", "watch")
WRONG: Final = (timedelta(minutes=5), "60", b"60", Decimal(60), [60], nan)
HUGE: Final = (1e10, sys.maxsize, 10**400, 1e308, inf, None)
FAR: Final = "Fri, 31 Dec 9999 23:59:59 GMT"


class Vendor:
    """Makes transports that answer by a function."""

    def __init__(self, answer: Callable[[Request], Response]) -> None:
        self._answer = answer

    def transport(self, connection: object) -> ScriptedTransport:
        del connection
        return ScriptedTransport(self._answer)

    def async_transport(self, connection: object) -> AsyncScriptedTransport:
        del connection
        return AsyncScriptedTransport(self._answer)


def vendor_of(*statuses: str, first: Response | None = None) -> Vendor:
    """A vendor whose task has one status after the other, after a response of another kind."""
    given: Iterator[str] = iter(statuses)
    state = {"status": "", "first": first}

    def answer(request: Request) -> Response:
        response, state["first"] = state["first"], None
        if isinstance(response, Response):
            return response
        state["status"] = next(given, str(state["status"]))
        task_id = request.url.rpartition("/")[2]
        document = {"id": task_id, "status": state["status"], "result": {"content": "x", "format": "plain"}}
        return Response(200, {}, json.dumps(document).encode())

    return Vendor(answer)


def call(driver: str, name: str, timeout: Any, vendor: Vendor, **settings: Any) -> Any:
    """Make a call that waits, with a client of the real clock."""
    given: dict[str, Any] = {"api_key": "some-key-0123", "transport": vendor, "poll": {"interval": 0.01}, **settings}
    if driver == "sync":
        with tb.connect("scan-documents", **given) as client:
            if name == "result of a snapshot":
                return client.result(client.get("task_1"), timeout=timeout)
            if name in ("wait", "result"):
                return getattr(client, name)("task_1", timeout=timeout)
            return list(getattr(client, name)(["task_1", "task_2"], timeout=timeout))

    async def run() -> Any:
        async with aio.connect("scan-documents", **given) as client:
            if name == "result of a snapshot":
                return await client.result(await client.get("task_1"), timeout=timeout)
            if name in ("wait", "result"):
                return await getattr(client, name)("task_1", timeout=timeout)
            if name == "wait_all":
                return await client.wait_all(["task_1", "task_2"], timeout=timeout)
            return [each async for each in getattr(client, name)(["task_1", "task_2"], timeout=timeout)]

    return asyncio.run(run())


@pytest.mark.parametrize("timeout", WRONG, ids=repr)
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("driver", ["sync", "async"])
def test_a_timeout_that_is_no_number_is_the_same_error_in_every_call(driver: str, name: str, timeout: object) -> None:
    with pytest.raises(tb.InvalidInput, match="timeout must be a number of seconds, or None for no deadline, not "):
        call(driver, name, timeout, vendor_of("completed"))


@pytest.mark.parametrize("timeout", HUGE, ids=lambda value: f"{value!r:.12}")
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("driver", ["sync", "async"])
def test_any_large_timeout_waits_until_the_end(driver: str, name: str, timeout: float) -> None:
    vendor = vendor_of("processing", "processing", "processing", "completed")
    if name.startswith("result"):
        vendor = vendor_of("completed") if name == "result of a snapshot" else vendor
        assert call(driver, name, timeout, vendor).text == "x"
    elif name == "wait":
        assert call(driver, name, timeout, vendor).status == "completed"
    else:
        assert call(driver, name, timeout, vendor)[-1].task.status == "completed"


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("name", ["wait", "wait_all"])
@pytest.mark.parametrize("driver", ["sync", "async"])
def test_a_retry_after_in_the_year_9999_breaks_no_client(driver: str, name: str, status: int) -> None:
    vendor = vendor_of("completed", first=Response(status, {"retry-after": FAR}, b"{}"))
    if name == "wait":
        with pytest.raises(tb.WaitTimeout):
            call(driver, name, 0.2, vendor)
    else:
        ends = [each.error or each.task for each in call(driver, name, 0.2, vendor)]
        assert all(isinstance(each, tb.WaitTimeout) or each.is_terminal for each in ends)
        assert any(isinstance(each, tb.WaitTimeout) for each in ends)


def test_a_client_goes_on_after_the_year_9999() -> None:
    vendor = vendor_of("completed", first=Response(503, {"retry-after": FAR}, b"{}"))
    with tb.connect("scan-documents", api_key="some-key-0123", transport=vendor, poll={"interval": 0.01}) as client:
        first = client.wait_all(["task_1", "task_2", "task_3"], timeout=0.2)
        second = client.wait_all(["task_4"], timeout=5)
    assert len(first) == 3
    assert isinstance(second[0].error, tb.WaitTimeout)  # the vendor wants no requests, but the client's threads live


def test_retry_after_is_clipped_to_ten_years() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    for value in (FAR, "999999999"):
        assert parse_retry_after({"retry-after": value}, now) == LONGEST
    assert parse_retry_after({"retry-after": "120"}, now) == 120.0


@pytest.mark.parametrize("lifetime", [1e300, 10**400, -1e300, 0])
def test_a_token_of_any_lifetime_can_be_used(lifetime: float) -> None:
    def answer(request: Request) -> Response:
        if "token" in request.url:
            return Response(200, {}, json.dumps({"access_token": "token-0123456789", "expires_in": lifetime}).encode())
        return Response(200, {}, b'{"taskId": 44, "taskStatusText": "ExportCompleted"}')

    settings: dict[str, Any] = {"client_id": "me", "client_secret": "some-secret-0123"}
    with tb.connect("smartdocumentor", **settings, transport=Vendor(answer), clock=VirtualClock()) as client:
        assert client.get("44").is_terminal


@pytest.mark.parametrize("created", ["0001-01-01T00:00:00", "9999-12-31T23:59:59"])
def test_tasks_of_any_age_can_be_waited_for(created: str) -> None:
    def answer(request: Request) -> Response:
        number = int(request.url.rpartition("=")[2]) if "status" in request.url else 0
        document = {"taskId": number, "taskStatusText": "PreProcessingInProgress", "createdOn": created}
        return Response(200, {}, json.dumps(document if number else {"tasks": []}).encode())

    with tb.connect(
        "smartdocumentor", access_token="some-token-0123", transport=Vendor(answer), clock=VirtualClock()
    ) as client:
        outcomes = client.wait_all([str(number) for number in range(1, 40)], timeout=60)
    assert {type(outcome.error) for outcome in outcomes} == {tb.WaitTimeout}


@pytest.mark.parametrize("created", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
@pytest.mark.parametrize("sent", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_submissions_of_any_time_can_be_looked_for(sent: str, created: str) -> None:
    job = {"id": "11111111-1111-4111-8111-111111111111", "status": "finished", "tag": "r", "created_at": created}
    vendor = Vendor(lambda _: Response(200, {}, json.dumps({"data": [{**job, "tasks": []}]}).encode()))
    error = tb.SubmitUncertain("it may have been accepted")
    error.recovery_token = {"provider": "cloudconvert", "connection": "cloudconvert", "tag": "r", "time": sent}
    error.recovery_token["reference"] = "r"
    with tb.connect("cloudconvert", api_key="some-key-0123", transport=vendor) as client:
        assert (client.recover(error) is None) == (sent > created)


@pytest.mark.parametrize("size", [10**400, 10**4000, -(10**400)], ids=["large", "larger", "negative"])
@pytest.mark.parametrize("driver", ["sync", "async"])
def test_a_file_of_any_stated_size_can_be_asked_for(driver: str, size: int, tmp_path: Path) -> None:
    """The scripted vendor sends nothing, so the file is not what was stated."""
    file = TaskFile(name="a", url="https://example.com/a", size=size)
    vendor = Vendor(lambda _: Response(200, {}, b""))

    async def run() -> Path:
        async with aio.connect("cloudconvert", api_key="some-key-0123", transport=vendor) as client:
            return await client.download(file, tmp_path / "a", max_bytes=None)

    if driver == "async":
        with pytest.raises(tb.TruncatedResponse):
            asyncio.run(run())
        return
    client = tb.connect("cloudconvert", api_key="some-key-0123", transport=vendor)
    with client, pytest.raises(tb.TruncatedResponse):
        client.download(file, tmp_path / "a", max_bytes=None)


EDGES: Final = ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00")


@pytest.mark.parametrize("moment", EDGES)
def test_a_time_that_does_not_exist_in_utc_is_refused_by_name(moment: str) -> None:
    with tb.connect("scan-documents", api_key="some-key-0123", transport=vendor_of("completed")) as client:
        values = client.get("task_1").to_dict()
    with pytest.raises(tb.InvalidInput, match=r"created_at: .*in UTC, the time is not in the years 1 to 9999"):
        tb.Task.from_dict({**values, "created_at": moment})


@pytest.mark.parametrize("moment", EDGES)
def test_a_delivery_may_come_at_any_time(moment: str) -> None:
    client = tb.connect("cloudconvert", api_key="some-key-0123", webhook_secrets=["some-secret-0123"])
    with client, pytest.raises(tb.WebhookRejected):
        client.parse_webhook({}, b"{}", now=datetime.fromisoformat(moment))


def test_a_rate_is_at_least_one_request_a_day() -> None:
    for rate in (5e-324, 1e-300, 0.0):
        with pytest.raises(tb.ConfigError, match="requests_per_second"):
            tb.connect("scan-documents", api_key="some-key-0123", requests_per_second=rate)


@pytest.mark.parametrize("timeout", ["1e10", "1e308", "inf", str(sys.maxsize)])
def test_any_large_number_of_seconds_is_an_option(timeout: str) -> None:
    option = click.Option(["--timeout"])
    assert parse_seconds(click.Context(click.Command("wait")), option, timeout) == 366 * 86_400.0
