"""Writes ``docs/reliability.md``."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]


def main() -> None:
    tests = ModuleType("tests")
    tests.__path__ = [str(ROOT / "tests")]  # another distribution may have taken the name
    sys.modules["tests"] = tests
    text: str = import_module("tests.faults.page").page()
    (ROOT / "docs" / "reliability.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
