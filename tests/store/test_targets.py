"""Where events are sent: lines of JSON, signed requests, Celery."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest
import svix

import taskbridge as tb
from taskbridge.store import Event
from taskbridge.store.targets import SECRET_VARIABLE, CeleryTarget, DeliveryFailed, LineTarget, open_target, task_id_of

from .conftest import ended_task

SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # the scheme's published vector


@dataclass
class Server:
    """Records requests, and answers with the next status and headers of `answers`, then with 204."""

    url: str = ""
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list[tuple[str, dict[str, str], bytes]])
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list[tuple[int, dict[str, str]]])


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            status, headers = state.answers.pop(0) if state.answers else (204, {})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST  # noqa: N815  # the name in the base class

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name in the base class
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{running.server_address[1]}"
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield state
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture
def event(store: tb.Store) -> Event:
    task = ended_task("größe/1", resumable=False)
    store.watch(task, meta={"order": 7})
    (found,) = store.events("test")
    return found


def test_lines_of_json(event: Event, capsys: pytest.CaptureFixture[str]) -> None:
    file = StringIO()
    LineTarget(file)(event)
    open_target("stdout")(event)
    assert capsys.readouterr().out == file.getvalue()
    assert Event.from_dict(json.loads(file.getvalue())) == event


@pytest.mark.parametrize(
    ("before", "after"), [("", ""), ('{"key"', '{"key"\n'), ("{}\n", "{}\n")], ids=["empty", "cut", "whole"]
)
def test_a_line_that_a_killed_process_has_cut_stays_a_line(
    event: Event, tmp_path: Path, before: str, after: str
) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(before)
    with path.open("a") as file:
        target = LineTarget(file)
        target(event)
        target(event)
    line = json.dumps(event.to_dict())
    assert path.read_text() == f"{after}{line}\n{line}\n"


def test_a_line_and_its_end_are_written_at_once(event: Event) -> None:
    class Unbuffered(StringIO):
        writes: ClassVar[list[str]] = []

        def write(self, text: str) -> int:
            self.writes.append(text)
            return len(text)

    LineTarget(Unbuffered())(event)
    assert Unbuffered.writes == [f"{json.dumps(event.to_dict())}\n"]


def test_a_request_is_signed_and_has_the_key_of_the_event(server: Server, event: Event) -> None:
    target = open_target(f"{server.url}/in?token=s3cret", environ={SECRET_VARIABLE: SECRET})
    target(event)
    target(event)
    target.close()
    (path, headers, body), again = server.requests
    assert path == "/in?token=s3cret"
    svix.Webhook(SECRET).verify(body, headers)  # the published package reads webhook-…, too
    assert Event.from_dict(json.loads(body)) == event
    assert headers["idempotency-key"] == headers["webhook-id"] == "acme:gr%C3%B6%C3%9Fe/1/1"
    assert again[1]["webhook-id"] == headers["webhook-id"]
    assert headers["content-type"] == "application/json"
    assert "s3cret" not in repr(target)
    unsigned = open_target(server.url, environ={})
    unsigned(event)
    unsigned.close()
    assert "webhook-signature" not in server.requests[-1][1]


def test_what_is_not_2xx_is_sent_again_when_the_server_says(server: Server, store: tb.Store, event: Event) -> None:
    elsewhere = f"{server.url}/elsewhere"
    server.answers = [(302, {"Location": elsewhere}), (503, {"Retry-After": "600"})]
    target = open_target(f"{server.url}/s3cret?token=s3cret", environ={})
    with pytest.raises(DeliveryFailed, match=r"127\.0\.0\.1 answered 302; redirects are not followed") as caught:
        target(event)
    assert "s3cret" not in str(caught.value)
    relay = tb.Relay(store, "billing", target)
    assert relay.deliver() == 0
    (waits,) = store.undelivered()
    assert waits.next_at is not None
    assert (waits.next_at - waits.updated_at).total_seconds() == pytest.approx(600)
    assert "answered 503" in waits.error
    store.redeliver("billing", event.key)
    assert relay.deliver() == 1
    target.close()
    assert [path for path, _, _ in server.requests] == ["/s3cret?token=s3cret"] * 3


def test_a_server_that_is_away_is_named_without_the_secrets_of_its_url(event: Event) -> None:
    target = open_target("http://127.0.0.1:9/s3cret?token=s3cret", environ={})
    with pytest.raises(DeliveryFailed) as caught:
        target(event)
    target.close()
    assert "127.0.0.1" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_celery_application_is_imported_from_the_folder_in_which_the_program_starts(
    event: Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "delivery_jobs.py").write_text("from celery import Celery\napp = Celery(broker='memory://')\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    target = open_target("celery://delivery_jobs:app/documents.ended?queue=documents")
    target(event)
    target.close()
    sent: list[Any] = []
    broken = CeleryTarget(None, "documents.ended")
    with pytest.raises(AttributeError):
        broken(event)

    class App:
        def send_task(self, name: str, **options: Any) -> None:
            sent.append((name, options))

    CeleryTarget(App(), "documents.ended", {"queue": "q"})(event)
    assert sent == [
        ("documents.ended", {"args": [event.to_dict()], "task_id": task_id_of(event), "queue": "q"}),
    ]
    assert json.dumps(sent[0][1]["args"])


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("stderr", "one of: stdout"),
        ("ftp://host/", "ftp:// is nothing to deliver to"),
        ("events.test/s3cret", "an address without a scheme is nothing to deliver to"),
        ("celery://json:decoder/name", "json:decoder cannot be used: it is a module"),
        ("http://events.test/in", "plain http, which would send events in clear"),
        ("https://me:s3cret@events.test/in", "no user, password"),
        ("https:///in", "must be an https:// URL"),
        ("https://events.test/a b", "must be an https:// URL"),
        ("celery://documents", "celery://module:app/task.name"),
        ("celery://documents:app/name?host=a", "celery://module:app/task.name"),
        ("celery://no_such_module_7:app/name", "no_such_module_7:app cannot be used: ModuleNotFoundError"),
    ],
)
def test_what_cannot_be_delivered_to_is_an_error_at_the_start(url: str, problem: str) -> None:
    with pytest.raises(tb.ConfigError, match=problem) as caught:
        open_target(url)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("secret", ["secret", "whsec_", "whsec_c2hvcnQ=", "whsec_!", SECRET.removeprefix("whsec_")])
def test_a_secret_that_cannot_sign_is_an_error_at_the_start(secret: str) -> None:
    with pytest.raises(tb.ConfigError, match=SECRET_VARIABLE) as caught:
        open_target("https://events.test/in", environ={SECRET_VARIABLE: secret})
    assert secret == "whsec_" or secret not in str(caught.value)
