"""Neutral options: what callers say about a neutral operation in the same words for every vendor.

A provider translates them with one table, its `OptionTable`. Options that only one vendor has are passed verbatim in
`options`, and override what is translated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Final, Literal, TypeAlias, TypedDict, get_args

from taskbridge.errors import InvalidInput, printable

TextFormat: TypeAlias = Literal["plain", "markdown", "html"]
"""Markup of an extracted text."""


class NeutralOptions(TypedDict, total=False):
    """Options of the neutral operations; each means the same for every vendor."""

    to: str
    """Format of the result, as the suffix of its file: ``pdf``, ``docx``, ``png``, ``jpg``, …"""
    text_format: TextFormat
    """Markup of the text: ``plain``, ``markdown`` or ``html``."""
    language: str
    """Language of the document, as an IETF tag: ``de``, ``pt-BR``, …"""
    pages: str | int
    """Pages of the document, from 1: a number, a range, or several of them, such as ``1,3,5-8``."""
    dpi: int
    """Resolution of the images, in dots per inch."""


NEUTRAL_OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "convert": ("to",),
    "extract-text": ("text_format", "language"),
    "render": ("to", "pages", "dpi"),
    "split": (),
    "extract-pages": ("pages",),
    "merge": (),
}
"""Neutral operation → its neutral options."""

OptionTable: TypeAlias = Mapping[str, Mapping[str, str | Mapping[str, Mapping[str, Any]]]]
"""Neutral operation → neutral option → how the vendor says it.

A text is the vendor's key, which takes every value as it is; a dot leads into an object (``context.url``). A mapping
has the values that the vendor can do, each with the vendor's own options for it, which may be none.
"""

_SAME_FORMATS: Final[Mapping[str, str]] = {"jpeg": "jpg", "tif": "tiff", "htm": "html"}
_DPI: Final = range(1, 10_001)
# Neutral option that is a text -> the pattern of its values, and what they are in words.
_TEXTS: Final[Mapping[str, tuple[re.Pattern[str], str]]] = {
    "to": (re.compile(r"[a-z0-9][a-z0-9.+-]{0,15}", re.ASCII), "the suffix of a file, such as pdf"),
    "text_format": (re.compile("|".join(get_args(TextFormat))), "plain, markdown or html"),
    "language": (re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*", re.ASCII), "a tag such as de or pt-BR"),
    "pages": (
        re.compile(r"[1-9]\d{0,5}(-[1-9]\d{0,5})?(,[1-9]\d{0,5}(-[1-9]\d{0,5})?)*", re.ASCII),
        "page numbers from 1 and ranges of them, such as 1,3,5-8",
    ),
}


def check_option_name(name: str) -> None:
    """Refuse a name that is no neutral option, and suggest the nearest.

    Raises:
        InvalidInput: It is none.
    """
    known = NeutralOptions.__annotations__
    if name in known:
        return
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InvalidInput(
        f"there is no neutral option {printable(name, 60)!r}; {hint}there are {', '.join(known)}; the vendor's own are "
        "given as options"
    )


def normalize_option(name: str, value: Any) -> str | int:
    """Return the value of a neutral option in its one spelling.

    Raises:
        InvalidInput: It cannot be a value of this option.
    """
    if name == "dpi":
        if type(value) is not int or value not in _DPI:
            raise InvalidInput(f"dpi is a whole number from {_DPI.start} to {_DPI.stop - 1}")
        return value
    pattern, meaning = _TEXTS[name]
    text = str(value) if isinstance(value, str) or (name == "pages" and type(value) is int) else ""
    if name == "to":
        text = text.lower().removeprefix(".")
        text = _SAME_FORMATS.get(text, text)
    if pattern.fullmatch(text) is None or (name == "pages" and not _ascends(text)):
        raise InvalidInput(f"{name} is {meaning}, not {printable(str(value), 60)!r}")
    return text


def _ascends(pages: str) -> bool:
    """Whether no range of pages runs backwards."""
    ranges = (part.partition("-") for part in pages.split(","))
    return all(not last or int(first) <= int(last) for first, _, last in ranges)
