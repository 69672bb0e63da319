"""The state of the tasks that ``wait`` waits for."""

from __future__ import annotations

from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING

from taskbridge.cli.exit_codes import DONE, outcome_code
from taskbridge.errors import WaitTimeout
from taskbridge.events import Observation
from taskbridge.models import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskbridge.errors import TaskbridgeError
    from taskbridge.events import Event
    from taskbridge.models import Outcome, Task, TaskRef


class WaitProgress:
    """The state of the tasks of one wait.

    Attributes:
        refs: The tasks.
        tasks: The last snapshot of each, by ref.
        ended: The outcome of each task whose wait has ended.
        due: Monotonic second of each next poll.
        poll_errors: Why the last poll failed; removed by the next one that succeeds.
    """

    def __init__(self, refs: Sequence[TaskRef]) -> None:
        self.refs = tuple(refs)
        self.tasks: dict[str, Task] = {}
        self.ended: dict[str, Outcome] = {}
        self.due: dict[str, float] = {}
        self.poll_errors: dict[str, TaskbridgeError] = {}
        self._first_seen: dict[str, float] = {}  # monotonic seconds

    def update(self, outcome: Outcome) -> None:
        """Record a change."""
        if outcome.task is not None:
            self.tasks[outcome.ref] = outcome.task
            self._first_seen.setdefault(outcome.ref, monotonic())
        if outcome.error is not None or (outcome.task is not None and outcome.task.is_terminal):
            self.ended[outcome.ref] = outcome

    def observe(self, event: Event) -> None:
        """Record how a poll went, and when the next one is due."""
        if not isinstance(event, Observation):
            return
        if event.error is None:
            self.poll_errors.pop(event.ref, None)
        else:
            self.poll_errors[event.ref] = event.error
        if event.next_poll_in is not None:
            self.due[event.ref] = monotonic() + event.next_poll_in

    @property
    def running(self) -> dict[str, Task | WaitTimeout | None]:
        """The tasks that are not known to have ended, with their last snapshot or the error that ended the wait."""
        timed_out = self.timed_out
        running = [ref for ref in self.refs if ref not in self.ended or ref in timed_out]
        return {ref: timed_out.get(ref, self.tasks.get(ref)) for ref in running}

    @property
    def timed_out(self) -> dict[str, WaitTimeout]:
        """The errors of the waits that timed out."""
        return {ref: end.error for ref, end in self.ended.items() if isinstance(end.error, WaitTimeout)}

    @property
    def exit_code(self) -> int:
        """The highest exit code of the tasks that ended."""
        return max((outcome_code(outcome) for outcome in self.ended.values()), default=DONE)

    def age(self, task: Task) -> float:
        """Seconds from a task's creation, or from its first snapshot here, until now or until its end."""
        if task.created_at is not None:
            until = task.finished_at or (task.observed_at if task.is_terminal else datetime.now(UTC))
            return max(0.0, (until - task.created_at).total_seconds())
        return monotonic() - self._first_seen.get(task.ref, monotonic())

    def state(self, ref: TaskRef) -> str:
        """The state of a task: its status, ``no status yet``, or ``no answer`` if its wait ended without one."""
        task, end = self.tasks.get(ref), self.ended.get(ref)
        if task is None:
            return "no status yet" if end is None else "no answer"
        return str(task.status)

    def is_completed(self, ref: TaskRef) -> bool:
        """Whether a task is known to have completed."""
        task = self.tasks.get(ref)
        return task is not None and task.status == TaskStatus.COMPLETED
