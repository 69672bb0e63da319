"""The synchronous interface: `Client` for one connection, `Bridge` for all of a configuration.

A `Client` and a `Bridge` may be used from many threads. `close` them, or use them in a ``with`` statement: that ends
the threads of waits for many, and closes the kept connections.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, Self

from taskbridge.assemble import AnyId, Located, Rejected, channels_of, one_channel
from taskbridge.calls import Call
from taskbridge.channel import Channel
from taskbridge.client_verbs import BridgeVerbs, ClientVerbs
from taskbridge.config import load_config
from taskbridge.crew import Crew
from taskbridge.drive import Driver
from taskbridge.flows import opened
from taskbridge.front import (
    DEFAULT_TIMEOUT,
    AllConnections,
    Front,
    OneConnection,
    Transports,
    Waiting,
    in_order,
    no_wait,
)
from taskbridge.inbox import listening
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
        self._crew = Crew(self._driver)

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
