"""Both clients over real HTTP, against emulated vendors."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import pickle
import threading
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest
import requests

import taskbridge as tb
from taskbridge import aio
from taskbridge.emulator import Plan
from taskbridge.emulator.export import config_toml

if TYPE_CHECKING:
    from taskbridge.testing import Emulator

    from .conftest import Interface

QUICK: dict[str, Any] = {"poll": {"interval": 0.01}, "retry": {"first": 0.001, "at_most": 0.002}}
VENDORS = ["cloudconvert", "expertai-extract", "scan-documents", "smartdocumentor"]


def quick(vendors: Emulator, name: str, **more: Any) -> dict[str, Any]:
    return {**vendors.settings(name), **QUICK, **more}


def waiting_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("taskbridge-wait")]


# One task.


@pytest.mark.parametrize("name", VENDORS)
def test_get_returns_a_snapshot(vendors: Emulator, interface: Interface, name: str) -> None:
    for label, task_id in vendors.samples(name).items():
        task = interface.call(name, quick(vendors, name), "get", task_id)
        assert (task.id, task.provider, task.connection, task.ref) == (task_id, name, name, f"{name}:{task_id}"), label


@pytest.mark.parametrize("name", VENDORS)
@pytest.mark.parametrize("label", ["completed", "failed"])
def test_a_wait_ends_with_the_terminal_snapshot(vendors: Emulator, interface: Interface, name: str, label: str) -> None:
    task = interface.call(name, quick(vendors, name), "wait", vendors.samples(name)[label])
    assert task.status == label


@pytest.mark.parametrize("name", VENDORS)
def test_result_returns_the_output_of_a_task(vendors: Emulator, interface: Interface, name: str) -> None:
    result = interface.call(name, quick(vendors, name), "result", vendors.samples(name)["completed"])
    assert isinstance(result, tb.TaskResult)
    assert result.files or result.text or result.data


@pytest.mark.parametrize("name", VENDORS)
def test_the_result_of_a_failed_task_raises_with_the_vendors_reason(
    vendors: Emulator, interface: Interface, name: str
) -> None:
    with pytest.raises(tb.TaskFailed) as caught:
        interface.call(name, quick(vendors, name), "result", vendors.samples(name)["failed"])
    error = caught.value
    assert error.task.status == "failed"
    assert error.ref == error.task.ref
    assert error.task.error is not None
    assert str(error.task.error.message) in error.message


def test_an_id_may_be_a_string_a_ref_or_a_task(vendors: Emulator, interface: Interface) -> None:
    settings = quick(vendors, "scan-documents")
    task_id = vendors.samples("scan-documents")["completed"]
    task = interface.call("scan-documents", settings, "get", task_id)
    for given in (task, task.ref, str(task.ref), task_id):
        assert interface.call("scan-documents", settings, "get", given) == task


def test_a_finished_task_is_not_requested_again_for_its_result(own_vendors: Emulator) -> None:
    with tb.connect("scan-documents", **quick(own_vendors, "scan-documents")) as client:
        task = client.wait(own_vendors.samples("scan-documents")["completed"])
        before = own_vendors.count()
        assert client.result(task) == task.result
    assert own_vendors.count() == before


def test_a_wait_reports_each_change(own_vendors: Emulator, interface: Interface) -> None:
    seen: list[tb.Task] = []
    settings = quick(own_vendors, "cloudconvert")
    task_id = started(own_vendors)
    task = interface.call("cloudconvert", settings, "wait", task_id, on_update=seen.append)
    assert task.status == "completed"
    assert seen[-1] == task
    assert all(before != after for before, after in pairwise(seen))


def started(vendors: Emulator, plan: Plan | None = None) -> str:
    """A CloudConvert task that has just started."""
    settings = vendors.settings("cloudconvert")

    def post(path: str, **body: str) -> str:
        answer = requests.post(
            f"{settings['base_url']}{path}",
            json=body,
            headers={"Authorization": f"Bearer {settings['api_key']}"},
            timeout=5,
        )
        return str(answer.json()["data"]["id"])

    source = post("/import/url", url="https://files.test/a.docx")
    vendors.plan_next("cloudconvert", plan or Plan(queued=3.0, working=3.0))
    return post("/convert", input=source, output_format="pdf")


def test_a_wait_timeout_contains_the_last_snapshot(vendors: Emulator, interface: Interface) -> None:
    task_id = vendors.samples("expertai-extract")["processing"]
    with pytest.raises(tb.WaitTimeout) as caught:
        interface.call("expertai-extract", quick(vendors, "expertai-extract"), "wait", task_id, timeout=0.5)
    error = caught.value
    assert error.task is not None
    assert (error.task.status, error.ref) == ("processing", f"expertai-extract:{task_id}")
    assert "wait again with its ref to resume" in error.message
    assert isinstance(pickle.loads(pickle.dumps(error)), tb.WaitTimeout)


# Long polls.


def test_a_wait_uses_a_long_poll_where_the_vendor_has_one(own_vendors: Emulator, interface: Interface) -> None:
    task_id = started(own_vendors, Plan(queued=8.0, working=8.0))
    own_vendors.clear_requests()
    assert interface.call("cloudconvert", quick(own_vendors, "cloudconvert"), "wait", task_id).status == "completed"
    assert [seen.prefix for seen in own_vendors.requests] == ["cloudconvert", "cloudconvert-sync"]


def test_an_unreachable_long_poll_falls_back_to_polling(own_vendors: Emulator, interface: Interface) -> None:
    task_id = started(own_vendors, Plan(queued=8.0, working=8.0))
    own_vendors.clear_requests()
    settings = quick(own_vendors, "cloudconvert")
    sync_url = settings["sync_url"].replace("cloudconvert-sync", "unreachable")
    task = interface.call("cloudconvert", {**settings, "sync_url": sync_url}, "wait", task_id)
    assert task.status == "completed"
    prefixes = [seen.prefix for seen in own_vendors.requests]
    assert prefixes[:2] == ["cloudconvert", "unreachable"]
    assert set(prefixes[2:]) == {"cloudconvert"}


def test_a_broken_long_poll_falls_back_to_polling(
    own_vendors: Emulator, interface: Interface, raw_server: Callable[..., Any], http_answer: Callable[..., bytes]
) -> None:
    def end_task(_: object) -> None:
        own_vendors.clock.advance(20_000.0)

    for script in ([], [http_answer(504)], [b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"]):
        task_id = started(own_vendors, Plan(queued=2.0, working=10_000.0))
        server = raw_server([end_task, *script])
        settings = {**quick(own_vendors, "cloudconvert"), "sync_url": server.url}
        assert interface.call("cloudconvert", settings, "wait", task_id).status == "completed"
        assert server.received


def test_base_url_alone_is_enough_for_a_compatible_vendor(vendors: Emulator, interface: Interface) -> None:
    settings = vendors.settings("cloudconvert")
    own = {"api_key": settings["api_key"], "base_url": settings["base_url"] + "/", **QUICK}
    assert (
        interface.call("cloudconvert", own, "wait", vendors.samples("cloudconvert")["completed"]).status == "completed"
    )


# Many tasks.


@pytest.mark.parametrize("name", VENDORS)
def test_wait_all_returns_outcomes_in_order_with_duplicates(vendors: Emulator, interface: Interface, name: str) -> None:
    samples = vendors.samples(name)
    ids = [samples["completed"], samples["failed"], "bad id!", samples["completed"]]
    outcomes = interface.call(name, quick(vendors, name), "wait_all", ids)
    assert [outcome.task and outcome.task.status for outcome in outcomes] == ["completed", "failed", None, "completed"]
    assert isinstance(outcomes[2].error, tb.InvalidTaskId)
    assert [outcome.ref.id for outcome in outcomes] == ids


def test_as_completed_yields_each_end_and_the_rest_at_the_deadline(vendors: Emulator, interface: Interface) -> None:
    samples = vendors.samples("expertai-extract")
    ids = [samples["completed"], samples["processing"], samples["pending"], samples["completed"]]
    outcomes = interface.call("expertai-extract", quick(vendors, "expertai-extract"), "as_completed", ids, timeout=0.5)
    assert sorted(outcome.ref.id for outcome in outcomes) == sorted(ids)
    late = [outcome for outcome in outcomes if isinstance(outcome.error, tb.WaitTimeout)]
    assert {outcome.ref.id for outcome in late} == {samples["processing"], samples["pending"]}
    assert outcomes[-2:] == late
    assert all(outcome.task is not None for outcome in late)


def test_waiting_for_nothing_ends_at_once(vendors: Emulator, interface: Interface) -> None:
    settings = quick(vendors, "scan-documents")
    assert interface.call("scan-documents", settings, "wait_all", []) == []
    assert interface.call("scan-documents", settings, "as_completed", []) == []
    assert interface.call("scan-documents", settings, "watch", iter(())) == []


def test_watch_yields_every_change_and_the_end(own_vendors: Emulator, interface: Interface) -> None:
    ids = [started(own_vendors, Plan(queued=8.0, working=8.0)) for _ in range(2)]
    outcomes = interface.call("cloudconvert", quick(own_vendors, "cloudconvert"), "watch", ids)
    for task_id in ids:
        seen = [outcome.task for outcome in outcomes if outcome.ref.id == task_id]
        assert seen[-1] is not None
        assert seen[-1].status == "completed"
        assert len(seen) >= 2
        assert all(before != after for before, after in pairwise(seen))


def test_one_bad_task_does_not_affect_the_others(own_vendors: Emulator, interface: Interface) -> None:
    samples = own_vendors.samples("scan-documents")
    ids = ["task_doesnotexist1", samples["completed"], samples["failed"]]
    outcomes = interface.call("scan-documents", quick(own_vendors, "scan-documents"), "wait_all", ids, timeout=1.0)
    assert isinstance(outcomes[0].error, tb.TaskNotFound)
    assert [outcome.task and outcome.task.status for outcome in outcomes[1:]] == ["completed", "failed"]


def test_a_wrong_key_ends_every_wait_with_few_requests(own_vendors: Emulator, interface: Interface) -> None:
    ids = [f"task_{n:016}" for n in range(50)]
    settings = quick(own_vendors, "scan-documents", api_key="wrong-key-1234567", max_in_flight=2)
    outcomes = interface.call("scan-documents", settings, "wait_all", ids)
    assert all(isinstance(outcome.error, tb.AuthenticationError) for outcome in outcomes)
    assert [outcome.error.ref for outcome in outcomes] == [f"scan-documents:{task_id}" for task_id in ids]
    assert own_vendors.count() <= 6


def test_repeated_waits_never_hang(vendors: Emulator) -> None:
    done = vendors.samples("scan-documents")["completed"]

    def wait() -> None:
        with tb.connect("scan-documents", **quick(vendors, "scan-documents")) as client:
            for _ in range(100):
                assert client.wait_all([done, done])[0].error is None

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    thread.join(20.0)
    assert not thread.is_alive()


def test_a_wait_that_starts_while_the_last_worker_exits_is_served(vendors: Emulator) -> None:
    """A worker that has found nothing to do cannot serve the next wait, even if it has not exited yet."""
    done = vendors.samples("scan-documents")["completed"]
    leaving, gone = threading.Event(), threading.Event()
    client = tb.connect("scan-documents", **quick(vendors, "scan-documents"))
    work = client._pool.work

    def lingers(*args: Any) -> None:
        work(*args)
        leaving.set()
        gone.wait(20.0)

    client._pool.work = lingers  # type: ignore[method-assign]
    client.wait_all([done])
    assert leaving.wait(10.0)
    again = threading.Thread(target=client.wait_all, args=([done],), daemon=True)
    again.start()
    again.join(5.0)
    hangs = again.is_alive()
    gone.set()
    client.close()
    assert not hangs


def test_many_threads_may_share_a_client(vendors: Emulator) -> None:
    samples = vendors.samples("scan-documents")
    wrong: list[tuple[str, str]] = []

    def work(task_id: str) -> None:
        for _ in range(20):
            task = client.get(task_id)
            outcome = client.wait_all([task_id], timeout=0.0)[0]
            wrong.extend((task_id, seen) for seen in (task.id, outcome.ref.id) if seen != task_id)

    with tb.connect("scan-documents", **quick(vendors, "scan-documents")) as client:
        threads = [threading.Thread(target=work, args=(task_id,), daemon=True) for task_id in samples.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20.0)
        assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


# Ending waits.


def test_breaking_out_of_as_completed_leaves_no_thread_behind(vendors: Emulator) -> None:
    samples = vendors.samples("scan-documents")
    with tb.connect("scan-documents", **quick(vendors, "scan-documents")) as client:
        for outcome in client.as_completed([samples["completed"], samples["processing"]]):
            assert outcome.task is not None
            break
        gc.collect()
        for thread in waiting_threads():
            thread.join(5.0)
        assert waiting_threads() == []
        assert client.wait(samples["completed"]).status == "completed"  # the client still works


def test_closing_a_client_ends_its_threads_and_its_waits(vendors: Emulator) -> None:
    outcomes: list[tb.Outcome] = []
    begun = threading.Event()
    client = tb.connect("expertai-extract", **quick(vendors, "expertai-extract"))

    def wait() -> None:
        for outcome in client.watch([vendors.samples("expertai-extract")["processing"]], timeout=None):
            outcomes.append(outcome)
            begun.set()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    assert begun.wait(10.0)
    client.close()
    thread.join(10.0)
    assert not thread.is_alive()
    assert waiting_threads() == []
    assert isinstance(outcomes[-1].error, tb.WaitTimeout)
    assert "was closed" in outcomes[-1].error.message
    client.close()  # closing twice is harmless


def test_breaking_out_asynchronously_leaves_no_task_behind(vendors: Emulator) -> None:
    samples = vendors.samples("scan-documents")

    async def run() -> set[str]:
        async with aio.connect("scan-documents", **quick(vendors, "scan-documents")) as client:
            outcomes = client.as_completed([samples["completed"], samples["processing"]])
            async for outcome in outcomes:
                assert outcome.task is not None
                break
            await outcomes.aclose()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        return {task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()}

    assert not any(name.startswith("taskbridge") for name in asyncio.run(run()))


def test_cancelling_a_wait_ends_it(vendors: Emulator) -> None:
    async def run() -> None:
        async with aio.connect("expertai-extract", **quick(vendors, "expertai-extract")) as client:
            task = asyncio.ensure_future(client.wait(vendors.samples("expertai-extract")["processing"]))
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await client.get(vendors.samples("expertai-extract")["completed"])).status == "completed"

    asyncio.run(run())


def test_a_closed_client_says_so(vendors: Emulator) -> None:
    client = tb.connect("scan-documents", **quick(vendors, "scan-documents"))
    client.close()
    for use in (client.get, client.wait, client.result):
        with pytest.raises(tb.ConfigError, match="is closed"):
            use("task_1")
    with pytest.raises(tb.ConfigError, match="is closed"):
        client.wait_all(["task_1"])


def test_a_client_refuses_to_be_pickled_and_shows_no_key(vendors: Emulator) -> None:
    settings = vendors.settings("scan-documents")
    client, other = tb.connect("scan-documents", **settings), aio.connect("scan-documents", **settings)
    for each in (client, other):
        assert settings["api_key"] not in repr(each)
        for write in (pickle.dumps, copy.copy):
            with pytest.raises(TypeError, match="not pickled"):
                write(each)


# Bridge.


def test_a_bridge_addresses_every_connection_by_ref(vendors: Emulator, tmp_path: Any, interface: Interface) -> None:
    path = tmp_path / "taskbridge.toml"
    path.write_text(config_toml(vendors))
    refs = [f"{name}:{vendors.samples(name)['completed']}" for name in VENDORS]
    if interface.asynchronous:

        async def run() -> list[tb.Outcome]:
            async with aio.Bridge.from_config(path) as bridge:
                assert (await bridge.get(refs[0])).connection == VENDORS[0]
                assert (await bridge[VENDORS[1]].get(refs[1])).ref == refs[1]
                return await bridge.wait_all(refs)

        outcomes = asyncio.run(run())
    else:
        with tb.Bridge.from_config(path) as bridge:
            assert bridge.get(refs[0]).connection == VENDORS[0]
            assert bridge[VENDORS[1]].get(refs[1]).ref == refs[1]
            outcomes = bridge.wait_all(refs)
            with pytest.raises(tb.InvalidTaskId, match="names none of the connections"):
                bridge.get("task_1")
            with pytest.raises(tb.InvalidTaskId, match="not of cloudconvert"):
                bridge["cloudconvert"].get(refs[2])
    assert [outcome.ref for outcome in outcomes] == refs
    assert all(outcome.unwrap().status == "completed" for outcome in outcomes)


# Ids.


@pytest.mark.parametrize("name", VENDORS)
@pytest.mark.parametrize(
    "task_id",
    [
        "",
        ".",
        "..",
        "../../admin",
        "a/b",
        "a b",
        "a\r\nX-Key: y",
        "t1\n",
        "\0",
        "\ud800",
        "é",
        "文",
        "a" * 10_000,
        "//evil/x",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_an_impossible_id_is_refused_before_anything_is_sent(
    vendors: Emulator, interface: Interface, name: str, task_id: str
) -> None:
    before = vendors.count()
    with pytest.raises(tb.InvalidTaskId) as caught:
        interface.call(name, quick(vendors, name), "get", task_id)
    assert vendors.count() == before
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("given", [None, 7, b"t1", 1.5, ["t1"]], ids=str)
def test_an_id_that_is_not_a_string_is_refused(interface: Interface, given: Any) -> None:
    with pytest.raises(tb.InvalidTaskId, match=f"not {type(given).__name__}"):
        interface.call("scan-documents", {"api_key": "test-key-123"}, "get", given)


@pytest.mark.parametrize("native", ["INV 7/2026", "..", "../x", "ünï/文書", "a?b=c&d#e", "100%", "a+b", "'\""])
def test_an_external_id_is_sent_unchanged(own_vendors: Emulator, interface: Interface, native: str) -> None:
    with pytest.raises(tb.TaskNotFound) as caught:
        interface.call("smartdocumentor", quick(own_vendors, "smartdocumentor"), "get", f"external/{native}")
    [seen] = [seen for seen in own_vendors.requests if seen.method == "GET"]
    assert seen.path.endswith("/sdtask/status")
    assert parse_qs(seen.query) == {"externalId": [native]}
    assert caught.value.ref == f"smartdocumentor:external/{native}"


# Errors from the vendor.


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (400, tb.InvalidRequest, False),
        (401, tb.AuthenticationError, False),
        (402, tb.QuotaExceeded, False),
        (403, tb.PermissionDenied, False),
        (404, tb.TaskNotFound, False),
        (410, tb.TaskNotFound, False),
        (418, tb.ApiError, False),
        (422, tb.InvalidRequest, False),
        (429, tb.RateLimited, True),
        (500, tb.ServerError, True),
        (501, tb.ServerError, False),
        (502, tb.ServerError, True),
        (503, tb.ServerError, True),
        (520, tb.ServerError, True),
    ],
)
def test_an_api_error_has_its_class_and_the_vendors_fields(
    own_vendors: Emulator, interface: Interface, status: int, kind: type[tb.ApiError], *, retryable: bool
) -> None:
    body = json.dumps({"type": "https://scan-documents.com/docs/errors/odd-code", "message": "No.", "status": 200})
    own_vendors.fail_next(status, times=9, body=body.encode(), headers={"X-Request-Id": "r-77"})
    with pytest.raises(kind) as caught:
        interface.call("scan-documents", quick(own_vendors, "scan-documents", retry={"attempts": 1}), "get", "task_1")
    error = caught.value
    assert type(error) is kind
    assert (error.http_status, error.vendor_code, error.request_id) == (status, "odd-code", "r-77")
    assert (error.retryable, error.provider, error.connection) == (retryable, "scan-documents", "scan-documents")
    assert error.raw["message"] == "No."
    assert str(error).startswith("scan-documents:task_1: No")


def test_a_retry_after_beyond_the_deadline_is_in_the_error(own_vendors: Emulator, interface: Interface) -> None:
    own_vendors.fail_next(429, times=9, retry_after=3000)
    with pytest.raises(tb.RateLimited) as caught:
        interface.call("scan-documents", quick(own_vendors, "scan-documents"), "get", "task_1")
    assert caught.value.retry_after == 3000.0
    assert own_vendors.count() == 1


def test_a_temporary_error_is_retried_unseen(own_vendors: Emulator, interface: Interface) -> None:
    own_vendors.fail_next(503, times=2)
    task_id = own_vendors.samples("scan-documents")["completed"]
    assert interface.call("scan-documents", quick(own_vendors, "scan-documents"), "get", task_id).status == "completed"
    assert own_vendors.count() == 3


# Unreadable responses.


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<html><title>Back at noon</title></html>", "web page (Back at noon)"),
        (b"[]", "a list instead of an object"),
        (b"", "empty"),
        (b'{"message": "no", "code": 3}', "'id' is missing"),
        (b'{"id": "t1", "status": "completed", "status": "failed"}', "duplicate key 'status'"),
        (b'{"id": "task_1", "status": "comp', "may be cut"),
    ],
)
def test_an_unreadable_response_says_why(own_vendors: Emulator, interface: Interface, body: bytes, words: str) -> None:
    own_vendors.fail_next(200, times=9, body=body)
    with pytest.raises(tb.MalformedResponse) as caught:
        interface.call("scan-documents", quick(own_vendors, "scan-documents"), "get", "task_1")
    assert words in caught.value.message


def test_a_response_about_another_task_is_a_mismatch(own_vendors: Emulator, interface: Interface) -> None:
    own_vendors.fail_next(200, times=9, body=b'{"id": "task_2", "status": "completed"}')
    with pytest.raises(tb.IdentityMismatch):
        interface.call("scan-documents", quick(own_vendors, "scan-documents"), "get", "task_1")
    assert own_vendors.count() == 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_refused_and_the_other_host_never_sees_the_key(
    own_vendors: Emulator, interface: Interface, status: int, raw_server: Callable[..., Any]
) -> None:
    other = raw_server([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"])
    own_vendors.fail_next(status, times=9, headers={"Location": f"{other.url}/tasks/task_1"})
    with pytest.raises(tb.UnexpectedRedirect):
        interface.call("scan-documents", quick(own_vendors, "scan-documents"), "get", "task_1")
    assert other.received == []
    assert own_vendors.count() == 1


@pytest.mark.parametrize(
    ("value", "progress"),
    [(b"NaN", None), (b"1e400", None), (b"-5", 0.0), (b"900", 1.0), (b'"80"', None), (b"true", None), (b"null", None)],
    ids=str,
)
def test_odd_progress_never_leaves_its_range(
    own_vendors: Emulator, interface: Interface, value: bytes, progress: float | None
) -> None:
    settings = quick(own_vendors, "expertai-extract", access_token="token-of-mine-123")
    del settings["username"], settings["password"]
    own_vendors.fail_next(200, body=b'{"state": "PROGRESS", "current": ' + value + b"}")
    assert interface.call("expertai-extract", settings, "get", "t1").progress == progress


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-22T12:00:00", "2026-11-22T12:00:00+00:00"),
        ("2026-11-22T12:00:00.1234567", "2026-11-22T12:00:00.123456+00:00"),
        ("2026-11-22T14:00:00+02:00", "2026-11-22T12:00:00+00:00"),
        ("soon", None),
        (1_700_000_000, None),
    ],
)
def test_odd_times_are_utc_or_nothing(
    own_vendors: Emulator, interface: Interface, text: object, moment: str | None
) -> None:
    body = json.dumps({"id": "task_1", "status": "pending", "created_at": text}).encode()
    own_vendors.fail_next(200, body=body)
    task = interface.call("scan-documents", quick(own_vendors, "scan-documents"), "get", "task_1")
    assert (task.created_at and task.created_at.isoformat()) == moment
