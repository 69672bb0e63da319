"""A fork while other threads work: the child inherits no lock that they hold, and waits for nothing they began."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

import pytest

from .conftest import Place
from .polling import DRIVERS, TRANSPORTS, Driver
from .server import FaultServer, Play, Seen, answer

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

START: Final = """
import asyncio, os, sys, threading, time
import taskbridge as tb
from taskbridge import aio

SETTINGS = {"client_id": "id", "client_secret": "s" * 12, "request_timeout": 10.0, "poll": {"interval": 0.01}}
SETTINGS |= {"base_url": sys.argv[1] + "/api", "transport": sys.argv[2]}
if len(sys.argv) > 3:
    SETTINGS["ca_bundle"] = sys.argv[3]

def say(*words):
    os.write(1, f"{' '.join(map(str, words))}\\n".encode())  # at once: processes and threads share the pipe

def in_child(work):
    child = os.fork()
    if child:
        return child
    try:
        say("child:", work())
    except BaseException as error:
        say("child:", repr(error))
    os._exit(0)
"""


@pytest.fixture
def server(places: dict[str, Place]) -> FaultServer:
    found = places["plain"].server
    assert found is not None
    return found


def run(script: str, *arguments: str, when: Callable[[], bool] = lambda: True) -> list[str]:
    """Run a program; once a condition holds, it gets a line to read. Return the lines that it printed."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", START + script, *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:  # fmt: skip
        try:
            for _ in range(5000):
                if when() or program.poll() is not None:
                    break
                time.sleep(0.002)  # noqa: TID251  # the program's turn
            printed, wrong = program.communicate("\n", timeout=30)
        finally:
            program.kill()
    assert wrong == ""
    return sorted(printed.splitlines())


def task(seen: Seen, status: str = "Processed") -> bytes:
    number = int(seen.target.rpartition("=")[2])
    return answer(200, json.dumps({"taskId": number, "taskStatusText": status}).encode(), close=False)


def token(seen: Seen) -> bytes | None:
    if "connect/token" not in seen.target:
        return None
    return answer(200, b'{"access_token": "token-of-a-test", "expires_in": 3600}', close=False)


RENEWING: Final[dict[Driver, str]] = {
    "sync": """
client = tb.connect("smartdocumentor", **SETTINGS)
threading.Thread(target=lambda: say("parent:", client.get("44").status)).start()
sys.stdin.readline()

def work():
    statuses = [client.get("45").status for _ in range(2)]
    client.close()
    return statuses

os.waitpid(in_child(work), 0)
""",
    "async": """
client = aio.connect("smartdocumentor", **SETTINGS)

async def get(task_id):
    return (await client.get(task_id)).status

async def get_twice():
    statuses = [await get("45") for _ in range(2)]
    await client.close()
    return statuses

threading.Thread(target=lambda: say("parent:", asyncio.run(get("44")))).start()
sys.stdin.readline()
os.waitpid(in_child(lambda: asyncio.run(get_twice())), 0)
""",
}


