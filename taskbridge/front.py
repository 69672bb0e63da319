"""What the synchronous and the asynchronous interface share: all that neither waits nor sends."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Final, Generic, NoReturn, TypeVar

from taskbridge import __version__
from taskbridge.assemble import AnyId, Located, Locator, Rejected, network_key
from taskbridge.errors import ConfigError, plain
from taskbridge.fleet import Fleet, News, Ticket
from taskbridge.flows import Channel
from taskbridge.model import Outcome, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from taskbridge.config import Network
    from taskbridge.policy import Clock
    from taskbridge.provider import Capabilities

__all__ = ["DEFAULT_TIMEOUT", "AllConnections", "Front", "OneConnection", "Transports", "Waiting", "enlist"]

DEFAULT_TIMEOUT: Final = 900.0  # seconds that a wait lasts where the caller says nothing

X = TypeVar("X")


class Transports(Generic[X]):
    """The transports of several connections: one for all that reach the world in the same way.

    Args:
        make: Makes a transport from a network and a User-Agent.
        given: Used for every connection instead, where there is one.
    """

    def __init__(self, make: Callable[[Network, str], X], given: X | None) -> None:
        self._make = make
        self._given = given
        self._shared: dict[object, X] = {}
        self._found: dict[str, X] = {}
        self._lock = Lock()

    def __call__(self, channel: Channel) -> X:
        """The transport of a connection, made when it is first needed."""
        if self._given is not None:
            return self._given
        found = self._found.get(channel.name)
        if found is None:
            network, key = network_key(channel)
            with self._lock:
                if key not in self._shared:
                    self._shared[key] = self._make(network, _user_agent(channel))
                found = self._found[channel.name] = self._shared[key]
        return found

    def opened(self) -> list[X]:
        """Those that were made here."""
        return list(self._shared.values())


def _user_agent(channel: Channel) -> str:
    suffix = channel.settings.user_agent_suffix
    return f"taskbridge/{__version__}{f' {suffix}' if suffix else ''}"


class Front:
    """Connections at work, and where an id belongs."""

    def __init__(self, channels: Mapping[str, Channel], locate: Locator, clock: Clock) -> None:
        self._channels = channels
        self._locate = locate
        self._clock = clock
        self._closed = False

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} holds credentials and is not pickled; pass its name instead")

    def _begin(self, task: AnyId) -> Located:
        self._refuse_if_closed()
        place = self._locate(task)
        place.channel.resume()
        return place

    def _begin_many(self, tasks: Iterable[AnyId]) -> list[Located | Rejected]:
        self._refuse_if_closed()
        places = self._locate.many(tasks)
        for channel in {id(p.channel): p.channel for p in places if isinstance(p, Located)}.values():
            channel.resume()
        return places

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ConfigError(f"this {type(self).__name__} is closed; open a new one")


class OneConnection(Front):
    """What a `Client` says of itself."""

    def __init__(self, channel: Channel, known: frozenset[str], clock: Clock | None) -> None:
        channels = {channel.name: channel}
        super().__init__(channels, Locator(channels, channel.name, known), clock or channel.clock)
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
        return f"<{type(self).__name__} {self.name} ({self.provider})>"


class AllConnections(Front):
    """What a `Bridge` says of itself."""

    def __init__(self, channels: Mapping[str, Channel], clock: Clock) -> None:
        super().__init__(channels, Locator(channels), clock)

    @property
    def connections(self) -> tuple[str, ...]:
        """Names of the connections."""
        return tuple(self._channels)

    def _named(self, name: str) -> Channel:
        channel = self._channels.get(name)
        if channel is None:
            raise ConfigError(f"there is no connection {plain(name, 60)!r}; there are {', '.join(self._channels)}")
        return channel

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(self._channels)}>"


# Waiting.


class Waiting:
    """A wait for one task: a fleet of one, and what it told.

    Args:
        place: The task.
        now: Monotonic seconds.
        timeout: Seconds to wait at most; None for no deadline.
        on_update: Called with each changed snapshot, the last one included.
    """

    def __init__(
        self, place: Located, now: float, timeout: float | None, on_update: Callable[[Task], object] | None
    ) -> None:
        self.fleet = Fleet()
        self._on_update = on_update
        told = on_update is not None
        self.fleet.add(place.channel, place.task_id, now, deadline=_deadline(now, timeout), changes=told, hold=not told)

    def ended(self) -> Task | None:
        """The terminal task, once there is one.

        Raises:
            TaskbridgeError: The wait ended without one.
        """
        while (news := self.fleet.news()) is not None:
            outcome = news.outcome
            if outcome.error is not None:
                raise outcome.error
            if outcome.task is not None and self._on_update is not None:
                self._on_update(outcome.task)
            if news.final:
                return outcome.task
        return None


def enlist(
    fleet: Fleet,
    places: list[Located | Rejected],
    now: float,
    timeout: float | None,
    *,
    owner: object,
    changes: bool,
) -> tuple[list[Ticket], list[News]]:
    """Add many tasks to a fleet; ids that no request can be made from are news at once."""
    tickets: list[Ticket] = []
    rejected: list[News] = []
    deadline = _deadline(now, timeout)
    for place, found in enumerate(places):
        if isinstance(found, Rejected):
            rejected.append(News(Ticket.apart(owner, place), found.outcome, final=True))
        else:
            tickets.append(
                fleet.add(
                    found.channel, found.task_id, now, deadline=deadline, owner=owner, place=place, changes=changes
                )
            )
    return tickets, rejected


def in_order(news: Iterable[News], count: int) -> list[Outcome]:
    """Final outcomes in the order in which their tasks were given."""
    found = {one.ticket.place: one.outcome for one in news}
    return [found[n] for n in range(count)]


def _deadline(now: float, timeout: float | None) -> float:
    return float("inf") if timeout is None else now + timeout
