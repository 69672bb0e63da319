"""``new-provider``: a distribution to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from taskbridge._config.registry import providers
from taskbridge.cli.codes import DONE
from taskbridge.errors import ConfigError, InvalidInput, printable
from taskbridge.scaffold import new_provider

if TYPE_CHECKING:
    from taskbridge.cli.screen import Screen

__all__ = ["begin_provider"]


def begin_provider(screen: Screen, name: str, to: str) -> int:
    """Write it, and say what comes next; the exit code.

    Raises:
        InvalidInput: The name cannot be one, or is taken, or the folder is there already.
        ConfigError: The folder cannot be written.
    """
    taken = frozenset(info.name for info in providers())
    fault: OSError | None = None
    try:
        folder = new_provider(name, Path(to), taken)
    except OSError as error:
        if isinstance(error, InvalidInput):
            raise
        fault = error
    else:
        if screen.as_json:
            screen.record({"path": str(folder), "provider": name})
            return DONE
        screen.line(f"wrote {folder}: a provider of an invented vendor, with an emulator and tests that pass")
        screen.line("next:")
        screen.line(f"  1. cd {folder} && pip install -e '.[test]' && python -m pytest")
        screen.line("  2. put your vendor's facts where the invented ones are, in the order that README.md says")
        screen.line(f"  3. taskbridge providers    lists {name}, or says why it cannot be used")
        return DONE
    raise ConfigError(f"{printable(to, 300)} cannot be written: {fault.strerror}")
