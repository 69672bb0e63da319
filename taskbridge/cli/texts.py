"""How tasks, results and providers read on a terminal; every word of a vendor is made safe to show."""

from __future__ import annotations

import json
import shutil
import textwrap
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from taskbridge.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from taskbridge._config.registry import ProviderInfo
    from taskbridge.models import Task, TaskFile, TaskResult
    from taskbridge.provider.capabilities import Capabilities

__all__ = [
    "COLOURS",
    "complaints",
    "folded",
    "provider_block",
    "result_block",
    "row",
    "several",
    "share_of",
    "span",
    "status_of",
    "task_block",
    "until",
    "word_of",
    "words_of",
    "words_of_file",
]

COLOURS: Final[Mapping[str, str]] = {
    "pending": "blue",
    "processing": "yellow",
    "completed": "green",
    "failed": "red",
}
_LABEL: Final = 18  # columns
_MINUTE: Final = 60  # seconds
_WORDS: Final = 300  # characters of a vendor's words on one line


def _columns() -> int:
    return max(40, min(shutil.get_terminal_size((80, 24)).columns, 100))


def _block(title: str, rows: Iterable[tuple[str, str | None]]) -> str:
    """A title, and below it labels and values, the values under each other; what is unknown is left out."""
    lines = [title]
    for label, value in rows:
        if value:
            lines += textwrap.wrap(
                value,
                _columns(),
                initial_indent=f"  {label}".ljust(_LABEL),
                subsequent_indent=" " * _LABEL,
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "\n".join(lines)


def folded(line: str, *, indent: int) -> str:
    """A long line in several, none broken within a word.

    Args:
        line: The line.
        indent: Columns before all but the first.
    """
    return textwrap.fill(
        line, _columns(), subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )


# Tasks.


def status_of(task: Task) -> str:
    """Our word, refined: ``failed (cancelled)``."""
    return f"{task.status} ({task.reason})" if task.reason else str(task.status)


def word_of(task: Task) -> str:
    """The vendor's word."""
    return printable(task.native_status or "-", 60)


def share_of(task: Task) -> str:
    """How much is done, where the vendor says so: ``40%``."""
    return f"{task.progress:.0%}" if task.progress is not None and not task.is_terminal else ""


def span(seconds: float) -> str:
    """A time in few characters: ``8s``, ``3:07``, ``1:02h``, ``3d``."""
    whole = max(0, int(seconds))
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < 60 * _MINUTE:
        return f"{whole // 60}:{whole % 60:02}"
    if whole < 24 * 60 * _MINUTE:
        return f"{whole // 3600}:{whole // 60 % 60:02}h"
    return f"{whole // 86_400}d"


def until(moment: float | None) -> str:
    """How long until a monotonic second, in few characters; ``now`` where it is due, nothing where there is none."""
    if moment is None:
        return ""
    left = moment - monotonic()
    return span(left) if left >= 1.0 else "now"


def _note(task: Task, *, share: bool) -> str:
    """What else is to be said on one line: the cause of a failure, the phase, how much is done."""
    if task.error is not None:
        return printable(_new(task, task.error.message) or _new(task, task.error.code) or "", _WORDS)
    if task.is_terminal:
        return ""
    done = share_of(task) if share else ""
    return ", ".join(filter(None, [done, printable(_new(task, task.message) or "", _WORDS)]))


def _new(task: Task, words: str | None) -> str | None:
    """What a vendor says, unless it is the word of the status again."""
    return None if words is None or words.casefold() == (task.native_status or "").casefold() else words


def row(task: Task, width: int) -> str:
    """One line about a task.

    Args:
        task: The task.
        width: Columns of its ref.
    """
    return f"{printable(task.ref, 600).ljust(width)}  {task.status:<10}  {words_of(task)}"


def words_of(task: Task, *, share: bool = True) -> str:
    """The vendor's word, what it means, and what else is to be said.

    Args:
        task: The task.
        share: Also how much is done.
    """
    note = _note(task, share=share)
    return f"{word_of(task)}{f' ({task.reason})' if task.reason else ''}{f': {note}' if note else ''}"


def task_block(task: Task) -> str:
    """All about a task."""
    error = task.error
    rows: list[tuple[str, str | None]] = [
        ("status", status_of(task)),
        ("vendor says", word_of(task) + ("" if task.recognized else ", a word that taskbridge does not know")),
        ("operation", _words(task.operation)),
        ("progress", None if task.progress is None else f"{task.progress:.0%}"),
        ("message", _words(_new(task, task.message))),
        ("error", (_words(_new(task, error.message)) or "the vendor does not say why") if error else None),
        ("error code", _words(_new(task, error.code)) if error and error.code != error.message else None),
        ("created", _moment(task.created_at)),
        ("started", _moment(task.started_at)),
        ("updated", _moment(task.updated_at)),
        ("finished", _moment(task.finished_at)),
        ("external id", _words(task.external_id)),
        ("part of", _words(task.parent_id)),
        ("retry of", _words(task.retry_of)),
        ("restarts", None if task.restarts is None else str(task.restarts)),
    ]
    rows += [("made of" if n == 0 else "", _part(part)) for n, part in enumerate(task.subtasks)]
    return _block(printable(task.ref, 600), rows)


def _part(task: Task) -> str:
    note = _note(task, share=True)
    return (
        f"{printable(task.operation or task.id, 40)}: {status_of(task)}, {word_of(task)}{f': {note}' if note else ''}"
    )


def complaints(error: BaseException) -> str:
    """What a vendor has against each field of an order, ``field: text; …``; nothing where it says nothing."""
    raw: object = getattr(error, "raw", None)
    fields = cast("dict[str, object]", raw).get("errors") if isinstance(raw, dict) else None
    if not isinstance(fields, dict):
        return ""
    said: list[str] = []
    for field, texts in cast("dict[str, object]", fields).items():
        several = cast("list[object]", texts) if isinstance(texts, list) else [texts]
        said += [f"{field}: {text}" for text in several if isinstance(text, str)]
    return printable("; ".join(said), _WORDS)


def several(count: int, what: str) -> str:
    """A number of things: ``1 file``, ``2 files``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def words_of_file(error: OSError) -> str:
    """What the operating system has against a file, without its number."""
    what = error.strerror or str(error) or type(error).__name__
    return printable(what if error.filename is None else f"{what}: {error.filename}")


# Results.


def result_block(ref: str, result: TaskResult) -> str:
    """What a task made: its files and their links, its text, its data."""
    rows: list[tuple[str, str | None]] = []
    for file in result.files:
        rows += [("file", _file(file)), ("", file.url and printable(file.url))]
    parts = [_block(printable(ref, 600), rows or [("files", "none")])]
    if result.text is not None:
        parts.append(_safe(result.text))
    if result.data is not None:
        parts.append(_safe(json.dumps(result.data, indent=2, ensure_ascii=False)))
    return "\n\n".join(parts)


def _file(file: TaskFile) -> str:
    until = f"link good until {_moment(file.expires_at)}" if file.expires_at else None
    size = f"{file.size:,} bytes" if file.size is not None else None
    facts = ", ".join(filter(None, [_words(file.media_type), size, until]))
    return f"{printable(file.name or file.id or 'without a name', _WORDS)}{f' ({facts})' if facts else ''}"


def _safe(text: str) -> str:
    return "\n".join(printable(line, len(line) + 1) for line in text.splitlines())


# Providers.


def provider_block(info: ProviderInfo) -> str:
    """An installed provider."""
    origin = " ".join(filter(None, [info.distribution or "an unnamed distribution", info.version]))
    rows: list[tuple[str, str | None]] = [
        ("vendor", _words(info.title)),
        ("from", f"{printable(origin, 200)}{' (built in)' if info.builtin else ''}"),
    ]
    if info.capabilities is not None:
        can = info.capabilities
        rows += [
            ("authentication", _words(can.authentication)),
            ("ids", ", ".join(f"{printable(kind.example, 80)} ({printable(kind.noun, 60)})" for kind in can.kinds)),
            ("tells", ", ".join(word for word, able in _abilities(can) if able) or "the status"),
            ("reasons", ", ".join(can.reasons)),
            ("webhooks", _words(can.webhooks.scheme) if can.webhooks else "none"),
        ]
    rows.append(("cannot be used", _words(info.problem)))
    return _block(printable(info.name, 100), rows)


def _abilities(can: Capabilities) -> tuple[tuple[str, bool], ...]:
    return (
        ("the status", True),
        ("how much is done", can.progress),
        ("the end as it comes (held line)", can.long_poll),
        ("the tasks of a job", can.subtasks),
        ("the result on a request of its own", can.result_apart),
    )


# Small parts.


def _words(text: str | None) -> str | None:
    return None if text is None else printable(text, _WORDS)


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"
