"""`taskbridge serve` in a thread of a test."""

from __future__ import annotations

import asyncio
import http.client
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlencode

import taskbridge as tb
from taskbridge.aio import Bridge
from taskbridge.serve import Access, Job, Server, listen


class Served:
    """A server in a thread, with the requests that the tests need."""

    def __init__(
        self, store: tb.Store, access: Access, config: Path | None, jobs: Sequence[Job], **options: float
    ) -> None:
        self.reports: list[str] = []
        self.failure: BaseException | None = None
        self._bound = listen("127.0.0.1", 0)
        self.port: int = self._bound.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self._access, self._store, self._config, self._jobs = access, store, config, jobs
        self._options: dict[str, Any] = dict(options)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: Server | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._ready.wait(10)

    def _run(self) -> None:
        async def run() -> None:
            self._loop = asyncio.get_running_loop()
            config = self._config
            open_bridge = None if config is None else lambda: Bridge.from_config(config)
            self._server = Server(
                self._store,
                self._bound,
                self._access,
                open_bridge,
                self.reports.append,
                jobs=self._jobs,
                **self._options,
            )
            self._loop.call_later(0.05, self._ready.set)
            await self._server.run()

        try:
            asyncio.run(run())
        except tb.TaskbridgeError as error:
            self.failure = error
        finally:
            self._ready.set()

    def call(self, name: str) -> None:
        assert self._loop is not None
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(getattr(self._server, name))

    def stop(self) -> None:
        self.call("stop")
        self._thread.join(20)
        assert not self._thread.is_alive()
        self._bound.close()

    def request(
        self, path: str, method: str = "GET", body: Mapping[str, str] | bytes | None = None, **headers: str
    ) -> tuple[int, http.client.HTTPMessage, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            content = body if isinstance(body, bytes | None) else urlencode(body)
            if not isinstance(body, bytes | None):
                sent.setdefault("Content-Type", "application/x-www-form-urlencoded")
            connection.request(method, path, content, headers=sent)
            response = connection.getresponse()
            return response.status, response.headers, response.read().decode()
        finally:
            connection.close()

    def page(self, path: str = "/", **headers: str) -> str:
        status, _, text = self.request(path, "GET", None, **headers)
        assert status == 200
        return text


Serve: TypeAlias = Callable[..., Served]
