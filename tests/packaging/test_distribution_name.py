"""No file of the repository tells users to install `taskbridge`, which is another project on the package index."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from taskbridge._config.registry import distribution_name

from .floors import NAME

ROOT: Final = Path(__file__).resolve().parents[2]
COMMAND: Final = re.compile(r"pip install +([^`#&|]+)")
WRONG_ARGUMENT: Final = re.compile(r"(?:^|[\s'\"])taskbridge(?=$|[\s'\",;)\[<>=~!@])")
WRONG_EXTRA: Final = re.compile(r"(?<![\w/-])taskbridge\[(?:all|async|cli|emulator|otel)\b")


def tracked_files() -> list[Path]:
    try:
        done = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is not a git checkout")
    return [path for line in done.stdout.splitlines() if (path := ROOT / line) != Path(__file__) and path.is_file()]


def wrong_lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return []
    found: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        command = COMMAND.search(line)
        if (command and WRONG_ARGUMENT.search(command[1])) or WRONG_EXTRA.search(line):
            found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    return found


def test_no_file_installs_the_other_project() -> None:
    assert [line for path in tracked_files() for line in wrong_lines(path)] == [], f"the distribution is {NAME}"


def test_no_project_requires_the_other_project() -> None:
    for path in tracked_files():
        if path.name == "pyproject.toml":
            project = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {})
            lists = [project.get("dependencies", []), *project.get("optional-dependencies", {}).values()]
            assert "taskbridge" not in {Requirement(text).name for texts in lists for text in texts}, path


@pytest.mark.parametrize(
    "line",
    ["pip install taskbridge", "pip install -q 'taskbridge[cli]'", 'needs "taskbridge[otel]"', "taskbridge[all]>=1"],
)
def test_a_wrong_line_is_found(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "page.md").write_text(line, encoding="utf-8")
    assert wrong_lines(tmp_path / "page.md") == [f"page.md:1: {line}"]


def test_the_installed_distribution_has_the_name_of_the_project() -> None:
    assert canonicalize_name(distribution_name()) == canonicalize_name(NAME)
