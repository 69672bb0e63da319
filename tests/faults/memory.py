"""Get tasks in a process of its own, and print by how many bytes its memory grew at most.

Usage: memory.py sync|async PROVIDER ID SETTINGS: reads a base URL from each line of standard input, gets the task
there, and prints one line: the class of the result, and the bytes from the start to the peak.
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
RESET_PEAK: Final = Path("/proc/self/clear_refs")


def begin() -> int:
    """Reset the peak; return the bytes in use."""
    gc.collect()
    RESET_PEAK.write_text("5", encoding="ascii")
    return peak()


def peak() -> int:
    """Return the most bytes in use since `begin`."""
    lines = STATUS.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def seen(driver: str, provider: str, task_id: str, settings: dict[str, Any]) -> str:
    try:
        if driver == "async":
            return asyncio.run(_get_or_error(provider, task_id, settings))
        with tb.connect(provider, **settings) as client:
            return type(client.get(task_id)).__name__
    except TaskbridgeError as error:
        return type(error).__name__


async def _get_or_error(provider: str, task_id: str, settings: dict[str, Any]) -> str:
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
