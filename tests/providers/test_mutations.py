"""Whatever a vendor sends, `get` returns a task or raises `ContractError`."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from taskbridge.errors import ContractError, PermissionDenied
from taskbridge.models import Task, TaskStatus
from taskbridge.provider.base import Provider
from taskbridge.provider.http import Request, Response
from taskbridge.provider.submission import Query
from taskbridge_cloudconvert import CloudConvert, CloudConvertSettings
from taskbridge_expertai_extract import ExpertAiExtract, ExpertAiExtractSettings, decode_words
from taskbridge_scan_documents import ScanDocuments, ScanDocumentsSettings
from taskbridge_smartdocumentor import SmartDocumentor, SmartDocumentorSettings

Drive = Callable[..., tuple[Any, list[Request]]]

CLOUDCONVERT = CloudConvert(CloudConvertSettings.model_validate({"api_key": "k"}), "c")
SCAN = ScanDocuments(ScanDocumentsSettings.model_validate({"api_key": "k"}), "c")
SMART = SmartDocumentor(SmartDocumentorSettings.model_validate({"access_token": "t"}), "c")
EXPERT = ExpertAiExtract(ExpertAiExtractSettings.model_validate({"access_token": "t"}), "c")

MOMENT = "2022-03-16T16:59:55Z"
FILE = {"filename": "a.pdf", "size": 9, "url": "https://storage.test/a.pdf", "md5": "x"}
CC_TASK = {
    "id": "a",
    "job_id": "j",
    "operation": "export/url",
    "status": "finished",
    "code": None,
    "message": "m",
    "created_at": MOMENT,
    "started_at": MOMENT,
    "ended_at": MOMENT,
    "retry_of_task_id": None,
    "result": {"files": [FILE], "metadata": {"pages": 1}},
}
CC_FAILED = {**CC_TASK, "id": "b", "status": "error", "code": "CANCELLED"}
SCAN_FILE = {"id": "file_1", "name": "n", "type": "image/png", "properties": {"size": 1, "width": 2}}

CASES: dict[str, tuple[Provider[Any], str, dict[str, Any]]] = {
    "cloudconvert-task": (CLOUDCONVERT, "x441E6HMhG", {"data": CC_TASK}),
    "cloudconvert-job": (
        CLOUDCONVERT,
        "job/x441E6HMhG",
        {"data": {"id": "j", "tag": "t", "status": "finished", "ended_at": MOMENT, "tasks": [CC_TASK]}},
    ),
    "cloudconvert-failed-job": (
        CLOUDCONVERT,
        "job/x441E6HMhG",
        {"data": {"id": "j", "status": "error", "tasks": [CC_FAILED, CC_TASK, CC_FAILED]}},
    ),
    "scan-documents-files": (
        SCAN,
        "task_1",
        {
            "id": "task_1",
            "operation": "convert",
            "status": "completed",
            "result": {"generated_files": [SCAN_FILE], "documents": [], "format": "json", "content": '{"a": 1}'},
            "created_at": MOMENT,
            "updated_at": MOMENT,
        },
    ),
    "scan-documents-failed": (
        SCAN,
        "task_1",
        {"id": "task_1", "status": "failed", "result": {"error": "words", "details": {}}},
    ),
    "smartdocumentor": (
        SMART,
        "external/INV-7",
        {
            "taskId": 44,
            "externalId": "INV-7",
            "createdOn": MOMENT,
            "taskStatus": 34,
            "taskStatusText": "Processed",
            "integrationStatus": 4,
            "integrationStatusText": "Failed",
            "restartCount": 2,
            "preProcessingStartedOn": MOMENT,
        },
    ),
    "expertai-extract": (
        EXPERT,
        "a",
        {
            "state": "SUCCESS",
            "current": 100,
            "message": "completed",
            "result": {
                "header": {"conversionDateTime": "2022-03-09 10:47", "errorPages": 1},
                "layout": [],
                "words": [],
            },
        },
    ),
}

TEXT = st.text(max_size=8) | st.sampled_from(
    ["\ud800", "a\0b", "a\nb", "\u202e", "9999-12-31T23:59:59+00:00", "0001-01-01T00:00:00+14:00", "x" * 5000, "*"]
)
NUMBER = st.integers() | st.sampled_from([10**400, -(10**400), 2**63]) | st.floats(allow_nan=False)
VALUE = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything inside."""
    inside: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        inside = list(value.items())  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]  # any JSON
    elif isinstance(value, list):
        inside = list(enumerate(value))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]  # any JSON
    return [found for key, each in inside for found in ((*path, key), *places(each, (*path, key)))]


