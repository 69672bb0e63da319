"""A provider to begin with: a whole distribution, made from a template that is itself a provider and is tested as one.

The template lies beside this file, as the distribution of an invented vendor. Its names are spelled in a way that
nothing else is, so that writing it under another name is no more than replacing them.
"""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final

from taskbridge.errors import InvalidInput, printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

__all__ = ["Names", "new_provider"]

NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", re.ASCII)
LONGEST: Final = 40  # characters of a name
_SKIPPED: Final = frozenset({"__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache"})


@dataclass(frozen=True, slots=True)
class Names:
    """The spellings of one provider's name.

    Attributes:
        entry: Name of the entry points, and what `tb.connect` takes: ``acme-docs``.
    """

    entry: str

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
        """The vendor's name as people write it, guessed: ``Acme Docs``."""
        return " ".join(part.capitalize() for part in self.entry.split("-"))

    @property
    def kind(self) -> str:
        """The class's name: ``AcmeDocs``."""
        return self.title.replace(" ", "")

    def spellings(self) -> tuple[str, str, str, str]:
        """All of them, in one order."""
        return self.entry, self.word, self.title, self.kind


TEMPLATE: Final = Names("acme-docs")


def new_provider(name: str, to: Path, taken: frozenset[str] = frozenset()) -> Path:
    """Write a distribution that works as it stands.

    Args:
        name: Entry-point name of the new provider.
        to: The folder in which the distribution's folder is made.
        taken: Names of the providers that are installed.

    Returns:
        The distribution's folder.

    Raises:
        InvalidInput: The name cannot be one, or is taken, or the folder is there already; nothing was written.
        OSError: The folder cannot be written.
    """
    names = Names(name)
    _check(names, taken)
    if not to.is_dir():
        raise InvalidInput(f"there is no folder {printable(str(to), 300)}; make it, or name another one with --to")
    folder = to / names.distribution
    try:
        folder.mkdir()
    except FileExistsError:
        raise InvalidInput(
            f"{printable(str(folder), 300)} is there already; choose another name, or another place with --to"
        ) from None
    for path, text in _written(names):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return folder


def _check(names: Names, taken: frozenset[str]) -> None:
    name, shown = names.entry, repr(printable(names.entry, 60))
    guess = re.sub(r"[^a-z0-9]+", "-", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()).strip("-")
    guess = guess.removeprefix("taskbridge-")
    hint = f"; {guess!r} would do" if NAME.fullmatch(guess) and len(guess) <= LONGEST and guess != name else ""
    if NAME.fullmatch(name) is None or len(name) > LONGEST:
        raise InvalidInput(
            f"{shown} is no name for a provider: small letters and digits, parts joined by '-', "
            f"a letter first, {LONGEST} characters at most{hint}"
        )
    if name == "taskbridge" or name.startswith("taskbridge-"):
        raise InvalidInput(f"{shown}: name the vendor alone, 'taskbridge-' is put in front of it{hint}")
    if keyword.iskeyword(names.word) or keyword.iskeyword(names.kind) or _means_something(names):
        raise InvalidInput(f"{shown} is a word of Python's or of taskbridge's own; add to it, such as '{name}-docs'")
    if name in taken:
        raise InvalidInput(f"a provider {shown} is installed already; choose another name")


def _means_something(names: Names) -> bool:
    """Whether the files of the template use the name already, for something else."""
    if names == TEMPLATE:
        return False
    used = re.compile(rf"\b{names.kind}\b")
    return any(used.search(file.read_text(encoding="utf-8")) for _, file in _template())


def _written(names: Names) -> Iterator[tuple[str, str]]:
    """Path and text of each file."""
    for path, file in _template():
        yield _renamed(path, names), _renamed(file.read_text(encoding="utf-8"), names)


def _template() -> Iterator[tuple[str, Traversable]]:
    return _walk(files(__name__) / "template", "")


def _walk(folder: Traversable, above: str) -> Iterator[tuple[str, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name in _SKIPPED:
            continue
        if entry.is_dir():
            yield from _walk(entry, f"{above}{entry.name}/")
        else:
            yield f"{above}{entry.name}", entry


def _renamed(text: str, names: Names) -> str:
    spelt = dict(zip(TEMPLATE.spellings(), names.spellings(), strict=True))
    return re.sub("|".join(map(re.escape, spelt)), lambda found: spelt[found[0]], text)
