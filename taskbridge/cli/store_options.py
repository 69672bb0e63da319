"""The option that names a store, and the store that it names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from taskbridge.errors import ConfigError, printable

if TYPE_CHECKING:
    from taskbridge.store import Store

STORE_VARIABLE: Final = "TASKBRIDGE_STORE"

with_store = click.option(
    "--store",
    metavar="URL",
    envvar=STORE_VARIABLE,
    required=True,
    help=f"Path or URL of the store; default: {STORE_VARIABLE}.",
)


def open_store(url: str) -> Store:
    """Open a store, and create it if it does not exist.

    Raises:
        ConfigError: The extra is missing, or the store cannot be used.
    """
    from taskbridge.store import Store  # noqa: PLC0415  # an extra, and heavy

    return Store(url)


def open_existing_store(url: str) -> Store:
    """Open a store that exists.

    Raises:
        ConfigError: The extra is missing, or there is no store, or it cannot be used.
    """
    if _is_missing(url):
        shown = printable(url, 300)
        raise ConfigError(f"there is no store {shown}; create it with: taskbridge store init --store {shown}")
    return open_store(url)


def _is_missing(url: str) -> bool:
    """Whether a store would be a file that does not exist."""
    if "://" not in url:
        return not Path(url).exists()
    import taskbridge.store  # noqa: F401, PLC0415  # pyright: ignore[reportUnusedImport]  # names the missing extra
    from taskbridge.store.dialects import is_postgres, path_of  # noqa: PLC0415  # an extra, and heavy

    return not is_postgres(url) and not path_of(url).exists()
