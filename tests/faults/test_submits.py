"""Every row of the catalogue injected into a submission: it never arrives twice; uncertainty is raised (P6, P26)."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

import taskbridge as tb
from taskbridge import aio
from taskbridge._transport.choice import make_async_transport, make_transport
from taskbridge.errors import DeadlineExceeded, SubmitUncertain, TaskbridgeError
from taskbridge.models import Task
from taskbridge.provider.http import Request, Response
from taskbridge.transport import Network

from .catalogue import ROWS
from .conftest import Place
from .polling import DRIVERS, QUICK, TRANSPORTS, Driver
from .rows import Row, not_sent
from .server import FIN, READ, Repeat, Script, answer
from .submitting import SubmitOutcome, submit_outcome
from .vendors import CANARY, VENDORS, Vendor

LINK: Final = "https://example.com/invoice.pdf"
PDF: Final = b"%PDF-1.4\n"
PNG: Final = b"\x89PNG\r\n\x1a\n"
# Each vendor and each driver gets many rows.
DOCUMENTS: Final[dict[str, str | bytes]] = {
    "smartdocumentor": LINK,
    "expertai-extract": PDF,
    "cloudconvert": LINK,
    "scan-documents": PNG,
}
STORED: Final = "file_euyrvozb9302uwhq"
# Responses before the request that starts the work.
UPLOADS: Final[dict[str, tuple[Script, ...]]] = {
    "scan-documents": ((READ, answer(200, json.dumps({"id": STORED}).encode()), FIN),)
}


def cases() -> Iterator[Any]:
    for number, row in enumerate(row for row in ROWS if submit_outcome(row) is not None):
        names = [name for name in DOCUMENTS if row.applies_to(VENDORS[name])]
        for turn in range(1 if row.error is DeadlineExceeded else min(2, len(names))):  # a limit takes its time
            name, driver = names[(number + turn) % len(names)], DRIVERS[(number // 4 + turn) % 2]
            yield pytest.param(row, VENDORS[name], driver, id=f"{row.name}-{name}-{driver}")


def submit(driver: Driver, vendor: Vendor, url: str, document: str | bytes, **settings: Any) -> Task | TaskbridgeError:
    chosen: dict[str, Any] = {**QUICK, "transport": TRANSPORTS[driver], **vendor.settings(url), **settings}

    async def send() -> Task:
        async with aio.connect(vendor.name, **chosen) as client:
            return await client.submit("extract-text", document)

    try:
        if driver == "async":
            return asyncio.run(send())
        with tb.connect(vendor.name, **chosen) as client:
            return client.submit("extract-text", document)
    except TaskbridgeError as error:
        return error


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize(("row", "vendor", "driver"), list(cases()))
def test_submit_meets_each_fault(row: Row, vendor: Vendor, driver: Driver, places: dict[str, Place]) -> None:
    place = places[row.where]
    before = UPLOADS.get(vendor.name, ()) if row.check is not not_sent else ()
    play = place.server.play(*before, *row.script(vendor)) if place.server else None
    settings: dict[str, Any] = {**place.settings, **row.settings}
    if row.attempts != 3:
        settings["retry"] = {"attempts": row.attempts, "first": 0.0, "at_most": 0.0}
    seen = submit(driver, vendor, place.url, DOCUMENTS[vendor.name], **settings)
    outcome = submit_outcome(row, vendor) or SubmitOutcome(None, repeats=False)
    assert isinstance(seen, TaskbridgeError)
    assert type(seen) is (outcome.error or row.error_of(vendor)), repr(seen)
    assert CANARY not in f"{seen} {seen!r} {seen.args} {seen.__dict__}"
    if isinstance(seen, SubmitUncertain):
        assert not seen.retryable
        assert seen.recovery_token["provider"] == vendor.name
        assert seen.recovery_token.get("files") == ([STORED] if before else None)
    if play is None:
        return
    if outcome.repeats:
        assert play.arrived - len(before) <= row.requests
    else:
        assert play.arrived - len(before) == 1
        assert not seen.retryable or seen.http_status in (408, 425, 429)  # which say that nothing was taken


# Faults of an upload: one row for each kind of fault.

UPLOADING: Final = (
    "F6 closes after accepting, before any byte",
    "F6 resets after accepting, before any byte",
    "F9 body shorter than its Content-Length",
    "F17 silence before the headers",
    "F30 403",
    "F36 307 to another host",
    "F28 502",
    "F28 503",
)
LARGE: Final = bytes(100_001)  # more than goes inside a job
JOB: Final = "6559c281-9c64-4b9c-a1cd-3e6c4d7b6a1b"


def job_that_waits_at(url: str) -> bytes:
    form = {"url": f"{url}/upload", "parameters": {"key": "documents/${filename}"}}
    waiting = {"id": "t-1", "name": "import-1", "status": "waiting", "result": {"form": form}}
    return json.dumps({"data": {"id": JOB, "status": "waiting", "tasks": [waiting]}}).encode()


@pytest.mark.parametrize("name", UPLOADING)
@pytest.mark.parametrize(("of", "driver"), [("cloudconvert", "sync"), ("scan-documents", "async")])
def test_upload_meets_each_fault(of: str, driver: Driver, name: str, places: dict[str, Place]) -> None:
    [row] = [row for row in ROWS if row.name == name]
    vendor, place = VENDORS[of], places["plain"]
    assert place.server is not None
    made = [(READ, answer(201, job_that_waits_at(place.url)), FIN)] if of == "cloudconvert" else []
    play = place.server.play(*made, *row.script(vendor))
    seen = submit(driver, vendor, place.url, LARGE, **row.settings)
    assert isinstance(seen, TaskbridgeError)
    assert type(seen) is row.error, repr(seen)
    assert play.arrived == len(made) + 1  # the upload once, and nothing after it
    assert seen.recovery_token.get("task") == (f"job/{JOB}" if made else None)
    if made:
        assert CANARY not in play.requests[-1].raw.decode("latin-1")  # the form is another host's


# While the document is leaving.


class Reader:
    """A host that reads a little of a request, says something, and closes or reads no further."""

    def __init__(self, said: bytes, *, close: bool) -> None:
        self._said, self._close = said, close
        self.connections = 0
        self.left_open = 0
        self._kept: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with suppress(OSError):
                connection.recv(2048)
                connection.sendall(self._said)
            if self._close:
                self._read_on(connection)
            else:
                self._kept.append(connection)

    def _read_on(self, connection: socket.socket) -> None:
        connection.settimeout(5.0)
        try:
            if self._said:
                connection.shutdown(socket.SHUT_WR)
            while connection.recv(65_536):
                pass
        except TimeoutError:
            self.left_open += 1
        except OSError:
            pass
        connection.close()

    def stop(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for each in self._kept:
            each.close()


def send(driver: Driver, url: str, body: bytes | Path, seconds: float) -> Response:
    """Send a large body by one of the transports."""
    request = Request("POST", url, headers={"Authorization": f"Bearer {CANARY}"}, body=body, starts_work=True)

    async def later() -> Response:
        transport = make_async_transport(Network(), "tests", 32, TRANSPORTS[driver])
        try:
            return await transport.send(request, deadline=time.monotonic() + seconds, max_body=1 << 20)
        finally:
            await transport.close()

    if driver == "async":
        return asyncio.run(later())
    transport = make_transport(Network(), "tests", 32, TRANSPORTS[driver])
    try:
        return transport.send(request, deadline=time.monotonic() + seconds, max_body=1 << 20)
    finally:
        transport.close()


@pytest.mark.parametrize("kept", ["bytes", "file"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_f102_a_peer_that_stops_reading_ends_at_the_deadline(driver: Driver, kept: str, tmp_path: Path) -> None:
    host = Reader(b"", close=False)
    document = tmp_path / "document.pdf"
    document.write_bytes(bytes(16 << 20))
    with pytest.raises(DeadlineExceeded) as caught:
        send(driver, host.url, document if kept == "file" else document.read_bytes(), 0.2)
    host.stop()
    assert (host.connections, caught.value.written) == (1, True)


@pytest.mark.parametrize("status", [413, 401])
@pytest.mark.parametrize("driver", DRIVERS)
def test_f103_an_error_response_while_the_body_is_sent_counts_by_its_status(
    driver: Driver, status: int, tmp_path: Path
) -> None:
    said = f"HTTP/1.1 {status} No\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}".encode()
    host = Reader(said, close=True)
    document = tmp_path / "document.pdf"
    document.write_bytes(bytes(4 << 20))
    try:
        assert send(driver, host.url, document, 10.0).status == status
    finally:
        host.stop()
    assert (host.connections, host.left_open) == (1, 0)


@pytest.mark.parametrize("driver", DRIVERS)
def test_f104_a_file_that_shrinks_while_it_is_sent_is_an_os_error(
    driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = tmp_path / "document.pdf"
    document.write_bytes(bytes(2 << 20))
    opened: Any = Path.open

    def shrink(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path == document and "r" in str(args):
            os.truncate(path, 1 << 20)  # after its size was sent
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", shrink)
    host = Reader(b"", close=True)
    with pytest.raises(OSError, match="became shorter") as caught:
        send(driver, host.url, document, 10.0)
    host.stop()
    assert caught.value.errno == errno.EIO


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_dripping_document_ends_at_the_deadline(driver: Driver, places: dict[str, Place]) -> None:
    vendor, server = VENDORS["expertai-extract"], places["plain"].server
    assert server is not None
    head = answer(200, b"", "Content-Length: 10000", length=False)
    play = server.play((READ, head, Repeat(b"x", 10_000, 0.002), FIN))
    seen = submit(
        driver,
        vendor,
        server.url,
        f"{server.url}/a.pdf",
        request_timeout=0.05,
        retry={"attempts": 1},
        transport=TRANSPORTS[driver],
        allow_private=True,
    )
    assert isinstance(seen, DeadlineExceeded), repr(seen)
    assert play.sent < 10_000
