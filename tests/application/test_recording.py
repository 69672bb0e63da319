"""Recordings: what was recorded is what is replayed, whatever the interface, and no credential is in them."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode, urlsafe_b64encode
from pathlib import Path
from typing import Any, Final

import pytest

import taskbridge as tb
from taskbridge import aio
from taskbridge._engine.locate import one_connection
from taskbridge.provider.http import Request, Response
from taskbridge.testing import (
    AsyncScriptedTransport,
    Emulator,
    RecordingTransport,
    ReplayTransport,
    ScriptedTransport,
    UnexpectedRequest,
    VirtualClock,
)
from taskbridge.testing.masks import Masks
from taskbridge.testing.recording import read_recording

VENDORS: Final = ("cloudconvert", "expertai-extract", "scan-documents", "smartdocumentor")
IMAGE: Final = b"\x89PNG\r\n\x1a\n" + bytes(40)


def story(client: tb.Client, folder: Path) -> list[object]:
    """A document's whole way."""
    given = "https://documents.test/a.pdf" if client.provider == "smartdocumentor" else IMAGE
    task = client.wait(client.submit("extract-text", given), timeout=600)
    result = client.result(task)
    files = [path.read_bytes() for path in client.download(task, folder, overwrite=True)] if result.files else []
    return [task.id, task.status, task.native_status, result.text, *files]


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_replay_is_the_recording_without_a_vendor(vendor: str, tmp_path: Path) -> None:
    clock, path = VirtualClock(), tmp_path / "of" / "today.jsonl"
    with Emulator(vendor, clock=clock) as emulator:
        settings = emulator.settings()
        with tb.connect(vendor, **settings, clock=clock, transport=RecordingTransport(path)) as client:
            told = story(client, tmp_path)
    replay = ReplayTransport(path)
    with tb.connect(vendor, **settings, clock=VirtualClock(), transport=replay) as client:
        assert story(client, tmp_path) == told
    assert replay.left == 0


