"""How a task, and what came of many, look in a notebook: `_repr_html_` of the shared model.

A notebook trusts what it shows, and a vendor's words are a stranger's: each passes `printable` and is escaped. No link is
shown, neither a file's nor an id's: whoever has a link to a file has the file, and a notebook is passed on with its
output.

Styles stand in the elements, and lean on the page's own colours: a notebook's dark theme is none that a style sheet
could ask for, and many places that show notebooks strip style sheets.
"""

from __future__ import annotations

import re
from collections import Counter
from html import escape
from typing import TYPE_CHECKING, Final

from taskbridge.errors import WaitTimeout, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from taskbridge.models import Outcome, Task, TaskFile, TaskResult

__all__ = ["outcomes_html", "task_html"]

MOST: Final = 100  # rows of a table; a page with thousands helps nobody
_WORDS: Final = 300  # characters of a vendor's words

# Word of a badge -> its colour; white on it reads well (4.5 to 1 and more) on a light page and on a dark one.
_COLOURS: Final[Mapping[str, str]] = {
    "pending": "#0a66c2",
    "processing": "#8a5a00",
    "completed": "#1a7f37",
    "failed": "#c0262d",
    "still going on": "#5c6470",
    "no answer": "#5c6470",
}
_QUERY: Final = re.compile(r"(https?://[^\s?#]*)[?#]\S*", re.IGNORECASE)
_LINE: Final = "1px solid rgba(128,128,128,.35)"
_TABLE: Final = "border-collapse:collapse;color:inherit;background:transparent;margin:.4em 0"
_HEAD: Final = f"text-align:left;padding:.25em 1em .25em 0;border-bottom:{_LINE};color:inherit"
_CELL: Final = f"{_HEAD};vertical-align:top;overflow-wrap:anywhere"


def task_html(task: Task) -> str:
    """All about a task, as a table of what is known.

    Args:
        task: The snapshot.
    """
    rows: list[tuple[str, str | None]] = [
        ("status", _status(task)),
        ("vendor says", _vendor_says(task)),
        ("operation", _words(task.operation)),
        ("progress", _progress(task)),
        ("message", _words(task.message)),
        ("error", _words(task.error.message or "the vendor does not say why") if task.error else None),
        ("error code", _words(task.error.code) if task.error else None),
        ("result", _result(task.result) if task.result else None),
        ("created", _moment(task.created_at)),
        ("started", _moment(task.started_at)),
        ("updated", _moment(task.updated_at)),
        ("finished", _moment(task.finished_at)),
        ("observed", _moment(task.observed_at)),
        ("external id", _words(task.external_id)),
        ("part of", _words(task.parent_id)),
        ("retry of", _words(task.retry_of)),
        ("restarts", None if task.restarts is None else str(task.restarts)),
    ]
    body = "".join(_row((escape(label), value)) for label, value in rows if value)
    parts = _tasks(task.subtasks) if task.subtasks else ""
    return f"<div><strong><code>{_words(task.ref)}</code></strong>{_table(body)}{parts}</div>"


def outcomes_html(outcomes: Sequence[Outcome]) -> str:
    """What came of many tasks: how many ended how, and a row for each of the first hundred.

    Args:
        outcomes: In the order in which they are shown.
    """
    counts = Counter(_end(outcome) for outcome in outcomes)
    told = " ".join(f"{_badge(end)} {counts[end]:,}" for end in _COLOURS if counts[end])
    rows = "".join(
        _row((f"<code>{_words(each.ref)}</code>", _badge(_end(each)), *_what(each))) for each in outcomes[:MOST]
    )
    head = _header("task", "status", "vendor says", "what else")
    more = f"<div>and {len(outcomes) - MOST:,} more</div>" if len(outcomes) > MOST else ""
    noun = "task" if len(outcomes) == 1 else "tasks"
    shown = _table(head + rows) + more if outcomes else ""
    return f"<div><strong>{len(outcomes):,} {noun}</strong> {told}{shown}</div>"


def _tasks(tasks: Iterable[Task]) -> str:
    rows = "".join(
        _row((_words(each.operation or each.id), _status(each), _vendor_says(each), _note(each))) for each in tasks
    )
    return _table(_header("made of", "status", "vendor says", "what else") + rows)


def _end(outcome: Outcome) -> str:
    if isinstance(outcome.error, WaitTimeout):
        return "still going on"
    if outcome.error is not None or outcome.task is None:
        return "no answer"
    return str(outcome.task.status)


def _what(outcome: Outcome) -> tuple[str, str]:
    task, error = outcome.task, outcome.error
    said = "" if task is None else _vendor_says(task)
    if error is None:
        return said, "" if task is None else _note(task)
    return said, f"{escape(type(error).__name__)}: {_words(error.message)}"


def _note(task: Task) -> str:
    """What else is to be said on one line."""
    if task.error is not None:
        words = task.error.message or task.error.code
        return "" if words is None or words.casefold() == (task.native_status or "").casefold() else _words(words)
    if task.result is not None:
        return _result(task.result)
    return ", ".join(filter(None, [_progress(task), _words(task.message)]))


# Small parts.


def _table(rows: str) -> str:
    return f'<table style="{_TABLE}"><tbody>{rows}</tbody></table>'


def _header(*labels: str) -> str:
    cells = (f'<th style="{_HEAD}">{escape(label)}</th>' for label in labels)
    return f"<tr>{''.join(cells)}</tr>"


def _row(cells: Iterable[str]) -> str:
    """A row of what is HTML already; its first cell is its head."""
    first, *rest = cells
    head = f'<th scope="row" style="{_CELL};font-weight:normal">{first}</th>'
    tail = (f'<td style="{_CELL}">{cell}</td>' for cell in rest)
    return f"<tr>{head}{''.join(tail)}</tr>"


def _badge(word: str) -> str:
    style = f"background:{_COLOURS[word]};color:#fff;border-radius:.6em;padding:.05em .6em;white-space:nowrap"
    return f'<span style="{style}">{escape(word)}</span>'


def _status(task: Task) -> str:
    return _badge(str(task.status)) + (f" {escape(task.reason)}" if task.reason else "")


def _vendor_says(task: Task) -> str:
    word = _words(task.native_status)
    return word if task.recognized else f"{word} <em>(a word that taskbridge does not know)</em>"


def _progress(task: Task) -> str | None:
    return None if task.progress is None else f"{task.progress:.0%}"


def _result(result: TaskResult) -> str:
    parts = [_file(file) for file in result.files]
    if result.text is not None:
        parts.append(f"{len(result.text):,} characters of text")
    if result.data is not None:
        parts.append("structured data")
    return "<br>".join(parts) or "nothing"


def _file(file: TaskFile) -> str:
    size = None if file.size is None else f"{file.size:,} bytes"
    facts = ", ".join(filter(None, [_words(file.media_type), size]))
    return f"{_words(file.name or file.id or 'a file without a name')}{f' ({facts})' if facts else ''}"


def _words(text: str | None) -> str:
    """A stranger's words, safe to show; of an address in them the query is left out, for that may be the key."""
    return "" if text is None else escape(_QUERY.sub(r"\1?…", printable(text, _WORDS)))


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"
