"""Real traffic, written down and given out again: `RecordingTransport` and `ReplayTransport`.

A recording is a text file of JSON lines, one for each request and its answer, in the order of the answers. It holds no
credential (`taskbridge.testing.redaction`), so it can be committed and read. Both serve the synchronous and the
asynchronous interface.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from taskbridge import errors
from taskbridge.errors import TaskbridgeError, TransportError, TruncatedResponse
from taskbridge.provider.http import Base64, Request, Response, Upload
from taskbridge.testing.redaction import MASK, Masks
from taskbridge.testing.transport import save

if TYPE_CHECKING:
    import os

    from taskbridge._config.defaults import TransportMaker
    from taskbridge._engine.connection import Connection
    from taskbridge.transport import AsyncTransport, Transport

__all__ = ["Exchange", "RecordingTransport", "ReplayTransport", "UnexpectedRequest", "read_recording"]

_FORMAT: Final = {"taskbridge-recording": 1}  # the first line
_RANGE: Final = re.compile(r"bytes (\d+)-.*")
_REFERENCE: Final = re.compile(r"taskbridge-[0-9a-f]{32}")  # made anew by each submit


class UnexpectedRequest(AssertionError):
    """A request that a recording has no answer for."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and what came of it, as it was written down.

    Attributes:
        line: Number of its line in the file.
        method: HTTP method.
        url: Address, without capabilities.
        at: Aware UTC time of the answer.
        answer: The answer; None where an error came instead.
        error: The error; None where an answer came.
    """

    line: int
    method: str
    url: str
    at: datetime
    answer: Response | None
    error: TaskbridgeError | None

    @property
    def key(self) -> tuple[str, str]:
        """What a request must have to get this answer."""
        return _key(self.method, self.url)

    def __str__(self) -> str:
        return f"{self.method} {self.url} (line {self.line})"


def _key(method: str, url: str) -> tuple[str, str]:
    return method, _REFERENCE.sub("taskbridge-", url)


def masks_of(connection: Connection) -> Masks:
    """What must not be written down of a connection."""
    settings: Mapping[str, object] = connection.provider.settings.__dict__
    texts = [value for name, value in settings.items() if name.endswith("_url") and isinstance(value, str)]
    base = getattr(connection.provider, "base_url", None)
    hosts = [urlsplit(text).netloc for text in [*texts, *([base] if isinstance(base, str) else [])]]
    return Masks(connection.secrets, hosts)


# Writing down.


class RecordingTransport:
    """Writes down what goes over real connections; give it to `taskbridge.connect` as its `transport`.

    Args:
        path: The file; it is begun anew, and folders above it are made.
        inner: Makes the transports that it listens to; None for real ones.
    """

    def __init__(self, path: str | os.PathLike[str], inner: TransportMaker | None = None) -> None:
        self.path = Path(path)
        self._inner = inner
        self._lock = Lock()
        self._begun = False

    def transport(self, connection: Connection) -> Transport:
        """See `taskbridge.current_defaults.TransportMaker`."""
        return _Recorder(self._maker().transport(connection), _Pen(self, connection))

    def async_transport(self, connection: Connection) -> AsyncTransport:
        """See `taskbridge.current_defaults.TransportMaker`."""
        return _AsyncRecorder(self._maker().async_transport(connection), _Pen(self, connection))

    def _maker(self) -> TransportMaker:
        from taskbridge.testing.virtual_connections import RealTransports  # noqa: PLC0415  # only where there is traffic

        return self._inner or RealTransports()

    def write(self, line: Mapping[str, Any]) -> None:
        """Add a line."""
        with self._lock:
            if not self._begun:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.write_text(json.dumps(_FORMAT) + "\n", encoding="utf-8")
                self._begun = True
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


class _Pen:
    """Writes down the exchanges of one connection."""

    def __init__(self, recording: RecordingTransport, connection: Connection) -> None:
        self._recording = recording
        self._connection = connection
        self._masks = masks_of(connection)

    def note(self, request: Request, came: Response | TaskbridgeError) -> None:
        self._masks.learn_from(request)
        said = self._answered(request, came) if isinstance(came, Response) else {"error": self._failed(came)}
        line = {
            "at": self._connection.clock.now().isoformat(),
            "connection": self._connection.name,
            "method": request.method,
            "url": self._masks.url(request.url),
        }
        sent = self._sent(request)
        self._recording.write(line | ({"sent": sent} if sent is not None else {}) | said)

    def _sent(self, request: Request) -> str | None:
        """The request's body, for people who read the file; a replay does not look at it."""
        body = request.body
        if body is None:
            return None
        if not request.authorized:
            return MASK  # a login, or a form that is a capability
        if not isinstance(body, bytes):
            return f"({_KINDS.get(type(body), 'a file')})"
        text = self._masks.document(body)
        return f"({len(body)} bytes)" if text is None else text.decode()

    def _answered(self, request: Request, response: Response) -> dict[str, Any]:
        body = response.body
        if request.save_to is not None and response.status < 300:
            body = request.save_to.path.read_bytes()
            if response.status == 206:
                body = body[int(_RANGE.sub(r"\1", response.headers.get("content-range", ""))) :]
        login = request.method != "GET" and not request.authorized and not request.external
        text = self._masks.document(body, login=login)
        shown = {"status": response.status, "headers": self._masks.headers(response.headers)}
        if text is None:
            return {**shown, "base64": b64encode(self._masks.binary(body)).decode()}
        return {**shown, "body": text.decode()}

    def _failed(self, error: TaskbridgeError) -> dict[str, Any]:
        told: dict[str, Any] = {"type": type(error).__name__, "message": self._masks.text(error.message)}
        return told | {name: getattr(error, name) for name in ("written", "stale") if hasattr(error, name)}


