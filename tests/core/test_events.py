"""Events: each observation with its reason, each request, each call; and no secrets."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pytest

import taskbridge as tb
from taskbridge._engine.logs import RECORDS
from taskbridge._engine.lookup import PollResult, StatusResponse
from taskbridge._polling.commands import PollList, PollTask, WaitUntil
from taskbridge._polling.scheduler import PollScheduler
from taskbridge.events import Event, ObservationSource, PollReason
from taskbridge.provider.capabilities import PLAIN_ID, Capabilities, IdKind, Webhooks
from taskbridge.provider.http import Flow, Request, Response
from taskbridge.provider.payload import Payload
from taskbridge.provider.submission import Page

from .conftest import Acme
from .test_scheduler_lists import Listed

if TYPE_CHECKING:
    from pathlib import Path

    from taskbridge.testing import Emulator
    from taskbridge.testing.transport import Answer

    from .conftest import AcmeHarness, Maker

T = TypeVar("T")

KEY: Final = "key-of-acme-123"


def answer(state: str, status: int = 200, **more: Any) -> Response:
    headers = {name.replace("_", "-"): str(value) for name, value in more.pop("headers", {}).items()}
    return Response(status, headers, json.dumps({"id": "t1", "state": state, **more}).encode())


def of(kind: type[T], events: list[Event]) -> list[T]:
    return [event for event in events if isinstance(event, kind)]


def observed(harness: AcmeHarness, **wait: Any) -> list[tb.Observation]:
    """Return the observations that an observer gets during a wait for t1."""
    events: list[Event] = []
    with harness.client.observe(events.append):
        harness.client.wait("t1", **wait)
    return of(tb.Observation, events)


def test_each_poll_is_reported_with_its_reason_and_the_next_one(acme: Maker) -> None:
    harness = acme([answer("waiting"), answer("working"), answer("working"), answer("done")], poll={"interval": 4.0})
    seen = observed(harness)
    assert [each.native_status for each in seen] == ["waiting", "working", "working", "done"]
    assert [each.status for each in seen] == ["pending", "processing", "processing", "completed"]
    assert [each.unchanged for each in seen] == [False, False, True, False]
    assert [each.poll_reason for each in seen] == [
        PollReason.FIRST,
        PollReason.INTERVAL,
        PollReason.INTERVAL,
        PollReason.INTERVAL,
    ]
    assert [each.next_poll_in for each in seen] == [4.0, 4.0, 4.0, None]
    assert [each.next_poll_reason for each in seen] == [PollReason.INTERVAL] * 3 + [None]
    assert {(each.source, each.http_status, each.ref) for each in seen} == {(ObservationSource.POLL, 200, "acme:t1")}
    assert [each.detection_delay for each in seen] == [None, None, None, 2.0]
    assert [each.is_terminal for each in seen] == [False, False, False, True]
    spans = [(after.time - before.time).total_seconds() for before, after in pairwise(seen)]
    assert spans == [4.0, 4.0, 4.0]


@pytest.mark.parametrize(
    ("poll", "reason"),
    [
        ({"interval": 3.0}, PollReason.INTERVAL),
        ({"latency": 3.0}, PollReason.LATENCY),
        ({}, PollReason.AGE),
        ({"interval": 30.0, "at_most": 3.0}, PollReason.AT_MOST),
    ],
)
def test_a_poll_interval_names_the_setting_that_it_follows_from(
    acme: Maker, poll: dict[str, float], reason: PollReason
) -> None:
    seen = observed(acme([answer("working"), answer("done")], poll=poll))
    assert (seen[0].next_poll_reason, seen[1].poll_reason) == (reason, reason)


def test_a_learned_schedule_says_so(acme: Maker) -> None:
    harness = acme([answer("working"), answer("done")], poll={"latency": 1.0})
    for _ in range(12):
        harness.connection.durations_of(None).observe(9.0, 10.0, ended=True)
    assert observed(harness)[0].next_poll_reason is PollReason.LEARNED


def test_a_failed_poll_is_reported_with_its_error_and_the_time_of_the_retry(acme: Maker) -> None:
    script: list[Answer] = [
        answer("", 503),
        answer("", 429, headers={"retry_after": 40}),
        tb.ConnectFailed("no route"),
        answer("done"),
    ]
    seen = observed(acme(script, poll={"interval": 1.0}))
    assert [type(each.error) for each in seen] == [tb.ServerError, tb.RateLimited, tb.ConnectFailed, type(None)]
    assert [each.http_status for each in seen] == [503, 429, None, 200]
    assert [each.next_poll_reason for each in seen] == [
        PollReason.RETRY,
        PollReason.RETRY_AFTER,
        PollReason.RETRY,
        None,
    ]
    assert seen[1].next_poll_in == 40.0
    assert [each.task is None for each in seen] == [True, True, True, False]


def test_a_wait_whose_deadline_comes_first_says_that_no_poll_follows(acme: Maker) -> None:
    harness = acme([answer("working")], poll={"interval": 60.0})
    events: list[Event] = []
    harness.client.observe(events.append)
    with pytest.raises(tb.WaitTimeout):
        harness.client.wait("t1", timeout=10.0)
    (only,) = of(tb.Observation, events)
    assert (only.next_poll_in, only.next_poll_reason) == (None, PollReason.DEADLINE)
    (ended,) = of(tb.CallEnded, events)
    assert (ended.call, ended.duration, type(ended.error)) == ("wait", 10.0, tb.WaitTimeout)


def test_a_long_poll_is_a_source_of_its_own(acme: Maker) -> None:
    harness = acme(
        [answer("working"), tb.TruncatedResponse("cut"), answer("working"), answer("done")],
        sync_url="https://hold.test",
        poll={"interval": 2.0},
    )
    seen = observed(harness)
    assert [each.source for each in seen] == [
        ObservationSource.POLL,
        ObservationSource.LONG_POLL,
        ObservationSource.POLL,
        ObservationSource.POLL,
    ]
    assert [each.poll_reason for each in seen] == [
        PollReason.FIRST,
        PollReason.LONG_POLL,
        PollReason.LONG_POLL_BROKE,
        PollReason.INTERVAL,
    ]
    assert [each.requests[0].host for each in seen] == ["acme.test", "hold.test", "acme.test", "acme.test"]


def test_reported_progress_moves_the_next_poll_and_says_so(acme: Maker) -> None:
    class WithProgress(Acme):
        def task(self, payload: Payload, task_id: str) -> tb.Task:
            return replace(super().task(payload, task_id), progress=payload.maybe_fraction("percent", 100.0))

    harness = acme(
        [answer("working"), answer("working", percent=50), answer("done")],
        provider=WithProgress,
        poll={"interval": 8.0},
    )
    assert [each.next_poll_reason for each in observed(harness)] == [PollReason.INTERVAL, PollReason.PROGRESS, None]


class WithWebhooks(Acme):
    capabilities = Capabilities(
        kinds=(IdKind(PLAIN_ID, example="t1"),),
        authentication="API key",
        webhooks=Webhooks((), "none", signed_time=False),
    )


def test_an_expected_webhook_and_one_that_arrives_are_reasons(acme: Maker) -> None:
    harness = acme(provider=WithWebhooks, poll={"interval": 8.0}, webhook_secrets=["a-secret-of-a-test"])
    harness.connection.observers.add(lambda _: None)
    scheduler = PollScheduler()
    scheduler.add(harness.connection, "t1", 0.0)
    flow = harness.connection.provider.get("t1")
    next(flow)
    with pytest.raises(StopIteration) as end:
        flow.send(answer("working"))
    first = scheduler.next(0.0)
    assert isinstance(first, PollTask)
    scheduler.on_polled(first, 0.0, PollResult(end.value.value, StatusResponse(b""), harness.clock.now()))
    harness.connection.observers.add((events := list[Event]()).append)
    scheduler.observations.deliver()
    (seen,) = of(tb.Observation, events)
    assert (seen.next_poll_reason, seen.next_poll_in) == (PollReason.WEBHOOK_EXPECTED, 40.0)
    scheduler.on_hint("acme:t1", 3.0)
    second = scheduler.next(3.0)
    assert isinstance(second, PollTask)
    assert second.trace is not None
    assert second.trace.poll_reason is PollReason.EVENT


def test_an_overdue_webhook_is_not_waited_for(acme: Maker) -> None:
    harness = acme(provider=WithWebhooks, poll={"interval": 2.0}, webhook_secrets=["a-secret-of-a-test"])
    scheduler, now = PollScheduler(), 0.0

    def poll(state: str) -> None:
        nonlocal now
        while not isinstance(action := scheduler.next(now), PollTask):
            assert isinstance(action, WaitUntil)
            now = action.time
        flow = harness.connection.provider.get("t1")
        next(flow)
        with pytest.raises(StopIteration) as end:
            flow.send(answer(state))
        scheduler.on_polled(action, now, PollResult(end.value.value, StatusResponse(b""), harness.clock.now()))
        scheduler.observations.deliver()

    scheduler.add(harness.connection, "t1", now)
    poll("working")
    poll("done")  # seen at 10 s
    harness.connection.observers.add((events := list[Event]()).append)
    scheduler.add(harness.connection, "t1", now)
    for _ in range(8):
        poll("working")
    seen = [(each.next_poll_reason, each.next_poll_in) for each in of(tb.Observation, events)]
    # The first ended between 0 and 10 s, so this one is overdue at 10 s.
    assert seen == [(PollReason.WEBHOOK_EXPECTED, 10.0), *[(PollReason.INTERVAL, 2.0)] * 7]


def test_a_poll_that_a_limit_holds_back_says_how_overdue_it_is(acme: Maker) -> None:
    harness = acme(lambda _: answer("done"), requests_per_second=0.5, poll={"interval": 1.0})
    events: list[Event] = []
    harness.client.observe(events.append)
    scheduler = PollScheduler()
    for n in range(4):
        scheduler.add(harness.connection, f"t{n}", 0.0)
    now, overdue = 0.0, list[float]()
    while len(overdue) < 4:
        command = scheduler.next(now)
        if isinstance(command, WaitUntil):
            now = command.time
        elif isinstance(command, PollTask):
            assert command.trace is not None
            overdue.append(command.trace.overdue)
    assert overdue[0] == 0.0
    assert overdue == sorted(overdue)
    assert overdue[-1] > 1.0


def test_a_list_reports_many_tasks_with_one_observation_each(acme: Maker) -> None:
    harness = acme(provider=Listed, poll={"latency": 1.0}, max_in_flight=1000)
    events: list[Event] = []
    harness.connection.observers.add(events.append)
    scheduler, now = PollScheduler(), 0.0
    tasks = {f"t{n}": None for n in range(50)}
    for task_id in tasks:
        scheduler.add(harness.connection, task_id, now)

    def snapshot(task_id: str, state: str) -> tb.Task:
        flow = harness.connection.provider.get(task_id)
        next(flow)
        with pytest.raises(StopIteration) as end:
            flow.send(Response(200, {}, json.dumps({"id": task_id, "state": state}).encode()))
        task: tb.Task = end.value.value
        return task

    pages = 0
    while pages < 1:
        command = scheduler.next(now)
        match command:
            case PollTask():
                scheduler.on_polled(
                    command,
                    now,
                    PollResult(snapshot(command.task_id, "working"), StatusResponse(b""), harness.clock.now()),
                )
            case PollList():
                pages += 1
                page = [snapshot("t1", "working"), snapshot("t2", "done")]
                scheduler.on_page(command, now, Page(tuple(page), None))
            case WaitUntil():
                now = command.time
            case _:
                raise AssertionError(command)
    scheduler.observations.deliver()
    polls = [each for each in of(tb.Observation, events) if each.source is ObservationSource.POLL]
    assert {each.next_poll_reason for each in polls} == {PollReason.LIST}
    listed = {each.ref.id: each for each in of(tb.Observation, events) if each.source is ObservationSource.LIST}
    assert listed.keys() == {"t1", "t2"}
    assert (listed["t1"].next_poll_reason, listed["t2"].next_poll_reason) == (PollReason.LIST, PollReason.LISTED)
    assert listed["t2"].next_poll_in == 0.0
    missed = scheduler.next(now)
    assert isinstance(missed, PollTask)
    assert missed.trace is not None
    assert missed.trace.poll_reason in {PollReason.UNLISTED, PollReason.LISTED}


# Requests.


def test_each_request_is_reported_without_query_body_or_credential(acme: Maker) -> None:
    harness = acme([answer("", 503), answer("working")])
    events: list[Event] = []
    harness.client.observe(events.append)
    harness.client.get("t1")
    first, second = of(tb.RequestEnded, events)[:2]
    assert (first.method, first.scheme, first.host, first.port, first.path) == (
        "GET",
        "https",
        "acme.test",
        443,
        "/v1/tasks/t1",
    )
    assert (first.http_status, first.resends, second.http_status, second.resends) == (503, 0, 200, 1)
    assert (first.kind, first.ref, first.connection, first.provider) == ("poll", "acme:t1", "acme", "acme")
    assert KEY not in repr(events)
    assert KEY not in json.dumps([event.record() for event in events])


def test_the_request_for_a_credential_is_reported_and_belongs_to_no_task(acme: Maker) -> None:
    token = Response(200, {}, b'{"token": "secret-token-xyz"}')
    harness = acme([token, answer("done")], token_life=60.0)
    events: list[Event] = []
    harness.client.observe(events.append)
    harness.client.get("t1")
    assert [(each.kind, each.method, each.path, each.ref) for each in of(tb.RequestEnded, events)] == [
        ("token", "POST", "/v1/token", None),
        ("poll", "GET", "/v1/tasks/t1", "acme:t1"),
    ]
    assert "secret-token-xyz" not in repr(events)


def test_a_url_that_may_be_secret_has_no_path(acme: Maker) -> None:
    class WithLink(Acme):
        def _status_request(self, task_id: str, base: str, long_poll: float | None) -> Flow[tb.Task]:
            yield Request(
                "GET", "https://files.test/very-secret-path?signature=abc", authorized=False, response_type="bytes"
            )
            return (yield from super()._status_request(task_id, base, long_poll))

    harness = acme([Response(200), answer("done")], provider=WithLink)
    events: list[Event] = []
    harness.client.observe(events.append)
    harness.client.get("t1")
    external = of(tb.RequestEnded, events)[0]
    assert (external.host, external.path) == ("files.test", None)
    assert "secret-path" not in repr(events)
    assert "signature" not in repr(events)


# Observations outside of waits.


def test_a_webhook_event_is_an_observation(acme: Maker) -> None:
    harness = acme([answer("working"), answer("done")])
    task = harness.client.get("t1")
    events: list[Event] = []
    harness.client.observe(events.append)
    ended = replace(task, status=tb.TaskStatus.COMPLETED, native_status="done")
    harness.client.ingest(
        tb.WebhookEvent("acme", "acme", "task.done", "1", needs_confirmation=False, ref=task.ref, task=ended)
    )
    harness.client.ingest(tb.WebhookEvent("acme", "acme", "task.done", "2", needs_confirmation=True, ref=task.ref))
    believed, confirmed = of(tb.Observation, events)
    assert (believed.source, believed.poll_reason, believed.requests) == (
        ObservationSource.WEBHOOK,
        PollReason.NOTIFIED,
        (),
    )
    assert (confirmed.source, confirmed.poll_reason, confirmed.http_status) == (
        ObservationSource.POLL,
        PollReason.EVENT,
        200,
    )
    assert believed.is_terminal
    assert confirmed.is_terminal


def test_a_submit_and_a_download_are_reported_with_their_requests(own_vendors: Emulator, tmp_path: Path) -> None:
    events: list[Event] = []
    settings: dict[str, Any] = {**own_vendors.settings("scan-documents"), "poll": {"interval": 0.01}}
    with tb.connect("scan-documents", **settings) as client, client.observe(events.append):
        task = client.submit("extract-text", b"\x89PNG a page", name="page.png")
        done = own_vendors.samples("scan-documents")["completed"]
        client.download(done, tmp_path)
    seen = of(tb.Observation, events)[0]
    assert (seen.source, seen.ref, seen.http_status) == (ObservationSource.SUBMIT, task.ref, 200)
    assert [each.kind for each in seen.requests] == ["submit"] * len(seen.requests)
    assert [each.call for each in of(tb.CallStarted, events)] == ["submit", "download"]
    assert [each.error for each in of(tb.CallEnded, events)] == [None, None]


# Calls and observers.


def test_calls_are_reported_with_the_outcome_of_each_task(acme: Maker) -> None:
    harness = acme(by_id)
    events: list[Event] = []
    with harness.client.observe(events.append):
        outcomes = harness.client.wait_all(["t1", "t2", "\0"], timeout=None)
    harness.client.wait_all(["t1"], timeout=None)  # without an observer
    (started,), (ended,) = of(tb.CallStarted, events), of(tb.CallEnded, events)
    assert (started.call, started.refs[:2], started.connections) == ("wait_all", ("acme:t1", "acme:t2"), ("acme",))
    ended_waits = of(tb.WaitOutcome, events)
    assert {each.outcome.ref for each in ended_waits} == {each.ref for each in outcomes}
    assert {each.number for each in ended_waits} == {started.number} == {ended.number}
    assert isinstance(outcomes, tb.Outcomes)


def test_an_observer_that_raises_has_no_other_effect_and_is_logged_once(
    acme: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    harness = acme([answer("working"), answer("working"), answer("done")], poll={"interval": 1.0})
    events: list[Event] = []

    def broken(event: Event) -> None:
        raise RuntimeError(f"no {event}")

    harness.client.observe(broken)
    harness.client.observe(events.append)
    assert harness.client.wait("t1").status == "completed"
    assert len(of(tb.Observation, events)) == 3
    (record,) = [each for each in caplog.records if each.__dict__.get("event") == "observer-failed"]
    assert record.exc_info is not None
    assert record.__dict__["error"] == "RuntimeError"


def test_an_observer_may_call_the_client_and_remove_itself(acme: Maker) -> None:
    harness = acme(lambda _: answer("done"), poll={"interval": 1.0})
    seen: list[str] = []

    def calls_back(event: Event) -> None:
        if isinstance(event, tb.Observation) and event.poll_reason is not PollReason.ASKED:
            seen.append(harness.client.get("t1").status)
            watching.close()

    watching = harness.client.observe(calls_back)
    with harness.client:
        harness.client.wait_all(["t1"], timeout=None)
        harness.client.wait_all(["t1"], timeout=None)
    assert seen == ["completed"]


def test_an_observer_is_called_without_a_lock_held(acme: Maker) -> None:
    harness = acme(by_id)
    free: list[bool] = []
    done = threading.Event()

    def other_thread(event: Event) -> None:
        if isinstance(event, tb.Observation):
            watching.close()
            wait = partial(harness.client.wait_all, ["t2"], timeout=0.0)
            thread = threading.Thread(target=wait, daemon=True)
            thread.start()
            thread.join(5.0)
            free.append(not thread.is_alive())
            done.set()

    watching = harness.client.observe(other_thread)
    with harness.client:
        harness.client.wait_all(["t1"], timeout=None)
        assert done.wait(10.0)
    assert free == [True]


def by_id(request: Request) -> Response:
    return Response(200, {}, json.dumps({"id": request.url.rpartition("/")[2], "state": "done"}).encode())


def test_the_sync_and_the_async_client_report_the_same(acme: Maker) -> None:
    script = [answer("", 503), answer("waiting"), answer("working"), answer("working"), answer("done")]
    harness, other = acme(list(script), poll={"interval": 2.0}), acme(list(script), poll={"interval": 2.0})
    expected = [without_time(event) for event in all_events(harness)]
    client, _ = other.asynchronous()
    events: list[Event] = []

    async def run() -> None:
        async with client:
            with client.observe(events.append):
                await client.wait("t1")

    asyncio.run(run())
    assert [without_time(event) for event in events] == expected
    assert len(expected) == 13


def all_events(harness: AcmeHarness) -> list[Event]:
    events: list[Event] = []
    with harness.client.observe(events.append):
        harness.client.wait("t1")
    return events


def without_time(event: Event) -> dict[str, Any]:
    return {key: value for key, value in event.record().items() if key not in {"time", "number"}}


def test_nothing_is_recorded_without_observers(acme: Maker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "taskbridge")
    harness = acme()
    scheduler = PollScheduler()
    scheduler.add(harness.connection, "t1", 0.0)
    command = scheduler.next(0.0)
    assert isinstance(command, PollTask)
    assert command.trace is None
    flow = harness.client._get("t1").flow
    next(flow)
    flow.close()


# Logging.


def test_the_log_has_the_same_at_debug(acme: Maker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "taskbridge")
    harness = acme([answer("", 503), answer("working"), answer("done")], poll={"interval": 2.0})
    harness.client.wait("t1")
    assert [record.getMessage() for record in caplog.records if record.name == "taskbridge.tasks"] == [
        "acme:t1: the request failed with ServerError (poll, first); next poll: in 2.00 s (retry)",
        "acme:t1: processing, vendor says 'working' (poll, retry); next poll: in 2.00 s (interval)",
        "acme:t1: completed, vendor says 'done' (poll, interval); next poll: none",
    ]
    request = next(record for record in caplog.records if record.name == "taskbridge.requests")
    assert request.getMessage() == "acme: GET acme.test/v1/tasks/t1: HTTP 503 after 0.000 s"
    assert (request.__dict__["http_status"], request.__dict__["ref"]) == (503, "acme:t1")
    assert KEY not in caplog.text


def test_every_record_has_the_attributes_that_its_row_names(acme: Maker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "taskbridge")
    harness = acme([answer("strange"), answer("done")], poll={"interval": 2.0})
    harness.client.observe(lambda _: 1 / 0)
    harness.client.wait("t1")
    usual = set(logging.makeLogRecord({}).__dict__) | {"taskName", "message", "asctime"}
    seen = set[str]()
    for record in caplog.records:
        row = RECORDS[record.__dict__["event"]]
        seen.add(record.__dict__["event"])
        assert (record.name, record.levelno) == (row.logger.name, row.level)
        named = {part.partition(")")[0] for part in row.text.split("%(")[1:]} | set(row.more) | {"event"}
        assert set(record.__dict__) - usual == named
        assert not usual & named
    assert seen == {"request", "observation", "unknown-status", "observer-failed"}


def test_nothing_is_shown_unless_the_application_configures_logging() -> None:
    handlers = logging.getLogger("taskbridge").handlers
    assert any(isinstance(handler, logging.NullHandler) for handler in handlers)
