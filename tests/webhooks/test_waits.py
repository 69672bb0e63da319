"""An ingested end finishes the waits for that task at once, without another poll."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any, Final

import pytest

import taskbridge as tb
from taskbridge import TaskStatus
from taskbridge._engine.lookup import PollResult
from taskbridge._polling.scheduler import PollScheduler
from taskbridge.testing import Emulator

NOW: Final = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SVIX: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SECRET: Final = "b7Qd0c9yT2wX4mLr"

Connected = Callable[..., tb.Client]
Sign = Callable[..., dict[str, str]]
Event = Callable[..., bytes]
Eventually = Callable[..., None]


@contextmanager
def in_thread(call: Callable[[], Any]) -> Generator[list[Any]]:
    """Run a call in another thread; the list has its result after the block."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
    thread.start()
    yield results
    thread.join(5)
    assert not thread.is_alive()


def listeners_of(client: tb.Client) -> dict[Any, Any]:
    bus = client._connection.event_bus
    assert isinstance(bus, tb.MemoryEventBus)
    return bus._listeners


def polls(emulator: Emulator) -> int:
    return emulator.count(vendor="scan-documents", method="GET")


@pytest.fixture
def task(stopped: Emulator) -> str:
    return stopped.samples("scan-documents")["processing"]


@pytest.fixture
def ending(event: Event, svix_headers: Sign, task: str) -> Callable[[Any], tb.WebhookEvent]:
    """The vendor's event about the end of the task."""

    def parse(client: Any, kind: str = "task.completed") -> tb.WebhookEvent:
        body = event(kind, task, result={"content": "done"})
        parsed = client.parse_webhook(svix_headers(body), body, now=NOW)
        assert isinstance(parsed, tb.WebhookEvent)
        return parsed

    return parse


@pytest.mark.parametrize("kind", ["task.completed", "task.failed"])
def test_a_wait_in_another_thread_ends(
    kind: str, *, stopped: Emulator, connected: Connected, task: str, ending: Any, eventually: Eventually
) -> None:
    client = connected(stopped, "scan-documents", SVIX)
    with in_thread(lambda: client.wait(task)) as results:
        eventually(lambda: polls(stopped) == 1)
        began = monotonic()
        client.ingest(ending(client, kind))
    (ended,) = results
    assert monotonic() - began < 1.0  # the next poll is a minute away
    assert ended.status == kind.removeprefix("task.")
    assert polls(stopped) == 1
    assert listeners_of(client) == {}


def test_a_wait_with_on_update_reports_the_end(
    stopped: Emulator, connected: Connected, task: str, ending: Any, eventually: Eventually
) -> None:
    client = connected(stopped, "scan-documents", SVIX)
    updates: list[TaskStatus] = []
    with in_thread(lambda: client.wait(task, on_update=lambda seen: updates.append(seen.status))):
        eventually(lambda: polls(stopped) == 1 and bool(updates))
        client.ingest(ending(client))
    assert updates == [TaskStatus.PROCESSING, TaskStatus.COMPLETED]


def test_an_event_during_the_first_poll_ends_the_wait(
    stopped: Emulator, connected: Connected, task: str, ending: Any, eventually: Eventually
) -> None:
    client = connected(stopped, "scan-documents", SVIX)
    with in_thread(lambda: client.wait(task)) as results:
        eventually(lambda: bool(listeners_of(client)))
        client.ingest(ending(client))
    assert results[0].status is TaskStatus.COMPLETED
    assert polls(stopped) <= 1


def test_waits_for_many_end(
    stopped: Emulator, connected: Connected, task: str, ending: Any, eventually: Eventually
) -> None:
    client = connected(stopped, "scan-documents", SVIX)
    pending = stopped.samples("scan-documents")["pending"]
    with in_thread(lambda: next(iter(client.as_completed([pending, task, task])))) as results:
        eventually(lambda: polls(stopped) == 2)
        client.ingest(ending(client))
    (outcome,) = results
    assert outcome.ref == f"scan-documents:{task}"
    assert outcome.unwrap().status is TaskStatus.COMPLETED
    assert polls(stopped) == 2


