"""What the owner of a connection reports, and what a person decides about uncertain submissions."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, insert, select, update

import taskbridge as tb
from taskbridge.emulator import Plan
from taskbridge.emulator.export import config_toml
from taskbridge.errors import InvalidInput
from taskbridge.events import PollReason
from taskbridge.models import TaskRef
from taskbridge.store import AccountStatus
from taskbridge.store.reports import from_json, to_json
from taskbridge.store.schema import ACCOUNT, EVENT, INTENT
from taskbridge.testing import Emulator

from .conftest import PNG, until


def status_of(store: tb.Store, connection: str) -> AccountStatus | None:
    return next((each.status for each in store.accounts() if each.connection == connection), None)


def test_a_report_survives_the_database() -> None:
    status = AccountStatus(
        watched=3,
        rate=1.5,
        demand=3.0,
        quantiles={"convert": (1.0, 2.0, 3.0, 4.0, 5.0)},
        outage_since=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        next_polls={
            TaskRef("a:1"): (datetime(2026, 1, 2, tzinfo=UTC), PollReason.LEARNED),
            TaskRef("a:2"): (None, PollReason.DEADLINE),
        },
    )
    assert from_json({**to_json(status), "of_a_later_version": 1}) == status
    assert status.overload == 2.0
    assert AccountStatus(demand=9.0).overload == 0.0


def test_the_owner_reports_how_its_work_goes(store: tb.Store, config: Path, emulator: Emulator) -> None:
    waiting = store.watch(f"cloudconvert:{emulator.samples('cloudconvert')['waiting-upload']}")

    def reported() -> AccountStatus | None:
        found = status_of(store, "cloudconvert")
        planned = found and found.next_polls.get(waiting)
        return found if planned and planned[1] is PollReason.INTERVAL else None  # after the first poll

    with tb.Watcher(store, config=config, interval=0.05):
        status = until(reported)
    account = next(each for each in store.accounts() if each.connection == "cloudconvert")
    assert account.owner is not None
    assert account.owner.startswith("process ")
    assert account.owner_since is not None
    assert account.status_at is not None
    assert account.watches == {"open": 1}
    assert status.watched == 1
    assert status.requests["poll"] >= 1
    assert (status.rate, status.limit, status.is_refused, status.outage_since) == (None, None, False, None)
    at, _ = status.next_polls[waiting]
    assert at is not None
    assert abs((at - datetime.now(UTC)).total_seconds()) < 60


def test_a_connection_that_cannot_keep_its_intervals_says_by_what_factor(store: tb.Store, tmp_path: Path) -> None:
    slow = tmp_path / "slow.toml"
    limits = 'poll.interval = 0.5\nrequests_per_second = 2\nprovider = "cloudconvert"'
    for number in range(8):
        document = tmp_path / f"{number}.pdf"
        document.write_bytes(b"%PDF-1.4\n" + bytes([number]))
        store.submit("cloudconvert", "extract-text", document, key=str(number))
    with Emulator("cloudconvert", plan=Plan(working=10_000.0)) as emulator:
        slow.write_text(config_toml(emulator).replace('provider = "cloudconvert"', limits), encoding="utf-8")
        with tb.Watcher(store, config=slow, interval=0.05):
            status = until(lambda: (found := status_of(store, "cloudconvert")) and found.watched == 8 and found, 60.0)
    assert status.limit == 2.0
    assert 5.0 < status.overload < 12.0  # 8 tasks twice a second, with jitter, at 2 a second


def test_a_refused_account_is_reported(store: tb.Store, emulator: Emulator, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    address = emulator.settings("scan-documents")["base_url"]
    text = f'[connections.scans]\nprovider = "scan-documents"\napi_key = "not-the-key"\nbase_url = "{address}"\n'
    wrong.write_text(text, encoding="utf-8")
    store.watch("scans:task_1")
    with tb.Watcher(store, config=wrong, interval=0.05):
        until(lambda: (found := status_of(store, "scans")) and found.is_refused)
        until(lambda: next(each.problem for each in store.accounts() if each.connection == "scans"))


def test_an_idle_owner_needs_few_statements(store: tb.Store, config: Path, emulator: Emulator) -> None:
    del emulator
    with tb.Watcher(store, config=config, connections=["cloudconvert"]):
        until(lambda: status_of(store, "cloudconvert"))
        began, statements = time.monotonic(), list[str]()

        def count(*arguments: Any) -> None:
            statements.append(arguments[2])

        event.listen(store.database.engine, "before_cursor_execute", count)
        until(lambda: time.monotonic() > began + 4.0)
        event.remove(store.database.engine, "before_cursor_execute", count)
    seconds = time.monotonic() - began
    assert 0 < len([each for each in statements if not each.startswith("BEGIN")]) <= 2.0 * seconds


# Decisions.


@pytest.fixture
def uncertain(store: tb.Store, tmp_path: Path) -> str:
    """The key of a submission that may have been sent."""
    path = tmp_path / "page.png"
    path.write_bytes(PNG)
    store.submit("scan-documents", "extract-text", path, key="INV-1")
    with store.database.writing() as opened:
        opened.execute(update(INTENT).values(phase="uncertain", error="no response", recovery_token={"a": 1}))
    return "INV-1"


def test_a_resubmitted_submission_is_sent_again(
    store: tb.Store, config: Path, emulator: Emulator, uncertain: str
) -> None:
    changed = store.resubmit("scan-documents", uncertain)
    assert (changed.phase, changed.error) == ("planned", None)
    with tb.Watcher(store, config=config, interval=0.05):
        until(lambda: store.submissions(phase="taken"))
    assert sum("-operations/" in each.path for each in emulator.requests if each.method == "POST") == 1


def test_a_running_owner_notices_a_resubmission(
    store: tb.Store, config: Path, emulator: Emulator, uncertain: str
) -> None:
    del emulator
    with tb.Watcher(store, config=config, interval=0.05):
        until(lambda: status_of(store, "scan-documents"))
        store.resubmit("scan-documents", uncertain)
        until(lambda: store.submissions(phase="taken"))


def test_a_forgotten_submission_stays_as_it_is(store: tb.Store, uncertain: str, tmp_path: Path) -> None:
    assert store.forget("scan-documents", uncertain).phase == "forgotten"
    again = store.submit("scan-documents", "extract-text", tmp_path / "page.png", key=uncertain)
    assert again.phase == "forgotten"
    with pytest.raises(InvalidInput, match="is forgotten; only an uncertain one"):
        store.resubmit("scan-documents", uncertain)


@pytest.mark.parametrize("decide", ["resubmit", "forget"])
def test_only_an_uncertain_submission_can_be_decided(store: tb.Store, tmp_path: Path, decide: str) -> None:
    path = tmp_path / "page.png"
    path.write_bytes(PNG)
    store.submit("scan-documents", "extract-text", path, key="INV-1")
    with pytest.raises(InvalidInput, match="'INV-1' is planned"):
        getattr(store, decide)("scan-documents", "INV-1")
    with pytest.raises(InvalidInput, match="has no submission nowhere, 'INV-1'"):
        getattr(store, decide)("nowhere", "INV-1")
    assert [each.connection for each in store.accounts()] == ["scan-documents"]


def test_a_submission_may_become_uncertain_twice(store: tb.Store, uncertain: str) -> None:
    from taskbridge.store.ownership import Ownership  # noqa: PLC0415  # only here

    owner = Ownership(store.database, "scan-documents")
    assert owner.take()
    with store.database.reading() as opened:
        number = opened.execute(select(INTENT.c.id)).scalar_one()
    for _ in range(2):
        store.resubmit("scan-documents", uncertain)
        owner.mark_sending(number, {})
        owner.mark_uncertain(number, "no response")
    owner.release()
    events = list(store.events("test"))
    assert [each.kind for each in events] == ["uncertain", "uncertain"]
    assert len({each.key for each in events}) == 2


# Searching.


def test_watches_are_found_by_ref_and_meta(store: tb.Store) -> None:
    store.watch("scans:task_1", meta={"customer": "Müller", "share": "50%"})
    store.watch("scans:task_2", meta={"customer": "Weiß"})
    found = {text: [each.ref.id for each in store.find(text=text)] for text in ("TASK_1", "Müller", "50%", "%", "x")}
    assert found["TASK_1"] == ["task_1"]
    assert found["Müller"] == ["task_1"]
    assert found["50%"] == ["task_1"]
    assert found["%"] == ["task_1"]  # no wildcard
    assert found["x"] == []


def test_accounts_count_what_they_have(store: tb.Store) -> None:
    store.watch("scans:1")
    store.watch("scans:2")
    store.unwatch("scans:2")
    with store.database.writing() as opened:
        opened.execute(insert(EVENT).values(connection="scans", position=1, key="k", kind="ended", body={}, at=0.0))
        opened.execute(update(ACCOUNT).values(position=1))
    (account,) = store.accounts()
    assert (account.connection, account.owner, account.status) == ("scans", None, None)
    assert account.watches == {"open": 1, "dropped": 1}
    assert account.submissions == {}
