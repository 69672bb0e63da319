"""Downloads with both clients behind one function."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import taskbridge as tb
from taskbridge import aio
from taskbridge.models import Task, TaskFile

from .polling import QUICK, TRANSPORTS, Driver
from .vendors import VENDORS


class ProgressLog(list[tuple[int, "int | None"]]):
    """Records the calls of `on_progress`."""

    def __call__(self, done: int, total: int | None) -> None:
        self.append((done, total))


def download(
    driver: Driver,
    vendor: str,
    url: str,
    what: TaskFile | Task | str,
    to: Path,
    *,
    settings: dict[str, Any] | None = None,
    then: Callable[[Any], Any] = lambda _: None,
    **options: Any,
) -> Any:
    """Download once; return the path, the paths, or the error.

    Args:
        driver: Which client.
        vendor: Which vendor.
        url: URL of the server that plays the vendor.
        what: What to download.
        to: Where to save it.
        settings: Further settings.
        then: Called with the synchronous client afterwards.
        options: Keywords of the call.
    """
    chosen: dict[str, Any] = {
        **QUICK,
        "transport": TRANSPORTS[driver],
        **VENDORS[vendor].settings(url),
        **(settings or {}),
    }
    if driver == "sync":
        with tb.connect(vendor, **chosen) as client:
            try:
                saved: Any = client.download(what, to, **options)
            except Exception as error:  # noqa: BLE001  # the test checks whatever is raised
                saved = error
            then(client)
            return saved
    return asyncio.run(_download(vendor, chosen, what, to, options))


async def _download(vendor: str, settings: dict[str, Any], what: Any, to: Path, options: dict[str, Any]) -> Any:
    async with aio.connect(vendor, **settings) as opened:
        client: Any = opened
        try:
            saved: Any = await client.download(what, to, **options)
        except Exception as error:  # noqa: BLE001  # as above
            return error
        return saved
