"""What happens to a request before an emulated vendor sees it: it is counted, and it may be made to fail.

One pure-ASGI layer around all vendors. It keeps no header values and no bodies, so a test can print the whole log
without printing a key.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from taskbridge.emulator.clock import VendorClock

__all__ = ["Journal", "SeenRequest"]


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """One request that reached the emulator.

    Attributes:
        vendor: Name of the emulated vendor; empty where the path belongs to none.
        prefix: First part of the path, under which the vendor's routes hang.
        method: HTTP method.
        path: Decoded path, prefix included.
        query: Query string as it was sent, without the question mark.
        status: HTTP status of the answer.
        time: Vendor seconds since the epoch (UTC) when the request came in.
    """

    vendor: str
    prefix: str
    method: str
    path: str
    query: str
    status: int
    time: float


@dataclass(slots=True)
class _Failure:
    response: Response
    vendor: str | None
    times: int


class Journal:
    """The log of requests and the queue of failures asked for.

    Args:
        clock: The vendors' time.
        prefixes: Names of vendors by path prefix.
    """

    def __init__(self, clock: VendorClock, prefixes: Mapping[str, str]) -> None:
        self._clock = clock
        self._prefixes = dict(prefixes)
        self._seen: list[SeenRequest] = []
        self._failures: list[_Failure] = []
        self._lock = Lock()

    def __iter__(self) -> Iterator[SeenRequest]:
        """The requests seen up to now, in the order of their answers."""
        with self._lock:
            return iter(tuple(self._seen))

    def forget(self) -> None:
        """Forget what was seen; failures that are still to come stay."""
        with self._lock:
            self._seen.clear()

    def fail_next(
        self,
        status: int,
        *,
        times: int = 1,
        vendor: str | None = None,
        retry_after: float | str | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> None:
        """Queue a failure; see `taskbridge.emulator.shell.Emulator.fail_next`."""
        response = Response(body, status, dict(headers or {}), content_type)
        if retry_after is not None:
            response.headers["Retry-After"] = str(retry_after)
        with self._lock:
            self._failures.append(_Failure(response, vendor, times))

    def around(self, app: ASGIApp) -> ASGIApp:
        """The ASGI application that logs, fails where asked to, and else hands over to ``app``."""

        async def logged(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            time = self._clock.time()
            prefix = scope["path"].lstrip("/").partition("/")[0]
            status = 0

            def record() -> None:
                seen = SeenRequest(
                    vendor=self._prefixes.get(prefix, ""),
                    prefix=prefix,
                    method=scope["method"],
                    path=scope["path"],
                    query=scope["query_string"].decode("latin-1"),
                    status=status,
                    time=time,
                )
                with self._lock:
                    self._seen.append(seen)

            async def send_logged(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                    record()  # before the caller can have the answer, so that it finds the record
                await send(message)

            answer: ASGIApp = self._take_failure(self._prefixes.get(prefix)) or app
            await answer(scope, receive, send_logged)

        return logged

    def _take_failure(self, vendor: str | None) -> Response | None:
        with self._lock:
            for position, failure in enumerate(self._failures):
                if failure.vendor in {None, vendor}:
                    failure.times -= 1
                    if failure.times <= 0:
                        del self._failures[position]
                    return failure.response
        return None
