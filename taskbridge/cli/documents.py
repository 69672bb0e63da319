"""The documents that a command line names: paths, folders, patterns, URLs, and lists of these."""

from __future__ import annotations

import glob
import os
import sys
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import TYPE_CHECKING

from taskbridge._engine.inputs import is_url
from taskbridge._engine.redirects import name_of
from taskbridge.errors import InvalidInput, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def document_name(source: str) -> str:
    """Return a short name that is safe to show: a file name, or the last part of a URL, whose query may be a key."""
    return printable(name_of(source) if is_url(source) else os.path.basename(source), 200)  # noqa: PTH119  # a text, no path


def find_documents(words: Sequence[str], list_path: str | None = None) -> list[str]:
    """Return absolute paths and URLs, each once, in the order given.

    Args:
        words: Paths, folders, patterns and URLs.
        list_path: A file that names more of them, one per line; ``-`` for standard input.

    Raises:
        InvalidInput: A folder is empty, or nothing matches a pattern.
        OSError: The list cannot be read.
    """
    given = [*words, *_lines(list_path)]
    return list(dict.fromkeys(source for word in given for source in _expand(word)))


def _lines(list_path: str | None) -> Iterable[str]:
    if list_path is None:
        return ()
    data = sys.stdin.buffer.read() if list_path == "-" else Path(list_path).read_bytes()
    return [os.fsdecode(line) for line in data.splitlines() if line.strip()]


def _expand(word: str) -> Iterable[str]:
    if is_url(word):
        return [word]
    path = Path(word)
    if path.is_dir():
        paths = sorted(each for each in path.iterdir() if each.is_file() and not each.name.startswith("."))
        if not paths:
            raise InvalidInput(f"the folder {printable(word, 300)} has no files in it; its subfolders are not searched")
    elif glob.has_magic(word) and not path.exists():
        paths = sorted(Path(each) for each in glob.glob(word, recursive=True) if Path(each).is_file())  # noqa: PTH207  # the pattern may be absolute
        if not paths:
            raise InvalidInput(f"no file matches {printable(word, 300)}")
    else:
        paths = [path]
    return [os.path.abspath(each) for each in paths]  # noqa: PTH100  # resolve() would follow links


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Identifies the content of a file.

    Attributes:
        size: Bytes.
        modified_ns: Time of the last change, in nanoseconds since the epoch.
        digest: SHA-256 of the content.
    """

    size: int
    modified_ns: int
    digest: str


def fingerprint(source: str, known: Fingerprint | None = None) -> Fingerprint | None:
    """Return the fingerprint of a file; None for a URL.

    Args:
        source: A path or a URL.
        known: An earlier fingerprint; if size and time are still the same, the content is not read again.

    Raises:
        OSError: The file cannot be read.
    """
    if is_url(source):
        return None
    with Path(source).open("rb") as file:
        facts = os.fstat(file.fileno())
        if known is not None and (known.size, known.modified_ns) == (facts.st_size, facts.st_mtime_ns):
            return known
        return Fingerprint(facts.st_size, facts.st_mtime_ns, file_digest(file, "sha256").hexdigest())


def has_changed(source: str, known: Fingerprint | None) -> bool:
    """Whether a file's content differs from its fingerprint; False for a URL or a missing file."""
    try:
        now = None if known is None else fingerprint(source, known)
    except OSError:
        return False
    return now is not None and known is not None and now.digest != known.digest
