"""Proxy and certificates of a connection, from its settings and the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from taskbridge._config.settings import CommonSettings
from taskbridge.errors import ConfigError
from taskbridge.provider.secrets import secrets_in_url, strip_tracebacks
from taskbridge.transport import Network

_SCHEMES: Final = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
_BUNDLES: Final = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")  # the first that is set counts
_LOCAL: Final = "localhost,127.0.0.1,::1"  # never through a proxy that only the environment names


@strip_tracebacks
def network_of(settings: CommonSettings, environ: Mapping[str, str] | None = None) -> Network:
    """Return the network settings of a connection; the environment counts only if its own settings say nothing.

    ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY`` are read if `proxy` is not set, ``SSL_CERT_FILE``,
    ``REQUESTS_CA_BUNDLE`` and ``CURL_CA_BUNDLE`` if `ca_bundle` is not. ``.netrc`` is never read. Whether a file that
    the environment names can be read only matters once TLS needs it.

    Raises:
        ConfigError: The `ca_bundle` of the settings does not exist, or a proxy cannot be used.
    """
    environ = os.environ if environ is None else environ
    bundle, source = settings.ca_bundle, "ca_bundle"
    if bundle is None:
        source = next((name for name in _BUNDLES if environ.get(name)), source)
        bundle = environ.get(source)
    elif not Path(bundle).exists():
        raise ConfigError(f"ca_bundle {bundle} does not exist")
    found = _proxies(settings, environ)
    proxies = {scheme: _proxy_url(text, place) for scheme, (text, place) in found.items()}
    direct = "" if settings.proxy is not None else f"{_variables(environ).get('no_proxy', '')},{_LOCAL}"
    return Network(bundle, proxies, direct, source)


def proxy_secrets(settings: CommonSettings) -> frozenset[str]:
    """Return the credentials of the proxies that a connection may use."""
    found = _proxies(settings, os.environ).values()
    return frozenset[str]().union(*(secrets_in_url(_with_scheme(text)) for text, _ in found))


def _proxies(settings: CommonSettings, environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return, by the scheme of the requests, the text that names a proxy and where it was found."""
    if settings.proxy is not None:
        return dict.fromkeys(("http", "https"), (settings.proxy.get_secret_value(), "proxy"))
    variables = _variables(environ)
    names = {scheme: f"{scheme}_proxy" for scheme in ("http", "https")}
    return {scheme: (variables[name], name.upper()) for scheme, name in names.items() if name in variables}


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    return {key.lower(): value for key, value in environ.items() if value}


def _proxy_url(text: str, place: str) -> str:
    """Return the URL of a proxy; without a scheme it is an http proxy."""
    url = _with_scheme(text)
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable:
        raise ConfigError(f"{place} is no URL of a proxy; it begins with one of {', '.join(_SCHEMES)}, then ://")
    return url


def _with_scheme(text: str) -> str:
    return text if "://" in text else f"http://{text}"
