"""Recordings: a replay equals the recording, sync and async, and a recording contains no credential."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

import taskbridge as tb
from taskbridge import aio
from taskbridge._engine.connection import Connection, open_connection
from taskbridge.provider.http import Request, Response
from taskbridge.testing import (
    AsyncScriptedTransport,
    Emulator,
    RecordingTransport,
    ReplayTransport,
    ScriptedTransport,
    UnexpectedRequest,
    UnsafeRecording,
    VirtualClock,
)
from taskbridge.testing.recording import read_recording
from taskbridge.testing.redaction import Redactor

VENDORS: Final = ("cloudconvert", "expertai-extract", "scan-documents", "smartdocumentor")
IMAGE: Final = b"\x89PNG\r\n\x1a\n" + bytes(40)
PDF: Final = b"%PDF-1.7\n"


def process_document(client: tb.Client, folder: Path) -> list[object]:
    """Submit a document, wait for it and download the results."""
    documents: dict[str, str | bytes] = {"smartdocumentor": "https://documents.test/a.pdf", "expertai-extract": PDF}
    document = documents.get(client.provider, IMAGE)
    task = client.wait(client.submit("extract-text", document), timeout=600)
    result = client.result(task)
    files = [path.read_bytes() for path in client.download(task, folder, overwrite=True)] if result.files else []
    return [task.id, task.status, task.native_status, result.text, *files]


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_replay_repeats_the_recording_without_a_vendor(vendor: str, tmp_path: Path) -> None:
    clock, path = VirtualClock(), tmp_path / "of" / "today.jsonl"
    with Emulator(vendor, clock=clock) as emulator:
        settings = emulator.settings()
        with tb.connect(vendor, **settings, clock=clock, transport=RecordingTransport(path)) as client:
            recorded = process_document(client, tmp_path)
    replay = ReplayTransport(path)
    with tb.connect(vendor, **settings, clock=VirtualClock(), transport=replay) as client:
        assert process_document(client, tmp_path) == recorded
    assert replay.remaining == 0


def test_sync_and_async_clients_record_and_replay(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with Emulator("scan-documents", speed=0) as emulator:
        settings, done = emulator.settings(), emulator.samples()["completed"]

        async def get(transport: Any) -> tb.Task:
            async with aio.connect("scan-documents", **settings, transport=transport) as client:
                return await client.get(done)

        recorded = asyncio.run(get(RecordingTransport(path)))
    assert asyncio.run(get(ReplayTransport(path))) == recorded
    with tb.connect("scan-documents", **settings, transport=ReplayTransport(path)) as client:
        assert client.get(done) == recorded


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
    """A recording of two tasks, the settings and the samples."""
    path = tmp_path / "two.jsonl"
    with Emulator("scan-documents", speed=0) as emulator:
        settings, samples = emulator.settings(), emulator.samples()
        with tb.connect("scan-documents", **settings, transport=RecordingTransport(path)) as client:
            client.get(samples["completed"])
            client.get(samples["failed"])
    return path, settings, samples


def test_a_strict_replay_names_the_unexpected_and_the_next_request(
    recording: tuple[Path, dict[str, Any], dict[str, str]],
) -> None:
    path, settings, samples = recording
    with (
        tb.connect("scan-documents", **settings, transport=ReplayTransport(path)) as client,
        pytest.raises(UnexpectedRequest) as caught,
    ):
        client.get(samples["failed"])
    message = str(caught.value)
    assert f"no response for request 1, GET {settings['base_url']}/tasks/{samples['failed']}:" in message
    assert f"next it has GET {settings['base_url']}/tasks/{samples['completed']} (line 2)" in message


def test_a_strict_replay_reports_its_end(recording: tuple[Path, dict[str, Any], dict[str, str]]) -> None:
    path, settings, samples = recording
    with tb.connect("scan-documents", **settings, transport=ReplayTransport(path)) as client:
        client.get(samples["completed"])
        client.get(samples["failed"])
        with pytest.raises(UnexpectedRequest, match=r"no response for request 3, .*: it has no more"):
            client.get(samples["failed"])


def test_a_lenient_replay_allows_any_order_and_repeats_the_last(
    recording: tuple[Path, dict[str, Any], dict[str, str]],
) -> None:
    path, settings, samples = recording
    with tb.connect("scan-documents", **settings, transport=ReplayTransport(path, strict=False)) as client:
        assert client.get(samples["failed"]).status == "failed"
        assert client.get(samples["failed"]).status == "failed"
        assert client.get(samples["completed"]).status == "completed"
        with pytest.raises(UnexpectedRequest, match="it has no more"):
            client.get("task_unknown")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{}\n", 1),
        ("no json\n", 1),
        ('{"taskbridge-recording": 1}\n{"at": "then"}\n', 2),
        ('{"taskbridge-recording": 1}\n{"at": "2026-01-01T00:00:00Z", "method": "GET", "url": "x", "error": {}}\n', 2),
    ],
)
def test_a_file_that_is_not_a_recording_is_rejected(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"line {line}, is not part of a taskbridge recording; record it again"):
        ReplayTransport(path)
    with pytest.raises(FileNotFoundError):
        ReplayTransport(tmp_path / "nowhere.jsonl")


# No credentials.


CANARY: Final = "canary-4f1c9a7e2b-key"


def spellings(secret: str) -> list[str]:
    return [secret, b64encode(secret.encode()).decode().rstrip("="), secret.replace("-", "%2D")]


class Echo:
    """Makes transports that answer each request with the same response."""

    def __init__(self, response: Response) -> None:
        self._response = response

    def transport(self, connection: object) -> ScriptedTransport:
        del connection
        return ScriptedTransport(lambda _: self._response)

    def async_transport(self, connection: object) -> AsyncScriptedTransport:
        del connection
        return AsyncScriptedTransport(lambda _: self._response)


LINK: Final = f"https://store.test/f.pdf?X-Amz-Signature={CANARY}&expires=12&name={CANARY}"
LEAKS: Final = {
    "a field": json.dumps({"id": "t", "note": f"the key was {CANARY}"}).encode(),
    "a name": json.dumps({CANARY: 1}).encode(),
    "in base64": json.dumps({"note": b64encode(CANARY.encode()).decode()}).encode(),
    "a presigned link": json.dumps({"files": [{"url": LINK}]}).encode(),
    "a link in words": f"see {LINK} for more".encode(),
    "bytes": b"\xff\xfe" + CANARY.encode() + b"\xff",
    "an unknown secret": json.dumps({"signing_secret": "whsec_unknown-secret", "t": [{"token": "abc.def"}]}).encode(),
}


@pytest.mark.parametrize("name", LEAKS)
def test_secrets_in_a_response_are_redacted(name: str, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    headers = {"set-cookie": CANARY, "x-api-key": CANARY, "x-ratelimit-note": CANARY, "location": LINK, "date": "now"}
    recording = RecordingTransport(path, Echo(Response(200, headers, LEAKS[name])))
    connection, _ = open_connection("scan-documents", None, None, {"api_key": CANARY}, VirtualClock())
    assert isinstance(connection, Connection)
    request = Request("GET", f"https://api.test/{CANARY}", headers={"Authorization": f"Bearer {CANARY}"})
    recording.transport(connection).send(request, deadline=0.0, max_body=0)
    text = path.read_text()
    for form in [*spellings(CANARY), *spellings("whsec_unknown-secret"), "abc.def", "set-cookie", "x-api-key"]:
        assert form not in text
    outcomes = [exchange.outcome for exchange in read_recording(path)]
    bodies = b"".join(outcome.body for outcome in outcomes if isinstance(outcome, Response))
    assert b64encode(CANARY.encode()) not in bodies
    assert CANARY.encode() not in bodies


def record_one(
    path: Path, response: Response, *, sent: object = None, key: str = CANARY, **options: Any
) -> dict[str, Any]:
    """Record a submission and its response; return the line as it is in the file."""
    recording = RecordingTransport(path, Echo(response), **options)
    connection, _ = open_connection("scan-documents", None, None, {"api_key": key}, VirtualClock())
    assert isinstance(connection, Connection)
    body = None if sent is None else json.dumps(sent).encode()
    request = Request("POST", "https://api.test/x", headers={"x-api-key": key}, body=body)
    recording.transport(connection).send(request, deadline=0.0, max_body=0)
    line: dict[str, Any] = json.loads(path.read_text().splitlines()[-1])
    return {**line, "masked": recording.masked}


PRIVATE: Final = (
    "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASCBKcwggSjAgEA\n-----END PRIVATE KEY-----\n"
)
OTHERS: Final[dict[str, tuple[str, Callable[[str], Any]]]] = {  # a secret that is not ours, and a value around it
    "private_key": ("hunter2-hunter2", lambda x: {"private_key": x}),
    "privateKey": ("hunter2-hunter2", lambda x: {"privateKey": x}),
    "passphrase": ("hunter2", lambda x: {"tasks": [{"pass_phrase": x, "passphrase": x}]}),
    "a number": ("48151623", lambda x: {"password": int(x)}),
    "connection_string": ("AccountKey-4815", lambda x: {"connection_string": f"Endpoint=https://a.test;Key={x}"}),
    "headers": ("hunter2", lambda x: {"import": {"headers": {"X-Custom": x, "More": [x, {"deep": x}]}}}),
    "below a telling name": ("hunter2", lambda x: {"credentials": {"user": x, "list": [x]}}),
    "JSON in a text": ("hunter2", lambda x: {"log": json.dumps({"request": json.dumps({"password": x})})}),
    "JSON in prose": ("hunter2-4815", lambda x: {"log": f'called with {{"api_key": "{x}"}}'}),
    "an assignment": ("hunter2-4815", lambda x: {"log": f"AccountName=a;AccountKey={x};client_secret={x}&b=1"}),
    "a user in a URL": ("hunter2", lambda x: {"log": f"postgres://me:{x}@db.test/a and amqp://{x}@q.test"}),
    "bearer": ("hunter2-4815", lambda x: {"log": f"sent Authorization: Bearer {x}, got 401"}),
    "basic": (b64encode(b"me:hunter2").decode(), lambda x: {"log": f"sent Basic {x}"}),
    "a token in a path": ("T0123456789abcdefXYZ", lambda x: {"webhook_url": f"https://hooks.test/services/{x}"}),
    "a JSON Web Token": (f"eyJhbGciOiJI.{b64encode(b'claims-of-us').decode()}.c2ln", lambda x: {"log": f"token <{x}>"}),
    "a known prefix": ("sk_live_0123456789abcdef", lambda x: {"log": f"key {x} is revoked"}),
    "a PEM": ("MIIEvQIBADANBgkqhkiG9w0B", lambda x: {"log": PRIVATE.replace("MIIEvQIBADANBgkqhkiG9w0B", x)}),
}


@pytest.mark.parametrize("place", ["sent", "body"])
@pytest.mark.parametrize("name", OTHERS)
def test_what_looks_like_a_secret_is_redacted_and_listed(name: str, place: str, tmp_path: Path) -> None:
    secret, document = OTHERS[name][0], OTHERS[name][1](OTHERS[name][0])
    body = b"{}" if place == "sent" else json.dumps(document).encode()
    line = record_one(tmp_path / "r.jsonl", Response(200, {}, body), sent=document if place == "sent" else None)
    assert secret not in json.dumps(line)
    assert "redacted" in line[place]
    assert {each.partition(".")[0] for each in line["masked"]} == {place}


def test_a_shape_can_be_allowed_but_a_known_secret_cannot(tmp_path: Path) -> None:
    document = {"headers": {"X-Page": "7", "X-Key": CANARY}, "passphrase": "hunter2"}
    response = Response(200, {}, json.dumps(document).encode())
    line = record_one(tmp_path / "r.jsonl", response, allow=["body.headers.*"])
    assert json.loads(line["body"]) == {"headers": {"X-Page": "7", "X-Key": "redacted"}, "passphrase": "redacted"}
    assert line["masked"] == {"body.passphrase": "name"}


def in_base64(offset: int, encode: Callable[[bytes], bytes], key: str) -> str:
    return encode(b"x" * offset + key.encode() + b"yz").decode()


CODINGS: Final[dict[str, Callable[[str], str]]] = {
    "as it is": lambda key: key,
    "in capitals": str.upper,
    "in hex": lambda key: key.encode().hex(),
    "in HEX": lambda key: key.encode().hex().upper(),
    "in percents": lambda key: "".join(f"%{ord(c):02x}" for c in key),
    "in escapes": lambda key: "".join(f"\\u{ord(c):04X}" for c in key),
    **{f"in base64 at {n}": partial(in_base64, n, b64encode) for n in range(3)},
    **{f"in base64 of URLs at {n}": partial(in_base64, n, urlsafe_b64encode) for n in range(3)},
}


@pytest.mark.parametrize("key", [CANARY, "canary/4f?1c>9a~7e2b+key\\"])
@pytest.mark.parametrize("coding", CODINGS)
def test_our_own_key_is_redacted_in_any_coding(coding: str, key: str, tmp_path: Path) -> None:
    coded = CODINGS[coding](key)
    bodies = [
        json.dumps({"note": f"<{coded}>", coded: 1}).encode(),
        f'{{"note": "{coded}", "note": 1}}'.encode(),
        f"<{coded}>".encode(),
        b"\xff" + coded.encode() + b"\xff",
    ]
    for number, body in enumerate(bodies):
        path = tmp_path / f"{number}.jsonl"
        line = record_one(path, Response(200, {"x-request-id": coded}, body), key=key)
        [exchange] = read_recording(path)
        assert isinstance(exchange.outcome, Response)
        assert len(exchange.outcome.body) < len(body)
        for text in (exchange.outcome.body.decode("latin-1"), line["headers"]["x-request-id"], json.dumps(line)):
            core = coded[4:-5] if "base64" in coding else coded  # the characters at the ends depend on neighbors
            assert core not in text
            assert json.dumps(core)[1:-1] not in text


def test_a_line_that_would_contain_a_key_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with pytest.raises(UnsafeRecording, match="would still contain a credential"):
        record_one(path, Response(200, {}, b"{}"), key="headers")  # a word of the format itself
    assert not path.exists()


def test_ordinary_texts_are_recorded_unchanged(tmp_path: Path) -> None:
    document = {
        "text": "Basic instructions: the author must bear it, see https://docs.test/a/b.pdf (2026-01-01)",
        "author": None,
        "pages": 3,
        "tokens": 12,
        "file": "https://files.test/screenshot-2026-01-01-030405.png",
    }
    body = json.dumps(document).encode()
    line = record_one(tmp_path / "r.jsonl", Response(200, {}, body))
    assert line["body"].encode() == body
    assert line["masked"] == {}


def test_lone_surrogates_are_recorded(tmp_path: Path) -> None:
    body = json.dumps({"note": "a\ud800", "token": "some-token", "log": json.dumps({"b\ud800": CANARY})}).encode()
    line = record_one(tmp_path / "r.jsonl", Response(200, {}, body))
    [exchange] = read_recording(tmp_path / "r.jsonl")
    assert isinstance(exchange.outcome, Response)
    assert exchange.outcome.json()["note"] == "a\ud800"
    assert CANARY not in line["body"]


@pytest.mark.parametrize("vendor", VENDORS)
def test_no_credential_of_a_real_session_is_recorded(vendor: str, tmp_path: Path) -> None:
    """Neither settings, nor received tokens, nor the queries of presigned links and forms."""
    clock, path = VirtualClock(), tmp_path / "r.jsonl"
    seen: set[str] = set()

    class Watching(RecordingTransport):
        def transport(self, connection: Any) -> Any:
            inner = super().transport(connection)

            class Transport:
                def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
                    for value in request.headers.values():
                        seen.update(part for part in value.split() if len(part) >= 16 and "/" not in part)
                    seen.update(part.partition("=")[2] for part in request.url.partition("?")[2].split("&"))
                    return inner.send(request, deadline=deadline, max_body=max_body)

                def close(self) -> None:
                    inner.close()

            return Transport()

    with Emulator(vendor, clock=clock) as emulator:
        settings = emulator.settings()
        seen |= {value for key, value in settings.items() if not key.endswith("_url")}
        with tb.connect(vendor, **settings, clock=clock, transport=Watching(path)) as client:
            process_document(client, tmp_path)
    text = path.read_text()
    secrets = {each for each in seen if len(each) >= 8}
    assert secrets
    assert [each for each in secrets if each in text] == []


def test_a_login_is_redacted_and_keeps_its_expiry() -> None:
    redactor = Redactor()
    claims = urlsafe_b64encode(json.dumps({"exp": 1642493226, "mail": "a@b.test"}).encode()).decode().rstrip("=")
    token = f"e30.{claims}.some-signature"
    redacted = (redactor.document(token.encode(), login=True) or b"").decode()
    assert redacted.split(".")[1] != claims
    assert redacted.startswith("redacted.")
    assert redactor.text(f"your token is {token}") == "your token is redacted"
    body = {"access_token": "short", "scope": "document", "id": "a-long-text-of-a-login"}
    redacted_body = json.loads(redactor.document(json.dumps(body).encode(), login=True) or b"")
    assert redacted_body == {"access_token": "redacted", "scope": "document", "id": "redacted"}


def test_a_body_without_secrets_is_recorded_unchanged() -> None:
    redactor = Redactor({"k" * 20}, {"api.test"})
    body = b'{"a" : 1e400,\n "url": "https://api.test/tasks?page=2", "words": "\\u00e9"}'
    assert redactor.document(body) == body
    assert redactor.url("https://api.test/tasks?page=2&tag=a") == "https://api.test/tasks?page=2&tag=a"
    assert redactor.url("https://user:pw@api.test/x?sig=1&page=2") == "https://api.test/x?sig=redacted&page=redacted"
