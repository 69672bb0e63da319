"""Each fragment in changelog.d is well formed; together they make the next section of the changelog."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from taskbridge._config.registry import builtin_providers, load_provider

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / "changelog.d"
FRAGMENTS: Final = sorted(path for path in FOLDER.iterdir() if path.name not in {"README.md", "template.jinja"})
NAME: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*\.(?:added|changed|fixed)\.md")


def test_a_fragment_has_a_kind_and_is_one_paragraph_of_full_sentences() -> None:
    for path in FRAGMENTS:
        text = path.read_text(encoding="utf-8").strip()
        assert NAME.fullmatch(path.name)
        assert text.endswith((".", ".)")), f"{path.name}: write full sentences"
        assert not re.search(r"^(?:#|[-*] |$)", text, re.MULTILINE), f"{path.name}: write one paragraph"
        assert len(text) < 700, f"{path.name}: write less"


def test_a_fragment_about_one_vendor_uses_the_name_of_its_page() -> None:
    titles = {load_provider(name).title for name in builtin_providers()}
    for path in FRAGMENTS:
        vendor = re.match(r"\*\*(.+?):\*\* ", path.read_text(encoding="utf-8"))
        assert vendor is None or vendor[1] in titles, path.name


def towncrier(root: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "towncrier", "build", *arguments]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout


def test_fragments_become_a_release_above_earlier_releases(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(FOLDER, tmp_path / "changelog.d", ignore=lambda _, names: {n for n in names if NAME.fullmatch(n)})
    (tmp_path / "changelog.d" / "one.fixed.md").write_text("Waits no longer exceed their timeout.\nThey end on time.\n")
    (tmp_path / "changelog.d" / "two.added.md").write_text("**CloudConvert:** Stats count tasks.\n")
    before = (tmp_path / "CHANGELOG.md").read_text(encoding="utf-8")
    towncrier(tmp_path, "--yes", "--version", "9.9.0", "--date", "2030-01-02")
    after = (tmp_path / "CHANGELOG.md").read_text(encoding="utf-8")
    start = "<!-- the releases, newest first -->\n"
    assert after == before.replace(
        start,
        f"{start}\n## 9.9.0 (2030-01-02)\n\n### Added\n\n- **CloudConvert:** Stats count tasks.\n\n"
        "### Fixed\n\n- Waits no longer exceed their timeout.\n  They end on time.\n",
    )
