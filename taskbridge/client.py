"""The synchronous interface: `Client` for one connection, `Bridge` for all of a configuration.

A `Client` and a `Bridge` may be used from many threads. `close` them, or use them in a ``with`` statement: that ends
the threads of waits for many, and closes the kept connections.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Any, Final, Self

from taskbridge.assemble import AnyId, Located, Rejected, channels_of, one_channel
from taskbridge.calls import Call
from taskbridge.channel import Channel
from taskbridge.client_verbs import BridgeVerbs, ClientVerbs
from taskbridge.config import load_config
from taskbridge.drive import Driver, Shift
from taskbridge.fleet import Fleet
from taskbridge.flows import opened
from taskbridge.front import (
    DEFAULT_TIMEOUT,
    AllConnections,
    Front,
    OneConnection,
    Transports,
    Waiting,
    deadline_of,
    enlist,
    hear,
    in_order,
    no_wait,
)
from taskbridge.inbox import Told, listening
from taskbridge.items import Ticket
from taskbridge.lifecycle import get
from taskbridge.model import Outcome, Outcomes, Task, TaskResult, WebhookEvent, raise_if_failed
from taskbridge.policy import Clock
from taskbridge.secrecy import guarded
from taskbridge.steps import News
from taskbridge.surroundings import TransportMaker, clock_here, surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from taskbridge.config import Network
    from taskbridge.ingest import Ingested
    from taskbridge.transport import Transport

__all__ = ["Bridge", "Client", "connect"]

_WORKERS: Final = 8  # threads for waiting for many
_PATIENCE: Final = 5.0  # seconds that `close` gives looks under way to end; their threads are daemons


@guarded
def connect(
    provider: str | None = None,
    /,
    *,
    connection: str | None = None,
    config: str | os.PathLike[str] | None = None,
    clock: Clock | None = None,
    transport: Transport | TransportMaker | None = None,
    **settings: Any,
) -> Client:
    """Open a connection to a vendor. Nothing is sent yet.

    Either name a configured connection, or a provider and its settings.

    Args:
        provider: Entry-point name of a provider, such as ``cloudconvert``.
        connection: Name of a connection in the configuration; its `default` where neither is named.
        config: Path of the configuration; None looks in the usual places.
        clock: Time and chance; None for the computer's. For tests, see `taskbridge.testing`.
        transport: Sends the requests; None for real ones. For tests, see `taskbridge.testing`.
        settings: Settings of the provider and of every connection; they stand above the configuration's.

    Raises:
        ConfigError: The configuration or a setting cannot be used.
        ProviderNotFound: No such provider is installed.
        ProviderLoadError: The provider cannot be used.
    """
    chosen = clock or clock_here()
    channel, known = one_channel(provider, connection, config, settings, chosen)
    return Client(channel, known=known, clock=chosen, transport=transport)


class _Calls(Front):
    """What `Client` and `Bridge` do alike."""

    def _open(self, transport: Transport | TransportMaker | None) -> None:
        maker = transport if isinstance(transport, TransportMaker) else surroundings().transports
        given = None if isinstance(transport, TransportMaker) else transport
        self._transports = Transports(_make_transport, given, None if maker is None else maker.transport)
        self._driver = Driver(self._clock, self._transports)
        self._crew = _Crew(self._driver)

    # One task.

    def get(self, task: AnyId, *, options: Mapping[str, Any] | None = None) -> Task:
        """Look a task up once.

        Args:
            task: A shared id, a ref or its text, or a task.
            options: The vendor's own query options; ``capabilities.look_options`` has their names.

        Raises:
            InvalidTaskId: It cannot be an id; nothing was sent.
            UnsupportedFeature: The vendor has no such option; nothing was sent.
            TaskbridgeError: The look-up failed, which says nothing of the task.
        """
        place = self._begin(task)
        return self._driver.run(place.channel, get(place.channel, place.task_id, options))

    def wait(
        self,
        task: AnyId,
        timeout: float | None = DEFAULT_TIMEOUT,
        on_update: Callable[[Task], object] | None = None,
    ) -> Task:
        """Wait until a task is completed or failed; the last snapshot tells which.

        The wait runs in this thread. A look-up that fails in passing does not end it.

        Args:
            task: A shared id, a ref or its text, or a task.
            timeout: Seconds to wait at most; 0 looks once; None for no deadline.
            on_update: Called with each changed snapshot, the last one included.

        Raises:
            WaitTimeout: The time ran out, the task goes on; holds the last snapshot and the ref.
            TaskbridgeError: The vendor refuses, or cannot be asked.
        """
        if timeout is not None and timeout <= 0:
            return no_wait(self.get(task))
        place, clock = self._begin(task), self._clock
        arrived = threading.Condition()

        def wake() -> None:
            with arrived:
                arrived.notify()

        def pause(seconds: float) -> None:
            with arrived:
                if not waiting.has_heard:
                    clock.wait_on(arrived, seconds)

        with clock.acting(), Waiting(place, clock, timeout, on_update, wake) as waiting:
            while (ended := waiting.ended()) is None:
                self._driver.step(waiting.fleet, pause)
        return ended

    def result(self, task: AnyId, timeout: float | None = DEFAULT_TIMEOUT) -> TaskResult:
        """What a task made; waits for its end, and fetches the result where the vendor keeps it apart.

        Args:
            task: A shared id, a ref or its text, or a task; a task that has ended is not looked up again.
            timeout: Seconds to wait for the end at most; None for no deadline.

        Raises:
            TaskFailed: The task failed; holds it.
            WaitTimeout: The time ran out, the task goes on.
            TaskbridgeError: The vendor refuses, or cannot be asked.
        """
        ended = task if isinstance(task, Task) and task.is_terminal else self.wait(task, timeout)
        raise_if_failed(ended)
        channel = self._begin(ended).channel
        return self._driver.call(channel, opened(channel, channel.provider.result, ended))

    # Many tasks.

    def as_completed(self, tasks: Iterable[AnyId], timeout: float | None = DEFAULT_TIMEOUT) -> Iterator[Outcome]:
        """Wait for many tasks, and tell of each as it ends.

        Nothing is asked, and no time runs, before the first outcome is taken.

        Yields one outcome for each task given, duplicates included; at the deadline one with `WaitTimeout` for each
        that did not end. One bad task never stops or hides another.

        Args:
            tasks: Shared ids, refs or their texts, or tasks.
            timeout: Seconds to wait at most; None for no deadline.
        """
        places = self._begin_many(tasks)
        return (news.outcome for news in self._follow("as_completed", places, timeout))

    def wait_all(self, tasks: Iterable[AnyId], timeout: float | None = DEFAULT_TIMEOUT) -> Outcomes:
        """Wait for many tasks; their outcomes in the order given, duplicates included.

        Args:
            tasks: Shared ids, refs or their texts, or tasks.
            timeout: Seconds to wait at most; None for no deadline.
        """
        places = self._begin_many(tasks)
        return in_order(self._follow("wait_all", places, timeout), len(places))

    def watch(self, tasks: Iterable[AnyId], timeout: float | None = DEFAULT_TIMEOUT) -> Iterator[Outcome]:
        """Wait for many tasks, and tell of every change of each until it ends.

        Args:
            tasks: Shared ids, refs or their texts, or tasks.
            timeout: Seconds to wait at most; None for no deadline.
        """
        places = self._begin_many(tasks)
        return (news.outcome for news in self._follow("watch", places, timeout, changes=True))

    # What the vendor tells unasked.

    def ingest(self, event: WebhookEvent, *, confirm: bool | None = None) -> Ingested:
        """Take in an event of `parse_webhook`: find out the truth of it, and end the waits for a task that has ended.

        An event whose proof covers no time is confirmed by one look-up. An event that was taken in before, and one that
        tells of a state before the known end, change nothing; the result says so.

        Args:
            event: The event.
            confirm: Whether to look the task up before believing the event; None leaves it to the event.

        Raises:
            TaskbridgeError: The look-up failed: answer 503, and the vendor delivers again.
        """
        return self._driver.run(*self._ingestion(event, confirm))

    # Housekeeping.

    def close(self) -> None:
        """End the threads of waits for many, and close the kept connections."""
        self._closed = True
        self._crew.close()
        for transport in self._transports.opened():
            transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _follow(
        self, call: str, places: list[Located | Rejected], timeout: float | None, *, changes: bool = False
    ) -> Iterator[News]:
        self._refuse_if_closed()
        channels = {place.channel.name: place.channel for place in places if isinstance(place, Located)}
        batch = self._crew.open(places, timeout, changes=changes)
        try:
            with (
                listening([channel.inbox for channel in channels.values()], self._crew.hear),
                Call(call, channels.values(), self._clock, places, timeout) as told,
            ):
                while (news := batch.take()) is not None:
                    if news.final:
                        told.tell(news.outcome)
                    yield news
        finally:
            self._crew.leave(batch)


class Client(OneConnection, _Calls, ClientVerbs):
    """One connection to a vendor; made by `connect`.

    Args:
        channel: The connection at work.
        known: Names of other configured connections, whose refs are recognised and refused.
        clock: Time and chance; tests bring their own.
        transport: Sends the requests; None for the default.
    """

    def __init__(
        self,
        channel: Channel,
        *,
        known: frozenset[str] = frozenset(),
        clock: Clock | None = None,
        transport: Transport | TransportMaker | None = None,
    ) -> None:
        super().__init__(channel, known, clock)
        self._open(transport)


class Bridge(AllConnections, _Calls, BridgeVerbs):
    """Every connection of a configuration at once, addressed by ref; made by `from_config`.

    Args:
        channels: The connections at work, by name.
        clock: Time and chance; tests bring their own.
        transport: Sends the requests; None for the default.
    """

    def __init__(
        self,
        channels: Mapping[str, Channel],
        *,
        clock: Clock | None = None,
        transport: Transport | TransportMaker | None = None,
    ) -> None:
        super().__init__(channels, clock or clock_here())
        self._open(transport)
        self._transport = transport
        self._clients: dict[str, Client] = {}

    @classmethod
    @guarded
    def from_config(cls, path: str | os.PathLike[str] | None = None) -> Self:
        """Open every connection of a configuration. Nothing is sent yet.

        Args:
            path: The configuration; None looks in the usual places.

        Raises:
            ConfigError: The configuration cannot be used.
            ProviderNotFound: A provider is not installed.
            ProviderLoadError: A provider cannot be used.
        """
        clock = clock_here()
        return cls(channels_of(load_config(path), clock), clock=clock)

    def __getitem__(self, name: str) -> Client:
        """The client of one connection; it shares the pace and the credential, and is closed with the bridge."""
        client = self._clients.get(name)
        if client is None:
            self._refuse_if_closed()  # nobody would close it
            known = frozenset(self._channels)
            made = Client(self._named(name), known=known, clock=self._clock, transport=self._transport)
            client = self._clients.setdefault(name, made)  # another thread may have been here
        return client

    def close(self) -> None:
        """End the threads of waits for many, and close the kept connections."""
        self._closed = True
        for client in list(self._clients.values()):
            client.close()
        super().close()


def _make_transport(network: Network, user_agent: str, size: int) -> Transport:
    from taskbridge.transport.requests import RequestsTransport  # noqa: PLC0415  # only once something is sent

    return RequestsTransport(network, user_agent=user_agent, size=size)


# Threads for waiting for many.


class _Batch:
    """One call's wait for many tasks."""

    def __init__(self, mutex: threading.RLock, left: int, expire: Callable[[], float | None]) -> None:
        self._news: deque[News] = deque()
        self._expire = expire
        self._arrived = threading.Condition(mutex)  # the same lock, another queue
        self.tickets: list[Ticket] = []
        self.left = left

    def put(self, news: News) -> None:
        """Hand in news, with the lock held."""
        self._news.append(news)
        self._arrived.notify()

    def take(self) -> News | None:
        """The next news; None after the last."""
        if self.left == 0:
            return None
        with self._arrived:
            while not self._news:
                # The deadline holds even where every thread is busy with a vendor that hangs.
                left = self._expire()
                if not self._news:
                    self._arrived.wait(left)
            news = self._news.popleft()
        self.left -= news.final
        return news


