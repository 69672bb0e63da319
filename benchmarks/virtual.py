"""All layers but the sockets, in virtual time: the client's driver and fleet against a vendor in the same process."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import taskbridge as tb
from benchmarks.vendor import Vendor, end_of, task_id
from taskbridge._engine.connection import Connection
from taskbridge._engine.locate import one_connection
from taskbridge._polling.scheduler import PollScheduler
from taskbridge._runtime.sync import Driver
from taskbridge.models import Task, TaskStatus
from taskbridge.provider.http import Request, Response
from taskbridge.testing.clock import VirtualClock

KEY: Final = "k" * 20
_ENDLESS: Final = task_id("cost", 0, 9e6)


class Line:
    """A transport that ends in a `Vendor`, at the clock's time."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.vendor = Vendor(self.now)
        self.requests = 0
        self.lists = 0
        self.final = 0

    @property
    def now(self) -> float:
        return self._clock.now().timestamp()

    def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        del deadline, max_body
        self.requests += 1
        parts = urlsplit(request.url)
        name = unquote(parts.path.rsplit("/", 1)[-1])
        received: datetime = self._clock.now()
        if name in ("tasks", "jobs"):
            self.lists += 1
            return Response(200, {}, self.vendor.page(name, dict(parse_qsl(parts.query)), self.now), received)
        self.final += self.vendor.is_over(name, self.now)
        return Response(200, {}, self.vendor.show(name, self.now), received)

    def close(self) -> None:
        """Nothing is kept."""


def single_looks(connection: Connection) -> Connection:
    """The same connection to a vendor that has no list."""
    can = connection.provider.capabilities
    if hasattr(can, "bulk"):
        connection.provider.capabilities = replace(can, list_polling=None)  # type: ignore[misc]  # of this one provider object
    return connection


def connect(clock: VirtualClock, **settings: Any) -> Connection:
    """A CloudConvert connection with that clock."""
    given = {"api_key": KEY, "base_url": "http://127.0.0.1:9/v2", "max_in_flight": 1000, **settings}
    return one_connection("cloudconvert", None, None, given, cast("Any", clock))[0]


def _known(connection: Connection, name: str, clock: VirtualClock) -> tb.Task:
    return Task(
        provider="cloudconvert",
        connection=connection.name,
        id=name,
        native_id=name,
        status=TaskStatus.PROCESSING,
        native_status="processing",
        operation="convert",
        observed_at=clock.now(),
        created_at=clock.now(),
    )


def waits(durations: Sequence[float], *, latency: float) -> dict[str, Any]:
    """Wait for tasks that were submitted together; what that took.

    Args:
        durations: Seconds.
        latency: Mean delay aimed at, in seconds.
    """
    clock = VirtualClock(seed=1)
    line = Line(clock)
    connection = connect(clock, poll={"latency": latency})
    driver, scheduler = Driver(cast("Any", clock), lambda _: line), PollScheduler()
    ids = [task_id("bulk", number, duration) for number, duration in enumerate(durations)]
    epoch = line.vendor.begin("bulk", line.now, ids).epoch
    for name in ids:
        scheduler.add(connection, name, clock.monotonic(), known=_known(connection, name, clock))
    delays: list[float] = []
    while driver.step(scheduler):
        while (news := scheduler.next_update()) is not None:
            delays.append(line.now - epoch - end_of(news.outcome.ref.id))
    while (news := scheduler.next_update()) is not None:
        delays.append(line.now - epoch - end_of(news.outcome.ref.id))
    return {
        "tasks": len(ids),
        "requests": line.requests,
        "lists": line.lists,
        "final": line.final,
        "mean": sum(delays) / len(delays),
    }


class _Endless(Line):
    """A vendor whose tasks never end; it costs next to nothing, and keeps no bodies."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock)
        # Old tasks, so that every look comes after about the same share of the age, however many there are.
        self.vendor.begin("cost", self.now - 1e6, [])
        self._head, self._tail = self.vendor.show(_ENDLESS, self.now).rsplit(_ENDLESS.encode(), 1)
        self._head, self._middle = self._head.split(_ENDLESS.encode(), 1)
        self._received = clock.now()

    def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        del deadline, max_body
        self.requests += 1
        name = request.url.rsplit("/", 1)[-1].encode()
        return Response(200, {}, b"".join((self._head, name, self._middle, name, self._tail)), self._received)


class InFlight:
    """So many tasks in flight, none of which ends, each looked at once.

    Args:
        number: How many.
    """

    def __init__(self, number: int) -> None:
        self._clock = VirtualClock(seed=2)
        self._line = _Endless(self._clock)
        connection = single_looks(connect(self._clock, poll={"interval": 3600.0, "at_most": 3600.0}))
        self._driver, self._scheduler = Driver(cast("Any", self._clock), lambda _: self._line), PollScheduler()
        for n in range(number):
            self._scheduler.add(connection, task_id("cost", n, 9e6), self._clock.monotonic())
        self._go(number)

    def _go(self, looks: int) -> None:
        stop = self._line.requests + looks
        while self._line.requests < stop:
            self._driver.step(self._scheduler)
        self._clock.slept.clear()

    def look(self, looks: int) -> float:
        """Seconds of CPU per look."""
        start = time.process_time()
        self._go(looks)
        return (time.process_time() - start) / looks


def memory_of(number: int) -> float:
    """Bytes that the fleet keeps for each of so many tasks."""
    tracemalloc.start()
    try:
        kept = InFlight(number)
        gc.collect()
        size = tracemalloc.get_traced_memory()[0] / number
        del kept
        return size
    finally:
        tracemalloc.stop()
