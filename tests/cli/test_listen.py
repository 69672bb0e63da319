"""`listen`: a vendor's deliveries are printed, and everything it reads is limited."""

from __future__ import annotations

import asyncio
import hmac
import json
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

import taskbridge as tb
from taskbridge.cli.listen import DeliveryLog
from taskbridge.cli.listen_server import Delivery, RejectedError, WebhookServer
from taskbridge.emulator.export import config_toml
from taskbridge.testing import Emulator
from taskbridge_scan_documents.emulator import ScanDocumentsEmulator
from taskbridge_smartdocumentor.emulator import SmartDocumentorEmulator

Run = Callable[..., subprocess.CompletedProcess[str]]

SECRETS = {
    "cloudconvert": "a-signing-secret-of-a-test",
    "smartdocumentor": "b7Qd0c9yT2wX4mLr",
}


@dataclass
class Listening:
    """A `listen` process."""

    process: subprocess.Popen[str]
    url: str
    lines: queue.Queue[str] = field(default_factory=queue.Queue[str])

    def next(self) -> str:
        return self.lines.get(timeout=20)


@pytest.fixture
def config(own_vendors: Emulator, tmp_path: Path) -> Path:
    text = config_toml(own_vendors)
    for vendor, secret in SECRETS.items():
        text = text.replace(f'provider = "{vendor}"', f'provider = "{vendor}"\nwebhook_secrets = ["{secret}"]')
    path = tmp_path / "taskbridge.toml"
    path.write_text(text, "utf-8")
    return path


