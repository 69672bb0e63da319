"""The real fleet, its governor and its learning in virtual time: a loop around `PollScheduler.next` and `PollScheduler.on_polled`."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from heapq import heapify, heappop, heappush
from itertools import count
from random import Random
from typing import Any, Final

from taskbridge._config.settings import CommonSettings
from taskbridge._engine.connection import Connection
from taskbridge._engine.durations import DurationModel
from taskbridge._engine.lookup import PollResult
from taskbridge._engine.throttle import Throttle
from taskbridge._polling.commands import PollTask, WaitUntil
from taskbridge._polling.scheduler import PollScheduler
from taskbridge.models import Task, TaskStatus
from taskbridge.provider.base import Provider, ProviderSettings
from taskbridge.provider.capabilities import Capabilities, IdKind
from taskbridge.provider.http import Flow

_EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)


class Time:
    """Virtual time, for `taskbridge.provider.clock.Clock`."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.at = 0.0

    def monotonic(self) -> float:
        return self.at

    def random(self) -> float:
        return self.chance.random()

    def now(self) -> datetime:
        return _EPOCH + timedelta(seconds=self.at)


class _Simulated(Provider[ProviderSettings]):
    name = "simulated"
    title = "Simulated"
    docs = ""
    Settings = ProviderSettings
    capabilities = Capabilities(kinds=(IdKind(re.compile(r".*")),), authentication="none")

    def get(self, task_id: str) -> Flow[Task]:
        raise NotImplementedError


def connection(clock: Time, **settings: Any) -> Connection:
    """A connection to nobody, at most as many requests under way as the settings allow."""
    common = CommonSettings(**{"max_in_flight": 1000, **settings})
    throttle = Throttle(common.requests_per_second, clock.random)
    return Connection("simulated", _Simulated(ProviderSettings(), "simulated"), common, throttle, clock)  # type: ignore[arg-type]


@dataclass
class Job:
    """A task of the simulation.

    Attributes:
        start: Virtual seconds at which it is submitted.
        duration: Seconds.
        operation: What it does; durations are learnt per operation.
    """

    start: float
    duration: float
    operation: str = "convert"

    @property
    def end(self) -> float:
        return self.start + self.duration


@dataclass
class Seen:
    """What a simulation saw.

    Attributes:
        looks: Requests.
        delays: Seconds from end to news by number of the job.
    """

    looks: int = 0
    delays: dict[int, float] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        return math.fsum(self.delays.values()) / len(self.delays)

    def percentile(self, share: float) -> float:
        ordered = sorted(self.delays.values())
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _snapshot(number: int, job: Job, clock: Time, *, over: bool) -> Task:
    return Task(
        provider="simulated",
        connection="simulated",
        id=str(number),
        native_id=str(number),
        status=TaskStatus.COMPLETED if over else TaskStatus.PROCESSING,
        observed_at=clock.now(),
        operation=job.operation,
        native_status="finished" if over else "processing",
    )


def simulate(
    jobs: Sequence[Job],
    through: Connection,
    clock: Time,
    *,
    round_trip: float = 0.0,
    refill: Callable[[], Job] | None = None,
    until: float = math.inf,
) -> tuple[Seen, list[Job]]:
    """Wait for jobs, each added when it is submitted, with the snapshot that a submit gives.

    Args:
        jobs: What to wait for.
        through: The connection.
        clock: Its clock, which moves on.
        round_trip: Seconds that a look takes.
        refill: Makes the job that takes the place of one whose end is known.
        until: Virtual seconds at which to stop.

    Returns:
        What was seen, and all jobs by number.
    """
    scheduler, seen, known = PollScheduler(), Seen(), list(jobs)
    to_come = [(job.start, number) for number, job in enumerate(known)]
    heapify(to_come)
    landing: list[tuple[float, int, PollTask]] = []
    serial = count()
    while len(seen.delays) < len(known) and clock.at < until:
        while to_come and to_come[0][0] <= clock.at:
            _, number = heappop(to_come)
            scheduler.add(through, str(number), clock.at, known=_snapshot(number, known[number], clock, over=False))
        while landing and landing[0][0] <= clock.at:
            _, _, poll = heappop(landing)
            number = int(poll.task_id)
            job = known[number]
            over = clock.at - round_trip / 2 >= job.end  # the vendor answers halfway
            through.throttle.answered(clock.at, {})
            scheduler.on_polled(poll, clock.at, PollResult(_snapshot(number, job, clock, over=over), b"", _EPOCH))
            if over:
                seen.delays[number] = clock.at - job.end
                if refill is not None:
                    known.append(refill())
                    heappush(to_come, (known[-1].start, len(known) - 1))
        while scheduler.next_update() is not None:
            pass
        command = scheduler.next(clock.at)
        if isinstance(command, PollTask):
            seen.looks += 1
            heappush(landing, (clock.at + round_trip, next(serial), command))
            continue
        times = [command.time] if isinstance(command, WaitUntil) else []
        times += [queue[0][0] for queue in (landing, to_come) if queue]
        clock.at = max(clock.at, min(times, default=clock.at))  # no time: the last end is known
    return seen, known


class _Frozen(DurationModel):
    """What was learnt so far, and no more."""

    __slots__ = ()

    def observe(self, since: float, until: float, *, ended: bool) -> None:
        """Learn nothing."""


