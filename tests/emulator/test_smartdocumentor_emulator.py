"""The emulated SmartDocumentor: the requests and responses in its documents, over HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, cast

import pytest
import requests

from taskbridge.emulator import Plan
from taskbridge.emulator.shell import Emulator
from taskbridge_smartdocumentor.emulator import SmartDocumentorEmulator

NAME = "smartdocumentor"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
STATUS_KEYS = [
    *("taskId", "workspaceId", "batchId", "taskNumber", "externalId", "displayName", "description", "createdOn"),
    *("taskStatus", "integrationStatus", "taskStatusText", "integrationStatusText", "totalPages"),
    "preProcessingStartedOn",
]


class Api:
    """A client: fetches a token, then sends requests with it."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.settings = emulator.settings(NAME)
        self.headers = {"Authorization": f"Bearer {self.token().json()['access_token']}"}

    def token(self, status: int = 200, **changed: str) -> requests.Response:
        form = {
            "grant_type": "client_credentials",
            "scope": "WebAPI",
            "client_id": self.settings["client_id"],
            "client_secret": self.settings["client_secret"],
            **changed,
        }
        response = requests.post(self.settings["token_url"], data=form, timeout=10)
        assert response.status_code == status
        return response

    def send(self, method: str, path: str, status: int = 200, json: Any = None) -> requests.Response:
        response = requests.request(
            method, self.settings["base_url"] + path, headers=self.headers, json=json, timeout=10
        )
        assert response.status_code == status, response.text
        return response

    def get(self, path: str) -> Any:
        return self.send("GET", path).json()

    def status(self, task_id: int | str) -> dict[str, Any]:
        return cast("dict[str, Any]", self.get(f"/sdtask/status?taskId={task_id}"))

    def create(self, url: str = "https://example.com/invoice.pdf", **more: Any) -> int:
        body = {"context": {"url": url}, **more}
        return cast("int", self.send("POST", "/sdtask/process", json=body).json()["taskId"])

    def refuse(self, method: str, path: str, status: int, json: Any = None) -> None:
        assert self.send(method, path, status, json).content == b""

    def states(self, task_id: int, *seconds: float) -> list[tuple[str, int | None]]:
        """Name and number of the state now, and after each further number of seconds."""
        found = list[tuple[str, int | None]]()
        for step in (0, *seconds):
            self.emulator.clock.advance(step)
            task = self.status(task_id)
            found.append((task["taskStatusText"], task["taskStatus"]))
        return found


@pytest.fixture
def api() -> Iterator[Api]:
    with Emulator(NAME, speed=0, vendors={NAME: SmartDocumentorEmulator}) as emulator:
        yield Api(emulator)


# Tokens.


def test_token_response_is_the_documented_one(api: Api) -> None:
    body = api.token().json()
    assert body.pop("access_token")
    assert body == {"expires_in": 3600, "token_type": "Bearer", "scope": "WebAPI"}
    assert api.settings["token_url"].endswith("/smartdocumentor/connect/token")
    assert api.settings["base_url"].endswith("/smartdocumentor/api/v1.0/external")


@pytest.mark.parametrize(
    ("field", "error"),
    [
        ("client_id", "invalid_client"),
        ("client_secret", "invalid_client"),
        ("grant_type", "unsupported_grant_type"),
        ("scope", "invalid_scope"),
    ],
)
def test_refused_token_is_an_oauth_error(api: Api, field: str, error: str) -> None:
    assert api.token(400, **{field: "wrong"}).json() == {"error": error}


def test_only_an_injected_refusal_of_a_token_has_a_body(api: Api) -> None:
    status = f"/sdtask/status?taskId={api.emulator.samples(NAME)['completed']}"
    for code in (400, 401, 404, 429, 500):
        api.emulator.fail_next(code)
        api.token()  # faults do not hit it
        assert api.send("GET", status, code).content == b""
    api.emulator.fail_next(401, path_contains="/connect/token")
    api.send("GET", status)
    assert api.token(401).json() == {"error": "invalid_client"}


def test_an_unknown_path_and_a_wrong_method_have_no_body(api: Api) -> None:
    assert api.send("GET", "/sdtask/none", 404).content == b""
    response = api.send("DELETE", "/sdtask/status", 405)
    assert (response.content, response.headers["Allow"]) == (b"", "GET, HEAD")


def test_token_expires_after_an_hour_of_vendor_time(api: Api) -> None:
    api.emulator.clock.advance(3599)
    api.status(44)
    api.emulator.clock.advance(1)
    api.refuse("GET", "/sdtask/status?taskId=44", 401)


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer wrong", "Basic abc"])
def test_wrong_token_is_refused_without_a_body(api: Api, authorization: str) -> None:
    api.headers = {"Authorization": authorization}
    api.refuse("GET", "/sdtask/status?taskId=44", 401)


# Status.