@pytest.fixture
def listening(config: Path) -> Iterator[Callable[..., Listening]]:
    started: list[subprocess.Popen[str]] = []

    def start(*words: str, port: int = 0) -> Listening:
        process = subprocess.Popen(
            [sys.executable, "-m", "taskbridge", "listen", *words, "--port", str(port), "--config", str(config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stderr is not None
        line = process.stderr.readline()
        url = re.search(r"http://[^\s\"]+/", line)
        assert url is not None, line
        listener = Listening(process, url[0])

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                listener.lines.put(line)

        threading.Thread(target=read, daemon=True).start()
        return listener

    yield start
    for process in started:
        process.kill()
        process.communicate()


def send(url: str, body: bytes, *, method: str = "POST", **headers: str) -> int:
    """Send a request; return the status of the response."""
    host, _, rest = url.removeprefix("http://").partition("/")
    lines = [f"{method} /{rest} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return raw(url, "\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def raw(url: str, data: bytes) -> int:
    host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(data)
        answer = b""
        while b"\r\n" not in answer:
            block = connection.recv(4096)
            if not block:
                break
            answer += block
    return int(answer.split(b" ", 2)[1]) if answer else 0


def test_a_vendors_events_are_printed_as_they_arrive(
    own_vendors: Emulator, listening: Callable[..., Listening], config: Path
) -> None:
    listener = listening("smartdocumentor")
    url = f"{listener.url}hooks/{SECRETS['smartdocumentor']}"
    vendor = own_vendors.vendors["smartdocumentor"]
    assert isinstance(vendor, SmartDocumentorEmulator)
    vendor.register_export(url)
    with tb.connect(connection="smartdocumentor", config=config) as client:
        task = client.submit("extract-text", "https://a.example/instant.pdf")

    line = listener.next()
    assert re.match(r"\d\d:\d\d:\d\d  200  ", line)
    assert f"smartdocumentor:{task.id}" in line
    assert "confirmed by a poll" in line
    listener.process.send_signal(signal.SIGINT)
    assert listener.process.wait(timeout=10) == 130


def test_an_event_about_a_task_that_the_vendor_does_not_know_yet_is_to_be_delivered_again(
    listening: Callable[..., Listening],
) -> None:
    listener = listening("cloudconvert", "--json")
    job: dict[str, Any] = {"id": "11111111-1111-4111-8111-111111111111", "status": "finished", "tasks": []}
    body = json.dumps({"event": "job.finished", "job": job}).encode()
    signature = hmac.new(SECRETS["cloudconvert"].encode(), body, sha256).hexdigest()
    for status in (503, 200):
        assert send(listener.url, body, CloudConvert_Signature=signature) == status
        record = json.loads(listener.next())
        assert (record["status"], record["ingest_status"]) == (status, "unknown")


def test_signed_events_need_no_poll(own_vendors: Emulator, listening: Callable[..., Listening], config: Path) -> None:
    vendor = own_vendors.vendors["scan-documents"]
    assert isinstance(vendor, ScanDocumentsEmulator)
    text = config.read_text("utf-8")
    port = free_port()
    secret = vendor.register_webhook(f"http://127.0.0.1:{port}/")
    named = f'provider = "scan-documents"\nwebhook_secrets = ["{secret}"]'
    config.write_text(text.replace('provider = "scan-documents"', named), "utf-8")
    listener = listening("scan-documents", "--json", port=port)
    with tb.connect(connection="scan-documents", config=config) as client:
        task = client.submit("extract-text", b"\x89PNG\r\n\x1a\n" + bytes(64), name="instant.png")

    records = [json.loads(listener.next())]
    while records[-1]["type"] != "task.completed":
        records.append(json.loads(listener.next()))
    assert (records[-1]["status"], records[-1]["ref"], records[-1]["ingest_status"]) == (200, task.ref, "applied")
    assert records[-1]["task"]["status"] == "completed"
    assert not any(each["confirmed"] for each in records)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as closed_again:
        port: int = closed_again.getsockname()[1]
    return port


def test_an_unverified_delivery_is_rejected_and_printed(listening: Callable[..., Listening]) -> None:
    listener = listening("cloudconvert", "--json")

    statuses = [send(listener.url, b"{}", CloudConvert_Signature="0" * 64), send(listener.url, b"", method="GET")]

    assert statuses == [401, 405]
    first, second = (json.loads(listener.next()) for _ in range(2))
    assert first["status"] == 401
    assert "signature" in first["rejected"]
    assert second["rejected"] == "not a POST request"


@pytest.mark.parametrize(
    ("connection", "message"),
    [
        ("scan-documents", "has no webhook_secrets"),
        ("expertai-extract", "sends no webhooks"),
        ("missing", "there is no connection 'missing'"),
    ],
)
def test_a_connection_without_secrets_is_refused(run_here: Run, config: Path, connection: str, message: str) -> None:
    done = run_here("listen", connection, "--config", str(config))

    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    if connection == "scan-documents":
        assert 'webhook_secrets = ["${WEBHOOK_SECRET}"]' in done.stderr


def test_a_port_in_use_is_an_error(run_here: Run, config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_here("listen", "cloudconvert", "--port", str(port), "--config", str(config))

    assert done.returncode == 2
    assert f"cannot listen on port {port} of 127.0.0.1" in done.stderr


# The server.


@dataclass
class RunningServer:
    url: str = ""
    deliveries: list[Delivery] = field(default_factory=list[Delivery])
    rejected: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    held: threading.Event = field(default_factory=threading.Event)
    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", int(self.url.rstrip("/").rpartition(":")[2])


@contextmanager
def running_server(**limits: float) -> Generator[RunningServer]:
    """A server that refuses ``/refused`` by its head, and answers ``/held`` once it is released."""
    running = RunningServer()

    async def receive(delivery: Delivery) -> int:
        running.deliveries.append(delivery)
        running.arrived.release()
        if delivery.url.endswith("/held"):
            await asyncio.to_thread(running.held.wait, 20)
        return 200

    def check(delivery: Delivery) -> bool:
        if delivery.url.endswith("/refused"):
            raise RejectedError(401, "refused by its head")
        return delivery.url.endswith("/proved")

    server = WebhookServer(
        "127.0.0.1",
        0,
        max_body=1000,
        receive=receive,
        check=check,
        rejected=lambda status, why: running.rejected.append((status, why)),
        **limits,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # numbers of both kinds
    )
    with server:
        running.url = f"http://127.0.0.1:{server.port}/"
        yield running
        running.held.set()


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with running_server(head_time=0.1, body_time=0.1, max_deliveries=2) as running:
        yield running


def test_a_delivery_is_complete(server: RunningServer) -> None:
    assert send(f"{server.url}hooks/x?y=1", b"{}" * 400, X_Kind="a") == 200
    (delivery,) = server.deliveries
    assert (delivery.url, len(delivery.body)) == (f"{server.url}hooks/x?y=1", 800)
    assert ("x-kind", "a") in delivery.headers


CHUNKED = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n", 413),
        (CHUNKED + b"3e8\r\n" + bytes(1000) + b"\r\n2\r\n..\r\n", 413),
        (CHUNKED + b"3e8\r\n" + bytes(1000) + b"\r\n0\r\n\r\n", 200),
        (b"POST / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 20_000, 431),
        (b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", 405),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h", 408),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n...", 408),
    ],
)
def test_a_delivery_that_is_too_large_too_slow_or_malformed_is_rejected(
    server: RunningServer, data: bytes, status: int
) -> None:
    assert raw(server.url, data) == status
    assert [each for each, _ in server.rejected] == ([] if status == 200 else [status])
    assert send(server.url, b"{}") == 200


def test_too_many_deliveries_at_once_get_a_503(server: RunningServer) -> None:
    request = b"POST /held HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"
    with socket.create_connection(server.address) as one, socket.create_connection(server.address) as two:
        for connection in (one, two):
            connection.sendall(request)
            assert server.arrived.acquire(timeout=10)
        assert send(server.url, b"{}") == 503
        server.held.set()
        assert all(connection.recv(12) == b"HTTP/1.1 200" for connection in (one, two))
    assert send(server.url, b"{}") == 200


def dripping(server: RunningServer, stack: ExitStack, path: str = "") -> socket.socket:
    """A connection that has sent a part of a request: of its head, or of its body if there is a path."""
    connection = stack.enter_context(socket.create_connection(server.address, timeout=10))
    body = f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 500\r\n\r\n{{"
    connection.sendall(body.encode() if path else b"POST / HTTP/1.1\r\nHost: h\r\nX-Slow: ")
    return connection


def test_a_delivery_is_answered_while_others_drip() -> None:
    with running_server() as server, ExitStack() as stack:
        slow = [dripping(server, stack, "/" if number % 2 else "") for number in range(40)]
        for number in range(10):
            for connection in slow:
                connection.sendall(b"x")
            assert send(f"{server.url}{number}", b"{}") == 200
    assert [delivery.url[-1] for delivery in server.deliveries] == [str(number) for number in range(10)]


def test_a_delivery_is_answered_while_others_reopen() -> None:
    with running_server(max_waiting=8) as server, ExitStack() as stack:
        slow = [dripping(server, stack) for _ in range(8)]
        for _ in range(10):
            slow += [dripping(server, stack) for _ in range(4)]
            assert send(server.url, b"{}") == 200
        for connection in slow[:40]:  # the oldest were closed
            with suppress(ConnectionError):
                assert connection.recv(1) == b""
        assert {why.partition(":")[0] for _, why in server.rejected} == {"closed to make room"}
    assert len(server.deliveries) == 10


def test_a_proved_delivery_keeps_its_place() -> None:
    with running_server(max_waiting=2) as server, ExitStack() as stack:
        proved = dripping(server, stack, "/proved")
        assert send(server.url, b"{}") == 200
        for _ in range(6):
            dripping(server, stack)
        proved.sendall(b"x" * 499)
        assert proved.recv(12) == b"HTTP/1.1 200"


def test_a_delivery_that_its_head_refutes_is_answered_before_its_body_is_read(server: RunningServer) -> None:
    head = b"POST /refused HTTP/1.1\r\nHost: h\r\nContent-Length: 900\r\n"
    assert raw(server.url, head + b"\r\n") == 401
    assert raw(server.url, head + b"Expect: 100-continue\r\n\r\n") == 401
    assert server.rejected == [(401, "refused by its head")] * 2
    assert server.deliveries == []


# What a command prints.


def test_a_secret_in_the_url_is_checked_before_a_body_is_read(listening: Callable[..., Listening]) -> None:
    listener = listening("smartdocumentor", "--json")
    host = listener.url.removeprefix("http://").rstrip("/")
    head = f"POST /hooks/{{}} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 60000000\r\nExpect: 100-continue\r\n\r\n"

    assert raw(listener.url, head.format("guessed").encode()) == 401
    assert raw(listener.url, head.format(SECRETS["smartdocumentor"]).encode()) == 100
    assert "no secret of webhook_secrets is in its URL" in json.loads(listener.next())["rejected"]


def test_an_unsigned_delivery_is_rejected_before_its_body_is_read(listening: Callable[..., Listening]) -> None:
    listener = listening("cloudconvert")
    head = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n{}\r\n"

    assert raw(listener.url, head.format("").encode()) == 401
    assert raw(listener.url, head.format(f"CloudConvert-Signature: {'0' * 64}\r\n").encode()) == 100


def test_rejected_requests_have_a_limited_number_of_lines(listening: Callable[..., Listening]) -> None:
    listener = listening("cloudconvert", "--json")
    statuses = {send(listener.url, b"{}", CloudConvert_Signature="0" * 64) for _ in range(100)}
    listener.process.send_signal(signal.SIGINT)

    assert statuses == {401}
    assert listener.process.wait(timeout=10) == 130
    records = [json.loads(listener.next()) for _ in range(21)]
    assert [record["status"] for record in records] == [401] * 20 + [None]
    assert records[-1]["more_rejected"] == 80


def test_omitted_lines_are_reported_when_the_window_ends() -> None:
    log = DeliveryLog(window=0.05)
    for _ in range(2):
        for _ in range(30):
            log.rejected(401, "no")
        lines = log.lines()
        records = [next(lines)[1] for _ in range(21)]
        assert [record["status"] for record in records] == [401] * 20 + [None]
        assert records[-1]["more_rejected"] == 10


def test_lines_are_dropped_and_counted_while_the_output_is_blocked() -> None:
    log = DeliveryLog()
    for number in range(1500):
        log.add(200, f"line {number}", {"number": number})
    lines = log.lines()
    assert [next(lines)[1]["number"] for _ in range(1000)] == [*range(1000)]
    assert next(lines)[1]["lines_left_out"] == 500
