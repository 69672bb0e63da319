"""Run the benchmarks, and write what they found: ``python -m benchmarks [--quick] [SECTION …]``."""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import time
from typing import Any, Final

from benchmarks.measure import HERE, ROOT, environment, machine, more_files
from benchmarks.targets import verdicts

SECTIONS: Final = ("translate", "poll", "flight", "schedules", "peers", "startup")
RESULTS: Final = HERE / "results.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure taskbridge beside its peers.")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="small sizes, for development; writes no results")
    parser.add_argument("--write", action="store_true", help="write the results of a quick run all the same")
    parser.add_argument("--report", action="store_true", help="only write tables and plots from results.json")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if unknown := set(asked.sections) - set(SECTIONS):
        parser.error(f"there is no section {', '.join(sorted(unknown))}")
    if asked.one:
        more_files()
        print(json.dumps(importlib.import_module(f"benchmarks.{asked.one}").run(quick=asked.quick)))
        return
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not asked.report:
        results = {**results, "machine": machine(), "quick": asked.quick}
        for name in asked.sections or SECTIONS:
            results[name] = _run(name, quick=asked.quick)
        if not asked.quick or asked.write:
            RESULTS.write_text(json.dumps(_rounded(results), indent=1) + "\n")
    if asked.report or not asked.quick or asked.write:
        from benchmarks.report import write  # it needs all results

        write(json.loads(RESULTS.read_text()))
    _show(results)


def _run(name: str, *, quick: bool) -> Any:
    """One section, in a process of its own."""
    start = time.perf_counter()
    print(f"{name} …", end=" ", flush=True)
    command = [sys.executable, "-m", "benchmarks", "--one", name, *(["--quick"] if quick else [])]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment(), cwd=ROOT)
    print(f"{time.perf_counter() - start:.0f} s", flush=True)
    return json.loads(done.stdout)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _show(results: dict[str, Any]) -> None:
    for verdict in verdicts(results).values():
        target = verdict.target
        value = "-" if verdict.value is None else f"{verdict.value:,.{max(2, target.digits)}f}"
        bound = f"{'≥' if target.least else '≤'} {target.limit:g}"
        print(f"{verdict.words.strip('*'):12} {value:>10} ({bound:>7})  {target.what.replace('`', '')}")


if __name__ == "__main__":
    main()
