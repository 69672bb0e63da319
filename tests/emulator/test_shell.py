"""The shell around emulated vendors: addresses, life cycle, log, ordered failures, texts."""

from __future__ import annotations

import http.client
import json
import signal
import socket
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
from taskbridge.emulator.texts import config_toml, connections_json, samples_json
from taskbridge_cloudconvert.emulator import CloudConvertEmulator


class Acme(VendorEmulator):
    """A vendor that tells the length of its next plan."""

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


# Where it is.


def test_it_answers_on_a_free_loopback_port(emulator: Emulator) -> None:
    assert emulator.base_url.startswith("http://127.0.0.1:")
    assert get(emulator, "/acme/plan").json() == 6.0


def test_ipv6_loopback_is_written_in_brackets() -> None:
    try:
        with acme(host="::1") as emulator:
            assert emulator.base_url.startswith("http://[::1]:")
            assert get(emulator, "/acme/plan").status_code == 200
    except RuntimeError:
        pytest.skip("no IPv6 here")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.com", ""])
def test_no_other_address_than_loopback(host: str) -> None:
    with pytest.raises(ValueError, match="loopback"):
        acme(host=host)


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        emulator = acme(port=port)
        with pytest.raises(RuntimeError, match=f"port {port} on 127.0.0.1 is already in use; choose another one"):
            emulator.start()
        emulator.stop()


def test_a_port_can_be_taken_again_at_once() -> None:
    with acme() as first:
        port = int(first.base_url.rpartition(":")[2])
        get(first, "/acme/plan")
    with acme(port=port) as second:
        assert get(second, "/acme/plan").status_code == 200


# Life.


def test_before_the_start_nothing_is_known() -> None:
    emulator = acme()
    with pytest.raises(RuntimeError, match="does not run"):
        _ = emulator.base_url
    emulator.stop()


def test_it_does_not_start_twice(emulator: Emulator) -> None:
    with pytest.raises(RuntimeError, match="runs already"):
        emulator.start()


def test_after_the_end_nobody_answers() -> None:
    before = set(threading.enumerate())
    with acme() as emulator:
        address = emulator.base_url
    with pytest.raises(requests.ConnectionError):
        requests.get(address, timeout=5)
    left = set(threading.enumerate()) - before
    assert not any(thread.name == "taskbridge-emulator" for thread in left)


def test_the_end_does_not_wait_for_idle_connections() -> None:
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


