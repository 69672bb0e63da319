"""Real connections, also where time is virtual: deadlines are counted on the test's clock, sockets on the computer's.

While a request is on its way, virtual time stands. An emulator that lives in the same time does not keep anybody
waiting: it says in a header how long its answer would have taken, and so much time passes here at once.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from taskbridge._engine.locate import network_key
from taskbridge._runtime.base import user_agent
from taskbridge.emulator.clock import TOOK
from taskbridge.errors import DeadlineExceeded
from taskbridge.provider.clock import SystemClock

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from taskbridge._engine.connection import Connection
    from taskbridge.provider.clock import Clock
    from taskbridge.provider.http import Request, Response
    from taskbridge.transport import AsyncTransport, Transport

__all__ = ["RealTransports"]

_LONGEST: Final = 30.0  # seconds of real time for one request, however late its virtual deadline
_LEAST: Final = 1.0  # and at least: a computer with much to do is no slow vendor


@runtime_checkable
class _Virtual(Protocol):
    def busy(self) -> AbstractContextManager[None]: ...


class RealTransports:
    """Makes the transports that a client makes by itself, for whatever clock the connection has."""

    def transport(self, connection: Connection) -> Transport:
        """See `taskbridge.current_defaults.TransportMaker`."""
        from taskbridge._transport.requests import RequestsTransport  # noqa: PLC0415  # only once something is sent

        size = connection.settings.max_in_flight
        real = RequestsTransport(network_key(connection)[0], user_agent=user_agent(connection), size=size)
        return _Line(real, connection.clock, connection.clock) if isinstance(connection.clock, _Virtual) else real

    def async_transport(self, connection: Connection) -> AsyncTransport:
        """See `taskbridge.current_defaults.TransportMaker`."""
        from taskbridge._transport.aiohttp import AiohttpTransport  # noqa: PLC0415  # the same, and an extra

        size = connection.settings.max_in_flight
        real = AiohttpTransport(network_key(connection)[0], user_agent=user_agent(connection), size=size)
        return _AsyncLine(real, connection.clock, connection.clock) if isinstance(connection.clock, _Virtual) else real


class _Line:
    def __init__(self, real: Transport, clock: Clock, virtual: _Virtual) -> None:
        self._real = real
        self._clock = clock
        self._virtual = virtual

    def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        with self._virtual.busy():
            response = self._real.send(request, deadline=_real_deadline(self._clock, deadline), max_body=max_body)
        took = _took(response)
        self._clock.sleep(max(0.0, min(took, deadline - self._clock.monotonic())))
        return _in_time(response, took, self._clock, deadline)

    def close(self) -> None:
        self._real.close()


class _AsyncLine:
    def __init__(self, real: AsyncTransport, clock: Clock, virtual: _Virtual) -> None:
        self._real = real
        self._clock = clock
        self._virtual = virtual

    async def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        with self._virtual.busy():
            real = _real_deadline(self._clock, deadline)
            response = await self._real.send(request, deadline=real, max_body=max_body)
        took = _took(response)
        if took > 0:
            await self._clock.async_sleep(max(0.0, min(took, deadline - self._clock.monotonic())))
        return _in_time(response, took, self._clock, deadline)

    async def close(self) -> None:
        await self._real.close()


def _real_deadline(clock: Clock, deadline: float) -> float:
    left = deadline - clock.monotonic()
    return SystemClock().monotonic() + max(_LEAST, min(left, _LONGEST))


def _took(response: Response) -> float:
    return float(response.headers.get(TOOK, 0.0))


def _in_time(response: Response, took: float, clock: Clock, deadline: float) -> Response:
    """The answer, at the time at which it came; a deadline that passed meanwhile is as it always is."""
    if not isfinite(took) or clock.monotonic() > deadline:
        error = DeadlineExceeded("the total time for the request ran out")
        error.written = True
        raise error
    response.received_at = clock.now()
    return response
