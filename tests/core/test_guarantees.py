"""Promises that concern several parts at once: permits, spans, refusals, late events, the snapshot of a wait."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest

import taskbridge as tb
from taskbridge import Capabilities, aio
from taskbridge._polling.scheduler import PollScheduler
from taskbridge.events import CallEnded
from taskbridge.provider import Flow, IdKind, Listing, Page, Query, Request, Response
from taskbridge.testing import ScriptedTransport

from .conftest import Acme, AcmeHarness, Maker

Says = Callable[..., Response]
URL = "https://example.com/a.pdf"
SMART: dict[str, Any] = {"access_token": "token-of-a-test", "base_url": "http://127.0.0.1:9/api"}


def refused(_request: Request) -> Response:
    return Response(401, {}, b"{}")


def snapshot(harness: AcmeHarness, status: tb.TaskStatus) -> tb.Task:
    return tb.Task(
        provider="acme",
        connection="acme",
        id="t1",
        native_id="t1",
        status=status,
        native_status=str(status),
        observed_at=harness.clock.now(),
    )


# What a wait has seen.


@pytest.mark.parametrize("first", [Response(404, {}, b"{}"), Response(200, {}, b'{"id": "t9", "state": "working"}')])
def test_a_wait_that_times_out_holds_what_it_saw_after_asking_again(acme: Maker, says: Says, first: Response) -> None:
    responses = iter([first])
    harness = acme(lambda _: next(responses, says("t1", "working")), poll={"interval": 10})
    harness.connection.note_submitted(snapshot(harness, tb.TaskStatus.PROCESSING))
    with pytest.raises(tb.WaitTimeout) as caught:
        harness.client.wait("t1", timeout=5.0)
    assert caught.value.task is not None
    assert caught.value.task.native_status == "working"


# How a call ended.


def test_observers_see_that_a_submit_was_stopped_by_its_caller() -> None:
    events: list[Any] = []

    def unavailable(_token: Mapping[str, Any]) -> None:
        raise RuntimeError("the database is down")

    with tb.connect("smartdocumentor", transport=ScriptedTransport([]), **SMART) as client:
        client.observe(events.append)
        with pytest.raises(RuntimeError):
            client.submit("extract-text", URL, before_submit=unavailable)
    assert [str(each.error) for each in events if isinstance(each, CallEnded)] == ["the database is down"]


def test_observers_see_that_a_submit_was_cancelled() -> None:
    events: list[Any] = []

    class Silent:
        def __init__(self) -> None:
            self.sending = asyncio.Event()

        async def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
            self.sending.set()
            await asyncio.Event().wait()
            raise AssertionError(request, deadline, max_body)

        async def close(self) -> None: ...

    async def run() -> None:
        transport = Silent()
        async with aio.connect("smartdocumentor", transport=transport, **SMART) as client:
            client.observe(events.append)
            task = asyncio.ensure_future(client.submit("extract-text", URL))
            await transport.sending.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    ended = [each.error for each in events if isinstance(each, CallEnded)]
    assert [type(error) for error in ended] == [asyncio.CancelledError]


# A refused credential.


def test_a_poll_of_a_refused_connection_gives_its_permit_back(acme: Maker, says: Says) -> None:
    harness = acme(lambda _: says("t1", "working"), requests_per_second=0.1)
    scheduler = PollScheduler()
    scheduler.add(harness.connection, "t1", harness.clock.monotonic())
    command = scheduler.next(harness.clock.monotonic())
    harness.connection.credentials.refusal = tb.AuthenticationError("no")
    result = harness.client._runtime.poll(command)  # type: ignore[arg-type]  # the scheduler's first command polls
    assert isinstance(result, tb.AuthenticationError)
    assert harness.connection.throttle.take(harness.clock.monotonic()).granted


def test_looking_up_a_client_does_not_lift_a_refusal(acme: Maker) -> None:
    harness = acme(refused)
    with tb.Bridge({"acme": harness.connection}, clock=harness.clock, transport=harness.transport) as bridge:
        with pytest.raises(tb.AuthenticationError):
            bridge.get("acme:t1")
        assert bridge["acme"].stats()["acme"].is_refused


def test_a_refused_result_names_its_task(acme: Maker) -> None:
    class WithResult(Acme):
        def result(self, task: tb.Task) -> Flow[tb.TaskResult]:
            response = yield self.request("GET", f"/tasks/{task.native_id}/result")
            return tb.TaskResult(data=self.payload(response).raw)

    harness = acme(refused, provider=WithResult)
    with pytest.raises(tb.AuthenticationError) as caught:
        harness.client.result(snapshot(harness, tb.TaskStatus.COMPLETED))
    assert caught.value.ref == "acme:t1"


def test_clients_of_one_connection_renew_the_credential_once(
    acme: Maker, says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The vendor blocks a thread in real time, for which no virtual time passes, however busy the computer is.
    monkeypatch.setattr("taskbridge.testing.clock._BLOCKED_AFTER", 60.0)
    renewing, waiting = threading.Event(), threading.Event()
    tokens: list[Request] = []

    def vendor(request: Request) -> Response:
        if not request.url.endswith("/token"):
            return says("t1", "done")
        tokens.append(request)
        renewing.set()
        assert waiting.wait(30.0)
        return Response(200, {}, b'{"token": "token-of-acme"}')

    harness = acme(vendor, token_life=3600.0)
    clients = [tb.Client(harness.connection, transport=ScriptedTransport(vendor)) for _ in range(2)]
    threads = [threading.Thread(target=client.get, args=("t1",)) for client in clients]
    threads[0].start()
    assert renewing.wait(30.0)
    threads[1].start()
    waiting.set()
    for thread in threads:
        thread.join(30.0)
    assert len(tokens) == 1


# Late events.


@pytest.fixture
def listed(acme: Maker, says: Says) -> AcmeHarness:
    class Listed(Acme):
        capabilities: ClassVar[Capabilities] = dataclasses.replace(Acme.capabilities, listing=Listing(10))

        def list_page(self, query: Query, cursor: str | None) -> Flow[Page]:  # noqa: ARG002  # one page, unfiltered
            response = yield self.request("GET", "/tasks")
            return Page((self.task(self.payload(response), "t1"),))

    return acme(lambda _: says("t1", "done"), provider=Listed)


@pytest.mark.parametrize("call", ["list", "get"])
def test_an_event_does_not_reopen_a_task_that_is_known_to_have_ended(listed: AcmeHarness, call: str) -> None:
    _ = list(listed.client.list()) if call == "list" else listed.client.get("t1")
    late = tb.WebhookEvent(
        provider="acme",
        connection="acme",
        type="progress",
        duplicate_key="1",
        needs_confirmation=False,
        ref=tb.TaskRef("acme:t1"),
        task=snapshot(listed, tb.TaskStatus.PROCESSING),
        raw=json.loads("{}"),
    )
    ingested = listed.client.ingest(late)
    assert ingested.task is None or ingested.task.is_terminal


# A provider's own rule for ids, a closed bridge, a status given as text.


def test_a_provider_can_override_split_id(acme: Maker) -> None:
    class Strict(Acme):
        def split_id(self, task_id: str) -> tuple[IdKind, str]:
            if task_id == "t13":
                raise tb.InvalidTaskId("no task has the number 13")
            return super().split_id(task_id)

    with pytest.raises(tb.InvalidTaskId, match="number 13"):
        acme(provider=Strict).client.get("t13")


def test_a_closed_bridge_is_called_a_bridge(acme: Maker) -> None:
    harness = acme()
    bridge = tb.Bridge({"acme": harness.connection}, clock=harness.clock, transport=harness.transport)
    bridge.close()
    with pytest.raises(tb.ConfigError, match="this Bridge is closed"):
        bridge.wait_all(["acme:t1"])


def test_a_wait_that_begins_after_the_bridge_was_closed_says_so(acme: Maker) -> None:
    harness = acme()
    bridge = tb.Bridge({"acme": harness.connection}, clock=harness.clock, transport=harness.transport)
    outcomes = bridge.as_completed(["acme:t1"])
    bridge.close()
    with pytest.raises(tb.ConfigError, match="this Bridge is closed"):
        next(outcomes)


def test_a_status_given_as_text_counts(acme: Maker) -> None:
    task = dataclasses.replace(snapshot(acme(), tb.TaskStatus.FAILED), status="failed")  # type: ignore[arg-type]
    assert task.is_terminal
    with pytest.raises(tb.TaskFailed):
        tb.Outcome(task.ref, task).unwrap()