_KINDS: Final[Mapping[type, str]] = {Upload: "a form with a file", Base64: "JSON with a file"}


class _Recorder:
    def __init__(self, inner: Transport, pen: _Pen) -> None:
        self._inner = inner
        self._pen = pen

    def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        try:
            response = self._inner.send(request, deadline=deadline, max_body=max_body)
        except TaskbridgeError as error:
            self._pen.note(request, error)
            raise
        self._pen.note(request, response)
        return response

    def close(self) -> None:
        self._inner.close()


class _AsyncRecorder:
    def __init__(self, inner: AsyncTransport, pen: _Pen) -> None:
        self._inner = inner
        self._pen = pen

    async def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        try:
            response = await self._inner.send(request, deadline=deadline, max_body=max_body)
        except TaskbridgeError as error:
            self._pen.note(request, error)
            raise
        self._pen.note(request, response)
        return response

    async def close(self) -> None:
        await self._inner.close()


# Giving out again.


def read_recording(path: str | os.PathLike[str]) -> list[Exchange]:
    """The exchanges of a recording.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no recording; the message says in which line.
    """
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    found: list[Exchange] = []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            if number > 1:
                found.append(_exchange(number, entry))
            else:
                _check_first(entry)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(f"{path}, line {number}, is not of a recording of taskbridge; record it anew") from None
    return found


def _check_first(entry: object) -> None:
    if entry != _FORMAT:
        raise ValueError


def _exchange(number: int, entry: Mapping[str, Any]) -> Exchange:
    at = datetime.fromisoformat(entry["at"])
    if "error" in entry:
        return Exchange(number, entry["method"], entry["url"], at, None, _error(entry["error"]))
    body = b64decode(entry["base64"]) if "base64" in entry else entry["body"].encode()
    return Exchange(number, entry["method"], entry["url"], at, Response(entry["status"], entry["headers"], body), None)


def _error(told: Mapping[str, Any]) -> TaskbridgeError:
    kind: type[TaskbridgeError] = getattr(errors, told["type"])
    error = kind(told["message"])
    if isinstance(error, TransportError):
        error.written = told["written"]
    if isinstance(error, TruncatedResponse):
        error.stale = told["stale"]
    return error


class ReplayTransport:
    """Gives out the answers of a recording; give it to `taskbridge.connect` as its `transport`. Nothing is sent.

    Args:
        path: The recording.
        strict: Each request must be the next one of the recording. Otherwise each gets the next answer to such a
            request that was not given out yet, wherever it stands, and the last one again when all were.

    Attributes:
        began: Aware UTC time of the first answer; None for an empty recording.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no recording.
    """

    def __init__(self, path: str | os.PathLike[str], *, strict: bool = True) -> None:
        self.path = Path(path)
        self._strict = strict
        self._left = read_recording(path)
        self._last: dict[tuple[str, str], Exchange] = {}
        self._count = 0
        self._lock = Lock()
        self.began = self._left[0].at if self._left else None

    @property
    def left(self) -> int:
        """Answers that nobody has asked for yet."""
        return len(self._left)

    def transport(self, connection: Connection) -> Transport:
        """See `taskbridge.current_defaults.TransportMaker`."""
        return _Player(self, connection)

    def async_transport(self, connection: Connection) -> AsyncTransport:
        """See `taskbridge.current_defaults.TransportMaker`."""
        return _AsyncPlayer(_Player(self, connection))

    def take(self, method: str, url: str) -> Exchange:
        """The exchange that is due.

        Args:
            method: HTTP method.
            url: Address, without capabilities.

        Raises:
            UnexpectedRequest: The recording has none.
        """
        key = _key(method, url)
        with self._lock:
            self._count += 1
            places = range(min(1, len(self._left))) if self._strict else range(len(self._left))
            place = next((n for n in places if self._left[n].key == key), None)
            if place is not None:
                self._last[key] = self._left[place]
                return self._left.pop(place)
            if not self._strict and key in self._last:
                return self._last[key]
            ahead = f"next it has {self._left[0]}" if self._left else "it has no more"
            raise UnexpectedRequest(
                f"{self.path.name} has no answer for request {self._count}, {method} {url}: {ahead}. "
                "Record it anew if the change is meant"
            )


class _Player:
    def __init__(self, replay: ReplayTransport, connection: Connection) -> None:
        self._replay = replay
        self._clock = connection.clock
        self._masks = masks_of(connection)

    def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        del deadline, max_body
        self._masks.learn_from(request)
        exchange = self._replay.take(request.method, self._masks.url(request.url))
        answer = exchange.answer
        if answer is None:
            raise exchange.error or TransportError("the recording says nothing of this request")
        body = answer.body
        if request.save_to is not None and answer.status < 300:
            save(answer.status, {**answer.headers, "content-length": str(len(body))}, body, request.save_to)
            body = b""
        return Response(answer.status, answer.headers, body, self._clock.now())

    def close(self) -> None:
        """Nothing is kept."""


class _AsyncPlayer:
    def __init__(self, player: _Player) -> None:
        self._player = player

    async def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        return self._player.send(request, deadline=deadline, max_body=max_body)

    async def close(self) -> None:
        """Nothing is kept."""
