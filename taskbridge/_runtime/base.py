"""What the synchronous and the asynchronous interface share: all that neither waits nor sends."""

from __future__ import annotations

from collections import deque
from math import isnan
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, Self, TypeVar

from taskbridge import __version__
from taskbridge._engine.connection import Connection, ConnectionStats
from taskbridge._engine.effects import EffectFlow
from taskbridge._engine.event_bus import TaskUpdate
from taskbridge._engine.flows import guarded_flow
from taskbridge._engine.locate import AnyId, Located, Locator, Rejected, network_key
from taskbridge._engine.lookup import PollResult, has_long_poll, poll, poll_list
from taskbridge._engine.observers import ObserverHandle
from taskbridge._engine.retry import RequestOptions
from taskbridge._engine.tracing import CallSpan
from taskbridge._polling.commands import PollList, PollTask, Update
from taskbridge._polling.entries import Waiter
from taskbridge._polling.scheduler import PollScheduler
from taskbridge.errors import ConfigError, DeadlineExceeded, InvalidInput, TaskbridgeError, WaitTimeout, printable
from taskbridge.models import Outcomes, Task, TaskRef
from taskbridge.provider.secrets import redact_errors
from taskbridge.provider.submission import Page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from taskbridge._engine.webhooks import Headers, Ingested
    from taskbridge.events import Observer
    from taskbridge.models import WebhookEvent
    from taskbridge.provider.capabilities import Capabilities
    from taskbridge.provider.clock import Clock
    from taskbridge.provider.http import Flow
    from taskbridge.transport import Network

DEFAULT_TIMEOUT: Final = 900.0  # seconds that a wait lasts where the caller says nothing


X = TypeVar("X")


class Transports(Generic[X]):
    """The transports of several connections: one for all that reach the world in the same way.

    Args:
        make: Makes a transport from a network, a User-Agent and a number of connections.
        given: Used for every connection instead, where there is one.
        made: Makes one for each connection instead, where there is one.
    """

    def __init__(
        self, make: Callable[[Network, str, int], X], given: X | None, made: Callable[[Connection], X] | None = None
    ) -> None:
        self._make = make
        self._given = given
        self._made = made
        self._shared: dict[object, X] = {}
        self._found: dict[str, X] = {}
        self._lock = Lock()

    def __call__(self, connection: Connection) -> X:
        """The transport of a connection, made when it is first needed."""
        if self._given is not None:
            return self._given
        found = self._found.get(connection.name)
        if found is None and self._made is not None:
            with self._lock:
                if connection.name not in self._found:
                    self._found[connection.name] = self._shared[connection.name] = self._made(connection)
                return self._found[connection.name]
        if found is None:
            network, key = network_key(connection)
            with self._lock:
                if key not in self._shared:
                    self._shared[key] = self._make(network, user_agent(connection), connection.settings.max_in_flight)
                found = self._found[connection.name] = self._shared[key]
        return found

    def created(self) -> list[X]:
        """Those that were made here."""
        return list(self._shared.values())


def user_agent(connection: Connection) -> str:
    """The User-Agent header of a connection."""
    suffix = connection.settings.user_agent_suffix
    return f"taskbridge/{__version__}{f' {suffix}' if suffix else ''}"


class Front:
    """Connections at work, and where an id belongs."""

    def __init__(self, connections: Mapping[str, Connection], locate: Locator, clock: Clock) -> None:
        self._connections = connections
        self._locate = locate
        self._clock = clock
        self._closed = False

    def stats(self) -> Mapping[str, ConnectionStats]:
        """What each connection has done so far, by its name."""
        return {name: connection.stats for name, connection in self._connections.items()}

    def observe(self, observer: Observer) -> ObserverHandle:
        """Tell somebody what happens here, from now on until the result is closed; `taskbridge.events` says what.

        Args:
            observer: Called with each event, in whatever thread it happens.
        """
        return ObserverHandle((connection.observers for connection in self._connections.values()), observer)

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} holds credentials and is not pickled; pass its name instead")

    def _begin(self, task: AnyId) -> Located:
        self._refuse_if_closed()
        place = self._locate(task)
        place.connection.resume()
        return place

    def _begin_many(self, tasks: Iterable[AnyId]) -> list[Located | Rejected]:
        self._refuse_if_closed()
        places = self._locate.many(tasks)
        for connection in {id(p.connection): p.connection for p in places if isinstance(p, Located)}.values():
            connection.resume()
        return places

    def _ingestion(self, event: WebhookEvent, confirm: bool | None) -> tuple[Connection, EffectFlow[Ingested]]:
        from taskbridge._engine.webhooks import ingest  # noqa: PLC0415  # only where webhooks are used

        self._refuse_if_closed()
        connection = self._connections.get(event.connection)
        if connection is None:
            raise ConfigError(f"the event is of connection {printable(event.connection, 60)!r}, which is not open here")
        connection.resume()
        deadline = self._clock.monotonic() + connection.settings.request_timeout
        return connection, ingest(connection, event, deadline, confirm=confirm)

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ConfigError(f"this {type(self).__name__} is closed; open a new one")


