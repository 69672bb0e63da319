"""Redacts recordings: everything of real traffic is stored except credentials.

Only allow-listed headers are kept. Known secrets (the connection's settings, its credential, tokens from responses) are
replaced wherever they occur. Unknown secrets are replaced by their position: values of fields with telling names,
queries of presigned links, everything in the response to a token request.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

if TYPE_CHECKING:
    from taskbridge.provider.http import Request

REDACTED: Final = "redacted"
"""Replaces a secret."""

_KEPT_HEADERS: Final = re.compile(
    r"accept-ranges|content-disposition|content-range|content-type|date|etag|last-modified|link|location|retry-after"
    r"|x-request-id|(x-)?ratelimit.*"
)
_HARMLESS_HEADERS: Final = frozenset({"accept", "content-length", "content-type", "idempotency-key", "user-agent"})
_SHORTEST: Final = 8  # characters of a secret; shorter ones occur in any text
_LONG: Final = 16  # characters from which a text in the response to a login counts as a secret

_TELLING_NAME: Final = re.compile(
    r"token|secret|passw|pwd|api.?key|access.?key|auth|signature|^sig$|credential|policy|cookie|x-amz|x-goog|^key$|jwt",
    re.IGNORECASE,
)
_LINK: Final = re.compile(r"https?://[^\s\"'<>\\]+")


class Redactor:
    """Removes secrets from traffic, and learns new ones from it.

    Args:
        secrets: Secrets known from the start.
        hosts: The vendor's own hosts, whose queries are ordinary parameters; the queries of all others are presigned.
    """

    def __init__(self, secrets: Iterable[str] = (), hosts: Iterable[str] = ()) -> None:
        self._secrets = set(secrets)
        self._hosts = frozenset(hosts)

    def learn(self, secret: str) -> None:
        """Redact a text from now on, also if it is percent-encoded or in base64."""
        for part in {secret, *secret.split()}:
            if len(part) >= _SHORTEST and part != REDACTED:
                encoded = b64encode(part.encode()).decode().rstrip("=")
                self._secrets |= {part, quote(part, safe=""), encoded}

    def learn_from(self, request: Request) -> None:
        """Learn the credential in a request's headers."""
        for name, value in request.headers.items():
            if name.lower() not in _HARMLESS_HEADERS:
                self.learn(value)

    # Redacting.

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the response headers that may be stored."""
        lowered = {name.lower(): value for name, value in headers.items()}
        return {name: self.text(value) for name, value in lowered.items() if _KEPT_HEADERS.fullmatch(name)}

    def url(self, url: str) -> str:
        """Return a URL without credentials and presigned query values."""
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        query = parse_qsl(parts.query, keep_blank_values=True)
        presigned = host not in self._hosts or any(_TELLING_NAME.search(name) for name, _ in query)
        redacted = urlencode([(name, REDACTED if presigned else value) for name, value in query])
        return self._known(urlunsplit((parts.scheme, host, parts.path, redacted if query else "", "")))

    def text(self, text: str) -> str:
        """Return a text without secrets, its links redacted."""
        return self._known(_LINK.sub(lambda found: self.url(found[0]), text))

    def document(self, body: bytes, *, login: bool = False) -> bytes | None:
        """Return a redacted body, for example the response to a ``login``; None if it is not text."""
        try:
            text = body.decode()
        except UnicodeDecodeError:
            return None
        document: Any = None
        with suppress(ValueError, RecursionError):
            document = json.loads(text)
        if not isinstance(document, dict | list):
            return (self._redacted(text) if login and text else self.text(text)).encode()
        redacted = self._walk(document, "", login=login)
        # unchanged, byte for byte, if there is nothing to redact
        return body if redacted == document else json.dumps(redacted, ensure_ascii=False).encode()

    def binary(self, body: bytes) -> bytes:
        """Return the bytes of a file without known secrets."""
        for secret in self._secrets:
            body = body.replace(secret.encode(), REDACTED.encode())
        return body

    def _walk(self, value: Any, name: str, *, login: bool) -> Any:
        if isinstance(value, dict):
            pairs = cast("dict[str, Any]", value).items()
            return {self._known(key): self._walk(each, key, login=login) for key, each in pairs}
        if isinstance(value, list):
            return [self._walk(each, name, login=login) for each in value]  # pyright: ignore[reportUnknownVariableType]  # any JSON
        if not isinstance(value, str) or not value:
            return value
        is_secret = _TELLING_NAME.search(name) is not None or (login and len(value) >= _LONG)
        return self._redacted(value) if is_secret else self.text(value)

    def _redacted(self, secret: str) -> str:
        """Learn a secret and return its replacement, which keeps the expiry of a JWT."""
        if len(secret) >= _LONG:
            self.learn(secret)
        with suppress(ValueError, KeyError, TypeError):
            _, payload, _ = secret.strip().split(".")
            claims = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
            kept = json.dumps({"exp": claims["exp"]}).encode()
            return f"{REDACTED}.{urlsafe_b64encode(kept).decode().rstrip('=')}.{REDACTED}"
        return REDACTED

    def _known(self, text: str) -> str:
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, REDACTED)
        return text
