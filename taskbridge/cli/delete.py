"""``delete``: delete tasks at the vendor."""

from __future__ import annotations

from taskbridge.cli.change_tasks import change_command

command = change_command(
    "delete", "Delete tasks and their results at the vendor.", lambda bridge, ref: bridge.delete(ref)
)
