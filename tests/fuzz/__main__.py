"""Fuzz with coverage guidance; needs atheris (``pip install --group fuzz``).

    make fuzz                                   each target for five minutes
    python tests/fuzz response 3600             one target for an hour
    python tests/fuzz all 60 -runs=5000         all in one, with an option of libFuzzer
    python tests/fuzz response .fuzz/crash-0a1b…  run one input again

The corpus is kept in ``.fuzz/<target>``, inputs that break a promise in ``.fuzz/crash-…``. Half of the inputs are
mutated as documents instead of by the engine: a value is replaced, removed or moved.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
KEPT: Final = HERE.parents[1] / ".fuzz"
WORDS: Final = HERE / "words.dict"
PREFIX: Final = {"response": 2, "webhook": 3}  # bytes before a document
POOL: Final[tuple[Any, ...]] = (
    None, True, False, 0, 1, -1, 44, 2**63, 10**400, 0.5, 1e308, "", "x", "x" * 5000, "\ud800", "a\0b", "a\nb",
    "\u202e", [], {}, [[]], [{}], "finished", "completed", "error", "failed", "Processed", "ExportFailed", "SUCCESS",
    "FAILURE", "9999-12-31T23:59:59+00:00", "0001-01-01T00:00:00+14:00", "2026-11-22T12:00:00", "*",
)  # fmt: skip


def main() -> None:
    """Fuzz, or run one input."""
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    engine: Any = import_module("atheris")
    name, what = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "300"
    sys.path[:0] = [str(HERE), str(HERE.parents[1] / "providers"), str(HERE.parents[1])]
    with engine.instrument_imports(include=["taskbridge", "taskbridge_cloudconvert", "taskbridge_scan_documents",
                                             "taskbridge_smartdocumentor", "taskbridge_expertai_extract"]):  # fmt: skip
        targets = import_module("targets")
    target = targets.fuzz_all if name == "all" else targets.TARGETS[name]
    if not what.isdigit():
        target(Path(what).read_bytes())
        return
    corpus = KEPT / name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in seeds(targets, name):
        (corpus / sha256(seed).hexdigest()[:16]).write_bytes(seed)
    options = [f"-max_total_time={what}", "-max_len=4096", "-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1"]
    arguments = [sys.argv[0], *options, f"-dict={WORDS}", f"-artifact_prefix={KEPT}/", *sys.argv[3:], str(corpus)]
    if name in PREFIX:
        skip = PREFIX[name]

        def mutate(data: bytes, size: int, seed: int) -> bytes:
            return mutated(data, size, seed, skip) or bytes(engine.Mutate(data, size))

        engine.Setup(arguments, target, custom_mutator=mutate)
    else:
        engine.Setup(arguments, target)
    engine.Fuzz()


def seeds(targets: Any, name: str) -> Iterator[bytes]:
    """Yield the seeds of a target."""
    if name != "all":
        yield from targets.SEEDS[name]
        return
    for number, each in enumerate(targets.TARGETS):
        yield from (bytes([number]) + seed for seed in targets.SEEDS[each])


def mutated(data: bytes, size: int, seed: int, skip: int) -> bytes:
    """Return an input mutated as a document half of the time, if it is one; else nothing."""
    if seed & 1:
        chance = random.Random(seed)
        try:
            document = json.loads(data[skip:])
        except (ValueError, RecursionError):
            document = None
        if isinstance(document, (dict, list)) and document:
            for _ in range(chance.randint(1, 3)):
                change(document, chance)
            changed = data[:skip] + json.dumps(document).encode()
            if len(changed) <= size:
                return changed
    return b""


def change(document: Any, chance: random.Random) -> None:
    """Replace, remove or move a value."""
    places = list(inside(document))
    if not places:
        return
    parent, key = chance.choice(places)
    match chance.randrange(4):
        case 0:
            del parent[key]
        case 1:
            other, place = chance.choice(places)
            parent[key] = json.loads(json.dumps(other[place]))
        case _:
            parent[key] = chance.choice(POOL)


def inside(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place in a document: its container and its key."""
    keys: Any = list(value) if value.__class__ is dict else range(len(value)) if value.__class__ is list else ()
    for key in keys:
        yield value, key
        yield from inside(value[key])


if __name__ == "__main__":
    main()
