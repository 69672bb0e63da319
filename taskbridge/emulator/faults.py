"""What can go wrong on request, by name: refusals, answers that are spoilt, lines that break, webhooks that disturb.

Nothing here knows a vendor. A fault either stands in place of the vendor, who then never sees the request, or spoils
the answer that he really gave: what he was asked to do is done.
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

from taskbridge.emulator.clock import TOOK

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from taskbridge.emulator.clock import VendorClock

__all__ = ["FAULTS", "WEBHOOK_FAULTS", "Act", "Exchange", "fault_named"]


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request that is to go wrong, and all that is needed for it.

    Attributes:
        scope: The request, as ASGI has it.
        receive: Takes the request's body.
        send: Sends the answer.
        app: The vendors.
        clock: Their time.
        line: The connection that it came on; None where there is none to be had.
        seconds: How long, for faults that take time.
        headers: More headers of the answer.
    """

    scope: Scope
    receive: Receive
    send: Send
    app: ASGIApp
    clock: VendorClock
    line: asyncio.Transport | None
    seconds: float
    headers: Mapping[str, str]

    async def answer(self, answer: Response) -> None:
        """Answer in place of the vendor."""
        for name, value in self.headers.items():
            answer.headers[name] = value
        await answer(self.scope, self.receive, self.send)

    async def asked(self) -> Response:
        """What the vendor really answers."""
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await self.app(self.scope, self.receive, keep)
        head, body = messages[0], b"".join(message.get("body", b"") for message in messages[1:])
        answer = Response(body, head["status"])
        answer.raw_headers = [(name, value) for name, value in head["headers"] if name.lower() != b"content-length"]
        answer.headers["Content-Length"] = str(len(body))
        return answer

    async def until_left(self) -> None:
        """Wait until the caller has left."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


Act: TypeAlias = Callable[[Exchange], Awaitable[None]]
"""Does what goes wrong."""


def refusal(status: int, body: bytes = b"", media_type: str = "application/json") -> Act:
    """The act of answering with a status; the vendor never sees the request."""

    async def refuse(exchange: Exchange) -> None:
        await exchange.answer(Response(body, status, media_type=media_type))

    return refuse


# In place of the vendor.


async def _hang(exchange: Exchange) -> None:
    if exchange.clock.is_virtual:
        await exchange.answer(Response(headers={TOOK: "inf"}))
    else:
        await exchange.until_left()


async def _reset(exchange: Exchange) -> None:
    if exchange.line is not None:
        with suppress(OSError):  # the caller was quicker
            bound: socket.socket = exchange.line.get_extra_info("socket")
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        exchange.line.abort()
    await exchange.until_left()


async def _page(exchange: Exchange) -> None:
    await exchange.answer(HTMLResponse("<html><title>502 Bad Gateway</title><h1>Bad Gateway</h1></html>", 200))


# After the vendor: what was asked for is done.


async def _slow(exchange: Exchange) -> None:
    answer = await exchange.asked()
    if exchange.clock.is_virtual:
        answer.headers[TOOK] = str(exchange.seconds)
    else:
        await exchange.clock.pause(exchange.seconds)
    await exchange.answer(answer)


async def _truncate(exchange: Exchange) -> None:
    answer = await exchange.asked()
    body = bytes(answer.body)
    await exchange.send({"type": "http.response.start", "status": answer.status_code, "headers": answer.raw_headers})
    await exchange.send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
    if exchange.line is not None:
        exchange.line.close()  # after what was written
    await exchange.until_left()


async def _lose(exchange: Exchange) -> None:
    await exchange.asked()
    await _reset(exchange)


async def _spoil(exchange: Exchange) -> None:
    await exchange.answer(_with_body(await exchange.asked(), lambda body: body[: len(body) // 2] + b",,"))


async def _empty(exchange: Exchange) -> None:
    await exchange.answer(_with_body(await exchange.asked(), lambda _: b""))


async def _mistake(exchange: Exchange) -> None:
    path, query = exchange.scope["path"], exchange.scope["query_string"].decode("latin-1")
    asked = {part for part in unquote(path).split("/") if any(c.isdigit() for c in part)}
    asked |= {value for _, value in parse_qsl(query)}

    def other(body: bytes) -> bytes:
        try:
            document = json.loads(body)
        except ValueError:
            return body
        return json.dumps(_renamed(document, asked)).encode()

    await exchange.answer(_with_body(await exchange.asked(), other))


def _with_body(answer: Response, change: Callable[[bytes], bytes]) -> Response:
    answer.body = change(bytes(answer.body))
    answer.headers["Content-Length"] = str(len(answer.body))
    return answer


def _renamed(value: Any, asked: set[str]) -> Any:
    """The same document about another task than the one asked for."""
    if isinstance(value, dict):
        return {key: _renamed(each, asked) for key, each in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_renamed(each, asked) for each in value]  # pyright: ignore[reportUnknownVariableType]  # any JSON
    if isinstance(value, bool) or not isinstance(value, str | int) or str(value) not in asked:
        return value
    return value + 1 if isinstance(value, int) else value[:-1] + ("0" if value[-1] != "0" else "1")


FAULTS: Final[Mapping[str, tuple[str, Act]]] = {
    "unauthorised": ("401: the credential is refused", refusal(401)),
    "forbidden": ("403: the account may not do this", refusal(403)),
    "not-found": ("404: the vendor knows of no such thing", refusal(404)),
    "rate-limited": ("429, with `retry_after` where it is given", refusal(429)),
    "server-error": ("500", refusal(500)),
    "unavailable": ("503, with `retry_after` where it is given", refusal(503)),
    "html": ("200 with a web page, as a broken gateway answers", _page),
    "hang": ("no answer until the caller leaves; the vendor never sees the request", _hang),
    "reset": ("the connection is reset; the vendor never sees the request", _reset),
    "answer-lost": ("the connection is reset after the vendor did what he was asked to do", _lose),
    "slow": ("the vendor's answer, `seconds` later (5 where they are not given)", _slow),
    "truncated": ("the vendor's answer breaks off in the middle", _truncate),
    "malformed-json": ("the vendor's answer, complete, but its JSON is broken", _spoil),
    "empty": ("the vendor's status and headers, but no body", _empty),
    "wrong-id": ("the vendor's answer, about another task than the one asked for", _mistake),
}
"""Name -> what happens to a request."""

WEBHOOK_FAULTS: Final[Mapping[str, str]] = {
    "webhook-duplicated": "the next webhook is sent twice",
    "webhook-late": "the next webhook is sent `seconds` of vendor time later (60 where they are not given)",
    "webhook-reordered": "the next webhook waits for the one after it, up to 30 s of vendor time",
}
"""Name -> what happens to a webhook."""


def fault_named(name: str) -> Act:
    """What a name stands for.

    Raises:
        ValueError: There is no such fault; the message lists those that there are.
    """
    if name not in FAULTS:
        raise ValueError(f"there is no fault {name!r}; there are {', '.join([*FAULTS, *WEBHOOK_FAULTS])}")
    return FAULTS[name][1]
