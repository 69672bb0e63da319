"""Injected faults: the error that a client raises for each, and whether the vendor received the request."""

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
    with tb.connect("scan-documents", **settings, retry={"attempts": 1}, request_timeout=1.0) as client:
        yield client


RETRIED_ONCE = {"unauthorized", "wrong-id"}  # with a new credential, or over a new connection

# Name -> the error of one `get` with it.
OUTCOMES: dict[str, type[tb.TaskbridgeError] | None] = {
    "unauthorized": tb.AuthenticationError,
    "forbidden": tb.PermissionDenied,
    "not-found": tb.TaskNotFound,
    "rate-limited": tb.RateLimited,
    "server-error": tb.ServerError,
    "unavailable": tb.ServerError,
    "html": tb.MalformedResponse,
    "hang": tb.DeadlineExceeded,
    "reset": tb.errors.TransportError,
    "response-lost": tb.errors.TransportError,
    "proxy-timeout": tb.ApiError,
    "slow": None,
    "truncated": tb.TruncatedResponse,
    "malformed-json": tb.MalformedResponse,
    "empty": tb.MalformedResponse,
    "wrong-id": tb.IdentityMismatch,
}


def test_every_fault_is_tested_here() -> None:
    assert set(OUTCOMES) == set(FAULTS)


@pytest.mark.parametrize("name", OUTCOMES)
def test_a_fault_causes_its_error_once(
    emulator: Emulator, client: tb.Client, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome, done = OUTCOMES[name], emulator.samples("scan-documents")["completed"]
    emulator.fail_next(name, seconds=0.01, times=2 if name in RETRIED_ONCE else 1)
    if outcome is None:
        assert client.get(done).is_terminal
    else:
        with pytest.raises(outcome):
            client.get(done)
    assert client.get(done).is_terminal  # the fault is used up
    assert capfd.readouterr() == ("", "")  # and the server printed no traceback


def test_a_wrong_id_may_be_a_number(emulator: Emulator) -> None:
    with tb.connect("smartdocumentor", **emulator.settings("smartdocumentor"), retry={"attempts": 1}) as client:
        done = emulator.samples("smartdocumentor")["completed"]
        client.get(done)
        emulator.fail_next("wrong-id", times=2)
        with pytest.raises(tb.IdentityMismatch):
            client.get(done)


def test_an_unknown_name_lists_the_known_ones(emulator: Emulator) -> None:
    with pytest.raises(ValueError, match=r"no fault 'tea-time'; choose from unauthorized, .*, webhook-reordered"):
        emulator.fail_next("tea-time")


def test_a_fault_can_apply_to_some_requests_only(emulator: Emulator, client: tb.Client) -> None:
    emulator.fail_next("unavailable", method="post", path_contains="/files")
    assert client.get(emulator.samples("scan-documents")["completed"]).is_terminal
    with pytest.raises(tb.ServerError):
        client.submit("extract-text", IMAGE)


def test_a_rate_limit_has_its_retry_after(emulator: Emulator, client: tb.Client) -> None:
    emulator.fail_next("rate-limited", retry_after=7)
    with pytest.raises(tb.RateLimited) as caught:
        client.get(emulator.samples("scan-documents")["completed"])
    assert caught.value.retry_after == 7.0


def test_a_lost_response_leaves_the_submission_accepted(emulator: Emulator, client: tb.Client) -> None:
    before = emulator.count("scan-documents", "POST", "/extract-text")
    emulator.fail_next("response-lost", path_contains="/extract-text")
    with pytest.raises(tb.SubmitUncertain) as caught:
        client.submit("extract-text", IMAGE)
    found = client.recover(caught.value)
    assert found is not None
    assert emulator.count("scan-documents", "POST", "/extract-text") == before + 1


# Webhooks.


class Deliveries:
    """Webhooks of the emulated vendor, sent to an address that does not respond."""

    def __init__(self, emulator: Emulator, client: tb.Client) -> None:
        self._emulator = emulator
        self._client = client

    def submit(self) -> str:
        self._emulator.plan_next("scan-documents", Plan(0, 0))
        return self._client.submit("extract-text", IMAGE, callback_url="http://127.0.0.1:9/hook").id

    def sent(self, count: int) -> list[bytes]:
        latest = time.monotonic() + 5.0
        while len(self._emulator.deliveries) < count and time.monotonic() < latest:
            self._client.get(self._emulator.samples("scan-documents")["completed"])  # until they are sent
        return [each.body for each in self._emulator.deliveries if each.attempt == 1]


@pytest.fixture
def deliveries() -> Iterator[Callable[[], tuple[Emulator, Deliveries]]]:
    with Emulator("scan-documents") as emulator, tb.connect("scan-documents", **emulator.settings()) as client:
        yield lambda: (emulator, Deliveries(emulator, client))


def test_every_webhook_fault_is_listed() -> None:
    assert set(WEBHOOK_FAULTS) == {"webhook-duplicated", "webhook-late", "webhook-reordered"}


def test_a_webhook_is_sent_twice(deliveries: Callable[[], tuple[Emulator, Deliveries]]) -> None:
    emulator, hooks = deliveries()
    emulator.fail_next("webhook-duplicated")
    hooks.submit()
    first, second = hooks.sent(2)[:2]
    assert first == second


def test_a_webhook_is_delayed(deliveries: Callable[[], tuple[Emulator, Deliveries]]) -> None:
    emulator, hooks = deliveries()
    emulator.fail_next("webhook-late", seconds=3600)
    hooks.submit()
    hooks.submit()
    assert len(set(hooks.sent(1))) == 1
    emulator.clock.advance(3600)
    assert len(set(hooks.sent(2))) == 2


def test_webhooks_are_reordered(deliveries: Callable[[], tuple[Emulator, Deliveries]]) -> None:
    emulator, hooks = deliveries()
    emulator.fail_next("webhook-reordered")
    earlier, later = hooks.submit(), hooks.submit()
    first, second = hooks.sent(2)[:2]
    assert later.encode() in first
    assert earlier.encode() in second
