"""."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from typing import Final, Protocol, Self

from taskbridge._engine.connection import Channel
from taskbridge._engine.observers import Audience, tell_all
from taskbridge.errors import TaskbridgeError
from taskbridge.events import CallEnded, CallStarted, Event, Exchange, Observation, Source, WaitOutcome, Why
from taskbridge.models import Outcome, Task, TaskRef
from taskbridge.provider.policy import Clock

_NUMBERS: Final = count(1)


class _HasRef(Protocol):
    @property
    def ref(self) -> TaskRef: ...


class Call:
    """A call that lasts, told to those who observe the connections that it uses; silent where nobody does.

    Args:
        name: Of the method.
        channels: The connections that it uses.
        clock: Time.
        places: The tasks that it waits for.
        timeout: Seconds that it waits at most; None for no deadline.
    """

    def __init__(
        self,
        name: str,
        channels: Iterable[Channel],
        clock: Clock,
        places: Iterable[_HasRef] = (),
        timeout: float | None = None,
    ) -> None:
        self._name = name
        self._channels = {channel.name: channel for channel in channels}
        self._clock = clock
        self._places = places
        self._timeout = timeout
        self._audiences: tuple[Audience, ...] = ()
        self._number = 0
        self._began = 0.0

    def start(self) -> None:
        """Tell that it starts."""
        self._audiences = tuple(each.audience for each in self._channels.values() if each.audience.observers)
        if self._audiences:
            self._number, self._began = next(_NUMBERS), self._clock.monotonic()
            refs = tuple(each.ref for each in self._places)
            names = tuple(self._channels)
            self._tell(CallStarted(self._number, self._clock.now(), self._name, names, refs, self._timeout))

    def tell(self, outcome: Outcome) -> None:
        """Tell how waiting for one of its tasks ended."""
        if self._audiences:
            self._tell(WaitOutcome(self._number, self._clock.now(), outcome))

    def end(self, error: BaseException | None = None) -> None:
        """Tell that it ended."""
        if self._audiences:
            took = self._clock.monotonic() - self._began
            self._tell(CallEnded(self._number, self._clock.now(), self._name, took, error))

    def _tell(self, event: Event) -> None:
        tell_all(self._audiences, event)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.end(None if isinstance(error, GeneratorExit) else error)


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
