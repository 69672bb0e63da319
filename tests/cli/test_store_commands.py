"""`serve`, `store`, `watch` and `events`."""

from __future__ import annotations

import http.client
import json
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from time import monotonic

import pytest
from sqlalchemy import insert

import taskbridge as tb
from taskbridge.store.schema import ACCOUNT, EVENT

from .conftest import Start

Ref = Callable[[str, str], str]
RunHere = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "taskbridge.db")


@pytest.fixture
def store(path: str) -> tb.Store:
    opened = tb.Store(path)
    opened.close()
    return opened


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition, which another process fulfills."""
    end, pause = monotonic() + 30.0, threading.Event()
    while not condition():
        assert monotonic() < end, "it took too long"
        pause.wait(0.05)


def records(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


# store


@pytest.mark.parametrize("scheme", ["", "sqlite:///", "sqlite+pysqlite:///"])
@pytest.mark.parametrize("command", ["check", "upgrade", "adopt"])
def test_a_mistyped_store_is_not_created(run_here: RunHere, path: str, scheme: str, command: str) -> None:
    missing = run_here("store", command, "--store", f"{scheme}{path}")
    assert missing.returncode == 2
    assert f"create it with: taskbridge store init --store {scheme}{path}" in missing.stderr
    assert not Path(path).exists()
    assert run_here("store", "init", "--store", f"{scheme}{path}").returncode == 0
    assert run_here("store", command, "--store", f"{scheme}{path}").returncode == 0


def test_a_store_is_created_checked_and_upgraded(run_here: RunHere, path: str) -> None:
    for _ in range(2):
        assert f"{path} is ready" in run_here("store", "init", "--store", path).stdout
    assert run_here("store", "upgrade", "--store", path, "--json").stdout == f'{{"store": "{path}", "revision": "1"}}\n'
    run_here("watch", "scans:1", "--store", path)
    checked = run_here("store", "check", "--store", path)
    assert (checked.returncode, checked.stdout) == (0, f"{path} has no damage\n  scans: 1 open; owner: none yet\n")
    (record,) = records(run_here("store", "check", "--store", path, "--json").stdout)
    assert record["accounts"] == [
        {"connection": "scans", "owner": None, "problem": None, "watches": {"open": 1}, "submissions": {}}
    ]


def test_a_damaged_store_is_reported(run_here: RunHere, path: str, store: tb.Store) -> None:
    store.close()
    with closing(sqlite3.connect(path)) as opened, opened:  # which does not check references
        opened.execute("INSERT INTO taskbridge_cursor VALUES ('billing', 'no-such-connection', 1)")
    done = run_here("store", "check", "--store", path)
    assert done.returncode == 2
    assert "is damaged: 1 rows refer to missing ones; restore a backup" in done.stderr


def test_the_store_may_come_from_the_environment(run_here: RunHere, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKBRIDGE_STORE", path)
    assert run_here("store", "init").returncode == 0
    monkeypatch.delenv("TASKBRIDGE_STORE")
    assert "Missing option '--store'" in run_here("store", "init").stderr


@pytest.mark.parametrize(
    "words", [("serve",), ("events",), ("watch", "scans:1"), ("store", "init"), ("store", "check"), ("store", "adopt")]
)
def test_the_url_for_locks_is_passed_on(words: tuple[str, ...], run_here: RunHere, path: str, store: tb.Store) -> None:
    assert store.database.name  # it exists
    direct = ("--lock-url", "postgresql://app:s3cret@db.internal/app")
    done = run_here(*words, "--store", path, *direct)
    assert done.returncode == 2
    assert "lock_url is for a store in PostgreSQL" in done.stderr
    assert "s3cret" not in done.stderr


def test_the_url_for_locks_may_come_from_the_environment(
    run_here: RunHere, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKBRIDGE_LOCK_URL", "postgresql://db.internal/app")
    assert "lock_url is for a store in PostgreSQL" in run_here("store", "init", "--store", path).stderr
    monkeypatch.setenv("TASKBRIDGE_LOCK_URL", "")
    assert run_here("store", "init", "--store", path).returncode == 0


def test_the_group_alone_prints_its_help(run_here: RunHere) -> None:
    done = run_here("store")
    assert done.returncode == 2
    assert "check" in done.stderr


def test_a_store_from_a_backup_is_adopted(run_here: RunHere, path: str, store: tb.Store) -> None:
    for ref in ("scans:1", "bills:1"):
        store.watch(ref)
    store.close()

    def epochs() -> dict[str, int]:
        with closing(sqlite3.connect(path)) as opened:
            return dict(opened.execute("SELECT connection, epoch FROM taskbridge_account"))

    before = epochs()
    only = run_here("store", "adopt", "--store", path, "--connection", "scans")
    assert (only.returncode, only.stdout) == (0, "adopted scans\n")
    between = epochs()
    assert between["scans"] > before["scans"]
    assert between["bills"] == before["bills"]
    assert records(run_here("store", "adopt", "--store", path, "--json").stdout) == [
        {"connection": "bills", "adopted": True},
        {"connection": "scans", "adopted": True},
    ]
    unknown = run_here("store", "adopt", "--store", path, "--connection", "other")
    assert unknown.returncode == 2
    assert "does not have the connection 'other'" in unknown.stderr
    assert run_here("store", "adopt", "--store", f"{path}.missing").returncode == 2


def test_old_events_are_pruned_once_they_are_acknowledged(run_here: RunHere, path: str, store: tb.Store) -> None:
    happen(store, "INV-1", "INV-2")
    nothing = {"events": 0, "submissions": 0, "watches": 0, "webhooks": 0}

    def prune(*words: str) -> object:
        (record,) = records(run_here("store", "prune", "--store", path, "--json", *words).stdout)
        return record["removed"]

    assert prune("--older-than", "30d") == nothing  # no consumer has acknowledged them
    run_here("events", "--store", path, "--consumer", "billing")
    assert prune("--older-than", "999999d") == nothing  # they are of 1970
    done = run_here("store", "prune", "--store", path, "--older-than", "12h")
    assert (done.returncode, done.stdout) == (0, "removed 2 events, 0 submissions, 0 watches, 0 webhooks\n")


def test_unread_events_are_pruned_if_that_is_wanted(run_here: RunHere, path: str, store: tb.Store) -> None:
    happen(store, "INV-1")
    done = run_here("store", "prune", "--store", path, "--older-than", "90s", "--unread")
    assert done.stdout.startswith("removed 1 events, ")


@pytest.mark.parametrize("wrong", ["30", "d", "", "0d", "-1d", "1.5d", "30D", "30 d", "²d", "9999999d", "none", "1w"])
def test_an_age_has_a_unit(run_here: RunHere, path: str, store: tb.Store, wrong: str) -> None:
    store.close()
    done = run_here("store", "prune", "--store", path, "--older-than", wrong)
    assert done.returncode == 2
    assert "is not a duration such as 30d" in done.stderr


# watch and events


def test_tasks_are_watched(run_here: RunHere, path: str) -> None:
    done = run_here("watch", "scans:1", "elsewhere:x/2", "--store", path, "--meta", "order=7", "--for", "3600")
    assert (done.returncode, done.stdout) == (0, "scans:1\nelsewhere:x/2\n")
    with tb.Store(path) as store:
        found = store.find()
        assert [each.ref for each in found] == ["scans:1", "elsewhere:x/2"]
        assert [each.meta for each in found] == [{"order": 7}, {"order": 7}]
        assert all(each.until is not None for each in found)
    assert run_here("watch", "bare-id", "--store", path).stdout == "cloudconvert:bare-id\n"  # the default connection
    assert records(run_here("watch", "a:1", "--store", path, "--json").stdout) == [{"ref": "a:1", "watched": True}]


def test_a_connection_that_is_not_configured_is_noted(run_here: RunHere, path: str, config: Path) -> None:
    done = run_here("watch", "cloudconvert:1", "scnas:1", "scnas:2", "--store", path)
    assert done.returncode == 0
    assert done.stderr == (f"taskbridge: no connection 'scnas' in {config}: it is not polled until it is configured\n")
    noted = run_here("watch", "scnas:1", "--store", path, "--json").stderr
    (record,) = records(noted)
    assert "no connection 'scnas'" in str(record["warning"])
    assert run_here("watch", "scnas:1", "--store", path, "--config", f"{path}.missing").stderr == ""


def test_one_wrong_ref_stores_nothing(run_here: RunHere, path: str) -> None:
    assert run_here("watch", "scans:1", "scans:", "--store", path).returncode == 2
    with tb.Store(path) as store:
        assert store.find() == []


def happen(store: tb.Store, *keys: str) -> None:
    with store.database.writing() as opened:
        opened.execute(insert(ACCOUNT).values(connection="scans", epoch=0, revision=0, position=len(keys)))
        for position, key in enumerate(keys, 1):
            row = {
                "connection": "scans",
                "position": position,
                "key": key,
                "kind": "refused",
                "submission": key,
                "at": 0.0,
            }
            opened.execute(insert(EVENT).values(**row, body={"error": "no\x1b credit", "meta": {"a": 1}}))
    store.close()


def test_events_are_printed_once_for_a_consumer(run_here: RunHere, path: str, store: tb.Store) -> None:
    happen(store, "INV-1", "INV-2")
    for _ in range(2):
        done = run_here("events", "--store", path)
        assert done.stdout.splitlines()[0] == "1970-01-01 00:00:00  refused    scans, 'INV-1'  no\\x1b credit"
        assert len(done.stdout.splitlines()) == 2
    first = records(run_here("events", "--store", path, "--consumer", "billing", "--json").stdout)
    assert [each["key"] for each in first] == ["INV-1", "INV-2"]
    assert first[0]["meta"] == {"a": 1}
    assert first[0]["task"] is None
    assert run_here("events", "--store", path, "--consumer", "billing").stdout == ""
    assert run_here("events", "--store", path, "--connection", "other").stdout == ""


@pytest.mark.slow
def test_following_ends_with_ctrl_c(start: Start, path: str, store: tb.Store) -> None:
    happen(store, "INV-1")
    process = start("events", "--store", path, "--consumer", "billing", "--follow", "--json")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["key"] == "INV-1"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert json.loads(errors) == {"stopped": "interrupted"}


# serve


def test_wrong_addresses_tokens_and_proxies_are_refused(run_here: RunHere, path: str, tmp_path: Path) -> None:
    def error(*words: str) -> str:
        done = run_here("serve", "--store", path, *words)
        assert done.returncode == 2
        return done.stderr

    assert "takes HOST:PORT" in error("--http", "8700")
    assert "takes HOST:PORT" in error("--http", "localhost:99999")
    assert "give a token" in error("--http", "0.0.0.0:0")
    assert "no address or network" in error("--trust-proxy", "proxy.example")
    assert "--host-name tasks.example.com" in error("--trust-proxy", "127.0.0.1")
    assert "--host-name takes a name" in error("--trust-proxy", "127.0.0.1", "--host-name", "https://a.example")
    assert "cannot be used: No such file" in error("--token-file", str(tmp_path / "missing"))
    (tmp_path / "token").write_text("  \n")
    assert "it is empty" in error("--token-file", str(tmp_path / "token"))
    (tmp_path / "token").write_bytes(b"\xff" * 20)
    assert "it is not text" in error("--token-file", str(tmp_path / "token"))
    (tmp_path / "token").write_text("short")
    message = error("--token-file", str(tmp_path / "token"))
    assert "fewer than 16 characters" in message
    assert "short" not in message.replace("shorter", "")


def test_wrong_targets_are_refused_before_anything_is_served(run_here: RunHere, path: str) -> None:
    for words, message in (
        (("--deliver", "http://shop.example/s3cret"), "is plain http"),
        (("--deliver", "kafka://s3cret"), "is nothing to deliver to"),
        (("--deliver", "stdout", "--deliver", "stdout"), "have the name stdout"),
        (("--deliver", "stdout", "--no-work"), "--deliver needs a server that works"),
    ):
        done = run_here("serve", "--store", path, "--http", "127.0.0.1:0", *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr
        assert "s3cret" not in done.stderr
    assert not Path(path).exists()


@pytest.fixture
def working(tmp_path: Path, config: Path) -> str:
    """A configuration in which all connections can be opened."""
    text = config.read_text(encoding="utf-8").partition("[connections.broken]")[0]
    path = tmp_path / "taskbridge.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def page(line: str) -> tuple[str, int]:
    url = json.loads(line)["serving"]
    return url, int(url.rstrip("/").rpartition(":")[2])


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_serve_ends_cleanly_within_seconds(
    start: Start, path: str, working: str, ref: Ref, sent: signal.Signals
) -> None:
    with tb.Store(path) as store:
        store.watch(ref("cloudconvert", "waiting-upload"))
    process = start("serve", "--store", path, "--config", working, "--http", "127.0.0.1:0", "--json")
    assert process.stdout is not None
    assert process.stderr is not None
    _, port = page(process.stdout.readline())
    assert "works on" in json.loads(process.stderr.readline())["report"]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/live")
    response = connection.getresponse()
    assert response.status == 200
    process.send_signal(sent)
    began = monotonic()
    process.communicate(timeout=30)
    assert process.returncode == 128 + sent
    assert monotonic() - began < 10.0
    response.read()
    connection.close()


@pytest.mark.slow
def test_servers_can_divide_the_connections(start: Start, path: str, working: str) -> None:
    names = ["cloudconvert", "scan-documents"]
    words = ("serve", "--store", path, "--config", working, "--http", "127.0.0.1:0", "--connection")
    servers = [start(*words, name) for name in names]
    reported: list[str] = []
    for server in servers:
        assert server.stderr is not None
        reported.append(server.stderr.readline())
        server.send_signal(signal.SIGTERM)
    for server in servers:
        server.communicate(timeout=30)
    assert [each.removeprefix("taskbridge: works on ").strip() for each in reported] == names


def test_serve_refuses_a_connection_that_is_not_configured(run_here: RunHere, path: str, working: str) -> None:
    done = run_here("serve", "--store", path, "--config", working, "--http", "127.0.0.1:0", "--connection", "invoices")
    assert done.returncode == 2
    assert "invoices" in done.stderr


@pytest.mark.slow
def test_a_second_signal_ends_serve_at_once(start: Start, path: str, working: str) -> None:
    process = start("serve", "--store", path, "--config", working, "--http", "127.0.0.1:0", "--json")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode in (130, 143)


@pytest.mark.slow
def test_serve_may_receive_webhooks_without_work(start: Start, path: str, tmp_path: Path) -> None:
    secret = "b7Qd0c9yT2wX4mLr"
    config = tmp_path / "contracts.toml"
    config.write_text(
        '[connections.contracts]\nprovider = "smartdocumentor"\naccess_token = "sm-test-token"\n'
        f'webhook_secrets = ["{secret}"]\n'
    )
    words = ("serve", "--store", path, "--no-work", "--webhooks", "--http", "127.0.0.1:0", "--config", str(config))
    process = start(*words, "--json")
    assert process.stdout is not None
    _, port = page(process.stdout.readline())
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", f"/hooks/contracts/{secret}", b'{"taskId": 44}')
    assert connection.getresponse().status == 204
    connection.close()
    process.send_signal(signal.SIGTERM)
    out, errors = process.communicate(timeout=30)
    assert process.returncode == 143
    assert secret not in out + errors
    with closing(sqlite3.connect(path)) as opened:
        assert opened.execute("SELECT count(*) FROM taskbridge_webhook").fetchone() == (1,)
        assert opened.execute("SELECT owner FROM taskbridge_account").fetchone() == (None,)


@pytest.mark.slow
def test_serve_reports_a_refused_key(start: Start, path: str, working: str) -> None:
    with tb.Store(path) as store:
        store.watch("wrong-key:task_euyrvozb9302uwhq")
        process = start("serve", "--store", path, "--config", working, "--http", "127.0.0.1:0")
        try:
            until(lambda: any(each.problem for each in store.accounts()))
        finally:
            process.send_signal(signal.SIGTERM)
            _, reported = process.communicate(timeout=30)
    assert "connection wrong-key pauses: " in reported
    assert "not-the-key" not in reported


@pytest.mark.slow
def test_serve_without_work_needs_no_configuration(start: Start, path: str, tmp_path: Path) -> None:
    with tb.Store(path) as store:
        store.watch("scans:1")
    words = ("serve", "--store", path, "--no-work", "--http", "127.0.0.1:0", "--json")
    process = start(*words, env={"TASKBRIDGE_CONFIG": str(tmp_path / "missing.toml")})
    assert process.stdout is not None
    _, port = page(process.stdout.readline())
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/")
    text = connection.getresponse().read().decode()
    connection.close()
    assert "scans:1" in text
    assert "no owner yet" in text
    assert "not configured" not in text
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)


def test_serve_needs_its_extra(path: str) -> None:
    code = "import sys; sys.modules['jinja2'] = None; from taskbridge.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "serve", "--store", path],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert "[serve]'" in done.stderr
