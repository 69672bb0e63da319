"""What the author of a provider needs, and nothing else.

A provider translates: each of its operations is a flow (`taskbridge.http`) that builds requests from a shared id and a
`Task` from what comes back. It imports no HTTP library and reads no clock. Retries, credentials' life, deadlines, pace,
the comparison of the id in the answer with the id asked for, and threads or asyncio are the core's business.

The reading order of a provider file is the same for all: docstring with the vendor's document, tables, settings, class
with name and capabilities, requests in the order in which a task lives, translation.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from json import dumps
from math import isfinite
from types import MappingProxyType
from typing import Any, ClassVar, Final, Generic, NamedTuple, NoReturn, Protocol, TypeAlias, TypeVar
from urllib.parse import quote, urlencode

from dateutil.parser import isoparse
from pydantic import BaseModel, ConfigDict

from taskbridge.errors import (
    ApiError,
    AuthenticationError,
    ContractError,
    InvalidRequest,
    InvalidTaskId,
    MalformedResponse,
    PermissionDenied,
    QuotaExceeded,
    RateLimited,
    ServerError,
    TaskNotFound,
    UnexpectedRedirect,
    UnsupportedFeature,
    plain,
)
from taskbridge.http import Body, Flow, Request, Response, Upload
from taskbridge.model import Reason, Task, TaskResult, TaskStatus, WebhookEvent
from taskbridge.submission import Bulk, Listing, Page, Query, Submission

__all__ = [
    "NO_TIME",
    "PLAIN_ID",
    "Capabilities",
    "CodeTable",
    "Credential",
    "Delivery",
    "IdKind",
    "Payload",
    "Provider",
    "ProviderSettings",
    "State",
    "StateTable",
    "Verdict",
    "Webhooks",
    "no_requests",
    "path_id",
    "read_state",
    "read_time",
]

StateTable: TypeAlias = Mapping[str, tuple[TaskStatus, Reason | None]]
"""The vendor's word on the left, ours on the right. A word with ``*`` is a pattern; rows are tried in their order."""

CodeTable: TypeAlias = Mapping[str, type[ApiError]]
"""The vendor's error code on the left, the class on the right; only where it says more than the HTTP status."""

StatusTable: TypeAlias = Mapping[int, type[ApiError]]
"""The HTTP status on the left, the class on the right."""


# Reading tables.


class State(NamedTuple):
    """What a table says about a word.

    Attributes:
        status: Ours.
        reason: Ours.
        recognised: Whether the table knows the word.
    """

    status: TaskStatus
    reason: Reason | None = None
    recognised: bool = True


UNKNOWN: Final = State(TaskStatus.PROCESSING, None, recognised=False)


def read_state(table: StateTable, word: str | None) -> State:
    """Read a vendor's word; a word that the table does not know is processing and not recognised.

    Args:
        table: Words and patterns, compared without regard to case and spaces.
        word: The vendor's word, or None where it said nothing.
    """
    if word is None:
        return UNKNOWN
    row = table.get(word)
    if row is None:
        known = _squeeze(word)
        row = next((row for key, row in table.items() if fnmatchcase(known, _pattern(key))), None)
    return UNKNOWN if row is None else State(*row)


def _squeeze(word: str) -> str:
    return "".join(word.split()).casefold()


def _pattern(key: str) -> str:
    # Only * is special in a table: brackets and question marks are letters.
    return _squeeze(key).replace("[", "[[]").replace("?", "[?]")


def read_time(value: object) -> datetime | None:
    """Read an ISO 8601 time as aware UTC; a time without a zone is UTC, anything unreadable is None.

    Args:
        value: What the vendor sent.
    """
    if type(value) is not str:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        try:
            moment = isoparse(value)
        except (ValueError, OverflowError):
            return None
    if moment.tzinfo is UTC:
        return moment
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def path_id(native: str) -> str:
    """An id as one segment of a path."""
    return quote(native, safe="")


