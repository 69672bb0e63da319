"""``providers``: list what is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from taskbridge.cli.exit_codes import DONE
from taskbridge.cli.formatting import provider_block
from taskbridge.cli.options import with_json
from taskbridge.errors import ProviderNotFound

if TYPE_CHECKING:
    from taskbridge._config.registry import ProviderInfo
    from taskbridge.cli.output import Output


@click.command(name="providers")
@with_json
@click.pass_obj
def command(output: Output) -> int:
    """List the installed providers, including those that cannot be used, and why."""
    from taskbridge._config import registry  # noqa: PLC0415  # heavy: imports every provider's settings

    installed = registry.providers()
    if not installed:
        raise ProviderNotFound(registry.NO_METADATA)
    with output.signals.raising():
        for number, info in enumerate(installed):
            if output.as_json:
                output.record(_record(info))
            else:
                output.line(("\n" if number else "") + provider_block(info))
    return DONE


def _record(info: ProviderInfo) -> dict[str, Any]:
    can = info.capabilities
    return {
        "name": info.name,
        "title": info.title,
        "distribution": info.distribution,
        "version": info.version,
        "builtin": info.builtin,
        "authentication": can and can.authentication,
        "ids": [{"kind": kind.noun, "example": kind.example} for kind in can.kinds] if can else [],
        "progress": can and can.progress,
        "long_poll": can and can.long_poll,
        "separate_result": can and can.separate_result,
        "subtasks": can and can.subtasks,
        "reasons": list(can.reasons) if can else [],
        "webhooks": list(can.webhooks.events) if can and can.webhooks else [],
        "problem": info.problem,
    }
