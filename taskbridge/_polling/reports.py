"""What is noted of looks while they go on, and made an observation of; only where somebody observes.

The core asks an audience before it notes anything, so that nothing is made for nobody.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from taskbridge._engine.tracing import Trail
from taskbridge.events import Observation, Source, Why

if TYPE_CHECKING:
    from taskbridge._engine.observers import Audience
    from taskbridge._polling.entries import Item
    from taskbridge.errors import TaskbridgeError
    from taskbridge.models import Task

# Looks of a fleet.


class Witness:
    """What a fleet has to tell those who observe; kept until its driver holds no lock, for they are strangers."""

    def __init__(self) -> None:
        self._seen: deque[tuple[Audience, Observation]] = deque()

    def __bool__(self) -> bool:
        return bool(self._seen)

    def tell(self) -> None:
        """Tell those who observe; any thread may, with no lock held."""
        while True:
            try:
                audience, observation = self._seen.popleft()
            except IndexError:  # another thread may have taken the last
                return
            audience.tell(observation)

    def trail(self, item: Item, now: float) -> Trail:
        """What to note a look in that begins now (monotonic seconds)."""
        return Trail(item.ref, item.cause(), now, max(0.0, now - item.due_at))

    def note(
        self,
        item: Item,
        trail: Trail,
        now: float,
        listed_at: float,
        source: Source,
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
        channel = item.channel
        next_in: float | None = None
        next_why: Why | None = None
        if item.tickets:
            due = item.due_at if not item.parked else min(listed_at, now + item.period())
            next_in, next_why = (max(0.0, due - now), item.cause()) if due < item.deadline else (None, Why.DEADLINE)
        item.told = task or item.told  # so that an unchanged one need not be translated again
        ended = task is not None and task.is_terminal
        observation = Observation(
            time=channel.clock.now(),
            provider=channel.provider.name,
            ref=item.ref,
            source=source,
            why=trail.why,
            task=task,
            unchanged=unchanged,
            error=error,
            exchanges=tuple(trail.exchanges),
            duration=now - trail.began,
            late=trail.late,
            delay=(item.age - before) / 2 if ended and before is not None and source is Source.LOOK else None,
            next_in=next_in,
            next_why=next_why,
        )
        self._seen.append((channel.audience, observation))
