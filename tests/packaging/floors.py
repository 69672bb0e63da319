"""Prints the oldest versions that pyproject.toml allows, as constraints for pip: ``name==floor``, one a line.

python tests/packaging/floors.py >floors.txt
pip install --constraint floors.txt '.[all]'
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

__all__ = ["floors", "requirements"]

PROJECT: Final = Path(__file__).resolve().parents[2] / "pyproject.toml"


def requirements() -> Iterator[Requirement]:
    """What the library asks for, with all its extras."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    yield from (each for texts in lists for each in map(Requirement, texts) if each.name != project["name"])


def floors() -> dict[str, str]:
    """The oldest version allowed of each."""
    found: dict[str, str] = {}
    for each in requirements():
        least = [clause.version for clause in each.specifier if clause.operator in (">=", "==")]
        if least:
            found[each.name] = least[0]
    return found


if __name__ == "__main__":
    print("\n".join(f"{name}=={version}" for name, version in sorted(floors().items())))  # noqa: T201  # its purpose
