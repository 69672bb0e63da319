"""A vendor that answers a submission with the result and keeps no task: a ref that cannot be resumed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request as HttpRequest
from starlette.responses import Response as HttpResponse

import taskbridge as tb
from taskbridge import aio
from taskbridge.emulator import Emulator, Plan
from taskbridge.emulator.helpers import multipart_parts, to_json
from taskbridge.models import Task, TaskFailure, TaskResult, TaskStatus
from taskbridge.provider import PLAIN_ID, Flow, IdKind, Submission
from taskbridge.testing import ProviderConformance

from .plain import PlainEmulator, PlainProvider, refuse


class ImmediateProvider(PlainProvider):
    """The task's id is the submission's reference, since the vendor gives none."""

    capabilities = replace(
        PlainProvider.capabilities, kinds=(IdKind(PLAIN_ID, example="taskbridge-5f0c", resumable=False),)
    )

    def submit(self, submission: Submission) -> Flow[Task]:
        response = yield self.request("POST", "/read", body=self.body(submission), starts_work=True)
        payload = self.payload(response)
        failed = payload.maybe_text("problem") is not None
        return Task(
            provider=self.name,
            connection=self.connection,
            id=submission.reference,
            native_id=submission.reference,
            observed_at=payload.observed_at,
            status=TaskStatus.FAILED if failed else TaskStatus.COMPLETED,
            error=TaskFailure(message=payload.maybe_message("problem")) if failed else None,
            result=None if failed else TaskResult(text=payload.text("text")),
            raw=payload.raw,
        )

    def get(self, task_id: str) -> Flow[Task]:
        raise self.not_resumable(task_id)


class ImmediateEmulator(PlainEmulator):
    """Answers each document at once."""

    def calls(self) -> list[tuple[str, str, Callable[..., Any]]]:
        return [("POST", "/read", self.read)]

    def samples(self) -> Mapping[str, str]:
        return {}

    async def read(self, request: HttpRequest) -> HttpResponse:
        parts = dict(multipart_parts(await request.body(), request.headers.get("content-type", "")))
        if "file" not in parts:
            raise refuse(422, "no document")
        if self.host.take_plan(parts["file"].filename or "").outcome == "failed":
            return to_json({"problem": "it cannot be read"})
        return to_json({"text": f"{len(parts['file'].data)} bytes"})


class TestEndsWithSubmit(ProviderConformance):
    provider = ImmediateProvider
    emulator_class = ImmediateEmulator


@pytest.fixture
def vendor() -> Iterator[Emulator]:
    with Emulator(vendors={"plain": ImmediateEmulator}) as emulator:
        yield emulator


def test_a_task_has_ended_with_its_submission_and_needs_no_request_more(vendor: Emulator, tmp_path: Path) -> None:
    with tb.connect(ImmediateProvider, **vendor.settings()) as client:
        task = client.submit("extract-text", b"words")
        stored = tb.Task.from_dict(task.to_dict())
        updates: list[Task] = []
        assert client.wait(stored, on_update=updates.append) == task
        assert [outcome.unwrap() for outcome in client.as_completed([stored, task])] == [task, task]
        assert [outcome.task for outcome in client.watch([task])] == [task]
        assert (client.result(stored).text, stored.resumable, task.to_dict()["resumable"]) == ("5 bytes", False, False)
        [path] = client.download(stored, tmp_path)
        assert path.read_text() == "5 bytes"
        vendor.plan_next(None, Plan(outcome="failed"))
        failed = client.submit("extract-text", b"words")
        with pytest.raises(tb.TaskFailed, match="it cannot be read"):
            client.result(failed)
    assert vendor.count() == 2


def test_its_ref_in_another_process_is_refused_before_anything_is_sent(vendor: Emulator, tmp_path: Path) -> None:
    with tb.connect(ImmediateProvider, **vendor.settings()) as client:
        ref = client.submit("extract-text", b"words").ref
    with tb.connect(ImmediateProvider, **vendor.settings()) as other:
        calls: list[Callable[[], object]] = [
            lambda: other.get(ref),
            lambda: other.wait(ref),
            lambda: other.result(ref),
            lambda: other.download(ref, tmp_path),
            other.wait_all([ref])[0].unwrap,
            other.wait_all([ref, ref], timeout=0)[1].unwrap,
        ]
        for call in calls:
            with pytest.raises(tb.UnsupportedFeature, match=r"it ended with the response to its submission") as caught:
                call()
            assert caught.value.ref == ref
        with pytest.raises(tb.UnsupportedFeature, match=r"cannot cancel a task; it offers submit, download"):
            other.cancel(ref)
    assert vendor.count() == 1


def test_the_asynchronous_client_says_the_same(vendor: Emulator) -> None:
    async def use() -> None:
        async with aio.connect(ImmediateProvider, **vendor.settings()) as client:
            task = await client.submit("extract-text", b"words")
            assert await client.wait(task) == task
            assert [outcome.task for outcome in await client.wait_all([task])] == [task]
            assert (await client.result(task)).text == "5 bytes"
            with pytest.raises(tb.UnsupportedFeature):
                await client.get(task.ref)

    asyncio.run(use())
    assert vendor.count() == 1
