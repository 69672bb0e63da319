"""Proxies and TLS: each fault through get, submit, upload and download; a proxy never speaks for the vendor."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any, Final, cast

import pytest
import trustme

from taskbridge.errors import (
    ConfigError,
    ConnectFailed,
    DeadlineExceeded,
    PermissionDenied,
    TaskbridgeError,
    TlsError,
)
from taskbridge.models import Task, TaskFile

from .catalogue import ROWS
from .conftest import Place
from .downloading import download
from .polling import DRIVERS, Driver, get_task
from .rows import Row, not_sent
from .server import FIN, HANG, READ, RECEIVE, RST, FaultServer, Script, StartTls, answer
from .test_submits import JOB, LARGE, job_that_waits_at, submit
from .vendors import CANARY, VENDORS

HOST: Final = "https://api.vendor.test"
TUNNEL: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
BRIEF: Final = {"request_timeout": 0.3}  # mostly long enough to connect to the proxy
LONGER: Final = 5.0  # seconds, where a busy computer has not even connected in that time


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def certificate(authority: trustme.CA) -> ssl.SSLContext:
    """What a proxy shows, in place of the host's certificate or as its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    cast("Any", authority.issue_cert("api.vendor.test", "localhost", "127.0.0.1")).configure_cert(context)
    return context


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def proxy(places: dict[str, Place]) -> FaultServer:
    found = places["plain"].server
    assert found is not None
    return found


# The requests.


def get(driver: Driver, url: str, _: Path, **settings: Any) -> Any:
    return get_task(driver, VENDORS["smartdocumentor"], url, **settings)


def submit_link(driver: Driver, url: str, _: Path, **settings: Any) -> Any:
    return submit(driver, VENDORS["cloudconvert"], url, "https://example.com/invoice.pdf", **settings)


def submit_document(driver: Driver, url: str, _: Path, **settings: Any) -> Any:
    return submit(driver, VENDORS["expertai-extract"], url, b"%PDF-1.4\n", **settings)


def upload(driver: Driver, url: str, _: Path, **settings: Any) -> Any:
    return submit(driver, VENDORS["scan-documents"], url, b"\x89PNG\r\n\x1a\n", **settings)


def download_file(driver: Driver, url: str, folder: Path, **settings: Any) -> Any:
    given = {key: value for key, value in settings.items() if key != "base_url"}
    return download(driver, "scan-documents", url, TaskFile(id="file_1", name="a.pdf"), folder, settings=given)


def download_link(driver: Driver, url: str, folder: Path, **settings: Any) -> Any:
    file = TaskFile(name="a.pdf", url=f"{url}/a.pdf")
    return download(driver, "cloudconvert", "http://127.0.0.1:9", file, folder, settings={**settings, **PRIVATE})


PRIVATE: Final = {"allow_private": True}
REQUESTS: Final[dict[str, Callable[..., Any]]] = {
    "get": get,
    "submit of a link": submit_link,
    "submit of a document": submit_document,
    "upload": upload,
    "download from the vendor": download_file,
    "download of a link": download_link,
}


# The proxy's faults.


@dataclass(frozen=True)
class Fault:
    """What a proxy does with CONNECT.

    Attributes:
        script: What it does.
        error: The error of every request.
        text: What the message says, beside the proxy's host and port.
        settings: Settings of the connection.
        attempts: Connections that are made.
    """

    script: Script
    error: type[TaskbridgeError]
    text: str
    settings: dict[str, Any] | None = None
    attempts: int = 3


FAULTS: Final = {
    **{
        f"answers {status}": Fault((READ, answer(status, b"<p>no</p>"), FIN), ConnectFailed, f"HTTP {status}")
        for status in (302, 403, 407, 502, 503)
    },
    "closes": Fault((READ, FIN), ConnectFailed, "broke off"),
    "resets": Fault((READ, RST), ConnectFailed, "broke off"),
    "closes inside its answer": Fault((READ, TUNNEL[:-9], FIN), ConnectFailed, "broke off"),
    "is no HTTP proxy": Fault((READ, b"SSH-2.0-OpenSSH_9.6\r\n\r\n", FIN), ConnectFailed, "no readable answer"),
    "hangs": Fault((READ, HANG), DeadlineExceeded, "ran out", BRIEF, 1),
    "opens a tunnel and closes": Fault((READ, TUNNEL, FIN), ConnectFailed, "broke off"),
    "opens a tunnel and resets": Fault((READ, TUNNEL, RECEIVE, RST), ConnectFailed, "broke off"),
    "opens a tunnel and hangs": Fault((READ, TUNNEL, HANG), DeadlineExceeded, "ran out", BRIEF, 1),
    "sends a page in the tunnel": Fault((READ, TUNNEL + answer(200, b"login"), FIN), TlsError, "TLS", None, 1),
}


