"""What was to be reached, and what was."""
# a ratio is written with its sign

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Target:
    """One line of the table.

    Attributes:
        what: What is measured.
        limit: The figure to reach.
        least: Whether it is to be reached from below; most are upper bounds.
        figure: Finds the figure in the results; None where it was not measured.
        section: Where its details are.
        digits: Shown behind the point.
    """

    what: str
    limit: float
    figure: Callable[[Results], float | None]
    section: str
    least: bool = False
    digits: int = 2

    def met(self, value: float) -> bool:
        return value >= self.limit if self.least else value <= self.limit


def _ratio(*path: str) -> Callable[[Results], float | None]:
    return lambda results: float(_at(results, *path, "median"))


def _plain(*path: str) -> Callable[[Results], float | None]:
    return lambda results: float(_at(results, *path))


def _at(results: Any, *path: str) -> Any:
    for step in path:
        results = results[step]
    return results


def _of_resource_tree(results: Results) -> float:
    ratios = results["translate"]["small"]["ratios"]
    return float(ratios["taskbridge: bytes to Task"]["median"] / ratios["cloudconvert 2.1.0: Resource tree"]["median"])


def _close_to_optimum(results: Results) -> float:
    return float(sum(one["learnt_to_optimum"] <= 1.05 for one in results["schedules"]["distributions"].values()))


def _bulk(results: Results) -> float | None:
    found = results["schedules"]["bulk"]
    return None if found is None else float(found["fewer"])


def _worst_of_ours(name: str) -> Callable[[Results], float | None]:
    return lambda results: max(results["peers"]["waiting"]["rows"][side][name] for side in ("ours", "ours-async"))


def _beside_azure(side: str) -> Callable[[Results], float | None]:
    def figure(results: Results) -> float:
        rows = results["peers"]["waiting"]["rows"]
        return float(rows[side]["cpu_per_look"] / rows["azure"]["cpu_per_look"])

    return figure


def _requests(results: Results) -> float:
    # Uncut durations, simulated; in real time they are cut so that the table takes minutes, which makes it too easy.
    return float(results["schedules"]["waiting"]["looks"])


def _bytes(results: Results) -> float:
    return max(float(results["flight"]["memory"][side]["bytes"]) for side in ("ours", "ours-async"))


def _growth(what: str) -> Callable[[Results], float | None]:
    def figure(results: Results) -> float:
        found = results["flight"]["growth"][what]
        return max(float(v["median"] if isinstance(v, dict) else v) - 1.0 for v in found.values())

    return figure


def _aiohttp_alone(scheme: str) -> Callable[[Results], str]:
    """What the library below reaches without any layer of ours."""

    def words(results: Results) -> str:
        rates = results["poll"][scheme]["rate_to_naive"]
        alone = rates.get("aiohttp alone (32 at once)")
        if alone is None:
            return ""
        ours = rates[_AIO]["median"]
        share = 1.0 - ours / alone["median"]
        return (
            f"aiohttp alone, which reads no answer strictly and keeps no pace, reaches {alone['median']:.1f}: "
            f"{share:.0%} of the time of a look is in our layers"
        )

    return words


def _one_thread(results: Results) -> str:
    alone = results["poll"]["http"]["rate_to_naive"]["client.get"]["median"]
    return (
        f"one thread alone reaches {alone:.1f}: where an answer takes no time, eight wait for the interpreter's lock; "
        "over a network they wait for answers"
    )


_POLL: Final = "One poll"
_LOOK: Final = "taskbridge: bytes to Task"
_SYNC: Final = "client.wait_all (8 threads)"
_AIO: Final = "aio.Client.wait_all (32 at once)"

