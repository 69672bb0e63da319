"""Fuzz targets: functions of bytes that return, or raise because a promise is broken.

Each reads untrusted input: a vendor's response, a webhook delivery, a file. The promise is always the same: the result
has the listed properties, or the one documented error is raised. Seeds are the vendors' own examples (`tests/golden`)
and oddities of the fault catalogue.
"""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, TypeAlias, cast
from urllib.parse import urlsplit

from urllib3.util import parse_url

import taskbridge as tb
from taskbridge._config.connections import connection_settings
from taskbridge._config.files import read_config
from taskbridge._config.registry import load_provider
from taskbridge._transport.responses import check_headers, complete_response, header_fields
from taskbridge.errors import (
    ApiError,
    ConfigError,
    ContractError,
    InvalidTaskId,
    MalformedResponse,
    ResponseTooLarge,
    TruncatedResponse,
)
from taskbridge.models import Task, TaskRef, TaskStatus
from taskbridge.provider.addresses import FetchPolicy, url_problem
from taskbridge.provider.base import Provider
from taskbridge.provider.capabilities import Credential
from taskbridge.provider.http import Flow, Request, Response
from taskbridge.provider.json import read_json
from taskbridge.provider.payload import StateTable, read_state, read_time
from taskbridge.provider.policy import parse_retry_after
from taskbridge.provider.submission import Page, Query

Target: TypeAlias = Callable[[bytes], None]

NOW: Final = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
logging.getLogger("taskbridge").addHandler(logging.NullHandler())
GOLDEN: Final = Path(__file__).resolve().parents[1] / "golden"
SECRET: Final = "b7Qd0c9yT2wX4mLr"
SIGNING: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
WORDS: Final[StateTable] = {"done": (TaskStatus.COMPLETED, None), "*Failed": (TaskStatus.FAILED, None)}
SETTINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "cloudconvert": {"api_key": "cc-fuzz-key-1"},
    "scan-documents": {"api_key": "sd-fuzz-key-1"},
    "smartdocumentor": {"client_id": "me", "client_secret": "sm-fuzz-key-1"},
    "expertai-extract": {"username": "me", "password": "ex-fuzz-key-1"},
}
NAMES: Final = tuple(SETTINGS)
PROVIDERS: Final[Mapping[str, Provider[Any]]] = {
    name: (found := load_provider(name))(found.Settings.model_validate(SETTINGS[name]), name) for name in NAMES
}
CLIENTS: Final = {
    name: tb.connect(name, **settings, webhook_secrets=[SIGNING, SECRET])
    for name, settings in SETTINGS.items()
    if PROVIDERS[name].capabilities.webhooks is not None
}

# Operations; the first byte chooses one.
OPERATIONS: Final[tuple[tuple[str, Callable[[Provider[Any]], Flow[Any]]], ...]] = (
    ("cloudconvert", lambda provider: provider.get("x441E6HMhG")),
    ("cloudconvert", lambda provider: provider.get("job/x441E6HMhG")),
    ("cloudconvert", lambda provider: provider.list_page(Query(), None)),
    ("scan-documents", lambda provider: provider.get("task_1")),
    ("scan-documents", lambda provider: provider.list_page(Query(), None)),
    ("smartdocumentor", lambda provider: provider.get("44")),
    ("smartdocumentor", lambda provider: provider.get("external/INV-7")),
    ("smartdocumentor", lambda provider: provider.list_page(Query(), None)),
    ("smartdocumentor", lambda provider: provider.authorize()),
    ("expertai-extract", lambda provider: provider.get("a")),
    ("expertai-extract", lambda provider: provider.authorize()),
)
STATUSES: Final = (200, 200, 200, 200, 201, 202, 204, 301, 400, 401, 402, 403, 404, 409, 422, 429, 500, 503)


# Responses.


def fuzz_response(data: bytes) -> None:
    """Any body and status become a task, a page, a credential or the documented error."""
    if len(data) < 2:
        return
    name, operation = OPERATIONS[data[0] % len(OPERATIONS)]
    status = STATUSES[data[1] % len(STATUSES)]
    try:
        found = _run(operation(PROVIDERS[name]), Response(status, {}, data[2:], NOW))
    except ContractError:
        return
    except ApiError:
        assert not 200 <= status < 300, "an error from a successful response"
        return
    for task in _tasks(found):
        _check(task)


def _run(flow: Flow[Any], response: Response) -> Any:
    request: Request = next(flow)
    assert request.url.startswith("https://")
    try:
        flow.send(response)
    except StopIteration as end:
        return end.value
    flow.close()
    return None


def _tasks(found: Any) -> Iterator[Task]:
    if isinstance(found, Task):
        yield found
    elif isinstance(found, Page):
        yield from found.tasks
    else:
        assert found is None or isinstance(found, Credential)


