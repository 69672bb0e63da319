"""What happens to a request before an emulated vendor sees it: it is counted, and it may be made to fail.

One pure-ASGI layer around all vendors. It keeps no header values and no bodies, so a test can print the whole log
without printing a key.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Final

from taskbridge.emulator.faults import Exchange, fault_named, refusal

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator, Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from taskbridge.emulator.clock import VendorClock
    from taskbridge.emulator.faults import Act

__all__ = ["Journal", "SeenRequest"]

_SLOW: Final = 5.0  # seconds that a slow answer takes where nobody says how many


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """One request that reached the emulator.

    Attributes:
        vendor: Name of the emulated vendor; empty where the path belongs to none.
        prefix: First part of the path, under which the vendor's routes hang.
        method: HTTP method.
        path: Decoded path, prefix included.
        query: Query string as it was sent, without the question mark.
        status: HTTP status of the answer; 0 where none was given.
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
    act: Act
    vendor: str | None
    method: str | None
    path_contains: str
    seconds: float
    headers: Mapping[str, str]
    times: int

    def meets(self, scope: Scope, vendor: str | None) -> bool:
        """Whether it is for this request."""
        return (
            self.vendor in {None, vendor}
            and self.method in {None, scope["method"]}
            and self.path_contains in scope["path"]
        )


class Journal:
    """The log of requests and the queue of failures asked for.

    Args:
        clock: The vendors' time.
        prefixes: Names of vendors by path prefix.

    Attributes:
        line_of: Finds the connection that a request came on.
    """

    def __init__(self, clock: VendorClock, prefixes: Mapping[str, str]) -> None:
        self.line_of: Callable[[Scope], asyncio.Transport | None] = lambda _: None
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
        fault: int | str,
        *,
        times: int,
        vendor: str | None,
        method: str | None,
        path_contains: str,
        retry_after: float | str | None,
        seconds: float | None,
        body: bytes,
        headers: Mapping[str, str] | None,
        content_type: str,
    ) -> None:
        """Queue a failure; see `taskbridge.emulator.shell.Emulator.fail_next`."""
        act = refusal(fault, body, content_type) if isinstance(fault, int) else fault_named(fault)
        more = dict(headers or {})
        if retry_after is not None:
            more["Retry-After"] = str(retry_after)
        wait = _SLOW if seconds is None else seconds
        verb = method and method.upper()
        with self._lock:
            self._failures.append(_Failure(act, vendor, verb, path_contains, wait, more, times))

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

            failure = self._take_failure(scope, self._prefixes.get(prefix))
            if failure is None:
                await app(scope, receive, send_logged)
                return
            line = self.line_of(scope)
            clock, wait, more = self._clock, failure.seconds, failure.headers
            await failure.act(Exchange(scope, receive, send_logged, app, clock, line, wait, more))
            if not status:
                record()

        return logged

    def _take_failure(self, scope: Scope, vendor: str | None) -> _Failure | None:
        with self._lock:
            for position, failure in enumerate(self._failures):
                if failure.meets(scope, vendor):
                    failure.times -= 1
                    if failure.times <= 0:
                        del self._failures[position]
                    return failure
        return None
