"""From what a web server received to a `WebhookEvent`.

    headers + raw body ──► limits ──► proof (`taskbridge.provider.signatures`) ──► provider translates ──► WebhookEvent

`receive` is pure: bytes, headers and a time go in. The order is fixed: the size first, then the proof over the raw
bytes, then, and only for what is proved, the parser. A provider cannot get at a body without naming its proof.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from taskbridge._engine.effects import EffectFlow
from taskbridge._engine.logs import log
from taskbridge._engine.lookup import poll
from taskbridge._engine.tracing import begin_trace, report_observation
from taskbridge.errors import ConfigError, TaskbridgeError, TaskNotFound, UnsupportedFeature, WebhookRejected, printable
from taskbridge.events import ObservationSource, PollReason
from taskbridge.models import Task, TaskRef, WebhookEvent
from taskbridge.provider.json import read_json
from taskbridge.provider.payload import Payload
from taskbridge.provider.signatures import SVIX_PREFIX, is_in_url, verify_hex_hmac, verify_svix

if TYPE_CHECKING:
    from taskbridge._engine.connection import Connection

# XXDOC Taking a webhook's event in: what is true of it, and who is told.
#
# An event goes the same way each time:
#
#     WebhookEvent ──► seen before? ──► look-up, where the proof covers no time ──► waits end ──► Ingested
#


class _HasItems(Protocol):
    def items(self) -> Iterable[tuple[Any, Any]]: ...


Headers: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]] | _HasItems
"""Header fields as web frameworks have them: a mapping, pairs, or anything with ``items()``."""


# Receiving.


class Received:
    """A delivery, for its provider; see `taskbridge.provider.base.Delivery`.

    Args:
        connection: Name of the connection.
        headers: Header fields by name in lower case, with all their values.
        body: The raw bytes.
        url: The URL that was called.
        received_at: Aware time of receipt.
        secrets: The connection's webhook secrets.
    """

    def __init__(
        self,
        *,
        connection: str,
        headers: Mapping[str, list[str]],
        body: bytes,
        url: str | None,
        received_at: datetime,
        secrets: tuple[str, ...],
    ) -> None:
        self._connection = connection
        self._headers = headers
        self._body = body
        self._url = url
        self._received_at = received_at
        self._secrets = secrets

    @property
    def received_at(self) -> datetime:
        """Aware UTC time of receipt."""
        return self._received_at

    @property
    def digest(self) -> str:
        """A text that is the same for the same bytes."""
        return sha256(self._body).hexdigest()[:32]

    def header(self, name: str) -> str | None:
        """A header field, by its name in lower case.

        Raises:
            WebhookRejected: It comes twice.
        """
        values = self._headers.get(name, [])
        if len(values) > 1:
            raise WebhookRejected(f"the header {name} comes {len(values)} times", answer=401)
        return values[0] if values else None

    def by_svix(self) -> bytes:
        """The body, where its svix signature is right; secrets without ``whsec_`` in front do not count."""
        signing = [secret for secret in self._secrets if secret.startswith(SVIX_PREFIX)]
        verify_svix(self._body, self.header, signing, self._received_at)
        return self._body

    def by_hex_hmac(self, header: str) -> bytes:
        """The body, where a header is its HMAC-SHA256 in hexadecimal."""
        verify_hex_hmac(self._body, self.header(header), self._secrets)
        return self._body

    def by_url(self) -> bytes:
        """The body, where one of the secrets stands in the URL; secrets of the svix scheme do not count."""
        hidden = [secret for secret in self._secrets if not secret.startswith(SVIX_PREFIX)]
        if not is_in_url(self._url, hidden):
            raise WebhookRejected(
                "nothing proves the sender: the delivery is not signed, and no secret of webhook_secrets is in its URL"
            )
        return self._body

    def by(self, check: Callable[[bytes, str], bool]) -> bytes:
        """The body, where `check` says so of the body and one of the secrets."""
        if not any([check(self._body, secret) for secret in self._secrets]):  # noqa: C419  # no early end
            raise WebhookRejected("the signature is wrong")
        return self._body

    def payload(self, body: bytes) -> Payload:
        """The JSON object in a body.

        Raises:
            MalformedResponse: There is none.
        """
        return Payload.of(read_json(body), self._connection, self._received_at)


def receive(
    connection: Connection,
    headers: Headers,
    body: bytes | bytearray | memoryview,
    url: str | None,
    now: datetime | None,
) -> WebhookEvent:
    """Prove and read a delivery; no I/O.

    Args:
        channel: The connection that it came for.
        headers: Header fields.
        body: The raw bytes, as they were received.
        url: The URL that was called.
        now: Aware time of receipt; None for the connection's clock.

    Raises:
        WebhookRejected: It is not to be believed; `answer` is the HTTP status to answer with.
        UnsupportedFeature: The vendor sends no webhooks.
        ConfigError: No secret is configured, or it cannot be used.
        TypeError: The body is not bytes, or the time has no zone.
    """
    provider = connection.provider
    try:
        size = _size(body)
        if provider.capabilities.webhooks is not None:
            _check_secrets(connection)
            _check_size(size, provider.max_delivery)
        fields = _fields(headers)
        _check_encoding(fields)
        delivery = Received(
            connection=connection.name,
            headers=fields,
            body=bytes(body),
            url=url,
            received_at=_aware(now or connection.clock.now()),
            secrets=tuple(secret.get_secret_value() for secret in connection.settings.webhook_secrets),
        )
        return _parsed(connection, delivery)
    except WebhookRejected as error:
        log("webhook-rejected", connection=connection.name, reason=error.message)
        refused: TaskbridgeError = error
    except (ConfigError, UnsupportedFeature) as error:
        refused = error
    raise connection.add_context(refused)


def _parsed(connection: Connection, delivery: Received) -> WebhookEvent:
    provider = connection.provider
    try:
        return provider.parse_webhook(delivery)
    except (WebhookRejected, ConfigError, UnsupportedFeature):
        raise
    except TaskbridgeError as error:
        refused = WebhookRejected(f"its sender is proved, but it cannot be read: {error.message}", answer=400)
    except Exception as error:  # noqa: BLE001  # whatever a provider's own code may raise
        kind = type(error).__name__
        # 500, so that the vendor sends it again to a repaired provider
        refused = WebhookRejected(f"the provider {provider.name} is broken: it raised {kind} while reading", answer=500)
    raise refused


def _size(body: bytes | bytearray | memoryview) -> int:
    if not isinstance(body, bytes | bytearray | memoryview):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers need not be typed
        raise TypeError(f"a webhook is proved by its raw bytes, as they were received, not by {type(body).__name__}")
    return body.nbytes if isinstance(body, memoryview) else len(body)


def _aware(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise TypeError("now must be an aware datetime, such as datetime.now(UTC)")
    return moment.astimezone(UTC)


def _check_secrets(connection: Connection) -> None:
    if not connection.settings.webhook_secrets:
        raise ConfigError(
            f"connection {connection.name!r} has no webhook_secrets, so nothing proves who sent a webhook; "
            f"{connection.provider.title} is proved by: {_scheme(connection)}"
        )


def _scheme(connection: Connection) -> str:
    webhooks = connection.provider.capabilities.webhooks
    return webhooks.scheme if webhooks else "nothing"


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise WebhookRejected(f"the body has more than {limit} bytes", answer=413)


def _check_encoding(headers: Mapping[str, list[str]]) -> None:
    if any(value.strip().lower() not in {"", "identity"} for value in headers.get("content-encoding", ())):
        raise WebhookRejected("the body is compressed (Content-Encoding), which no vendor does", answer=415)


_SEVERAL: Final = frozenset({list, tuple})


def _fields(headers: Headers) -> dict[str, list[str]]:
    """Header fields by name in lower case; names that no header can have are passed over."""
    found: dict[str, list[str]] = {}
    for name, value in _pairs(headers):
        key = _text(name)
        if key is not None and key.isascii():
            several: Iterable[Any] = value if type(value) in _SEVERAL else (value,)
            found.setdefault(key.lower(), []).extend(_text(each) or "" for each in several)
    return found


def _pairs(headers: Any) -> Iterable[tuple[Any, Any]]:
    pairs: Iterable[tuple[Any, Any]] = headers.items() if hasattr(headers, "items") else headers
    return pairs


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else None


class Note(StrEnum):
    """What became of an event."""

    APPLIED = "applied"
    """`Ingested.task` is the truth; waits for it were told."""
    DUPLICATE = "duplicate"
    """It was taken in before; nothing was done."""
    LATE = "late"
    """It tells of a state before the end that is known already; nothing was done."""
    UNKNOWN = "unknown"
    """The vendor does not know the task, or no longer."""
    NO_TASK = "no-task"
    """It tells no state of a task."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """What came of an event.

    Attributes:
        event: The event.
        note: What was done with it.
        task: The task as it truly is; None unless `note` is ``applied``.
    """

    event: WebhookEvent
    note: Note
    task: Task | None = None


def ingest(
    connection: Connection, event: WebhookEvent, deadline: float, *, confirm: bool | None
) -> EffectFlow[Ingested]:
    """Find out the truth of an event, and tell those who wait.

    Args:
        channel: The connection.
        event: What `receive` made of a delivery.
        deadline: Monotonic seconds by which a look-up must be over.
        confirm: Look the task up before believing the event; None does where `needs_confirmation` says so.

    Raises:
        TaskbridgeError: The look-up failed; the event counts as not yet seen.
    """
    event_bus = connection.event_bus
    if not event_bus.take(event.duplicate_key):
        return Ingested(event, Note.DUPLICATE)
    settled = False
    try:
        told = yield from _truth(connection, event, deadline, confirm=confirm)
        # A mere hint is remembered only once it led to the end, or anybody could use it up before its time.
        settled = not event.needs_confirmation or told.note is Note.UNKNOWN or _is_over(told)
    finally:
        if not settled:
            event_bus.give_back(event.duplicate_key)
    return told


def _truth(
    connection: Connection, event: WebhookEvent, deadline: float, *, confirm: bool | None
) -> EffectFlow[Ingested]:
    if event.ref is None:
        return Ingested(event, Note.NO_TASK)
    if event.needs_confirmation if confirm is None else confirm:
        return (yield from _confirmed(connection, event, event.ref, deadline))
    if event.task is None:
        connection.event_bus.tell(event.ref)
        return Ingested(event, Note.NO_TASK)
    if event.task.is_terminal:
        connection.event_bus.saw(event.task)
        report_observation(
            connection,
            begin_trace(connection, event.ref.id, PollReason.NOTIFIED),
            ObservationSource.WEBHOOK,
            task=event.task,
        )
        return _apply(connection, event, event.task)
    if connection.event_bus.has_ended(event.ref):
        log("webhook-late", connection=connection.name, type=printable(event.type, 60), ref=event.ref)
        return Ingested(event, Note.LATE)
    report_observation(
        connection,
        begin_trace(connection, event.ref.id, PollReason.NOTIFIED),
        ObservationSource.WEBHOOK,
        task=event.task,
    )
    connection.event_bus.tell(event.ref)  # an event tells less than a look-up: those who watch look for themselves
    return Ingested(event, Note.APPLIED, event.task)


def _confirmed(connection: Connection, event: WebhookEvent, ref: TaskRef, deadline: float) -> EffectFlow[Ingested]:
    trace = begin_trace(connection, ref.id, PollReason.EVENT)
    try:
        seen = yield from poll(connection, ref.id, deadline, trace=trace)
    except TaskNotFound:
        log("webhook-unknown", connection=connection.name, ref=ref)
        return Ingested(event, Note.UNKNOWN)
    assert seen.task is not None  # noqa: S101  # None only where bytes were given to compare with
    report_observation(connection, trace, task=seen.task)
    return _apply(connection, event, seen.task)


def _apply(connection: Connection, event: WebhookEvent, task: Task) -> Ingested:
    connection.event_bus.tell(task)
    for part in task.subtasks:
        connection.event_bus.tell(part)
    for kind in connection.provider.capabilities.kinds:
        if kind.identity == "external_id" and task.external_id and kind.pattern.fullmatch(task.external_id):
            connection.event_bus.tell(replace(task, id=f"{kind.prefix}/{task.external_id}"))
    return Ingested(event, Note.APPLIED, task)


def _is_over(told: Ingested) -> bool:
    return told.task is not None and told.task.is_terminal
