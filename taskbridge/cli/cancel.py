"""``cancel``: cancel tasks."""

from __future__ import annotations

from taskbridge.cli.change_tasks import change_command

command = change_command(
    "cancel",
    "Cancel tasks. A task that has already ended is printed unchanged.",
    lambda bridge, ref: bridge.cancel(ref),
)
