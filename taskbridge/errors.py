"""Every error that taskbridge raises.

    TaskbridgeError
    ├─ nothing was sent
    │    ConfigError · ProviderNotFound · ProviderLoadError · UnsupportedFeature · InvalidTaskId · InvalidInput
    ├─ ApiError                the vendor answered no
    │    AuthenticationError · PermissionDenied · TaskNotFound · InvalidRequest · QuotaExceeded · RateLimited
    │    · ServerError
    ├─ TransportError          no answer
    │    ConnectFailed · TlsError · DeadlineExceeded · TruncatedResponse · CircuitOpen
    ├─ ContractError           an answer that cannot be read
    │    MalformedResponse · ResponseTooLarge · UnexpectedRedirect · IdentityMismatch
    ├─ SubmitUncertain         the vendor may have taken it; it is never sent again blindly
    ├─ TaskFailed              the vendor finished the task badly
    ├─ WaitTimeout             we stopped waiting, the task goes on (also a TimeoutError)
    └─ WebhookRejected         a delivery that is not to be believed

An error of a look-up is never the failure of a task: only the vendor's own word changes a task's state.

Errors pickle. None of them holds a credential: they are built from the vendor's answer and from our own words, never
from a library's exception, and never keep one as their cause.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

if TYPE_CHECKING:
    from taskbridge.models import Task

__all__ = [
    "ApiError",
    "AuthenticationError",
    "CircuitOpen",
    "ConfigError",
    "ConnectFailed",
    "ContractError",
    "DeadlineExceeded",
    "IdentityMismatch",
    "InvalidInput",
    "InvalidRequest",
    "InvalidTaskId",
    "MalformedResponse",
    "PermissionDenied",
    "ProviderLoadError",
    "ProviderNotFound",
    "QuotaExceeded",
    "RateLimited",
    "ResponseTooLarge",
    "ServerError",
    "SubmitUncertain",
    "TaskFailed",
    "TaskNotFound",
    "TaskbridgeError",
    "TlsError",
    "TransportError",
    "TruncatedResponse",
    "UnexpectedRedirect",
    "UnsupportedFeature",
    "WaitTimeout",
    "WebhookRejected",
]

_MESSAGE_LIMIT: Final = 2048  # characters of a vendor's words that we repeat


def printable(text: str, limit: int = _MESSAGE_LIMIT) -> str:
    """Make a stranger's text safe to show: control characters, escapes and bidi marks are spelt out.

    Args:
        text: What a vendor or a user wrote.
        limit: Characters to keep.
    """
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == " " else _spelt(c) for c in text)


def _spelt(character: str) -> str:
    if character in "\r\n\t":
        return " "
    if character == "\0":
        return "␀"
    return character.encode("unicode_escape").decode("ascii")


class TaskbridgeError(Exception):
    """Base of every error here.

    Attributes:
        message: What happened and what to do about it, without the context below.
        provider: Entry-point name of the provider, where one was involved.
        connection: Name of the connection, where one was involved.
        ref: ``connection:id`` of the task in question, as text.
        http_status: Status of the vendor's answer, if there was one.
        vendor_code: The vendor's own error code, verbatim.
        request_id: The vendor's id of the request, to quote to its support.
        retry_after: Seconds after which the vendor wants to be asked again.
        retryable: Whether the same call may succeed later without a change.
        raw: The vendor's error body (decoded, else text), or the config path in question.
        clue: Of a submit that failed: its reference, time, and ids that it made at the vendor, without secrets. What
            `recover` needs to look for the task.
    """

    retryable_by_default = False
    recovery_token: Mapping[str, Any] = MappingProxyType({})

    def __init__(
        self,
        message: str,
        *,
        provider: str | None = None,
        connection: str | None = None,
        ref: str | None = None,
        http_status: int | None = None,
        vendor_code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        retryable: bool | None = None,
        raw: Any = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.provider = provider
        self.connection = connection
        self.ref = ref
        self.http_status = http_status
        self.vendor_code = vendor_code
        self.request_id = request_id
        self.retry_after = retry_after
        self.retryable = self.retryable_by_default if retryable is None else retryable
        self.raw = raw

    def about(self, *, provider: str | None = None, connection: str | None = None, ref: str | None = None) -> Self:
        """Fill in where it happened, keeping what is known already."""
        self.provider = self.provider or provider
        self.connection = self.connection or connection
        self.ref = self.ref or ref
        return self

    def again(self, **context: Any) -> Self:
        """The same error anew, so that two raises do not share a traceback.

        Args:
            context: Attributes that differ.
        """
        copy = _rebuild(type(self), self.message)
        copy.__dict__.update(self.__dict__, **context)
        return copy

    def __str__(self) -> str:
        where = self.ref or self.connection or self.provider
        facts = [
            f"HTTP {self.http_status}" if self.http_status is not None else "",
            f"code {printable(self.vendor_code, 100)}" if self.vendor_code else "",
            f"request {printable(self.request_id, 100)}" if self.request_id else "",
        ]
        known = ", ".join(fact for fact in facts if fact)
        head = f"{printable(where, 200)}: " if where else ""
        return f"{head}{self.message}{f' ({known})' if known else ''}"

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions pickle by their positional arguments; ours carry keywords, so the state goes beside them.
        return (_rebuild, (type(self), self.message), self.__dict__)


E = TypeVar("E", bound=TaskbridgeError)


def _rebuild(kind: type[E], message: str) -> E:
    error = kind.__new__(kind, message)  # past __init__: some ask for keywords
    error.args = (message,)
    return error


# Nothing was sent.


class ConfigError(TaskbridgeError):
    """The configuration cannot be used; the message names the key and the rule, never the value."""


class ProviderNotFound(TaskbridgeError):
    """No provider of that name is installed."""


class ProviderLoadError(TaskbridgeError):
    """A provider is installed but cannot be used: its import fails, or its name clashes."""


class UnsupportedFeature(TaskbridgeError):
    """The vendor has no such operation; nothing was sent."""


class InvalidTaskId(TaskbridgeError, ValueError):
    """The text cannot be a task id of this connection; nothing was sent."""


class InvalidInput(TaskbridgeError, ValueError):
    """The document cannot be submitted: empty, over the vendor's stated limit, or not to be fetched; nothing was sent.

    A file that is missing or cannot be read is an OSError of Python's own.
    """


# The vendor answered no.


class ApiError(TaskbridgeError):
    """The vendor refused the request."""


class AuthenticationError(ApiError):
    """The credential is missing, wrong, revoked or of another environment (401)."""


class PermissionDenied(ApiError):
    """The credential may not do this (403)."""


class TaskNotFound(ApiError):
    """The vendor does not know this id, or no longer (404, 410)."""


class InvalidRequest(ApiError):
    """The vendor cannot accept the request as it is (400, 405, 409, 413, 422)."""


class QuotaExceeded(ApiError):
    """The account has no credits or no subscription left (402, or the vendor's own code)."""


class RateLimited(ApiError):
    """Too many requests, or too many at once (429)."""

    retryable_by_default = True


class ServerError(ApiError):
    """The vendor's server failed (5xx)."""

    retryable_by_default = True


# No answer.


class TransportError(TaskbridgeError):
    """The vendor could not be reached, or did not answer whole.

    Attributes:
        written: Whether a byte of the request may have left this machine.
    """

    retryable_by_default = True
    written = True


class ConnectFailed(TransportError):
    """No connection came about; nothing was sent."""

    written = False


class TlsError(TransportError):
    """The vendor's certificate cannot be trusted; nothing was sent."""

    retryable_by_default = False
    written = False


class DeadlineExceeded(TransportError, TimeoutError):
    """The total time for the request ran out."""


class TruncatedResponse(TransportError):
    """The answer broke off.

    Attributes:
        stale: Whether a kept connection turned out to be closed before a byte of the answer came.
    """

    stale = False


class CircuitOpen(TransportError):
    """The connection is pausing, and its next slot lies beyond the deadline; nothing was sent."""

    written = False


# An answer that cannot be read.


class ContractError(TaskbridgeError):
    """The answer is not what the vendor's documents promise.

    Attributes:
        repeats: How often asking once more may help: 0 where the vendor means what it says.
    """

    def __init__(self, message: str, *, repeats: int = 0, **context: Any) -> None:
        context.setdefault("retryable", repeats > 0)
        super().__init__(message, **context)
        self.repeats = repeats


class MalformedResponse(ContractError):
    """The body is not the JSON that was expected, or a required field is missing or mistyped."""


class ResponseTooLarge(ContractError):
    """The decoded body is larger than `max_body`; the rest was not read."""


class UnexpectedRedirect(ContractError):
    """The vendor redirected an API call; it was not followed."""


class IdentityMismatch(ContractError):
    """The answer is about another task than the one asked for."""


# The rest.


class SubmitUncertain(TaskbridgeError):
    """A submit left this machine, and nobody can say whether the vendor has it; `client.recover` may find it."""

    def __init__(self, message: str, *, recovery_token: Mapping[str, Any] | None = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.recovery_token = dict(recovery_token or {})


class TaskFailed(TaskbridgeError):
    """The vendor finished the task badly.

    Attributes:
        task: The failed task; `task.error` and `task.reason` say why.
    """

    def __init__(self, message: str, *, task: Task, **context: Any) -> None:
        super().__init__(message, **context)
        self.task = task


class WaitTimeout(TaskbridgeError, TimeoutError):
    """We stopped waiting; the task goes on at the vendor.

    Attributes:
        task: The last snapshot seen, or None if no look-up succeeded.
        last_error: The last error of a look-up, if the last look-up failed.
    """

    retryable_by_default = True

    def __init__(
        self,
        message: str,
        *,
        task: Task | None = None,
        last_error: TaskbridgeError | None = None,
        **context: Any,
    ) -> None:
        super().__init__(message, **context)
        self.task = task
        self.last_error = last_error


class WebhookRejected(TaskbridgeError):
    """A webhook delivery that cannot be believed; the message never says what would have been right.

    Attributes:
        answer: HTTP status to answer with (401, 400, 408, 413 or 415).
    """

    def __init__(self, message: str, *, answer: int = 401, **context: Any) -> None:
        super().__init__(message, **context)
        self.answer = answer
