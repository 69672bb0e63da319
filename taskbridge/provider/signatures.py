"""Verify the sender of a webhook delivery: HMACs over its raw bytes, or a secret in the called URL.

Nothing here reads a clock or parses a body: an unverified body is never read. Any fault of a delivery is
`WebhookRejected`, with a message that does not help an attacker; any fault of the secrets is `ConfigError`. Comparisons
take constant time.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import unquote, unquote_plus

from taskbridge.errors import ConfigError, WebhookRejected
from taskbridge.provider.secrets import strip_tracebacks

if TYPE_CHECKING:
    from datetime import datetime

HeaderOf: TypeAlias = Callable[[str], str | None]
"""Returns a header field by its lower-case name; None if it is missing."""

TOLERANCE: Final = 300
"""Seconds by which a signed time may differ from ours, either way. Standard Webhooks and svix use the same. Not a
setting: in other libraries 0 has disabled the check."""

SVIX_PREFIX: Final = "whsec_"
"""Prefix of a secret of the svix scheme."""

FAMILIES: Final = ("svix", "webhook")  # https://docs.svix.com/receiving/verifying-payloads/how-manual
LONGEST_HEADER: Final = 4096  # characters; real ones are below 300
LONGEST_URL: Final = 8192  # characters; what common servers accept
SHORTEST_IN_URL: Final = 16  # characters of a secret that cannot be guessed
STAMP: Final = re.compile(r"[0-9]{1,12}", re.ASCII)
HEX: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


@strip_tracebacks
def verify_svix(body: bytes, header: HeaderOf, secrets: Sequence[str], now: datetime) -> None:
    """Verify a delivery by the scheme of svix and Standard Webhooks, version 1.

    Reads the headers ``svix-id``, ``svix-timestamp`` and ``svix-signature``, or the same with ``webhook-`` instead of
    ``svix-``: one complete set, never a mixture. The signature is the base64 of HMAC-SHA256 over ``id.timestamp.body``;
    the key follows ``whsec_`` in the secret. A header may hold several signatures; one match is enough.

    Args:
        body: The raw bytes.
        header: Returns a header field by its name.
        secrets: One or more ``whsec_…`` secrets.
        now: Aware time of receipt.

    Raises:
        WebhookRejected: The signature does not match, or its time differs by more than `TOLERANCE` seconds.
        ConfigError: A secret is not of this scheme, or there is none.
    """
    keys = [_svix_key(secret) for secret in _required(secrets)]
    sets = ([header(f"{family}-{part}") for part in ("id", "timestamp", "signature")] for family in FAMILIES)
    identity, stamp, signatures = next((each for each in sets if all(each)), (None, None, None))
    if identity is None or stamp is None or signatures is None:
        raise WebhookRejected("the delivery is not signed: a header of id, timestamp or signature is missing")
    if len(identity) > LONGEST_HEADER or len(signatures) > LONGEST_HEADER or STAMP.fullmatch(stamp) is None:
        raise WebhookRejected("the signature cannot be read")
    signed = b".".join([_bytes(identity), stamp.encode(), body])
    expected = [b64encode(hmac.digest(key, signed, sha256)) for key in keys]
    entries = (entry.partition(",") for entry in signatures.split(" "))
    given = [_bytes(text) for version, _, text in entries if version == "v1"]
    if not _any_equal(given, expected):
        raise WebhookRejected("the signature is wrong")
    if abs(now.timestamp() - int(stamp)) > TOLERANCE:
        raise WebhookRejected(
            f"the delivery's time differs from the time here by more than {TOLERANCE} s: an old delivery sent again, "
            "or a clock that is wrong"
        )


@strip_tracebacks
def verify_hex_hmac(body: bytes, signature: str | None, secrets: Sequence[str]) -> None:
    """Verify a delivery by an HMAC-SHA256 over its body, in 64 lower-case hexadecimal digits.

    Args:
        body: The raw bytes.
        signature: The header field, or None if it is missing.
        secrets: One or more secrets, whose UTF-8 bytes are the keys.

    Raises:
        WebhookRejected: The signature is missing or does not match.
        ConfigError: There is no secret.
    """
    keys = [secret.encode() for secret in _required(secrets)]
    if not signature:
        raise WebhookRejected("the delivery is not signed: the header of the signature is missing")
    if HEX.fullmatch(signature) is None:
        raise WebhookRejected("the signature cannot be read")
    if not _any_equal([signature.encode()], [hmac.digest(key, body, sha256).hex().encode() for key in keys]):
        raise WebhookRejected("the signature is wrong")


def is_in_url(url: str | None, secrets: Sequence[str]) -> bool:
    """Return whether one of the secrets is a path segment or a query value of a URL, case-sensitively.

    A secret that contains slashes may also be several segments: most web servers decode ``%2F`` before they hand on
    the path.

    Args:
        url: The called URL, absolute or from its path on.
        secrets: One or more secrets of at least 16 characters.

    Raises:
        ConfigError: A secret is so short that it can be guessed.
    """
    if any(len(secret) < SHORTEST_IN_URL for secret in secrets):
        raise ConfigError(f"webhook_secrets: a secret in a URL has at least {SHORTEST_IN_URL} characters")
    if not url or len(url) > LONGEST_URL:
        return False
    path, _, query = url.partition("#")[0].partition("?")
    _, scheme, rest = path.partition("://")
    path = rest.partition("/")[2] if scheme else path
    values = [pair.partition("=")[2] for pair in query.split("&")]
    texts = [*map(unquote, path.split("/")), *map(unquote, values), *map(unquote_plus, values)]
    parts = unquote(path).split("/")
    for slashes in {secret.count("/") for secret in secrets} - {0}:
        texts += ["/".join(parts[n : n + slashes + 1]) for n in range(len(parts) - slashes)]
    # Hashes, so that the time does not reveal the length of a secret either.
    given = [sha256(_bytes(text)).digest() for text in texts if text]
    return _any_equal(given, [sha256(secret.encode()).digest() for secret in secrets])


def _required(secrets: Sequence[str]) -> Sequence[str]:
    if not secrets:
        raise ConfigError("webhook_secrets holds no secret of the kind that signs; add it from the vendor's dashboard")
    return secrets


def _svix_key(secret: str) -> bytes:
    key = b""
    if secret.startswith(SVIX_PREFIX):
        with suppress(ValueError):
            key = b64decode(secret.removeprefix(SVIX_PREFIX), validate=True)
    if not key:
        raise ConfigError(f"webhook_secrets: a signing secret is {SVIX_PREFIX} and base64 behind it; copy it again")
    return key


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _any_equal(given: Iterable[bytes], expected: Sequence[bytes]) -> bool:
    return any([hmac.compare_digest(one, other) for one in given for other in expected])  # noqa: C419  # always compares all
