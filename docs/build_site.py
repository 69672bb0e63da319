"""Builds the documentation site from README.md's neighbours and docs/, strictly.

    python docs/build_site.py [FOLDER]         FOLDER/site is the site; by default build/docs/site

The pages are copied into FOLDER/docs first: links that leave docs/ are led to the copies of their goals, and diagrams
stand where ``<!-- diagram: NAME -->`` is; plots become part of their page. Then zensical builds, and whatever it warns
of fails.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from diagrams import drawn, plotted

ROOT: Final = Path(__file__).resolve().parent.parent
LINK: Final = re.compile(r"(\[[^\]\n]*\]\()([^)\s#]+)((?:#[^)\s]*)?\))")

DIAGRAM: Final = re.compile(r"^<!-- diagram: (.+) -->$", re.MULTILINE)
RELEASES: Final = "<!-- the releases, newest first -->\n"
UNRELEASED: Final = re.compile(r"^## Unreleased\n(?:(?!## ).*\n)*", re.MULTILINE)
COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
PLOT: Final = re.compile(r"^!\[([^\]]+)\]\((performance/[\w-]+\.svg)\)$", re.MULTILINE)
CONFIG: Final = ROOT / "docs" / "zensical.toml"

# Files outside docs/ that are pages of the site; the README's part is played by the first page.
_SOURCES: Final[Mapping[str, str]] = tomllib.loads(CONFIG.read_text(encoding="utf-8"))["project"]["extra"]["sources"]
OUTSIDE: Final[Mapping[str, str]] = {"README.md": "index.md", **{source: page for page, source in _SOURCES.items()}}


class LinkLeavesSite(ValueError):
    """A page links to a file that the site does not have."""


def place(path: str) -> str | None:
    """Where a file of the repository stands in the site; None where it does not."""
    if path in OUTSIDE:
        return OUTSIDE[path]
    return path.removeprefix("docs/") if path.startswith("docs/") else None


def relinked(text: str, page: str) -> str:
    """A page's text with its links as they must be in the site.

    Raises:
        LinkLeavesSite: A link leads to a file that the site does not have.
    """
    here = PurePosixPath(place(page) or page)

    def one(found: re.Match[str]) -> str:
        before, target, after = found.groups()
        if re.match(r"[a-z]+:", target):
            return found[0]
        goal = os.path.normpath(PurePosixPath(page).parent / target)
        there = place(goal)
        if there is None:
            raise LinkLeavesSite(
                f"{page}: {target} is not in the site; give it a line in [project.extra.sources] of docs/zensical.toml "
                "and one in the nav, or name it without a link"
            )
        return f"{before}{os.path.relpath(there, here.parent)}{after}"

    return outside_code(text, lambda line: LINK.sub(one, line))


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """A text with its lines changed, but for those in blocks of code."""
    return "\n".join(line if inside else change(line) for line, inside in _lines(text)) + "\n"


def _lines(text: str) -> Iterator[tuple[str, bool]]:
    fence = ""
    for line in text.splitlines():
        ticks = re.match(r" *(`{3,})", line)
        if not fence:
            yield line, ticks is not None
            fence = ticks[1] if ticks else ""
        else:
            yield line, True
            fence = "" if line.strip() == fence else fence


def stage(folder: Path) -> None:
    """Copy the pages and all that they show."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(
        ROOT / "docs",
        folder / "docs",
        ignore=shutil.ignore_patterns("*.py", "zensical.toml", "examples", "__pycache__"),
    )
    shutil.copy(CONFIG, folder)
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")}
    pages |= set(_SOURCES.values())
    for page in sorted(pages):
        text = (ROOT / page).read_text(encoding="utf-8")
        text = with_news(text) if page == "CHANGELOG.md" else text
        goal = folder / "docs" / (place(page) or page)
        goal.parent.mkdir(parents=True, exist_ok=True)
        text = DIAGRAM.sub(lambda found: drawn(found[1]), relinked(text, page))
        text = PLOT.sub(lambda found: plotted(ROOT / "docs" / found[2], found[1]), text)
        goal.write_text(text, encoding="utf-8")


def with_news(changelog: str) -> str:
    """The changelog with what changelog.d says, at the end of what is unreleased."""
    done = subprocess.run(
        [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "Unreleased"],
        cwd=ROOT,
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    news = "".join(done.stdout.partition("### ")[1:]).strip()
    if not news:
        return changelog
    unreleased = UNRELEASED.search(changelog)
    if unreleased is None:
        return changelog.replace(RELEASES, f"{RELEASES}\n## Unreleased\n\n{news}\n")
    return f"{changelog[: unreleased.end()].rstrip()}\n\n{news}\n\n{changelog[unreleased.end() :]}"


def build(folder: Path) -> int:
    """Build the site in a folder; zensical's exit code."""
    stage(folder)
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=folder,
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    told = COLOUR.sub("", done.stdout)
    if "--strict flag is set" in told:  # the warnings say it all
        told = told.partition("Traceback (most recent call last)")[0]
    sys.stderr.write(told)
    return done.returncode or ("griffe: " in told)  # a docstring that says what is not so


def main(arguments: list[str]) -> int:
    """Build into the folder given; the exit code."""
    if len(arguments) > 1:
        sys.stderr.write("usage: python docs/build_site.py [FOLDER]\n")
        return 2
    folder = Path(arguments[0]) if arguments else ROOT / "build" / "docs"
    return build(folder.resolve())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
