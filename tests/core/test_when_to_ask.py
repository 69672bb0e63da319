"""What the vendor says about when to ask: `Retry-After`, a field of the body, long polls; states outside the body."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

import taskbridge as tb
from taskbridge.models import Task, TaskStatus
from taskbridge.provider.http import Flow, Request, Response
from taskbridge.testing import VirtualClock

from .conftest import Acme, AcmeHarness, Maker

Says = Callable[..., Response]


def answered(harness: AcmeHarness, **kwargs: Any) -> list[float]:
    """Wait for the task; return the seconds between the polls."""
    harness.client.wait("t1", **kwargs)
    return [round(each, 1) for each in harness.clock.slept]


def with_headers(response: Response, **headers: str) -> Response:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(response.status, fields, response.body)


# When.


def test_retry_after_of_a_successful_response_is_the_earliest_time_of_the_next_poll(acme: Maker, says: Says) -> None:
    running = with_headers(says("t1", "working"), retry_after="30")
    responses = iter([running, running, says("t1", "working"), says("t1", "done")])
    harness = acme(lambda _: next(responses), poll={"interval": 1.0})
    assert answered(harness)[:2] == [30.0, 30.0]
    assert harness.clock.slept[2] < 2.0


def test_retry_after_of_a_successful_response_is_clipped_to_an_hour(acme: Maker, says: Says) -> None:
    responses = iter([with_headers(says("t1", "working"), retry_after="999999"), says("t1", "done")])
    assert answered(acme(lambda _: next(responses)), timeout=7200.0) == [3600.0]


def test_a_provider_may_say_when_from_the_body(acme: Maker, acme_type: type[Acme], says: Says) -> None:
    class Telling(acme_type):  # type: ignore[misc,valid-type]  # pyright: ignore[reportGeneralTypeIssues,reportUntypedBaseClass]
        def get(self, task_id: str) -> Flow[Task]:
            response = yield self.request("GET", f"/tasks/{task_id}")
            payload = self.payload(response)
            response.retry_after = payload.maybe_number("poll_after")
            task: Task = self.task(payload, task_id)
            return task

    running = says("t1", "working", poll_after=20)
    responses = iter([running, running, says("t1", "done")])  # the second is not translated again
    harness = acme(lambda _: next(responses), provider=Telling, poll={"interval": 1.0})
    assert answered(harness) == [20.0, 20.0]


@pytest.mark.parametrize(("held", "long_polls"), [(30.0, 3), (1.0, 1)])
def test_a_long_poll_that_ends_before_the_task_is_renewed_if_it_was_long(
    held: float, long_polls: int, acme: Maker, says: Says, clock: VirtualClock
) -> None:
    def vendor(request: Request) -> Response:
        counts[request.long_poll is not None] += 1
        if request.long_poll is not None:
            clock.advance(held)
        return says("t1", "done" if sum(counts.values()) == 4 else "working")

    counts = {True: 0, False: 0}
    harness = acme(vendor, sync_url="https://sync.acme.test/v1")
    assert harness.client.wait("t1").status == "completed"
    assert counts[True] == long_polls


# States outside the body.


def outside(acme_type: type[Acme], *, by_header: bool) -> type[Acme]:
    """A vendor that tells the state by its HTTP status, or by a header; its bodies are all the same."""

    class Outside(acme_type):  # type: ignore[misc,valid-type]  # pyright: ignore[reportGeneralTypeIssues,reportUntypedBaseClass]
        def get(self, task_id: str) -> Flow[Task]:
            response = yield self.request("GET", f"/tasks/{task_id}")
            self.payload(response)
            word = response.headers.get("x-state", "working") if by_header else str(response.status)
            done = word in ("done", "200")
            return Task(
                provider=self.name,
                connection=self.connection,
                observed_at=response.received_at,
                id=task_id,
                native_id=task_id,
                status=TaskStatus.COMPLETED if done else TaskStatus.PROCESSING,
                native_status=word,
            )

    return Outside


def response_of(state: str, *, by_header: bool, number: int) -> Response:
    headers = {"x-request-id": str(number), **({"x-state": state} if by_header else {})}
    return Response(202 if state == "working" and not by_header else 200, headers, json.dumps({}).encode())


@pytest.fixture(params=[True, False], ids=["header", "status"])
def by_header(request: pytest.FixtureRequest) -> bool:
    found: bool = request.param
    return found


def test_a_wait_sees_the_end_although_the_body_is_the_same(by_header: bool, acme: Maker, acme_type: type[Acme]) -> None:
    words = iter(["working", "working", "done"])
    numbers = iter(range(9))
    harness = acme(
        lambda _: response_of(next(words), by_header=by_header, number=next(numbers)),
        provider=outside(acme_type, by_header=by_header),
    )
    assert harness.client.wait("t1").status == "completed"
    assert harness.client.stats()["acme"].unchanged == 1  # a header that the provider does not read changes nothing


def test_a_wait_that_times_out_holds_the_state(by_header: bool, acme: Maker, acme_type: type[Acme]) -> None:
    harness = acme(
        lambda _: response_of("working", by_header=by_header, number=0),
        provider=outside(acme_type, by_header=by_header),
    )
    with pytest.raises(tb.WaitTimeout) as caught:
        harness.client.wait("t1", timeout=20.0)
    assert caught.value.task is not None
    assert caught.value.task.status == "processing"
    assert caught.value.task.native_status == ("working" if by_header else "202")
