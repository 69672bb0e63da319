"""Flows with policies, without a server: retries, credentials, strict parsing; all in virtual time."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import taskbridge as tb
from taskbridge._engine.effects import RefreshCredential, Send
from taskbridge._engine.lookup import poll
from taskbridge._engine.retry import RequestOptions, authorize, with_policies
from taskbridge.provider.capabilities import Credential
from taskbridge.provider.http import Flow, Request, Response
from taskbridge.provider.sink import ResponseSink
from taskbridge.testing import VirtualClock

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Maker

    Says = Callable[..., Response]

REFUSALS = {
    **dict.fromkeys((400, 402, 403, 404, 405, 406, 409, 410, 413, 415, 418, 422, 451, 499), 1),
    **dict.fromkeys((408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524), 3),
    **dict.fromkeys((501, 505), 1),
    **dict.fromkeys((506, 507, 508, 511, 530, 599), 2),
    **dict.fromkeys((301, 302, 303, 307, 308), 1),
}


# Retries.


@pytest.mark.parametrize(("status", "requests"), REFUSALS.items())
def test_the_http_status_decides_how_often_a_status_request_is_sent(acme: Maker, status: int, requests: int) -> None:
    harness = acme(lambda _: Response(status))
    with pytest.raises(tb.TaskbridgeError):
        harness.client.get("t1")
    assert len(harness.transport.requests) == requests


def test_the_final_error_gives_the_number_of_attempts(acme: Maker) -> None:
    harness = acme(lambda _: Response(503))
    with pytest.raises(tb.ServerError, match=r"\(after 3 attempts\)"):
        harness.client.get("t1")
    assert len(harness.transport.requests) == 3


@pytest.mark.parametrize("error", [tb.ConnectFailed, tb.TruncatedResponse, tb.DeadlineExceeded])
def test_a_status_request_without_a_response_is_retried(
    acme: Maker, says: Says, error: type[tb.TransportError]
) -> None:
    harness = acme([error("no"), error("no"), says("t1", "done")])
    assert harness.client.get("t1").status == "completed"
    assert [request.new_connection for request in harness.transport.requests] == [False, True, True]


def test_an_untrusted_certificate_is_not_retried(acme: Maker) -> None:
    harness = acme([tb.TlsError("no")])
    with pytest.raises(tb.TlsError):
        harness.client.get("t1")
    assert len(harness.transport.requests) == 1


def test_pauses_grow_and_have_full_jitter(acme: Maker, clock: VirtualClock) -> None:
    clock.pinned = 1.0
    harness = acme(lambda _: Response(500), retry={"attempts": 5, "first": 0.5, "at_most": 1.5}, request_timeout=60.0)
    with pytest.raises(tb.ServerError):
        harness.client.get("t1")
    assert clock.slept == [0.5, 1.0, 1.5, 1.5]


def test_retry_after_is_a_lower_bound(acme: Maker, says: Says, clock: VirtualClock) -> None:
    harness = acme([Response(429, {"retry-after": "7"}), says("t1", "done")])
    assert harness.client.get("t1").status == "completed"
    assert 7.0 <= sum(clock.slept) <= 10.0


def test_a_retry_after_beyond_the_deadline_is_reported_and_not_slept(acme: Maker, clock: VirtualClock) -> None:
    harness = acme([Response(503, {"retry-after": "120"})])
    with pytest.raises(tb.ServerError) as caught:
        harness.client.get("t1")
    assert caught.value.retry_after == 120.0
    assert clock.slept == []
    assert len(harness.transport.requests) == 1


def test_a_retry_after_of_more_than_an_hour_is_never_slept(acme: Maker, clock: VirtualClock) -> None:
    harness = acme([Response(429, {"retry-after": "7200"})], request_timeout=80_000.0)
    with pytest.raises(tb.RateLimited) as caught:
        harness.client.get("t1")
    assert caught.value.retry_after == 7200.0
    assert clock.slept == []


def test_request_timeout_covers_all_attempts(acme: Maker, clock: VirtualClock) -> None:
    def slow(_: Request) -> Response:
        clock.advance(4.0)
        return Response(503)

    harness = acme(slow, request_timeout=10.0, retry={"attempts": 10, "first": 0.0})
    began = clock.monotonic()
    with pytest.raises(tb.TaskbridgeError):
        harness.client.get("t1")
    assert clock.monotonic() - began <= 14.0
    assert all(deadline == began + 10.0 for deadline in harness.transport.deadlines)


def test_a_stale_connection_is_replaced_without_using_the_retry_budget(acme: Maker, says: Says) -> None:
    stale = tb.TruncatedResponse("closed")
    stale.stale = True
    harness = acme([stale, says("t1", "done")], retry={"attempts": 1})
    assert harness.client.get("t1").status == "completed"
    assert [request.new_connection for request in harness.transport.requests] == [False, True]


def test_a_stale_connection_to_another_host_does_not_release_the_probe(acme: Maker) -> None:
    stale = tb.TruncatedResponse("closed")
    stale.stale = True
    harness = acme()
    throttle, now = harness.connection.throttle, harness.clock.monotonic()
    for _ in range(5):
        throttle.failed(now)
    assert throttle.take(now + 8.0).granted  # the only probe is in flight

    def fetch() -> Flow[Response]:
        return (yield Request("GET", "https://files.test/a", authorized=False, external=True, response_type="bytes"))

    flow = with_policies(harness.connection, fetch, now + 60.0)
    assert isinstance(next(flow), Send)
    assert isinstance(flow.throw(stale), Send)  # again, on a new connection
    assert not throttle.take(now + 8.0).granted


def test_without_a_retry_budget_the_first_error_is_raised(acme: Maker) -> None:
    harness = acme(lambda _: Response(408))
    while harness.connection.throttle.may_retry():
        pass
    with pytest.raises(tb.ApiError) as caught:
        harness.client.get("t1")
    assert "attempts" not in caught.value.message
    assert len(harness.transport.requests) == 1


def post(url: str = "https://acme.test/v1/tasks") -> Flow[int]:
    response = yield Request("POST", url, body=b"{}", response_type="bytes")
    return response.status


@pytest.mark.parametrize(
    "error", [tb.TruncatedResponse("no"), tb.DeadlineExceeded("no")], ids=lambda e: type(e).__name__
)
def test_a_post_without_a_response_is_sent_once(acme: Maker, error: tb.TaskbridgeError) -> None:
    harness = acme([error])
    flow = with_policies(harness.connection, post, harness.clock.monotonic() + 30.0)
    action = driven_to_send(flow)
    assert isinstance(action, Send)
    with pytest.raises(type(error)):
        flow.throw(error)


@pytest.mark.parametrize("answer", [Response(500), Response(503), Response(408)], ids=lambda r: str(r.status))
def test_a_post_with_an_error_response_is_sent_once(acme: Maker, answer: Response) -> None:
    flow = with_policies(acme().connection, post, 2000.0)
    driven_to_send(flow)
    with pytest.raises(StopIteration) as end:
        flow.send(answer)
    assert end.value.value == answer.status


def test_a_post_that_was_never_sent_or_got_429_is_retried(acme: Maker) -> None:
    for first in (tb.ConnectFailed("no"), Response(429)):
        harness = acme()
        flow = with_policies(harness.connection, post, 2000.0)
        driven_to_send(flow)
        action = flow.throw(first) if isinstance(first, Exception) else flow.send(first)
        while not isinstance(action, Send):
            action = flow.send(Credential({}) if isinstance(action, RefreshCredential) else None)
        flow.close()


def driven_to_send(flow: Any) -> Any:
    action = next(flow)
    while isinstance(action, RefreshCredential):
        action = flow.send(Credential({}))
    return action


# Credentials.


def test_the_credential_is_sent_and_not_in_the_repr(acme: Maker, says: Says) -> None:
    harness = acme([says("t1", "done")])
    harness.client.get("t1")
    assert harness.transport.requests[0].headers["X-Key"] == "key-of-acme-123"
    assert "key-of-acme-123" not in repr(harness.transport.requests)
    assert "key-of-acme-123" not in repr(harness.connection)


def test_the_credential_changes_nothing_but_the_headers(acme: Maker, clock: VirtualClock, tmp_path: Path) -> None:
    harness = acme()
    harness.connection.credentials.current = Credential({"X-Key": "k"})
    wanted = Request(
        "POST", "https://acme.test/v1/tasks", {"Accept": "text/plain"}, b"body", idempotent=True, long_poll=7.0,
        response_type="bytes", save_to=ResponseSink(tmp_path / "file"), new_connection=True, starts_work=False,
        recovery_token={"a": 1}, external=True, public_only=True,
    )  # fmt: skip

    def fetch() -> Flow[Response]:
        return (yield wanted)

    sent = next(with_policies(harness.connection, fetch, clock.monotonic() + 60.0))
    assert isinstance(sent, Send)
    assert sent.request == replace(wanted, headers={"Accept": "text/plain", "X-Key": "k"})


def test_a_401_is_replayed_once_with_a_new_credential(acme: Maker, says: Says) -> None:
    tokens = iter(range(100))

    def vendor(request: Request) -> Response:
        if request.method == "POST":
            return Response(200, {}, json.dumps({"token": f"token-{next(tokens)}"}).encode())
        return says("t1", "done") if request.headers["X-Token"] == "token-1" else Response(401)

    harness = acme(vendor, token_life=3600.0)
    assert harness.client.get("t1").status == "completed"
    assert [request.method for request in harness.transport.requests] == ["POST", "GET", "POST", "GET"]


def test_a_credential_renewed_for_another_caller_meanwhile_is_tried_too(acme: Maker, says: Says) -> None:
    harness = acme(token_life=3600.0)
    credentials = harness.connection.credentials
    flow = poll(harness.connection, "t1", harness.clock.monotonic() + 30.0)
    action, sent = next(flow), list[str]()
    for number in range(3):
        assert isinstance(action, RefreshCredential)
        credentials.current = Credential({"X-Token": f"token-{number}"})
        action = flow.send(credentials.current)
        assert isinstance(action, Send)
        sent.append(action.request.headers["X-Token"])
        if number == 1:
            credentials.current = Credential({"X-Token": "newer"})  # while this request was under way
        action = flow.send(Response(401)) if number < 2 else action
    with pytest.raises(StopIteration):
        flow.send(says("t1", "done"))
    assert sent == ["token-0", "token-1", "token-2"]


def test_a_second_401_pauses_the_connection_and_is_logged_once(acme: Maker, caplog: pytest.LogCaptureFixture) -> None:
    harness = acme(lambda _: Response(401))
    for task_id in ("t1", "t2"):
        with pytest.raises(tb.AuthenticationError) as caught:
            harness.client.get(task_id)
        assert caught.value.ref == f"acme:{task_id}"
    assert len(harness.transport.requests) == 4  # each get tries again, and replays once
    outcomes = harness.client.wait_all([f"t{n}" for n in range(20)])
    assert all(isinstance(outcome.error, tb.AuthenticationError) for outcome in outcomes)
    assert len(harness.transport.requests) <= 4 + 16
    warnings = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings
    assert all("acme pauses" in words for words in warnings)


def test_a_second_refusal_during_logging_is_not_logged_again(acme: Maker, caplog: pytest.LogCaptureFixture) -> None:
    harness = acme()

    class Meanwhile(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            del record
            harness.connection.credentials.refuse(tb.AuthenticationError("another thread's"), "acme")

    logger, meanwhile = logging.getLogger("taskbridge"), Meanwhile()
    logger.addHandler(meanwhile)
    try:
        harness.connection.credentials.refuse(tb.AuthenticationError("no"), "acme")
    finally:
        logger.removeHandler(meanwhile)
    assert [record.message for record in caplog.records] == ["connection acme pauses: no"]


def test_a_403_concerns_the_task_unless_the_table_blames_the_account(acme: Maker, says: Says) -> None:
    own = acme([Response(403, {}, b'{"code": "not_yours"}'), says("t2", "done")])
    with pytest.raises(tb.PermissionDenied):
        own.client.get("t1")
    assert own.connection.credentials.refusal is None
    account = acme([Response(403, {}, b'{"code": "no_account"}')])
    with pytest.raises(tb.PermissionDenied):
        account.client.get("t1")
    assert account.connection.credentials.refusal is not None


def token_vendor(clock: VirtualClock, says: Says) -> Callable[[Request], Response]:
    def vendor(request: Request) -> Response:
        if request.method == "POST":
            return Response(200, {}, b'{"token": "token-of-acme"}', clock.now())
        return says(request.url.rpartition("/")[2], "done")

    return vendor


def test_a_token_is_renewed_before_it_expires(acme: Maker, says: Says, clock: VirtualClock) -> None:
    harness = acme(token_vendor(clock, says), token_life=60.0)
    for seconds in (0.0, 50.0, 6.0, 50.0):
        clock.advance(seconds)
        harness.client.get("t1")
    assert [request.method for request in harness.transport.requests] == ["POST", "GET", "GET", "POST", "GET", "GET"]


def test_one_token_serves_many_threads(acme: Maker, says: Says, clock: VirtualClock) -> None:
    harness = acme(token_vendor(clock, says), token_life=3600.0)
    ready = threading.Barrier(8)

    def get() -> None:
        ready.wait()
        harness.client.get("t1")

    threads = [threading.Thread(target=get) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(request.method == "POST" for request in harness.transport.requests) == 1
    assert len(harness.transport.requests) == 9


def test_one_token_serves_many_asyncio_tasks(acme: Maker, says: Says, clock: VirtualClock) -> None:
    async def run() -> list[str]:
        client, transport = acme(token_vendor(clock, says), token_life=3600.0).asynchronous()
        await asyncio.gather(*(client.get("t1") for _ in range(8)))
        return [request.method for request in transport.requests]

    assert sorted(asyncio.run(run())) == ["GET"] * 8 + ["POST"]


def test_a_refused_token_request_means_a_wrong_credential(acme: Maker) -> None:
    harness = acme([Response(400, {}, b'{"code": "invalid_client"}')], token_life=60.0)
    with pytest.raises(tb.AuthenticationError) as caught:
        harness.client.get("t1")
    assert (caught.value.http_status, caught.value.vendor_code) == (400, "invalid_client")


def test_a_failing_token_service_does_not_mean_a_wrong_credential(acme: Maker) -> None:
    harness = acme(lambda _: Response(503), token_life=60.0)
    with pytest.raises(tb.ServerError):
        harness.client.get("t1")
    assert harness.connection.credentials.refusal is None


def test_a_connection_with_tokens_recovers_from_an_outage(acme: Maker, says: Says, clock: VirtualClock) -> None:
    """The probe that ends the outage first needs a token, which is a separate request."""
    down = True

    def vendor(request: Request) -> Response:
        if down:
            return Response(503)
        return token_vendor(clock, says)(request)

    harness = acme(vendor, token_life=60.0, request_timeout=30.0)
    for _ in range(3):
        with pytest.raises(tb.TaskbridgeError):
            harness.client.get("t1")
    down = False
    for _ in range(5):
        clock.advance(30.0)
        try:
            task = harness.client.get("t1")
        except tb.CircuitOpen:
            continue
        assert task.status == "completed"
        return
    pytest.fail("the connection never came back")


def test_permits_of_abandoned_requests_are_not_lost(acme: Maker) -> None:
    harness = acme(requests_per_second=1.0)
    harness.connection.credentials.current = Credential({})
    waiting = [poll(harness.connection, f"t{n}", harness.clock.monotonic() + 30.0) for n in range(200)]
    for flow in waiting:
        next(flow)
    for flow in waiting:
        flow.close()
    harness.clock.advance(2.0)
    action = next(poll(harness.connection, "t1", harness.clock.monotonic() + 30.0))
    assert isinstance(action, Send)


def test_a_credential_without_a_request_needs_no_permit(acme: Maker) -> None:
    harness = acme(requests_per_second=0.25)
    flow = poll(harness.connection, "t1", harness.clock.monotonic() + 30.0, RequestOptions(has_permit=True))
    harness.connection.throttle.take(harness.clock.monotonic())
    assert isinstance(next(flow), RefreshCredential)
    assert isinstance(flow.send(Credential({})), Send)
    flow.close()


# Strict parsing.


def test_an_unknown_word_is_logged_once_and_is_processing(
    acme: Maker, says: Says, caplog: pytest.LogCaptureFixture
) -> None:
    harness = acme(lambda _: says("t1", "Polishing\x1b[31m"))
    for _ in range(3):
        task = harness.client.get("t1")
        assert (task.status, task.recognized, task.native_status) == ("processing", False, "Polishing\x1b[31m")
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "Polishing" in warnings[0].message
    assert "\x1b" not in warnings[0].message


def test_strict_settings_refuse_an_unknown_word(acme: Maker, says: Says) -> None:
    harness = acme(lambda _: says("t1", "polishing"), strict=True)
    with pytest.raises(tb.ContractError, match="'polishing', which taskbridge does not know") as caught:
        harness.client.get("t1")
    assert caught.value.raw == {"id": "t1", "state": "polishing"}
    with pytest.raises(tb.ContractError):
        harness.client.wait("t1", timeout=60.0)


def test_a_response_about_another_task_is_requested_again_on_a_new_connection(acme: Maker, says: Says) -> None:
    harness = acme([says("t2", "done"), says("t1", "done")])
    assert harness.client.get("t1").native_id == "t1"
    assert [request.new_connection for request in harness.transport.requests] == [False, True]
    harness = acme([says("t2", "done"), says("t2", "done")])
    with pytest.raises(tb.IdentityMismatch, match="asked for 't1', the vendor answered for 't2'"):
        harness.client.get("t1")


@pytest.mark.parametrize(
    ("body", "requests"),
    [
        (b"", 3),
        (b"<html><title>Back soon</title>", 3),
        (b'{"id": "t1"', 3),
        (b"[]", 1),
        (b'{"message": "no", "code": 3}', 1),
        (b'{"id": "t1", "state": "done", "state": "working"}', 1),
        (b'{"id": "\xff"}', 2),
        (b'{"id": 7, "state": "done"}', 1),
        (b'{"id": "t1", "state": null}', 1),
    ],
)
def test_an_unreadable_response_is_requested_again_where_that_may_help(acme: Maker, body: bytes, requests: int) -> None:
    harness = acme(lambda _: Response(200, {"content-type": "text/html"}, body))
    with pytest.raises(tb.ContractError):
        harness.client.get("t1")
    assert len(harness.transport.requests) == requests


# Secrets.


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 200])
def test_an_echoed_credential_is_redacted(acme: Maker, status: int, caplog: pytest.LogCaptureFixture) -> None:
    key = "key-of-acme-123"
    echo = json.dumps({"message": f"wrong key {key}!", "code": key, "deep": [{"x": f"Bearer {key}", key: 1}]}).encode()
    harness = acme(lambda _: Response(status, {"x-request-id": key}, echo))
    with pytest.raises(tb.TaskbridgeError) as caught:
        harness.client.get("t1")
    error = caught.value
    shown = [str(error), repr(error), repr(vars(error)), repr(error.args), caplog.text]
    assert key not in "".join(shown)


def test_an_echoed_token_is_redacted(acme: Maker) -> None:
    def vendor(request: Request) -> Response:
        if request.method == "POST":
            return Response(200, {}, b'{"token": "token-0123456789"}')
        return Response(400, {}, json.dumps({"message": f"bad {request.headers['X-Token']}"}).encode())

    harness = acme(vendor, token_life=3600.0)
    with pytest.raises(tb.InvalidRequest, match=r"bad \*\*\*"):
        harness.client.get("t1")


# Driven by hand.


def test_a_flow_with_policies_refreshes_the_credential_and_then_sends(acme: Maker, says: Says) -> None:
    harness = acme(token_life=3600.0)
    flow = poll(harness.connection, "t1", harness.clock.monotonic() + 30.0)
    first = next(flow)
    assert isinstance(first, RefreshCredential)
    renewal = authorize(harness.connection, first.deadline)
    login = next(renewal)
    assert isinstance(login, Send)
    assert login.request.headers == {}
    with pytest.raises(StopIteration) as end:
        renewal.send(Response(200, {}, b'{"token": "abc"}', harness.clock.now()))
    action = flow.send(end.value.value)
    assert isinstance(action, Send)
    assert action.request.headers["X-Token"] == "abc"
    assert action.max_body == 1 << 20
    with pytest.raises(StopIteration) as end:
        flow.send(says("t1", "done"))
    assert end.value.value.task.status == "completed"


def test_a_wall_clock_jump_does_no_harm(acme: Maker, says: Says, clock: VirtualClock) -> None:
    for step in (-3600.0, 86_400.0, 3600.0 * 8):
        words = ["working"] * 5 + ["done"]
        harness = acme([says("t1", word) for word in words], poll={"interval": 2.0})
        slept = len(clock.slept)
        clock.step_wall(step)
        assert harness.client.wait("t1", timeout=60.0).status == "completed"
        assert len(harness.transport.requests) == 6
        assert all(seconds <= 2.2 for seconds in clock.slept[slept:])
