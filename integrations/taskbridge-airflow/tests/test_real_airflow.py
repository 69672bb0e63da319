"""One run of a DAG in Airflow itself: API server, scheduler, DAG processor and triggerer, as processes of their own.

One of its workers is killed after it submitted.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

import pytest

from taskbridge.emulator import Plan
from taskbridge.testing import Emulator

from .conftest import PDF, connection_json

LIMIT: Final = 300.0  # seconds for the run
COMPONENTS: Final = ("api-server", "scheduler", "dag-processor", "triggerer")
ENDED: Final = ("success", "failed")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
    return port


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator("cloudconvert", speed=2, plan=Plan(queued=4.0, working=16.0)) as running:
        yield running


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    port = str(free_port())
    for folder in ("inbox", "results", "dags"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b", "c", "killed"):
        (tmp_path / "inbox" / f"{name}.pdf").write_bytes(PDF)
    (tmp_path / "dags" / "documents.py").write_bytes(Path(__file__).with_name("documents_dag.py").read_bytes())
    return {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__API_AUTH__JWT_SECRET": "a-secret-of-a-test-with-enough-bytes-for-a-signature-of-512-bits-0123456789",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": port,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
        "AIRFLOW_VAR_INBOX": str(tmp_path / "inbox"),
        "AIRFLOW_VAR_RESULTS": str(tmp_path / "results"),
        "KILLED_ONCE": str(tmp_path / "killed"),
    }


@pytest.fixture
def airflow(emulator: Emulator, environment: dict[str, str], tmp_path: Path) -> Iterator[None]:
    """Airflow with all of its components, which end with the test."""
    command = [sys.executable, "-m", "airflow"]
    connection = connection_json(emulator, "cloudconvert", poll={"interval": 1.0})
    for words in (("db", "migrate"), ("connections", "add", "documents", "--conn-json", connection)):
        subprocess.run([*command, *words], check=True, env=environment, capture_output=True, timeout=120)
    with ExitStack() as stack:
        for name in COMPONENTS:
            log = stack.enter_context((tmp_path / f"{name}.log").open("wb"))
            started = subprocess.Popen(
                [*command, name], env=environment, stdout=log, stderr=log, start_new_session=True
            )
            stack.callback(stop, started)
            if name == "api-server":  # the others' first requests fail without it
                wait_for_port(int(environment["AIRFLOW__API__PORT"]))
        yield


def wait_for_port(port: int) -> None:
    end = time.monotonic() + 120.0
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except OSError:
            assert time.monotonic() < end, "the API server does not start"
            time.sleep(0.5)  # noqa: TID251  # waits for another process
        else:
            return


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a component and the processes that it started."""
    for each in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, each)
            process.wait(15)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def query(database: Path, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
        return connection.execute(statement).fetchall()


@pytest.mark.usefixtures("airflow")
def test_a_dag_submits_defers_resumes_and_downloads(
    emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database, began = tmp_path / "airflow.db", time.monotonic()
    while not (states := query(database, "SELECT state FROM dag_run")) or states[0][0] not in ENDED:
        assert time.monotonic() - began < LIMIT, query(database, "SELECT task_id, map_index, state FROM task_instance")
        time.sleep(1.0)  # noqa: TID251  # waits for other processes
    tries = {
        (name, index): (state, number)
        for name, index, state, number in query(
            database, "SELECT task_id, map_index, state, try_number FROM task_instance"
        )
    }
    assert tries == {
        ("convert", 0): ("success", 1),
        ("convert", 1): ("success", 1),
        ("convert", 2): ("success", 1),
        ("killed", -1): ("success", 2),
        ("wait", -1): ("success", 1),
        ("check", -1): ("success", 1),
    }
    assert states == [("success",)]
    results = sorted(str(path.relative_to(tmp_path / "results")) for path in (tmp_path / "results").rglob("*.docx"))
    assert results == ["killed/killed.docx", *(f"scheduled/{n}/{name}.docx" for n, name in enumerate("abc"))]

    # The killed try was found again: four documents, four jobs.
    assert emulator.count(method="POST", path_contains="/jobs") == 4
    # The XComs have refs and snapshots, but no links, and no file has the key: Airflow encrypts it.
    xcoms = json.dumps(query(database, "SELECT key, CAST(value AS TEXT) FROM xcom"))
    assert "cloudconvert:job/" in xcoms
    assert "http://" not in xcoms
    dump = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert emulator.settings()["api_key"].encode() not in dump
    with capsys.disabled():
        print(f"\nAirflow: one run in {time.monotonic() - began:.0f} s, {emulator.count()} requests to the vendor")
