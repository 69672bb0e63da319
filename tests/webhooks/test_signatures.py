"""Signatures over raw bytes: the vendors' vectors, the published packages in both directions, and wrong ones."""

from __future__ import annotations

import hmac
import importlib
import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final

import pytest
import svix

from taskbridge.errors import ConfigError, WebhookRejected
from taskbridge.provider.signatures import TOLERANCE, is_in_url, verify_hex_hmac, verify_svix

cloudconvert: Any = importlib.import_module("cloudconvert")  # it has no types

SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER: Final = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
ID: Final = "msg_p5jXN8AQM9LWM0D4loKWxJek"
STAMP: Final = 1614265330
BODY: Final = b'{"test": 2432232314}'
SIGNATURE: Final = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
THEN: Final = datetime.fromtimestamp(STAMP, UTC)

HeaderOf = Callable[[Mapping[str, str]], Callable[[str], str | None]]


def signed(family: str = "svix", **changed: str) -> dict[str, str]:
    fields = {"id": ID, "timestamp": str(STAMP), "signature": SIGNATURE, **changed}
    return {f"{family}-{name}": value for name, value in fields.items()}


# The svix scheme.


@pytest.mark.parametrize(
    ("identity", "stamp", "body", "signature"),
    [
        (ID, STAMP, BODY, SIGNATURE),  # https://docs.svix.com, published
        (
            "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W",
            1744473319,
            (
                b'{"data":{"id":"task_euyrvozb9302uwhq","operation":"extract-text","result":'
                b'{"error":"Invalid page range","details":{}}},"id":"event_euyrvozb9302uwhq",'
                b'"timestamp":"2025-04-12T15:55:19.000Z","type":"task.failed"}'
            ),
            "v1,PRqXUwhYdNNqyO6KdYNoqZPknaJLmni26QESoC3Heoc=",
        ),
    ],
)
def test_svix_vectors(identity: str, stamp: int, body: bytes, signature: str, header_of: HeaderOf) -> None:
    headers = {"svix-id": identity, "svix-timestamp": str(stamp), "svix-signature": signature}
    verify_svix(body, header_of(headers), [SECRET], datetime.fromtimestamp(stamp, UTC))


@pytest.mark.parametrize("family", ["svix", "webhook"])
def test_a_signature_by_the_published_package_is_accepted(family: str, header_of: HeaderOf) -> None:
    body = json.dumps({"id": "é", "n": 1}, ensure_ascii=False)
    signature = svix.Webhook(SECRET).sign(ID, THEN, body)
    verify_svix(body.encode(), header_of(signed(family, signature=signature)), [SECRET], THEN)


def test_the_published_package_and_this_library_accept_each_others_signatures() -> None:
    now = datetime.now(UTC)
    stamp = str(int(now.timestamp()))
    key = b64encode(hmac.digest(_key(SECRET), f"{ID}.{stamp}.".encode() + BODY, sha256)).decode()
    headers = {"svix-id": ID, "svix-timestamp": stamp, "svix-signature": f"v1,{key}"}
    svix.Webhook(SECRET).verify(BODY, headers)
    verify_svix(BODY, headers.get, [SECRET], now)


@pytest.mark.parametrize("seconds", [-300, -299, -1, 0, 1, 299, 300])
def test_times_within_five_minutes_are_fresh(seconds: int, header_of: HeaderOf) -> None:
    verify_svix(BODY, header_of(signed()), [SECRET], THEN + timedelta(seconds=seconds))


@pytest.mark.parametrize("seconds", [-86_400, -301, -300.001, 300.001, 301, 86_400])
def test_times_beyond_five_minutes_are_refused(seconds: float, header_of: HeaderOf) -> None:
    with pytest.raises(WebhookRejected, match="300 s"):
        verify_svix(BODY, header_of(signed()), [SECRET], THEN + timedelta(seconds=seconds))


def test_the_tolerance_is_fixed() -> None:
    assert TOLERANCE == 300


@pytest.mark.parametrize(
    "stamp", ["", "nan", "1e9999", "1614265330.9", "1_614265330", " 1614265330", "1614265330 ", "+1614265330", "-1",
              "1٦14265330", "0x60379a32", "9" * 13, "1614265330\n"]
)  # fmt: skip
def test_timestamps_that_are_not_digits_are_refused(stamp: str, header_of: HeaderOf) -> None:
    signature = b64encode(hmac.digest(_key(SECRET), f"{ID}.{stamp}.".encode() + BODY, sha256)).decode()
    with pytest.raises(WebhookRejected) as caught:
        verify_svix(BODY, header_of(signed(timestamp=stamp, signature=f"v1,{signature}")), [SECRET], THEN)
    assert caught.value.answer == 401


