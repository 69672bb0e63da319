"""Tasks and batches of the emulated SmartDocumentor: their states and their JSON.

Only states whose numbers the vendor published have one; all others have a name and a null number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from taskbridge.emulator.helpers import JsonObject, utc_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from taskbridge.emulator.helpers import Life

# Names of states -> published numbers.                                    doc MAP, except where noted
NUMBERS: Final[Mapping[str, int]] = {
    "Deleted": 20,
    "QueuedForPreProcessing": 30,
    "PreProcessingInProgress": 31,
    "PreProcessingFailed": 32,
    "PreProcessingDownloadFailed": 33,
    "PreProcessingSuccessful": 34,
    "InReview": 4,  # only in the sample of STATUS; fits no row of MAP
}
# The states of a working task, each for an equal part of the work. "Recognizing" is only in the prose of MAP;
# the real name is not published.
WORK: Final = ("PreProcessingInProgress", "PreProcessingSuccessful", "Recognizing")
EXPORTED: Final = "ExportCompleted"  # doc REPROC; number unknown
TO_REVIEW: Final = "ToReview"  # "To Review" in doc HOOK; name and number unknown
INTEGRATION_FAILED: Final = ("Failed", 4)  # the one published integration state: sample of doc STATUS
NEVER_INTEGRATED: Final = "never"  # initial externalIntegrationStatus, also after a restart: doc EXTINT
TOTAL_PAGES: Final = 10  # of every document, after it was read: sample of doc STATUS


@dataclass(slots=True)
class EmulatedTask:
    """One document."""

    id: int  # `taskId`
    number: int  # `taskNumber`, counted within the workspace
    workspace: int  # `workspaceId`
    batch: int | None  # `batchId`
    external_id: str | None  # the caller's id
    name: str  # `displayName`
    description: str | None  # `description`
    url: str  # the document's URL
    created: float  # vendor seconds since the epoch
    life: Life  # its plan, since it was created or restarted
    restarts: int = 0  # how often it was restarted
    integration: tuple[str, int] | None = None  # name and number of the integration state; None if nothing is published
    label: str = NEVER_INTEGRATED  # `externalIntegrationStatus`
    sent_back: bool = False  # whether the downstream system refused its export, so that it is in review again

    def state(self, now: float) -> str:
        """The name of the state at ``now``."""
        if self.sent_back:
            return TO_REVIEW
        plan = self.life.plan
        match self.life.phase(now):
            case "queued":
                return "QueuedForPreProcessing"
            case "working" if plan.outcome == "failed":
                return WORK[0]
            case "working":
                return WORK[int(self.life.progress(now) * len(WORK))]
            case "review":
                return "InReview"
            case "ended":
                return self._end()

    def _end(self) -> str:
        match self.life.plan.outcome:
            case "failed":
                return "PreProcessingFailed" if _can_be_downloaded(self.url) else "PreProcessingDownloadFailed"
            case "cancelled":
                return "Deleted"  # the closest to cancelled: the vendor cannot cancel
            case _:
                return EXPORTED

    def show(self, now: float) -> JsonObject:
        """``GetTaskStatusResponse``: doc STATUS."""
        state = self.state(now)
        integration, integration_number = self.integration or (None, None)
        row: JsonObject = {
            "taskId": self.id,
            "workspaceId": self.workspace,
            "batchId": self.batch,
            "taskNumber": self.number,
            "externalId": self.external_id,
            "displayName": self.name,
            "description": self.description,
            "createdOn": utc_text(self.created),
            "taskStatus": NUMBERS.get(state),
            "integrationStatus": integration_number,
            "taskStatusText": state,
            "integrationStatusText": integration,
            "totalPages": self.pages(now),
            "preProcessingStartedOn": utc_text(self.life.submitted_at),  # equals createdOn in the sample
        }
        if self.restarts:
            row["restartCount"] = self.restarts
        return row

    def pages(self, now: float) -> int:
        """0 until the document has been read."""
        unread = {"QueuedForPreProcessing", "PreProcessingInProgress"}
        return 0 if self.state(now) in unread or self.state(now).endswith("Failed") else TOTAL_PAGES


@dataclass(slots=True)
class Batch:
    """A group of tasks of one workspace."""

    id: int  # `batchId`
    workspace: int  # `workspaceId`
    name: str  # `displayName`
    description: str | None  # `description`
    created: float  # vendor seconds since the epoch

    def show(self, tasks: Iterable[EmulatedTask]) -> JsonObject:
        """The batch object: doc BATCH."""
        return {
            "batchId": self.id,
            "workspaceId": self.workspace,
            "displayName": self.name,
            "description": self.description,
            "createdOn": utc_text(self.created, digits=7),
            "totalTasks": sum(task.batch == self.id for task in tasks),
            "totalTasksInHistory": 0,
        }


def export_data(task: EmulatedTask, now: float) -> JsonObject:
    """The response of ``GetExportData``: keys of doc EXPORT; the values inside its entities are assumed."""
    row = task.show(now)
    keys = ("taskId", "workspaceId", "batchId", "taskNumber", "externalId", "displayName", "description")
    reviewed = task.life.plan.review > 0
    entities: list[dict[str, Any]] = [
        {"type": "Text", "category": "Document", "groupName": None, "pageNumber": page, "chunkNumber": 1}
        for page in range(1, TOTAL_PAGES + 1)
    ]
    return {
        **{key: row[key] for key in keys},
        "originalFileUrl": task.url,
        "totalPages": row["totalPages"],
        "lastCheckoutByUserName": "reviewer" if reviewed else None,
        "lastCheckedOutBy": 1 if reviewed else None,
        "lastCheckedOutUntil": utc_text(task.life.finished_at, digits=3) if reviewed else None,
        "chunks": [{"entities": entities}],
    }


def _can_be_downloaded(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and not (parts.hostname or "").endswith(".invalid")
