"""Every relative link leads to a file, and every anchor to a heading."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = (*sorted(ROOT.glob("*.md")), ROOT / "providers" / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
LINK: Final = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
HEADING: Final = re.compile(r"#{1,6} +(.+?) *#*")
INVISIBLE: Final = re.compile(r"[^\w\- ]")


def plain_lines(page: Path) -> list[str]:
    """The lines outside code blocks."""
    kept: list[str] = []
    inside = False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("```"):
            inside = not inside
        elif not inside:
            kept.append(line)
    return kept


def anchors(page: Path) -> set[str]:
    """The anchors of the headings of a page, as code hosts generate them."""
    found: set[str] = set()
    for line in plain_lines(page):
        heading = HEADING.fullmatch(line)
        if heading is None:
            continue
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1])
        slug = INVISIBLE.sub("", words.lower()).replace(" ", "-")
        number, name = 0, slug
        while name in found:
            number += 1
            name = f"{slug}-{number}"
        found.add(name)
    return found


def links() -> list[tuple[Path, str]]:
    return [
        (page, target)
        for page in PAGES
        for line in plain_lines(page)
        for target in LINK.findall(re.sub(r"`[^`]*`", "", line))
        if not re.match(r"[a-z]+:", target)
    ]


@pytest.mark.parametrize(("page", "target"), links(), ids=lambda value: str(value).removeprefix(f"{ROOT}/"))
def test_a_relative_link_leads_to_a_file_and_a_heading(page: Path, target: str) -> None:
    path, _, anchor = target.partition("#")
    goal = (page.parent / path).resolve() if path else page
    assert goal.exists()
    assert goal.is_relative_to(ROOT)
    if anchor:
        assert anchor in anchors(goal)


def test_the_index_links_to_every_page() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {(page.parent / target.partition("#")[0]).resolve() for page, target in links() if page == index}
    missing = set((ROOT / "docs").rglob("*.md")) - {index} - linked
    assert missing == set(), "add each to the nav of docs/zensical.toml, then run docs/generate.py"