def test_wait_all_over_the_same_task_ends_for_each(
    stopped: Emulator, connected: Connected, task: str, ending: Any, eventually: Eventually
) -> None:
    client = connected(stopped, "scan-documents", SVIX)
    with in_thread(lambda: client.wait_all([task] * 3)) as results:
        eventually(lambda: polls(stopped) == 1)
        client.ingest(ending(client))
    assert [outcome.unwrap().id for outcome in results[0]] == [task] * 3
    assert polls(stopped) == 1


def test_an_event_ingested_by_a_client_ends_the_waits_of_its_bridge(
    stopped: Emulator, task: str, ending: Any, tmp_path: Path, eventually: Eventually
) -> None:
    settings = stopped.settings("scan-documents")
    path = tmp_path / "taskbridge.toml"
    path.write_text(
        f'[connections.scan-documents]\nprovider = "scan-documents"\napi_key = "{settings["api_key"]}"\n'
        f'base_url = "{settings["base_url"]}"\nwebhook_secrets = ["{SVIX}"]\npoll = {{ interval = 60.0 }}\n'
    )
    with (
        tb.Bridge.from_config(path) as bridge,
        in_thread(lambda: bridge.wait_all([f"scan-documents:{task}"])) as results,
    ):
        eventually(lambda: polls(stopped) == 1)
        client = bridge["scan-documents"]
        client.ingest(ending(client))
        eventually(lambda: bool(results))
    assert results[0][0].unwrap().status is TaskStatus.COMPLETED
    assert polls(stopped) == 1


def test_an_event_before_the_end_triggers_a_poll(
    stopped: Emulator, connected: Connected, task: str, ending: Any, eventually: Eventually
) -> None:
    client = connected(stopped, "scan-documents", SVIX)
    with in_thread(lambda: client.wait(task)):
        eventually(lambda: polls(stopped) == 1)
        client.ingest(ending(client, "task.created"))
        eventually(lambda: polls(stopped) == 2)
        client.ingest(ending(client, "task.deleted"))  # the same event id: nothing more
        parsed = ending(client)
        client.ingest(replace(parsed, duplicate_key="another"))
    assert polls(stopped) == 2


def test_no_long_poll_is_used_when_a_webhook_is_expected(
    stopped: Emulator, connected: Connected, eventually: Eventually
) -> None:
    job = stopped.samples("cloudconvert")["job-running"]
    client = connected(stopped, "cloudconvert", SECRET)
    with in_thread(lambda: client.wait(job)) as results:
        eventually(lambda: stopped.count(vendor="cloudconvert") == 1)
        stopped.clock.advance(60)
        client._connection.event_bus.publish(client.get(job))
    assert results[0].status is TaskStatus.COMPLETED
    assert stopped.count(path_contains="cloudconvert-sync") == 0


def test_a_job_that_ended_ends_the_waits_for_its_tasks(
    stopped: Emulator, connected: Connected, eventually: Eventually
) -> None:
    client = connected(stopped, "cloudconvert", SECRET)
    job = client.get(stopped.samples("cloudconvert")["job-running"])
    part = job.subtasks[0].id
    stopped.clear_requests()
    event = tb.WebhookEvent(
        "cloudconvert", "cloudconvert", "job.finished", "once", needs_confirmation=True, ref=job.ref
    )
    with in_thread(lambda: client.wait(part)) as results:
        eventually(lambda: stopped.count(vendor="cloudconvert") == 1)
        stopped.clock.advance(60)
        client.ingest(event)
    assert (results[0].id, results[0].status) == (part, TaskStatus.COMPLETED)
    assert stopped.count(vendor="cloudconvert") == 2  # the first poll of the wait, and the confirmation


