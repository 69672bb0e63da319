"""A program that uses the whole public interface; it is type-checked and never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, assert_type

import taskbridge as tb
from taskbridge import aio
from taskbridge.errors import TransportError
from taskbridge.events import Event, ObservationSource, PollReason
from taskbridge.layout import Box, DocumentField, DocumentPage
from taskbridge.progress import ProgressTracker
from taskbridge.provider import (
    PLAIN_ID,
    Credential,
    Flow,
    IdKind,
    Payload,
    Provider,
    ProviderSettings,
    Request,
    Response,
    read_json,
)
from taskbridge.testing import AsyncScriptedTransport, Emulator, ScriptedTransport, VirtualClock


def one(client: tb.Client) -> None:
    task = assert_type(client.get("t1"), tb.Task)
    assert_type(client.get(task), tb.Task)
    assert_type(client.get(task.ref), tb.Task)
    assert_type(client.wait(task, timeout=None, on_update=print), tb.Task)
    assert_type(client.result("t1", timeout=3.0), tb.TaskResult)
    assert_type(client.download(task, Path("out")), tuple[Path, ...])
    assert_type(client.download("t1", "out", max_bytes=9, on_progress=print, overwrite=True), tuple[Path, ...])
    assert_type(client.download(tb.TaskFile(url="https://example.com/a"), "out/"), Path)
    assert_type(client.download(task, tb.StorageUrl("s3://bucket/out")), tuple[tb.StorageUrl, ...])
    assert_type(client.download(tb.TaskFile(), tb.StorageUrl("s3://bucket/out")), tb.StorageUrl)
    assert_type(client.read(tb.TaskFile(), max_bytes=9), bytes)
    assert_type(client.open(tb.TaskFile(), max_bytes=None), BinaryIO)
    assert_type(client.account(), tb.Account)
    assert_type(client.operations("convert", input_format="docx"), tuple[tb.OperationInfo, ...])
    assert_type(client.delete(task), None)
    assert_type(client.delete(tb.TaskFile(id="file_1")), None)
    assert_type(client.mark(task, "taken"), None)
    assert_type(client.webhooks(), tuple[tb.WebhookEndpoint, ...])
    assert_type(client.add_webhook("https://example.com/"), tb.WebhookEndpoint)
    assert_type(client.remove_webhook("w1"), None)
    assert_type(client.stats()["c"].usage, Mapping[tb.UsageUnit, float])
    assert_type(client.name, str)
    assert_type(client.capabilities, tb.Capabilities)
    assert_type(client.close(), None)


def many(client: tb.Client, ids: Iterator[str]) -> None:
    assert_type(client.wait_all(ids), tb.Outcomes)
    assert_type(client.as_completed(["a", tb.TaskRef("c:a")], timeout=9), Iterator[tb.Outcome])
    assert_type(client.watch(ids), Iterator[tb.Outcome])
    for outcome in client.as_completed(ids):
        assert_type(outcome.ref, tb.TaskRef)
        assert_type(outcome.error, tb.TaskbridgeError | None)
        assert_type(outcome.unwrap(), tb.Task)


def model(task: tb.Task) -> None:
    assert_type(task.status, tb.TaskStatus)
    assert_type(task.reason, tb.Reason | None)
    assert_type(task.native_id, str | int)
    assert_type(task.progress, float | None)
    assert_type(task.created_at, datetime | None)
    assert_type(task.observed_at, datetime)
    assert_type(task.result, tb.TaskResult | None)
    assert_type(task.error, tb.TaskFailure | None)
    assert_type(task.subtasks, tuple[tb.Task, ...])
    assert_type(task.usage, tb.Usage | None)
    assert_type(task.raw, Mapping[str, Any])
    assert_type(task.ref.connection, str)
    assert_type(task.to_dict(), dict[str, Any])
    assert_type(tb.Task.from_dict({}), tb.Task)
    assert_type(tb.TaskResult.from_dict({}), tb.TaskResult)
    assert_type(tb.Task.json_schema(), dict[str, Any])
    assert_type(replace(task, progress=0.5), tb.Task)
    if task.result is not None:
        assert_type(task.result.files, tuple[tb.TaskFile, ...])
        assert_type(task.result.text, str | None)
        assert_type(task.result.fields[0], DocumentField)
        for page in task.result.pages:
            assert_type(page, DocumentPage)
            assert_type(page.tables[0].rows[0][0].box, Box | None)
        assert_type(task.result.pages[1:], tuple[DocumentPage, ...])


def failures(client: tb.Client) -> float | None:
    try:
        client.result("t1")
    except tb.TaskFailed as error:
        assert_type(error.task, tb.Task)
    except tb.WaitTimeout as error:
        assert_type(error.task, tb.Task | None)
        assert_type(error.last_error, tb.TaskbridgeError | None)
    except tb.RateLimited as error:
        return error.retry_after
    except TransportError as error:
        assert_type(error.written, bool)
    except tb.TaskbridgeError as error:
        assert_type(error.vendor_code, str | None)
    return None


def clients() -> tb.Client:
    with tb.connect("cloudconvert", api_key="k", poll={"interval": 1.0}) as client:
        assert_type(client, tb.Client)
    with tb.Bridge.from_config(Path("taskbridge.toml")) as bridge:
        assert_type(bridge["invoices"], tb.Client)
        assert_type(bridge.get("invoices:t1"), tb.Task)
        assert_type(bridge.wait_all(["invoices:t1"]), tb.Outcomes)
        assert_type(bridge.connections, tuple[str, ...])
        assert_type(bridge.download("a:t1", "out"), tuple[Path, ...])
    return tb.connect(connection="invoices", config="taskbridge.toml")


async def asynchronous(ids: list[str]) -> None:
    async with aio.connect("cloudconvert", api_key="k") as client:
        assert_type(await client.get("t1"), tb.Task)
        assert_type(await client.wait("t1", timeout=None), tb.Task)
        assert_type(await client.result("t1"), tb.TaskResult)
        assert_type(await client.download("t1", "out"), tuple[Path, ...])
        assert_type(await client.download(tb.TaskFile(), "out"), Path)
        assert_type(await client.download("t1", tb.StorageUrl("s3://bucket/out")), tuple[tb.StorageUrl, ...])
        assert_type(await client.read(tb.TaskFile()), bytes)
        assert_type(await client.open(tb.TaskFile()), BinaryIO)
        assert_type(await client.wait_all(ids), tb.Outcomes)
        assert_type(client.as_completed(ids), AsyncIterator[tb.Outcome])
        async for outcome in client.watch(ids):
            assert_type(outcome.task, tb.Task | None)
    async with aio.Bridge.from_config() as bridge:
        assert_type(bridge["a"], aio.Client)


def observers(client: tb.Client, event: Event) -> None:
    with client.observe(print):
        assert_type(event.record(), dict[str, Any])
    if isinstance(event, tb.Observation):
        assert_type(event.poll_reason, PollReason)
        assert_type(event.source, ObservationSource)
        assert_type(event.requests, tuple[tb.RequestEnded, ...])
        assert_type(event.detection_delay, float | None)
    tracker = ProgressTracker()
    assert_type(client.wait("t1", on_update=tracker), tb.Task)
    assert_type(tracker.done, float)


def installed() -> list[str]:
    return [info.name for info in tb.providers() if info.problem is None and info.capabilities is not None]


def policies() -> tuple[tb.PollPolicy, tb.RetryPolicy]:
    return tb.PollPolicy(latency=2.0), tb.RetryPolicy(attempts=2)


class AcmeSettings(ProviderSettings):
    """Settings that a plugin author defines."""

    base_url: str = "https://acme.test"


class Acme(Provider[AcmeSettings]):
    """A provider that a plugin author writes."""

    name = "acme"
    title = "Acme"
    docs = "https://acme.test"
    Settings = AcmeSettings
    capabilities = tb.Capabilities(kinds=(IdKind(PLAIN_ID),), authentication="none")

    def authorize(self) -> Flow[Credential]:
        response = yield Request("POST", "https://acme.test/token", authorized=False)
        return Credential({"X-Token": self.payload(response).text("token")})

    def get(self, task_id: str) -> Flow[tb.Task]:
        response = yield self.request("GET", f"/tasks/{task_id}")
        return self.task(self.payload(response), task_id)

    def task(self, payload: Payload, task_id: str) -> tb.Task:
        state = self.state({"done": (tb.TaskStatus.COMPLETED, None)}, payload.text("state"))
        return tb.Task(
            provider=self.name,
            connection=payload.connection,
            id=task_id,
            native_id=payload.text("id"),
            status=state.status,
            recognized=state.recognized,
            observed_at=payload.observed_at,
            raw=payload.raw,
        )


def submissions(client: tb.Client, tokens: list[Mapping[str, Any]]) -> None:
    task = assert_type(client.submit("extract-text", b"%PDF", before_submit=tokens.append), tb.Task)
    lost = tb.SubmitUncertain("the process was killed", recovery_token=tokens[0])
    assert_type(client.recover(lost), tb.Task | None)
    assert_type(client.recover(lost, Path("a.pdf")), tb.Task | None)
    assert_type(task.ref, tb.TaskRef)


async def asynchronous_submissions(client: aio.Client) -> None:
    async def keep(recovery_token: Mapping[str, Any]) -> None:
        assert_type(recovery_token, Mapping[str, Any])

    assert_type(await client.submit("extract-text", "a.pdf", before_submit=keep), tb.Task)
    assert_type(await client.submit("extract-text", "a.pdf", before_submit=print), tb.Task)


def testing_helpers() -> None:
    assert_type(VirtualClock(pinned=0.5).now(), datetime)
    ScriptedTransport([Response(200, {}, b"{}"), tb.ConnectFailed("no")])
    AsyncScriptedTransport(lambda request: Response(200, {}, request.url.encode()))
    with Emulator("cloudconvert", speed=10) as emulator:
        assert_type(emulator.samples(), dict[str, str])
    assert_type(read_json(b"{}"), Any)
