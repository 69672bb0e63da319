"""Status requests: one task (`get`), one task that is being waited for (`poll`), one page of the vendor's list.

A failed status request is never a failed task: it raises, and says nothing about the task. "Not found" about a task
that may be new, or was just seen, means "not yet" for a while, and is asked again; see `NotFoundGrace`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, cast

from taskbridge._engine.effects import Sleep
from taskbridge._engine.retry import POLL, broken_provider, with_policies
from taskbridge._engine.tracing import report_observation
from taskbridge._engine.uploads import delete_uploads
from taskbridge.errors import (
    ApiError,
    ContractError,
    IdentityMismatch,
    TaskbridgeError,
    TaskNotFound,
    TransportError,
    UnexpectedRedirect,
    printable,
)
from taskbridge.models import Reason, Task, TaskStatus
from taskbridge.provider.http import Response

if TYPE_CHECKING:
    from datetime import datetime

    from taskbridge._engine.connection import Connection
    from taskbridge._engine.effects import EffectFlow
    from taskbridge._engine.retry import RequestOptions
    from taskbridge._engine.tracing import PollTrace
    from taskbridge.provider.capabilities import IdKind
    from taskbridge.provider.http import Flow, Request

_GRACE: Final = 10.0  # seconds in which a task that was never seen may still be new
_GRACE_PAUSE: Final = 0.25  # seconds before a task that may be new is asked for again; doubles up to two
_SEEN_PAUSE: Final = 0.5  # seconds before a task that was seen is asked for again
_GONE: Final = 410  # HTTP status: it was there, and is no more


class NotFoundGrace:
    """Decides how long "not found" means "not yet" for one task: a vendor's servers do not all know a new task at once.

    A task that this process submitted may be new for ten seconds. A call that waits (`patient`) assumes the same of a
    task that was never seen, from the first time that it is not found; one that was `seen` is asked for once more.
    """

    __slots__ = ("_connection", "_is_doubted", "_is_seen", "_patient", "_pause", "_task_id", "_until")

    def __init__(self, connection: Connection, task_id: str, *, patient: bool = False, seen: bool = False) -> None:
        self._connection = connection
        self._task_id = task_id
        self._patient = patient
        self._is_seen = seen
        self._is_doubted = False  # whether it was asked for once more since it was seen
        self._pause = _GRACE_PAUSE
        self._until: float | None = None  # monotonic seconds

    def see(self) -> None:
        """Note that the vendor knows the task."""
        self._is_seen, self._is_doubted = True, False

    def pause(self, error: TaskbridgeError, now: float, deadline: float) -> float | None:
        """Return the seconds after which to ask again; None if the error is the vendor's last word.

        The times are monotonic seconds.
        """
        if not isinstance(error, TaskNotFound) or error.http_status == _GONE:
            return None
        if self._is_seen and not self._is_doubted:
            self._is_doubted = True
            return _SEEN_PAUSE if now + _SEEN_PAUSE < deadline else None
        if self._until is None:
            self._until = self._connection.submitted_at(self._task_id) + _GRACE
            if self._patient and not self._is_seen:
                self._until = max(self._until, now + _GRACE)
        pause, self._pause = self._pause, min(2.0, self._pause * 2.0)
        return pause if now < self._until and now + pause < deadline else None


def get(  # noqa: C901  # a function more would be a call more in each poll
    connection: Connection,
    task_id: str,
    deadline: float,
    start: Callable[[], Flow[Task] | None],
    options: RequestOptions = POLL,
    *,
    trace: PollTrace | None = None,
    recorder: _Recorder | None = None,
    grace: NotFoundGrace | None = None,
) -> EffectFlow[Task]:
    """Ask for the status of a task once, and check that the response is about that task; see `with_policies`.

    With a `grace` it asks again for what is not found.
    """
    kind, native = connection.provider.split_id(task_id)
    before: Callable[[Request], Request] | None = None
    try:
        if not kind.resumable:
            raise connection.provider.not_resumable(task_id)
        while True:
            if recorder is not None:
                recorder.count = 0
            try:
                task = yield from with_policies(
                    connection, start, deadline, options, trace=trace, before=before, after=recorder
                )
            except TaskNotFound as error:
                pause = None if grace is None else grace.pause(error, connection.clock.monotonic(), deadline)
                if pause is None:
                    raise
                yield Sleep(pause)
                options = replace(options, has_permit=False)
                continue
            if not isinstance(task, Task):  # pyright: ignore[reportUnnecessaryIsInstance]  # plugin code
                raise broken_provider(connection, "a status request returned no Task")
            mismatch = identity_mismatch(kind, native, task)
            if mismatch is None:
                _note(connection, task)
                if connection.uploads and task.is_terminal:
                    yield from delete_uploads(connection, task_id, task)
                return task
            if before is not None:
                raise mismatch
            # A kept connection may have delivered the response to another request: ask again on a new one.
            before, options = _on_new_connection, replace(options, has_permit=False)
    except TaskbridgeError as error:
        raise connection.refused(error, task_id) from None


def _note(connection: Connection, task: Task) -> None:
    if task.usage is not None and task.usage.amount:
        connection.usage.add(task)
    if connection.expects_webhook or not task.recognized:
        connection.note(task)  # elsewhere `ingest` confirms an event that may be late


def get_and_report(
    connection: Connection,
    task_id: str,
    deadline: float,
    start: Callable[[], Flow[Task] | None],
    *,
    trace: PollTrace,
    grace: NotFoundGrace,
) -> EffectFlow[Task]:
    """Ask for the status of a task once, and notify the observers of the result."""
    try:
        task = yield from get(connection, task_id, deadline, start, trace=trace, grace=grace)
    except TaskbridgeError as error:
        report_observation(connection, trace, error=error)
        raise
    report_observation(connection, trace, task=task)
    return task


def identity_mismatch(kind: IdKind, native: str, task: Task) -> IdentityMismatch | None:
    """Return the error if the vendor responded about another task than the one asked for."""
    answered = native if kind.identity is None else str(getattr(task, kind.identity))
    if answered == native or (kind.ignore_case and answered.casefold() == native.casefold()):
        return None
    return IdentityMismatch(
        f"asked for {printable(native, 80)!r}, the vendor answered for {printable(str(task.native_id), 80)!r}",
        retryable=True,
        raw=task.raw,
    )


def unless_deleted(task: Task, known: Task | None) -> Task:
    """Return the earlier snapshot of a task that had completed before it was deleted; otherwise the task as it is.

    A vendor that has deleted or archived a task says so, and no longer how it ended.
    """
    if known is None or task.reason is not Reason.DELETED or known.restarts != task.restarts:
        return task
    return known if known.status is TaskStatus.COMPLETED else task


def _on_new_connection(request: Request) -> Request:
    return replace(request, new_connection=True)


# Polling.


@dataclass(frozen=True, slots=True)
class StatusResponse:
    """What of a response decides the snapshot, to recognize an unchanged one, and to translate it again."""

    body: bytes
    status: int = 200
    headers: tuple[tuple[str, str | None], ...] = ()  # that the provider read; None for one that was missing
    retry_after: float | None = None  # seconds, if the provider found it in the response

    def is_repeated_by(self, response: Response) -> bool:
        """Whether a response says the same."""
        return (
            response.body == self.body
            and response.status == self.status
            and all(response.headers.get(name) == value for name, value in self.headers)
        )


@dataclass(frozen=True, slots=True)
class PollResult:
    """The result of one poll."""

    task: Task | None  # None if the response was identical to the one before
    seen: StatusResponse | None  # if there was one request
    received_at: datetime  # aware, UTC
    response: Response | None = None  # the last one


class _Unchanged(Exception):
    """The response is identical to the one before."""


class _ReadHeaders(Mapping[str, str]):
    """Header fields, and which of them the provider reads: only those can decide the snapshot."""

    __slots__ = ("_fields", "read")

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._fields = headers
        self.read: dict[str, str | None] = {}

    def __getitem__(self, name: str) -> str:
        self.read[name] = self._fields.get(name)
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        self.read.update(self._fields)
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


@dataclass(slots=True)
class _Recorder:
    """Keeps a poll's response, and ends the poll early if it says the same as the one seen before."""

    seen: StatusResponse | None
    count: int = 0  # responses to the flow that runs at present
    headers: _ReadHeaders | None = None
    retry_after: float | None = None  # seconds, by the header
    response: Response | None = None

    def __call__(self, response: Response) -> None:
        self.count += 1
        self.response = response
        if self.seen is not None and self.count == 1 and self.seen.is_repeated_by(response):
            if response.retry_after is None:
                response.retry_after = self.seen.retry_after
            raise _Unchanged
        self.retry_after = response.retry_after
        self.headers = response.headers = _ReadHeaders(response.headers)

    def last(self) -> StatusResponse | None:
        """Return what decided the snapshot, if that was one response."""
        response, headers = self.response, self.headers
        if response is None or headers is None or self.count != 1:
            return None
        own = None if response.retry_after == self.retry_after else response.retry_after
        return StatusResponse(response.body, response.status, tuple(headers.read.items()), own)


