"""`run --resume` after documents or results were moved, and documents whose names are like those of the store."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from taskbridge.testing import Emulator

from .folders import JOBS, PDF, fill

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def place(own_vendors: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that is the working folder, with a configuration and three documents in `in`."""
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    return fill(project, own_vendors, "abc")


@pytest.fixture
def go(place: Path, run_here: Run) -> Run:
    """Runs ``taskbridge run --to out --resume`` with arguments."""
    assert place.exists()
    return lambda *words: run_here("run", *words, "--to", "out", "--resume", "--config", "taskbridge.toml")


@pytest.fixture
def posts(own_vendors: Emulator) -> Callable[[], int]:
    return lambda: own_vendors.count("cloudconvert", "POST", JOBS)


def move(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Move the project, and work in its new place."""
    moved = place.rename(place.with_name("moved"))
    monkeypatch.chdir(moved)
    return moved


ALL_DONE = "taskbridge: 3 of 3 done, 3 credits\n"


def test_a_project_that_was_moved_is_not_submitted_again(
    go: Run, place: Path, posts: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert go("extract-text", "in").stderr == ALL_DONE
    moved = move(place, monkeypatch)
    dry = go("extract-text", "in", "--dry-run")
    done = go("extract-text", "in")

    assert dry.stderr == "taskbridge: dry run of 3: 3 done; nothing was sent\n"
    assert (done.returncode, done.stderr, posts()) == (0, ALL_DONE, 3)
    (moved / "in" / "a.pdf").write_bytes(PDF + b"changed")
    assert go().stdout.startswith("a.pdf  changed ")
    assert posts() == 3


def test_a_project_is_the_same_through_a_link(
    go: Run, place: Path, posts: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    (place.parent / "link").symlink_to(place)
    go("extract-text", "in")
    done = go("extract-text", str(place.parent / "link" / "in"), "in")

    assert (done.returncode, done.stderr, posts()) == (0, ALL_DONE, 3)
    monkeypatch.chdir(place.parent / "link")
    linked = go("extract-text", str(place.parent / "link" / "in"))
    assert (linked.returncode, linked.stderr, posts()) == (0, ALL_DONE, 3)


def test_what_was_not_submitted_yet_is_submitted_from_its_new_place(
    go: Run, place: Path, posts: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = go("extract-text", "in", "--max-cost", "1", "--max-in-flight", "1")
    move(place, monkeypatch)
    done = go("extract-text", "in")

    assert first.returncode == 8
    assert (done.returncode, done.stderr, posts()) == (0, ALL_DONE, 3)


def test_documents_of_one_name_that_move_together_keep_their_results(
    go: Run, place: Path, posts: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("x", "y"):
        (place / name).mkdir()
        (place / name / "report.pdf").write_bytes(PDF)
    go("extract-text", "x", "y")
    moved = move(place, monkeypatch)
    done = go("extract-text", "y", "x")

    assert (done.returncode, done.stderr, posts()) == (0, "taskbridge: 2 of 2 done, 2 credits\n", 2)
    (moved / "y" / "report.pdf").write_bytes(PDF + b"changed")
    assert go("extract-text", "x", "y").stdout.startswith("report.pdf-2  changed ")
    assert posts() == 2


def test_copies_in_folders_that_exist_are_other_documents(go: Run, place: Path, posts: Callable[[], int]) -> None:
    go("extract-text", "in/a.pdf")
    for name in ("copy", "hard-link"):
        (place / name).mkdir()
    (place / "copy" / "a.pdf").write_bytes((place / "in" / "a.pdf").read_bytes())
    os.link(place / "in" / "a.pdf", place / "hard-link" / "a.pdf")
    done = go("extract-text", "in/a.pdf", "copy", "hard-link")

    assert (done.returncode, done.stderr, posts()) == (0, ALL_DONE, 3)


def test_another_document_with_the_name_of_one_that_is_gone_is_submitted(
    go: Run, place: Path, posts: Callable[[], int]
) -> None:
    go("extract-text", "in")
    (place / "in" / "a.pdf").unlink()
    (place / "next").mkdir()
    (place / "next" / "a.pdf").write_bytes(PDF + b"b")  # as long
    done = go("extract-text", "next")

    assert (done.returncode, done.stderr, posts()) == (0, "taskbridge: 4 of 4 done, 4 credits\n", 4)


def test_a_run_in_a_shared_store_is_the_same_through_a_link(
    place: Path, run_here: Run, posts: Callable[[], int]
) -> None:
    common = ("run", "extract-text", "in", "--store", "shared.db", "--config", "taskbridge.toml")
    run_here(*common, "--to", "out")
    (place / "link").symlink_to(place / "out")
    refused = run_here(*common, "--to", "link")
    done = run_here(*common, "--to", "link", "--resume")

    assert (refused.returncode, done.returncode, done.stderr, posts()) == (2, 0, ALL_DONE, 3)
    assert "has a run in link already" in refused.stderr


def test_a_project_with_a_store_elsewhere_may_be_moved(
    place: Path, run_here: Run, posts: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = str(place.parent / "shared.db")
    common = ("run", "extract-text", "in", "--store", store, "--to", "out", "--config", "taskbridge.toml")
    run_here(*common)
    moved = move(place, monkeypatch)
    done = run_here(*common, "--resume")

    assert (done.returncode, done.stderr, posts()) == (0, ALL_DONE, 3)
    (moved.parent / "next" / "out").mkdir(parents=True)  # without results
    (moved / "out").rename(moved / "away")
    monkeypatch.chdir(moved.parent / "next")
    nothing = run_here("run", "--resume", "--store", store, "--to", "out", "--config", f"{moved}/taskbridge.toml")
    assert "there is no run in out to resume" in nothing.stderr


# The store's own files.


def test_a_document_whose_name_begins_like_that_of_the_store_is_submitted(
    place: Path, run_here: Run, posts: Callable[[], int]
) -> None:
    for name in ("scans-2026.pdf", "scans-walnut.pdf", "scans-owner-tom.pdf", "scans-owner-tom"):
        (place / "in" / name).write_bytes(PDF)
    common = ("run", "extract-text", "in", "--store", "in/scans", "--to", "out", "--config", "taskbridge.toml")
    run_here(*common)
    done = run_here(*common, "--resume")

    assert (done.returncode, done.stderr, posts()) == (0, "taskbridge: 7 of 7 done, 7 credits\n", 7)


def test_a_file_of_the_store_that_is_named_is_reported(go: Run, place: Path, posts: Callable[[], int]) -> None:
    go("extract-text", "in")
    (place / "link").symlink_to(place / "out")
    (place / "out" / "taskbridge-run.sqlite-wal").touch()
    done = go("extract-text", "out", "link/taskbridge-run.sqlite")

    note = f"taskbridge: {place}/link/taskbridge-run.sqlite is not submitted: it is a file of the store\n"
    assert (done.returncode, done.stderr, posts()) == (0, f"{note}{ALL_DONE}", 3)
