"""The emulated Scan Documents: the requests and responses in its documents, over HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, cast

import pytest
import requests

from taskbridge.emulator import Plan
from taskbridge.emulator.shell import Emulator
from taskbridge_scan_documents.emulator import ForcedError, ScanDocumentsEmulator

NAME = "scan-documents"
TASK_ID = re.compile(r"task_[a-z0-9]{16}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
PROBLEMS = "https://scan-documents.com/docs/errors/"


class Api:
    """A client with the key."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        settings = emulator.settings(NAME)
        self.base, self.headers = settings["base_url"], {"x-api-key": settings["api_key"]}

    @property
    def vendor(self) -> ScanDocumentsEmulator:
        return cast("ScanDocumentsEmulator", self.emulator.vendors[NAME])

    def send(
        self, method: str, path: str, status: int = 200, headers: dict[str, str] | None = None, **options: Any
    ) -> requests.Response:
        sent = self.headers if headers is None else headers
        response = requests.request(method, self.base + path, headers=sent, timeout=10, **options)
        assert response.status_code == status, response.text
        return response

    def get(self, path: str, status: int = 200) -> dict[str, Any]:
        return cast("dict[str, Any]", self.send("GET", path, status).json())

    def upload(self, name: str, data: bytes = b"some bytes") -> str:
        response = self.send("POST", "/files", files={"file": (name, data)}, data={"name": name})
        return cast("str", response.json()["id"])

    def create(self, path: str, status: int = 200, **body: Any) -> dict[str, Any]:
        return cast("dict[str, Any]", self.send("POST", path, status, json=body).json())

    def finish(self, path: str, **body: Any) -> dict[str, Any]:
        task = self.create(path, **body)
        self.emulator.clock.advance(6)
        return self.get(f"/tasks/{task['id']}")


@pytest.fixture
def api() -> Iterator[Api]:
    with Emulator(NAME, speed=0, vendors={NAME: ScanDocumentsEmulator}) as emulator:
        yield Api(emulator)


# Keys and problems.


@pytest.mark.parametrize("headers", [{}, {"x-api-key": "wrong"}, {"Authorization": "Bearer key"}])
def test_missing_or_wrong_key_is_a_401_problem(api: Api, headers: dict[str, str]) -> None:
    response = api.send("GET", "/tasks", 401, headers=headers)
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json() == {
        "type": PROBLEMS + "unauthorized",
        "title": "Unauthorized",
        "status": 401,
        "message": "You are not authorized to access this resource.",
    }


def test_unknown_ids_are_404_problems_that_name_the_resource(api: Api) -> None:
    assert api.get("/files/file_123", 404)["message"] == "File with id file_123 not found."
    assert api.get("/tasks/task_123", 404) == {
        "type": PROBLEMS + "not-found",
        "title": "Not Found",
        "status": 404,
        "message": "Task with id task_123 not found.",
    }


@pytest.mark.parametrize(
    ("status", "kind", "title"),
    [
        (409, "no-subscription", "No Subscription"),
        (429, "rate-limit-error", "Rate Limit Exceeded"),
        (500, "internal-error", "An unexpected error occurred. Contact support if the problem persists."),
    ],
)
def test_a_forced_error_answers_every_request(api: Api, status: ForcedError, kind: str, title: str) -> None:
    api.vendor.forced_error = status
    body = api.get("/tasks", status)
    assert (body["type"], body["title"], body["status"]) == (PROBLEMS + kind, title, status)
    assert isinstance(body["message"], str)
    api.vendor.forced_error = None
    api.get("/tasks")


@pytest.mark.parametrize(
    ("status", "path", "kind", "text"),
    [
        (401, "/tasks", "unauthorized", "You are not authorized to access this resource."),
        (404, "/tasks/task_1", "not-found", "Task with id task_1 not found."),
        (404, "/files/file_1/download", "not-found", "File with id file_1 not found."),
        (409, "/tasks", "no-subscription", "User does not have an active subscription"),
        (429, "/tasks", "rate-limit-error", "Rate limit exceeded. Please try again later or contact support."),
        (500, "/tasks", "internal-error", "An unexpected error occurred. Contact support if the problem persists."),
    ],
)
def test_an_injected_error_is_the_documented_problem(api: Api, status: int, path: str, kind: str, text: str) -> None:
    api.emulator.fail_next(status)
    response = api.send("GET", path, status)
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert (body["type"], body["status"], body["message"]) == (PROBLEMS + kind, status, text)


def test_an_injected_validation_error_has_errors_and_no_message(api: Api) -> None:
    api.emulator.fail_next(422)
    body = api.get("/tasks", 422)
    assert (body["type"], list(body["errors"])) == (PROBLEMS + "validation-error", ["input"])
    assert "message" not in body


