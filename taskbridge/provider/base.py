"""`Provider`, the base class of every vendor's translator, and its settings.

The methods are in this order: build requests, read responses, map errors, check ids, then the operations in the
order in which a task lives. A provider overrides the operations that its vendor has and states them in `capabilities`.
"""

# ruff: noqa: ARG002  # what the vendor does not have needs no arguments
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from itertools import islice
from json import dumps
from types import MappingProxyType
from typing import Any, ClassVar, Final, Generic, NamedTuple, NoReturn, TypeAlias, TypeVar, cast
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
from taskbridge.models import (
    Account,
    OperationInfo,
    Reason,
    Task,
    TaskFile,
    TaskResult,
    TaskStatus,
    WebhookEndpoint,
    WebhookEvent,
)
from taskbridge.provider.capabilities import Capabilities, Credential, Delivery, IdKind
from taskbridge.provider.http import UNREAD, Body, Flow, Form, Request, Response, Upload
from taskbridge.provider.json import beginning_of
from taskbridge.provider.payload import NO_TIME, Payload, State, StateTable, read_state
from taskbridge.provider.results import GeneratedFile, generated_files
from taskbridge.provider.submission import Page, Query, Submission

CodeTable: TypeAlias = Mapping[str, type[ApiError]]
"""Vendor's error code → error class, only where the code says more than the HTTP status."""

StatusTable: TypeAlias = Mapping[int, type[ApiError]]
"""HTTP status → error class, only where it means something else at this vendor."""


class ProviderSettings(BaseModel):
    """Base of a provider's own settings: declare them as fields, with `SecretStr` for secrets.

    Fields whose names end in ``_url`` are addresses: plain ``http`` is refused unless the host is this machine.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, hide_input_in_errors=True)

    usual: ClassVar[tuple[str, ...]] = ()
    """Optional settings that ``taskbridge init`` writes into a new configuration, such as one way to sign in."""
    variables: ClassVar[Mapping[str, str]] = {}
    """Setting → the environment variable that the vendor's own clients read; it counts where nothing else is set."""

    def require_one_credential(self) -> None:
        """Check that either each setting in `usual` is given or `access_token`, for a validator.

        Raises:
            ValueError: A setting is missing, or there are two credentials.
        """
        names, given = " and ".join(self.usual), [getattr(self, name) is not None for name in self.usual]
        token: object = getattr(self, "access_token", None)
        if token is None and not all(given):
            customary = " and ".join(self.variables[name] for name in self.usual if name in self.variables)
            hint = f" (as settings, or as environment variables {customary})" if customary else ""
            raise ValueError(f"give {names}{hint}, or access_token")
        if token is not None and any(given):
            raise ValueError(f"access_token replaces {names}: give one or the other")

    def __reduce__(self) -> NoReturn:
        raise TypeError("settings hold credentials and are not pickled; pass the connection's name instead")


S = TypeVar("S", bound=ProviderSettings)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ErrorDetails:
    """What the body of an error response says.

    Attributes:
        code: The vendor's error code, verbatim.
        message: The vendor's message.
        request_id: The vendor's id of the request.
    """

    code: str | None = None
    message: str | None = None
    request_id: str | None = None


def _kind_of(kinds: tuple[IdKind, ...], task_id: str) -> tuple[IdKind, str] | None:
    """Return the kind of a shared id, and the vendor's id in it; None if it cannot be an id."""
    head, slash, rest = task_id.partition("/")
    kind = next((k for k in kinds if k.prefix and slash and k.prefix == head), None)
    native = task_id if kind is None else rest
    kind = kind or next(k for k in kinds if not k.prefix)
    return None if kind.pattern.fullmatch(native) is None else (kind, native)


class StatusError(NamedTuple):
    """How an HTTP status becomes an error."""

    error: type[ApiError]  # unless the provider's tables name another
    message: str = "the vendor refused the request"  # where the vendor gives none
    retryable: bool | None = None  # whether the call may succeed later; None for the class's default


_LONGEST_KEPT_ID: Final = 600  # characters of an id whose kind is remembered
_REFUSED: Final = "the vendor refused the credential"
_CHECK_CREDENTIAL: Final = "check that the credential is right, current, and of this environment"

