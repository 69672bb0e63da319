"""The setting `states`: a user maps a status word that the provider's table lacks."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

import taskbridge as tb
from taskbridge import aio
from taskbridge._config.files import read_config
from taskbridge.models import TaskStatus
from taskbridge.provider.http import Request, Response
from taskbridge.testing import AsyncScriptedTransport, ScriptedTransport

Says = Callable[..., Response]
SD: Mapping[str, Any] = {"access_token": "token-of-the-test"}
ROW = {"taskId": 44, "workspaceId": 1, "displayName": "contract", "totalPages": 3}


def row(**fields: Any) -> Response:
    return Response(200, {}, json.dumps({**ROW, **fields}).encode())


def smartdocumentor(*responses: Response, **settings: Any) -> tb.Client:
    return tb.connect("smartdocumentor", **SD, **settings, transport=ScriptedTransport(responses))


# What it does.


def test_a_mapped_word_ends_a_wait(acme: Any, says: Says) -> None:
    harness = acme([says("t1", "polished")], states={"Polished": "completed"})
    task = harness.client.wait("t1")
    assert (task.status, task.recognized, task.native_status) == (TaskStatus.COMPLETED, True, "polished")


def test_a_mapped_word_ends_an_asynchronous_wait() -> None:
    async def wait() -> tb.Task:
        transport = AsyncScriptedTransport([row(taskStatusText="Integrated")])
        states = {"Integrated": "completed"}
        async with aio.connect("smartdocumentor", **SD, states=states, transport=transport) as client:
            return await client.wait("44")

    assert asyncio.run(wait()).status is TaskStatus.COMPLETED


def test_a_mapping_takes_precedence_over_the_table(acme: Any, says: Says) -> None:
    harness = acme([says("t1", "done")], states={"done": "processing"})
    assert harness.client.get("t1").status is TaskStatus.PROCESSING


def test_a_mapping_may_be_a_pattern(acme: Any, says: Says) -> None:
    harness = acme([says("t1", "QA Rejected")], states={"*rejected": "failed"})
    assert harness.client.get("t1").status is TaskStatus.FAILED


def test_a_number_without_a_word_can_be_mapped() -> None:
    with smartdocumentor(row(taskStatus=36), row(taskStatus=36), states={"36": "failed"}) as client:
        task = client.get("44")
        assert (task.status, task.native_status, task.recognized) == (TaskStatus.FAILED, "36", True)
        assert task.error is not None
        assert task.error.message == "36"


def test_a_list_is_translated_with_the_mapping() -> None:
    pages = [
        Response(200, {}, json.dumps([{**ROW, "taskStatusText": "Integrated"}]).encode()),
        Response(200, {}, b"[]"),
    ]
    with smartdocumentor(*pages, states={"Integrated": "completed"}) as client:
        assert [task.id for task in client.list("completed")] == ["44"]


def test_a_delivery_is_translated_with_the_mapping() -> None:
    secret = "whsec_" + "c2VjcmV0LW9mLXRoZS10ZXN0LWZvci13ZWJob29rcw=="
    body = json.dumps(
        {
            "event": "job.archived",
            "job": {"id": "73df1e16-fd8b-47a1-a156-f197babde91a", "status": "archived", "tasks": []},
        }
    ).encode()
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    with tb.connect(
        "cloudconvert", api_key="key-1", webhook_secrets=[secret], states={"archived": "completed"}
    ) as client:
        event = client.parse_webhook({"CloudConvert-Signature": signature}, body)
    assert event.task is not None
    assert event.task.status is TaskStatus.COMPLETED


# What is said about an unknown word.


@pytest.mark.parametrize(
    ("word", "advice"),
    [
        ("IntegrationCompleted", 'looks like an end: if it is one, add "IntegrationCompleted" = "completed" to'),
        ("Review Cancelled", 'looks like an end: if it is one, add "Review Cancelled" = "failed" to'),
        ("Polishing", 'if you know what it means, add "Polishing" = "…" to'),
    ],
)
def test_a_warning_says_how_to_map_the_word(caplog: pytest.LogCaptureFixture, word: str, advice: str) -> None:
    with smartdocumentor(row(taskStatusText=word)) as client, caplog.at_level(logging.WARNING, "taskbridge"):
        assert client.get("44").status is TaskStatus.PROCESSING
    (message,) = [each.getMessage() for each in caplog.records]
    assert f"{advice} [connections.smartdocumentor.states]" in message


def test_the_advice_is_valid_toml(caplog: pytest.LogCaptureFixture) -> None:
    with smartdocumentor(row(taskStatusText='A "quoted\\ word" Completed')) as client:
        client.get("44")
    line = caplog.records[-1].getMessage().partition("add ")[2].partition(" to [")[0]
    text = f'[connections.a]\nprovider = "smartdocumentor"\n[connections.a.states]\n{line}\n'
    assert read_config(text, environ={}).connections["a"].values["states"] == {
        'A "quoted\\ word" Completed': "completed"
    }


def test_strict_reading_says_how_to_map_the_word() -> None:
    with (
        smartdocumentor(row(taskStatusText="IntegrationCompleted"), strict=True) as client,
        pytest.raises(tb.ContractError, match=r'add "IntegrationCompleted" = "completed"'),
    ):
        client.get("44")


def test_strict_reading_accepts_a_mapped_word() -> None:
    with smartdocumentor(row(taskStatusText="Integrated"), strict=True, states={"Integrated": "completed"}) as client:
        assert client.get("44").is_terminal


def test_a_wait_that_times_out_says_how_to_map_the_word(acme: Any, says: Says) -> None:
    harness = acme([says("t1", "AllFinished") for _ in range(100)])
    with pytest.raises(tb.WaitTimeout, match=r'add "AllFinished" = "completed" to \[connections.acme.states\]'):
        harness.client.wait("t1", timeout=30.0)


# Where it is set.

FILE = """
[connections.contracts]
provider = "smartdocumentor"
access_token = "token-of-the-test"

