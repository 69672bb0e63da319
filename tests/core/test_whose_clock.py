"""How old a task is: by the vendor's own clock, and never older than this process knows it to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

import taskbridge as tb
from taskbridge.models import Task
from taskbridge.provider.http import Request, Response
from taskbridge.testing import VirtualClock

from .conftest import Acme, AcmeHarness, Maker

Says = Callable[..., Response]
YEAR = 365 * 86_400.0


@pytest.fixture
def dated(acme: Maker, acme_type: type[Acme], says: Says, clock: VirtualClock) -> Callable[..., AcmeHarness]:
    """A vendor whose clock is off, with a task of that age that is never done; it may send no ``Date``."""

    class Dated(acme_type):  # type: ignore[misc,valid-type]  # pyright: ignore[reportGeneralTypeIssues,reportUntypedBaseClass]
        def task(self, payload: Any, task_id: str) -> Task:
            task: Task = super().task(payload, task_id)
            return replace(task, created_at=payload.maybe_time("created_at"))

    def make(ahead: float, age: float, *, date: bool = True) -> AcmeHarness:
        def now() -> datetime:
            return clock.now() + timedelta(seconds=ahead)

        created_at = (now() - timedelta(seconds=age)).isoformat()

        def vendor(_: Request) -> Response:
            response = says("t1", "working", created_at=created_at)
            headers = {"date": format_datetime(now(), usegmt=True)} if date else {}
            return Response(response.status, headers, response.body)

        return acme(vendor, provider=Dated)

    return make


def first_pause(harness: AcmeHarness, task: Any = "t1") -> float:
    with pytest.raises(tb.WaitTimeout):
        harness.client.wait(task, timeout=60.0)
    return harness.clock.slept[0]


@pytest.mark.parametrize("ahead", [0.0, -3 * 3600.0, 3 * 3600.0, -YEAR, YEAR])
def test_a_clock_that_is_off_makes_no_task_older(ahead: float, dated: Callable[..., AcmeHarness]) -> None:
    assert first_pause(dated(ahead, age=0.0)) <= 1.0


@pytest.mark.parametrize("ahead", [0.0, -YEAR, YEAR])
def test_an_old_task_is_old_by_any_clock(ahead: float, dated: Callable[..., AcmeHarness]) -> None:
    assert first_pause(dated(ahead, age=7200.0)) >= 20.0


def test_without_a_date_the_age_is_what_was_seen(dated: Callable[..., AcmeHarness]) -> None:
    assert first_pause(dated(-3 * 3600.0, age=0.0, date=False)) <= 1.0


def test_a_task_that_was_submitted_here_is_no_older(dated: Callable[..., AcmeHarness]) -> None:
    harness = dated(0.0, age=3 * 3600.0)  # as if its times were those of another zone
    harness.connection.note_submitted(harness.client.get("t1"))
    assert first_pause(harness) <= 1.0


def test_a_snapshot_of_the_caller_makes_no_task_older(dated: Callable[..., AcmeHarness]) -> None:
    harness = dated(-YEAR, age=0.0)
    assert first_pause(harness, harness.client.get("t1")) <= 1.0
