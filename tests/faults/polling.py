"""`get` and `wait` of both clients behind the same functions."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias, get_args

import taskbridge as tb
from taskbridge import aio
from taskbridge.errors import TaskbridgeError
from taskbridge.models import Task

from .vendors import Vendor

Driver: TypeAlias = Literal["sync", "async"]
DRIVERS: Final[tuple[Driver, ...]] = get_args(Driver)

TRANSPORTS: Final[dict[Driver, str]] = (
    {"sync": "curl", "async": "requests"}
    if os.environ.get("TASKBRIDGE_TEST_TRANSPORTS") == "swapped"
    else {"sync": "requests", "async": "curl"}
)
"""The transport that each client uses here; a second run of the suite swaps them."""

QUICK: Final[dict[str, Any]] = {
    "request_timeout": 30.0,
    "retry": {"attempts": 3, "first": 0.0, "at_most": 0.0},
    "poll": {"interval": 0.01},
    "max_body": 1 << 20,
}
"""Settings without needless waits."""


def get_task(driver: Driver, vendor: Vendor, url: str, **settings: Any) -> Task | TaskbridgeError:
    """Get a task once; return it or the error. A setting that is None is left out."""
    return get_repeatedly(driver, vendor, url, 1, **settings)[0]


def get_repeatedly(
    driver: Driver, vendor: Vendor, url: str, times: int, **settings: Any
) -> Sequence[Task | TaskbridgeError]:
    """Get a task several times with one client."""
    chosen = _settings(driver, vendor, url, settings)
    if driver == "sync":
        with tb.connect(vendor.name, **chosen) as client:
            return [_get_or_error(client, vendor.id) for _ in range(times)]
    return asyncio.run(_get_repeatedly(vendor, times, chosen))


def _settings(driver: Driver, vendor: Vendor, url: str, settings: dict[str, Any]) -> dict[str, Any]:
    chosen: dict[str, Any] = {**QUICK, "transport": TRANSPORTS[driver], **vendor.settings(url), **settings}
    return {key: value for key, value in chosen.items() if value is not None}


def _get_or_error(client: tb.Client, task_id: str) -> Task | TaskbridgeError:
    try:
        return client.get(task_id)
    except TaskbridgeError as error:
        return error


async def _get_repeatedly(vendor: Vendor, times: int, settings: dict[str, Any]) -> Sequence[Task | TaskbridgeError]:
    seen: list[Task | TaskbridgeError] = []
    async with aio.connect(vendor.name, **settings) as client:
        for _ in range(times):
            try:
                seen.append(await client.get(vendor.id))
            except TaskbridgeError as error:
                seen.append(error)
    return seen


def wait(
    driver: Driver, vendor: Vendor, url: str, timeout: float, **settings: Any
) -> tuple[list[Task], Task | TaskbridgeError]:
    """Wait for a task; return the updates on the way and the task or the error."""
    chosen = _settings(driver, vendor, url, settings)
    updates: list[Task] = []
    try:
        if driver == "async":
            return updates, asyncio.run(_wait(vendor, chosen, timeout, updates))
        with tb.connect(vendor.name, **chosen) as client:
            return updates, client.wait(vendor.id, timeout=timeout, on_update=updates.append)
    except TaskbridgeError as error:
        return updates, error


async def _wait(vendor: Vendor, settings: dict[str, Any], seconds: float, updates: list[Task]) -> Task:
    async with aio.connect(vendor.name, **settings) as client:
        return await client.wait(vendor.id, timeout=seconds, on_update=updates.append)
