"""The processes that are killed: a watcher, and a consumer with a relay."""

from __future__ import annotations

import logging
import os
import threading
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Final

import taskbridge as tb
from taskbridge.store import Event, StoreUnavailable

CONSUMER: Final = "billing"
SETTLE: Final = 15.0  # seconds; see `Watcher`


def watch(url: str, config: Path) -> None:
    """Work on the connections of a store."""
    _end_with_parent()
    logging.basicConfig(filename=config.with_suffix(".log"), format="%(asctime)s %(message)s")
    logging.getLogger("taskbridge").setLevel(logging.INFO)
    with _opened(url) as store:
        tb.Watcher(store, config=config, settle=SETTLE).run()


def consume(url: str, keys: Path) -> None:
    """Append the key of each event to a file."""
    _end_with_parent()
    file = os.open(keys, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def append(event: Event) -> None:
        os.write(file, f"{event.key}\n".encode())

    with _opened(url) as store:
        tb.Relay(store, CONSUMER, append, interval=0.2).run()


def _opened(url: str) -> tb.Store:
    """Open the store, as soon as the database can be reached."""
    while True:
        try:
            return tb.Store(url)
        except StoreUnavailable:
            threading.Event().wait(0.2)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
