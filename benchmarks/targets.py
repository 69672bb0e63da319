"""The performance targets, and whether the results meet them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Target:
    """One row of the table.

    Attributes:
        what: What is measured.
        limit: The figure to reach.
        figure: Returns the figure from the results; None if it was not measured.
        section: Heading of the details on the page.
        at_least: Whether the limit is a lower bound; most are upper bounds.
        digits: Decimal places shown.
    """

    what: str
    limit: float
    figure: Callable[[Results], float | None]
    section: str
    at_least: bool = False
    digits: int = 2

    def met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


def _ratio(*path: str) -> Callable[[Results], float | None]:
    return lambda results: float(_at(results, *path, "median"))


def _value(*path: str) -> Callable[[Results], float | None]:
    return lambda results: float(_at(results, *path))


def _at(results: Any, *path: str) -> Any:
    for step in path:
        results = results[step]
    return results


def _of_resource_tree(results: Results) -> float:
    ratios = results["translate"]["small"]["ratios"]
    return float(ratios["taskbridge: bytes to Task"]["median"] / ratios["cloudconvert 2.1.0: Resource tree"]["median"])


def _close_to_optimum(results: Results) -> float:
    return float(sum(one["learned_to_optimum"] <= 1.05 for one in results["schedules"]["distributions"].values()))


def _lists(results: Results) -> float | None:
    section = results["schedules"]["lists"]
    return None if section is None else float(section["fewer"])


def _worst_of_ours(name: str) -> Callable[[Results], float | None]:
    return lambda results: max(
        results["peers"]["waiting"]["rows"][side][name] for side in ("taskbridge", "taskbridge-async")
    )


def _relative_to_azure(side: str) -> Callable[[Results], float | None]:
    def figure(results: Results) -> float:
        rows = results["peers"]["waiting"]["rows"]
        return float(rows[side]["cpu_per_poll"] / rows["azure"]["cpu_per_poll"])

    return figure


def _requests(results: Results) -> float:
    # Simulated with uncut durations: in real time they are cut to save time, which makes the target too easy.
    return float(results["schedules"]["waiting"]["polls"])


def _bytes(results: Results) -> float:
    return max(float(results["flight"]["memory"][side]["bytes"]) for side in ("taskbridge", "taskbridge-async"))


def _growth(what: str) -> Callable[[Results], float | None]:
    def figure(results: Results) -> float:
        section = results["flight"]["growth"][what]
        return max(float(v["median"] if isinstance(v, dict) else v) - 1.0 for v in section.values())

    return figure


def _many(run: str, what: str) -> Callable[[Results], float | None]:
    return lambda results: float(results[run][what])


def _bare(scheme: str) -> Callable[[Results], str]:
    """Explain a miss by what a poll consists of."""

    def reason(results: Results) -> str:
        rates = results["poll"][scheme]["rate_to_naive"]
        try:
            layers, alone = (rates[side]["median"] for side in (_LAYERS, "libcurl alone"))
        except KeyError:
            return ""
        return (
            f"our layers without a network reach {layers:.1f}, and libcurl without our layers {alone:.1f}; in between, "
            "responses change from libcurl's thread to the caller's"
        )

    return reason


def _one_thread(scheme: str) -> Callable[[Results], str]:
    """Explain a miss of the synchronous interface."""

    def reason(results: Results) -> str:
        alone = results["poll"][scheme]["rate_to_naive"]["client.get"]["median"]
        return (
            "eight threads contend for the interpreter lock, and each response wakes one of them; one thread alone "
            f"reaches {alone:.1f}"
        )

    return reason


_POLL: Final = "One poll"
_BODY_TO_TASK: Final = "taskbridge: bytes to Task"
_SYNC: Final = "client.wait_all (8 threads)"
_AIO: Final = "aio.Client.wait_all (32 at once)"
_LAYERS: Final = "our layers alone, `aio`"

TARGETS: Final[Mapping[str, Target]] = {
    "translate": Target(
        "body → `Task` (966 B) × `json.loads`",
        2.2,
        _ratio("translate", "small", "ratios", _BODY_TO_TASK),
        "Translating",
    ),
    "translate-peer": Target(
        "body → `Task` (966 B) × cloudconvert's resource tree", 1 / 3, _of_resource_tree, "Translating"
    ),
    "large": Target(
        "5 MB expert.ai body → `Task` × `json.loads`",
        1.25,
        _ratio("translate", "large", "ratios", _BODY_TO_TASK),
        "Translating",
    ),
    "large-memory": Target(
        "the same: memory above `json.loads`, in bodies",
        0.5,
        _value("translate", "large", "peak_bodies_more"),
        "Translating",
    ),
    "get": Target(
        "`client.get`, CPU × `requests.Session.get` + `.json()`",
        0.55,
        _ratio("poll", "http", "cpu_to_session", "client.get"),
        _POLL,
    ),
    "http-sync": Target(
        "polls/s × `requests.get` loop, HTTP, 8 threads",
        6.0,
        _ratio("poll", "http", "rate_to_naive", _SYNC),
        _POLL,
        True,
    ),
    "http-aio": Target(
        "polls/s × `requests.get` loop, HTTP, `aio`, 32 in parallel",
        9.0,
        _ratio("poll", "http", "rate_to_naive", _AIO),
        _POLL,
        True,
    ),
    "https-sync": Target(
        "polls/s × `requests.get` loop, HTTPS, 8 threads",
        100.0,
        _ratio("poll", "https", "rate_to_naive", _SYNC),
        _POLL,
        True,
        0,
    ),
    "https-aio": Target(
        "polls/s × `requests.get` loop, HTTPS, `aio`, 32 in parallel",
        150.0,
        _ratio("poll", "https", "rate_to_naive", _AIO),
        _POLL,
        True,
        0,
    ),
    "layers": Target(
        "our layers without a network, CPU per poll × `requests.get`",
        0.06,
        _ratio("poll", "http", "cpu_to_naive", _LAYERS),
        _POLL,
    ),
    "peer-cpu-sync": Target(
        "waiting for 1,000: CPU per poll × azure-core `LROPoller`", 0.2, _relative_to_azure("taskbridge"), "Waiting"
    ),
    "peer-cpu-aio": Target(
        "waiting for 1,000, `aio`: CPU per poll × azure-core `LROPoller`",
        0.2,
        _relative_to_azure("taskbridge-async"),
        "Waiting",
    ),
    "requests": Target("waiting for 1,000, learned: requests per task", 8.5, _requests, "Waiting"),
    "delay-mean": Target("waiting for 1,000, learned: mean delay, s", 0.9, _worst_of_ours("mean"), "Waiting"),
    "delay-p95": Target("waiting for 1,000, learned: 95th percentile, s", 1.8, _worst_of_ours("p95"), "Waiting"),
    "bytes": Target("10,000 in flight: bytes per task above 100 in flight", 3000.0, _bytes, "In flight", digits=0),
    "threads-aio": Target(
        "10,000 in flight: threads, `aio`",
        0.0,
        _value("flight", "memory", "taskbridge-async", "threads"),
        "In flight",
        digits=0,
    ),
    "threads-sync": Target(
        "10,000 in flight: threads, synchronous",
        12.0,
        _value("flight", "memory", "taskbridge", "threads"),
        "In flight",
        digits=0,
    ),
    "flight-aio": Target(
        "10,000 in flight: CPU per poll × a thread per task, `aio`",
        0.20,
        _ratio("flight", "polls", "to_threads", "taskbridge-async"),
        "In flight",
    ),
    "flight-sync": Target(
        "10,000 in flight: CPU per poll × a thread per task, synchronous",
        0.20,
        _ratio("flight", "polls", "to_threads", "taskbridge"),
        "In flight",
    ),
    "cold-fixed": Target(
        "requests at equal mean delay, cold × fixed",
        1.05,
        _value("schedules", "distributions", "lognormal-1", "cold", "to_fixed"),
        "When to poll",
    ),
    "cold-exponential": Target(
        "requests at equal mean delay, cold × exponential",
        0.6,
        _value("schedules", "distributions", "lognormal-1", "cold", "to_exponential"),
        "When to poll",
    ),
    "optimum": Target(
        "distributions (of six) within 1.05 of the exact optimum, learned",
        5.0,
        _close_to_optimum,
        "When to poll",
        True,
        0,
    ),
    "limit": Target(
        "mean delay under one limit of 100 polls/s × round-robin",
        0.72,
        _value("schedules", "one_limit", "100", "ratio"),
        "When to poll",
    ),
    "lists": Target(
        "1,000 in flight: single polls per request, not counting final polls", 25.0, _lists, "Lists", True, 1
    ),
    "handed-in": Target(
        "3,000 ids handed in beside 33,000 tasks of others: requests per task, mean delay 2.5 s",
        0.4,
        _value("schedules", "handed_in", "2.5", "per_task"),
        "Lists",
    ),
    "growth-cpu": Target("1,000 to 50,000 tasks: growth of CPU per poll", 0.15, _growth("cpu"), "In flight"),
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
    **{
        f"{run}-{what}": Target(f"{tasks}: ends that are {seen}", 0.0, _many(run, what), "Stores", False, 0)
        for run, tasks in {
            "million": "a million tasks and a store in SQLite",
            "processes": "200,000 tasks, four processes and a store in PostgreSQL",
        }.items()
        for what, seen in {"lost": "lost", "doubled": "stored twice"}.items()
    },
    "store-cpu": Target("CPU per poll × without a store", 1.15, _value("store", "compared", "cpu_ratio"), "Stores"),
    "store-statements": Target(
        "statements per poll", 0.05, _value("store", "compared", "statements_per_poll"), "Stores", False, 3
    ),
    "store-events": Target(
        "ends stored per second, SQLite", 5000.0, _value("store", "events", "per_second"), "Stores", True, 0
    ),
    "restart": Target(
        "100,000 open tasks in SQLite: seconds until they are polled again",
        10.0,
        _value("store", "restart", "seconds"),
        "Stores",
        False,
        1,
    ),
    "restart-postgresql": Target(
        "1,000,000 open tasks in PostgreSQL: seconds until they are polled again",
        60.0,
        _value("store", "restart_postgresql", "seconds"),
        "Stores",
        False,
        1,
    ),
}

# Remarks shown next to a figure; `MISSES` only if the target is missed.
REASONS: Final[Mapping[str, str]] = {
    "large-memory": "the parser builds objects from the bytes; `json.loads` decodes them to text first",
    "peer-cpu-sync": "one run each, in real time; five rounds with few operations are in the table below it",
    "peer-cpu-aio": "as above",
    "requests": "simulated with uncut durations; delays and CPU are from the run in real time",
    "flight-aio": "compared with 500 threads at the same polls per second",
    "flight-sync": "as above",
}
MISSES: Final[Mapping[str, Callable[[Results], str]]] = {
    "translate": lambda _: "about half of it is spent on refusing duplicate keys, deep nesting and infinite numbers",
    "http-sync": _one_thread("http"),
    "http-aio": _bare("http"),
    "https-sync": _one_thread("https"),
    "https-aio": _bare("https"),
    "layers": lambda _: (
        "strict parsing and translation alone take a fifth of it; the rest is spread over the retry policy, the limiter "
        "and the schedule, about 100 calls of functions"
    ),
    "peer-cpu-sync": lambda _: "our layers above libcurl take more of the time of a poll than libcurl itself",
    "peer-cpu-aio": lambda _: "as above",
    "threads-aio": lambda _: "the thread of libcurl, one per client",
    "flight-aio": lambda _: "as for waiting for 1,000",
    "flight-sync": lambda _: "as for waiting for 1,000",
    "optimum": lambda _: "200 ends say less about a long tail or two narrow peaks than the optimum knows",
}


@dataclass(frozen=True)
class TargetResult:
    """A target and its measured value."""

    target: Target
    value: float | None
    reason: str

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not measured"
        return "met" if self.target.met(self.value) else "**missed**"


def evaluate(results: Results) -> dict[str, TargetResult]:
    """Return every target with its value; None for sections that were not measured."""
    evaluated: dict[str, TargetResult] = {}
    for key, target in TARGETS.items():
        try:
            value = target.figure(results)
        except KeyError:
            value = None
        missed = value is not None and not target.met(value)
        notes = (MISSES[key](results) if missed and key in MISSES else "", REASONS.get(key, ""))
        evaluated[key] = TargetResult(target, value, "; ".join(dict.fromkeys(filter(None, notes))))
    return evaluated
