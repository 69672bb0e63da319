"""An ASGI application that receives the webhooks of one connection, for Starlette, FastAPI, Litestar or alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

from taskbridge.aio import Client
from taskbridge.contrib._receiver import TOO_LARGE, WRONG_METHOD, UnderWay, answer_async, refusal
from taskbridge.errors import ConfigError

if TYPE_CHECKING:
    from taskbridge.contrib._receiver import OnEnd

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

__all__ = ["WebhookApp"]


class WebhookApp:
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
        self._under_way = UnderWay()
        self._limit = client.delivery_limit()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request; see the ASGI specification."""
        if scope["type"] != "http":
            raise NotImplementedError(f"{scope['type']}: this application answers HTTP requests only")
        fields: list[tuple[bytes, bytes]] = list(scope["headers"])
        length = next((value.decode("latin-1") for name, value in fields if name.lower() == b"content-length"), None)
        status = refusal(scope["method"], length, self._limit)
        if status is None:
            body = await self._read(receive)
            if body is None:
                status = TOO_LARGE
            else:
                headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]
                query = scope["query_string"].decode("latin-1")
                url = f"{quote(scope['path'])}?{query}"
                status = await answer_async(self._client, self._on_end, self._under_way, headers, body, url=url)
        allow = [(b"allow", b"POST")] if status == WRONG_METHOD else []
        empty = [] if status == HTTPStatus.NO_CONTENT else [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": status, "headers": [*allow, *empty]})
        await send({"type": "http.response.body", "body": b""})

    async def _read(self, receive: Receive) -> bytes | None:
        """Return the body; None if it is too large, or breaks off."""
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if message["type"] == "http.disconnect" or len(body) > self._limit:
                return None
            if not message.get("more_body", False):
                return bytes(body)
