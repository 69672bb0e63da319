"""When a task is looked at that tells how much of it is done."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

from taskbridge._engine.lookup import PollResult
from taskbridge._polling.commands import PollTask, WaitUntil
from taskbridge._polling.scheduler import PollScheduler
from taskbridge.models import Task, TaskStatus

if TYPE_CHECKING:
    from .conftest import Maker

INTERVAL = 8.0  # seconds between looks where progress foretells nothing


def looks(acme: Maker, done: Callable[[float], float], until: float) -> list[float]:
    """When a task is looked at, by its progress at each second; it ends where all is done."""
    made = acme(poll={"interval": INTERVAL})
    made.clock.pinned = 0.5  # no spread
    scheduler, now, times = PollScheduler(), 0.0, list[float]()
    scheduler.add(made.connection, "t1", now)
    while now < until:
        command = scheduler.next(now)
        if isinstance(command, WaitUntil):
            now = command.time
            continue
        if not isinstance(command, PollTask):
            break
        times.append(now)
        share = done(now)
        status = TaskStatus.COMPLETED if share >= 1.0 else TaskStatus.PROCESSING
        seen = Task(
            provider="acme",
            connection="acme",
            id="t1",
            native_id="t1",
            status=status,
            progress=share,
            observed_at=made.clock.now(),
        )
        scheduler.on_polled(command, now, PollResult(seen, f"{now}".encode(), seen.observed_at))
    return times


def test_the_look_comes_when_all_is_likely_to_be_done(acme: Maker) -> None:
    times = looks(acme, lambda now: now / 21.0, until=60.0)
    assert times[:2] == [0.0, 8.0]
    assert times[-1] - 21.0 < 1.0  # a pause of its own would have been up to eight seconds late


def test_a_progress_that_stands_still_is_not_looked_at_all_the_time(acme: Maker) -> None:
    times = looks(acme, lambda now: min(now / 30.0, 0.99), until=630.0)
    stuck = [later - earlier for earlier, later in pairwise(times) if earlier > 60.0]
    assert min(stuck) >= INTERVAL
    assert max(stuck) <= 4 * INTERVAL
