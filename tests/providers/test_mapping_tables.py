"""Every row of the decided mappings, as the vendors' documents have them; nothing here is read from a provider."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from taskbridge.provider.http import Request, Response
from taskbridge_cloudconvert import CloudConvert, CloudConvertSettings
from taskbridge_expertai_extract import ExpertAiExtract, ExpertAiExtractSettings
from taskbridge_scan_documents import ScanDocuments, ScanDocumentsSettings
from taskbridge_smartdocumentor import SmartDocumentor, SmartDocumentorSettings

Drive = Callable[..., tuple[Any, list[Request]]]
Respond = Callable[..., Response]
Row = tuple[str, str | None]  # status, reason

CLOUDCONVERT = CloudConvert(CloudConvertSettings.model_validate({"api_key": "k"}), "c")
SCAN = ScanDocuments(ScanDocumentsSettings.model_validate({"api_key": "k"}), "c")
SMART = SmartDocumentor(SmartDocumentorSettings.model_validate({"access_token": "t"}), "c")
EXPERT = ExpertAiExtract(ExpertAiExtractSettings.model_validate({"access_token": "t"}), "c")

UNKNOWN_WORDS = ["unknown", "*", "?", "[a-z]", "…", "failed?", "COMPLETE"]


def spellings(word: str) -> list[str]:
    return [word, word.upper(), word.lower(), f" {word}\n"]


@pytest.mark.parametrize(
    ("word", "operation", "code", "row"),
    [
        ("waiting", "convert", None, ("pending", None)),
        ("waiting", "import/upload", None, ("pending", "awaiting_upload")),
        ("queued", "convert", None, ("pending", None)),
        ("queued", "import/upload", None, ("pending", None)),
        ("processing", "convert", None, ("processing", None)),
        ("processing", "import/upload", None, ("processing", None)),
        ("finished", "convert", None, ("completed", None)),
        ("error", "convert", None, ("failed", None)),
        ("error", "convert", "SANDBOX_FILE_NOT_ALLOWED", ("failed", None)),
        ("error", "convert", "CANCELLED", ("failed", "cancelled")),
        ("error", "import/upload", "CANCELLED", ("failed", "cancelled")),
        ("error", "convert", "INPUT_TASK_FAILED", ("failed", "dependency_failed")),
        ("finished", "convert", "CANCELLED", ("completed", None)),
    ],
)
def test_cloudconvert_tasks(
    drive: Drive, respond: Respond, *, word: str, operation: str, code: str | None, row: Row
) -> None:
    for spelling in spellings(word):
        body = {"data": {"id": "x441E6HMhG", "status": spelling, "operation": operation, "code": code}}
        task, _ = drive(CLOUDCONVERT.get("x441E6HMhG"), respond(200, body))
        assert (task.status, task.reason) == row
        assert (task.native_status, task.recognized) == (spelling, True)


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("waiting", "pending"),
        ("queued", "pending"),
        ("processing", "processing"),
        ("finished", "completed"),
        ("error", "failed"),
    ],
)
def test_cloudconvert_jobs(drive: Drive, respond: Respond, word: str, status: str) -> None:
    cancelled = {"id": "t", "status": "error", "operation": "import/upload", "code": "CANCELLED"}
    body = {"data": {"id": "a", "status": word, "tasks": [cancelled]}}
    job, _ = drive(CLOUDCONVERT.get("job/x441E6HMhG"), respond(200, body))
    assert (job.status, job.reason, job.native_status) == (status, None, word)
    assert job.subtasks[0].reason == "cancelled"


@pytest.mark.parametrize("word", ["pending", "processing", "completed", "failed"])
def test_scan_documents(drive: Drive, respond: Respond, word: str) -> None:
    for spelling in spellings(word):
        task, _ = drive(SCAN.get("task_1"), respond(200, {"id": "task_1", "status": spelling}))
        assert (task.status, task.reason, task.native_status, task.recognized) == (word, None, spelling, True)


SMART_ROWS: list[tuple[int | None, str | None, Row]] = [
    (19, "Deleting", ("failed", "deleted")),
    (20, "Deleted", ("failed", "deleted")),
    (30, "QueuedForPreProcessing", ("pending", None)),
    (31, "PreProcessingInProgress", ("processing", None)),
    (32, "PreProcessingFailed", ("failed", None)),
    (33, "PreProcessingDownloadFailed", ("failed", None)),
    (34, "PreProcessingSuccessful", ("processing", None)),
    (35, "PreProcessingGetPagesFailed", ("failed", None)),
    (4, "InReview", ("processing", "awaiting_review")),
    (None, "ToReview", ("processing", "awaiting_review")),
    (None, "To Review", ("processing", "awaiting_review")),
    (None, "ExportCompleted", ("completed", None)),
    (None, "Processed", ("completed", None)),
    # Patterns, in order.
    (None, "RecognitionFailed", ("failed", None)),
    (None, "QueuedForFailed", ("failed", None)),
    (None, "QueuedForRecognition", ("pending", None)),
    (None, "QueuedForInProgress", ("pending", None)),
    (None, "ExportInProgress", ("processing", None)),
    (None, "Recognizing", ("processing", None)),
]


@pytest.mark.parametrize(("number", "text", "row"), SMART_ROWS)
def test_smartdocumentor_texts(drive: Drive, respond: Respond, number: int | None, text: str, row: Row) -> None:
    for spelling in spellings(text):
        body = {"taskId": 44, "taskStatusText": spelling, "taskStatus": number}
        task, _ = drive(SMART.get("44"), respond(200, body))
        assert (task.status, task.reason, task.native_status, task.recognized) == (*row, spelling, True)


@pytest.mark.parametrize(("number", "row"), [(number, row) for number, _, row in SMART_ROWS if number is not None])
def test_smartdocumentor_numbers(drive: Drive, respond: Respond, number: int, row: Row) -> None:
    task, _ = drive(SMART.get("44"), respond(200, {"taskId": 44, "taskStatus": number}))
    assert (task.status, task.reason, task.native_status, task.recognized) == (*row, str(number), True)


@pytest.mark.parametrize("number", [0, 1, 2, 3, 5, 18, 21, 29, 36, 37, -4, 10**30])
def test_smartdocumentor_numbers_are_not_extrapolated(drive: Drive, respond: Respond, number: int) -> None:
    task, _ = drive(SMART.get("44"), respond(200, {"taskId": 44, "taskStatus": number}))
    assert (task.status, task.native_status, task.recognized) == ("processing", str(number), False)


@pytest.mark.parametrize(
    ("word", "row"),
    [
        ("PENDING", ("pending", None)),
        ("RECEIVED", ("pending", None)),
        ("PROGRESS", ("processing", None)),
        ("STARTED", ("processing", None)),
        ("RETRY", ("processing", None)),
        ("SUCCESS", ("completed", None)),
        ("FAILURE", ("failed", None)),
        ("ABORTED", ("failed", "cancelled")),
        ("REVOKED", ("failed", "cancelled")),
    ],
)
def test_expertai_extract(drive: Drive, respond: Respond, word: str, row: Row) -> None:
    for spelling in spellings(word):
        task, _ = drive(EXPERT.get("a"), respond(200, {"state": spelling, "current": 100, "message": "completed"}))
        assert (task.status, task.reason, task.native_status, task.recognized) == (*row, spelling, True)


@pytest.mark.parametrize("word", [*UNKNOWN_WORDS, "REJECTED", "IGNORED"])
def test_an_unknown_word_is_processing(drive: Drive, respond: Respond, word: str) -> None:
    requests = [
        (CLOUDCONVERT.get("x441E6HMhG"), {"data": {"id": "a", "status": word, "operation": "convert"}}),
        (CLOUDCONVERT.get("job/x441E6HMhG"), {"data": {"id": "a", "status": word}}),
        (SCAN.get("a"), {"id": "a", "status": word}),
        (SMART.get("44"), {"taskId": 44, "taskStatusText": word}),
        (EXPERT.get("a"), {"state": word}),
    ]
    for flow, body in requests:
        task, _ = drive(flow, respond(200, body))
        assert (task.status, task.recognized, task.native_status) == ("processing", False, word)
        assert (task.result, task.error) == (None, None)
