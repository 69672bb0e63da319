"""From names and settings to connections at work; shared by the synchronous and the asynchronous side, without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from taskbridge._config.connections import connection_settings
from taskbridge._config.files import Config, ConnectionConfig, load_config
from taskbridge._config.network import network_of
from taskbridge._config.registry import load_provider, loaded_providers
from taskbridge._config.settings import CommonSettings
from taskbridge._engine.connection import Connection
from taskbridge._engine.throttle import Throttle
from taskbridge.errors import ConfigError, InvalidTaskId, ProviderNotFound, TaskbridgeError, printable
from taskbridge.models import Outcome, Task, TaskRef
from taskbridge.transport import Network

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from taskbridge.provider.clock import Clock

AnyId: TypeAlias = str | TaskRef | Task
"""A shared id, a ref or its text, or a task."""


def one_connection(
    provider: str | None,
    connection: str | None,
    config: str | os.PathLike[str] | None,
    settings: Mapping[str, Any],
    clock: Clock,
) -> tuple[Connection, frozenset[str]]:
    """The connection that `connect` was asked for, and the names of those beside it.

    Raises:
        ConfigError: What was asked for contradicts itself, is not configured, or breaks a rule.
        ProviderNotFound: No such provider is installed.
        ProviderLoadError: The provider cannot be used.
    """
    if provider is not None and (connection is not None or config is not None):
        raise ConfigError("connect takes a provider with its settings, or connection= and config=, not both")
    if provider is not None:
        named = ConnectionConfig(provider, provider, settings, dict.fromkeys(settings, "connect()"))
        fault: ProviderNotFound | None = None
        try:
            return _connection(named, clock), frozenset()
        except ProviderNotFound as error:
            fault = error
        if _is_configured(provider):
            raise ProviderNotFound(
                f"{fault.message}; for the connection of that name: connect(connection={provider!r})"
            )
        raise fault
    loaded = load_config(config)
    chosen = loaded.connection(connection)
    if settings:
        origins = {**chosen.origins, **dict.fromkeys(settings, "connect()")}
        chosen = ConnectionConfig(chosen.name, chosen.provider, {**chosen.values, **settings}, origins)
    return _connection(chosen, clock), frozenset(loaded.connections)


def _is_configured(name: str) -> bool:
    """Whether the configuration, where there is one, has a connection of that name."""
    try:
        return name in load_config(None).connections
    except ConfigError:
        return False


def connections_of(config: Config, clock: Clock) -> dict[str, Connection]:
    """Every connection of a configuration.

    Raises:
        ConfigError: It has none, or one of them breaks a rule.
        ProviderNotFound: A provider is not installed.
        ProviderLoadError: A provider cannot be used.
    """
    if not config.connections:
        raise ConfigError(f"{config.path or 'the configuration'} has no connections; add [connections.invoices]")
    return {name: _connection(connection, clock) for name, connection in config.connections.items()}


def _connection(config: ConnectionConfig, clock: Clock) -> Connection:
    provider = load_provider(config.provider)
    known = {*CommonSettings.model_fields, *provider.Settings.model_fields}
    # The others are only needed to say whose a stray setting is.
    siblings = {} if known.issuperset(config.values) else dict(loaded_providers())
    common, own = connection_settings(config, provider, siblings)
    throttle = Throttle(common.requests_per_second, clock.random)
    return Connection(config.name, provider(own, config.name), common, throttle, clock)


def network_key(connection: Connection) -> tuple[Network, tuple[object, ...]]:
    """How a connection reaches the world, and what makes two connections share a transport."""
    network = network_of(connection.settings)
    agent = connection.settings.user_agent_suffix
    size = connection.settings.max_in_flight
    return network, (network.ca_bundle, tuple(sorted(network.proxies.items())), network.direct, agent, size)


# From what callers hand in to a connection and an id.


@dataclass(frozen=True, slots=True)
class Located:
    """A task to be waited for, with the snapshot that the caller has of it."""

    connection: Connection
    task_id: str
    known: Task | None = None

    @property
    def ref(self) -> TaskRef:
        """``connection:id``."""
        return TaskRef.of(self.connection.name, self.task_id)


@dataclass(frozen=True, slots=True)
class Rejected:
    """An id that no request can be made from."""

    outcome: Outcome

    @property
    def ref(self) -> TaskRef:
        """What was asked for, as far as it is a ref."""
        return self.outcome.ref


class Locator:
    """Finds the connection and the shared id that a caller means.

    Args:
        channels: The connections that may be meant, by name.
        only: Name of the one connection of a `Client`, to which bare ids belong; None for a `Bridge`.
        known: Names of other configured connections, whose refs are recognised and refused.
    """

    def __init__(
        self, connections: Mapping[str, Connection], only: str | None = None, known: frozenset[str] = frozenset()
    ) -> None:
        self._connections = connections
        self._only = only
        self._known = known | frozenset(connections)

    def __call__(self, given: AnyId) -> Located:
        """Find it.

        Raises:
            InvalidTaskId: It cannot be an id here, or it is of another connection.
        """
        name, task_id = self._split(given)
        connection = self._connections.get(name)
        if connection is None:
            raise InvalidTaskId(
                f"{printable(task_id, 80)!r} is of connection {printable(name, 60)!r}, not of "
                f"{' or '.join(sorted(self._connections))}"
            )
        connection.provider.split_id(task_id)
        return Located(connection, task_id, given if isinstance(given, Task) else None)

    def many(self, given: Iterable[AnyId]) -> list[Located | Rejected]:
        """Find each; an id that its vendor cannot have becomes an outcome of its own.

        Raises:
            InvalidTaskId: One is of no connection at all.
        """
        if isinstance(given, str):
            raise InvalidTaskId("a list of ids is wanted, not one text; put it in brackets")
        return [self._one(each) for each in given]

    def _one(self, each: AnyId) -> Located | Rejected:
        name, task_id = self._split(each)
        connection = self._connections.get(name)
        if connection is None:
            return self(each)  # says what is wrong
        try:
            connection.provider.split_id(task_id)
        except TaskbridgeError as error:
            ref = TaskRef.of(name, printable(task_id, 200) or "(empty)")
            return Rejected(Outcome(ref, None, error.about(ref=ref)))
        return Located(connection, task_id, each if isinstance(each, Task) else None)

    def _split(self, given: AnyId) -> tuple[str, str]:
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
