"""From the words of a command line to connections and refs."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import taskbridge._transport.requests  # noqa: F401  # pyright: ignore[reportUnusedImport]  # else the first look imports it
from taskbridge._config.defaults import default_clock
from taskbridge._config.files import CONNECTION_NAME, load_config
from taskbridge._engine.locate import connections_of
from taskbridge.client import Bridge, Client, connect
from taskbridge.errors import ConfigError, InvalidInput, printable
from taskbridge.models import TaskRef

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from taskbridge._config.files import Config
    from taskbridge.cli.screen import Screen

__all__ = ["listen", "open_bridge", "open_client", "open_refs", "unheard"]

_STDIN: Final = "-"


class _Notes(logging.Handler):
    """The library's warnings, one line each on stderr."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.WARNING)
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        self._screen.warn(record.getMessage())


def listen(screen: Screen) -> None:
    """Show the library's warnings."""
    logger = logging.getLogger("taskbridge")
    logger.handlers = [_Notes(screen)]
    logger.propagate = False


def unheard() -> None:
    """Show none of the library's warnings: a single record says what they would."""
    logging.getLogger("taskbridge").handlers = [logging.NullHandler()]


def open_refs(screen: Screen, path: str | None, texts: Iterable[str]) -> tuple[Bridge, list[TaskRef]]:
    """Open the connections that are meant, and no others; a broken one beside them does not matter.

    Args:
        screen: Takes the library's warnings.
        path: The configuration; None looks in the usual places.
        texts: ``connection:id``, or a bare id of the default connection; a dash reads more, one a line, from standard
            input.

    Returns:
        The bridge, and each ref once, in the order given.

    Raises:
        ConfigError: The configuration cannot be used, or has no such connection.
        InvalidInput: Standard input was to name tasks, and names none.
        InvalidTaskId: A text cannot be a ref.
        ProviderNotFound: A provider is not installed.
        ProviderLoadError: A provider cannot be used.
    """
    listen(screen)
    config = load_config(path)
    refs = list(dict.fromkeys(_ref(config, text) for text in _spread(screen, texts)))
    if not refs:
        raise InvalidInput("standard input names no task: one ref a line is wanted")
    return open_bridge(config, dict.fromkeys(ref.connection for ref in refs)), refs


def open_bridge(config: Config, names: Iterable[str]) -> Bridge:
    """Open these connections of a configuration, and no others.

    Raises:
        ConfigError: There is no such connection, or it cannot be used.
        ProviderNotFound: A provider is not installed.
        ProviderLoadError: A provider cannot be used.
    """
    clock = default_clock()
    wanted = {name: config.connection(name) for name in names}
    return Bridge(connections_of(replace(config, connections=wanted), clock), clock=clock)


def open_client(path: str | None, name: str | None) -> Client:
    """Open one connection.

    Args:
        path: The configuration; None looks in the usual places.
        name: The connection; None for the default.

    Raises:
        TaskbridgeError: It cannot be used, or none is named where there are several.
    """
    config = load_config(path)
    if name is None and config.default is None and len(config.connections) > 1:
        names = ", ".join(sorted(config.connections))
        raise ConfigError(f"name a connection of {names}, or add a default to {config.path}")
    return connect(connection=name, config=path)


def _spread(screen: Screen, texts: Iterable[str]) -> Iterator[str]:
    """The texts; for a dash, the lines of standard input."""
    for text in texts:
        if text != _STDIN:
            yield text
            continue
        with screen.signals.raising():
            lines = [line.strip() for line in sys.stdin or ()]
        yield from (line for line in lines if line and not line.startswith("#"))


def _ref(config: Config, text: str) -> TaskRef:
    head, colon, _ = text.partition(":")
    if colon and head in config.connections:
        return TaskRef(text)
    if colon and CONNECTION_NAME.fullmatch(head):
        config.connection(head)  # there is none: it says so, and which is near
    return TaskRef.of(_default(config, text), text)


def _default(config: Config, text: str) -> str:
    names = list(config.connections)
    if config.default is None and len(names) > 1:
        raise ConfigError(
            f"{printable(text, 80)!r} names no connection: write it as connection:id, with a connection of "
            f"{', '.join(sorted(names))}, or add a default to {config.path}"
        )
    if not names:
        raise ConfigError(f"{config.path} has no connections; add [connections.invoices]")
    return config.connection().name
