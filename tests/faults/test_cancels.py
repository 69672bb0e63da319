"""Every row of the catalogue injected into a cancel: it is sent once, and the error is that of `get` (P6)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Final

import pytest

import taskbridge as tb
from taskbridge import aio
from taskbridge.errors import DeadlineExceeded, InvalidRequest, TaskbridgeError, TaskNotFound, TruncatedResponse
from taskbridge.models import Task, TaskStatus

from .catalogue import ROWS
from .conftest import Place
from .polling import DRIVERS, QUICK, TRANSPORTS, Driver
from .rows import Row, not_sent
from .server import FIN, READ, answer
from .submitting import cancel_is_retried
from .vendors import CANARY, VENDORS, Vendor

CLOUDCONVERT: Final = VENDORS["cloudconvert"]


def cases() -> Iterator[Any]:
    rows = [row for row in ROWS if row.error is not None and row.applies_to(CLOUDCONVERT)]
    for number, row in enumerate(rows):
        driver = DRIVERS[number % 2]
        yield pytest.param(row, driver, id=f"{row.name}-{driver}")


def cancel(driver: Driver, vendor: Vendor, url: str, **settings: Any) -> Task | TaskbridgeError:
    chosen: dict[str, Any] = {**QUICK, "transport": TRANSPORTS[driver], **vendor.settings(url), **settings}
    chosen = {key: value for key, value in chosen.items() if value is not None}

    async def send() -> Task:
        async with aio.connect(vendor.name, **chosen) as client:
            return await client.cancel(vendor.id)

    try:
        if driver == "async":
            return asyncio.run(send())
        with tb.connect(vendor.name, **chosen) as client:
            return client.cancel(vendor.id)
    except TaskbridgeError as error:
        return error


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize(("row", "driver"), list(cases()))
def test_cancel_meets_each_fault(row: Row, driver: Driver, places: dict[str, Place]) -> None:
    vendor, place = CLOUDCONVERT, places[row.where]
    error = row.error_of(vendor)
    if error is TaskNotFound and row.id == "F12":
        error = TruncatedResponse  # only a second response of the same kind would count by its status
    scripts = list(row.script(vendor))
    if error is InvalidRequest:  # a rejection may mean that the task has ended: its status shows that it has not
        scripts.append((READ, answer(200, vendor.processing), FIN))
    play = place.server.play(*scripts) if place.server else None
    settings: dict[str, Any] = {**place.settings, **row.settings}
    if row.attempts != 3:
        settings["retry"] = {"attempts": row.attempts, "first": 0.0, "at_most": 0.0}
    seen = cancel(driver, vendor, place.url, **settings)
    assert isinstance(seen, TaskbridgeError)
    assert type(seen) is error, repr(seen)
    assert CANARY not in f"{seen} {seen!r} {seen.args} {seen.__dict__}"
    if row.check is not_sent:
        not_sent(vendor, seen)
    if play is None:
        return
    targets = [each.target for each in play.requests if each.method == "GET"]
    assert targets == ([vendor.target] if error is InvalidRequest else [])
    if not cancel_is_retried(row, vendor):
        assert play.arrived - len(targets) == 1
    elif error is DeadlineExceeded:
        assert 1 <= play.arrived <= row.requests
    else:
        assert play.arrived == row.requests


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("status", [400, 409, 422])
def test_a_late_cancel_returns_the_finished_task(status: int, driver: Driver, places: dict[str, Place]) -> None:
    place = places["plain"]
    assert place.server is not None
    play = place.server.play((READ, answer(status, b"{}"), FIN), (READ, answer(200, CLOUDCONVERT.completed), FIN))
    seen = cancel(driver, CLOUDCONVERT, place.url)
    assert isinstance(seen, Task), repr(seen)
    assert seen.status is TaskStatus.COMPLETED
    assert [each.method for each in play.requests] == ["POST", "GET"]
