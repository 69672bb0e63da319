"""The server for all measurements: raw asyncio HTTP/1.1 in its own process, with and without TLS.

``python -m benchmarks.server`` prints its addresses as JSON and serves on loopback until its input ends:

* ``GET /v2/tasks/ID``, ``GET /v2/tasks?…``: CloudConvert. Under ``/sync`` a request is a long poll.
* ``POST /azure/ID``, ``GET /azure/ID``, ``GET /google/operations/ID``, ``GET /signing-jobs/ID``: the formats of other libraries.
* ``POST /_begin/RUN`` with a list of ids begins a run; ``GET /_counts/RUN`` returns its requests by kind.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import tempfile
import time
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote

from benchmarks.vendor import Vendor, end_of

_HEAD: Final = b"HTTP/1.1 %d OK\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n"
_SHAPES: Final = {"azure": "azure", "google": "google", "signing-jobs": "boto3"}
_LONG_POLL: Final = 50.0  # seconds


class State:
    """The state that all connections share."""

    def __init__(self) -> None:
        self.vendor = Vendor(time.time())
        self.connections = 0

    def respond(self, method: str, target: str, body: bytes, host: str) -> tuple[int, bytes, bytes] | float:
        """Return status, headers and body; for a long poll, the seconds to wait first."""
        path, _, query = target.partition("?")
        parts = path.strip("/").split("/")
        now, vendor = time.time(), self.vendor
        head, name = parts[0], unquote(parts[-1])
        if head == "v2":
            if name in ("tasks", "jobs"):
                return 200, b"", vendor.page(name, dict(parse_qsl(query)), now)
            vendor.of(name).count("poll")
            return 200, b"", vendor.show(name, now)
        if head == "sync":
            run = vendor.of(name)
            left = min(_LONG_POLL, run.epoch + end_of(name) - now)
            if left > 0:
                return left
            run.count("poll")
            return 200, b"", vendor.show(name, time.time())
        if head in _SHAPES:
            if method == "POST":
                vendor.of(name).count("begin")
                location = f"Operation-Location: {host}/azure/{name}\r\n".encode()
                return 202, location, b'{"status": "Running"}'
            vendor.of(name).count("poll")
            return 200, b"", vendor.show(name, now, _SHAPES[head])
        if head == "_begin":
            run = vendor.begin(name, time.time(), json.loads(body) if body else [])
            return 200, b"", json.dumps({"epoch": run.epoch}).encode()
        if head == "_counts":
            counts = {**vendor.run(name).counts, "connections": self.connections}
            return 200, b"", json.dumps(counts).encode()
        return 404, b"", b'{"message": "no such page"}'


class Connection(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, state: State, scheme: str) -> None:
        self._state = state
        self._scheme = scheme
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._state.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio calls it
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._timer is None and (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            lower = head.lower()
            length = 0
            if (at := lower.find(b"content-length:")) >= 0:
                length = int(lower[at + 15 :].partition(b"\r\n")[0])
            if len(self._buffer) < end + 4 + length:
                return
            body = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            method, target, _ = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
            host = ""
            if method == "POST" and (at := lower.find(b"\r\nhost:")) >= 0:
                host = self._scheme + "://" + lower[at + 7 :].partition(b"\r\n")[0].strip().decode()
            self._reply(method, target, body, host, close=b"connection: close" in lower)

    def _reply(self, method: str, target: str, body: bytes, host: str, *, close: bool) -> None:
        self._timer = None
        if self._transport is None:
            return
        response = self._state.respond(method, target, body, host)
        if isinstance(response, float):
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(
                response + 0.001, lambda: self._reply(method, target, body, host, close=close)
            )
            return
        status, headers, content = response
        self._transport.write(_HEAD % (status, headers, len(content)) + content)
        if close:
            self._transport.close()


def certificates(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """Create a TLS context for this server, and a bundle for clients: certifi's with our authority added."""
    import certifi  # only to measure TLS
    import trustme

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    bundle = folder / "bundle.pem"
    bundle.write_bytes(Path(certifi.where()).read_bytes() + b"\n" + authority.cert_pem.bytes())
    return context, bundle


async def serve(folder: Path, *, tls: bool) -> None:
    loop = asyncio.get_running_loop()
    state = State()
    plain = await loop.create_server(lambda: Connection(state, "http"), "127.0.0.1", 0, backlog=4096)
    addresses: dict[str, object] = {"http": f"http://127.0.0.1:{plain.sockets[0].getsockname()[1]}"}
    if tls:
        context, bundle = certificates(folder)
        secure = await loop.create_server(lambda: Connection(state, "https"), "127.0.0.1", 0, ssl=context, backlog=4096)
        addresses |= {"https": f"https://127.0.0.1:{secure.sockets[0].getsockname()[1]}", "bundle": str(bundle)}
    print(json.dumps(addresses), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)  # until the parent closes it


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="taskbridge-benchmark-") as folder:
        asyncio.run(serve(Path(folder), tls="--tls" in sys.argv))


if __name__ == "__main__":
    main()
