"""Requests whose response a vendor gives once (`Request.read_once`): sent once, kept, answered from there afterwards.

The whole response goes into a temporary file first, before anything limits or reads it: a limit of the caller's must
not be what loses it. A request that may have reached the vendor is not repeated, since the vendor may have deleted the
result when the transfer began. The error says so, and the next call asks the vendor again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from taskbridge._engine.effects import RunBlocking, Sleep
from taskbridge._engine.redirects import MIN_RATE
from taskbridge.errors import ContractError, DeadlineExceeded, ResponseTooLarge, TaskbridgeError, TransportError
from taskbridge.provider.http import Response
from taskbridge.provider.sink import ResponseSink

if TYPE_CHECKING:
    from taskbridge._engine.connection import Connection
    from taskbridge._engine.effects import EffectFlow
    from taskbridge._engine.kept_results import KeptResponse
    from taskbridge.provider.http import Request

_LARGEST: Final = 4 << 30  # bytes of one result
_PAUSE: Final = 0.05  # seconds between two looks whether another caller has the result by now
_BLOCK: Final = 1 << 16  # bytes
_KEPT: Final = frozenset({200, 301, 302, 303, 307, 308})
_GONE: Final = frozenset({404, 410})


def read_once(
    connection: Connection, request: Request, deadline: float, send: Callable[[Request], EffectFlow[Response]]
) -> EffectFlow[Response]:
    """Return the response to a request that the vendor answers once; `send` sends it."""
    results, url = connection.kept_results, request.url
    while not results.begin(url):
        if connection.clock.monotonic() + _PAUSE >= deadline:
            error = DeadlineExceeded("the total time ran out while another call fetched the result")
            error.written = False
            raise error
        yield Sleep(_PAUSE)
    try:
        kept = results.find(url)
        if kept is None:
            path: Path = yield RunBlocking(results.new_path)
            response = yield from _fetch(connection, request, path, send)
            if response.status not in _KEPT:
                if response.status < 300:  # such as 202: not yet
                    response.body = yield RunBlocking(lambda: _taken(path))
                return response
            kept = yield RunBlocking(lambda: results.keep(url, response, path))
        answer: Response = yield RunBlocking(lambda: _answer(kept, request, connection.max_body))
        return answer
    finally:
        results.end(url)


def _fetch(
    connection: Connection, request: Request, path: Path, send: Callable[[Request], EffectFlow[Response]]
) -> EffectFlow[Response]:
    results, url, title = connection.kept_results, request.url, connection.provider.title
    sink = ResponseSink(path, _LARGEST, bytes_per_second=MIN_RATE)
    sent = replace(request, save_to=sink, response_type="bytes", new_connection=True, idempotent=False)
    try:
        response = yield from send(sent)
    except TaskbridgeError as error:
        if isinstance(error, ContractError) or (isinstance(error, TransportError) and error.written):
            results.note_broken(url)
            _add(error, f"{title} gives each result once, so it may be gone")
        _remove(path)
        raise
    except BaseException:  # the disk is full, or the call was cancelled
        results.note_broken(url)
        _remove(path)
        raise
    if response.status in _GONE:
        gone = connection.provider.error(response)
        reason = "the connection broke while it was sent" if results.is_broken(url) else "it may have been read before"
        _add(gone, f"{title} gives each result once, and {reason}")
        raise gone
    return response


def _remove(path: Path) -> None:
    with suppress(OSError):  # there is an error already
        path.unlink(missing_ok=True)


def _taken(path: Path) -> bytes:
    """Return the content of a file, which is removed; empty if it does not exist."""
    content = path.read_bytes() if path.exists() else b""
    path.unlink(missing_ok=True)
    return content


def _add(error: TaskbridgeError, words: str) -> None:
    error.message = f"{error.message}; {words}"
    error.args = (error.message,)


def _answer(kept: KeptResponse, request: Request, max_body: int) -> Response:
    """Return what is kept as the response to a request."""
    sink, content = request.save_to, kept.content
    if sink is not None and kept.status < 300:
        sink.begin(kept.status, {"content-length": str(kept.size)}, compressed=False)
        sink.check_limit(kept.size, kept.status)
        with sink.path.open("wb") as target:
            if isinstance(content, bytes):
                target.write(content)
                sink.add(len(content))
            else:
                with content.open("rb") as source:
                    while block := source.read(_BLOCK):
                        target.write(block)
                        sink.add(len(block))
        sink.finish(framed=True, status=kept.status)
        content = b""
    elif kept.size > max_body:
        message = f"the result has {kept.size} bytes, more than max_body ({max_body}); set max_body for the next one"
        raise ResponseTooLarge(message, http_status=kept.status)
    elif isinstance(content, Path):
        content = content.read_bytes()
    response = Response(kept.status, kept.headers, content, kept.received_at)
    response.authorized = request.authorized
    return response
