"""Everything that changes something at a vendor: lifted flows, shared by both sides, without I/O.

An order is never sent twice blindly. The one request after which the vendor may have taken it goes out on a fresh
connection, after its reference was logged; what happens to it then is told apart by what was written, not by the kind
of failure (`taskbridge.flows`), and ends as the vendor's refusal or as `SubmitUncertain`, with a clue for `recover`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from taskbridge._engine.connection import Channel
from taskbridge._engine.flows import tapped
from taskbridge._engine.logs import log
from taskbridge.errors import (
    ContractError,
    ServerError,
    SubmitUncertain,
    TaskbridgeError,
    UnexpectedRedirect,
    plain,
)
from taskbridge.provider.http import Flow, Request, Response

if TYPE_CHECKING:
    pass


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

    def __init__(self, channel: Channel, begun: Mapping[str, Any]) -> None:
        self._channel = channel
        self._begun = begun
        self._last: Request | None = None
        self._answered = False
        self._time = channel.clock.now()

    def watch(self, flow: Flow[T]) -> Flow[T]:
        """The same flow; its commit is logged, and goes out on a connection of its own."""
        return tapped(flow, self._hear, self._ready)

    def _hear(self, _answer: Response) -> None:
        self._answered = True

    def _ready(self, request: Request) -> Request:
        if request.commits:
            self._time = self._channel.clock.now()
            request = replace(request, fresh=True, clue=self._clue(request.clue))
            name, begun = self._channel.name, self._begun
            told = " ".join(f"{key}={plain(str(value), 200)}" for key, value in begun.items())
            log("order", connection=name, order=told, **_extra(begun))
        self._last, self._answered = request, False
        return request

    def _clue(self, made: Mapping[str, Any]) -> dict[str, Any]:
        """What is known of the order: who it was for, when, and what was made on the way."""
        channel = self._channel
        known = {"provider": channel.provider.name, "connection": channel.name, "time": self._time.isoformat()}
        return {**known, **self._begun, **made}

    def told(self, error: TaskbridgeError) -> TaskbridgeError:
        """The error that the caller sees: of unknown fate where it is, with what was made on the way."""
        channel, last = self._channel, self._last
        committing = last is not None and last.commits
        if committing and self._answered and _leaves_doubt(error, channel.provider.doubtful_statuses):
            doubt = uncertain(error.message, http_status=error.http_status, raw=error.raw)
            doubt.__cause__ = error
            error = doubt
        elif committing and isinstance(error, ServerError):
            error.retryable = False
        error.clue = self._clue({} if last is None else last.clue)
        if isinstance(error.__cause__, TaskbridgeError):
            channel.told(error.__cause__)
        if channel.blames_account(error):
            channel.refuse(error)
        return channel.told(error)


def _extra(begun: Mapping[str, Any]) -> dict[str, Any]:
    return {f"order_{key}": value for key, value in begun.items()}


def _leaves_doubt(error: TaskbridgeError, doubtful: frozenset[int]) -> bool:
    """Whether an answer that a flow could not use may have been the vendor's yes."""
    if isinstance(error, ServerError):
        return error.http_status in doubtful
    return isinstance(error, ContractError) and not isinstance(error, UnexpectedRedirect)
