"""Runs in a store: what is on disk when, `Store.run`, and a connection that another process owns."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import create_engine, update

import taskbridge as tb
from taskbridge import Client
from taskbridge.emulator.export import config_toml
from taskbridge.errors import ConfigError, InvalidInput
from taskbridge.provider.capabilities import Credential
from taskbridge.provider.clock import SystemClock
from taskbridge.provider.http import Request, Response
from taskbridge.store import FilePhase, FileUpdate, RunFile, RunSummary, StoreUnavailable
from taskbridge.store import sqlite as sqlite_module
from taskbridge.store.database import upgrade_tables
from taskbridge.store.dialects import open_database
from taskbridge.store.intents import Fingerprint, decode_name, encode_name, fingerprint
from taskbridge.store.ownership import Ownership, OwnershipLost
from taskbridge.store.runs.files import RunTerms
from taskbridge.store.runs.stored import Forgotten, StoredRun
from taskbridge.store.runs.worker import FileRunner, RunLimits, RunPool
from taskbridge.store.schema import ACCOUNT
from taskbridge.testing import Emulator, ScriptedTransport
from taskbridge.testing.conformance.samples import connection_of

from .conftest import StartOwner, recovery_token, until

TERMS: Final = RunTerms("contracts", "smartdocumentor", "extract-text", {})
URL: Final = "https://files.example/contract.pdf"
PDF: Final = b"%PDF-1.4\n1 0 obj << /Type /Page >> endobj\n"
JOBS: Final = "/v2/jobs"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder for the results."""
    path = tmp_path / "out"
    path.mkdir()
    return path


@contextmanager
def opened(folder: Path, path: Path | None = None, *, owned: str | None = "contracts") -> Generator[StoredRun]:
    """A run in a store beside its results, or in another one."""
    database = open_database(path or folder / "run.sqlite", None, SystemClock(), alone_on_network=path is None)
    try:
        with StoredRun(database, folder, is_beside=path is None) as run:
            run.terms()
            assert owned is None or run.own([owned]) is None
            yield run
    finally:
        database.close()


def begin(run: StoredRun, *files: RunFile, terms: RunTerms = TERMS) -> None:
    run.begin(terms, files)
    run.files()


def task(ref: str = "contracts:44", status: str = "processing") -> tb.Task:
    return tb.Task.from_dict(
        {
            "provider": "smartdocumentor",
            "connection": "contracts",
            "id": ref.partition(":")[2],
            "native_id": ref.partition(":")[2],
            "status": status,
            "native_status": "x",
            "observed_at": "2026-01-01T00:00:00+00:00",
        }
    )


# What is stored.


def test_what_is_written_survives_a_crash(folder: Path) -> None:
    with opened(folder) as run:
        begin(run, RunFile(1, "/in/a.pdf", "a.pdf"), RunFile(2, "/in/caf\udce9.pdf", "caf\udce9.pdf"))
        run.mark_submitting(1, {"reference": "r-1", "files": ["f"]}, Fingerprint(7, "d", 2**62))
        run.mark_accepted(1, task())
        crashed = folder.parent / "as-a-crash-would-leave-it"
        crashed.mkdir()
        for each in folder.glob("run.sqlite*"):
            (crashed / each.name).write_bytes(each.read_bytes())

    with opened(crashed) as again:
        assert again.terms() == TERMS
        first, second = again.files()
    assert (first.phase, first.ref, first.recovery_token) == (
        FilePhase.ACCEPTED,
        "contracts:44",
        {"reference": "r-1", "files": ["f"]},
    )
    assert first.submitted == Fingerprint(7, "d", 2**62)
    assert (second.source, second.folder) == ("/in/caf\udce9.pdf", "caf\udce9.pdf")
    assert (second.phase, second.submitted) == (FilePhase.PLANNED, None)


@pytest.mark.parametrize("name", ["a.pdf", "caf\udce9.pdf", "file:x", "file:///x%41", "é%41", "\udce9\x1b/ "])
def test_each_name_comes_back_as_it_was(name: str) -> None:
    stored = encode_name(name)
    stored.encode()
    assert decode_name(stored) == name


