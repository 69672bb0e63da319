"""What a provider's flows call: requests that are built, answers that are read, refusals that become errors, ids.

It knows the provider's tables and no vendor; `Provider` is the part that authors fill in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from json import dumps
from types import MappingProxyType
from typing import Any, ClassVar, Final, Generic, NoReturn, TypeAlias, TypeVar
from urllib.parse import quote, urlencode

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
    printable,
)
from taskbridge.models import Reason, Task, TaskFile, TaskResult, TaskStatus, WebhookEvent
from taskbridge.provider.capabilities import Capabilities, Credential, Delivery, IdKind
from taskbridge.provider.http import Body, Flow, Form, Request, Response, Upload
from taskbridge.provider.payload import NO_TIME, Payload
from taskbridge.provider.results import GeneratedFile, generated_files
from taskbridge.provider.submission import Page, Query, Submission

__all__ = ["Provider", "no_requests"]

# XXDOC What the author of a provider needs, and nothing else.
#
# A provider translates: each of its operations is a flow (`taskbridge.provider.http`) that builds requests from a shared id and a
# `Task` from what comes back. It imports no HTTP library and reads no clock. Retries, credentials' life, deadlines, pace,
# the comparison of the id in the answer with the id asked for, and threads or asyncio are the core's business.
#
# The reading order of a provider file is the same for all: docstring with the vendor's document, tables, settings, class
# with name and capabilities, requests in the order in which a task lives, translation.
#

CodeTable: TypeAlias = Mapping[str, type[ApiError]]
"""The vendor's error code on the left, the class on the right; only where it says more than the HTTP status."""


StatusTable: TypeAlias = Mapping[int, type[ApiError]]
"""The HTTP status on the left, the class on the right."""


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

    usual: ClassVar[tuple[str, ...]] = ()
    """Settings that a first configuration states, where those without a default are not all: one way to sign in."""

    def __reduce__(self) -> NoReturn:
        raise TypeError("settings hold credentials and are not pickled; pass the connection's name instead")


S = TypeVar("S", bound=ProviderSettings)


@dataclass(frozen=True, slots=True)
class ErrorDetails:
    """What the body of a refusal says.

    Attributes:
        code: The vendor's code, verbatim.
        message: The vendor's words.
        request_id: The vendor's id of the request.
    """

    code: str | None = None
    message: str | None = None
    request_id: str | None = None


# HTTP status -> error, as docs/reliability.md has them; what is not here is ApiError (4xx) or ServerError (5xx).
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


