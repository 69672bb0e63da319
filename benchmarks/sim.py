"""The real scheduler, throttle and duration model in virtual time, and schedules to compare them with."""

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
from taskbridge._polling.commands import PollTask, WaitUntil
from taskbridge._polling.scheduler import PollScheduler
from taskbridge.models import Task, TaskStatus
from taskbridge.provider.base import Provider, ProviderSettings
from taskbridge.provider.capabilities import Capabilities, IdKind
from taskbridge.provider.http import Flow

_EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)


class Time:
    """Virtual time and randomness: a `taskbridge.provider.clock.Clock`."""

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
    """Return a connection without a transport."""
    common = CommonSettings(**{"max_in_flight": 1000, **settings})
    return Connection("simulated", _Simulated(ProviderSettings(), "simulated"), common, clock)  # type: ignore[arg-type]


@dataclass
class Job:
    """A task of the simulation.

    Attributes:
        start: Virtual seconds at which it is submitted.
        duration: Seconds.
        operation: What it does; durations are learned per operation.
    """

    start: float
    duration: float
    operation: str = "convert"

    @property
    def end(self) -> float:
        return self.start + self.duration


@dataclass
class Record:
    """The result of a simulation.

    Attributes:
        polls: Requests.
        delays: Seconds from the end of a job to its detection, by number of the job.
    """

    polls: int = 0
    delays: dict[int, float] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        return math.fsum(self.delays.values()) / len(self.delays)

    def percentile(self, fraction: float) -> float:
        ordered = sorted(self.delays.values())
        return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]


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
) -> tuple[Record, list[Job]]:
    """Wait for jobs; each is added when it is submitted, with the snapshot that `submit` returns.

    Args:
        jobs: What to wait for.
        through: The connection.
        clock: Its clock, which is advanced.
        round_trip: Seconds that a poll takes.
        refill: Creates a job to replace one whose end was detected.
        until: Virtual seconds at which to stop.

    Returns:
        The result, and all jobs by number.
    """
    scheduler, record, known = PollScheduler(), Record(), list(jobs)
    submissions = [(job.start, number) for number, job in enumerate(known)]
    heapify(submissions)
    in_flight: list[tuple[float, int, PollTask]] = []
    serial = count()
    while len(record.delays) < len(known) and clock.at < until:
        while submissions and submissions[0][0] <= clock.at:
            _, number = heappop(submissions)
            scheduler.add(through, str(number), clock.at, known=_snapshot(number, known[number], clock, over=False))
        while in_flight and in_flight[0][0] <= clock.at:
            _, _, poll = heappop(in_flight)
            number = int(poll.task_id)
            job = known[number]
            over = clock.at - round_trip / 2 >= job.end  # the vendor responds halfway
            through.throttle.answered(clock.at, {})
            scheduler.on_polled(poll, clock.at, PollResult(_snapshot(number, job, clock, over=over), None, _EPOCH))
            if over:
                record.delays[number] = clock.at - job.end
                if refill is not None:
                    known.append(refill())
                    heappush(submissions, (known[-1].start, len(known) - 1))
        while scheduler.next_update() is not None:
            pass
        command = scheduler.next(clock.at)
        if isinstance(command, PollTask):
            record.polls += 1
            heappush(in_flight, (clock.at + round_trip, next(serial), command))
            continue
        times = [command.time] if isinstance(command, WaitUntil) else []
        times += [queue[0][0] for queue in (in_flight, submissions) if queue]
        clock.at = max(clock.at, min(times, default=clock.at))  # no time left: the last end was detected
    return record, known


class _Frozen(DurationModel):
    """A duration model that no longer learns."""

    __slots__ = ()

    def observe(self, since: float, until: float, *, ended: bool) -> None:
        """Ignore it."""


def freeze(through: Connection, operation: str = "convert") -> None:
    """Stop a connection from learning about an operation."""
    durations = copy(through.durations_of(operation))
    durations.__class__ = _Frozen
    through.durations[operation] = durations


# Other schedules: an endless series of seconds between polls.


def fixed(seconds: float) -> Iterator[float]:
    while True:
        yield seconds


