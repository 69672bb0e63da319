"""The tutorial shows the finished plugin: every code block is a piece of its files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "tutorial-provider.md"
PLUGIN: Final = ROOT / "docs" / "examples" / "taskbridge-zamzar"
PIECE: Final = re.compile(r"<!-- not run: a piece of (\S+) -->\n```\w+\n(.*?)\n```\n", re.DOTALL)
PIECES: Final = PIECE.findall(PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("path", "text"), PIECES, ids=[f"{n}-{path}" for n, (path, _) in enumerate(PIECES)])
def test_each_block_is_a_piece_of_the_finished_file(path: str, text: str) -> None:
    file = f"\n{(PLUGIN / path).read_text(encoding='utf-8')}\n"
    assert file.count(f"\n{text}\n") == 1


def test_the_blocks_of_the_provider_are_the_whole_file() -> None:
    shown = [text for path, text in PIECES if path.endswith("/provider.py")]
    file = (PLUGIN / "taskbridge_zamzar" / "provider.py").read_text(encoding="utf-8")
    assert "\n".join(shown).replace("\n", "") == file.replace("\n", "")


def test_every_marked_block_is_tested() -> None:
    assert PAGE.read_text(encoding="utf-8").count("<!-- not run: a piece of ") == len(PIECES) > 20
