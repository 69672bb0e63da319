"""Documents that a submission uploaded or staged, and that are deleted once they are no longer needed.

Only what this process put there is deleted: the vendor does not say who uploaded a file, and one that the caller keeps
there may be the input of many tasks.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from taskbridge._engine.effects import UseStorage
from taskbridge._engine.logs import log
from taskbridge._engine.retry import with_policies
from taskbridge._engine.storage_urls import StagedDocument
from taskbridge.errors import TaskbridgeError, TaskNotFound, printable
from taskbridge.models import TaskRef

if TYPE_CHECKING:
    from taskbridge._engine.connection import Connection
    from taskbridge._engine.effects import EffectFlow
    from taskbridge.models import Task, TaskFile


def delete_uploads(connection: Connection, task_id: str, task: Task) -> EffectFlow[None]:
    """Delete what was uploaded or staged for a task that has ended; what cannot be deleted now is tried again later."""
    kind, _ = connection.provider.split_id(task_id)
    own_id = task_id if kind.identity in (None, "native_id") else str(task.native_id)  # it was submitted under that id
    files = connection.uploads.pop(own_id, ())
    kept = list(files)
    try:
        for file in files:
            if (yield from delete_upload(connection, file, TaskRef.of(connection.name, task_id))):
                kept.remove(file)
    finally:
        if kept:
            connection.uploads[own_id] = tuple(kept)


def delete_upload(
    connection: Connection, file: TaskFile | StagedDocument, ref: TaskRef | None = None
) -> EffectFlow[bool]:
    """Delete an uploaded file or a staged object; an error is logged, because it says nothing about the task."""
    try:
        if isinstance(file, StagedDocument):
            url = file.url
            yield UseStorage(lambda storage: storage.remove(url))
        else:
            deadline = connection.clock.monotonic() + connection.settings.request_timeout
            yield from with_policies(connection, partial(connection.provider.delete_file, file), deadline)
    except TaskNotFound:
        return True
    except TaskbridgeError as error:
        connection.add_context(error)
        reason = printable(error.message, 300)
    except OSError as error:
        reason = printable(error.strerror or type(error).__name__, 300)
    else:
        return True
    name = file.url if isinstance(file, StagedDocument) else str(file.id)
    log("upload-kept", connection=connection.name, file=printable(name, 300), ref=ref, reason=reason)
    return False