def test_each_change_is_flushed_to_disk(folder: Path) -> None:
    with opened(folder) as run, run.database.writing() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_a_closed_store_is_one_file(folder: Path) -> None:
    with opened(folder) as run:
        begin(run, RunFile(1, URL, "a"))
    assert [each.name for each in folder.iterdir()] == ["run.sqlite"]


def test_all_files_are_added_or_none(folder: Path) -> None:
    with opened(folder) as run:
        with pytest.raises(StoreUnavailable, match="UNIQUE"):
            run.begin(TERMS, [RunFile(1, URL, "a"), RunFile(1, URL, "b")])
        assert (run.terms(), run.files()) == (None, [])


def test_a_full_disk_at_the_beginning_is_reported(folder: Path) -> None:
    with opened(folder) as run:
        with run.database.reading() as connection:
            pages: int = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 1}")
        with pytest.raises(StoreUnavailable, match="full"):
            run.begin(TERMS, [RunFile(n, f"/{'x' * 500}/{n}", f"{n}") for n in range(100)])
        assert (run.terms(), run.files()) == (None, [])


def test_an_uncertain_submission_may_be_uncertain_again(folder: Path) -> None:
    with opened(folder) as run:
        begin(run, RunFile(1, URL, "a"))
        for _ in range(2):
            run.mark_submitting(1, {"reference": "r"}, None)
            run.mark_uncertain(1, "the vendor cannot be asked")
            run.mark_uncertain(1, "nor now")
            assert [each.phase for each in run.files()] == [FilePhase.SUBMITTING]
            run.mark_planned(1, None)
            assert [(each.phase, each.recovery_token) for each in run.files()] == [(FilePhase.PLANNED, None)]
        run.mark_submitting(1, {"reference": "r"}, None)
        run.mark_uncertain(1, "the vendor cannot be asked")
        run.mark_accepted(1, task())
    with tb.Store(folder / "run.sqlite") as store:
        kinds = [str(event.kind) for event in store.events("x")]
        assert kinds == ["uncertain", "uncertain", "uncertain", "submitted"]
        assert [each.phase for each in store.submissions()] == ["taken"]


def test_the_end_of_a_task_is_one_event_also_if_it_was_given_up_before(folder: Path) -> None:
    with opened(folder) as run:
        begin(run, RunFile(1, URL, "a"))
        run.mark_submitting(1, {}, None)
        run.mark_accepted(1, task())
        with tb.Store(folder / "run.sqlite") as store:
            store.unwatch("contracts:44")
        run.files()
        for _ in range(2):
            run.mark_seen(1, task(status="failed"))
        (file,) = run.files()
    assert (file.phase, file.error) == (FilePhase.FAILED, "contracts:44: the task failed: failed, vendor says 'x'")
    with tb.Store(folder / "run.sqlite") as store:
        assert [str(event.kind) for event in store.events("x")] == ["submitted", "ended"]


def test_a_run_that_lost_its_connection_writes_nothing(folder: Path, tmp_path: Path) -> None:
    with opened(folder, tmp_path / "shared.db") as run:
        begin(run, RunFile(1, URL, "a"))
        with run.database.writing() as connection:
            connection.exec_driver_sql("UPDATE taskbridge_account SET epoch = epoch + 1")
        changes: list[Callable[[], None]] = [
            lambda: run.mark_submitting(1, {}, None),
            lambda: run.mark_downloaded(1),
            lambda: run.record_error(1, "x"),
        ]
        for change in changes:
            with pytest.raises(OwnershipLost):
                change()
        assert [(each.phase, each.error) for each in run.files()] == [(FilePhase.PLANNED, None)]


def test_a_folder_that_was_moved_keeps_its_run(folder: Path) -> None:
    with opened(folder) as run:
        begin(run, RunFile(1, URL, "a"))
    moved = folder.rename(folder.with_name("moved"))
    with opened(moved) as run:
        assert run.terms() == TERMS
        assert [each.source for each in run.files()] == [URL]
        run.begin(TERMS, [])
    with closing(sqlite3.connect(moved / "run.sqlite")) as database:
        assert database.execute("SELECT target FROM taskbridge_run").fetchall() == [(str(moved),)]


