"""Opens the database that a URL names."""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from taskbridge._config.registry import require_extra
from taskbridge.errors import ConfigError, printable
from taskbridge.provider.clock import Clock
from taskbridge.store.database import Database
from taskbridge.store.sqlite import SqliteDatabase

_POSTGRES = ("postgres", "postgresql")


def is_postgres(url: str | os.PathLike[str]) -> bool:
    """Whether a URL names a database in PostgreSQL."""
    return isinstance(url, str) and "://" in url and url.partition("://")[0].partition("+")[0] in _POSTGRES


def open_database(
    url: str | os.PathLike[str], lock_url: str | None, clock: Clock, *, alone_on_network: bool = False
) -> Database:
    """Open a database.

    Args:
        url: A path of a SQLite file, or a URL.
        lock_url: For PostgreSQL behind a connection pooler: the URL without it.
        clock: The time.
        alone_on_network: Whether to open a file on a network drive for this process alone, instead of refusing it.

    Raises:
        ConfigError: It cannot be used.
        StoreUnavailable: It cannot be reached at present.
    """
    if is_postgres(url):
        try:
            from taskbridge.store.postgresql import PostgresDatabase  # noqa: PLC0415  # only where it is used
        except ModuleNotFoundError as error:
            if error.name != "psycopg":
                raise
            raise require_extra("psycopg", "postgres", "a store in PostgreSQL") from None
        return PostgresDatabase(str(url), lock_url, clock)
    if lock_url is not None:
        raise ConfigError("lock_url is for a store in PostgreSQL")
    return SqliteDatabase(path_of(url), clock, alone_on_network=alone_on_network)


def path_of(url: str | os.PathLike[str]) -> Path:
    """Return the absolute path of the file that a store is in.

    Raises:
        ConfigError: It is not in a file.
    """
    if isinstance(url, str) and "://" in url:
        try:
            parsed = make_url(url)
        except ArgumentError:
            raise ConfigError("a store is a path, or a URL such as sqlite:////var/lib/taskbridge.db") from None
        if parsed.get_backend_name() != "sqlite":
            raise ConfigError(
                f"a store is in SQLite or PostgreSQL; {printable(parsed.get_backend_name(), 40)} is not supported"
            )
        name = parsed.database or ""
    else:
        name = os.fspath(url)
    if name in ("", ":memory:"):
        raise ConfigError("a store is a file: in memory, it would not survive the process")
    return Path(name).absolute()
