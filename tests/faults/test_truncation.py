"""A valid response truncated at every byte: the task if it is complete, otherwise a retryable error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from taskbridge.errors import MalformedResponse, TruncatedResponse
from taskbridge.models import Task, TaskStatus

from .conftest import Place
from .polling import DRIVERS, Driver, get_task
from .server import FIN, READ, RST, Action, answer, chunked, gzipped
from .vendors import VENDORS, Vendor

pytestmark = pytest.mark.slow

STEPS: Final[dict[Driver, int]] = {"sync": 1, "async": 5}  # a second run of the suite swaps the transports
ONCE: Final = {"attempts": 1, "first": 0.0, "at_most": 0.0}


def check(driver: Driver, vendor: Vendor, place: Place, whole: bytes, offset: int, *, end: Action = FIN) -> None:
    assert place.server is not None
    place.server.play((READ, whole[:offset], end))
    seen = get_task(driver, vendor, place.url, retry=ONCE)
    if isinstance(seen, Task):
        assert seen.status is TaskStatus.COMPLETED
        assert offset == len(whole), f"taken for whole at byte {offset}"
        return
    assert isinstance(seen, TruncatedResponse | MalformedResponse), f"{offset}: {seen!r}"
    assert seen.retryable, f"{offset}: {seen!r}"
    # A reset may overtake the last bytes.
    assert offset < len(whole) or end is RST


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("name", VENDORS)
def test_a_response_truncated_at_every_byte(name: str, driver: Driver, places: dict[str, Place]) -> None:
    vendor = VENDORS[name]
    whole = answer(200, vendor.completed)
    for offset in range(0, len(whole) + 1, STEPS[driver]):
        check(driver, vendor, places["plain"], whole, offset)
    for offset in range(0, len(whole) + 1, 7):
        check(driver, vendor, places["plain"], whole, offset, end=RST)


FRAMES: Final[dict[str, tuple[str, Callable[[bytes], bytes]]]] = {
    "chunked": ("scan-documents", lambda body: chunked(body, 50)),
    "until the end": ("smartdocumentor", lambda body: answer(200, body, length=False)),
    "gzip": ("expertai-extract", lambda body: answer(200, gzipped(body), "Content-Encoding: gzip")),
}


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("frame", FRAMES)
def test_other_framings_truncated_at_every_byte(frame: str, driver: Driver, places: dict[str, Place]) -> None:
    name, build = FRAMES[frame]
    vendor = VENDORS[name]
    whole = build(vendor.completed)
    for offset in range(0, len(whole) + 1, STEPS[driver]):
        check(driver, vendor, places["plain"], whole, offset)
