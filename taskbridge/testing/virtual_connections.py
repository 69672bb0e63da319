"""Real connections for clients in virtual time: deadlines follow the test's clock, sockets the computer's.

Virtual time stops while a request is in flight. An emulator in the same virtual time does not delay its response: a
header says how long it would have taken, and that much virtual time passes here at once.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from taskbridge._config.network import network_of
from taskbridge._runtime.base import user_agent
from taskbridge.emulator.clock import SIMULATED_SECONDS
from taskbridge.errors import DeadlineExceeded
from taskbridge.provider.clock import SystemClock
from taskbridge.testing.clock import VirtualClock

if TYPE_CHECKING:
    from taskbridge._config.defaults import TransportContext
    from taskbridge.provider.http import Request, Response
    from taskbridge.transport import AsyncTransport, Transport

_MOST: Final = 30.0  # seconds of real time for one request, however late its virtual deadline
_LEAST: Final = 1.0  # seconds of real time: a busy computer must not look like a slow vendor


class RealTransports:
    """Makes the same transports as a client does by default, but for clients in virtual time."""

    def transport(self, connection: TransportContext) -> Transport:
        """See `taskbridge._config.defaults.TransportMaker`."""
        from taskbridge._transport.choice import make_transport  # noqa: PLC0415  # only once something is sent

        settings, clock = connection.settings, connection.clock
        real = make_transport(network_of(settings), user_agent(settings), settings.max_in_flight, settings.transport)
        return _VirtualTransport(real, clock) if isinstance(clock, VirtualClock) else real

    def async_transport(self, connection: TransportContext) -> AsyncTransport:
        """See `taskbridge._config.defaults.TransportMaker`."""
        from taskbridge._transport.choice import make_async_transport  # noqa: PLC0415  # the same

        settings, clock = connection.settings, connection.clock
        real = make_async_transport(
            network_of(settings), user_agent(settings), settings.max_in_flight, settings.transport
        )
        return _AsyncVirtualTransport(real, clock) if isinstance(clock, VirtualClock) else real


class _VirtualTransport:
    def __init__(self, real: Transport, clock: VirtualClock) -> None:
        self._real = real
        self._clock = clock

    def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        with self._clock.busy():
            response = self._real.send(request, deadline=_real_deadline(self._clock, deadline), max_body=max_body)
        self._clock.sleep(_simulated_seconds(response, deadline - self._clock.monotonic()))
        return _received(response, self._clock, deadline)

    def close(self) -> None:
        self._real.close()


class _AsyncVirtualTransport:
    def __init__(self, real: AsyncTransport, clock: VirtualClock) -> None:
        self._real = real
        self._clock = clock

    async def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        with self._clock.busy():
            real = _real_deadline(self._clock, deadline)
            response = await self._real.send(request, deadline=real, max_body=max_body)
        if seconds := _simulated_seconds(response, deadline - self._clock.monotonic()):
            await self._clock.async_sleep(seconds)
        return _received(response, self._clock, deadline)

    async def close(self) -> None:
        await self._real.close()


def _real_deadline(clock: VirtualClock, deadline: float) -> float:
    return SystemClock().monotonic() + max(_LEAST, min(deadline - clock.monotonic(), _MOST))


def _simulated_seconds(response: Response, limit: float = inf) -> float:
    return max(0.0, min(float(response.headers.get(SIMULATED_SECONDS, 0.0)), limit))


def _received(response: Response, clock: VirtualClock, deadline: float) -> Response:
    """Return the response with its virtual time of receipt, unless the deadline has passed."""
    if _simulated_seconds(response) == inf or clock.monotonic() > deadline:
        error = DeadlineExceeded("the total time for the request ran out")
        error.written = True
        raise error
    response.received_at = clock.now()
    return response
