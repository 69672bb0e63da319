"""Recordings for tests: `RecordingTransport` writes real traffic to a file, `ReplayTransport` replays it.

A recording is a text file of JSON lines, one for each request and its response, in the order of the responses. It
contains no credentials (`taskbridge.testing.redaction`), so it can be committed and read. Both transports work with the
synchronous and the asynchronous interface.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar
from urllib.parse import urlsplit

from taskbridge import errors
from taskbridge._fork import renew_after_fork
from taskbridge.errors import TaskbridgeError, TransportError, TruncatedResponse
from taskbridge.provider.http import Base64, Form, Request, Response, Upload
from taskbridge.provider.results import as_json
from taskbridge.testing.redaction import REDACTED, Redactor
from taskbridge.testing.transport import Answer, AsyncScriptedTransport, ScriptedTransport

if TYPE_CHECKING:
    import os

    from taskbridge._config.defaults import TransportContext, TransportMaker
    from taskbridge.transport import AsyncTransport, Transport

AnyTransport = TypeVar("AnyTransport")

_FORMAT: Final = {"taskbridge-recording": 1}  # the first line
_RANGE: Final = re.compile(r"bytes (\d+)-.*")
_REFERENCE: Final = re.compile(r"taskbridge-[0-9a-f]{32}")  # different in each submission


class UnexpectedRequest(AssertionError):
    """A request for which a recording has no response."""


@dataclass(frozen=True, slots=True)
class RecordedExchange:
    """One recorded request with its redacted URL, and its outcome at an aware UTC time."""

    line: int  # in the file
    method: str
    url: str
    at: datetime
    outcome: Response | TaskbridgeError

    @property
    def key(self) -> tuple[str, str]:
        """What a request must have in common with it to get its outcome."""
        return _key(self.method, self.url)

    def __str__(self) -> str:
        return f"{self.method} {self.url} (line {self.line})"


def _key(method: str, url: str) -> tuple[str, str]:
    return method, _REFERENCE.sub("taskbridge-", url)


class UnsafeRecording(AssertionError):
    """A line that would still contain a credential; it was not written."""


def _redactor(connection: TransportContext, allow: Iterable[str] = ()) -> Redactor:
    settings: Mapping[str, object] = connection.provider.settings.__dict__
    urls = [value for name, value in settings.items() if name.endswith("_url") and isinstance(value, str)]
    base = getattr(connection.provider, "base_url", None)
    hosts = [urlsplit(url).netloc for url in [*urls, *([base] if isinstance(base, str) else [])]]
    return Redactor(connection.secrets, hosts, allow)


# Recording.


class RecordingTransport:
    """Records the traffic of real connections; pass it to `taskbridge.connect` as its `transport`.

    Args:
        path: The file; it is overwritten, and its parent folders are created.
        inner: Makes the transports whose traffic is recorded; None for real ones.
        allow: Places to record although something there has the shape of a credential, as listed in `masked`:
            ``body.result.headers.*``. Known credentials are redacted there, too.

    Attributes:
        masked: Each place where something was redacted only for its shape, and the shape. Check it for what is no
            credential.
    """

    def __init__(
        self, path: str | os.PathLike[str], inner: TransportMaker | None = None, *, allow: Iterable[str] = ()
    ) -> None:
        self.path = Path(path)
        self.masked: dict[str, str] = {}
        self.allow = tuple(allow)
        self._inner = inner
        renew_after_fork(self, RecordingTransport._make_lock)
        self._started = False

    def _make_lock(self) -> None:
        self._lock = Lock()

    def transport(self, connection: TransportContext) -> Transport:
        """See `taskbridge._config.defaults.TransportMaker`."""
        return _RecordedTransport(self._maker().transport(connection), self, connection)

    def async_transport(self, connection: TransportContext) -> AsyncTransport:
        """See `taskbridge._config.defaults.TransportMaker`."""
        return _AsyncRecordedTransport(self._maker().async_transport(connection), self, connection)

    def _maker(self) -> TransportMaker:
        from taskbridge.testing.virtual_connections import RealTransports  # noqa: PLC0415  # only if there is traffic

        return self._inner or RealTransports()

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a line."""
        with self._lock:
            if not self._started:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.write_text(json.dumps(_FORMAT) + "\n", encoding="utf-8")
                self._started = True
            with self.path.open("a", encoding="utf-8") as file:
                file.write(as_json(line).decode())


