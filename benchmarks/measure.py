"""Shared by all benchmarks: alternating rounds, medians and ranges, child processes, and the server."""

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
from taskbridge._config.registry import distribution_name

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent
KEY: Final = "k" * 20
ROUNDS: Final = 5

_VERSIONS: Final = (
    "aiohttp", "azure-core", "boto3", "click", "cloudconvert", "google-api-core", "httpx", "jiter", "orjson",
    "pycurl", "pydantic", "pyreqwest", "requests", "urllib3",
)  # fmt: skip
_direct = build_opener(ProxyHandler({}))


def machine() -> dict[str, Any]:
    """Return what the figures depend on; nothing that identifies the computer."""
    versions = {}
    for name in (distribution_name(), *_VERSIONS):
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": versions,
    }


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def in_turn(sides: Mapping[str, Callable[[], Any]], rounds: int = ROUNDS) -> dict[str, list[Any]]:
    """Run every side once per round, so that other load on the machine affects all of them."""
    measured: dict[str, list[Any]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            measured[name].append(side())
    return measured


def ratios(measured: Mapping[str, Sequence[float]], base: str) -> dict[str, dict[str, float]]:
    """Return the values of each side relative to those of the base in the same round."""
    return {
        name: summary([value / reference for value, reference in zip(values, measured[base], strict=True)])
        for name, values in measured.items()
    }


def cpu() -> float:
    """Return the CPU seconds of this process, including its threads."""
    return time.process_time()


def raise_file_limit() -> None:
    """Raise the limit of open files, for thousands of connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 20_000)), hard))


def environment() -> dict[str, str]:
    """Return the environment for child processes: without proxies and settings, with this folder on the path."""
    certificates = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith("TASKBRIDGE_") and name not in certificates
    }
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, (kept.get("PYTHONPATH"), str(ROOT))))
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return kept


class Child:
    """A Python process that reads lines of JSON and answers each with one line.

    Args:
        arguments: Command-line arguments for the interpreter.
    """

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def receive(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a child process ended early, with exit code {self.process.wait()}")
        return json.loads(line)

    def send(self, message: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def request(self, message: Any) -> Any:
        self.send(message)
        return self.receive()

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
        self.addresses: dict[str, str] = self.receive()
        self.http = self.addresses["http"]

    def begin(self, run: str, ids: Sequence[str] = ()) -> float:
        """Begin a run; return its Unix time."""
        return float(begin(self.http, run, ids))

    def counts(self, run: str) -> dict[str, int]:
        return json.loads(_direct.open(f"{self.http}/_counts/{run}").read())


def begin(base: str, run: str, ids: Sequence[str] = ()) -> float:
    request = Request(f"{base}/_begin/{run}", json.dumps(list(ids)).encode(), method="POST")
    return json.loads(_direct.open(request).read())["epoch"]


def delays_of(ids: Sequence[str], epoch: float, detected: Mapping[str, float]) -> dict[str, float]:
    """Return the mean and 95th percentile of the seconds between the end of a task and its detection."""
    delays = sorted(max(0.0, detected[task] - epoch - end_of(task)) for task in ids)
    return {"mean": statistics.fmean(delays), "p95": delays[min(len(delays) - 1, int(0.95 * len(delays)))]}
