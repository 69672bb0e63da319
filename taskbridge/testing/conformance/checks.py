"""Checks of the conformance suite: flows do no I/O and end, tasks are valid, errors expose no credential."""

# ruff: noqa: S101  # a suite asserts

from __future__ import annotations

import pickle
import sys
import threading
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from taskbridge.errors import InvalidInput
from taskbridge.models import Task, TaskRef, TaskResult, TaskStatus

if TYPE_CHECKING:
    from datetime import datetime

    from taskbridge.errors import TaskbridgeError

TIME_LIMIT: Final = 5.0
"""Seconds of real time after which a flow counts as endless; one takes well under a millisecond."""


_watching: Final[list[list[str]]] = []


@contextmanager
def watch_io() -> Generator[list[str]]:
    """Collect what flows do to sockets, files and other processes; see `run_within_limit`."""
    _install_audit_hook()
    seen: list[str] = []
    _watching.append(seen)
    try:
        yield seen
    finally:
        _watching.remove(seen)


@cache
def _install_audit_hook() -> None:
    sys.addaudithook(_record_io)  # permanent: the interpreter cannot remove it


def _record_io(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching or not threading.current_thread().name.startswith("conformance"):
        return
    if event == "open" or event.startswith(("socket.", "subprocess.", "os.system", "urllib.", "http.")):
        for seen in _watching:
            seen.append(f"{event} {arguments[:1]!r}")


def run_within_limit(operate: Callable[[], object], label: str) -> None:
    """Run something in its own thread, raise its exceptions here, and fail if it does not end."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            operate()
        except BaseException as error:  # noqa: BLE001  # raised again in the test's thread
            errors.append(error)

    thread = threading.Thread(target=run, name=f"conformance {label}", daemon=True)
    thread.start()
    thread.join(TIME_LIMIT)
    assert not thread.is_alive(), f"{label}: the flow did not end within {TIME_LIMIT:g} s"
    if errors:
        raise errors[0]


def check_task(task: Task, label: str) -> None:
    """Check what is true of every task, and of its subtasks."""
    done, failed = task.status is TaskStatus.COMPLETED, task.status is TaskStatus.FAILED
    assert task.result is None or done, f"{label}: a result before the end"
    assert (task.error is not None) == failed, f"{label}: an error without a failure, or a failure without an error"
    assert task.result is None or not _is_empty(task.result), f"{label}: an empty result must be None"
    assert type(task.id) is str, f"{label}: an id is a str"
    assert type(task.native_id) in (str, int), f"{label}: a native id is a str or an int"
    assert type(task.native_status) in (str, type(None)), f"{label}: a native status is a str"
    assert task.progress is None or 0.0 <= task.progress <= 1.0, f"{label}: progress is between 0 and 1"
    for time in _times(task):
        assert time.utcoffset() == timedelta(0), f"{label}: {time!r} is not in UTC"
    ref = TaskRef(str(task.ref))
    assert (ref, ref.connection, ref.id) == (task.ref, task.connection, task.id), f"{label}: the ref does not parse"
    pickled: Task = pickle.loads(pickle.dumps(task))  # noqa: S301  # from the line itself
    assert (pickled, hash(pickled), pickled.raw) == (task, hash(task), task.raw), f"{label}: it does not pickle"
    assert _restored(task, label) == task, f"{label}: a field does not have its declared type"
    for each in task.subtasks:
        check_task(each, f"{label}, subtask {each.id}")


def _restored(task: Task, label: str) -> Task:
    """Convert a task to a dictionary and back, which validates the type of every field."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # to_dict warns of a wrong type; from_dict says which
        document = task.to_dict()
    try:
        return Task.from_dict(document)
    except InvalidInput as error:
        raise AssertionError(f"{label}: {error.message}") from None


def _is_empty(result: TaskResult) -> bool:
    return not result.files and result.text is None and result.data is None


def _times(task: Task) -> list[datetime]:
    files = task.result.files if task.result else ()
    stamps = [task.created_at, task.started_at, task.updated_at, task.finished_at, task.observed_at]
    return [stamp for stamp in [*stamps, *(file.expires_at for file in files)] if stamp is not None]


def error_content(error: TaskbridgeError) -> str:
    """Return all that an error shows or carries, its causes included."""
    shown: list[str] = []
    each: BaseException | None = error
    while each is not None and len(shown) < 40:
        shown += [str(each), repr(each), repr(each.args), repr(vars(each)) if hasattr(each, "__dict__") else ""]
        each = each.__cause__ or each.__context__
    return "\n".join([*shown, repr(pickle.dumps(error))])
