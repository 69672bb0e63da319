"""What the conformance suite looks at: flows that only compute, tasks that keep the model's promises."""

# ruff: noqa: S101  # a suite asserts

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from taskbridge.models import Task, TaskRef, TaskResult, TaskStatus

if TYPE_CHECKING:
    from datetime import datetime

    from taskbridge.errors import TaskbridgeError

__all__ = ["Watch", "check_task", "everything", "within_limit"]

TIME_LIMIT: Final = 5.0
"""Seconds of real time after which a flow counts as endless; one takes well under a millisecond."""


class Watch:
    """Notes what this process does to sockets, files and other processes."""

    _watching: ClassVar[list[list[str]]] = []
    _installed: ClassVar[bool] = False

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __enter__(self) -> Self:
        if not Watch._installed:
            Watch._installed = True
            sys.addaudithook(Watch._note)  # for good: the interpreter has no way back
        Watch._watching.append(self.seen)
        return self

    def __exit__(self, *_: object) -> None:
        Watch._watching.remove(self.seen)

    @staticmethod
    def _note(event: str, arguments: tuple[Any, ...]) -> None:
        if not Watch._watching or not threading.current_thread().name.startswith("conformance"):
            return
        if event == "open" or event.startswith(("socket.", "subprocess.", "os.system", "urllib.", "http.")):
            for seen in Watch._watching:
                seen.append(f"{event} {arguments[:1]!r}")


def within_limit(operate: Callable[[], object], label: str) -> None:
    """Do something in a thread of its own, and fail if it does not end.

    Args:
        operate: What to do; what it raises is raised here.
        label: Which sample it is about.
    """
    faults: list[BaseException] = []

    def run() -> None:
        try:
            operate()
        except BaseException as fault:  # noqa: BLE001  # told in the test's own thread
            faults.append(fault)

    thread = threading.Thread(target=run, name=f"conformance {label}", daemon=True)
    thread.start()
    thread.join(TIME_LIMIT)
    assert not thread.is_alive(), f"{label}: the flow did not end within {TIME_LIMIT:g} s"
    if faults:
        raise faults[0]


def check_task(task: Task, label: str) -> None:
    """What holds for every task, and for the tasks in it."""
    done, failed = task.status is TaskStatus.COMPLETED, task.status is TaskStatus.FAILED
    assert task.result is None or done, f"{label}: a result before the end"
    assert (task.error is not None) == failed, f"{label}: an error without a failure, or the other way round"
    assert task.result is None or _says_something(task.result), f"{label}: an empty result is None"
    assert type(task.id) is str, f"{label}: an id is a text"
    assert type(task.native_id) in (str, int), f"{label}: a native id is a text or a number"
    assert type(task.native_status) in (str, type(None)), f"{label}: a native status is a text"
    assert task.progress is None or 0.0 <= task.progress <= 1.0, f"{label}: progress goes from 0 to 1"
    for time in _times(task):
        assert time.utcoffset() == timedelta(0), f"{label}: {time!r} is not in UTC"
    ref = TaskRef(str(task.ref))
    assert (ref, ref.connection, ref.id) == (task.ref, task.connection, task.id), f"{label}: the ref does not parse"
    again: Task = pickle.loads(pickle.dumps(task))  # noqa: S301  # our own
    assert (again, hash(again), again.raw) == (task, hash(task), task.raw), f"{label}: it does not pickle"
    for each in task.subtasks:
        check_task(each, f"{label}, subtask {each.id}")


def _says_something(result: TaskResult) -> bool:
    return bool(result.files) or result.text is not None or result.data is not None


def _times(task: Task) -> list[datetime]:
    files = task.result.files if task.result else ()
    stamps = [task.created_at, task.started_at, task.updated_at, task.finished_at, task.observed_at]
    return [stamp for stamp in [*stamps, *(file.expires_at for file in files)] if stamp is not None]


def everything(error: TaskbridgeError) -> str:
    """All that an error shows or carries, its causes included."""
    shown: list[str] = []
    each: BaseException | None = error
    while each is not None and len(shown) < 40:
        shown += [str(each), repr(each), repr(each.args), repr(vars(each)) if hasattr(each, "__dict__") else ""]
        each = each.__cause__ or each.__context__
    return "\n".join([*shown, repr(pickle.dumps(error))])
