"""Build the documentation site from docs/ and a few pages outside it.

    python docs/build_site.py [FOLDER]         builds FOLDER/site; the default is build/docs/site

Copies the pages into FOLDER/docs, adapts their links, draws diagrams in place of ``<!-- diagram: NAME -->``, inlines
plots, and adds the full documentation of the names to each reference table. Then runs zensical; every warning fails the
build.
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
from site_parts import directives, linked_names

ROOT: Final = Path(__file__).resolve().parent.parent
LINK: Final = re.compile(r"(\[[^\]\n]*\]\()([^)\s#]+)((?:#[^)\s]*)?\))")

DIAGRAM: Final = re.compile(r"^<!-- diagram: (.+) -->$", re.MULTILINE)
RELEASES: Final = "<!-- the releases, newest first -->\n"
UNRELEASED: Final = re.compile(r"^## Unreleased\n(?:(?!## ).*\n)*", re.MULTILINE)
COLOR: Final = re.compile(r"\x1b\[[0-9;]*m")
REFERENCE: Final = re.compile(r"(<!-- begin: reference (.+?) -->\n.*?)<!-- end -->\n", re.DOTALL)
PLOT: Final = re.compile(r"^!\[([^\]]+)\]\((performance/[\w-]+\.svg)\)$", re.MULTILINE)
CONFIG: Final = ROOT / "docs" / "zensical.toml"

# Pages whose files are outside docs/. Links to the README lead to the landing page.
_SOURCES: Final[Mapping[str, str]] = tomllib.loads(CONFIG.read_text(encoding="utf-8"))["project"]["extra"]["sources"]
OUTSIDE: Final[Mapping[str, str]] = {
    "README.md": "index.md",
    "llms.txt": "llms.txt",
    **{source: page for page, source in _SOURCES.items()},
}


class LinkLeavesSite(ValueError):
    """A page links to a file that is not part of the site."""


def place(path: str) -> str | None:
    """Return the place of a repository file in the site; None if it is not part of it."""
    if path in OUTSIDE:
        return OUTSIDE[path]
    return path.removeprefix("docs/") if path.startswith("docs/") else None


def relinked(text: str, page: str) -> str:
    """Return the text of a page with its links adapted to the site.

    Raises:
        LinkLeavesSite: A link leads to a file that is not part of the site.
    """
    here = PurePosixPath(place(page) or page)

    def one(found: re.Match[str]) -> str:
        before, target, after = found.groups()
        if re.match(r"[a-z]+:", target):
            return found[0]
        goal = place(os.path.normpath(PurePosixPath(page).parent / target))
        if goal is None:
            raise LinkLeavesSite(
                f"{page}: {target} is not in the site; add it to [project.extra.sources] and the nav of "
                "docs/zensical.toml, or remove the link"
            )
        return f"{before}{os.path.relpath(goal, here.parent)}{after}"

    return outside_code(text, lambda line: LINK.sub(one, line))


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """Return a text with its lines changed, except in code blocks."""
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
    """Copy the pages and everything that they show."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(
        ROOT / "docs",
        folder / "docs",
        ignore=shutil.ignore_patterns("*.py", "zensical.toml", "examples", "__pycache__"),
    )
    (folder / "docs" / "examples").mkdir()
    for program in (ROOT / "docs" / "examples").glob("*.py"):  # pages link to these
        shutil.copy(program, folder / "docs" / "examples")
    shutil.copy(CONFIG, folder)
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")}
    pages |= set(_SOURCES.values())
    for page in sorted(pages):
        text = (ROOT / page).read_text(encoding="utf-8")
        text = with_fragments(text) if page == "CHANGELOG.md" else text
        goal = folder / "docs" / (place(page) or page)
        goal.parent.mkdir(parents=True, exist_ok=True)
        text = DIAGRAM.sub(lambda found: drawn(found[1]), relinked(text, page))
        text = PLOT.sub(lambda found: plotted(ROOT / "docs" / found[2], found[1]), text)
        text = REFERENCE.sub(lambda found: documented(found[1], *found[2].split()), text)
        goal.write_text(text, encoding="utf-8")
    for path in ROOT.glob("llms.txt"):
        listed = relinked(path.read_text(encoding="utf-8"), path.name).replace("README.md)", "index.html)")
        (folder / "docs" / path.name).write_text(listed.replace(".md)", ".html)"), encoding="utf-8")


def documented(table: str, module: str, *homes: str) -> str:
    """Return a reference table with links, followed by the full documentation of its names."""
    return f"{linked_names(table, module)}\n{directives(module, *homes)}\n"


def with_fragments(changelog: str) -> str:
    """Return the changelog with the fragments of changelog.d at the end of its unreleased section."""
    done = subprocess.run(
        [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "Unreleased"],
        cwd=ROOT,
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    fragments = "".join(done.stdout.partition("### ")[1:]).strip()
    if not fragments:
        return changelog
    unreleased = UNRELEASED.search(changelog)
    if unreleased is None:
        return changelog.replace(RELEASES, f"{RELEASES}\n## Unreleased\n\n{fragments}\n")
    return f"{changelog[: unreleased.end()].rstrip()}\n\n{fragments}\n\n{changelog[unreleased.end() :]}"


def build(folder: Path) -> int:
    """Build the site in a folder; return the exit code."""
    stage(folder)
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=folder,
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output = COLOR.sub("", done.stdout)
    if "--strict flag is set" in output:  # the warnings say it all
        output = output.partition("Traceback (most recent call last)")[0]
    sys.stderr.write(output)
    return done.returncode or ("griffe: " in output)  # a docstring that contradicts its code


def main(arguments: list[str]) -> int:
    """Build into the given folder; return the exit code."""
    if len(arguments) > 1:
        sys.stderr.write("usage: python docs/build_site.py [FOLDER]\n")
        return 2
    folder = Path(arguments[0]) if arguments else ROOT / "build" / "docs"
    return build(folder.resolve())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
