"""The worker threads: a vendor that hangs delays neither deadlines nor updates of other tasks."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

import taskbridge as tb
from taskbridge.provider.http import Request, Response

if TYPE_CHECKING:
    from .conftest import Maker


class OneHangs:
    """A transport to one vendor that responds and one that hangs."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        del deadline, max_body
        if "//hangs." in request.url:
            self.released.wait(20.0)
        body = json.dumps({"id": request.url.rpartition("/")[2], "state": "done"}).encode()
        return Response(200, {}, body)

    def close(self) -> None:
        self.released.set()


@pytest.fixture
def bridge(acme: Maker) -> Iterator[tb.Bridge]:
    connections = {
        name: acme(name=name, base_url=f"https://{name}.test/v1").connection for name in ("hangs", "answers")
    }
    transport = OneHangs()
    with tb.Bridge(connections, transport=transport) as opened:
        yield opened
        transport.released.set()


def test_a_vendor_that_hangs_does_not_hide_another(bridge: tb.Bridge) -> None:
    refs = [*(f"hangs:t{n}" for n in range(30)), "answers:t1"]
    first = next(iter(bridge.as_completed(refs, timeout=10.0)))
    assert first.ref == "answers:t1"
    assert first.unwrap().status == "completed"


def test_a_deadline_holds_while_every_thread_is_busy(bridge: tb.Bridge) -> None:
    outcomes = bridge.wait_all([f"hangs:t{n}" for n in range(30)], timeout=0.05)
    assert {type(outcome.error) for outcome in outcomes} == {tb.WaitTimeout}


def test_two_waits_at_once_do_not_wait_for_each_other(bridge: tb.Bridge) -> None:
    stuck = threading.Thread(target=lambda: bridge.wait_all(["hangs:t1"], timeout=15.0), daemon=True)
    stuck.start()
    [outcome] = bridge.wait_all(["answers:t1"], timeout=10.0)
    assert outcome.unwrap().status == "completed"


@pytest.mark.parametrize("timeout", [float("nan"), "5"])
def test_a_timeout_must_be_a_number(bridge: tb.Bridge, timeout: Any) -> None:
    with pytest.raises(tb.InvalidInput, match="timeout"):
        bridge.wait_all(["answers:t1"], timeout=timeout)


def test_a_closed_bridge_sends_nothing(bridge: tb.Bridge) -> None:
    waiting = bridge.as_completed(["answers:t1"])
    bridge.close()
    with pytest.raises(tb.ConfigError, match="closed"):
        next(iter(waiting))
    with pytest.raises(tb.ConfigError, match="closed"):
        bridge["answers"]