RIGHT: Final = SIGNATURE.removeprefix("v1,")


@pytest.mark.parametrize(
    "signature",
    ["", " ", "v1", "v1,", "v1,a,b", f"v1,{RIGHT[:-1]}", f"v1,{RIGHT}=", f"v1,{RIGHT[:20]}", f"v2,{RIGHT}",
     f"v1a,{RIGHT}", f"V1,{RIGHT}", RIGHT, f"v1:{RIGHT}", "v1,nöt", "v1,\ud800", "v1,\x00", f"v1, {RIGHT}",
     f"{SIGNATURE},{SIGNATURE}", "v1," + RIGHT.swapcase(), "v1," + "A" * 5000, f"v1,{RIGHT}\t"],
)  # fmt: skip
def test_wrong_signatures_are_refused(signature: str, header_of: HeaderOf) -> None:
    with pytest.raises(WebhookRejected) as caught:
        verify_svix(BODY, header_of(signed(signature=signature)), [SECRET], THEN)
    assert caught.value.answer == 401
    assert RIGHT not in str(caught.value)


@pytest.mark.parametrize(
    "signature", [f"v2,{RIGHT} {SIGNATURE}", f"v1,wrong {SIGNATURE}", f"{SIGNATURE} v1,wrong", f"  {SIGNATURE}  "]
)
def test_one_valid_signature_of_several_is_enough(signature: str, header_of: HeaderOf) -> None:
    verify_svix(BODY, header_of(signed(signature=signature)), [SECRET], THEN)


@pytest.mark.parametrize(
    ("change", "body"),
    [({}, BODY + b" "), ({}, BODY[:-1]), ({}, b'{"test":2432232314}'), ({"id": ID + "x"}, BODY),
     ({"timestamp": str(STAMP + 1)}, BODY)],
)  # fmt: skip
def test_one_changed_byte_is_refused(change: dict[str, str], body: bytes, header_of: HeaderOf) -> None:
    with pytest.raises(WebhookRejected, match="wrong"):
        verify_svix(body, header_of(signed(**change)), [SECRET], THEN)


@pytest.mark.parametrize("missing", ["id", "timestamp", "signature"])
def test_a_missing_header_is_refused(missing: str, header_of: HeaderOf) -> None:
    headers = signed()
    del headers[f"svix-{missing}"]
    with pytest.raises(WebhookRejected, match="not signed"):
        verify_svix(BODY, header_of(headers), [SECRET], THEN)


@pytest.mark.parametrize("moved", ["id", "timestamp", "signature"])
def test_header_families_are_never_mixed(moved: str, header_of: HeaderOf) -> None:
    headers = signed()
    headers[f"webhook-{moved}"] = headers.pop(f"svix-{moved}")
    with pytest.raises(WebhookRejected, match="not signed"):
        verify_svix(BODY, header_of(headers), [SECRET], THEN)


def test_a_complete_header_family_next_to_an_incomplete_one_is_accepted(header_of: HeaderOf) -> None:
    verify_svix(BODY, header_of({**signed("webhook"), "svix-id": "msg_other"}), [SECRET], THEN)


def test_secrets_rotate(header_of: HeaderOf) -> None:
    headers = header_of(signed())
    verify_svix(BODY, headers, [OTHER, SECRET], THEN)
    verify_svix(BODY, headers, [SECRET, OTHER], THEN)
    with pytest.raises(WebhookRejected):
        verify_svix(BODY, headers, [OTHER], THEN)


@pytest.mark.parametrize("secrets", [[], ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], ["whsec_"], ["whsec_?"], ["whsec_abc"],
                                     [SECRET, "whsec_é"]])  # fmt: skip
def test_unusable_secrets_are_a_configuration_error(secrets: list[str], header_of: HeaderOf) -> None:
    with pytest.raises(ConfigError, match="webhook_secrets") as caught:
        verify_svix(BODY, header_of(signed()), secrets, THEN)
    assert not any(secret.removeprefix("whsec_") in str(caught.value) for secret in secrets if len(secret) > 6)


# CloudConvert.

ESCAPED: Final = rb'{"event":"job.finished","job":{"id":"a","status":"finished","tasks":[{"operation":"export\/url"}]}}'


