"""When a submission becomes uncertain: may the vendor have accepted it?

A submission is never sent twice blindly. The one request after which the vendor may have started work goes out on a new
connection, after its recovery token was logged. What matters afterwards is whether bytes of it were written, not which
exception came back. If the vendor may or may not have accepted it, the caller gets `SubmitUncertain` with the recovery
token; otherwise the vendor's own refusal, or a transport error that is safe to retry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from taskbridge._engine.logs import log
from taskbridge.errors import (
    AuthenticationError,
    ConfigError,
    ContractError,
    InvalidInput,
    InvalidRequest,
    PermissionDenied,
    QuotaExceeded,
    RateLimited,
    ServerError,
    SubmitUncertain,
    TaskbridgeError,
    TaskNotFound,
    TransportError,
    UnexpectedRedirect,
    UnsupportedFeature,
    printable,
)

if TYPE_CHECKING:
    from taskbridge._engine.connection import Connection
    from taskbridge.provider.http import Request, Response

_GATEWAYS: Final = frozenset({502, 504, *range(520, 525)})  # a gateway responded, not the vendor
# Refusals before any work.
_REFUSALS: Final = (AuthenticationError, PermissionDenied, QuotaExceeded, RateLimited, InvalidRequest, TaskNotFound)
# 409 may mean that it has been accepted before; 408 and 425 come from servers that may have read the request.
_REFUSING_STATUSES: Final = frozenset(range(400, 500)) - {408, 409, 425}
_ACCEPTING_REDIRECTS: Final = frozenset({301, 302, 303})  # what a server may say after it accepted a POST


def uncertain(reason: str, **context: Any) -> SubmitUncertain:
    """Return the error, with its attributes, for a submission that the vendor may or may not have accepted."""
    return SubmitUncertain(
        f"the vendor may have taken it, so it is not sent again: {reason}; recover(error) looks for it where the "
        "vendor has a way",
        **context,
    )


def uncertain_after(response: Response | None, error: TaskbridgeError | None) -> SubmitUncertain | None:
    """Return the error if the vendor may have accepted a request; None if it responded, or surely got nothing."""
    if isinstance(error, TransportError) and not error.written:
        return None
    if error is not None:
        return uncertain(error.message, http_status=error.http_status, raw=error.raw)
    status = 0 if response is None else response.status
    if status not in _GATEWAYS and status not in _ACCEPTING_REDIRECTS:
        return None
    return uncertain(f"HTTP {status} came from between us and the vendor", http_status=status)


class SubmissionTracker:
    """Follows the requests of one submission, to tell afterwards whether the vendor may have accepted it."""

    def __init__(
        self, connection: Connection, details: Mapping[str, Any], prepared: Mapping[str, Any] | None = None
    ) -> None:
        self._connection = connection
        self._details = details  # known before anything is sent; part of the recovery token
        self._prepared = prepared or {}  # the same, but not logged
        self._last: Request | None = None
        self._responded = False
        self._was_accepted = False  # the flow continued after the response to the request that starts work
        self._sent_at = connection.clock.now()

    def before(self, request: Request) -> Request:
        """Prepare a request: the one that starts work is logged, and gets a connection of its own."""
        if self._last is not None and self._last.starts_work and self._responded:
            self._was_accepted = True
        if request.starts_work:
            self._sent_at = self._connection.clock.now()
            request = replace(request, new_connection=True, recovery_token=self._token(request.recovery_token))
            text = " ".join(f"{key}={printable(str(value), 200)}" for key, value in self._details.items())
            attributes = {f"submission_{key}": value for key, value in self._details.items()}
            log("submission", connection=self._connection.name, submission=text, **attributes)
        self._last, self._responded = request, False
        return request

    @property
    def created(self) -> Mapping[str, Any]:
        """What the requests created at the vendor so far; part of the recovery token."""
        return {} if self._last is None else self._last.recovery_token

    def after(self, _response: Response) -> None:
        """Note that the last request got a response."""
        self._responded = True

    def explain(self, error: TaskbridgeError) -> TaskbridgeError:
        """Return the error for the caller: `SubmitUncertain` if it applies, always with the recovery token."""
        connection, last = self._connection, self._last
        started = last is not None and last.starts_work
        if started and self._responded and _may_be_acceptance(error, connection.provider.uncertain_statuses):
            doubt = uncertain(error.message, http_status=error.http_status, raw=error.raw)
            doubt.__cause__ = error
            error = doubt
        elif started and isinstance(error, ServerError):
            error.retryable = False
        error.not_accepted = self._is_not_accepted(error)
        error.recovery_token = self._token(self.created)
        if isinstance(error.__cause__, TaskbridgeError):
            connection.add_context(error.__cause__)
        return connection.refused(error)

    def _is_not_accepted(self, error: TaskbridgeError) -> bool:
        """Whether the vendor surely has not accepted the submission."""
        if self._was_accepted:
            return False
        if self._last is not None and self._last.starts_work and self._responded:
            return isinstance(error, _REFUSALS) and (error.http_status or 0) in _REFUSING_STATUSES
        return is_unsent(error) or isinstance(error, _REFUSALS)

    def _token(self, created: Mapping[str, Any]) -> dict[str, Any]:
        """The recovery token: which account, when, and what was created at the vendor so far."""
        connection = self._connection
        account = {
            "provider": connection.provider.name,
            "connection": connection.name,
            "time": self._sent_at.isoformat(),
        }
        return {**account, **self._details, **self._prepared, **created}


def is_unsent(error: TaskbridgeError) -> bool:
    """Whether an error surely came before anything was sent."""
    if isinstance(error, TransportError):
        return not error.written
    return isinstance(error, ConfigError | UnsupportedFeature | InvalidInput)


def _may_be_acceptance(error: TaskbridgeError, uncertain_statuses: frozenset[int]) -> bool:
    """Whether a response that the flow could not use may have meant acceptance."""
    if isinstance(error, ServerError):
        return error.http_status in uncertain_statuses
    return isinstance(error, ContractError) and not isinstance(error, UnexpectedRedirect)
