"""The shell around emulated vendors: addresses, starting and stopping, request log, faults, exported text."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint
from typing import Any, ClassVar

import pytest
import requests
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from taskbridge.emulator import Emulator, Host, Plan, VendorEmulator
from taskbridge.emulator import shell as shell_module
from taskbridge.emulator.export import config_toml, connections_json, samples_json
from taskbridge_cloudconvert.emulator import CloudConvertEmulator


class Acme(VendorEmulator):
    """A vendor that answers with the duration of its next plan."""

    name: ClassVar[str] = "acme"

    def mounts(self) -> Mapping[str, Sequence[BaseRoute]]:
        return {"acme": [Route("/plan", self._plan, methods=["GET", "POST"])], "acme-files": []}

    def settings(self) -> Mapping[str, str]:
        return {"api_key": f'quoted " \\ key-{self.host.random.random()}', "base_url": f"{self.host.base_url}/acme"}

    def samples(self) -> Mapping[str, str]:
        return {"completed": "44", "named": "external/INV-7"}

    async def _plan(self, _request: Request) -> Response:
        return JSONResponse(self.host.take_plan().duration)


class Beta(Acme):
    name: ClassVar[str] = "beta"

    def mounts(self) -> Mapping[str, Sequence[BaseRoute]]:
        return {"beta": [Route("/plan", self._plan)]}


VENDORS: Mapping[str, type[VendorEmulator]] = {"acme": Acme, "beta": Beta}


def acme(*names: str, **options: Any) -> Emulator:
    return Emulator(*names, vendors=VENDORS, **options)


def get(emulator: Emulator, path: str, **options: Any) -> requests.Response:
    return requests.get(emulator.base_url + path, timeout=5, **options)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with acme(speed=0) as running:
        yield running


# Addresses.


def test_it_listens_on_a_free_loopback_port(emulator: Emulator) -> None:
    assert emulator.base_url.startswith("http://127.0.0.1:")
    assert get(emulator, "/acme/plan").json() == 6.0


def test_an_ipv6_address_is_written_in_brackets() -> None:
    try:
        with acme(host="::1") as emulator:
            assert emulator.base_url.startswith("http://[::1]:")
            assert get(emulator, "/acme/plan").status_code == 200
    except RuntimeError:
        pytest.skip("no IPv6 here")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.com", ""])
def test_only_loopback_addresses_are_accepted(host: str) -> None:
    with pytest.raises(ValueError, match="loopback"):
        acme(host=host)


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        emulator = acme(port=port)
        with pytest.raises(RuntimeError, match=f"port {port} on 127.0.0.1 is already in use; choose another one"):
            emulator.start()
        emulator.stop()


def test_a_port_can_be_reused_at_once() -> None:
    with acme() as first:
        port = int(first.base_url.rpartition(":")[2])
        get(first, "/acme/plan")
    with acme(port=port) as second:
        assert get(second, "/acme/plan").status_code == 200


# Starting and stopping.


def test_it_has_no_address_before_it_starts() -> None:
    emulator = acme()
    with pytest.raises(RuntimeError, match="is not running"):
        _ = emulator.base_url
    emulator.stop()


def test_it_cannot_be_started_twice(emulator: Emulator) -> None:
    with pytest.raises(RuntimeError, match="is already running"):
        emulator.start()


def test_stop_closes_the_port_and_ends_the_thread() -> None:
    before = set(threading.enumerate())
    with acme() as emulator:
        address = emulator.base_url
    with pytest.raises(requests.ConnectionError):
        requests.get(address, timeout=5)
    remaining = set(threading.enumerate()) - before
    assert not any(thread.name == "taskbridge-emulator" for thread in remaining)


def test_stop_does_not_wait_for_idle_connections() -> None:
    with acme() as emulator:
        host = emulator.base_url.removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=5)
        for _ in range(2):  # the same connection
            connection.request("GET", "/acme/plan")
            with connection.getresponse() as response:
                assert response.read() == b"6.0"
    connection.close()


def test_it_serves_in_the_calling_thread_until_stopped() -> None:
    emulator = acme()
    ready = threading.Event()
    thread = threading.Thread(target=emulator.serve, args=(ready.set,))
    thread.start()
    assert ready.wait(5)
    assert get(emulator, "/acme/plan").status_code == 200
    emulator.stop()
    thread.join(5)
    assert not thread.is_alive()


def test_ctrl_c_stops_it_normally() -> None:
    code = """
import signal
from taskbridge.testing import Emulator

signal.signal(signal.SIGINT, signal.default_int_handler)
Emulator("cloudconvert").serve(ready=lambda: signal.raise_signal(signal.SIGINT))
print("stopped")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("stopped\n", "", 0)


def test_it_can_be_restarted() -> None:
    emulator = acme()
    for _ in range(2):
        with emulator:
            assert get(emulator, "/acme/plan").status_code == 200


def test_it_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with acme() as emulator:
        get(emulator, "/acme/plan")
        get(emulator, "/nowhere")
    assert capfd.readouterr() == ("", "")


