"""Vendors and clients in one virtual time: twenty minutes pass instantly, with the same result each time."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import pytest

import taskbridge as tb
from taskbridge import aio
from taskbridge._config.defaults import current_defaults, override_defaults
from taskbridge.emulator import Plan
from taskbridge.testing import Emulator, ScriptedTransport, VirtualClock
from taskbridge.testing.virtual_connections import RealTransports

if TYPE_CHECKING:
    from collections.abc import Iterator

LONG = Plan(queued=60, working=1140)
VENDORS = ("cloudconvert", "expertai-extract", "scan-documents", "smartdocumentor")
IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(40)


def document(vendor: str) -> str | bytes:
    if vendor == "smartdocumentor":
        return "https://documents.test/a.pdf"
    return b"%PDF-1.4" if vendor == "expertai-extract" else IMAGE


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    clock = VirtualClock()
    with override_defaults(clock=clock, transports=RealTransports()):
        yield clock


@pytest.fixture
def vendors(clock: VirtualClock) -> Iterator[Emulator]:
    with Emulator(clock=clock, plan=LONG) as emulator:
        yield emulator


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_wait_of_twenty_minutes_takes_no_time(vendors: Emulator, clock: VirtualClock, vendor: str) -> None:
    with tb.connect(vendor, **vendors.settings(vendor)) as client:
        task = client.submit("extract-text", document(vendor))
        before = clock.monotonic()
        ended = client.wait(task, timeout=1800)
    assert ended.is_terminal
    assert 1200.0 <= clock.monotonic() - before < 1320.0


def test_a_long_poll_takes_virtual_seconds(vendors: Emulator, clock: VirtualClock) -> None:
    """For the vendor's thirty seconds, after which it answers; no real-time limit interrupts it."""
    del clock
    with tb.connect("cloudconvert", **vendors.settings("cloudconvert")) as client:
        client.wait(client.submit("extract-text", IMAGE), timeout=1800)
    _submitted, held, polled, *_ = vendors.requests
    assert (held.prefix, held.status) == ("cloudconvert-sync", 504)
    assert 30.0 <= polled.time - held.time < 60.0


def test_a_wait_timeout_is_in_virtual_time(vendors: Emulator, clock: VirtualClock) -> None:
    with tb.connect("scan-documents", **vendors.settings("scan-documents")) as client:
        task = client.submit("extract-text", IMAGE)
        before = clock.monotonic()
        with pytest.raises(tb.WaitTimeout):
            client.wait(task, timeout=600)
    assert clock.monotonic() - before == pytest.approx(600.0)


def test_worker_threads_do_not_run_ahead_of_virtual_time(vendors: Emulator, clock: VirtualClock) -> None:
    """The duration is the same, whichever thread is faster."""
    ended: set[float] = set()
    for _ in range(2):
        with tb.connect("smartdocumentor", **vendors.settings("smartdocumentor"), poll={"interval": 100.0}) as client:
            tasks = [client.submit("extract-text", document("smartdocumentor")) for _ in range(4)]
            before = clock.monotonic()
            assert [outcome.unwrap().status for outcome in client.wait_all(tasks, timeout=1800)] == ["completed"] * 4
            ended.add(round(clock.monotonic() - before))
    assert ended <= set(range(1200, 1320))


def test_threads_of_the_caller_do_not_run_ahead_of_virtual_time(vendors: Emulator, clock: VirtualClock) -> None:
    del clock
    settings = vendors.settings("smartdocumentor")
    with tb.connect("smartdocumentor", **settings, poll={"interval": 30.0}) as client:

        def one(_: int) -> str:
            task = client.submit("extract-text", document("smartdocumentor"))
            return client.wait(task, timeout=1300).status

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(one, range(4))) == ["completed"] * 4


def test_asyncio_tasks_do_not_run_ahead_of_virtual_time(vendors: Emulator, clock: VirtualClock) -> None:
    async def run() -> list[str]:
        async with aio.connect("scan-documents", **vendors.settings("scan-documents")) as client:
            tasks = [await client.submit("extract-text", IMAGE) for _ in range(4)]
            outcomes = await client.wait_all(tasks, timeout=1800)
            one = await client.wait(tasks[0], timeout=10)
            return [*(outcome.unwrap().status for outcome in outcomes), one.status]

    before = clock.monotonic()
    assert set(asyncio.run(run())) <= {"completed", "failed"}
    assert 1200.0 <= clock.monotonic() - before < 1320.0