@pytest.mark.parametrize("transport", ["curl", "requests"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_fork_while_the_credential_is_renewed(driver: Driver, transport: str, server: FaultServer) -> None:
    second = threading.Event()
    tokens: list[Seen] = []

    def answers(seen: Seen) -> bytes:
        renewed = token(seen)
        if renewed is None:
            return task(seen)
        tokens.append(seen)
        if len(tokens) == 1:
            second.wait(20.0)  # the parent's renewal lasts until the child has renewed the credential itself
        else:
            second.set()
        return renewed

    server.reply(answers)
    printed = run(RENEWING[driver], server.url, transport, when=lambda: bool(tokens))
    completed = "<TaskStatus.COMPLETED: 'completed'>"
    assert printed == [f"child: [{completed}, {completed}]", "parent: completed"]
    assert len(tokens) == 2


WAITING: Final = """
client = tb.connect("smartdocumentor", **SETTINGS)
outcomes = client.as_completed(["1", "2"])
say("parent:", next(outcomes).ref)

def work():
    try:
        next(outcomes)
    except tb.ConfigError as error:
        ended = "begin it again" in error.message
    found = [str(outcome.ref) for outcome in client.wait_all(["1", "3"])]
    outcomes.close()
    client.close()
    return ended, found

os.waitpid(in_child(work), 0)
say("parent:", next(outcomes).ref)
"""


def test_a_fork_inside_of_a_wait(server: FaultServer) -> None:
    seen_in_child = threading.Event()

    def answers(seen: Seen) -> bytes:
        if seen.target.endswith("=3"):
            seen_in_child.set()
        is_running = seen.target.endswith("=2") and not seen_in_child.is_set()
        return token(seen) or task(seen, "PreProcessingInProgress" if is_running else "Processed")

    server.reply(answers)
    assert run(WAITING, server.url, TRANSPORTS["sync"]) == [
        "child: (True, ['smartdocumentor:1', 'smartdocumentor:3'])",
        "parent: smartdocumentor:1",
        "parent: smartdocumentor:2",
    ]


KEPT: Final = """
import gc
client = tb.connect("smartdocumentor", **SETTINGS)
client.get("1")
for thread in threading.enumerate():
    if thread.name == "taskbridge-curl":
        thread.join()

def work():
    global client
    task = client.get("2")
    client.close()
    del client
    gc.collect()  # what the child no longer needs is closed here
    return task.id

os.waitpid(in_child(work), 0)
client.get("3")
"""


@pytest.mark.parametrize("transport", ["curl", "requests"])
def test_a_child_leaves_the_parents_tls_connections_open(transport: str, places: dict[str, Place]) -> None:
    place = places["tls"]
    assert place.server is not None
    play: Play = place.server.reply(lambda seen: token(seen) or task(seen))
    assert run(KEPT, place.url, transport, place.settings["ca_bundle"]) == ["child: 2"]
    connections = {seen.target.rpartition("=")[2]: seen.connection for seen in play.requests}
    assert connections["1"] == connections["3"] != connections["2"]


PROBING: Final = """
from taskbridge._engine.throttle import Throttle

throttle = Throttle(None, lambda: 0.0)
for _ in range(5):
    throttle.failed(100.0)
say("parent:", throttle.take(105.0), throttle.take(106.0).granted)
os.waitpid(in_child(lambda: throttle.take(106.0).granted), 0)
"""


def test_a_child_does_not_wait_for_the_parents_probe() -> None:
    printed = run(PROBING, "http://127.0.0.1:9", "auto")
    assert printed == ["child: True", "parent: Permit(wait=0.0, granted=True) False"]


LOCKS: Final = """
import gc
from taskbridge.otel import Telemetry
from taskbridge.progress import ProgressTracker
from taskbridge.testing import Emulator, RecordingTransport, ScriptedTransport, VirtualClock

def locks():
    # Whatever has the methods of a lock, in the library's modules and objects.
    owners = [module for name, module in sys.modules.items() if name.startswith("taskbridge")]
    owners += [each for each in gc.get_objects() if str(type(each).__module__).startswith("taskbridge")]
    for owner in owners:
        is_module = isinstance(owner, type(sys))
        names = [slot for kind in type(owner).__mro__ for slot in getattr(kind, "__slots__", ())]
        for name in {*names, *getattr(owner, "__dict__", ())}:
            value = getattr(owner, name, None)
            if not isinstance(value, type) and hasattr(value, "acquire") and hasattr(value, "release"):
                if not asyncio.iscoroutinefunction(value.acquire):
                    yield f"{owner.__name__ if is_module else type(owner).__name__}.{name}", value

kept = [tb.connect("smartdocumentor", **SETTINGS), aio.connect("smartdocumentor", **SETTINGS)]
kept[0].get("44")
asyncio.run(kept[1].get("44"))
kept += [ProgressTracker(), Telemetry(), VirtualClock(), ScriptedTransport(), RecordingTransport("x")]
for thread in threading.enumerate():
    if thread.name == "taskbridge-curl":
        thread.join()
held = threading.Event()

def hold():
    say("held:", len([each for each in list(locks()) if each[1].acquire(timeout=5.0)]) > 12)
    held.set()
    threading.Event().wait()

threading.Thread(target=hold, daemon=True).start()
held.wait()

# libcurl's engine is the parent's, kept and never used.
os.waitpid(in_child(lambda: sorted({n for n, lock in locks() if not lock.acquire(False)} - {"_Engine._lock"})), 0)
os._exit(0)  # the thread holds what the end of the interpreter would need
"""


@pytest.mark.parametrize("transport", ["curl", "requests"])
def test_no_lock_is_inherited(transport: str, server: FaultServer) -> None:
    server.reply(lambda seen: token(seen) or task(seen))
    assert run(LOCKS, server.url, transport) == ["child: []", "held: True"]


def test_a_child_does_not_wait_for_the_webhook_events_that_its_parent_was_processing() -> None:
    script = """
bus = tb.MemoryEventBus()
assert bus.claim("claimed") and bus.claim("settled")
bus.settle("settled")
os.waitpid(in_child(lambda: (bus.claim("claimed"), bus.claim("settled"), bus.is_settled("settled"))), 0)
say("parent:", bus.claim("claimed"))
"""
    assert run(script, "no server", "requests") == ["child: (True, False, True)", "parent: False"]
