"""Many threads and asyncio tasks, Ctrl-C in every phase, and the exit of the interpreter."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest

import taskbridge as tb
from taskbridge import aio

from .conftest import Place
from .polling import QUICK
from .server import FIN, HANG, READ, Script, answer
from .vendors import VENDORS, Vendor

MUTE: Final = VENDORS["expertai-extract"]  # its answers hold no id, so a mixed-up one would not be noticed by itself

PHASES: Final[dict[str, Callable[[Vendor], list[Script]]]] = {
    "waiting for an answer": lambda _: [(READ, HANG)],
    "in the head of an answer": lambda _: [(READ, b"HTTP/1.1 200 OK\r\nX-A: b", HANG)],
    "in the body of an answer": lambda v: [(READ, answer(200, v.completed)[:-9], HANG)],
    "between two polls": lambda v: [(READ, answer(200, v.processing), FIN)],
}


def open_sockets() -> set[int]:
    """File numbers of the sockets of this process that have a peer."""
    gc.collect()
    found: set[int] = set()
    for each in gc.get_objects():
        if type(each) is socket.socket and each.fileno() >= 0 and each.family == socket.AF_INET:
            try:
                each.getpeername()
            except OSError:
                continue
            found.add(each.fileno())
    return found


@pytest.mark.parametrize("phase", PHASES)
def test_an_interruption_leaves_no_connection(phase: str, places: dict[str, Place]) -> None:
    place = places["plain"]
    assert place.server is not None
    play = place.server.play(*PHASES[phase](MUTE))
    main = threading.main_thread().ident or 0
    threads = threading.active_count()

    def interrupt() -> None:
        while not play.requests:
            threading.Event().wait(0.002)
        threading.Event().wait(0.02)
        signal.pthread_kill(main, signal.SIGINT)

    hand = threading.Thread(target=interrupt)
    hand.start()
    settings: dict[str, Any] = {**QUICK, **MUTE.settings(place.url), "poll": {"interval": 5.0}}
    with tb.connect(MUTE.name, **settings) as client, pytest.raises(KeyboardInterrupt):
        client.wait(MUTE.id, timeout=30.0)
    hand.join()
    ours = {each for each in open_sockets() if _goes_to(each, place.url)}
    assert ours == set()
    assert threading.active_count() <= threads


def _goes_to(number: int, url: str) -> bool:
    with socket.socket(fileno=socket.dup(number)) as copy:
        return str(copy.getpeername()[1]) == url.rpartition(":")[2]


def test_thirty_two_threads_share_a_client(places: dict[str, Place]) -> None:
    server = places["plain"].server
    assert server is not None
    names = [f"t-{n}" for n in range(32 * 8)]
    server.reply(lambda seen: answer(200, MUTE.body(message=seen.target.rpartition("/")[2])))
    with (
        tb.connect(MUTE.name, **QUICK, **MUTE.settings(server.url)) as client,
        ThreadPoolExecutor(32) as threads,
    ):
        assert [task.message for task in threads.map(client.get, names)] == names


def test_a_thousand_asyncio_tasks_share_a_client(places: dict[str, Place]) -> None:
    server = places["plain"].server
    assert server is not None
    names = [f"t-{n}" for n in range(1000)]
    server.reply(lambda seen: answer(200, MUTE.body(message=seen.target.rpartition("/")[2])))

    settings: dict[str, Any] = {**QUICK, **MUTE.settings(server.url), "request_timeout": 60.0}

    async def ask() -> list[str | None]:
        async with aio.connect(MUTE.name, **settings) as client:
            return [task.message for task in await asyncio.gather(*map(client.get, names))]

    assert asyncio.run(ask()) == names


SHUTDOWN: Final = """
import sys, threading, time
import taskbridge as tb

client = tb.connect("expertai-extract", access_token="unused-key-77", base_url=sys.argv[1])
{start}
while threading.active_count() > 1 and not any(each.requests for each in client.stats().values()):
    time.sleep(0.002)
print("leaving", flush=True)
"""
WAYS: Final = {
    "a daemon thread waits": 'threading.Thread(target=client.wait, args=("a",), daemon=True).start()',
    "many are waited for": 'threading.Thread(target=client.wait_all, args=(["a", "b"],), daemon=True).start()',
    "never closed": "tb.wait_nothing = client",
}


@pytest.mark.parametrize("way", WAYS)
def test_the_interpreter_can_exit_while_a_thread_waits(way: str, places: dict[str, Place]) -> None:
    place = places["plain"]
    assert place.server is not None
    place.server.play((READ, HANG))
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", SHUTDOWN.format(start=WAYS[way]), place.url],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "leaving\n", "")
    assert time.monotonic() - began < 60


def test_a_cancelled_wait_leaves_no_connection_thread_or_task(places: dict[str, Place]) -> None:
    place = places["plain"]
    assert place.server is not None
    play = place.server.play((READ, HANG))
    threads = threading.active_count()

    async def cancel() -> tuple[int, Any]:
        async with aio.connect(MUTE.name, **QUICK, **MUTE.settings(place.url)) as client:
            waiting = asyncio.create_task(client.wait(MUTE.id, timeout=30.0))
            while not play.requests:  # noqa: ASYNC110  # another thread's count
                await asyncio.sleep(0.002)
            waiting.cancel()
            done, _ = await asyncio.wait([waiting])
            await asyncio.sleep(0.01)
            return len(asyncio.all_tasks()) - 1, done.pop().cancelled()

    assert asyncio.run(cancel()) == (0, True)
    assert {each for each in open_sockets() if _goes_to(each, place.url)} == set()
    assert threading.active_count() <= threads
