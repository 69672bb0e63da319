"""How tasks, results and providers read on a terminal. Every word of a vendor is made safe to show."""

from __future__ import annotations

import json
import shutil
import textwrap
from time import monotonic
from typing import TYPE_CHECKING, Final

from taskbridge.errors import printable
from taskbridge.notebook import progress_text, task_facts, time_text, unless_status

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from taskbridge._config.registry import ProviderInfo
    from taskbridge.models import Task, TaskFile, TaskResult

COLORS: Final[Mapping[str, str]] = {
    "pending": "blue",
    "processing": "yellow",
    "completed": "green",
    "failed": "red",
}
EMPTY: Final = "the task completed without any result"
_LABEL: Final = 18  # columns
_MINUTE: Final = 60  # seconds
_MOST: Final = 300  # characters of a vendor's text on one line


def _columns() -> int:
    return max(40, min(shutil.get_terminal_size((80, 24)).columns, 100))


def _block(title: str, rows: Iterable[tuple[str, str | None]]) -> str:
    """Format a title with aligned labels and values below it; rows without a value are left out."""
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


def wrap_line(line: str, *, indent: int) -> str:
    """Wrap a line without breaking words."""
    return textwrap.fill(
        line, _columns(), subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )


def plural(count: int, noun: str) -> str:
    """Format a count: ``1 file``, ``2 files``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


# Times.


def duration_text(seconds: float) -> str:
    """Format a duration in few characters: ``8s``, ``3:07``, ``1:02h``, ``3d``."""
    whole = max(0, int(seconds))
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < 60 * _MINUTE:
        return f"{whole // 60}:{whole % 60:02}"
    if whole < 24 * 60 * _MINUTE:
        return f"{whole // 3600}:{whole // 60 % 60:02}h"
    return f"{whole // 86_400}d"


def time_left(moment: float | None) -> str:
    """Format the time until a monotonic second in few characters; ``now`` once it is due, empty for None."""
    if moment is None:
        return ""
    left = moment - monotonic()
    return duration_text(left) if left >= 1.0 else "now"


# Tasks.


def status_text(task: Task) -> str:
    """Format the shared status with its reason: ``failed (cancelled)``."""
    return f"{task.status} ({task.reason})" if task.reason else str(task.status)


def native_text(task: Task) -> str:
    """Format the vendor's own status."""
    return printable(task.native_status or "-", 60)


def task_line(task: Task, width: int) -> str:
    """Format a task on one line."""
    return f"{printable(task.ref, 600).ljust(width)}  {state_line(task)}"


def state_line(task: Task | None) -> str:
    """Format what is known of a task on one line."""
    return "no status yet" if task is None else f"{task.status:<10}  {detail_text(task)}"


def detail_text(task: Task, *, progress: bool = True) -> str:
    """Format the vendor's status, our reason, and the cause of a failure or else progress and message."""
    note = _note(task, progress=progress)
    return f"{native_text(task)}{f' ({task.reason})' if task.reason else ''}{f': {note}' if note else ''}"


def note_text(task: Task) -> str:
    """Format what `detail_text` says beside the vendor's status: our reason, progress and message."""
    return ": ".join(filter(None, [str(task.reason or ""), _note(task, progress=True)]))


def _note(task: Task, *, progress: bool) -> str:
    if task.error is not None:
        return _safe(unless_status(task, task.error.message) or unless_status(task, task.error.code)) or ""
    if task.is_terminal:
        return ""
    return ", ".join(filter(None, [progress_text(task) if progress else "", _safe(unless_status(task, task.message))]))


def task_block(task: Task) -> str:
    """Format all about a task."""
    rows = [
        ("status", status_text(task)),
        ("vendor says", native_text(task) + ("" if task.recognized else ", a word that taskbridge does not know")),
        *((label, _safe(value)) for label, value in task_facts(task)),
    ]
    rows += [("subtasks" if number == 0 else "", _subtask(part)) for number, part in enumerate(task.subtasks)]
    return _block(printable(task.ref, 600), rows)


def _subtask(task: Task) -> str:
    name, note = printable(task.operation or task.id, 40), _note(task, progress=True)
    return f"{name}: {status_text(task)}, {native_text(task)}{f': {note}' if note else ''}"


# Results.


def result_block(ref: str, result: TaskResult) -> str:
    """Format a result: its files with their links, how many pages and fields it has, its text, its data."""
    rows: list[tuple[str, str | None]] = []
    for file in result.files:
        rows += [("file", _file(file)), ("", file.url and printable(file.url))]
    counts = {"pages": len(result.pages), "fields": len(result.fields)}
    rows = rows or [("files", "none")]
    rows += [(name, str(count)) for name, count in counts.items() if count]
    parts = [_block(printable(ref, 600), rows)]
    if result.text is not None:
        parts.append(_safe_lines(result.text))
    if result.data is not None:
        parts.append(_safe_lines(json.dumps(result.data, indent=2, ensure_ascii=False)))
    return "\n\n".join(parts)


def _file(file: TaskFile) -> str:
    expiry = f"link valid until {time_text(file.expires_at)}" if file.expires_at else None
    size = f"{file.size:,} bytes" if file.size is not None else None
    facts = ", ".join(filter(None, [_safe(file.media_type), size, expiry]))
    return f"{printable(file.name or file.id or 'without a name', _MOST)}{f' ({facts})' if facts else ''}"


def _safe_lines(text: str) -> str:
    return "\n".join(printable(line, len(line) + 1) for line in text.splitlines())


def _safe(text: str | None) -> str | None:
    return None if text is None else printable(text, _MOST)


# Providers.


def provider_block(info: ProviderInfo) -> str:
    """Format an installed provider."""
    origin = " ".join(filter(None, [info.distribution or "an unnamed distribution", info.version]))
    rows: list[tuple[str, str | None]] = [
        ("vendor", _safe(info.title)),
        ("from", f"{printable(origin, 200)}{' (built in)' if info.builtin else ''}"),
    ]
    if info.capabilities is not None:
        can = info.capabilities
        reported = {
            "status": True,
            "progress": can.progress,
            "end by long poll": can.long_poll,
            "subtasks": can.subtasks,
            "result by a separate request": can.separate_result,
        }
        rows += [
            ("authentication", _safe(can.authentication)),
            ("ids", ", ".join(f"{printable(kind.example, 80)} ({printable(kind.noun, 60)})" for kind in can.kinds)),
            ("reports", ", ".join(name for name, able in reported.items() if able)),
            ("reasons", ", ".join(can.reasons)),
            ("webhooks", _safe(can.webhooks.scheme) if can.webhooks else "none"),
        ]
    rows.append(("cannot be used", _safe(info.problem)))
    return _block(printable(info.name, 100), rows)
