"""Whole processes: import, connect and ``taskbridge --version``, compared with scripts that only import."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.measure import HERE, environment, in_turn, ratios

_CONNECT: Final = 'import taskbridge as tb; tb.connect("cloudconvert", api_key="k" * 20)'


def run(*, quick: bool) -> dict[str, Any]:
    rounds = 5 if quick else 15
    command = Path(sys.executable).with_name("taskbridge")
    version = [str(command), "--version"] if command.exists() else [sys.executable, "-m", "taskbridge", "--version"]
    models = str(HERE / "same_models.py")
    sides = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import taskbridge": [sys.executable, "-c", "import taskbridge"],
        "import click": [sys.executable, "-c", "import click"],
        "taskbridge --version": version,
        "pydantic, requests and the same models": [sys.executable, models],
        "the same, models built at once": [sys.executable, models, "at-once"],
        "tb.connect": [sys.executable, "-c", _CONNECT],
    }
    for arguments in sides.values():
        subprocess.run(arguments, check=True, capture_output=True, env=environment())  # compiles the modules
    measured = in_turn({name: _process(arguments) for name, arguments in sides.items()}, rounds)
    return {
        "to_empty": ratios(measured, "python -c pass"),
        "version_to_click": ratios(measured, "import click")["taskbridge --version"],
        "connect_to_models": ratios(measured, "pydantic, requests and the same models")["tb.connect"],
        "connect_to_models_at_once": ratios(measured, "the same, models built at once")["tb.connect"],
    }


def _process(arguments: list[str]) -> Callable[[], float]:
    def side() -> float:
        start = time.perf_counter()
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, env=environment())
        return time.perf_counter() - start

    return side