def freeze(through: Connection, operation: str = "convert") -> None:
    """Let a connection learn no more about an operation."""
    durations = copy(through.pace(operation).durations)
    durations.__class__ = _Frozen
    through.pace(operation).durations = durations


# Schedules of others: seconds between looks, as a loop, the first pause comes after the look that begins it.


def fixed(seconds: float) -> Iterator[float]:
    while True:
        yield seconds


def exponential(first: float, factor: float, most: float) -> Iterator[float]:
    pause = first
    while True:
        yield min(pause, most)
        pause *= factor


def google(chance: Random, first: float = 1.0, factor: float = 1.5, most: float = 20.0) -> Iterator[float]:
    """google-api-core 2.44: `exponential_sleep_generator` with the figures of `DEFAULT_POLLING`."""
    ceiling = first
    while True:
        yield chance.uniform(0.0, ceiling)
        ceiling = min(ceiling * factor, most)


def share_of_age(share: float, least: float, most: float) -> Iterator[float]:
    age = 0.0
    while True:
        pause = min(max(age * share, least), most)
        age += pause
        yield pause


def follow(durations: Iterable[float], schedule: Callable[[], Iterator[float]], *, at_once: bool) -> Seen:
    """Look at tasks by somebody else's schedule.

    Args:
        durations: How long each takes.
        schedule: Makes the pauses of one task.
        at_once: Whether the first look comes at once.
    """
    seen = Seen()
    for number, duration in enumerate(durations):
        age = 0.0
        seen.looks += at_once
        for pause in schedule():
            age += pause
            seen.looks += 1
            if age >= duration:
                break
        seen.delays[number] = age - duration
    return seen


def at_latency(
    durations: Sequence[float], schedule: Callable[[float], Callable[[], Iterator[float]]], latency: float
) -> Seen:
    """The schedule of a family whose mean delay is the one asked for (the parameter grows with it)."""
    least, most = latency / 20, latency * 20
    seen = follow(durations, schedule(latency), at_once=False)
    for _ in range(24):
        middle = math.sqrt(least * most)
        seen = follow(durations, schedule(middle), at_once=False)
        if abs(seen.mean / latency - 1) < 0.002:
            break
        least, most = (least, middle) if seen.mean > latency else (middle, most)
    return seen


# The exact optimum.


class Optimum:
    """The least looks for a mean delay, durations being known exactly: dynamic programming over times of looks.

    Args:
        cdf: Share of tasks that last no longer.
        horizon: Seconds by which all have ended.
        step: Grid of the times, in seconds.
    """

    def __init__(self, cdf: Callable[[float], float], horizon: float, step: float) -> None:
        self._step = step
        size = math.ceil(horizon / step)
        self._ended = [cdf(n * step) for n in range(size)] + [1.0]
        self._area = [0.0] * (size + 1)  # ∫ F
        for n in range(1, size + 1):
            self._area[n] = self._area[n - 1] + (self._ended[n] + self._ended[n - 1]) / 2 * step

    def _delay(self, start: int, stop: int) -> float:
        """Mean delay of those that end between two looks, times their share."""
        return self._area[stop] - self._area[start] - self._ended[start] * (stop - start) * self._step

    def at_price(self, price: float) -> tuple[float, float]:
        """Looks and mean delay of the schedule with the least delay + price · looks."""
        last = len(self._ended) - 1
        area, ended, step = self._area, self._ended, self._step
        costs, choice = [0.0] * (last + 1), [last] * (last + 1)
        for start in range(last - 1, -1, -1):
            alive = 1.0 - ended[start]
            if alive <= 1e-12:
                continue
            best, chosen = math.inf, last
            from_here, share = area[start], ended[start]
            for stop in range(start + 1, last + 1):
                delay = area[stop] - from_here - share * (stop - start) * step
                cost = delay + costs[stop]
                if cost < best:
                    best, chosen = cost, stop
                if delay > best:
                    break  # every further one costs more delay than the best costs in all
            costs[start], choice[start] = best + price * alive, chosen
        looks = delay = 0.0
        at = 0
        while at < last and ended[at] < 1.0 - 1e-12:
            looks += 1.0 - ended[at]
            delay += self._delay(at, choice[at])
            at = choice[at]
        return looks, delay

    def looks(self, latency: float) -> float:
        """The least looks per task at a mean delay."""
        least, most = latency**2 / 500, latency**2 * 20
        below = above = (0.0, 0.0)
        for _ in range(11):
            price = math.sqrt(least * most)
            found = self.at_price(price)
            if found[1] > latency:
                most, above = price, found
            else:
                least, below = price, found
        if not (below[1] and above[1]):
            return max(below[0], above[0])
        share = math.log(latency / below[1]) / math.log(above[1] / below[1]) if above[1] > below[1] else 0.0
        return math.exp(math.log(below[0]) * (1 - share) + math.log(above[0]) * share)


# One limit, taken in turn: what a plain loop over all tasks does.


def round_robin(draw: Callable[[], float], limit: float, in_flight: int, until: float, warm: float) -> float:
    """Mean delay where each task is looked at in its turn and one that ended is replaced."""
    now = 0.0
    queue = deque(draw() for _ in range(in_flight))
    delays: list[float] = []
    while now < until:
        end = queue.popleft()
        if now >= end:
            if now > warm:
                delays.append(now - end)
            end = now + draw()
        queue.append(end)
        now += 1.0 / limit
    return math.fsum(delays) / len(delays)
