"""Makes file names from a vendor safe for a local folder, on any system; pure."""

from __future__ import annotations

import re
import unicodedata
from mimetypes import guess_extension, guess_type
from typing import Final

_MAX_BYTES: Final = 200  # file systems allow 255, and a number may be added
_MAX_SUFFIX: Final = 20  # characters of a suffix that is kept
_FORBIDDEN: Final = re.compile(r'[<>:"|?*]')  # on Windows; a colon also starts an alternate stream there
_INVISIBLE: Final = frozenset({"Zl", "Zp"})  # line and paragraph separators; besides all categories C…
# Names of devices, whatever follows the first dot.  https://learn.microsoft.com/windows/win32/fileio/naming-a-file
_DEVICE: Final = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])[ ]*(\..*)?", re.IGNORECASE)
_UNTYPED: Final = "application/octet-stream"


def file_name(name: str | None, media_type: str | None = None, fallback: str = "document") -> str:
    """Return a vendor's file name made safe for a local folder, on any system.

    Only the part after the last slash or backslash counts. Controls, invisible and bidirectional marks, and characters
    that Windows forbids become ``_``; dots and blanks at both ends are removed; names of devices get a leading ``_``;
    equal letters are spelled in one way (NFC); at most 200 bytes are kept, including the suffix.

    Args:
        name: The vendor's name.
        media_type: The vendor's media type: a name without a known suffix gets the suffix of it.
        fallback: Used if nothing is left of the name.
    """
    base = unicodedata.normalize("NFC", re.split(r"[/\\]", name or "")[-1])
    base = _FORBIDDEN.sub("_", "".join("_" if _is_hidden(c) else c for c in base)).strip(" .\u3000\xa0")
    if not base.strip("_"):
        base = fallback
    kind = (media_type or "").partition(";")[0].strip().lower()
    if kind and kind != _UNTYPED and guess_type(base)[0] is None:
        base += guess_extension(kind) or ""
    if _DEVICE.fullmatch(base):
        base = f"_{base}"
    stem, suffix = _split(base)
    kept = stem.encode()[: _MAX_BYTES - len(suffix.encode())].decode(errors="ignore")
    return f"{kept}{suffix}"


def _is_hidden(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] == "C" or category in _INVISIBLE


def _split(name: str) -> tuple[str, str]:
    """Return stem and suffix; the suffix includes its dot, and is empty if there is none worth keeping."""
    stem, dot, suffix = name.rpartition(".")
    return (stem, f".{suffix}") if dot and stem and len(suffix) <= _MAX_SUFFIX else (name, "")


class UniqueNames:
    """Makes the names in one folder unique: the second file of a name gets a number.

    Names that differ only in case count as equal, as on some file systems.
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, name: str) -> str:
        """Return a result of `file_name`, with the first free number from 2 if taken: ``a.pdf``, ``a-2.pdf``."""
        stem, suffix = _split(name)
        number, free = 1, name
        while free.casefold() in self._taken:
            number += 1
            free = f"{stem}-{number}{suffix}"
        self._taken.add(free.casefold())
        return free
