"""The targets pass for their seeds and similar inputs, and a short run of the fuzzer finds nothing."""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .targets import SEEDS, TARGETS, fuzz_json

HERE = Path(__file__).parent


def neighbors(seed: bytes) -> Iterator[bytes]:
    """Yield a seed, truncations of it, and copies with a byte changed; always the same ones."""
    chance = random.Random(seed)
    yield seed
    for _ in range(12):
        place = chance.randrange(len(seed) + 1)
        yield seed[:place]
        yield seed[:place] + bytes([chance.randrange(256)]) + seed[place + 1 :]


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_and_their_neighbors_pass(name: str) -> None:
    assert SEEDS[name]
    for seed in SEEDS[name]:
        for data in neighbors(seed):
            TARGETS[name](data)


def test_a_target_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def infinite(_data: bytes) -> float:
        return float("inf")

    monkeypatch.setitem(fuzz_json.__globals__, "read_json", infinite)
    with pytest.raises(ValueError, match="not JSON compliant"):
        fuzz_json(b"1e400")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this Python")
def test_a_short_run_finds_nothing(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, str(HERE), "all", "60", "-runs=3000", "-seed=1", "-verbosity=0", str(tmp_path)],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    assert "number_of_executed_units: 3000" in run.stderr
