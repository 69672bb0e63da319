"""OpenTelemetry: an observer that records spans and metrics (extra ``otel``).

    client.observe(taskbridge.otel.Telemetry())

This needs the OpenTelemetry API only; nothing is recorded unless the application sets up an SDK. Requests follow the
semantic conventions for HTTP clients (https://opentelemetry.io/docs/specs/semconv/http/), and URLs are recorded without
their query. No trace headers are added to requests, because a vendor is not part of your system.

Attributes without a semantic convention are named ``taskbridge.…``. The conventions for messaging do not apply: a
vendor is no broker, and a task is no message.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Final, TypeVar

from taskbridge import __version__
from taskbridge._config.registry import require_extra
from taskbridge._engine.usage import UsageMeter
from taskbridge._fork import renew_after_fork
from taskbridge.events import (
    CallEnded,
    CallStarted,
    Observation,
    ObservationSource,
    Outage,
    PollReason,
    RequestEnded,
    WaitOutcome,
)

try:
    from opentelemetry import context, metrics, trace
except ImportError:
    raise require_extra("opentelemetry", "otel", "taskbridge.otel") from None

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextvars import Token
    from datetime import datetime

    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

    from taskbridge.events import Event
    from taskbridge.models import TaskRef

__all__ = ["Telemetry"]

_SCHEMA: Final = "https://opentelemetry.io/schemas/1.38.0"
_IN_CALLERS_CONTEXT: Final = frozenset({"download", "submit", "wait"})  # calls that stay in the caller's thread
_MOST_HOSTS: Final = 64  # hosts with metrics of their own
_OTHER: Final = "_OTHER"
_RETRIES: Final = frozenset({PollReason.RETRY, PollReason.RETRY_AFTER})
_POLL: Final = ("source", "poll_reason", "status", "native_status", "unchanged", "http_status", "error")
_OBSERVED: Final = (*_POLL, "next_poll_in", "next_poll_reason")

# Seconds; recommended by the semantic conventions for the duration of requests.
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
# Seconds; no convention covers work that takes minutes to hours.
_DELAY_BUCKETS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)
_TASK_BUCKETS: Final = (1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 14_400, 86_400)
_MOST_TASKS: Final = 65_536  # submitted tasks, and ended tasks, that are remembered; the oldest are forgotten first


_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


@dataclass(slots=True)
class _Call:
    """A call in progress."""

    connections: tuple[str, ...]
    refs: set[TaskRef]
    span: Span
    token: Token[Context] | None = None


class Telemetry:
    """Records spans and metrics of calls and requests; pass it to `Client.observe` or `Bridge.observe`.

    Args:
        tracer_provider: Receives the spans; None for the application's global one.
        meter_provider: Receives the metrics; None for the application's global one.
        requests: Record spans and the duration metric of HTTP requests. Pass False if the HTTP library is instrumented,
            to avoid duplicates.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        *,
        requests: bool = True,
    ) -> None:
        self._tracer = trace.get_tracer("taskbridge", __version__, tracer_provider, _SCHEMA)
        meter = metrics.get_meter("taskbridge", __version__, meter_provider, _SCHEMA)
        self._requests = requests
        self._duration = meter.create_histogram(
            "http.client.request.duration",
            "s",
            "Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=_BUCKETS,
        )
        self._observations = meter.create_counter(
            "taskbridge.observations", "{observation}", "Observations of task states, including failed polls."
        )
        self._retries = meter.create_counter(
            "taskbridge.retries", "{request}", "Requests and polls that retry a failed one."
        )
        self._finished = meter.create_counter("taskbridge.tasks.finished", "{task}", "Tasks whose end was detected.")
        self._delay = meter.create_histogram(
            "taskbridge.detection.delay",
            "s",
            "Expected time between the end of a task and its detection.",
            explicit_bucket_boundaries_advisory=_DELAY_BUCKETS,
        )
        self._end_to_end = meter.create_histogram(
            "taskbridge.tasks.duration",
            "s",
            "Time from the submission of a task to the detection of its end; each task counts once.",
            explicit_bucket_boundaries_advisory=_TASK_BUCKETS,
        )
        meter.create_observable_up_down_counter(
            "taskbridge.tasks.in_flight", [self._in_flight], "{task}", "Tasks that are being waited for."
        )
        meter.create_observable_gauge(
            "taskbridge.connection.unreachable",
            [self._reachability],
            "{connection}",
            "1 during an outage of the connection, else 0.",
        )
        self._used = meter.create_counter(
            "taskbridge.tasks.usage", "1", "What tasks cost, in the unit of the attribute; each task counts once."
        )
        self._usage = UsageMeter()
        renew_after_fork(self, Telemetry._make_lock)
        self._calls: dict[int, _Call] = {}
        self._waited: set[str] = set()  # connections with a wait so far
        self._submitted: dict[TaskRef, float] = {}  # when the submission began; seconds since the epoch
        self._ended: dict[tuple[TaskRef, int | None], None] = {}  # with the number of restarts
        self._hosts: set[tuple[str, int]] = set()
        self._unreachable: dict[tuple[str, str], bool] = {}  # by connection and provider

    def _make_lock(self) -> None:
        self._lock = Lock()

    def __call__(self, event: Event) -> None:
        """Record an event."""
        match event:
            case CallStarted():
                self._start(event)
            case CallEnded():
                self._end(event)
            case WaitOutcome():
                self._outcome(event)
            case RequestEnded():
                self._unreachable.setdefault((event.connection, event.provider), False)
                self._request(event)
            case Outage():
                self._unreachable[event.connection, event.provider] = event.duration is None
            case Observation():
                self._observe(event)

    # Calls.

    def _start(self, event: CallStarted) -> None:
        attributes: dict[str, str | int | float | tuple[str, ...]] = {
            "taskbridge.connections": event.connections,
            "taskbridge.tasks": len(event.refs),
        }
        if len(event.refs) == 1:
            attributes["taskbridge.ref"] = str(event.refs[0])
        if event.timeout is not None:
            attributes["taskbridge.timeout"] = event.timeout
        span = self._tracer.start_span(f"taskbridge {event.call}", attributes=attributes, start_time=_ns(event.time))
        call = _Call(event.connections, set(event.refs), span)
        if event.call in _IN_CALLERS_CONTEXT:
            call.token = context.attach(trace.set_span_in_context(span))
        with self._lock:
            self._calls[event.number] = call
            self._waited.update(ref.connection for ref in call.refs)

    def _end(self, event: CallEnded) -> None:
        with self._lock:
            call = self._calls.pop(event.number, None)
        if call is None:
            return  # it started before this observer was added
        if call.token is not None:
            context.detach(call.token)
        if event.error is not None:
            call.span.set_attribute("error.type", type(event.error).__name__)
            call.span.set_status(trace.StatusCode.ERROR)
        call.span.end(_ns(event.time))

    def _outcome(self, event: WaitOutcome) -> None:
        with self._lock:
            call = self._calls.get(event.number)
            if call is None:
                return
            call.refs.discard(event.outcome.ref)
        record = event.record()
        call.span.add_event("taskbridge.outcome", _known(record, "ref", "status", "error"), _ns(event.time))

    def _waiting(self, ref: TaskRef) -> list[Span]:
        """Return the spans of the calls that wait for a task, oldest first."""
        with self._lock:
            return [call.span for call in self._calls.values() if ref in call.refs]

    def _reachability(self, _: metrics.CallbackOptions) -> list[metrics.Observation]:
        return [
            metrics.Observation(int(is_down), {"taskbridge.connection": connection, "taskbridge.provider": provider})
            for (connection, provider), is_down in self._unreachable.copy().items()
        ]

    def _in_flight(self, _: metrics.CallbackOptions) -> list[metrics.Observation]:
        with self._lock:
            refs = {ref for call in self._calls.values() for ref in call.refs}
            counts = dict.fromkeys(self._waited, 0)
        for ref in refs:
            counts[ref.connection] += 1
        return [metrics.Observation(count, {"taskbridge.connection": name}) for name, count in counts.items()]

    # Requests.

    def _request(self, event: RequestEnded) -> None:
        address: dict[str, str | int] = {"server.address": event.host, "server.port": event.port}
        base: dict[str, str | int] = {"http.request.method": event.method}
        status = event.http_status
        if status is not None:
            base["http.response.status_code"] = status
        if event.error is not None or (status is not None and status >= 400):
            base["error.type"] = event.error or str(status)
        if event.resends:
            self._retries.add(1, _common(event, kind=event.kind))
        if not self._requests:
            return
        parent, others = self._parents(event)
        attributes: dict[str, str | int] = {
            **base,
            **address,
            "url.full": f"{event.scheme}://{_authority(event)}{'/REDACTED' if event.path is None else event.path}",
            **_common(event, kind=event.kind),
        }
        if event.resends:
            attributes["http.request.resend_count"] = event.resends
        if event.ref is not None:
            attributes["taskbridge.ref"] = str(event.ref)
        span = self._tracer.start_span(
            event.method,
            parent,
            trace.SpanKind.CLIENT,
            attributes,
            [trace.Link(other.get_span_context()) for other in others],
            _ns(event.time),
        )
        if "error.type" in base:
            span.set_status(trace.StatusCode.ERROR)
        span.end(_ns(event.time) + round(event.duration * 1e9))
        if self._is_measured(event.host, event.port):
            base.update(address)
        else:
            base["server.address"] = _OTHER
        self._duration.record(event.duration, base, context=trace.set_span_in_context(span))

    def _is_measured(self, host: str, port: int) -> bool:
        """Whether a host has metrics of its own; links may lead to any number of hosts."""
        with self._lock:
            if (host, port) not in self._hosts and len(self._hosts) < _MOST_HOSTS:
                self._hosts.add((host, port))
            return (host, port) in self._hosts

    def _parents(self, event: RequestEnded) -> tuple[Context | None, list[Span]]:
        """Return the parent context of a request (None for the current one), and the spans of calls to link to."""
        if event.ref is not None:
            waiting = self._waiting(event.ref)
            # Worker threads do not have the caller's context.
            return (trace.set_span_in_context(waiting[0]), waiting[1:]) if waiting else (None, [])
        if trace.get_current_span().get_span_context().is_valid:
            return None, []
        with self._lock:
            spans = [call.span for call in self._calls.values() if event.connection in call.connections]
        return (trace.set_span_in_context(spans[0]), spans[1:]) if spans else (None, [])

    # Observations.

    def _observe(self, event: Observation) -> None:
        result = "error" if event.task is None else "unchanged" if event.unchanged else "changed"
        source = event.source.value
        self._observations.add(1, _common(event, source=source, result=result))
        if event.source is ObservationSource.SUBMIT:
            with self._lock:
                _remember(self._submitted, event.ref, event.time.timestamp() - event.duration)
        if event.poll_reason in _RETRIES:
            self._retries.add(1, _common(event, kind=source))
        if event.is_terminal:
            self._finished.add(1, _common(event, source=source, status=str(event.status)))
            if event.detection_delay is not None:
                self._delay.record(event.detection_delay, _common(event))
            duration = self._duration_of(event)
            if duration is not None:
                self._end_to_end.record(duration, _common(event, status=str(event.status)))
        if event.task is not None and event.task.usage is not None:
            for unit, more in self._usage.add(event.task).items():
                self._used.add(more, _common(event, unit=unit.value))
        attributes = _known(event.record(), *_OBSERVED)
        for span in self._waiting(event.ref):
            span.add_event("taskbridge.observation", attributes, _ns(event.time))

    def _duration_of(self, event: Observation) -> float | None:
        """Return how long an ended task took, in seconds; None if that is unknown, or was returned before."""
        task = event.task
        assert task is not None  # noqa: S101  # it has ended
        key = (event.ref, task.restarts)
        with self._lock:
            began = self._submitted.pop(event.ref, None)
            if key in self._ended:
                return None
            _remember(self._ended, key, None)
        if began is not None:
            return max(event.time.timestamp() - began, 0.0)
        if task.created_at is None or task.finished_at is None:
            return None
        # Both by the vendor's clock; the task was submitted by another process, or before this observer was added.
        return max((task.finished_at - task.created_at).total_seconds(), 0.0) + (event.detection_delay or 0.0)


def _remember(known: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    known[key] = value
    if len(known) > _MOST_TASKS:
        del known[next(iter(known))]


def _common(event: RequestEnded | Observation, **more: str) -> dict[str, str]:
    values = {"connection": event.connection, "provider": event.provider, **more}
    return {f"taskbridge.{name}": value for name, value in values.items()}


def _known(record: Mapping[str, str | float | bool | None], *names: str) -> dict[str, str | float | bool]:
    """Return the named values of a record, other than None, as attributes."""
    return {
        f"taskbridge.{name}": str(value) if isinstance(value, str) else value  # a plain str, not a TaskRef
        for name in names
        if (value := record[name]) is not None
    }


def _authority(event: RequestEnded) -> str:
    host = f"[{event.host}]" if ":" in event.host else event.host
    return host if event.port in (80, 443) else f"{host}:{event.port}"


def _ns(moment: datetime) -> int:
    return round(moment.timestamp() * 1e9)