class _Crew:
    """The threads of one client or bridge, and the fleet that they work on; they end when nobody waits."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._fleet = Fleet(_WORKERS)
        self._shift = Shift(self._tell, self._left)
        self._threads: set[threading.Thread] = set()

    def open(self, places: list[Located | Rejected], timeout: float | None, *, changes: bool) -> _Batch:
        """Begin a wait for many tasks."""
        if self._pid != os.getpid():
            self._reset()  # after a fork the parent's threads are not here
        lock, clock = self._shift.lock, self._driver.clock
        deadline = deadline_of(clock.monotonic(), timeout)
        batch = _Batch(self._shift.mutex, len(places), lambda: self._expire(deadline))
        with lock:
            now = clock.monotonic()
            batch.tickets, rejected = enlist(self._fleet, places, now, timeout, owner=batch, changes=changes)
            for news in rejected:
                batch.put(news)
            self._hire(min(_WORKERS, len(self._fleet)))
            lock.notify()
        return batch

    def _expire(self, deadline: float) -> float | None:
        """Tell those whose time is up, with the lock held; seconds left to a deadline, None for no deadline."""
        now = self._driver.clock.monotonic()
        if now >= deadline:
            self._fleet.expire(now)
            self._tell()
        return None if deadline == inf else max(0.001, deadline - now)

    def hear(self, told: Told) -> None:
        """Take in what came from outside."""
        with self._shift.lock:
            hear(self._fleet, told, self._driver.clock.monotonic())
            self._tell()
            self._shift.lock.notify_all()

    def leave(self, batch: _Batch) -> None:
        """End a wait, also one whose caller broke off."""
        with self._shift.lock:
            self._fleet.drop(batch.tickets)
            self._shift.lock.notify()

    def close(self) -> None:
        """Tell those who still wait, and end the threads."""
        with self._shift.lock:
            self._fleet.close()
            self._tell()
            self._shift.lock.notify_all()
            threads = list(self._threads)
        until = time.monotonic() + _PATIENCE
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(timeout=max(0.0, until - time.monotonic()))

    def _hire(self, wanted: int) -> None:
        for _ in range(wanted - len(self._threads)):
            thread = threading.Thread(target=self._work, name="taskbridge-wait", daemon=True)
            self._threads.add(thread)
            thread.start()

    def _work(self) -> None:
        whole = False
        try:
            self._driver.work(self._fleet, self._shift)
            whole = True
        finally:
            with self._shift.lock:
                self._left()
                if not whole:  # nobody shall wait for a thread that died
                    self._fleet.close("a thread of this client broke down")
                    self._tell()

    def _left(self) -> None:
        self._threads.discard(threading.current_thread())

    def _tell(self) -> None:
        while (news := self._fleet.news()) is not None:
            news.ticket.owner.put(news)