# Vendors.


def test_all_vendors_run_unless_some_are_named() -> None:
    with acme() as both, acme("beta") as one:
        assert list(both.vendors) == ["acme", "beta"]
        assert list(one.vendors) == ["beta"]


def test_an_unknown_name_is_rejected_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no emulator of gamma is installed; available: acme, beta"):
        acme("gamma")


def install(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> None:
    """Replace the installed entry points by these."""

    def entry_points(*, group: str) -> list[EntryPoint]:
        return [point for point in points if point.group == group]

    monkeypatch.setattr(shell_module, "entry_points", entry_points)


def test_installed_emulators_are_found_by_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("cloudconvert", "taskbridge_cloudconvert.emulator:CloudConvertEmulator", "taskbridge.emulators")
    install(monkeypatch, point)
    with Emulator() as emulator:
        assert isinstance(emulator.vendors["cloudconvert"], CloudConvertEmulator)


def test_two_emulators_of_one_name_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("acme", value, "taskbridge.emulators") for value in ("a:A", "b:B")]
    install(monkeypatch, *points)
    with pytest.raises(RuntimeError, match="two emulators are named 'acme': a:A and b:B"):
        Emulator()


def test_an_entry_point_must_be_an_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("acme", "json:dumps", "taskbridge.emulators")
    install(monkeypatch, point)
    with pytest.raises(TypeError, match="acme = json:dumps is not a VendorEmulator"):
        Emulator()


def test_two_vendors_cannot_share_a_prefix() -> None:
    with pytest.raises(ValueError, match="both use the prefix 'acme'"):
        Emulator(vendors={"acme": Acme, "other": Acme}).start()


def test_the_seed_determines_what_is_random() -> None:
    with acme("acme", seed=7) as one, acme("acme", seed=7) as same, acme("acme", seed=8) as other:
        assert one.settings()["api_key"] == same.settings()["api_key"] != other.settings()["api_key"]


def test_settings_and_samples_need_no_name_if_only_one_vendor_runs() -> None:
    with acme("beta") as one:
        assert one.samples() == {"completed": "44", "named": "external/INV-7"}
        assert one.settings()["base_url"] == f"{one.base_url}/acme"


def test_settings_need_a_name_if_several_vendors_run(emulator: Emulator) -> None:
    with pytest.raises(ValueError, match=r"name one of the running vendors \(acme, beta\), not None"):
        emulator.settings()


def test_the_next_tasks_use_the_given_plans(emulator: Emulator) -> None:
    emulator.plan_next("acme", Plan(1, 2), Plan(10, 20))
    assert [get(emulator, f"/{path}/plan").json() for path in ("acme", "beta", "acme", "acme")] == [3, 6, 30, 6]


def test_all_vendors_share_the_default_plan() -> None:
    with acme(plan=Plan(0, 1)) as emulator:
        assert get(emulator, "/beta/plan").json() == 1


def test_time_can_be_advanced_by_hand(emulator: Emulator) -> None:
    before = emulator.clock.time()
    emulator.clock.advance(90)
    assert emulator.clock.time() == before + 90


# Request log and faults.


def test_requests_are_logged_without_headers_and_bodies(emulator: Emulator) -> None:
    get(emulator, "/acme/plan?a=1&b=%20", headers={"Authorization": "Bearer secret"})
    requests.post(emulator.base_url + "/acme-files/none", data=b"secret", timeout=5).close()
    get(emulator, "/elsewhere")
    first, second, third = emulator.requests
    assert (first.vendor, first.prefix, first.method, first.path) == ("acme", "acme", "GET", "/acme/plan")
    assert (first.query, first.status, first.time) == ("a=1&b=%20", 200, emulator.clock.time())
    assert (second.vendor, second.prefix, second.method, second.status) == ("acme", "acme-files", "POST", 404)
    assert (third.vendor, third.status) == ("", 404)
    assert "secret" not in repr(emulator.requests)


def test_requests_are_counted_and_cleared(emulator: Emulator) -> None:
    for path in ("/acme/plan", "/acme/other", "/beta/plan"):
        get(emulator, path)
    assert emulator.count() == 3
    assert emulator.count("acme") == 2
    assert emulator.count(vendor="acme", method="get", path_contains="/plan") == 1
    assert emulator.count(method="POST") == 0
    emulator.clear_requests()
    assert emulator.requests == []


def test_faults_are_injected_in_order_and_as_often_as_requested(emulator: Emulator) -> None:
    emulator.fail_next(503, times=2)
    emulator.fail_next(429, retry_after=7, body=b'{"slow": true}', headers={"X-Request-Id": "r1"})
    responses = [get(emulator, "/acme/plan") for _ in range(4)]
    assert [response.status_code for response in responses] == [503, 503, 429, 200]
    assert responses[0].content == b""
    assert responses[2].json() == {"slow": True}
    assert responses[2].headers["Retry-After"] == "7"
    assert responses[2].headers["X-Request-Id"] == "r1"
    assert responses[2].headers["Content-Type"] == "application/json"
    assert [seen.status for seen in emulator.requests] == [503, 503, 429, 200]


