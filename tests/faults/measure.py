"""Looks tasks up in a process of its own, and prints by how many bytes its memory grew at most.

Usage: measure.py sync|async PROVIDER ID SETTINGS: reads a base URL from each line of standard input, looks the task up
there, and answers with one line: the class of what came, and the bytes by which the peak stood above the start.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from pathlib import Path
from typing import Any, Final

import taskbridge as tb
from taskbridge import aio
from taskbridge.errors import TaskbridgeError

STATUS: Final = Path("/proc/self/status")
FORGET: Final = Path("/proc/self/clear_refs")


def begin() -> int:
    """Forget the peak; bytes in use now."""
    gc.collect()
    FORGET.write_text("5", encoding="ascii")
    return peak()


def peak() -> int:
    """Bytes in use at most, since `begin`."""
    lines = STATUS.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def seen(driver: str, provider: str, task_id: str, settings: dict[str, Any]) -> str:
    try:
        if driver == "async":
            return asyncio.run(_seen(provider, task_id, settings))
        with tb.connect(provider, **settings) as client:
            return type(client.get(task_id)).__name__
    except TaskbridgeError as error:
        return type(error).__name__


async def _seen(provider: str, task_id: str, settings: dict[str, Any]) -> str:
    async with aio.connect(provider, **settings) as client:
        return type(await client.get(task_id)).__name__


def main() -> None:
    driver, provider, task_id, settings = sys.argv[1:]
    for line in sys.stdin:
        start = begin()
        name = seen(driver, provider, task_id, {**json.loads(settings), "base_url": line.strip()})
        sys.stdout.write(f"{name} {peak() - start}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
