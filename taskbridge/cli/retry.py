"""``retry``: re-run tasks as new tasks."""

from __future__ import annotations

from taskbridge.cli.change_tasks import change_command

command = change_command("retry", "Re-run tasks, each as a new task.", lambda bridge, ref: bridge.retry(ref))
