"""A WSGI application that receives the webhooks of one connection, for Flask, Bottle, Pyramid or alone."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from taskbridge.client import Client
from taskbridge.contrib._receiver import TOO_LARGE, answer, answer_fields, refusal
from taskbridge.errors import ConfigError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse

    from taskbridge.contrib._receiver import OnEnd

__all__ = ["WebhookApp"]


class WebhookApp:
    """Receives the deliveries of one connection, at any path; the answers have no body.

    A request that is no POST, or whose body is too large, is refused before its body is read; what is not proved to be
    the vendor's is answered as `taskbridge.WebhookRejected` says, and 503 means that the vendor should deliver again.

    Args:
        client: A synchronous client.
        on_end: Called with each task whose end a delivery reports. It delays the answer, so it should be quick. If it
            raises, so does the application, and the next delivery calls it again.

    Raises:
        ConfigError: It is a client of `taskbridge.aio`, or the connection has no `webhook_secrets`.
        UnsupportedFeature: The vendor sends no webhooks.
    """

    def __init__(self, client: Client, on_end: OnEnd) -> None:
        if not isinstance(client, Client):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers need not be typed
            raise ConfigError("a WSGI application needs a synchronous client; taskbridge.contrib.asgi takes others")
        self._client = client
        self._on_end = on_end
        self._limit = client.delivery_limit()

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request; see PEP 3333."""
        headers = {name[5:].replace("_", "-"): str(value) for name, value in environ.items() if name[:5] == "HTTP_"}
        path = f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}".encode("latin-1")
        url = f"{quote(path)}?{environ.get('QUERY_STRING', '')}"
        status = self.respond(
            environ["REQUEST_METHOD"],
            headers,
            url,
            length=environ.get("CONTENT_LENGTH"),
            # A server that decodes a body in chunks says that it ends; of others, nothing may be read without a length.
            is_terminated=bool(environ.get("wsgi.input_terminated")),
            read=environ["wsgi.input"].read,
        )
        start_response(f"{status} {HTTPStatus(status).phrase}", [*answer_fields(status).items()])
        return [b""]

    def respond(
        self, method: str, headers: Any, url: str, *, length: str | None, is_terminated: bool, read: Any
    ) -> int:
        """Return the status that answers a request, for frameworks with requests of their own.

        Args:
            method: The HTTP method.
            headers: Header fields, as `Client.parse_webhook` takes them.
            url: The URL that was called, absolute or from its path on.
            length: The field Content-Length, if there is one.
            is_terminated: Whether `read` ends by itself where the body ends.
            read: Reads at most a number of bytes of the body.
        """
        status = refusal(method, length, self._limit)
        if status is not None:
            return status
        if not length and not is_terminated:
            return int(HTTPStatus.LENGTH_REQUIRED)
        body = _read(read, int(length) if length else self._limit + 1)
        if len(body) > self._limit:
            return TOO_LARGE
        return answer(self._client, self._on_end, headers, body, url=url)


def _read(read: Any, size: int) -> bytes:
    """Read a body of that size, or up to its end; a stream may return less than was asked for."""
    body = bytearray()
    while len(body) < size and (block := read(size - len(body))):
        body += block
    return bytes(body)
