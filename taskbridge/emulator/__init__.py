"""The HTTP shell in which providers' emulators run (extra ``emulator``)."""

from typing import TYPE_CHECKING, Any

from taskbridge.emulator.clock import VendorClock
from taskbridge.emulator.vendor import Host, Plan, PlannedOutcome, VendorEmulator

if TYPE_CHECKING:
    from taskbridge.emulator.shell import Emulator

__all__ = ["Emulator", "Host", "Plan", "PlannedOutcome", "VendorClock", "VendorEmulator"]


def __getattr__(name: str) -> Any:
    if name != "Emulator":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from taskbridge.emulator.shell import Emulator  # noqa: PLC0415  # needs the extra; plans and clocks do not
    except ModuleNotFoundError as error:
        from taskbridge._config.registry import require_extra  # noqa: PLC0415  # only for this message

        raise require_extra(error.name or "starlette", "emulator", "an emulated vendor") from None
    return Emulator
