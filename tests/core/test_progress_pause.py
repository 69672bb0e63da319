"""When a task that reports its progress is polled."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

from taskbridge._engine.lookup import PollResult, StatusResponse
from taskbridge._polling.commands import PollTask, WaitUntil
from taskbridge._polling.scheduler import PollScheduler
from taskbridge.models import Task, TaskStatus

if TYPE_CHECKING:
    from .conftest import Maker

INTERVAL = 8.0  # seconds between polls if progress predicts nothing


def poll_times(acme: Maker, done: Callable[[float], float], until: float) -> list[float]:
    """When a task is polled, given its progress over time; it ends at 1."""
    harness = acme(poll={"interval": INTERVAL})
    harness.clock.pinned = 0.5  # no jitter
    scheduler, now, times = PollScheduler(), 0.0, list[float]()
    scheduler.add(harness.connection, "t1", now)
    while now < until:
        command = scheduler.next(now)
        if isinstance(command, WaitUntil):
            now = command.time
            continue
        if not isinstance(command, PollTask):
            break
        times.append(now)
        progress = done(now)
        status = TaskStatus.COMPLETED if progress >= 1.0 else TaskStatus.PROCESSING
        seen = Task(
            provider="acme",
            connection="acme",
            id="t1",
            native_id="t1",
            status=status,
            progress=progress,
            observed_at=harness.clock.now(),
        )
        scheduler.on_polled(command, now, PollResult(seen, StatusResponse(f"{now}".encode()), seen.observed_at))
    return times


def test_the_poll_comes_when_the_task_is_likely_to_have_ended(acme: Maker) -> None:
    times = poll_times(acme, lambda now: now / 21.0, until=60.0)
    assert times[:2] == [0.0, 8.0]
    assert times[-1] - 21.0 < 1.0  # without progress it would have been up to eight seconds late


def test_a_stalled_progress_does_not_cause_frequent_polls(acme: Maker) -> None:
    times = poll_times(acme, lambda now: min(now / 30.0, 0.99), until=630.0)
    stalled = [later - earlier for earlier, later in pairwise(times) if earlier > 60.0]
    assert min(stalled) >= INTERVAL
    assert max(stalled) <= 4 * INTERVAL
