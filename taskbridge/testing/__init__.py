"""What users and plugin authors test with.

* `Emulator`: the vendors, emulated on this machine (extra ``emulator``).
* `VirtualClock`: time that passes at once; `RealTransports`: real connections of clients that live in it.
* `ScriptedVendor`: a vendor in this process whose tasks follow a script.
* `RecordingTransport`, `ReplayTransport`: real traffic, written down and given out again.
* `ScriptedTransport`, `AsyncScriptedTransport`: canned answers in place of sockets.
* `ProviderConformance`, `Sample`: the suite that every provider passes (needs pytest).

`taskbridge.testing.plugin` makes pytest fixtures of them; pytest finds it by itself.

Importing this package loads none of them, so that no test needs what it does not use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from taskbridge.emulator.shell import Emulator
    from taskbridge.testing.clock import VirtualClock
    from taskbridge.testing.conformance import ProviderConformance, Sample
    from taskbridge.testing.lines import RealTransports
    from taskbridge.testing.recording import RecordingTransport, ReplayTransport, UnexpectedRequest
    from taskbridge.testing.scripted import ScriptedVendor
    from taskbridge.testing.transport import AsyncScriptedTransport, ScriptedTransport

__all__ = [
    "AsyncScriptedTransport",
    "Emulator",
    "ProviderConformance",
    "RealTransports",
    "RecordingTransport",
    "ReplayTransport",
    "Sample",
    "ScriptedTransport",
    "ScriptedVendor",
    "UnexpectedRequest",
    "VirtualClock",
]

# Name -> module that has it.
_HOMES: Final[dict[str, str]] = {
    "AsyncScriptedTransport": "taskbridge.testing.transport",
    "Emulator": "taskbridge.emulator.shell",
    "ProviderConformance": "taskbridge.testing.conformance",
    "RealTransports": "taskbridge.testing.lines",
    "RecordingTransport": "taskbridge.testing.recording",
    "ReplayTransport": "taskbridge.testing.recording",
    "Sample": "taskbridge.testing.conformance",
    "ScriptedTransport": "taskbridge.testing.transport",
    "ScriptedVendor": "taskbridge.testing.scripted",
    "UnexpectedRequest": "taskbridge.testing.recording",
    "VirtualClock": "taskbridge.testing.clock",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'taskbridge.testing' has no attribute {name!r}")
    try:
        value: object = getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if name != "Emulator":
            raise
        from taskbridge._config.registry import require_extra  # noqa: PLC0415  # only where something is missing

        raise require_extra(error.name or "starlette", "emulator", "taskbridge.testing.Emulator") from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
