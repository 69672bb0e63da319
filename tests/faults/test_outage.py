"""The whole library through an outage, in virtual time: 10,000 tasks of one connection, a minute of 503.

The scheduler, the throttle, the flows and the client are the real ones; only the clock and the transport are replaced.
The figures are printed (``pytest -s``), and are those of `docs/reliability.md`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Final

import pytest

from taskbridge import aio
from taskbridge._config.connections import connection_settings
from taskbridge._config.files import ConnectionConfig
from taskbridge._config.registry import load_provider
from taskbridge._engine.connection import Connection
from taskbridge._engine.throttle import Throttle
from taskbridge.provider.http import Request, Response
from taskbridge.testing import AsyncScriptedTransport, VirtualClock

TASKS: Final = 10_000
RATE: Final = 200.0  # requests a second, as configured
OUTAGE: Final = (20.0, 80.0)  # seconds
OVER: Final = 100.0  # when all tasks have ended


class Patient(VirtualClock):
    """Time advances only when nothing is due now."""

    async def async_sleep(self, seconds: float) -> None:
        for _ in range(20):
            await asyncio.sleep(0)
        await super().async_sleep(seconds)


@pytest.mark.slow
def test_p10_ten_thousand_tasks_through_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """One poll per task and a few probes during the outage; no burst when the vendor recovers."""
    monkeypatch.setattr(logging.root.manager, "disable", logging.DEBUG)  # saves twenty thousand lines of log
    clock = Patient(seed=7)
    began = clock.monotonic()
    per_second: Counter[int] = Counter()

    def vendor(_request: Request) -> Response:
        since = clock.monotonic() - began
        per_second[int(since)] += 1
        if OUTAGE[0] <= since < OUTAGE[1]:
            return Response(503)
        word = b"SUCCESS" if since >= OVER else b"PROGRESS"
        return Response(200, {}, b'{"state": "' + word + b'"}')

    provider = load_provider("expertai-extract")
    values = {"access_token": "canary-of-the-herd-1", "requests_per_second": RATE, "poll": {"interval": 10.0}}
    common, own = connection_settings(ConnectionConfig("herd", provider.name, values), provider)
    connection = Connection("herd", provider(own, "herd"), common, clock)
    connection.throttle = Throttle(RATE, clock.random)

    async def wait() -> int:
        transport = AsyncScriptedTransport(vendor, clock=clock)
        async with aio.Client(connection, clock=clock, transport=transport) as client:
            ids = [f"t-{n}" for n in range(TASKS)]
            return sum([outcome.task is not None async for outcome in client.as_completed(ids, timeout=600.0)])

    done = asyncio.run(wait())
    during = sum(count for second, count in per_second.items() if OUTAGE[0] <= second < OUTAGE[1])
    after = max(count for second, count in per_second.items() if second >= OUTAGE[1])
    first = per_second[int(OUTAGE[1])] + per_second[int(OUTAGE[1]) + 1]
    whole = max(per_second) + 1
    print(  # noqa: T201  # the figures are what people want to see
        f"\n{TASKS} tasks, {RATE:g} requests/s allowed: {during} requests in an outage of {OUTAGE[1] - OUTAGE[0]:g} s; "
        f"afterwards {after} in the fullest second, {first} in the first two; all {done} reported after {whole} s"
    )
    assert during <= 100
    assert after <= RATE
    assert done == TASKS
    assert whole <= OVER + TASKS / RATE * 1.5 + 15
