"""``explain``: every observation of one task as it is made, and why the next look comes when it does."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, TypeAlias

import click

from taskbridge.cli.codes import outcome_code
from taskbridge.cli.records import outcome_record, resume_command
from taskbridge.cli.refs import open_refs
from taskbridge.cli.screen import colourful
from taskbridge.cli.texts import COLOURS
from taskbridge.cli.wait import tell_resume
from taskbridge.errors import TaskbridgeError, WaitTimeout, printable
from taskbridge.events import Observation, PollReason, RequestEnded
from taskbridge.models import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from taskbridge.cli.screen import Screen
    from taskbridge.client import Bridge
    from taskbridge.events import Event
    from taskbridge.models import TaskRef

__all__ = ["explain"]

_HEAD: Final = f"{'time':<8}  {'source':<7}  {'HTTP':<4}  {'vendor says':<24}  next look"
_INDENT: Final = " " * 10
_LATE: Final = 0.1  # seconds; less is no limit's doing

# Why the next look comes then, or why none.
_REASONS: Final[Mapping[PollReason, str]] = {
    PollReason.FIRST: "the first one",
    PollReason.ASKED: "somebody asks",
    PollReason.AGE: "by the task's age",
    PollReason.LATENCY: "poll.latency",
    PollReason.INTERVAL: "poll.interval",
    PollReason.LEARNED: "durations learnt",
    PollReason.AT_MOST: "poll.at_most",
    PollReason.PROGRESS: "by its progress",
    PollReason.WEBHOOK_EXPECTED: "a webhook is expected",
    PollReason.EVENT: "an event came",
    PollReason.LONG_POLL: "the vendor holds the line",
    PollReason.LONG_POLL_BROKE: "the held line broke",
    PollReason.LIST: "the vendor's list",
    PollReason.LISTED: "the list shows a change",
    PollReason.UNLISTED: "the list lacks it",
    PollReason.RETRY: "the look failed",
    PollReason.RETRY_AFTER: "the vendor's Retry-After",
    PollReason.DEADLINE: "the time is up before",
    PollReason.NOTIFIED: "the vendor told",
}

_Told: TypeAlias = "Event | Outcome | BaseException"


def explain(screen: Screen, text: str, seconds: float | None, config: str | None, *, once: bool, requests: bool) -> int:
    """Show every observation of a task until it ends; the exit code.

    Args:
        screen: Where to.
        text: The task.
        seconds: How long at most; None for no limit.
        config: The configuration.
        once: One look and no more.
        requests: Show each request too.
    """
    shown, last = text, None

    def tell(cause: str) -> None:
        tell_resume(screen, cause, {shown: last}, resume_command("explain", [shown], config))

    with screen.signals.told(tell):  # without closing the bridge: that would wait for a look under way
        bridge, (ref,) = open_refs(screen, config, [text])
        shown = ref
        view = _View(screen, requests=requests)
        with screen.signals.raising():
            view.head(ref)
            end = Outcome(ref)
            for told in _followed(bridge, ref, seconds, once=once):
                screen.signals.check()  # else its error may be the signal's
                if isinstance(told, Outcome):
                    end = told
                else:
                    if isinstance(told, Observation):
                        last = told.task or last
                    view.show(told)
    if isinstance(end.error, WaitTimeout):
        tell_resume(screen, "timeout", {ref: end.task}, resume_command("explain", [ref], config))
    elif screen.as_json:
        screen.record(outcome_record(end))
    elif end.error is not None:
        screen.problem(end.error)
    bridge.close()
    return outcome_code(end)


def _followed(bridge: Bridge, ref: TaskRef, seconds: float | None, *, once: bool) -> Iterator[Event | Outcome]:
    """What happens while a thread waits, so that this one can write, and be interrupted; the outcome comes last."""
    told: SimpleQueue[_Told] = SimpleQueue()

    def wait() -> None:
        try:
            told.put(Outcome(ref, bridge.get(ref) if once else bridge.wait(ref, seconds)))
        except TaskbridgeError as error:
            task = error.task if isinstance(error, WaitTimeout) else None
            told.put(Outcome(ref, task, error.about(ref=ref)))
        except BaseException as error:  # noqa: BLE001  # it is raised where it is heard of
            told.put(error)

    bridge.observe(told.put)
    threading.Thread(target=wait, name="taskbridge-explain", daemon=True).start()
    while True:
        each = told.get()
        if isinstance(each, BaseException):
            raise each
        yield each
        if isinstance(each, Outcome):
            return


class _View:
    """One line for each observation, or one JSON object.

    Args:
        screen: Where to.
        requests: Whether requests are shown too.
    """

    def __init__(self, screen: Screen, *, requests: bool) -> None:
        self._screen = screen
        self._requests = requests
        self._colours = colourful()

    def head(self, ref: TaskRef) -> None:
        """What stands above the lines."""
        if not self._screen.as_json:
            self._screen.line(printable(ref, 600))
            self._screen.line(click.style(_HEAD, bold=True) if self._colours else _HEAD)

    def show(self, event: Event) -> None:
        """Show an event, if it is one to be shown."""
        if not isinstance(event, Observation | RequestEnded) or (
            isinstance(event, RequestEnded) and not self._requests
        ):
            return
        if self._screen.as_json:
            self._screen.record(event.record())
        elif isinstance(event, RequestEnded):
            self._screen.line(f"{_INDENT}{_request(event)}")
        else:
            self._observation(event)

    def _observation(self, seen: Observation) -> None:
        word = _word(seen).ljust(24)
        colour = COLOURS.get(seen.status or "", "red")
        parts = (
            f"{seen.time.astimezone():%H:%M:%S}",
            f"{seen.source:<7}",
            f"{seen.http_status or '-':<4}",
            click.style(word, fg=colour) if self._colours else word,
            _next(seen),
        )
        self._screen.line("  ".join(parts))
        for note in _notes(seen):
            self._screen.line(f"{_INDENT}{note}")


def _word(seen: Observation) -> str:
    task = seen.task
    if task is None:
        return printable(type(seen.error).__name__, 24)
    share = f" {task.progress:.0%}" if task.progress is not None and not task.is_terminal else ""
    same = " (same)" if seen.unchanged else ""
    return f"{printable(task.native_status or '-', 24 - len(share) - len(same))}{share}{same}"


def _next(seen: Observation) -> str:
    if seen.next_poll_reason is None:
        return f"none: {seen.status}{f' ({seen.reason})' if seen.reason else ''}" if seen.is_terminal else "none"
    when = (
        "none"
        if seen.next_poll_in is None
        else "at once"
        if seen.next_poll_in < 0.05
        else f"in {seen.next_poll_in:.1f} s"
    )
    return f"{when}: {_REASONS[seen.next_poll_reason]}"


def _notes(seen: Observation) -> Iterator[str]:
    if seen.task is not None and not seen.task.recognized:
        yield "taskbridge does not know that word; the task counts as processing"
    if seen.error is not None and seen.next_poll_reason is not None:  # else it is told at the end
        yield printable(seen.error.message, 300)
    if seen.overdue > _LATE:
        yield f"{seen.overdue:.1f} s late: a limit of the connection held it back"
    if seen.detection_delay is not None:
        yield f"it ended about {seen.detection_delay:.1f} s before that look, as far as can be told"


def _request(event: RequestEnded) -> str:
    path = "(an address that is told to nobody)" if event.path is None else printable(event.path, 200)
    came = event.error if event.http_status is None else f"HTTP {event.http_status}"
    again = f", sent {event.resends} times before" if event.resends else ""
    return f"{event.method} {printable(event.host, 200)} {path}: {came} after {event.duration:.2f} s{again}"