def _check(task: Task) -> None:
    assert isinstance(task.status, TaskStatus)
    assert TaskRef(str(task.ref)).id == task.id
    assert (task.error is not None) == (task.status is TaskStatus.FAILED)
    assert task.result is None or task.status is TaskStatus.COMPLETED
    assert task.progress is None or 0.0 <= task.progress <= 1.0
    assert hash(task) == hash(task.ref)
    (repr(task.ref) + task.describe()).encode()
    moments = (task.created_at, task.started_at, task.updated_at, task.finished_at)
    assert all(each is None or each.utcoffset() is not None for each in moments)
    for each in task.subtasks:
        _check(each)


# JSON and headers.


def fuzz_json(data: bytes) -> None:
    """Any bytes are a document that survives a round trip, or `MalformedResponse`."""
    try:
        document = read_json(data)
    except MalformedResponse as error:
        str(error).encode("utf-8", "backslashreplace")
        return
    again = json.dumps(document, allow_nan=False, ensure_ascii=True)
    assert read_json(again.encode()) == document


def fuzz_head(data: bytes) -> None:
    """Any header and compressed body are a bounded response or the documented error."""
    head, _, body = data.partition(b"\n\n")
    pairs = [cast("tuple[str, str]", tuple(line.partition(":")[::2])) for line in head.decode("latin-1").split("\n")]
    fields = header_fields(pairs)
    request = Request("GET", "https://vendor.test/")
    try:
        check_headers(request, 200, fields, len(pairs), 4096)
        response = complete_response(request, 200, fields, body, 4096)
    except (MalformedResponse, ResponseTooLarge, TruncatedResponse):
        return
    assert len(response.body) <= 4096


# Texts.


def fuzz_text(data: bytes) -> None:
    """Refs, status words, times, pauses and URLs: a value, or the documented error."""
    try:
        text = data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        text = data.decode("utf-8", "replace")
    _ref(text)
    for provider in PROVIDERS.values():
        try:
            provider.split_id(text)
        except InvalidTaskId as error:
            str(error).encode()
    moment = read_time(text)
    assert moment is None or moment.utcoffset() is not None
    state = read_state(WORDS, text)
    assert isinstance(state.status, TaskStatus)
    first, _, second = text.partition("\n")
    pause = parse_retry_after({"retry-after": first, "date": second}, NOW)
    assert pause is None or 0.0 <= pause < float("inf")
    _address(text)


def _ref(text: str) -> None:
    try:
        ref = TaskRef(text)
    except InvalidTaskId:
        return
    assert TaskRef.of(ref.connection, ref.id) == ref == text
    ref.encode()


def _address(text: str) -> None:
    if url_problem(text, FetchPolicy()) is not None:
        return
    host = urlsplit(text).hostname or ""
    other = (parse_url(text).host or "").strip("[]")
    assert host.lower() == other.lower(), f"two parsers see different hosts: {host!r}, {other!r}"
    try:
        address = ip_address(host)
    except ValueError:
        return
    assert address.is_global


def fuzz_config(data: bytes) -> None:
    """Any text is a configuration or `ConfigError`, and its connections are settings or `ConfigError`."""
    environ = {"KEY": SECRET, "TASKBRIDGE_A__API_KEY": SECRET}
    try:
        config = read_config(data.decode("utf-8", "replace"), environ=environ)
        for connection in config.connections.values():
            provider = load_provider(connection.provider) if connection.provider in NAMES else load_provider(NAMES[0])
            connection_settings(connection, provider)
    except ConfigError as error:
        assert SECRET not in f"{error} {error.args} {error.raw}", "the message shows a value"
        str(error).encode()


# Webhooks.


def fuzz_webhook(data: bytes) -> None:
    """Any delivery is an event or `WebhookRejected`; an unsigned one is never an event.

    The first byte chooses the connection and whether the body is signed; header lines follow up to a blank one.
    """
    if not data:
        return
    name = tuple(CLIENTS)[data[0] % len(CLIENTS)]
    is_signed = bool(data[0] & 0x80)
    head, _, body = data[1:].partition(b"\n\n")
    headers: Any = [line.partition(b":")[::2] for line in head.split(b"\n")]
    url: str | None = None
    if is_signed and name == "cloudconvert":
        headers = [("CloudConvert-Signature", hmac.new(SECRET.encode(), body, sha256).hexdigest())]
    elif is_signed:
        url = f"/hooks/{SECRET}"
    try:
        event = CLIENTS[name].parse_webhook(headers, body, url=url, now=NOW)
    except tb.WebhookRejected as error:
        assert error.answer in {400, 401, 413, 415}, error
        assert SECRET not in str(error)
        return
    assert is_signed, "an unsigned delivery was accepted"
    assert event.duplicate_key
    assert event.ref is None or event.ref.connection == name
    assert event.task is None or isinstance(event.task.status, TaskStatus)


TARGETS: Final[Mapping[str, Target]] = {
    "response": fuzz_response,
    "json": fuzz_json,
    "head": fuzz_head,
    "text": fuzz_text,
    "config": fuzz_config,
    "webhook": fuzz_webhook,
}
"""By name."""


