"""What all benchmarks share: rounds in turn, medians and ranges, child processes, and the server."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Self
from urllib.request import ProxyHandler, Request, build_opener

from benchmarks.vendor import end_of

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent
KEY: Final = "k" * 20
ROUNDS: Final = 5

_VERSIONS: Final = (
    "taskbridge", "aiohttp", "azure-core", "boto3", "click", "cloudconvert", "google-api-core", "jiter", "orjson",
    "pydantic", "requests", "urllib3",
)  # fmt: skip
_direct = build_opener(ProxyHandler({}))


def machine() -> dict[str, Any]:
    """What the figures depend on; nothing that tells whose computer it is."""
    found = {}
    for name in _VERSIONS:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return {
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": found,
    }


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def in_turn(sides: Mapping[str, Callable[[], Any]], rounds: int = ROUNDS) -> dict[str, list[Any]]:
    """Every side once in each round, so that what the machine does meanwhile meets all of them."""
    found: dict[str, list[Any]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            found[name].append(side())
    return found


def ratios(found: Mapping[str, Sequence[float]], base: str) -> dict[str, dict[str, float]]:
    """Each side's values as a ratio to those of one side in the same round."""
    return {
        name: summary([mine / theirs for mine, theirs in zip(values, found[base], strict=True)])
        for name, values in found.items()
    }


def cpu() -> float:
    """Seconds of CPU that this process has used, its threads included."""
    return time.process_time()


def more_files() -> None:
    """Lift the limit of open files, for thousands of connections."""
    least, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, max(least, 20_000)), most))


def environment() -> dict[str, str]:
    """The environment of child processes: no proxies, no foreign settings, and this folder to import from."""
    external = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith("TASKBRIDGE_") and name not in external
    }
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, (kept.get("PYTHONPATH"), str(ROOT))))
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return kept


class Child:
    """A process of ours that is sent lines of JSON and answers each with one.

    Args:
        arguments: What follows the interpreter.
    """

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def hear(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a process ended early, with {self.process.wait()}")
        return json.loads(line)

    def tell(self, said: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(said) + "\n")
        self.process.stdin.flush()

    def ask(self, said: Any) -> Any:
        self.tell(said)
        return self.hear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


class Server(Child):
    """The benchmark server in its own process."""

    def __init__(self, *, tls: bool = False) -> None:
        super().__init__("-m", "benchmarks.server", *(["--tls"] if tls else []))
        self.told: dict[str, str] = self.hear()
        self.http = self.told["http"]

    def begin(self, run: str, ids: Sequence[str] = ()) -> float:
        """Begin a run; its Unix time."""
        return float(begin(self.http, run, ids))

    def counts(self, run: str) -> dict[str, int]:
        return json.loads(_direct.open(f"{self.http}/_counts/{run}").read())


def begin(base: str, run: str, ids: Sequence[str] = ()) -> float:
    request = Request(f"{base}/_begin/{run}", json.dumps(list(ids)).encode(), method="POST")
    return json.loads(_direct.open(request).read())["epoch"]


def lateness(ids: Sequence[str], epoch: float, told: Mapping[str, float]) -> dict[str, float]:
    """Mean and 95th percentile of the seconds from a task's end to the news of it."""
    delays = sorted(max(0.0, told[task] - epoch - end_of(task)) for task in ids)
    return {"mean": statistics.fmean(delays), "p95": delays[min(len(delays) - 1, int(0.95 * len(delays)))]}
