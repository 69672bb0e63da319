"""Tables of tasks and outcomes for notebooks: `_repr_html_` of the shared model.

A notebook renders HTML as it is, and a vendor's text is untrusted, so all of it passes `printable` and is escaped. No
links are shown: anyone who has the link to a file can get the file, and notebooks are shared with their output.

Styles are inline and use the page's own colors, because a style sheet cannot detect the dark theme of a notebook, and
many viewers strip style sheets.
"""

from __future__ import annotations

import re
from collections import Counter
from html import escape
from typing import TYPE_CHECKING, Final

from taskbridge.errors import WaitTimeout, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from taskbridge.models import Outcome, Task, TaskFile, TaskResult

MAX_ROWS: Final = 100  # of a table
_MAX_TEXT: Final = 300  # characters of a vendor's text

# Text of a badge -> its background. The contrast with white text is at least 4.5 to 1.
_COLORS: Final[Mapping[str, str]] = {
    "pending": "#0a66c2",
    "processing": "#8a5a00",
    "completed": "#1a7f37",
    "failed": "#c0262d",
    "not finished": "#5c6470",
    "unknown": "#5c6470",
}
_QUERY: Final = re.compile(r"(https?://[^\s?#]*)[?#]\S*", re.IGNORECASE)
_LINE: Final = "1px solid rgba(128,128,128,.35)"
_TABLE: Final = "border-collapse:collapse;color:inherit;background:transparent;margin:.4em 0"
_HEAD: Final = f"text-align:left;padding:.25em 1em .25em 0;border-bottom:{_LINE};color:inherit"
_CELL: Final = f"{_HEAD};vertical-align:top;overflow-wrap:anywhere"


def task_html(task: Task) -> str:
    """Return a table of the known facts about a task."""
    rows = [
        ("status", _status(task)),
        ("vendor says", _vendor_says(task)),
        *((label, _text(value)) for label, value in task_facts(task)),
        ("result", _result(task.result) if task.result else ""),
        ("observed", _text(time_text(task.observed_at))),
    ]
    body = "".join(_row((escape(label), value)) for label, value in rows if value)
    parts = _tasks(task.subtasks) if task.subtasks else ""
    return f"<div><strong><code>{_text(task.ref)}</code></strong>{_table(body)}{parts}</div>"


def task_facts(task: Task) -> Iterator[tuple[str, str | None]]:
    """Yield labels and texts of what the vendor said besides the status, untrusted; None for what it did not say."""
    error = task.error
    yield "operation", task.operation
    yield "progress", progress_text(task)
    yield "message", unless_status(task, task.message)
    if error is not None:
        yield "error", unless_status(task, error.message) or "the vendor gives no reason"
        yield "error code", unless_status(task, error.code) if error.code != error.message else None
    yield "created", time_text(task.created_at)
    yield "started", time_text(task.started_at)
    yield "updated", time_text(task.updated_at)
    yield "finished", time_text(task.finished_at)
    yield "external id", task.external_id
    yield "part of", task.parent_id
    yield "retry of", task.retry_of
    yield "restarts", None if task.restarts is None else str(task.restarts)
    yield "cost", None if task.usage is None else str(task.usage)


def unless_status(task: Task, text: str | None) -> str | None:
    """Return a vendor's text, unless it only repeats the status."""
    return None if text is None or text.casefold() == (task.native_status or "").casefold() else text


def time_text(moment: datetime | None) -> str | None:
    """Format a time in UTC."""
    return None if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def progress_text(task: Task) -> str | None:
    """Format the progress, if the vendor reports it: ``40%``."""
    return None if task.progress is None else f"{task.progress:.0%}"


def outcomes_html(outcomes: Sequence[Outcome]) -> str:
    """Return a summary of outcomes, and a table with a row for each of the first hundred."""
    counts = Counter(_status_of(outcome) for outcome in outcomes)
    summary = " ".join(f"{_badge(word)} {counts[word]:,}" for word in _COLORS if counts[word])
    rows = "".join(
        _row((f"<code>{_text(each.ref)}</code>", _badge(_status_of(each)), *_details_of(each)))
        for each in outcomes[:MAX_ROWS]
    )
    head = _header("task", "status", "vendor says", "details")
    more = f"<div>and {len(outcomes) - MAX_ROWS:,} more</div>" if len(outcomes) > MAX_ROWS else ""
    noun = "task" if len(outcomes) == 1 else "tasks"
    table = _table(head + rows) + more if outcomes else ""
    return f"<div><strong>{len(outcomes):,} {noun}</strong> {summary}{table}</div>"


def _tasks(tasks: Iterable[Task]) -> str:
    rows = "".join(
        _row((_text(each.operation or each.id), _status(each), _vendor_says(each), _details(each))) for each in tasks
    )
    return _table(_header("subtask", "status", "vendor says", "details") + rows)


def _status_of(outcome: Outcome) -> str:
    if isinstance(outcome.error, WaitTimeout):
        return "not finished"
    if outcome.error is not None or outcome.task is None:
        return "unknown"
    return str(outcome.task.status)


def _details_of(outcome: Outcome) -> tuple[str, str]:
    task, error = outcome.task, outcome.error
    native = "" if task is None else _vendor_says(task)
    if error is None:
        return native, "" if task is None else _details(task)
    return native, f"{escape(type(error).__name__)}: {_text(error.message)}"


def _details(task: Task) -> str:
    if task.error is not None:
        return _text(unless_status(task, task.error.message or task.error.code))
    if task.result is not None:
        return _result(task.result)
    return ", ".join(filter(None, [progress_text(task), _text(task.message)]))


# Parts.


def _table(rows: str) -> str:
    return f'<table style="{_TABLE}"><tbody>{rows}</tbody></table>'


def _header(*labels: str) -> str:
    cells = (f'<th style="{_HEAD}">{escape(label)}</th>' for label in labels)
    return f"<tr>{''.join(cells)}</tr>"


def _row(cells: Iterable[str]) -> str:
    """Return a row of cells that are HTML already; the first cell is the header."""
    first, *rest = cells
    head = f'<th scope="row" style="{_CELL};font-weight:normal">{first}</th>'
    tail = (f'<td style="{_CELL}">{cell}</td>' for cell in rest)
    return f"<tr>{head}{''.join(tail)}</tr>"


def _badge(word: str) -> str:
    style = f"background:{_COLORS[word]};color:#fff;border-radius:.6em;padding:.05em .6em;white-space:nowrap"
    return f'<span style="{style}">{escape(word)}</span>'


def _status(task: Task) -> str:
    return _badge(str(task.status)) + (f" {escape(task.reason)}" if task.reason else "")


def _vendor_says(task: Task) -> str:
    word = _text(task.native_status)
    return word if task.recognized else f"{word} <em>(unknown to taskbridge)</em>"


def _result(result: TaskResult) -> str:
    parts = [_file(file) for file in result.files]
    if result.text is not None:
        parts.append(f"{len(result.text):,} characters of text")
    if result.data is not None:
        parts.append("structured data")
    return "<br>".join(parts) or "nothing"


def _file(file: TaskFile) -> str:
    size = None if file.size is None else f"{file.size:,} bytes"
    facts = ", ".join(filter(None, [_text(file.media_type), size]))
    return f"{_text(file.name or file.id or 'unnamed file')}{f' ({facts})' if facts else ''}"


def _text(text: str | None) -> str:
    """Return untrusted text as safe HTML, without the queries of URLs, which may hold keys."""
    return "" if text is None else escape(_QUERY.sub(r"\1?…", printable(text, _MAX_TEXT)))