def meets(request: str, driver: Driver, url: str, folder: Path, proxy: FaultServer, **settings: Any) -> TaskbridgeError:
    """Send a request through a proxy with credentials; return the error, in which they do not appear."""
    password = f"canary/{token_hex(8)}"
    address = proxy.url.replace("://", f"://me:{password.replace('/', '%2F')}@")
    seen = REQUESTS[request](driver, url, folder, proxy=address, **settings)
    assert isinstance(seen, TaskbridgeError), repr(seen)
    text = f"{seen} {seen!r} {seen.args} {seen.__dict__}"
    assert [each for each in (CANARY, password, password.replace("/", "%2F"), "me:") if each in text] == []
    assert f"127.0.0.1:{proxy.port}" in seen.message
    assert "proxy" in seen.message
    return seen


def drivers_for(error: type[TaskbridgeError] | None, number: int) -> tuple[Driver, ...]:
    """Both clients, or one in turn where a limit takes its time."""
    return DRIVERS if error is not DeadlineExceeded else (DRIVERS[number % 2],)


def tunnel_cases() -> Iterator[Any]:
    for turn, (name, fault) in enumerate(FAULTS.items()):
        for number, request in enumerate(REQUESTS, turn):
            for driver in drivers_for(fault.error, number):
                yield pytest.param(request, name, driver, id=f"{name}-{request}-{driver}")


@pytest.mark.parametrize(("request_name", "name", "driver"), list(tunnel_cases()))
def test_a_proxy_that_breaks_the_tunnel_is_named(
    request_name: str, name: str, driver: Driver, proxy: FaultServer, tmp_path: Path
) -> None:
    fault = FAULTS[name]
    play = proxy.play(fault.script)
    seen = meets(request_name, driver, HOST, tmp_path, proxy, **(fault.settings or {}))
    if fault.settings is BRIEF and not play.requests:
        play = proxy.play(fault.script)
        seen = meets(request_name, driver, HOST, tmp_path, proxy, request_timeout=LONGER)
    assert type(seen) is fault.error, repr(seen)
    assert fault.text in seen.message
    assert play.connections == fault.attempts
    assert {each.target for each in play.requests} == {"api.vendor.test:443"}
    assert {each.headers["proxy-authorization"][:6] for each in play.requests} == {"Basic "}
    assert CANARY not in "".join(str(each.headers) for each in play.requests)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("request_name", REQUESTS)
def test_a_proxy_that_intercepts_tls_is_named(
    request_name: str, driver: Driver, proxy: FaultServer, certificate: ssl.SSLContext, tmp_path: Path
) -> None:
    play = proxy.play((READ, TUNNEL, StartTls(certificate), READ, FIN))
    seen = meets(request_name, driver, HOST, tmp_path, proxy)
    assert type(seen) is TlsError, repr(seen)
    assert "certificate" in seen.message
    assert (len(play.requests), play.connections) == (1, 1)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("request_name", REQUESTS)
def test_a_407_to_a_forwarded_request_is_the_proxys(
    request_name: str, driver: Driver, proxy: FaultServer, tmp_path: Path
) -> None:
    play = proxy.play((READ, answer(407, b"<p>who are you?</p>"), FIN))
    seen = meets(request_name, driver, "http://api.vendor.test", tmp_path, proxy, allow_http=True)
    assert type(seen) is ConnectFailed, repr(seen)
    assert "HTTP 407" in seen.message
    assert len(play.requests) == 3


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("request_name", REQUESTS)
@pytest.mark.parametrize("address", ["http://unresolvable.test:3128", "refused"])
def test_a_proxy_that_is_not_reached_is_named(
    address: str, request_name: str, driver: Driver, places: dict[str, Place], tmp_path: Path
) -> None:
    url = places["refused"].url if address == "refused" else address
    for host in (HOST, "http://api.vendor.test"):
        seen = REQUESTS[request_name](driver, host, tmp_path, proxy=url, allow_http=True)
        assert type(seen) is ConnectFailed, repr(seen)
        assert f"proxy {url.removeprefix('http://')} " in f"{seen.message} "


