"""What a vendor can do, as data, and the credentials and webhook deliveries that providers handle."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol

from taskbridge.models import Reason, UsageUnit
from taskbridge.provider.options import OptionTable
from taskbridge.provider.payload import Payload
from taskbridge.provider.secrets import SecretHeader
from taskbridge.provider.submission import Listing, ListPolling

BEARER_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)
"""A token that `Credential.bearer` can send: RFC 6750, section 2.1."""


@dataclass(frozen=True, slots=True)
class Credential:
    """Header fields that authenticate requests.

    Attributes:
        headers: Header fields that carry the credential.
        expires_at: Aware UTC time at which it expires, or None if the vendor states none.
    """

    headers: Mapping[str, str] = field(repr=False)
    expires_at: datetime | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "headers", {name: SecretHeader(value) for name, value in self.headers.items()})

    @classmethod
    def bearer(cls, token: str, expires_at: datetime | None = None) -> Credential:
        """Return the credential that sends a token in the field ``Authorization``."""
        return cls({"Authorization": f"Bearer {token}"}, expires_at)


@dataclass(frozen=True, slots=True)
class IdKind:
    """One kind of id that the vendor has, such as ``job/…``.

    Attributes:
        pattern: Regular expression that the whole id matches.
        prefix: Text before the first slash of the shared id; empty for the plain kind.
        noun: What the id names, for messages.
        identity: Field of `Task` that must equal this id, or None if the response contains no id.
        example: A shared id to show.
        ignore_case: Whether ids that differ only in case are the same id.
        resumable: Whether the vendor can be asked about the task later. False if tasks of this kind end with the
            response to their submission and the vendor keeps none; `submit` then returns a task that has ended.
    """

    pattern: re.Pattern[str]
    prefix: str = ""
    noun: str = "task"
    identity: str | None = "native_id"
    example: str = ""
    ignore_case: bool = False
    resumable: bool = True


LOCAL: Final = frozenset({"path", "bytes", "stream"})
"""Words of `Capabilities.inputs` for documents that have to be sent."""

PLAIN_ID: Final = re.compile(r"(?!\.+\Z)[A-Za-z0-9][A-Za-z0-9._~-]{0,127}", re.ASCII)
"""Ids that need no quoting in a URL path; a provider may allow more."""


@dataclass(frozen=True, slots=True)
class Webhooks:
    """A vendor's webhooks.

    Attributes:
        events: The vendor's names of its events, verbatim; empty if it has none.
        scheme: How the sender is verified, in words.
        signed_time: Whether the signature covers a time, so that an old delivery cannot be replayed.
        per_task: Whether a URL can be given with each task, besides those of the account.
        redelivers: Whether the vendor delivers an event again after the answer 503. If not, an event about a task that
            the vendor's API does not show as the event does is answered 204, because 503 would have no use.
    """

    events: tuple[str, ...]
    scheme: str
    signed_time: bool
    per_task: bool = False
    redelivers: bool = True


@dataclass(frozen=True, slots=True)
class Downloads:
    """What `client.download` saves of a result.

    Attributes:
        parts: What becomes a file: ``files`` (kept by the vendor), ``text`` and ``data`` (from its response), and
            whatever else the provider makes from those.
        links: Whether files are fetched by presigned links instead of with the connection's credential.
        link_ttl: Seconds that such a link is valid after the task's end, if the vendor states them.
        resumes: Whether the vendor's host is known to resume an interrupted download.
    """

    parts: tuple[str, ...]
    links: bool = False
    link_ttl: float | None = None
    resumes: bool = False


@dataclass(frozen=True, slots=True)
class Accepts:
    """The documents that an operation takes. What no source states is left open, and the vendor decides.

    Attributes:
        media_types: Their media types; empty if they are not stated.
        several: Whether it takes several documents.
        otherwise: What to do with a document of another type, for messages.
        at_most: Most documents of one submission, where it takes several; None if the vendor states no limit.
    """

    media_types: frozenset[str] = frozenset()
    several: bool = False
    otherwise: str = ""
    at_most: int | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a provider can do, as data; the feature matrix is generated from it.

    Attributes:
        kinds: Kinds of ids that `get` accepts, the plain kind first.
        authentication: How requests are authenticated, in words.
        progress: Whether the vendor reports progress.
        long_poll: Whether the vendor offers a long poll.
        separate_result: Whether the result needs a request of its own.
        subtasks: Whether an id can stand for several tasks.
        reasons: Reasons that can occur.
        webhooks: The vendor's webhooks; None if it has none.
        webhook_management: Whether the webhooks of the account can be listed, added and removed through the API.
        get_options: The vendor's query options that `client.get` passes on.
        list_polling: How the vendor's list reports many unfinished tasks at once; None if single polls are cheaper.
        operations: Neutral operation → the vendor's word. Any other operation of the vendor is ``native:…``.
        inputs: Accepted forms of a document: ``path``, ``bytes``, ``stream``, ``url``, ``file`` (a `TaskFile`).
        fetches_urls: Whether the library fetches a document given by URL, because the vendor needs the bytes.
        accepts: Operation, in the vendor's word → the documents that it takes; one of any type for all others.
        options: Neutral operation → the neutral options that the vendor can do, and how it says them.
        cancel: Whether a task can be stopped.
        retry: Whether a task can be run again as a new task.
        delete: Whether a task can be deleted.
        delete_files: Whether a file that the vendor keeps can be deleted.
        restart: Whether a task can be run again under the same id, losing its previous result.
        mark: Whether a task can be marked with a text of the caller's.
        listing: How tasks are listed; None if they cannot be.
        recover: By what an uncertain submission is found again; None if it cannot be.
        idempotency_key: Whether the vendor ensures that a submission sent twice runs once.
        external_id: Whether the vendor keeps an id of the caller's.
        callback: Whether a submission can name a URL that the vendor calls.
        downloads: What can be downloaded of a result; None if nothing can.
        result_parts: Operation, neutral or ``native:…`` → what `client.result` can have for it: ``text``, ``pages``,
            ``fields``.
        result_ttl: Seconds that a result is kept after the task's end, if the vendor states them.
        result_once: Whether the vendor deletes a result after it was read.
        upload_limit: Most bytes of one document, if the vendor states them.
        usage: Units in which the vendor says what a task cost; empty if it does not.
        account: Whether the vendor says how much is left on the account.
        operation_list: Whether the vendor lists its operations, with their formats and options.
    """

    kinds: tuple[IdKind, ...]
    authentication: str
    progress: bool = False
    long_poll: bool = False
    separate_result: bool = False
    subtasks: bool = False
    reasons: tuple[Reason, ...] = ()
    webhooks: Webhooks | None = None
    webhook_management: bool = False
    get_options: frozenset[str] = frozenset()
    list_polling: ListPolling | None = None
    operations: Mapping[str, str] = field(default_factory=dict[str, str])
    inputs: frozenset[str] = frozenset()
    fetches_urls: bool = False
    accepts: Mapping[str, Accepts] = field(default_factory=dict[str, Accepts])
    options: OptionTable = field(default_factory=dict[str, Mapping[str, str | Mapping[str, Mapping[str, Any]]]])
    cancel: bool = False
    retry: bool = False
    delete: bool = False
    delete_files: bool = False
    restart: bool = False
    mark: bool = False
    listing: Listing | None = None
    recover: str | None = None
    idempotency_key: bool = False
    external_id: bool = False
    callback: bool = False
    downloads: Downloads | None = None
    result_parts: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    result_ttl: float | None = None
    result_once: bool = False
    upload_limit: int | None = None
    usage: tuple[UsageUnit, ...] = ()
    account: bool = False
    operation_list: bool = False

    @property
    def calls(self) -> tuple[str, ...]:
        """Names of the client's methods that the vendor supports, besides those that need only a status request."""
        claims = {
            "submit": self.operations,
            "download": self.downloads,
            "list": self.listing,
            "cancel": self.cancel,
            "retry": self.retry,
            "delete": self.delete,
            "restart": self.restart,
            "mark": self.mark,
            "recover": self.recover,
            "account": self.account,
            "operations": self.operation_list,
            "webhooks": self.webhook_management,
            "add_webhook": self.webhook_management,
            "remove_webhook": self.webhook_management,
        }
        return tuple(name for name, claimed in claims.items() if claimed)


class Delivery(Protocol):
    """A webhook delivery; its body is available only through a method that verifies the sender."""

    @property
    def received_at(self) -> datetime:
        """Aware UTC time of receipt."""
        ...

    @property
    def digest(self) -> str:
        """A text that is equal for equal bytes, for `WebhookEvent.duplicate_key`."""
        ...

    def header(self, name: str) -> str | None:
        """Return a header field by its lower-case name; a repeated field is rejected."""
        ...

    def by_svix(self) -> bytes:
        """Return the body if ``svix-signature`` or ``webhook-signature`` matches one of the secrets."""
        ...

    def by_hex_hmac(self, header: str) -> bytes:
        """Return the body if a header is its hexadecimal HMAC-SHA256 with one of the secrets."""
        ...

    def by_url(self) -> bytes:
        """Return the body if the called URL contains one of the secrets as a path segment or a query value."""
        ...

    def by(self, check: Callable[[bytes, str], bool]) -> bytes:
        """Return the body if `check(body, secret)` is true for one of the secrets; it must compare in constant time."""
        ...

    def payload(self, body: bytes) -> Payload:
        """Return the JSON object in a body.

        Raises:
            MalformedResponse: The body is not a JSON object.
        """
        ...
