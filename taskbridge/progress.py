"""Progress bars: observers that move a bar of rich or tqdm, which the application makes and owns.

    with rich.progress.Progress() as bars, client.observe(taskbridge.progress.Rich(bars)):
        client.wait_all(ids)

    with tqdm.tqdm() as bar, client.observe(taskbridge.progress.Tqdm(bar)):
        client.wait_all(ids)

Neither library is imported here, and neither is needed. A bar stands for the tasks of all waits that go on: it counts
those that ended, and adds what vendors report of the others. Both may be called with a `Task` too, so they also do as
the ``on_update`` of a wait.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from taskbridge.errors import printable
from taskbridge.events import CallStarted, Observation, WaitOutcome
from taskbridge.models import Task

if TYPE_CHECKING:
    from collections.abc import Hashable

    from taskbridge.events import Event

__all__ = ["Rich", "Tally", "Tqdm"]

_WAITS = frozenset({"as_completed", "wait", "wait_all", "watch"})


class Tally:
    """How far the tasks are that are waited for; counts, and shows nothing.

    An observer for those who draw for themselves: call it with events, or with snapshots, and read it.

    Attributes:
        total: Tasks that are or were waited for.
        ended: Of these, the ones of which the wait is over.
        failed: Of these, the ones that did not complete: the task failed, or the wait ended without its end.
    """

    def __init__(self) -> None:
        self.total = 0
        self.ended = 0
        self.failed = 0
        self._shares: dict[Hashable, float] = {}  # of those that go on, where the vendor tells
        self._seen: set[Hashable] = set()  # those known by snapshots alone
        self._lock = Lock()

    @property
    def done(self) -> float:
        """Tasks that ended, and the reported shares of those that go on; from 0.0 to `total`."""
        with self._lock:
            return float(min(self.total, self.ended + sum(self._shares.values())))

    def __call__(self, event: Event | Task) -> None:
        """Take an event or a snapshot in."""
        with self._lock:
            match event:
                case CallStarted(call=call) if call in _WAITS:
                    self.total += len(event.refs)
                case WaitOutcome():
                    outcome = event.outcome
                    self._end(outcome.ref, failed=outcome.error is not None or _failed(outcome.task))
                case Observation(task=Task() as task):
                    self._go_on(task)
                case Task():
                    self._see(event)
                case _:
                    return
        self.show()

    def show(self) -> None:
        """Draw; here nothing."""

    def _see(self, task: Task) -> None:
        if task.ref not in self._seen:
            self._seen.add(task.ref)
            self.total += 1
        if task.is_terminal:
            self._end(task.ref, failed=_failed(task))
        else:
            self._go_on(task)

    def _go_on(self, task: Task) -> None:
        if task.progress is not None and not task.is_terminal:
            self._shares[task.ref] = task.progress

    def _end(self, ref: Hashable, *, failed: bool) -> None:
        self._shares.pop(ref, None)
        self.ended += 1
        self.failed += failed


def _failed(task: Task | None) -> bool:
    return task is None or task.status == "failed"


class RichBars(Protocol):
    """What is used of `rich.progress.Progress`."""

    def add_task(self, description: str, *, total: float | None) -> Any:
        """Add a bar."""
        ...

    def update(self, task_id: Any, *, total: float | None, completed: float, description: str) -> None:
        """Move a bar."""
        ...


class Rich(Tally):
    """Moves one bar of a `rich.progress.Progress`.

    Args:
        bars: The display; the application starts and stops it.
        description: Words in front of the bar.
    """

    def __init__(self, bars: RichBars, description: str = "tasks") -> None:
        super().__init__()
        self._bars = bars
        self._words = printable(description, 200)
        self._bar: Any = bars.add_task(self._words, total=None)

    def show(self) -> None:
        """Move the bar."""
        words = f"{self._words}, {self.failed} not completed" if self.failed else self._words
        self._bars.update(self._bar, total=self.total or None, completed=self.done, description=words)


class TqdmBar(Protocol):
    """What is used of `tqdm.tqdm`."""

    n: Any
    total: Any

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        """Words behind the bar."""
        ...

    def refresh(self) -> Any:
        """Draw it."""
        ...


class Tqdm(Tally):
    """Moves a bar of tqdm.

    Args:
        bar: The bar, such as ``tqdm.tqdm()``; its total is set here, and the application closes it.
    """

    def __init__(self, bar: TqdmBar) -> None:
        super().__init__()
        self._bar = bar

    def show(self) -> None:
        """Move the bar."""
        done = self.done
        self._bar.total = self.total
        self._bar.n = int(done) if done.is_integer() else round(done, 2)
        if self.failed:
            self._bar.set_postfix_str(f"{self.failed} not completed", refresh=False)
        self._bar.refresh()
