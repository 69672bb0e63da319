"""Who may import whom: from left to right only. Read from the source, so that nothing has to be imported for it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Layers from left to right; a module imports from its own layer and from those to its left.
LAYERS: tuple[tuple[str, ...], ...] = (
    (
        "audience",
        "errors",
        "fetch",
        "filenames",
        "http",
        "logs",
        "model",
        "notebook",
        "observing",
        "results",
        "secrecy",
        "signatures",
        "sink",
        "submission",
    ),
    ("capabilities", "dialogue", "provider", "reading"),
    ("config", "config_file", "governor", "policy", "registry", "schedule", "settings", "surroundings"),
    (
        "attempts",
        "channel",
        "checkup",
        "downloads",
        "fleet",
        "flows",
        "inbox",
        "ingest",
        "items",
        "landing",
        "lanes",
        "lifecycle",
        "listing",
        "looking",
        "orders",
        "steps",
        "witness",
    ),
    ("drive", "drive_async", "transport"),
    (
        "aio",
        "aio_verbs",
        "assemble",
        "calls",
        "client",
        "client_verbs",
        "crew",
        "crew_async",
        "front",
        "otel",
        "progress",
        "webhooks",
    ),
    ("cli", "emulator", "scaffold", "testing", "__main__"),
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}

MODULES = sorted((ROOT / "taskbridge").rglob("*.py"))
PROVIDERS = sorted((ROOT / "providers").glob("taskbridge_*/*.py"))


def imported(path: Path) -> Iterator[tuple[str, bool]]:
    """Absolute names of what a file imports, and whether only for type checkers."""
    yield from _imported(ast.parse(path.read_text(encoding="utf-8")), typing_only=False)


def _imported(node: ast.AST, *, typing_only: bool) -> Iterator[tuple[str, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, typing_only) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield "." * child.level + (child.module or ""), typing_only
            if child.level == 0 and child.module == "taskbridge":
                yield from ((f"taskbridge.{alias.name}", typing_only) for alias in child.names)
        redact_errors = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        yield from _imported(child, typing_only=typing_only or redact_errors)


def name_of(path: Path) -> str:
    """Name of the module's layer: ``taskbridge/transport/shared.py`` is of ``transport``."""
    return path.relative_to(ROOT / "taskbridge").parts[0].removesuffix(".py")


def test_every_module_has_a_layer() -> None:
    assert {name_of(path) for path in MODULES} - {"__init__"} == set(RANK)


def test_every_module_stands_in_the_documented_layout() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("## Layout")[2].partition("\n## ")[0]
    told = {name for row in table.splitlines() if row.startswith("|") for name in re.findall(r"`(\w+)`", row)}
    assert set(RANK) - {"__main__"} - told == set()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_from_its_left_only(path: Path) -> None:
    if path == ROOT / "taskbridge" / "__init__.py":
        return  # lazy: it knows everybody
    mine = RANK[name_of(path)]
    wrong = [
        name
        for name, typing_only in imported(path)
        if name.startswith("taskbridge.") and not typing_only and RANK.get(name.split(".")[1], -1) > mine
    ]
    assert wrong == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_transport_knows_an_http_library(path: Path) -> None:
    if name_of(path) in ("transport", "emulator"):
        return
    libraries = {name.partition(".")[0] for name, _ in imported(path)} & {"requests", "aiohttp", "urllib3", "httpx"}
    allowed = {"aiohttp"} if path.name == "aio.py" else set[str]()  # it says which extra is missing
    assert libraries <= allowed


@pytest.mark.parametrize("path", [*MODULES, *PROVIDERS], ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_systems_clock_sleeps(path: Path) -> None:
    calls = [
        ast.unparse(node.func)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]
    expected = 1 if path == ROOT / "taskbridge" / "policy.py" else 0
    assert calls.count("time.sleep") == expected


@pytest.mark.parametrize("path", PROVIDERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_providers_files_keep_to_themselves(path: Path) -> None:
    emulates = path.name.startswith("emulator")
    for name, _ in imported(path):
        assert not name.startswith("providers")
        if name.startswith("taskbridge_"):
            pytest.fail(f"imports {name}; imports within a folder are relative, and there are no others")
        if name.startswith("taskbridge"):
            allowed = ("taskbridge.emulator",) if emulates else tuple(f"taskbridge.{m}" for m in _FOR_PROVIDERS)
            assert name == "taskbridge" or name.startswith(allowed)
        if name.startswith("."):
            assert name.lstrip(".").startswith("emulator") == emulates or path.name == "__init__.py"
        assert name.partition(".")[0] not in ("requests", "aiohttp", "urllib3", "httpx", "socket")


_FOR_PROVIDERS = ("errors", "http", "model", "provider", "signatures", "submission")


@pytest.mark.parametrize("path", [p for p in PROVIDERS if p.name == "provider.py"], ids=lambda p: p.parent.name)
def test_a_provider_reads_no_clock_and_no_environment(path: Path) -> None:
    names = {name.partition(".")[0] for name, _ in imported(path)}
    assert names & {"time", "os", "random", "threading", "asyncio", "socket", "logging"} == set()


HEAVY = ("requests", "aiohttp", "stevedore", "click", "rich", "pydantic", "urllib3", "jiter", "starlette", "pytest")


def loaded_by(code: str) -> set[str]:
    """What a fresh interpreter has loaded after some code."""
    script = f"import sys\n{code}\nprint(*sorted(n.partition('.')[0] for n in sys.modules))"
    return set(
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    )


@pytest.mark.parametrize(
    ("code", "free_of"),
    [
        ("import taskbridge", HEAVY),
        ("import taskbridge; taskbridge.connect; taskbridge.providers", ("requests", "aiohttp", "click", "rich")),
        ("import taskbridge.testing", HEAVY),
        ("from taskbridge.testing import VirtualClock", ("pytest", "starlette", "uvicorn", "aiohttp", "requests")),
        ("from taskbridge.testing import ScriptedTransport", ("pytest", "starlette", "uvicorn", "aiohttp", "requests")),
        ("from taskbridge.emulator import Plan, VendorClock", ("pytest", "uvicorn", "aiohttp", "requests")),
        ("import taskbridge; taskbridge.connect('cloudconvert', api_key='k-of-nobody')", ("aiohttp", "click", "rich")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_needed_is_not_loaded(code: str, free_of: tuple[str, ...]) -> None:
    assert loaded_by(code) & set(free_of) == set()


def test_the_public_names_are_sorted_and_all_there() -> None:
    import taskbridge  # noqa: PLC0415  # only here

    assert taskbridge.__all__ == sorted(taskbridge.__all__)
    assert all(getattr(taskbridge, name) is not None for name in taskbridge.__all__)
    assert set(taskbridge.__all__) <= set(dir(taskbridge))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        taskbridge.nothing  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
