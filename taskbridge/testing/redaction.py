"""Redacts recordings: everything of real traffic is stored except credentials.

Only allow-listed headers are kept. Known secrets (the connection's settings, its credential, tokens from responses) are
replaced wherever they occur, in any usual encoding. Unknown secrets are replaced by their shape: values of fields with
telling names, presigned links, text that looks like a key. Shapes can be wrong, so `Redactor.masked` lists where they
were applied, and `allow` exempts a place.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from taskbridge.provider.results import as_json

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
_ESCAPED: Final = 256  # characters up to which a secret is found with single characters escaped

# Shapes of unknown secrets.

_NAME_OF_A_KEY: Final = (  # names, no secret
    r"token|secret|passw|pass.?phrase|pwd|api.?key|access.?key|account.?key|private.?key|encryption.?key|credential"
    r"|connection.?string|signature"
)
_TELLING_NAME: Final = re.compile(
    rf"{_NAME_OF_A_KEY}|auth|^sig$|policy|cookie|x-amz|x-goog|^key$|^dsn$|jwt", re.IGNORECASE
)
_NEVER_A_NUMBER: Final = re.compile(r"passw|pass.?phrase|pwd|secret", re.IGNORECASE)  # a number may be one too
_HEADERS_NAME: Final = re.compile(r"^(request.?|custom.?|http.?)?headers$", re.IGNORECASE)  # may be a key, all of them
_LINK: Final = re.compile(r"https?://[^\s\"'<>\\]+", re.IGNORECASE)
_TOKEN_IN_PATH: Final = re.compile(r"(?=[^/]*\d)(?=[^/]*[A-Za-z])[\w~%=+-]{16,}", re.ASCII)  # no suffix of a file


class _Shape(NamedTuple):
    """What a secret may look like in any text."""

    name: str
    pattern: re.Pattern[str]  # what its group `secret` matches is replaced
    fits: Callable[[str], bool] = bool


def _is_token(text: str) -> bool:
    return len(text) >= _LONG or not text.isalpha()


def _is_basic(text: str) -> bool:
    with suppress(ValueError):
        return b":" in b64decode(text + "=" * (-len(text) % 4))
    return False


_SHAPES: Final = (
    _Shape("user in a URL", re.compile(r"\b[a-z][a-z0-9+.-]*://(?P<secret>[^\s\"'<>/?#\\]+)@", re.IGNORECASE)),
    _Shape("bearer token", re.compile(r"\bbearer\s+(?P<secret>[\w.~+/=-]{8,})", re.IGNORECASE), _is_token),
    _Shape("basic credential", re.compile(r"\bbasic\s+(?P<secret>[\w+/-]{8,}={0,2})", re.IGNORECASE), _is_basic),
    _Shape("JSON Web Token", re.compile(r"\b(?P<secret>eyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]*)")),
    _Shape(
        "key",
        re.compile(
            r"\b(?P<secret>(?:[sr]k[-_]|whsec_|gh[opsu]_|github_pat_|xox[a-z]-|AIza)[\w+/=-]{12,}|(?:AKIA|ASIA)[A-Z0-9]{16})"
        ),
    ),
    _Shape("private key", re.compile(r"-----BEGIN (?P<secret>[A-Z ]*PRIVATE KEY-----.*?(-----END|\Z))", re.DOTALL)),
    _Shape(
        "assignment",
        re.compile(
            rf"(?:{_NAME_OF_A_KEY})\w{{0,20}}\\*[\"']?\s*[:=]\s*\\*[\"']?(?P<secret>[^\s\"'&,;<>{{}}\\]{{6,}})",
            re.IGNORECASE,
        ),
    ),
)


class Redactor:
    """Removes secrets from traffic, and learns new ones from it.

    Args:
        secrets: Secrets known from the start.
        hosts: The vendor's own hosts, whose queries are ordinary parameters; the queries of all others are presigned.
        allow: Places where shapes are ignored, as in `masked`; ``*`` stands for any characters.

    Attributes:
        masked: Where something was replaced only for its shape (``body.data.tasks.*.payload.headers``), and the shape.
    """

    def __init__(self, secrets: Iterable[str] = (), hosts: Iterable[str] = (), allow: Iterable[str] = ()) -> None:
        self.masked: dict[str, str] = {}
        self._secrets = set(secrets)
        self._hosts = frozenset(hosts)
        self._allow = tuple(allow)
        self._pattern: re.Pattern[str] | None = None

    def learn(self, secret: str) -> None:
        """Redact a text from now on, in any encoding."""
        parts = {part for part in (secret, *secret.split()) if len(part) >= _SHORTEST and part != REDACTED}
        if not parts <= self._secrets:
            self._secrets |= parts
            self._pattern = None

    def learn_from(self, request: Request) -> None:
        """Learn the credential in a request's headers."""
        for name, value in request.headers.items():
            if name.lower() not in _HARMLESS_HEADERS:
                self.learn(value)

    def knows(self, text: str) -> bool:
        """Whether a text contains a known secret, in any encoding."""
        return self._known_pattern().search(text) is not None

    # Redacting.

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the response headers that may be stored."""
        lowered = {name.lower(): value for name, value in headers.items()}
        return {
            name: self.text(value, f"headers.{name}")
            for name, value in lowered.items()
            if _KEPT_HEADERS.fullmatch(name)
        }

    def url(self, url: str, place: str = "url") -> str:
        """Return a URL without credentials, presigned query values, and tokens in the path of another host."""
        if self._is_allowed(place):
            return self._known(url)
        parts = urlsplit(url)
        user, _, host = parts.netloc.rpartition("@")
        query = parse_qsl(parts.query, keep_blank_values=True)
        is_own = host in self._hosts
        presigned = bool(query) and (not is_own or any(_TELLING_NAME.search(name) for name, _ in query))
        path = parts.path if is_own else "/".join(map(self._path_part, parts.path.split("/")))
        if presigned or user or path != parts.path:
            self.masked[place] = "link"
        redacted = urlencode([(name, REDACTED if presigned else value) for name, value in query])
        return self._known(urlunsplit((parts.scheme, host, path, redacted if query else "", "")))

    def text(self, text: str, place: str = "text") -> str:
        """Return a text without secrets, its links redacted."""
        text = self._known(text)
        if self._is_allowed(place):
            return text
        document = _json_in(text)
        if document is not None:
            redacted = self._walk(document, "", place, login=False)
            return text if redacted == document else as_json(redacted).decode().rstrip()
        text = _LINK.sub(lambda found: self.url(found[0], place), text)
        for shape in _SHAPES:
            text = shape.pattern.sub(partial(self._without, shape, place), text)
        return self._known(text)

    def document(self, body: bytes, place: str = "body", *, login: bool = False) -> bytes | None:
        """Return a redacted body, for example the response to a ``login``; None if it is not text."""
        try:
            text = body.decode()
        except UnicodeDecodeError:
            return None
        document = _json_in(text)
        if document is None:
            return (self._redacted(text) if login and text else self.text(text, place)).encode()
        redacted = self._walk(document, "", place, login=login)
        # unchanged, byte for byte, if there is nothing to redact
        return self._known(text).encode() if redacted == document else as_json(redacted).rstrip()

    def binary(self, body: bytes) -> bytes:
        """Return the bytes of a file without known secrets."""
        return self._known(body.decode("latin-1")).encode("latin-1")

    def _walk(self, value: Any, name: str, place: str, *, login: bool) -> Any:
        """Redact a JSON value; a telling name counts for everything in it."""
        if isinstance(value, dict):
            pairs = cast("dict[str, Any]", value).items()
            return {
                self._known(key): self._walk(each, _inner_name(name, key), f"{place}.{self._known(key)}", login=login)
                for key, each in pairs
            }
        if isinstance(value, list):
            items: list[Any] = value  # pyright: ignore[reportUnknownVariableType]  # any JSON
            return [self._walk(each, name, f"{place}.*", login=login) for each in items]
        if isinstance(value, str) and value:
            return self._value(value, name, place, login=login)
        if type(value) in (int, float) and _NEVER_A_NUMBER.search(name) and not self._is_allowed(place):
            return self._masked(REDACTED, place, "name")
        return value

    def _value(self, text: str, name: str, place: str, *, login: bool) -> str:
        """Redact the text of a field."""
        if login and len(text) >= _LONG:
            return self._redacted(text)
        is_header = _HEADERS_NAME.search(name) is not None
        if self._is_allowed(place) or not (is_header or _TELLING_NAME.search(name)):
            return self.text(text, place)
        # Any header may be harmless, such as a media type, so it is not looked for elsewhere.
        return self._masked(REDACTED if is_header else self._redacted(text), place, "name")

    def _without(self, shape: _Shape, place: str, found: re.Match[str]) -> str:
        secret = found["secret"]
        if secret == REDACTED or not shape.fits(secret):
            return found[0]
        start, end = (each - found.start() for each in found.span("secret"))
        return f"{found[0][:start]}{self._masked(self._redacted(secret), place, shape.name)}{found[0][end:]}"

    def _masked(self, replacement: str, place: str, shape: str) -> str:
        self.masked[place] = shape
        return replacement

    def _is_allowed(self, place: str) -> bool:
        return any(fnmatchcase(place, pattern) for pattern in self._allow)

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

    @staticmethod
    def _path_part(part: str) -> str:
        return REDACTED if _TOKEN_IN_PATH.fullmatch(part) else part

    def _known(self, text: str) -> str:
        return self._known_pattern().sub(REDACTED, text)

    def _known_pattern(self) -> re.Pattern[str]:
        if self._pattern is None:
            longest_first = sorted(self._secrets, key=len, reverse=True)
            spellings = [each for secret in longest_first for each in _spellings(secret)]
            self._pattern = re.compile("|".join(spellings) or r"(?!)")
        return self._pattern


def _inner_name(outer: str, name: str) -> str:
    """Return the name that counts for a field of an object: its own, unless it is within a telling one."""
    is_within = _TELLING_NAME.search(outer) or _HEADERS_NAME.search(outer)
    return outer if is_within and not _TELLING_NAME.search(name) else name


def _json_in(text: str) -> Any:
    """Return the object or list that a text consists of, or None; a key that occurs twice would hide a value."""
    if text.lstrip("\ufeff \t\r\n")[:1] not in ("{", "["):
        return None
    with suppress(ValueError, RecursionError):
        return json.loads(text.lstrip("\ufeff"), object_pairs_hook=_unique)
    return None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError
    return document


def _spellings(secret: str) -> list[str]:
    """Return patterns for a secret: in any case, with escaped characters, in hexadecimal, in base64 at any offset."""
    data = secret.encode()
    found = [f"(?i:{re.escape(secret) if len(secret) > _ESCAPED else ''.join(map(_character, secret))})"]
    if not secret.isascii():
        found.append(re.escape(data.decode("latin-1")))  # as in bytes that are no text
    if len(secret) >= _SHORTEST:
        found.append(f"(?i:{data.hex()})")
        found += [re.escape(_base64(data, offset, others)) for offset in range(3) for others in (b"+/", b"-_")]
    return found


def _character(character: str) -> str:
    """Return a pattern for one character of a secret, as it is or escaped as in JSON or a URL."""
    percent = "".join(f"%{byte:02x}" for byte in character.encode())
    escape = "".join(f"\\\\+u{unit:04x}" for unit in _units(character))
    slashes = r"\\*" if character in '/"\\' else ""
    return f"(?:{slashes}{re.escape(character)}|{percent}|{escape})"


def _units(character: str) -> list[int]:
    data = character.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]


def _base64(data: bytes, offset: int, altchars: bytes) -> str:
    """Return the characters of base64 that bytes determine alone, if they begin so many bytes into a group of three."""
    encoded = b64encode(bytes(offset) + data, altchars).decode().rstrip("=")
    return encoded[(0, 2, 3)[offset] : len(encoded) - ((offset + len(data)) % 3 > 0)]
