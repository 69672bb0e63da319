"""Misbehaving servers, one for each kind of place; shared, because each play starts its own record."""

from __future__ import annotations

import contextlib
import functools
import socket
import ssl
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
import trustme

from taskbridge._config import registry

from .server import FaultServer


@dataclass(frozen=True)
class Place:
    """Where a fault happens.

    Attributes:
        url: URL for `base_url`.
        server: The server that listens there, if any.
        settings: Settings that a connection needs for it.
    """

    url: str
    server: FaultServer | None
    settings: dict[str, Any]


def _context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    cast("Any", certificate).configure_cert(context)
    return context


def _self_signed(folder: Path) -> ssl.SSLContext:
    authority = trustme.CA()
    chain, key = folder / "self.pem", folder / "self.key"
    authority.cert_pem.write_to_path(str(chain))
    authority.private_key_pem.write_to_path(str(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    return context


@pytest.fixture(scope="module", autouse=True)
def read_once() -> Iterator[None]:
    """Read the installed distributions once, not for each of some thousand clients."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_entries", functools.cache(registry._entries))
        yield


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Place]]:
    """The places, by name."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    bundle = folder / "authority.pem"
    authority.cert_pem.write_to_path(str(bundle))
    trusting: dict[str, Any] = {"ca_bundle": str(bundle)}
    good = _context(authority.issue_cert("127.0.0.1", "localhost"))
    yesterday = datetime.now(UTC) - timedelta(days=1)
    old = authority.issue_cert("127.0.0.1", not_before=yesterday - timedelta(days=9), not_after=yesterday)
    with contextlib.ExitStack() as stack:

        def serve(**options: Any) -> FaultServer:
            return stack.enter_context(FaultServer(**options))

        servers = {
            "plain": serve(),
            "other": serve(host="localhost"),
            "tls": serve(tls=good),
            "self-signed": serve(tls=_self_signed(folder)),
            "expired": serve(tls=_context(old)),
            "wrong-host": serve(tls=_context(authority.issue_cert("elsewhere.test"))),
            "no-handshake": serve(tls=good, handshake=False),
        }
        found = {
            name: Place(server.url, server, {} if server.url.startswith("http:") else trusting)
            for name, server in servers.items()
        }
        # Bound but not listening: a free port may be taken by another process, or by the connecting socket itself.
        kept = socket.socket()
        stack.callback(kept.close)
        kept.bind(("127.0.0.1", 0))
        refused = f"http://127.0.0.1:{kept.getsockname()[1]}"
        named = {"allow_http": True}
        dead = stack.enter_context(_full()).getsockname()[1]
        yield {
            **found,
            "refused": Place(refused, None, {}),
            "unresolvable": Place("http://unresolvable.test", None, named),
            "dead": Place(f"http://dead.test:{dead}", None, named),
        }


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names ``unresolvable.test``, and ``dead.test`` with four addresses that never respond."""
    original = socket.getaddrinfo

    def resolve(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host in ("unresolvable.test", b"unresolvable.test"):
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        if host in ("dead.test", b"dead.test"):
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))] * 4
        return original(host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@contextlib.contextmanager
def _full() -> Generator[socket.socket]:
    """A listener whose queue is full, so that further connections wait forever."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    waiting: list[socket.socket] = []
    try:
        for _ in range(3):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
            waiting.append(client)
        yield listener
    finally:
        for client in waiting:
            client.close()
        listener.close()
