from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from taskbridge.errors import (
    ApiError,
    AuthenticationError,
    ContractError,
    InvalidRequest,
    InvalidTaskId,
    MalformedResponse,
    PermissionDenied,
    QuotaExceeded,
    RateLimited,
    ServerError,
    TaskNotFound,
    UnexpectedRedirect,
)
from taskbridge.models import Reason, TaskStatus
from taskbridge.provider.capabilities import Credential
from taskbridge.provider.http import Request, Response
from taskbridge_cloudconvert import CloudConvert, CloudConvertSettings

Drive = Callable[..., tuple[Any, list[Request]]]
Respond = Callable[..., Response]

TASK = "c85f3ca9-164c-4e89-8ae2-c08192a7cb08"
JOB = "73df1e16-fd8b-47a1-a156-f197babde91a"


def provider(**settings: Any) -> CloudConvert:
    return CloudConvert(CloudConvertSettings.model_validate({"api_key": "canary-key", **settings}), "invoices")


def vendor_body(**fields: Any) -> dict[str, Any]:
    return {"data": {"id": TASK, "status": "waiting", "operation": "convert", **fields}}


def test_get_requests_a_task(drive: Drive, respond: Respond) -> None:
    task, (request,) = drive(provider().get(TASK), respond(200, vendor_body()))
    assert (request.method, request.url) == ("GET", f"https://api.cloudconvert.com/v2/tasks/{TASK}")
    assert request.headers == {"Accept": "application/json"}
    assert request.body is None
    assert request.authorized
    assert request.long_poll is None
    assert task.ref == f"invoices:{TASK}"


def test_get_requests_a_job(drive: Drive, respond: Respond) -> None:
    job, (request,) = drive(provider().get(f"job/{JOB}"), respond(200, {"data": {"id": JOB, "status": "waiting"}}))
    assert request.url == f"https://api.cloudconvert.com/v2/jobs/{JOB}"
    assert (job.id, job.native_id) == (f"job/{JOB}", JOB)


@pytest.mark.parametrize(("task_id", "path"), [(TASK, f"/tasks/{TASK}"), (f"job/{JOB}", f"/jobs/{JOB}")])
def test_a_long_poll_uses_the_sync_host(drive: Drive, respond: Respond, task_id: str, path: str) -> None:
    flow = provider().long_poll(task_id)
    assert flow is not None
    native = task_id.rpartition("/")[2]
    task, (request,) = drive(flow, respond(200, {"data": {"id": native, "status": "finished"}}))
    assert request.url == f"https://sync.api.cloudconvert.com/v2{path}"
    assert request.long_poll == 60.0
    assert task.status is TaskStatus.COMPLETED


@pytest.mark.parametrize(
    ("settings", "now", "end"),
    [
        ({}, "https://api.cloudconvert.com/v2", "https://sync.api.cloudconvert.com/v2"),
        (
            {"sandbox": True},
            "https://api.sandbox.cloudconvert.com/v2",
            "https://sync.api.sandbox.cloudconvert.com/v2",
        ),
        (
            {"region": "eu-central"},
            "https://eu-central.api.cloudconvert.com/v2",
            "https://eu-central.sync.api.cloudconvert.com/v2",
        ),
        (
            {"region": "us-east"},
            "https://us-east.api.cloudconvert.com/v2",
            "https://us-east.sync.api.cloudconvert.com/v2",
        ),
        (
            {"sandbox": True, "region": "us-east"},  # the vendor's clients ignore the region there
            "https://api.sandbox.cloudconvert.com/v2",
            "https://sync.api.sandbox.cloudconvert.com/v2",
        ),
        ({"base_url": "https://other.test/v2/"}, "https://other.test/v2", None),
        (
            {"base_url": "https://other.test/v2", "sync_url": "https://sync.other.test/v2/"},
            "https://other.test/v2",
            "https://sync.other.test/v2",
        ),
        ({"sync_url": "https://sync.other.test/v2"}, "https://api.cloudconvert.com/v2", "https://sync.other.test/v2"),
    ],
)
def test_the_settings_choose_the_hosts(settings: dict[str, Any], now: str, end: str | None) -> None:
    cloudconvert = provider(**settings)
    assert next(cloudconvert.get(TASK)).url == f"{now}/tasks/{TASK}"
    flow = cloudconvert.long_poll(TASK)
    assert (flow and next(flow).url) == (end and f"{end}/tasks/{TASK}")


