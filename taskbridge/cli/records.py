"""The JSON records. Every key is always present; it is null if its value is unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from taskbridge.cli.exit_codes import code_of, outcome_code
from taskbridge.errors import TaskbridgeError, printable

if TYPE_CHECKING:
    from taskbridge.models import Outcome, Task

_CONTEXT: Final = (
    "provider",
    "connection",
    "ref",
    "http_status",
    "vendor_code",
    "request_id",
    "retry_after",
    "retryable",
)


def error_record(error: TaskbridgeError) -> dict[str, Any]:
    """Return the record of an error, without the vendor's body."""
    context = {name: getattr(error, name) for name in _CONTEXT}
    return {"type": type(error).__name__, "message": printable(error.message), **context, "exit_code": code_of(error)}


def error_or_none(error: TaskbridgeError | None) -> dict[str, Any] | None:
    """Return the record of an error; None for None."""
    return None if error is None else error_record(error)


def result_record(ref: str, error: TaskbridgeError | None, **parts: object) -> dict[str, Any]:
    """Return the record of what a command got for a task, or of the error in its place."""
    return {"ref": ref, **parts, "error": error_or_none(error), "exit_code": code_of(error)}


def task_record(task: Task | None) -> dict[str, Any] | None:
    """Return the record of a task, without links to its files: a link is a key, and only `result` shows it."""
    if task is None:
        return None
    record = task.to_dict()
    del record["raw"]
    if record["result"] is not None:
        for file in record["result"]["files"]:
            del file["url"]
    record["subtasks"] = [task_record(subtask) for subtask in task.subtasks]
    return record


def outcome_record(outcome: Outcome) -> dict[str, Any]:
    """Return the record of a task's snapshot, or of the error in its place."""
    task, error = outcome.task, outcome.error
    return {
        "ref": outcome.ref,
        "task": task_record(task),
        "error": error_or_none(error),
        "final": error is not None or (task is not None and task.is_terminal),
        "exit_code": outcome_code(outcome),
    }
