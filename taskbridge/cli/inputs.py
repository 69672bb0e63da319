"""From the words of a command line to documents: paths, folders, patterns, URLs, lists of these."""

from __future__ import annotations

import glob
import json
import os
import sys
from hashlib import file_digest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskbridge._engine.inputs import is_url
from taskbridge._engine.redirects import name_of
from taskbridge.cli.ledger import Print
from taskbridge.errors import ConfigError, InvalidInput, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["differs", "label_of", "options_of", "print_of", "sources_of"]


def label_of(source: str) -> str:
    """A document in a word, safe to show: the name of a file, or of what a URL leads to, whose query may be a key."""
    return printable(name_of(source) if is_url(source) else os.path.basename(source), 200)  # noqa: PTH119  # of a text


def sources_of(words: Sequence[str], listed: str | None) -> list[str]:
    """Absolute paths and URLs, each once, in the order given.

    Args:
        words: Paths, folders, patterns and URLs.
        listed: A file that holds more of them, one a line; ``-`` for standard input.

    Raises:
        InvalidInput: A folder is empty, or nothing matches a pattern.
        OSError: The list cannot be read.
    """
    given = [*words, *_lines(listed)]
    return list(dict.fromkeys(source for word in given for source in _meant(word)))


def _lines(listed: str | None) -> Iterable[str]:
    if listed is None:
        return ()
    data = sys.stdin.buffer.read() if listed == "-" else Path(listed).read_bytes()
    return [os.fsdecode(line) for line in data.splitlines() if line.strip()]


def _meant(word: str) -> Iterable[str]:
    if is_url(word):
        return [word]
    path = Path(word)
    if path.is_dir():
        found = sorted(each for each in path.iterdir() if each.is_file() and not each.name.startswith("."))
        if not found:
            raise InvalidInput(
                f"the folder {printable(word, 300)} has no files in it; folders in it are not looked into"
            )
    elif glob.has_magic(word) and not path.exists():
        found = sorted(Path(each) for each in glob.glob(word, recursive=True) if Path(each).is_file())  # noqa: PTH207  # the pattern may be absolute
        if not found:
            raise InvalidInput(f"no file matches {printable(word, 300)}")
    else:
        found = [path]
    return [os.path.abspath(each) for each in found]  # noqa: PTH100  # no look at what links lead to


def print_of(source: str, known: Print | None = None) -> Print | None:
    """What a file is now; None for a URL.

    Args:
        source: A path or a URL.
        known: What it was; where size and time are the same, its bytes are not read again.

    Raises:
        OSError: It cannot be read.
    """
    if is_url(source):
        return None
    with Path(source).open("rb") as file:
        found = os.fstat(file.fileno())
        if known is not None and (known.size, known.changed) == (found.st_size, found.st_mtime_ns):
            return known
        return Print(found.st_size, found.st_mtime_ns, file_digest(file, "sha256").hexdigest())


def differs(source: str, known: Print | None) -> bool:
    """Whether a file is no longer what it was; one that has gone is not looked at, nor is a URL."""
    try:
        now = None if known is None else print_of(source, known)
    except OSError:
        return False
    return now is not None and known is not None and now.digest != known.digest


def options_of(words: Sequence[str]) -> dict[str, Any]:
    """The vendor's own options, from words such as ``output_format=pdf``; a value is JSON where it can be.

    Raises:
        ConfigError: A word has no ``=``.
    """
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ConfigError(f"an option is written as name=value, not {printable(word, 60)!r}")
        try:
            found[name] = json.loads(value, parse_constant=_refuse)
        except ValueError:
            found[name] = value
    return found


def _refuse(word: str) -> Any:
    raise ValueError(word)
