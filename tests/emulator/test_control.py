"""An emulator is controlled over HTTP, by callers that have its own token."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue
from typing import Any

import pytest
import requests

import taskbridge as tb
from taskbridge.emulator import Emulator

PATHS = ("/vendors", "/faults", "/plans", "/webhooks", "/deliveries", "/requests", "/clock")


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(speed=0) as running:
        yield running


def call(emulator: Emulator, method: str, path: str, status: int = 200, body: object = None) -> Any:
    headers = {"Authorization": f"Bearer {emulator.control_token}"}
    response = requests.request(method, emulator.control_url + path, headers=headers, json=body, timeout=5)
    assert response.status_code == status, response.text
    return response.json() if response.content else None


def scans(emulator: Emulator, path: str = "/tasks") -> requests.Response:
    settings = emulator.settings("scan-documents")
    return requests.get(settings["base_url"] + path, headers={"x-api-key": settings["api_key"]}, timeout=5)


@contextmanager
def receiver() -> Generator[tuple[str, SimpleQueue[tuple[str, bytes]]]]:
    """The URL of a server, and the paths and bodies that were posted to it."""
    posted: SimpleQueue[tuple[str, bytes]] = SimpleQueue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.put((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name in the base class
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", posted
    server.shutdown()
    server.server_close()
    thread.join()


# Who may.


@pytest.mark.parametrize("path", [*PATHS, "", "/none"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_only_the_emulators_own_token_is_accepted(emulator: Emulator, method: str, path: str) -> None:
    key = emulator.settings("cloudconvert")["api_key"]
    before = emulator.clock.time()
    for headers in ({}, {"Authorization": f"Bearer {key}"}, {"Authorization": f"Basic {emulator.control_token}"}):
        response = requests.request(method, emulator.control_url + path, headers=headers, json={}, timeout=5)
        assert response.status_code == 401
        assert "own token" in response.json()["error"]
        assert emulator.control_token not in response.text
    assert emulator.clock.time() == before


def test_every_emulator_has_a_token_of_its_own() -> None:
    assert Emulator(seed=1).control_token != Emulator(seed=1).control_token


def test_the_token_is_no_credential_at_a_vendor(emulator: Emulator) -> None:
    headers = {"Authorization": f"Bearer {emulator.control_token}"}
    url = emulator.settings("cloudconvert")["base_url"] + "/jobs"
    assert requests.get(url, headers=headers, timeout=5).status_code == 401


def test_control_is_neither_logged_nor_hit_by_faults(emulator: Emulator) -> None:
    emulator.fail_next(500)
    call(emulator, "GET", "/clock")
    assert emulator.requests == []
    assert scans(emulator).status_code == 500


# What it can.


def test_settings_samples_and_secrets_are_shown(emulator: Emulator) -> None:
    shown = call(emulator, "GET", "/vendors")
    assert set(shown) == set(emulator.vendors)
    for name, vendor in shown.items():
        assert (vendor["settings"], vendor["samples"]) == (emulator.settings(name), emulator.samples(name))
    assert list(shown["cloudconvert"]["secrets"]) == ["webhook_url"]


def test_faults_are_injected_and_discarded(emulator: Emulator) -> None:
    call(emulator, "POST", "/faults", 204, {"fault": 503, "vendor": "scan-documents", "retry_after": 7})
    call(emulator, "POST", "/faults", 204, {"fault": "not-found", "method": "get", "path_contains": "/files"})
    call(emulator, "POST", "/faults", 204, {"fault": 429, "times": 2, "body": "ü", "headers": {"X-A": "b"}})
    answers = [scans(emulator), scans(emulator, "/files"), scans(emulator)]
    assert [answer.status_code for answer in answers] == [503, 404, 429]
    assert answers[0].headers["Retry-After"] == "7"
    assert answers[1].json()["type"].endswith("/not-found")  # the vendor's own body
    assert (answers[2].content, answers[2].headers["X-A"]) == ("ü".encode(), "b")
    call(emulator, "DELETE", "/faults", 204)
    assert scans(emulator).status_code == 200


def test_the_next_tasks_follow_plans(emulator: Emulator) -> None:
    plans = [{"queued": 0, "working": 30}, {"working": 0.5, "queued": 0, "outcome": "failed"}]
    call(emulator, "POST", "/plans", 204, {"vendor": "scan-documents", "plans": plans})
    with tb.connect("scan-documents", **emulator.settings("scan-documents")) as client:
        first, second = (client.submit("extract-text", b"\x89PNG\r\n\x1a\n" + bytes(40)) for _ in range(2))
        time = call(emulator, "POST", "/clock", body={"advance": 1})
        assert datetime.fromisoformat(time["time"]) == emulator.clock.now()
        assert [client.get(task).status for task in (first, second)] == ["processing", "failed"]
        call(emulator, "POST", "/clock", body={"advance": 29.5})
        assert client.get(first).status == "completed"
    assert call(emulator, "GET", "/clock")["speed"] == 0


@pytest.mark.parametrize("vendor", ["cloudconvert", "scan-documents", "smartdocumentor"])
def test_webhooks_are_registered_and_their_deliveries_listed(emulator: Emulator, vendor: str) -> None:
    with receiver() as (url, posted):
        answer = call(emulator, "POST", "/webhooks", 201, {"vendor": vendor, "url": url})
        settings: dict[str, Any] = {**emulator.settings(vendor), "webhook_secrets": [answer["secret"]]}
        with tb.connect(vendor, **settings) as client:
            options = {"output_format": "pdf"} if vendor == "cloudconvert" else {}
            document = "https://documents.test/a.pdf" if vendor == "smartdocumentor" else b"\x89PNG" + bytes(40)
            client.submit("convert" if vendor == "cloudconvert" else "extract-text", document, options=options)
            call(emulator, "POST", "/clock", body={"advance": 60})
            path, body = posted.get(timeout=10)
            while not (deliveries := call(emulator, "GET", "/deliveries")):
                pass  # it is listed a moment after it was answered
            assert (deliveries[0]["vendor"], deliveries[0]["status"]) == (vendor, 204)
            assert deliveries[0]["body"].encode() == body
            called = url.removesuffix("/hook") + path
            assert client.parse_webhook(deliveries[0]["headers"], body, url=called).provider == vendor


def test_a_webhook_can_be_for_some_events(emulator: Emulator) -> None:
    body = {"vendor": "cloudconvert", "url": "http://127.0.0.1:9/", "events": ["job.failed"]}
    call(emulator, "POST", "/webhooks", 201, body)
    settings = emulator.settings("cloudconvert")
    headers = {"Authorization": f"Bearer {settings['api_key']}"}
    (hook,) = requests.get(f"{settings['base_url']}/users/me/webhooks", headers=headers, timeout=5).json()["data"]
    assert hook["events"] == ["job.failed"]


def test_requests_are_listed_and_forgotten(emulator: Emulator) -> None:
    scans(emulator)
    (seen,) = call(emulator, "GET", "/requests")
    assert (seen["vendor"], seen["method"], seen["path"], seen["status"]) == (
        "scan-documents",
        "GET",
        "/scan-documents/v1/tasks",
        200,
    )
    call(emulator, "DELETE", "/requests", 204)
    assert call(emulator, "GET", "/requests") == []


# Faulty calls.


FAULTY_CALLS: list[tuple[str, Any, str]] = [
    ("/faults", {}, "fault: Field required"),
    ("/faults", {"fault": "tea-time"}, "there is no fault 'tea-time'"),
    ("/faults", {"fault": 7}, "must be 200 to 599, not 7"),
    ("/faults", {"fault": 503, "times": 0}, "times: Input should be greater than or equal to 1"),
    ("/faults", {"fault": 503, "vendor": "none"}, "name one of the running vendors"),
    ("/faults", {"fault": 503, "retry": 1}, "retry: Extra inputs are not permitted"),
    ("/plans", {"plans": [{"queued": -1}], "vendor": "cloudconvert"}, "plans.0.queued"),
    ("/plans", {"plans": [{}]}, "name one of the running vendors"),
    ("/plans", {"plans": [{"outcome": "sideways"}], "vendor": "cloudconvert"}, "plans.0.outcome"),
    ("/webhooks", {"url": "http://127.0.0.1/", "vendor": "expertai-extract"}, "expertai-extract has no webhooks"),
    ("/webhooks", {"url": "http://127.0.0.1/", "vendor": "scan-documents", "events": ["x"]}, "events must be"),
    ("/clock", {"advance": -1}, "advance"),
    ("/clock", [], "the body"),
]


@pytest.mark.parametrize(("path", "body", "problem"), FAULTY_CALLS)
def test_a_faulty_call_says_what_is_wrong(emulator: Emulator, path: str, body: object, problem: str) -> None:
    assert problem in call(emulator, "POST", path, 400, body)["error"]


def test_unknown_paths_and_methods_are_refused(emulator: Emulator) -> None:
    call(emulator, "GET", "/none", 404)
    call(emulator, "DELETE", "/clock", 405)


def test_a_webhook_is_registered_from_python_without_knowing_the_class(emulator: Emulator) -> None:
    """Type checkers accept this, as the page about webhooks shows it."""
    secret = emulator.vendors["scan-documents"].register_webhook("http://127.0.0.1:8000/hooks/scans")
    assert secret.startswith("whsec_")
    assert emulator.register_webhook("http://127.0.0.1:8000/", name="cloudconvert")
    with pytest.raises(ValueError, match=r"no event task\.finished"):
        emulator.register_webhook("http://127.0.0.1:8000/", ["task.finished"], name="cloudconvert")
    with pytest.raises(NotImplementedError, match="expertai-extract has no webhooks"):
        emulator.vendors["expertai-extract"].register_webhook("http://127.0.0.1:8000/")