def test_a_fault_can_apply_to_one_vendor(emulator: Emulator) -> None:
    emulator.fail_next(500, vendor="beta", body=b"<html>", content_type="text/html")
    assert get(emulator, "/acme/plan").status_code == 200
    assert get(emulator, "/beta/plan").headers["Content-Type"].startswith("text/html")
    assert get(emulator, "/beta/plan").status_code == 200


class Gamma(Acme):
    """A vendor with a body of its own for one status, and a call for tokens."""

    name: ClassVar[str] = "gamma"
    token_paths: ClassVar[tuple[str, ...]] = ("/gamma/oauth/token",)

    def mounts(self) -> Mapping[str, Sequence[BaseRoute]]:
        return {
            "gamma": [
                Route("/plan", self._plan, methods=["POST"]),
                Route("/oauth/token", self._plan),
                Route("/plan", self._plan),
            ]
        }

    def error_response(self, status: int, path: str) -> Response | None:
        return JSONResponse({"error": f"{status} at {path}"}, status) if status in {402, 404, 405} else None


@pytest.fixture
def gamma() -> Iterator[Emulator]:
    with Emulator(vendors={"gamma": Gamma}, speed=0) as running:
        yield running


def test_a_fault_has_the_vendors_own_body(gamma: Emulator) -> None:
    gamma.fail_next(402)
    gamma.fail_next("not-found")
    gamma.fail_next(402, body=b"")
    gamma.fail_next(500)
    answers = [get(gamma, "/gamma/plan") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [402, 404, 402, 500]
    assert [answer.text for answer in answers] == [
        '{"error":"402 at /gamma/plan"}',
        '{"error":"404 at /gamma/plan"}',
        "",
        "",
    ]


def test_a_fault_hits_calls_for_tokens_only_on_request(gamma: Emulator) -> None:
    token, plan = "/gamma/oauth/token", "/gamma/plan"
    for chosen in ("", "/gamma", "plan"):
        gamma.fail_next(503, path_contains=chosen)
        assert [get(gamma, path).status_code for path in (token, plan)] == [200, 503]
    gamma.fail_next("unavailable", path_contains="token")
    assert [get(gamma, path).status_code for path in (plan, token)] == [200, 503]


def test_an_unknown_path_and_a_wrong_method_are_answered_by_the_vendor(gamma: Emulator) -> None:
    assert get(gamma, "/gamma/none").json() == {"error": "404 at /gamma/none"}
    response = requests.delete(gamma.base_url + "/gamma/plan", timeout=5)
    assert (response.status_code, response.json()) == (405, {"error": "405 at /gamma/plan"})
    assert response.headers["Allow"] == "GET, HEAD, POST"  # of all routes with this path
    assert (get(gamma, "/none").status_code, get(gamma, "/none").content) == (404, b"")


def test_it_has_a_second_origin(gamma: Emulator) -> None:
    other = gamma.vendors["gamma"].host.storage_url
    assert other.startswith("http://127.0.0.1:")
    assert other != gamma.base_url
    assert requests.get(f"{other}/gamma/plan", timeout=5).status_code == 200
    gamma.stop()
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{other}/gamma/plan", timeout=5)


def test_responses_have_a_date_but_no_server_header(emulator: Emulator) -> None:
    headers = get(emulator, "/acme/plan").headers
    assert "server" not in headers
    assert headers["date"].endswith("GMT")


def test_a_trailing_slash_is_not_redirected(emulator: Emulator) -> None:
    assert get(emulator, "/acme/plan/", allow_redirects=False).status_code == 404


# Exported text.


def test_connections_and_samples_are_single_lines_of_json(emulator: Emulator) -> None:
    connections, samples = connections_json(emulator), samples_json(emulator)
    assert "\n" not in connections + samples
    assert json.loads(connections)["beta"]["base_url"] == f"{emulator.base_url}/acme"
    assert json.loads(samples)["samples"]["acme"] == {"completed": "44", "named": "external/INV-7"}


def test_the_configuration_is_toml(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"api_key": '"\\\n\x7fü😀', "odd key": "x"}
    with acme("acme") as emulator:
        monkeypatch.setattr(emulator.vendors["acme"], "settings", settings.copy)
        text = config_toml(emulator)
    assert tomllib.loads(text) == {"default": "acme", "connections": {"acme": {"provider": "acme", **settings}}}
    assert "# acme:44  (completed)\n" in text
    assert "# acme:external/INV-7  (named)\n" in text


def test_an_emulator_knows_its_final_address() -> None:
    seen: list[Host] = []

    class Curious(Acme):
        def __init__(self, host: Host) -> None:
            super().__init__(host)
            seen.append(host)

    with Emulator(vendors={"acme": Curious}) as emulator:
        assert seen[0].base_url == emulator.base_url
        assert seen[0].clock is emulator.clock
