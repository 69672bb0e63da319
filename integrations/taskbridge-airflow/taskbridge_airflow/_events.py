"""What a trigger reports to its operator: plain JSON that Airflow stores in its database and writes to its logs.

Links, texts and the vendor's own object stay out: a link is a capability, and a text may be large or personal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk.exceptions import AirflowException

import taskbridge as tb


def plain(task: tb.Task) -> dict[str, Any]:
    """Return a task as plain JSON, without links, the contents of its result, and the vendor's own object."""
    return _without_contents(task.to_dict())


def _without_contents(values: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in values.items() if key != "raw"}
    result = kept.get("result")
    if result is not None:
        names = ("id", "name", "size", "media_type")
        kept["result"] = {"files": [{name: file.get(name) for name in names} for file in result["files"]]}
    if kept.get("error") is not None:
        kept["error"] = {name: kept["error"].get(name) for name in ("code", "message")}
    kept["subtasks"] = [_without_contents(each) for each in kept.get("subtasks") or ()]
    return kept


def event_of(ref: str, task: tb.Task | None, error: tb.TaskbridgeError | None = None) -> dict[str, Any]:
    """Return the payload of a trigger's event.

    Args:
        ref: The task.
        task: Its last snapshot.
        error: Why it is not known how the task ended.
    """
    return {
        "ref": ref,
        "task": None if task is None else plain(task),
        "error": None if error is None else {"type": type(error).__name__, "message": str(error)},
    }


def ended_task(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the completed task of an event, as plain JSON.

    Raises:
        AirflowException: The task failed, or it is not known how it ended; the message says why.
    """
    error, task = event["error"], event["task"]
    if error is not None:
        raise AirflowException(f"{error['type']}: {error['message']}")
    if task["status"] != tb.TaskStatus.COMPLETED:
        cause = (task.get("error") or {}).get("message") or task.get("reason") or "the vendor gives no reason"
        raise AirflowException(f"{event['ref']}: the task failed: {cause}")
    return dict(task)