def exponential(first: float, factor: float, most: float) -> Iterator[float]:
    pause = first
    while True:
        yield min(pause, most)
        pause *= factor


def google(chance: Random, first: float = 1.0, factor: float = 1.5, most: float = 20.0) -> Iterator[float]:
    """google-api-core 2.44: `exponential_sleep_generator` with the values of `DEFAULT_POLLING`."""
    ceiling = first
    while True:
        yield chance.uniform(0.0, ceiling)
        ceiling = min(ceiling * factor, most)


def fraction_of_age(fraction: float, least: float, most: float) -> Iterator[float]:
    age = 0.0
    while True:
        pause = min(max(age * fraction, least), most)
        age += pause
        yield pause


def follow(durations: Iterable[float], schedule: Callable[[], Iterator[float]], *, at_once: bool) -> Record:
    """Poll tasks with another schedule.

    Args:
        durations: How long each takes.
        schedule: Returns the pauses for one task.
        at_once: Whether the first poll comes at once.
    """
    record = Record()
    for number, duration in enumerate(durations):
        age = 0.0
        record.polls += at_once
        for pause in schedule():
            age += pause
            record.polls += 1
            if age >= duration:
                break
        record.delays[number] = age - duration
    return record


def at_latency(
    durations: Sequence[float], schedule: Callable[[float], Callable[[], Iterator[float]]], latency: float
) -> Record:
    """Return the result of the schedule whose parameter gives this mean delay, found by bisection."""
    least, most = latency / 20, latency * 20
    record = follow(durations, schedule(latency), at_once=False)
    for _ in range(24):
        middle = math.sqrt(least * most)
        record = follow(durations, schedule(middle), at_once=False)
        if abs(record.mean / latency - 1) < 0.002:
            break
        least, most = (least, middle) if record.mean > latency else (middle, most)
    return record


# The exact optimum.


class Optimum:
    """The fewest polls for a mean delay if durations are known exactly: dynamic programming over poll times.

    Args:
        cdf: Fraction of tasks that last no longer.
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
        """Return the mean delay of tasks that end between two polls, times their fraction."""
        return self._area[stop] - self._area[start] - self._ended[start] * (stop - start) * self._step

    def at_price(self, price: float) -> tuple[float, float]:
        """Return polls and mean delay of the schedule that minimizes delay + price · polls."""
        last = len(self._ended) - 1
        area, ended, step = self._area, self._ended, self._step
        costs, choice = [0.0] * (last + 1), [last] * (last + 1)
        for start in range(last - 1, -1, -1):
            alive = 1.0 - ended[start]
            if alive <= 1e-12:
                continue
            best, chosen = math.inf, last
            area_here, ended_here = area[start], ended[start]
            for stop in range(start + 1, last + 1):
                delay = area[stop] - area_here - ended_here * (stop - start) * step
                cost = delay + costs[stop]
                if cost < best:
                    best, chosen = cost, stop
                if delay > best:
                    break  # every later one has more delay than the total cost of the best
            costs[start], choice[start] = best + price * alive, chosen
        polls = delay = 0.0
        at = 0
        while at < last and ended[at] < 1.0 - 1e-12:
            polls += 1.0 - ended[at]
            delay += self._delay(at, choice[at])
            at = choice[at]
        return polls, delay

    def polls(self, latency: float) -> float:
        """Return the fewest polls per task at a mean delay."""
        least, most = latency**2 / 500, latency**2 * 20
        below = above = (0.0, 0.0)
        for _ in range(11):
            price = math.sqrt(least * most)
            result = self.at_price(price)
            if result[1] > latency:
                most, above = price, result
            else:
                least, below = price, result
        if not (below[1] and above[1]):
            return max(below[0], above[0])
        position = math.log(latency / below[1]) / math.log(above[1] / below[1]) if above[1] > below[1] else 0.0
        return math.exp(math.log(below[0]) * (1 - position) + math.log(above[0]) * position)


# A rate limit, used in turn: what a plain loop over all tasks does.


def round_robin(draw: Callable[[], float], limit: float, in_flight: int, until: float, warm: float) -> float:
    """Return the mean delay if tasks are polled in turn and each that ended is replaced."""
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