@pytest.mark.parametrize("other", [{"sandbox": True}, {"region": "us-east"}])
def test_base_url_contradicts_sandbox_and_region(other: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="base_url contradicts sandbox and region"):
        provider(base_url="https://other.test/v2", **other)


def test_authorize_sends_no_request(drive: Drive) -> None:
    credential, requests = drive(provider().authorize())
    assert credential == Credential({"Authorization": "Bearer canary-key"})
    assert requests == []


def test_repr_hides_the_key() -> None:
    cloudconvert = provider()
    assert "canary-key" not in repr(cloudconvert.settings) + repr(next(cloudconvert.get(TASK)))


# Errors: https://cloudconvert.com/docs/api-reference (read 2026-11-22), bodies as in the official clients' fixtures.
@pytest.mark.parametrize(
    ("status", "code", "expected", "retryable"),
    [
        (400, "INVALID_DATA", InvalidRequest, False),
        (401, "UNAUTHENTICATED", AuthenticationError, False),
        (402, "CREDITS_EXCEEDED", QuotaExceeded, False),
        (402, None, RateLimited, True),
        (402, "SOMETHING_ELSE", RateLimited, True),
        (403, None, PermissionDenied, False),
        (404, None, TaskNotFound, False),
        (405, None, InvalidRequest, False),
        (406, None, ApiError, False),
        (409, None, InvalidRequest, False),
        (410, None, TaskNotFound, False),
        (413, None, InvalidRequest, False),
        (422, "INVALID_DATA", InvalidRequest, False),
        (422, "INVALID_CONVERSION_TYPE", InvalidRequest, False),
        (429, "TOO_MANY_REQUESTS", RateLimited, True),
        (500, "INTERNAL_ERROR", ServerError, True),
        (502, None, ServerError, True),
        (503, None, ServerError, True),
        (504, None, ServerError, True),
    ],
)
def test_an_error_is_mapped_by_code_then_status(
    drive: Drive, respond: Respond, *, status: int, code: str | None, expected: type[ApiError], retryable: bool
) -> None:
    body = {"message": "The vendor's words.", **({"code": code} if code else {})}
    with pytest.raises(ApiError) as caught:
        drive(provider().get(TASK), respond(status, body))
    error = caught.value
    assert type(error) is expected
    assert (error.http_status, error.vendor_code, error.retryable) == (status, code, retryable)
    assert error.message.startswith("The vendor's words")
    assert error.raw == body


def test_an_error_may_be_a_web_page(drive: Drive, respond: Respond) -> None:
    with pytest.raises(ServerError, match="the vendor's server failed") as caught:
        drive(provider().get(TASK), respond(502, b"<html>Bad Gateway</html>"))
    assert caught.value.raw == "<html>Bad Gateway</html>"


@pytest.mark.parametrize(
    ("task_id", "hint"),
    [
        (TASK, f"if it is the id of a job, use job/{TASK}"),
        (f"job/{TASK}", f"if it is the id of a task, use {TASK}"),
    ],
)
@pytest.mark.parametrize("held", [False, True])
def test_an_unknown_id_suggests_the_other_kind(
    drive: Drive, respond: Respond, task_id: str, hint: str, held: bool
) -> None:
    flow = provider().long_poll(task_id) if held else provider().get(task_id)
    with pytest.raises(TaskNotFound) as caught:
        drive(flow, respond(404))
    assert str(caught.value) == f"the vendor does not know this id, or no longer; {hint} (HTTP 404)"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"finished"',
        b"{",
        b"<html></html>",
        {},
        {"data": None},
        {"data": []},
        {"message": "Unauthenticated.", "code": "UNAUTHENTICATED"},
        vendor_body(id=None),
        vendor_body(id=""),
        vendor_body(id=7),
        vendor_body(id="a\0b"),
        vendor_body(status=None),
        vendor_body(status=200),
        vendor_body(status=True),
    ],
)
def test_a_body_that_breaks_the_contract_is_malformed(drive: Drive, respond: Respond, body: object) -> None:
    with pytest.raises(MalformedResponse):
        drive(provider().get(TASK), respond(200, body))


def test_a_redirect_is_not_followed(drive: Drive, respond: Respond) -> None:
    with pytest.raises(UnexpectedRedirect):
        drive(provider().get(f"job/{JOB}"), respond(302, location="https://storage.cloudconvert.com/x"))


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "a/b",
        "job/",
        "job/a/b",
        "..",
        "job/..",
        ".",
        "a b",
        "a\nb",
        "a\r\nX: y",
        "a\0",
        "é",
        "%2e",
        "a?b",
        "x" * 10_000,
    ],
)
def test_an_invalid_id_is_refused_before_a_request(bad: str) -> None:
    with pytest.raises(InvalidTaskId):
        next(provider().get(bad))


