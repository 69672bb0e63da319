"""Spans, metrics and log records, as they leave the process; names follow the published conventions."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv.attributes import error_attributes, http_attributes, server_attributes, url_attributes
from opentelemetry.semconv.metrics import http_metrics
from opentelemetry.semconv.schemas import Schemas
from pythonjsonlogger.json import JsonFormatter

import taskbridge as tb
from taskbridge._engine.logs import RECORDS
from taskbridge.events import Observation, ObservationSource, PollReason, RequestEnded
from taskbridge.otel import Telemetry
from taskbridge.provider.http import Request, Response

if TYPE_CHECKING:
    from .conftest import AcmeHarness, Maker

REQUIRED: Final = {
    http_attributes.HTTP_REQUEST_METHOD,
    server_attributes.SERVER_ADDRESS,
    server_attributes.SERVER_PORT,
    url_attributes.URL_FULL,
}


class Seen:
    """The spans and metrics that a `Telemetry` recorded."""

    def __init__(self, **options: Any) -> None:
        self._spans = InMemorySpanExporter()
        self._metrics = InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meters = MeterProvider([self._metrics])
        self.telemetry = Telemetry(self.tracers, self.meters, **options)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._spans.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def metric(self, name: str) -> list[Any]:
        data = self._metrics.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def close(self) -> None:
        self.tracers.shutdown()
        self.meters.shutdown()


@pytest.fixture
def seen() -> Any:
    found = Seen()
    yield found
    found.close()


def answer(state: str, status: int = 200) -> Response:
    return Response(status, {}, json.dumps({"id": "t1", "state": state}).encode())


def by_id(request: Request) -> Response:
    return Response(200, {}, json.dumps({"id": request.url.rpartition("/")[2], "state": "done"}).encode())


def attributes(span: ReadableSpan) -> Mapping[str, Any]:
    return span.attributes or {}


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


def id_of(span: ReadableSpan) -> int:
    context = span.get_span_context()
    assert context is not None
    return context.span_id


def wait_observed(harness: AcmeHarness, seen: Seen) -> None:
    with harness.client.observe(seen.telemetry):
        harness.client.wait("t1")


def test_a_request_is_a_client_span_by_the_conventions(acme: Maker, seen: Seen) -> None:
    wait_observed(acme([answer("", 503), answer("working"), answer("done")], poll={"interval": 2.0}), seen)
    failed, _, ok = seen.named("GET")
    assert set(attributes(failed)) >= REQUIRED
    assert (failed.kind, failed.status.status_code) == (trace.SpanKind.CLIENT, trace.StatusCode.ERROR)
    assert attributes(failed)[http_attributes.HTTP_RESPONSE_STATUS_CODE] == 503
    assert attributes(failed)[error_attributes.ERROR_TYPE] == "503"
    assert attributes(ok)[url_attributes.URL_FULL] == "https://acme.test/v1/tasks/t1"
    assert (attributes(ok)[server_attributes.SERVER_ADDRESS], attributes(ok)[server_attributes.SERVER_PORT]) == (
        "acme.test",
        443,
    )
    assert error_attributes.ERROR_TYPE not in attributes(ok)
    assert ok.status.status_code is trace.StatusCode.UNSET
    assert ok.instrumentation_scope is not None
    assert ok.instrumentation_scope.schema_url in {each.value for each in Schemas}
    conventional = REQUIRED | {http_attributes.HTTP_RESPONSE_STATUS_CODE, error_attributes.ERROR_TYPE}
    other = {name for span in seen.spans for name in attributes(span)} - conventional
    assert all(name.startswith("taskbridge.") for name in other)


def test_metrics_have_a_bounded_number_of_hosts(seen: Seen) -> None:
    for number in range(300):
        seen.telemetry(
            RequestEnded(
                time=datetime.now(UTC),
                provider="acme",
                connection="acme",
                kind="download",
                ref=None,
                method="GET",
                scheme="https",
                host=f"host-{number}.test",
                port=443,
                path=None,
                http_status=200,
                error=None,
                resends=0,
                retry_after=None,
                duration=0.1,
            )
        )
    points = seen.metric(http_metrics.HTTP_CLIENT_REQUEST_DURATION)
    (other,) = [each for each in points if each.attributes[server_attributes.SERVER_ADDRESS] == "_OTHER"]
    assert (len(points), other.count) == (65, 300 - 64)
    assert {attributes(span)[server_attributes.SERVER_ADDRESS] for span in seen.named("GET")} == {
        f"host-{number}.test" for number in range(300)
    }


def test_a_resent_request_has_its_resend_count(acme: Maker, seen: Seen) -> None:
    harness = acme([answer("", 503), answer("done")])
    with harness.client.observe(seen.telemetry):
        harness.client.get("t1")
    first, second = seen.named("GET")
    assert http_attributes.HTTP_REQUEST_RESEND_COUNT not in attributes(first)
    assert attributes(second)[http_attributes.HTTP_REQUEST_RESEND_COUNT] == 1
    assert sum(point.value for point in seen.metric("taskbridge.retries")) == 1


def test_a_wait_is_a_span_around_its_requests_with_an_event_for_each_observation(acme: Maker, seen: Seen) -> None:
    with seen.tracers.get_tracer("app").start_as_current_span("mine"):
        wait_observed(acme([answer("working"), answer("working"), answer("done")], poll={"interval": 2.0}), seen)
    (wait,), (mine,) = seen.named("taskbridge wait"), seen.named("mine")
    assert parent_of(wait) == id_of(mine)
    assert {parent_of(span) for span in seen.named("GET")} == {id_of(wait)}
    observed = [dict(event.attributes or {}) for event in wait.events if event.name == "taskbridge.observation"]
    assert [each["taskbridge.native_status"] for each in observed] == ["working", "working", "done"]
    assert [each.get("taskbridge.next_poll_reason") for each in observed] == ["interval", "interval", None]
    assert (wait.end_time or 0) - (wait.start_time or 0) == 4_000_000_000
    assert attributes(wait)["taskbridge.ref"] == "acme:t1"


def test_a_wait_that_raises_records_the_error(acme: Maker, seen: Seen) -> None:
    harness = acme([answer("working")], poll={"interval": 60.0})
    with harness.client.observe(seen.telemetry), pytest.raises(tb.WaitTimeout):
        harness.client.wait("t1", timeout=5.0)
    (wait,) = seen.named("taskbridge wait")
    assert (attributes(wait)["error.type"], wait.status.status_code) == ("WaitTimeout", trace.StatusCode.ERROR)


def test_the_context_reaches_the_threads_of_a_wait_for_many(acme: Maker, seen: Seen) -> None:
    harness = acme(by_id)
    with harness.client, harness.client.observe(seen.telemetry):
        threads = [
            threading.Thread(target=in_a_span, args=(seen, f"job {n}", harness.client, [f"t{n}", f"u{n}"]))
            for n in (1, 2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    for n in (1, 2):
        (job,) = seen.named(f"job {n}")
        (wait,) = [span for span in seen.named("taskbridge wait_all") if parent_of(span) == id_of(job)]
        inside = [attributes(span)["taskbridge.ref"] for span in seen.named("GET") if parent_of(span) == id_of(wait)]
        assert sorted(inside) == [f"acme:t{n}", f"acme:u{n}"]


def in_a_span(seen: Seen, name: str, client: tb.Client, ids: list[str]) -> None:
    with seen.tracers.get_tracer("app").start_as_current_span(name):
        client.wait_all(ids, timeout=None)


def test_the_context_reaches_the_tasks_of_asyncio(acme: Maker, seen: Seen) -> None:
    client, _ = acme(by_id).asynchronous()

    async def job(n: int) -> None:
        with seen.tracers.get_tracer("app").start_as_current_span(f"job {n}"):
            await client.wait(f"t{n}")
            await client.wait_all([f"u{n}"], timeout=None)

    async def run() -> None:
        async with client:
            with client.observe(seen.telemetry):
                await asyncio.gather(job(1), job(2))

    asyncio.run(run())
    for n in (1, 2):
        (job_span,) = seen.named(f"job {n}")
        for name, task_id in (("taskbridge wait", f"t{n}"), ("taskbridge wait_all", f"u{n}")):
            (wait,) = [span for span in seen.named(name) if parent_of(span) == id_of(job_span)]
            inside = [
                attributes(span)["taskbridge.ref"] for span in seen.named("GET") if parent_of(span) == id_of(wait)
            ]
            assert inside == [f"acme:{task_id}"]


def test_observations_retries_ends_and_delays_are_counted(acme: Maker, seen: Seen) -> None:
    script = [answer("working"), answer("working"), answer("", 503), answer("done")]
    wait_observed(acme(script, poll={"interval": 4.0}), seen)
    observations = seen.metric("taskbridge.observations")
    assert {point.attributes["taskbridge.result"]: point.value for point in observations} == {
        "changed": 2,
        "unchanged": 1,
        "error": 1,
    }
    (retried,) = seen.metric("taskbridge.retries")
    assert retried.value == 1
    (finished,) = seen.metric("taskbridge.tasks.finished")
    assert (finished.value, finished.attributes["taskbridge.status"]) == (1, "completed")
    (delay,) = seen.metric("taskbridge.detection.delay")
    assert (delay.count, delay.sum) == (1, 4.0)
    durations = seen.metric(http_metrics.HTTP_CLIENT_REQUEST_DURATION)
    assert sum(point.count for point in durations) == 4
    assert set(durations[0].attributes) <= REQUIRED - {url_attributes.URL_FULL} | {
        http_attributes.HTTP_RESPONSE_STATUS_CODE,
        error_attributes.ERROR_TYPE,
    }
    assert durations[0].explicit_bounds[0] == 0.005


def test_requests_may_be_left_to_another_instrumentation(acme: Maker) -> None:
    seen = Seen(requests=False)
    wait_observed(acme([answer("done")]), seen)
    assert [span.name for span in seen.spans] == ["taskbridge wait"]
    assert seen.metric(http_metrics.HTTP_CLIENT_REQUEST_DURATION) == []
    seen.close()


def test_nothing_recorded_holds_a_credential(acme: Maker, seen: Seen) -> None:
    token = Response(200, {}, b'{"token": "secret-token-xyz"}')
    harness = acme([token, answer("done")], token_life=60.0)
    wait_observed(harness, seen)
    shown = "".join(span.to_json() for span in seen.spans)
    assert "secret-token-xyz" not in shown
    assert "key-of-acme" not in shown
    (wait,) = seen.named("taskbridge wait")
    assert {parent_of(span) for span in (*seen.named("POST"), *seen.named("GET"))} == {id_of(wait)}


def test_an_outage_is_a_gauge(acme: Maker, seen: Seen) -> None:
    levels: list[Any] = []

    def vendor(_: Request) -> Response:
        levels.append(
            [(dict(point.attributes), point.value) for point in seen.metric("taskbridge.connection.unreachable")]
        )
        count = len(levels)
        return answer("", 503) if 1 < count < 9 else answer("done" if count > 10 else "working")

    wait_observed(acme(vendor, poll={"interval": 2.0}), seen)
    connection = {"taskbridge.connection": "acme", "taskbridge.provider": "acme"}
    assert levels[1] == [(connection, 0)]  # known from the first request
    assert levels[7] == [(connection, 1)]
    assert levels[-1] == [(connection, 0)]


def priced(request: Request) -> Response:
    task = {"id": request.url.rpartition("/")[2], "state": "done", "pages": 3}
    return Response(200, {}, json.dumps(task).encode())


def test_what_tasks_cost_is_counted_once(acme: Maker, seen: Seen) -> None:
    harness = acme(priced)
    with harness.client.observe(seen.telemetry):
        harness.client.wait("t1")
        harness.client.wait("t1")
        harness.client.get("t2")
    (point,) = seen.metric("taskbridge.tasks.usage")
    assert (point.value, point.attributes["taskbridge.unit"]) == (6, "pages")
    assert harness.client.stats()["acme"].usage == {"pages": 6}


def test_tasks_in_flight_are_counted_once_until_their_wait_ends(acme: Maker, seen: Seen) -> None:
    levels: list[Any] = []

    def vendor(request: Request) -> Response:
        levels.append([(dict(point.attributes), point.value) for point in seen.metric("taskbridge.tasks.in_flight")])
        return by_id(request)

    harness = acme(vendor)
    with harness.client, harness.client.observe(seen.telemetry):
        harness.client.get("t0")
        harness.client.wait_all(["t1", "t1", "t2"])
    connection = {"taskbridge.connection": "acme"}
    assert levels[:2] == [[], [(connection, 2)]]  # a request for one status waits for nothing
    (after,) = seen.metric("taskbridge.tasks.in_flight")
    assert (after.attributes, after.value) == (connection, 0)


def observed(source: ObservationSource, ref: str, seconds: float, **more: Any) -> Observation:
    start = datetime(2026, 11, 27, tzinfo=UTC)
    status = tb.TaskStatus.PENDING if source is ObservationSource.SUBMIT else tb.TaskStatus.COMPLETED
    delay = more.pop("detection_delay", None)
    task = tb.Task(
        provider="acme",
        connection="acme",
        id=ref,
        native_id=ref,
        status=status,
        native_status="x",
        observed_at=start,
        **more,
    )
    return Observation(
        time=start + timedelta(seconds=seconds), provider="acme", ref=task.ref, source=source,
        poll_reason=PollReason.FIRST, task=task, duration=2.0, detection_delay=delay,
    )  # fmt: skip


def test_the_time_from_submission_to_detection_is_recorded_once_for_each_task(seen: Seen) -> None:
    submitted, polled = ObservationSource.SUBMIT, ObservationSource.POLL
    vendors_times = {
        "created_at": datetime(2020, 1, 1, tzinfo=UTC),  # by a clock that is years behind
        "finished_at": datetime(2020, 1, 1, 0, 0, 30, tzinfo=UTC),
    }
    for event in (
        observed(submitted, "mine", 10.0),  # which took two seconds
        observed(polled, "mine", 70.0, **vendors_times),
        observed(polled, "mine", 80.0, **vendors_times),
        observed(polled, "others", 90.0, **vendors_times, detection_delay=1.5),
        observed(polled, "others", 95.0, **vendors_times),
        observed(polled, "others", 99.0, **vendors_times, restarts=1),
        observed(polled, "timeless", 99.0),
    ):
        seen.telemetry(event)
    (point,) = seen.metric("taskbridge.tasks.duration")
    assert (point.count, point.sum) == (3, 62.0 + 31.5 + 30.0)
    assert (point.attributes["taskbridge.status"], point.explicit_bounds[-1]) == ("completed", 86_400)


def refused(value: object) -> object:
    raise TypeError(f"{value!r} is no JSON value")


def test_log_records_are_json_as_they_are(acme: Maker, caplog: pytest.LogCaptureFixture) -> None:
    harness = acme([answer("strange"), answer("", 503), answer("done")], poll={"interval": 2.0})
    with caplog.at_level(logging.DEBUG, "taskbridge"), harness.client:
        harness.client.wait("t1")
    formatter = JsonFormatter("%(levelname)s %(message)s", json_default=refused)
    lines = [json.loads(formatter.format(record)) for record in caplog.records if record.name.startswith("taskbridge")]
    kinds = {line["event"] for line in lines}
    assert kinds == {"request", "observation", "unknown-status"}
    for line in lines:
        row = RECORDS[line["event"]]
        assert {*re.findall(r"%\((\w+)\)", row.text), *row.more} <= line.keys()
