"""Each piece of news is a file in changelog.d, well formed; together they make the next part of the changelog."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from taskbridge._config.registry import builtin_providers, load_provider

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / "changelog.d"
FRAGMENTS: Final = sorted(path for path in FOLDER.iterdir() if path.name not in {"README.md", "template.jinja"})
NAME: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*\.(?:added|changed|fixed)\.md")
CODE: Final = re.compile(r"`[^`]*`")


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: path.name)
def test_a_fragment_is_a_few_sentences_with_a_kind(path: Path) -> None:
    text = path.read_text(encoding="utf-8").strip()
    assert NAME.fullmatch(path.name)
    assert text.endswith((".", ".)")), "a fragment is full sentences"
    assert not re.search(r"^(?:#|[-*] |$)", text, re.MULTILINE), "a fragment is one paragraph"
    assert len(text) < 700


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: path.name)
def test_a_fragment_about_one_vendor_names_it_as_all_pages_do(path: Path) -> None:
    named = re.match(r"\*\*(.+?):\*\* ", path.read_text(encoding="utf-8"))
    if named is not None:
        assert named[1] in {load_provider(name).title for name in builtin_providers()}


def towncrier(root: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "towncrier", "build", *arguments]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout


def test_fragments_become_a_release_above_the_earlier_ones(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(FOLDER, tmp_path / "changelog.d", ignore=lambda _, names: {n for n in names if NAME.fullmatch(n)})
    (tmp_path / "changelog.d" / "one.fixed.md").write_text("Waits were longer than said.\nThey are not.\n")
    (tmp_path / "changelog.d" / "two.added.md").write_text("**CloudConvert:** Tasks were counted.\n")
    before = (tmp_path / "CHANGELOG.md").read_text(encoding="utf-8")
    towncrier(tmp_path, "--yes", "--version", "9.9.0", "--date", "2030-01-02")
    after = (tmp_path / "CHANGELOG.md").read_text(encoding="utf-8")
    mark = "<!-- the releases, newest first -->\n"
    assert after == before.replace(
        mark,
        f"{mark}\n## 9.9.0 (2030-01-02)\n\n### Added\n\n- **CloudConvert:** Tasks were counted.\n\n"
        "### Fixed\n\n- Waits were longer than said.\n  They are not.\n",
    )
