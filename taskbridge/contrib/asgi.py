"""ASGI applications that receive webhooks, for Starlette, FastAPI, Litestar or alone.

`WebhookApp` receives those of one connection, and calls a function. `StoredWebhooks` receives those of all connections,
and stores them for the process that polls their tasks.
"""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

from taskbridge.aio import Bridge, Client
from taskbridge.contrib._receiver import (
    TOO_LARGE,
    UNKNOWN_PATH,
    answer_async,
    answer_by_storing,
    answer_fields,
    refusal,
)
from taskbridge.errors import ConfigError, UnsupportedFeature

if TYPE_CHECKING:
    from taskbridge._engine.webhooks import Headers
    from taskbridge.client import Bridge as SyncBridge
    from taskbridge.contrib._receiver import OnEnd
    from taskbridge.store import Store

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

__all__ = ["StoredWebhooks", "WebhookApp"]


class _App(ABC):
    """Answers deliveries, without a body."""

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request; see the ASGI specification."""
        if scope["type"] != "http":
            raise NotImplementedError(f"{scope['type']}: this application answers HTTP requests only")
        status = await self._respond(scope, receive)
        fields = [(name.lower().encode(), value.encode()) for name, value in answer_fields(status).items()]
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": b""})

    async def _respond(self, scope: MutableMapping[str, Any], receive: Receive) -> int:
        """Return the status that answers a request."""
        fields: list[tuple[bytes, bytes]] = list(scope["headers"])
        length = next((value.decode("latin-1") for name, value in fields if name.lower() == b"content-length"), None)
        limit = self._limit_of(scope)
        if limit is None:
            return UNKNOWN_PATH
        refused = refusal(scope["method"], length, limit)
        if refused is not None:
            return refused
        body = await _read(receive, limit)
        if body is None:
            return TOO_LARGE
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]
        query = scope["query_string"].decode("latin-1")
        return await self._answer(scope, headers, body, f"{quote(scope['path'])}?{query}")

    @abstractmethod
    def _limit_of(self, scope: MutableMapping[str, Any]) -> int | None:
        """Return the most bytes of the body; None if nothing is received at this path."""

    @abstractmethod
    async def _answer(self, scope: MutableMapping[str, Any], headers: Headers, body: bytes, url: str) -> int:
        """Process a delivery; return the status of the answer."""


class WebhookApp(_App):
    """Receives the deliveries of one connection, at any path; the answers have no body.

    A request that is no POST, or whose body is too large, is refused before its body is read; what is not proved to be
    the vendor's is answered as `taskbridge.WebhookRejected` says, and 503 means that the vendor should deliver again.

    Args:
        client: A client of `taskbridge.aio`, which belongs to the event loop of the server.
        on_end: Called with each task whose end a delivery reports; may be a coroutine function. It delays the answer,
            so it should be quick. If it raises, so does the application, and the next delivery calls it again.

    Raises:
        ConfigError: It is a synchronous client, or the connection has no `webhook_secrets`.
        UnsupportedFeature: The vendor sends no webhooks.
    """

    def __init__(self, client: Client, on_end: OnEnd) -> None:
        if not isinstance(client, Client):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers need not be typed
            raise ConfigError(
                "an ASGI application needs a client of taskbridge.aio; taskbridge.contrib.wsgi takes others"
            )
        self._client = client
        self._on_end = on_end
        self._limit = client.delivery_limit()

    def _limit_of(self, scope: MutableMapping[str, Any]) -> int | None:  # noqa: ARG002  # any path
        return self._limit

    async def _answer(self, scope: MutableMapping[str, Any], headers: Headers, body: bytes, url: str) -> int:  # noqa: ARG002  # as above
        return await answer_async(self._client, self._on_end, headers, body, url=url)


class StoredWebhooks(_App):
    """Receives the deliveries of all connections, at ``/<connection>`` below the path where it is mounted.

    A delivery is proved, stored, and answered 204 once it is on disk. The vendor is not asked: the process that owns
    the connection, which runs a `taskbridge.Watcher` on the same store, polls the task at once if it is watched. A
    webhook that is delivered again, also to another process, is answered 204 and has no effect. While the store cannot
    be written the answer is 503, so that the vendor delivers again. What follows the name in the path may be a secret.

    Args:
        store: The store; any number of processes may receive webhooks for it.
        bridge: The connections; None for those of the configuration.
        config: Path of the configuration; None searches the usual places.

    Raises:
        ConfigError: No connection has `webhook_secrets`.
    """

    def __init__(
        self,
        store: Store,
        bridge: Bridge | SyncBridge | None = None,
        *,
        config: str | os.PathLike[str] | None = None,
    ) -> None:
        self._store = store
        self._bridge = bridge or Bridge.from_config(config)
        self._limits: dict[str, int] = {}
        for name in self._bridge.connections:
            with suppress(ConfigError, UnsupportedFeature):
                self._limits[name] = self._bridge[name].delivery_limit()
        if not self._limits:
            raise ConfigError(
                "no connection has webhook_secrets, so no webhook could be proved; add them to the configuration"
            )

    def _limit_of(self, scope: MutableMapping[str, Any]) -> int | None:
        return self._limits.get(_connection_of(scope))

    async def _answer(self, scope: MutableMapping[str, Any], headers: Headers, body: bytes, url: str) -> int:
        answered = answer_by_storing(self._bridge[_connection_of(scope)], self._store, headers, body, url=url)
        return answered if isinstance(answered, int) else await asyncio.to_thread(answered)


def _connection_of(scope: MutableMapping[str, Any]) -> str:
    """Return the first segment of the path, below the one where the application is mounted."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    if path.startswith(f"{root}/"):  # the specification; some frameworks leave the root out
        path = path.removeprefix(root)
    return path.lstrip("/").partition("/")[0]


async def _read(receive: Receive, limit: int) -> bytes | None:
    """Return the body; None if it is too large, or breaks off."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if message["type"] == "http.disconnect" or len(body) > limit:
            return None
        if not message.get("more_body", False):
            return bytes(body)
