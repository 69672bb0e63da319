"""Webhooks: prove and read a delivery (`receive`), then act on its event (`ingest`).

    headers + raw body ──► limits ──► signature ──► provider translates ──► WebhookEvent
    WebhookEvent ──► claim ──► status request, unless the proof covers a time ──► waits end ──► Ingested ──► settle

`receive` is pure: bytes, headers and a time go in. The order is fixed: the size first, then the signature over the raw
bytes, and only then the parser. A provider cannot read a body without naming how it is proved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from hashlib import sha256
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from taskbridge._engine.effects import RunBlocking
from taskbridge._engine.logs import log
from taskbridge._engine.lookup import NotFoundGrace, get
from taskbridge._engine.operations import deadline_for
from taskbridge._engine.tracing import begin_trace, report_observation
from taskbridge._engine.uploads import delete_uploads
from taskbridge.errors import ConfigError, TaskbridgeError, TaskNotFound, UnsupportedFeature, WebhookRejected, printable
from taskbridge.events import ObservationSource, PollReason
from taskbridge.models import Task, TaskRef, WebhookEvent
from taskbridge.provider.capabilities import Capabilities
from taskbridge.provider.json import read_json
from taskbridge.provider.payload import Payload
from taskbridge.provider.signatures import SVIX_PREFIX, is_in_url, verify_hex_hmac, verify_svix

if TYPE_CHECKING:
    from taskbridge._engine.connection import Connection
    from taskbridge._engine.effects import EffectFlow
    from taskbridge.event_bus import EventBus

T = TypeVar("T")


class _HasItems(Protocol):
    def items(self) -> Iterable[tuple[Any, Any]]: ...


Headers: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]] | _HasItems
"""Header fields as web frameworks provide them: a mapping, pairs, or anything with ``items()``."""


# Receiving.


class Received:
    """One delivery; implements `taskbridge.provider.Delivery`."""

    def __init__(
        self, connection: Connection, headers: Mapping[str, list[str]], body: bytes, url: str | None, now: datetime
    ) -> None:
        self._connection = connection.name
        self._headers = headers  # by name in lower case, each with all its values
        self._body = body
        self._url = url
        self.received_at = now  # aware, UTC
        self._secrets = tuple(secret.get_secret_value() for secret in connection.settings.webhook_secrets)

    @property
    def digest(self) -> str:
        """A text that is equal for equal bytes."""
        return sha256(self._body).hexdigest()[:32]

    def header(self, name: str) -> str | None:
        """Return a header field by its name in lower case.

        Raises:
            WebhookRejected: It occurs twice.
        """
        values = self._headers.get(name, [])
        if len(values) > 1:
            raise WebhookRejected(f"the header {name} comes {len(values)} times", answer=401)
        return values[0] if values else None

    def by_svix(self) -> bytes:
        """Return the body if its svix signature is valid; only secrets that start with ``whsec_`` count."""
        signing = [secret for secret in self._secrets if secret.startswith(SVIX_PREFIX)]
        verify_svix(self._body, self.header, signing, self.received_at)
        return self._body

    def by_hex_hmac(self, header: str) -> bytes:
        """Return the body if a header is its HMAC-SHA256 in hexadecimal."""
        verify_hex_hmac(self._body, self.header(header), self._secrets)
        return self._body

    def by_url(self) -> bytes:
        """Return the body if the URL contains one of the secrets; secrets of the svix scheme do not count."""
        hidden = [secret for secret in self._secrets if not secret.startswith(SVIX_PREFIX)]
        if not is_in_url(self._url, hidden):
            raise WebhookRejected(
                "nothing proves the sender: the delivery is not signed, and no secret of webhook_secrets is in its URL"
            )
        return self._body

    def by(self, check: Callable[[bytes, str], bool]) -> bytes:
        """Return the body if `check` accepts it with one of the secrets."""
        if not any([check(self._body, secret) for secret in self._secrets]):  # noqa: C419  # no early end
            raise WebhookRejected("the signature is wrong")
        return self._body

    def payload(self, body: bytes) -> Payload:
        """Return the JSON object in a body."""
        return Payload.of(read_json(body), self._connection, self.received_at)


def delivery_limit(connection: Connection) -> int:
    """Return the most bytes of a delivery that are accepted; see `Client.delivery_limit`.

    Raises:
        UnsupportedFeature: The vendor sends no webhooks.
        ConfigError: Nothing proves the sender of one.
    """
    provider = connection.provider
    webhooks = provider.capabilities.webhooks
    if webhooks is None:
        raise connection.add_context(UnsupportedFeature(f"{provider.title} sends no webhooks"))
    if not connection.settings.webhook_secrets:
        raise connection.add_context(_no_secret(connection, webhooks.scheme))
    return provider.max_delivery


def _no_secret(connection: Connection, scheme: str) -> ConfigError:
    return ConfigError(
        f"connection {connection.name!r} has no webhook_secrets, so nothing proves who sent a webhook; "
        f"{connection.provider.title} is proved by: {scheme}"
    )


def receive(
    connection: Connection,
    headers: Headers,
    body: bytes | bytearray | memoryview,
    url: str | None,
    now: datetime | None,
) -> WebhookEvent:
    """Prove and read a delivery; no I/O; see `Client.parse_webhook`.

    Raises:
        TypeError: The body is not bytes, or the time has no zone.
    """
    provider = connection.provider
    webhooks = provider.capabilities.webhooks
    try:
        size = _size(body)
        if webhooks is not None and not connection.settings.webhook_secrets:
            raise _no_secret(connection, webhooks.scheme)
        if webhooks is not None and size > provider.max_delivery:
            raise WebhookRejected(  # noqa: TRY301  # gets its context below
                f"the body has more than {provider.max_delivery} bytes", answer=413
            )
        fields = _fields(headers)
        if any(value.strip().lower() not in {"", "identity"} for value in fields.get("content-encoding", ())):
            raise WebhookRejected(  # noqa: TRY301  # as above
                "the body is compressed (Content-Encoding), which no vendor does", answer=415
            )
        moment = _aware(now or connection.clock.now())
        try:
            return _parse(connection, Received(connection, fields, bytes(body), url, moment))
        except WebhookRejected as error:
            if error.answer != 401 or not connection.reload_for_delivery():
                raise
        return _parse(connection, Received(connection, fields, bytes(body), url, moment))  # with the new secret
    except WebhookRejected as error:
        log("webhook-rejected", connection=connection.name, reason=error.message)
        failure: TaskbridgeError = error
    except (ConfigError, UnsupportedFeature) as error:
        failure = error
    raise connection.add_context(failure)


def _parse(connection: Connection, delivery: Received) -> WebhookEvent:
    provider = connection.provider
    try:
        return provider.parse_webhook(delivery)
    except (WebhookRejected, ConfigError, UnsupportedFeature):
        raise
    except TaskbridgeError as error:
        refused = WebhookRejected(f"its sender is proved, but it cannot be read: {error.message}", answer=400)
    except Exception as error:  # noqa: BLE001  # whatever a provider's own code may raise
        kind = type(error).__name__
        # 500, so that the vendor delivers it again once the provider is repaired
        refused = WebhookRejected(f"the provider {provider.name} is broken: it raised {kind} while reading", answer=500)
    raise refused


def _size(body: bytes | bytearray | memoryview) -> int:
    if not isinstance(body, bytes | bytearray | memoryview):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers need not be typed
        raise TypeError(f"a webhook is proved by its raw bytes, as they were received, not by {type(body).__name__}")
    return body.nbytes if isinstance(body, memoryview) else len(body)


def _aware(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise TypeError("now must be an aware datetime, such as datetime.now(UTC)")
    try:
        return moment.astimezone(UTC)
    except OverflowError:  # on the first or the last day that there is
        return moment.replace(tzinfo=UTC)


def _fields(headers: Any) -> dict[str, list[str]]:
    """Return header fields by name in lower case; skip names that no header can have."""
    found: dict[str, list[str]] = {}
    pairs: Iterable[tuple[Any, Any]] = headers.items() if hasattr(headers, "items") else headers
    for name, value in pairs:
        key = _text(name)
        if key is not None and key.isascii():
            several: Iterable[Any] = value if type(value) in (list, tuple) else (value,)
            found.setdefault(key.lower(), []).extend(_text(each) or "" for each in several)
    return found


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else None


# Acting on an event.


class IngestStatus(StrEnum):
    """What was done with an event."""

    APPLIED = "applied"
    """`Ingested.task` is the current state of the task; waits for it were notified."""
    DUPLICATE = "duplicate"
    """The event was processed before; nothing was done."""
    IN_PROGRESS = "in-progress"
    """The event is being processed by another caller, who may fail; nothing was done."""
    LATE = "late"
    """The event is about a state before the end, which is known already; nothing was done."""
    UNKNOWN = "unknown"
    """The vendor does not know the task, or no longer."""
    NO_TASK = "no-task"
    """The event is not about the state of a task."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """The result of `Client.ingest`.

    Attributes:
        event: The event.
        status: What was done with it.
        task: The current state of the task; None unless `status` is ``applied``.
        answer: HTTP status to answer the vendor with: 204, or 503 if the vendor must deliver the event again.
    """

    event: WebhookEvent
    status: IngestStatus
    task: Task | None = None
    answer: int = int(HTTPStatus.NO_CONTENT)


def ingest(connection: Connection, event: WebhookEvent, *, confirm: bool | None) -> EffectFlow[tuple[Ingested, bool]]:
    """Find out whether an event is true, and end the waits that it concerns.

    If that fails, the event counts as not yet processed.

    Returns:
        The result, and whether the event is claimed now: then `settle` it, or `forget` it if acting on it failed.
    """
    bus, key = connection.event_bus, event.duplicate_key
    again = int(HTTPStatus.SERVICE_UNAVAILABLE)
    if not (yield from _ask(bus, bus.claim, key)):
        if (yield from _ask(bus, bus.is_settled, key)):
            return Ingested(event, IngestStatus.DUPLICATE), False
        return Ingested(event, IngestStatus.IN_PROGRESS, answer=again), False
    try:
        result = yield from _apply(connection, event, confirm=confirm)
        # An event may be quicker than the API, which then does not know the task or its end.
        if result.status is IngestStatus.UNKNOWN:
            is_early = yield from _ask(bus, bus.doubt, key)  # the next delivery counts, but no further one
            counts = not is_early
        else:
            has_ended = result.task is not None and result.task.is_terminal
            is_early = result.task is not None and not has_ended and event.task is not None and event.task.is_terminal
            # A mere hint is remembered only once it led to the end; otherwise anybody could use it up in advance.
            counts = has_ended or not (event.needs_confirmation or is_early)
        if not counts:
            yield from _ask(bus, bus.release, key)
    except BaseException:  # also if the flow is closed, when it can have no effects any more
        bus.release(key)
        raise
    webhooks = connection.provider.capabilities.webhooks
    if is_early and webhooks is not None and webhooks.redelivers:
        result = replace(result, answer=again)
    return result, counts


def settle(connection: Connection, event: WebhookEvent) -> EffectFlow[None]:
    """Note that an event has been processed."""
    bus = connection.event_bus
    yield from _ask(bus, bus.settle, event.duplicate_key)


def forget(connection: Connection, event: WebhookEvent) -> EffectFlow[None]:
    """Treat an event as not yet processed."""
    bus = connection.event_bus
    yield from _ask(bus, bus.release, event.duplicate_key)


def _ask(bus: EventBus, method: Callable[[str], T], key: str) -> EffectFlow[T]:
    """Call a method of an event bus, which may block."""
    if not bus.blocks:
        return method(key)
    result: T = yield RunBlocking(partial(method, key))
    return result


def _apply(connection: Connection, event: WebhookEvent, *, confirm: bool | None) -> EffectFlow[Ingested]:
    ref, task, bus = event.ref, event.task, connection.event_bus
    if ref is None:
        return Ingested(event, IngestStatus.NO_TASK)
    if confirm is None:
        # Only a connection that expects webhooks remembers which tasks have ended, and so knows an event that is late.
        may_be_late = not connection.expects_webhook and task is not None and not task.is_terminal
        confirm = event.needs_confirmation or may_be_late
    if confirm:
        return (yield from _confirm(connection, event, ref))
    if task is None:
        bus.publish(ref)
        return Ingested(event, IngestStatus.NO_TASK)
    if not task.is_terminal and bus.has_ended(ref):
        log("webhook-late", connection=connection.name, type=printable(event.type, 60), ref=ref)
        return Ingested(event, IngestStatus.LATE)
    trace = begin_trace(connection, ref.id, PollReason.NOTIFIED)
    connection.usage.add(task)
    report_observation(connection, trace, ObservationSource.WEBHOOK, task=task)
    if task.is_terminal:
        bus.record(task)
        yield from delete_uploads(connection, ref.id, task)
        _publish(connection, task)
    else:
        bus.publish(ref)  # an event contains less than a status response: waits ask for themselves
    return Ingested(event, IngestStatus.APPLIED, task)


def _confirm(connection: Connection, event: WebhookEvent, ref: TaskRef) -> EffectFlow[Ingested]:
    trace = begin_trace(connection, ref.id, PollReason.EVENT)
    start = partial(connection.provider.get, ref.id)
    try:
        grace = NotFoundGrace(connection, ref.id, seen=True)  # by the webhook
        task = yield from get(connection, ref.id, deadline_for(connection), start, trace=trace, grace=grace)
    except TaskNotFound:
        log("webhook-unknown", connection=connection.name, ref=ref)
        return Ingested(event, IngestStatus.UNKNOWN)
    report_observation(connection, trace, task=task)
    _publish(connection, task)
    return Ingested(event, IngestStatus.APPLIED, task)


def _publish(connection: Connection, task: Task) -> None:
    """Notify the waits for a task, and for what else its snapshot is about."""
    for each in concerned(connection.provider.capabilities, task):
        connection.event_bus.publish(each)


def concerned(capabilities: Capabilities, task: Task) -> Iterator[Task]:
    """Yield a task, its subtasks, and the task under its external id: what a wait for each of them sees."""
    yield task
    yield from task.subtasks
    for kind in capabilities.kinds:
        if kind.identity == "external_id" and task.external_id and kind.pattern.fullmatch(task.external_id):
            yield replace(task, id=f"{kind.prefix}/{task.external_id}")
