"""Progress bars: observers that update a progress bar of rich or tqdm.

    with rich.progress.Progress() as bars, client.observe(taskbridge.progress.Rich(bars)):
        client.wait_all(ids)

    with tqdm.tqdm() as bar, client.observe(taskbridge.progress.Tqdm(bar)):
        client.wait_all(ids)

The application creates the bar and owns it; this module imports neither library. A bar covers the tasks of all waits:
it counts the tasks that ended and adds the progress that vendors report for the others. Both observers also accept a
`Task`, so each can be the ``on_update`` of a wait.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from taskbridge._fork import renew_after_fork
from taskbridge.errors import printable
from taskbridge.events import CallStarted, Observation, WaitOutcome
from taskbridge.models import Task

if TYPE_CHECKING:
    from collections.abc import Hashable

    from taskbridge.events import Event

__all__ = ["ProgressTracker", "Rich", "Tqdm"]

_WAITS = frozenset({"as_completed", "wait", "wait_all", "watch"})


class ProgressTracker:
    """Counts tasks that are waited for and tasks that ended, without showing anything.

    Use it as an observer to draw a display of your own: it takes events, or snapshots of tasks.

    Attributes:
        total: Tasks that are or were waited for.
        ended: Tasks whose wait is over.
        failed: Tasks whose wait is over and that did not complete: the task failed, or its end was not reached.
    """

    def __init__(self) -> None:
        self.total = 0
        self.ended = 0
        self.failed = 0
        self._fractions: dict[Hashable, float] = {}  # of running tasks, if the vendor reports progress
        self._refs: set[Hashable] = set()  # tasks known from snapshots only
        renew_after_fork(self, ProgressTracker._make_lock)

    def _make_lock(self) -> None:
        self._lock = Lock()

    @property
    def done(self) -> float:
        """Ended tasks plus the reported progress of running ones; from 0.0 to `total`."""
        with self._lock:
            return float(min(self.total, self.ended + sum(self._fractions.values())))

    def __call__(self, event: Event | Task) -> None:
        """Process an event or a snapshot, and update the display."""
        with self._lock:
            match event:
                case CallStarted(call=call) if call in _WAITS:
                    self.total += len(event.refs)
                case WaitOutcome(outcome=outcome):
                    self._end(outcome.ref, failed=outcome.error is not None or _failed(outcome.task))
                case Observation(task=Task() as task):
                    self._progress(task)
                case Task():
                    self._snapshot(event)
                case _:
                    return
        self.show()

    def show(self) -> None:
        """Update the display; does nothing here."""

    def _snapshot(self, task: Task) -> None:
        if task.ref not in self._refs:
            self._refs.add(task.ref)
            self.total += 1
        if task.is_terminal:
            self._end(task.ref, failed=_failed(task))
        else:
            self._progress(task)

    def _progress(self, task: Task) -> None:
        if task.progress is not None and not task.is_terminal:
            self._fractions[task.ref] = task.progress

    def _end(self, ref: Hashable, *, failed: bool) -> None:
        self._fractions.pop(ref, None)
        self.ended += 1
        self.failed += failed


def _failed(task: Task | None) -> bool:
    return task is None or task.status == "failed"


class RichBars(Protocol):
    """The methods of `rich.progress.Progress` that `Rich` uses."""

    def add_task(self, description: str, *, total: float | None) -> Any:
        """Add a bar."""
        ...

    def update(self, task_id: Any, *, total: float | None, completed: float, description: str) -> None:
        """Update a bar."""
        ...


class Rich(ProgressTracker):
    """Updates one bar of a `rich.progress.Progress`.

    Args:
        bars: The display; the application starts and stops it.
        description: Text in front of the bar.
    """

    def __init__(self, bars: RichBars, description: str = "tasks") -> None:
        super().__init__()
        self._bars = bars
        self._description = printable(description, 200)
        self._bar: Any = bars.add_task(self._description, total=None)

    def show(self) -> None:
        """Update the bar."""
        failures = f", {self.failed} not completed" if self.failed else ""
        self._bars.update(
            self._bar, total=self.total or None, completed=self.done, description=f"{self._description}{failures}"
        )


class TqdmBar(Protocol):
    """The parts of `tqdm.tqdm` that `Tqdm` uses."""

    n: Any
    total: Any

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        """Set the text behind the bar."""
        ...

    def refresh(self) -> Any:
        """Draw the bar."""
        ...


class Tqdm(ProgressTracker):
    """Updates a bar of tqdm.

    Args:
        bar: The bar, such as ``tqdm.tqdm()``; its total is set here, and the application closes it.
    """

    def __init__(self, bar: TqdmBar) -> None:
        super().__init__()
        self._bar = bar

    def show(self) -> None:
        """Update the bar."""
        done = self.done
        self._bar.total = self.total
        self._bar.n = int(done) if done.is_integer() else round(done, 2)
        if self.failed:
            self._bar.set_postfix_str(f"{self.failed} not completed", refresh=False)
        self._bar.refresh()