# On a network drive.


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """The folder for the results, as if it were on a network drive."""
    mounts = folder.parent / "mounts"
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/data {folder} nfs4 rw 0 0\n")
    monkeypatch.setattr(sqlite_module, "_MOUNTS", mounts)
    monkeypatch.setattr(sys, "platform", "linux")
    return folder


def test_beside_results_on_a_network_drive_one_process_has_the_store(network: Path) -> None:
    with opened(network) as run:
        begin(run, RunFile(1, URL, "a"))
        run.mark_submitting(1, {}, None)
        with run.database.writing() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "truncate"
        assert {each.name for each in network.iterdir()} == {"run.sqlite", "run.sqlite-journal"}
        with pytest.raises(ConfigError, match="another process uses it"):
            open_database(network / "run.sqlite", None, SystemClock(), alone_on_network=True)
        with pytest.raises(ConfigError, match="network drive"):
            tb.Store(network / "run.sqlite")
    with opened(network) as run:
        assert [each.phase for each in run.files()] == [FilePhase.SUBMITTING]


# A vendor whose list lags.


DONE: Final = b'{"taskId": 44, "taskStatusText": "ExportCompleted", "externalId": null}'


def respond(status: int, body: bytes) -> Response:
    return Response(status, {"content-length": str(len(body))}, body)


def test_a_submission_that_appears_late_is_not_repeated(folder: Path) -> None:
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
    with (
        Client(connection, transport=ScriptedTransport(vendor)) as client,
        opened(folder, owned=connection.name) as run,
    ):
        begin(run, RunFile(1, URL, "contract.pdf"), terms=terms)
        pool = RunPool(FileRunner(client, run, terms, RunLimits(settle=20.0)), 1)
        pool.start(run.files())
        while (update := pool.updates.get()) is not None:
            ended += [update] if update.is_final else []
        pool.stop()
        (file,) = run.files()

    assert (len(submissions), len(searches)) == (1, 2)
    assert file.ref == "smartdocumentor:44"
    assert ended[0].task is not None
    assert ended[0].task.status is tb.TaskStatus.COMPLETED


# Store.run.


