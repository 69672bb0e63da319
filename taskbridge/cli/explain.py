"""``explain``: each observation of one task, and why the next poll comes when it does."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, TypeAlias

import click

from taskbridge.cli.exit_codes import outcome_code
from taskbridge.cli.formatting import COLORS
from taskbridge.cli.options import open_refs, parse_seconds, ref_argument, with_config, with_json
from taskbridge.cli.output import use_color
from taskbridge.cli.records import outcome_record
from taskbridge.cli.resume import show_resume
from taskbridge.errors import TaskbridgeError, WaitTimeout, printable
from taskbridge.events import POLL_REASONS, Observation, RequestEnded
from taskbridge.models import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskbridge.cli.output import Output
    from taskbridge.client import Bridge
    from taskbridge.events import Event
    from taskbridge.models import Task, TaskRef

_HEAD: Final = f"{'time':<8}  {'source':<9}  {'HTTP':<4}  {'vendor says':<24}  next poll"
_INDENT: Final = " " * 10
_OVERDUE: Final = 0.1  # seconds; a shorter delay is not worth a line

_Item: TypeAlias = "Event | Outcome | BaseException"


@click.command(name="explain")
@ref_argument
@click.option(
    "--for",
    "seconds",
    callback=parse_seconds,
    default="900",
    show_default=True,
    metavar="SECONDS",
    help="How long to follow the task; 'none' for no limit.",
)
@click.option("--once", is_flag=True, help="Poll once only.")
@click.option("--requests", is_flag=True, help="Print each request too: method, host, path, status, seconds.")
@with_json
@with_config
@click.pass_obj
def command(output: Output, ref: str, seconds: float | None, *, once: bool, requests: bool) -> int:
    """Print each poll of a task, and why it happens.

    One line per observation: time, source, HTTP status, the vendor's status, and when and why the next poll happens.
    """
    shown, last = ref, None

    def report(cause: str) -> None:
        show_resume(output, cause, {shown: last}, "explain")

    with output.signals.reporting(report):  # without closing the bridge, which would wait for a request in flight
        bridge, (opened,) = open_refs(output, [ref])
        shown = opened
        view = _View(output, requests=requests)
        with output.signals.raising():
            view.head(opened)
            end = Outcome(opened)
            for item in _follow(bridge, opened, seconds, once=once):
                output.signals.check()  # else its error may be the signal's
                if isinstance(item, Outcome):
                    end = item
                else:
                    if isinstance(item, Observation):
                        last = item.task or last
                    view.show(item)
    if isinstance(end.error, WaitTimeout):
        show_resume(output, "timeout", {opened: end.error}, "explain")
    elif output.as_json:
        output.record(outcome_record(end))
    elif end.error is not None:
        output.error(end.error)
    bridge.close()
    return outcome_code(end)


def _follow(bridge: Bridge, ref: TaskRef, seconds: float | None, *, once: bool) -> Iterator[Event | Outcome]:
    """Wait in another thread, so that this one can write and be interrupted; yield events, and the outcome last."""
    items: SimpleQueue[_Item] = SimpleQueue()

    def wait() -> None:
        try:
            items.put(Outcome(ref, bridge.get(ref) if once else bridge.wait(ref, timeout=seconds)))
        except TaskbridgeError as error:
            task = error.task if isinstance(error, WaitTimeout) else None
            items.put(Outcome(ref, task, error.about(ref=ref)))
        except BaseException as error:  # noqa: BLE001  # raised again in the other thread
            items.put(error)

    bridge.observe(items.put)
    threading.Thread(target=wait, name="taskbridge-explain", daemon=True).start()
    while True:
        item = items.get()
        if isinstance(item, BaseException):
            raise item
        yield item
        if isinstance(item, Outcome):
            return


class _View:
    """Writes one line, or one JSON object, for each observation."""

    def __init__(self, output: Output, *, requests: bool) -> None:
        self._output = output
        self._requests = requests
        self._color = use_color()

    def head(self, ref: TaskRef) -> None:
        """Write the heading."""
        if not self._output.as_json:
            self._output.line(printable(ref, 600))
            self._output.line(click.style(_HEAD, bold=True) if self._color else _HEAD)

    def show(self, event: Event) -> None:
        """Write an observation; also a request if those are wanted."""
        if isinstance(event, RequestEnded):
            if not self._requests:
                return
        elif not isinstance(event, Observation):
            return
        if self._output.as_json:
            self._output.record(event.record())
        elif isinstance(event, RequestEnded):
            self._output.line(f"{_INDENT}{_request(event)}")
        else:
            self._observation(event)

    def _observation(self, seen: Observation) -> None:
        state = (printable(type(seen.error).__name__, 24) if seen.task is None else _state(seen, seen.task)).ljust(24)
        parts = (
            f"{seen.time.astimezone():%H:%M:%S}",
            f"{seen.source:<9}",
            f"{seen.http_status or '-':<4}",
            click.style(state, fg=COLORS.get(seen.status or "", "red")) if self._color else state,
            _next_poll(seen),
        )
        self._output.line("  ".join(parts))
        for note in _notes(seen):
            self._output.line(f"{_INDENT}{note}")


def _state(seen: Observation, task: Task) -> str:
    progress = f" {task.progress:.0%}" if task.progress is not None and not task.is_terminal else ""
    same = " (same)" if seen.unchanged else ""
    return f"{printable(task.native_status or '-', 24 - len(progress) - len(same))}{progress}{same}"


def _next_poll(seen: Observation) -> str:
    if seen.next_poll_reason is None:
        return f"none: {seen.status}{f' ({seen.reason})' if seen.reason else ''}" if seen.is_terminal else "none"
    when = (
        "none"
        if seen.next_poll_in is None
        else "at once"
        if seen.next_poll_in < 0.05
        else f"in {seen.next_poll_in:.1f} s"
    )
    return f"{when}: {POLL_REASONS[seen.next_poll_reason]}"


def _notes(seen: Observation) -> Iterator[str]:
    if seen.task is not None and not seen.task.recognized:
        yield "taskbridge does not know that word; the task counts as processing"
    if seen.error is not None and seen.next_poll_reason is not None:  # else the error is printed at the end
        yield printable(seen.error.message, 300)
    if seen.overdue > _OVERDUE:
        yield f"{seen.overdue:.1f} s late: held back by a limit of the connection"
    if seen.detection_delay is not None:
        yield f"ended about {seen.detection_delay:.1f} s before that poll, by the times available"


def _request(event: RequestEnded) -> str:
    path = "(path withheld)" if event.path is None else printable(event.path, 200)
    result = event.error if event.http_status is None else f"HTTP {event.http_status}"
    resent = f", after {event.resends} resends" if event.resends else ""
    return f"{event.method} {printable(event.host, 200)} {path}: {result} after {event.duration:.2f} s{resent}"
