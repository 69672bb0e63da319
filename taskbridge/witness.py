"""What is noted of looks while they go on, and made an observation of; only where somebody observes.

The core asks an audience before it notes anything, so that nothing is made for nobody.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from taskbridge.model import TaskRef
from taskbridge.observing import Exchange, Observation, Source, Why

if TYPE_CHECKING:
    from taskbridge.audience import Audience
    from taskbridge.channel import Channel
    from taskbridge.errors import TaskbridgeError
    from taskbridge.items import Item
    from taskbridge.model import Task

__all__ = ["Trail", "Witness", "begin_trail", "tell_seen"]


class Trail:
    """What is known of a look while it goes on.

    Args:
        ref: The task; None for a page of a list.
        why: Why it is looked at.
        began: Monotonic seconds.
        late: Seconds since it was due.
    """

    __slots__ = ("began", "exchanges", "late", "ref", "why")

    def __init__(self, ref: TaskRef | None, why: Why, began: float, late: float = 0.0) -> None:
        self.ref = ref
        self.why = why
        self.began = began
        self.late = late
        self.exchanges: list[Exchange] = []


# Looks apart from a wait.


def begin_trail(channel: Channel, task_id: str, why: Why = Why.ASKED) -> Trail | None:
    """What to note a look in that somebody asked for; None where nobody wants to know.

    Args:
        channel: The connection.
        task_id: A shared id.
        why: Why it is looked at.
    """
    if not channel.audience.hears_tasks:
        return None
    return Trail(TaskRef.of(channel.name, task_id), why, channel.clock.monotonic())


def tell_seen(
    channel: Channel,
    trail: Trail | None,
    source: Source = Source.LOOK,
    *,
    task: Task | None = None,
    error: TaskbridgeError | None = None,
) -> None:
    """Tell those who want to know what was learnt of a task apart from a wait.

    Args:
        channel: The connection.
        trail: What was noted; None where nobody wants to know.
        source: How it was learnt.
        task: The snapshot.
        error: Why there is none.
    """
    ref = task.ref if task is not None else trail.ref if trail is not None else None
    if trail is None or ref is None:
        return
    observation = Observation(
        time=channel.clock.now(),
        provider=channel.provider.name,
        ref=ref,
        source=source,
        why=trail.why,
        task=task,
        error=error,
        exchanges=tuple(trail.exchanges),
        duration=channel.clock.monotonic() - trail.began,
    )
    channel.audience.tell(observation)


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
            source: How it was learnt.
            task: The snapshot.
            unchanged: Whether the answer was the one before.
            error: Why there is no snapshot.
            before: Its age at the look before, in seconds; None where that tells nothing.
        """
        channel = item.lane.channel
        next_in: float | None = None
        next_why: Why | None = None
        if item.tickets:
            due = item.due_at if not item.parked else min(item.lane.sweep_at, now + item.period())
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
