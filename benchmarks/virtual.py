"""All layers but the sockets, in virtual time: driver and scheduler against a vendor in the same process."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from itertools import zip_longest
from typing import Any, Final, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import taskbridge as tb
from benchmarks.vendor import Vendor, end_of, task_id
from taskbridge._engine.connection import Connection, open_connection
from taskbridge._polling.scheduler import PollScheduler
from taskbridge._runtime.base import Transports
from taskbridge._runtime.sync import Runtime
from taskbridge.models import Task, TaskStatus
from taskbridge.provider.http import Request, Response
from taskbridge.testing.clock import VirtualClock

KEY: Final = "k" * 20
_OUTLIVES: Final = 9_000.0  # seconds
_ENDLESS: Final = task_id("cost", 0, 9e6)


class VendorTransport:
    """A transport that calls a `Vendor` directly, at the time of the clock."""

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
        """Do nothing."""


def single_polls(connection: Connection) -> Connection:
    """Disable list polling for a connection, and return it."""
    capabilities = replace(connection.provider.capabilities, list_polling=None)
    connection.provider.capabilities = capabilities  # type: ignore[misc]  # of this one provider object
    return connection


def connect(clock: VirtualClock, **settings: Any) -> Connection:
    """Open a CloudConvert connection with this clock."""
    merged = {"api_key": KEY, "base_url": "http://127.0.0.1:9/v2", "max_in_flight": 1000, **settings}
    opened, _ = open_connection("cloudconvert", None, None, merged, cast("Any", clock))
    assert isinstance(opened, Connection)  # no group is named
    return opened


def _runtime(clock: VirtualClock, transport: VendorTransport) -> Runtime:
    return Runtime(cast("Any", clock), Transports(lambda *_: transport, transport, None))


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


def waits(
    durations: Sequence[float], *, latency: float, running: int = 0, ended: int = 0, known: bool = True
) -> dict[str, Any]:
    """Wait for tasks that were submitted together; return requests and delays.

    Args:
        durations: Seconds.
        latency: Target for the mean delay in seconds.
        running: Tasks of others in the list, every second one submitted with ours; they outlive the benchmark.
        ended: Older tasks of others in the list, which have ended.
        known: Whether the snapshots that `submit` returned are given, not only the ids.
    """
    clock = VirtualClock(seed=1)
    transport = VendorTransport(clock)
    connection = connect(clock, poll={"latency": latency})
    runtime, scheduler = _runtime(clock, transport), PollScheduler()
    ids = [task_id("lists", number, duration) for number, duration in enumerate(durations)]
    others = [task_id("lists", len(ids) + number, _OUTLIVES) for number in range(running)]
    old = [task_id("lists", len(ids) + running + number, 0.0) for number in range(ended)]
    mixed = [each for pair in zip_longest(ids, others) for each in pair if each is not None]
    epoch = transport.vendor.begin("lists", transport.now, old + mixed).epoch
    for name in ids:
        scheduler.add(connection, name, clock.monotonic(), known=_known(connection, name, clock) if known else None)
    delays: list[float] = []
    going = True
    while going:
        going = runtime.step(scheduler)
        while (update := scheduler.next_update()) is not None:
            delays.append(transport.now - epoch - end_of(update.outcome.ref.id))
    return {
        "tasks": len(ids),
        "requests": transport.requests,
        "lists": transport.lists,
        "final": transport.final,
        "mean": sum(delays) / len(delays),
    }


class _EndlessTransport(VendorTransport):
    """A cheap vendor whose tasks never end; it stores no bodies."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock)
        # Old tasks, so that their age hardly changes during the benchmark.
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
    """Tasks in flight, none of which ends, each polled once.

    Args:
        number: How many tasks.
    """

    def __init__(self, number: int) -> None:
        self._clock = VirtualClock(seed=2)
        self._transport = _EndlessTransport(self._clock)
        connection = single_polls(connect(self._clock, poll={"interval": 3600.0, "at_most": 3600.0}))
        self._runtime, self._scheduler = _runtime(self._clock, self._transport), PollScheduler()
        for n in range(number):
            self._scheduler.add(connection, task_id("cost", n, 9e6), self._clock.monotonic())
        self._run(number)

    def _run(self, polls: int) -> None:
        stop = self._transport.requests + polls
        while self._transport.requests < stop:
            self._runtime.step(self._scheduler)
        self._clock.slept.clear()

    def poll(self, polls: int) -> float:
        """Poll so many times; return the CPU seconds per poll."""
        start = time.process_time()
        self._run(polls)
        return (time.process_time() - start) / polls


def memory_of(number: int) -> float:
    """Return the bytes that the scheduler holds per task."""
    tracemalloc.start()
    try:
        kept = InFlight(number)
        gc.collect()
        size = tracemalloc.get_traced_memory()[0] / number
        del kept
        return size
    finally:
        tracemalloc.stop()