@pytest.mark.parametrize(
    ("body", "secret", "digest"),
    [
        (b"cloudconvert", "90sffs0d8fs0f9sf0", "5c4c0691bce8a1a2af738b7073fe0627e792734813358c5f88a658819dd0a6d2"),
        (ESCAPED, "secret", "5caacde5f5b0a9160594ff4c7f30e5fe2faf62f7dede59c135b67b0726a70b9c"),
        (
            ESCAPED.replace(b"\\/", b"/"),
            "secret",
            "bbe6d527f0ad6636afb25f0e565dc380b3c50402bb6d4fb533a9382881f00be4",
        ),
    ],
)
def test_cloudconvert_vectors(body: bytes, secret: str, digest: str) -> None:
    verify_hex_hmac(body, digest, [secret])
    assert cloudconvert.Webhook.verify(body.decode(), digest, secret)


def test_a_decoded_and_encoded_body_is_refused() -> None:
    digest = hmac.new(b"secret", ESCAPED, sha256).hexdigest()
    again = json.dumps(json.loads(ESCAPED), separators=(",", ":")).encode()
    with pytest.raises(WebhookRejected):
        verify_hex_hmac(again, digest, ["secret"])


@pytest.mark.parametrize(
    "signature",
    [None, "", "0" * 63, "0" * 65, "0" * 64, "g" * 64, "5C4C" + "0" * 60, "ö" * 64, "\ud800" * 64, "٣" * 64,
     " " + "0" * 63, "0" * 64 + "\n", "sha256=" + "0" * 64],
)  # fmt: skip
def test_wrong_hex_signatures_are_refused(signature: str | None) -> None:
    with pytest.raises(WebhookRejected) as caught:
        verify_hex_hmac(b"{}", signature, ["secret"])
    assert caught.value.answer == 401
    assert hmac.new(b"secret", b"{}", sha256).hexdigest() not in str(caught.value)


def test_hex_secrets_rotate_and_an_empty_list_is_an_error() -> None:
    digest = hmac.new(b"old", b"{}", sha256).hexdigest()
    verify_hex_hmac(b"{}", digest, ["new", "old"])
    with pytest.raises(WebhookRejected):
        verify_hex_hmac(b"{}", digest, ["new"])
    with pytest.raises(ConfigError):
        verify_hex_hmac(b"{}", digest, [])


# A secret in the URL.

HIDDEN: Final = "b7Qd0c9yT2wX4mLr"


@pytest.mark.parametrize(
    "url",
    [f"https://me.example/hooks/{HIDDEN}", f"/hooks/{HIDDEN}/", f"https://me.example/hooks?key={HIDDEN}",
     f"/?a=b&key={HIDDEN}#part", f"/{HIDDEN[:4]}%{ord(HIDDEN[4]):02x}{HIDDEN[5:]}"],
)  # fmt: skip
def test_a_secret_in_the_url_is_found(url: str) -> None:
    assert is_in_url(url, ["another-secret-of-ours", HIDDEN])


@pytest.mark.parametrize(
    "url",
    ["/hooks/b7Qd%2F0c9y%2FT2wX4mLr", "/hooks/b7Qd/0c9y/T2wX4mLr", "https://me.example/b7Qd%2f0c9y/T2wX4mLr/more"],
)
def test_a_secret_with_slashes_is_found_however_the_server_decodes_them(url: str) -> None:
    assert is_in_url(url, [HIDDEN, "b7Qd/0c9y/T2wX4mLr"])
    assert not is_in_url(url, [HIDDEN, "b7Qd/0c9y/T2wX4mL"])
    assert not is_in_url(url, ["Qd/0c9y/T2wX4mLr"])


@pytest.mark.parametrize(
    "url",
    [None, "", "/", f"https://{HIDDEN}/hooks", f"/{HIDDEN}x", f"/x{HIDDEN}", f"/{HIDDEN.upper()}", f"/#{HIDDEN}",
     f"/?{HIDDEN}=x", f"/{HIDDEN[:-1]}", "http://[::1/", "/\ud800", "/" + "a" * 9000 + "/" + HIDDEN, "%", "/%zz?=&&="],
)  # fmt: skip
def test_a_url_without_the_secret_is_refused(url: str | None) -> None:
    assert not is_in_url(url, [HIDDEN])


def test_a_secret_in_a_url_must_be_long() -> None:
    with pytest.raises(ConfigError, match="16 characters"):
        is_in_url("/hooks/short", ["short"])


def _key(secret: str) -> bytes:
    return b64decode(secret.removeprefix("whsec_"))
