"""When Kiln is asked again: never before the time that it said, and at once when it holds the request."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import taskbridge as tb
from taskbridge.emulator import Plan

if TYPE_CHECKING:
    from taskbridge.testing import Emulator, VirtualClock

DOCUMENT = b"%PDF-1.4"


@pytest.fixture
def kiln(taskbridge_clock: VirtualClock, taskbridge_emulator: Callable[..., Emulator]) -> Emulator:
    del taskbridge_clock
    return taskbridge_emulator("kiln")


def connect(kiln: Emulator, **settings: Any) -> tb.Client:
    return tb.connect("kiln", **kiln.settings("kiln"), **settings)


def test_it_is_not_asked_before_the_time_that_it_said(kiln: Emulator) -> None:
    kiln.plan_next("kiln", Plan(queued=90, working=45))
    with connect(kiln, hold=0, poll={"interval": 1.0}) as client:
        task = client.wait(client.submit("extract-text", DOCUMENT, name="a.pdf"))
    assert task.result is not None
    assert task.result.text == "Text of a.pdf"
    pauses = [after.time - before.time for before, after in pairwise(kiln.requests)]
    # One after the submission; then the two times of the queue (60 and the rest), and that of the burning job.
    assert pauses[1:] == pytest.approx([60.0, 30.0 - pauses[0], 45.0], abs=1.5)


def test_a_held_request_is_repeated_until_the_job_is_over(kiln: Emulator) -> None:
    kiln.plan_next("kiln", Plan(queued=0, working=150))
    with connect(kiln) as client:
        task = client.wait(client.submit("extract-text", DOCUMENT))
    assert (task.status, task.native_status) == ("completed", "200")
    held = [request for request in kiln.requests if "hold" in request.query]
    assert [request.status for request in held] == [202, 202, 200]


def test_a_wait_that_times_out_shows_a_running_job(kiln: Emulator) -> None:
    kiln.plan_next("kiln", Plan(queued=0, outcome="stuck"))
    with connect(kiln, hold=0) as client, pytest.raises(tb.WaitTimeout) as caught:
        client.wait(client.submit("extract-text", DOCUMENT), timeout=300.0)
    assert caught.value.task is not None
    assert (caught.value.task.status, caught.value.task.native_status) == ("processing", "202")
