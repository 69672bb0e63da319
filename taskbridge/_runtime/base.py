"""What the synchronous and the asynchronous interface share: every operation is prepared here, none waits or sends.

`ClientBase` finds the connection and the id that a caller means, checks what can be checked before anything is sent,
and returns the generator of effects that `sync.Runtime` or `aio.Runtime` carries out. `SingleWait` and `ManyWait`
connect a wait with a poll scheduler.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from math import inf
from threading import Lock
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Generic, NoReturn, Protocol, TypeAlias, TypeVar

from taskbridge import __version__
from taskbridge._config.network import network_of
from taskbridge._engine import operations
from taskbridge._engine.connection import Connection
from taskbridge._engine.download import (
    DownloadOptions,
    download_file,
    download_task,
    get_result,
    open_file,
    read_file,
)
from taskbridge._engine.effects import no_effects
from taskbridge._engine.inputs import can_submit
from taskbridge._engine.logs import TASKS
from taskbridge._engine.lookup import (
    NotFoundGrace,
    PollResult,
    get,
    get_and_report,
    has_long_poll,
    poll,
    unless_deleted,
)
from taskbridge._engine.observers import ObserverHandle
from taskbridge._engine.operations import Pager, check_names, perform, require
from taskbridge._engine.retry import RequestOptions
from taskbridge._engine.tracing import CallSpan, begin_trace
from taskbridge._fork import renew_after_fork
from taskbridge._polling.commands import PollList, PollTask, Update
from taskbridge._polling.entries import Waiter
from taskbridge._polling.scheduler import CLOSED, PollScheduler
from taskbridge._transport.choice import check_network, transport_name
from taskbridge.errors import (
    ConfigError,
    InvalidInput,
    InvalidTaskId,
    TaskbridgeError,
    TransportError,
    WaitTimeout,
    printable,
)
from taskbridge.models import Outcome, Outcomes, Task, TaskFile, TaskRef, TaskResult, TaskStatus, raise_if_failed
from taskbridge.provider.clock import clip_seconds
from taskbridge.provider.submission import Page

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from taskbridge._config.settings import CommonSettings
    from taskbridge._engine.connection import ConnectionStats, Group
    from taskbridge._engine.effects import EffectFlow
    from taskbridge._engine.inputs import AnyInput, SubmitRequest
    from taskbridge._engine.operations import CheckResult
    from taskbridge._engine.webhooks import Headers, Ingested
    from taskbridge.event_bus import EventBus, Listener, TaskUpdate
    from taskbridge.events import NextPoll, Observer
    from taskbridge.models import Account, OperationInfo, StorageUrl, Support, WebhookEndpoint, WebhookEvent
    from taskbridge.provider.clock import Clock
    from taskbridge.provider.storage import Storage
    from taskbridge.transport import Network

T = TypeVar("T")
X = TypeVar("X")

MIN_RATE: Final = 1e-5  # requests per second, as for the setting `requests_per_second`
MAX_RATE: Final = 100_000
DEFAULT_TIMEOUT: Final = 900.0  # seconds that a wait lasts unless the caller says otherwise

Saved: TypeAlias = "tuple[Path, ...] | tuple[StorageUrl, ...]"

AnyId: TypeAlias = str | TaskRef | Task
"""A shared id, a ref or its text, or a task."""


@dataclass(frozen=True, slots=True)
class Target:
    """A task of one connection, with the snapshot that the caller has of it."""

    connection: Connection
    task_id: str
    known: Task | None = None

    @property
    def ref(self) -> TaskRef:
        """``connection:id``."""
        return TaskRef.of(self.connection.name, self.task_id)

    @property
    def last_word(self) -> Task | None:
        """The caller's snapshot of a task that has ended and that the vendor does not keep; None otherwise."""
        known = self.known
        return known if known is not None and not known.resumable and known.is_terminal else None


@dataclass(frozen=True, slots=True)
class Operation(Generic[T]):
    """An operation that is ready to run."""

    connection: Connection
    flow: EffectFlow[T]
    before_submit: Callable[[Mapping[str, Any]], object] | None = None  # called with the recovery token
    span: CallSpan | None = None  # reports the call to observers