# What came back.


class Payload:
    """The decoded body of an answer, with getters that read what is there and survive what is not.

    Getters named after a type demand the field and raise `MalformedResponse`; those named ``maybe_…`` answer None where
    it is missing or unreadable.

    Attributes:
        raw: The vendor's object, verbatim.
        connection: Name of the connection that it came through.
        observed_at: Aware UTC time of receipt.
    """

    __slots__ = ("connection", "observed_at", "raw")

    def __init__(self, raw: Mapping[str, Any], connection: str, observed_at: datetime) -> None:
        self.raw = raw
        self.connection = connection
        self.observed_at = observed_at

    @classmethod
    def of(cls, document: Any, connection: str, observed_at: datetime) -> Payload:
        """Wrap a decoded body.

        Raises:
            MalformedResponse: It is not a JSON object.
        """
        if document.__class__ is not dict:
            raise MalformedResponse(
                f"the vendor's answer has the wrong shape: {_kind(document)} instead of an object",
                raw=document,
            )
        return cls(document, connection, observed_at)

    def text(self, key: str) -> str:
        """A required, non-empty text without NUL or broken characters."""
        value = self.raw.get(key)
        if type(value) is not str or not value or not _sound(value):
            self._demand(key, "a text", value)
        return value

    def identifier(self, key: str) -> str:
        """A required id as text: printable, so that a ref can be made of it."""
        value = self.text(key)
        if not value.isprintable():
            raise MalformedResponse(f"the vendor's answer breaks its contract: {key!r} is no id", raw=self.raw)
        return value

    def integer(self, key: str) -> int:
        """A required integer; true and false are none."""
        value = self.raw.get(key)
        if type(value) is not int:
            self._demand(key, "an integer", value)
        return value

    def child(self, key: str) -> Payload:
        """A required object."""
        value: Any = self.raw.get(key)
        if value.__class__ is not dict:  # not type(value): type checkers would lose what it holds
            self._demand(key, "an object", value)
        return Payload(value, self.connection, self.observed_at)

    def maybe_text(self, key: str) -> str | None:
        """A text; broken characters are replaced and NUL is shown."""
        value = self.raw.get(key)
        if type(value) is not str:
            return None
        return value if value.isprintable() else _sounded(value)

    def maybe_words(self, key: str) -> str | None:
        """A text for people, clipped to 2048 characters; blank is None."""
        text = self.maybe_text(key)
        if text is None or text.isspace() or not text:
            return None
        return text if len(text) <= _WORDS_LIMIT else text[: _WORDS_LIMIT - 1] + "…"

    def maybe_integer(self, key: str) -> int | None:
        """An integer; true and false are none."""
        value = self.raw.get(key)
        return value if type(value) is int else None

    def maybe_number(self, key: str) -> float | None:
        """A finite number; true and false are none."""
        value = self.raw.get(key)
        if type(value) is int or (type(value) is float and isfinite(value)):
            return value
        return None

    def maybe_share(self, key: str, whole: float) -> float | None:
        """A number as a share of `whole`, clamped to 0.0 … 1.0."""
        value = self.maybe_number(key)
        return None if value is None else min(max(value, 0.0), whole) / whole

    def maybe_time(self, key: str) -> datetime | None:
        """An ISO 8601 time as aware UTC."""
        value = self.raw.get(key)
        return None if value is None else read_time(value)

    def maybe_child(self, key: str) -> Payload | None:
        """An object."""
        value: Any = self.raw.get(key)
        return None if value.__class__ is not dict else Payload(value, self.connection, self.observed_at)

    def children(self, key: str) -> Iterator[Payload]:
        """The objects in a list; nothing where there is no list, and what is no object is passed over."""
        value: Any = self.raw.get(key)
        for item in value if value.__class__ is list else ():
            if item.__class__ is dict:
                yield Payload(item, self.connection, self.observed_at)

    def _demand(self, key: str, wanted: str, value: object) -> NoReturn:
        fault = "is missing" if value is None else f"is {_kind(value)} instead of {wanted}"
        if type(value) is str and value:
            fault = "holds characters that no text may hold"
        raise MalformedResponse(f"the vendor's answer breaks its contract: {key!r} {fault}", raw=self.raw)


