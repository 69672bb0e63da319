"""Comparable libraries: the CPU time of a poll, and what waiting for 1,000 operations takes."""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from itertools import count
from random import Random
from typing import Any, Final

from benchmarks.measure import ROUNDS, Child, Server, in_turn, ratios
from benchmarks.schedules import DISTRIBUTIONS
from benchmarks.vendor import task_id

TITLES: Final = {
    "no-session": "a thread per task, `requests.get`",
    "session": "a thread per task, one `requests.Session`",
    "cloudconvert": "cloudconvert 2.1.0, a thread per task",
    "cloudconvert-long-poll": "cloudconvert 2.1.0 `Task.wait`, long poll",
    "azure": "azure-core `LROPoller`",
    "azure-async": "azure-core `AsyncLROPoller`",
    "google": "google-api-core `Operation`",
    "boto3": "boto3 waiter",
    "taskbridge": "taskbridge",
    "taskbridge-async": "taskbridge `aio`",
    "taskbridge-lists": "taskbridge `aio`, reading the vendor's list",
}
LONGEST: Final = 16.0  # seconds; longer durations are cut, since this runs in real time

# Side -> seconds between polls, if it must be configured.
INTERVALS: Final = {"no-session": 1.0, "azure": 1.0, "azure-async": 1.0, "boto3": 10.0, "google": 0.0}

_serial = count()


def run(*, quick: bool) -> dict[str, Any]:
    with Server() as server:
        return {"poll": polls(server, quick=quick), "waiting": waiting(server, quick=quick)}


def polls(server: Server, *, quick: bool) -> dict[str, Any]:
    """Measure the CPU time of a poll when all sides poll equally often."""
    number, duration, interval = (8, 0.6, 0.05) if quick else (16, 1.2, 0.05)
    sides = [side for side in TITLES if side not in ("cloudconvert-long-poll", "taskbridge-lists")]
    with ExitStack() as stack:
        children = {side: stack.enter_context(Child("-m", "benchmarks.clients", side, server.http)) for side in sides}
        for child in children.values():
            child.receive()

        def one(side: str) -> float:
            run = f"poll{next(_serial)}"
            ids = [task_id(run, n, duration) for n in range(number)]
            options = {"run": run, "ids": ids, "interval": interval, "even": True}
            used = children[side].request(options)["cpu"]
            return float(used / server.counts(run)["poll"])

        for side in sides:
            one(side)  # open connections and start threads
        measured = in_turn({side: (lambda side=side: one(side)) for side in sides}, ROUNDS)
    return {"to_azure": ratios(measured, "azure"), "to_no_session": ratios(measured, "no-session")}


def waiting(server: Server, *, quick: bool) -> dict[str, Any]:
    """Run each side once to the end, on the same durations."""
    number = 60 if quick else 1000
    longest = 4.0 if quick else LONGEST
    durations = [min(longest, d) for d in DISTRIBUTIONS["lognormal-1"].spread(Random(9), number)]
    sides = [
        "no-session",
        "cloudconvert-long-poll",
        "azure",
        "azure-async",
        "google",
        "boto3",
        "taskbridge",
        "taskbridge-async",
    ]
    rows = {side: _wait(server, side, durations, {"interval": INTERVALS.get(side, 1.0)}) for side in sides}
    rows["taskbridge-lists"] = _wait(server, "taskbridge-async", durations, {"lists": True})
    return {
        "tasks": number,
        "longest": longest,
        "mean_duration": statistics.fmean(durations),
        "rows": rows,
    }


def _wait(server: Server, side: str, durations: list[float], more: dict[str, Any]) -> dict[str, Any]:
    run = f"wait{next(_serial)}"
    ids = [task_id(run, n, duration) for n, duration in enumerate(durations)]
    options = {"run": run, "ids": ids, "known": True, **more}
    if side.startswith("taskbridge"):
        options["latency"] = 0.8
    with Child("-m", "benchmarks.clients", side, server.http) as child:
        child.receive()
        measured = child.request(options)
    counts = server.counts(run)
    requests = counts.get("poll", 0) + counts.get("list", 0)
    return {
        **measured,
        "requests": requests,
        "lists": counts.get("list", 0),
        "cpu_per_poll": measured["cpu"] / requests,
    }
