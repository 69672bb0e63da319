"""A document host, clients of the emulated vendors, and clients with scripted responses."""

from __future__ import annotations

import asyncio
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias, cast

import pytest

import taskbridge as tb
from taskbridge import Client, aio
from taskbridge.provider.capabilities import Credential
from taskbridge.provider.http import Request
from taskbridge.testing import Emulator, ScriptedTransport, VirtualClock
from taskbridge.testing.conformance.samples import connection_of
from taskbridge.testing.transport import Answer, Script

# 10 by 10 pixels.
PNG = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAAAAACoWZBhAAAAD0lEQVR42mP4DwcMtGcCAGgtY5240DlJAAAAAElFTkSuQmCC")
PDF = b"%PDF-1.4\n1 0 obj << /Type /Page >> endobj\n"

# Settings for a client of each vendor without a server.
SETTINGS: dict[str, dict[str, Any]] = {
    "cloudconvert": {"api_key": "canary-key", "base_url": "http://127.0.0.1:9/v2"},
    "scan-documents": {"api_key": "canary-key", "base_url": "http://127.0.0.1:9/v1"},
    "smartdocumentor": {"access_token": "canary-key", "base_url": "http://127.0.0.1:9/api"},
    "expertai-extract": {"access_token": "canary-key", "base_url": "http://127.0.0.1:9/beta"},
}
VENDORS = tuple(SETTINGS)


@dataclass
class Documents:
    """A document host that records the path and headers of each request."""

    url: str
    pages: dict[str, tuple[int, dict[str, str], bytes]]
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list[tuple[str, dict[str, str]]])


@pytest.fixture
def documents() -> Iterator[Documents]:
    pages: dict[str, tuple[int, dict[str, str], bytes]] = {
        "/invoice.png": (200, {"Content-Type": "image/png"}, PNG),
        "/invoice.pdf": (200, {"Content-Type": "application/pdf"}, PDF),
        "/empty.png": (200, {"Content-Type": "image/png"}, b""),
        "/moved/invoice.png": (302, {"Location": "/invoice.png"}, b""),
        "/loop.png": (301, {"Location": "/loop.png"}, b""),
        "/to-metadata.png": (307, {"Location": "http://169.254.169.254/latest"}, b""),
        "/to-file.png": (302, {"Location": "file:///etc/passwd"}, b""),
        "/huge.png": (200, {"Content-Type": "image/png"}, b"x" * (12 << 20)),
    }
    host = Documents("", pages)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host.requests.append((self.path, dict(self.headers)))
            status, headers, body = pages.get(self.path.partition("?")[0], (404, {}, b"no"))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body)), "Connection": "close"}.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                self.wfile.write(body)
            except OSError:
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name in the base class
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    host.url = f"http://127.0.0.1:{server.server_port}"
    yield host
    server.shutdown()
    server.server_close()
    thread.join()


Call: TypeAlias = Callable[..., Any]


class Both:
    """The methods of a synchronous or asynchronous client, with the same names and results."""

    def __init__(self, emulator: Emulator, provider: str, *, asynchronous: bool, **settings: Any) -> None:
        fixed: dict[str, Any] = {"poll": {"interval": 0.05}, "retry": {"first": 0.01}, "allow_private": True}
        self._settings = {**fixed, **emulator.settings(provider), **settings}
        self._provider = provider
        self._asynchronous = asynchronous

    def __getattr__(self, name: str) -> Call:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._asynchronous:
                return asyncio.run(self._await(name, args, kwargs))
            with tb.connect(self._provider, **self._settings) as client:
                result: Any = getattr(client, name)(*args, **kwargs)
                return [*cast("Iterator[Any]", result)] if name == "list" else result

        return call

    async def _await(self, name: str, args: Any, kwargs: Any) -> Any:
        async with aio.connect(self._provider, **self._settings) as client:
            result: Any = getattr(client, name)(*args, **kwargs)
            return [each async for each in result] if name == "list" else await result


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def both(request: pytest.FixtureRequest, own_vendors: Emulator) -> Callable[..., Both]:
    """Create the synchronous, then the asynchronous client of a vendor."""

    def make(provider: str, **settings: Any) -> Both:
        return Both(own_vendors, provider, asynchronous=request.param, **settings)

    return make


@dataclass
class Scripted:
    """A client with scripted responses."""

    client: Client
    transport: ScriptedTransport
    clock: VirtualClock


@pytest.fixture
def scripted() -> Callable[..., Scripted]:
    """Create a client with scripted responses."""

    def make(provider: str, *script: Answer | Callable[[Request], Answer], **settings: Any) -> Scripted:
        clock = VirtualClock()
        connection = connection_of(provider, {**SETTINGS[provider], **settings})
        connection.clock = clock
        connection.credentials.current = Credential({"Authorization": "Bearer canary-key"})
        answers: Script = [each for each in script if not callable(each)]
        for each in script:
            if callable(each):
                answers = each
        transport = ScriptedTransport(answers, clock=clock)
        return Scripted(Client(connection, clock=clock, transport=transport), transport, clock)

    return make