def test_an_export_ends_the_wait_for_the_callers_own_id(stopped: Emulator, connected: Connected) -> None:
    client = connected(stopped, "smartdocumentor", SECRET)
    external = stopped.samples("smartdocumentor")["external"]
    task = client.get(external)
    updates: list[Any] = []
    client._connection.event_bus.listen(updates.append, tb.TaskRef(f"smartdocumentor:{external}"))
    body = f'{{"taskId": {task.native_id}}}'.encode()
    client.ingest(client.parse_webhook({}, body, url=f"/{SECRET}"))
    assert [each.ref for each in updates] == [f"smartdocumentor:{external}"]


# The same for asyncio.


@pytest.fixture
def aio(stopped: Emulator) -> Callable[[], tb.aio.Client]:
    def build() -> tb.aio.Client:
        settings: dict[str, Any] = {**stopped.settings("scan-documents"), "poll": {"interval": 60.0}}
        return tb.aio.connect("scan-documents", webhook_secrets=[SVIX], **settings)

    return build


async def until(ready: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not ready():  # noqa: ASYNC110  # the emulator sets no event
            await asyncio.sleep(0.002)


def test_an_async_wait_ends(
    stopped: Emulator, aio: Any, task: str, ending: Any, run: Callable[[Coroutine[Any, Any, Any]], Any]
) -> None:
    async def main() -> Any:
        async with aio() as client:
            waiting = asyncio.create_task(client.wait(task))
            await until(lambda: polls(stopped) == 1)
            await client.ingest(ending(client))
            async with asyncio.timeout(1):
                return await waiting

    assert run(main()).status is TaskStatus.COMPLETED
    assert polls(stopped) == 1


def test_async_waits_for_many_end(
    stopped: Emulator, aio: Any, task: str, ending: Any, run: Callable[[Coroutine[Any, Any, Any]], Any]
) -> None:
    pending = stopped.samples("scan-documents")["pending"]

    async def main() -> Any:
        async with aio() as client:

            async def first() -> Any:
                async for outcome in client.as_completed([pending, task]):
                    return outcome
                raise AssertionError

            waiting = asyncio.create_task(first())
            await until(lambda: polls(stopped) == 2)
            await client.ingest(ending(client))
            async with asyncio.timeout(1):
                return await waiting

    assert run(main()).ref == f"scan-documents:{task}"
    assert polls(stopped) == 2


def test_an_interrupted_async_pause_does_not_spin(
    stopped: Emulator, aio: Any, task: str, run: Callable[[Coroutine[Any, Any, Any]], Any], monkeypatch: Any
) -> None:
    calls = 0
    real = PollScheduler.next

    def counted(self: PollScheduler, now: float) -> Any:
        nonlocal calls
        calls += 1
        return real(self, now)

    monkeypatch.setattr(PollScheduler, "next", counted)

    async def main() -> None:
        async with aio() as client:
            waits = [asyncio.create_task(client.wait(task)), asyncio.create_task(client.wait_all([task]))]
            await until(lambda: polls(stopped) == 2)
            while polls(stopped) < 4:  # a hint during a poll changes nothing
                client._connection.event_bus.publish(tb.TaskRef(f"scan-documents:{task}"))
                await asyncio.sleep(0.02)
            before = calls
            await asyncio.sleep(0.05)
            assert calls - before < 10
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    run(main())


# The scheduler.


def test_a_poll_result_after_the_end_does_not_hide_a_new_wait(scans: tb.Client, task: str, ending: Any) -> None:
    scheduler, connection = PollScheduler(), scans._connection
    scheduler.add(connection, task, 0.0)
    poll = scheduler.next(0.0)
    ended = ending(scans).task
    scheduler.on_event(replace(ended, connection=connection.name), 0.1)
    scheduler.add(connection, task, 0.2)
    scheduler.on_polled(poll, 0.3, PollResult(ended, None, NOW))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # it is a PollTask
    assert len(scheduler) == 1
