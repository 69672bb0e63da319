"""What a watcher does with submissions that went wrong in unusual ways."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

import taskbridge as tb
from taskbridge.store.ownership import Ownership
from taskbridge.store.schema import INTENT
from taskbridge.testing import Emulator

from .conftest import PNG, StartOwner, recovery_token, until


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "page.png"
    path.write_bytes(PNG)
    return path


def phases(store: tb.Store) -> dict[str, str]:
    return {each.key: each.phase.value for each in store.submissions()}


def sending(store: tb.Store, connection: str, key: str, document: Path, token: Mapping[str, Any] | None = None) -> None:
    """Store a submission as an owner left it that was killed while it sent it."""
    store.submit(connection, "extract-text", document, key=key)
    owner = Ownership(store.database, connection)
    assert owner.take()
    changes = owner.changes(-1)
    assert changes is not None
    owner.mark_sending(max(changes.intents), token or {"provider": connection, "connection": connection})
    owner.release()


@pytest.mark.parametrize("connection", ["cloudconvert", "scan-documents"])
@pytest.mark.parametrize("fault", ["proxy-timeout", "response-lost"])
def test_a_submission_that_was_accepted_all_the_same_is_not_sent_again(
    store: tb.Store, config: Path, emulator: Emulator, document: Path, *, connection: str, fault: str
) -> None:
    path = {"cloudconvert": "/jobs", "scan-documents": "/image-operations/"}[connection]
    emulator.fail_next(fault, vendor=connection, method="POST", path_contains=path)
    store.submit(connection, "extract-text", document, key="INV-7")
    with tb.Watcher(store, config=config, connections=[connection], interval=0.05):
        until(lambda: phases(store) == {"INV-7": "taken"})
    assert sum(each.method == "POST" and path in each.path for each in emulator.requests) == 1


def test_a_large_file_may_take_its_time_before_it_counts_as_not_received(
    store: tb.Store, config: Path, document: Path, start_owner: StartOwner
) -> None:
    def resize(size: int) -> None:
        with store.database.writing() as opened:
            values = {"size": size, "updated_at": store.database.now() - 125.0}
            opened.execute(update(INTENT).where(INTENT.c.key == "large").values(values))

    store.submit("cloudconvert", "extract-text", document, key="large")
    start_owner("mark_sending", "after").wait(30)
    resize(100_000_000)
    with tb.Watcher(store, config=config, connections=["cloudconvert"], interval=0.05, settle=120.0):
        store.submit("cloudconvert", "extract-text", document, key="other")
        until(lambda: store.find(state="ended"))
        assert phases(store) == {"large": "sending", "other": "taken"}
        resize(64)
        until(lambda: phases(store) == {"large": "taken", "other": "taken"})


@pytest.mark.parametrize("kind", ["folder", "device", "gone"])
def test_a_document_that_is_none_any_more_stops_nothing_else(
    store: tb.Store, config: Path, tmp_path: Path, kind: str
) -> None:
    for name in ("planned", "sending"):
        (tmp_path / name).write_bytes(PNG)
    store.submit("scan-documents", "extract-text", tmp_path / "planned", key="planned")
    sending(store, "cloudconvert", "sending", tmp_path / "sending")
    for name in ("planned", "sending"):
        (tmp_path / name).unlink()
        if kind == "folder":
            (tmp_path / name).mkdir()
        elif kind == "device":
            (tmp_path / name).symlink_to(os.devnull)
    store.submit("cloudconvert", "extract-text", "https://files.test/a.pdf", key="other")
    with tb.Watcher(store, config=config, interval=0.05, settle=1.0) as watcher:
        until(lambda: phases(store)["other"] == "taken")
        until(lambda: next(each for each in store.submissions() if each.key == "planned").error)
        assert len(watcher.owned) == 2
    assert phases(store)["planned"] == ("refused" if kind == "device" else "planned")


def test_a_file_that_changed_since_it_was_stored_is_not_uploaded_to_a_job_that_lacks_it(
    store: tb.Store, config: Path, emulator: Emulator, document: Path
) -> None:
    token = recovery_token(config, document, uploads=False)
    sending(store, "cloudconvert", "changed", document, token)
    document.write_bytes(PNG + b"second")
    with tb.Watcher(store, config=config, interval=0.05):
        (found,) = until(lambda: store.submissions(phase="uncertain"))
    assert "the file has changed since it was stored" in (found.error or "")
    assert emulator.count("cloudconvert", "POST") == 1  # the job, and no upload


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that exists and cannot be read")
def test_a_file_that_cannot_be_read_for_a_time_is_uploaded_later(
    store: tb.Store, config: Path, emulator: Emulator, document: Path
) -> None:
    token = recovery_token(config, document, uploads=False)
    sending(store, "cloudconvert", "unreadable", document, token)
    document.unlink()
    document.symlink_to("/proc/self/mem")  # a regular file, of which reading fails with EIO
    with tb.Watcher(store, config=config, interval=0.05) as watcher:
        store.submit("cloudconvert", "extract-text", "https://files.test/a.pdf", key="other")
        until(lambda: phases(store)["other"] == "taken")
        assert phases(store)["unreadable"] == "sending"
        assert len(watcher.owned) == 2
        document.unlink()
        document.write_bytes(PNG)
        until(lambda: phases(store)["unreadable"] == "taken")
    assert emulator.count("cloudconvert", "POST") == 3  # two jobs and an upload
