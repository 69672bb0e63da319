"""A vendor that says when to ask again, holds requests, and tells states by the HTTP status: 202 running, 200 over."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any, Final

import pytest
from starlette.requests import Request as HttpRequest
from starlette.responses import Response as HttpResponse

import taskbridge as tb
from taskbridge.emulator import Emulator, Plan
from taskbridge.emulator.helpers import JsonObject, to_json
from taskbridge.models import Task, TaskFailure, TaskResult, TaskStatus
from taskbridge.provider import Flow, StateTable, Submission, path_id
from taskbridge.provider.http import Response
from taskbridge.testing import ProviderConformance, VirtualClock

from .plain import PlainEmulator, PlainProvider, PlainTask

STATES: Final[StateTable] = {
    "202": (TaskStatus.PROCESSING, None),
    "200": (TaskStatus.COMPLETED, None),  # or failed, if there is a `fault`
}
LONGEST: Final = 60.0  # seconds that the vendor asks to wait, and that it holds a request
CHECK_INTERVAL: Final = 0.005  # seconds of real time between two checks of a request that is held


class AskedProvider(PlainProvider):
    """``Retry-After`` while a task is queued, ``ask_in`` in the body while it is processed."""

    def submit(self, submission: Submission) -> Flow[Task]:
        return self.read((yield self.request("POST", "/tasks", body=self.body(submission), starts_work=True)))

    def get(self, task_id: str) -> Flow[Task]:
        return self.read((yield self.request("GET", f"/tasks/{path_id(task_id)}")), task_id)

    def read(self, response: Response, task_id: str | None = None) -> Task:
        payload = self.payload(response)
        if (pause := payload.maybe_number("ask_in")) is not None:
            response.retry_after = pause
        word, fault = str(response.status), payload.maybe_child("fault")
        state = self.state(STATES, word)
        status = TaskStatus.FAILED if word == "200" and fault is not None else state.status
        failure = TaskFailure(message=None if fault is None else fault.maybe_message("text"))
        return Task(
            provider=self.name,
            connection=payload.connection,
            observed_at=payload.observed_at,
            id=task_id or payload.identifier("id"),
            native_id=payload.identifier("id"),
            status=status,
            recognized=state.recognized,
            native_status=word,
            error=failure if status is TaskStatus.FAILED else None,
            result=TaskResult(text=payload.maybe_text("text")) if status is TaskStatus.COMPLETED else None,
            raw=payload.raw,
        )


class HeldProvider(AskedProvider):
    """``hold`` keeps a request open until the task is over, or for that long; it may then be held again."""

    capabilities = replace(AskedProvider.capabilities, long_poll=True)

    def long_poll(self, task_id: str) -> Flow[Task]:
        path, params = f"/tasks/{path_id(task_id)}", {"hold": f"{LONGEST:g}"}
        return self.read((yield self.request("GET", path, params=params, long_poll=LONGEST + 15.0)), task_id)


class AskedEmulator(PlainEmulator):
    """Says when to ask again, at most a minute ahead, where it does not hold the request."""

    async def create(self, request: HttpRequest) -> HttpResponse:
        created = await super().create(request)
        return self.respond(self.tasks[next(reversed(self.tasks))]) if created.status_code == 201 else created

    async def status(self, request: HttpRequest) -> HttpResponse:
        task = self.find(request)
        hold = min(float(request.query_params.get("hold", 0)), LONGEST)
        until = self.host.clock.time() + hold
        while self.is_running(task) and self.host.clock.time() < until and not await request.is_disconnected():
            await self.host.clock.hold(CHECK_INTERVAL)
        return self.respond(task, says_when=hold == 0)

    def is_running(self, task: PlainTask) -> bool:
        return task.life.phase(self.host.clock.time()) != "ended"

    def respond(self, task: PlainTask, *, says_when: bool = True) -> HttpResponse:
        shown: JsonObject = {"id": task.id}
        if not self.is_running(task):
            failed = task.life.plan.outcome == "failed"
            return to_json({**shown, **({"fault": {"text": "cracked"}} if failed else {"text": self.text(task)})})
        now, life = self.host.clock.time(), task.life
        is_queued = life.phase(now) == "queued"
        pause = min((life.started_at if is_queued else life.finished_at) - now, LONGEST)
        if not says_when or pause < 1.0:
            return to_json(shown, 202)
        if not is_queued:
            return to_json({**shown, "ask_in": round(pause, 1)}, 202)
        response = to_json(shown, 202)
        response.headers["Retry-After"] = str(round(pause))
        return response


class TestSaysWhenToAsk(ProviderConformance):
    provider = HeldProvider
    emulator_class = AskedEmulator


def connect(vendor: Emulator, provider: type[AskedProvider], plan: Plan, **settings: Any) -> tb.Client:
    vendor.plan_next("plain", plan)
    return tb.connect(provider, **vendor.settings(), **settings)


@pytest.fixture
def vendor(taskbridge_clock: VirtualClock) -> Any:
    with Emulator(vendors={"plain": AskedEmulator}, clock=taskbridge_clock) as emulator:
        yield emulator


def test_it_is_not_asked_before_the_time_that_it_said(vendor: Emulator) -> None:
    with connect(vendor, AskedProvider, Plan(queued=90, working=45), poll={"interval": 1.0}) as client:
        task = client.wait(client.submit("extract-text", b"a document"))
    assert (task.status, task.native_status) == ("completed", "200")
    pauses = [after.time - before.time for before, after in pairwise(vendor.requests)]
    # One after the submission; then the two times of the queue (60 and the rest), and that of the processing.
    assert pauses[1:] == pytest.approx([60.0, 30.0 - pauses[0], 45.0], abs=1.5)


def test_a_held_request_is_repeated_until_the_task_is_over(vendor: Emulator) -> None:
    with connect(vendor, HeldProvider, Plan(queued=0, working=150)) as client:
        client.wait(client.submit("extract-text", b"a document"))
    assert [request.status for request in vendor.requests if "hold" in request.query] == [202, 202, 200]


def test_a_wait_that_times_out_shows_a_running_task(vendor: Emulator) -> None:
    with (
        connect(vendor, AskedProvider, Plan(queued=0, outcome="stuck")) as client,
        pytest.raises(tb.WaitTimeout) as caught,
    ):
        client.wait(client.submit("extract-text", b"a document"), timeout=300.0)
    assert caught.value.task is not None
    assert (caught.value.task.status, caught.value.task.native_status) == ("processing", "202")
