"""The ledger of a run: what is on the disk when, and what becomes of a run that loses it."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import taskbridge as tb
from taskbridge import Client
from taskbridge.cli.batch import Batch
from taskbridge.cli.carrier import Carrier, News, Rules
from taskbridge.cli.ledger import Entry, Ledger, LedgerError, Phase, Print, Terms
from taskbridge.emulator.texts import config_toml
from taskbridge.provider.capabilities import Credential
from taskbridge.provider.http import Request, Response
from taskbridge.testing import Emulator, ScriptedTransport
from taskbridge.testing.samples import connection_of

TERMS = Terms("contracts", "smartdocumentor", "extract-text", {})
URL = "https://files.example/contract.pdf"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.sqlite"


def test_what_is_written_is_there_after_a_crash(path: Path) -> None:
    ledger = Ledger.open(path)
    ledger.begin(TERMS, [Entry(1, "/in/a.pdf", "a.pdf"), Entry(2, "/in/caf\udce9.pdf", "caf_.pdf")])
    ledger.sending(1, {"reference": "r-1", "files": ["f"]}, Print(7, 2**62, "d"))
    ledger.taken(1, "contracts:44")
    copy = path.with_name("as-a-crash-would-leave-it.sqlite")
    copy.write_bytes(path.read_bytes())

    with Ledger.open(copy) as again:
        first, second = again.entries()
        assert again.terms() == TERMS
    assert (first.phase, first.ref, first.recovery_token) == (
        Phase.TAKEN,
        "contracts:44",
        {"reference": "r-1", "files": ["f"]},
    )
    assert first.seen == Print(7, 2**62, "d")
    assert (second.source, second.phase, second.seen) == ("/in/caf\udce9.pdf", Phase.PLANNED, None)
    ledger.close()


def test_each_change_waits_for_the_disk(path: Path) -> None:
    with Ledger.open(path) as ledger:
        database = ledger._database
        assert database.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert database.execute("PRAGMA journal_mode").fetchone() == ("truncate",)
        assert not database.in_transaction


def test_a_closed_ledger_is_one_file(path: Path) -> None:
    with Ledger.open(path) as ledger:
        ledger.begin(TERMS, [Entry(1, URL, "a")])
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_file_that_was_only_just_made_becomes_a_ledger(path: Path) -> None:
    path.touch()
    with Ledger.open(path) as ledger:
        assert (ledger.terms(), ledger.entries()) == (None, [])


def test_all_files_are_written_down_or_none(path: Path) -> None:
    with Ledger.open(path) as ledger:
        with pytest.raises(LedgerError, match="UNIQUE"):
            ledger.begin(TERMS, [Entry(1, URL, "a"), Entry(2, URL, "b")])
        assert (ledger.terms(), ledger.entries()) == (None, [])


def test_a_disk_that_is_full_at_the_beginning_is_told_as_such(path: Path) -> None:
    with Ledger.open(path) as ledger:
        (pages,) = ledger._database.execute("PRAGMA page_count").fetchone()
        ledger._database.execute(f"PRAGMA max_page_count={pages + 1}")
        with pytest.raises(LedgerError, match="full; nothing more was sent"):
            ledger.begin(TERMS, [Entry(n, f"/{'x' * 500}/{n}", f"{n}") for n in range(100)])
        assert (ledger.terms(), ledger.entries()) == (None, [])


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files by a call of Unix")
def test_a_run_that_loses_its_ledger_sends_nothing_more(own_vendors: Emulator, tmp_path: Path) -> None:
    config, out = tmp_path / "taskbridge.toml", tmp_path / "out"
    config.write_text(config_toml(own_vendors), "utf-8")
    out.mkdir()
    sources = [f"https://files.example/{'x' * 150}/{number}.pdf" for number in range(40)]
    with Ledger.open(out / "taskbridge-run.sqlite") as ledger:
        terms = Terms("cloudconvert", "cloudconvert", "extract-text", {})
        ledger.begin(terms, [Entry(n, source, f"{n}.pdf") for n, source in enumerate(sources, 1)])
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
    assert "; nothing more was sent" in done.stderr
    sent = own_vendors.count("cloudconvert", "POST", "/v2/jobs")
    assert 0 < sent < len(sources)
    with Ledger.open(out / "taskbridge-run.sqlite") as ledger:
        known = [each for each in ledger.entries() if each.phase is not Phase.PLANNED]
    assert len(known) >= sent


# A vendor whose list lags behind.


DONE = b'{"taskId": 44, "taskStatusText": "ExportCompleted", "externalId": null}'


def answer(status: int, body: bytes) -> Response:
    return Response(status, {"content-length": str(len(body))}, body)


def test_an_order_that_shows_up_late_is_not_sent_again(path: Path) -> None:
    looks: list[str] = []
    orders: list[str] = []

    def vendor(request: Request) -> Response:
        if request.starts_work:
            orders.append(request.url)
            return answer(504, b"")
        if "externalId" in request.url:
            looks.append(request.url)
            reference = request.url.rpartition("=")[2]
            if len(looks) == 1:
                return answer(404, b"{}")
            return answer(200, DONE.replace(b"null", f'"{reference}"'.encode()))
        return answer(200, DONE)

    connection = connection_of("smartdocumentor", {"access_token": "k-of-nobody", "poll": {"interval": 0.05}})
    connection.credential = Credential({"Authorization": "Bearer k-of-nobody"})
    terms = Terms(connection.name, "smartdocumentor", "extract-text", {})
    ended: list[News] = []
    with Client(connection, transport=ScriptedTransport(vendor)) as client, Ledger.open(path) as ledger:
        ledger.begin(terms, [Entry(1, URL, "contract.pdf")])
        batch = Batch(Carrier(client, ledger, terms, path.parent / "out", Rules(patience=20.0)), 1)
        batch.start(ledger.entries())
        while (news := batch.news.get()) is not None:
            ended += [news] if news.is_final else []
        batch.stop()
        (entry,) = ledger.entries()

    assert (len(orders), len(looks)) == (1, 2)
    assert entry.ref == "smartdocumentor:44"
    assert ended[0].task is not None
    assert ended[0].task.status is tb.TaskStatus.COMPLETED