class OneConnection(Front):
    """What a `Client` says of itself."""

    def __init__(self, connection: Connection, known: frozenset[str], clock: Clock | None) -> None:
        connections = {connection.name: connection}
        super().__init__(connections, Locator(connections, connection.name, known), clock or connection.clock)
        self._connection = connection

    @property
    def name(self) -> str:
        """The connection's name."""
        return self._connection.name

    @property
    def provider(self) -> str:
        """Entry-point name of the provider."""
        return self._connection.provider.name

    @property
    def capabilities(self) -> Capabilities:
        """What the vendor can do."""
        return self._connection.provider.capabilities

    @redact_errors
    def parse_webhook(
        self,
        headers: Headers,
        raw_body: bytes | bytearray | memoryview,
        *,
        url: str | None = None,
        now: datetime | None = None,
    ) -> WebhookEvent:
        """Prove and read what a vendor's webhook delivered; pure: nothing is sent or waited for.

        Args:
            headers: Header fields, as the web framework has them.
            raw_body: The bytes, as they were received; a body that was decoded and encoded again proves nothing.
            url: The URL that was called, where a secret stands in it.
            now: Aware time of receipt; None for the present.

        Raises:
            WebhookRejected: It is not to be believed; `answer` is the HTTP status to answer with.
            UnsupportedFeature: The vendor sends no webhooks.
            ConfigError: `webhook_secrets` is not set, or holds what is no secret of this vendor.
        """
        from taskbridge._engine.webhooks import receive  # noqa: PLC0415  # only where webhooks are used

        return receive(self._connection, headers, raw_body, url, now)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} ({self.provider})>"


class AllConnections(Front):
    """What a `Bridge` says of itself."""

    def __init__(self, connections: Mapping[str, Connection], clock: Clock) -> None:
        super().__init__(connections, Locator(connections), clock)

    @property
    def connections(self) -> tuple[str, ...]:
        """Names of the connections."""
        return tuple(self._connections)

    def _named(self, name: str) -> Connection:
        connection = self._connections.get(name)
        if connection is None:
            raise ConfigError(
                f"there is no connection {printable(name, 60)!r}; there are {', '.join(self._connections)}"
            )
        return connection

    @redact_errors
    def parse_webhook(
        self,
        connection: str,
        headers: Headers,
        raw_body: bytes | bytearray | memoryview,
        *,
        url: str | None = None,
        now: datetime | None = None,
    ) -> WebhookEvent:
        """Prove and read what a vendor's webhook delivered for a connection; see `taskbridge.Client.parse_webhook`."""
        from taskbridge._engine.webhooks import receive  # noqa: PLC0415  # only where webhooks are used

        return receive(self._named(connection), headers, raw_body, url, now)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(self._connections)}>"


# Waiting.


def no_wait(task: Task) -> Task:
    """What a wait of no seconds makes of one look.

    Raises:
        WaitTimeout: The task goes on.
    """
    if task.is_terminal:
        return task
    raise WaitTimeout(
        f"the task goes on: it is {task.describe()}",
        task=task,
        provider=task.provider,
        connection=task.connection,
        ref=task.ref,
    )


class Waiting:
    """A wait for one task: a fleet of one, and what it told.

    Args:
        place: The task.
        clock: Time and chance.
        timeout: Seconds to wait at most; None for no deadline.
        on_update: Called with each changed snapshot, the last one included.
        wake: Called, in whatever thread, when something was heard of the task.
    """

    def __init__(
        self,
        place: Located,
        clock: Clock,
        timeout: float | None,
        on_update: Callable[[Task], object] | None,
        wake: Callable[[], object],
    ) -> None:
        now = clock.monotonic()
        self.scheduler = PollScheduler()
        self._clock = clock
        self._on_update = on_update
        self._wake = wake
        self._heard: deque[TaskUpdate] = deque()
        self._call = CallSpan("wait", [place.connection], clock, [place], timeout)
        told = on_update is not None
        # A line that is held cannot be left, so it is not used where a webhook is to end the wait.
        long_poll = not told and not place.connection.expects_webhook and has_long_poll(place.connection, place.task_id)
        self.scheduler.add(
            place.connection,
            place.task_id,
            now,
            deadline=deadline_of(now, timeout),
            changes=told,
            long_poll=long_poll,
            known=place.known,
        )
        self._leave = place.connection.event_bus.listen(self._hear, TaskRef.of(place.connection.name, place.task_id))

    def __enter__(self) -> Self:
        self._call.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._leave()
        self._call.end(error)

    def _hear(self, told: TaskUpdate) -> None:
        self._heard.append(told)
        self._wake()

    @property
    def has_heard(self) -> bool:
        """Whether something was heard that `ended` has not yet looked at."""
        return bool(self._heard)

    def ended(self) -> Task | None:
        """The terminal task, once there is one.

        Raises:
            TaskbridgeError: The wait ended without one.
        """
        while self._heard:
            hear(self.scheduler, self._heard.popleft(), self._clock.monotonic())
        while (update := self.scheduler.next_update()) is not None:
            outcome = update.outcome
            if update.final:
                self._call.record_outcome(outcome)
            if outcome.error is not None:
                raise outcome.error
            if outcome.task is not None and self._on_update is not None:
                self._on_update(outcome.task)
            if update.final:
                return outcome.task
        return None


