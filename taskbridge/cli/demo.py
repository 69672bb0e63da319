"""``demo``: the whole library at work on four emulated vendors, in about eight seconds."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import TYPE_CHECKING, Final

import click

from taskbridge._config.registry import load_provider
from taskbridge.cli.codes import DONE, code_of
from taskbridge.cli.emulate import make_emulator
from taskbridge.cli.refs import listen
from taskbridge.cli.screen import colourful
from taskbridge.cli.texts import COLOURS, status_of, word_of
from taskbridge.client import Bridge
from taskbridge.errors import TaskbridgeError, printable
from taskbridge.models import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taskbridge.cli.demo_vendors import Errand
    from taskbridge.cli.screen import Screen
    from taskbridge.emulator.shell import Emulator
    from taskbridge.models import Outcome, Task, TaskResult

__all__ = ["play"]

_TIMEOUT: Final = 15.0  # seconds; the longest task takes half of it
_WIDTH: Final = 80  # columns
_POLL: Final = 0.2  # seconds between looks
_CANCELLED: Final = "catalogue"
_UNKNOWN: Final = "receipts:task_nobodyknowsme00"

_LOOP: Final = """\
  with taskbridge.Bridge.from_config() as bridge:
      for change in bridge.watch(refs):
          print(change.ref, change.task.native_status, change.task.status)"""

_SWAP: Final = """\
    [connections.receipts]
  - provider = "scan-documents"
  + provider = "cloudconvert"
    api_key = "${RECEIPTS_API_KEY}\""""


def play(screen: Screen) -> int:
    """Play the demo; the exit code.

    Raises:
        ConfigError: The extra with the emulators is not installed.
    """
    listen(screen)
    emulator = make_emulator()
    with screen.signals.raising(), emulator, TemporaryDirectory(prefix="taskbridge-demo-") as folder:
        return _Play(screen, emulator, Path(folder) / "taskbridge.toml").run()


class _Play:
    """One performance.

    Args:
        screen: Where to.
        emulator: The running vendors.
        config: Where the configuration is written to.
    """

    def __init__(self, screen: Screen, emulator: Emulator, config: Path) -> None:
        self._screen = screen
        self._emulator = emulator
        self._config = config
        self._errands: dict[str, Errand] = {}  # by ref
        self._shown: dict[str, tuple[str, str]] = {}  # the last line of each task and part of a task
        self._ends: dict[str, Outcome] = {}
        self._colours = colourful()

    def run(self) -> int:
        """The acts, one after the other."""
        self._send()
        with Bridge.from_config(self._config) as bridge:
            self._watch(bridge)
            self._tell_results(bridge)
        self._tell_swap()
        return max((code_of(end.error) for end in self._ends.values() if end.error is not None), default=DONE)

    # The acts.

    def _send(self) -> None:
        from taskbridge.cli.demo_vendors import ERRANDS  # noqa: PLC0415  # needs the emulators' extra

        self._heading("Five documents go out to four vendors, each in its vendor's own way")
        for errand in ERRANDS:
            title = load_provider(errand.provider).title
            self._screen.line(f"  {errand.name:<10}  {title:<18}  {errand.story}")
            self._errands[errand.run(self._emulator)] = errand
        self._config.write_text(_toml(self._emulator, ERRANDS), encoding="utf-8")
        self._screen.line()
        self._screen.line(f"  The vendors are emulated on this machine: {self._emulator.base_url}")

    def _watch(self, bridge: Bridge) -> None:
        self._heading("One loop watches them all, whatever each vendor calls it")
        self._screen.line(f"{_LOOP}\n")
        self._screen.line(self._bold(f"  {'time':>5}  {'task':<14}  {'vendor says':<24}  taskbridge says"))
        began = monotonic()
        for change in bridge.watch(self._errands, _TIMEOUT):
            errand = self._errands[change.ref]
            seconds = f"{monotonic() - began:4.1f}s"
            if change.task is not None:
                self._show(seconds, errand.name, errand.name, change.task)
                self._meddle(errand, change.task)
            if change.error is not None or (change.task is not None and change.task.is_terminal):
                self._ends[change.ref] = change

    def _show(self, seconds: str, key: str, name: str, task: Task) -> None:
        said = (word_of(task), status_of(task))
        if self._shown.get(key) != said:
            self._shown[key] = said
            word, status = said
            shown = click.style(status, fg=COLOURS[task.status]) if self._colours else status
            self._screen.line(f"  {seconds:>5}  {name:<14}  {word:<24}  {shown}")
            seconds = ""
        for part in task.subtasks:
            self._show(seconds, f"{key}/{part.id}", f"  {printable(part.operation or '', 12)}", part)

    def _meddle(self, errand: Errand, task: Task) -> None:
        from taskbridge.cli.demo_vendors import cancel_capture  # noqa: PLC0415  # needs the emulators' extra

        if errand.name == _CANCELLED and task.status is TaskStatus.PROCESSING:
            cancel_capture(self._emulator.settings(errand.provider), task.id)

    def _tell_results(self, bridge: Bridge) -> None:
        self._heading("What came of it: results in one shape, failures as one kind of error")
        for ref, errand in self._errands.items():
            self._screen.line(_wrapped(errand.name, self._end(bridge, ref)))
        self._screen.line()
        self._screen.line("  A look-up that fails is something else: it says nothing about a task.")
        try:
            bridge.get(_UNKNOWN)
        except TaskbridgeError as error:
            self._screen.line(_wrapped("(a typo)", _fault(error)))

    def _end(self, bridge: Bridge, ref: str) -> str:
        end = self._ends.get(ref)
        try:
            if end is None:
                return "was not seen to end"
            return _told(bridge.result(end.unwrap()))
        except TaskbridgeError as error:
            return _fault(error)

    def _tell_swap(self) -> None:
        self._heading("Another vendor tomorrow: a change in taskbridge.toml, none in the program")
        self._screen.line(_SWAP)
        self._screen.line()
        self._screen.line("  Try it yourself: taskbridge emulate > taskbridge.toml, and in another terminal")
        self._screen.line("  taskbridge wait with a ref from the end of that file.")

    # Type.

    def _heading(self, words: str) -> None:
        self._screen.line(f"{chr(10) if self._errands else ''}{self._bold(words)}\n")

    def _bold(self, words: str) -> str:
        return click.style(words, bold=True) if self._colours else words


def _toml(emulator: Emulator, errands: Sequence[Errand]) -> str:
    """A configuration with a connection for each purpose."""
    tables: dict[str, str] = {errand.connection: errand.provider for errand in errands}
    return "\n".join(_table(name, provider, emulator.settings(provider)) for name, provider in tables.items())


def _table(name: str, provider: str, settings: Mapping[str, str]) -> str:
    lines = [f"{key} = {json.dumps(value)}" for key, value in {"provider": provider, **settings}.items()]
    return "\n".join([f"[connections.{name}]", *lines, f"poll.interval = {_POLL}", ""])


def _wrapped(name: str, words: str) -> str:
    return textwrap.fill(
        words, _WIDTH, initial_indent=f"  {name:<10}  ", subsequent_indent=" " * 14, break_long_words=False
    )


def _fault(error: TaskbridgeError) -> str:
    return f"{type(error).__name__}: {printable(error.message, 200)}"


def _told(result: TaskResult) -> str:
    """A result in a line."""
    if result.text is not None:
        return f"text  {printable(result.text, 60)}"
    if result.files:
        return f"file  {', '.join(printable(file.name or '', 40) for file in result.files)}"
    return f"data  {printable(json.dumps(result.data), 55)}" if result.data is not None else "nothing to fetch"
