"""Looking tasks up: one by one, by a page of the vendor's list, and once more from bytes that are there already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, cast

from taskbridge._engine.connection import Connection
from taskbridge._engine.effects import EffectFlow, Sleep
from taskbridge._engine.flows import broken_provider, guarded_flow, intercepted
from taskbridge._engine.retry import LOOK, RequestOptions, with_policies
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
from taskbridge.models import Task
from taskbridge.provider.http import Flow, Request, Response

if TYPE_CHECKING:
    from datetime import datetime

    from taskbridge._engine.tracing import PollTrace
    from taskbridge.provider.capabilities import IdKind
    from taskbridge.provider.submission import Page

_GRACE_PAUSE: Final = 0.25  # seconds before a young task is asked for again; it doubles up to two


@dataclass(frozen=True, slots=True)
class PollResult:
    """What one look-up saw.

    Attributes:
        task: The snapshot, or None where the answer was the one seen before.
        body: The answer's bytes where it took one request, so that the next look can recognise it and the snapshot
            can be made again from it.
        received_at: Aware UTC time of receipt.
    """

    task: Task | None
    body: bytes | None
    received_at: datetime


def poll(
    connection: Connection,
    task_id: str,
    deadline: float,
    *,
    seen: bytes | None = None,
    operation: Callable[[str], Flow[Task] | None] | None = None,
    plan: RequestOptions = LOOK,
    trace: PollTrace | None = None,
) -> EffectFlow[PollResult]:
    """Look a task up, and make sure that the answer is about the task that was asked for.

    Args:
        channel: The connection.
        task_id: A shared id.
        deadline: Monotonic seconds by which it must be over.
        seen: The bytes of the last answer; the same again are not translated.
        operation: `Provider.get` by default, or `Provider.long_poll`.
        plan: How much each request is worth.
        trail: Where its requests are noted, where somebody wants to know.

    Raises:
        TaskbridgeError: The look-up failed; that says nothing of the task.
    """
    if trace is not None:
        plan = replace(plan, trace=trace)
    start = operation or connection.provider.get
    try:
        kind, native = connection.provider.split_id(task_id)
        fresh = False
        pause = _GRACE_PAUSE
        while True:
            watched = _Watched(seen)
            try:
                task = yield from with_policies(
                    connection, watched.flow(guarded_flow(connection, start, task_id), fresh=fresh), deadline, plan=plan
                )
            except TaskNotFound as error:
                yield _not_yet(connection, task_id, pause, deadline, error)
                pause, plan = min(2.0, pause * 2.0), replace(plan, granted=False)
                continue
            received_at = watched.received_at or connection.clock.now()
            if task is None:
                return PollResult(None, seen, received_at)
            if not isinstance(task, Task):  # pyright: ignore[reportUnnecessaryIsInstance]  # strangers write it
                raise broken_provider(connection, "a look-up returned no Task")
            mismatch = identity_mismatch(kind, native, task)
            if mismatch is None:
                connection.record_task(task)
                return PollResult(task, watched.body, received_at)
            if fresh:
                raise mismatch
            fresh = True
            plan = replace(plan, granted=False)
    except TaskbridgeError as error:
        connection.add_context(error, f"{connection.name}:{task_id}")
        if connection.blames_account(error):
            connection.refuse(error)
        raise error from None


def has_long_poll(connection: Connection, task_id: str) -> bool:
    """Whether the vendor holds a line for this task."""
    if not connection.provider.capabilities.long_poll:
        return False
    try:
        flow = connection.provider.long_poll(task_id)
    except Exception:  # noqa: BLE001  # whatever a provider's own code may raise: then it holds none
        return False
    if flow is None:
        return False
    flow.close()
    return True


def _not_yet(connection: Connection, task_id: str, pause: float, deadline: float, error: TaskNotFound) -> Sleep:
    """A pause, where "not found" may mean "not yet" and there is time to ask again; else the error."""
    if not connection.is_in_grace(task_id) or connection.clock.monotonic() + pause >= deadline:
        raise error
    return Sleep(pause)


def identity_mismatch(kind: IdKind, native: str, task: Task) -> IdentityMismatch | None:
    """The error where the vendor answered for another task than was asked for."""
    if kind.identity is None or _same(getattr(task, kind.identity), native, kind.ignore_case):
        return None
    return IdentityMismatch(
        f"asked for {printable(native, 80)!r}, the vendor answered for {printable(str(task.native_id), 80)!r}",
        retryable=True,
        raw=task.raw,
    )


def _same(answered: object, asked: str, ignore_case: bool) -> bool:
    text = str(answered)
    return text == asked or (ignore_case and text.casefold() == asked.casefold())


class _UnchangedError(Exception):
    """The answer is the one seen before."""


class _Watched:
    """Notes the bytes that a look-up saw, and ends it early when they are the ones seen before."""

    __slots__ = ("_answers", "_seen", "body", "received_at")

    def __init__(self, seen: bytes | None) -> None:
        self._seen = seen
        self._answers = 0
        self.body: bytes | None = None
        self.received_at: datetime | None = None

    def flow(self, flow: Flow[Task], *, fresh: bool) -> Flow[Task | None]:
        try:
            return (yield from intercepted(flow, self._hear, _on_its_own if fresh else None))
        except _UnchangedError:
            return None

    def _hear(self, answer: Response) -> None:
        self._answers += 1
        self.received_at = answer.received_at
        self.body = answer.body if self._answers == 1 else None
        if self._seen is not None and self._answers == 1 and answer.status == 200 and answer.body == self._seen:
            raise _UnchangedError


def _on_its_own(request: Request) -> Request:
    return replace(request, new_connection=True)


def poll_list(
    connection: Connection, flow: Flow[Page], deadline: float, *, plan: RequestOptions, trace: PollTrace | None = None
) -> EffectFlow[Page]:
    """Read one page of a vendor's list, for the fleet.

    Raises:
        TaskbridgeError: It could not be had; that says nothing of any task.
    """
    if trace is not None:
        plan = replace(plan, trace=trace)
    try:
        return (yield from with_policies(connection, flow, deadline, plan=plan))
    except TaskbridgeError as error:
        connection.add_context(error)
        if connection.blames_account(error):
            connection.refuse(error)
        raise error from None


def translate(connection: Connection, task_id: str, body: bytes, received_at: datetime) -> Task:
    """Make the snapshot again from the bytes of a look-up that took one request."""
    flow = connection.provider.get(task_id)
    try:
        next(flow)
        flow.send(Response(200, {}, body, received_at))
    except StopIteration as end:
        return cast("Task", end.value)
    finally:
        flow.close()
    raise broken_provider(connection, "a look-up of one request became longer")


# ContractError itself: a strict reading refused, or the provider is broken. Its other kinds may pass.
_FINAL_CONTRACTS: Final = frozenset({ContractError, UnexpectedRedirect})


def is_final(error: TaskbridgeError) -> bool:
    """Whether a failed look-up ends a wait at once: asking again cannot help."""
    if isinstance(error, ApiError):
        return not error.retryable
    if isinstance(error, ContractError):
        return type(error) in _FINAL_CONTRACTS
    return not isinstance(error, TransportError) or not error.retryable
