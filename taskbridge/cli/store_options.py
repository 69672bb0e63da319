"""The options that name a store, and the store that they name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

import click

from taskbridge.errors import ConfigError, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskbridge.store import Store

P = ParamSpec("P")
T = TypeVar("T")

STORE_VARIABLE: Final = "TASKBRIDGE_STORE"
LOCK_URL_VARIABLE: Final = "TASKBRIDGE_LOCK_URL"
_LOCK_URL: Final = "taskbridge.lock_url"  # key in the context's `meta`


def _keep_lock_url(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    ctx.meta[_LOCK_URL] = value


def with_store(command: Callable[P, T]) -> Callable[P, T]:
    """Add the options that name a store; a command gets the URL as `store`."""
    name_store = click.option(
        "--store",
        metavar="URL",
        envvar=STORE_VARIABLE,
        required=True,
        help=f"Path or URL of the store; default: {STORE_VARIABLE}.",
    )
    name_locks = click.option(
        "--lock-url",
        metavar="URL",
        envvar=LOCK_URL_VARIABLE,
        expose_value=False,
        callback=_keep_lock_url,
        help=f"URL for its locks, if --store leads to a connection pooler; default: {LOCK_URL_VARIABLE}.",
    )
    return name_store(name_locks(command))


def open_store(url: str) -> Store:
    """Open a store, and create it if it does not exist.

    Raises:
        ConfigError: The extra is missing, or the store cannot be used.
    """
    from taskbridge.store import Store  # noqa: PLC0415  # an extra, and heavy

    return Store(url, lock_url=click.get_current_context().meta.get(_LOCK_URL))


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
