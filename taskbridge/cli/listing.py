"""``providers``: what is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge._config.registry import providers
from taskbridge.cli.codes import DONE
from taskbridge.cli.records import provider_record
from taskbridge.cli.texts import provider_block

if TYPE_CHECKING:
    from taskbridge.cli.screen import Screen

__all__ = ["list_providers"]


def list_providers(screen: Screen) -> int:
    """Show each installed provider, also one that cannot be used; the exit code."""
    installed = providers()
    with screen.signals.raising():
        for number, info in enumerate(installed):
            if screen.as_json:
                screen.record(provider_record(info))
            else:
                screen.line(("\n" if number else "") + provider_block(info))
    return DONE
