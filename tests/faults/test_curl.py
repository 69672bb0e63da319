"""libcurl: each request arrives once, a thread that ends when it is idle, many files, forks and event loops."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from taskbridge._transport import responses
from taskbridge._transport.curl import AsyncCurlTransport, CurlTransport
from taskbridge.errors import ConnectFailed, DeadlineExceeded, TaskbridgeError, TransportError
from taskbridge.provider.http import Request, Response
from taskbridge.transport import Network

from .conftest import Place
from .rows import head
from .server import FIN, HANG, READ, FaultServer, Seen, answer

KEPT: Final = answer(200, b"{}", close=False)
DEAD: Final = (READ, KEPT, READ, FIN)


@pytest.fixture
def server(places: dict[str, Place]) -> FaultServer:
    found = places["plain"].server
    assert found is not None
    return found


@pytest.fixture
def transport() -> Iterator[CurlTransport]:
    transport = CurlTransport(Network())
    yield transport
    transport.close()


def send(transport: CurlTransport, url: str, method: str = "GET") -> Response | TaskbridgeError:
    body = b"a document" if method in ("POST", "PUT") else None
    try:
        return transport.send(Request(method, url, body=body), deadline=time.monotonic() + 5.0, max_body=1024)
    except TaskbridgeError as error:
        return error


def curl_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "taskbridge-curl"]


# Never twice.


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("dead", [1, 8])
def test_a_request_does_not_travel_from_one_dead_connection_to_the_next(
    method: str, dead: int, transport: CurlTransport, server: FaultServer
) -> None:
    play = server.play(*([DEAD] * dead), (READ, KEPT, FIN))
    opened = [threading.Thread(target=send, args=(transport, server.url)) for _ in range(dead)]
    for each in opened:
        each.start()
    for each in opened:
        each.join()
    before = len(play.requests)
    outcome = send(transport, server.url, method)
    arrived = len(play.requests) - before
    if method == "GET":
        assert arrived <= 2  # once on a kept connection, once more on another
    else:
        assert isinstance(outcome, Response)
        assert arrived == 1  # on a new connection


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_a_417_is_an_answer(method: str, transport: CurlTransport, server: FaultServer) -> None:
    play = server.play((READ, answer(417, b"{}"), FIN))
    outcome = send(transport, server.url, method)
    assert isinstance(outcome, Response)
    assert (outcome.status, len(play.requests)) == (417, 1)


def test_a_status_of_five_digits_is_no_answer(transport: CurlTransport, server: FaultServer) -> None:
    server.play((READ, head("HTTP/1.1 20000 Fine", "Content-Length: 2") + b"{}", FIN))
    outcome = send(transport, server.url)
    assert isinstance(outcome, TaskbridgeError)
    assert "not HTTP" in outcome.message


@pytest.mark.parametrize("name", ["X-A", "X-A\r\nX-B: 1\r\nX-C"])
@pytest.mark.parametrize("value", ["a\r\nX-Stolen: 1", "a\nb", "a\x00b"])
def test_a_line_break_in_a_header_field_is_not_sent(
    name: str, value: str, transport: CurlTransport, server: FaultServer
) -> None:
    play = server.reply(lambda _: answer(200, b"{}"))
    request = Request("GET", server.url, headers={name: value})
    with pytest.raises(TransportError, match="cannot be sent") as caught:
        transport.send(request, deadline=time.monotonic() + 5.0, max_body=1024)
    assert (caught.value.written, play.connections) == (False, 0)


# Connections.


@pytest.mark.parametrize("seconds", [5.0, 0.2])
def test_the_wait_for_a_free_connection_is_no_attempt_to_connect(
    seconds: float, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with the time of the request only."""
    monkeypatch.setattr(responses, "CONNECT_LIMIT", 0.1)

    def reply(_: Seen) -> bytes:
        threading.Event().wait(0.05)
        return KEPT

    play = server.reply(reply)
    transport = CurlTransport(Network(), size=1)
    deadline = time.monotonic() + seconds

    def ask(_: int) -> Response | TaskbridgeError:
        try:
            return transport.send(Request("GET", server.url), deadline=deadline, max_body=1024)
        except TaskbridgeError as error:
            return error

    with ThreadPoolExecutor(12) as threads:
        outcomes = list(threads.map(ask, range(12)))
    transport.close()
    failed = [each for each in outcomes if isinstance(each, TaskbridgeError)]
    if seconds == 5.0:
        assert (failed, play.connections) == ([], 1)
    else:
        assert 0 < len(failed) < 12
        assert len(play.requests) <= 12 - len(failed) + 1  # what was late in the queue was not sent


# The thread.


def test_the_thread_ends_when_it_is_idle_and_begins_again(transport: CurlTransport, server: FaultServer) -> None:
    server.reply(lambda _: answer(200, b"{}"))
    for _ in range(2):
        assert isinstance(send(transport, server.url), Response)
        for thread in curl_threads():
            thread.join(10.0)
        assert curl_threads() == []


def test_close_ends_requests_in_flight(server: FaultServer) -> None:
    transport = CurlTransport(Network())
    play = server.play((READ, HANG))
    outcomes: list[Response | TaskbridgeError] = []
    caller = threading.Thread(target=lambda: outcomes.append(send(transport, server.url)))
    caller.start()
    while not play.requests:
        threading.Event().wait(0.002)
    transport.close()
    caller.join(5.0)
    (outcome,) = outcomes
    assert isinstance(outcome, TransportError)
    assert "closed" in outcome.message
    transport.close()  # a second time


