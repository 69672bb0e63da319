"""Observations of polls, list pages and events, for observers; created only if there are any."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from taskbridge.events import Observation, ObservationSource

if TYPE_CHECKING:
    from taskbridge._engine.observers import Observers
    from taskbridge._engine.tracing import PollTrace
    from taskbridge._polling.entries import PolledTask
    from taskbridge.errors import TaskbridgeError
    from taskbridge.models import Task


class ObservationBuffer:
    """Observations that were not delivered yet; observers are third-party code, so no lock is held when they run."""

    def __init__(self) -> None:
        self._pending: deque[tuple[Observers, Observation]] = deque()

    def __bool__(self) -> bool:
        return bool(self._pending)

    def deliver(self) -> None:
        """Notify the observers; any thread may call this, without holding a lock."""
        while True:
            try:
                observers, observation = self._pending.popleft()
            except IndexError:  # another thread may have taken the last one
                return
            observers.notify(observation)

    def add(
        self,
        entry: PolledTask,
        trace: PollTrace,
        now: float,
        scan_at: float,
        source: ObservationSource,
        *,
        task: Task | None = None,
        unchanged: bool = False,
        error: TaskbridgeError | None = None,
        delay: float | None = None,
    ) -> None:
        """Add an observation; times are in monotonic seconds, and the next list scan is infinite for none."""
        connection = entry.connection
        next_poll = entry.next_poll(now, scan_at) if entry.waiters else None
        entry.observed = task or entry.observed  # so that an unchanged one is not translated again
        observation = Observation(
            time=connection.clock.now(),
            provider=connection.provider.name,
            ref=entry.ref,
            source=source,
            poll_reason=trace.poll_reason,
            task=task,
            unchanged=unchanged,
            error=error,
            requests=tuple(trace.requests),
            duration=now - trace.began,
            overdue=trace.overdue,
            detection_delay=delay,
            next_poll_in=None if next_poll is None else next_poll.seconds,
            next_poll_reason=None if next_poll is None else next_poll.reason,
        )
        self._pending.append((connection.observers, observation))