def fuzz_all(data: bytes) -> None:
    """Run one of the targets; the first byte chooses."""
    if data:
        tuple(TARGETS.values())[data[0] % len(TARGETS)](data[1:])


# Seeds.


def _examples() -> Iterator[tuple[str, bytes]]:
    for path in sorted(GOLDEN.glob("*/*.json")):
        said = json.loads(path.read_text(encoding="utf-8"))["response"]["body"]
        if said is not None:
            yield path.parent.name, said.encode() if isinstance(said, str) else json.dumps(said).encode()


def _response_seeds() -> Iterator[bytes]:
    for name, body in _examples():
        for number, (whose, _) in enumerate(OPERATIONS):
            if whose == name:
                yield bytes([number, 0]) + body
        yield bytes([next(n for n, (whose, _) in enumerate(OPERATIONS) if whose == name), 8]) + body


_EVENTS: Final = tuple(
    json.dumps(said).encode()
    for said in (
        {
            "id": "event_1", "type": "task.completed", "timestamp": "2026-11-22T12:00:00Z",
            "data": {"id": "task_1", "status": "completed", "result": {"generated_files": [{"id": "file_1"}]}},
        },
        {
            "event": "job.finished",
            "job": {
                "id": "73df1e16-fd8b-47a1-a156-f197babde91a", "status": "finished", "tag": "t",
                "tasks": [
                    {
                        "id": "c85f3ca9-164c-4e89-8ae2-c08192a7cb08", "operation": "export/url", "status": "finished",
                        "result": {"files": [{"filename": "a.pdf", "url": "https://storage.test/a.pdf"}]},
                    }
                ],
            },
        },
        {"taskId": 44, "externalId": "INV-7", "taskStatus": 34, "taskStatusText": "Processed", "restartCount": 1},
    )
)  # fmt: skip
_TEXTS: Final = (
    "cloudconvert:job/73df1e16", "a:b", "external/INV-7", "44", "..", "%2e%2e", "a/../b", "a\r\nX: y", "\ud800", "a\0b",
    "2026-11-22T12:00:00Z", "2026-11-22T12:00:00.1234567", "2026-12-31T23:59:60Z", "1790000000", "PreProcessingFailed",
    "120", " 120 ", "-5", "1e9", "9" * 400, "Sun, 22 Nov 2026 12:02:00 GMT\nSun, 22 Nov 2026 12:00:00 GMT",
    "Sunday, 22-Nov-26 12:02:00 GMT", "Sun Nov 22 12:02:00 2026", "https://good.test/a", "https://good@evil/",
    "https://good\\@evil/", "https://127.1/", "https://0x7f000001/", "https://[::ffff:127.0.0.1]/", "https://2130706433",
    "https://[64:ff9b::7f00:1]/", "https://a.test:99999/", "https://[", "https://a.test\t/", "https://a..test./",
)  # fmt: skip
_CONFIGS: Final = (
    b'default = "a"\n[connections.a]\nprovider = "cloudconvert"\napi_key = "${KEY}"\n[connections.a.poll]\nlatency=2',
    b'[connections.a]\nprovider = "smartdocumentor"\nclient_id = "x"\nclient_secret = "${KEY}"\nretry = {attempts = 3}',
    b'[connections.a]\nprovider = "expertai-extract"\nusername = "x"\npassword = "y"\nwebhook_secrets = ["z", "zz"]',
    b'[connections.a]\nprovider = "scan-documents"\napi_kye = "x"\nmax_body = nan\nbase_url = "http://a@b/?c"',
    b"a = " + b"[" * 300,
    b'[connections."A b"]\nprovider = 1',
)
_DOCUMENTS: Final = (
    b'{"a": [1, 2.5, -1e400, true, null, "\\ud800", "\\u0000"]}', b'{"a":1,"a":2}', b"[" * 65, b"\xef\xbb\xbf{}",
    b"NaN",
    b"9" * 4400, b"<html><title>t</title>", b"[1,]", b'"\xff"', b"[1e5, 1E+999]", b'{"a":"\\u0061\\\\\\""}',
)  # fmt: skip
_HEADS: Final = (
    b"content-length: 5\n\nhello",
    b"content-encoding: gzip\n\n\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x03\x00\x00\x00\x00",
    b"transfer-encoding: chunked\ncontent-length: 1\n\nx", b"content-length: 5\ncontent-length: 6\n\n",
    b"content-encoding: br\n\nx",
)  # fmt: skip

SEEDS: Final[Mapping[str, tuple[bytes, ...]]] = {
    "response": tuple(_response_seeds()),
    "json": (*_DOCUMENTS, *(body for _, body in _examples())),
    "head": _HEADS,
    "text": tuple(text.encode("utf-8", "surrogatepass") for text in _TEXTS),
    "config": _CONFIGS,
    "webhook": tuple(bytes([flag | n]) + b"\n\n" + body for flag in (0, 0x80) for n in range(3) for body in _EVENTS),
}
"""By target."""
