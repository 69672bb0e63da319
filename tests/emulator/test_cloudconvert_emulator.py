"""The emulated CloudConvert responds as its documentation, recordings and clients say.

Every test sends `requests` to the running emulator and moves its clock.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
import threading
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest
import requests

from taskbridge.emulator import Emulator, Plan
from taskbridge_cloudconvert.emulator import CloudConvertEmulator

UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
DAY = 24 * 3600


@dataclass
class Account:
    """The emulator, and a session with its key."""

    emulator: Emulator
    session: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        self.session.headers["Authorization"] = f"Bearer {self.emulator.settings()['api_key']}"

    @property
    def vendor(self) -> CloudConvertEmulator:
        vendor = self.emulator.vendors["cloudconvert"]
        assert isinstance(vendor, CloudConvertEmulator)
        return vendor

    def send(self, method: str, path: str, **options: Any) -> requests.Response:
        url = self.emulator.settings()["base_url"] + path
        return self.session.request(method, url, timeout=5, allow_redirects=False, **options)

    def send_sync(self, method: str, path: str, **options: Any) -> requests.Response:
        url = self.emulator.settings()["sync_url"] + path
        return self.session.request(method, url, timeout=5, allow_redirects=False, **options)

    def without_key(self, method: str, url: str, **options: Any) -> requests.Response:
        """A request without the key."""
        return requests.request(method, url, timeout=5, **options)

    def post(self, path: str, body: object) -> Any:
        response = self.send("POST", path, json=body)
        assert response.status_code == 201, response.text
        return response.json()["data"]

    def get(self, path: str, **params: Any) -> Any:
        response = self.send("GET", path, params=params)
        assert response.status_code == 200, response.text
        return response.json()["data"]

    def job(self, url: str = "https://example.com/report.docx", **more: Any) -> Any:
        return self.post("/jobs", {"tasks": chain(url), **more})

    def status(self, path: str) -> str:
        status: str = self.get(path)["status"]
        return status

    def pass_time(self, seconds: float) -> None:
        self.emulator.clock.advance(seconds)


def chain(url: str = "https://example.com/report.docx", **options: Any) -> dict[str, dict[str, Any]]:
    """Import, conversion and export."""
    return {
        "in": {"operation": "import/url", "url": url},
        "work": {"operation": "convert", "input": "in", "output_format": "txt", **options},
        "out": {"operation": "export/url", "input": ["work"]},
    }


def named(job: Mapping[str, Any], name: str) -> Any:
    return next(task for task in job["tasks"] if task["name"] == name)


@pytest.fixture
def account() -> Iterator[Account]:
    shell = Emulator("cloudconvert", vendors={"cloudconvert": CloudConvertEmulator}, speed=0)
    with shell as emulator, requests.Session() as session:
        yield Account(emulator, session)


# Credentials.


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic abc"}])
@pytest.mark.parametrize("host", ["base_url", "sync_url"])
def test_a_wrong_key_is_refused_by_both_hosts(account: Account, host: str, headers: dict[str, str]) -> None:
    url = f"{account.emulator.settings()[host]}/tasks/{UNKNOWN_ID}"
    response = account.without_key("GET", url, headers=headers)
    assert response.status_code == 401
    assert response.json() == {"message": "Unauthenticated.", "code": "UNAUTHENTICATED"}


def test_operations_are_public(account: Account) -> None:
    response = account.without_key("GET", account.emulator.settings()["base_url"] + "/operations")
    assert response.status_code == 200
    assert {"convert", "import/url", "export/url"} <= {entry["operation"] for entry in response.json()["data"]}


def test_the_user_has_no_rate_limit_headers(account: Account) -> None:
    response = account.send("GET", "/users/me")
    user = response.json()["data"]
    assert set(user) == {
        "id", "username", "email", "created_at", "credits", "paying", "task_priority", "tasks_per_minute", "links",
    }  # fmt: skip
    assert isinstance(user["id"], int)
    assert "X-Ratelimit-Limit" not in response.headers


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/operations?filter[operation]=import/url", [("import/url", None)]),
        ("/operations?filter[operation]=convert&filter[output_format]=pdf", [("convert", "pdf")]),
        ("/operations?filter[engine]=imagemagick", [("convert", "png")]),
        ("/operations?filter[engine_version]=2.1", [("convert", "pdf")]),
        ("/operations?filter[operation]=none", []),
        ("/convert/formats", [("convert", "pdf"), ("convert", "png")]),
        ("/convert/formats?filter[input_format]=docx", [("convert", "pdf")]),
        ("/convert/formats?filter%5Binput_format%5D=docx&filter[output_format]=png", []),
    ],
)
def test_operations_and_formats_can_be_filtered(
    account: Account, path: str, names: list[tuple[str, str | None]]
) -> None:
    response = account.without_key("GET", account.emulator.settings()["base_url"] + path)
    assert response.status_code == 200
    assert [(entry["operation"], entry["output_format"]) for entry in response.json()["data"]] == names


def test_options_and_engine_versions_are_included_on_request(account: Account) -> None:
    path = "/convert/formats?filter[input_format]=docx"
    (plain,) = account.get(path)
    assert not {"options", "engine_versions"} & plain.keys()
    (full,) = account.get(f"{path}&include=options,engine_versions")
    assert full["engine_versions"] == [
        {"version": "2.1", "default": True, "latest": True, "deprecated": False, "experimental": False}
    ]
    assert [option["name"] for option in full["options"]] == ["input", "output_format"]


# Formats of the hosts.


def test_the_async_host_escapes_slashes_and_counts_requests(account: Account) -> None:
    job = account.job()
    response = account.send("GET", f"/jobs/{job['id']}")
    assert b'"import\\/url"' in response.content
    assert b'"import/url"' not in response.content
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "no-cache, private"
    assert response.headers["Server"] == "nginx"
    assert response.headers["X-Ratelimit-Limit"] == "500"
    assert response.headers["X-Ratelimit-Remaining"] == "498"


def test_the_rate_is_counted_by_the_vendors_minute(account: Account) -> None:
    def remaining() -> str:
        return account.send("GET", "/tasks").headers["X-Ratelimit-Remaining"]

    assert [remaining(), remaining()] == ["499", "498"]
    account.pass_time(60)
    assert remaining() == "499"


def test_a_429_comes_when_none_remain(account: Account) -> None:
    account.vendor.rate.limit = 2
    answers = [account.send("GET", "/tasks") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["1", "0", "0", "0"]
    assert answers[2].json()["code"] == "TOO_MANY_REQUESTS"
    assert account.send_sync("GET", f"/tasks/{account.emulator.samples()['completed']}").status_code == 200
    assert account.send("GET", "/users/me").status_code == 200
    account.pass_time(int(answers[2].headers["Retry-After"]) - 1.01)
    assert account.send("GET", "/tasks").status_code == 429
    account.pass_time(1.01)
    assert account.send("GET", "/tasks").status_code == 200


def test_retry_after_is_in_the_callers_seconds() -> None:
    with Emulator("cloudconvert", vendors={"cloudconvert": CloudConvertEmulator}, speed=20) as emulator:
        account = Account(emulator)
        account.vendor.rate.limit = 0
        assert 1 <= int(account.send("GET", "/tasks").headers["Retry-After"]) <= 3
        account.session.close()


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (400, "INVALID_DATA", "The given data was invalid."),
        (401, "UNAUTHENTICATED", "Unauthenticated."),
        (402, "CREDITS_EXCEEDED", "Your account has run out of conversion minutes"),
        (404, "NOT_FOUND", "Not Found"),
        (422, "INVALID_DATA", "The given data was invalid."),
        (429, "TOO_MANY_REQUESTS", "Too Many Requests"),
        (500, "INTERNAL_ERROR", "Server Error"),
    ],
)
def test_an_injected_error_has_the_vendors_body(account: Account, status: int, code: str, message: str) -> None:
    account.emulator.fail_next(status, times=2)
    answers = [account.send("POST", "/jobs", json={}), account.send_sync("GET", f"/jobs/{UNKNOWN_ID}")]
    for answer in answers:
        assert (answer.status_code, answer.json()) == (status, {"message": message, "code": code})
    assert ("X-Ratelimit-Limit" in answers[0].headers) == (status != 401)
    assert "X-Ratelimit-Limit" not in answers[1].headers


def test_an_injected_error_of_the_gateway_is_html(account: Account) -> None:
    account.emulator.fail_next("unavailable", retry_after=3)
    answer = account.send("GET", "/jobs")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "3")
    assert answer.headers["Content-Type"].startswith("text/html")


def test_an_injected_403_has_no_body_as_it_is_unknown(account: Account) -> None:
    account.emulator.fail_next(403)
    assert account.send("GET", "/jobs").content == b""


def test_an_injected_error_of_the_storage_is_xml(account: Account) -> None:
    form = account.post("/import/upload", {})["result"]["form"]
    for status, code in {403: "AccessDenied", 503: "SlowDown"}.items():
        account.emulator.fail_next(status, path_contains="storage")
        answer = account.without_key("POST", form["url"], data=form["parameters"], files={"file": b"x"})
        assert (answer.status_code, f"<Code>{code}</Code>" in answer.text) == (status, True)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/jobs", "GET, HEAD, POST"),
        ("POST", f"/tasks/{UNKNOWN_ID}", "DELETE, GET, HEAD"),
        ("GET", "/convert", "POST"),
        ("GET", f"/tasks/{UNKNOWN_ID}/cancel", "POST"),
    ],
)
def test_a_wrong_method_has_the_vendors_form(account: Account, method: str, path: str, allow: str) -> None:
    response = account.send(method, path)
    assert (response.status_code, response.headers["Allow"]) == (405, allow)
    assert set(response.json()) == {"message", "code"}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_path_has_the_vendors_form(account: Account, method: str) -> None:
    responses = [account.send(method, "/none"), account.send_sync(method, "/none")]
    assert [(response.status_code, response.json()["code"]) for response in responses] == [(404, "NOT_FOUND")] * 2
    url = account.emulator.base_url + "/cloudconvert-storage/none"
    assert "<Code>NoSuchKey</Code>" in account.without_key(method, url).text


def test_the_sync_host_has_plain_slashes_and_no_rate_limit_headers(account: Account) -> None:
    response = account.send_sync("GET", f"/tasks/{account.emulator.samples()['completed']}")
    assert b'"export/url"' in response.content
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    assert response.headers["ETag"].startswith('W/"')
    assert response.headers["Vary"] == "Accept-Encoding, Origin"
    assert "X-Ratelimit-Limit" not in response.headers


def test_deleting_returns_an_empty_204(account: Account) -> None:
    response = account.send("DELETE", f"/jobs/{account.job()['id']}")
    assert (response.status_code, response.content) == (204, b"")
    assert "Content-Type" not in response.headers
    assert "X-Ratelimit-Remaining" in response.headers


# The life of a job.


def test_a_new_job_waits_and_lists_its_export_first(account: Account) -> None:
    job = account.job(tag="order-7")
    assert UUID4.fullmatch(job["id"])
    assert (job["tag"], job["status"], job["started_at"], job["ended_at"]) == ("order-7", "waiting", None, None)
    assert TIME.fullmatch(job["created_at"])
    assert [task["name"] for task in job["tasks"]] == ["out", "work", "in"]
    assert set(job) == {"id", "tag", "status", "created_at", "started_at", "ended_at", "tasks", "links"}
    assert named(job, "work")["depends_on_task_ids"] == [named(job, "in")["id"]]


def test_a_job_moves_with_its_tasks(account: Account) -> None:
    path = f"/jobs/{account.job()['id']}"
    seen: list[tuple[str, ...]] = []
    for seconds in (0.25, 0.25, 2, 4, 0.25, 0.25):  # import; queue, work; export
        account.pass_time(seconds)
        job = account.get(path)
        seen.append((job["status"], *(named(job, name)["status"] for name in ("in", "work", "out"))))
    assert seen == [
        ("processing", "processing", "waiting", "waiting"),
        ("processing", "finished", "waiting", "waiting"),
        ("processing", "finished", "processing", "waiting"),
        ("processing", "finished", "finished", "waiting"),
        ("processing", "finished", "finished", "processing"),
        ("finished", "finished", "finished", "finished"),
    ]


def test_a_finished_job_has_times_credits_and_files(account: Account) -> None:
    job_id = account.job()["id"]
    account.pass_time(10)
    job = account.get(f"/jobs/{job_id}")
    work, out = named(job, "work"), named(job, "out")
    assert all(TIME.fullmatch(job[key]) for key in ("created_at", "started_at", "ended_at"))
    assert (work["credits"], out["credits"]) == (1, 0)
    assert (work["engine"], work["engine_version"]) == ("office", "2.1")
    assert "engine" not in out
    assert work["result"] == {"files": [{"filename": "report.txt", "size": 20}]}
    assert [sorted(file) for file in out["result"]["files"]] == [["filename", "size", "url"]]
    assert {task["percent"] for task in job["tasks"]} == {100}


def test_a_waiting_task_has_mostly_nulls(account: Account) -> None:
    task = named(account.job(), "work")
    empty = ("credits", "message", "code", "started_at", "ended_at", "result", "engine", "host_name", "storage")
    assert {key: task[key] for key in empty} == dict.fromkeys(empty)
    assert task["percent"] == 100
    assert "payload" not in task


def test_a_failed_task_fails_its_dependents(account: Account) -> None:
    job_id = account.job("https://example.com/fail.docx")["id"]
    account.pass_time(10)
    job = account.get(f"/jobs/{job_id}")
    work, out = named(job, "work"), named(job, "out")
    assert job["status"] == "error"
    assert (work["status"], work["code"], work["message"]) == ("error", None, "can't find PDF header")
    assert (out["status"], out["code"], out["message"]) == ("error", "INPUT_TASK_FAILED", "Input task has failed")
    assert (out["result"], out["credits"], out["host_name"]) == (None, 0, None)
    assert out["started_at"] == out["ended_at"] == work["ended_at"]


def test_code_and_message_of_a_failure_can_be_chosen(account: Account) -> None:
    account.vendor.store.failure = ("SANDBOX_FILE_NOT_ALLOWED", "The file X is not whitelisted for sandbox use")
    job = account.job("https://example.com/fail.docx")
    account.pass_time(10)
    task = account.get(f"/tasks/{named(job, 'work')['id']}")
    assert (task["code"], task["message"]) == account.vendor.store.failure


def test_an_ignored_error_does_not_fail_the_job(account: Account) -> None:
    tasks = chain("https://example.com/fail.docx", ignore_error=True)
    job = account.post("/jobs", {"tasks": tasks})
    account.pass_time(10)
    assert account.status(f"/jobs/{job['id']}") == "finished"
    assert account.status(f"/tasks/{named(job, 'work')['id']}") == "error"


def test_tasks_may_be_submitted_in_any_order(account: Account) -> None:
    tasks = dict(reversed(chain().items()))
    job = account.post("/jobs", {"tasks": tasks})
    account.pass_time(10)
    assert account.status(f"/jobs/{job['id']}") == "finished"


@pytest.mark.parametrize(
    ("document", "seconds", "status", "code"),
    [
        ("cancel.docx", 10, "error", "CANCELLED"),
        ("slow.docx", 10, "waiting", None),
        ("slow.docx", 61, "finished", None),
        ("instant.docx", 0.5, "finished", None),
        ("stuck.docx", 10_000_000, "processing", None),
        ("partial.docx", 10, "finished", None),
    ],
)
def test_the_name_of_a_document_is_its_plan(
    account: Account, document: str, seconds: float, status: str, code: str | None
) -> None:
    task_id = named(account.job(f"https://example.com/{document}"), "work")["id"]
    account.pass_time(seconds)
    task = account.get(f"/tasks/{task_id}")
    assert (task["status"], task["code"]) == (status, code)


def test_queued_plans_apply_to_processing_tasks(account: Account) -> None:
    account.emulator.plan_next("cloudconvert", Plan(0, 100), Plan(outcome="failed"))
    first, second = account.job(), account.job()
    account.pass_time(50)
    assert [account.status(f"/jobs/{job['id']}") for job in (first, second)] == ["processing", "error"]


def test_the_callers_timeout_ends_a_task(account: Account) -> None:
    job = account.post("/jobs", {"tasks": chain("https://example.com/stuck.docx", timeout=30)})
    account.pass_time(33)
    assert account.get(f"/tasks/{named(job, 'work')['id']}")["code"] == "CANCELLED"


def test_everything_expires_a_day_after_its_end(account: Account) -> None:
    job = account.job()
    paths = [f"/jobs/{job['id']}", f"/tasks/{named(job, 'work')['id']}"]
    account.pass_time(7 + DAY - 1)
    assert [account.send("GET", path).status_code for path in paths] == [200, 200]
    account.pass_time(2)
    assert [account.send("GET", path).status_code for path in paths] == [404, 404]
    assert job["id"] not in {other["id"] for other in account.get("/jobs")}


# Errors.


@pytest.mark.parametrize(
    ("tasks", "errors"),
    [
        (None, {"tasks": ["The tasks field is required."]}),
        ({}, {"tasks": ["The tasks field is required."]}),
        ([1], {"tasks": ["The tasks must be an array."]}),
        ({"a b": {"operation": "import/upload"}}, {"tasks": ["Task a b: The name format is invalid."]}),
        ({"a": {}}, {"operation": ["Task a: The operation field is required."]}),
        ({"a": 5}, {"operation": ["Task a: The operation field is required."]}),
        ({"a": {"operation": "sing"}}, {"operation": ["Task a: The selected operation is invalid."]}),
        ({"a": {"operation": "import/url"}}, {"url": ["Task a: The url field is required."]}),
        ({"a": {"operation": "import/url", "url": "ftp:x"}}, {"url": ["Task a: The url format is invalid."]}),
        ({"a": {"operation": "import/url", "url": "http://["}}, {"url": ["Task a: The url format is invalid."]}),
        (
            {"a": {"operation": "import/base64", "file": "abc", "filename": "x"}},
            {"file": ["Task a: The file format is invalid."]},
        ),
        (
            {"a": {"operation": "convert", "input": "b"}},
            {
                "output_format": ["Task a: The output format field is required."],
                "input": ["Task a: Invalid input task."],
            },
        ),
        (
            {"a": {"operation": "merge", "input": ["b"]}, "b": {"operation": "merge", "input": "a"}},
            {"input": ["Task a: Invalid input task.", "Task b: Invalid input task."]},
        ),
    ],
)
def test_an_invalid_job_is_refused_field_by_field(
    account: Account, tasks: object, errors: dict[str, list[str]]
) -> None:
    response = account.send("POST", "/jobs", json={"tasks": tasks})
    assert response.status_code == 422
    assert response.json() == {"message": "The given data was invalid.", "code": "INVALID_DATA", "errors": errors}


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[]", b'"tasks"'])
def test_a_body_that_is_not_an_object_has_no_tasks(account: Account, body: bytes) -> None:
    response = account.send("POST", "/jobs", data=body)
    assert (response.status_code, list(response.json()["errors"])) == (422, ["tasks"])


def test_an_invalid_webhook_url_is_refused(account: Account) -> None:
    response = account.send("POST", "/jobs", json={"tasks": chain(), "webhook_url": "nowhere"})
    assert (response.status_code, list(response.json()["errors"])) == (422, ["webhook_url"])


def test_a_webhook_url_is_kept_and_not_shown(account: Account) -> None:
    job = account.job(webhook_url="https://example.com/hook")
    assert account.vendor.store.jobs[job["id"]].webhook_url == "https://example.com/hook"
    assert "webhook_url" not in job


@pytest.mark.parametrize("path", ["/jobs", "/convert"])
def test_an_unknown_conversion_has_its_own_code(account: Account, path: str) -> None:
    task = {"operation": "convert", "input": account.emulator.samples()["completed"], "output_format": "no-such"}
    response = account.send("POST", path, json={"tasks": {"a": task}} if path == "/jobs" else task)
    assert response.status_code == 422
    assert response.json() == {
        "message": "This conversion type is not supported",
        "code": "INVALID_CONVERSION_TYPE",
    }


@pytest.mark.parametrize("name", ["woff2", "htmlz", "xhtml", "numbers", "tar.bz2", "7z"])
def test_long_names_of_formats_are_accepted(account: Account, name: str) -> None:
    source = account.emulator.samples()["completed"]
    assert account.post("/convert", {"input": source, "output_format": name})["status"] == "waiting"


def test_the_sandbox_accepts_only_listed_files(account: Account) -> None:
    account.vendor.use_sandbox(hashlib.md5(b"allowed", usedforsecurity=False).hexdigest())
    imports = {
        name: {"operation": "import/raw", "file": name, "filename": f"{name}.txt"} for name in ("allowed", "other")
    }
    tasks = {**imports, "work": {"operation": "convert", "input": "other", "output_format": "pdf"}}
    job_id = account.post("/jobs", {"tasks": tasks})["id"]
    account.pass_time(10)
    job = account.get(f"/jobs/{job_id}")
    refused = named(job, "other")
    assert (job["status"], named(job, "allowed")["status"], refused["status"]) == ("error", "finished", "error")
    assert (refused["code"], named(job, "work")["code"]) == ("SANDBOX_FILE_NOT_ALLOWED", "INPUT_TASK_FAILED")
    assert refused["message"] == "The file other.txt is not whitelisted for sandbox use"
    md5 = hashlib.md5(b"other", usedforsecurity=False).hexdigest()
    assert refused["result"] == {"files": [{"filename": "other.txt", "md5": md5}]}


def test_the_sandbox_refuses_an_upload_once_it_has_arrived(account: Account) -> None:
    account.vendor.use_sandbox()
    task = account.post("/import/upload", {})
    assert account.status(f"/tasks/{task['id']}") == "waiting"
    assert upload(account, task).status_code == 201
    assert account.get(f"/tasks/{task['id']}")["code"] == "SANDBOX_FILE_NOT_ALLOWED"


def test_a_job_of_a_hundred_tasks_gets_a_500_and_runs(account: Account) -> None:
    tasks = {f"t{number}": {"operation": "import/upload"} for number in range(100)}
    response = account.send("POST", "/jobs", json={"tasks": tasks, "tag": "crowd"})
    assert response.status_code == 500
    assert [job["status"] for job in account.get("/jobs", **{"filter[tag]": "crowd"})] == ["waiting"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/tasks/{}"),
        ("DELETE", "/tasks/{}"),
        ("POST", "/tasks/{}/cancel"),
        ("POST", "/tasks/{}/retry"),
        ("GET", "/jobs/{}"),
        ("DELETE", "/jobs/{}"),
        ("DELETE", "/webhooks/{}"),
        ("GET", "/tasks/{}/wait"),
        ("POST", "/sing"),
    ],
)
def test_an_unknown_id_is_not_found(account: Account, method: str, path: str) -> None:
    response = account.send(method, path.format(UNKNOWN_ID))
    assert response.status_code == 404
    assert set(response.json()) == {"message", "code"}


@pytest.mark.parametrize("host", [Account.send, Account.send_sync])
@pytest.mark.parametrize("kind", ["tasks", "jobs"])
def test_a_malformed_id_is_a_server_error(account: Account, kind: str, host: Any) -> None:
    response = host(account, "GET", f"/{kind}/x441E6HMhG")
    assert response.status_code == 500
    assert response.json() == {"message": "Server Error", "code": "INTERNAL_ERROR"}


def test_a_job_is_not_a_task(account: Account) -> None:
    assert account.send("GET", f"/tasks/{account.job()['id']}").status_code == 404


# Tasks without a job.


def test_tasks_can_be_chained_by_their_ids(account: Account) -> None:
    first = account.post("/import/url", {"url": "https://example.com/a.docx"})
    second = account.post("/convert", {"input": first["id"], "output_format": "pdf"})
    third = account.post("/export/url", {"input": [second["id"]]})
    assert first["job_id"] is None
    assert "name" not in first
    account.pass_time(10)
    assert account.get(f"/tasks/{third['id']}")["result"]["files"][0]["filename"] == "a.pdf"


@pytest.mark.parametrize(
    ("operation", "options", "filename"),
    [
        ("optimize", {}, "a.docx"),
        ("thumbnail", {"output_format": "jpg"}, "a.jpg"),
        ("convert", {"output_format": "pdf", "filename": "b.pdf"}, "b.pdf"),
        ("merge", {"output_format": "pdf"}, "merged.pdf"),
        ("archive", {"output_format": "zip"}, "archive.zip"),
        ("watermark", {"text": "draft"}, "a.docx"),
        ("pdf/ocr", {}, "a.docx"),
        ("export/s3", {"bucket": "b"}, "a.docx"),
        ("capture-website", {"url": "https://example.com/x", "output_format": "png"}, "example.com.png"),
        ("import/s3", {"bucket": "b", "key": "folder/c.pdf"}, "c.pdf"),
        ("import/base64", {"file": "aGk=", "filename": "d.txt"}, "d.txt"),
        ("import/raw", {"file": "hi", "filename": "e.txt"}, "e.txt"),
    ],
)
def test_each_operation_makes_a_file(account: Account, operation: str, options: dict[str, Any], filename: str) -> None:
    source = account.post("/import/url", {"url": "https://example.com/a.docx"})
    takes_input = not operation.startswith(("import/", "capture"))
    task = account.post(f"/{operation}", {**({"input": source["id"]} if takes_input else {}), **options})
    account.pass_time(10)
    shown = account.get(f"/tasks/{task['id']}")
    assert shown["status"] == "finished"
    assert [file["filename"] for file in shown["result"]["files"]] == [filename]
    assert "url" not in shown["result"]["files"][0]


def test_metadata_is_an_object_beside_the_files(account: Account) -> None:
    task = account.post("/metadata", {"input": account.emulator.samples()["completed"]})
    account.pass_time(10)
    result = account.get(f"/tasks/{task['id']}")["result"]
    assert sorted(result) == ["files", "metadata"]
    assert isinstance(result["metadata"], dict)


# Show and lists.


def test_payload_dependencies_retries_and_job_are_included_on_request(account: Account) -> None:
    job = account.job()
    task_id = named(job, "work")["id"]
    again = account.post(f"/tasks/{task_id}/retry", {})
    shown = account.get(f"/tasks/{task_id}", include="payload,depends_on_tasks,retries,job")
    assert shown["payload"] == {"input": "in", "output_format": "txt"}
    assert shown["depends_on_tasks"] == {"in": named(job, "in")["id"]}
    assert shown["retries"] == [again["id"]]
    assert (shown["job"]["id"], "tasks" in shown["job"]) == (job["id"], False)
    assert not {"payload", "depends_on_tasks", "retries", "job"} & set(account.get(f"/tasks/{task_id}"))


def test_lists_are_filtered_by_bracketed_keys(account: Account) -> None:
    job = account.job(tag="mine")
    inside = account.get("/tasks", **{"filter[job_id]": job["id"]})
    assert {task["id"] for task in inside} == {task["id"] for task in job["tasks"]}
    errors = account.get("/tasks", **{"filter[status]": "error", "filter[operation]": "convert"})
    samples = account.emulator.samples()
    assert {task["id"] for task in errors} == {samples["failed"], samples["cancelled"]}
    assert [other["id"] for other in account.get("/jobs", **{"filter[tag]": "mine"})] == [job["id"]]
    failed = account.get("/jobs", **{"filter[status]": "error"})
    assert f"job/{failed[-1]['id']}" == samples["job-failed"]
    assert len(account.get("/tasks", status="error")) == len(account.get("/tasks"))


def test_listed_jobs_include_tasks_only_on_request(account: Account) -> None:
    assert not any("tasks" in job for job in account.get("/jobs"))
    assert all(job["tasks"] for job in account.get("/jobs", include="tasks"))


def test_pages_have_no_total_and_no_last(account: Account) -> None:
    for number in range(3):
        account.job(tag=f"n{number}")
    path = account.emulator.settings()["base_url"] + "/jobs"
    first = account.send("GET", "/jobs", params={"per_page": 2}).json()
    assert [job["tag"] for job in first["data"]] == ["n2", "n1"]
    links = {"first": f"{path}?per_page=2&page=1", "last": None, "prev": None, "next": f"{path}?per_page=2&page=2"}
    assert first["links"] == links
    assert first["meta"] == {"current_page": 1, "from": 1, "path": path, "per_page": 2, "to": 2}
    last = account.send("GET", "/jobs", params={"per_page": 2, "page": 4}).json()
    assert last["links"]["next"] is None
    assert last["links"]["prev"] == f"{path}?per_page=2&page=3"
    assert (last["meta"]["from"], last["meta"]["to"]) == (7, 8)


def test_links_keep_the_filters(account: Account) -> None:
    for _ in range(3):
        account.job(tag="a b")
    account.job(tag="other")
    page = account.send("GET", "/jobs", params={"filter[tag]": "a b", "per_page": 2}).json()
    page = account.session.get(page["links"]["next"], timeout=5).json()
    assert [job["tag"] for job in page["data"]] == ["a b"]
    assert page["links"]["next"] is None
    path = account.emulator.settings()["base_url"] + "/tasks"
    assert account.send("GET", "/tasks").json()["links"]["first"] == f"{path}?page=1"  # as in the documented example


def test_an_empty_page_has_no_bounds(account: Account) -> None:
    response = account.send("GET", "/tasks", params={"page": 99}).json()
    assert response["data"] == []
    assert (response["meta"]["from"], response["meta"]["to"], response["meta"]["per_page"]) == (None, None, 100)


# Cancel, retry, delete.


def test_a_cancelled_task_is_an_error_with_a_code(account: Account) -> None:
    job = account.job()
    work = named(job, "work")
    account.pass_time(3)
    response = account.send("POST", f"/tasks/{work['id']}/cancel", json={})
    assert response.status_code == 200
    task = response.json()["data"]
    assert (task["id"], task["status"], task["code"], task["result"]) == (work["id"], "error", "CANCELLED", None)
    assert task["started_at"] is not None
    after = account.get(f"/jobs/{job['id']}")
    assert after["status"] == "error"
    assert named(after, "out")["code"] == "INPUT_TASK_FAILED"
    assert named(after, "in")["status"] == "finished"


def test_a_task_cancelled_while_waiting_never_started(account: Account) -> None:
    task_id = named(account.job(), "work")["id"]
    task = account.send("POST", f"/tasks/{task_id}/cancel").json()["data"]
    assert (task["started_at"], task["engine"]) == (None, None)
    assert task["ended_at"] is not None


def test_an_ended_task_cannot_be_cancelled(account: Account) -> None:
    response = account.send("POST", f"/tasks/{account.emulator.samples()['completed']}/cancel", json={})
    assert response.status_code == 422
    assert response.json() == {
        "message": "The given data was invalid.",
        "code": "INVALID_DATA",
        "errors": {"status": ["Cannot change status: task already completed."]},
    }


def test_a_retry_is_a_new_task_outside_the_job(account: Account) -> None:
    job = account.job("https://example.com/fail.docx")
    account.pass_time(10)
    old = named(job, "work")["id"]
    account.emulator.plan_next("cloudconvert", Plan(1, 1))
    response = account.send("POST", f"/tasks/{old}/retry", json={})
    new = response.json()["data"]
    assert (response.status_code, new["status"], new["job_id"]) == (201, "waiting", None)
    assert new["retry_of_task_id"] == new["copy_of_task_id"] == old != new["id"]
    account.pass_time(2)
    assert account.status(f"/tasks/{new['id']}") == "finished"
    assert account.status(f"/tasks/{old}") == "error"
    assert account.status(f"/jobs/{job['id']}") == "error"


def test_deleting_a_job_deletes_its_tasks(account: Account) -> None:
    job = account.job()
    assert account.send("DELETE", f"/jobs/{job['id']}").status_code == 204
    deleted = [f"/jobs/{job['id']}", *(f"/tasks/{task['id']}" for task in job["tasks"])]
    assert {account.send("GET", path).status_code for path in deleted} == {404}
    assert account.send("DELETE", f"/jobs/{job['id']}").status_code == 404


def test_a_deleted_task_leaves_its_job(account: Account) -> None:
    job = account.job()
    account.pass_time(10)
    assert account.send("DELETE", f"/tasks/{named(job, 'in')['id']}").status_code == 204
    after = account.get(f"/jobs/{job['id']}")
    assert (after["status"], [task["name"] for task in after["tasks"]]) == ("finished", ["out", "work"])


# Waiting on the sync host.


def test_the_sync_host_responds_when_the_job_has_ended(account: Account) -> None:
    job_id = account.job()["id"]
    timer = threading.Timer(0.02, account.pass_time, [10])
    timer.start()
    job = account.send_sync("GET", f"/jobs/{job_id}").json()["data"]
    timer.join()
    assert (job["id"], job["status"]) == (job_id, "finished")


def test_a_failed_task_ends_the_wait_too(account: Account) -> None:
    task = account.send_sync("GET", f"/tasks/{account.emulator.samples()['failed']}").json()["data"]
    assert task["status"] == "error"


def test_the_sync_host_times_out_with_html(account: Account) -> None:
    account.vendor.long_poll_seconds = 0.01
    response = account.send_sync("GET", f"/tasks/{account.emulator.samples()['processing']}")
    assert response.status_code == 504
    assert response.headers["Content-Type"].startswith("text/html")


def test_a_task_deleted_while_it_is_waited_for_is_not_found(account: Account) -> None:
    job_id = account.job()["id"]
    timer = threading.Timer(
        0.02, account.without_key, ["DELETE", f"{account.emulator.settings()['base_url']}/jobs/{job_id}"]
    )
    timer.kwargs = {"headers": {"Authorization": account.session.headers["Authorization"]}}
    timer.start()
    assert account.send_sync("GET", f"/jobs/{job_id}").status_code == 404
    timer.join()


def test_shutdown_does_not_wait_for_long_polls() -> None:
    with Emulator(vendors={"cloudconvert": CloudConvertEmulator}, speed=0) as emulator:
        account = Account(emulator)
        path = f"/tasks/{emulator.samples()['processing']}"
        caught: list[type[BaseException]] = []

        def wait() -> None:
            try:
                account.send_sync("GET", path)
            except requests.ConnectionError as error:
                caught.append(type(error))

        waiter = threading.Thread(target=wait)
        waiter.start()
        waiter.join(0.05)
    waiter.join(5)
    account.session.close()
    assert caught == [requests.ConnectionError]


def test_a_job_can_be_created_and_waited_for_at_once(account: Account) -> None:
    account.emulator.plan_next("cloudconvert", Plan(0, 0))
    timer = threading.Timer(0.02, account.pass_time, [1])
    timer.start()
    response = account.send_sync("POST", "/jobs", json={"tasks": chain()})
    timer.join()
    assert (response.status_code, response.json()["data"]["status"]) == (201, "finished")


def test_redirect_leads_to_the_file(account: Account) -> None:
    path = f"/{account.emulator.samples()['job'].replace('job/', 'jobs/')}"
    for response in (
        account.send("GET", path, params={"redirect": "true"}),
        account.send_sync("GET", path, params={"redirect": "true"}),
    ):
        assert response.status_code == 302
        assert account.without_key("GET", response.headers["Location"]).content.startswith(b"Emulated contents")


@pytest.mark.parametrize("host", ["base_url", "sync_url"])
def test_a_client_that_follows_a_redirect_does_not_send_the_key_along(account: Account, host: str) -> None:
    path = account.emulator.samples()["job"].replace("job/", "jobs/")
    url = f"{account.emulator.settings()[host]}/{path}?redirect=true"
    response = account.session.get(url, timeout=5)
    assert (response.status_code, response.content[:17]) == (200, b"Emulated contents")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_follows_a_redirect(account: Account) -> None:
    path = account.emulator.samples()["job"].replace("job/", "jobs/")
    url = f"{account.emulator.settings()['base_url']}/{path}?redirect=true"
    key = f"Authorization: {account.session.headers['Authorization']!s}"
    done = subprocess.run(["curl", "-sSfL", "-H", key, url], capture_output=True, check=True, timeout=20)
    assert done.stdout.startswith(b"Emulated contents")


def test_redirect_on_creation_needs_an_export(account: Account) -> None:
    tasks = {"in": {"operation": "import/url", "url": "https://example.com/a"}}
    response = account.send_sync("POST", "/jobs", json={"tasks": tasks, "redirect": True})
    assert (response.status_code, list(response.json()["errors"])) == (422, ["redirect"])


def test_redirect_on_creation_leads_to_the_file(account: Account) -> None:
    timer = threading.Timer(0.02, account.pass_time, [10])
    timer.start()
    response = account.send_sync("POST", "/jobs", json={"tasks": chain(), "redirect": True})
    timer.join()
    assert response.status_code == 302
    assert account.without_key("GET", response.headers["Location"]).text == "Text of report.docx\n"


# Upload.


def upload(account: Account, task: Mapping[str, Any], name: str = "scan.pdf", **change: Any) -> requests.Response:
    form = task["result"]["form"]
    fields = {**form["parameters"], **change}
    return account.without_key("POST", form["url"], data=fields, files={"file": (name, b"\r\n%PDF\r\n--")})


def test_an_upload_task_waits_with_a_form(account: Account) -> None:
    task = account.post("/import/upload", {})
    assert (task["status"], task["message"], task["percent"]) == ("waiting", "Waiting for file upload", 100)
    fields = task["result"]["form"]["parameters"]
    assert list(fields) == [
        "acl", "key", "success_action_status", "X-Amz-Credential", "X-Amz-Algorithm", "X-Amz-Date", "Policy",
        "X-Amz-Signature",
    ]  # fmt: skip
    assert fields["key"] == task["id"] + "/${filename}"
    assert fields["success_action_status"] == "201"
    expiry = json.loads(base64.b64decode(fields["Policy"]))["expiration"]
    lifetime = datetime.fromisoformat(expiry) - datetime.fromisoformat(task["created_at"])
    assert lifetime.total_seconds() == 6 * 3600
    account.pass_time(1000)
    assert account.status(f"/tasks/{task['id']}") == "waiting"


def test_an_upload_starts_the_task(account: Account) -> None:
    tasks = chain()
    tasks["in"] = {"operation": "import/upload"}
    job = account.post("/jobs", {"tasks": tasks})
    account.pass_time(5)
    response = upload(account, named(job, "in"))
    assert response.status_code == 201
    assert response.headers["Content-Type"] == "application/xml"
    assert response.headers["Location"].endswith(f"/{named(job, 'in')['id']}/scan.pdf")
    assert "<PostResponse>" in response.text
    done = account.get(f"/tasks/{named(job, 'in')['id']}")
    assert (done["status"], done["result"]) == ("finished", {"files": [{"filename": "scan.pdf", "size": 10}]})
    assert done["started_at"] == done["ended_at"]
    account.pass_time(10)
    assert account.status(f"/jobs/{job['id']}") == "finished"


def test_the_name_of_an_upload_is_a_plan_too(account: Account) -> None:
    tasks = chain()
    tasks["in"] = {"operation": "import/upload"}
    job = account.post("/jobs", {"tasks": tasks})
    upload(account, named(job, "in"), "fail.pdf")
    account.pass_time(10)
    assert account.status(f"/jobs/{job['id']}") == "error"


@pytest.mark.parametrize("change", [{"X-Amz-Signature": "0"}, {"key": "other/${filename}"}, {"more": "1"}])
def test_a_changed_form_is_refused(account: Account, change: dict[str, str]) -> None:
    response = upload(account, account.post("/import/upload", {}), **change)
    assert response.status_code == 403
    assert "<Code>AccessDenied</Code>" in response.text


def test_a_form_expires(account: Account) -> None:
    task = account.post("/import/upload", {})
    account.pass_time(6 * 3600)
    assert upload(account, task).status_code == 403
    assert account.status(f"/tasks/{task['id']}") == "waiting"


def test_an_upload_with_the_api_key_is_refused(account: Account) -> None:
    form = account.post("/import/upload", {})["result"]["form"]
    response = account.session.post(form["url"], data=form["parameters"], files={"file": b"x"}, timeout=5)
    assert response.status_code == 400


@pytest.mark.parametrize("body", [b"", b"nonsense", b"--b\r\nno-name: 1\r\n\r\nx\r\n--b--\r\n"])
def test_a_broken_form_is_refused(account: Account, body: bytes) -> None:
    form = account.post("/import/upload", {})["result"]["form"]
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    assert account.without_key("POST", form["url"], data=body, headers=headers).status_code == 400


def test_the_file_has_to_be_last(account: Account) -> None:
    form = account.post("/import/upload", {})["result"]["form"]
    files = [("file", ("a.pdf", b"x")), *((name, (None, value)) for name, value in form["parameters"].items())]
    assert account.without_key("POST", form["url"], files=files).status_code == 400


def test_a_cancelled_upload_can_be_retried(account: Account) -> None:
    task = account.post("/import/upload", {})
    assert account.send("POST", f"/tasks/{task['id']}/cancel", json={}).json()["data"]["code"] == "CANCELLED"
    assert upload(account, task).status_code == 201  # the storage does not know that
    assert account.get(f"/tasks/{task['id']}")["code"] == "CANCELLED"
    again = account.post(f"/tasks/{task['id']}/retry", {})
    assert upload(account, again).status_code == 201
    assert account.status(f"/tasks/{again['id']}") == "finished"


# Download.


def exported(account: Account, **options: Any) -> Any:
    """The first file of the finished sample, exported once more."""
    task = account.post("/export/url", {"input": account.emulator.samples()["completed"], **options})
    account.pass_time(1)
    return account.get(f"/tasks/{task['id']}")["result"]["files"][0]


def test_an_export_can_be_downloaded_by_its_link(account: Account) -> None:
    file = exported(account)
    response = account.without_key("GET", file["url"])
    assert response.status_code == 200
    assert len(response.content) == file["size"]
    assert response.headers["Content-Type"] == "application/pdf"
    assert response.headers["Content-Disposition"] == 'attachment; filename="finished-report.pdf"'
    assert response.headers["Accept-Ranges"] == "bytes"
    assert "Last-Modified" in response.headers


def test_a_download_can_be_resumed(account: Account) -> None:
    url = exported(account)["url"]
    whole = account.without_key("GET", url).content
    rest = account.without_key("GET", url, headers={"Range": "bytes=5-"})
    assert (rest.status_code, rest.content) == (206, whole[5:])
    assert rest.headers["Content-Range"] == f"bytes 5-{len(whole) - 1}/{len(whole)}"
    assert account.without_key("GET", url, headers={"Range": "bytes=2-3"}).content == whole[2:4]
    assert account.without_key("GET", url, headers={"Range": "bytes=9999-"}).status_code == 416


def test_inline_is_the_callers_choice(account: Account) -> None:
    response = account.without_key("GET", exported(account, inline=True)["url"])
    assert response.headers["Content-Disposition"].startswith("inline;")


def test_a_link_with_the_api_key_is_refused(account: Account) -> None:
    assert account.session.get(exported(account)["url"], timeout=5).status_code == 400


def test_a_changed_link_is_refused(account: Account) -> None:
    url = exported(account)["url"]
    assert account.without_key("GET", url.replace("Expires=", "Expires=9")).status_code == 403
    assert account.without_key("GET", url.partition("?")[0]).status_code == 403


def test_a_link_expires_after_a_day_and_with_its_task(account: Account) -> None:
    url = exported(account)["url"]
    task_id = account.post("/export/url", {"input": account.emulator.samples()["completed"]})["id"]
    account.pass_time(1)
    other = account.get(f"/tasks/{task_id}")["result"]["files"][0]["url"]
    assert account.send("DELETE", f"/tasks/{task_id}").status_code == 204
    assert account.without_key("GET", other).status_code == 404
    account.pass_time(DAY)
    assert account.without_key("GET", url).status_code == 403


def test_several_files_can_be_exported_as_one(account: Account) -> None:
    ids = [account.post("/import/raw", {"file": text, "filename": f"{text}.txt"})["id"] for text in ("one", "two")]
    task = account.post("/export/url", {"input": ids, "archive_multiple_files": True})
    account.pass_time(2)
    (file,) = account.get(f"/tasks/{task['id']}")["result"]["files"]
    with zipfile.ZipFile(io.BytesIO(account.without_key("GET", file["url"]).content)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {"one.txt": b"one", "two.txt": b"two"}


def test_odd_file_names_survive(account: Account) -> None:
    name = 'übung "1"/ä?.txt'
    source = account.post("/import/raw", {"file": "hi", "filename": name})
    task = account.post("/export/url", {"input": source["id"]})
    account.pass_time(2)
    (file,) = account.get(f"/tasks/{task['id']}")["result"]["files"]
    assert file["filename"] == name
    assert account.without_key("GET", file["url"]).content == b"hi"


# Webhooks.


def test_webhooks_are_stored_listed_and_deleted(account: Account) -> None:
    hook = account.post("/webhooks", {"url": "https://example.com/h", "events": ["job.finished"]})
    assert set(hook) == {
        "id", "url", "disabled", "failing", "events", "signing_secret", "created_at", "updated_at", "links",
    }  # fmt: skip
    account.post("/webhooks", {"url": "https://example.com/i", "events": ["job.failed"]})
    assert [other["id"] for other in account.get("/users/me/webhooks", **{"filter[url]": hook["url"]})] == [hook["id"]]
    assert account.send("DELETE", f"/webhooks/{hook['id']}").status_code == 204
    assert [other["url"] for other in account.get("/users/me/webhooks")] == ["https://example.com/i"]


def test_a_webhook_needs_a_url_and_events(account: Account) -> None:
    response = account.send("POST", "/webhooks", json={})
    assert (response.status_code, sorted(response.json()["errors"])) == (422, ["events", "url"])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"url": "nowhere"}, "url"),
        ({"url": "ftp://example.com/h"}, "url"),
        ({"url": 7}, "url"),
        ({"events": "job.finished"}, "events"),
        ({"events": {"job.finished": True}}, "events"),
        ({"events": ["job.finished", "task.finished"]}, "events.1"),
        ({"events": [["job.finished"]]}, "events.0"),
    ],
)
def test_an_invalid_webhook_is_refused(account: Account, change: dict[str, Any], field: str) -> None:
    body = {"url": "https://example.com/h", "events": ["job.finished"], **change}
    response = account.send("POST", "/webhooks", json=body)
    assert (response.status_code, response.json()["code"]) == (422, "INVALID_DATA")
    assert list(response.json()["errors"]) == [field]
    assert account.get("/users/me/webhooks") == []


# Samples.


def test_samples_have_the_states_of_their_labels(account: Account) -> None:
    samples = account.emulator.samples()
    shown = {
        label: account.get("/jobs/" + shared.removeprefix("job/") if "/" in shared else f"/tasks/{shared}")
        for label, shared in samples.items()
    }
    assert {label: entry["status"] for label, entry in shown.items()} == {
        "completed": "finished",
        "failed": "error",
        "cancelled": "error",
        "processing": "processing",
        "job": "finished",
        "job-failed": "error",
        "job-running": "waiting",
        "waiting-upload": "waiting",
        "metadata": "finished",
    }
    assert shown["cancelled"]["code"] == "CANCELLED"
    assert len(shown["job-running"]["tasks"]) == 3
    account.pass_time(10)
    assert account.status("/jobs/" + samples["job-running"].removeprefix("job/")) == "finished"


def test_the_same_seed_gives_the_same_ids() -> None:
    vendors = {"cloudconvert": CloudConvertEmulator}
    with Emulator(vendors=vendors, seed=3) as one, Emulator(vendors=vendors, seed=3) as same:
        assert one.samples() == same.samples()
        assert one.settings()["api_key"] == same.settings()["api_key"]