@pytest.mark.parametrize("driver", DRIVERS)
def test_an_upload_to_storage_through_a_broken_tunnel_starts_nothing(driver: Driver, proxy: FaultServer) -> None:
    made = (READ, answer(201, job_that_waits_at("https://storage.test")), FIN)
    play = proxy.play(made, (READ, answer(502), FIN))
    seen = submit(
        driver, VENDORS["cloudconvert"], "http://api.vendor.test", LARGE, proxy=proxy.url, allow_http=True
    )  # fmt: skip
    assert type(seen) is ConnectFailed, repr(seen)
    assert f"127.0.0.1:{proxy.port}" in seen.message
    assert seen.recovery_token["task"] == f"job/{JOB}"
    assert {each.target for each in play.requests[1:]} == {"storage.test:443"}


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_403_to_a_forwarded_request_may_be_the_vendors(driver: Driver, proxy: FaultServer) -> None:
    proxy.play((READ, answer(403, b"{}"), FIN))
    seen = get_task(driver, VENDORS["smartdocumentor"], "http://api.vendor.test", proxy=proxy.url, allow_http=True)
    assert type(seen) is PermissionDenied


# Proxies that work.


@contextlib.contextmanager
def tls_in_front_of(server: FaultServer, certificate: ssl.SSLContext) -> Generator[str]:
    """A relay that takes one TLS connection to a server that speaks none; yields its URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def carry(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(65_536):
                target.sendall(block)

    def serve() -> None:
        accepted = listener.accept()[0]
        behind = socket.create_connection(("127.0.0.1", server.port))
        with behind, certificate.wrap_socket(accepted, server_side=True) as client:
            back = threading.Thread(target=carry, args=(behind, client))
            back.start()
            carry(client, behind)
            with contextlib.suppress(OSError):
                behind.shutdown(socket.SHUT_RDWR)
            back.join()

    relay = threading.Thread(target=serve)
    relay.start()
    with listener:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        relay.join(10.0)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("is_secure", [False, True])
def test_a_tunnel_carries_requests(
    is_secure: bool, driver: Driver, proxy: FaultServer, certificate: ssl.SSLContext, trusted: str
) -> None:
    vendor = VENDORS["smartdocumentor"]
    play = proxy.play((READ, TUNNEL, StartTls(certificate), READ, answer(200, vendor.completed), FIN))
    with tls_in_front_of(proxy, certificate) if is_secure else contextlib.nullcontext(proxy.url) as address:
        seen = get_task(driver, vendor, HOST, proxy=address, ca_bundle=trusted)
    assert isinstance(seen, Task), repr(seen)
    asked, request = play.requests
    assert (asked.method, asked.target) == ("CONNECT", "api.vendor.test:443")
    assert (request.target, request.headers["host"]) == (vendor.target, "api.vendor.test")


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("url", [HOST, "http://api.vendor.test"])
def test_a_tls_proxy_with_a_certificate_that_is_not_trusted_is_named(
    url: str, driver: Driver, places: dict[str, Place], certificate: ssl.SSLContext
) -> None:
    server = places["no-handshake"].server
    assert server is not None
    server.play((StartTls(certificate), READ, FIN))
    seen = get_task(driver, VENDORS["smartdocumentor"], url, proxy=server.url, allow_http=True)
    assert type(seen) is TlsError
    assert f"the certificate of the proxy 127.0.0.1:{server.port} cannot be trusted" in seen.message


@pytest.mark.parametrize("proxy_setting", ["127.0.0.1:{port}", "http://127.0.0.1:{port}"])
def test_a_proxy_without_credentials_is_named_however_it_is_written(proxy_setting: str, proxy: FaultServer) -> None:
    proxy.play((READ, answer(502), FIN))
    for driver in DRIVERS:
        address = proxy_setting.format(port=proxy.port)
        seen = get_task(driver, VENDORS["cloudconvert"], HOST, proxy=address)
        assert isinstance(seen, ConnectFailed)
        assert f"the proxy 127.0.0.1:{proxy.port} refuses" in seen.message


@pytest.mark.parametrize("from_environment", [False, True])
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_proxy_that_repeats_its_credentials_does_not_show_them(
    driver: Driver, from_environment: bool, proxy: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = f"canary-{token_hex(8)}"
    address = proxy.url.replace("://", f"://me:{password}@")
    if from_environment:
        monkeypatch.setenv("HTTP_PROXY", address)
    play = proxy.reply(lambda seen: answer(400, json.dumps({**seen.headers, "message": password}).encode()))
    settings = {} if from_environment else {"proxy": address}
    seen = get_task(driver, VENDORS["cloudconvert"], "http://api.vendor.test", allow_http=True, **settings)
    assert isinstance(seen, TaskbridgeError)
    (request,) = play.requests
    encoded = request.headers["proxy-authorization"].removeprefix("Basic ")
    text = f"{seen} {seen!r} {seen.args} {seen.__dict__}"
    assert [each for each in (password, encoded.rstrip("=")) if each in text] == []


# TLS.

TLS_ROWS: Final = [
    row for row in ROWS if row.check is not_sent and row.where not in ("unresolvable", "refused", "dead")
]


def tls_cases() -> Iterator[Any]:
    for row in TLS_ROWS:
        for number, request in enumerate(REQUESTS):
            for driver in drivers_for(row.error, number):
                yield pytest.param(row, request, driver, id=f"{row.name}-{request}-{driver}")


@pytest.mark.parametrize(("row", "request_name", "driver"), list(tls_cases()))
def test_each_request_meets_each_fault_of_tls(
    row: Row, request_name: str, driver: Driver, places: dict[str, Place], tmp_path: Path
) -> None:
    place = places[row.where]
    assert place.server is not None
    play = place.server.play(*row.script(VENDORS["cloudconvert"]))
    seen = REQUESTS[request_name](driver, place.url, tmp_path, **place.settings, **row.settings)
    assert type(seen) is row.error, repr(seen)
    assert play.connections <= row.requests


# Certificates that the environment names.


@pytest.fixture(params=["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def stale(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """An environment variable that names a file which is gone."""
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    variable: str = request.param
    monkeypatch.setenv(variable, "/gone/cacert.pem")
    return variable


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("request_name", REQUESTS)
def test_a_stale_variable_is_named(
    request_name: str, driver: Driver, stale: str, places: dict[str, Place], tmp_path: Path
) -> None:
    place = places["tls"]
    assert place.server is not None
    play = place.server.play((READ, FIN))
    try:
        seen = REQUESTS[request_name](driver, place.url, tmp_path)
    except ConfigError as error:
        seen = error
    assert type(seen) is ConfigError, repr(seen)
    assert f"{stale} /gone/cacert.pem" in seen.message
    assert play.requests == []


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_stale_variable_does_not_matter_without_tls(driver: Driver, stale: str, proxy: FaultServer) -> None:
    assert stale
    vendor = VENDORS["smartdocumentor"]
    proxy.play((READ, answer(200, vendor.completed), FIN))
    assert isinstance(get_task(driver, vendor, proxy.url), Task)
    through = get_task(driver, vendor, "http://api.vendor.test", proxy=proxy.url, allow_http=True)
    assert isinstance(through, Task)


# SOCKS.


@pytest.mark.parametrize("scheme", ["socks4", "socks4a", "socks5", "socks5h"])
def test_a_dead_socks_proxy_is_named(scheme: str, places: dict[str, Place]) -> None:
    address = places["refused"].url.removeprefix("http://")
    for url in (HOST, "http://api.vendor.test"):
        proxy = f"{scheme}://me:canary-pass@{address}"
        seen = get_task("sync", VENDORS["cloudconvert"], url, proxy=proxy, allow_http=True, transport="curl")
        assert type(seen) is ConnectFailed, repr(seen)
        assert f"the proxy {address} refuses connections" in seen.message
        assert "canary" not in f"{seen} {seen!r} {seen.__dict__}"
