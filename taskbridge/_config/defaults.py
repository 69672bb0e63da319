"""What clients use by default (the system clock, real transports, installed providers), and how tests override it.

Applications create their clients deep in their own code. With `override_defaults`, on which `taskbridge.testing` is
built, a test replaces the clock, the transports or the providers without access to that code. It applies to the whole
process, threads included, and to clients created from then on.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from taskbridge._fork import renew_after_fork
from taskbridge.provider.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Generator

    from taskbridge._config.settings import CommonSettings
    from taskbridge.provider.base import Provider
    from taskbridge.provider.clock import Clock
    from taskbridge.transport import AsyncTransport, Transport


class TransportContext(Protocol):
    """What a transport maker may know about the connection."""

    name: str
    provider: Provider[Any]
    settings: CommonSettings
    clock: Clock
    secrets: frozenset[str]  # texts to hide, in every spelling in which a response may echo them


@runtime_checkable
class TransportMaker(Protocol):
    """Makes the transport of each connection; the caller closes it."""

    def transport(self, connection: TransportContext) -> Transport:
        """Return a transport for one connection of the synchronous interface."""
        ...

    def async_transport(self, connection: TransportContext) -> AsyncTransport:
        """Return a transport for one connection of the asynchronous interface."""
        ...


@dataclass(frozen=True, slots=True)
class Defaults:
    """What clients use by default; providers, by name, take precedence over installed ones."""

    clock: Clock | None = None  # None for the system clock
    transports: TransportMaker | None = None  # None for real ones
    providers: Mapping[str, type[Provider[Any]]] = field(default_factory=dict[str, "type[Provider[Any]]"])


class _Layers(list[Defaults]):
    """The defaults in force are the last of them."""

    def __init__(self) -> None:
        super().__init__([Defaults()])
        renew_after_fork(self, _Layers._make_lock)

    def _make_lock(self) -> None:
        self.lock = Lock()


_layers: Final = _Layers()


def current_defaults() -> Defaults:
    """Return the defaults in force."""
    return _layers[-1]


def default_clock() -> Clock:
    """Return the clock in force."""
    return _layers[-1].clock or SystemClock()


@contextmanager
def override_defaults(
    *,
    clock: Clock | None = None,
    transports: TransportMaker | None = None,
    providers: Mapping[str, type[Provider[Any]]] | None = None,
) -> Generator[Defaults]:
    """Replace defaults inside a ``with`` block; None leaves one unchanged, providers are added by name."""
    with _layers.lock:
        last = _layers[-1]
        layer = Defaults(clock or last.clock, transports or last.transports, {**last.providers, **(providers or {})})
        _layers.append(layer)
    try:
        yield layer
    finally:
        with _layers.lock:
            # By identity: another layer may be equal.
            _layers[:] = [each for each in _layers if each is not layer]
