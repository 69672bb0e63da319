"""A misbehaving server on raw sockets.

A script is data: what happens on one connection, step by step. `READ` waits for a request and records it, `RECEIVE`
for any bytes, bytes are sent as they are, `Pause` waits, `Repeat` sends the same bytes repeatedly, `StartTls` encrypts
what follows. A script ends with `FIN` or `RST`, or stays
silent with `HANG` until the peer closes. Scripts serve connections in order; the last one serves all further ones.

One listening socket serves many tests: each `play` starts its own record, and a connection belongs to the play during
which it was opened.
"""

from __future__ import annotations

import contextlib
import gzip
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Self, TypeAlias


class Action(Enum):
    """What is done to a connection."""

    READ = "read a request"
    RECEIVE = "receive some bytes"
    FIN = "close"
    RST = "reset"
    HANG = "stay silent until the peer closes"


READ: Final = Action.READ
RECEIVE: Final = Action.RECEIVE
FIN: Final = Action.FIN
RST: Final = Action.RST
HANG: Final = Action.HANG


@dataclass(frozen=True)
class Pause:
    """Wait for some seconds; tests use milliseconds."""

    seconds: float


@dataclass(frozen=True)
class Repeat:
    """Send the same bytes repeatedly, with a pause after each."""

    data: bytes
    times: int
    pause: float = 0.0


@dataclass(frozen=True)
class StartTls:
    """Perform a TLS handshake; what follows is encrypted."""

    context: ssl.SSLContext


Step: TypeAlias = bytes | Action | Pause | Repeat | StartTls
Script: TypeAlias = Sequence[Step]


@dataclass(frozen=True)
class Seen:
    """A request that arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int
    raw: bytes = field(repr=False)


@dataclass
class Play:
    """What happened since `FaultServer.play`."""

    scripts: Sequence[Script] | Callable[[Seen], bytes]
    requests: list[Seen] = field(default_factory=list[Seen])
    connections: int = 0
    sent: int = 0
    """Bytes that the peer accepted, over all connections."""
    finished: int = 0
    """Scripts that ran to their end."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def arrived(self) -> int:
        """Requests that arrived; a connection without any counts as one."""
        return max(len(self.requests), self.connections)


