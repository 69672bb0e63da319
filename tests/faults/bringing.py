"""Downloads by both clients behind one function."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import taskbridge as tb
from taskbridge import aio
from taskbridge.models import Task, TaskFile

from .looking import QUICK, Driver
from .vendors import VENDORS

__all__ = ["Told", "bring"]


class Told(list[tuple[int, "int | None"]]):
    """What `on_progress` was told."""

    def __call__(self, done: int, total: int | None) -> None:
        self.append((done, total))


def bring(
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
    """One download: the path, the paths, or the error.

    Args:
        driver: Which client.
        vendor: Whose.
        url: Address of the server that plays the vendor.
        what: What to download.
        to: Where to.
        settings: Further settings.
        then: Asked of the client afterwards.
        options: Keywords of the call.
    """
    chosen = {**QUICK, **VENDORS[vendor].settings(url), **(settings or {})}
    if driver == "sync":
        with tb.connect(vendor, **chosen) as client:
            try:
                home: Any = client.download(what, to, **options)
            except Exception as error:  # noqa: BLE001  # whatever comes out is looked at
                home = error
            then(client)
            return home
    return asyncio.run(_bring(vendor, chosen, what, to, options))


async def _bring(vendor: str, settings: dict[str, Any], what: Any, to: Path, options: dict[str, Any]) -> Any:
    async with aio.connect(vendor, **settings) as opened:
        client: Any = opened
        try:
            home: Any = await client.download(what, to, **options)
        except Exception as error:  # noqa: BLE001  # as above
            return error
        return home