class Dialogue(Generic[S]):
    """How one vendor is spoken to: `Provider` without what its authors write.

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

    def __init__(self, settings: S, connection: str) -> None:
        self.settings = settings
        self.connection = connection

    def request(
        self,
        method: str,
        path: str,
        *,
        base: str | None = None,
        params: Mapping[str, Any] | None = None,
        json: object = None,
        body: Body = None,
        long_poll: float | None = None,
        idempotent: bool | None = None,
        response_type: str = "json",
        starts_work: bool = False,
        recovery_token: Mapping[str, Any] | None = None,
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
            headers=_ACCEPT if body is None or isinstance(body, Form | Upload) else _SEND_JSON,
            body=body,
            long_poll=long_poll,
            idempotent=idempotent,
            response_type=response_type,
            starts_work=starts_work,
            recovery_token=recovery_token or {},
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
        error_details = self.error_details(document) if type(document) in _OBJECT else ErrorDetails()
        kind = self._class_of(status, error_details.code)
        words = printable(error_details.message, 500) if error_details.message else _default_words(status)
        if error_details.message and kind is AuthenticationError:
            words = f"{words.rstrip('.')}; {_CHECK_CREDENTIAL}"
        if response.attempts > 1:
            words = f"{words} (after {response.attempts} attempts)"
        return kind(
            words,
            http_status=status,
            vendor_code=error_details.code,
            request_id=error_details.request_id or response.headers.get("x-request-id"),
            retry_after=response.retry_after,
            retryable=status not in _NEVER_REPEATED and (status in _REPEATABLE or kind.retryable_by_default),
            raw=document if document is not None else response.body[:2048].decode("utf-8", "replace"),
        )

    def _class_of(self, status: int, code: str | None) -> type[ApiError]:
        by_code = self.codes.get(code) if code is not None else None
        default = ServerError if status >= 500 else ApiError
        return by_code or self.statuses.get(status) or _BY_STATUS.get(status, default)

    def error_details(self, document: Mapping[str, Any]) -> ErrorDetails:
        """Read the body of a refusal; the default reads ``message`` and ``code``."""
        said = Payload(document, self.connection, NO_TIME)
        return ErrorDetails(said.maybe_text("code"), said.maybe_words("message"))

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
                f"{printable(task_id, 80)!r} cannot be an id of {self.title}; ids look like {shapes}",
                provider=self.name,
                connection=self.connection,
            )
        return kind, native

    def unsupported(self, what: str) -> UnsupportedFeature:
        """The error for what the vendor does not have, naming what it offers instead.

        Args:
            what: In words that follow "cannot".
        """
        offered = ", ".join(("get", "wait", "result", *self.capabilities.calls))
        return UnsupportedFeature(
            f"{self.title} cannot {what}; it offers {offered}", provider=self.name, connection=self.connection
        )


_OBJECT: Final = frozenset({dict})


_ACCEPT: Final = {"Accept": "application/json"}


_SEND_JSON: Final = {"Accept": "application/json", "Content-Type": "application/json"}


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


class Provider(Dialogue[S], ABC):
    """One vendor's translator.

    Args:
        settings: The connection's own settings, checked.
        connection: The connection's name.
    """

    account_refusals: ClassVar[frozenset[str | int]] = frozenset()
    """Vendor codes or HTTP statuses of a refusal that is about the account, not the task: they pause the connection."""
    uncertain_statuses: ClassVar[frozenset[int]] = frozenset()
    """HTTP statuses from 500 on that the vendor has given to orders which it took all the same: such an order is
    `SubmitUncertain`. Those of gateways (502, 504, 520 to 524) leave every vendor's orders in doubt."""
    max_body: ClassVar[int] = 1 << 20
    """Bytes of a decoded answer that are read at most."""
    max_delivery: ClassVar[int] = 1 << 20
    """Bytes of a webhook delivery that are looked at; a larger one is refused."""
    wait_hints: ClassVar[Mapping[TaskStatus | Reason, str]] = MappingProxyType({})
    """What a user should know when a wait ran out of time, by the reason or status that the task was last seen in."""

    # Requests, in the order in which a task lives.

    def authorize(self) -> Flow[Credential]:
        """The credential that the requests carry; the core keeps it, and renews it before it expires."""
        return no_requests(Credential({}))

    @abstractmethod
    def get(self, task_id: str) -> Flow[Task]:
        """Look a task up once.

        Args:
            task_id: A shared id that `split_id` accepts.
        """

    def long_poll(self, task_id: str) -> Flow[Task] | None:
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

    def result_files(self, task: Task, result: TaskResult) -> tuple[TaskFile | GeneratedFile, ...]:
        """The files that a result makes: those that the vendor keeps, else its text and its data.

        Args:
            task: A completed task.
            result: What it made.
        """
        return result.files or generated_files(task, result)

    def source(self, file: TaskFile) -> Request:
        """The request for the bytes of a file; the default asks its link, without a credential.

        The core sends it, follows redirects, and streams the answer to the disk.

        Args:
            file: A file that a task made.
        """
        if not file.url:
            raise MalformedResponse(f"{self.title} gives no link to the file {printable(file.name or '', 80)!r}")
        return Request(
            "GET", file.url, headers={"Accept": "*/*"}, authorized=False, response_type="bytes", external=True
        )

    # Requests that change something. What `capabilities` does not claim is refused before it comes here.

    def get_with(self, task_id: str, options: Mapping[str, Any]) -> Flow[Task]:
        """Look a task up once, with the vendor's own query options.

        Args:
            task_id: A shared id that `split_id` accepts.
            options: By name; `Capabilities.get_options` has all their names.
        """
        del task_id, options
        raise self.unsupported("look a task up with options")

    def submit(self, order: Submission) -> Flow[Task]:
        """Hand an order to the vendor.

        The one request after which the vendor may have taken it is marked ``starts_work``; each request after the first
        tells in its ``recovery_token`` what was made before it.

        Args:
            order: What to do; its documents are data, and may be sent as often as needed.
        """
        del order
        raise self.unsupported("submit")

    def list_queries(self, prefixes: frozenset[str], now: datetime, age: float) -> tuple[Query, ...]:
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

    def recover(self, recovery_token: Mapping[str, Any]) -> Flow[Task | None]:
        """Look for an order of unknown fate; None where the vendor does not have it.

        Args:
            clue: ``reference``, ``operation`` (the vendor's word) and ``time`` (ISO 8601) of the order, and what its
                requests told in their ``recovery_token``.
        """
        del recovery_token
        raise self.unsupported("recover")

    def finish(self, task: Task, order: Submission) -> Flow[Task]:
        """Send what a recovered task still waits for; the default sends nothing.

        Args:
            task: What `recover` found; it has not ended.
            order: The documents of the order, in their places.
        """
        del order
        return no_requests(task)

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


T = TypeVar("T")


def no_requests(value: T) -> Flow[T]:
    """A flow that needs no request."""
    return value
    yield  # makes it a generator
