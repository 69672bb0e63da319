"""Refused deliveries, in which order and with which HTTP status; and the forms in which frameworks pass deliveries."""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.message import Message
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import pytest

import taskbridge as tb
from taskbridge._engine.webhooks import Headers
from taskbridge.testing import Emulator

NOW: Final = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
BOMB: Final = b"[" * 100_000  # a parser must never see it unverified

Sign = Callable[..., dict[str, str]]


def of_a_job(**job: Any) -> bytes:
    whole: dict[str, Any] = {"id": "73df1e16-fd8b-47a1-a156-f197babde91a", "status": "finished", "tasks": [], **job}
    return json.dumps({"event": "job.finished", "job": whole}).encode()


def hexed(body: bytes, secret: str = "signing-secret") -> dict[str, str]:
    return {"CloudConvert-Signature": hmac.new(secret.encode(), body, sha256).hexdigest()}


# Refused before the body is parsed.


def test_a_missing_secret_is_an_error() -> None:
    with tb.connect("cloudconvert", api_key="cc-test-key") as client:
        with pytest.raises(tb.ConfigError, match="no webhook_secrets"):
            client.parse_webhook(hexed(b"{}"), b"{}")
        assert not client._connection.expects_webhook


@pytest.mark.parametrize(
    ("headers", "body", "answer"),
    [
        ({}, of_a_job(), 401),
        (hexed(b"other"), of_a_job(), 401),
        (hexed(of_a_job(), "guess"), of_a_job(), 401),
        (hexed(b""), b"", 400),
        (hexed(b"{"), b"{", 400),
        (hexed(b"\xff"), b"\xff", 400),
        (hexed(BOMB), BOMB, 400),
        (hexed(b"[]"), b"[]", 400),
        (hexed(b"{}"), b"{}", 400),
        (hexed(b'{"event":1,"job":{}}'), b'{"event":1,"job":{}}', 400),
        (hexed(of_a_job(id="")), of_a_job(id=""), 400),
        (hexed(of_a_job(id="../x")), of_a_job(id="../x"), 400),
        (hexed(of_a_job(id=7)), of_a_job(id=7), 400),
        (hexed(b'{"event":"a","event":"b"}'), b'{"event":"a","event":"b"}', 400),
        (hexed(b" " * (1 << 20)), b" " * (1 << 20), 400),
        (hexed(b" " * (1 << 20) + b" "), b" " * (1 << 20) + b" ", 413),
        ({**hexed(of_a_job()), "Content-Encoding": "gzip"}, of_a_job(), 415),
        ({**hexed(of_a_job()), "content-encoding": "identity, br"}, of_a_job(), 415),
        ([*hexed(of_a_job()).items(), *hexed(of_a_job()).items()], of_a_job(), 401),
        ([("CloudConvert-Signature", "x"), ("cloudconvert-signature", "y")], of_a_job(), 401),
    ],
)
def test_each_refusal_has_its_http_status(headers: Headers, body: bytes, answer: int, jobs: tb.Client) -> None:
    with pytest.raises(tb.WebhookRejected) as caught:
        jobs.parse_webhook(headers, body)
    assert caught.value.answer == answer
    assert caught.value.connection == "cloudconvert"
    assert caught.value.__cause__ is None


def one_changed(text: str | bytes) -> Iterator[Any]:
    """The text with each of its characters changed in turn, then one shorter, then one longer."""
    for n in range(len(text)):
        other = "0" if text[n : n + 1] in ("1", b"1") else "1"
        yield text[:n] + (other if isinstance(text, str) else other.encode()) + text[n + 1 :]  # type: ignore[operator]
    yield text[:-1]
    yield text + (" " if isinstance(text, str) else b" ")  # type: ignore[operator]


def test_one_wrong_byte_in_body_or_header_is_refused(
    jobs: tb.Client, scans: tb.Client, event: Callable[..., bytes], svix_headers: Sign
) -> None:
    of_job, of_scan = of_a_job(), event(result={"content": "done"})
    for client, body, headers in ((jobs, of_job, hexed(of_job)), (scans, of_scan, svix_headers(of_scan))):
        assert client.parse_webhook(headers, body, now=NOW).ref is not None
        wrong = [(headers, changed) for changed in one_changed(body)]
        for name, value in headers.items():
            wrong += [({**headers, name: changed}, body) for changed in one_changed(value)]
            wrong += [({key: each for key, each in headers.items() if key != name}, body)]
        for bad_headers, bad_body in wrong:
            if bad_headers.get("svix-signature") == headers.get("svix-signature", "") + " ":
                continue  # signatures are separated by spaces, and one valid signature is enough
            with pytest.raises(tb.WebhookRejected) as caught:
                client.parse_webhook(bad_headers, bad_body, now=NOW)
            assert caught.value.answer == 401, (bad_headers, bad_body)


