"""Writes a new provider: a complete distribution, copied from a template that is itself a tested provider.

The template beside this file is the distribution of an invented vendor. Its names occur nowhere else in it, so that
writing it under another name only means replacing them.
"""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final

from taskbridge._config.registry import distribution_name
from taskbridge.errors import InvalidInput, printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", re.ASCII)
LONGEST: Final = 40  # characters of a name
_SKIPPED: Final = frozenset({"__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache"})


@dataclass(frozen=True, slots=True)
class Names:
    """One provider's name in all its spellings."""

    entry: str  # name of the entry points, and what `tb.connect` takes: acme-docs

    @property
    def distribution(self) -> str:
        """Name of the distribution, and of its folder: ``taskbridge-acme-docs``."""
        return f"taskbridge-{self.entry}"

    @property
    def word(self) -> str:
        """The name in an identifier: ``acme_docs``."""
        return self.entry.replace("-", "_")

    @property
    def package(self) -> str:
        """Import name: ``taskbridge_acme_docs``."""
        return f"taskbridge_{self.word}"

    @property
    def title(self) -> str:
        """The vendor's name for people, guessed: ``Acme Docs``."""
        return " ".join(part.capitalize() for part in self.entry.split("-"))

    @property
    def kind(self) -> str:
        """The class's name: ``AcmeDocs``."""
        return self.title.replace(" ", "")


TEMPLATE: Final = Names("acme-docs")
DEPENDENCY: Final = "taskbridge-distribution"  # in the template, in place of the name of this distribution


def new_provider(name: str, to: Path, taken: frozenset[str] = frozenset()) -> Path:
    """Write a distribution that works as it is to a new folder in ``to``; return the new folder.

    Raises:
        InvalidInput: The name is invalid or taken, or the folder exists already; nothing was written.
        OSError: The folder cannot be written.
    """
    names = Names(name)
    _check(names, taken)
    if not to.is_dir():
        raise InvalidInput(f"there is no folder {printable(str(to), 300)}; create it, or name another one with --to")
    folder = to / names.distribution
    try:
        folder.mkdir()
    except FileExistsError:
        raise InvalidInput(
            f"{printable(str(folder), 300)} exists already; choose another name, or another folder with --to"
        ) from None
    for path, text in _template(files(__name__) / "template"):
        target = folder / _renamed(path, names)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_renamed(text, names), encoding="utf-8")
    return folder


def _check(names: Names, taken: frozenset[str]) -> None:
    name, shown = names.entry, repr(printable(names.entry, 60))
    guess = re.sub(r"[^a-z0-9]+", "-", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()).strip("-")
    guess = guess.removeprefix("taskbridge-")
    hint = f"; {guess!r} would do" if NAME.fullmatch(guess) and len(guess) <= LONGEST and guess != name else ""
    if NAME.fullmatch(name) is None or len(name) > LONGEST:
        raise InvalidInput(
            f"{shown} is not a valid provider name: lower-case letters and digits, parts joined by '-', "
            f"a letter first, {LONGEST} characters at most{hint}"
        )
    if name == "taskbridge" or name.startswith("taskbridge-"):
        raise InvalidInput(f"{shown}: name only the vendor, 'taskbridge-' is added in front of it{hint}")
    if keyword.iskeyword(names.word) or keyword.iskeyword(names.kind) or _is_used(names):
        raise InvalidInput(f"{shown} is a reserved word of Python or taskbridge; extend it, such as '{name}-docs'")
    if name in taken:
        raise InvalidInput(f"a provider {shown} is installed already; choose another name")


def _is_used(names: Names) -> bool:
    """Return whether the template uses the name for something else."""
    if names == TEMPLATE:
        return False
    used = re.compile(rf"\b{names.kind}\b")
    return any(used.search(text) for _, text in _template(files(__name__) / "template"))


def _template(folder: Traversable, above: str = "") -> Iterator[tuple[str, str]]:
    """Yield the path and the text of each file."""
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_file():
            yield f"{above}{entry.name}", entry.read_text(encoding="utf-8")
        elif entry.name not in _SKIPPED:
            yield from _template(entry, f"{above}{entry.name}/")


def _renamed(text: str, names: Names) -> str:
    spellings = {
        TEMPLATE.entry: names.entry,
        TEMPLATE.word: names.word,
        TEMPLATE.title: names.title,
        TEMPLATE.kind: names.kind,
        DEPENDENCY: distribution_name(),
    }
    return re.sub("|".join(map(re.escape, spellings)), lambda found: spellings[found[0]], text)
