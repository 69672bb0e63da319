"""Results that a vendor gives once are kept in bounds, and their files end with the process that fetched them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from taskbridge._engine.kept_results import KeptResults
from taskbridge.provider.http import Response

MANY = 300
HALF = 600 << 20  # bytes, of a sparse file

CHILD = """
import os, sys
from taskbridge._engine.kept_results import KeptResults
from taskbridge.provider.http import Response

results = KeptResults()
path = results.new_path()
path.write_bytes(b"x" * 100_000)
results.keep("large", Response(200), path)
if os.fork() == 0:
    kept = results.find("large")
    assert kept.content.read_bytes() == b"x" * 100_000
    results.new_path()
    sys.exit(0)
_, status = os.wait()
assert status == 0 and path.exists()
print(path)
"""


def keep(results: KeptResults, url: str, size: int) -> Path:
    path = results.new_path()
    with path.open("wb") as file:
        file.truncate(size)
    results.keep(url, Response(200, {"content-type": "a/b", "content-length": "7"}), path)
    return path


def test_small_results_stay_in_memory_and_the_oldest_make_room() -> None:
    results = KeptResults()
    paths = [keep(results, str(number), 10) for number in range(MANY)]
    assert not any(path.exists() for path in paths)
    assert sum(results.find(str(number)) is not None for number in range(MANY)) == 256
    newest = results.find(str(MANY - 1))
    assert newest is not None
    assert (newest.content, newest.headers, newest.size) == (bytes(10), {"content-type": "a/b"}, 10)
    for number in range(MANY):
        results.note_broken(str(number))
    assert sum(results.is_broken(str(number)) for number in range(MANY)) == 256


def test_a_result_that_a_caller_has_makes_no_room() -> None:
    results = KeptResults()
    first = keep(results, "one", HALF)
    assert results.begin("one")
    second, third = (keep(results, url, HALF) for url in ("two", "three"))
    assert (first.exists(), second.exists(), third.exists()) == (True, False, True)
    results.end("one")


def test_large_results_are_files_of_a_limited_total() -> None:
    results = KeptResults()
    first, second = (keep(results, url, HALF) for url in ("one", "two"))
    assert (first.exists(), second.exists()) == (False, True)
    assert results.find("one") is None
    second.unlink()
    assert results.find("two") is None  # removed from outside


def test_the_files_end_with_their_process_not_with_a_forked_child() -> None:
    ended = subprocess.run([sys.executable, "-c", CHILD], check=True, capture_output=True, text=True, timeout=60)
    path = Path(ended.stdout.strip())
    assert path.name == "1"
    assert not path.parent.exists()