def test_ctrl_c_ends_serving_as_a_normal_end() -> None:
    emulator = acme()
    emulator.serve(ready=lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(RuntimeError, match="does not run"):
        _ = emulator.clock


def test_it_can_be_started_again() -> None:
    emulator = acme()
    for _ in range(2):
        with emulator:
            assert get(emulator, "/acme/plan").status_code == 200


def test_it_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    with acme() as emulator:
        get(emulator, "/acme/plan")
        get(emulator, "/nowhere")
    assert capfd.readouterr() == ("", "")


# Vendors.


def test_without_names_all_run_and_with_names_only_those() -> None:
    with acme() as both, acme("beta") as one:
        assert list(both.vendors) == ["acme", "beta"]
        assert list(one.vendors) == ["beta"]


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no emulator of gamma is installed; there is: acme, beta"):
        acme("gamma")


def offer(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> None:
    """Install these entry points."""

    def entry_points(*, group: str) -> list[EntryPoint]:
        return [point for point in points if point.group == group]

    monkeypatch.setattr(shell_module, "entry_points", entry_points)


def test_installed_emulators_come_through_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("cloudconvert", "taskbridge_cloudconvert.emulator:CloudConvertEmulator", "taskbridge.emulators")
    offer(monkeypatch, point)
    with Emulator() as emulator:
        assert isinstance(emulator.vendors["cloudconvert"], CloudConvertEmulator)


def test_two_emulators_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("acme", value, "taskbridge.emulators") for value in ("a:A", "b:B")]
    offer(monkeypatch, *points)
    with pytest.raises(RuntimeError, match="two emulators are named 'acme': a:A and b:B"):
        Emulator()


def test_an_entry_point_must_be_an_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("acme", "json:dumps", "taskbridge.emulators")
    offer(monkeypatch, point)
    with pytest.raises(TypeError, match="acme = json:dumps is no VendorEmulator"):
        Emulator()


def test_two_vendors_cannot_share_a_prefix() -> None:
    with pytest.raises(ValueError, match="both want the prefix 'acme'"):
        Emulator(vendors={"acme": Acme, "other": Acme}).start()


def test_the_seed_decides_what_is_random() -> None:
    with acme("acme", seed=7) as one, acme("acme", seed=7) as same, acme("acme", seed=8) as other:
        assert one.settings()["api_key"] == same.settings()["api_key"] != other.settings()["api_key"]


def test_settings_and_samples_need_no_name_where_there_is_one_vendor() -> None:
    with acme("beta") as one:
        assert one.samples() == {"completed": "44", "named": "external/INV-7"}
        assert one.settings()["base_url"] == f"{one.base_url}/acme"


def test_settings_need_a_name_where_there_are_several(emulator: Emulator) -> None:
    with pytest.raises(ValueError, match=r"name one of the running vendors \(acme, beta\), not None"):
        emulator.settings()


def test_plans_are_taken_by_the_next_tasks(emulator: Emulator) -> None:
    emulator.plan_next("acme", Plan(1, 2), Plan(10, 20))
    assert [get(emulator, f"/{path}/plan").json() for path in ("acme", "beta", "acme", "acme")] == [3, 6, 30, 6]


def test_the_default_plan_is_shared_by_all() -> None:
    with acme(plan=Plan(0, 1)) as emulator:
        assert get(emulator, "/beta/plan").json() == 1


def test_time_moves_by_hand(emulator: Emulator) -> None:
    before = emulator.clock.time()
    emulator.clock.advance(90)
    assert emulator.clock.time() == before + 90


# Log and failures.


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


def test_requests_are_counted_and_forgotten(emulator: Emulator) -> None:
    for path in ("/acme/plan", "/acme/other", "/beta/plan"):
        get(emulator, path)
    assert emulator.count() == 3
    assert emulator.count("acme") == 2
    assert emulator.count(vendor="acme", method="get", path_contains="/plan") == 1
    assert emulator.count(method="POST") == 0
    emulator.forget()
    assert emulator.requests == []


def test_failures_come_in_order_and_only_so_often(emulator: Emulator) -> None:
    emulator.fail_next(503, times=2)
    emulator.fail_next(429, retry_after=7, body=b'{"slow": true}', headers={"X-Request-Id": "r1"})
    answers = [get(emulator, "/acme/plan") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [503, 503, 429, 200]
    assert answers[0].content == b""
    assert answers[2].json() == {"slow": True}
    assert answers[2].headers["Retry-After"] == "7"
    assert answers[2].headers["X-Request-Id"] == "r1"
    assert answers[2].headers["Content-Type"] == "application/json"
    assert [seen.status for seen in emulator.requests] == [503, 503, 429, 200]


def test_a_failure_can_be_for_one_vendor(emulator: Emulator) -> None:
    emulator.fail_next(500, vendor="beta", body=b"<html>", content_type="text/html")
    assert get(emulator, "/acme/plan").status_code == 200
    assert get(emulator, "/beta/plan").headers["Content-Type"].startswith("text/html")
    assert get(emulator, "/beta/plan").status_code == 200


def test_the_server_names_no_software_and_gives_its_date(emulator: Emulator) -> None:
    headers = get(emulator, "/acme/plan").headers
    assert "server" not in headers
    assert headers["date"].endswith("GMT")


def test_a_slash_too_many_is_not_redirected(emulator: Emulator) -> None:
    assert get(emulator, "/acme/plan/", allow_redirects=False).status_code == 404


# Texts.


def test_connections_and_samples_are_lines_of_json(emulator: Emulator) -> None:
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


def test_a_vendor_gets_the_address_it_will_have() -> None:
    seen: list[Host] = []

    class Curious(Acme):
        def __init__(self, host: Host) -> None:
            super().__init__(host)
            seen.append(host)

    with Emulator(vendors={"acme": Curious}) as emulator:
        assert seen[0].base_url == emulator.base_url
        assert seen[0].clock is emulator.clock