def test_an_upper_case_id_is_the_same_id(drive: Drive, respond: Respond) -> None:
    task, (request,) = drive(provider().get(TASK.upper()), respond(200, vendor_body()))
    assert request.url.endswith(TASK.upper())
    assert (task.id, task.native_id) == (TASK.upper(), TASK)
    assert all(kind.ignore_case for kind in provider().capabilities.kinds)


# Translation.


def failed(code: str | None, message: str | None, **fields: Any) -> dict[str, Any]:
    return {"id": "t", "status": "error", "operation": "convert", "code": code, "message": message, **fields}


def job_of(*tasks: dict[str, Any], status: str | None = "error", **fields: Any) -> dict[str, Any]:
    return {"data": {"id": JOB, "status": status, "tasks": list(tasks), **fields}}


def test_a_failed_job_has_its_root_cause(drive: Drive, respond: Respond) -> None:
    body = job_of(
        failed("INPUT_TASK_FAILED", "Input task has failed"),
        failed("SANDBOX_FILE_NOT_ALLOWED", "The file X is not whitelisted for sandbox use"),
    )
    job, _ = drive(provider().get(f"job/{JOB}"), respond(200, body))
    assert job.status is TaskStatus.FAILED
    assert job.reason is None
    assert job.error.code == "SANDBOX_FILE_NOT_ALLOWED"
    assert job.error.message == "The file X is not whitelisted for sandbox use"
    assert [each.reason for each in job.subtasks] == [Reason.DEPENDENCY_FAILED, None]
    assert {each.parent_id for each in job.subtasks} == {f"job/{JOB}"}


def test_several_root_causes_are_joined(drive: Drive, respond: Respond) -> None:
    body = job_of(failed("A", "first"), failed("INPUT_TASK_FAILED", "Input task has failed"), failed("B", "second"))
    job, _ = drive(provider().get(f"job/{JOB}"), respond(200, body))
    assert (job.error.code, job.error.message) == (None, "first (Code: A); second (Code: B)")


def test_a_dependency_failure_is_the_cause_if_it_is_the_only_one(drive: Drive, respond: Respond) -> None:
    body = job_of(failed("INPUT_TASK_FAILED", "Input task has failed"))
    job, _ = drive(provider().get(f"job/{JOB}"), respond(200, body))
    assert (job.error.code, job.error.message) == ("INPUT_TASK_FAILED", "Input task has failed")


def test_a_failed_job_without_tasks_has_an_empty_cause(drive: Drive, respond: Respond) -> None:
    job, _ = drive(provider().get(f"job/{JOB}"), respond(200, job_of()))
    assert job.error.to_dict() == {"code": None, "message": None, "details": None}


def test_a_job_whose_status_is_null_is_not_recognized(drive: Drive, respond: Respond) -> None:
    job, _ = drive(provider().get(f"job/{JOB}"), respond(200, job_of(status=None)))
    assert (job.status, job.recognized, job.native_status) == (TaskStatus.PROCESSING, False, None)


def test_a_job_whose_status_is_missing_breaks_the_contract(drive: Drive, respond: Respond) -> None:
    with pytest.raises(MalformedResponse):
        drive(provider().get(f"job/{JOB}"), respond(200, {"data": {"id": JOB}}))


EXPORT = {
    "id": "e",
    "status": "finished",
    "operation": "export/url",
    "ended_at": "2022-01-01T00:00:00+00:00",
    "result": {"files": [{"filename": "a.png", "size": 9, "url": "https://storage.cloudconvert.com/tasks/e/a.png"}]},
}


def test_the_result_of_a_job_is_its_exported_files(drive: Drive, respond: Respond) -> None:
    imported = {**EXPORT, "id": "i", "operation": "import/url", "result": {"files": [{"filename": "in.jpg"}]}}
    job, _ = drive(provider().get(f"job/{JOB}"), respond(200, job_of(EXPORT, imported, status="finished", tag="T")))
    (file,) = job.result.files
    assert (file.name, file.size) == ("a.png", 9)
    assert file.expires_at == datetime(2022, 1, 2, tzinfo=UTC)
    assert job.external_id == "T"


