"""The ledger of a run: what is on disk when, and what happens if it cannot be written."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import taskbridge as tb
from taskbridge import Client
from taskbridge.cli.run.ledger import Fingerprint, Ledger, LedgerEntry, LedgerError, Phase, RunTerms
from taskbridge.cli.run.worker import FileRunner, FileUpdate, RunLimits, RunPool
from taskbridge.emulator.export import config_toml
from taskbridge.provider.capabilities import Credential
from taskbridge.provider.http import Request, Response
from taskbridge.testing import Emulator, ScriptedTransport
from taskbridge.testing.conformance.samples import connection_of

TERMS = RunTerms("contracts", "smartdocumentor", "extract-text", {})
URL = "https://files.example/contract.pdf"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.sqlite"


def test_what_is_written_survives_a_crash(path: Path) -> None:
    ledger = Ledger.open(path)
    ledger.begin(TERMS, [LedgerEntry(1, "/in/a.pdf", "a.pdf"), LedgerEntry(2, "/in/caf\udce9.pdf", "caf_.pdf")])
    ledger.mark_submitting(1, {"reference": "r-1", "files": ["f"]}, Fingerprint(7, 2**62, "d"))
    ledger.mark_accepted(1, "contracts:44")
    copy = path.with_name("as-a-crash-would-leave-it.sqlite")
    copy.write_bytes(path.read_bytes())

    with Ledger.open(copy) as again:
        first, second = again.entries()
        assert again.terms() == TERMS
    assert (first.phase, first.ref, first.recovery_token) == (
        Phase.ACCEPTED,
        "contracts:44",
        {"reference": "r-1", "files": ["f"]},
    )
    assert first.submitted == Fingerprint(7, 2**62, "d")
    assert (second.source, second.phase, second.submitted) == ("/in/caf\udce9.pdf", Phase.PLANNED, None)
    ledger.close()


def test_each_change_is_flushed_to_disk(path: Path) -> None:
    with Ledger.open(path) as ledger:
        database = ledger._database
        assert database.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert database.execute("PRAGMA journal_mode").fetchone() == ("truncate",)
        assert not database.in_transaction


def test_a_closed_ledger_is_one_file(path: Path) -> None:
    with Ledger.open(path) as ledger:
        ledger.begin(TERMS, [LedgerEntry(1, URL, "a")])
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_an_empty_file_becomes_a_ledger(path: Path) -> None:
    path.touch()
    with Ledger.open(path) as ledger:
        assert (ledger.terms(), ledger.entries()) == (None, [])


def test_all_files_are_added_or_none(path: Path) -> None:
    with Ledger.open(path) as ledger:
        with pytest.raises(LedgerError, match="UNIQUE"):
            ledger.begin(TERMS, [LedgerEntry(1, URL, "a"), LedgerEntry(2, URL, "b")])
        assert (ledger.terms(), ledger.entries()) == (None, [])


def test_a_full_disk_at_the_beginning_is_reported(path: Path) -> None:
    with Ledger.open(path) as ledger:
        (pages,) = ledger._database.execute("PRAGMA page_count").fetchone()
        ledger._database.execute(f"PRAGMA max_page_count={pages + 1}")
        with pytest.raises(LedgerError, match="full; nothing more was submitted"):
            ledger.begin(TERMS, [LedgerEntry(n, f"/{'x' * 500}/{n}", f"{n}") for n in range(100)])
        assert (ledger.terms(), ledger.entries()) == (None, [])


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files by a call of Unix")
def test_a_run_that_cannot_write_its_ledger_submits_nothing_more(own_vendors: Emulator, tmp_path: Path) -> None:
    config, out = tmp_path / "taskbridge.toml", tmp_path / "out"
    config.write_text(config_toml(own_vendors), "utf-8")
    out.mkdir()
    sources = [f"https://files.example/{'x' * 150}/{number}.pdf" for number in range(40)]
    with Ledger.open(out / "taskbridge-run.sqlite") as ledger:
        terms = RunTerms("cloudconvert", "cloudconvert", "extract-text", {})
        ledger.begin(terms, [LedgerEntry(n, source, f"{n}.pdf") for n, source in enumerate(sources, 1)])
    limit = (out / "taskbridge-run.sqlite").stat().st_size + 4096

    done = subprocess.run(
        [sys.executable, "-m", "taskbridge", "run", "--resume", "--to", str(out), "--config", str(config)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),  # no threads here
    )

    assert done.returncode == 70
    assert "taskbridge-run.sqlite cannot be used: " in done.stderr
    assert "; nothing more was submitted" in done.stderr
    sent = own_vendors.count("cloudconvert", "POST", "/v2/jobs")
    assert 0 < sent < len(sources)
    with Ledger.open(out / "taskbridge-run.sqlite") as ledger:
        known = [each for each in ledger.entries() if each.phase is not Phase.PLANNED]
    assert len(known) >= sent


# A vendor whose list lags.


DONE = b'{"taskId": 44, "taskStatusText": "ExportCompleted", "externalId": null}'


def respond(status: int, body: bytes) -> Response:
    return Response(status, {"content-length": str(len(body))}, body)


def test_a_submission_that_appears_late_is_not_repeated(path: Path) -> None:
    searches: list[str] = []
    submissions: list[str] = []

    def vendor(request: Request) -> Response:
        if request.starts_work:
            submissions.append(request.url)
            return respond(504, b"")
        if "externalId" in request.url:
            searches.append(request.url)
            reference = request.url.rpartition("=")[2]
            if len(searches) == 1:
                return respond(404, b"{}")
            return respond(200, DONE.replace(b"null", f'"{reference}"'.encode()))
        return respond(200, DONE)

    connection = connection_of("smartdocumentor", {"access_token": "k-of-tests", "poll": {"interval": 0.05}})
    connection.credentials.current = Credential({"Authorization": "Bearer k-of-tests"})
    terms = RunTerms(connection.name, "smartdocumentor", "extract-text", {})
    ended: list[FileUpdate] = []
    with Client(connection, transport=ScriptedTransport(vendor)) as client, Ledger.open(path) as ledger:
        ledger.begin(terms, [LedgerEntry(1, URL, "contract.pdf")])
        pool = RunPool(FileRunner(client, ledger, terms, path.parent / "out", RunLimits(settle=20.0)), 1)
        pool.start(ledger.entries())
        while (update := pool.updates.get()) is not None:
            ended += [update] if update.is_final else []
        pool.stop()
        (entry,) = ledger.entries()

    assert (len(submissions), len(searches)) == (1, 2)
    assert entry.ref == "smartdocumentor:44"
    assert ended[0].task is not None
    assert ended[0].task.status is tb.TaskStatus.COMPLETED
