"""A group of connections over real HTTP: an accepted submission never goes to a second vendor."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

import taskbridge as tb
from taskbridge.emulator.export import config_toml
from taskbridge.testing import Emulator

DOCUMENT = b"\x89PNG\r\n\x1a\n" + bytes(64)
LARGE = DOCUMENT + bytes(200_000)  # CloudConvert gets it after its job


@pytest.fixture
def config(own_vendors: Emulator, tmp_path: Path) -> Path:
    with socket.create_server(("127.0.0.1", 0)) as closed_again:
        port = closed_again.getsockname()[1]
    more = f"""
        [connections.text]
        first = ["nowhere", "cloudconvert", "scan-documents"]

        [connections.nowhere]
        provider = "scan-documents"
        api_key = "any-key"
        base_url = "http://127.0.0.1:{port}/v1"
        retry.attempts = 1
    """
    path = tmp_path / "taskbridge.toml"
    path.write_text(config_toml(own_vendors) + more, encoding="utf-8")
    return path


def test_an_unreachable_member_is_passed_over(config: Path) -> None:
    with tb.connect(connection="text", config=config) as client:
        task = client.submit("extract-text", DOCUMENT)
        assert task.connection == "cloudconvert"
        assert client.wait(task, timeout=30).status == tb.TaskStatus.COMPLETED


def test_an_account_without_credits_is_passed_over(own_vendors: Emulator, config: Path) -> None:
    own_vendors.fail_next(402, vendor="cloudconvert", method="POST", path_contains="/jobs", times=2)
    with tb.connect(connection="text", config=config) as client:
        assert client.submit("extract-text", DOCUMENT).connection == "scan-documents"


@pytest.mark.parametrize("status", [401, 403, 422, 429])
def test_a_document_that_is_refused_after_its_job_goes_to_no_other(
    own_vendors: Emulator, config: Path, status: int
) -> None:
    own_vendors.fail_next(status, method="POST", path_contains="storage", times=4)
    with tb.connect(connection="text", config=config) as client, pytest.raises(tb.TaskbridgeError) as caught:
        client.submit("extract-text", LARGE)
    assert (caught.value.connection, caught.value.not_accepted) == ("cloudconvert", False)
    assert own_vendors.count("scan-documents") == 0


@pytest.mark.parametrize("fault", [500, 502, "reset", "response-lost"])
def test_a_submission_in_doubt_goes_to_no_other(own_vendors: Emulator, config: Path, fault: int | str) -> None:
    own_vendors.fail_next(fault, vendor="cloudconvert", method="POST", path_contains="/jobs", times=4)
    with tb.connect(connection="text", config=config) as client, pytest.raises(tb.SubmitUncertain) as caught:
        client.submit("extract-text", DOCUMENT)
    assert caught.value.connection == "cloudconvert"
    assert own_vendors.count("scan-documents") == 0
