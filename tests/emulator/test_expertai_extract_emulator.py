"""The emulated expert.ai Extract: the requests and responses in its documents, over HTTP."""

from __future__ import annotations

import gzip
import json
import struct
from base64 import b64decode, b64encode, urlsafe_b64decode
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, cast

import pytest
import requests

from taskbridge.emulator import Plan
from taskbridge.emulator.shell import Emulator
from taskbridge_expertai_extract.emulator import ExpertAiExtractEmulator

NAME = "expertai-extract"
TWO_PAGES = b"%PDF-1.4 /Type /Pages /Type /Page /Type/Page "


class Api:
    """A client: fetches a token, then sends requests with it."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.settings = emulator.settings(NAME)
        self.headers = {"Authorization": f"Bearer {self.token().text}"}

    @property
    def vendor(self) -> ExpertAiExtractEmulator:
        return cast("ExpertAiExtractEmulator", self.emulator.vendors[NAME])

    def token(self, status: int = 200, **changed: str) -> requests.Response:
        user = {"username": self.settings["username"], "password": self.settings["password"], **changed}
        response = requests.post(self.settings["token_url"], json=user, timeout=10)
        assert response.status_code == status
        return response

    def send(self, method: str, path: str, status: int = 200, **options: Any) -> requests.Response:
        response = requests.request(
            method, self.settings["base_url"] + path, headers=self.headers, timeout=10, **options
        )
        assert response.status_code == status, response.text[:200]
        return response

    def status(self, task_id: str) -> dict[str, Any]:
        return cast("dict[str, Any]", self.send("GET", f"/status/{task_id}").json())

    def submit(self, name: str = "test.pdf", data: bytes = TWO_PAGES) -> str:
        document = {"name": name, "data": b64encode(data).decode()}
        response = self.send("POST", "/layout-document-async", 202, json={"document": document}).json()
        assert list(response) == ["taskId"]
        return cast("str", response["taskId"])

    def finish(self, name: str = "test.pdf", data: bytes = TWO_PAGES) -> dict[str, Any]:
        task_id = self.submit(name, data)
        self.emulator.clock.advance(6)
        return self.status(task_id)


@pytest.fixture
def api() -> Iterator[Api]:
    with Emulator(NAME, speed=0, vendors={NAME: ExpertAiExtractEmulator}) as emulator:
        yield Api(emulator)


def jwt_claims(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    return cast("dict[str, Any]", json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4))))


# Tokens.


def test_token_is_a_jwt_in_plain_text(api: Api) -> None:
    response = api.token()
    assert response.headers["content-type"].startswith("text/plain")
    assert response.text.count(".") == 2
    assert jwt_claims(response.text)["exp"] == int(api.emulator.clock.time() + 3600)


@pytest.mark.parametrize("field", ["username", "password"])
def test_wrong_user_gets_no_token(api: Api, field: str) -> None:
    api.token(401, **{field: "wrong"})


def test_token_expires_in_vendor_time(api: Api) -> None:
    api.vendor.token_lifetime_s = 30
    api.headers = {"Authorization": f"Bearer {api.token().text}"}
    api.emulator.clock.advance(29)
    api.status("any")
    api.emulator.clock.advance(1)
    api.send("GET", "/status/any", 401)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer _.eyJleHAiOjE2NDI0OTMyMjZ9._"}])
def test_missing_or_unknown_token_is_refused(api: Api, headers: dict[str, str]) -> None:
    api.headers = headers
    assert api.send("GET", "/status/any", 401).content == b""
    assert api.send("POST", "/layout-document-async", 401, json={}).content == b""


# Status.


def test_unknown_id_is_pending_for_ever(api: Api) -> None:
    first = api.status("unknown")
    api.emulator.clock.advance(1800)
    assert api.status("unknown") == first
    assert first.keys() == {"current", "message", "state"}
    assert (first["state"], first["current"]) == ("PENDING", 0)


def test_task_goes_from_pending_through_progress_to_success(api: Api) -> None:
    task_id = api.submit()
    assert api.status(task_id) == api.status("unknown")
    api.emulator.clock.advance(3)
    assert api.status(task_id) == {"current": 25, "message": "page conversion", "state": "PROGRESS"}
    api.emulator.clock.advance(2)
    assert api.status(task_id) == {"current": 75, "message": "classification", "state": "PROGRESS"}
    api.emulator.clock.advance(1)
    done = api.status(task_id)
    assert list(done) == ["current", "message", "result", "state"]
    assert (done["current"], done["message"], done["state"]) == (100, "completed", "SUCCESS")
    assert api.status(task_id) == done


def test_failure_is_a_200_with_progress_zero(api: Api) -> None:
    failed = api.finish("fail.pdf")
    assert failed.keys() == {"current", "message", "state"}
    assert (failed["state"], failed["current"]) == ("FAILURE", 0)
    assert failed["message"]


def test_cancelled_task_is_aborted(api: Api) -> None:
    assert api.finish("cancel.pdf")["state"] == "ABORTED"


def test_stuck_task_never_ends(api: Api) -> None:
    task_id = api.submit("stuck.pdf")
    api.emulator.clock.advance(3600 - 1)
    assert api.status(task_id) == {"current": 99, "message": "classification", "state": "PROGRESS"}


# Results.


def test_header_of_a_result(api: Api) -> None:
    header = api.finish("invoice.pdf")["result"]["header"]
    ended = datetime.fromtimestamp(api.emulator.clock.time(), UTC)
    assert header == {
        "conversionDateTime": f"{ended:%Y-%m-%d %H:%M}",
        "customInfo": {"Title": "invoice.pdf"},
        "documentName": "invoice.pdf",
        "errorPages": 0,
        "metadata": [],
        "totPages": 2,
        "version": "2.1.1",
    }


def test_layout_is_a_tree_in_a_list(api: Api) -> None:
    layout = api.finish()["result"]["layout"]
    root = {"bbox": [0, 0, 850, 1100], "children": [2], "id": 1, "page": 1, "type": "page"}
    text = {"content": "test1\n", "id": 2, "label": "H", "page": 1, "parent": 1, "type": "text"}
    assert layout[:2] == [root, {"bbox": [100, 100, 125, 114], **text}]
    assert [item["page"] for item in layout[:4]] == [1, 1, 2, 2]
    _, title, table, *cells = layout[3:]
    assert layout[2]["children"] == [4, title["id"], table["id"]]
    assert (title["type"], table["type"], {cell["type"] for cell in cells}) == ("title", "table", {"cell"})
    assert [cell["id"] for cell in cells] == table["children"]
    assert [(cell["row"], cell["column"], cell["isHEad"]) for cell in cells] == [
        (1, 1, True),
        (1, 2, True),
        (2, 1, False),
        (2, 2, False),
    ]


def test_words_are_compressed_records_that_refer_to_the_layout(api: Api) -> None:
    result = api.finish()["result"]
    contents = {item["id"]: item.get("content") for item in result["layout"]}
    assert len(result["words"]) == 2
    for page in result["words"]:
        text, _, numbers = gzip.decompress(b64decode(page)).partition(b"\0")
        index, *box = struct.unpack("<5I", numbers)
        assert contents[index] == text.decode() + "\n"
        assert box == [100, 101, 124, 114]


def test_partial_success_counts_missing_pages(api: Api) -> None:
    result = api.finish("partial.pdf")["result"]
    assert (result["header"]["errorPages"], result["header"]["totPages"]) == (1, 2)
    assert [item["type"] for item in result["layout"]] == ["page", "text", "page"]
    assert gzip.decompress(b64decode(result["words"][1])) == b""


def test_result_can_be_made_large(api: Api) -> None:
    api.vendor.result_bytes = 1_000_000
    task_id = api.emulator.samples(NAME)["completed"]
    body = api.send("GET", f"/status/{task_id}").content
    assert 1_000_000 <= len(body) < 1_100_000
    layout = json.loads(body)["result"]["layout"]
    assert sorted({item["id"] for item in layout}) == sorted(item["id"] for item in layout)
    assert layout[0]["children"][-1] == layout[-1]["id"]


# Errors.


@pytest.mark.parametrize(
    "body",
    [
        b"no JSON",
        b"[]",
        b'{"document": {"name": "a.pdf"}}',
        b'{"document": {"name": "a.pdf", "data": "no base64!"}}',
        b'{"document": {"data": ""}}',
    ],
)
def test_malformed_request_is_a_400(api: Api, body: bytes) -> None:
    api.send("POST", "/layout-document-async", 400, data=body)


def test_too_large_request_is_a_413(api: Api) -> None:
    api.send("POST", "/layout-document-async", 413, data=bytes(14 * 1024 * 1024 + 1))
    pages = b64encode(b"/Type /Page " * 501).decode()
    api.send("POST", "/layout-document-async", 413, json={"document": {"name": "a.pdf", "data": pages}})


def test_missing_subscription_is_a_403_that_the_official_client_reads(api: Api) -> None:
    api.vendor.subscribed = False
    body = api.send("GET", "/status/any", 403).json()
    assert isinstance(body["message"], str)
    assert [isinstance(error["message"], str) for error in body["_embedded"]["errors"]] == [True]


def test_wrong_method_and_wrong_url(api: Api) -> None:
    answers = [
        api.send("POST", "/status/any", 405),
        api.send("GET", "/layout-document-async", 405),
        api.send("GET", "/state/any", 404),
    ]
    assert [answer.content for answer in answers] == [b"", b"", b""]  # bodies are unknown


def test_an_injected_403_has_the_known_body_and_other_errors_have_none(api: Api) -> None:
    api.emulator.fail_next(403)
    assert set(api.send("GET", "/status/any", 403).json()) == {"message", "_embedded"}
    for status in (401, 404, 413, 500):
        api.emulator.fail_next(status)
        assert api.send("GET", "/status/any", status).content == b""


def test_an_injected_error_does_not_hit_the_token_call(api: Api) -> None:
    api.emulator.fail_next(500)
    api.token()
    api.send("GET", "/status/any", 500)
    api.emulator.fail_next(500, path_contains="/oauth2/token")
    api.send("GET", "/status/any")
    api.token(500)


def test_a_document_that_is_no_pdf_fails(api: Api) -> None:
    failed = api.finish(data=b"\x89PNG\r\n\x1a\n")
    assert (failed["state"], failed["current"], set(failed)) == ("FAILURE", 0, {"current", "message", "state"})
    assert api.finish(data=b"\xef\xbb\xbf\r\n" + TWO_PAGES)["state"] == "SUCCESS"  # readers accept what precedes it


# Samples.


@pytest.mark.parametrize(
    ("label", "state"),
    [
        ("completed", "SUCCESS"),
        ("partial", "SUCCESS"),
        ("failed", "FAILURE"),
        ("cancelled", "ABORTED"),
        ("processing", "PROGRESS"),
        ("pending", "PENDING"),
    ],
)
def test_samples_exist_from_the_start(api: Api, label: str, state: str) -> None:
    task = api.status(api.emulator.samples(NAME)[label])
    assert task["state"] == state
    if state == "SUCCESS":
        assert task["result"]["header"]["errorPages"] == (label == "partial")


def test_plans_can_be_queued(api: Api) -> None:
    api.emulator.plan_next(NAME, Plan(queued=0, working=0, outcome="failed"))
    assert api.status(api.submit())["state"] == "FAILURE"
