"""List, cancel, retry, delete, restart and the options of get, against the emulated vendors with both clients."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest

import taskbridge as tb
from taskbridge._config.registry import load_provider
from taskbridge.models import TaskStatus
from taskbridge.provider.http import Response
from taskbridge.testing import Emulator

Maker = Callable[..., Any]

URL = "https://example.com/slow.pdf"
GRAPH = {
    "in": {"operation": "import/url", "url": URL},
    "work": {"operation": "convert", "input": "in", "output_format": "pdf"},
    "out": {"operation": "export/url", "input": "work"},
}


def page(*ids: str, link: str | None = None) -> Response:
    tasks = [{"id": each, "operation": "convert", "status": "pending"} for each in ids]
    body = {"data": tasks, "links": {"previous": None, "next": link}}
    return Response(200, {}, json.dumps(body).encode())


# Lists.


@pytest.mark.parametrize("vendor", ["cloudconvert", "scan-documents", "smartdocumentor"])
def test_a_list_yields_every_task_once_over_many_pages(vendor: str, both: Maker) -> None:
    client = both(vendor)
    submitted = {client.submit(*arguments(vendor), **options(vendor)).id for _ in range(3)}
    ids = [task.id for task in client.list()]
    assert submitted <= set(ids)
    assert len(ids) == len(set(ids))


def arguments(vendor: str) -> tuple[str, Any]:
    return ("native:jobs", None) if vendor == "cloudconvert" else ("extract-text", document(vendor))


def options(vendor: str) -> dict[str, Any]:
    return {"options": {"tasks": GRAPH}} if vendor == "cloudconvert" else {}


def document(vendor: str) -> Any:
    return {"smartdocumentor": URL, "scan-documents": b"\x89PNG\r\n\x1a\n"}.get(vendor, b"%PDF-1.4")


@pytest.mark.parametrize("status", list(TaskStatus))
@pytest.mark.parametrize("vendor", ["cloudconvert", "scan-documents", "smartdocumentor"])
def test_a_list_can_be_filtered_by_every_shared_status(
    vendor: str, status: TaskStatus, both: Maker, own_vendors: Emulator
) -> None:
    client = both(vendor)
    own_vendors.clear_requests()
    kind = {"kind": "task"} if (vendor, status) == ("cloudconvert", "pending") else {}  # no job is pending by then
    found = client.list(str(status), **kind)
    assert found
    assert {task.status for task in found} == {status}
    filtered_by_vendor = any("filter%5Bstatus%5D" in seen.query for seen in own_vendors.requests)
    assert filtered_by_vendor == (status in client_statuses(vendor) or bool(kind))


def client_statuses(vendor: str) -> frozenset[TaskStatus]:
    listing = load_provider(vendor).capabilities.listing
    assert listing is not None
    return listing.statuses


def test_a_list_is_lazy(scripted: Maker) -> None:
    link = "https://evil.test/tasks?from=task_c&take=2"
    harness = scripted("scan-documents", page("task_a", "task_b", link=link), page("task_c"))
    tasks = harness.client.list()
    assert harness.transport.requests == []
    assert [task.id for task in islice(tasks, 2)] == ["task_a", "task_b"]
    assert len(harness.transport.requests) == 1
    assert [task.id for task in tasks] == ["task_c"]
    second = harness.transport.requests[1]
    assert second.url == "http://127.0.0.1:9/v1/tasks?take=50&from=task_c"


def test_a_limit_ends_a_list(scripted: Maker) -> None:
    harness = scripted("scan-documents", page("task_a", "task_b", link="https://x.test/?from=task_c"))
    assert [task.id for task in harness.client.list(limit=2)] == ["task_a", "task_b"]
    assert list(harness.client.list(limit=0)) == []
    assert len(harness.transport.requests) == 1


def test_a_task_on_two_adjacent_pages_is_yielded_once(scripted: Maker) -> None:
    harness = scripted("scan-documents", page("task_a", "task_b", link="?from=task_b"), page("task_b", "task_c"))
    assert [task.id for task in harness.client.list()] == ["task_a", "task_b", "task_c"]


def test_a_list_that_repeats_a_page_is_an_error(scripted: Maker) -> None:
    harness = scripted("scan-documents", *[page("task_a", link="?from=task_a")] * 9)
    with pytest.raises(tb.ContractError, match="comes back to where it was"):
        list(harness.client.list())
    assert len(harness.transport.requests) == 2


def test_a_next_link_without_a_cursor_is_an_error(scripted: Maker) -> None:
    harness = scripted("scan-documents", page("task_a", link="https://api.scan-documents.com/tasks"))
    with pytest.raises(tb.MalformedResponse):
        list(harness.client.list())


@pytest.mark.parametrize(
    "body",
    [
        [{"taskId": 44, "taskStatus": 30}],
        {"items": [{"taskId": 44, "taskStatus": 30}], "total": 1},
        {"anything": [{"taskId": 44, "taskStatus": 30}], "page": {"number": 1}},
    ],
)
def test_smartdocumentors_undocumented_envelope_is_read_in_any_form(scripted: Maker, body: Any) -> None:
    harness = scripted(
        "smartdocumentor", Response(200, {}, json.dumps(body).encode()), Response(200, {}, b'{"items": []}')
    )
    assert [task.id for task in harness.client.list()] == ["44"]
    assert "startDate=2000" in harness.transport.requests[0].url


@pytest.mark.parametrize("body", [{"a": [], "b": []}, {"total": 1}])
def test_an_ambiguous_envelope_is_an_error(scripted: Maker, body: Any) -> None:
    harness = scripted("smartdocumentor", Response(200, {}, json.dumps(body).encode()))
    with pytest.raises(tb.MalformedResponse):
        list(harness.client.list())


def test_the_vendors_filters_are_passed_through(both: Maker, own_vendors: Emulator) -> None:
    both("smartdocumentor").list(taskStatus=[30, 31], workspaceId=1)
    query = next(seen.query for seen in own_vendors.requests if "statuslistpaginated" in seen.path)
    assert "taskStatus=30&taskStatus=31" in query
    client = both("cloudconvert")
    job = client.submit("native:jobs", options={"tasks": GRAPH, "tag": "t-7"})
    assert [each.id for each in client.list(tag="t-7")] == [job.id]
    tasks = client.list(job_id=job.id)
    assert {task.parent_id for task in tasks} == {job.id}
    assert [task.operation for task in client.list(kind="task", operation="convert", job_id=job.id)] == ["convert"]


def test_an_unknown_filter_or_status_is_refused_at_once(scripted: Maker) -> None:
    client = scripted("cloudconvert").client
    with pytest.raises(tb.UnsupportedFeature, match="did you mean 'tag'"):
        client.list(tags="x")
    with pytest.raises(tb.InvalidInput, match="a status is one of"):
        client.list("finished")
    with pytest.raises(tb.InvalidInput, match="negative"):
        client.list(limit=-1)


# Cancel.


def test_cancelling_a_job_stops_its_tasks(both: Maker) -> None:
    client = both("cloudconvert")
    job = client.submit("native:jobs", options={"tasks": GRAPH})
    stopped = client.cancel(job)
    assert stopped.id == job.id
    assert stopped.status is TaskStatus.FAILED
    assert all(each.is_terminal for each in stopped.subtasks)


def test_a_cancelled_task_has_the_reason_cancelled(both: Maker) -> None:
    client = both("cloudconvert")
    task = client.submit("native:import/upload")
    stopped = client.cancel(task)
    assert (stopped.id, stopped.status, stopped.reason) == (task.id, TaskStatus.FAILED, "cancelled")


def test_cancelling_a_finished_task_is_not_an_error(both: Maker, own_vendors: Emulator) -> None:
    client = both("cloudconvert")
    for label in ("completed", "failed"):
        sample = own_vendors.samples("cloudconvert")[label]
        assert client.cancel(sample).status == label


def test_a_refusal_to_cancel_a_running_task_is_raised(scripted: Maker) -> None:
    running = {"data": {"id": "x441E6HMhG", "status": "processing"}}
    harness = scripted("cloudconvert", Response(422, {}, b"{}"), Response(200, {}, json.dumps(running).encode()))
    with pytest.raises(tb.InvalidRequest):
        harness.client.cancel("x441E6HMhG")


def test_a_cancel_is_never_sent_twice(scripted: Maker) -> None:
    for problem in (tb.TruncatedResponse("cut"), Response(500, {}, b"{}"), Response(502, {}, b"{}")):
        harness = scripted("cloudconvert", problem)
        with pytest.raises((tb.TruncatedResponse, tb.ServerError)):
            harness.client.cancel("x441E6HMhG")
        assert len(harness.transport.requests) == 1


# Retry, delete, restart.


def test_a_retried_task_is_a_new_one(both: Maker, own_vendors: Emulator) -> None:
    client = both("cloudconvert")
    old = own_vendors.samples("cloudconvert")["failed"]
    new = client.retry(old)
    assert new.id != old
    assert new.retry_of == old
    assert client.get(new).native_id == new.native_id


def test_retry_of_is_filled_in_where_the_vendor_omits_it(scripted: Maker) -> None:
    new = Response(201, {}, b'{"data": {"id": "x441E6HMhH", "status": "waiting"}}')
    assert scripted("cloudconvert", new).client.retry("x441E6HMhG").retry_of == "x441E6HMhG"


def test_a_job_cannot_be_retried(scripted: Maker) -> None:
    with pytest.raises(tb.UnsupportedFeature, match="retry its failed tasks"):
        scripted("cloudconvert").client.retry("job/x441E6HMhG")


def test_a_deleted_task_is_not_found(both: Maker) -> None:
    client = both("cloudconvert")
    job = client.submit("native:jobs", options={"tasks": GRAPH})
    task = client.submit("native:import/url", options={"url": URL})
    for target in (job, task):
        assert client.delete(target) is None
        with pytest.raises(tb.TaskNotFound):
            client.get(target)
        with pytest.raises(tb.TaskNotFound):
            client.delete(target)


def test_a_delete_without_a_response_is_repeated(scripted: Maker) -> None:
    harness = scripted("cloudconvert", tb.TruncatedResponse("cut"), Response(404, {}, b"{}"))
    assert harness.client.delete("x441E6HMhG") is None
    assert [request.method for request in harness.transport.requests] == ["DELETE", "DELETE"]


def test_a_restart_requires_destructive(both: Maker) -> None:
    client = both("smartdocumentor")
    task = client.submit("extract-text", URL)
    with pytest.raises(tb.ConfigError, match="destructive=True"):
        client.restart(task)
    again = client.restart(task, destructive=True)
    assert (again.id, again.restarts) == (task.id, 1)
    by_external_id = client.restart(f"external/{task.external_id}", destructive=True)
    assert by_external_id.restarts == 2


def test_only_true_confirms_a_restart(scripted: Maker) -> None:
    with pytest.raises(tb.ConfigError):
        scripted("smartdocumentor").client.restart("44", destructive=1)


# Options of get.


def test_get_passes_the_vendors_options(both: Maker) -> None:
    client = both("cloudconvert")
    task = client.submit("native:import/url", options={"url": URL})
    seen = client.get(task, options={"include": ["payload", "retries"]})
    assert seen.raw["payload"]["url"] == URL
    assert "payload" not in client.get(task).raw


@pytest.mark.parametrize("vendor", ["cloudconvert", "scan-documents", "smartdocumentor", "expertai-extract"])
def test_an_unknown_option_of_get_is_refused(vendor: str, scripted: Maker) -> None:
    task_id = "44" if vendor == "smartdocumentor" else "x441E6HMhG"
    with pytest.raises(tb.UnsupportedFeature, match="option of get"):
        scripted(vendor).client.get(task_id, options={"includes": "payload"})
