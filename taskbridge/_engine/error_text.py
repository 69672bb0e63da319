"""Errors in one line, for people: without numbers of the operating system, with a vendor's complaints."""

from __future__ import annotations

from typing import Final, cast

from taskbridge.errors import TaskbridgeError, printable

_MOST: Final = 300  # characters of a vendor's complaints


def error_text(error: Exception) -> str:
    """Format any error, with the vendor's complaints about each field."""
    if isinstance(error, OSError) and not isinstance(error, TaskbridgeError):
        return os_error_text(error)
    text = str(error) if isinstance(error, TaskbridgeError) else f"{type(error).__name__}: {error}"
    return f"{text} {field_errors(error)}".strip()


def os_error_text(error: OSError) -> str:
    """Format an error of the operating system, without its number."""
    text = error.strerror or str(error) or type(error).__name__
    return printable(text if error.filename is None else f"{text}: {error.filename}")


def field_errors(error: BaseException) -> str:
    """Format what a vendor reports about each field of a submission: ``field: text; …``; empty if nothing."""
    raw: object = getattr(error, "raw", None)
    fields = cast("dict[str, object]", raw).get("errors") if isinstance(raw, dict) else None
    if not isinstance(fields, dict):
        return ""
    parts: list[str] = []
    for field, value in cast("dict[str, object]", fields).items():
        texts = cast("list[object]", value) if isinstance(value, list) else [value]
        parts += [f"{field}: {text}" for text in texts if isinstance(text, str)]
    return printable("; ".join(parts), _MOST)
