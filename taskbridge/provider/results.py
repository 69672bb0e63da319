"""What is written of a result, as data; pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from taskbridge.models import Task, TaskResult

__all__ = ["GeneratedFile", "as_json", "as_text", "generated_files"]


@dataclass(frozen=True, slots=True)
class GeneratedFile:
    """A file that is made here, of what an answer of the vendor held.

    Attributes:
        part: What of the result it is, as `Downloads.parts` has it.
        name: Its name; made safe before it is used.
        content: Its bytes.
    """

    part: str
    name: str
    content: bytes = field(repr=False)


def generated_files(task: Task, result: TaskResult, *, text_suffix: str = ".txt") -> tuple[GeneratedFile, ...]:
    """A result's text and data as files, named by the vendor's id of the task: ``44.txt``, ``44.json``.

    Args:
        task: The task.
        result: What it made.
        text_suffix: Suffix for the text, with its dot.
    """
    return tuple(_generate(str(task.native_id), result, text_suffix))


def _generate(name: str, result: TaskResult, text_suffix: str) -> Iterator[GeneratedFile]:
    if result.text is not None:
        yield GeneratedFile("text", f"{name}{text_suffix}", as_text(result.text))
    if result.data is not None:
        yield GeneratedFile("data", f"{name}.json", as_json(result.data))


def as_text(text: str) -> bytes:
    """A text as UTF-8; a surrogate that has no other half becomes a question mark."""
    return text.encode(errors="replace")


def as_json(data: Any) -> bytes:
    """Data as JSON in UTF-8, on one line."""
    try:
        return f"{json.dumps(data, ensure_ascii=False)}\n".encode()
    except UnicodeEncodeError:  # a surrogate that has no other half: JSON can spell it, UTF-8 cannot
        return f"{json.dumps(data)}\n".encode()
