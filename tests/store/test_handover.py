"""What an owner leaves to the next one: pauses, problems and learned durations."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import select, update

import taskbridge as tb
from taskbridge.store.ownership import Ownership
from taskbridge.store.schema import ACCOUNT
from taskbridge.testing import Emulator

from .conftest import until


def waiting(emulator: Emulator) -> str:
    return f"cloudconvert:{emulator.samples('cloudconvert')['waiting-upload']}"


def account(store: tb.Store) -> Any:
    with store.database.reading() as opened:
        return opened.execute(select(ACCOUNT).where(ACCOUNT.c.connection == "cloudconvert")).mappings().one()


def next_request(emulator: Emulator) -> float:
    """Return the monotonic seconds of the next request."""
    before = len(emulator.requests)
    until(lambda: len(emulator.requests) > before)
    return monotonic()


# Pauses.


def test_a_new_owner_asks_nothing_before_the_end_of_a_pause(store: tb.Store, config: Path, emulator: Emulator) -> None:
    ref = store.watch(waiting(emulator))
    before = Ownership(store.database, "cloudconvert")
    assert before.take()
    before.set_pause("the vendor asked for it", store.clock.now().timestamp() + 3.0)
    began = monotonic()
    before.release()
    with tb.Watcher(store, config=config, connections=["cloudconvert"], interval=0.05) as watcher:
        until(lambda: watcher.owned)
        assert "asked for a pause" in until(lambda: store.explain(ref).problem)
        assert next_request(emulator) - began >= 2.9
        until(lambda: store.explain(ref).problem is None)
        assert account(store)["paused_until"] is None


@pytest.mark.slow
def test_the_pause_of_an_owner_that_was_killed_holds_for_the_next_one(
    store: tb.Store, config: Path, emulator: Emulator, start_owner: Any
) -> None:
    ref = store.watch(waiting(emulator))
    emulator.fail_next(429, retry_after=6, vendor="cloudconvert")
    first = start_owner()
    until(lambda: any(each.status == 429 for each in emulator.requests))
    began = monotonic()
    assert "asked for a pause" in until(lambda: store.explain(ref).problem)
    os.kill(first.pid, signal.SIGKILL)
    first.wait(30)
    with tb.Watcher(store, config=config, connections=["cloudconvert"], interval=0.05) as watcher:
        until(lambda: watcher.owned)
        assert next_request(emulator) - began >= 5.5


def test_the_next_owner_works_at_once_with_a_corrected_credential(
    store: tb.Store, config: Path, emulator: Emulator
) -> None:
    key = emulator.settings("cloudconvert")["api_key"]
    good = config.read_text()
    config.write_text(good.replace(key, "another-key-123"))
    ref = store.watch(waiting(emulator))
    with tb.Watcher(store, config=config, connections=["cloudconvert"], interval=0.05):
        assert "Unauthenticated" in until(lambda: store.explain(ref).problem)
    assert account(store)["paused_until"] is None
    config.write_text(good)
    with tb.Watcher(store, config=config, connections=["cloudconvert"], interval=0.05):
        until(lambda: store.explain(ref).problem is None)
        until(lambda: any(each.status == 200 for each in emulator.requests))


def test_a_wrong_clock_pauses_for_an_hour_at_most(config: Path) -> None:
    with tb.connect(connection="cloudconvert", config=config) as client:
        assert client.stats()["cloudconvert"].paused_until is None
        now = client._clock.now()
        client.pause_until(now.replace(year=now.year + 9))
        paused = client.stats()["cloudconvert"].paused_until
        assert paused is not None
        assert 3590 < (paused - now).total_seconds() <= 3601
        with pytest.raises(tb.InvalidInput, match="time zone"):
            client.pause_until(now.replace(tzinfo=None))


@pytest.mark.slow
def test_an_outage_is_explained_until_it_ends(store: tb.Store, config: Path, emulator: Emulator) -> None:
    ref = store.watch(waiting(emulator))
    emulator.fail_next(500, times=1000, vendor="cloudconvert")
    with tb.Watcher(store, config=config, connections=["cloudconvert"], interval=0.05):
        assert "unreachable since" in until(lambda: store.explain(ref).problem)
        assert "held up at present: the vendor has been unreachable" in str(store.explain(ref))
        emulator.clear_faults()
        until(lambda: store.explain(ref).problem is None)
        assert store.find()[0].state == "open"


# Durations.


def work(store: tb.Store, config: Path, bridge: tb.aio.Bridge | None = None) -> None:
    """Watch until everything that is open has ended."""

    async def run() -> None:
        async with tb.aio.Watcher(store, bridge, config=config, connections=["cloudconvert"], interval=0.05) as watcher:
            running = asyncio.create_task(watcher.run())
            await asyncio.to_thread(until, lambda: watcher.owned and not store.find(state="open"))
        await running

    asyncio.run(run())


def test_an_owner_begins_with_what_the_one_before_has_learned(store: tb.Store, config: Path) -> None:
    with tb.connect(connection="cloudconvert", config=config) as client:
        model = client._connection.durations_of("convert")
        for n in range(30):
            model.observe(5.0 + n / 10.0, 6.0 + n / 10.0, ended=True)
        saved = client.save_durations()
    before = Ownership(store.database, "cloudconvert")
    assert before.take()
    before.set_durations(saved)
    before.release()
    work(store, config)
    assert account(store)["durations"] == saved  # nothing new, nothing written
    store.submit("cloudconvert", "extract-text", "https://files.test/a.pdf", key="a")
    with tb.Watcher(store, config=config, connections=["cloudconvert"], interval=0.05):
        until(lambda: store.submissions(phase="taken") and not store.find(state="open"))
    learned = account(store)["durations"]
    assert learned != saved
    assert learned["operations"]["convert"] == saved["operations"]["convert"]


def test_damaged_durations_are_ignored(store: tb.Store, config: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = Ownership(store.database, "cloudconvert")
    assert before.take()
    before.release()
    with store.database.writing() as opened:
        opened.execute(update(ACCOUNT).values(durations={"version": 99}))
    work(store, config)
    assert "learns the durations of its tasks anew" in caplog.text
