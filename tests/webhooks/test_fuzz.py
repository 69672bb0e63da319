"""Any delivery results in an event or `WebhookRejected`."""

from __future__ import annotations

import hmac
import json
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final

import svix
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import taskbridge as tb

NOW: Final = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
WHSEC: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
HIDDEN: Final = "b7Qd0c9yT2wX4mLr"

SCANS: Final = tb.connect("scan-documents", api_key="sd-test-key", webhook_secrets=[WHSEC, HIDDEN])
JOBS: Final = tb.connect("cloudconvert", api_key="cc-test-key", webhook_secrets=[HIDDEN])
EXPORTS: Final = tb.connect("smartdocumentor", access_token="sm-test-token", webhook_secrets=[HIDDEN])

NAMES: Final = ["svix-id", "svix-timestamp", "svix-signature", "webhook-id", "webhook-timestamp", "webhook-signature",
                "CloudConvert-Signature", "Content-Encoding", "Content-Type"]  # fmt: skip
WORDS: Final = ["v1,", "v1,AAAA", "v1,a,b", "v1," + "A" * 43 + "=", str(int(NOW.timestamp())), "0" * 64, "nan", "gzip",
                "\ud800", "\x00", "é" * 64, "9" * 5000]  # fmt: skip

anything: Final = st.text()  # lone surrogates come from WORDS
values: Final = st.one_of(st.sampled_from(WORDS), anything, st.binary(max_size=80), st.none(), st.integers())
headers: Final = st.lists(st.tuples(st.one_of(st.sampled_from(NAMES), anything, st.binary(max_size=20)), values))
urls: Final = st.one_of(st.none(), st.text(), st.sampled_from([f"/{HIDDEN}", f"/?a={HIDDEN}", "http://[", "/%zz"]))

scalars: Final = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=8),
    st.sampled_from(["task.completed", "task.failed", "task.created", "file.created", "job.finished", "job.failed",
                     "task_1", "event_1", "c85f3ca9-164c-4e89-8ae2-c08192a7cb08", "finished", "\x00", "a/b", "9" * 50]),
)  # fmt: skip
keys: Final = st.one_of(
    st.sampled_from(["id", "type", "data", "event", "job", "status", "tasks", "result", "taskId", "restartCount",
                     "timestamp", "files", "error", "code", "operation", "object_id"]),
    st.text(max_size=4),
)  # fmt: skip
documents: Final = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=8)),
    max_leaves=24,
)
bodies: Final = st.one_of(
    documents.map(lambda document: json.dumps(document).encode()),
    st.binary(max_size=200),
    st.sampled_from(
        [b"", b"[" * 100_000, b'{"a":' * 300, b"\xef\xbb\xbf{}", b"{}" * 2, b'{"taskId":' + b"9" * 6000 + b"}"]
    ),
)
shapes: Final = st.fixed_dictionaries(
    {},
    optional={
        "id": scalars, "type": scalars, "timestamp": scalars, "data": documents, "event": scalars,
        "job": st.dictionaries(keys, documents, max_size=6), "taskId": scalars,
    },
)  # fmt: skip

FUZZ: Final = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def outcome(client: tb.Client, given_headers: Any, body: bytes, url: str | None) -> str:
    event: tb.WebhookEvent | None = None
    refused: tb.WebhookRejected | None = None
    try:
        event = client.parse_webhook(given_headers, body, url=url, now=NOW)
    except tb.WebhookRejected as error:
        refused = error
    if refused is not None:
        assert refused.answer in {400, 401, 413, 415}, refused
        assert WHSEC not in str(refused)
        assert HIDDEN not in str(refused)
        return "refused"
    assert isinstance(event, tb.WebhookEvent)
    assert event.duplicate_key
    assert event.ref is None or event.ref.connection == client.name
    return "event"


@FUZZ
@given(headers, bodies, urls)
def test_unsigned_deliveries_pass_only_with_the_secret_in_the_url(
    given_headers: Any, body: bytes, url: str | None
) -> None:
    known = url is not None and HIDDEN in url
    assert known or outcome(SCANS, given_headers, body, url) == "refused"
    assert outcome(JOBS, given_headers, body, url) == "refused"
    assert known or outcome(EXPORTS, given_headers, body, url) == "refused"
    if known:
        outcome(SCANS, given_headers, body, url)
        outcome(EXPORTS, given_headers, body, url)


@FUZZ
@given(st.one_of(shapes.map(lambda shape: json.dumps(shape).encode()), bodies))
def test_a_signed_but_odd_delivery_is_parsed_or_refused(body: bytes) -> None:
    text = body.decode("utf-8", "surrogateescape")
    outcome(JOBS, {"cloudconvert-signature": hmac.new(HIDDEN.encode(), body, sha256).hexdigest()}, body, None)
    outcome(EXPORTS, {}, body, f"/{HIDDEN}")
    outcome(SCANS, {}, body, f"/{HIDDEN}")
    if text.isascii():
        stamp = str(int(NOW.timestamp()))
        signature = svix.Webhook(WHSEC).sign("msg_1", NOW, text)
        outcome(SCANS, {"svix-id": "msg_1", "svix-timestamp": stamp, "svix-signature": signature}, body, None)


@FUZZ
@given(st.integers(min_value=-10_000, max_value=10_000))
def test_a_signature_is_fresh_for_five_minutes_before_and_after(seconds: int) -> None:
    body = b'{"id":"event_1","type":"file.created","data":{}}'
    then = NOW + timedelta(seconds=seconds)
    signature = svix.Webhook(WHSEC).sign("msg_1", then, body.decode())
    fields = {"svix-id": "msg_1", "svix-timestamp": str(int(then.timestamp())), "svix-signature": signature}
    assert outcome(SCANS, fields, body, None) == ("event" if abs(seconds) <= 300 else "refused")
