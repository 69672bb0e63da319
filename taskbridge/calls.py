"""Calls that last, told to those who observe."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Final, Self

from taskbridge.assemble import Located
from taskbridge.audience import tell_all
from taskbridge.model import TaskRef
from taskbridge.observing import CallEnded, CallStarted, WaitOutcome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from taskbridge.assemble import Rejected
    from taskbridge.audience import Audience
    from taskbridge.channel import Channel
    from taskbridge.model import Outcome
    from taskbridge.observing import Event
    from taskbridge.policy import Clock

__all__ = ["Call"]

_NUMBERS: Final = count(1)


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
        places: Iterable[Located | Rejected] = (),
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
            refs = tuple(
                TaskRef.of(each.channel.name, each.task_id) if isinstance(each, Located) else each.outcome.ref
                for each in self._places
            )
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
