"""``emulate``: the emulated vendors as a server."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from taskbridge._config.registry import require_extra
from taskbridge.cli.codes import DONE
from taskbridge.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskbridge.cli.screen import Screen
    from taskbridge.emulator.shell import Emulator

__all__ = ["make_emulator", "serve"]


def serve(screen: Screen, names: Sequence[str], *, host: str, port: int, speed: float) -> int:
    """Serve until stopped; the exit code.

    Raises:
        ConfigError: The emulators cannot be run as asked.
    """
    emulator = make_emulator(names, host=host, port=port, speed=speed)
    fault = ""
    try:
        with screen.signals.raising():
            emulator.serve(lambda: _tell(screen, emulator))
    except (RuntimeError, ValueError) as error:
        fault = str(error)
    if fault:
        raise ConfigError(fault)
    return DONE


def make_emulator(names: Sequence[str] = (), *, host: str = "127.0.0.1", port: int = 0, speed: float = 1.0) -> Emulator:
    """An emulator that does not run yet.

    Raises:
        ConfigError: The extra is missing, a name is unknown, or the host is none of this machine's own.
    """
    try:
        from taskbridge.emulator.shell import Emulator  # noqa: PLC0415  # starlette may be missing
    except ModuleNotFoundError as error:
        raise require_extra(error.name or "starlette", "emulator", "an emulated vendor") from None
    fault = ""
    try:
        return Emulator(*names, host=host, port=port, speed=speed)
    except (RuntimeError, ValueError, ImportError, TypeError) as error:
        fault = str(error)
    raise ConfigError(fault)


def _tell(screen: Screen, emulator: Emulator) -> None:
    from taskbridge.emulator.texts import config_toml, connections_json, samples_json  # noqa: PLC0415  # as above

    if screen.as_json:
        screen.line(connections_json(emulator))
        screen.line(samples_json(emulator))
        return
    screen.line(f"# Emulated vendors answer at {emulator.base_url} until Ctrl-C. As taskbridge.toml:")
    screen.line()
    screen.line(config_toml(emulator).rstrip("\n"))
    if not sys.stdout.isatty():  # what is written goes into a file: tell the terminal that all is well
        screen.note(f"taskbridge: emulated vendors answer at {emulator.base_url} until Ctrl-C")