def hear(scheduler: PollScheduler, told: TaskUpdate, now: float) -> None:
    """Tell a fleet what came from outside."""
    if isinstance(told, Task):
        scheduler.on_event(told, now)
    else:
        scheduler.on_hint(told, now)


def enlist(
    scheduler: PollScheduler,
    places: list[Located | Rejected],
    now: float,
    timeout: float | None,
    *,
    owner: object,
    changes: bool,
) -> tuple[list[Waiter], list[Update]]:
    """Add many tasks to a fleet; ids that no request can be made from are news at once."""
    waiters: list[Waiter] = []
    rejected: list[Update] = []
    deadline = deadline_of(now, timeout)
    for place, found in enumerate(places):
        if isinstance(found, Rejected):
            rejected.append(Update(Waiter.detached(owner, place), found.outcome, final=True))
        else:
            waiters.append(
                scheduler.add(
                    found.connection,
                    found.task_id,
                    now,
                    deadline=deadline,
                    owner=owner,
                    index=place,
                    changes=changes,
                    known=found.known,
                )
            )
    return waiters, rejected


def in_order(update: Iterable[Update], count: int) -> Outcomes:
    """Final outcomes in the order in which their tasks were given."""
    found = {one.waiter.index: one.outcome for one in update}
    return Outcomes(found[n] for n in range(count))


def deadline_of(now: float, timeout: float | None) -> float:
    """Monotonic seconds at which a wait ends; infinite for no deadline.

    Raises:
        InvalidInput: The time-out is no number.
    """
    given: Any = timeout  # callers need not be typed
    if given is not None and (not isinstance(given, int | float) or isnan(given)):
        raise InvalidInput("timeout must be a number of seconds, or None for no deadline")
    return float("inf") if timeout is None else now + timeout


_ONE_TRY: Final = RequestOptions(attempts=1, granted=True, kind="poll")  # in a fleet, the next look is the retry


_ONE_LONG_POLL: Final = RequestOptions(attempts=1, granted=True, kind="long-poll")


_ONE_LIST: Final = RequestOptions(attempts=1, granted=True, kind="list")


def ignore(_clue: Mapping[str, Any]) -> None:
    """Nobody wants to know."""


def flow_for(command: PollTask | PollList, now: float) -> EffectFlow[PollResult | Page]:
    """The flow for what a fleet wants to know."""
    connection = command.connection
    if isinstance(command, PollList):
        flow = guarded_flow(connection, connection.provider.list_page, command.query, command.cursor)
        deadline = now + connection.settings.request_timeout
        return poll_list(connection, flow, deadline, plan=_ONE_LIST, trace=command.trace)
    operation: Callable[[str], Flow[Any] | None] | None = connection.provider.long_poll if command.long_poll else None
    budget = now + (_long_poll_limit(connection) if command.long_poll else connection.settings.request_timeout)
    deadline = min(command.deadline, budget)
    plan = _ONE_LONG_POLL if command.long_poll else _ONE_TRY
    return poll(
        connection, command.task_id, deadline, seen=command.last_body, operation=operation, plan=plan, trace=command.trace
    )


def _long_poll_limit(connection: Connection) -> float:
    # The request itself says how long the line is held; this only bounds what comes around it.
    return connection.settings.request_timeout + 3600.0


BROKEN: Final = TaskbridgeError("the look-up was broken off")


def credential_timeout() -> DeadlineExceeded:
    """The error for a renewal of the credential that took too long."""
    error = DeadlineExceeded("the total time ran out while the connection's credential was being renewed")
    error.written = False
    return error


def land(
    scheduler: PollScheduler, command: PollTask | PollList, seen: PollResult | Page | TaskbridgeError, now: float
) -> None:
    """Tell the fleet what came of what it wanted to know."""
    if isinstance(command, PollList):
        if isinstance(seen, Page):
            scheduler.on_page(command, now, seen)
        else:
            scheduler.on_page_failed(command, now, seen if isinstance(seen, TaskbridgeError) else BROKEN.again())
    elif isinstance(seen, PollResult):
        scheduler.on_polled(command, now, seen)
    else:
        scheduler.on_poll_failed(command, now, seen if isinstance(seen, TaskbridgeError) else BROKEN.again())
