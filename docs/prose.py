"""The words of the generated parts: tables, code, docstrings as Markdown."""

from __future__ import annotations

from collections.abc import Iterable

Rows = Iterable[tuple[str, ...]]


def table(head: tuple[str, ...], rows: Rows) -> str:
    """A table; cells are one line each, and bars in them are escaped."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def code(text: object) -> str:
    """Text as code."""
    return f"`{text}`"


def prose(docstring: str) -> str:
    """A docstring's words as Markdown."""
    return docstring.replace("``", "`").strip()


def yes(value: object) -> str:
    """A truth value in words."""
    return "yes" if value else "no"
