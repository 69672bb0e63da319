"""Files made from the text and data of a result, as data."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from taskbridge.models import Task, TaskResult


@dataclass(frozen=True, slots=True)
class GeneratedFile:
    """A file that is made here from a response, not kept by the vendor.

    Attributes:
        part: Part of the result that it holds, a word of `Downloads.parts`.
        name: File name; made safe before it is used.
        content: The bytes.
    """

    part: str
    name: str
    content: bytes = field(repr=False)


def generated_files(task: Task, result: TaskResult, *, text_suffix: str = ".txt") -> tuple[GeneratedFile, ...]:
    """Return a result's text and data as files, named by the vendor's id of the task: ``44.txt``, ``44.json``."""
    files: list[GeneratedFile] = []
    if result.text is not None:
        files.append(GeneratedFile("text", f"{task.native_id}{text_suffix}", as_text(result.text)))
    if result.data is not None:
        files.append(GeneratedFile("data", f"{task.native_id}.json", as_json(result.data)))
    return tuple(files)


def as_text(text: str) -> bytes:
    """Encode a text as UTF-8; a lone surrogate becomes a question mark."""
    return text.encode(errors="replace")


def as_json(data: Any) -> bytes:
    """Encode data as JSON in UTF-8, on one line."""
    try:
        return f"{json.dumps(data, ensure_ascii=False)}\n".encode()
    except UnicodeEncodeError:  # a lone surrogate: JSON can escape it, UTF-8 cannot encode it
        return f"{json.dumps(data)}\n".encode()
