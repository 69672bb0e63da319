"""What users and plugin authors test with."""

from taskbridge.emulator.shell import Emulator

__all__ = ["Emulator"]
