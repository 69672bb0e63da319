"""Many tasks in flight: memory and threads, CPU per look, and how both grow with their number."""

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

PACE: Final = 500.0  # looks a second
_FOREVER: Final = 9000.0  # seconds

_serial = count()


def run(*, quick: bool) -> dict[str, Any]:
    with Server() as server:
        return {
            "memory": memory(server, 500 if quick else 10_000),
            "looks": looks(server, quick=quick),
            "growth": growth((1000, 3000) if quick else (1000, 10_000, 50_000), quick=quick),
        }


def _begin(server: Server, side: str, number: int, interval: float, *, steady: bool) -> tuple[Child, str]:
    run = f"flight{next(_serial)}"
    child = Child("-m", "benchmarks.clients", side, server.http)
    child.hear()
    ids = [task_id(run, n, _FOREVER) for n in range(number)]
    # Steady from the start: a known task was seen half an interval ago, and is looked at within the next one.
    said = {"run": run, "ids": ids, "interval": interval, "forever": True, "stale": interval / 2}
    said |= {"known": steady, "spread": steady}
    child.ask(said)
    return child, run


def memory(server: Server, number: int) -> dict[str, Any]:
    """Bytes per task above 100 in flight, every one of them seen once; threads at the most."""
    found: dict[str, Any] = {"tasks": number}
    for side in ("ours", "ours-async"):
        few, _ = _settled(server, side, 100)
        many, threads = _settled(server, side, number)
        found[side] = {"bytes": (many - few) / (number - 100), "threads": threads}
    # A thread for each of 10,000 tasks is more than many computers allow; a tenth of them tells as much.
    naive = number // 10
    few, _ = _settled(server, "no-session", 10)
    many, threads = _settled(server, "no-session", naive)
    found["no-session"] = {"bytes": (many - few) / (naive - 10), "threads": threads, "tasks": naive}
    return found


def _settled(server: Server, side: str, number: int) -> tuple[float, int]:
    child, run = _begin(server, side, number, 600.0, steady=False)
    with child:
        process = psutil.Process(child.pid)
        threads, patience = 0, time.monotonic() + 120.0
        while server.counts(run).get("poll", 0) < number:
            threads = max(threads, process.num_threads())
            if time.monotonic() > patience:
                raise RuntimeError(f"{side}: not every task was looked at")
            time.sleep(0.1)  # noqa: TID251
        time.sleep(0.3)  # noqa: TID251  # the last answer is taken in
        # Beside the main thread and the one that it waits in here.
        return float(process.memory_info().rss), max(threads, process.num_threads()) - 2


def looks(server: Server, *, quick: bool) -> dict[str, Any]:
    """CPU per look at 500 looks a second: a tenth of the tasks, ten times as often, where each has a thread."""
    ours, naive = (1000, 200) if quick else (10_000, 1000)
    pace = PACE / 4 if quick else PACE
    window = 1.8 if quick else 2.5
    sides = {
        "no-session": ("no-session", naive),
        "ours": ("ours", ours),
        "ours-async": ("ours-async", ours),
    }

    def one(side: str, number: int) -> float:
        with ExitStack() as stack:
            child, run = _begin(server, side, number, number / pace, steady=True)
            stack.enter_context(child)
            process = psutil.Process(child.pid)
            time.sleep(min(0.8, window))  # noqa: TID251  # threads and connections begin
            before, used = server.counts(run).get("poll", 0), sum(process.cpu_times()[:2])
            time.sleep(window)  # noqa: TID251
            used = sum(process.cpu_times()[:2]) - used
            return float(used / max(1, server.counts(run).get("poll", 0) - before))

    found = in_turn({name: (lambda side=side: one(*side)) for name, side in sides.items()}, ROUNDS)
    return {"to_threads": ratios(found, "no-session"), "tasks": ours, "naive_tasks": naive}


def growth(numbers: tuple[int, ...], *, quick: bool) -> dict[str, Any]:
    """CPU per look and memory per task, all layers but the sockets, in virtual time; ratios to the smallest number."""
    fleets = {number: virtual.InFlight(number) for number in numbers}
    each = 100 if quick else 1500
    found = in_turn(
        {str(n): (lambda scheduler=scheduler: scheduler.look(each)) for n, scheduler in fleets.items()}, ROUNDS
    )
    del fleets
    least = str(numbers[0])
    sizes = {str(n): virtual.memory_of(n) for n in numbers}
    return {
        "cpu": ratios(found, least),
        "memory": {n: size / sizes[least] for n, size in sizes.items()},
        "bytes": median(sizes.values()),
    }
