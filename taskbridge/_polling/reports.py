"""What is noted of looks while they go on, and made an observation of; only where somebody observes.

The core asks an audience before it notes anything, so that nothing is made for nobody.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from taskbridge._engine.tracing import PollTrace
from taskbridge.events import Observation, ObservationSource, PollReason

if TYPE_CHECKING:
    from taskbridge._engine.observers import Observers
    from taskbridge._polling.entries import PolledTask
    from taskbridge.errors import TaskbridgeError
    from taskbridge.models import Task

# Looks of a fleet.


class ObservationBuffer:
    """What a fleet has to tell those who observe; kept until its driver holds no lock, for they are strangers."""

    def __init__(self) -> None:
        self._seen: deque[tuple[Observers, Observation]] = deque()

    def __bool__(self) -> bool:
        return bool(self._seen)

    def deliver(self) -> None:
        """Tell those who observe; any thread may, with no lock held."""
        while True:
            try:
                observers, observation = self._seen.popleft()
            except IndexError:  # another thread may have taken the last
                return
            observers.notify(observation)

    def trace(self, item: PolledTask, now: float) -> PollTrace:
        """What to note a look in that begins now (monotonic seconds)."""
        return PollTrace(item.ref, item.cause(), now, max(0.0, now - item.due_at))

    def note(
        self,
        item: PolledTask,
        trace: PollTrace,
        now: float,
        listed_at: float,
        source: ObservationSource,
        *,
        task: Task | None = None,
        unchanged: bool = False,
        error: TaskbridgeError | None = None,
        before: float | None = None,
    ) -> None:
        """Keep what was learnt of a task.

        Args:
            item: The task.
            trail: What was noted of the look.
            now: Monotonic seconds.
            listed_at: Monotonic seconds at which the vendor's list is read next; infinite for not at all.
            source: How it was learnt.
            task: The snapshot.
            unchanged: Whether the answer was the one before.
            error: Why there is no snapshot.
            before: Its age at the look before, in seconds; None where that tells nothing.
        """
        connection = item.connection
        next_poll_in: float | None = None
        next_poll_reason: PollReason | None = None
        if item.waiters:
            due = item.due_at if not item.parked else min(listed_at, now + item.period())
            next_poll_in, next_poll_reason = (
                (max(0.0, due - now), item.cause()) if due < item.deadline else (None, PollReason.DEADLINE)
            )
        item.told = task or item.told  # so that an unchanged one need not be translated again
        ended = task is not None and task.is_terminal
        observation = Observation(
            time=connection.clock.now(),
            provider=connection.provider.name,
            ref=item.ref,
            source=source,
            poll_reason=trace.poll_reason,
            task=task,
            unchanged=unchanged,
            error=error,
            requests=tuple(trace.requests),
            duration=now - trace.began,
            overdue=trace.overdue,
            detection_delay=(item.age - before) / 2
            if ended and before is not None and source is ObservationSource.POLL
            else None,
            next_poll_in=next_poll_in,
            next_poll_reason=next_poll_reason,
        )
        self._seen.append((connection.observers, observation))
