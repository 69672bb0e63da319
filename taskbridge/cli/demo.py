"""``demo``: the whole library at work on four emulated vendors, in about eight seconds."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from time import monotonic
from typing import TYPE_CHECKING, Final

import click

from taskbridge.cli.emulate import make_emulator
from taskbridge.cli.exit_codes import DONE, code_of
from taskbridge.cli.formatting import COLORS, native_text, status_text
from taskbridge.cli.options import show_warnings
from taskbridge.cli.output import use_color
from taskbridge.errors import TaskbridgeError, printable
from taskbridge.models import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge.cli.demo_vendors import DemoTask
    from taskbridge.cli.output import Output
    from taskbridge.client import Bridge
    from taskbridge.emulator.shell import Emulator
    from taskbridge.models import Outcome, Task, TaskResult

_TIMEOUT: Final = 15.0  # seconds; the longest task takes half of it
_WIDTH: Final = 80  # columns
_POLL: Final = 0.2  # seconds between polls
_KEEP_TIME: Final = 10.0  # seconds
_CANCELLED: Final = "catalog"
_UNKNOWN: Final = "receipts:task_doesnotexist000"

_LOOP: Final = """\
  with taskbridge.Bridge.from_config() as bridge:
      for change in bridge.watch(refs):
          print(change.ref, change.task.native_status, change.task.status)"""

_SWAP: Final = """\
    [connections.receipts]
  - provider = "scan-documents"
  + provider = "cloudconvert"
    api_key = "${RECEIPTS_API_KEY}\""""


@click.command(name="demo")
@click.pass_obj
def command(output: Output) -> int:
    """Watch five tasks at four emulated vendors, side by side."""
    show_warnings(output)
    emulator = make_emulator()
    with output.signals.raising(), emulator, TemporaryDirectory(prefix="taskbridge-demo-") as folder:
        return _Demo(output, emulator, Path(folder) / "taskbridge.toml").run()