@pytest.fixture
def inbox(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{name}.pdf" for name in "abc"]
    for path in paths:
        path.write_bytes(PDF + path.name.encode())
    return paths


@pytest.fixture
def go(store: tb.Store, config: Path, folder: Path, inbox: list[Path]) -> Callable[..., RunSummary]:
    """Runs all documents of the inbox."""

    def run(**options: Any) -> RunSummary:
        given: dict[str, Any] = {
            "inputs": inbox,
            "to": folder,
            "connection": "cloudconvert",
            "config": config,
            **options,
        }
        return store.run("extract-text", **given)

    return run


def posts(emulator: Emulator) -> int:
    return emulator.count("cloudconvert", "POST", JOBS)


def test_a_run_is_done_once_however_often_it_is_called(
    go: Callable[..., RunSummary], store: tb.Store, emulator: Emulator, folder: Path, inbox: list[Path]
) -> None:
    steps: list[str] = []

    def note(update: FileUpdate) -> None:
        steps.append(update.step)

    first = go(inputs=inbox[:2], on_update=note)
    second = go(inputs=[*inbox, "missing.pdf"])
    third = go(inputs=[])

    assert (first.counts, first.is_complete, first.usage) == ({"done": 2}, True, {"credits": 2})
    assert {"submitting", "waiting", "downloading", "done"} <= set(steps)
    assert [path.name for update in first.files for path in update.files] == ["a.txt", "b.txt"]
    assert (second.counts, second.is_complete, second.usage) == ({"done": 3, "error": 1}, False, {"credits": 3})
    assert isinstance(second.files[3].error, FileNotFoundError)
    assert third.counts == {"done": 3, "error": 1}
    assert posts(emulator) == 3
    assert all((folder / path.name / f"{path.stem}.txt").exists() for path in inbox)
    assert [str(event.kind) for event in store.events("x")].count("ended") == 3
    assert {str(watch.state) for watch in store.find()} == {"ended"}


def test_two_folders_are_two_runs_of_a_store(go: Callable[..., RunSummary], emulator: Emulator, tmp_path: Path) -> None:
    assert go().is_complete
    assert go(to=tmp_path / "other").is_complete
    assert posts(emulator) == 6
    with pytest.raises(ConfigError, match=r"is for another neutral option \(\{\}\); take another folder"):
        go(neutral={"text_format": "plain"})


def test_what_cannot_be_stored_is_refused(go: Callable[..., RunSummary], store: tb.Store) -> None:
    with pytest.raises(InvalidInput, match="path or a URL, not bytes"):
        go(inputs=[b"%PDF"])
    with pytest.raises(InvalidInput, match=r"inputs is a list of paths and URLs; write \[path\] for one"):
        go(inputs="a.pdf")
    with pytest.raises(InvalidInput, match="max_in_flight must be from 1 to 500"):
        go(max_in_flight=0)
    with pytest.raises(InvalidInput, match="options must be plain JSON"):
        go(options={"x": object()})
    with pytest.raises(ConfigError, match="there is no run in"):
        go(inputs=[])
    assert store.submissions() == []


def test_no_watcher_submits_what_a_stopped_run_has_planned(
    go: Callable[..., RunSummary], store: tb.Store, emulator: Emulator, start_owner: StartOwner
) -> None:
    assert go(max_cost=2, max_in_flight=1).is_cost_reached
    store.submit("cloudconvert", "extract-text", URL, key="mine")
    start_owner()
    until(lambda: [each.key for each in store.submissions(phase="taken") if each.key == "mine"])
    assert posts(emulator) == 3
    assert [each.phase for each in store.submissions()] == ["taken", "taken", "planned", "taken"]


# Where another process owns the connection.


def test_the_owner_submits_the_files_of_a_run(
    go: Callable[..., RunSummary], store: tb.Store, emulator: Emulator, start_owner: StartOwner, inbox: list[Path]
) -> None:
    refused = inbox[0].with_name("empty.pdf")
    refused.write_bytes(b"")
    start_owner()
    until(lambda: owner_of(store))
    before = owner_of(store)
    summary = go(inputs=[*inbox, refused], max_in_flight=2)
    assert owner_of(store) == before

    assert (summary.counts, summary.usage) == ({"done": 3, "error": 1}, {"credits": 3})
    assert "is empty" in str(summary.files[3].error)
    assert posts(emulator) == 3
    refused.write_bytes(PDF)
    assert go(inputs=[]).is_complete
    assert posts(emulator) == 4


def test_a_run_takes_over_from_an_owner_that_ends(
    go: Callable[..., RunSummary], store: tb.Store, emulator: Emulator, start_owner: StartOwner
) -> None:
    owner = start_owner("mark_taken", "before", 2)  # kills itself when the vendor has the second file
    until(lambda: owner_of(store))
    summary = go(settle=1.0)

    owner.wait(timeout=10)
    assert owner_of(store) == f"process {os.getpid()} "
    assert summary.is_complete
    assert posts(emulator) == 3


def owner_of(store: tb.Store) -> str:
    """The process that owns the connection, or did so last."""
    with store.database.reading() as connection:
        text = connection.exec_driver_sql(
            "SELECT max(owner) FROM taskbridge_account WHERE connection = 'cloudconvert'"
        ).scalar()
    return str(text or "").partition("on ")[0]


# Uncertain submissions.


def leave_uncertain(store: tb.Store, folder: Path, path: Path, token: Mapping[str, Any]) -> None:
    """Store a run of one file as it is after a kill during its submission."""
    with StoredRun(store.database, folder) as run:
        assert run.own(["cloudconvert"]) is None
        terms = RunTerms("cloudconvert", "cloudconvert", "extract-text", {}, {})
        run.begin(terms, [RunFile(1, str(path), path.name)])
        run.files()
        run.mark_submitting(1, token, fingerprint(path))


@pytest.mark.parametrize("is_owned", [False, True])
def test_a_forgotten_submission_is_an_end(
    go: Callable[..., RunSummary],
    store: tb.Store,
    *,
    emulator: Emulator,
    start_owner: StartOwner,
    folder: Path,
    inbox: list[Path],
    is_owned: bool,
) -> None:
    leave_uncertain(store, folder, inbox[0], {"connection": "cloudconvert", "provider": "cloudconvert"})
    assert go(inputs=[]).counts == {"uncertain": 1}  # the token has no tag
    store.forget("cloudconvert", "1/1")
    if is_owned:
        before = owner_of(store)
        start_owner()
        until(lambda: owner_of(store) != before)
    for _ in range(2):
        summary = go(resubmit_uncertain=True)
        assert (summary.counts, summary.is_complete) == ({"done": 2, "forgotten": 1}, False)
        assert summary.files[0].file.phase == "forgotten"
    assert posts(emulator) == 2


def test_a_submission_that_was_forgotten_meanwhile_is_not_taken_up_again(
    store: tb.Store, folder: Path, inbox: list[Path]
) -> None:
    leave_uncertain(store, folder, inbox[0], {"connection": "cloudconvert", "provider": "cloudconvert"})
    with StoredRun(store.database, folder) as run:
        run.own(["cloudconvert"])
        run.terms()
        run.files()
        run.mark_uncertain(1, "lost")
        store.forget("cloudconvert", "1/1")
        with pytest.raises(Forgotten):
            run.mark_planned(1, None)
        with pytest.raises(Forgotten):
            run.mark_accepted(1, task("cloudconvert:1"))
        assert [each.phase for each in run.files()] == [FilePhase.FORGOTTEN]


@pytest.mark.parametrize("is_owned", [False, True])
@pytest.mark.parametrize("uploads", [False, True])
def test_the_result_of_a_recovered_submission_is_of_the_content_that_was_sent(
    go: Callable[..., RunSummary],
    store: tb.Store,
    *,
    config: Path,
    emulator: Emulator,
    start_owner: StartOwner,
    folder: Path,
    inbox: list[Path],
    uploads: bool,
    is_owned: bool,
) -> None:
    path = inbox[0]
    leave_uncertain(store, folder, path, recovery_token(config, path, uploads=uploads))
    path.write_bytes(PDF + b"the next content")
    if is_owned:
        before = owner_of(store)
        start_owner()
        until(lambda: owner_of(store) != before)
    summary = go(inputs=[])

    assert (summary.counts, posts(emulator)) == ({"changed": 1} if uploads else {"done": 1}, 1)
    path.write_bytes(PDF + b"the content after that")
    assert go(inputs=[]).counts == {"changed": 1}


def test_a_file_that_changes_after_a_watcher_submitted_it_is_reported(
    go: Callable[..., RunSummary], store: tb.Store, emulator: Emulator, start_owner: StartOwner, inbox: list[Path]
) -> None:
    start_owner()
    until(lambda: owner_of(store))
    assert go().is_complete
    inbox[1].write_bytes(PDF + b"another")
    assert go(inputs=[]).counts == {"done": 2, "changed": 1}
    assert posts(emulator) == 3


def test_a_watcher_submits_a_file_of_a_run_that_changed_before(
    go: Callable[..., RunSummary], store: tb.Store, start_owner: StartOwner, folder: Path, inbox: list[Path]
) -> None:
    leave_uncertain(store, folder, inbox[0], {"connection": "cloudconvert", "provider": "cloudconvert"})
    with StoredRun(store.database, folder) as run:
        run.own(["cloudconvert"])
        run.terms()
        run.files()
        run.mark_planned(1, "the vendor asked for a pause")
    inbox[0].write_bytes(PDF + b"another")
    before = owner_of(store)
    start_owner()
    until(lambda: owner_of(store) != before)
    assert go(inputs=[]).is_complete


# Two runs.


def test_a_connection_that_another_run_owns_is_refused_at_once(
    go: Callable[..., RunSummary], store: tb.Store, store_url: str, emulator: Emulator, folder: Path
) -> None:
    with tb.Store(store_url) as other, StoredRun(other.database, folder / "other") as run:
        assert run.own(["cloudconvert"]) is None
        expected = r"connection 'cloudconvert' is in use by another run on the store .*; wait for its end, or name an"
        with pytest.raises(ConfigError, match=expected):
            go()
    assert (posts(emulator), store.submissions()) == (0, [])
    assert go().is_complete


def test_a_run_ends_when_another_run_follows_the_owner(
    go: Callable[..., RunSummary], store: tb.Store, store_url: str, emulator: Emulator
) -> None:
    with tb.Store(store_url) as other:
        owner = Ownership(other.database, "cloudconvert")
        assert owner.take()

        def follow(each: FileUpdate) -> None:
            if each.step == "submitting":
                with other.database.writing() as opened:
                    opened.execute(update(ACCOUNT).values(owner_kind="run"))

        summary = go(on_update=follow, timeout=None)
        owner.release()

    assert summary.counts == {"skipped": 3}
    assert "in use by another run" in str(summary.refusal)
    assert posts(emulator) == 0
    assert {each.phase for each in store.submissions()} == {"planned"}


def test_only_the_owner_removes_temporary_files(
    go: Callable[..., RunSummary], store: tb.Store, start_owner: StartOwner, folder: Path
) -> None:
    owner = start_owner()
    until(lambda: owner_of(store))
    assert go().is_complete
    left = folder / "a.pdf" / ".taskbridge-0123456789abcdef.part"
    left.write_bytes(b"half of what another process downloads")
    assert go().is_complete
    assert left.exists()
    owner.kill()
    owner.wait(timeout=10)
    until(lambda: go().is_complete and not left.exists())


# A full disk.


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files by a call of Unix")
def test_a_run_that_cannot_write_its_store_submits_nothing_more(own_vendors: Emulator, folder: Path) -> None:
    config = folder.parent / "taskbridge.toml"
    config.write_text(config_toml(own_vendors), "utf-8")
    sources = [f"https://files.example/{'x' * 150}/{number}.pdf" for number in range(40)]
    path = folder / "taskbridge-run.sqlite"
    with opened(folder, path, owned=None) as run:
        terms = RunTerms("cloudconvert", "cloudconvert", "extract-text", {})
        run.begin(terms, [RunFile(n, source, f"{n}.pdf") for n, source in enumerate(sources, 1)])
    limit = path.stat().st_size + 40_000

    done = subprocess.run(
        [sys.executable, "-m", "taskbridge", "run", "--resume", "--to", str(folder), "--config", str(config)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),  # no threads here
    )

    assert done.returncode == 70, done.stderr
    assert "taskbridge-run.sqlite cannot be used: " in done.stderr
    assert "; nothing more was submitted" in done.stderr
    sent = own_vendors.count("cloudconvert", "POST", JOBS)
    assert 0 < sent < len(sources)
    with opened(folder, path, owned=None) as run:
        known = [each for each in run.files() if each.phase is not FilePhase.PLANNED]
    assert len(known) >= sent


def test_a_new_store_has_the_tables_of_the_migrations(tmp_path: Path) -> None:
    """They are created at once, which is faster; so they must not differ."""

    def tables(path: Path) -> list[tuple[str, ...]]:
        with closing(sqlite3.connect(path)) as database:
            names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
            found: list[tuple[str, ...]] = []
            for (name,) in names:
                found.append((name, *map(str, database.execute(f"PRAGMA table_info({name})").fetchall())))
                for index in sorted(database.execute(f"PRAGMA index_list({name})").fetchall(), key=itemgetter(1)):
                    columns = database.execute(f"PRAGMA index_info({index[1]})").fetchall()
                    found.append((name, *map(str, index[1:]), *map(str, columns)))
                keys = database.execute(f"PRAGMA foreign_key_list({name})").fetchall()
                found.append((name, *map(str, keys)))
        return found

    open_database(tmp_path / "created.db", None, SystemClock()).close()
    engine = create_engine(f"sqlite:///{tmp_path / 'migrated.db'}")
    with engine.begin() as connection:
        upgrade_tables(connection, None)
    engine.dispose()
    assert tables(tmp_path / "created.db") == tables(tmp_path / "migrated.db")
