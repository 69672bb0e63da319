"""What is remembered under words from outside is bounded, in number and in length."""

from __future__ import annotations

import gc
import json
import logging
import re
import tracemalloc
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING, Any, Final

import pytest

from taskbridge.event_bus import KEPT, MemoryEventBus
from taskbridge.models import Task, TaskStatus
from taskbridge.provider.capabilities import IdKind
from taskbridge.provider.http import Request, Response
from taskbridge.provider.payload import Payload

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from .conftest import Acme, Maker

LONG: Final = 100_000  # characters
MANY: Final = 200


@contextmanager
def kept_memory() -> Generator[Callable[[], int]]:
    """Measure the bytes that are allocated in a block and still in use."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]

        def kept() -> int:
            gc.collect()
            return tracemalloc.get_traced_memory()[0] - before

        yield kept
    finally:
        tracemalloc.stop()


def with_operations(acme: type[Acme]) -> type[Acme]:
    class WithOperations(acme):  # type: ignore[misc, valid-type]
        def task(self, payload: Payload, task_id: str) -> Task:
            task: Task = super().task(payload, task_id)
            return replace(task, operation=payload.maybe_text("operation"))

    return WithOperations


@pytest.mark.parametrize("padding", [0, LONG], ids=["many", "long"])
def test_durations_are_learned_for_a_bounded_number_of_operations(
    padding: int, acme: Maker, acme_type: type[Acme]
) -> None:
    polls: dict[str, int] = {}

    def vendor(request: Request) -> Response:
        task_id = request.url.rpartition("/")[2]
        polls[task_id] = polls.get(task_id, 0) + 1
        state = "done" if polls[task_id] > 1 else "working"
        document = {"id": task_id, "state": state, "operation": f"{task_id}{'x' * padding}"}
        return Response(200, {}, json.dumps(document).encode())

    harness = acme(vendor, provider=with_operations(acme_type))
    with kept_memory() as kept:
        for number in range(MANY):
            assert harness.client.wait(f"t{number}").status == "completed"
        assert kept() < 2_000_000
    assert set(harness.client.stats()["acme"].durations) == {""}  # all but the first few share a model


def test_a_bounded_number_of_unknown_words_is_logged(acme: Maker, says: Any, caplog: pytest.LogCaptureFixture) -> None:
    words = iter(range(10 * MANY))
    harness = acme(lambda _: says("t1", f"word-{next(words)}"))
    for _ in range(MANY):
        assert not harness.client.get("t1").recognized
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 100


def test_long_keys_of_events_are_remembered_by_their_digest() -> None:
    bus = MemoryEventBus()
    with kept_memory() as kept:
        for number in range(MANY):
            assert bus.claim(f"{'x' * LONG}{number}")
        assert kept() < 1_000_000
    assert not bus.claim(f"{'x' * LONG}7")
    bus.release(f"{'x' * LONG}7")
    assert bus.claim(f"{'x' * LONG}7")
    assert bus.claim("\ud800" * LONG)
    assert KEPT > MANY


def test_long_ids_are_not_remembered(acme: Maker, acme_type: type[Acme]) -> None:
    class WithLongIds(acme_type):  # type: ignore[misc, valid-type]
        capabilities = replace(acme_type.capabilities, kinds=(IdKind(re.compile("x*[0-9]+"), example="x1"),))

    provider = acme(provider=WithLongIds).connection.provider
    with kept_memory() as kept:
        for number in range(MANY):
            provider.split_id(f"{'x' * LONG}{number}")
        assert kept() < 1_000_000


def test_the_times_of_the_last_submissions_are_kept(acme: Maker) -> None:
    connection = acme().connection
    for n in range(KEPT + 1):
        connection.note_submitted(named(f"t{n}"))
    assert connection.submitted_at("t0") == -inf
    assert min(connection.submitted_at("t1"), connection.submitted_at(f"t{KEPT}")) > -inf


def named(task_id: str) -> Task:
    """Return a task with this id."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    status = TaskStatus.PENDING
    return Task(
        provider="acme", connection="acme", id=task_id, native_id=task_id, status=status, native_status="queued",
        operation=None, observed_at=now,
    )  # fmt: skip