class _Demo:
    """One run of the demo."""

    def __init__(self, output: Output, emulator: Emulator, config: Path) -> None:
        self._output = output
        self._emulator = emulator
        self._config = config
        self._tasks: dict[str, DemoTask] = {}  # by ref
        self._shown: dict[str, tuple[str, str]] = {}  # the last line of each task and subtask
        self._ends: dict[str, Outcome] = {}
        self._color = use_color()

    def run(self) -> int:
        """Show all parts; return the exit code."""
        from taskbridge.client import Bridge  # noqa: PLC0415  # heavy

        self._submit()
        with Bridge.from_config(self._config) as bridge:
            self._watch(bridge)
            self._show_results(bridge)
        self._keep()
        self._show_swap()
        return max((code_of(end.error) for end in self._ends.values()), default=DONE)

    # The parts.

    def _submit(self) -> None:
        from taskbridge._config.registry import load_provider  # noqa: PLC0415  # heavy
        from taskbridge.cli.demo_vendors import DEMO_TASKS  # noqa: PLC0415  # needs the emulators' extra

        self._heading("Five documents go to four vendors, each through that vendor's own API")
        for task in DEMO_TASKS:
            title = load_provider(task.provider).title
            self._output.line(f"  {task.name:<10}  {title:<18}  {task.story}")
            self._tasks[task.run(self._emulator)] = task
        connections: dict[str, str] = {task.connection: task.provider for task in DEMO_TASKS}
        tables = [_table(name, vendor, self._emulator.settings(vendor)) for name, vendor in connections.items()]
        self._config.write_text("\n".join(tables), encoding="utf-8")
        self._output.line()
        self._output.line(f"  The vendors are emulated on this machine: {self._emulator.base_url}")

    def _watch(self, bridge: Bridge) -> None:
        self._heading("One loop watches them all, whatever status words each vendor uses")
        self._output.line(f"{_LOOP}\n")
        self._output.line(self._bold(f"  {'time':>5}  {'task':<14}  {'vendor says':<24}  taskbridge says"))
        started = monotonic()
        for change in bridge.watch(self._tasks, timeout=_TIMEOUT):
            demo_task = self._tasks[change.ref]
            seconds = f"{monotonic() - started:4.1f}s"
            if change.task is not None:
                self._show(seconds, demo_task.name, demo_task.name, change.task)
                self._cancel_if_planned(demo_task, change.task)
            if change.error is not None or (change.task is not None and change.task.is_terminal):
                self._ends[change.ref] = change

    def _show(self, seconds: str, key: str, name: str, task: Task) -> None:
        line = (native_text(task), status_text(task))
        if self._shown.get(key) != line:
            self._shown[key] = line
            native, status = line
            shown = click.style(status, fg=COLORS[task.status]) if self._color else status
            self._output.line(f"  {seconds:>5}  {name:<14}  {native:<24}  {shown}")
            seconds = ""
        for part in task.subtasks:
            self._show(seconds, f"{key}/{part.id}", f"  {printable(part.operation or '', 12)}", part)

    def _cancel_if_planned(self, demo_task: DemoTask, task: Task) -> None:
        from taskbridge.cli.demo_vendors import cancel_capture  # noqa: PLC0415  # needs the emulators' extra

        if demo_task.name == _CANCELLED and task.status is TaskStatus.PROCESSING:
            cancel_capture(self._emulator.settings(demo_task.provider), task.id)

    def _show_results(self, bridge: Bridge) -> None:
        self._heading("Results have one shape, and failures are one kind of error")
        for ref, demo_task in self._tasks.items():
            self._output.line(_wrap(demo_task.name, self._end(bridge, ref)))
        self._output.line()
        self._output.line("  A failed status request is different: it says nothing about the task.")
        try:
            bridge.get(_UNKNOWN)
        except TaskbridgeError as error:
            self._output.line(_wrap("(a typo)", _error_text(error)))

    def _end(self, bridge: Bridge, ref: str) -> str:
        end = self._ends.get(ref)
        try:
            return "did not end in time" if end is None else _result_text(bridge.result(end.unwrap()))
        except TaskbridgeError as error:
            return _error_text(error)

    def _keep(self) -> None:
        """Put the tasks into a store, whose page can be seen afterwards; nothing is left running."""
        from taskbridge.store import State, Store, Watcher  # noqa: PLC0415  # heavy

        folder = mkdtemp(prefix="taskbridge-demo-")
        with Store(Path(folder) / "demo.db") as store:
            for ref, demo_task in self._tasks.items():
                store.watch(ref, meta={"document": demo_task.name, "story": demo_task.story})
            latest = monotonic() + _KEEP_TIME
            with Watcher(store, config=self._config, interval=0.1):
                while store.find(state=State.OPEN) and monotonic() < latest:
                    store.clock.sleep(0.05)
        self._heading("A server watches them without a program of yours, and shows a page")
        self._output.line(f"  taskbridge serve --no-work --store {folder}/demo.db")
        self._output.line("  Then open http://127.0.0.1:8700/?state=all")

    def _show_swap(self) -> None:
        self._heading("To change the vendor, change taskbridge.toml, not your program")
        self._output.line(_SWAP)
        self._output.line()
        self._output.line("  Try it yourself: taskbridge emulate > taskbridge.toml, and in another terminal")
        self._output.line("  taskbridge wait with a ref from the end of that file.")

    # Text.

    def _heading(self, text: str) -> None:
        self._output.line(f"{chr(10) if self._tasks else ''}{self._bold(text)}\n")

    def _bold(self, text: str) -> str:
        return click.style(text, bold=True) if self._color else text


def _table(name: str, provider: str, settings: Mapping[str, str]) -> str:
    lines = [f"{key} = {json.dumps(value)}" for key, value in {"provider": provider, **settings}.items()]
    return "\n".join([f"[connections.{name}]", *lines, f"poll.interval = {_POLL}", ""])


def _wrap(name: str, text: str) -> str:
    return textwrap.fill(
        text, _WIDTH, initial_indent=f"  {name:<10}  ", subsequent_indent=" " * 14, break_long_words=False
    )


def _error_text(error: TaskbridgeError) -> str:
    return f"{type(error).__name__}: {printable(error.message, 200)}"


def _result_text(result: TaskResult) -> str:
    if result.text is not None:
        return f"text  {printable(result.text, 60)}"
    if result.files:
        return f"file  {', '.join(printable(file.name or '', 40) for file in result.files)}"
    return f"data  {printable(json.dumps(result.data), 55)}" if result.data is not None else "no result"
