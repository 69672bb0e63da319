"""The four vendors as the fault server plays them: how to connect, and what a valid response looks like."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

CANARY: Final = "canary-4f1c9a7e52"  # the credential; no other text contains it


@dataclass(frozen=True)
class Vendor:
    """One vendor.

    Attributes:
        name: Entry-point name of the provider.
        secret: Setting of the credential.
        id: A shared id.
        target: Target in the request line of a status request.
        key: Field of the id; empty if there is none.
        word: Field of the status word.
        words: The status words for processing and completed.
        message: Field with a message; empty if there is none.
        time: Field with a time, and the field of `Task` that it becomes; empty if there is none.
        fields: The rest of a response.
        wrap: Puts an object into its envelope.
    """

    name: str
    secret: str
    id: str
    target: str
    key: str
    word: str
    words: tuple[str, str]
    message: str
    time: tuple[str, str]
    fields: Mapping[str, Any]
    wrap: Callable[[Any], Any] = lambda document: document

    def settings(self, url: str) -> dict[str, Any]:
        """Settings of a connection to a server that plays the vendor."""
        return {self.secret: CANARY, "base_url": url}

    def document(self, word: str | None = None, **changes: Any) -> Any:
        """A valid response as an object; `None` among the changes removes a field."""
        fields = {self.word: word or self.words[0], **self.fields, **changes}
        return self.wrap({key: value for key, value in fields.items() if value is not None})

    def body(self, word: str | None = None, **changes: Any) -> bytes:
        """A valid response as bytes."""
        return json.dumps(self.document(word, **changes)).encode()

    @property
    def processing(self) -> bytes:
        return self.body()

    @property
    def completed(self) -> bytes:
        return self.body(self.words[1])


VENDORS: Final[Mapping[str, Vendor]] = {
    vendor.name: vendor
    for vendor in (
        Vendor(
            name="cloudconvert",
            secret="api_key",
            id="c85f3ca9-164c-4e89-8ae2-c08192a7cb08",
            target="/tasks/c85f3ca9-164c-4e89-8ae2-c08192a7cb08",
            key="id",
            word="status",
            words=("processing", "finished"),
            message="message",
            time=("created_at", "created_at"),
            fields={
                "id": "c85f3ca9-164c-4e89-8ae2-c08192a7cb08",
                "operation": "convert",
                "created_at": "2026-09-19T14:42:58+00:00",
                "ended_at": "2026-09-19T14:43:01+00:00",
                "result": {"files": [{"filename": "document.pdf"}]},
            },
            wrap=lambda document: {"data": document},
        ),
        Vendor(
            name="scan-documents",
            secret="api_key",
            id="task_euyrvozb9302uwhq",
            target="/tasks/task_euyrvozb9302uwhq",
            key="id",
            word="status",
            words=("processing", "completed"),
            message="",
            time=("created_at", "created_at"),
            fields={
                "id": "task_euyrvozb9302uwhq",
                "operation": "extract-text",
                "created_at": "2026-09-19T14:42:58.123Z",
                "result": {"content": "Grüße", "format": "plain"},
            },
        ),
        Vendor(
            name="smartdocumentor",
            secret="access_token",
            id="44",
            target="/sdtask/status?taskId=44",
            key="taskId",
            word="taskStatusText",
            words=("PreProcessingInProgress", "ExportCompleted"),
            message="",
            time=("createdOn", "created_at"),
            fields={
                "taskId": 44,
                "createdOn": "2026-09-19T14:42:58",
                "externalId": "INV-7",
                "restartCount": 0,
            },
        ),
        Vendor(
            name="expertai-extract",
            secret="access_token",
            id="5c1dd1d8-3a2b-4f6a-9b0e-2f8b7c1d6e5f",
            target="/status/5c1dd1d8-3a2b-4f6a-9b0e-2f8b7c1d6e5f",
            key="",
            word="state",
            words=("PROGRESS", "SUCCESS"),
            message="message",
            time=("", ""),
            fields={
                "current": 50,
                "message": "Page 3 of 6",
                "result": {"header": {"pages": 6, "errorPages": 0}, "layouts": [{"id": 1}]},
            },
        ),
    )
}
