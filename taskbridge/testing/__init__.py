"""What users and plugin authors test with.

* `Emulator`: the vendors, emulated on this machine (extra ``emulator``).
* `VirtualClock`: time that passes instantly; `RealTransports`: real connections for clients in virtual time.
* `ScriptedVendor`: an in-process vendor whose tasks follow a script.
* `RecordingTransport`, `ReplayTransport`: record real traffic, and replay it.
* `ScriptedTransport`, `AsyncScriptedTransport`: canned responses instead of sockets.
* `ProviderConformance`, `Sample`: the suite that every provider passes (needs pytest).
* `check_event_bus`: what every `taskbridge.EventBus` must do.

`taskbridge.testing.plugin` offers them as pytest fixtures; pytest finds it by itself. `EmulatorFactory` and
`ScriptFactory` are the types of two of them, for annotations.

Importing this package loads none of them, so that no test imports what it does not use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from taskbridge.emulator.shell import Emulator
    from taskbridge.testing.clock import VirtualClock
    from taskbridge.testing.conformance import ProviderConformance, Sample
    from taskbridge.testing.event_bus import check_event_bus
    from taskbridge.testing.plugin import EmulatorFactory, ScriptFactory
    from taskbridge.testing.recording import RecordingTransport, ReplayTransport, UnexpectedRequest, UnsafeRecording
    from taskbridge.testing.scripted import ScriptedVendor
    from taskbridge.testing.transport import AsyncScriptedTransport, ScriptedTransport
    from taskbridge.testing.virtual_connections import RealTransports

__all__ = [
    "AsyncScriptedTransport",
    "Emulator",
    "EmulatorFactory",
    "ProviderConformance",
    "RealTransports",
    "RecordingTransport",
    "ReplayTransport",
    "Sample",
    "ScriptFactory",
    "ScriptedTransport",
    "ScriptedVendor",
    "UnexpectedRequest",
    "UnsafeRecording",
    "VirtualClock",
    "check_event_bus",
]

# Module -> the public names in it.
_MODULES: Final = {
    "taskbridge.emulator": ("Emulator",),
    "taskbridge.testing.clock": ("VirtualClock",),
    "taskbridge.testing.conformance": ("ProviderConformance", "Sample"),
    "taskbridge.testing.event_bus": ("check_event_bus",),
    "taskbridge.testing.plugin": ("EmulatorFactory", "ScriptFactory"),
    "taskbridge.testing.recording": ("RecordingTransport", "ReplayTransport", "UnexpectedRequest", "UnsafeRecording"),
    "taskbridge.testing.scripted": ("ScriptedVendor",),
    "taskbridge.testing.transport": ("AsyncScriptedTransport", "ScriptedTransport"),
    "taskbridge.testing.virtual_connections": ("RealTransports",),
}


def __getattr__(name: str) -> object:
    module = next((module for module, names in _MODULES.items() if name in names), None)
    if module is None:
        raise AttributeError(f"module 'taskbridge.testing' has no attribute {name!r}")
    value: object = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
