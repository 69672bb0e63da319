"""The synchronous interface: `Client` for one connection, `Bridge` for all of a configuration.

A `Client` and a `Bridge` may be used from many threads. `close` them, or use them in a ``with`` statement: that ends
the threads of waits for many, and closes the kept connections.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

from taskbridge import __version__
from taskbridge.assemble import AnyId, Located, Locator, Rejected, channels_of, network_key, one_channel
from taskbridge.config import load_config
from taskbridge.drive import Driver, Shift
from taskbridge.errors import ConfigError
from taskbridge.fleet import Fleet, News, Ticket
from taskbridge.flows import Channel, look
from taskbridge.model import Outcome, Task, TaskResult, raise_if_failed
from taskbridge.policy import Clock, SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from taskbridge.provider import Capabilities
    from taskbridge.transport import Transport

__all__ = ["Bridge", "Client", "connect"]

DEFAULT_TIMEOUT: Final = 900.0  # seconds that a wait lasts where the caller says nothing
_WORKERS: Final = 8  # threads for waiting for many


def connect(
    provider: str | None = None,
    /,
    *,
    connection: str | None = None,
    config: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> Client:
    """Open a connection to a vendor. Nothing is sent yet.

    Either name a configured connection, or a provider and its settings.

    Args:
        provider: Entry-point name of a provider, such as ``cloudconvert``.
        connection: Name of a connection in the configuration; its `default` where neither is named.
        config: Path of the configuration; None looks in the usual places.
        settings: Settings of the provider and of every connection; they stand above the configuration's.

    Raises:
        ConfigError: The configuration or a setting cannot be used.
        ProviderNotFound: No such provider is installed.
        ProviderLoadError: The provider cannot be used.
    """
    clock = SystemClock()
    channel, known = one_channel(provider, connection, config, settings, clock)
    return Client(channel, known=known, clock=clock)


class _Front:
    """What `Client` and `Bridge` share: everything but where an id belongs."""

    def __init__(
        self, channels: Mapping[str, Channel], locate: Locator, clock: Clock, transport: Transport | None
    ) -> None:
        self._channels = channels
        self._locate = locate
        self._clock = clock
        self._given = transport
        self._transports: dict[object, Transport] = {}
        self._by_channel: dict[str, Transport] = {}
        self._opening = threading.Lock()
        self._driver = Driver(clock, self._transport)
        self._crew = _Crew(self._driver)
        self._closed = False

    # One task.

    def get(self, task: AnyId) -> Task:
        """Look a task up once.

        Args:
            task: A shared id, a ref or its text, or a task.

        Raises:
            InvalidTaskId: It cannot be an id; nothing was sent.
            TaskbridgeError: The look-up failed, which says nothing of the task.
        """
        place = self._begin(task)
        channel = place.channel
        deadline = self._clock.monotonic() + channel.settings.request_timeout
        seen = self._driver.run(channel, look(channel, place.task_id, deadline))
        assert seen.task is not None  # noqa: S101  # None only where bytes were given to compare with
        return seen.task

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
            timeout: Seconds to wait at most; None for no deadline.
            on_update: Called with each changed snapshot, the last one included.

        Raises:
            WaitTimeout: The time ran out, the task goes on; holds the last snapshot and the ref.
            TaskbridgeError: The vendor refuses, or cannot be asked.
        """
        place = self._begin(task)
        fleet = Fleet()
        now = self._clock.monotonic()
        fleet.add(
            place.channel,
            place.task_id,
            now,
            deadline=deadline_after(now, timeout),
            changes=on_update is not None,
            hold=on_update is None,
        )
        while True:
            while (news := fleet.news()) is not None:
                seen = news.outcome.task
                if news.outcome.error is None and on_update is not None and seen is not None:
                    on_update(seen)
                if news.final:
                    return settled(news.outcome)
            self._driver.step(fleet)

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
        return self._driver.call(channel, channel.provider.result(ended))

    # Many tasks.

    def as_completed(self, tasks: Iterable[AnyId], timeout: float | None = DEFAULT_TIMEOUT) -> Iterator[Outcome]:
        """Wait for many tasks, and tell of each as it ends.

        Yields one outcome for each task given, duplicates included; at the deadline one with `WaitTimeout` for each
        that did not end. One bad task never stops or hides another.

        Args:
            tasks: Shared ids, refs or their texts, or tasks.
            timeout: Seconds to wait at most; None for no deadline.
        """
        places = self._begin_many(tasks)
        return (news.outcome for news in self._follow(places, timeout, changes=False))

    def wait_all(self, tasks: Iterable[AnyId], timeout: float | None = DEFAULT_TIMEOUT) -> list[Outcome]:
        """Wait for many tasks; their outcomes in the order given, duplicates included.

        Args:
            tasks: Shared ids, refs or their texts, or tasks.
            timeout: Seconds to wait at most; None for no deadline.
        """
        places = self._begin_many(tasks)
        found = {news.ticket.place: news.outcome for news in self._follow(places, timeout, changes=False)}
        return [found[n] for n in range(len(places))]

    def watch(self, tasks: Iterable[AnyId], timeout: float | None = DEFAULT_TIMEOUT) -> Iterator[Outcome]:
        """Wait for many tasks, and tell of every change of each until it ends.

        Args:
            tasks: Shared ids, refs or their texts, or tasks.
            timeout: Seconds to wait at most; None for no deadline.
        """
        places = self._begin_many(tasks)
        return (news.outcome for news in self._follow(places, timeout, changes=True))

    # Housekeeping.

    def close(self) -> None:
        """End the threads of waits for many, and close the kept connections."""
        self._closed = True
        self._crew.close()
        for transport in self._transports.values():
            transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} holds credentials and sockets and is not pickled; pass its name instead"
        )

    def _begin(self, task: AnyId) -> Located:
        if self._closed:
            raise ConfigError(f"this {type(self).__name__} is closed")
        place = self._locate(task)
        place.channel.resume()
        return place

    def _begin_many(self, tasks: Iterable[AnyId]) -> list[Located | Rejected]:
        if self._closed:
            raise ConfigError(f"this {type(self).__name__} is closed")
        places = self._locate.many(tasks)
        for channel in {id(p.channel): p.channel for p in places if isinstance(p, Located)}.values():
            channel.resume()
        return places

    def _follow(self, places: list[Located | Rejected], timeout: float | None, *, changes: bool) -> Iterator[News]:
        batch = self._crew.open(places, timeout, changes=changes)
        try:
            while (news := batch.take()) is not None:
                yield news
        finally:
            self._crew.leave(batch)

    def _transport(self, channel: Channel) -> Transport:
        if self._given is not None:
            return self._given
        transport = self._by_channel.get(channel.name)
        if transport is None:
            from taskbridge.transport.requests import RequestsTransport  # noqa: PLC0415  # only once something is sent

            network, key = network_key(channel)
            with self._opening:
                transport = self._transports.get(key)
                if transport is None:
                    transport = RequestsTransport(network, user_agent=user_agent(channel))
                    self._transports[key] = transport
                self._by_channel[channel.name] = transport
        return transport