def test_documented_sample_exists(api: Api) -> None:
    task = api.status(44)
    assert list(task) == [*STATUS_KEYS, "restartCount"]
    assert TIME.fullmatch(task.pop("createdOn"))
    assert TIME.fullmatch(task.pop("preProcessingStartedOn"))
    assert task == {
        "taskId": 44,
        "workspaceId": 1,
        "batchId": None,
        "taskNumber": 1,
        "externalId": None,
        "displayName": "Task display name",
        "description": "Task description",
        "taskStatus": 4,
        "integrationStatus": 4,
        "taskStatusText": "InReview",
        "integrationStatusText": "Failed",
        "totalPages": 10,
        "restartCount": 2,
    }


def test_status_is_found_by_either_spelling_and_by_external_id(api: Api) -> None:
    assert api.get("/sdtask/status?taskid=44") == api.status(44)
    assert api.get("/sdtask/status?externalId=INV-7")["externalId"] == "INV-7"


def test_unknown_and_missing_ids_are_refused_without_a_body(api: Api) -> None:
    api.refuse("GET", "/sdtask/status?taskId=43", 404)
    api.refuse("GET", "/sdtask/status?externalId=44", 404)
    api.refuse("GET", "/sdtask/status", 400)
    api.refuse("GET", "/sdtask/status?taskId=INV-7", 400)
    api.refuse("GET", f"/sdtask/status?taskId={'9' * 5000}", 400)


def test_task_goes_through_the_vendors_states(api: Api) -> None:
    task_id = api.create()
    assert api.states(task_id, 2, 2, 1.5, 0.5) == [
        ("QueuedForPreProcessing", 30),
        ("PreProcessingInProgress", 31),
        ("PreProcessingSuccessful", 34),
        ("Recognizing", None),
        ("ExportCompleted", None),
    ]


def test_new_task_has_no_pages_and_no_restarts(api: Api) -> None:
    task = api.status(api.create(displayName="An invoice", workspaceId=7))
    assert list(task) == STATUS_KEYS
    assert (task["displayName"], task["workspaceId"], task["taskNumber"]) == ("An invoice", 7, 1)
    assert (task["totalPages"], task["integrationStatus"], task["integrationStatusText"]) == (0, None, None)
    assert task["createdOn"] == task["preProcessingStartedOn"]


def test_task_stays_in_review_as_planned(api: Api) -> None:
    api.emulator.plan_next(NAME, Plan(review=3000))
    assert api.states(api.create(), 6, 2999, 1)[1:] == [
        ("InReview", 4),
        ("InReview", 4),
        ("ExportCompleted", None),
    ]


@pytest.mark.parametrize(
    ("url", "word", "number"),
    [
        ("https://example.com/fail.pdf", "PreProcessingFailed", 32),
        ("https://nowhere.invalid/fail-review.pdf", "PreProcessingDownloadFailed", 33),
        ("ftp://example.com/fail.pdf", "PreProcessingDownloadFailed", 33),
        ("http://[fail", "PreProcessingDownloadFailed", 33),
        ("https://example.com/cancel.pdf", "Deleted", 20),
        ("https://example.com/partial.pdf", "ExportCompleted", None),
        ("https://example.com/stuck.pdf", "Recognizing", None),
    ],
)
def test_task_ends_as_planned(api: Api, url: str, word: str, number: int | None) -> None:
    assert api.states(api.create(url), 6)[1] == (word, number)


# Creating.


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"context": {}},
        {"context": {"url": 7}},
        {"context": {"url": "https://example.com"}, "externalId": 7},
        {"context": {"url": "https://example.com"}, "batchId": 7},
    ],
)
def test_incomplete_submission_is_refused(api: Api, body: Any) -> None:
    api.refuse("POST", "/sdtask/process", 400, body)


def test_external_id_is_unique_and_not_a_task_id(api: Api) -> None:
    task_id = api.create(externalId="44")
    assert task_id != 44
    assert api.get("/sdtask/status?externalId=44")["taskId"] == task_id
    api.refuse("POST", "/sdtask/process", 409, {"context": {"url": "https://example.com"}, "externalId": "44"})


# Lists.


def test_status_list_is_a_bare_array_ordered_by_creation(api: Api) -> None:
    api.emulator.clock.advance(10)
    today = api.emulator.clock.now()
    new = api.create()
    listed = api.get("/sdtask/statuslist?startDate=2020-01-01")
    assert [listed[0]["taskId"], listed[-1]["taskId"]] == [44, new]
    assert listed[-1] == api.status(new)
    since = today.replace(microsecond=0).isoformat().replace("+00:00", "Z")
    assert [task["taskId"] for task in api.get(f"/sdtask/statuslist?startDate={since}")] == [new]
    assert new not in [task["taskId"] for task in api.get(f"/sdtask/statuslist?endDate={since}")]


def test_status_list_needs_a_date(api: Api) -> None:
    api.refuse("GET", "/sdtask/statuslist", 400)
    api.refuse("GET", "/sdtask/statuslist?startDate=yesterday", 400)


