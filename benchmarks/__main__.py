"""Run the benchmarks and write their results: ``python -m benchmarks [--quick] [SECTION …]``."""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import time
from typing import Any, Final

from benchmarks.measure import HERE, ROOT, environment, machine, raise_file_limit
from benchmarks.targets import evaluate

SECTIONS: Final = ("translate", "poll", "flight", "schedules", "peers", "startup")
LONG: Final = ("store", "processes", "million")  # only if asked for
RESULTS: Final = HERE / "results.json"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure taskbridge and comparable libraries."
    )
    parser.add_argument(
        "sections",
        nargs="*",
        metavar="SECTION",
        help=f"one of {', '.join(SECTIONS + LONG)}; default: all but the last {len(LONG)}",
    )
    parser.add_argument("--quick", action="store_true", help="use small sizes, for development; do not write results")
    parser.add_argument("--write", action="store_true", help="write results even with --quick")
    parser.add_argument(
        "--report", action="store_true", help="measure nothing; write tables and plots from results.json"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := set(arguments.sections) - {*SECTIONS, *LONG}:
        parser.error(f"unknown section: {', '.join(sorted(unknown))}")
    if arguments.one:
        raise_file_limit()
        print(json.dumps(importlib.import_module(f"benchmarks.{arguments.one}").run(quick=arguments.quick)))
        return
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not arguments.report:
        results = {**results, "machine": machine(), "quick": arguments.quick}
        for name in arguments.sections or SECTIONS:
            results[name] = _run(name, quick=arguments.quick)
            if not arguments.quick or arguments.write:  # at once: a later section may fail after an hour
                RESULTS.write_text(json.dumps(_rounded(results), indent=1) + "\n")
    if arguments.report or not arguments.quick or arguments.write:
        from benchmarks.report import write  # needs matplotlib

        write(json.loads(RESULTS.read_text()))
    _show(results)


def _run(name: str, *, quick: bool) -> Any:
    """Run one section in its own process."""
    start = time.perf_counter()
    print(f"{name} …", end=" ", flush=True)
    command = [sys.executable, "-m", "benchmarks", "--one", name, *(["--quick"] if quick else [])]
    process = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment(), cwd=ROOT)
    print(f"{time.perf_counter() - start:.0f} s", flush=True)
    return json.loads(process.stdout)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _show(results: dict[str, Any]) -> None:
    for result in evaluate(results).values():
        target = result.target
        value = "-" if result.value is None else f"{result.value:,.{max(2, target.digits)}f}"
        bound = f"{'≥' if target.at_least else '≤'} {target.limit:g}"
        print(f"{result.verdict.strip('*'):12} {value:>10} ({bound:>7})  {target.what.replace('`', '')}")


if __name__ == "__main__":
    main()