@pytest.mark.parametrize("status", [403, 503])
def test_an_injected_error_whose_body_is_unknown_has_none(api: Api, status: int) -> None:
    api.emulator.fail_next(status)
    assert api.send("GET", "/tasks", status).content == b""


def test_an_unknown_path_and_a_wrong_method_are_problems(api: Api) -> None:
    assert api.get("/none", 404)["type"] == PROBLEMS + "not-found"
    response = api.send("DELETE", "/tasks/task_1", 405)
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["Allow"] == "GET, HEAD"


# Files.


def test_uploaded_file_is_listed_downloaded_and_deleted(api: Api) -> None:
    key = api.upload("scan.png", data := b"\x89PNG not really\r\n--\r\n")
    shown = api.get(f"/files/{key}")
    assert (shown["id"], shown["name"], shown["type"], shown["task_id"]) == (key, "scan.png", "image/png", None)
    assert shown["properties"]["size"] == len(data)
    assert TIME.fullmatch(shown["created_at"])
    response = api.send("GET", f"/files/{key}/download", headers={**api.headers, "Accept": "image/png"})
    assert (response.content, response.headers["content-type"]) == (data, "image/png")
    assert api.send("DELETE", f"/files/{key}", 204).content == b""
    api.get(f"/files/{key}", 404)


def test_file_over_ten_megabytes_is_refused(api: Api) -> None:
    body = api.send("POST", "/files", 422, files={"file": ("big.pdf", bytes(10 * 1024 * 1024 + 1))}).json()
    assert list(body["errors"]) == ["file"]


def test_upload_without_a_file_or_of_another_type_is_refused(api: Api) -> None:
    assert "file" in api.send("POST", "/files", 422, data={"name": "x"}).json()["errors"]
    assert "file" in api.send("POST", "/files", 422, files={"file": ("notes.txt", b"words")}).json()["errors"]


# Tasks.


def test_task_goes_from_pending_to_completed(api: Api) -> None:
    photo = api.upload("photo.png")
    body: dict[str, Any] = {
        "input": photo,
        "name": "Example Image",
        "effect": "grayscale",
        "callback_url": "https://example.com/callback",
    }
    created = api.create("/image-operations/apply-effect", **body)
    assert TASK_ID.fullmatch(created["id"])
    assert (created["status"], created["result"]) == ("pending", {})
    assert created["parameters"] == body
    assert created["callback_url"] == body["callback_url"]
    api.emulator.clock.advance(2)
    working = api.get(f"/tasks/{created['id']}")
    assert (working["status"], working["result"]) == ("processing", {})
    api.emulator.clock.advance(4)
    done = api.get(f"/tasks/{created['id']}")
    assert list(done) == [
        *("id", "operation", "parameters", "status", "result"),
        *("created_at", "updated_at", "callback_url"),
    ]
    assert (done["operation"], done["status"]) == ("apply-effect", "completed")
    assert TIME.fullmatch(done["created_at"])
    assert done["created_at"] < working["updated_at"] < done["updated_at"]
    (file,) = done["result"]["generated_files"]
    assert (file["name"], file["type"], file["task_id"]) == ("Example Image", "image/png", created["id"])
    assert file["properties"].keys() == {"size", "width", "height"}
    data = api.send("GET", f"/files/{file['id']}/download").content
    assert (data[:4], len(data)) == (b"\x89PNG", file["properties"]["size"])


def test_callback_url_is_absent_by_default(api: Api) -> None:
    assert "callback_url" not in api.create("/pdf-operations/split", input=api.upload("a.pdf"))


def test_create_may_return_a_finished_task(api: Api) -> None:
    api.emulator.plan_next(NAME, Plan(queued=0, working=0))
    assert api.create("/pdf-operations/split", input=api.upload("a.pdf"))["status"] == "completed"


@pytest.mark.parametrize("name", ["fail.pdf", "cancel.pdf"])
def test_failed_task_has_an_error_in_its_result(api: Api, name: str) -> None:
    task = api.finish("/pdf-operations/split", input=api.upload(name))
    assert task["status"] == "failed"
    assert task["result"].keys() == {"error", "details"}


