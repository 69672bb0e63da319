"""The pytest plugin, used by the tests of an application."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

import pytest

from taskbridge.emulator.export import config_toml
from taskbridge.testing import Emulator

# Imported here, or each pytest run inside these tests would import them again.
for module in ("aio", "client", "testing.recording", "testing.scripted", "_transport.requests"):
    import_module(f"taskbridge.{module}")

# An application: it creates its clients deep inside its own code.
APPLICATION: Final = """
import taskbridge as tb
from taskbridge import aio

def text_of(document):
    with tb.connect(connection="invoices") as client:
        return client.result(client.submit("extract-text", document), timeout=3600).text

def status_of(ref):
    with tb.Bridge.from_config() as bridge:
        return bridge.get(ref).status

async def async_status_of(task_id):
    async with aio.connect(connection="invoices") as client:
        return (await client.wait(task_id, timeout=3600)).status
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.delenv("TASKBRIDGE_CONFIG", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # other plugins take seconds to load
    pytester.makepyfile(application=APPLICATION)
    pytester.makeini("[pytest]\naddopts = -p taskbridge.testing.plugin -p no:cacheprovider\nfilterwarnings = error")
    return pytester


def passes(suite: pytest.Pytester, *options: str, count: int = 1) -> None:
    result = suite.runpytest_inprocess(*options)
    result.assert_outcomes(passed=count)


def test_an_application_runs_against_a_scripted_vendor(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        import asyncio
        import application

        def test_twenty_minutes(taskbridge_script, taskbridge_clock):
            before = taskbridge_clock.monotonic()
            vendor = taskbridge_script("invoices")
            vendor.plan_next({0: "pending", 1200: "completed"}, text="Total: 12 EUR")
            assert application.text_of(b"bytes") == "Total: 12 EUR"
            assert taskbridge_clock.monotonic() - before >= 1200

        def test_asyncio(taskbridge_script):
            taskbridge_script("invoices").task("t1", {0: "pending", 1200: "completed"})
            assert asyncio.run(application.async_status_of("t1")) == "completed"
            assert application.status_of("invoices:t1") == "completed"
        """
    )
    passes(suite, count=2)


def test_an_application_runs_against_emulators(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        import pytest
        import taskbridge as tb
        import application
        from taskbridge.emulator import Plan

        IMAGE = b"\\x89PNG\\r\\n\\x1a\\n" + bytes(40)

        @pytest.mark.parametrize("vendor", ["scan-documents", "cloudconvert"])
        def test_in_virtual_time(taskbridge_emulator, taskbridge_clock, vendor):
            emulator = taskbridge_emulator(connections={"invoices": vendor}, plan=Plan(60, 1140))
            before = taskbridge_clock.monotonic()
            assert application.text_of(IMAGE)
            assert taskbridge_clock.monotonic() - before >= 1200
            emulator.fail_next("unavailable")
            done = emulator.samples()["completed"]
            assert application.status_of(f"invoices:{done}") == "completed"

        def test_in_real_time(taskbridge_emulator, monkeypatch, tmp_path):
            mine = tmp_path / "mine.toml"
            mine.write_text('[connections.invoices]\\nprovider = "expertai-extract"\\nusername = "${UNSET}"')
            emulator = taskbridge_emulator("cloudconvert", connections={"invoices": "scan-documents"})
            assert set(emulator.vendors) == {"cloudconvert", "scan-documents"}
            done = emulator.samples("scan-documents")["completed"]
            assert application.status_of(f"invoices:{done}") == "completed"

        def test_connections_are_removed_afterwards():
            with pytest.raises(tb.ConfigError):
                tb.connect(connection="invoices")
        """
    )
    passes(suite, count=4)


RECORDED: Final = """
import application

def test_status(taskbridge_recording):
    assert application.status_of("invoices:{done}") == "completed"
"""


def test_a_recording_is_made_once_and_replayed(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    path = suite.path / "recordings" / "test_it" / "test_status.jsonl"
    with Emulator("scan-documents") as emulator:
        text = config_toml(emulator).replace("[connections.scan-documents]", "[connections.invoices]")
        text = text.replace('default = "scan-documents"', 'default = "invoices"')
        config = suite.path / "taskbridge.toml"
        config.write_text(text)
        monkeypatch.setenv("TASKBRIDGE_CONFIG", str(config))
        suite.makepyfile(test_it=RECORDED.format(done=emulator.samples()["completed"]))
        missing = suite.runpytest_inprocess()
        missing.assert_outcomes(errors=1)
        missing.stdout.fnmatch_lines(
            ["*there is no recording *test_status.jsonl; record it with --taskbridge-record=auto"]
        )
        passes(suite, "--taskbridge-record=auto")
        assert path.exists()
        requests = emulator.count()
        passes(suite, "--taskbridge-record=auto")
        passes(suite)
        assert emulator.count() == requests == 1
        passes(suite, "--taskbridge-record=record")
        assert emulator.count() == 2
    passes(suite)  # without a vendor
    path.write_text(path.read_text().replace("/tasks/", "/other/"))
    suite.runpytest_inprocess().assert_outcomes(failed=1)


MARKED: Final = """
import pytest
import taskbridge as tb
from taskbridge.provider.http import Response
from taskbridge.testing import ScriptedTransport
from taskbridge.testing.recording import RecordingTransport

BODY = b'{"id": "task_1", "status": "processing", "cookie": "a", "sent": {"headers": {"X-Page": "7"}}}'

class Vendor:
    def transport(self, connection):
        return ScriptedTransport(lambda _: Response(200, {}, BODY))

@pytest.mark.taskbridge_recording(allow=["body.sent.headers.*"])
def test_it(taskbridge_recording):
    if isinstance(taskbridge_recording, RecordingTransport):
        taskbridge_recording._inner = Vendor()
    with tb.connect("scan-documents", api_key="some-key-0123") as client:
        client.get("task_1")
"""


def test_places_masked_for_their_shape_are_listed_and_may_be_allowed(suite: pytest.Pytester) -> None:
    suite.makepyfile(test_it=MARKED)
    result = suite.runpytest_inprocess("--taskbridge-record=record", "--strict-markers")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*taskbridge: masked in *test_it.jsonl*", "body.cookie (name)"])
    result.stdout.no_fnmatch_line("body.sent*")
    text = (suite.path / "recordings" / "test_it" / "test_it.jsonl").read_text()
    assert '\\"X-Page\\": \\"7\\"' in text
    passes(suite, "--strict-markers")


def test_pytest_finds_it_by_itself() -> None:
    [point] = entry_points(group="pytest11", name="taskbridge")
    assert point.value == "taskbridge.testing.plugin"


def test_it_imports_nothing_until_it_is_used(tmp_path: Path) -> None:
    """Loading the plugin imports the two packages and the plugin itself, nothing else."""
    script = (
        "import sys, pytest; before = set(sys.modules); import taskbridge.testing.plugin; "
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=tmp_path)
    loaded = set(done.stdout.split())
    assert loaded == {"taskbridge", "taskbridge.testing", "taskbridge.testing.plugin"}
