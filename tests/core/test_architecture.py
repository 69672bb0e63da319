"""Who may import whom: folders from left to right only, and no cycle anywhere. Read from the source, nothing runs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import FrameType
from typing import cast

import pytest

ROOT = Path(__file__).parents[2]

# Folders and single modules from left to right; each imports from its own group and from those to its left. Imports for
# type checkers only count like any others.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("_conversion", "_fork", "_lazy", "_redaction", "errors", "layout", "models", "events"),
    ("provider",),
    ("transport", "event_bus"),
    ("_config",),
    ("_engine",),
    ("_polling",),
    ("_transport",),
    ("_runtime",),
    ("client", "aio"),
    ("_public",),
    ("store",),
    ("contrib",),
    ("serve",),
    ("otel", "progress", "notebook", "celery", "emulator", "testing", "scaffold", "cli", "__main__"),
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}

# The exceptions, all inside a function: a model asks for its HTML in a notebook, and `Watcher` and `Relay` of
# `taskbridge.aio` are second names of parts of the optional store.
ALLOWED = {
    ("taskbridge.models", "taskbridge.notebook"),
    ("taskbridge.aio", "taskbridge.store.relay"),
    ("taskbridge.aio", "taskbridge.store.watcher"),
}
# `errors` and `models` are one unit: an error holds a task, and a task is checked with errors.
ONE_UNIT = {("taskbridge.errors", "taskbridge.models")}

MODULES = [path for path in sorted((ROOT / "taskbridge").rglob("*.py")) if "template" not in path.parts]
PROVIDERS = sorted((ROOT / "providers").glob("taskbridge_*/*.py"))
HTTP_LIBRARIES = {"requests", "aiohttp", "urllib3", "httpx", "pycurl", "fsspec"}
HTTP_ELSEWHERE = {
    "taskbridge.cli.demo_vendors": frozenset({"requests"}),  # acts as the vendors' own clients do
}


def dotted(path: Path) -> str:
    """``taskbridge._transport.requests`` for its file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> Iterator[str]:
    """Absolute names of the modules that a file imports anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield "." * node.level + (node.module or "")
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = {f"{module}.{alias.name}" for alias in node.names}
            yield from (names & KNOWN) or {module}


KNOWN = {dotted(path) for path in MODULES}
GRAPH = {dotted(path): {name for name in imported(path) if name in KNOWN} - {dotted(path)} for path in MODULES}


def layer_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_every_module_has_a_layer() -> None:
    assert {layer_of(name) for name in KNOWN} - {""} == set(RANK)


def test_every_module_is_in_the_documented_layout() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    layout = page.partition("## Layout")[2].partition("\n## ")[0]
    documented = set(re.findall(r"\w+", layout))
    assert {name for name in RANK if name not in documented} == set()


@pytest.mark.parametrize("module", sorted(KNOWN - {"taskbridge"}))
def test_a_module_imports_only_from_its_own_layer_and_those_below(module: str) -> None:
    rank = RANK[layer_of(module)]
    wrong = [name for name in GRAPH[module] if RANK.get(layer_of(name), -1) > rank and (module, name) not in ALLOWED]
    assert wrong == []


def test_there_is_no_import_cycle() -> None:
    graph = {
        module: {name for name in names if (module, name) not in ALLOWED | ONE_UNIT and name != "taskbridge"}
        for module, names in GRAPH.items()
    }
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def reachable(module: str) -> set[str]:
    """Every module of ours that a module imports, directly or not."""
    found: set[str] = set()
    pending = [module]
    while pending:
        current = pending.pop()
        for name in GRAPH[current] - found - {"taskbridge"} - {to for start, to in ALLOWED if start == current}:
            found.add(name)
            pending.append(name)
    return found


def test_the_two_interfaces_import_nothing_from_each_other() -> None:
    assert reachable("taskbridge.aio") & {"taskbridge.client", "taskbridge._runtime.sync"} == set()
    assert reachable("taskbridge.client") & {"taskbridge.aio", "taskbridge._runtime.aio"} == set()


@pytest.mark.parametrize("folder", sorted({path.parent for path in PROVIDERS}), ids=lambda folder: folder.name)
def test_the_files_of_a_provider_have_no_cycle(folder: Path) -> None:
    graph = {
        path.stem: {name.lstrip(".") for name in imported(path) if name.startswith(".")} for path in folder.glob("*.py")
    }
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_only_the_transports_import_an_http_library(path: Path) -> None:
    if layer_of(dotted(path)) in ("_transport", "emulator"):
        return
    libraries = {name.partition(".")[0] for name in imported(path)} & HTTP_LIBRARIES
    assert libraries <= HTTP_ELSEWHERE.get(dotted(path), frozenset())


@pytest.mark.parametrize("path", [*MODULES, *PROVIDERS], ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_system_clock_sleeps(path: Path) -> None:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    uses = [ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)]
    expected = 1 if path == ROOT / "taskbridge" / "provider" / "clock.py" else 0
    assert uses.count("time.sleep") == expected


@pytest.mark.parametrize("path", PROVIDERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_provider_imports_only_the_public_packages(path: Path) -> None:
    emulates = path.name.startswith("emulator")
    for name in imported(path):
        assert not name.startswith("providers")
        if name.startswith("taskbridge_"):
            pytest.fail(f"imports {name}; imports within a folder are relative, and there are no others")
        if name.startswith("taskbridge"):
            allowed = ("emulator",) if emulates else ("errors", "layout", "models", "provider")
            within = name.split(".")[1:]
            assert not within or (within[0] in allowed and (emulates or len(within) == 1))
        if name.startswith("."):
            assert name.lstrip(".").startswith("emulator") == emulates or path.name == "__init__.py"
        assert name.partition(".")[0] not in HTTP_LIBRARIES | {"socket"}


@pytest.mark.parametrize("path", [p for p in PROVIDERS if p.name == "provider.py"], ids=lambda p: p.parent.name)
def test_a_provider_reads_neither_clock_nor_environment(path: Path) -> None:
    names = {name.partition(".")[0] for name in imported(path)}
    assert names & {"time", "os", "random", "threading", "asyncio", "socket", "logging"} == set()


HEAVY = (
    "requests",
    "pycurl",
    "puremagic",
    "stevedore",
    "click",
    "rich",
    "pydantic",
    "urllib3",
    "jiter",
    "starlette",
    "pytest",
)


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
        ("import taskbridge; taskbridge.connect; taskbridge.providers", ("requests", "pycurl", "click", "rich")),
        ("import taskbridge.testing", HEAVY),
        ("from taskbridge.testing import VirtualClock", ("pytest", "starlette", "uvicorn", "pycurl", "requests")),
        ("from taskbridge.testing import ScriptedTransport", ("pytest", "starlette", "uvicorn", "pycurl", "requests")),
        ("from taskbridge.emulator import Plan, VendorClock", ("pytest", "uvicorn", "pycurl", "requests")),
        (
            "import taskbridge; taskbridge.connect('cloudconvert', api_key='test-key-123')",
            ("pycurl", "asyncio", "click", "rich"),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unneeded_modules_are_not_loaded(code: str, free_of: tuple[str, ...]) -> None:
    assert loaded_by(code) & set(free_of) == set()


def test_the_public_names_are_sorted_and_exist() -> None:
    import taskbridge  # noqa: PLC0415  # only here

    names = cast("list[str]", taskbridge.__all__)
    assert names == sorted(names)
    assert all(getattr(taskbridge, name) is not None for name in names)
    assert set(names) <= set(dir(taskbridge))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        taskbridge.nothing  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


# A request from top to bottom: a `get` on a connection that has been used before.

MAX_FILES = 12
MAX_FUNCTIONS = 90
MAX_CALLS = 140


@pytest.fixture(scope="module")
def warm_get() -> list[tuple[str, str]]:
    """File and name of each of our functions that a warm `get` calls, in order."""
    import taskbridge as tb  # noqa: PLC0415  # the tests above need a process without it
    from taskbridge.testing import Emulator  # noqa: PLC0415

    calls: list[tuple[str, str]] = []
    own = (f"{ROOT}/taskbridge/", f"{ROOT}/providers/")

    def record(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(own):
            calls.append((frame.f_code.co_filename.removeprefix(f"{ROOT}/"), frame.f_code.co_qualname))

    with (
        Emulator("cloudconvert") as emulator,
        tb.connect("cloudconvert", transport="requests", **emulator.settings()) as client,
    ):
        task_id = emulator.samples()["completed"]
        client.get(task_id)
        client.get(task_id)
        before = sys.getprofile()
        sys.setprofile(record)
        try:
            client.get(task_id)
        finally:
            sys.setprofile(before)
    return calls


def test_a_warm_get_is_short(warm_get: list[tuple[str, str]]) -> None:
    assert len(warm_get) <= MAX_CALLS
    assert len(set(warm_get)) <= MAX_FUNCTIONS
    assert len({file for file, _ in warm_get}) <= MAX_FILES


def test_the_documented_path_of_a_get_is_the_real_one(warm_get: list[tuple[str, str]]) -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = page.partition("## A request from top to bottom")[2].partition("\n## ")[0]
    documented = set(re.findall(r"`((?:taskbridge|providers)/[\w/]+\.py)`", section))
    assert documented == {file for file, _ in warm_get}
