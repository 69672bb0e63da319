"""What of real traffic may be written down: everything but credentials.

Headers are taken by an allow-list. Secrets that are known (the connection's settings, its credential, tokens that came
in an answer) are replaced wherever they stand. What is secret by its place is replaced unknown: values of fields with
telling names, queries of presigned links, all that is said when a token is asked for.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

if TYPE_CHECKING:
    from taskbridge.provider.http import Request

__all__ = ["MASK", "Masks"]

MASK: Final = "masked"
"""What stands in place of a secret."""

_KEPT: Final = frozenset(
    {
        "accept-ranges",
        "content-disposition",
        "content-range",
        "content-type",
        "date",
        "etag",
        "last-modified",
        "link",
        "location",
        "retry-after",
        "x-request-id",
    }
)
_KEPT_BEGINNINGS: Final = ("ratelimit", "x-ratelimit")
_SENT: Final = frozenset({"accept", "content-length", "content-type", "idempotency-key", "user-agent"})
_SHORTEST: Final = 8  # characters of a secret that is learnt on the way; shorter ones are words of every text
_LONG: Final = 16  # characters from which a text in the answer to a login counts as a secret

_TELLING: Final = re.compile(
    r"token|secret|passw|pwd|api.?key|access.?key|auth|signature|^sig$|credential|policy|cookie|x-amz|x-goog|^key$|jwt",
    re.IGNORECASE,
)
_LINK: Final = re.compile(r"https?://[^\s\"'<>\\]+")


class Masks:
    """The secrets known so far, and what is left of a text without them.

    Args:
        secrets: Known from the start.
        hosts: Of the vendor's own addresses, whose queries say what is asked for; all other queries are capabilities.
    """

    def __init__(self, secrets: Iterable[str] = (), hosts: Iterable[str] = ()) -> None:
        self._secrets = set(secrets)
        self._hosts = frozenset(hosts)

    def learn(self, secret: str) -> None:
        """Replace a text from now on, also as an echo may spell it: percent-encoded, or in base64."""
        for part in {secret, *secret.split()}:
            if len(part) >= _SHORTEST and part != MASK:
                encoded = b64encode(part.encode()).decode().rstrip("=")
                self._secrets |= {part, quote(part, safe=""), encoded}

    def learn_from(self, request: Request) -> None:
        """Learn the credential that goes with a request."""
        for name, value in request.headers.items():
            if name.lower() not in _SENT:
                self.learn(value)

    # What is left.

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """An answer's header fields that may be written down."""
        kept = {
            n.lower(): v for n, v in headers.items() if n.lower() in _KEPT or n.lower().startswith(_KEPT_BEGINNINGS)
        }
        return {name: self.text(value) for name, value in kept.items()}

    def url(self, url: str) -> str:
        """An address without its capabilities."""
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True)
        presigned = parts.netloc.rpartition("@")[2] not in self._hosts or any(
            _TELLING.search(name) for name, _ in query
        )
        masked = urlencode([(name, MASK if presigned else value) for name, value in query])
        host = parts.netloc.rpartition("@")[2]
        return self._known(urlunsplit((parts.scheme, host, parts.path, masked if query else "", "")))

    def text(self, text: str) -> str:
        """A text without secrets and with addresses that give nothing away."""
        return self._known(_LINK.sub(lambda found: self.url(found[0]), text))

    def document(self, body: bytes, *, login: bool = False) -> bytes | None:
        """A body; None where it is no text.

        Args:
            body: The bytes.
            login: Whether it answers a request for a token.
        """
        try:
            text = body.decode()
        except UnicodeDecodeError:
            return None
        try:
            document: Any = json.loads(text)
        except (ValueError, RecursionError):
            document = _NO_JSON
        if document is _NO_JSON or not isinstance(document, dict | list):
            return (self._hidden(text) if login and text else self.text(text)).encode()
        masked = self._walk(document, "", login=login)
        # As the vendor wrote it, where there is nothing to hide.
        return body if masked == document else json.dumps(masked, ensure_ascii=False).encode()

    def binary(self, body: bytes) -> bytes:
        """The bytes of a file, without secrets that are known."""
        for secret in self._secrets:
            body = body.replace(secret.encode(), MASK.encode())
        return body

    def _walk(self, value: Any, name: str, *, login: bool) -> Any:
        if isinstance(value, dict):
            pairs = cast("dict[str, Any]", value).items()
            return {self._known(key): self._walk(each, key, login=login) for key, each in pairs}
        if isinstance(value, list):
            return [self._walk(each, name, login=login) for each in value]  # pyright: ignore[reportUnknownVariableType]  # any JSON
        if not isinstance(value, str) or not value:
            return value
        hides = _TELLING.search(name) is not None or (login and len(value) >= _LONG)
        return self._hidden(value) if hides else self.text(value)

    def _hidden(self, secret: str) -> str:
        """What stands in place of a secret; it is learnt. A token that says when it expires goes on saying so."""
        if len(secret) >= _LONG:
            self.learn(secret)
        parts = secret.strip().split(".")
        if len(parts) == 3:
            try:
                claims = json.loads(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
                kept = json.dumps({"exp": claims["exp"]}).encode()
            except (ValueError, KeyError, TypeError):
                return MASK
            return f"{MASK}.{urlsafe_b64encode(kept).decode().rstrip('=')}.{MASK}"
        return MASK

    def _known(self, text: str) -> str:
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, MASK)
        return text


_NO_JSON: Final = object()