class ClientBase:
    """What every `Client` and `Bridge` has, synchronous or not.

    `only` is the one connection of a `Client`, to which bare ids belong, or its group. Refs of other connections that
    are `known` are recognized and refused.
    """

    def __init__(
        self,
        connections: Mapping[str, Connection],
        clock: Clock,
        *,
        only: str | None = None,
        known: frozenset[str] = frozenset(),
        groups: Mapping[str, Group] = MappingProxyType({}),
    ) -> None:
        self._connections = connections
        self._groups = groups
        self._clock = clock
        self._only = only
        self._known = known | frozenset(connections) | frozenset(groups)
        self._closed = False
        self._waits: set[SingleWait] = set()  # that are running

    def stats(self) -> Mapping[str, ConnectionStats]:
        """Return what each connection has done so far, by its name."""
        return {name: connection.stats for name, connection in self._connections.items()}

    def observe(self, observer: Observer) -> ObserverHandle:
        """Notify an observer of what happens here, until the result is closed; see `taskbridge.events`.

        Args:
            observer: Called with each event, in the thread in which it happens.
        """
        return ObserverHandle((connection.observers for connection in self._connections.values()), observer)

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} holds credentials and is not pickled; pass its name instead")

    def __repr__(self) -> str:
        if self._only is None:
            return f"<{type(self).__name__} {', '.join(self._connections)}>"
        group = self._groups.get(self._only)
        what = f"first of {group.listed}" if group else self._connections[self._only].provider.name
        return f"<{type(self).__name__} {self._only} ({what})>"

    # Finding the connection and the id.

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ConfigError(f"this {type(self).__name__} is closed; open a new one")

    def _end_waits(self) -> None:
        """Refuse further calls, and end the waits for one task."""
        self._closed = True
        for wait in self._waits.copy():
            wait.close()

    @property
    def _connection(self) -> Connection:
        """Return the one connection of a `Client`, also if it is closed.

        Raises:
            UnsupportedFeature: It is a group.
        """
        group = self._groups.get(self._only or "")
        if group is not None:
            raise group.unsupported()
        return self._connections[self._only or ""]

    def _resume(self, name: str | None) -> Connection:
        """Return a connection for a new call; a refused credential is tried again."""
        connection = self._named(name)
        connection.credentials.refusal = None
        return connection

    def _named(self, name: str | None) -> Connection:
        self._refuse_if_closed()
        connection = self._connections.get(name or "")
        if connection is None and (group := self._groups.get(name or "")) is not None:
            raise group.unsupported()
        if connection is None:
            raise ConfigError(
                f"there is no connection {printable(name or '', 60)!r}; there are {', '.join(self._connections)}"
            )
        return connection

    def _split(self, given: AnyId) -> tuple[str, str]:
        """Return the connection's name and the shared id that a caller means."""
        if isinstance(given, Task):
            return given.connection, given.id
        if not isinstance(given, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers need not be typed
            raise InvalidTaskId(f"an id is a text, a TaskRef or a Task, not {type(given).__name__}")
        head, colon, rest = given.partition(":")
        if isinstance(given, TaskRef) or (colon and head in self._known):
            return head, rest
        if self._only is None:
            raise InvalidTaskId(
                f"{printable(given, 80)!r} names none of the connections; a ref is connection:id, "
                f"with a connection of {', '.join(sorted(self._connections))}"
            )
        return self._only, given

    def _locate(self, given: AnyId) -> Target:
        """Find the task that a caller means."""
        self._refuse_if_closed()
        name, task_id = self._split(given)
        connection = self._connections.get(name)
        if connection is None and name in self._groups:
            raise InvalidTaskId(
                f"{printable(task_id, 80)!r} does not say which member of the group {name!r} has the task; "
                f"write it as connection:id, with a connection of {self._groups[name].listed}"
            )
        if connection is None:
            raise InvalidTaskId(
                f"{printable(task_id, 80)!r} is of connection {printable(name, 60)!r}, not of "
                f"{' or '.join(sorted(self._connections))}"
            )
        connection.provider.split_id(task_id)
        connection.credentials.refusal = None  # a new call tries a refused credential again
        return Target(connection, task_id, given if isinstance(given, Task) else None)

    def _locate_all(self, given: Iterable[AnyId]) -> list[Target | Outcome]:
        """Find several tasks; one that needs no wait, and an id that its vendor cannot have, is an outcome already."""
        self._refuse_if_closed()
        if isinstance(given, str):
            raise InvalidTaskId("a list of ids is wanted, not one text; put it in brackets")
        targets: list[Target | Outcome] = []
        for each in given:
            name, task_id = self._split(each)
            if name not in self._connections:
                self._locate(each)  # raises
            try:
                target = self._locate(each)
                targets.append(self._without_wait(target) or target)
            except InvalidTaskId as error:
                ref = TaskRef.of(name, printable(task_id, 200) or "(empty)")
                targets.append(Outcome(ref, None, error.about(ref=ref)))
        return targets

    @staticmethod
    def _without_wait(target: Target) -> Outcome | None:
        """Return the outcome for a task that the vendor does not keep, so that it cannot be waited for."""
        provider = target.connection.provider
        kind, _ = provider.split_id(target.task_id)
        if kind.resumable and target.last_word is None:
            return None
        if target.last_word is not None:
            return Outcome(target.ref, target.last_word)
        return Outcome(target.ref, None, provider.not_resumable(target.task_id).about(ref=target.ref))

    # One task.

    def _get(
        self, task: AnyId, options: Mapping[str, Any] | None = None, submitted_at: datetime | None = None
    ) -> Operation[Task]:
        target = self._locate(task)
        if submitted_at is not None:
            _note_submitted(target, submitted_at)
        connection, task_id = target.connection, target.task_id
        provider = connection.provider
        start = partial(provider.get, task_id)
        if options:
            check_names(connection, options, provider.capabilities.get_options, "option of get")
            start = partial(provider.get_with, task_id, dict(options))
        deadline = self._clock.monotonic() + connection.settings.request_timeout
        grace = NotFoundGrace(connection, task_id)
        if connection.observers.callbacks or TASKS.isEnabledFor(logging.DEBUG):  # most have none: one call less
            trace = begin_trace(connection, task_id)
            if trace is not None:
                return Operation(
                    connection, get_and_report(connection, task_id, deadline, start, trace=trace, grace=grace)
                )
        return Operation(connection, get(connection, task_id, deadline, start, grace=grace))

    def _wait(
        self,
        task: AnyId,
        timeout: float | None,
        on_update: Callable[[Task], object] | None,
        submitted_at: datetime | None = None,
    ) -> SingleWait:
        timeout = seconds_of(timeout)
        target = self._locate(task)
        if submitted_at is not None:
            _note_submitted(target, submitted_at)
        wait = SingleWait(
            target,
            self._clock,
            timeout,
            on_update,
            waits=self._waits,
            refuse_if_closed=self._refuse_if_closed,
        )
        if target.last_word is not None:
            wait.once = Operation(target.connection, no_effects(target.last_word))
        elif timeout is not None and timeout <= 0:
            wait.once = self._get(task)
        return wait

    def _result(self, task: Task) -> Operation[TaskResult]:
        raise_if_failed(task)
        connection = self._locate(task).connection
        return Operation(connection, get_result(connection, task))

    def _change(self, flow: Callable[[Connection, str], EffectFlow[T]], task: AnyId) -> Operation[T]:
        target = self._locate(task)
        return Operation(target.connection, flow(target.connection, target.task_id))

    def _delete(self, what: AnyId | TaskFile) -> Operation[None]:
        if not isinstance(what, TaskFile):
            return self._change(operations.delete, what)
        if self._only is None:
            raise InvalidInput('a file does not say of which connection it is: bridge["its name"].delete(file)')
        connection = self._resume(self._only)
        return Operation(connection, operations.delete_file(connection, what))

    def _download(self, task: AnyId, options: DownloadOptions) -> Operation[Saved]:
        if isinstance(task, TaskFile):
            raise InvalidInput('a file does not say of which connection it is: bridge["its name"].download(file, to)')
        target = self._locate(task)
        connection = target.connection
        require(connection, "download", "give out files")
        span = CallSpan("download", [connection], connection.clock, [target.ref])
        return Operation(connection, download_task(connection, target.task_id, target.known, options), span=span)

    def _download_file(self, file: TaskFile, options: DownloadOptions) -> Operation[Path | StorageUrl]:
        connection, span = self._download_from()
        return Operation(connection, download_file(connection, file, options), span=span)

    def _read_file(self, file: TaskFile, max_bytes: int | None) -> Operation[bytes]:
        connection, span = self._download_from()
        return Operation(connection, read_file(connection, require_file(file), max_bytes), span=span)

    def _open_file(self, file: TaskFile, max_bytes: int | None) -> Operation[BinaryIO]:
        connection, span = self._download_from()
        return Operation(connection, open_file(connection, require_file(file), max_bytes), span=span)

    def _download_from(self) -> tuple[Connection, CallSpan]:
        connection = self._resume(self._only)
        require(connection, "download", "give out files")
        return connection, CallSpan("download", [connection], connection.clock)

    # One connection.

    def _submit(
        self,
        connection: str | None,
        request: SubmitRequest,
        before_submit: Callable[[Mapping[str, Any]], object] | None,
    ) -> Operation[Task]:
        group = self._groups.get(connection or "")
        if group is not None:
            members = [self._resume(each.name) for each in group.members]
            span = CallSpan("submit", members, self._clock)
            return Operation(members[0], operations.submit_to_first(group, request), before_submit, span)
        opened = self._resume(connection)
        span = CallSpan("submit", [opened], opened.clock)
        return Operation(opened, operations.submit(opened, request), before_submit, span)

    def _can(self, connection: str, request: SubmitRequest) -> Support:
        group = self._groups.get(connection)
        if group is None:
            return can_submit(self._named(connection), request)
        answers = [can_submit(self._named(each.name), request) for each in group.members]
        return next((each for each in answers if each), answers[-1])

    def _recover(self, connection: str | None, error: TaskbridgeError, document: AnyInput) -> Operation[Task | None]:
        opened = self._resume(connection_of(error) if connection in self._groups else connection)
        return Operation(opened, operations.recover(opened, error, document))

    def _list(
        self, connection: str | None, status: TaskStatus | str | None, limit: int | None, filters: Mapping[str, Any]
    ) -> Pager:
        return Pager(self._resume(connection), status, limit, filters)

    def _check(self) -> Operation[CheckResult]:
        connection = self._resume(self._only)
        return Operation(connection, operations.check(connection))

    def _account(self) -> Operation[Account]:
        connection = self._resume(self._only)
        return Operation(connection, operations.account(connection))

    def _operations(
        self, name: str | None, input_format: str | None, output_format: str | None
    ) -> Operation[tuple[OperationInfo, ...]]:
        connection = self._resume(self._only)
        return Operation(connection, operations.list_operations(connection, name, input_format, output_format))

    def _webhooks(self) -> Operation[tuple[WebhookEndpoint, ...]]:
        connection = self._resume(self._only)
        return Operation(connection, operations.list_webhooks(connection))

    def _add_webhook(self, url: str, events: Iterable[str] | None) -> Operation[WebhookEndpoint]:
        connection = self._resume(self._only)
        return Operation(connection, operations.add_webhook(connection, url, events))

    def _remove_webhook(self, webhook: WebhookEndpoint | str) -> Operation[None]:
        connection = self._resume(self._only)
        webhook_id = webhook if isinstance(webhook, str) else webhook.id
        return Operation(connection, operations.remove_webhook(connection, webhook_id))

    def _delivery_limit(self, connection: str) -> int:
        from taskbridge._engine.webhooks import delivery_limit  # noqa: PLC0415  # only where webhooks are used

        return delivery_limit(self._named(connection))

    def _parse_webhook(
        self,
        connection: str | None,
        headers: Headers,
        body: bytes | bytearray | memoryview,
        url: str | None,
        now: datetime | None,
    ) -> WebhookEvent:
        from taskbridge._engine.webhooks import receive  # noqa: PLC0415  # only where webhooks are used

        return receive(self._named(connection), headers, body, url, now)

    def _ingest(self, event: WebhookEvent, confirm: bool | None) -> Operation[tuple[Ingested, bool]]:
        from taskbridge._engine.webhooks import ingest  # noqa: PLC0415  # only where webhooks are used

        connection = self._resume(self._notified(event).name)
        return Operation(connection, ingest(connection, event, confirm=confirm))

    def _settle(self, event: WebhookEvent) -> Operation[None]:
        from taskbridge._engine.webhooks import settle  # noqa: PLC0415  # only where webhooks are used

        connection = self._notified(event)
        return Operation(connection, settle(connection, event))

    def _forget(self, event: WebhookEvent) -> Operation[None]:
        from taskbridge._engine.webhooks import forget  # noqa: PLC0415  # only where webhooks are used

        connection = self._notified(event)
        return Operation(connection, forget(connection, event))

    def _notified(self, event: WebhookEvent) -> Connection:
        connection = self._connections.get(event.connection)
        if connection is None:
            self._refuse_if_closed()
            raise ConfigError(f"the event is of connection {printable(event.connection, 60)!r}, which is not open here")
        return connection

    # Many tasks.

    def _many(self, call: str, tasks: Iterable[AnyId], timeout: float | None, *, changes: bool = False) -> ManyWait:
        timeout = seconds_of(timeout)
        return ManyWait(call, self._locate_all(tasks), self._clock, timeout, self._refuse_if_closed, changes=changes)

    def _watched(self, task: AnyId, timeout: float | None, submitted_at: datetime | None) -> tuple[Target, float]:
        """Return a task for an open watch, and the monotonic seconds of its deadline."""
        timeout, target = seconds_of(timeout), self._locate(task)
        if submitted_at is not None:
            _note_submitted(target, submitted_at)
        return target, deadline_after(self._clock.monotonic(), timeout)

    def _buses(self) -> list[EventBus]:
        self._refuse_if_closed()
        return [connection.event_bus for connection in self._connections.values()]

    def _limit_rate(self, rate: float | None) -> None:
        given: Any = rate  # callers need not be typed
        is_number = isinstance(given, int | float) and not isinstance(given, bool)
        if given is not None and not (is_number and MIN_RATE <= given <= MAX_RATE):
            raise InvalidInput(f"a rate is {MIN_RATE:g} to {MAX_RATE:,} requests per second, or None for no limit")
        self._refuse_if_closed()
        self._connection.limit_rate(rate)

    def _pause_until(self, moment: datetime) -> None:
        require_zone("the end of a pause", moment)
        self._refuse_if_closed()
        self._connection.pause_until(moment)

    def _save_durations(self) -> dict[str, Any]:
        return self._connection.save_durations()

    def _load_durations(self, saved: Mapping[str, Any]) -> None:
        self._refuse_if_closed()
        self._connection.load_durations(saved)


def _note_submitted(target: Target, submitted_at: datetime) -> None:
    require_zone("submitted_at", submitted_at)
    target.connection.note_submitted_at(target.task_id, submitted_at)


def require_zone(what: str, moment: datetime) -> None:
    """Raise `InvalidInput` for anything else than a datetime with a time zone."""
    if not isinstance(moment, datetime):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers need not be typed
        raise InvalidInput(f"{what} is a datetime with a time zone, not {type(moment).__name__}")
    if moment.tzinfo is None:
        raise InvalidInput(f"{what} has no time zone; take datetime.now(UTC)")


def require_file(given: object) -> TaskFile:
    """Return a file of a result; raise `InvalidInput` for anything else, such as its task."""
    if isinstance(given, TaskFile):
        return given
    raise InvalidInput(f"one file of a result is wanted, such as result.files[0], not {type(given).__name__}")


def connection_of(error: TaskbridgeError) -> str:
    """Return the name of the connection that an error of a submission is about."""
    return str(error.recovery_token.get("connection", error.connection))


def checked(task: Task, *, check: bool) -> Task:
    """Return a task that has ended; raise `TaskFailed` if it failed and the caller wants that checked."""
    if check:
        raise_if_failed(task)
    return task


def ended(task: AnyId, timeout: float | None) -> Task | None:
    """Return a task if it is a snapshot of one that has ended, so that there is nothing to wait for.

    Raises:
        InvalidInput: The timeout of the wait is invalid.
    """
    seconds_of(timeout)
    return task if isinstance(task, Task) and task.is_terminal else None


# Waiting.


@contextmanager
def listening(buses: Iterable[EventBus], listener: Listener, ref: TaskRef | None = None) -> Generator[None]:
    """Notify a listener of one task, or of all tasks of several connections, while the block runs."""
    stops = [bus.listen(listener, ref) for bus in buses]
    try:
        yield
    finally:
        for stop in stops:
            stop()


class SingleWait:
    """A wait for one task: a scheduler with one entry.

    While it runs it is in `waits`, so that any thread can `close` it.
    """

    def __init__(
        self,
        target: Target,
        clock: Clock,
        timeout: float | None,
        on_update: Callable[[Task], object] | None,
        *,
        waits: set[SingleWait],
        refuse_if_closed: Callable[[], None],
    ) -> None:
        self._deadline = deadline_after(clock.monotonic(), timeout)
        self.target = target
        self.once: Operation[Task] | None = None
        """Gives the task instead of a wait: the one status request of a wait of no seconds, or a snapshot."""
        self.scheduler = PollScheduler()
        self._clock = clock
        self._on_update = on_update
        self._events: deque[TaskUpdate] = deque()
        self._waits = waits
        self._refuse_if_closed = refuse_if_closed  # raises ConfigError once the client is closed
        self._interrupt: Callable[[], object] = lambda: None
        self._is_closed = False
        self._span = CallSpan("wait", [target.connection], clock, [target.ref], timeout)

    @contextmanager
    def running(self, wake: Callable[[], object], interrupt: Callable[[], object]) -> Generator[None]:
        """Wait while the block runs.

        Args:
            wake: Called in any thread when an event about the task arrives.
            interrupt: Called in any thread when the client is closed.
        """
        target, reports_changes = self.target, self._on_update is not None
        connection = target.connection
        # A long poll cannot be interrupted, so there is none where a webhook is to end the wait.
        can_hold = not reports_changes and not connection.expects_webhook and has_long_poll(connection, target.task_id)
        self.scheduler.add(
            connection,
            target.task_id,
            self._clock.monotonic(),
            deadline=self._deadline,
            changes=reports_changes,
            long_poll=can_hold,
            known=target.known,
        )

        def on_event(update: TaskUpdate) -> None:
            self._events.append(update)
            wake()

        self._interrupt = interrupt
        self._waits.add(self)
        try:
            self._refuse_if_closed()  # `close` came first, and did not see this wait
            with listening([connection.event_bus], on_event, target.ref), self._span:
                yield
        finally:
            self._waits.discard(self)

    def close(self) -> None:
        """End the wait, from any thread."""
        self._is_closed = True
        self._interrupt()

    @property
    def has_events(self) -> bool:
        """Whether something happened that `ended` has not processed yet."""
        return self._is_closed or bool(self._events)

    def ended(self) -> Task | None:
        """Return the terminal task, once there is one; raise the error if the wait ended without one."""
        while self._events:
            apply_event(self.scheduler, self._events.popleft(), self._clock.monotonic())
        while True:
            if self._is_closed:  # perhaps by `on_update`
                self.scheduler.close()
            update = self.scheduler.next_update()
            if update is None:
                return None
            outcome = update.outcome
            if self._is_closed and isinstance(outcome.error, TransportError):  # `close` broke off the poll
                outcome = Outcome(outcome.ref, outcome.task, self._closed_error(outcome.task))
            if update.final:
                self._span.record_outcome(outcome)
            if outcome.error is not None:
                raise outcome.error
            if outcome.task is not None and self._on_update is not None:
                self._on_update(outcome.task)
            if update.final:
                return outcome.task

    def _closed_error(self, task: Task | None) -> WaitTimeout:
        connection, ref = self.target.connection, self.target.ref
        return WaitTimeout(CLOSED, task=task, provider=connection.provider.name, connection=connection.name, ref=ref)


def require_ended(task: Task, known: Task | None) -> Task:
    """Return the snapshot of a task that has ended; raise `WaitTimeout` if it is still running.

    `known` is the caller's snapshot, see `unless_deleted`.
    """
    if task.is_terminal:
        return unless_deleted(task, known)
    raise WaitTimeout(
        f"the task is still running: it is {task.describe()}",
        task=task,
        provider=task.provider,
        connection=task.connection,
        ref=task.ref,
    )


class WaitOwner(Protocol):
    """A call that waits for many tasks."""

    waiters: list[Waiter]

    def put(self, update: Update) -> None:
        """Take an update."""
        ...


@dataclass(frozen=True, slots=True)
class ManyWait:
    """A wait for many tasks."""

    call: str  # name of the method
    targets: list[Target | Outcome]  # in the caller's order; what needs no wait is an outcome already
    clock: Clock
    timeout: float | None  # seconds
    refuse_if_closed: Callable[[], None]  # raises ConfigError once the client is closed
    changes: bool  # whether each change is wanted, not only the end

    def span(self) -> CallSpan:
        """Return the span that reports this call to observers."""
        refs = (target.ref for target in self.targets)
        return CallSpan(self.call, self._connections(), self.clock, refs, self.timeout)

    def listening(self, listener: Callable[[TaskUpdate], object]) -> AbstractContextManager[None]:
        """Notify a listener of the events of all connections while the block runs."""
        return listening([connection.event_bus for connection in self._connections()], listener)

    def _connections(self) -> list[Connection]:
        found = {each.connection.name: each.connection for each in self.targets if isinstance(each, Target)}
        return list(found.values())

    def begin(self, scheduler: PollScheduler, owner: WaitOwner) -> None:
        """Add the tasks to a scheduler; the owner gets their waiters, and the final updates of ids that are invalid."""
        now = self.clock.monotonic()
        deadline = deadline_after(now, self.timeout)
        for index, target in enumerate(self.targets):
            if isinstance(target, Outcome):
                owner.put(Update(Waiter(None, owner, index), target, final=True))
                continue
            waiter = scheduler.add(
                target.connection,
                target.task_id,
                now,
                deadline=deadline,
                owner=owner,
                index=index,
                changes=self.changes,
                known=target.known,
            )
            owner.waiters.append(waiter)

    def in_order(self, updates: Iterable[Update]) -> Outcomes:
        """Return the final outcomes in the caller's order."""
        found = {update.waiter.index: update.outcome for update in updates}
        return Outcomes(found[index] for index in range(len(self.targets)))


_DROPPED: Final = -1  # index of a waiter that its watch does not want any more


class OpenWatch:
    """The tasks and the updates of a watch to which tasks are added while it runs; guarded by the runtime."""

    def __init__(self, *, changes: bool) -> None:
        self._changes = changes
        self._updates: deque[Update | Outcome] = deque()
        self.waiters: dict[TaskRef, Waiter] = {}
        self.is_closed = False

    def add(self, scheduler: PollScheduler, target: Target, now: float, deadline: float) -> None:
        """Wait for a task, unless this watch does so already.

        Raises:
            ConfigError: The watch is closed.
        """
        if self.is_closed:
            raise ConfigError("this watch is closed; open a new one")
        if target.last_word is not None:
            self._updates.append(Outcome(target.ref, target.last_word))
        elif target.ref not in self.waiters:
            self.waiters[target.ref] = scheduler.add(
                target.connection,
                target.task_id,
                now,
                deadline=deadline,
                owner=self,
                changes=self._changes,
                known=target.known,
            )

    def drop(self, scheduler: PollScheduler, ref: TaskRef) -> bool:
        """Stop waiting for a task, whose updates are then not returned any more; False if it was not waited for."""
        waiter = self.waiters.pop(ref, None)
        if waiter is None:
            return False
        waiter.index = _DROPPED
        scheduler.drop([waiter])
        return True

    def next_poll(self, scheduler: PollScheduler, ref: TaskRef, now: float) -> NextPoll | None:
        """Return when and why a task is polled next; None if it is not waited for."""
        waiter = self.waiters.get(ref)
        return None if waiter is None else scheduler.next_poll(waiter, now)

    def end(self, scheduler: PollScheduler) -> None:
        """Stop waiting for all tasks."""
        self.is_closed = True
        scheduler.drop(self.waiters.values())
        self.waiters.clear()

    def put(self, update: Update) -> None:
        """Take an update."""
        if update.final and self.waiters.get(update.outcome.ref) is update.waiter:
            del self.waiters[update.outcome.ref]
        self._updates.append(update)

    @property
    def has_updates(self) -> bool:
        """Whether there may be an outcome to take."""
        return bool(self._updates)

    def next(self) -> Outcome | None:
        """Return the next outcome, if there is one."""
        while self._updates:
            update = self._updates.popleft()
            if isinstance(update, Outcome):
                return update
            if update.waiter.index != _DROPPED:
                return update.outcome
        return None


def seconds_of(timeout: float | None) -> float | None:
    """Return the checked `timeout` of a call, clipped; None for no deadline.

    Raises:
        InvalidInput: It is no number.
    """
    given: Any = timeout  # callers need not be typed
    if given is None:
        return None
    if not isinstance(given, int | float) or given != given:  # noqa: PLR0124  # not a number; isnan() refuses large integers
        kind = type(given).__name__
        raise InvalidInput(f"timeout must be a number of seconds, or None for no deadline, not {kind}")
    return clip_seconds(given)


def deadline_after(now: float, timeout: float | None) -> float:
    """Return the monotonic seconds at which a wait ends; infinite for no deadline."""
    return inf if timeout is None else now + timeout


# Carrying out what a scheduler wants.

_ONE_POLL: Final = RequestOptions("poll", attempts=1, has_permit=True)  # the next poll is the retry
_ONE_LONG_POLL: Final = RequestOptions("long-poll", attempts=1, has_permit=True)
_ONE_PAGE: Final = RequestOptions("list", attempts=1, has_permit=True)
_LONG_POLL_MARGIN: Final = 3600.0  # seconds; the request itself says how long the vendor may hold it open

INTERRUPTED: Final = TaskbridgeError("the status request was interrupted")


def flow_for(command: PollTask | PollList, now: float) -> EffectFlow[PollResult | Page]:
    """Return the flow that carries out a scheduler's command."""
    connection = command.connection
    provider = connection.provider
    timeout = connection.settings.request_timeout
    if isinstance(command, PollList):
        start = partial(provider.list_page, command.query, command.cursor)
        return perform(connection, start, options=_ONE_PAGE, trace=command.trace)
    limit = now + (timeout + _LONG_POLL_MARGIN if command.long_poll else timeout)
    return poll(
        connection,
        command.task_id,
        min(command.deadline, limit),
        _ONE_LONG_POLL if command.long_poll else _ONE_POLL,
        seen=command.last_seen,
        start=partial(provider.long_poll, command.task_id) if command.long_poll else None,
        trace=command.trace,
    )


def deliver(
    scheduler: PollScheduler, command: PollTask | PollList, result: PollResult | Page | TaskbridgeError, now: float
) -> None:
    """Hand the result of a command to the scheduler."""
    if isinstance(command, PollTask) and isinstance(result, PollResult):
        scheduler.on_polled(command, now, result)
    elif isinstance(command, PollList) and isinstance(result, Page):
        scheduler.on_page(command, now, result)
    else:
        error = result if isinstance(result, TaskbridgeError) else INTERRUPTED.again()
        if isinstance(command, PollList):
            scheduler.on_page_failed(command, now, error)
        else:
            scheduler.on_poll_failed(command, now, error)


def apply_event(scheduler: PollScheduler, update: TaskUpdate, now: float) -> None:
    """Hand an event from outside to the scheduler."""
    if isinstance(update, Task):
        scheduler.on_event(update, now)
    elif update is not None:
        scheduler.on_hint(update, now)


CREDENTIAL_LATE: Final = "the total time ran out while the connection's credential was being renewed"


class Transports(Generic[X]):
    """The transports of several connections; connections that reach the network in the same way share one.

    Args:
        make: Makes a transport from a network, a User-Agent, a number of kept connections and the name of a kind.
        given: Used for every connection instead, if there is one.
        custom: Makes one for each connection instead, if there is one.
        connections: Whose network settings are checked at once, unless another transport is used.

    Raises:
        ConfigError: With the network settings of a connection, no request could be sent.
    """

    def __init__(
        self,
        make: Callable[[Network, str, int, str], X],
        given: X | None,
        custom: Callable[[Connection], X] | None,
        connections: Iterable[Connection] = (),
    ) -> None:
        if given is None and custom is None:
            for connection in connections:
                check_network(connection.settings)
        self._make = make
        self._custom = custom
        self._given = given
        self._created: dict[object, X] = {}
        self.by_name: dict[str, X] = {}
        """The transports that exist already, by the connection's name."""
        self._is_closed = False
        renew_after_fork(self, Transports[X].begin_process)

    def begin_process(self) -> None:
        """Make the lock; a forked child makes another one."""
        self._lock = Lock()

    def of(self, connection: Connection) -> X:
        """Return the transport of a connection; it is made when first needed."""
        if self._given is not None:
            connection.transport = type(self._given).__name__
            return self.by_name.setdefault(connection.name, self._given)
        with self._lock:
            if connection.name not in self.by_name:
                if self._is_closed:
                    raise ConfigError("the client is closed; open a new one")
                if self._custom is not None:
                    self._created[connection.name] = self.by_name[connection.name] = self._custom(connection)
                    connection.transport = type(self.by_name[connection.name]).__name__
                else:
                    network, size = network_of(connection.settings), connection.settings.max_in_flight
                    agent, proxies = user_agent(connection.settings), tuple(sorted(network.proxies.items()))
                    kind = connection.settings.transport
                    key = (network.ca_bundle, proxies, network.direct, agent, size, kind)
                    if key not in self._created:
                        self._created[key] = self._make(network, agent, size, kind)
                    self.by_name[connection.name] = self._created[key]
                    connection.transport = transport_name(kind)
            return self.by_name[connection.name]

    def end(self) -> list[X]:
        """Make no more; return those that were made here and not returned before, for closing."""
        with self._lock:
            self._is_closed = True
            created, self._created = self._created, {}
            return list(created.values())


def open_storage() -> Storage:
    """Return what reaches the objects of storages; each call of it blocks."""
    from taskbridge._transport.storage import FsspecStorage  # noqa: PLC0415  # only where storages are used

    return FsspecStorage()


def user_agent(settings: CommonSettings) -> str:
    """Return the User-Agent header of a connection with these settings."""
    suffix = settings.user_agent_suffix
    return f"taskbridge/{__version__}{f' {suffix}' if suffix else ''}"
