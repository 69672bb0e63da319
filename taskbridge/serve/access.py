"""Who may see the page: callers on this machine, those who have the token, or users whom a reverse proxy names.

Without a token and a proxy, only a loopback address is served, and only under a loopback name: a site in the user's
browser could otherwise let its own name point here, and read the page (DNS rebinding).
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import time
from collections.abc import Iterable
from hashlib import sha256
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from taskbridge.errors import ConfigError, printable

COOKIE: Final = "taskbridge_session"
_USER_HEADER: Final = "x-forwarded-user"
_SESSION: Final = 12 * 3600  # seconds
_LEAST_TOKEN: Final = 16  # characters
_LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class Access:
    """The rules of one server.

    Args:
        host: The address that it listens on.
        token: What callers must know; None for none.
        proxies: Addresses or networks of reverse proxies that name the user in ``X-Forwarded-User``.

    Raises:
        ConfigError: The rules would let anyone in, or cannot be used.
    """

    def __init__(self, host: str, token: str | None = None, proxies: Iterable[str] = ()) -> None:
        self._token = token
        self._proxies = [_network(each) for each in proxies]
        self._names = _LOCAL_NAMES | {host.lower()}
        if token is not None and len(token) < _LEAST_TOKEN:
            raise ConfigError(
                f"the token has fewer than {_LEAST_TOKEN} characters; make one with: openssl rand -hex 32"
            )
        if token is None and not self._proxies and not is_loopback(host):
            raise ConfigError(
                f"{printable(host, 100)} can be reached from other machines: give a token (--token-file, or "
                "TASKBRIDGE_SERVE_TOKEN) or a reverse proxy (--trust-proxy)"
            )
        # With a token, several servers behind one name know each other's sessions and forms.
        self._key = secrets.token_bytes(32) if token is None else sha256(f"taskbridge serve {token}".encode()).digest()

    @property
    def has_token(self) -> bool:
        """Whether there is a token to log in with."""
        return self._token is not None

    def user_of(self, request: Request) -> str | None:
        """Return who sends a request; None if it must log in first."""
        if self.is_proxy(request) and (user := request.headers.get(_USER_HEADER, "")):
            return f"user {user}"
        if self._token is not None:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            is_known = scheme.lower() == "bearer" and self.is_token(given.strip())
            return "token" if is_known or self._is_session(request.cookies.get(COOKIE, "")) else None
        if self._proxies:
            return None  # also on a loopback address: the proxy's callers come from there
        return "local" if self._is_local_name(request) else None

    def is_proxy(self, request: Request) -> bool:
        """Whether a request comes from a trusted reverse proxy."""
        if request.client is None:
            return False
        try:
            address = ipaddress.ip_address(request.client.host)
        except ValueError:
            return False
        return any(address in network for network in self._proxies)

    def _is_local_name(self, request: Request) -> bool:
        try:
            name = urlsplit(f"//{request.headers.get('host', '')}").hostname
        except ValueError:
            return False
        return name in self._names

    # The token and its session.

    def is_token(self, given: str) -> bool:
        """Whether a text is the token; takes equally long for any text."""
        expected = self._token
        digests = (sha256(text.encode("utf-8", "surrogateescape")).digest() for text in (given, expected or ""))
        return hmac.compare_digest(*digests) and expected is not None

    def log_in(self, request: Request, response: Response) -> None:
        """Give a browser a session."""
        ends = int(time.time()) + _SESSION
        is_https = request.url.scheme == "https" or (
            self.is_proxy(request) and request.headers.get("x-forwarded-proto") == "https"
        )
        value = f"{ends}.{self._sign(f'session {ends}')}"
        response.set_cookie(COOKIE, value, max_age=_SESSION, httponly=True, samesite="strict", secure=is_https)

    def _is_session(self, cookie: str) -> bool:
        ends, _, signature = cookie.partition(".")
        is_signed = hmac.compare_digest(signature.encode(), self._sign(f"session {ends}").encode())
        return is_signed and ends.isascii() and ends.isdigit() and int(ends) > time.time()

    # Forms.

    def form_token(self, user: str) -> str:
        """Return what a form of the page must contain, which other sites cannot know."""
        return self._sign(f"form {user}")

    def is_own_form(self, request: Request, user: str, given: str) -> bool:
        """Whether a form that was sent is one of the page's own."""
        expected = self.form_token(user).encode()
        return self.is_same_site(request) and hmac.compare_digest(given.encode("utf-8", "replace"), expected)

    def is_same_site(self, request: Request) -> bool:
        """Whether the browser, as far as it says, sends a request from a page of this server."""
        if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
            return False
        origin = request.headers.get("origin")
        return origin is None or origin.partition("://")[2] == request.headers.get("host")

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode("utf-8", "surrogateescape"), sha256).hexdigest()


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise ConfigError(f"{printable(text, 60)!r} is no address or network of a reverse proxy") from None