# HTTP status -> error; `policy` says how often each is retried, and docs/reliability.md shows both.
STATUS_ERRORS: Final[Mapping[int, StatusError]] = {
    400: StatusError(InvalidRequest),
    401: StatusError(AuthenticationError, _REFUSED),
    402: StatusError(QuotaExceeded, "the vendor refuses further work on this account"),
    403: StatusError(PermissionDenied, "the credential may not do this"),
    404: StatusError(TaskNotFound, "the vendor does not know this id, or no longer"),
    405: StatusError(InvalidRequest),
    408: StatusError(ApiError, retryable=True),
    409: StatusError(InvalidRequest),
    410: StatusError(TaskNotFound, "the vendor no longer has it"),
    413: StatusError(InvalidRequest),
    422: StatusError(InvalidRequest),
    425: StatusError(ApiError, retryable=True),
    429: StatusError(RateLimited, "too many requests"),
    501: StatusError(ServerError, "the vendor's server failed", retryable=False),  # it cannot, rather than could not
    505: StatusError(ServerError, "the vendor's server failed", retryable=False),
}
# The same for a request without the connection's credential: what refuses it is the host of a form or a link.
_UNAUTHORIZED_ERRORS: Final[Mapping[int, StatusError]] = {
    **STATUS_ERRORS,
    **dict.fromkeys((401, 403), StatusError(PermissionDenied, "its host refused the request, which carries no key")),
    **dict.fromkeys((402, 404, 410), StatusError(ApiError, "its host refused the request")),
}
_OTHER_4XX: Final = StatusError(ApiError)
_OTHER_5XX: Final = StatusError(ServerError, "the vendor's server failed")

_ACCEPT: Final = {"Accept": "application/json"}
_SEND_JSON: Final = {"Accept": "application/json", "Content-Type": "application/json"}


