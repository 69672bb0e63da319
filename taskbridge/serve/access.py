"""Who may see the page: callers on this machine, those who have the token, or users whom a reverse proxy names.

Without a token and a proxy, only a loopback address is served, and only under a loopback name: a site in the user's
browser could otherwise let its own name point here, and read the page (DNS rebinding). Behind a proxy on this machine
such a site could also name a user, so there the names are known, too.
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
_LOOPBACK: Final = tuple(map(ipaddress.ip_network, ("127.0.0.0/8", "::1/128", "::ffff:127.0.0.0/104")))


class Access:
    """The rules of one server.

    Args:
        host: The address that it listens on.
        token: What callers must know; None for none.
        proxies: Addresses or networks of reverse proxies that name the user in ``X-Forwarded-User``.
        names: Names under which callers reach the server, beside those of this machine. With any, and without a token
            or a proxy, no other name is answered.

    Raises:
        ConfigError: The rules would let anyone in, or cannot be used.
    """

    def __init__(
        self, host: str, token: str | None = None, proxies: Iterable[str] = (), names: Iterable[str] = ()
    ) -> None:
        self._token = token
        self._proxies = [_network(each) for each in proxies]
        given = frozenset(_name(each) for each in names)
        is_local = token is None and not self._proxies
        self._names = _LOCAL_NAMES | {host.lower()} | given if given or is_local else None
        if not given and any(_is_of_this_machine(each) for each in self._proxies):
            raise ConfigError(
                "a reverse proxy on this machine needs the name under which browsers reach it, as in --host-name "
                "tasks.example.com; else a site in a browser on this machine could pass for the proxy (DNS rebinding)"
            )
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

    def refusal(self, request: Request) -> str:
        """Return why a request is answered to no one; empty if it is not."""
        if self._names is not None and _host_name(request.headers.get("host", "")) not in self._names:
            return "This server does not answer under this name. The option --host-name adds one."
        if self.is_proxy(request) and len(request.headers.getlist(_USER_HEADER)) > 1:
            return "The request names two users: the reverse proxy must remove X-Forwarded-User of its callers."
        return ""

    def user_of(self, request: Request) -> str | None:
        """Return who sends a request that is not refused; None if it must log in first."""
        if self.is_proxy(request) and (user := request.headers.get(_USER_HEADER, "")):
            return f"user {user}"
        if self._token is not None:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            is_known = scheme.lower() == "bearer" and self.is_token(given.strip())
            return "token" if is_known or self._is_session(request.cookies.get(COOKIE, "")) else None
        if self._proxies:
            return None  # also on a loopback address: the proxy's callers come from there
        return "local"

    def is_proxy(self, request: Request) -> bool:
        """Whether a request comes from a trusted reverse proxy."""
        if request.client is None:
            return False
        try:
            address = ipaddress.ip_address(request.client.host)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)  # an IPv6 socket shows callers over IPv4 as ::ffff:192.0.2.1
        return any(each in network for each in (address, mapped) if each is not None for network in self._proxies)

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
        return self._is_same_fetch_site(request) and not self._is_other_host(request)

    def is_host_changed(self, request: Request) -> bool:
        """Whether a request seems to be from a page of this server, but has reached it under another name."""
        return self._is_same_fetch_site(request) and self._is_other_host(request)

    def _is_same_fetch_site(self, request: Request) -> bool:
        return request.headers.get("sec-fetch-site", "same-origin") in {"same-origin", "none"}

    def _is_other_host(self, request: Request) -> bool:
        origin = request.headers.get("origin")
        return origin is not None and origin.partition("://")[2] != request.headers.get("host")

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode("utf-8", "surrogateescape"), sha256).hexdigest()


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host_name(host: str) -> str | None:
    """Return the name in a Host header, without its port; None if there is none."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _name(text: str) -> str:
    name = _host_name(text)
    if name is None or name != text.lower():
        raise ConfigError(f"--host-name takes a name such as tasks.example.com, not {printable(text, 100)!r}")
    return name


def _is_of_this_machine(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    return any(each.version == network.version and each.overlaps(network) for each in _LOOPBACK)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise ConfigError(f"{printable(text, 60)!r} is no address or network of a reverse proxy") from None
