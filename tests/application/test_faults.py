"""Faults by name: what a client makes of each, and that the vendor was asked or not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

import taskbridge as tb
from taskbridge.emulator import Plan
from taskbridge.emulator.faults import FAULTS, WEBHOOK_FAULTS
from taskbridge.testing import Emulator

IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(40)


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator("scan-documents", "smartdocumentor", speed=20) as running:
        yield running


@pytest.fixture
def client(emulator: Emulator) -> Iterator[tb.Client]:
    settings = emulator.settings("scan-documents")
    with tb.connect("scan-documents", **settings, retry={"attempts": 1}, request_timeout=1.0) as made:
        yield made


FORGIVEN_ONCE = {"unauthorised", "wrong-id"}  # asked again with a new credential, or over a new connection

# Name -> what one look-up with it ends with.
OUTCOMES: dict[str, type[tb.TaskbridgeError] | None] = {
    "unauthorised": tb.AuthenticationError,
    "forbidden": tb.PermissionDenied,
    "not-found": tb.TaskNotFound,
    "rate-limited": tb.RateLimited,
    "server-error": tb.ServerError,
    "unavailable": tb.ServerError,
    "html": tb.MalformedResponse,
    "hang": tb.DeadlineExceeded,
    "reset": tb.errors.TransportError,
    "answer-lost": tb.errors.TransportError,
    "slow": None,
    "truncated": tb.TruncatedResponse,
    "malformed-json": tb.MalformedResponse,
    "empty": tb.MalformedResponse,
    "wrong-id": tb.IdentityMismatch,
}


def test_every_fault_is_known_here() -> None:
    assert set(OUTCOMES) == set(FAULTS)


@pytest.mark.parametrize("name", OUTCOMES)
def test_a_look_up_with_a_fault(
    emulator: Emulator, client: tb.Client, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome, done = OUTCOMES[name], emulator.samples("scan-documents")["completed"]
    emulator.fail_next(name, seconds=0.01, times=2 if name in FORGIVEN_ONCE else 1)
    if outcome is None:
        assert client.get(done).is_terminal
    else:
        with pytest.raises(outcome):
            client.get(done)
    assert client.get(done).is_terminal  # one only
    assert capfd.readouterr() == ("", "")  # and the server complains of nothing


def test_a_wrong_id_may_be_a_number(emulator: Emulator) -> None:
    with tb.connect("smartdocumentor", **emulator.settings("smartdocumentor"), retry={"attempts": 1}) as client:
        done = emulator.samples("smartdocumentor")["completed"]
        client.get(done)
        emulator.fail_next("wrong-id", times=2)
        with pytest.raises(tb.IdentityMismatch):
            client.get(done)


def test_an_unknown_name_lists_the_known_ones(emulator: Emulator) -> None:
    with pytest.raises(ValueError, match=r"no fault 'tea-time'; there are unauthorised, .*, webhook-reordered"):
        emulator.fail_next("tea-time")


def test_a_fault_may_be_for_some_requests_only(emulator: Emulator, client: tb.Client) -> None:
    emulator.fail_next("unavailable", method="post", path_contains="/files")
    assert client.get(emulator.samples("scan-documents")["completed"]).is_terminal
    with pytest.raises(tb.ServerError):
        client.submit("extract-text", IMAGE)


def test_a_refusal_says_when_to_come_back(emulator: Emulator, client: tb.Client) -> None:
    emulator.fail_next("rate-limited", retry_after=7)
    with pytest.raises(tb.RateLimited) as caught:
        client.get(emulator.samples("scan-documents")["completed"])
    assert caught.value.retry_after == 7.0


def test_a_lost_answer_leaves_the_order_done(emulator: Emulator, client: tb.Client) -> None:
    before = emulator.count("scan-documents", "POST", "/extract-text")
    emulator.fail_next("answer-lost", path_contains="/extract-text")
    with pytest.raises(tb.SubmitUncertain) as caught:
        client.submit("extract-text", IMAGE)
    found = client.recover(caught.value)
    assert found is not None
    assert emulator.count("scan-documents", "POST", "/extract-text") == before + 1


# Webhooks.


class Deliveries:
    """Webhooks of the emulated vendor, sent to an address where nobody answers."""

    def __init__(self, emulator: Emulator, client: tb.Client) -> None:
        self._emulator = emulator
        self._client = client

    def begin(self) -> str:
        self._emulator.plan_next("scan-documents", Plan(0, 0))
        return self._client.submit("extract-text", IMAGE, callback_url="http://127.0.0.1:9/hook").id

    def sent(self, count: int) -> list[bytes]:
        latest = time.monotonic() + 5.0
        while len(self._emulator.deliveries) < count and time.monotonic() < latest:
            self._client.get(self._emulator.samples("scan-documents")["completed"])  # passes the time
        return [each.body for each in self._emulator.deliveries if each.attempt == 1]


@pytest.fixture
def deliveries() -> Iterator[Callable[[], tuple[Emulator, Deliveries]]]:
    with Emulator("scan-documents") as emulator, tb.connect("scan-documents", **emulator.settings()) as client:
        yield lambda: (emulator, Deliveries(emulator, client))


def test_every_webhook_fault_is_told() -> None:
    assert set(WEBHOOK_FAULTS) == {"webhook-duplicated", "webhook-late", "webhook-reordered"}


def test_a_webhook_is_sent_twice(deliveries: Callable[[], tuple[Emulator, Deliveries]]) -> None:
    emulator, hooks = deliveries()
    emulator.fail_next("webhook-duplicated")
    hooks.begin()
    first, second = hooks.sent(2)[:2]
    assert first == second


def test_a_webhook_comes_late(deliveries: Callable[[], tuple[Emulator, Deliveries]]) -> None:
    emulator, hooks = deliveries()
    emulator.fail_next("webhook-late", seconds=3600)
    hooks.begin()
    hooks.begin()
    assert len(set(hooks.sent(1))) == 1
    emulator.clock.advance(3600)
    assert len(set(hooks.sent(2))) == 2


def test_a_webhook_is_overtaken(deliveries: Callable[[], tuple[Emulator, Deliveries]]) -> None:
    emulator, hooks = deliveries()
    emulator.fail_next("webhook-reordered")
    earlier, later = hooks.begin(), hooks.begin()
    first, second = hooks.sent(2)[:2]
    assert later.encode() in first
    assert earlier.encode() in second
