"""What the library brings along: a closed list, each at or above the floor under which holes are known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import distribution, requires
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from .floors import floors, requirements

# Versions under which a hole is known that matters here, with the advisories.
HOLES: Final[Mapping[str, tuple[str, str]]] = {
    "requests": ("2.33", "CVE-2024-47081, CVE-2024-35195, CVE-2023-32681, CVE-2018-18074"),
    "urllib3": (
        "2.7",
        "CVE-2026-44431, CVE-2026-44432, CVE-2026-21441, CVE-2025-66471, CVE-2025-66418, CVE-2025-50181",
    ),
}
# All that an installation with every extra holds beside the library; something new is looked at before it comes in.
KNOWN: Final = frozenset(
    """
    aiohappyeyeballs aiohttp aiosignal annotated-doc annotated-types anyio attrs certifi charset-normalizer click
    colorama frozenlist h11 idna importlib-metadata jiter markdown-it-py mdurl multidict opentelemetry-api platformdirs
    propcache pydantic pydantic-core pygments python-dateutil requests rich six starlette stevedore typing-extensions
    typing-inspection tzdata urllib3 uvicorn yarl zipp pbr deprecated wrapt async-timeout
    """.split()  # noqa: SIM905  # a name is a word
)


def closure() -> dict[str, list[Requirement]]:
    """Every distribution that is installed for the library, with what its users ask of it."""
    found: dict[str, list[Requirement]] = {}
    waiting = list(requirements())
    while waiting:
        each = waiting.pop()
        name = canonicalize_name(each.name)
        is_new = name not in found
        found.setdefault(name, []).append(each)
        if is_new:
            waiting += asked_by(each)
    return found


def asked_by(user: Requirement) -> Iterator[Requirement]:
    """What a distribution asks for here, on this Python and with these extras."""
    for text in requires(user.name) or ():
        inner = Requirement(text)
        extras = user.extras or {""}
        if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in extras):
            yield inner


CLOSURE: Final = closure()


@pytest.mark.parametrize("name", sorted(CLOSURE))
def test_what_is_installed_is_what_its_users_ask_for(name: str) -> None:
    version = distribution(name).version
    for each in CLOSURE[name]:
        assert each.specifier.contains(version, prereleases=True), f"{name} {version} is not {each}"


@pytest.mark.parametrize("name", HOLES)
def test_nothing_with_a_known_hole_may_be_installed(name: str) -> None:
    floor, advisory = HOLES[name]
    assert Version(floors()[name]) >= Version(floor), advisory
    assert Version(distribution(name).version) >= Version(floor), advisory


def test_every_requirement_has_a_floor_and_no_ceiling() -> None:
    for each in requirements():
        assert [clause.operator for clause in each.specifier] == [">="], str(each)


def test_nothing_comes_along_unseen() -> None:
    assert set(CLOSURE) - KNOWN == set()