@pytest.mark.parametrize(
    ("path", "body", "kinds"),
    [
        ("image-operations/convert", {"target_format": "image/jpeg", "quality": 80}, ["image/jpeg"]),
        ("image-operations/convert", {"target_format": "image/webp", "quality": 1}, ["image/webp"]),
        ("image-operations/convert", {"target_format": "image/png"}, ["image/png"]),
        ("image-operations/warp", {"vertices": [{"x": x, "y": y} for x in (0, 9) for y in (0, 9)]}, ["image/png"]),
        ("image-operations/apply-effect", {"effect": "black-background"}, ["image/png"]),
        ("image-operations/scan", {"effect": "none", "scan_mode": "standard"}, ["image/png"]),
        ("pdf-operations/render", {"dpi": 72}, ["image/png"] * 3),
        ("pdf-operations/render", {"pages": "2-3"}, ["image/png"] * 2),
        ("pdf-operations/split", {}, ["application/pdf"] * 3),
        ("pdf-operations/extract-pages", {"pages": "1,3"}, ["application/pdf"]),
    ],
)
def test_operation_makes_files(api: Api, path: str, body: dict[str, Any], kinds: list[str]) -> None:
    image = path.startswith("image")
    source = api.upload("photo.jpg") if image else api.upload("report.pdf", b"%PDF-1.4" + b"/Type /Page " * 3)
    task = api.finish(f"/{path}", input=source, **body)
    assert (task["operation"], task["status"]) == (path.split("/")[1], "completed")
    files = task["result"]["generated_files"]
    assert [file["type"] for file in files] == kinds
    for file in files:
        assert len(api.send("GET", f"/files/{file['id']}/download").content) == file["properties"]["size"]


def test_merge_takes_a_list_of_pdfs_and_images(api: Api) -> None:
    inputs = [api.upload("a.pdf", b"%PDF-1.4 /Type /Page /Type /Page"), api.upload("b.png")]
    task = api.finish("/pdf-operations/merge", input=inputs, name="All")
    (file,) = task["result"]["generated_files"]
    assert task["parameters"] == {"input": inputs, "name": "All"}
    assert (file["name"], file["properties"]["page_count"]) == ("All", 3)


@pytest.mark.parametrize("word", ["plain", "markdown", "html"])
def test_text_has_the_requested_format(api: Api, word: str) -> None:
    result = api.finish("/image-operations/extract-text", input=api.upload("a.webp"), format=word)["result"]
    assert result.keys() == {"format", "content"}
    assert result["format"] == word
    assert "extracted" in result["content"]


def test_json_text_follows_the_schema(api: Api) -> None:
    fields = {"total": {"type": "number"}, "lines": {"type": "array", "items": {"type": "string", "example": "tea"}}}
    schema = {"type": "object", "properties": fields}
    body: dict[str, Any] = {"input": api.upload("a.png"), "format": "json", "schema": schema}
    result = api.finish("/image-operations/extract-text", **body)["result"]
    assert json.loads(result["content"]) == {"total": 1.5, "lines": ["tea"]}


def test_detected_documents_have_a_box_and_four_corners(api: Api) -> None:
    task = api.finish("/image-operations/detect-documents", input=api.upload("a.png"))
    (document,) = task["result"]["documents"]
    assert document["bounding_box"].keys() == {"left", "top", "width", "height"}
    assert [corner.keys() for corner in document["vertices"]] == [{"x", "y"}] * 4
    assert task["operation"] == "detect-documents"
    api.vendor.detection_operation = "convert"  # as the API description has it
    assert api.get(f"/tasks/{task['id']}")["operation"] == "convert"


def test_a_task_may_be_the_input_of_another(api: Api) -> None:
    first = api.create("/pdf-operations/render", input=api.upload("a.pdf"), dpi=72)
    second = api.create("/image-operations/apply-effect", input=first["id"], effect="scanner")
    api.emulator.clock.advance(7)
    assert api.get(f"/tasks/{first['id']}")["status"] == "completed"
    assert api.get(f"/tasks/{second['id']}")["status"] == "pending"
    api.emulator.clock.advance(5)
    (file,) = api.get(f"/tasks/{second['id']}")["result"]["generated_files"]
    assert file["properties"].items() >= {"width": 612, "height": 792}.items()


def test_unsuitable_document_fails_the_task(api: Api) -> None:
    pdf = api.upload("a.pdf")
    for path, body, error in (
        ("/pdf-operations/extract-pages", {"pages": "2-7"}, "Invalid page range"),
        ("/image-operations/extract-text", {"format": "plain"}, "Unsupported format"),
    ):
        assert api.finish(path, input=pdf, **body)["result"] == {"error": error, "details": {}}
    task = api.create("/pdf-operations/split", input=pdf)
    api.send("DELETE", f"/files/{pdf}", 204)
    api.emulator.clock.advance(6)
    assert api.get(f"/tasks/{task['id']}")["result"]["error"] == "Invalid file ID"


