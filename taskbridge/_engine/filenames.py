"""Names of files that strangers made up, as they may stand in a folder of ours; pure."""

from __future__ import annotations

import re
import unicodedata
from mimetypes import guess_extension, guess_type
from typing import Final

_LONGEST: Final = 200  # bytes; file systems take 255, and a number may be added


_LONGEST_SUFFIX: Final = 20  # characters of a suffix worth keeping


_FORBIDDEN: Final = re.compile(r'[<>:"|?*]')  # to Windows; a colon also begins a stream of a file there


_INVISIBLE: Final = frozenset({"Zl", "Zp"})  # line and paragraph separators; beside all categories C…


# Names of devices, whatever follows their first dot.  https://learn.microsoft.com/windows/win32/fileio/naming-a-file
_DEVICE: Final = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])[ ]*(\..*)?", re.IGNORECASE)


_SHAPELESS: Final = "application/octet-stream"


def file_name(name: str | None, media_type: str | None = None, fallback: str = "document") -> str:
    """A stranger's name for a file as it may stand in a folder of ours, on any system.

    Only what follows the last slash or backslash counts. Controls, invisible and bidirectional marks, and characters
    that Windows forbids become ``_``; dots and blanks at either end go; names of devices get a ``_`` in front; equal
    letters are written in one way (NFC); at most 200 bytes are kept, the suffix among them.

    Args:
        name: What the vendor says.
        media_type: What it says of the contents: a name that tells no type gets the suffix of it.
        fallback: What stands in for a name that has nothing left.
    """
    base = unicodedata.normalize("NFC", re.split(r"[/\\]", name or "")[-1])
    base = _FORBIDDEN.sub("_", "".join("_" if _is_hidden(c) else c for c in base)).strip(" .\u3000\xa0")
    if not base.strip("_"):
        base = fallback
    if media_type and guess_type(base)[0] is None and (kind := _kind(media_type)) != _SHAPELESS:
        base += guess_extension(kind) or ""
    if _DEVICE.fullmatch(base):
        base = f"_{base}"
    stem, suffix = _split(base)
    return f"{_cut(stem, _LONGEST - len(suffix.encode()))}{suffix}"


def _kind(media_type: str) -> str:
    return media_type.partition(";")[0].strip().lower()


def _is_hidden(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] == "C" or category in _INVISIBLE


def _split(name: str) -> tuple[str, str]:
    """Stem and suffix; the suffix has its dot, and is empty where there is none worth keeping."""
    stem, dot, suffix = name.rpartition(".")
    return (stem, f".{suffix}") if dot and stem and len(suffix) <= _LONGEST_SUFFIX else (name, "")


def _cut(text: str, size: int) -> str:
    return text.encode()[:size].decode(errors="ignore")


class Names:
    """Names in one folder: of two files of one name, the second gets a number.

    Names that differ only in case count as one, as some file systems have it.
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, name: str) -> str:
        """The name, or the same with the first number from 2 that is free: ``a.pdf``, ``a-2.pdf``.

        Args:
            name: As `file_name` makes it.
        """
        stem, suffix = _split(name)
        number, free = 1, name
        while free.casefold() in self._taken:
            number += 1
            free = f"{stem}-{number}{suffix}"
        self._taken.add(free.casefold())
        return free