class Provider(ABC, Generic[S]):
    """One vendor's translator; each `task_id` that it gets is a shared id that `split_id` accepts.

    Args:
        settings: The connection's own settings, validated.
        connection: The connection's name.
    """

    name: ClassVar[str]
    """Entry-point name."""
    title: ClassVar[str]
    """The vendor's name as people write it."""
    docs: ClassVar[str]
    """URL of the vendor's documentation."""
    Settings: ClassVar[type[ProviderSettings]]
    """Model of the connection's own settings."""
    capabilities: ClassVar[Capabilities]
    """What the vendor can do."""
    codes: ClassVar[CodeTable] = {}
    """The vendor's error codes that say more than the HTTP status."""
    statuses: ClassVar[StatusTable] = {}
    """HTTP statuses that mean something else at this vendor."""
    account_errors: ClassVar[frozenset[str | int]] = frozenset()
    """Vendor codes or HTTP statuses of errors that concern the account, not the task: they pause the connection."""
    uncertain_statuses: ClassVar[frozenset[int]] = frozenset()
    """HTTP statuses from 500 on that the vendor has returned for submissions which it accepted all the same: they raise
    `SubmitUncertain`. Those of gateways (502, 504, 520 to 524) do so for every vendor."""
    max_body: ClassVar[int] = 1 << 20
    """Most bytes of a decoded response that are read."""
    max_delivery: ClassVar[int] = 1 << 20
    """Most bytes of a webhook delivery that are accepted; a larger one is rejected."""
    wait_hints: ClassVar[Mapping[TaskStatus | Reason, str]] = MappingProxyType({})
    """What a user should know when a wait times out, by the last seen reason or status of the task."""

    def __init__(self, settings: S, connection: str) -> None:
        self.settings = settings
        self.connection = connection
        self.states: StateTable = MappingProxyType({})
        """The connection's own meanings of status words; they take precedence over the tables of the provider."""
        self._find_kind = lru_cache(maxsize=1024)(partial(_kind_of, self.capabilities.kinds))

    # Build requests.

    @property
    def base_url(self) -> str:
        """The API's address without a trailing slash."""
        return str(getattr(self.settings, "base_url", "")).rstrip("/")

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
        read_once: bool = False,
    ) -> Request:
        """Build a request to the vendor's API.

        `path` follows the base URL, which is `base` or the `base_url` of the settings; quote ids in it with `path_id`.
        A list in `params` is sent as a repeated parameter. `json` is a document to send as JSON, `body` any other body:
        `Base64` is sent as JSON, and a form sets its own content type. `response_type` is ``bytes`` if the response has
        no body. For the other arguments see `Request`.
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
            read_once=read_once,
        )

    # Read responses.

    def payload(self, response: Response) -> Payload:
        """Return the decoded body of a successful response.

        Raises:
            ApiError: The vendor returned an error; the class follows its code, then the HTTP status.
            ContractError: The response is not a JSON object, or it is a redirect.
        """
        if response.status not in (200, 201, 202):
            raise self.error(response)
        # Usually decoded already; one call less in each poll.
        document = response.json() if response.document is UNREAD else response.document
        return Payload.of(document, self.connection, response.received_at)

    def accept(self, response: Response) -> None:
        """Check that a request succeeded, if the body of its response does not matter.

        Raises:
            ApiError: The vendor returned an error.
            UnexpectedRedirect: The response is a redirect.
        """
        if response.status not in (200, 201, 202, 204):
            raise self.error(response)

    def state(self, table: StateTable, word: str | None) -> State:
        """Translate a vendor's status word by the connection's setting `states`, otherwise by a table.

        See `read_state`. A status is always read through this, so that a user can map a word that the table lacks.
        """
        if self.states:
            own = read_state(self.states, word)
            if own.recognized:
                return own
        return read_state(table, word)

    # Map errors.

    def error(self, response: Response) -> ApiError | ContractError:
        """Return the error for an unsuccessful response."""
        status = response.status
        if 300 <= status < 400 and status != 304:
            message = "the vendor redirected the call, which is never followed; check base_url"
            return UnexpectedRedirect(message, http_status=status)
        if status < 400 or status > 599:
            return MalformedResponse(f"HTTP {status} is no answer to this call", repeats=1, http_status=status)
        try:
            document = response.json()
        except MalformedResponse:
            document = None
        details = ErrorDetails()
        if isinstance(document, dict) and response.authorized:
            with suppress(MalformedResponse):  # then the HTTP status says enough
                details = self.error_details(cast("dict[str, Any]", document))
        rules = STATUS_ERRORS if response.authorized else _UNAUTHORIZED_ERRORS
        rule = rules.get(status, _OTHER_4XX if status < 500 else _OTHER_5XX)
        error_class = rule.error
        if response.authorized:  # else the vendor's tables do not apply
            by_code = self.codes.get(details.code) if details.code is not None else None
            error_class = by_code or self.statuses.get(status) or error_class
        message = printable(details.message, 500) if details.message else rule.message
        if error_class is AuthenticationError:
            message = f"{message.rstrip('.') if details.message else _REFUSED}; {_CHECK_CREDENTIAL}"
        if response.attempts > 1:
            message = f"{message} (after {response.attempts} attempts)"
        return error_class(
            message,
            http_status=status,
            vendor_code=details.code,
            request_id=details.request_id or response.headers.get("x-request-id"),
            retry_after=response.retry_after,
            retryable=rule.retryable,
            raw=document if document is not None else beginning_of(response.body),
        )

    def error_details(self, document: Mapping[str, Any]) -> ErrorDetails:
        """Read the body of an error response.

        The default reads ``message`` and ``code``, otherwise ``detail``: a text (RFC 9457, and FastAPI), or FastAPI's
        list of what is wrong with the request, whose first ``type`` is the code.
        """
        payload = Payload(document, self.connection, NO_TIME)
        code, message = payload.maybe_text("code"), payload.maybe_message("message")
        if message is None:
            faults = _faults(payload)
            code = code or next((each.maybe_text("type") for each in faults), None)
            message = "; ".join(map(_fault_text, faults)) or payload.maybe_message("detail")
        return ErrorDetails(code, message)

    def unsupported(self, action: str) -> UnsupportedFeature:
        """Return the error for what the vendor "cannot …"; it names what the vendor offers instead."""
        can = self.capabilities
        by_status = ("get", "wait", "result") if any(kind.resumable for kind in can.kinds) else ()
        offered = ", ".join((*by_status, *can.calls))
        message = f"{self.title} cannot {action}; it offers {offered}"
        return UnsupportedFeature(message, provider=self.name, connection=self.connection)

    def not_resumable(self, task_id: str) -> UnsupportedFeature:
        """Return the error for asking about a task that ended with the response to its submission.

        A provider whose vendor has no status requests at all raises it in `get`.
        """
        message = (
            f"{self.title} keeps no task {printable(task_id, 80)!r}: it ended with the response to its submission, and "
            "cannot be got later; keep the task that submit returned, by task.to_dict()"
        )
        return UnsupportedFeature(message, provider=self.name, connection=self.connection)

    # Check ids.

    def split_id(self, task_id: str) -> tuple[IdKind, str]:
        """Return the kind of a shared id, and the vendor's id in it.

        Raises:
            InvalidTaskId: It cannot be an id of this vendor; nothing was sent.
        """
        is_kept = len(task_id) <= _LONGEST_KEPT_ID
        found = self._find_kind(task_id) if is_kept else _kind_of(self.capabilities.kinds, task_id)
        if found is None:
            shapes = " or ".join(f"{k.example} (a {k.noun})" for k in self.capabilities.kinds)
            message = f"{printable(task_id, 80)!r} cannot be an id of {self.title}; ids look like {shapes}"
            raise InvalidTaskId(message, provider=self.name, connection=self.connection)
        return found

    # The operations, in the order in which a task lives. Those that `capabilities` does not claim are refused before
    # they are called.

    def authorize(self) -> Flow[Credential]:
        """Return the credential for requests; the library keeps it and renews it before it expires."""
        return no_requests(Credential({}))

    def account(self) -> Flow[Account]:
        """Get the account and its balance."""
        raise self.unsupported("tell what is left on the account")

    def operations(
        self, name: str | None, input_format: str | None, output_format: str | None
    ) -> Flow[tuple[OperationInfo, ...]]:
        """Get the vendor's operations: all, or those of a name or with formats, these with their options."""
        raise self.unsupported("list its operations")

    def sign(self, request: Request, now: datetime) -> Request:
        """Return the request with a signature, for a vendor that wants one; no I/O.

        It is called each time that a request with a credential is sent, so that a repeated one is signed anew; not for
        requests with ``authorized=False``. The default returns the request as it is.

        Args:
            request: The request as it will be sent, with the headers of the credential; a body is data, which a
                signature may cover.
            now: Aware UTC time of sending.
        """
        return request

    def submit(self, submission: Submission) -> Flow[Task]:
        """Submit work to the vendor.

        Mark the one request that the vendor may act on with ``starts_work``. Each later request carries in its
        ``recovery_token`` what was created before it.

        Args:
            submission: What to do; its documents are data and may be sent as often as needed.
        """
        raise self.unsupported("submit")

    def recover(self, recovery_token: Mapping[str, Any]) -> Flow[Task | None]:
        """Find the task of an uncertain submission; None if the vendor does not have it.

        Args:
            recovery_token: ``reference``, ``operation`` (the vendor's word) and ``time`` (ISO 8601) of the submission,
                and the ``recovery_token`` of its requests.
        """
        raise self.unsupported("recover")

    def finish(self, task: Task, submission: Submission) -> Flow[Task]:
        """Send what a recovered task, which has not ended, still waits for; the default sends nothing.

        A store calls it only if the task, or one of its subtasks, has `Reason.AWAITING_UPLOAD`.
        """
        return no_requests(task)

    @abstractmethod
    def get(self, task_id: str) -> Flow[Task]:
        """Get a task's status once."""

    def get_with(self, task_id: str, options: Mapping[str, Any]) -> Flow[Task]:
        """Get a task's status once, with the vendor's own query options, named in `Capabilities.get_options`."""
        raise self.unsupported("get a task with options")

    def long_poll(self, task_id: str) -> Flow[Task] | None:
        """Get a task's status by a long poll; None if the vendor has none for this id."""
        return None

    def list_queries(self, prefixes: frozenset[str], now: datetime, age: float) -> tuple[Query, ...]:
        """Return the queries whose pages show the unfinished tasks; those that they miss are polled.

        Args:
            prefixes: Prefixes of the ids that are waited for.
            now: Aware UTC time.
            age: Seconds since the oldest of the tasks was created, as far as is known.
        """
        return ()

    def list_page(self, query: Query, cursor: str | None) -> Flow[Page]:
        """Get one page of the vendor's list; links in the response are read, never followed.

        Args:
            query: What to list; of its status, only what `Listing.statuses` claims has to be applied.
            cursor: `Page.next_cursor` of the previous page; None for the first.
        """
        raise self.unsupported("list")

    def cancel(self, task_id: str) -> Flow[Task]:
        """Stop a task; a task that has ended is returned as it is."""
        raise self.unsupported("cancel")

    def retry(self, task_id: str) -> Flow[Task]:
        """Run a task again as a new task whose `retry_of` is this one."""
        raise self.unsupported("retry")

    def restart(self, task_id: str) -> Flow[Task]:
        """Run a task again under the same id; its previous result is lost."""
        raise self.unsupported("restart")

    def delete(self, task_id: str) -> Flow[None]:
        """Delete a task and its results."""
        raise self.unsupported("delete")

    def delete_file(self, file: TaskFile) -> Flow[None]:
        """Delete a file, which has an id: one of a result, or an uploaded document."""
        raise self.unsupported("delete a file")

    def temporary_files(self, recovery_token: Mapping[str, Any]) -> tuple[TaskFile, ...]:
        """Return what a submission uploaded and what is to be deleted once its task has ended; by default nothing.

        Args:
            recovery_token: The `recovery_token` of the submission's requests.
        """
        return ()

    def mark(self, task_id: str, label: str) -> Flow[None]:
        """Mark a task with a text of the caller's, which replaces the one before."""
        raise self.unsupported("mark a task")

    def result(self, task: Task) -> Flow[TaskResult]:
        """Get the result of a completed task; the default returns what the status response carried.

        For a GET request with ``external=True``, to a link of the vendor, the library checks the address and follows
        redirects, as for downloads.
        """
        if task.result is None:
            raise MalformedResponse("the task is completed, but the vendor's answer has no result", raw=task.raw)
        return (yield from no_requests(task.result))

    def result_files(self, task: Task, result: TaskResult) -> tuple[TaskFile | GeneratedFile, ...]:
        """Return the files to download for the result of a task: the vendor's, otherwise its text and data."""
        return result.files or generated_files(task, result)

    def download_request(self, file: TaskFile) -> Request:
        """Build the request for the bytes of a file; the default gets its link without a credential.

        The library sends it, follows redirects, and streams the response to the disk.
        """
        if not file.url:
            raise MalformedResponse(f"{self.title} gives no link to the file {printable(file.name or '', 80)!r}")
        return Request(
            "GET", file.url, headers={"Accept": "*/*"}, authorized=False, response_type="bytes", external=True
        )

    def webhooks(self) -> Flow[tuple[WebhookEndpoint, ...]]:
        """Get the webhooks of the account."""
        raise self.unsupported("list the webhooks of the account")

    def add_webhook(self, url: str, events: tuple[str, ...]) -> Flow[WebhookEndpoint]:
        """Make the vendor send these events to a URL; the result has the signing secret."""
        raise self.unsupported("add a webhook")

    def remove_webhook(self, webhook_id: str) -> Flow[None]:
        """Remove a webhook of the account."""
        raise self.unsupported("remove a webhook")

    def parse_webhook(self, delivery: Delivery) -> WebhookEvent:
        """Read a webhook delivery; no I/O.

        The delivery hands out its body only through a method that verifies the sender (``delivery.by_svix()`` and so
        on), and rejects by itself what cannot be verified or read.
        """
        message = f"{self.title} sends no webhooks; wait, as_completed and watch poll it instead"
        raise UnsupportedFeature(message, provider=self.name)


_MOST_FAULTS: Final = 5  # that a message names


def _faults(payload: Payload) -> list[Payload]:
    """Return the first entries of FastAPI's list of what is wrong with a request; empty if it sent none.

    https://fastapi.tiangolo.com/tutorial/handling-errors/
    """
    with suppress(MalformedResponse):  # then `detail` is no list
        return list(islice(payload.children("detail"), _MOST_FAULTS))
    return []


def _fault_text(fault: Payload) -> str:
    """Return ``body.files: Field required``."""
    place: object = fault.raw.get("loc")
    parts = cast("list[object]", place) if isinstance(place, list) else []
    where = ".".join(str(part) for part in parts if isinstance(part, str | int))
    what = fault.maybe_message("msg") or fault.maybe_text("type") or "invalid"
    return f"{where}: {what}" if where else what


def no_requests(value: T) -> Flow[T]:
    """Return a value as a flow that sends nothing."""
    return value
    yield  # makes it a generator
