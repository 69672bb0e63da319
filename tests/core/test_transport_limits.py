"""Limits of total time and size, against servers that drip and flood, with both transports."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

import taskbridge as tb
from taskbridge import aio

if TYPE_CHECKING:
    from .conftest import Interface

    Start = Callable[..., Any]

ONE_TRY: dict[str, Any] = {"api_key": "key-of-a-test", "retry": {"attempts": 1}}
TASK = b'{"id": "t1", "status": "completed"}'
ANNOUNCED = 10_000


class Drip:
    """Sends a byte every few milliseconds, and counts them."""

    def __init__(self, first: bytes, byte: bytes) -> None:
        self.sent = 0
        self._first = first
        self._byte = byte

    def __call__(self, connection: socket.socket) -> None:
        connection.sendall(self._first)
        try:
            for _ in range(ANNOUNCED):
                pause(connection)
                connection.sendall(self._byte)
                self.sent += 1
        except OSError:
            return  # they have gone


def pause(connection: socket.socket) -> None:
    """Two milliseconds, or until the other side leaves."""
    connection.settimeout(0.002)
    try:
        if connection.recv(1) == b"":
            raise ConnectionAbortedError
    except TimeoutError:
        return


def settings(server: Any, **more: Any) -> dict[str, Any]:
    return {**ONE_TRY, "base_url": server.url, **more}


HEAD = f"HTTP/1.1 200 OK\r\nContent-Length: {ANNOUNCED}\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("first", "byte"),
    [
        (b"HTTP/1.1 200 ", b"x"),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
        (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"),
        (HEAD, b" "),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["status line", "one header", "headers", "body", "chunks", "100 Continue"],
)
def test_the_total_deadline_holds_against_a_dripping_server(
    raw_server: Start, interface: Interface, first: bytes, byte: bytes
) -> None:
    drip = Drip(first, byte)
    server = raw_server([drip])
    with pytest.raises(tb.TransportError) as caught:
        interface.call("scan-documents", settings(server, request_timeout=0.04), "get", "t1")
    assert type(caught.value) in (tb.DeadlineExceeded, tb.TruncatedResponse)
    assert isinstance(caught.value, tb.DeadlineExceeded) or first == b""
    assert drip.sent < ANNOUNCED


def test_a_server_that_never_responds_is_abandoned(raw_server: Start, interface: Interface) -> None:
    def silent(connection: socket.socket) -> None:
        connection.recv(1)  # until they leave

    server = raw_server([silent])
    with pytest.raises(tb.DeadlineExceeded) as caught:
        interface.call("scan-documents", settings(server, request_timeout=0.4), "get", "t1")
    assert caught.value.written


def answer(body: bytes, *fields: str) -> bytes:
    head = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *fields, "Connection: close"]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


BOMB = gzip.compress(b" " * 5_000_000)
TWICE = gzip.compress(gzip.compress(TASK))


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b" " * 3000, ()),
        (TASK + b" " * 2000, ()),
        (BOMB, ("Content-Encoding: gzip",)),
        (TASK, ("Content-Encoding: br",)),
        (TWICE, ("Content-Encoding: gzip, gzip",)),
    ],
    ids=["blanks", "just over", "bomb", "other encoding", "twice"],
)
def test_reading_stops_at_the_size_limit(
    raw_server: Start, interface: Interface, body: bytes, fields: tuple[str, ...]
) -> None:
    server = raw_server([answer(body, *fields)])
    with pytest.raises(tb.ResponseTooLarge):
        interface.call("scan-documents", settings(server, max_body=2000), "get", "t1")
    assert len(server.received) == 1


def test_a_response_at_the_limit_is_read(raw_server: Start, interface: Interface) -> None:
    body = TASK + b" " * (2000 - len(TASK))
    server = raw_server([answer(body)])
    assert interface.call("scan-documents", settings(server, max_body=2000), "get", "t1").status == "completed"
    server = raw_server([answer(gzip.compress(body), "Content-Encoding: gzip")])
    assert interface.call("scan-documents", settings(server, max_body=2000), "get", "t1").status == "completed"


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ([], tb.TruncatedResponse),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + TASK], tb.TruncatedResponse),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"], tb.TruncatedResponse),
        ([b"HTTP/1.1 200 OK\r\nContent-Ty"], tb.TruncatedResponse),
        ([b"220 mail.test ESMTP\r\n"], tb.MalformedResponse),
        ([answer(TASK).replace(b"Content-Length: 35", b"Content-Length: abc")], tb.MalformedResponse),
        ([answer(gzip.compress(TASK)[:-9], "Content-Encoding: gzip")], tb.TruncatedResponse),
    ],
    ids=["nothing", "short", "short chunk", "in the headers", "not HTTP", "length", "cut gzip"],
)
def test_a_truncated_response_is_never_a_task(
    raw_server: Start, interface: Interface, script: list[bytes], kind: type[tb.TaskbridgeError]
) -> None:
    server = raw_server(script)
    with pytest.raises(kind) as caught:
        interface.call("scan-documents", settings(server), "get", "t1")
    assert isinstance(caught.value, tb.TransportError | tb.MalformedResponse)
    assert caught.value.retryable
    assert caught.value.ref == "scan-documents:t1"


@pytest.mark.parametrize("whole", [True, False])
def test_a_response_that_ends_while_the_event_loop_is_busy_is_read(raw_server: Start, whole: bool) -> None:
    busy, ended = threading.Event(), threading.Event()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"

    def end(connection: socket.socket) -> None:
        busy.wait(5.0)
        connection.sendall(b"0\r\n\r\n" if whole else b"")
        connection.shutdown(socket.SHUT_WR)
        ended.set()

    server = raw_server([head + b"%x\r\n%s\r\n" % (len(TASK), TASK), end])

    async def run() -> tb.Task:
        async with aio.connect("scan-documents", base_url=server.url, **ONE_TRY) as client:
            task = asyncio.ensure_future(client.get("t1"))
            for _ in range(20):  # until it waits for the end
                await asyncio.sleep(0.001)
            busy.set()
            ended.wait(5.0)
            threading.Event().wait(0.3)  # longer than the client waits before it checks the connection
            return await task

    if whole:
        assert asyncio.run(run()).status == "completed"
    else:
        with pytest.raises(tb.TruncatedResponse):
            asyncio.run(run())


def test_a_refused_connection_means_that_nothing_was_sent(interface: Interface) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(tb.ConnectFailed) as caught:
        interface.call("scan-documents", {**ONE_TRY, "base_url": f"http://127.0.0.1:{port}"}, "get", "t1")
    assert not caught.value.written
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_both_transports_send_the_same(raw_server: Start, interfaces: tuple[Interface, Interface]) -> None:
    heads: list[set[bytes]] = []
    for interface in interfaces:
        server = raw_server([answer(TASK)])
        interface.call("scan-documents", settings(server), "get", "t1")
        lines: list[bytes] = server.received[0].lower().rstrip().splitlines()
        heads.append({line for line in lines if not line.startswith((b"host:", b"connection:"))})
    assert heads[0] == heads[1]
    assert any(line.startswith(b"user-agent: taskbridge/") for line in heads[0])
    assert b"accept-encoding: identity" in heads[0]