@pytest.mark.parametrize(
    ("path", "field", "body"),
    [
        ("image-operations/convert", "target_format", {"target_format": "image/gif"}),
        ("image-operations/convert", "quality", {"target_format": "image/jpeg"}),
        ("image-operations/convert", "quality", {"target_format": "image/jpeg", "quality": 101}),
        ("image-operations/extract-text", "format", {}),
        ("image-operations/extract-text", "schema", {"format": "json", "schema": {"type": "thing"}}),
        ("image-operations/warp", "vertices", {"vertices": [{"x": 1, "y": 1}] * 3}),
        ("image-operations/warp", "vertices", {"vertices": [{"x": 1, "y": "1"}] * 4}),
        ("image-operations/apply-effect", "effect", {"effect": "none"}),
        ("image-operations/scan", "scan_mode", {"effect": "none", "scan_mode": "deep"}),
        ("pdf-operations/render", "dpi", {"dpi": "300"}),
        ("pdf-operations/extract-pages", "pages", {}),
        ("pdf-operations/split", "name", {"name": 7}),
        ("pdf-operations/split", "callback_url", {"callback_url": "nowhere"}),
        ("pdf-operations/merge", "input", {"input": "one"}),
        ("pdf-operations/merge", "input", {"input": []}),
        ("pdf-operations/split", "input", {"input": "file_123"}),
    ],
)
def test_invalid_fields_are_a_422_without_a_message(api: Api, path: str, field: str, body: dict[str, Any]) -> None:
    source: Any = api.upload("a.png")
    response = api.create(f"/{path}", 422, **{"input": [source] if path.endswith("merge") else source, **body})
    assert response.keys() == {"type", "title", "status", "errors"}
    assert (response["type"], response["title"]) == (PROBLEMS + "validation-error", "Validation Error")
    assert list(response["errors"]) == [field]


def test_unknown_input_is_refused_with_the_vendors_message(api: Api) -> None:
    response = api.create("/pdf-operations/split", 422, input="file_123")
    assert response["errors"] == {"input": ["input does not contains a valid input id."]}
    assert api.send("POST", "/pdf-operations/split", 422, data=b"[]").json()["errors"] == response["errors"]


# Lists and events.


def test_lists_are_paged_by_take_and_from(api: Api) -> None:
    everything = [task["id"] for task in api.get("/tasks")["data"]]
    first = api.get("/tasks?take=2")
    assert [task["id"] for task in first["data"]] == everything[:2]
    assert first["links"]["previous"] is None
    root = api.base.removesuffix("/v1")
    assert first["links"]["next"] == f"{root}/tasks?from={everything[2]}&take=2"  # lacks /v1, as at the vendor
    second = api.get(f"/tasks?take=2&from={everything[2]}")
    assert [task["id"] for task in second["data"]] == everything[2:4]
    assert second["links"]["previous"] == f"{root}/tasks?from={everything[0]}&take=2"
    assert api.get(f"/tasks?from={everything[-1]}")["links"]["next"] is None


@pytest.mark.parametrize("query", ["take=0", "take=101", "take=many", "from=task_123"])
def test_invalid_paging_is_refused(api: Api, query: str) -> None:
    assert list(api.get(f"/tasks?{query}", 422)["errors"]) == [query.partition("=")[0]]


def test_events_record_what_happened(api: Api) -> None:
    known = {event["id"] for event in api.get("/events?take=100")["data"]}
    photo = api.upload("fail.png")
    task = api.finish("/image-operations/detect-documents", input=photo)
    api.send("DELETE", f"/files/{photo}", 204)
    new = [event for event in api.get("/events?take=100")["data"] if event["id"] not in known]
    events = {event["type"]: event["data"] for event in new}
    assert list(events) == ["file.deleted", "task.failed", "task.created", "file.created"]
    named = {"id": task["id"], "operation": "detect-documents"}
    assert events["task.created"] == named
    assert events["task.failed"] == {**named, "result": task["result"]}
    assert events["file.created"].keys() == {"id", "name", "type", "properties", "task_id"}
    assert events["file.deleted"] == {"id": photo, "name": "fail.png", "type": "image/png"}
    assert re.fullmatch(r"event_[a-z0-9]{16}", new[0]["id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", new[0]["timestamp"])


# Samples.


@pytest.mark.parametrize(
    ("label", "status", "keys"),
    [
        ("completed", "completed", {"generated_files"}),
        ("text", "completed", {"format", "content"}),
        ("failed", "failed", {"error", "details"}),
        ("cancelled", "failed", {"error", "details"}),
        ("processing", "processing", set[str]()),
        ("pending", "pending", set[str]()),
    ],
)
def test_samples_exist_from_the_start(api: Api, label: str, status: str, keys: set[str]) -> None:
    task = api.get(f"/tasks/{api.emulator.samples(NAME)[label]}")
    assert (task["status"], task["result"].keys()) == (status, keys)


def test_the_same_seed_gives_the_same_ids() -> None:
    def samples(seed: int) -> dict[str, str]:
        with Emulator(NAME, speed=0, seed=seed, vendors={NAME: ScanDocumentsEmulator}) as emulator:
            return emulator.samples(NAME)

    assert samples(1) == samples(1) != samples(2)
