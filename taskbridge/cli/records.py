"""The shapes of the JSON lines. Keys are always there, null where nothing is known."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final

from taskbridge._engine.inputs import is_url
from taskbridge.cli.codes import code_of, outcome_code
from taskbridge.errors import TaskbridgeError, printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from taskbridge._config.registry import ProviderInfo
    from taskbridge._engine.webhooks import Ingested
    from taskbridge.cli.carrier import News
    from taskbridge.models import Outcome, Task, TaskResult, WebhookEvent

__all__ = [
    "error_record",
    "event_record",
    "file_record",
    "outcome_record",
    "provider_record",
    "result_record",
    "resume_command",
    "stop_record",
]

# A link to a file is a key to it: only `result`, which is asked for it, tells it.
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
    """An error, without the vendor's body."""
    context = {name: getattr(error, name) for name in _CONTEXT}
    return {"type": type(error).__name__, "message": printable(error.message), **context, "exit_code": code_of(error)}


def outcome_record(outcome: Outcome) -> dict[str, Any]:
    """A look at a task, or why there is none."""
    task, error = outcome.task, outcome.error
    return {
        "ref": outcome.ref,
        "task": None if task is None else _task(task),
        "error": None if error is None else error_record(error),
        "final": error is not None or (task is not None and task.is_terminal),
        "exit_code": outcome_code(outcome),
    }


def _task(task: Task) -> dict[str, Any]:
    shown = task.to_dict()
    del shown["raw"]
    for file in (shown["result"] or {}).get("files", ()):
        del file["url"]
    shown["subtasks"] = [_task(subtask) for subtask in task.subtasks]
    return shown


def result_record(ref: str, result: TaskResult | None, error: TaskbridgeError | None) -> dict[str, Any]:
    """What a task made, or why there is nothing."""
    return {
        "ref": ref,
        "result": None if result is None else result.to_dict(),
        "error": None if error is None else error_record(error),
        "exit_code": 0 if error is None else code_of(error),
    }


def stop_record(cause: str, refs: Iterable[str], resume: str) -> dict[str, Any]:
    """The end of a wait before the end of its tasks."""
    return {"stopped": cause, "refs": list(refs), "resume": resume}


def file_record(news: News) -> dict[str, Any]:
    """What became of a file of a run."""
    error, task = news.error, news.task
    return {
        "file": printable(
            news.entry.source.partition("?")[0] if is_url(news.entry.source) else news.entry.source, 4096
        ),
        "folder": news.entry.folder,
        "state": news.step,
        "ref": news.entry.ref,
        "task": None if task is None else _task(task),
        "files": [str(path) for path in news.files],
        "error": _any_error(error) if error is not None else None,
    }


def event_record(
    status: int, event: WebhookEvent, told: Ingested | None, error: TaskbridgeError | None
) -> dict[str, Any]:
    """A webhook's event, and what became of it."""
    task = event.task if told is None or told.task is None else told.task
    return {
        "status": status,
        "type": printable(event.type, 200),
        "event_id": event.event_id,
        "occurred_at": None if event.occurred_at is None else event.occurred_at.isoformat(),
        "ref": event.ref,
        "note": None if told is None else told.note,
        "confirmed": event.needs_confirmation and told is not None and told.task is not None,
        "task": None if task is None else _task(task),
        "error": None if error is None else error_record(error),
    }


def _any_error(error: Exception) -> dict[str, Any]:
    if isinstance(error, TaskbridgeError):
        return error_record(error)
    return {"type": type(error).__name__, "message": printable(str(error))}


def resume_command(command: str, refs: Iterable[str], config: str | None) -> str:
    """The command that goes on waiting, to be pasted into a shell."""
    chosen = ["--config", config] if config is not None else []
    words = list(refs)
    if any(word.startswith("-") for word in words):
        chosen.append("--")  # none of them is an option
    return shlex.join(["taskbridge", command, *chosen, *words])


def provider_record(info: ProviderInfo) -> dict[str, Any]:
    """An installed provider."""
    can = info.capabilities
    return {
        "name": info.name,
        "title": info.title,
        "distribution": info.distribution,
        "version": info.version,
        "builtin": info.builtin,
        "authentication": can and can.authentication,
        "ids": [{"kind": kind.noun, "example": kind.example} for kind in can.kinds] if can else [],
        "progress": can and can.progress,
        "long_poll": can and can.long_poll,
        "result_apart": can and can.result_apart,
        "subtasks": can and can.subtasks,
        "reasons": list(can.reasons) if can else [],
        "webhooks": list(can.webhooks.events) if can and can.webhooks else [],
        "problem": info.problem,
    }
