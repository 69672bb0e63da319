"""Many tasks in flight: memory, threads and CPU per poll, and how they grow with the number of tasks."""

from __future__ import annotations

import time
from contextlib import ExitStack
from itertools import count
from statistics import median
from typing import Any, Final

import psutil

from benchmarks import virtual
from benchmarks.measure import ROUNDS, Child, Server, in_turn, ratios
from benchmarks.vendor import task_id

RATE: Final = 250.0  # polls per second; a thread per task collapses at twice that
_FOREVER: Final = 9000.0  # seconds
_REACHED: Final = 0.8  # of the rate that a side must keep up for its CPU per poll to count
_ATTEMPTS: Final = 4  # windows in which it may reach that

_serial = count()


def run(*, quick: bool) -> dict[str, Any]:
    with Server() as server:
        return {
            "memory": memory(server, 500 if quick else 10_000),
            "polls": polls(server, quick=quick),
            "growth": growth((1000, 3000) if quick else (1000, 10_000, 50_000), quick=quick),
        }


def _begin(server: Server, side: str, number: int, interval: float, *, steady: bool) -> tuple[Child, str]:
    run = f"flight{next(_serial)}"
    child = Child("-m", "benchmarks.clients", side, server.http)
    child.receive()
    ids = [task_id(run, n, _FOREVER) for n in range(number)]
    # Steady from the start: a known task was polled half an interval ago, and is polled again within the next one.
    options = {"run": run, "ids": ids, "interval": interval, "forever": True, "stale": interval / 2}
    options |= {"known": steady, "spread": steady}
    child.request(options)
    return child, run


def memory(server: Server, number: int) -> dict[str, Any]:
    """Measure bytes per task above 100 in flight, each polled once, and the maximum number of threads."""
    measured: dict[str, Any] = {"tasks": number}
    for side in ("taskbridge", "taskbridge-async"):
        few, _ = _settled(server, side, 100)
        many, threads = _settled(server, side, number)
        measured[side] = {"bytes": (many - few) / (number - 100), "threads": threads}
    # Many computers do not allow a thread for each of 10,000 tasks; a tenth of them is enough to measure.
    naive = number // 10
    few, _ = _settled(server, "no-session", 10)
    many, threads = _settled(server, "no-session", naive)
    measured["no-session"] = {"bytes": (many - few) / (naive - 10), "threads": threads, "tasks": naive}
    return measured


def _settled(server: Server, side: str, number: int) -> tuple[float, int]:
    child, run = _begin(server, side, number, 600.0, steady=False)
    with child:
        process = psutil.Process(child.pid)
        threads, deadline = 0, time.monotonic() + 120.0
        while server.counts(run).get("poll", 0) < number:
            threads = max(threads, process.num_threads())
            if time.monotonic() > deadline:
                raise RuntimeError(f"{side}: not every task was polled")
            time.sleep(0.1)  # noqa: TID251
        time.sleep(0.3)  # noqa: TID251  # the last response is processed
        # Without the main thread and the one that waits in the child.
        return float(process.memory_info().rss), max(threads, process.num_threads()) - 2


def polls(server: Server, *, quick: bool) -> dict[str, Any]:
    """Measure CPU per poll at 250 polls per second; a thread per task polls a twentieth of them, but more often."""
    number, naive = (1000, 200) if quick else (10_000, 500)
    rate = RATE / 2 if quick else RATE
    window = 1.8 if quick else 2.5
    sides = {
        "no-session": ("no-session", naive),
        "taskbridge": ("taskbridge", number),
        "taskbridge-async": ("taskbridge-async", number),
    }

    def one(side: str, number: int) -> float:
        with ExitStack() as stack:
            child, run = _begin(server, side, number, number / rate, steady=True)
            stack.enter_context(child)
            process = psutil.Process(child.pid)

            def measure(seconds: float) -> tuple[float, int]:
                before, used = server.counts(run).get("poll", 0), sum(process.cpu_times()[:2])
                time.sleep(seconds)  # noqa: TID251
                return sum(process.cpu_times()[:2]) - used, server.counts(run).get("poll", 0) - before

            time.sleep(min(0.8, window))  # noqa: TID251  # start threads and open connections
            for _ in range(_ATTEMPTS):
                used, done = measure(window)
                if done >= _REACHED * rate * window:
                    return used / done
            raise RuntimeError(
                f"{side} reached {done / window:.0f} of {rate:.0f} polls/s, so its CPU per poll cannot be compared; "
                "the computer must do nothing else"
            )

    measured = in_turn({name: (lambda side=side: one(*side)) for name, side in sides.items()}, ROUNDS)
    return {"to_threads": ratios(measured, "no-session"), "tasks": number, "naive_tasks": naive}


def growth(numbers: tuple[int, ...], *, quick: bool) -> dict[str, Any]:
    """Measure CPU per poll and memory per task without sockets, in virtual time, relative to the smallest number."""
    schedulers = {number: virtual.InFlight(number) for number in numbers}
    each = 100 if quick else 1500
    measured = in_turn({str(n): (lambda tasks=tasks: tasks.poll(each)) for n, tasks in schedulers.items()}, ROUNDS)
    del schedulers
    least = str(numbers[0])
    sizes = {str(n): virtual.memory_of(n) for n in numbers}
    return {
        "cpu": ratios(measured, least),
        "memory": {n: size / sizes[least] for n, size in sizes.items()},
        "bytes": median(sizes.values()),
    }
