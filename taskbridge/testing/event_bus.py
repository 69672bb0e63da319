"""What every `taskbridge.EventBus` must do."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from taskbridge.event_bus import EventBus
from taskbridge.models import Task, TaskRef, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskbridge.event_bus import TaskUpdate

_THREADS: Final = 8


def check_event_bus(make: Callable[[str], EventBus], *, shared: bool = True) -> None:
    """Check an implementation of `taskbridge.EventBus`; needs no test framework.

    The keys are new ones each time, so it can be used with a database that has contents.

    Args:
        make: Makes the event bus of a connection from its name, as for `taskbridge.connect`.
        shared: Whether two of the same connection must know of each other's claims, as those of two processes do.

    Raises:
        AssertionError: It does something else; the text says what.
    """
    bus, other = make("scans"), make("invoices")
    is_whole = isinstance(bus, EventBus)  # pyright: ignore[reportUnnecessaryIsInstance]  # it need not be typed
    _require(is_whole, "it has all parts of taskbridge.EventBus")
    _check_claims(bus, other)
    if shared:
        _check_sharing(bus, make("scans"))
    _check_ends(bus)
    _check_listeners(bus)


def _require(is_true: object, rule: str) -> None:
    if not is_true:
        raise AssertionError(f"not true of this event bus: {rule}")


def _check_claims(bus: EventBus, other: EventBus) -> None:
    key = f"check-{uuid4()}"
    _require(bus.claim(key), "a new event can be claimed")
    _require(not bus.claim(key), "an event that is being processed cannot be claimed again")
    _require(not bus.is_settled(key), "an event that is being processed is not settled")
    _require(other.claim(key), "an event of another connection is another event")
    bus.release(key)
    _require(bus.claim(key), "an event that was released can be claimed again")
    bus.settle(key)
    _require(not bus.claim(key), "an event that was settled cannot be claimed again")
    _require(bus.is_settled(key), "an event that was settled is settled")
    _require(not other.is_settled(key), "an event that was settled is not settled for another connection")
    bus.release(key)
    _require(not bus.is_settled(key), "an event that was settled and then released is not settled")
    _require(bus.claim(key), "an event that was settled and then released can be claimed again")
    bus.release(f"check-{uuid4()}")  # of an event that is not known; it must not raise
    long = f"check-{uuid4()}" + "x" * 5000
    _require(bus.claim(f"{long}1") and bus.claim(f"{long}2"), "long keys that differ at their end are two events")
    _require(not bus.claim(f"{long}1"), "an event with a long key cannot be claimed again")
    raced, start = f"check-{uuid4()}", threading.Barrier(_THREADS)

    def claim(_: int) -> bool:
        start.wait()
        return bus.claim(raced)

    with ThreadPoolExecutor(_THREADS) as pool:
        claimed = sum(pool.map(claim, range(_THREADS)))
    _require(claimed == 1, f"of several threads one gets an event, not {claimed}")
    doubted = f"check-{uuid4()}"
    _require(bus.doubt(doubted), "the first doubt is the first")
    _require(not bus.doubt(doubted), "the second doubt is not the first")
    _require(bus.claim(doubted), "an event in doubt can be claimed")


def _check_sharing(bus: EventBus, twin: EventBus) -> None:
    key = f"check-{uuid4()}"
    _require(bus.claim(key) and not twin.claim(key), "an event is claimed once by all of the same connection")
    twin.release(key)
    _require(bus.claim(key), "a release holds for all of the same connection")
    bus.settle(key)
    _require(twin.is_settled(key), "a settled event is settled for all of the same connection")
    _require(bus.doubt(key) and not twin.doubt(key), "a doubt holds for all of the same connection")


def _task(status: TaskStatus) -> Task:
    name = f"check-{uuid4()}"
    return Task(
        provider="check", connection="scans", id=name, native_id=name, status=status, observed_at=datetime.now(UTC)
    )


def _check_ends(bus: EventBus) -> None:
    ended, running = _task(TaskStatus.COMPLETED), _task(TaskStatus.PROCESSING)
    bus.record(running)
    bus.record(ended)
    _require(bus.has_ended(ended.ref), "a task that was recorded as ended has ended")
    _require(not bus.has_ended(running.ref), "a task that was recorded as running has not ended")


def _check_listeners(bus: EventBus) -> None:
    task, other = _task(TaskStatus.COMPLETED), _task(TaskStatus.COMPLETED)
    of_one: list[TaskUpdate] = []
    of_all: list[TaskUpdate] = []
    stops = [bus.listen(of_one.append, task.ref), bus.listen(of_all.append)]
    updates: list[TaskUpdate] = [task, TaskRef(other.ref), None]
    for update in updates:
        bus.publish(update)
    _require(of_one == [task, None], "a listener of one task gets the updates of this task, and None")
    _require(of_all == updates, "a listener of all tasks gets every update")
    for stop in stops:
        stop()
        stop()  # once more is harmless
    bus.publish(task)
    _require(of_one == [task, None] and of_all == updates, "a listener that was stopped gets nothing")
