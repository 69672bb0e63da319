"""OpenTelemetry: an observer that makes spans and metrics (extra ``otel``).

    client.observe(taskbridge.otel.Telemetry())

Needs the API only; without an SDK set up by the application nothing is recorded. Requests follow the semantic
conventions for HTTP clients (https://opentelemetry.io/docs/specs/semconv/http/); a URL is shown without its query.
Nothing is put into the requests themselves: a vendor is no part of your system.

Attributes that the conventions do not have are named ``taskbridge.…``.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Final

from taskbridge import __version__
from taskbridge._config.registry import require_extra
from taskbridge.events import CallEnded, CallStarted, Observation, PollReason, RequestEnded, WaitOutcome

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
_WHOLE: Final = frozenset({"download", "submit", "wait"})  # calls that run in the caller's thread from end to end
_AGAIN: Final = frozenset({PollReason.RETRY, PollReason.RETRY_AFTER})

# Seconds; what the conventions advise for the duration of requests.
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)


class _Call:
    """A call under way."""

    def __init__(self, event: CallStarted, span: Span) -> None:
        self.connections = event.connections
        self.refs = set(event.refs)
        self.span = span
        self.token: Token[Context] | None = None


class Telemetry:
    """Makes spans of calls and of their requests, and counts; give it to `Client.observe` or `Bridge.observe`.

    Args:
        tracer_provider: Where spans go; None for the application's own.
        meter_provider: Where metrics go; None for the application's own.
        requests: Make spans and the duration metric of HTTP requests. False leaves them to an instrumentation of the
            HTTP library, so that none is there twice.
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
        self._polls = meter.create_counter("taskbridge.polls", "{poll}", "Times that something was learnt of a task.")
        self._retries = meter.create_counter("taskbridge.retries", "{request}", "Requests and looks that are repeats.")
        self._detections = meter.create_counter("taskbridge.detections", "{task}", "Ends of tasks that were noticed.")
        self._delay = meter.create_histogram(
            "taskbridge.detection.delay",
            "s",
            "By how much a task's end is older than the news of it, as expected.",
        )
        self._lock = Lock()
        self._calls: dict[int, _Call] = {}

    def __call__(self, event: Event) -> None:
        """Take an event in."""
        match event:
            case CallStarted():
                self._start(event)
            case CallEnded():
                self._end(event)
            case WaitOutcome():
                self._outcome(event)
            case RequestEnded():
                self._request(event)
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
        call = _Call(event, span)
        if event.call in _WHOLE:
            call.token = context.attach(trace.set_span_in_context(span))
        with self._lock:
            self._calls[event.number] = call

    def _end(self, event: CallEnded) -> None:
        with self._lock:
            call = self._calls.pop(event.number, None)
        if call is None:
            return  # it had started before anybody observed
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
        """The calls that wait for a task, the oldest first."""
        with self._lock:
            return [call.span for call in self._calls.values() if ref in call.refs]

    # Requests.

    def _request(self, event: RequestEnded) -> None:
        base: dict[str, str | int] = {
            "http.request.method": event.method,
            "server.address": event.host,
            "server.port": event.port,
        }
        status = event.http_status
        if status is not None:
            base["http.response.status_code"] = status
        if event.error is not None or (status is not None and status >= 400):
            base["error.type"] = event.error or str(status)
        if event.resends:
            self._retries.add(1, _whose(event, kind=event.kind))
        if not self._requests:
            return
        parent, others = self._parents(event)
        attributes: dict[str, str | int] = {
            **base,
            "url.full": f"{event.scheme}://{_authority(event)}{'/REDACTED' if event.path is None else event.path}",
            **_whose(event, kind=event.kind),
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
        self._duration.record(event.duration, base, context=trace.set_span_in_context(span))

    def _parents(self, event: RequestEnded) -> tuple[Context | None, list[Span]]:
        """The context that a request belongs to (None for the present one), and the other calls that it serves."""
        if event.ref is not None:
            waiting = self._waiting(event.ref)
            # A thread that waits for many has no context of its caller's.
            return (trace.set_span_in_context(waiting[0]), waiting[1:]) if waiting else (None, [])
        if trace.get_current_span().get_span_context().is_valid:
            return None, []
        with self._lock:
            around = [call.span for call in self._calls.values() if event.connection in call.connections]
        return (trace.set_span_in_context(around[0]), around[1:]) if around else (None, [])

    # Observations.

    def _observe(self, event: Observation) -> None:
        came = "error" if event.task is None else "unchanged" if event.unchanged else "changed"
        whose = _whose(event)
        self._polls.add(1, {**whose, "taskbridge.source": event.source.value, "taskbridge.poll.result": came})
        if event.poll_reason in _AGAIN:
            self._retries.add(1, {**whose, "taskbridge.kind": event.source.value})
        if event.is_final:
            self._detections.add(
                1, {**whose, "taskbridge.source": event.source.value, "taskbridge.status": str(event.status)}
            )
            if event.delay is not None:
                self._delay.record(event.delay, whose)
        names = (
            "source",
            "poll_reason",
            "status",
            "native_status",
            "unchanged",
            "http_status",
            "error",
            "next_poll_in",
            "next_poll_reason",
        )
        told = _known(event.record(), *names)
        for span in self._waiting(event.ref):
            span.add_event("taskbridge.observation", told, _ns(event.time))


def _whose(event: RequestEnded | Observation, **more: str) -> dict[str, str]:
    added = {f"taskbridge.{name}": value for name, value in more.items()}
    return {"taskbridge.connection": event.connection, "taskbridge.provider": event.provider, **added}


def _known(record: Mapping[str, str | float | bool | None], *names: str) -> dict[str, str | float | bool]:
    """What is known of a record, as attributes."""
    values = {f"taskbridge.{name}": record[name] for name in names}
    return {
        name: str(value) if isinstance(value, str) else value for name, value in values.items() if value is not None
    }


def _authority(event: RequestEnded) -> str:
    host = f"[{event.host}]" if ":" in event.host else event.host
    return host if event.port in (80, 443) else f"{host}:{event.port}"


def _ns(moment: datetime) -> int:
    return round(moment.timestamp() * 1e9)
