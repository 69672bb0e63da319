"""Waiting beside the peers: what a look costs, and what waiting for 1,000 operations takes."""

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
    "no-session": "a thread each, `requests.get`",
    "session": "a thread each, one `requests.Session`",
    "cloudconvert": "cloudconvert 2.1.0, a thread each",
    "cloudconvert-held": "cloudconvert 2.1.0 `Task.wait`, line held",
    "azure": "azure-core `LROPoller`",
    "azure-async": "azure-core `AsyncLROPoller`",
    "google": "google-api-core `Operation`",
    "boto3": "boto3 waiter",
    "ours": "taskbridge",
    "ours-async": "taskbridge `aio`",
    "ours-lists": "taskbridge `aio`, with the vendor's list",
}
LONGEST: Final = 16.0  # seconds at which durations are cut in real time

# Side -> seconds between looks, where it has to be told.
PACES: Final = {"no-session": 1.0, "azure": 1.0, "azure-async": 1.0, "boto3": 10.0, "google": 0.0}

_serial = count()


def run(*, quick: bool) -> dict[str, Any]:
    with Server() as server:
        return {"poll": looks(server, quick=quick), "waiting": waiting(server, quick=quick)}


def looks(server: Server, *, quick: bool) -> dict[str, Any]:
    """CPU of one look where all look equally often."""
    number, duration, interval = (8, 0.6, 0.05) if quick else (16, 1.2, 0.05)
    sides = [side for side in TITLES if side not in ("cloudconvert-held", "ours-lists")]
    with ExitStack() as stack:
        children = {side: stack.enter_context(Child("-m", "benchmarks.clients", side, server.http)) for side in sides}
        for child in children.values():
            child.hear()

        def one(side: str) -> float:
            run = f"look{next(_serial)}"
            ids = [task_id(run, n, duration) for n in range(number)]
            said = {"run": run, "ids": ids, "interval": interval, "even": True}
            used = children[side].ask(said)["cpu"]
            return float(used / server.counts(run)["poll"])

        for side in sides:
            one(side)  # connections and threads begin
        found = in_turn({side: (lambda side=side: one(side)) for side in sides}, ROUNDS)
    return {"to_azure": ratios(found, "azure"), "to_no_session": ratios(found, "no-session")}


def waiting(server: Server, *, quick: bool) -> dict[str, Any]:
    """Each side once, for as long as it takes, on the same durations."""
    number = 60 if quick else 1000
    longest = 4.0 if quick else LONGEST
    durations = [min(longest, d) for d in DISTRIBUTIONS["lognormal-1"].spread(Random(9), number)]
    sides = ["no-session", "cloudconvert-held", "azure", "azure-async", "google", "boto3", "ours", "ours-async"]
    rows = {side: _wait(server, side, durations, {"interval": PACES.get(side, 1.0)}) for side in sides}
    rows["ours-lists"] = _wait(server, "ours-async", durations, {"lists": True})
    return {
        "tasks": number,
        "longest": longest,
        "mean_duration": statistics.fmean(durations),
        "rows": rows,
    }


def _wait(server: Server, side: str, durations: list[float], more: dict[str, Any]) -> dict[str, Any]:
    run = f"wait{next(_serial)}"
    ids = [task_id(run, n, duration) for n, duration in enumerate(durations)]
    said = {"run": run, "ids": ids, "known": True, **more}
    if side.startswith("ours"):
        said["latency"] = 0.8
    with Child("-m", "benchmarks.clients", side, server.http) as child:
        child.hear()
        found = child.ask(said)
    counts = server.counts(run)
    requests = counts.get("poll", 0) + counts.get("list", 0)
    return {**found, "requests": requests, "lists": counts.get("list", 0), "cpu_per_look": found["cpu"] / requests}