@st.composite
def mutated(draw: st.DrawFn, body: dict[str, Any]) -> dict[str, Any]:
    changed = copy.deepcopy(body)
    for _ in range(draw(st.integers(1, 3))):
        found = places(changed)
        if not found:
            break
        *path, last = draw(st.sampled_from(found))
        parent: Any = changed
        for step in path:
            parent = parent[step]
        if draw(st.booleans()):
            parent[last] = draw(VALUE)
        else:
            del parent[last]
    return changed


def check(task: Task) -> None:
    """Check what holds for every task."""
    assert isinstance(task.status, TaskStatus)
    assert task.ref.id == task.id
    assert task == replace(task)
    assert (task.error is not None) == (task.status is TaskStatus.FAILED)
    assert task.result is None or task.status is TaskStatus.COMPLETED
    assert task.progress is None or 0.0 <= task.progress <= 1.0
    assert (repr(task) + task.describe()).encode("utf-8", "backslashreplace")
    moments = (task.created_at, task.started_at, task.updated_at, task.finished_at)
    assert all(each is None or each.utcoffset() is not None for each in moments)
    for each in task.subtasks:
        assert isinstance(each.status, TaskStatus)


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_response_gives_a_task_or_a_contract_error(drive: Drive, case: str, data: st.DataObject) -> None:
    provider, task_id, body = CASES[case]
    sent = json.dumps(data.draw(mutated(body))).encode()
    try:
        task, _ = drive(provider.get(task_id), Response(200, {}, sent))
    except ContractError:
        return
    check(task)


@pytest.mark.parametrize("case", CASES)
def test_the_unmutated_responses_are_tasks(drive: Drive, case: str) -> None:
    provider, task_id, body = CASES[case]
    task, _ = drive(provider.get(task_id), Response(200, {}, json.dumps(body).encode()))
    check(task)
    assert task.is_terminal


def object_at(body: Any, *path: str | int) -> bytes:
    """A body in which a list is an object with the same items."""
    changed: Any = copy.deepcopy(body)
    place = changed
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = {str(number): item for number, item in enumerate(place[path[-1]])}
    return json.dumps(changed).encode()


LIST: Query = Query()


@pytest.mark.parametrize(
    ("start", "body"),
    [
        (lambda: CLOUDCONVERT.get("x441E6HMhG"), object_at(CASES["cloudconvert-task"][2], "data", "result", "files")),
        (lambda: CLOUDCONVERT.get("job/x441E6HMhG"), object_at(CASES["cloudconvert-job"][2], "data", "tasks")),
        (
            lambda: CLOUDCONVERT.get("job/x441E6HMhG"),
            object_at(CASES["cloudconvert-job"][2], "data", "tasks", 0, "result", "files"),
        ),
        (lambda: CLOUDCONVERT.list_page(LIST, None), object_at({"data": [CC_TASK]}, "data")),
        (lambda: SCAN.get("task_1"), object_at(CASES["scan-documents-files"][2], "result", "generated_files")),
        (lambda: SCAN.list_page(LIST, None), object_at({"data": [CASES["scan-documents-files"][2]]}, "data")),
        (lambda: SMART.list_page(LIST, None), object_at({"tasks": [CASES["smartdocumentor"][2]]}, "tasks")),
    ],
)
def test_an_object_instead_of_a_list_is_a_contract_error(drive: Drive, start: Callable[[], Any], body: bytes) -> None:
    with pytest.raises(ContractError):
        drive(start(), Response(200, {}, body))


@pytest.mark.parametrize("provider", [CLOUDCONVERT, SCAN, SMART, EXPERT])
def test_an_error_body_of_another_shape_leaves_the_class_of_the_error(provider: Provider[Any]) -> None:
    body: Any = {"_embedded": {"errors": {"0": {}}}, "errors": {"a": {}}, "message": "no", "title": "no"}
    error = provider.error(Response(403, {}, json.dumps(body).encode()))
    assert isinstance(error, PermissionDenied)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40) | st.text(max_size=40))
@example("H4sIAK+FKGIC/ytJLS5hYGJgYEgB4lQgrgHiIiAGAEjL9hsZAAAA"[:-1])
def test_a_page_of_words_is_decoded_or_malformed(page: bytes | str) -> None:
    text = page if isinstance(page, str) else page.decode("latin-1")
    with contextlib.suppress(ContractError):
        assert isinstance(decode_words(text), list)
