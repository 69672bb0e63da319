"""Exports of the emulated SmartDocumentor: done documents, sent to the address that a workspace has configured.

Nothing is signed, as far as is known. That a document whose export is refused goes back to review is the vendor's; that
an export has the keys of ``GetExportData``, and that no answer counts as a refusal, is assumed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from taskbridge.emulator.webhooks import OutgoingWebhook

from .emulator_tasks import EXPORTED, INTEGRATION_FAILED, Task, export_data

if TYPE_CHECKING:
    from taskbridge.emulator import Host

__all__ = ["Exports"]

VENDOR: Final = "smartdocumentor"


class Exports:
    """The exports of an organisation's workspaces.

    Args:
        host: Courier.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._urls: dict[int, list[str]] = {}
        self._sent: set[tuple[int, int]] = set()  # taskId, restarts

    def add(self, url: str, workspace: int, done: Iterable[Task]) -> None:
        """Configure an export; what is done already is not sent."""
        self._sent |= {(task.id, task.restarts) for task in done}
        self._urls.setdefault(workspace, []).append(url)
        self._host.webhooks.enable()

    def send(self, tasks: Iterable[Task], now: float) -> None:
        """Send what has been done since the last time."""
        for task in tasks:
            key = (task.id, task.restarts)
            if task.workspace in self._urls and key not in self._sent and task.state(now) == EXPORTED:
                self._sent.add(key)
                body = json.dumps(export_data(task, now), separators=(",", ":")).encode()
                for url in self._urls[task.workspace]:
                    self._post(task, url, body)

    def _post(self, task: Task, url: str, body: bytes) -> None:
        def on_response(status: int | None) -> None:
            if status is None or not 200 <= status < 300:
                task.sent_back, task.integration = True, INTEGRATION_FAILED

        self._host.webhooks.send(
            OutgoingWebhook(VENDOR, "export", url, body, headers=lambda _: {}, on_response=on_response)
        )
