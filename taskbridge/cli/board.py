"""What is known of the tasks that a command waits for; a view shows it."""

from __future__ import annotations

from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING

from taskbridge.cli.codes import DONE, outcome_code
from taskbridge.errors import WaitTimeout
from taskbridge.events import Observation
from taskbridge.models import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskbridge.errors import TaskbridgeError
    from taskbridge.events import Event
    from taskbridge.models import Outcome, Task, TaskRef

__all__ = ["Board"]


class Board:
    """What is known of the tasks that are waited for.

    Args:
        refs: Which tasks.
    """

    def __init__(self, refs: Sequence[TaskRef]) -> None:
        self.refs = tuple(refs)
        self.tasks: dict[str, Task] = {}
        self.ended: dict[str, Outcome] = {}
        self.due: dict[str, float] = {}  # monotonic seconds of the next look
        self.troubles: dict[str, TaskbridgeError] = {}  # why the last look failed; gone with the next that did not
        self._seen: dict[str, float] = {}  # monotonic seconds of the first snapshot

    def take(self, outcome: Outcome) -> None:
        """Learn of a change."""
        if outcome.task is not None:
            self.tasks[outcome.ref] = outcome.task
            self._seen.setdefault(outcome.ref, monotonic())
        if outcome.error is not None or (outcome.task is not None and outcome.task.is_terminal):
            self.ended[outcome.ref] = outcome

    def observe(self, event: Event) -> None:
        """Learn how a look went, and when the next one comes."""
        if not isinstance(event, Observation):
            return
        if event.error is None:
            self.troubles.pop(event.ref, None)
        else:
            self.troubles[event.ref] = event.error
        if event.next_poll_in is not None:
            self.due[event.ref] = monotonic() + event.next_poll_in

    @property
    def going_on(self) -> dict[str, Task | None]:
        """The tasks that are not known to have ended, with the last snapshot."""
        return {ref: self.tasks.get(ref) for ref in self.refs if self._goes_on(ref)}

    def _goes_on(self, ref: TaskRef) -> bool:
        end = self.ended.get(ref)
        return end is None or isinstance(end.error, WaitTimeout)

    @property
    def code(self) -> int:
        """The gravest exit code of those that ended."""
        return max((outcome_code(outcome) for outcome in self.ended.values()), default=DONE)

    def age(self, task: Task) -> float:
        """Seconds since a task began, as the vendor says, else since it was first seen here; until its end."""
        if task.created_at is not None:
            until = task.finished_at or (task.observed_at if task.is_terminal else datetime.now(UTC))
            return max(0.0, (until - task.created_at).total_seconds())
        return monotonic() - self._seen.get(task.ref, monotonic())

    def word(self, ref: TaskRef) -> str:
        """Where a task is: one of the four, ``no answer`` or ``not seen``."""
        task, end = self.tasks.get(ref), self.ended.get(ref)
        if task is None:
            return "not seen" if end is None else "no answer"
        return str(task.status)

    def is_completed(self, ref: TaskRef) -> bool:
        """Whether a task is known to have completed."""
        task = self.tasks.get(ref)
        return task is not None and task.status == TaskStatus.COMPLETED
