"""Every error that taskbridge raises.

    TaskbridgeError
    ├─ nothing was sent
    │    ConfigError · ProviderNotFound · ProviderLoadError · UnsupportedFeature · InvalidTaskId · InvalidInput
    ├─ ApiError                the vendor refused the request
    │    AuthenticationError · PermissionDenied · TaskNotFound · InvalidRequest · QuotaExceeded · RateLimited
    │    · ServerError
    ├─ TransportError          no complete response
    │    ConnectFailed · TlsError · DeadlineExceeded · TruncatedResponse · CircuitOpen
    ├─ ContractError           a response that cannot be used
    │    MalformedResponse · ResponseTooLarge · UnexpectedRedirect · IdentityMismatch
    ├─ SubmitUncertain         the vendor may have accepted a submission; it is never resent automatically
    ├─ TaskFailed              the task failed at the vendor
    ├─ WaitTimeout             the wait ended, the task continues (also a TimeoutError)
    └─ WebhookRejected         a webhook delivery failed verification

A failed status request never means that the task failed: only the vendor's response changes the state of a task.

Errors pickle. None of them holds a credential: they are built from the vendor's response and our own text, never from
another library's exception, and never keep one as their cause.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from unicodedata import category

from taskbridge._redaction import excerpt

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

_MESSAGE_LIMIT: Final = 2048  # characters of a vendor's text that a message repeats
_SHOWN: Final = {"\r": " ", "\n": " ", "\t": " ", "\0": "␀"}


def printable(text: str, limit: int = _MESSAGE_LIMIT) -> str:
    """Return untrusted text in a form that is safe to show: no secrets; control and bidi characters are escaped.

    It is for display only: never use it as a file name, a key or an id.

    Args:
        text: Text from a vendor or a user.
        limit: Maximum length in characters.
    """
    text = excerpt(text, limit)
    if text.isprintable():
        return text
    return "".join(c if _is_visible(c) else _SHOWN.get(c) or c.encode("unicode_escape").decode() for c in text)


def _is_visible(character: str) -> bool:
    return character.isprintable() or category(character) == "Zs"  # a space, such as the one in macOS's screenshots


class TaskbridgeError(Exception):
    """Base class of all errors of taskbridge.

    Attributes:
        message: What happened and what to do about it, without the context below.
        provider: Entry-point name of the provider, if one is involved.
        connection: Name of the connection, if one is involved.
        ref: ``connection:id`` of the task, as text.
        http_status: Status of the vendor's response, if there is one.
        vendor_code: The vendor's own error code, verbatim.
        request_id: The vendor's id of the request, to quote to its support.
        retry_after: Seconds to wait before the next request, if the vendor says so.
        retryable: Whether the same call may succeed later without a change.
        raw: The vendor's error body (decoded, else text), or the path of the configuration file.
        not_accepted: Whether the vendor surely did not accept the submission that failed: the same document may go to
            another vendor. False for other calls, and where there is any doubt.
        recovery_token: What `recover` needs to find the task of a failed submission: its reference, its time, and the
            ids created at the vendor. Holds no secrets; empty for other errors.
    """

    retryable_by_default = False
    not_accepted = False
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
        """Add where the error happened, keep what is already set, and return the error."""
        self.provider = self.provider or provider
        self.connection = self.connection or connection
        self.ref = self.ref or ref
        return self

    def again(self, **context: Any) -> Self:
        """Return a copy, so that raising it twice does not share a traceback.

        Args:
            context: Attributes to change in the copy.
        """
        copy = _rebuild(type(self), self.message)
        copy.__dict__.update(self.__dict__, **context)
        return copy

    def __str__(self) -> str:
        where = self.ref or self.connection or self.provider
        return f"{printable(where, 200)}: {self.summary}" if where else self.summary

    @property
    def summary(self) -> str:
        """The message with the facts of the vendor's response, but not where it happened."""
        facts = [
            f"HTTP {self.http_status}" if self.http_status is not None else "",
            f"code {printable(self.vendor_code, 100)}" if self.vendor_code else "",
            f"request {printable(self.request_id, 100)}" if self.request_id else "",
        ]
        known = ", ".join(fact for fact in facts if fact)
        return f"{self.message} ({known})" if known else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions pickle their positional arguments only, so the attributes are added as state.
        return (_rebuild, (type(self), self.message), self.__dict__)


E = TypeVar("E", bound=TaskbridgeError)


def _rebuild(kind: type[E], message: str) -> E:
    error = kind.__new__(kind, message)  # bypasses __init__, which may require keywords
    error.args = (message,)
    return error


# Nothing was sent.


class ConfigError(TaskbridgeError):
    """The configuration cannot be used; the message names the key and the rule, never the value."""


class ProviderNotFound(TaskbridgeError):
    """No provider with this name is installed."""


class ProviderLoadError(TaskbridgeError):
    """An installed provider cannot be used: its import fails, or another provider has the same name."""