_WORDS_LIMIT: Final = 2048
_KINDS: Final[Mapping[type, str]] = {
    dict: "an object",
    list: "a list",
    str: "a text",
    bool: "true or false",
    int: "a number",
    float: "a number",
}


def _kind(value: object) -> str:
    if value == "":
        return "an empty text"
    return _KINDS.get(type(value), "null")


def _sound(text: str) -> bool:
    return text.isprintable() or ("\0" not in text and _encodable(text))


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _sounded(text: str) -> str:
    if _sound(text):
        return text
    return text.replace("\0", "␀").encode("utf-8", "replace").decode()


# What a provider is and can do.


@dataclass(frozen=True, slots=True)
class Credential:
    """What proves to the vendor who is asking.

    Attributes:
        headers: Header fields that carry it.
        expires_at: Aware UTC time from which it is no good, or None where the vendor gives none.
    """

    headers: Mapping[str, str] = field(repr=False)
    expires_at: datetime | None = None


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
        look_options: Query options of the vendor that `client.get` hands on.
        bulk: How the vendor's list tells of many tasks in flight at once; None where looks are cheaper.
        operations: Neutral operation -> the vendor's word. Any other operation of the vendor goes as ``native:…``.
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
    look_options: frozenset[str] = frozenset()
    bulk: Bulk | None = None
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
    result_ttl: float | None = None
    upload_limit: int | None = None

    @property
    def calls(self) -> tuple[str, ...]:
        """Names of the client's calls that the vendor can serve, beside those that need only a look-up."""
        claims = {
            "submit": bool(self.operations),
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


class ProviderSettings(BaseModel):
    """Base of a provider's own settings: name them as fields, with `SecretStr` for what must not be seen.

    Fields whose names end in ``_url`` are addresses: plain ``http`` is refused for them unless the host is this
    machine.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        defer_build=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    def __reduce__(self) -> NoReturn:
        raise TypeError("settings hold credentials and are not pickled; pass the connection's name instead")


S = TypeVar("S", bound=ProviderSettings)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the body of a refusal says.

    Attributes:
        code: The vendor's code, verbatim.
        message: The vendor's words.
        request_id: The vendor's id of the request.
    """

    code: str | None = None
    message: str | None = None
    request_id: str | None = None


# HTTP status -> error. faults.md's catalogue of refusals; what is not here is ApiError (4xx) or ServerError (5xx).
_BY_STATUS: Final[StatusTable] = {
    400: InvalidRequest,
    401: AuthenticationError,
    402: QuotaExceeded,
    403: PermissionDenied,
    404: TaskNotFound,
    405: InvalidRequest,
    409: InvalidRequest,
    410: TaskNotFound,
    413: InvalidRequest,
    422: InvalidRequest,
    429: RateLimited,
}

_WITH_BODY: Final = frozenset({200, 201, 202})
_ACCEPTED: Final = frozenset({200, 201, 202, 204})
_REPEATABLE: Final = frozenset({408, 425})  # beside RateLimited and ServerError
_NEVER_REPEATED: Final = frozenset({501, 505})  # the server says that it cannot, not that it could not


class Provider(ABC, Generic[S]):
    """One vendor's translator.

    Args:
        settings: The connection's own settings, checked.
        connection: The connection's name.
    """

    name: ClassVar[str]
    """Entry-point name."""
    title: ClassVar[str]
    """The vendor's name as people write it."""
    docs: ClassVar[str]
    """The vendor's documentation."""
    Settings: ClassVar[type[ProviderSettings]]
    """The connection's own settings."""
    capabilities: ClassVar[Capabilities]
    """What the vendor can do."""
    codes: ClassVar[CodeTable] = {}
    """The vendor's error codes that say more than the HTTP status."""
    statuses: ClassVar[StatusTable] = {}
    """HTTP statuses that mean something else at this vendor."""
    account_refusals: ClassVar[frozenset[str | int]] = frozenset()
    """Vendor codes or HTTP statuses of a refusal that is about the account, not the task: they pause the connection."""
    max_body: ClassVar[int] = 1 << 20
    """Bytes of a decoded answer that are read at most."""
    max_delivery: ClassVar[int] = 1 << 20
    """Bytes of a webhook delivery that are looked at; a larger one is refused."""
    wait_hints: ClassVar[Mapping[TaskStatus | Reason, str]] = MappingProxyType({})
    """What a user should know when a wait ran out of time, by the reason or status that the task was last seen in."""

    def __init__(self, settings: S, connection: str) -> None:
        self.settings = settings
        self.connection = connection

    # Requests, in the order in which a task lives.

    def authorise(self) -> Flow[Credential]:
        """The credential that the requests carry; the core keeps it, and renews it before it expires."""
        return no_requests(Credential({}))

    @abstractmethod
    def get(self, task_id: str) -> Flow[Task]:
        """Look a task up once.

        Args:
            task_id: A shared id that `split_id` accepts.
        """

    def hold(self, task_id: str) -> Flow[Task] | None:
        """Look a task up on a line that the vendor holds until the end; None where it has none for this id."""
        del task_id
        return None

    def result(self, task: Task) -> Flow[TaskResult]:
        """What a completed task made; the default is what the status answer itself carried.

        Args:
            task: A completed task.
        """
        if task.result is None:
            raise MalformedResponse("the task is completed, but the vendor's answer has no result", raw=task.raw)
        return (yield from no_requests(task.result))

    # Requests that change something. What `capabilities` does not claim is refused before it comes here.

    def get_with(self, task_id: str, options: Mapping[str, Any]) -> Flow[Task]:
        """Look a task up once, with the vendor's own query options.

        Args:
            task_id: A shared id that `split_id` accepts.
            options: By name; `Capabilities.look_options` has all their names.
        """
        del task_id, options
        raise self.unsupported("look a task up with options")

    def submit(self, order: Submission) -> Flow[Task]:
        """Hand an order to the vendor.

        The one request after which the vendor may have taken it is marked ``commits``; each request after the first
        tells in its ``clue`` what was made before it.

        Args:
            order: What to do; its documents are data, and may be sent as often as needed.
        """
        del order
        raise self.unsupported("submit")

    def sweep(self, prefixes: frozenset[str], now: datetime, age: float) -> tuple[Query, ...]:
        """What to ask the list for, so that it shows the tasks that go on; those it does not show are looked at.

        Args:
            prefixes: Kinds of ids that are waited for.
            now: Aware UTC time.
            age: Seconds since the oldest of them was created, as far as is known.
        """
        del prefixes, now, age
        return ()

    def list_page(self, query: Query, cursor: str | None) -> Flow[Page]:
        """Ask for one page of the vendor's list; links in the answer are read, never followed.

        Args:
            query: What is asked for; of its status only what `Listing.statuses` claims has to be heeded.
            cursor: `Page.next_cursor` of the page before; None for the first.
        """
        del query, cursor
        raise self.unsupported("list")

    def cancel(self, task_id: str) -> Flow[Task]:
        """Stop a task; one that has ended is answered as it is.

        Args:
            task_id: A shared id that `split_id` accepts.
        """
        del task_id
        raise self.unsupported("cancel")

    def retry(self, task_id: str) -> Flow[Task]:
        """Do a task once more, as a new task whose `retry_of` is this one.

        Args:
            task_id: A shared id that `split_id` accepts.
        """
        del task_id
        raise self.unsupported("retry")

    def delete(self, task_id: str) -> Flow[None]:
        """Remove a task and what it made.

        Args:
            task_id: A shared id that `split_id` accepts.
        """
        del task_id
        raise self.unsupported("delete")

    def restart(self, task_id: str) -> Flow[Task]:
        """Do a task anew under its own id; what it was is lost.

        Args:
            task_id: A shared id that `split_id` accepts.
        """
        del task_id
        raise self.unsupported("restart")

    def recover(self, clue: Mapping[str, Any]) -> Flow[Task | None]:
        """Look for an order of unknown fate; None where the vendor does not have it.

        Args:
            clue: ``reference``, ``operation`` (the vendor's word) and ``time`` (ISO 8601) of the order, and what its
                requests told in their ``clue``.
        """
        del clue
        raise self.unsupported("recover")

    def unsupported(self, what: str) -> UnsupportedFeature:
        """The error for what the vendor does not have, naming what it offers instead.

        Args:
            what: In words that follow "cannot".
        """
        offered = ", ".join(("get", "wait", "result", *self.capabilities.calls))
        return UnsupportedFeature(
            f"{self.title} cannot {what}; it offers {offered}", provider=self.name, connection=self.connection
        )

    # What the vendor tells unasked.

    def parse_webhook(self, delivery: Delivery) -> WebhookEvent:
        """Read a webhook delivery; no I/O.

        The delivery hands its body out only to who names what proves the sender (``delivery.by_svix()`` and its
        like); what cannot be proved or read is refused for you.

        Args:
            delivery: What came in.
        """
        del delivery
        raise UnsupportedFeature(
            f"{self.title} sends no webhooks; wait, as_completed and watch ask it instead", provider=self.name
        )

    # For flows.

    def request(
        self,
        method: str,
        path: str,
        *,
        base: str | None = None,
        params: Mapping[str, Any] | None = None,
        json: object = None,
        body: Body = None,
        hold: float | None = None,
        idempotent: bool | None = None,
        expect: str = "json",
        commits: bool = False,
        clue: Mapping[str, Any] | None = None,
    ) -> Request:
        """A request to the vendor's API.

        Args:
            method: HTTP method.
            path: What follows the base URL; ids in it come from `path_id`.
            base: Another base URL than `base_url` of the settings.
            params: Query parameters; one whose value is a list is repeated.
            json: A body to be sent as JSON.
            body: A body as it is; JSON around a file goes with the header of JSON, a form brings its own.
            hold: Seconds for which the vendor may hold the line.
            idempotent: See `Request`.
            expect: See `Request`; ``bytes`` where the answer has no body.
            commits: See `Request`.
            clue: See `Request`.
        """
        url = f"{base or self.base_url}{path}"
        if params:
            url = f"{url}?{urlencode(params, doseq=True, quote_via=quote)}"
        if json is not None:
            body = dumps(json, allow_nan=False).encode()
        return Request(
            method,
            url,
            headers=_ACCEPT if body is None or isinstance(body, Upload) else _SEND_JSON,
            body=body,
            hold=hold,
            idempotent=idempotent,
            expect=expect,
            commits=commits,
            clue=clue or {},
        )

    @property
    def base_url(self) -> str:
        """The API's address without a trailing slash."""
        return str(getattr(self.settings, "base_url", "")).rstrip("/")

    def payload(self, response: Response) -> Payload:
        """The decoded body of an answer.

        Raises:
            ApiError: The vendor refused; the class follows its code, then the HTTP status.
            ContractError: The answer is no JSON object, or a redirect.
        """
        if response.status not in _WITH_BODY:
            raise self.error(response)
        return Payload.of(response.json(), self.connection, response.received_at)

    def accept(self, response: Response) -> None:
        """Take note of an answer whose body does not matter.

        Raises:
            ApiError: The vendor refused.
            UnexpectedRedirect: It redirected.
        """
        if response.status not in _ACCEPTED:
            raise self.error(response)

    def error(self, response: Response) -> ApiError | ContractError:
        """The error for an answer that is not the one hoped for."""
        status = response.status
        if 300 <= status < 400 and status != 304:
            return UnexpectedRedirect(
                "the vendor redirected the call, which is never followed; check base_url", http_status=status
            )
        if status < 400 or status > 599:
            return MalformedResponse(f"HTTP {status} is no answer to this call", repeats=1, http_status=status)
        document = _readable(response)
        verdict = self.verdict(document) if type(document) in _OBJECT else Verdict()
        kind = self._class_of(status, verdict.code)
        words = plain(verdict.message, 500) if verdict.message else _default_words(status)
        if verdict.message and kind is AuthenticationError:
            words = f"{words.rstrip('.')}; {_CHECK_CREDENTIAL}"
        if response.attempts > 1:
            words = f"{words} (after {response.attempts} attempts)"
        return kind(
            words,
            http_status=status,
            vendor_code=verdict.code,
            request_id=verdict.request_id or response.headers.get("x-request-id"),
            retry_after=response.retry_after,
            retryable=status not in _NEVER_REPEATED and (status in _REPEATABLE or kind.retryable_by_default),
            raw=document if document is not None else response.body[:2048].decode("utf-8", "replace"),
        )

    def _class_of(self, status: int, code: str | None) -> type[ApiError]:
        by_code = self.codes.get(code) if code is not None else None
        default = ServerError if status >= 500 else ApiError
        return by_code or self.statuses.get(status) or _BY_STATUS.get(status, default)

    def verdict(self, document: Mapping[str, Any]) -> Verdict:
        """Read the body of a refusal; the default reads ``message`` and ``code``."""
        said = Payload(document, self.connection, NO_TIME)
        return Verdict(said.maybe_text("code"), said.maybe_words("message"))

    def split_id(self, task_id: str) -> tuple[IdKind, str]:
        """The kind of a shared id, and the vendor's id in it.

        Raises:
            InvalidTaskId: It cannot be an id of this vendor; nothing was sent.
        """
        kinds = self.capabilities.kinds
        head, slash, rest = task_id.partition("/")
        kind = next((k for k in kinds if k.prefix and slash and k.prefix == head), None)
        native = task_id if kind is None else rest
        kind = kind or next(k for k in kinds if not k.prefix)
        if kind.pattern.fullmatch(native) is None:
            shapes = " or ".join(f"{k.example} (a {k.noun})" for k in kinds)
            raise InvalidTaskId(
                f"{plain(task_id, 80)!r} cannot be an id of {self.title}; ids look like {shapes}",
                provider=self.name,
                connection=self.connection,
            )
        return kind, native


_OBJECT: Final = frozenset({dict})
_ACCEPT: Final = {"Accept": "application/json"}
_SEND_JSON: Final = {"Accept": "application/json", "Content-Type": "application/json"}
NO_TIME: Final = datetime.min.replace(tzinfo=UTC)
"""Stamp of a `Payload` that is no task, such as the body of a refusal."""

T = TypeVar("T")


def no_requests(value: T) -> Flow[T]:
    """A flow that needs no request."""
    return value
    yield  # makes it a generator


def _readable(response: Response) -> Any:
    try:
        return response.json()
    except MalformedResponse:
        return None


_CHECK_CREDENTIAL: Final = "check that the credential is right, current, and of this environment"
_WORDS: Final[Mapping[int, str]] = {
    401: f"the vendor refused the credential; {_CHECK_CREDENTIAL}",
    402: "the vendor refuses further work on this account",
    403: "the credential may not do this",
    404: "the vendor does not know this id, or no longer",
    410: "the vendor no longer has it",
    429: "too many requests",
}


def _default_words(status: int) -> str:
    if status >= 500:
        return "the vendor's server failed"
    return _WORDS.get(status, "the vendor refused the request")
