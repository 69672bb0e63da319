"""What all tests share: network access to this machine only, emulated vendors, and a misbehaving server."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, settings
from pytest_socket import socket_allow_hosts

from taskbridge._config.registry import load_provider
from taskbridge.testing import Emulator

from .canaries import CANARIES, Watch, found_in

# A busy machine is slow; that is no failure.
settings.register_profile("taskbridge", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("taskbridge")


def pytest_runtest_setup() -> None:
    socket_allow_hosts(["127.0.0.1", "::1"], allow_unix_socket=True)


@pytest.fixture(scope="session", autouse=True)
def imported() -> None:
    """Import before the tests what the library imports on first use, so that no test's time includes it."""
    for name in ("taskbridge._transport.requests", "taskbridge._transport.curl"):
        import_module(name)
    for name in ("cloudconvert", "expertai-extract", "scan-documents", "smartdocumentor"):
        load_provider(name)


@pytest.fixture(autouse=True)
def watch(request: pytest.FixtureRequest) -> Iterator[Watch]:
    """Check that the test leaks no credential; see `canaries`."""
    watch = Watch(loud=request.path.parent.name in ("faults", "conformance"))
    with watch.on():
        yield watch
    found = watch.found()
    assert not found, "a credential shows: " + "; ".join(found[:5])
    folder = request.node.funcargs.get("tmp_path")
    if folder is not None and CANARIES:
        kept = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".toml" and _holds(path)]
        assert kept == [], "files hold a credential"


def _holds(path: Path) -> bool:
    return path.stat().st_size < 1 << 20 and bool(found_in(path.read_bytes().decode("latin-1")))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    del item
    if report.passed and call.when == "teardown":
        printed = "".join(text for name, text in report.sections if name.startswith("Captured std"))
        if found_in(printed):
            report.outcome = "failed"
            report.longrepr = f"a credential was printed: {found_in(printed)}"
    return report


@pytest.fixture(scope="session")
def vendors() -> Iterator[Emulator]:
    """Emulators of all vendors, shared by all tests: inject no faults here, and count no requests."""
    with Emulator(speed=20) as emulator:
        yield emulator


@pytest.fixture
def own_vendors() -> Iterator[Emulator]:
    """Emulators of all vendors for one test, which may inject faults, count requests and stop the time."""
    with Emulator(speed=20) as emulator:
        yield emulator


Step: TypeAlias = bytes | Callable[[socket.socket], None]
"""Bytes to send, or a function to call with the connection."""


class RawServer:
    """Answers each connection with the next script and records the requests.

    A script is a list of steps; after the last one the connection is closed. The last script serves all further
    connections.
    """

    def __init__(self, *scripts: Sequence[Step]) -> None:
        self.received: list[bytes] = []
        self._scripts = scripts
        self._served = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        connection.settimeout(5.0)
        script = self._scripts[min(self._served, len(self._scripts) - 1)]
        self._served += 1
        request = b""
        while b"\r\n\r\n" not in request:
            block = connection.recv(65_536)
            if not block:
                return
            request += block
        self.received.append(request)
        for step in script:
            if isinstance(step, bytes):
                connection.sendall(step)
            else:
                step(connection)


@pytest.fixture
def raw_server() -> Iterator[Callable[..., RawServer]]:
    """Starts misbehaving servers; see `RawServer`."""
    servers: list[RawServer] = []

    def start(*scripts: Sequence[Step]) -> RawServer:
        servers.append(RawServer(*scripts))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def http_answer() -> Callable[..., bytes]:
    """Builds the bytes of an HTTP response."""

    def build(status: int, body: bytes = b"", **headers: str) -> bytes:
        lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body

    return build