class FaultServer:
    """Serves scripts on 127.0.0.1.

    Args:
        tls: Wraps each connection; None for plain http. With `handshake` false the context is never used, and the
            scripts begin where the handshake would.
        handshake: Whether to perform the TLS handshake.
        host: Name in `url`.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, handshake: bool = True, host: str = "127.0.0.1") -> None:
        self._tls = tls if handshake else None
        self._scheme = "http" if tls is None else "https"
        self._host = host
        self._play = Play(())
        self._open: set[socket.socket] = set()
        self._marks: dict[tuple[str, int], threading.Event] = {}
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"{self._scheme}://{self._host}:{self.port}"

    @property
    def open(self) -> int:
        """Connections that are still open."""
        return len(self._open)

    def play(self, *scripts: Script) -> Play:
        """Start a record; each script serves one connection, the last one all further ones."""
        self._catch_up()
        self._play = Play(scripts)
        return self._play

    def reply(self, answers: Callable[[Seen], bytes]) -> Play:
        """Start a record; respond properly to every request with what the function returns."""
        self._catch_up()
        self._play = Play(answers)
        return self._play

    def _catch_up(self) -> None:
        """Let the previous play accept the connections that are still in the queue."""
        with socket.socket() as mark:
            mark.bind(("127.0.0.1", 0))
            accepted = self._marks.setdefault(mark.getsockname(), threading.Event())
            mark.connect(("127.0.0.1", self.port))
            accepted.wait(30.0)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._listener.close()
        self._thread.join()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, peer = self._listener.accept()
            except OSError:
                return
            if (mark := self._marks.pop(peer, None)) is not None:
                connection.close()
                mark.set()
                continue
            play = self._play
            play.connections += 1
            number = play.connections - 1
            thread = threading.Thread(target=self._host_one, args=(connection, play, number), daemon=True)
            self._threads = [t for t in self._threads if t.is_alive()]
            self._threads.append(thread)
            thread.start()

    def _host_one(self, connection: socket.socket, play: Play, number: int) -> None:
        connection.settimeout(10.0)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open.add(connection)
        printable = connection
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
                self._open.add(connection)
            if callable(play.scripts):
                _converse(connection, play, play.scripts, number)
            else:
                _perform(connection, play, play.scripts[min(number, len(play.scripts) - 1)], number)
        except OSError:
            pass  # the other side had enough
        finally:
            self._open -= {connection, printable}
            connection.close()
            printable.close()


def _converse(connection: socket.socket, play: Play, answers: Callable[[Seen], bytes], number: int) -> None:
    while (seen := _read(connection, play, number)) is not None:
        connection.sendall(answers(seen))


def _perform(connection: socket.socket, play: Play, script: Script, number: int) -> None:
    for number_of_step, step in enumerate(script):
        if isinstance(step, StartTls):
            with step.context.wrap_socket(connection, server_side=True) as encrypted:
                _perform(encrypted, play, script[number_of_step + 1 :], number)
            return
        if isinstance(step, bytes):
            _say(connection, play, step)
        elif isinstance(step, Pause):
            time.sleep(step.seconds)  # noqa: TID251  # the fault itself
        elif isinstance(step, Repeat):
            for _ in range(step.times):
                _say(connection, play, step.data)
                if step.pause:
                    time.sleep(step.pause)  # noqa: TID251  # the fault itself
        elif not _do(connection, play, step, number):
            return
    play.finished += 1


def _say(connection: socket.socket, play: Play, data: bytes) -> None:
    connection.sendall(data)
    play.sent += len(data)


def _do(connection: socket.socket, play: Play, step: Action, number: int) -> bool:
    """Run a step; return False if the peer ended the script."""
    if step is READ:
        return _read(connection, play, number) is not None
    if step is RECEIVE:
        return bool(connection.recv(65_536))
    if step is HANG:
        while connection.recv(65_536):
            pass
        return False
    if step is RST:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    return True


def _read(connection: socket.socket, play: Play, number: int) -> Seen | None:
    data = b""
    while b"\r\n\r\n" not in data:
        block = connection.recv(65_536)
        if not block:
            return None
        data += block
    head, _, body = data.partition(b"\r\n\r\n")
    line, *fields = head.decode("latin-1").split("\r\n")
    method, target, _ = line.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in fields)}
    while len(body) < int(headers.get("content-length", "0")):
        body += connection.recv(65_536)
    seen = Seen(method, target, headers, body, number, head + b"\r\n\r\n" + body)
    with play.lock:
        play.requests.append(seen)
    return seen


# Bytes of responses.


def answer(status: int | str, body: bytes = b"", *fields: str, length: bool = True, close: bool = True) -> bytes:
    """Return a complete response.

    Args:
        status: HTTP status, with its reason if it matters.
        body: Body.
        fields: Further header lines.
        length: Whether to send the length.
        close: Whether to announce that the connection closes.
    """
    lines = [f"HTTP/1.1 {status if isinstance(status, str) else f'{status} Whatever'}"]
    if not any(each.lower().startswith("content-type:") for each in fields):
        lines.append("Content-Type: application/json")
    if length:
        lines.append(f"Content-Length: {len(body)}")
    if close:
        lines.append("Connection: close")
    return "\r\n".join([*lines, *fields]).encode("utf-8") + b"\r\n\r\n" + body


def chunked(body: bytes, size: int = 64) -> bytes:
    """Return a response with chunks of a given size."""
    parts = [body[n : n + size] for n in range(0, len(body), size)]
    coded = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return answer(200, b"", "Transfer-Encoding: chunked", length=False) + coded + b"0\r\n\r\n"


def gzipped(body: bytes) -> bytes:
    """Compress with gzip."""
    return gzip.compress(body, 9, mtime=0)
