"""Reused connections, threads, forks and cancelled calls: each caller gets its own response, nothing stays open."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest
import trustme

import taskbridge as tb
from taskbridge import aio
from taskbridge.errors import DeadlineExceeded, IdentityMismatch, TlsError, TruncatedResponse
from taskbridge.models import Task

from .conftest import Place
from .polling import DRIVERS, QUICK, Driver, get_repeatedly, get_task
from .server import FIN, HANG, READ, RST, Action, FaultServer, Play, Seen, answer
from .vendors import CANARY, VENDORS

ONCE: Final = {"attempts": 1, "first": 0.0, "at_most": 0.0}
MUTE: Final = VENDORS["expertai-extract"]  # its responses contain no id: only the message identifies them


@pytest.fixture
def server(places: dict[str, Place]) -> FaultServer:
    found = places["plain"].server
    assert found is not None
    return found


def echo(seen: Seen) -> bytes:
    return answer(200, MUTE.body(message=seen.target.rpartition("/")[2]), close=False)


# Kept connections.


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("name", VENDORS)
def test_a_connection_is_reused(name: str, driver: Driver, server: FaultServer) -> None:
    vendor = VENDORS[name]
    play = server.reply(lambda _: answer(200, vendor.completed, close=False))
    assert all(isinstance(seen, Task) for seen in get_repeatedly(driver, vendor, server.url, 5))
    assert (len(play.requests), play.connections) == (5, 1)


@pytest.mark.parametrize("end", [FIN, RST])
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("name", VENDORS)
def test_a_stale_connection_costs_no_attempt(name: str, driver: Driver, end: Action, server: FaultServer) -> None:
    vendor = VENDORS[name]
    kept = answer(200, vendor.completed, close=False)
    play = server.play((READ, kept, READ, end), (READ, kept, FIN))
    assert all(isinstance(seen, Task) for seen in get_repeatedly(driver, vendor, server.url, 2, retry=ONCE))
    assert [each.connection for each in play.requests] == [0, 0, 1]


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_connection_closed_while_idle_is_noticed(driver: Driver, server: FaultServer) -> None:
    kept = answer(200, MUTE.completed, close=False)
    play = server.play((READ, kept, FIN))
    assert all(isinstance(seen, Task) for seen in get_repeatedly(driver, MUTE, server.url, 4, retry=ONCE))
    # Whether the close or the next request comes first is up to the network: each costs one request more at most.
    assert 4 <= len(play.requests) <= 7


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_stale_connection_is_forgiven_once(driver: Driver, server: FaultServer) -> None:
    kept = answer(200, MUTE.completed, close=False)
    play = server.play((READ, kept, READ, FIN), (READ, FIN))
    first, second = get_repeatedly(driver, MUTE, server.url, 2, retry=ONCE)
    assert isinstance(first, Task)
    assert type(second) is TruncatedResponse
    assert [each.connection for each in play.requests] == [0, 0, 1]


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_connection_that_breaks_after_the_first_byte_is_not_stale(driver: Driver, server: FaultServer) -> None:
    kept = answer(200, MUTE.completed, close=False)
    play = server.play((READ, kept, READ, kept[:-10], FIN))
    _, second = get_repeatedly(driver, MUTE, server.url, 2, retry=ONCE)
    assert type(second) is TruncatedResponse
    assert len(play.requests) == 2


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("name", ["cloudconvert", "scan-documents", "smartdocumentor"])
def test_a_response_about_another_task_is_requested_again_on_a_new_connection(
    name: str, driver: Driver, server: FaultServer
) -> None:
    vendor = VENDORS[name]
    other: Any = {"id": "task_another", "taskId": 45}[vendor.key]
    play = server.reply(lambda _: answer(200, vendor.body(**{vendor.key: other}), close=False))
    assert type(get_task(driver, vendor, server.url)) is IdentityMismatch
    assert [each.connection for each in play.requests] == [0, 1]


# Both sides alike.


@pytest.mark.parametrize("name", VENDORS)
def test_both_clients_send_the_same(name: str, server: FaultServer) -> None:
    vendor = VENDORS[name]

    def sent(driver: Driver) -> tuple[str, str, dict[str, str], bytes]:
        play = server.reply(lambda _: answer(200, vendor.completed))
        assert isinstance(get_task(driver, vendor, server.url), Task)
        (seen,) = play.requests
        return seen.method, seen.target, seen.headers, seen.body

    assert sent("sync") == sent("async")


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_proxy_gets_the_full_url(driver: Driver, server: FaultServer) -> None:
    play = server.reply(lambda _: answer(200, MUTE.completed))
    proxy = server.url.replace("://", "://me:secret-of-the-proxy@")
    seen = get_task(driver, MUTE, "http://vendor.test/beta", proxy=proxy, allow_http=True)
    assert isinstance(seen, Task), repr(seen)
    (request,) = play.requests
    assert (request.method, request.target) == ("GET", f"http://vendor.test/beta{MUTE.target}")
    assert request.headers["proxy-authorization"].startswith("Basic ")


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("name", VENDORS)
def test_netrc_never_replaces_the_credential(
    name: str, driver: Driver, server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendor = VENDORS[name]
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login other password of-the-machine\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.test:9")
    play = server.reply(lambda _: answer(200, vendor.completed, "Set-Cookie: a=b"))
    assert all(isinstance(seen, Task) for seen in get_repeatedly(driver, vendor, server.url, 2))
    for seen in play.requests:
        values = " ".join(seen.headers.values())
        assert CANARY in values
        assert "Basic" not in values
        assert "cookie" not in seen.headers


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_ca_bundle_takes_precedence_over_the_environment(
    variable: str, driver: Driver, places: dict[str, Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = places["tls"]
    assert place.server is not None
    play = place.server.play((READ, answer(200, MUTE.completed), FIN))
    other = tmp_path / "other.pem"
    other.write_bytes(trustme.CA().cert_pem.bytes())
    monkeypatch.setenv(variable, str(other))
    assert isinstance(get_task(driver, MUTE, place.url, **place.settings), Task)
    assert type(get_task(driver, MUTE, place.url)) is TlsError
    assert len(play.requests) == 1


# Many askers.


@pytest.mark.parametrize("fields", [0, 200])
def test_sixteen_threads_get_their_own_responses(
    fields: int, server: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.reply(lambda seen: answer(200, MUTE.body(message=seen.target.rpartition("/")[2], padding="x" * fields)))
    names = [f"t-{n}" for n in range(16 * 20)]
    with (
        tb.connect(MUTE.name, **QUICK, **MUTE.settings(server.url)) as client,
        ThreadPoolExecutor(16) as threads,
    ):
        assert [task.message for task in threads.map(client.get, names)] == names
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_forty_threads_cause_no_pool_warning(server: FaultServer, caplog: pytest.LogCaptureFixture) -> None:
    server.reply(echo)
    names = [f"t-{n}" for n in range(400)]
    with (
        tb.connect(MUTE.name, **QUICK, **MUTE.settings(server.url)) as client,
        ThreadPoolExecutor(40) as threads,
    ):
        assert [task.message for task in threads.map(client.get, names)] == names
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_many_asyncio_tasks_get_their_own_responses(server: FaultServer) -> None:
    server.reply(echo)
    names = [f"t-{n}" for n in range(200)]

    async def ask() -> list[str | None]:
        async with aio.connect(MUTE.name, **QUICK, **MUTE.settings(server.url)) as client:
            return [task.message for task in await asyncio.gather(*map(client.get, names))]

    assert asyncio.run(ask()) == names


@pytest.mark.skipif(not hasattr(sys.modules["os"], "fork"), reason="this system cannot fork")
def test_children_of_a_fork_get_their_own_responses(server: FaultServer) -> None:
    server.reply(echo)
    script = Path(__file__).with_name("forks.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", str(script), server.url, "8", "4", "10"],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


# Cancelled calls.


def is_quiet(server: FaultServer) -> bool:
    """Whether every connection to the server is closed, within moments."""
    for _ in range(5000):
        if server.open == 0:
            return True
        time.sleep(0.002)  # noqa: TID251  # the server's threads need a moment to notice
    return False


def has_asked(play: Play) -> bool:
    """Whether a request arrives, within moments."""
    for _ in range(5000):
        if play.requests:
            return True
        time.sleep(0.002)  # noqa: TID251  # the client's turn
    return False


SILENCES: Final = {
    "before the head": (READ, HANG),
    "inside the head": (READ, b"HTTP/1.1 200 OK\r\nX-A: ", HANG),
    "inside the body": (READ, answer(200, MUTE.completed)[:-10], HANG),
}


@pytest.mark.parametrize("silence", SILENCES)
def test_a_cancelled_call_leaves_nothing_behind(silence: str, server: FaultServer) -> None:
    vendor = MUTE
    whole = answer(200, vendor.completed)
    play = server.play(SILENCES[silence], (READ, whole, FIN))

    async def run() -> None:
        async with aio.connect(vendor.name, **QUICK, **vendor.settings(server.url)) as client:
            call = asyncio.create_task(client.get(vendor.id))
            assert await asyncio.to_thread(has_asked, play)
            await asyncio.sleep(0.01)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert await asyncio.to_thread(is_quiet, server)
            assert (await client.get(vendor.id)).id == vendor.id
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())
    assert play.connections == 2
    assert is_quiet(server)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_closed_client_leaves_no_connection(driver: Driver, server: FaultServer) -> None:
    server.reply(echo)
    get_repeatedly(driver, MUTE, server.url, 3)
    assert is_quiet(server)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("whole", [True, False])
def test_a_tls_connection_that_the_peer_leaves_open_is_closed(
    whole: bool, driver: Driver, places: dict[str, Place]
) -> None:
    place = places["tls"]
    assert place.server is not None
    said = answer(200, MUTE.completed)
    place.server.play((READ, said if whole else said[:-10], HANG))
    get_task(driver, MUTE, place.url, request_timeout=0.2, **place.settings)
    assert is_quiet(place.server)
    gc.collect()  # what is still open warns here


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("silence", SILENCES)
def test_a_timed_out_call_leaves_no_connection(silence: str, driver: Driver, server: FaultServer) -> None:
    server.play(SILENCES[silence])
    seen = get_task(driver, MUTE, server.url, request_timeout=0.3)
    assert type(seen) is DeadlineExceeded
    assert is_quiet(server)
