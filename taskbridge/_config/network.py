"""Proxy and certificates of a connection, from its settings and the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from taskbridge._config.settings import CommonSettings
from taskbridge.errors import ConfigError
from taskbridge.provider.secrets import strip_tracebacks
from taskbridge.transport import Network

_LOCAL: Final = "localhost,127.0.0.1,::1"  # never through a proxy that only the environment names


@strip_tracebacks
def network_of(settings: CommonSettings, environ: Mapping[str, str] | None = None) -> Network:
    """Return the network settings of a connection; the environment counts only if its own settings say nothing.

    ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY`` are read if `proxy` is not set, ``SSL_CERT_FILE`` and
    ``REQUESTS_CA_BUNDLE`` if `ca_bundle` is not. ``.netrc`` is never read.

    Raises:
        ConfigError: The certificate file does not exist.
    """
    environ = os.environ if environ is None else environ
    bundle = settings.ca_bundle or environ.get("SSL_CERT_FILE") or environ.get("REQUESTS_CA_BUNDLE") or None
    if bundle is not None and not Path(bundle).exists():
        raise ConfigError(f"ca_bundle {bundle} does not exist")
    if settings.proxy is not None:
        proxy = settings.proxy.get_secret_value()
        return Network(bundle, {"http": proxy, "https": proxy})
    lower = {key.lower(): value for key, value in environ.items() if value}
    proxies = {s: lower[f"{s}_proxy"] for s in ("http", "https") if f"{s}_proxy" in lower}
    return Network(bundle, proxies, f"{lower.get('no_proxy', '')},{_LOCAL}")
