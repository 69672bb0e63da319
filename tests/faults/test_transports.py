"""What both transports do apart from status requests: bodies from files, files from bodies, private addresses."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from taskbridge._transport.choice import make_async_transport, make_transport
from taskbridge.errors import (
    ConfigError,
    DeadlineExceeded,
    MalformedResponse,
    ResponseTooLarge,
    TaskbridgeError,
    TruncatedResponse,
)
from taskbridge.provider.addresses import is_public
from taskbridge.provider.http import Base64, Request, Response, Upload
from taskbridge.provider.sink import ResponseSink
from taskbridge.transport import Network

from .conftest import Place
from .polling import DRIVERS, TRANSPORTS, Driver
from .server import FIN, HANG, READ, FaultServer, answer, gzipped

Send = Callable[..., Response]


@pytest.fixture
def server(places: dict[str, Place]) -> FaultServer:
    found = places["plain"].server
    assert found is not None
    return found


@pytest.fixture(params=DRIVERS)
def send(request: pytest.FixtureRequest) -> Send:
    driver: Driver = request.param

    def once(wanted: Request, limit: float = 10.0, max_body: int = 1 << 20) -> Response:
        deadline = time.monotonic() + limit
        if driver == "sync":
            transport = make_transport(Network(), "tests", 32, TRANSPORTS[driver])
            try:
                return transport.send(wanted, deadline=deadline, max_body=max_body)
            finally:
                transport.close()

        async def run() -> Response:
            transport = make_async_transport(Network(), "tests", 32, TRANSPORTS[driver])
            try:
                return await transport.send(wanted, deadline=deadline, max_body=max_body)
            finally:
                await transport.close()

        return asyncio.run(run())

    return once


# Out.


@pytest.mark.parametrize("size", [0, 1, 2, 3, 65_535, 65_536, 200_001])
@pytest.mark.parametrize("from_file", [True, False])
def test_a_document_is_sent_as_base64(
    size: int, from_file: bool, send: Send, server: FaultServer, tmp_path: Path
) -> None:
    data = bytes(n * 7 % 256 for n in range(size))
    path = tmp_path / "document.pdf"
    path.write_bytes(data)
    play = server.reply(lambda _: answer(200, b"{}"))
    body = Base64.of({"name": "a", "document": "HERE"}, "HERE", path if from_file else data)
    send(Request("POST", f"{server.url}/x", body=body))
    (seen,) = play.requests
    said: dict[str, Any] = json.loads(seen.body)
    assert (said["name"], b64decode(said["document"])) == ("a", data)
    assert seen.headers["content-length"] == str(len(seen.body))
    assert "transfer-encoding" not in seen.headers


@pytest.mark.parametrize("size", [0, 5, 200_001])
@pytest.mark.parametrize("from_file", [True, False])
def test_a_form_is_sent_with_its_length(
    size: int, from_file: bool, send: Send, server: FaultServer, tmp_path: Path
) -> None:
    path = tmp_path / "document.pdf"
    path.write_bytes(b"x" * size)
    play = server.reply(lambda _: answer(200, b"{}"))
    upload = Upload((("a", "b"),), "file", 'na"me\r\n.pdf', path if from_file else path.read_bytes())
    for _ in range(2):
        send(Request("POST", f"{server.url}/x", body=upload))
    first, second = play.requests
    assert first.headers["content-length"] == str(len(first.body))
    assert b'filename="na%22me%0D%0A.pdf"' in first.body
    assert first.body.count(b"x" * size) >= 1
    # The boundary is random: no document can contain it.
    assert first.headers["content-type"] != second.headers["content-type"]


@pytest.mark.parametrize("wrong", ["missing", "directory"])
def test_an_unreadable_file_is_an_os_error(wrong: str, send: Send, server: FaultServer, tmp_path: Path) -> None:
    play = server.reply(lambda _: answer(200, b"{}"))
    path = tmp_path if wrong == "directory" else tmp_path / "nothing"
    with pytest.raises(OSError, match=path.name):
        send(Request("PUT", f"{server.url}/x", body=path))
    assert play.requests == []


TARGETS: Final = (
    "/a%2fb/../c/./%7Ed;x=1?sig=a%2Bb+c%2f&empty=",
    "/f/caf%c3%a9%2fa.pdf?sig=a%2fb%3d&list[]=1",
    "//double//slash:x/?a=//&b=?",
    "/a?",
    "/%",
    "/a|b{c}^`\"'<>?d|e",
)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", ["curl", "requests"])
def test_a_link_leaves_byte_for_byte(kind: str, target: str, server: FaultServer) -> None:
    play = server.reply(lambda _: answer(200, b"{}"))
    for url, network in (
        (f"{server.url}{target}", Network()),
        (f"http://files.test{target}", Network(proxies={"http": server.url})),
    ):
        transport = make_transport(network, "tests", 32, kind)
        transport.send(Request("GET", url), deadline=time.monotonic() + 10.0, max_body=1024)
        transport.close()
    assert [seen.target for seen in play.requests] == [target, f"http://files.test{target}"]
    assert [seen.headers["host"] for seen in play.requests] == [f"127.0.0.1:{server.port}", "files.test"]


# In.


def test_a_body_is_saved(send: Send, server: FaultServer, tmp_path: Path) -> None:
    data = bytes(n * 7 % 256 for n in range(300_000))
    server.reply(lambda _: answer(200, data))
    path = tmp_path / "result"
    assert send(Request("GET", server.url, save_to=ResponseSink(path)), max_body=1024).body == b""
    assert path.read_bytes() == data


@pytest.mark.parametrize("length", [True, False])
def test_saving_stops_at_the_limit(length: bool, send: Send, server: FaultServer, tmp_path: Path) -> None:
    server.reply(lambda _: answer(200, bytes(300_000), length=length))
    with pytest.raises(ResponseTooLarge, match="1000"):
        send(Request("GET", server.url, save_to=ResponseSink(tmp_path / "result", 1000)))


def test_a_truncated_body_is_an_error(send: Send, server: FaultServer, tmp_path: Path) -> None:
    server.play((READ, answer(200, bytes(300_000))[:-1], FIN))
    with pytest.raises(TruncatedResponse):
        send(Request("GET", server.url, save_to=ResponseSink(tmp_path / "result")))


def test_a_compressed_body_is_not_saved_as_it_is(send: Send, server: FaultServer, tmp_path: Path) -> None:
    server.reply(lambda _: answer(200, gzipped(b"data"), "Content-Encoding: br"))
    with pytest.raises(MalformedResponse, match="encoding"):
        send(Request("GET", server.url, save_to=ResponseSink(tmp_path / "result")))


MEMBERS: Final = {
    "one member": gzipped(b"all of it"),
    "two members": gzipped(b"all ") + gzipped(b"of it"),
    "zeros behind them": gzipped(b"all ") + bytes(7) + gzipped(b"of it") + bytes(700),
}


@pytest.mark.parametrize("members", MEMBERS)
def test_gzip_members_are_joined(members: str, send: Send, server: FaultServer, tmp_path: Path) -> None:
    server.reply(lambda _: answer(200, MEMBERS[members], "Content-Encoding: gzip"))
    path = tmp_path / "result"
    send(Request("GET", server.url, save_to=ResponseSink(path)))
    assert path.read_bytes() == b"all of it" == send(Request("GET", server.url)).body


@pytest.mark.parametrize("behind", [b"x", gzipped(b"of it")[:-3], bytes(3) + b"x"])
def test_what_is_no_member_behind_one_is_an_error(
    behind: bytes, send: Send, server: FaultServer, tmp_path: Path
) -> None:
    server.reply(lambda _: answer(200, gzipped(b"all ") + behind, "Content-Encoding: gzip"))
    for sink in (None, ResponseSink(tmp_path / "result")):
        with pytest.raises(TruncatedResponse):
            send(Request("GET", server.url, save_to=sink))


def test_many_members_are_bounded_together(send: Send, server: FaultServer, tmp_path: Path) -> None:
    server.reply(lambda _: answer(200, gzipped(bytes(1000)) * 3, "Content-Encoding: gzip"))
    with pytest.raises(ResponseTooLarge):
        send(Request("GET", server.url), max_body=2999)
    with pytest.raises(ResponseTooLarge):
        send(Request("GET", server.url, save_to=ResponseSink(tmp_path / "result", 2999)))
    assert len(send(Request("GET", server.url), max_body=3000).body) == 3000


@pytest.mark.parametrize("label", ["identity", "UTF-8", "binary", "none", "aws-chunked", "identity, identity"])
def test_a_harmless_content_encoding_is_ignored(label: str, send: Send, server: FaultServer, tmp_path: Path) -> None:
    server.reply(lambda _: answer(200, b"data", f"Content-Encoding: {label}"))
    path = tmp_path / "result"
    send(Request("GET", server.url, save_to=ResponseSink(path)))
    assert path.read_bytes() == b"data" == send(Request("GET", server.url)).body


def test_an_error_response_is_read_and_not_saved(send: Send, server: FaultServer, tmp_path: Path) -> None:
    server.reply(lambda _: answer(404, b'{"a": 1}'))
    path = tmp_path / "result"
    assert send(Request("GET", server.url, save_to=ResponseSink(path))).body == b'{"a": 1}'
    assert not path.exists()


def test_repeated_fields_are_joined(send: Send, server: FaultServer) -> None:
    server.reply(lambda _: answer(200, b"{}", "X-A: 1", "X-A: 2", "X-B: caf\xe9"))
    headers = send(Request("GET", server.url)).headers
    assert (headers["x-a"], headers["x-b"]) == ("1, 2", "café")


# Where to.

PRIVATE: Final = (
    "127.0.0.1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",
    "240.0.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "ff02::1", "localhost", "",
    "fec0::1", "feff::1", "192.0.0.8", "192.0.0.170", "::ffff:192.0.0.8", "2002:c000:8::", "3fff::1", "3fff:fff::1",
    "5f00::1", "64:ff9b:1::1", "2001:db8::1", "198.18.0.1",
)  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_a_public_address(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "[::ffff:127.0.0.1]"])
def test_a_link_into_a_private_network_is_not_fetched(host: str, send: Send, server: FaultServer) -> None:
    play = server.reply(lambda _: answer(200, b"{}"))
    with pytest.raises(TaskbridgeError, match="public"):
        send(Request("GET", f"http://{host}:{server.port}/x", public_only=True))
    assert play.connections == 0


# Limits.


@pytest.mark.parametrize("kind", ["curl", "requests"])
def test_a_full_pool_ends_at_the_deadline(server: FaultServer, kind: str) -> None:
    server.play((READ, HANG))

    async def run() -> list[Any]:
        transport = make_async_transport(Network(), "tests", 1, kind)
        wanted = Request("GET", server.url)
        deadline = time.monotonic() + 0.05
        try:
            calls = [transport.send(wanted, deadline=deadline, max_body=1024) for _ in range(3)]
            return await asyncio.gather(*calls, return_exceptions=True)
        finally:
            await transport.close()

    assert [type(each) for each in asyncio.run(run())] == [DeadlineExceeded] * 3


def test_a_resolver_that_hangs_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch, send: Send) -> None:
    answered = threading.Event()

    def hang(*_: object, **__: object) -> list[Any]:
        answered.wait(5.0)
        return []

    monkeypatch.setattr("socket.getaddrinfo", hang)
    threading.Timer(0.2, answered.set).start()
    with pytest.raises(DeadlineExceeded) as caught:
        send(Request("GET", "http://slow.test/"), 0.05)
    assert not caught.value.written


@pytest.mark.parametrize("kind", ["curl", "requests"])
def test_a_transport_serves_several_event_loops(server: FaultServer, kind: str) -> None:
    server.reply(lambda _: answer(200, b"{}"))
    transport = make_async_transport(Network(), "tests", 4, kind)

    async def ask() -> int:
        response = await transport.send(Request("GET", server.url), deadline=time.monotonic() + 5.0, max_body=1024)
        return response.status

    assert [asyncio.run(ask()) for _ in range(2)] == [200, 200]
    asyncio.run(transport.close())


@pytest.mark.parametrize("kind", ["curl", "requests"])
@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_unreadable_certificates_are_a_config_error(content: bytes | None, kind: str, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_bytes(content)
    transport = make_transport(Network(ca_bundle=str(bundle)), "tests", 32, kind)
    with pytest.raises(ConfigError, match="ca_bundle"):
        transport.send(Request("GET", "https://127.0.0.1:9/"), deadline=time.monotonic() + 5.0, max_body=1024)
    transport.close()


# Kept connections.

HOSTS: Final = 40


@pytest.fixture
def many_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name that ends in ``.test`` is this machine."""
    original = socket.getaddrinfo

    def resolve(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        is_ours = str(host).endswith(".test")
        return original("127.0.0.1" if is_ours else host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.mark.usefixtures("many_names")
@pytest.mark.parametrize("external", [False, True], ids=["vendor", "external"])
@pytest.mark.parametrize("kind", ["requests", "curl"])
def test_connections_are_kept_to_few_hosts(kind: str, external: bool, server: FaultServer) -> None:
    play = server.reply(lambda _: answer(200, b"{}", close=False))
    before = server.open
    transport = make_transport(Network(), "tests", 4, kind)
    try:
        for number in range(HOSTS):
            request = Request("GET", f"http://host-{number}.test:{server.port}/", external=external)
            transport.send(request, deadline=time.monotonic() + 10.0, max_body=100)
        assert play.connections == HOSTS
        most = before + (0 if external else 16)
        give_up = time.monotonic() + 5.0  # half of what the server itself grants an idle connection
        while server.open > most and time.monotonic() < give_up:  # the server sees a close a moment later
            threading.Event().wait(0.01)
        assert server.open <= most
        last = Request("GET", f"http://host-{HOSTS - 1}.test:{server.port}/")
        for _ in range(2):
            transport.send(last, deadline=time.monotonic() + 10.0, max_body=100)
        assert play.connections == HOSTS + external  # one that is kept is used again
    finally:
        transport.close()
