"""The generated regions of the pages match the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from taskbridge._config.registry import builtin_providers

ROOT: Final = Path(__file__).resolve().parents[2]
SCRIPT: Final = ROOT / "docs" / "generate.py"


def run(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(script), *arguments], check=False, capture_output=True, text=True, timeout=60
    )


def test_nothing_is_stale() -> None:
    done = run(SCRIPT, "--check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The script in a separate tree with one stale page."""
    script = tmp_path / "docs" / "generate.py"
    script.parent.mkdir()
    for each in SCRIPT.parent.glob("*.py"):
        (script.parent / each.name).write_bytes(each.read_bytes())
    (tmp_path / "README.md").write_text("# A\n\n<!-- begin: http-statuses -->\nold\n<!-- end -->\n\nZ\n")
    return script


def test_check_reports_a_stale_page_and_leaves_it(copy: Path) -> None:
    page = copy.parents[1] / "README.md"
    before = page.read_text()
    done = run(copy, "--check")
    assert (done.returncode, done.stdout) == (1, "README.md is stale\n")
    assert page.read_text() == before


def test_a_second_run_changes_nothing(copy: Path) -> None:
    page = copy.parents[1] / "README.md"
    assert (run(copy).returncode, run(copy, "--check").returncode) == (0, 0)
    text = page.read_text()
    assert text.startswith("# A\n\n<!-- begin: http-statuses -->\n\n| HTTP status | Error |\n")
    assert text.endswith("\n<!-- end -->\n\nZ\n")
    assert "old" not in text


def test_an_unknown_argument_is_rejected(copy: Path) -> None:
    done = run(copy, "--chekc")
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage" in done.stderr


def test_llms_txt_lists_every_page() -> None:
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / "llms.txt").read_text(encoding="utf-8"))
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert [link for link in links if not (ROOT / link).is_file()] == []
    assert pages - set(links) == {"docs/index.md"}


SKELETON: Final = (
    "At a glance",
    "Settings",
    "Ids",
    "Status mapping",
    "Errors",
    "Results",
    "Submitting",
    "Waiting",
    "Costs",
    "Limits",
    "What is unknown",
    "Sources",
)


@pytest.mark.parametrize("name", builtin_providers())
def test_a_vendor_page_follows_the_skeleton(name: str) -> None:
    page = (ROOT / "docs" / "vendors" / f"{name}.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"^## (.+)$", page, re.MULTILINE)) == SKELETON
    for region in (f"summary {name}", f"settings {name}", f"mapping {name} STATES", f"error-mapping {name}"):
        assert f"<!-- begin: {region} -->" in page