def poll(
    connection: Connection,
    task_id: str,
    deadline: float,
    options: RequestOptions = POLL,
    *,
    seen: StatusResponse | None = None,
    start: Callable[[], Flow[Task] | None] | None = None,
    trace: PollTrace | None = None,
) -> EffectFlow[PollResult]:
    """Ask for the status of a task that is being waited for.

    A response that equals the last one, `seen`, is not translated again.
    """
    recorder = _Recorder(seen)
    first = start or (lambda: connection.provider.get(task_id))
    try:
        task = yield from get(connection, task_id, deadline, first, options, trace=trace, recorder=recorder)
        last = recorder.last()
    except _Unchanged:
        task, last = None, seen
    response = recorder.response
    received_at = connection.clock.now() if response is None else response.received_at
    return PollResult(task, last, received_at, response)


def translate(connection: Connection, task_id: str, seen: StatusResponse, received_at: datetime) -> Task:
    """Return the snapshot that the response of a one-request poll contains."""
    flow = connection.provider.get(task_id)
    try:
        next(flow)
        headers = {name: value for name, value in seen.headers if value is not None}
        flow.send(Response(seen.status, headers, seen.body, received_at))
    except StopIteration as end:
        return cast("Task", end.value)
    finally:
        flow.close()
    raise broken_provider(connection, "a status request of one HTTP request became longer")


def has_long_poll(connection: Connection, task_id: str) -> bool:
    """Whether the vendor has a long poll for this task."""
    if not connection.provider.capabilities.long_poll:
        return False
    try:
        flow = connection.provider.long_poll(task_id)
    except Exception:  # noqa: BLE001  # whatever a provider's own code may raise: then there is none
        return False
    if flow is None:
        return False
    flow.close()
    return True


# ContractError itself: strict reading refused, or the provider is broken. Its subclasses may be transient.
_FINAL_CONTRACTS: Final = frozenset({ContractError, UnexpectedRedirect})


def is_final(error: TaskbridgeError) -> bool:
    """Whether a failed status request ends a wait at once, because asking again cannot help."""
    if isinstance(error, ApiError):
        return not error.retryable
    if isinstance(error, ContractError):
        return type(error) in _FINAL_CONTRACTS
    return not isinstance(error, TransportError) or not error.retryable
