"""`listen`: a vendor's deliveries are printed, and everything it reads is limited."""

from __future__ import annotations

import json
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import taskbridge as tb
from taskbridge.cli.listen_server import Delivery, WebhookServer
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
    url: str
    deliveries: list[Delivery]
    rejected: list[tuple[int, str]]
    held: threading.Event


@pytest.fixture
def server() -> Iterator[RunningServer]:
    running = RunningServer("", [], [], threading.Event())

    async def receive(delivery: Delivery) -> int:
        running.deliveries.append(delivery)
        return 200

    server = WebhookServer(
        "127.0.0.1",
        0,
        max_body=1000,
        receive=receive,
        rejected=lambda status, why: running.rejected.append((status, why)),
        head_time=0.1,
        body_time=0.1,
        max_deliveries=2,
    )
    with server:
        running.url = f"http://127.0.0.1:{server.port}/"
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
    address = ("127.0.0.1", int(server.url.rstrip("/").rpartition(":")[2]))
    with socket.create_connection(address), socket.create_connection(address):
        assert send(server.url, b"{}") == 503
