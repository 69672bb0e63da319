"""Everything that changes something at a vendor: lifted flows, shared by both sides, without I/O.

An order is never sent twice blindly. The one request after which the vendor may have taken it goes out on a fresh
connection, after its reference was logged; what happens to it then is told apart by what was written, not by the kind
of failure (`taskbridge._engine.retry`), and ends as the vendor's refusal or as `SubmitUncertain`, with a clue for `recover`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from taskbridge._engine.connection import Connection
from taskbridge._engine.flows import intercepted
from taskbridge._engine.logs import log
from taskbridge.errors import (
    ContractError,
    ServerError,
    SubmitUncertain,
    TaskbridgeError,
    UnexpectedRedirect,
    printable,
)
from taskbridge.provider.http import Flow, Request, Response

T = TypeVar("T")


def uncertain(why: str, **context: Any) -> SubmitUncertain:
    """The error for an order of which nobody can say whether the vendor has it.

    Args:
        why: What happened.
        context: Attributes of the error.
    """
    told = "the vendor may have taken it, so it is not sent again"
    return SubmitUncertain(f"{told}: {why}; recover(error) looks for it where the vendor has a way", **context)


class _Sent:
    """What of a flow has been sent: the last request, and whether its answer came.

    Args:
        channel: The connection.
        begun: What is known of the order before anything is sent.
    """

    def __init__(self, connection: Connection, begun: Mapping[str, Any]) -> None:
        self._connection = connection
        self._begun = begun
        self._last: Request | None = None
        self._answered = False
        self._time = connection.clock.now()

    def watch(self, flow: Flow[T]) -> Flow[T]:
        """The same flow; its commit is logged, and goes out on a connection of its own."""
        return intercepted(flow, self._hear, self._ready)

    def _hear(self, _answer: Response) -> None:
        self._answered = True

    def _ready(self, request: Request) -> Request:
        if request.starts_work:
            self._time = self._connection.clock.now()
            request = replace(request, new_connection=True, recovery_token=self._clue(request.recovery_token))
            name, begun = self._connection.name, self._begun
            told = " ".join(f"{key}={printable(str(value), 200)}" for key, value in begun.items())
            log("submission", connection=name, submission=told, **_extra(begun))
        self._last, self._answered = request, False
        return request

    def _clue(self, made: Mapping[str, Any]) -> dict[str, Any]:
        """What is known of the order: who it was for, when, and what was made on the way."""
        connection = self._connection
        known = {"provider": connection.provider.name, "connection": connection.name, "time": self._time.isoformat()}
        return {**known, **self._begun, **made}

    def told(self, error: TaskbridgeError) -> TaskbridgeError:
        """The error that the caller sees: of unknown fate where it is, with what was made on the way."""
        connection, last = self._connection, self._last
        committing = last is not None and last.starts_work
        if committing and self._answered and _leaves_uncertain(error, connection.provider.uncertain_statuses):
            uncertainty = uncertain(error.message, http_status=error.http_status, raw=error.raw)
            uncertainty.__cause__ = error
            error = uncertainty
        elif committing and isinstance(error, ServerError):
            error.retryable = False
        error.recovery_token = self._clue({} if last is None else last.recovery_token)
        if isinstance(error.__cause__, TaskbridgeError):
            connection.add_context(error.__cause__)
        if connection.blames_account(error):
            connection.refuse(error)
        return connection.add_context(error)


def _extra(begun: Mapping[str, Any]) -> dict[str, Any]:
    return {f"submission_{key}": value for key, value in begun.items()}


def _leaves_uncertain(error: TaskbridgeError, doubtful: frozenset[int]) -> bool:
    """Whether an answer that a flow could not use may have been the vendor's yes."""
    if isinstance(error, ServerError):
        return error.http_status in doubtful
    return isinstance(error, ContractError) and not isinstance(error, UnexpectedRedirect)
