""" "Not found" that contradicts what is known: the vendor's servers do not all know a new task at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

import pytest

import taskbridge as tb
from taskbridge.models import Task, TaskResult
from taskbridge.provider.base import no_requests
from taskbridge.provider.http import Flow, Request, Response

from .conftest import Acme, AcmeHarness, Maker

Says = Callable[..., Response]
Interface = Literal["sync", "async"]
MISSING = Response(404, {}, b"{}")


@pytest.fixture(params=["sync", "async"])
def interface(request: pytest.FixtureRequest) -> Interface:
    found: Interface = request.param
    return found


def call(harness: AcmeHarness, interface: Interface, method: str, *args: Any, **kwargs: Any) -> Any:
    """Call a method of a client; the script is shared by both interfaces."""
    if interface == "sync":
        return getattr(harness.client, method)(*args, **kwargs)

    async def run() -> Any:
        client, _ = harness.asynchronous()
        return await getattr(client, method)(*args, **kwargs)

    return asyncio.run(run())


def seconds(harness: AcmeHarness, began: float) -> float:
    return harness.clock.monotonic() - began


@pytest.mark.parametrize("method", ["wait", "wait_all", "result"])
def test_a_task_that_another_process_submitted_is_asked_for_until_it_is_known(
    method: str, interface: Interface, acme: Maker, acme_type: type[Acme], says: Says
) -> None:
    class WithResult(acme_type):  # type: ignore[misc,valid-type]  # pyright: ignore[reportGeneralTypeIssues,reportUntypedBaseClass]
        def result(self, task: Task) -> Flow[TaskResult]:
            return no_requests(TaskResult(text=task.native_status))

    began = acme().clock.monotonic()
    harness = acme(lambda _: MISSING if seconds(harness, began) < 9.0 else says("t1", "done"), provider=WithResult)
    ended = call(harness, interface, method, ["t1"] if method == "wait_all" else "t1")
    if method == "result":
        assert ended.text == "done"
    else:
        assert (ended[0].unwrap() if method == "wait_all" else ended).status == "completed"


def test_a_wait_for_an_unknown_task_ends_after_ten_seconds(interface: Interface, acme: Maker) -> None:
    harness = acme(lambda _: MISSING)
    began = harness.clock.monotonic()
    with pytest.raises(tb.TaskNotFound):
        call(harness, interface, "wait", "t1")
    assert 8.0 <= seconds(harness, began) <= 12.0


def test_a_wait_that_would_end_earlier_says_what_the_vendor_said(interface: Interface, acme: Maker) -> None:
    harness = acme(lambda _: MISSING)
    began = harness.clock.monotonic()
    with pytest.raises(tb.TaskNotFound):
        call(harness, interface, "wait", "t1", timeout=3.0)
    assert seconds(harness, began) <= 3.0


def test_410_is_the_last_word(interface: Interface, acme: Maker) -> None:
    harness = acme(lambda _: Response(410, {}, b"{}"))
    began = harness.clock.monotonic()
    with pytest.raises(tb.TaskNotFound):
        call(harness, interface, "wait", "t1")
    assert seconds(harness, began) == 0.0


@pytest.mark.parametrize(("times", "ends"), [(1, "completed"), (2, None)])
def test_a_task_that_was_seen_is_asked_for_once_more(
    times: int, ends: str | None, interface: Interface, acme: Maker, says: Says
) -> None:
    words = iter(["working", *["missing"] * times, "working", *["missing"] * times, "done"])

    def vendor(_: Request) -> Response:
        word = next(words)
        return MISSING if word == "missing" else says("t1", word)

    harness = acme(vendor)
    if ends is not None:
        assert call(harness, interface, "wait", "t1").status == ends
        return
    with pytest.raises(tb.TaskNotFound):
        call(harness, interface, "wait", "t1")


def test_get_believes_it_at_once(interface: Interface, acme: Maker) -> None:
    harness = acme([MISSING])
    with pytest.raises(tb.TaskNotFound):
        call(harness, interface, "get", "t1")


@pytest.mark.parametrize("age", [None, 5.0, 90_000.0])
def test_the_result_of_a_task_that_just_ended_is_asked_for_until_it_is_there(
    age: float | None, interface: Interface, acme: Maker, acme_type: type[Acme], says: Says
) -> None:
    class Apart(acme_type):  # type: ignore[misc,valid-type]  # pyright: ignore[reportGeneralTypeIssues,reportUntypedBaseClass]
        def task(self, payload: Any, task_id: str) -> Task:
            ended_at = None if age is None else payload.observed_at - timedelta(seconds=age)
            task: Task = super().task(payload, task_id)
            return replace(task, finished_at=ended_at)

        def result(self, task: Task) -> Flow[TaskResult]:
            response = yield self.request("GET", f"/results/{task.id}")
            return TaskResult(text=self.payload(response).text("text"))

    count = 0

    def vendor(request: Request) -> Response:
        nonlocal count
        if "/results/" not in request.url:
            return says("t1", "done")
        count += 1
        return MISSING if count < 3 else Response(200, {}, b'{"text": "here"}')

    harness = acme(vendor, provider=Apart)
    if age == 90_000.0:  # it ended long ago: asked for once more
        with pytest.raises(tb.TaskNotFound):
            call(harness, interface, "result", "t1")
    else:
        assert call(harness, interface, "result", "t1").text == "here"
    assert count == (2 if age == 90_000.0 else 3)
