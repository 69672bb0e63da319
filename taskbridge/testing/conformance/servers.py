"""What the conformance suite needs besides the vendor: a local web server, and transports that measure or lose."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from typing import TYPE_CHECKING, Final

from taskbridge._transport.bodies import body_stream
from taskbridge._transport.requests import RequestsTransport
from taskbridge.errors import TruncatedResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from taskbridge.provider.http import Request, Response
    from taskbridge.transport import Network

WAIT_LIMIT: Final = 5.0
"""Seconds of real time to wait for what an emulated vendor does by itself; it takes a few milliseconds."""


@dataclass(frozen=True)
class ReceivedRequest:
    """One request to the local server."""

    method: str
    path: str  # with the query
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass
class LocalServer:
    """A web server on this machine that serves one document, and records all requests."""

    url: str  # without a trailing slash
    requests: list[ReceivedRequest] = field(default_factory=list[ReceivedRequest])

    def received(self, method: str) -> list[ReceivedRequest]:
        """Return the requests with that HTTP method."""
        return [request for request in self.requests if request.method == method]


@contextmanager
def local_server(document: bytes) -> Generator[LocalServer]:
    """Run a server that answers each GET with a document."""
    server = LocalServer("")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._respond(document)

        def do_POST(self) -> None:
            self._respond(b"")

        def _respond(self, body: bytes) -> None:
            received = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = tuple(self.headers.items())
            server.requests.append(ReceivedRequest(self.command, self.path, headers, received))
            self.send_response(200)
            self.send_header("Content-Type", "application/pdf")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its base has that name
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{listener.server_address[1]}"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


class MeasuringTransport(RequestsTransport):
    """Sends everything, and records the length of each body that starts work."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.lengths: list[int] = []

    def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        """See `taskbridge.transport.Transport`."""
        if request.starts_work and (body := body_stream(request)) is not None:
            self.lengths.append(body.length)
        return super().send(request, deadline=deadline, max_body=max_body)


class LosingTransport(RequestsTransport):
    """Sends everything, and loses the response to the request that starts work."""

    def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        """See `taskbridge.transport.Transport`; the vendor has the submission, but the client gets no response."""
        response = super().send(request, deadline=deadline, max_body=max_body)
        if request.starts_work:
            raise TruncatedResponse("the connection was lost before the response arrived")
        return response


def wait_until(ready: Callable[[], bool], what: str) -> None:
    """Wait for what an emulated vendor does by itself; an `AssertionError` reports ``what`` did not happen in time."""
    pause, latest = threading.Event(), monotonic() + WAIT_LIMIT
    while not ready():
        if monotonic() > latest:
            raise AssertionError(what)
        pause.wait(0.002)