def test_a_cancelled_request_leaves_no_connection(server: FaultServer) -> None:
    async def run() -> None:
        transport = AsyncCurlTransport(Network())
        play = server.play((READ, HANG))
        request = Request("GET", server.url)
        task = asyncio.ensure_future(transport.send(request, deadline=time.monotonic() + 30.0, max_body=1024))
        while not play.requests:  # noqa: ASYNC110  # another thread's count
            await asyncio.sleep(0.002)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        server.reply(lambda _: answer(200, b"{}"))
        assert (await transport.send(request, deadline=time.monotonic() + 5.0, max_body=1024)).status == 200
        await transport.close()

    asyncio.run(run())
    assert curl_threads() == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_opens_its_own_connections(server: FaultServer) -> None:
    server.reply(lambda request: answer(200, request.target.encode(), close=False))
    script = """
import os, sys, time
from taskbridge._transport import responses
from taskbridge._transport.curl import CurlTransport
from taskbridge.provider.http import Request
from taskbridge.transport import Network

def ask(path):
    request = Request("GET", sys.argv[1] + path)
    return transport.send(request, deadline=time.monotonic() + 10.0, max_body=1024).body.decode()

transport = CurlTransport(Network())
assert ask("/warm") == "/warm"
children = []
for child in range(4):
    pid = os.fork()
    if not pid:
        os._exit(sum(ask(f"/{child}/{n}") != f"/{child}/{n}" for n in range(10)))
    children.append(pid)
print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children], ask("/after"))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script, server.url],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("[0, 0, 0, 0] /after\n", "")


def test_it_works_beside_fifteen_hundred_open_files(server: FaultServer) -> None:
    server.reply(lambda _: answer(200, b"{}"))
    script = """
import resource, socket, sys, time
from taskbridge._transport import responses
from taskbridge._transport.curl import CurlTransport
from taskbridge.provider.http import Request
from taskbridge.transport import Network

soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
if hard != resource.RLIM_INFINITY and hard < 4096:
    sys.exit(77)
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))
kept = [socket.socket() for _ in range(1500)]
transport = CurlTransport(Network())
used = time.process_time()
for _ in range(20):
    transport.send(Request("GET", sys.argv[1]), deadline=time.monotonic() + 10.0, max_body=1024)
print("done", time.process_time() - used < 5.0)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, server.url],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode == 77:
        pytest.skip("this system allows fewer than 4,096 open files")
    assert (done.stdout, done.stderr) == ("done True\n", "")


def test_it_runs_under_uvloop(server: FaultServer) -> None:
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")
    server.reply(lambda _: answer(200, b"{}"))

    async def run() -> list[int]:
        transport = AsyncCurlTransport(Network())
        calls = [
            transport.send(Request("GET", server.url), deadline=time.monotonic() + 5.0, max_body=1024)
            for _ in range(20)
        ]
        statuses = [each.status for each in await asyncio.gather(*calls)]
        await transport.close()
        return statuses

    assert uvloop.run(run()) == [200] * 20


def test_a_host_that_falls_silent_is_noticed_before_the_deadline(
    transport: CurlTransport, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responses, "READ_LIMIT", 0.3)
    server.play((READ, head("HTTP/1.1 200 OK", "Content-Length: 100"), HANG))
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="no data"):
        transport.send(Request("GET", server.url), deadline=began + 60.0, max_body=1024)
    assert time.monotonic() - began < 30.0


def test_a_socks_proxy_is_used(server: FaultServer) -> None:
    server.play((READ, answer(200, b"{}"), FIN))
    listener = socket.create_server(("127.0.0.1", 0))
    asked: list[bytes] = []

    def serve() -> None:  # RFC 1928, for one connection
        client, _ = listener.accept()
        with client:
            client.recv(16)
            client.sendall(b"\x05\x00")
            request = client.recv(300)
            asked.append(request[5 : 5 + request[4]])
            client.sendall(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00")
            with socket.create_connection(("127.0.0.1", server.port)) as host:
                host.sendall(client.recv(65_536))
                while block := host.recv(65_536):
                    client.sendall(block)

    thread = threading.Thread(target=serve)
    thread.start()
    proxy = f"socks5h://127.0.0.1:{listener.getsockname()[1]}"
    transport = CurlTransport(Network(proxies={"http": proxy}))
    assert isinstance(send(transport, "http://files.test/a"), Response)
    transport.close()
    thread.join(5.0)
    listener.close()
    assert asked == [b"files.test"]  # the proxy resolves the name


@pytest.mark.parametrize("answered", [407, 403, 502])
def test_a_proxy_that_refuses_the_tunnel_is_named_with_its_status(answered: int, server: FaultServer) -> None:
    play = server.play((READ, answer(answered, b"no"), FIN))
    transport = CurlTransport(Network(proxies={"https": server.url}))
    outcome = send(transport, "https://api.test/v1/tasks", "POST")
    transport.close()
    assert isinstance(outcome, ConnectFailed)
    assert (outcome.written, len(play.requests)) == (False, 1)
    assert f"HTTP {answered}" in outcome.message
