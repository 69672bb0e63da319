"""What a vendor is asked with and what it can do, as data: the feature matrix is made from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from taskbridge.models import Reason
from taskbridge.provider.payload import Payload
from taskbridge.provider.secrets import SecretHeader
from taskbridge.provider.submission import Listing, ListPolling

__all__ = ["Capabilities", "Credential", "Delivery", "Downloads", "IdKind", "PLAIN_ID", "Webhooks"]


@dataclass(frozen=True, slots=True)
class Credential:
    """What proves to the vendor who is asking.

    Attributes:
        headers: Header fields that carry it.
        expires_at: Aware UTC time from which it is no good, or None where the vendor gives none.
    """

    headers: Mapping[str, str] = field(repr=False)
    expires_at: datetime | None = None

    def __post_init__(self) -> None:
        hidden = {name: SecretHeader(value) for name, value in self.headers.items()}
        object.__setattr__(self, "headers", hidden)


@dataclass(frozen=True, slots=True)
class IdKind:
    """One kind of thing that the vendor gives ids to.

    Attributes:
        pattern: What its ids match, whole.
        prefix: What stands in front of the first slash of the shared id; empty for the plain kind.
        noun: The kind in words, for messages.
        identity: Field of `Task` that has to answer with this id, or None where the answer holds no id.
        example: A shared id to show.
        ignore_case: Whether ids that differ only in case are the same id.
    """

    pattern: re.Pattern[str]
    prefix: str = ""
    noun: str = "task"
    identity: str | None = "native_id"
    example: str = ""
    ignore_case: bool = False


PLAIN_ID: Final = re.compile(r"(?!\.+\Z)[A-Za-z0-9][A-Za-z0-9._~-]{0,127}", re.ASCII)
"""Ids that pass through a path as they are; a provider may widen it."""


@dataclass(frozen=True, slots=True)
class Webhooks:
    """What a vendor tells unasked.

    Attributes:
        events: The vendor's words for its events, verbatim; empty where it has none.
        scheme: What proves the sender, in words.
        signed_time: Whether the proof covers a time, so that an old delivery cannot be sent again.
        per_task: Whether an address can be given with each task, beside those of the account.
    """

    events: tuple[str, ...]
    scheme: str
    signed_time: bool
    per_task: bool = False


@dataclass(frozen=True, slots=True)
class Downloads:
    """What `client.download` brings home of a result.

    Attributes:
        parts: What becomes a file: ``files`` (which the vendor keeps), ``text`` and ``data`` (of its answer), and what
            else the provider makes of that.
        links: Whether files are fetched by links that are capabilities, and not with the connection's credential.
        link_ttl: Seconds that such a link lives after its task's end, where the vendor states them.
        resumes: Whether the vendor's host is known to go on with a file where it broke off.
    """

    parts: tuple[str, ...]
    links: bool = False
    link_ttl: float | None = None
    resumes: bool = False


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a provider can do, as data: the feature matrix is made from it.

    Attributes:
        kinds: Things with ids that can be looked up, the plain kind first.
        authentication: How the vendor knows who is asking.
        progress: Whether the vendor reports how much of the work is done.
        long_poll: Whether a look-up may hold the line until the end.
        result_apart: Whether the result takes a request of its own.
        subtasks: Whether one thing can be made of several tasks.
        reasons: Refinements of a status that can occur.
        webhooks: What the vendor tells unasked; None where it never does.
        get_options: Query options of the vendor that `client.get` hands on.
        bulk: How the vendor's list tells of many tasks in flight at once; None where looks are cheaper.
        operations: Neutral operation → the vendor's word. Any other operation of the vendor goes as ``native:…``.
        inputs: What a document may be given as: ``path``, ``bytes``, ``stream``, ``url``, ``file`` (a `TaskFile`).
        fetches_urls: Whether a document given by URL is fetched by us first, because the vendor wants bytes.
        many_inputs: Operations, in the vendor's word, that take several documents.
        cancel: Whether a task can be stopped.
        retry: Whether a task can be done once more, as a new task.
        delete: Whether a task can be removed.
        restart: Whether a task can be done anew under its own id, losing what it was.
        listing: How tasks are listed; None where they are not.
        recover: By what an order of unknown fate is found again; None where it cannot be found.
        idempotency_key: Whether the vendor itself takes care that an order sent twice is done once.
        external_id: Whether the vendor keeps an id of the caller's beside its own.
        callback: Whether an order can name an address that the vendor calls.
        downloads: What is brought home of a result; None where nothing is.
        result_ttl: Seconds that a result lives after the task's end, where the vendor states them.
        upload_limit: Bytes of one document at most, where the vendor states them.
    """

    kinds: tuple[IdKind, ...]
    authentication: str
    progress: bool = False
    long_poll: bool = False
    result_apart: bool = False
    subtasks: bool = False
    reasons: tuple[Reason, ...] = ()
    webhooks: Webhooks | None = None
    get_options: frozenset[str] = frozenset()
    list_polling: ListPolling | None = None
    operations: Mapping[str, str] = field(default_factory=dict[str, str])
    inputs: frozenset[str] = frozenset()
    fetches_urls: bool = False
    many_inputs: frozenset[str] = frozenset()
    cancel: bool = False
    retry: bool = False
    delete: bool = False
    restart: bool = False
    listing: Listing | None = None
    recover: str | None = None
    idempotency_key: bool = False
    external_id: bool = False
    callback: bool = False
    downloads: Downloads | None = None
    result_ttl: float | None = None
    upload_limit: int | None = None

    @property
    def calls(self) -> tuple[str, ...]:
        """Names of the client's calls that the vendor can serve, beside those that need only a look-up."""
        claims = {
            "submit": bool(self.operations),
            "download": self.downloads is not None,
            "list": self.listing is not None,
            "cancel": self.cancel,
            "retry": self.retry,
            "delete": self.delete,
            "restart": self.restart,
            "recover": self.recover is not None,
        }
        return tuple(name for name, claimed in claims.items() if claimed)


class Delivery(Protocol):
    """A webhook delivery: its body is handed out only to who names what proves the sender."""

    @property
    def received_at(self) -> datetime:
        """Aware UTC time of receipt."""
        ...

    @property
    def digest(self) -> str:
        """A text that is the same for the same bytes, for `WebhookEvent.duplicate_key`."""
        ...

    def header(self, name: str) -> str | None:
        """A header field, by its name in lower case; one that comes twice is refused."""
        ...

    def by_svix(self) -> bytes:
        """The body, where ``svix-signature`` or ``webhook-signature`` is right for one of the secrets."""
        ...

    def by_hex_hmac(self, header: str) -> bytes:
        """The body, where a header is its HMAC-SHA256 in hexadecimal for one of the secrets."""
        ...

    def by_url(self) -> bytes:
        """The body, where one of the secrets stands in the URL that was called, as a path segment or a query value."""
        ...

    def by(self, check: Callable[[bytes, str], bool]) -> bytes:
        """The body, where `check` says so of the body and one of the secrets; it compares in constant time."""
        ...

    def payload(self, body: bytes) -> Payload:
        """The JSON object in a body.

        Raises:
            MalformedResponse: There is none.
        """
        ...
