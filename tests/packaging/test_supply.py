"""The dependencies: a closed list, each at or above the floor below which vulnerabilities are known."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import distribution, requires
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from .floors import floors, requirements

# Minimum versions, because older ones have vulnerabilities that matter here, with the advisories.
VULNERABLE_BELOW: Final[Mapping[str, tuple[str, str]]] = {
    "requests": ("2.33", "CVE-2024-47081, CVE-2024-35195, CVE-2023-32681, CVE-2018-18074"),
    "urllib3": (
        "2.7",
        "CVE-2026-44431, CVE-2026-44432, CVE-2026-21441, CVE-2025-66471, CVE-2025-66418, CVE-2025-50181",
    ),
}
# Everything that an installation with all extras contains besides the library. Review a package before you add it.
KNOWN: Final = frozenset(
    """
    annotated-doc annotated-types anyio certifi charset-normalizer click colorama fsspec h11 idna importlib-metadata
    jinja2 jiter prometheus-client
    markdown-it-py mdurl opentelemetry-api platformdirs puremagic pycurl pydantic pydantic-core pygments
    python-dateutil requests rich six starlette stevedore typing-extensions typing-inspection tzdata urllib3 uvicorn
    zipp pbr deprecated wrapt
    amqp billiard celery click-didyoumean click-plugins click-repl kombu packaging prompt-toolkit tzlocal vine wcwidth
    alembic backports-tarfile cffi cryptography jaraco-classes jaraco-context jaraco-functools jeepney keyring
    lazy-importer mako markupsafe more-itertools psycopg psycopg-binary pycparser secretstorage sqlalchemy
    """.split()  # noqa: SIM905  # shorter than a list of strings
)


def closure() -> dict[str, list[Requirement]]:
    """Return every distribution that the library needs, with the requirements that others have of it."""
    found: dict[str, list[Requirement]] = {}
    waiting = list(requirements())
    while waiting:
        each = waiting.pop()
        name = canonicalize_name(each.name)
        is_new = name not in found
        found.setdefault(name, []).append(each)
        if is_new:
            waiting += requirements_of(each)
    return found


def requirements_of(user: Requirement) -> Iterator[Requirement]:
    """Yield the requirements of a distribution on this Python and with these extras."""
    for text in requires(user.name) or ():
        inner = Requirement(text)
        extras = user.extras or {""}
        if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in extras):
            yield inner


CLOSURE: Final = closure()


@pytest.mark.parametrize("name", sorted(CLOSURE))
def test_installed_versions_satisfy_all_requirements(name: str) -> None:
    version = distribution(name).version
    for each in CLOSURE[name]:
        assert each.specifier.contains(version, prereleases=True), f"{name} {version} is not {each}"


@pytest.mark.parametrize("name", VULNERABLE_BELOW)
def test_no_version_with_a_known_vulnerability_is_allowed(name: str) -> None:
    floor, advisory = VULNERABLE_BELOW[name]
    assert Version(floors()[name]) >= Version(floor), advisory
    assert Version(distribution(name).version) >= Version(floor), advisory


def test_every_requirement_has_a_floor_and_no_ceiling() -> None:
    for each in requirements():
        assert [clause.operator for clause in each.specifier] == [">="], str(each)


def test_every_dependency_has_been_reviewed() -> None:
    assert set(CLOSURE) - KNOWN == set()


ROOT: Final = Path(__file__).resolve().parents[2]
IMPORT_NAMES: Final[Mapping[str, str]] = {
    "dateutil": "python-dateutil",
    "opentelemetry": "opentelemetry-api",
    "prometheus_client": "prometheus-client",
    "pydantic_core": "pydantic",  # which requires exactly one version of it
}
# Imported only by code that runs where they are installed.
OPTIONAL: Final = frozenset({"django", "fastapi", "flask", "pytest", "tqdm"})


def imported() -> dict[str, Path]:
    """Return the distributions that the library and its providers import, each with one file that imports it."""
    found: dict[str, Path] = {}
    for path in [*(ROOT / "taskbridge").rglob("*.py"), *(ROOT / "providers").rglob("*.py")]:
        if "template" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            for module in modules:
                top = module.partition(".")[0]
                if top not in sys.stdlib_module_names and not top.startswith("taskbridge"):
                    found[IMPORT_NAMES.get(top, top)] = path
    return found


def test_everything_imported_is_declared() -> None:
    declared = {canonicalize_name(each.name) for each in requirements()}
    assert {name: path for name, path in imported().items() if name not in declared | OPTIONAL} == {}
