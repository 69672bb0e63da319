"""Proxy and certificates of a connection, from its settings and the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from taskbridge._config.settings import CommonSettings
from taskbridge.errors import ConfigError
from taskbridge.provider.secrets import strip_tracebacks
from taskbridge.transport import Network

_SCHEMES: Final = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
_LOCAL: Final = "localhost,127.0.0.1,::1"  # never through a proxy that only the environment names


@strip_tracebacks
def network_of(settings: CommonSettings, environ: Mapping[str, str] | None = None) -> Network:
    """Return the network settings of a connection; the environment counts only if its own settings say nothing.

    ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY`` are read if `proxy` is not set, ``SSL_CERT_FILE`` and
    ``REQUESTS_CA_BUNDLE`` if `ca_bundle` is not. ``.netrc`` is never read.

    Raises:
        ConfigError: The certificate file does not exist, or a proxy cannot be used.
    """
    environ = os.environ if environ is None else environ
    bundle = settings.ca_bundle or environ.get("SSL_CERT_FILE") or environ.get("REQUESTS_CA_BUNDLE") or None
    if bundle is not None and not Path(bundle).exists():
        raise ConfigError(f"ca_bundle {bundle} does not exist")
    if settings.proxy is not None:
        proxy = _proxy_url(settings.proxy.get_secret_value(), "proxy")
        return Network(bundle, {"http": proxy, "https": proxy})
    lower = {key.lower(): value for key, value in environ.items() if value}
    names = {scheme: f"{scheme}_proxy" for scheme in ("http", "https")}
    proxies = {scheme: _proxy_url(lower[name], name.upper()) for scheme, name in names.items() if name in lower}
    return Network(bundle, proxies, f"{lower.get('no_proxy', '')},{_LOCAL}")


def _proxy_url(text: str, place: str) -> str:
    """Return the URL of a proxy; without a scheme it is an http proxy."""
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable:
        raise ConfigError(f"{place} is no URL of a proxy; it begins with one of {', '.join(_SCHEMES)}, then ://")
    return url