class UnsupportedFeature(TaskbridgeError):
    """The vendor does not offer the operation, or not with such an option or document; nothing was sent to it."""


class InvalidTaskId(TaskbridgeError, ValueError):
    """The text cannot be a task id of this connection; nothing was sent."""


class InvalidInput(TaskbridgeError, ValueError):
    """The document, or the dictionary for `from_dict`, cannot be used; nothing was sent.

    A document is empty, exceeds the documented limit or cannot be fetched, or `from_dict` got a dictionary that
    does not describe the object. A file that is missing or cannot be read raises Python's own OSError instead.
    """


# The vendor refused the request.


class ApiError(TaskbridgeError):
    """The vendor refused the request.

    Attributes:
        authorized: Whether the request carried the connection's credential. If not, as with an upload form or a link,
            the refusal says nothing about the account.
    """

    authorized: bool = True


class AuthenticationError(ApiError):
    """The credential is missing, wrong, revoked or for another environment (401)."""


class PermissionDenied(ApiError):
    """The credential does not permit the operation (403)."""


class TaskNotFound(ApiError):
    """The vendor does not know this id, or no longer has the task (404, 410)."""


class InvalidRequest(ApiError):
    """The vendor rejected the request as invalid (400, 405, 409, 413, 422)."""


class QuotaExceeded(ApiError):
    """The account has no credits or no active subscription (402, or the vendor's own code)."""


class RateLimited(ApiError):
    """There were too many requests, or too many at once (429)."""

    retryable_by_default = True


class ServerError(ApiError):
    """The vendor's server failed (5xx)."""

    retryable_by_default = True


# No complete response.


class TransportError(TaskbridgeError):
    """The vendor could not be reached, or its response is incomplete.

    Attributes:
        written: Whether any byte of the request may have been sent.
    """

    retryable_by_default = True
    written = True


class ConnectFailed(TransportError):
    """The network connection could not be established; nothing was sent."""

    written = False


class TlsError(TransportError):
    """The vendor's TLS certificate is not trusted; nothing was sent."""

    retryable_by_default = False
    written = False


class DeadlineExceeded(TransportError, TimeoutError):
    """The time limit of the request was reached."""


class TruncatedResponse(TransportError):
    """The response was cut off.

    Attributes:
        stale: Whether a reused network connection was closed before any byte of the response arrived.
    """

    stale = False


class CircuitOpen(TransportError):
    """The connection is paused until after the deadline; nothing was sent."""

    written = False


# A response that cannot be used.


class ContractError(TaskbridgeError):
    """The response does not match the vendor's documentation.

    Attributes:
        repeats: How many retries are worthwhile; 0 if the vendor would send the same again.
    """

    def __init__(self, message: str, *, repeats: int = 0, **context: Any) -> None:
        context.setdefault("retryable", repeats > 0)
        super().__init__(message, **context)
        self.repeats = repeats


class MalformedResponse(ContractError):
    """The body is not the expected JSON, or a required field is missing or has the wrong type."""


class ResponseTooLarge(ContractError):
    """The decoded body exceeds `max_body`; the rest was not read."""


class UnexpectedRedirect(ContractError):
    """The vendor redirected an API call; the redirect was not followed."""


class IdentityMismatch(ContractError):
    """The response describes a different task than the requested one."""


# Submissions, tasks, waits and webhooks.


class SubmitUncertain(TaskbridgeError):
    """The vendor may or may not have accepted a submission; `client.recover` may find its task."""

    def __init__(self, message: str, *, recovery_token: Mapping[str, Any] | None = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.recovery_token = dict(recovery_token or {})


class TaskFailed(TaskbridgeError):
    """The task failed at the vendor.

    Attributes:
        task: The failed task; `task.error` and `task.reason` say why.
    """

    def __init__(self, message: str, *, task: Task, **context: Any) -> None:
        super().__init__(message, **context)
        self.task = task


class WaitTimeout(TaskbridgeError, TimeoutError):
    """The wait reached its timeout; the task continues at the vendor.

    Attributes:
        task: The last snapshot; None if no status request succeeded.
        last_error: Why the vendor could not be asked: the error of the last status request, or of the connection's
            outage; None if the last status request succeeded.
        state: What is known of the task, as text: its state, when it was last seen, and the last error.
    """

    retryable_by_default = True

    def __init__(
        self,
        message: str,
        *,
        task: Task | None = None,
        last_error: TaskbridgeError | None = None,
        state: str = "",
        **context: Any,
    ) -> None:
        super().__init__(message, **context)
        self.task = task
        self.last_error = last_error
        self.state = state


class WebhookRejected(TaskbridgeError):
    """A webhook delivery failed verification; the message never reveals the expected value.

    Attributes:
        answer: HTTP status to respond with (401, 400, 408, 413 or 415).
    """

    def __init__(self, message: str, *, answer: int = 401, **context: Any) -> None:
        super().__init__(message, **context)
        self.answer = answer