class Client(_Front):
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
        transport: Transport | None = None,
    ) -> None:
        channels = {channel.name: channel}
        super().__init__(channels, Locator(channels, channel.name, known), clock or channel.clock, transport)
        self._channel = channel

    @property
    def name(self) -> str:
        """The connection's name."""
        return self._channel.name

    @property
    def provider(self) -> str:
        """Entry-point name of the provider."""
        return self._channel.provider.name

    @property
    def capabilities(self) -> Capabilities:
        """What the vendor can do."""
        return self._channel.provider.capabilities

    def __repr__(self) -> str:
        return f"<Client {self.name} ({self.provider})>"


class Bridge(_Front):
    """Every connection of a configuration at once, addressed by ref; made by `from_config`.

    Args:
        channels: The connections at work, by name.
        clock: Time and chance; tests bring their own.
        transport: Sends the requests; None for the default.
    """

    def __init__(
        self, channels: Mapping[str, Channel], *, clock: Clock | None = None, transport: Transport | None = None
    ) -> None:
        super().__init__(channels, Locator(channels), clock or SystemClock(), transport)
        self._clients: dict[str, Client] = {}

    @classmethod
    def from_config(cls, path: str | os.PathLike[str] | None = None) -> Self:
        """Open every connection of a configuration. Nothing is sent yet.

        Args:
            path: The configuration; None looks in the usual places.

        Raises:
            ConfigError: The configuration cannot be used.
            ProviderNotFound: A provider is not installed.
            ProviderLoadError: A provider cannot be used.
        """
        clock = SystemClock()
        return cls(channels_of(load_config(path), clock), clock=clock)

    @property
    def connections(self) -> tuple[str, ...]:
        """Names of the connections."""
        return tuple(self._channels)

    def __getitem__(self, name: str) -> Client:
        """The client of one connection; it shares the pace and the credential, and is closed with the bridge."""
        channel = self._channels.get(name)
        if channel is None:
            raise ConfigError(f"there is no connection {name!r}; there are {', '.join(self._channels)}")
        client = self._clients.get(name)
        if client is None:
            known = frozenset(self._channels)
            client = self._clients[name] = Client(channel, known=known, clock=self._clock, transport=self._given)
        return client

    def close(self) -> None:
        """End the threads of waits for many, and close the kept connections."""
        for client in self._clients.values():
            client.close()
        super().close()

    def __repr__(self) -> str:
        return f"<Bridge {', '.join(self._channels)}>"