def test_a_vendor_that_hangs_takes_virtual_seconds_only(vendors: Emulator, clock: VirtualClock) -> None:
    with tb.connect("scan-documents", **vendors.settings("scan-documents"), retry={"attempts": 1}) as client:
        done = vendors.samples("scan-documents")["completed"]
        before = clock.monotonic()
        vendors.fail_next("hang")
        with pytest.raises(tb.DeadlineExceeded):
            client.get(done)
        assert clock.monotonic() - before == pytest.approx(30.0)
        vendors.fail_next("slow", seconds=20)
        assert client.get(done).is_terminal
        assert clock.monotonic() - before == pytest.approx(50.0)


def test_webhooks_are_signed_in_virtual_time(vendors: Emulator, clock: VirtualClock) -> None:
    assert vendors.clock.wall() == clock.now().timestamp()
    vendors.clock.advance(60.0)
    assert vendors.clock.time() == clock.now().timestamp()


# The clock itself.


def test_time_stops_while_a_thread_is_working() -> None:
    clock = VirtualClock()
    started, done = threading.Event(), threading.Event()

    def work() -> None:
        with clock.acting():
            started.set()
            done.wait(5.0)
            assert clock.monotonic() == 1000.0
            clock.sleep(5.0)

    worker = threading.Thread(target=work)
    worker.start()
    started.wait(5.0)
    sleeper = threading.Thread(target=clock.sleep, args=(60.0,))
    sleeper.start()
    sleeper.join(0.005)
    assert sleeper.is_alive()
    done.set()
    worker.join(5.0)
    sleeper.join(5.0)
    assert clock.monotonic() == 1060.0


def test_a_blocked_callback_does_not_stop_time_for_long() -> None:
    clock = VirtualClock()
    sleeper = threading.Thread(target=clock.sleep, args=(60.0,))
    with clock.acting():
        sleeper.start()
        sleeper.join(10.0)
    assert not sleeper.is_alive()
    assert clock.monotonic() == 1060.0


def test_waiting_for_a_lock_takes_virtual_time() -> None:
    clock, lock = VirtualClock(), threading.Lock()
    assert clock.acquire(lock, 30.0)
    assert not clock.acquire(lock, 30.0)
    assert clock.monotonic() == 1030.0


# Defaults.


def test_an_override_ends_with_its_block() -> None:
    clock = VirtualClock()
    with override_defaults(clock=clock):
        assert current_defaults().clock is clock
    assert current_defaults().clock is None


def test_overrides_may_end_in_any_order() -> None:
    one, two = override_defaults(clock=VirtualClock()), override_defaults(clock=VirtualClock())
    one.__enter__()
    inner = two.__enter__()
    one.__exit__(None, None, None)
    assert current_defaults() is inner
    two.__exit__(None, None, None)
    assert current_defaults().clock is None


def test_connect_accepts_a_clock_and_a_transport() -> None:
    clock, transport = VirtualClock(), ScriptedTransport([tb.ConnectFailed("no"), tb.ConnectFailed("no")])
    with (
        tb.connect(
            "scan-documents", api_key="k" * 20, clock=clock, transport=transport, retry={"attempts": 2}
        ) as client,
        pytest.raises(tb.ConnectFailed),
    ):
        client.get("task_1")
    assert transport.remaining == 0
    assert clock.slept


FROZEN: Final = """
import taskbridge as tb
from freezegun import freeze_time
from taskbridge.testing import Emulator

with Emulator("scan-documents", speed=50) as emulator, freeze_time("2030-01-01", ignore=["taskbridge"]):
    with tb.connect("scan-documents", **emulator.settings(), poll={"interval": 0.05}) as client:
        task = client.submit("extract-text", b"\\x89PNG\\r\\n\\x1a\\n" + bytes(40))
        print(client.wait(task, timeout=20).status)
"""


def test_a_wait_ends_under_freezegun_as_the_page_says() -> None:
    pytest.importorskip("freezegun")
    done = subprocess.run([sys.executable, "-c", FROZEN], capture_output=True, text=True, timeout=40, check=False)
    assert done.stdout == "completed\n", done.stderr