class _TrafficRecorder(Generic[AnyTransport]):
    """Records the traffic of one connection."""

    def __init__(self, inner: AnyTransport, recording: RecordingTransport, connection: TransportContext) -> None:
        self._inner = inner
        self._recording = recording
        self._connection = connection
        self._redactor = _redactor(connection, recording.allow)

    @contextmanager
    def _errors_recorded(self, request: Request) -> Generator[None]:
        try:
            yield
        except TaskbridgeError as error:
            self._record(request, error)
            raise

    def _record(self, request: Request, outcome: Response | TaskbridgeError) -> None:
        self._redactor.learn_from(request)
        shown = self._response(request, outcome) if isinstance(outcome, Response) else {"error": self._error(outcome)}
        line: dict[str, Any] = {
            "at": self._connection.clock.now().isoformat(),
            "connection": self._redactor.text(self._connection.name, "connection"),
            "method": request.method,
            "url": self._redactor.url(request.url),
        }
        sent = self._request_body(request)
        line |= ({"sent": sent} if sent is not None else {}) | shown
        if self._redactor.knows(json.dumps(line, ensure_ascii=False)):
            raise UnsafeRecording(
                f"the recording of {line['method']} {self._redactor.url(request.url)} would still contain a credential "
                "of the connection, so it was not written; use a credential that occurs nowhere else"
            )
        self._recording.masked.update(self._redactor.masked)
        self._recording.write(line)

    def _request_body(self, request: Request) -> str | None:
        """Return the request's body, for people who read the file; a replay ignores it."""
        body = request.body
        if body is None:
            return None
        if not request.authorized:
            return REDACTED  # a login, or a presigned form
        if not isinstance(body, bytes):
            return f"({_BODY_KINDS.get(type(body), 'a file')})"
        text = self._redactor.document(body, "sent")
        return f"({len(body)} bytes)" if text is None else text.decode()

    def _response(self, request: Request, response: Response) -> dict[str, Any]:
        body = response.body
        if request.save_to is not None and response.status < 300:
            body = request.save_to.path.read_bytes()
            if response.status == 206:
                body = body[int(_RANGE.sub(r"\1", response.headers.get("content-range", ""))) :]
        login = request.method != "GET" and not request.authorized and not request.external
        text = self._redactor.document(body, login=login)
        shown = {"status": response.status, "headers": self._redactor.headers(response.headers)}
        if text is None:
            return {**shown, "base64": b64encode(self._redactor.binary(body)).decode()}
        return {**shown, "body": text.decode()}

    def _error(self, error: TaskbridgeError) -> dict[str, Any]:
        shown: dict[str, Any] = {"type": type(error).__name__, "message": self._redactor.text(error.message, "error")}
        return shown | {name: getattr(error, name) for name in ("written", "stale") if hasattr(error, name)}


_BODY_KINDS: Final[Mapping[type, str]] = {
    Form: "a form",
    Upload: "a form with a file",
    Base64: "JSON with a file",
}


class _RecordedTransport(_TrafficRecorder["Transport"]):
    def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        with self._errors_recorded(request):
            response = self._inner.send(request, deadline=deadline, max_body=max_body)
        self._record(request, response)
        return response

    def close(self) -> None:
        self._inner.close()


class _AsyncRecordedTransport(_TrafficRecorder["AsyncTransport"]):
    async def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        with self._errors_recorded(request):
            response = await self._inner.send(request, deadline=deadline, max_body=max_body)
        self._record(request, response)
        return response

    async def close(self) -> None:
        await self._inner.close()


# Replaying.


def read_recording(path: str | os.PathLike[str]) -> list[RecordedExchange]:
    """Return the exchanges of a recording.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a recording; the message names the line.
    """
    exchanges: list[RecordedExchange] = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        try:
            entry = json.loads(line)
            if number > 1:
                at = datetime.fromisoformat(entry["at"])
                exchanges.append(RecordedExchange(number, entry["method"], entry["url"], at, _outcome(entry)))
                continue
        except (ValueError, KeyError, TypeError, AttributeError):
            entry = None
        if entry != _FORMAT:
            raise ValueError(f"{path}, line {number}, is not part of a taskbridge recording; record it again")
    return exchanges


def _outcome(entry: Mapping[str, Any]) -> Response | TaskbridgeError:
    if "error" in entry:
        return _error(entry["error"])
    body = b64decode(entry["base64"]) if "base64" in entry else entry["body"].encode()
    return Response(entry["status"], entry["headers"], body)


def _error(entry: Mapping[str, Any]) -> TaskbridgeError:
    kind: type[TaskbridgeError] = getattr(errors, entry["type"])
    error = kind(entry["message"])
    if isinstance(error, TransportError):
        error.written = entry["written"]
    if isinstance(error, TruncatedResponse):
        error.stale = entry["stale"]
    return error


class ReplayTransport:
    """Answers with the responses of a recording; pass it to `taskbridge.connect` as its `transport`. Nothing is sent.

    Args:
        path: The recording.
        strict: Whether each request must be the next one of the recording. Otherwise each gets the next unused response
            to the same request, wherever it is in the recording, and the last one again once all are used.

    Attributes:
        began: Aware UTC time of the first response; None for an empty recording.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a recording.
    """

    def __init__(self, path: str | os.PathLike[str], *, strict: bool = True) -> None:
        self.path = Path(path)
        self._strict = strict
        self._exchanges = read_recording(path)
        self._used: dict[tuple[str, str], RecordedExchange] = {}
        self._count = 0
        renew_after_fork(self, ReplayTransport._make_lock)
        self.began = self._exchanges[0].at if self._exchanges else None

    def _make_lock(self) -> None:
        self._lock = Lock()

    @property
    def remaining(self) -> int:
        """Number of responses not yet used."""
        return len(self._exchanges)

    def transport(self, connection: TransportContext) -> Transport:
        """See `taskbridge._config.defaults.TransportMaker`."""
        return ScriptedTransport(self._script(connection), clock=connection.clock)

    def async_transport(self, connection: TransportContext) -> AsyncTransport:
        """See `taskbridge._config.defaults.TransportMaker`."""
        return AsyncScriptedTransport(self._script(connection), clock=connection.clock)

    def _script(self, connection: TransportContext) -> Callable[[Request], Answer]:
        redactor = _redactor(connection)

        def answer(request: Request) -> Answer:
            redactor.learn_from(request)
            return self._take(request.method, redactor.url(request.url)).outcome

        return answer

    def _take(self, method: str, url: str) -> RecordedExchange:
        key = _key(method, url)
        with self._lock:
            self._count += 1
            candidates = self._exchanges[:1] if self._strict else self._exchanges
            exchange = next((each for each in candidates if each.key == key), None)
            if exchange is not None:
                self._used[key] = exchange
                self._exchanges.remove(exchange)
                return exchange
            if not self._strict and key in self._used:
                return self._used[key]
            expected = f"next it has {self._exchanges[0]}" if self._exchanges else "it has no more"
            raise UnexpectedRequest(
                f"{self.path.name} has no response for request {self._count}, {method} {url}: {expected}. "
                "Record it again if the change is intended"
            )
