"""An outage is reported once when it begins and once when it ends, however many tasks wait; in virtual time."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

import taskbridge as tb
from taskbridge.provider.http import Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskbridge.testing import VirtualClock

    from .conftest import AcmeHarness, Maker

SECONDS = 60.0  # of the outage
IDS = [f"t{number}" for number in range(20)]


def vendor(
    clock: VirtualClock, failure: tb.TaskbridgeError | Response, *, back: bool = True
) -> Callable[[Request], Any]:
    """A vendor that fails from second 10 to second 70, or for good; its tasks end at second 100."""
    began = clock.monotonic()

    def answer(request: Request) -> Response | Exception:
        since = clock.monotonic() - began
        if since >= 10.0 and (since < 10.0 + SECONDS or not back):
            return failure.again() if isinstance(failure, tb.TaskbridgeError) else failure
        word = "done" if since >= 100.0 else "working"
        body = {"id": request.url.rpartition("/")[2], "state": word}
        return Response(200, {}, json.dumps(body).encode())

    return answer


def wait_for_all(harness: AcmeHarness, *, asynchronous: bool, timeout: float | None = 300.0) -> list[tb.Outcome]:
    if not asynchronous:
        return list(harness.client.as_completed(IDS, timeout=timeout))

    async def wait() -> list[tb.Outcome]:
        client, _ = harness.asynchronous()
        async with client:
            return [outcome async for outcome in client.as_completed(IDS, timeout=timeout)]

    return asyncio.run(wait())


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("failure", [tb.ConnectFailed("connection refused"), Response(500)], ids=["refused", "500"])
def test_an_outage_is_logged_once_and_so_is_its_end(
    acme: Maker, clock: VirtualClock, caplog: pytest.LogCaptureFixture, failure: Any, *, asynchronous: bool
) -> None:
    harness = acme(vendor(clock, failure), poll={"interval": 2.0})
    outcomes = wait_for_all(harness, asynchronous=asynchronous)
    assert all(outcome.unwrap().is_terminal for outcome in outcomes)
    began, ended = [record for record in caplog.records if record.levelno >= logging.WARNING]
    facts = began.__dict__
    assert (facts["event"], facts["connection"], facts["host"]) == ("outage-began", "acme", "acme.test")
    assert facts["waiting"] == len(IDS)
    assert facts["error"] in {"connection refused", "the vendor's server failed (HTTP 500)"}
    facts = ended.__dict__
    assert (facts["event"], facts["waiting"]) == ("outage-ended", len(IDS))
    assert SECONDS - 5.0 < facts["duration"] < SECONDS + 15.0
    assert harness.connection.stats.outage is None


def test_the_stats_and_observers_have_the_outage_and_since_when_it_lasts(acme: Maker, clock: VirtualClock) -> None:
    harness = acme(vendor(clock, tb.ConnectFailed("connection refused"), back=False), poll={"interval": 2.0})
    start, outages = clock.now(), list[tb.Outage]()
    with harness.client.observe(lambda event: outages.append(event) if isinstance(event, tb.Outage) else None):
        wait_for_all(harness, asynchronous=False, timeout=60.0)
    stats = harness.connection.stats
    assert outages == [stats.outage]
    (outage,) = outages
    assert 9.0 <= (outage.since - start).total_seconds() <= 13.0
    assert (outage.host, outage.duration, outage.waiting, stats.waiting) == ("acme.test", None, len(IDS), 0)
    record = json.loads(json.dumps(outage.record()))
    assert (record["event"], record["error"], record["duration"]) == ("outage", "ConnectFailed", None)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_wait_that_ends_in_an_outage_says_so_for_every_task(
    acme: Maker, clock: VirtualClock, *, asynchronous: bool
) -> None:
    """Also for the tasks whose own polls did not fail, because only probes are sent."""
    harness = acme(vendor(clock, tb.ConnectFailed("connection refused"), back=False), poll={"interval": 4.0})
    outcomes = wait_for_all(harness, asynchronous=asynchronous, timeout=60.0)
    assert len(outcomes) == len(IDS)
    for outcome in outcomes:
        assert isinstance(outcome.error, tb.WaitTimeout)
        assert isinstance(outcome.error.last_error, tb.ConnectFailed)
        assert "it is processing, vendor says 'working'; last seen 5" in outcome.error.message
        assert "s ago, last error: connection refused" in outcome.error.message


def test_a_wait_that_ends_while_the_vendor_responds_has_no_last_error(acme: Maker, clock: VirtualClock) -> None:
    harness = acme(vendor(clock, Response(503)), poll={"interval": 2.0})
    with pytest.raises(tb.WaitTimeout, match=r"last seen [012](\.\d+)? s ago; wait again") as caught:
        harness.client.wait("t1", timeout=9.0)
    assert caught.value.last_error is None


def test_a_status_request_that_the_deadline_cuts_short_is_no_sign_of_an_outage(
    acme: Maker, clock: VirtualClock, says: Callable[..., Response]
) -> None:
    def answer(_: Request) -> Response | Exception:
        if len(harness.transport.requests) == 1:
            return says("t1", "working")
        clock.sleep(min(60.0, harness.transport.deadlines[-1] - clock.monotonic()))
        return tb.DeadlineExceeded("the total time for the request ran out")

    harness = acme(answer, poll={"interval": 8.0})
    with pytest.raises(tb.WaitTimeout) as caught:
        harness.client.wait("t1", timeout=10.0)
    assert caught.value.last_error is None
    harness.transport.requests.clear()
    with pytest.raises(tb.WaitTimeout, match="last error: the total time") as caught:
        harness.client.wait("t1", timeout=20.0)
    assert isinstance(caught.value.last_error, tb.DeadlineExceeded)