[connections.contracts.states]
Integrated = "failed"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "taskbridge.toml"
    path.write_text(FILE, encoding="utf-8")
    return path


def status_with(path: Path, **settings: Any) -> TaskStatus:
    transport = ScriptedTransport([row(taskStatusText="Integrated")])
    with tb.connect(connection="contracts", config=path, transport=transport, **settings) as client:
        return client.get("44").status


def test_it_is_read_from_the_file(file: Path) -> None:
    assert status_with(file) is TaskStatus.FAILED


def test_the_environment_overrides_the_file_whatever_the_case(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKBRIDGE_CONTRACTS__STATES__INTEGRATED", "completed")
    assert status_with(file) is TaskStatus.COMPLETED


def test_a_keyword_overrides_both(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKBRIDGE_CONTRACTS__STATES__INTEGRATED", "completed")
    assert status_with(file, states={"integrated": TaskStatus.PENDING}) is TaskStatus.PENDING


def refusal(**settings: Any) -> str:
    with pytest.raises(tb.ConfigError) as caught:
        tb.connect("smartdocumentor", **SD, **settings)
    return str(caught.value)


@pytest.mark.parametrize("value", ["complete", "", 3, ["completed"], {"a": "b"}, None])
def test_an_unknown_status_is_refused_without_repeating_it(value: Any) -> None:
    message = refusal(states={"Integrated": value})
    assert "states.Integrated" in message
    assert '"pending" or "processing" or "completed" or "failed"' in message
    assert ("did you mean 'completed'?" in message) == (value == "complete")


def test_the_message_says_where_the_value_comes_from(file: Path) -> None:
    file.write_text(FILE.replace('"failed"', '"fail"'), encoding="utf-8")
    with pytest.raises(tb.ConfigError) as caught:
        tb.connect(connection="contracts", config=file)
    assert f"states.Integrated (from {file}): did you mean 'failed'?" in str(caught.value)


@pytest.mark.parametrize(
    ("states", "problem"),
    [
        ({"To Review": "processing", "toreview": "failed"}, "are the same word"),
        ({" ": "failed"}, "printable, and not blank"),
        ({"a\x00b": "failed"}, "printable, and not blank"),
        ("completed", "states"),
    ],
)
def test_words_that_cannot_be_right_are_refused(states: Any, problem: str) -> None:
    assert problem in refusal(states=states)


# A task that is deleted after its success.


def test_a_wait_that_knows_of_the_success_ends_well_after_the_deletion() -> None:
    done, archived = row(taskStatusText="Processed"), row(taskStatusText="Deleted")
    with smartdocumentor(done, *[archived] * 4) as client:
        seen = client.get("44")
        assert client.wait(seen).status is TaskStatus.COMPLETED
        assert client.wait(seen, timeout=0).status is TaskStatus.COMPLETED
        assert client.wait_all([seen])[0].unwrap().status is TaskStatus.COMPLETED
        assert client.wait("44").reason is tb.Reason.DELETED  # by its id alone, nothing else is known


def test_a_success_before_a_restart_says_nothing_about_a_deletion_after_it() -> None:
    with smartdocumentor(row(taskStatusText="Processed"), row(taskStatusText="Deleted", restartCount=1)) as client:
        assert client.wait(client.get("44")).reason is tb.Reason.DELETED


def test_a_success_that_only_a_list_has_shown_counts() -> None:
    ids, polled = list(range(1, 61)), set[str]()

    def vendor(request: Request) -> Response:
        url = urlsplit(request.url)
        query = dict(parse_qsl(url.query))
        if url.path.endswith("/statuslistpaginated"):
            rows = [{**ROW, "taskId": each, "taskStatusText": "Processed"} for each in ids]
            start = (int(query["pageNumber"]) - 1) * 50
            return Response(200, {}, json.dumps(rows[start : start + 50]).encode())
        word = "Deleted" if query["taskId"] in polled else "PreProcessingInProgress"
        polled.add(query["taskId"])
        return row(taskId=int(query["taskId"]), taskStatusText=word)

    transport, quick = ScriptedTransport(vendor), {"interval": 0.05}
    with tb.connect("smartdocumentor", **SD, poll=quick, transport=transport) as client:
        outcomes = client.wait_all(map(str, ids), timeout=20.0)
    assert {outcome.unwrap().native_status for outcome in outcomes} == {"Processed"}
