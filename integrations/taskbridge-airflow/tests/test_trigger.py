"""The trigger, and the poller that all triggers of an event loop share."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

import taskbridge as tb
from taskbridge.emulator import Plan
from taskbridge.testing import Emulator
from taskbridge_airflow import _poller
from taskbridge_airflow.hooks import TaskbridgeHook
from taskbridge_airflow.triggers import TaskbridgeTrigger

from .conftest import PNG, connection_json


async def fire(trigger: BaseTrigger) -> dict[str, Any]:
    """Run a trigger as a triggerer does, from what is stored of it, and return the payload of its event."""
    _, arguments = trigger.serialize()
    again = TaskbridgeTrigger(**json.loads(json.dumps(arguments)))
    payloads = [event.payload async for event in again.run()]
    (payload,) = payloads
    assert json.loads(json.dumps(payload)) == payload
    found: dict[str, Any] = payload
    return found


def pollers() -> dict[str, _poller.Poller]:
    return _poller._POLLERS.get(asyncio.get_running_loop(), {})


def submit(conn_id: str, count: int = 1) -> list[str]:
    with TaskbridgeHook(conn_id).get_conn() as client:
        return [str(client.submit("convert", b"%PDF-1.7", to="docx", name="a.pdf").ref) for _ in range(count)]


def test_it_fires_at_the_end_and_shows_no_link(connect: Callable[..., str], emulator: Emulator) -> None:
    conn_id = connect()
    (ref,) = submit(conn_id)
    event = asyncio.run(fire(TaskbridgeTrigger(conn_id, ref)))
    assert event["ref"] == ref
    assert event["error"] is None
    assert event["task"]["status"] == "completed"
    assert event["task"]["result"]["files"][0]["name"] == "a.docx"
    text = json.dumps(event)
    assert "http://" not in text
    assert '"raw"' not in text
    assert emulator.settings("cloudconvert")["api_key"] not in text


def test_a_failure_is_an_event_too(connect: Callable[..., str], emulator: Emulator) -> None:
    conn_id = connect()
    emulator.plan_next("cloudconvert", *[Plan(outcome="failed")] * 3)
    (ref,) = submit(conn_id)
    event = asyncio.run(fire(TaskbridgeTrigger(conn_id, ref)))
    assert event["task"]["status"] == "failed"


@pytest.mark.parametrize(
    ("ref", "kind"),
    [
        ("cloudconvert:job/00000000-0000-0000-0000-000000000000", "TaskNotFound"),
        ("scan-documents:task_1", "InvalidTaskId"),
    ],
)
def test_a_task_that_the_vendor_cannot_have_is_an_error(ref: str, kind: str, connect: Callable[..., str]) -> None:
    event = asyncio.run(fire(TaskbridgeTrigger(connect(), ref)))
    assert event["error"]["type"] == kind
    assert event["task"] is None


def test_a_connection_that_cannot_be_used_is_an_error(connect: Callable[..., str]) -> None:
    event = asyncio.run(fire(TaskbridgeTrigger(connect(nonsense=1), "cloudconvert:job/1")))
    assert event["error"]["type"] == "ConfigError"


def test_the_deadline_ends_the_wait_with_the_last_state(
    connect: Callable[..., str], emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskbridge_airflow.triggers._LEAST_WAIT", 0.5)
    conn_id = connect()
    emulator.plan_next("cloudconvert", *[Plan(outcome="stuck")] * 3)
    (ref,) = submit(conn_id)
    event = asyncio.run(fire(TaskbridgeTrigger(conn_id, ref, deadline=time.time() - 1.0)))
    assert event["error"]["type"] == "WaitTimeout"
    assert event["task"]["status"] in ("pending", "processing")
    assert event["task"]["status"] in event["error"]["message"]


async def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition, which another asyncio task or the emulator fulfills."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.02)


def test_triggers_of_one_connection_share_a_poller_and_the_last_one_closes_it(
    connect: Callable[..., str], emulator: Emulator
) -> None:
    conn_id = connect()

    async def run(refs: list[str]) -> list[dict[str, Any]]:
        with TaskbridgeHook(conn_id).get_conn() as client:
            waits = [asyncio.create_task(fire(TaskbridgeTrigger(conn_id, ref))) for ref in [*refs, refs[0]]]
            await until(lambda: sum(each.users for each in pollers().values()) == len(waits))
            (poller,) = pollers().values()
            for ref in refs:
                await asyncio.to_thread(client.cancel, ref)
        events = await asyncio.gather(*waits)
        assert len(pollers()) == 0
        assert not poller.is_running
        return events

    for _ in range(2):  # each run has an event loop of its own
        emulator.plan_next("cloudconvert", *[Plan(outcome="stuck")] * 9)
        refs = submit(conn_id, 3)
        events = asyncio.run(run(refs))
        assert [event["ref"] for event in events] == [*refs, refs[0]]
        assert {event["task"]["status"] for event in events} == {"failed"}


def test_other_settings_have_a_poller_of_their_own(connect: Callable[..., str], emulator: Emulator) -> None:
    emulator.plan_next("cloudconvert", *[Plan(outcome="stuck")] * 3)
    (ref,) = submit(connect())

    async def run() -> None:
        waits: list[asyncio.Task[Any]] = []
        for suffix in ("old", "new"):
            conn_id = connect(user_agent_suffix=suffix)
            waits.append(asyncio.create_task(fire(TaskbridgeTrigger(conn_id, ref))))
            await until(lambda: len(pollers()) == len(waits))
        for each in waits:
            each.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        assert len(pollers()) == 0

    asyncio.run(run())


def test_a_canceled_trigger_stops_its_polls_and_not_those_of_others(
    connect: Callable[..., str], emulator: Emulator
) -> None:
    conn_id = connect("expertai-extract")  # it has no lists, so each poll names its task
    emulator.plan_next("expertai-extract", *[Plan(outcome="stuck")] * 2)
    with TaskbridgeHook(conn_id).get_conn() as client:
        refs = [str(client.submit("native:layout-document-async", b"%PDF-1.7", name="a.pdf").ref) for _ in range(2)]

    def polls(ref: str) -> int:
        return emulator.count(path_contains=ref.partition(":")[2])

    async def run() -> None:
        first, again, second = (
            asyncio.create_task(fire(TaskbridgeTrigger(conn_id, ref))) for ref in (refs[0], refs[0], refs[1])
        )
        await until(lambda: all(map(polls, refs)))
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        before = polls(refs[0])
        await until(lambda: polls(refs[0]) >= before + 2)  # the other trigger of this task still waits
        again.cancel()
        await asyncio.gather(again, return_exceptions=True)
        before, others = polls(refs[0]), polls(refs[1])
        await until(lambda: polls(refs[1]) >= others + 4)
        assert polls(refs[0]) <= before + 1  # one may have been on its way
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        assert len(pollers()) == 0

    asyncio.run(asyncio.wait_for(run(), 30))


def test_killing_the_task_cancels_it_if_asked_for(connect: Callable[..., str]) -> None:
    conn_id = connect()
    refs = submit(conn_id, 2)

    async def run() -> None:
        await TaskbridgeTrigger(conn_id, refs[0]).on_kill()
        await TaskbridgeTrigger(conn_id, refs[1], cancel_on_kill=True).on_kill()

    asyncio.run(run())
    with TaskbridgeHook(conn_id).get_conn() as client:
        assert [client.wait(ref, timeout=30).status for ref in refs] == ["completed", "failed"]


def test_five_hundred_triggers_share_the_rate_of_their_connection(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rate, count = 20.0, 500
    with Emulator("scan-documents", speed=0) as emulator:
        submit_to = tb.aio.connect("scan-documents", **emulator.settings())
        monkeypatch.setenv("AIRFLOW_CONN_SCANS", connection_json(emulator, "scan-documents", requests_per_second=rate))

        async def run() -> tuple[float, float]:
            async with submit_to as client:
                refs: list[str] = []
                while len(refs) < count:
                    calls = (client.submit("extract-text", PNG, name="a.png") for _ in range(10))
                    refs += [str(task.ref) for task in await asyncio.gather(*calls)]
            emulator.clear_requests()
            began, cpu = time.monotonic(), time.process_time()
            waits = [asyncio.create_task(fire(TaskbridgeTrigger("scans", ref))) for ref in refs]
            await until(lambda: emulator.count() >= 3 * rate)  # three seconds in which no task ends
            assert len(pollers()) == 1
            emulator.clock.advance(3600)
            events = await asyncio.gather(*waits)
            assert {event["task"]["status"] for event in events} == {"completed"}
            assert len(pollers()) == 0
            return time.monotonic() - began, time.process_time() - cpu

        elapsed, cpu = asyncio.run(run())
        requests = emulator.count()
    with capsys.disabled():
        print(f"\n{count} triggers: {requests} requests in {elapsed:.1f} s, {cpu:.1f} s CPU, the emulator's included")
    assert requests <= rate * elapsed + rate  # one second's worth may be saved up
