"""A TCP relay to a server on this machine that is slow, or silent as a network is: nothing passes or is closed."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

_SIZE: Final = 65_536  # bytes


class Relay:
    """Passes what it gets.

    Args:
        port: Of the server.

    Attributes:
        delay: Seconds before it passes a piece.
        is_silent: Whether it passes nothing.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.delay = 0.0
        self.is_silent = False
        self._never = threading.Event()
        self._half = 0  # bytes; see `silence_in`
        self._long = 0  # bytes; see `silence_after`
        self._left: int | None = None  # bytes that it still passes
        self._selector = selectors.DefaultSelector()
        self._sockets: list[socket.socket] = [self._listener]
        wake, self._wake = socket.socketpair()
        self._sockets += [wake, self._wake]
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self._selector.register(wake, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def silence(self) -> None:
        """Pass nothing from now on, and accept what nothing is passed of."""
        self.is_silent = True

    def silence_in(self, size: int) -> None:
        """Do so in the middle of the next piece of at least so many bytes."""
        self._half = size

    def silence_after(self, size: int) -> None:
        """Do so after the parameters of a statement of PostgreSQL that have at least so many bytes."""
        self._long = size

    def close(self) -> None:
        """Close all connections."""
        self._wake.send(b"x")
        self._thread.join()
        for each in self._sockets:
            each.close()
        self._selector.close()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                source = key.fileobj
                assert isinstance(source, socket.socket)
                if source is self._listener:
                    self._accept()
                elif key.data is None:
                    return
                else:
                    self._pass(source, key.data)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self._target))
        except OSError:  # it does not run
            client.close()
            return
        self._sockets += [client, server]
        self._selector.register(client, selectors.EVENT_READ, server)
        self._selector.register(server, selectors.EVENT_READ, client)

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        try:
            content = source.recv(_SIZE)
            self._never.wait(self.delay)
            if self._half and len(content) >= self._half and not self.is_silent:
                target.sendall(content[: len(content) // 2])
                self.is_silent = True
            if self._long and content[:1] == b"B" and (length := int.from_bytes(content[1:5], "big")) >= self._long:
                self._long, self._left = 0, length + 1
            if self._left is not None and not self.is_silent:
                target.sendall(content[: self._left])
                self._left -= len(content)
                self.is_silent = self._left <= 0
            elif not self.is_silent:
                target.sendall(content) if content else target.shutdown(socket.SHUT_WR)
        except OSError:
            content = b""
        if not content:
            self._selector.unregister(source)


@contextmanager
def relay(port: int) -> Generator[Relay]:
    """Relay to a port, until the block ends."""
    created = Relay(port)
    try:
        yield created
    finally:
        created.close()
