"""Progress bars of rich and tqdm, updated by events."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress
from tqdm import tqdm

import taskbridge as tb
from taskbridge.progress import ProgressTracker, Rich, Tqdm
from taskbridge.provider.http import Request, Response
from taskbridge.provider.payload import Payload

from .conftest import Acme, Maker


class WithProgress(Acme):
    """Acme with reported progress."""

    def task(self, payload: Payload, task_id: str) -> tb.Task:
        return replace(super().task(payload, task_id), progress=payload.maybe_fraction("percent", 100.0))


def answer(state: str, **more: Any) -> Response:
    return Response(200, {}, json.dumps({"id": "t1", "state": state, **more}).encode())


def mixed(request: Request) -> Response:
    """Complete tasks, except `bad` ones, which fail."""
    task_id = request.url.rpartition("/")[2]
    return Response(200, {}, json.dumps({"id": task_id, "state": "broken" if "bad" in task_id else "done"}).encode())


def test_a_tracker_counts_ended_tasks_and_adds_reported_progress(acme: Maker) -> None:
    script = [answer("waiting"), answer("working", percent=25), answer("working", percent=50), answer("done")]
    harness = acme(script, provider=WithProgress, poll={"interval": 1.0})
    tracker = ProgressTracker()
    steps: list[float] = []
    with harness.client.observe(tracker), harness.client.observe(lambda _: steps.append(tracker.done)):
        harness.client.wait("t1")
    assert sorted(set(steps)) == [0.0, 0.25, 0.5, 1.0]
    assert (tracker.total, tracker.ended, tracker.failed) == (1, 1, 0)


def many(harness: Any, observer: Any) -> None:
    with harness.client, harness.client.observe(observer):
        harness.client.wait_all(["t1", "t2", "bad1", "t1", "\0"], timeout=None)


def test_a_tracker_counts_duplicates_failures_and_invalid_ids(acme: Maker) -> None:
    tracker = ProgressTracker()
    many(acme(mixed), tracker)
    assert (tracker.total, tracker.ended, tracker.failed, tracker.done) == (5, 5, 2, 5.0)


def test_a_bar_of_rich_ends_full_and_shows_failures(acme: Maker) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with Progress(console=console) as bars:
        many(acme(mixed), Rich(bars, "invoices"))
        (bar,) = bars.tasks
    assert (bar.total, bar.completed, bar.finished) == (5, 5.0, True)
    assert bar.description == "invoices, 2 not completed"


def test_a_bar_of_tqdm_ends_full_and_shows_failures(acme: Maker) -> None:
    out = io.StringIO()
    with tqdm(file=out) as bar:
        many(acme(mixed), Tqdm(bar))
        assert (bar.n, bar.total) == (5, 5)
    assert "5/5" in out.getvalue()
    assert "2 not completed" in out.getvalue()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Rich(Progress(console=Console(file=io.StringIO()))),
        lambda: Tqdm(tqdm(file=io.StringIO())),
    ],
    ids=["rich", "tqdm"],
)
def test_a_bar_can_be_an_on_update(acme: Maker, make: Callable[[], Rich | Tqdm]) -> None:
    harness = acme([answer("working", percent=40), answer("done")], provider=WithProgress, poll={"interval": 1.0})
    bar = make()
    harness.client.wait("t1", on_update=bar)
    assert (bar.total, bar.ended, bar.done) == (1, 1, 1.0)


def test_a_wait_that_times_out_counts_as_ended_and_failed(acme: Maker) -> None:
    harness = acme([answer("working", percent=40)], provider=WithProgress, poll={"interval": 60.0})
    tracker = ProgressTracker()
    with harness.client.observe(tracker), pytest.raises(tb.WaitTimeout):
        harness.client.wait("t1", timeout=5.0)
    assert (tracker.ended, tracker.failed) == (1, 1)