TARGETS: Final[Mapping[str, Target]] = {
    "translate": Target(
        "body → `Task` (966 B) × `json.loads`", 2.2, _ratio("translate", "small", "ratios", _LOOK), "Translating"
    ),
    "translate-peer": Target(
        "body → `Task` (966 B) × cloudconvert's resource tree", 1 / 3, _of_resource_tree, "Translating"
    ),
    "large": Target(
        "5 MB expert.ai body → `Task` × `json.loads`",
        1.25,
        _ratio("translate", "large", "ratios", _LOOK),
        "Translating",
    ),
    "large-memory": Target(
        "the same: memory above `json.loads`, in bodies",
        0.5,
        _plain("translate", "large", "peak_bodies_more"),
        "Translating",
    ),
    "get": Target(
        "`client.get`, CPU × `requests.Session.get` + `.json()`",
        0.55,
        _ratio("poll", "http", "cpu_to_session", "client.get"),
        _POLL,
    ),
    "http-sync": Target(
        "looks/s × `requests.get` loop, HTTP, 8 threads",
        2.5,
        _ratio("poll", "http", "rate_to_naive", _SYNC),
        _POLL,
        True,
    ),
    "http-aio": Target(
        "looks/s × `requests.get` loop, HTTP, `aio`, 32 at once",
        6.0,
        _ratio("poll", "http", "rate_to_naive", _AIO),
        _POLL,
        True,
    ),
    "https-sync": Target(
        "looks/s × `requests.get` loop, HTTPS, 8 threads",
        30.0,
        _ratio("poll", "https", "rate_to_naive", _SYNC),
        _POLL,
        True,
        0,
    ),
    "https-aio": Target(
        "looks/s × `requests.get` loop, HTTPS, `aio`, 32 at once",
        100.0,
        _ratio("poll", "https", "rate_to_naive", _AIO),
        _POLL,
        True,
        0,
    ),
    "peer-cpu-sync": Target(
        "waiting for 1,000: CPU per look × azure-core `LROPoller`", 0.25, _beside_azure("ours"), "Waiting"
    ),
    "peer-cpu-aio": Target(
        "waiting for 1,000, `aio`: CPU per look × azure-core `LROPoller`",
        0.25,
        _beside_azure("ours-async"),
        "Waiting",
    ),
    "requests": Target("waiting for 1,000, learnt: requests a task", 8.5, _requests, "Waiting"),
    "delay-mean": Target("waiting for 1,000, learnt: mean delay, s", 0.9, _worst_of_ours("mean"), "Waiting"),
    "delay-p95": Target("waiting for 1,000, learnt: 95th percentile, s", 1.8, _worst_of_ours("p95"), "Waiting"),
    "bytes": Target("10,000 in flight: bytes a task above 100 in flight", 3000.0, _bytes, "In flight", digits=0),
    "threads-aio": Target(
        "10,000 in flight: threads, `aio`",
        0.0,
        _plain("flight", "memory", "ours-async", "threads"),
        "In flight",
        digits=0,
    ),
    "threads-sync": Target(
        "10,000 in flight: threads, synchronous",
        12.0,
        _plain("flight", "memory", "ours", "threads"),
        "In flight",
        digits=0,
    ),
    "flight-aio": Target(
        "10,000 in flight: CPU per look × a thread per task, `aio`",
        0.45,
        _ratio("flight", "looks", "to_threads", "ours-async"),
        "In flight",
    ),
    "flight-sync": Target(
        "10,000 in flight: CPU per look × a thread per task, synchronous",
        0.60,
        _ratio("flight", "looks", "to_threads", "ours"),
        "In flight",
    ),
    "cold-fixed": Target(
        "requests at equal mean delay, cold × fixed",
        1.05,
        _plain("schedules", "distributions", "lognormal-1", "cold", "to_fixed"),
        "When to poll",
    ),
    "cold-exponential": Target(
        "requests at equal mean delay, cold × exponential",
        0.6,
        _plain("schedules", "distributions", "lognormal-1", "cold", "to_exponential"),
        "When to poll",
    ),
    "optimum": Target(
        "distributions of six within 1.05 of the exact optimum, learnt", 4.0, _close_to_optimum, "When to poll", True, 0
    ),
    "limit": Target(
        "mean delay under one limit of 100 looks/s × round-robin",
        0.72,
        _plain("schedules", "one_limit", "100", "ratio"),
        "When to poll",
    ),
    "bulk": Target("1,000 in flight: single looks for each request before final looks", 25.0, _bulk, "Lists", True, 1),
    "growth-cpu": Target("1,000 to 50,000 tasks: growth of CPU per look", 0.15, _growth("cpu"), "In flight"),
    "growth-memory": Target("1,000 to 50,000 tasks: growth of memory per task", 0.15, _growth("memory"), "In flight"),
    "import": Target(
        "`import taskbridge` × an empty script", 1.2, _ratio("startup", "to_empty", "import taskbridge"), "Start"
    ),
    "connect": Target(
        "first `tb.connect` × a script with pydantic, requests and the same models",
        1.4,
        _ratio("startup", "connect_to_models"),
        "Start",
    ),
    "version": Target(
        "`taskbridge --version` × a script that imports click", 1.5, _ratio("startup", "version_to_click"), "Start"
    ),
}

# Why a target is missed, or what a reader must know of it. Shown beside its figure.
REASONS: Final[Mapping[str, str]] = {
    "large-memory": "the reader builds its objects from the bytes; `json.loads` makes a text of them first",
    "peer-cpu-sync": "one run each, in real time; five rounds with few operations stand below it",
    "peer-cpu-aio": "as above",
    "requests": "simulated with durations that are not cut; delays and CPU are from the run in real time",
    "flight-aio": "beside 1,000 threads at the same looks a second",
    "flight-sync": "as above",
}
MISSES: Final[Mapping[str, Callable[[Results], str]]] = {
    "translate": lambda _: "refusing duplicate keys, deep nesting and infinite numbers takes about half of it",
    "http-sync": _one_thread,
    "http-aio": _aiohttp_alone("http"),
    "https-aio": _aiohttp_alone("https"),
    "peer-cpu-sync": lambda _: (
        "nearly half of our look is what aiohttp or urllib3 and the operating system take for it"
    ),
    "peer-cpu-aio": lambda _: "as above",
    "flight-aio": lambda _: "by less than the rounds differ; our layers above aiohttp are what there is to save",
    "flight-sync": lambda _: "eight threads wait for the interpreter's lock; with one a look takes a fifth less",
    "optimum": lambda _: (
        "what 200 ends tell of a tail that few reach, or of two narrow peaks, is less than the optimum knows"
    ),
}


@dataclass(frozen=True)
class ErrorDetails:
    """What became of a target."""

    target: Target
    value: float | None
    reason: str

    @property
    def words(self) -> str:
        if self.value is None:
            return "not measured"
        return "met" if self.target.met(self.value) else "**missed**"


def verdicts(results: Results) -> dict[str, ErrorDetails]:
    """Every target; those of sections that were not run have no value."""
    found: dict[str, ErrorDetails] = {}
    for key, target in TARGETS.items():
        try:
            value = target.figure(results)
        except KeyError:
            value = None
        missed = value is not None and not target.met(value)
        notes = (MISSES[key](results) if missed and key in MISSES else "", REASONS.get(key, ""))
        found[key] = ErrorDetails(target, value, "; ".join(dict.fromkeys(filter(None, notes))))
    return found