def test_a_failed_job_keeps_the_exports_that_worked_on_its_subtasks(drive: Drive, respond: Respond) -> None:
    job, _ = drive(provider().get(f"job/{JOB}"), respond(200, job_of(EXPORT, failed("A", "first"))))
    assert job.status is TaskStatus.FAILED
    assert job.result is None
    assert job.subtasks[0].result.files[0].url == "https://storage.cloudconvert.com/tasks/e/a.png"


def test_a_job_that_delivers_elsewhere_has_no_files(drive: Drive, respond: Respond) -> None:
    elsewhere = {**EXPORT, "operation": "export/s3", "result": None}
    job, _ = drive(provider().get(f"job/{JOB}"), respond(200, job_of(elsewhere, status="finished")))
    assert job.result.files == ()


@pytest.mark.parametrize("tasks", [[], [{**EXPORT, "result": None}]])
def test_a_finished_job_without_its_exports_has_no_result(
    drive: Drive, respond: Respond, tasks: list[dict[str, Any]]
) -> None:
    job, _ = drive(provider().get(f"job/{JOB}"), respond(200, job_of(*tasks, status="finished")))
    assert job.result is None
    with pytest.raises(MalformedResponse, match="has no result"):
        drive(provider().result(job))


@pytest.mark.parametrize(
    ("result", "files", "data"),
    [
        ({"files": [{"filename": "a"}]}, 1, None),
        ({"files": []}, 0, None),
        ({"metadata": {"PageCount": 2}}, 0, {"PageCount": 2}),
        ({"files": [{"filename": "a"}], "metadata": {"PageCount": 2}}, 1, {"PageCount": 2}),
        ({"output": "captured"}, 0, {"output": "captured"}),
    ],
)
def test_a_result_is_read_by_its_keys(
    drive: Drive, respond: Respond, result: dict[str, Any], files: int, data: object
) -> None:
    task, _ = drive(provider().get(TASK), respond(200, vendor_body(status="finished", result=result)))
    assert len(task.result.files) == files
    assert task.result.data == data
    assert drive(provider().result(task))[0] is task.result


@pytest.mark.parametrize("result", [None, {}, [], "text"])
def test_an_empty_result_is_none(drive: Drive, respond: Respond, result: object) -> None:
    task, _ = drive(provider().get(TASK), respond(200, vendor_body(status="finished", result=result)))
    assert task.result is None


def test_a_file_without_a_link_does_not_expire(drive: Drive, respond: Respond) -> None:
    body = vendor_body(
        status="finished",
        ended_at="2022-01-01T00:00:00+00:00",
        result={"files": [{"filename": "input.pdf", "md5": "53d6fe6b688c31c565907c81de625046"}]},
    )
    task, _ = drive(provider().get(TASK), respond(200, body))
    (file,) = task.result.files
    assert (file.url, file.expires_at, file.size) == (None, None, None)
    assert file.properties == {"md5": "53d6fe6b688c31c565907c81de625046"}


def test_an_expiry_beyond_the_calendar_is_none(drive: Drive, respond: Respond) -> None:
    body = vendor_body(
        status="finished", ended_at="9999-12-31T23:59:59+00:00", result={"files": [{"url": "https://x.test"}]}
    )
    task, _ = drive(provider().get(TASK), respond(200, body))
    assert task.result.files[0].expires_at is None


def test_only_the_status_decides(drive: Drive, respond: Respond) -> None:
    body = vendor_body(
        operation="import/upload",
        percent=100,
        message="Waiting for file upload",
        ended_at="2020-12-01T00:00:00+00:00",
        result={"form": {"url": "https://upload.test", "parameters": {}}},
    )
    task, _ = drive(provider().get(TASK), respond(200, body))
    assert (task.status, task.reason) == (TaskStatus.PENDING, Reason.AWAITING_UPLOAD)
    assert (task.progress, task.result, task.error, task.finished_at) == (None, None, None, None)
    assert task.message == "Waiting for file upload"


def test_a_retry_names_what_it_retries(drive: Drive, respond: Respond) -> None:
    task, _ = drive(provider().get(TASK), respond(200, vendor_body(retry_of_task_id="old", job_id=None)))
    assert (task.retry_of, task.parent_id) == ("old", None)


def test_a_contract_error_keeps_the_body(drive: Drive, respond: Respond) -> None:
    with pytest.raises(ContractError) as caught:
        drive(provider().get(TASK), respond(200, {"data": {"id": TASK}}))
    assert caught.value.raw == {"id": TASK}