def test_a_refusal_is_one_line_of_log(jobs: tb.Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="taskbridge"), pytest.raises(tb.WebhookRejected):
        jobs.parse_webhook({}, of_a_job())
    (line,) = [record.message for record in caplog.records]
    assert line.startswith("connection cloudconvert: rejected a webhook: the delivery is not signed")


def test_an_unverified_body_is_never_parsed(
    jobs: tb.Client, scans: tb.Client, exports: tb.Client, svix_headers: Sign, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(_: bytes) -> None:
        raise AssertionError("a parser ran")

    monkeypatch.setattr("taskbridge._engine.webhooks.read_json", explode)
    for client, headers in ((jobs, hexed(b"x")), (scans, svix_headers(b"x")), (exports, {})):
        with pytest.raises(tb.WebhookRejected) as caught:
            client.parse_webhook(headers, BOMB, url="/hooks", now=NOW)
        assert caught.value.answer == 401
    body = of_a_job()
    with pytest.raises(tb.WebhookRejected, match="broken") as caught:  # a verified body does reach this parser
        jobs.parse_webhook(hexed(body), body)
    assert caught.value.answer == 500


def test_old_and_new_secret_are_accepted_until_one_is_removed() -> None:
    body = of_a_job()
    for secrets, accepted in ((["old"], True), (["new", "old"], True), (["new"], False)):
        with tb.connect("cloudconvert", api_key="cc-test-key", webhook_secrets=secrets) as client:
            if accepted:
                assert client.parse_webhook(hexed(body, "old"), body).ref is not None
            else:
                with pytest.raises(tb.WebhookRejected):
                    client.parse_webhook(hexed(body, "old"), body)


# Forms in which frameworks pass deliveries.


def _message(headers: dict[str, str]) -> Message:
    message = Message()
    for name, value in headers.items():
        message[name] = value
    return message


def _more(headers: dict[str, str]) -> Any:
    strange: list[tuple[Any, Any]] = [("X-Forwarded-For", "a"), ("X-Forwarded-For", "b"), ("nö", "x"), (7, 8)]
    return iter([*headers.items(), *strange])


SHAPES: Final[dict[str, Callable[[dict[str, str]], Any]]] = {
    "mapping": dict,
    "pairs": lambda headers: list(headers.items()),
    "capitals": lambda headers: {name.upper(): value for name, value in headers.items()},
    "lists": lambda headers: {name: [value] for name, value in headers.items()},
    "asgi": lambda headers: [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    "more": _more,
    "message": _message,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_headers_are_accepted_in_any_form(shape: str, jobs: tb.Client) -> None:
    body = of_a_job()
    assert jobs.parse_webhook(SHAPES[shape](hexed(body)), body).ref is not None


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bodies_must_be_bytes(kind: Callable[[bytes], Any], jobs: tb.Client) -> None:
    body = of_a_job()
    assert jobs.parse_webhook(hexed(body), kind(body)).ref is not None
    with pytest.raises(TypeError, match="raw bytes"):
        jobs.parse_webhook(hexed(body), body.decode())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_the_time_of_receipt_must_have_a_time_zone(scans: tb.Client, svix_headers: Sign) -> None:
    with pytest.raises(TypeError, match="aware"):
        scans.parse_webhook(svix_headers(b"{}"), b"{}", now=NOW.replace(tzinfo=None))


def test_a_bridge_needs_the_name_of_the_connection(
    stopped: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KEY", stopped.settings("cloudconvert")["api_key"])
    path = tmp_path / "taskbridge.toml"
    path.write_text(
        '[connections.invoices]\nprovider = "cloudconvert"\napi_key = "${KEY}"\nwebhook_secrets = ["signing-secret"]\n'
        '[connections.other]\nprovider = "cloudconvert"\napi_key = "${KEY}"\nwebhook_secrets = ["another"]\n'
    )
    body = of_a_job()
    with tb.Bridge.from_config(path) as bridge:
        event = bridge.parse_webhook("invoices", hexed(body), body)
        assert event.ref == "invoices:job/73df1e16-fd8b-47a1-a156-f197babde91a"
        assert bridge["invoices"].parse_webhook(hexed(body), body).ref == event.ref
        with pytest.raises(tb.WebhookRejected):
            bridge.parse_webhook("other", hexed(body), body)
        with pytest.raises(tb.ConfigError, match="no connection"):
            bridge.parse_webhook("unknown", hexed(body), body)
