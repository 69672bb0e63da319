"""`Watcher` for programs without asyncio: the asynchronous one, in a thread."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterable
from typing import Self

from taskbridge._engine.logs import log
from taskbridge._transport.threads import call_soon
from taskbridge.aio import Bridge
from taskbridge.errors import ConfigError, TaskbridgeError
from taskbridge.store.store import Store
from taskbridge.store.watcher import Watcher as AsyncWatcher


class Watcher:
    """Sends the submissions of a store and polls its tasks, in a thread; see `taskbridge.aio.Watcher`.

    Args:
        store: The store.
        config: Path of the configuration; None searches the usual places.
        connections: Names of the connections to work on; None for all of them.
        interval: Seconds between two reads of what other processes have stored.
        settle: Seconds after which a submission whose response was lost, and that the vendor does not show, counts as
            not received. Longer than `request_timeout` of the connection; for a file, one second for each 100 kB, which
            sending it may take, is added.
    """

    def __init__(
        self,
        store: Store,
        *,
        config: str | os.PathLike[str] | None = None,
        connections: Iterable[str] | None = None,
        interval: float = 1.0,
        settle: float = 120.0,
    ) -> None:
        self._store = store
        self._config = config
        self._names = None if connections is None else tuple(connections)
        self._interval = interval
        self._settle = settle
        self._handover = threading.Lock()  # guards the next three
        self._is_stopped = False
        self._watcher: AsyncWatcher | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._begun = threading.Event()  # or failed
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    @property
    def owned(self) -> frozenset[str]:
        """Names of the connections that this watcher works on at present."""
        return frozenset() if self._watcher is None else self._watcher.owned

    def run(self) -> None:
        """Work in this thread until another one calls `stop`, also while the database cannot be used for a time.

        It ends at once if `stop` was called before.

        Raises:
            ConfigError: A connection is not configured.
        """
        try:
            asyncio.run(self._run())
        finally:
            with self._handover:
                self._is_stopped = False

    def start(self) -> None:
        """Work in a thread of its own.

        Raises:
            ConfigError: A connection is not configured, or it works already.
        """
        if self._thread is not None:
            raise ConfigError("this watcher works already; stop it first, or make another one")
        self._begun.clear()
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run_thread, name="taskbridge-watcher", daemon=True)
        self._thread.start()
        self._begun.wait()
        if self._failure is not None:
            self.stop()

    def stop(self) -> None:
        """End the work, once the submissions that are being sent have a response, and wait for the thread.

        Raises:
            TaskbridgeError: What ended it before.
        """
        with self._handover:
            self._is_stopped = True  # also for a `run` that has no event loop yet
            if self._loop is not None and self._watcher is not None:
                call_soon(self._loop, self._watcher.stop)
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
            self._is_stopped = False
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def _run(self) -> None:
        async with Bridge.from_config(self._config) as bridge:
            for name in self._names or ():
                bridge[name]  # raises for a name that is not configured
            watcher = AsyncWatcher(
                self._store, bridge, connections=self._names, interval=self._interval, settle=self._settle
            )
            with self._handover:
                self._watcher, self._loop = watcher, asyncio.get_running_loop()
                if self._is_stopped:
                    watcher.stop()
            self._begun.set()
            await watcher.run()

    def _run_thread(self) -> None:
        try:
            self.run()
        except BaseException as error:  # noqa: BLE001  # `start` or `stop` raises it in the caller's thread
            self._failure = error
            if self._begun.is_set():
                text = error.message if isinstance(error, TaskbridgeError) else type(error).__name__
                log("store-watcher-failed", store=self._store.database.name, error=text)
        finally:
            self._begun.set()