def user_agent(channel: Channel) -> str:
    """The User-Agent header of a connection."""
    suffix = channel.settings.user_agent_suffix
    return f"taskbridge/{__version__}{f' {suffix}' if suffix else ''}"


def deadline_after(now: float, timeout: float | None) -> float:
    """Monotonic seconds at which a wait ends."""
    return float("inf") if timeout is None else now + timeout


def settled(outcome: Outcome) -> Task:
    """The terminal task of an outcome, completed or failed.

    Raises:
        TaskbridgeError: There is none.
    """
    if outcome.error is not None:
        raise outcome.error
    assert outcome.task is not None  # noqa: S101  # an outcome has a task or an error
    return outcome.task


# Threads for waiting for many.


class _Batch:
    """One call's wait for many tasks."""

    def __init__(self, mutex: threading.RLock) -> None:
        self._news: deque[News] = deque()
        self._arrived = threading.Condition(mutex)  # the same lock, another queue
        self.tickets: list[Ticket] = []
        self.left = 0

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
                self._arrived.wait()
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
        self._fleet = Fleet()
        self._shift = Shift(self._tell)
        self._threads: set[threading.Thread] = set()

    def open(self, places: list[Located | Rejected], timeout: float | None, *, changes: bool) -> _Batch:
        """Begin a wait for many tasks."""
        if self._pid != os.getpid():
            self._reset()  # after a fork the parent's threads are not here
        lock, clock = self._shift.lock, self._driver.clock
        batch = _Batch(self._shift.mutex)
        batch.left = len(places)
        with lock:
            now = clock.monotonic()
            for place, found in enumerate(places):
                if isinstance(found, Rejected):
                    batch.put(News(Ticket.apart(batch, place), found.outcome, final=True))
                    continue
                batch.tickets.append(
                    self._fleet.add(
                        found.channel,
                        found.task_id,
                        now,
                        deadline=deadline_after(now, timeout),
                        owner=batch,
                        place=place,
                        changes=changes,
                    )
                )
            self._hire(min(_WORKERS, len(batch.tickets)))
            lock.notify()
        return batch

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
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(timeout=5.0)

    def _hire(self, wanted: int) -> None:
        for _ in range(wanted - len(self._threads)):
            thread = threading.Thread(target=self._work, name="taskbridge-wait", daemon=True)
            self._threads.add(thread)
            thread.start()

    def _work(self) -> None:
        try:
            self._driver.work(self._fleet, self._shift)
        finally:
            with self._shift.lock:
                self._threads.discard(threading.current_thread())

    def _tell(self) -> None:
        while (news := self._fleet.news()) is not None:
            news.ticket.owner.put(news)
