"""Webhooks at `taskbridge serve --webhooks`, which the emulated vendor sends."""

from __future__ import annotations

import asyncio
import re
import socket
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

import taskbridge as tb
from taskbridge.emulator.export import config_toml
from taskbridge.errors import ConfigError
from taskbridge.serve import Access
from taskbridge.serve.hooks import Hooks
from taskbridge.testing import Emulator

from .conftest import CONTRACTS, URL_SECRET, until
from .served import Serve

TOKEN: Final = "correct-horse-battery-staple"
DELIVERY: Final = b'{"taskId": 44}'


@pytest.fixture
def contracts(tmp_path: Path) -> Path:
    """A configuration in which webhooks are proved by a secret in their URL."""
    path = tmp_path / "contracts.toml"
    path.write_text(CONTRACTS)
    return path


@pytest.mark.slow
def test_a_gateway_stores_the_vendors_webhooks_for_the_server_that_works(
    serve: Serve, store: tb.Store, emulator: Emulator, tmp_path: Path
) -> None:
    config, job = tmp_path / "slow.toml", tmp_path / "job.pdf"
    job.write_bytes(b"%PDF-1.4\n")
    text = config_toml(emulator).replace('provider = "', 'poll.interval = 3600\nretry.first = 0.05\nprovider = "')

    def write(secret: str) -> None:
        line = f'provider = "cloudconvert"\nwebhook_secrets = ["{secret}"]'
        config.write_text(text.replace('provider = "cloudconvert"', line))

    write("not-known-yet")
    gateway = serve(Access("127.0.0.1", TOKEN), config, works=False, receives=True)
    write(emulator.register_webhook(f"{gateway.address}/hooks/cloudconvert", name="cloudconvert"))
    gateway.call("reload")
    until(lambda: any(each.startswith("read the configuration again") for each in gateway.reports))
    worker = serve(config=config)
    store.submit("cloudconvert", "extract-text", job, key="job")
    until(lambda: store.find(state="ended"))  # an hour before the first poll
    assert {each.status for each in emulator.deliveries} == {204}
    assert "works on cloudconvert, scan-documents" in until(lambda: worker.reports)
    assert [each for each in gateway.reports if "works on" in each or "stands by" in each] == []
    page = gateway.page(Authorization=f"Bearer {TOKEN}")
    assert "not configured" not in page


def test_webhooks_need_no_token_and_open_nothing_else(serve: Serve, store: tb.Store, contracts: Path) -> None:
    served = serve(Access("127.0.0.1", TOKEN), contracts, works=False, receives=True)
    for path in ("/", "/metrics", "/live"):
        assert served.request(path)[0] in {303, 401}
    url = f"/hooks/contracts/{URL_SECRET}"
    assert served.request(url, "POST", DELIVERY, Host="hooks.example.com")[0] == 204
    for path, method, body, status in (
        ("/hooks/contracts", "POST", DELIVERY, 401),
        ("/hooks/contracts/wrong", "POST", DELIVERY, 401),
        (url, "GET", None, 405),
        ("/hooks/silent", "POST", DELIVERY, 404),
        ("/hooks/", "POST", DELIVERY, 404),
        ("/hooks/../metrics", "POST", DELIVERY, 404),
        ("/hooks/../metrics", "GET", None, 404),
        ("/hooks/%2e%2e/metrics", "GET", None, 404),
        ("/hooks//metrics", "GET", None, 404),
        ("/hooks/static/page.css", "GET", None, 404),
    ):
        found, headers, text = served.request(path, method, body, Host="hooks.example.com")
        assert (found, text) == (status, ""), path
        assert URL_SECRET not in str(headers)
    assert served.request(url, "POST", Content_Length="9999999999")[0] == 413
    with store.database.reading() as opened:
        stored = opened.exec_driver_sql("SELECT count(*) FROM taskbridge_webhook").scalar_one()
    assert stored == 1


def test_a_page_without_a_token_stays_for_this_machine(serve: Serve, contracts: Path) -> None:
    served = serve(config=contracts, works=False, receives=True)
    assert served.request(f"/hooks/contracts/{URL_SECRET}", "POST", DELIVERY, Host="hooks.example.com")[0] == 204
    assert served.request("/", Host="hooks.example.com")[0] == 403
    assert served.request("/")[0] == 200


def test_without_the_option_there_are_no_webhooks(serve: Serve, contracts: Path) -> None:
    served = serve(config=contracts, works=False)
    assert served.request(f"/hooks/contracts/{URL_SECRET}", "POST", DELIVERY)[0] == 404


def test_a_configuration_without_secrets_is_refused(serve: Serve, contracts: Path) -> None:
    good = contracts.read_text()
    served = serve(config=contracts, works=False, receives=True)
    contracts.write_text(re.sub("webhook_secrets.*", "", good))
    served.call("reload")
    until(lambda: any("the configuration stays as it was: no connection has" in each for each in served.reports))
    assert served.request(f"/hooks/contracts/{URL_SECRET}", "POST", DELIVERY)[0] == 204
    other = serve(config=contracts, works=False, receives=True)
    until(lambda: other.failure)
    assert isinstance(other.failure, ConfigError)


async def send_to(hooks: Hooks, *, is_slow: bool = False) -> int:
    sent: list[Any] = []

    async def receive() -> Any:
        if is_slow:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    await hooks({"type": "http", "method": "POST", "path": "/hooks/a", "headers": []}, receive, send)
    return int(sent[0]["status"])


async def answer(scope: Any, receive: Any, send: Any) -> None:
    del scope
    await receive()
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def test_slow_callers_are_cut_off_and_do_not_pile_up() -> None:
    async def check() -> None:
        hooks = Hooks(longest=0.05, most=1)
        assert await send_to(hooks) == 404
        hooks.app = answer
        assert await send_to(hooks) == 204
        slow = asyncio.ensure_future(send_to(hooks, is_slow=True))
        await asyncio.sleep(0)
        assert await send_to(hooks) == 503
        assert await slow == 408
        assert await send_to(hooks) == 204

    asyncio.run(check())


def test_a_caller_that_breaks_off_does_no_harm(serve: Serve, contracts: Path) -> None:
    served = serve(config=contracts, works=False, receives=True)
    with closing(socket.create_connection(("127.0.0.1", served.port))) as caller:
        head = f"POST /hooks/contracts/{URL_SECRET} HTTP/1.1\r\nHost: a.example\r\nContent-Length: 99\r\n\r\n{{"
        caller.sendall(head.encode())
    assert served.request(f"/hooks/contracts/{URL_SECRET}", "POST", DELIVERY)[0] == 204
