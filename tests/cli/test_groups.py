"""Groups of connections on the command line: submit, run and its store, config show, doctor."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from taskbridge.testing import Emulator

from .folders import PDF, fill, records

Run = Callable[..., subprocess.CompletedProcess[str]]

GROUP = '[connections.text]\nfirst = ["smartdocumentor", "cloudconvert"]\n'  # the first takes URLs only


@pytest.fixture
def place(own_vendors: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a configuration that has a group, and a document."""
    (tmp_path / "a.pdf").write_bytes(PDF)
    monkeypatch.chdir(tmp_path)
    return fill(tmp_path, own_vendors, "", GROUP)


@pytest.fixture
def go(place: Path, run_here: Run) -> Run:
    """Runs ``taskbridge`` with arguments and the configuration of `place`."""
    return lambda *words: run_here(*words, "--config", str(place / "taskbridge.toml"))


def refs(place: Path) -> list[str]:
    with closing(sqlite3.connect(place / "out" / "taskbridge-run.sqlite")) as database, database:
        return [row[0] for row in database.execute("SELECT ref FROM taskbridge_intent ORDER BY id")]


def test_a_submission_names_the_member_that_accepted_it(go: Run) -> None:
    done = go("submit", "extract-text", "a.pdf", "--connection", "text", "--json")
    assert done.returncode == 0
    assert records(done.stdout)[0]["ref"].startswith("cloudconvert:")


def test_if_all_refuse_each_refusal_is_named(go: Run) -> None:
    done = go("submit", "polish", "a.pdf", "--connection", "text")
    assert done.returncode == 2
    assert "smartdocumentor: SmartDocumentor has no operation 'polish'" in done.stderr
    assert "cloudconvert: CloudConvert has no operation 'polish'" in done.stderr


def test_the_store_says_which_member_has_each_file(go: Run, place: Path) -> None:
    link = "https://documents.invalid/b.pdf"
    done = go("run", "extract-text", "a.pdf", link, "--connection", "text", "--to", "out")
    assert (done.returncode, done.stderr) == (0, "taskbridge: 2 of 2 done, 1 credit, 10 pages\n")
    assert [ref.partition(":")[0] for ref in refs(place)] == ["cloudconvert", "smartdocumentor"]


def test_a_resumed_run_continues_with_the_same_member(go: Run, place: Path, own_vendors: Emulator) -> None:
    (place / "slow.pdf").write_bytes(PDF)
    first = go("run", "extract-text", "slow.pdf", "--connection", "text", "--to", "out", "--timeout", "1")
    assert first.returncode == 7
    accepted = refs(place)
    own_vendors.clock.advance(3600.0)
    second = go("run", "--resume", "--to", "out")
    assert (second.returncode, second.stderr) == (0, "taskbridge: 1 of 1 done, 1 credit\n")
    assert refs(place) == accepted
    assert own_vendors.count("cloudconvert", "POST", "/v2/jobs") == 1


def test_a_member_may_be_added_before_a_resume_but_not_removed(go: Run, place: Path) -> None:
    run = ("run", "extract-text", "a.pdf", "--connection", "text", "--to", "out")
    assert go(*run).returncode == 0
    config = place / "taskbridge.toml"
    text = config.read_text("utf-8")
    config.write_text(text.replace('"cloudconvert"]', '"cloudconvert", "scan-documents"]'), "utf-8")
    assert go("run", "--resume", "--to", "out").returncode == 0
    config.write_text(text.replace('"smartdocumentor", "cloudconvert"]', '"smartdocumentor"]'), "utf-8")
    done = go("run", "--resume", "--to", "out")
    assert done.returncode == 2
    assert "connection 'text' now uses smartdocumentor" in done.stderr


def test_a_run_that_no_member_can_do_leaves_no_store(go: Run, place: Path) -> None:
    config = place / "taskbridge.toml"
    config.write_text(config.read_text("utf-8").replace('"smartdocumentor", "cloudconvert"]', '"smartdocumentor"]'))
    done = go("run", "extract-text", "a.pdf", "--connection", "text", "--to", "out")
    assert (done.returncode, (place / "out").exists()) == (2, False)
    assert "SmartDocumentor takes no document given as path; it takes: url" in done.stderr


def test_a_ref_of_a_group_is_refused(go: Run) -> None:
    done = go("get", "text:44")
    assert done.returncode == 2
    assert "'text' is a group; name one of its members: smartdocumentor, cloudconvert" in done.stderr


def test_config_show_shows_the_members(go: Run, place: Path) -> None:
    shown = go("config", "show", "text")
    assert (shown.returncode, f'[text]\n  first = ["smartdocumentor", "cloudconvert"]  # {place}' in shown.stdout) == (
        0,
        True,
    )
    (record,) = records(go("config", "show", "text", "--json").stdout)
    assert record["settings"]["first"]["value"] == ["smartdocumentor", "cloudconvert"]


def test_doctor_checks_the_members(go: Run) -> None:
    found = records(go("doctor", "text", "--json").stdout)
    (group,) = [each for each in found if each["about"] == "group"]
    assert group["message"] == "a submission goes to the first that accepts it: smartdocumentor, then cloudconvert"
    checked = {each["name"] for each in found if each["about"] == "connection"}
    assert checked == {"smartdocumentor", "cloudconvert"}


def test_commands_for_one_connection_name_the_members(go: Run) -> None:
    done = go("list", "text")
    assert done.returncode == 2
    assert "'text' is a group of connections" in done.stderr
