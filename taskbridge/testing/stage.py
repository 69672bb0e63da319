"""What the conformance suite puts around a vendor: a host of documents, a receiver, a line that loses answers."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from typing import TYPE_CHECKING, Final

from taskbridge._transport.bodies import stream
from taskbridge._transport.requests import RequestsTransport
from taskbridge.errors import TruncatedResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from taskbridge.provider.http import Request, Response
    from taskbridge.transport import Network

__all__ = ["Losing", "Visit", "Visited", "Weighing", "until", "visited"]

PATIENCE: Final = 5.0
"""Seconds of real time for what an emulated vendor does by itself; it takes a few milliseconds."""


@dataclass(frozen=True)
class Visit:
    """One request that came.

    Attributes:
        method: HTTP method.
        path: Path and query.
        headers: Header fields, in order.
        body: The raw bytes.
    """

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass
class Visited:
    """A web server on this machine that gives everybody the same document, and keeps what came.

    Attributes:
        url: Its address, without a trailing slash.
        visits: What came, in order.
    """

    url: str
    visits: list[Visit] = field(default_factory=list[Visit])

    def came(self, method: str) -> list[Visit]:
        """The visits with that HTTP method."""
        return [visit for visit in self.visits if visit.method == method]


@contextmanager
def visited(document: bytes) -> Generator[Visited]:
    """Run such a server.

    Args:
        document: What a GET is answered with.
    """
    kept = Visited("")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(document)

        def do_POST(self) -> None:
            self._answer(b"")

        def _answer(self, body: bytes) -> None:
            came = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            kept.visits.append(Visit(self.command, self.path, tuple(self.headers.items()), came))
            self.send_response(200)
            self.send_header("Content-Type", "application/pdf")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its base has that name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Weighing(RequestsTransport):
    """Sends everything, and keeps how long each body was that committed an order.

    Args:
        network: As for the transport.
    """

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.weights: list[int] = []

    def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        """See `taskbridge.transport.Transport`."""
        if request.starts_work and (body := stream(request)) is not None:
            self.weights.append(body.length)
        return super().send(request, deadline=deadline, max_body=max_body)


class Losing(RequestsTransport):
    """Sends everything, and loses the answer to what commits an order."""

    def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        """See `taskbridge.transport.Transport`; the vendor has the order, and we do not know.

        Raises:
            TruncatedResponse: The request commits an order.
        """
        answer = super().send(request, deadline=deadline, max_body=max_body)
        if request.starts_work:
            raise TruncatedResponse("the line broke before the answer came")
        return answer


def until(ready: Callable[[], bool], what: str) -> None:
    """Wait for what an emulated vendor does by itself.

    Args:
        ready: Whether it has been done.
        what: The same in words.

    Raises:
        AssertionError: It was not done in time.
    """
    pause, latest = threading.Event(), monotonic() + PATIENCE
    while not ready():
        if monotonic() > latest:
            raise AssertionError(f"nothing came of it: {what}")
        pause.wait(0.002)