def test_filters_can_be_repeated(api: Api) -> None:
    new = api.create(workspaceId=2)
    base = "/sdtask/statuslist?startDate=2020-01-01"

    def numbers(query: str) -> list[int | None]:
        return [task["taskStatus"] for task in api.get(f"{base}&{query}")]

    assert numbers("taskStatus=30&taskStatus=20&sort=taskStatus") == [20, 30, 30]
    assert numbers("integrationStatus=1&integrationStatus=4") == [4, None]
    assert [task["taskId"] for task in api.get(f"{base}&workspaceId=2")] == [new]
    api.send("PATCH", "/sdtask/externalIntegrationStatus?taskId=44", json={"externalIntegrationStatus": "sent"})
    assert numbers("externalIntegrationStatus=sent") == [4]


def test_paginated_list_counts_from_one(api: Api) -> None:
    base = "/sdtask/statuslistpaginated?startDate=2020-01-01"
    everything = api.get("/sdtask/statuslist?startDate=2020-01-01")
    assert api.get(base) == {"pageNumber": 1, "pageSize": 10, "totalCount": 8, "items": everything}
    assert api.get(f"{base}&pageNumber=2&pageSize=3")["items"] == everything[3:6]
    api.refuse("GET", f"{base}&pageNumber=0", 400)


# Results, restarts, labels, batches.


def test_export_data_exists_after_the_export(api: Api) -> None:
    task_id = api.create(externalId="INV-8")
    api.refuse("GET", f"/sdtask/GetExportData/{task_id}", 404)
    api.emulator.clock.advance(6)
    data = api.get(f"/sdtask/GetExportData/{task_id}")
    assert (data["taskId"], data["externalId"]) == (task_id, "INV-8")
    assert data["originalFileUrl"] == "https://example.com/invoice.pdf"
    assert data["chunks"][0]["entities"][0]["pageNumber"] == 1
    assert data["lastCheckedOutUntil"] is None


def test_reviewed_export_names_its_reviewer(api: Api) -> None:
    api.emulator.plan_next(NAME, Plan(review=1))
    task_id = api.create()
    api.emulator.clock.advance(7)
    data = api.get(f"/sdtask/GetExportData/{task_id}")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", data["lastCheckedOutUntil"])


def test_restart_sends_a_task_back_to_the_queue(api: Api) -> None:
    before = api.status(44)
    api.send("PATCH", "/sdtask/externalIntegrationStatus?taskId=44", json={"externalIntegrationStatus": "sent"})
    assert api.send("PATCH", "/sdtask/restartprocessing?taskId=44").content == b""
    after = api.status(44)
    assert (after["taskStatusText"], after["restartCount"]) == ("QueuedForPreProcessing", 3)
    assert after["createdOn"] == before["createdOn"]
    assert after["preProcessingStartedOn"] > before["preProcessingStartedOn"]
    untouched = api.get("/sdtask/statuslist?startDate=2020-01-01&externalIntegrationStatus=never")
    assert 44 in [task["taskId"] for task in untouched]
    assert api.states(44, 6, 6)[1:] == [("InReview", 4), ("ExportCompleted", None)]
    api.refuse("PATCH", "/sdtask/restartprocessing?externalId=nothing", 404)


@pytest.mark.parametrize("label", ["", "  ", "x" * 33, 7, None])
def test_label_is_neither_blank_nor_long(api: Api, label: Any) -> None:
    path = "/sdtask/externalIntegrationStatus?externalId=INV-7"
    api.refuse("PATCH", path, 400, {"externalIntegrationStatus": label})
    api.refuse("PATCH", path, 200, {"externalIntegrationStatus": "x" * 32})


def test_batch_counts_its_tasks(api: Api) -> None:
    created = api.send("POST", "/sdbatch", json={"displayName": "March", "description": "All of it"}).json()
    api.create(batchId=created["batchId"])
    found = api.get(f"/sdbatch?batchId={created['batchId']}")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z", found["createdOn"])
    assert found == {**created, "totalTasks": 1}
    assert (created["displayName"], created["workspaceId"], created["totalTasksInHistory"]) == ("March", 1, 0)
    api.refuse("GET", "/sdbatch?batchId=99", 404)
    api.refuse("POST", "/sdbatch", 400, {"description": "nameless"})
    other = {"context": {"url": "https://example.com"}, "batchId": created["batchId"], "workspaceId": 2}
    api.refuse("POST", "/sdtask/process", 400, other)


# Samples.


@pytest.mark.parametrize(
    ("label", "word"),
    [
        ("completed", "ExportCompleted"),
        ("failed", "PreProcessingDownloadFailed"),
        ("cancelled", "Deleted"),
        ("processing", "Recognizing"),
        ("pending", "QueuedForPreProcessing"),
        ("review", "InReview"),
    ],
)
def test_samples_exist_from_the_start(api: Api, label: str, word: str) -> None:
    task = api.status(api.emulator.samples(NAME)[label])
    assert task["taskStatusText"] == word
    assert datetime.fromisoformat(task["createdOn"]) < datetime.now(UTC)


def test_external_sample_is_addressed_by_its_external_id(api: Api) -> None:
    assert api.emulator.samples(NAME)["external"] == "external/INV-7"
    assert api.get("/sdtask/status?externalId=INV-7")["taskStatusText"] == "ExportCompleted"
