"""Which transport sends the requests: libcurl's where it is installed and can do what is needed, else requests'."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

from taskbridge._config.network import network_of
from taskbridge._config.registry import distribution_name, require_extra
from taskbridge.errors import ConfigError

if TYPE_CHECKING:
    from taskbridge._config.settings import CommonSettings
    from taskbridge.transport import AsyncTransport, Network, Transport

_LEAST_VERSION: Final = 0x07_57_00  # libcurl 7.87, the first whose options are all used here
_OPTIONS: Final = ("PREREQFUNCTION", "REQUEST_TARGET", "PROXY_CAINFO")


def uses_curl(setting: str) -> bool:
    """Whether libcurl sends the requests of connections with this `transport` setting.

    Raises:
        ConfigError: The setting is ``curl``, and libcurl cannot be used.
    """
    if setting == "requests":
        return False
    problem = curl_problem()
    if problem and setting == "curl":
        raise require_extra("pycurl", "curl", 'transport = "curl"') if problem == _MISSING else ConfigError(problem)
    return not problem


_MISSING: Final = "pycurl is not installed"


@cache
def curl_problem() -> str:
    """Return why libcurl cannot be used; empty if it can."""
    try:
        import pycurl  # noqa: PLC0415  # an extra
    except ImportError as error:
        return _MISSING if isinstance(error, ModuleNotFoundError) else f"pycurl cannot be imported: {error}"
    info = pycurl.version_info()
    missing = [name for name in _OPTIONS if not hasattr(pycurl, name)]
    if info[2] < _LEAST_VERSION or missing:
        return f"libcurl {info[1]} is too old, or pycurl was built without {', '.join(missing) or 'its options'}"
    if not info[4] & pycurl.VERSION_SSL or not info[4] & pycurl.VERSION_ASYNCHDNS:
        return f"libcurl {info[1]} was built without TLS or without a resolver that does not block"
    return ""


def check_network(settings: CommonSettings) -> None:
    """Refuse network settings with which no request could be sent.

    Raises:
        ConfigError: The certificates or a proxy cannot be used, or libcurl is needed and cannot be used.
    """
    proxies = network_of(settings).proxies.values()
    needs_curl = any(proxy.startswith("socks") for proxy in proxies)
    if needs_curl and (settings.transport == "requests" or curl_problem()):
        raise ConfigError(
            f"a SOCKS proxy needs libcurl: pip install '{distribution_name()}[curl]', transport = \"auto\""
        )
    if settings.transport == "curl":
        uses_curl(settings.transport)


def make_transport(network: Network, user_agent: str, size: int, setting: str) -> Transport:
    """Return a synchronous transport with this many connections."""
    if uses_curl(setting):
        from taskbridge._transport.curl import CurlTransport  # noqa: PLC0415  # an extra

        return CurlTransport(network, size=size, user_agent=user_agent)
    from taskbridge._transport.requests import RequestsTransport  # noqa: PLC0415  # not needed with libcurl

    return RequestsTransport(network, size=size, user_agent=user_agent)


def make_async_transport(network: Network, user_agent: str, size: int, setting: str) -> AsyncTransport:
    """Return an asynchronous transport with this many connections."""
    if uses_curl(setting):
        from taskbridge._transport.curl import AsyncCurlTransport  # noqa: PLC0415  # an extra

        return AsyncCurlTransport(network, size=size, user_agent=user_agent)
    from taskbridge._transport.threads import ThreadedTransport  # noqa: PLC0415  # not needed with libcurl

    return ThreadedTransport(make_transport(network, user_agent, size, setting), size=size)


def transport_name(setting: str) -> str:
    """Describe the transport of connections with this setting: ``requests``, or ``curl`` with libcurl's version."""
    if not uses_curl(setting):
        return "requests"
    import pycurl  # noqa: PLC0415  # an extra

    return f"curl ({pycurl.version})"
