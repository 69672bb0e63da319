"""Print the oldest versions that pyproject.toml allows, as constraints for pip: ``name==floor``, one per line.

python tests/packaging/floors.py >floors.txt
pip install --constraint floors.txt '.[all]'
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

__all__ = ["NAME", "floors", "requirements"]

_PYPROJECT: Final = Path(__file__).resolve().parents[2] / "pyproject.toml"
_PROJECT: Final = tomllib.loads(_PYPROJECT.read_text(encoding="utf-8"))["project"]
NAME: Final[str] = _PROJECT["name"]  # of the distribution


def requirements() -> Iterator[Requirement]:
    """Yield the requirements of the library and of all its extras."""
    lists = [_PROJECT["dependencies"], *_PROJECT["optional-dependencies"].values()]
    yield from (each for texts in lists for each in map(Requirement, texts) if each.name != NAME)


def floors() -> dict[str, str]:
    """Return the oldest allowed version of each requirement."""
    found: dict[str, str] = {}
    for each in requirements():
        least = [clause.version for clause in each.specifier if clause.operator in (">=", "==")]
        if least:
            found[each.name] = least[0]
    return found


if __name__ == "__main__":
    print("\n".join(f"{name}=={version}" for name, version in sorted(floors().items())))  # noqa: T201  # its purpose
