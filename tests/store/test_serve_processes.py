"""`taskbridge serve` in processes of its own, which are killed: it delivers events, and another one takes over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import taskbridge as tb
from taskbridge.serve.deliveries import consumer_of, open_recipients
from taskbridge.store import Event
from taskbridge.store.intents import check_key
from taskbridge.testing import Emulator

from .conftest import until

ServeProcess: TypeAlias = Callable[..., "subprocess.Popen[str]"]


class Receiver:
    """An HTTP server that records the keys of the events that it gets."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.is_down = False
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                event = Event.from_dict(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                if not receiver.is_down:
                    receiver.keys.append(event.key)
                self.send_response(503 if receiver.is_down else 204)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name in the base class
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/in?token=s3cret-token"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    running = Receiver()
    yield running
    running.close()


@pytest.fixture
def serve_process(store_url: str, config: Path, emulator: Emulator, tmp_path: Path) -> Iterator[ServeProcess]:
    """Start ``taskbridge serve`` with further options; its output is in the files ``<name>.out`` and ``.err``."""
    del emulator
    started: list[subprocess.Popen[str]] = []

    def start(name: str, *options: str, stdout: int | None = None) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "taskbridge", "serve", "--http", "127.0.0.1:0", "--json", *options]
        environment = {**os.environ, "TASKBRIDGE_STORE": store_url, "TASKBRIDGE_CONFIG": str(config)}
        with (tmp_path / f"{name}.out").open("a") as out, (tmp_path / f"{name}.err").open("a") as err:
            started.append(subprocess.Popen(words, text=True, stdout=stdout or out, stderr=err, env=environment))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait(20)


def ended(connection: str, number: int) -> tb.Task:
    return tb.Task(
        provider="scan-documents",
        connection=connection,
        id=f"task_{number}",
        native_id=f"task_{number}",
        status=tb.TaskStatus.COMPLETED,
        observed_at=datetime.now(UTC),
        resumable=False,
    )


def end_tasks(store: tb.Store, connection: str, numbers: range) -> set[str]:
    """Store the ends of tasks; return the keys of the events."""
    with store.begin() as tx:
        for number in numbers:
            tx.watch(ended(connection, number))
    return {f"{connection}:task_{number}/1" for number in numbers}


def records(path: Path) -> list[dict[str, Any]]:
    """Return the records of whole lines; a process that was killed may have left half a line."""
    found: list[dict[str, Any]] = []
    for line in path.read_text().splitlines():
        with suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


@pytest.mark.slow
def test_a_killed_server_loses_no_event(
    serve_process: ServeProcess, store: tb.Store, receiver: Receiver, tmp_path: Path
) -> None:
    keys = end_tasks(store, "cloudconvert", range(200))
    end_tasks(store, "not-configured", range(3))
    targets = ("--deliver", "stdout", "--deliver", f"orders={receiver.url}")
    process = serve_process("first", *targets)
    until(lambda: len(receiver.keys) > 10)
    process.kill()
    process.wait(20)
    assert len(receiver.keys) < 200
    process = serve_process("first", *targets)
    out = tmp_path / "first.out"
    until(lambda: {each["key"] for each in records(out)} == keys and set(receiver.keys) == keys)
    late = end_tasks(store, "cloudconvert", range(200, 201))
    until(lambda: late <= set(receiver.keys))
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    assert {event.connection for event in store.events("orders")} == {"not-configured"}
    errors = (tmp_path / "first.err").read_text()
    assert "serving" in errors.partition("\n")[0]  # standard output is for events
    assert "s3cret" not in errors
    assert "Traceback" not in errors


@pytest.mark.slow
def test_another_server_delivers_what_a_killed_one_has_not(
    serve_process: ServeProcess, store: tb.Store, receiver: Receiver, tmp_path: Path
) -> None:
    receiver.is_down = True
    keys = end_tasks(store, "cloudconvert", range(20)) | end_tasks(store, "scan-documents", range(20))
    targets = ("--deliver", receiver.url)
    first = serve_process("first", *targets)
    until(lambda: "works on cloudconvert, scan-documents" in (tmp_path / "first.err").read_text())
    consumer = consumer_of(receiver.url)
    until(lambda: store.undelivered(consumer))
    serve_process("second", *targets)
    until(lambda: (tmp_path / "second.err").read_text().count("stands by for") == 2)
    receiver.is_down = False
    first.kill()
    until(lambda: "works on cloudconvert, scan-documents" in (tmp_path / "second.err").read_text())
    until(lambda: set(receiver.keys) == keys)
    assert list(store.dead_letters(consumer)) == []
    assert "s3cret" not in (tmp_path / "first.err").read_text()


def test_a_server_ends_when_its_standard_output_is_closed(
    serve_process: ServeProcess, store: tb.Store, tmp_path: Path
) -> None:
    end_tasks(store, "cloudconvert", range(3))
    reads, writes = os.pipe()
    process = serve_process("first", "--deliver", "stdout", stdout=writes)
    os.close(writes)
    os.close(reads)
    assert process.wait(30) == 141  # as after SIGPIPE
    assert "Traceback" not in (tmp_path / "first.err").read_text()
    assert store.dead_letters() == []


# Names of consumers.


def test_the_name_of_a_consumer_is_stable_and_without_secrets() -> None:
    assert consumer_of("stdout") == "stdout"
    assert consumer_of("celery://shop.tasks:app/bill.order?queue=q") == "celery:shop.tasks:app/bill.order"
    name = consumer_of("https://hooks.example.com/T0/s3cret?token=abc")
    assert name == "hooks.example.com-5d7c60db3ce5"
    assert consumer_of("https://shop.example.com/hooks/documents") == "shop.example.com-5c53027570f8"  # in the guide
    assert name != consumer_of("https://hooks.example.com/T0/s3cret?token=abd")
    for long in (f"https://{'a' * 250}.example/x", f"celery://{'m' * 300}:app/t"):
        assert len(check_key(consumer_of(long))) <= 200


def test_targets_with_the_same_name_are_refused() -> None:
    with pytest.raises(tb.ConfigError, match="have the name stdout"), open_recipients(["stdout", "stdout"]):
        pass
    with open_recipients(["a=stdout", "b=stdout", "c=https://x.example/?a=b"]) as found:
        assert [each.consumer for each in found] == ["a", "b", "c"]
    for wrong in ("=stdout", "a\nb=stdout"):
        with pytest.raises(tb.InvalidInput), open_recipients([wrong]):
            pass


@pytest.mark.parametrize(
    "url", ["http://example.com/s3cret", "ftp://s3cret", "https://", "https://u:s3cret@x.example/"]
)
def test_a_wrong_target_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(tb.ConfigError) as caught, open_recipients([url]):
        pass
    assert "s3cret" not in str(caught.value)
