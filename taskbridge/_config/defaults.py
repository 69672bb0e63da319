"""What clients take where whoever makes them says nothing: the computer's clock and real connections.

An application makes its clients deep in its own code. So that its tests need no way in, they put a clock, transports or
providers of their own around it (`override_defaults`, which `taskbridge.testing` is built on). For the whole process, threads
included; what was made before keeps what it had.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from taskbridge.provider.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Generator

    from taskbridge._config.settings import CommonSettings
    from taskbridge.provider.base import Provider
    from taskbridge.provider.clock import Clock
    from taskbridge.transport import AsyncTransport, Transport


class TransportContext(Protocol):
    """What a maker of transports may know of the connection that it makes one for."""

    @property
    def name(self) -> str:
        """The connection's name."""
        ...

    @property
    def provider(self) -> Provider[Any]:
        """Its translator."""
        ...

    @property
    def settings(self) -> CommonSettings:
        """What every connection takes."""
        ...

    @property
    def clock(self) -> Clock:
        """Time and chance."""
        ...

    @property
    def secrets(self) -> frozenset[str]:
        """Texts that must not be shown, in each way that an answer may spell them."""
        ...


@runtime_checkable
class TransportMaker(Protocol):
    """Makes the transport of each connection; whoever asks for one closes it."""

    def transport(self, connection: TransportContext) -> Transport:
        """A transport for one connection of the synchronous interface."""
        ...

    def async_transport(self, connection: TransportContext) -> AsyncTransport:
        """A transport for one connection of the asynchronous interface."""
        ...


@dataclass(frozen=True, slots=True)
class Defaults:
    """What clients take where whoever makes them says nothing.

    Attributes:
        clock: Time and chance; None for the computer's.
        transports: Makes the transports; None for real ones.
        providers: Provider classes by name, before those that are installed.
    """

    clock: Clock | None = None
    transports: TransportMaker | None = None
    providers: Mapping[str, type[Provider[Any]]] = field(default_factory=dict[str, "type[Provider[Any]]"])


_layers: Final[list[Defaults]] = [Defaults()]


_lock: Final = Lock()


def current_defaults() -> Defaults:
    """What holds now."""
    return _layers[-1]


def default_clock() -> Clock:
    """The clock that holds now."""
    return _layers[-1].clock or SystemClock()


@contextmanager
def override_defaults(
    *,
    clock: Clock | None = None,
    transports: TransportMaker | None = None,
    providers: Mapping[str, type[Provider[Any]]] | None = None,
) -> Generator[Defaults]:
    """Put something in place of what holds now; what is None stays.

    Args:
        clock: Time and chance.
        transports: Makes the transports.
        providers: Provider classes by name, beside those that were put there before.
    """
    with _lock:
        before = _layers[-1]
        layer = replace(
            before,
            clock=clock or before.clock,
            transports=transports or before.transports,
            providers={**before.providers, **(providers or {})},
        )
        _layers.append(layer)
    try:
        yield layer
    finally:
        with _lock:
            # By identity: of two equal layers the one that ends is meant.
            _layers[:] = [each for each in _layers if each is not layer]
