"""Every row of the catalogue, at every vendor, through both clients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest

from taskbridge.errors import (
    DeadlineExceeded,
    IdentityMismatch,
    InvalidTaskId,
    TaskbridgeError,
    TaskNotFound,
    WaitTimeout,
)
from taskbridge.models import Task, TaskStatus

from .catalogue import ROWS
from .conftest import Place
from .polling import DRIVERS, Driver, get_repeatedly, get_task, wait
from .rows import Row
from .server import FIN, READ, answer
from .vendors import CANARY, VENDORS, Vendor

CASES: Final = [
    pytest.param(row, VENDORS[name], id=f"{row.name}-{name}")
    for row in ROWS
    for name in VENDORS
    if row.applies_to(VENDORS[name])
]
# That a wait keeps the state does not depend on the vendor: one vendor per row, many rows per vendor, and one client
# if a time limit runs out.
WAITS: Final = [
    pytest.param(row, vendor, driver, id=f"{row.name}-{vendor.name}-{driver}")
    for n, row in enumerate(row for row in ROWS if row.error is not None and row.where == "plain")
    for vendor in [
        [v for v in VENDORS.values() if row.applies_to(v)][n % sum(row.applies_to(v) for v in VENDORS.values())]
    ]
    for driver in (DRIVERS[n % 2 :][:1] if row.pauses or row.error is DeadlineExceeded else DRIVERS)
]


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(("row", "vendor"), CASES)
def test_get_meets_each_fault(row: Row, vendor: Vendor, driver: Driver, places: dict[str, Place]) -> None:
    place = places[row.where]
    play = place.server.play(*row.script(vendor)) if place.server else None
    settings: dict[str, Any] = {**place.settings, **row.settings}
    if row.attempts != 3:
        settings["retry"] = {"attempts": row.attempts, "first": 0.0, "at_most": 0.0}
    seen = get_task(driver, vendor, place.url, **settings)
    error = row.error_of(vendor)
    if error is None:
        assert isinstance(seen, Task), repr(seen)
        assert seen.id == vendor.id
    else:
        assert isinstance(seen, TaskbridgeError)
        assert type(seen) is error, f"{type(seen).__name__}: {seen}"
        _check_error(seen, row, vendor)
    if play is not None:
        if error is DeadlineExceeded:
            assert 1 <= play.arrived <= row.requests
            assert play.finished == 0, "the server sent its whole script"
        else:
            assert play.arrived == row.requests
        assert all(CANARY in each.raw.decode("latin-1") for each in play.requests)
    row.check(vendor, seen)


def _check_error(seen: TaskbridgeError, row: Row, vendor: Vendor) -> None:
    assert row.message in seen.message
    assert (seen.provider, seen.connection, seen.ref) == (vendor.name, vendor.name, f"{vendor.name}:{vendor.id}")
    assert CANARY not in f"{seen} {seen!r} {seen.args} {seen.raw} {seen.__dict__}"
    assert (seen.__cause__, seen.__context__ if seen.__suppress_context__ is False else None) == (None, None)
    if row.attempts == row.requests and row.error is not DeadlineExceeded:
        assert f"after {row.requests} attempts" in seen.message
    if row.requests > 1 and not isinstance(seen, TaskNotFound):  # a wait asks again for what may be new
        assert seen.retryable is not row.ends_wait


@pytest.mark.parametrize(("row", "vendor", "driver"), WAITS)
def test_a_failed_poll_keeps_the_state(row: Row, vendor: Vendor, driver: Driver, places: dict[str, Place]) -> None:
    place = places[row.where]
    assert place.server is not None
    before, after = (READ, answer(200, vendor.processing), FIN), (READ, answer(200, vendor.completed), FIN)
    faults = list(row.script(vendor)) * (row.requests if row.ends_wait else 1)
    if row.requests == 2 and row.error_of(vendor) in TWICE:
        faults *= 2
    place.server.play(before, *faults, after)
    updates, end = wait(driver, vendor, place.url, 0.5 if row.pauses else 60.0, **row.settings)
    states = [task.status for task in updates]
    if row.ends_wait:
        assert type(end) is row.error_of(vendor)
        assert states == [TaskStatus.PROCESSING]
    elif row.pauses:
        assert isinstance(end, WaitTimeout)
        assert end.task is not None
        assert end.task.status is TaskStatus.PROCESSING
        assert states == [TaskStatus.PROCESSING]
    else:
        assert isinstance(end, Task), repr(end)
        assert states == [TaskStatus.PROCESSING, TaskStatus.COMPLETED]


TWICE: Final = frozenset({IdentityMismatch})  # one `get` sends two requests before it raises this


IDS: Final = (
    "..", ".", "", "../../admin", "%2e%2e", "a/b", "a?x", "a#f", "a\r\nX: y", "a\0", "a" * 10_000, "//evil/x", " 44",
    "44\n", "\ud800",
)  # fmt: skip


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("name", VENDORS)
def test_f61_an_invalid_id_is_not_sent(name: str, driver: Driver, places: dict[str, Place]) -> None:
    place = places["plain"]
    assert place.server is not None
    play = place.server.play((READ, answer(200, b"{}"), FIN))
    for text in IDS:
        assert type(get_task(driver, replace(VENDORS[name], id=text), place.url)) is InvalidTaskId, repr(text)
    assert play.connections == 0


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("name", VENDORS)
def test_f57_get_returns_what_the_vendor_reports(name: str, driver: Driver, places: dict[str, Place]) -> None:
    vendor = VENDORS[name]
    place = places["plain"]
    assert place.server is not None
    bodies = [vendor.body(vendor.words[1]), vendor.body(current=80), vendor.body(current=20)]
    place.server.play(*[(READ, answer(200, each), FIN) for each in bodies])
    tasks = [seen for seen in get_repeatedly(driver, vendor, place.url, 3) if isinstance(seen, Task)]
    assert [task.status for task in tasks] == [TaskStatus.COMPLETED, TaskStatus.PROCESSING, TaskStatus.PROCESSING]
    if name == "expertai-extract":
        assert [task.progress for task in tasks[1:]] == [0.8, 0.2]
