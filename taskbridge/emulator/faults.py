"""The faults that a test can inject, by name: error responses, damaged responses, broken connections, odd webhooks.

Nothing here is specific to a vendor. A fault either replaces the vendor, which then never sees the request, or damages
its response: then the vendor has done what was requested.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast
from urllib.parse import parse_qsl, unquote

from starlette.responses import HTMLResponse, Response

from taskbridge.emulator.clock import SIMULATED_SECONDS

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from taskbridge.emulator.clock import VendorClock


@dataclass(frozen=True, slots=True)
class FaultContext:
    """One request into which a fault is injected."""

    scope: Scope
    receive: Receive
    send: Send
    app: ASGIApp  # the vendors
    clock: VendorClock  # their time
    transport: asyncio.Transport | None  # the TCP connection; None if it was not found
    seconds: float  # for faults that take time
    headers: Mapping[str, str]  # additional ones of the response
    error_response: Callable[[int, str], Response]  # a vendor's own response with an error status, by path

    async def respond(self, response: Response) -> None:
        """Send a response."""
        for name, value in self.headers.items():
            response.headers[name] = value
        await response(self.scope, self.receive, self.send)

    async def vendor_response(self) -> Response:
        """Pass the request to the vendor, and return its response without sending it."""
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await self.app(self.scope, self.receive, keep)
        head, body = messages[0], b"".join(message.get("body", b"") for message in messages[1:])
        response = Response(body, head["status"])
        response.raw_headers = [(name, value) for name, value in head["headers"] if name.lower() != b"content-length"]
        response.headers["Content-Length"] = str(len(body))
        return response

    async def until_disconnected(self) -> None:
        """Wait until the caller has closed the connection."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


Fault: TypeAlias = Callable[[FaultContext], Awaitable[None]]
"""Answers, or fails to answer, one request."""


def respond_with(status: int, body: bytes | None = None, media_type: str = "application/json") -> Fault:
    """Return the fault of responding with a status; the vendor never sees the request.

    Without a body, the response is the one that the vendor has for this status.
    """

    async def respond(context: FaultContext) -> None:
        if body is None:
            await context.respond(context.error_response(status, context.scope["path"]))
        else:
            await context.respond(Response(body, status, media_type=media_type))

    return respond


# Instead of the vendor.


async def _hang(context: FaultContext) -> None:
    if context.clock.is_virtual:
        await context.respond(Response(headers={SIMULATED_SECONDS: "inf"}))
    else:
        await context.until_disconnected()


async def _reset(context: FaultContext) -> None:
    if context.transport is not None:
        with suppress(OSError):  # the caller closed it first
            bound: socket.socket = context.transport.get_extra_info("socket")
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        context.transport.abort()
    await context.until_disconnected()


async def _page(context: FaultContext) -> None:
    await context.respond(HTMLResponse("<html><title>502 Bad Gateway</title><h1>Bad Gateway</h1></html>", 200))


# After the vendor, which has done what was requested.


async def _slow(context: FaultContext) -> None:
    response = await context.vendor_response()
    if context.clock.is_virtual:
        response.headers[SIMULATED_SECONDS] = str(context.seconds)
    else:
        await context.clock.hold(context.seconds)
    await context.respond(response)


async def _truncate(context: FaultContext) -> None:
    response = await context.vendor_response()
    body = bytes(response.body)
    await context.send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await context.send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
    if context.transport is not None:
        context.transport.close()  # after what was written
    await context.until_disconnected()


async def _lose_response(context: FaultContext) -> None:
    await context.vendor_response()
    await _reset(context)


async def _time_out(context: FaultContext) -> None:
    await context.vendor_response()
    await context.respond(Response("request timeout", 408, media_type="text/plain"))


def _with_body(change: Callable[[FaultContext, bytes], bytes]) -> Fault:
    async def respond(context: FaultContext) -> None:
        response = await context.vendor_response()
        response.body = change(context, bytes(response.body))
        response.headers["Content-Length"] = str(len(response.body))
        await context.respond(response)

    return respond


def _about_another_task(context: FaultContext, body: bytes) -> bytes:
    path, query = context.scope["path"], context.scope["query_string"].decode("latin-1")
    requested = {part for part in unquote(path).split("/") if any(c.isdigit() for c in part)}
    requested |= {value for _, value in parse_qsl(query)}
    try:
        return json.dumps(_with_other_ids(json.loads(body), requested)).encode()
    except ValueError:
        return body


def _with_other_ids(value: Any, requested: set[str]) -> Any:
    """Return the same document about another task."""
    if isinstance(value, dict):
        return {key: _with_other_ids(each, requested) for key, each in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_with_other_ids(each, requested) for each in value]  # pyright: ignore[reportUnknownVariableType]  # any JSON
    if isinstance(value, bool) or not isinstance(value, str | int) or str(value) not in requested:
        return value
    return value + 1 if isinstance(value, int) else value[:-1] + ("0" if value[-1] != "0" else "1")


FAULTS: Final[Mapping[str, tuple[str, Fault]]] = {
    "unauthorized": ("401: the credential is rejected", respond_with(401)),
    "forbidden": ("403: the account may not do this", respond_with(403)),
    "not-found": ("404: the resource does not exist", respond_with(404)),
    "rate-limited": ("429, with `retry_after` if given", respond_with(429)),
    "server-error": ("500", respond_with(500)),
    "unavailable": ("503, with `retry_after` if given", respond_with(503)),
    "html": ("200 with a web page, as broken gateways send it", _page),
    "hang": ("no response until the caller disconnects; the vendor never sees the request", _hang),
    "reset": ("the connection is reset; the vendor never sees the request", _reset),
    "response-lost": ("the connection is reset after the vendor has done what was requested", _lose_response),
    "proxy-timeout": ("408 from a proxy, after the vendor has done what was requested", _time_out),
    "slow": ("the vendor's response, `seconds` later (default 5)", _slow),
    "truncated": ("the vendor's response ends in the middle", _truncate),
    "malformed-json": (
        "the vendor's response, complete, but with invalid JSON",
        _with_body(lambda _, body: body[: len(body) // 2] + b",,"),
    ),
    "empty": ("the vendor's status and headers, but no body", _with_body(lambda _context, _body: b"")),
    "wrong-id": ("the vendor's response, about another task than the requested one", _with_body(_about_another_task)),
}
"""Name -> what happens to a request, and the fault."""

WEBHOOK_FAULTS: Final[Mapping[str, str]] = {
    "webhook-duplicated": "the next webhook is sent twice",
    "webhook-late": "the next webhook is sent `seconds` of vendor time later (default 60)",
    "webhook-reordered": "the next webhook waits for the one after it, up to 30 s of vendor time",
}
"""Name -> what happens to a webhook."""


def fault_named(name: str) -> Fault:
    """Return the fault of that name; a `ValueError` lists the existing ones."""
    if name not in FAULTS:
        raise ValueError(f"there is no fault {name!r}; choose from {', '.join([*FAULTS, *WEBHOOK_FAULTS])}")
    return FAULTS[name][1]