def test_both_interfaces_record_and_replay(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with Emulator("scan-documents", speed=0) as emulator:
        settings, done = emulator.settings(), emulator.samples()["completed"]

        async def look(transport: Any) -> tb.Task:
            async with aio.connect("scan-documents", **settings, transport=transport) as client:
                return await client.get(done)

        told = asyncio.run(look(RecordingTransport(path)))
    assert asyncio.run(look(ReplayTransport(path))) == told
    with tb.connect("scan-documents", **settings, transport=ReplayTransport(path)) as client:
        assert client.get(done) == told


def test_errors_are_recorded_too(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with Emulator("scan-documents", speed=0) as emulator:
        settings, done = emulator.settings(), emulator.samples()["completed"]
        settings["retry"] = {"attempts": 1}
        with tb.connect("scan-documents", **settings, transport=RecordingTransport(path)) as client:
            emulator.fail_next("truncated")
            with pytest.raises(tb.TruncatedResponse):
                client.get(done)
    with (
        tb.connect("scan-documents", **settings, transport=ReplayTransport(path)) as client,
        pytest.raises(tb.TruncatedResponse),
    ):
        client.get(done)


# Strict and lenient.


@pytest.fixture
def recording(tmp_path: Path) -> tuple[Path, dict[str, Any], dict[str, str]]:
    """Two looks, at two tasks; the settings and the samples."""
    path = tmp_path / "two.jsonl"
    with Emulator("scan-documents", speed=0) as emulator:
        settings, samples = emulator.settings(), emulator.samples()
        with tb.connect("scan-documents", **settings, transport=RecordingTransport(path)) as client:
            client.get(samples["completed"])
            client.get(samples["failed"])
    return path, settings, samples


def test_a_strict_replay_says_what_was_asked_and_what_comes_next(
    recording: tuple[Path, dict[str, Any], dict[str, str]],
) -> None:
    path, settings, samples = recording
    with (
        tb.connect("scan-documents", **settings, transport=ReplayTransport(path)) as client,
        pytest.raises(UnexpectedRequest) as caught,
    ):
        client.get(samples["failed"])
    said = str(caught.value)
    assert f"no answer for request 1, GET {settings['base_url']}/tasks/{samples['failed']}:" in said
    assert f"next it has GET {settings['base_url']}/tasks/{samples['completed']} (line 2)" in said


def test_a_strict_replay_says_that_it_has_ended(recording: tuple[Path, dict[str, Any], dict[str, str]]) -> None:
    path, settings, samples = recording
    with tb.connect("scan-documents", **settings, transport=ReplayTransport(path)) as client:
        client.get(samples["completed"])
        client.get(samples["failed"])
        with pytest.raises(UnexpectedRequest, match=r"no answer for request 3, .*: it has no more"):
            client.get(samples["failed"])


def test_a_lenient_replay_takes_any_order_and_repeats_the_last(
    recording: tuple[Path, dict[str, Any], dict[str, str]],
) -> None:
    path, settings, samples = recording
    with tb.connect("scan-documents", **settings, transport=ReplayTransport(path, strict=False)) as client:
        assert client.get(samples["failed"]).status == "failed"
        assert client.get(samples["failed"]).status == "failed"
        assert client.get(samples["completed"]).status == "completed"
        with pytest.raises(UnexpectedRequest, match="it has no more"):
            client.get("task_ofnobody")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{}\n", 1),
        ("no json\n", 1),
        ('{"taskbridge-recording": 1}\n{"at": "then"}\n', 2),
        ('{"taskbridge-recording": 1}\n{"at": "2026-01-01T00:00:00Z", "method": "GET", "url": "x", "error": {}}\n', 2),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"line {line}, is not of a recording of taskbridge; record it anew"):
        ReplayTransport(path)
    with pytest.raises(FileNotFoundError):
        ReplayTransport(tmp_path / "nowhere.jsonl")


# No credential.


CANARY: Final = "canary-4f1c9a7e2b-key"


def spelt(secret: str) -> list[str]:
    return [secret, b64encode(secret.encode()).decode().rstrip("="), secret.replace("-", "%2D")]


class Echo:
    """A vendor that gives away all it knows, in every way; a maker of transports."""

    def __init__(self, answer: Response) -> None:
        self._answer = answer

    def transport(self, connection: object) -> ScriptedTransport:
        del connection
        return ScriptedTransport(lambda _: self._answer)

    def async_transport(self, connection: object) -> AsyncScriptedTransport:
        del connection
        return AsyncScriptedTransport(lambda _: self._answer)


LINK: Final = f"https://store.test/f.pdf?X-Amz-Signature={CANARY}&expires=12&name={CANARY}"
LEAKS: Final = {
    "a field": json.dumps({"id": "t", "note": f"the key was {CANARY}"}).encode(),
    "a name": json.dumps({CANARY: 1}).encode(),
    "in base64": json.dumps({"note": b64encode(CANARY.encode()).decode()}).encode(),
    "a presigned link": json.dumps({"files": [{"url": LINK}]}).encode(),
    "a link in words": f"see {LINK} for more".encode(),
    "bytes": b"\xff\xfe" + CANARY.encode() + b"\xff",
    "a secret nobody told us of": json.dumps(
        {"signing_secret": "whsec_of-nobody-here", "t": [{"token": "abc.def"}]}
    ).encode(),
}


@pytest.mark.parametrize("name", LEAKS)
def test_an_answer_that_gives_secrets_away(name: str, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    headers = {"set-cookie": CANARY, "x-api-key": CANARY, "x-ratelimit-note": CANARY, "location": LINK, "date": "now"}
    recording = RecordingTransport(path, Echo(Response(200, headers, LEAKS[name])))
    connection, _ = one_connection("scan-documents", None, None, {"api_key": CANARY}, VirtualClock())
    asked = Request("GET", f"https://api.test/{CANARY}", headers={"Authorization": f"Bearer {CANARY}"})
    recording.transport(connection).send(asked, deadline=0.0, max_body=0)
    text = path.read_text()
    for form in [*spelt(CANARY), *spelt("whsec_of-nobody-here"), "abc.def", "set-cookie", "x-api-key"]:
        assert form not in text
    assert b64encode(CANARY.encode()) not in b"".join(e.answer.body for e in read_recording(path) if e.answer)
    assert CANARY.encode() not in b"".join(e.answer.body for e in read_recording(path) if e.answer)


@pytest.mark.parametrize("vendor", VENDORS)
def test_no_credential_of_a_whole_story_is_written(vendor: str, tmp_path: Path) -> None:
    """The settings, the tokens that came, and the capabilities of links and forms."""
    clock, path = VirtualClock(), tmp_path / "r.jsonl"
    seen: set[str] = set()

    class Eavesdropper(RecordingTransport):
        def transport(self, connection: Any) -> Any:
            inner = super().transport(connection)

            class Line:
                def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
                    for value in request.headers.values():
                        seen.update(part for part in value.split() if len(part) >= 16 and "/" not in part)
                    seen.update(part.partition("=")[2] for part in request.url.partition("?")[2].split("&"))
                    return inner.send(request, deadline=deadline, max_body=max_body)

                def close(self) -> None:
                    inner.close()

            return Line()

    with Emulator(vendor, clock=clock) as emulator:
        settings = emulator.settings()
        seen |= {value for key, value in settings.items() if not key.endswith("_url")}
        with tb.connect(vendor, **settings, clock=clock, transport=Eavesdropper(path)) as client:
            story(client, tmp_path)
    text = path.read_text()
    secrets = {each for each in seen if len(each) >= 8}
    assert secrets
    assert [each for each in secrets if each in text] == []


def test_a_login_is_masked_and_keeps_its_end() -> None:
    masks = Masks()
    claims = urlsafe_b64encode(json.dumps({"exp": 1642493226, "mail": "a@b.test"}).encode()).decode().rstrip("=")
    token = f"e30.{claims}.signature-of-nobody"
    masked = (masks.document(token.encode(), login=True) or b"").decode()
    assert masked.split(".")[1] != claims
    assert masked.startswith("masked.")
    assert masks.text(f"your token is {token}") == "your token is masked"
    said = {"access_token": "short", "scope": "document", "id": "a-long-text-of-a-login"}
    answer = json.loads(masks.document(json.dumps(said).encode(), login=True) or b"")
    assert answer == {"access_token": "masked", "scope": "document", "id": "masked"}


def test_what_is_no_secret_stays_as_the_vendor_wrote_it() -> None:
    masks = Masks({"k" * 20}, {"api.test"})
    body = b'{"a" : 1e400,\n "url": "https://api.test/tasks?page=2", "words": "\\u00e9"}'
    assert masks.document(body) == body
    assert masks.url("https://api.test/tasks?page=2&tag=a") == "https://api.test/tasks?page=2&tag=a"
    assert masks.url("https://user:pw@api.test/x?sig=1&page=2") == "https://api.test/x?sig=masked&page=masked"
