"""The secrets in use, and their removal from text that is shown.

A text is redacted before it is clipped, because half a key no longer matches it. So whatever clips a text asks here,
wherever the text comes from. Connections register themselves, and are forgotten with their clients.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Protocol
from weakref import ref

if TYPE_CHECKING:
    from collections.abc import Iterable

MASK: Final = "***"
"""Replaces a secret."""


class HoldsSecrets(Protocol):
    """What has secrets, such as a connection."""

    @property
    def known_secrets(self) -> frozenset[str]:
        """The secrets, in every spelling in which a response may echo them."""
        ...


_HOLDERS: Final[dict[int, ref[HoldsSecrets]]] = {}  # by id; a copy of its values is atomic, so there is no lock


def register(holder: HoldsSecrets) -> None:
    """Redact the secrets of an object from now on, as long as it exists."""
    key = id(holder)
    _HOLDERS[key] = ref(holder, lambda _: _HOLDERS.pop(key, None))


def without_secrets(text: str) -> str:
    """Return a text with stars in place of every secret in use."""
    holders = [reference() for reference in list(_HOLDERS.values())]
    return mask(text, (secret for holder in holders if holder is not None for secret in holder.known_secrets))


# The value that makes a presigned link valid, in a URL or in a URL within another, JSON or HTML.
#   https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
#   https://cloud.google.com/storage/docs/authentication/signatures
#   https://learn.microsoft.com/rest/api/storageservices/create-service-sas
_SIGNATURE: Final = re.compile(
    r"((?:[?&;]|%3F|%26|\\u0026)(?:X-(?:Amz|Goog)-(?:Signature|Credential|Security-Token)|Signature|AWSAccessKeyId|sig)"
    r"(?:=|%3D))[^&\s\"'<>\\]+",
    re.IGNORECASE,
)


def mask(text: str, secrets: Iterable[str]) -> str:
    """Return a text with stars in place of these secrets, and of the signatures of presigned links."""
    found = {secret for secret in secrets if secret in text}
    for secret in sorted(found, key=len, reverse=True):  # one may be a part of another
        text = text.replace(secret, MASK)
    return _SIGNATURE.sub(rf"\1{MASK}", text)


def excerpt(text: str, limit: int) -> str:
    """Return at most `limit` characters of a text, without secrets."""
    text = without_secrets(text)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
