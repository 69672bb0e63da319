"""The webhooks of an account: listed, added and removed by both clients and on the command line."""

from __future__ import annotations

import asyncio
import hmac
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import taskbridge as tb
from taskbridge import aio
from taskbridge.cli import main
from taskbridge.emulator.export import config_toml
from taskbridge.testing import Emulator

URL = "https://example.com/hooks/cloudconvert"


@pytest.fixture
def client(own_vendors: Emulator) -> Iterator[tb.Client]:
    with tb.connect("cloudconvert", **own_vendors.settings("cloudconvert")) as client:
        yield client


def test_a_webhook_is_added_listed_and_removed(client: tb.Client) -> None:
    every, one = client.add_webhook(URL), client.add_webhook(URL, ["job.failed"])
    assert client.capabilities.webhooks is not None
    assert (every.url, every.events) == (URL, client.capabilities.webhooks.events)
    assert (one.events, one.disabled, one.failing) == (("job.failed",), False, False)
    assert every.secret
    assert every.secret not in repr(every)
    assert set(client.webhooks()) == {every, one}
    client.remove_webhook(every)
    client.remove_webhook(one.id)
    assert client.webhooks() == ()
    with pytest.raises(tb.TaskNotFound):
        client.remove_webhook(one)


def test_all_pages_are_read(client: tb.Client) -> None:
    added = {client.add_webhook(f"{URL}/{number}").id for number in range(101)}
    assert {each.id for each in client.webhooks()} == added


def test_the_asynchronous_client_does_the_same(own_vendors: Emulator) -> None:
    async def work() -> tuple[list[str], int]:
        settings: dict[str, Any] = own_vendors.settings("cloudconvert")
        async with aio.connect("cloudconvert", **settings) as client:
            added = await client.add_webhook(URL, iter(["job.finished"]))
            listed = await client.webhooks()
            await client.remove_webhook(added)
            return [each.id for each in listed if each.id == added.id], len(await client.webhooks())

    found, left = asyncio.run(work())
    assert (len(found), left) == (1, 0)


def test_a_secret_from_the_vendor_verifies_its_deliveries(own_vendors: Emulator) -> None:
    settings: dict[str, Any] = own_vendors.settings("cloudconvert")
    with tb.connect("cloudconvert", **settings) as first:
        secret = first.add_webhook(URL).secret
    assert secret is not None
    with tb.connect("cloudconvert", **settings, webhook_secrets=[secret]) as client:
        body = b'{"event": "job.finished", "job": {"id": "73df1e16-fd8b-47a1-a156-f197babde91a", "status": "finished"}}'
        signature = hmac.new(secret.encode(), body, "sha256").hexdigest()
        assert client.parse_webhook({"CloudConvert-Signature": signature}, body).type == "job.finished"


def test_what_cannot_be_added_or_removed_is_refused_before_anything_is_sent(
    client: tb.Client, own_vendors: Emulator
) -> None:
    with pytest.raises(tb.InvalidInput, match="https://"):
        client.add_webhook("example.com/hook")
    with pytest.raises(tb.InvalidInput, match=r"has no event 'job\.done'; its events are job\.created"):
        client.add_webhook(URL, ["job.done"])
    with pytest.raises(tb.InvalidInput, match="without an event"):
        client.add_webhook(URL, [])
    with pytest.raises(tb.InvalidInput, match="cannot be the id"):
        client.remove_webhook("../users/me")
    assert own_vendors.count("cloudconvert") == 0


@pytest.mark.parametrize("provider", ["scan-documents", "smartdocumentor", "expertai-extract"])
def test_other_vendors_have_no_such_api(own_vendors: Emulator, provider: str) -> None:
    with tb.connect(provider, **own_vendors.settings(provider)) as client:
        for call in (client.webhooks, lambda: client.add_webhook(URL), lambda: client.remove_webhook("w1")):
            with pytest.raises(tb.UnsupportedFeature):
                call()
    assert own_vendors.count(provider) == 0


@pytest.fixture
def other_vendors() -> Iterator[Emulator]:
    """Emulators whose secrets no other test configures: `add` prints one, which is not a leak."""
    with Emulator("cloudconvert", "scan-documents", seed=77) as emulator:
        yield emulator


def test_the_command_line(
    other_vendors: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "taskbridge.toml"
    config.write_text(config_toml(other_vendors), "utf-8")
    monkeypatch.setenv("TASKBRIDGE_CONFIG", str(config))

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        code = main(("webhooks", *words))
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(words, code, out, err)

    added = run("add", URL, "--connection", "cloudconvert", "--event", "job.failed", "--json")
    record = json.loads(added.stdout)
    assert (added.returncode, record["events"]) == (0, ["job.failed"])
    listed = run("list", "cloudconvert")
    assert listed.stdout == f"{record['id']}  {URL}  job.failed\n"
    assert record["secret"] not in listed.stdout + run("list", "cloudconvert", "--json").stdout
    assert run("add", URL, "--connection", "scan-documents").returncode == 2
    removed = run("remove", record["id"], "--connection", "cloudconvert")
    assert (removed.returncode, removed.stdout) == (0, f"{record['id']}  removed\n")
    assert run("remove", record["id"], "--connection", "cloudconvert").returncode == 4
