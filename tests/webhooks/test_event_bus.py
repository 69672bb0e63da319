"""Event buses of an application: what they must do, and what clients do with them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest

import taskbridge as tb
from taskbridge.testing import VirtualClock, check_event_bus

Sign = Callable[..., dict[str, str]]
Event = Callable[..., bytes]
SETTINGS: dict[str, Any] = {"api_key": "sd-test-key", "webhook_secrets": ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]}


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(now=datetime(2026, 11, 22, 12, 0, tzinfo=UTC))


@pytest.fixture
def store(tmp_path: Path, clock: VirtualClock) -> Iterator[tb.Store]:
    with tb.Store(tmp_path / "taskbridge.db", clock=clock) as opened:
        yield opened


def in_memory(_: str) -> tb.MemoryEventBus:
    return tb.MemoryEventBus()


class Shared(tb.MemoryEventBus):
    """Claims that several buses of one process share; `flaw` breaks one rule."""

    claimed: ClassVar[set[tuple[str, str]]]
    settled: ClassVar[set[tuple[str, str]]]
    doubted: ClassVar[set[tuple[str, str]]]

    def __init__(self, name: str, flaw: str = "") -> None:
        super().__init__()
        self.name, self.flaw = name if flaw != "connections" else "", flaw

    def claim(self, key: str) -> bool:
        place = (self.name, key[:2000] if self.flaw == "long keys" else key)
        is_new = place not in self.claimed or self.flaw == "claims"
        self.claimed.add(place)
        return is_new

    def settle(self, key: str) -> None:
        if self.flaw == "settles":
            self.claimed.discard((self.name, key))
        self.settled.add((self.name, key))

    def is_settled(self, key: str) -> bool:
        if self.flaw == "own settles":
            return super().is_settled(key)
        return (self.name, key) in (self.claimed if self.flaw == "open claims" else self.settled)

    def release(self, key: str) -> None:
        if self.flaw == "unknown keys":
            self.claimed.remove((self.name, key))
        elif self.flaw != "releases":
            self.claimed.discard((self.name, key))
        if self.flaw != "released settles":
            self.settled.discard((self.name, key))

    def doubt(self, key: str) -> bool:
        is_new = (self.name, key) not in self.doubted
        self.doubted.add((self.name, key))
        return is_new and self.flaw != "doubts"


def sharing(flaw: str = "") -> Callable[[str], tb.EventBus]:
    class Fresh(Shared):
        claimed: ClassVar[set[tuple[str, str]]] = set()
        settled: ClassVar[set[tuple[str, str]]] = set()
        doubted: ClassVar[set[tuple[str, str]]] = set()

    return lambda name: Fresh(name, flaw)


def test_the_event_buses_of_the_package_pass(store: tb.Store) -> None:
    check_event_bus(in_memory, shared=False)
    check_event_bus(store.event_bus)
    check_event_bus(sharing())


FLAWS: Final = (
    *("connections", "long keys", "claims", "open claims", "settles", "own settles"),
    *("unknown keys", "releases", "released settles", "doubts"),
)


@pytest.mark.parametrize("flaw", FLAWS)
def test_one_that_breaks_a_rule_fails(flaw: str) -> None:
    with pytest.raises((AssertionError, KeyError)):
        check_event_bus(sharing(flaw))


def test_one_that_shares_nothing_or_lacks_a_part_fails(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="once by all of the same connection"):
        check_event_bus(in_memory)

    def make(_: str) -> Any:
        return object()

    for connect in (tb.connect, tb.aio.connect):
        with pytest.raises(tb.ConfigError, match=r"object for 'scan-documents', which lacks a part"):
            connect("scan-documents", event_bus=make, **SETTINGS)
    config = tmp_path / "taskbridge.toml"
    config.write_text('[connections.scans]\nprovider = "scan-documents"\napi_key = "sd-test-key"\n')
    for bridge in (tb.Bridge, tb.aio.Bridge):
        with pytest.raises(tb.ConfigError, match="lacks a part"):
            bridge.from_config(config, event_bus=make)


def test_a_claim_expires_if_its_process_ended_and_a_settled_one_after_a_week(
    store: tb.Store, clock: VirtualClock
) -> None:
    first, second = store.event_bus("scans"), store.event_bus("scans")
    assert first.claim("lost")
    assert first.claim("done")
    first.settle("done")
    clock.advance(299.0)
    assert not second.claim("lost")
    clock.advance(2.0)
    assert second.claim("lost")
    assert not second.is_settled("lost")
    assert not second.claim("done")
    assert second.is_settled("done")
    clock.advance(7 * 86_400.0)
    assert not second.is_settled("done")
    assert second.claim("done")


def test_two_clients_process_an_event_once(
    store: tb.Store, clock: VirtualClock, svix_headers: Sign, event: Event
) -> None:
    body = event(status="completed")
    headers = svix_headers(body)
    options: dict[str, Any] = {"clock": clock, "event_bus": store.event_bus, **SETTINGS}
    with tb.connect("scan-documents", **options) as one, tb.connect("scan-documents", **options) as other:
        seen = one.parse_webhook(headers, body)
        assert one.ingest(seen).status == "applied"
        assert other.ingest(seen).status == "duplicate"
        other.forget(seen)
        assert other.ingest(seen).status == "applied"

    async def again() -> str:
        async with tb.aio.connect("scan-documents", **options) as third:
            return (await third.ingest(seen)).status

    assert asyncio.run(again()) == "duplicate"


class Blocking(tb.MemoryEventBus):
    """One that may block; it notes which thread called which method."""

    blocks = True

    def __init__(self) -> None:
        super().__init__()
        self.called: set[tuple[str, bool]] = set()  # and whether the thread was the main one

    def note(self, name: str) -> None:
        self.called.add((name, threading.current_thread() is threading.main_thread()))

    def claim(self, key: str) -> bool:
        self.note("claim")
        return super().claim(key)

    def settle(self, key: str) -> None:
        self.note("settle")
        super().settle(key)

    def is_settled(self, key: str) -> bool:
        self.note("is_settled")
        return super().is_settled(key)

    def release(self, key: str) -> None:
        self.note("release")
        super().release(key)


def test_asyncio_does_not_block(clock: VirtualClock, svix_headers: Sign, event: Event) -> None:
    body, bus = event(status="completed"), Blocking()

    async def main() -> None:
        async with tb.aio.connect("scan-documents", clock=clock, event_bus=lambda _: bus, **SETTINGS) as client:
            parsed = client.parse_webhook(svix_headers(body), body)
            with pytest.raises(LookupError):
                async with client.ingesting(parsed):
                    raise LookupError
            assert [(await client.ingest(parsed)).status for _ in range(2)] == ["applied", "duplicate"]
            await client.forget(parsed)

    asyncio.run(main())
    assert bus.called == {(name, False) for name in ("claim", "settle", "is_settled", "release")}


def test_a_failure_is_no_claim(store: tb.Store, clock: VirtualClock) -> None:
    settings: dict[str, Any] = {"access_token": "t", "base_url": "http://127.0.0.1:9/", "retry": {"attempts": 1}}
    secret = "b7Qd0c9yT2wX4mLr"
    settings |= {"webhook_secrets": [secret], "clock": clock, "event_bus": store.event_bus}

    async def main() -> None:
        async with tb.aio.connect("smartdocumentor", **settings) as client:
            event = client.parse_webhook({}, b'{"taskId": 44}', url=f"/{secret}")
            for _ in range(2):  # the second would be in progress if the first were still claimed
                with pytest.raises(tb.TransportError):
                    await client.ingest(event)

    asyncio.run(main())
