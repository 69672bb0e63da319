"""The public interface, synchronous and asynchronous, behind the same few functions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias, get_args

import taskbridge as tb
from taskbridge import aio
from taskbridge.errors import TaskbridgeError
from taskbridge.models import Task

from .vendors import Vendor

__all__ = ["DRIVERS", "QUICK", "Driver", "look", "look_in_turn", "wait"]

Driver: TypeAlias = Literal["sync", "async"]
DRIVERS: Final[tuple[Driver, ...]] = get_args(Driver)

QUICK: Final[dict[str, Any]] = {
    "request_timeout": 30.0,
    "retry": {"attempts": 3, "first": 0.0, "at_most": 0.0},
    "poll": {"interval": 0.01},
    "max_body": 1 << 20,
}
"""Settings with which nothing waits longer than it must."""


def look(driver: Driver, vendor: Vendor, url: str, **settings: Any) -> Task | TaskbridgeError:
    """One look-up: the task, or the error. A setting that is None is left out."""
    return look_in_turn(driver, vendor, url, 1, **settings)[0]


def look_in_turn(
    driver: Driver, vendor: Vendor, url: str, times: int, **settings: Any
) -> Sequence[Task | TaskbridgeError]:
    """Several look-ups of one client, one after the other."""
    chosen = _settings(vendor, url, settings)
    if driver == "sync":
        with tb.connect(vendor.name, **chosen) as client:
            return [_seen(client, vendor.id) for _ in range(times)]
    return asyncio.run(_looks(vendor, times, chosen))


def _settings(vendor: Vendor, url: str, settings: dict[str, Any]) -> dict[str, Any]:
    chosen = {**QUICK, **vendor.settings(url), **settings}
    return {key: value for key, value in chosen.items() if value is not None}


def _seen(client: tb.Client, task_id: str) -> Task | TaskbridgeError:
    try:
        return client.get(task_id)
    except TaskbridgeError as error:
        return error


async def _looks(vendor: Vendor, times: int, settings: dict[str, Any]) -> Sequence[Task | TaskbridgeError]:
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
    """One wait: the snapshots told on the way, and how it ended."""
    chosen = _settings(vendor, url, settings)
    told: list[Task] = []
    try:
        if driver == "async":
            return told, asyncio.run(_wait(vendor, chosen, timeout, told))
        with tb.connect(vendor.name, **chosen) as client:
            return told, client.wait(vendor.id, timeout=timeout, on_update=told.append)
    except TaskbridgeError as error:
        return told, error


async def _wait(vendor: Vendor, settings: dict[str, Any], seconds: float, told: list[Task]) -> Task:
    async with aio.connect(vendor.name, **settings) as client:
        return await client.wait(vendor.id, timeout=seconds, on_update=told.append)
