"""Documents that a submission uploaded and that are deleted at the vendor once they are no longer needed.

Only what this process uploaded is deleted: the vendor does not say who uploaded a file, and one that the caller keeps
there may be the input of many tasks.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from taskbridge._engine.logs import log
from taskbridge._engine.retry import with_policies
from taskbridge.errors import TaskbridgeError, TaskNotFound, printable
from taskbridge.models import TaskRef

if TYPE_CHECKING:
    from taskbridge._engine.connection import Connection
    from taskbridge._engine.effects import EffectFlow
    from taskbridge.models import TaskFile


def delete_uploads(connection: Connection, task_id: str) -> EffectFlow[None]:
    """Delete what was uploaded for a task that has ended; what cannot be deleted now is tried at the next occasion."""
    files = connection.uploads.pop(task_id, ())
    kept = list(files)
    try:
        for file in files:
            if (yield from delete_upload(connection, file, TaskRef.of(connection.name, task_id))):
                kept.remove(file)
    finally:
        if kept:
            connection.uploads[task_id] = tuple(kept)


def delete_upload(connection: Connection, file: TaskFile, ref: TaskRef | None = None) -> EffectFlow[bool]:
    """Delete an uploaded file; an error is logged, because it says nothing about the task."""
    deadline = connection.clock.monotonic() + connection.settings.request_timeout
    try:
        yield from with_policies(connection, partial(connection.provider.delete_file, file), deadline)
    except TaskNotFound:
        return True
    except TaskbridgeError as error:
        connection.add_context(error)
        reason = printable(error.message, 300)
        log("upload-kept", connection=connection.name, file=printable(str(file.id), 80), ref=ref, reason=reason)
        return False
    return True
