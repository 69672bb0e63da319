"""The layer in front of all emulated vendors: it logs each request and injects faults.

Pure ASGI. It keeps neither header values nor bodies, so a test can print the whole log without printing a key.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

from taskbridge._fork import renew_after_fork
from taskbridge.emulator.faults import FaultContext

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection, Mapping

    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from taskbridge.emulator.clock import VendorClock
    from taskbridge.emulator.faults import Fault


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """One request that reached the emulator.

    Attributes:
        vendor: Name of the emulated vendor; empty if the path belongs to none.
        prefix: First part of the path, under which the vendor's routes are mounted.
        method: HTTP method.
        path: Decoded path, prefix included.
        query: Query string as it was sent, without the question mark.
        status: HTTP status of the response; 0 if there was none.
        time: Vendor seconds since the epoch (UTC) when the request arrived.
    """

    vendor: str
    prefix: str
    method: str
    path: str
    query: str
    status: int
    time: float


@dataclass(slots=True)
class PendingFault:
    """A fault for the next requests that match; see `taskbridge.emulator.shell.Emulator.fail_next`."""

    fault: Fault
    vendor: str | None
    method: str | None
    path_contains: str
    seconds: float
    headers: Mapping[str, str]
    times: int


class RequestLog:
    """The log of requests and the queue of faults.

    Args:
        clock: The vendors' time.
        prefixes: Names of vendors by path prefix.
        token_paths: Paths of calls that issue tokens: faults hit them only if ``path_contains`` says so.
        error_response: Returns a vendor's own response with an error status, by path.

    Attributes:
        transport_of: Finds the TCP connection of a request.
    """

    def __init__(
        self,
        clock: VendorClock,
        prefixes: Mapping[str, str],
        token_paths: Collection[str],
        error_response: Callable[[int, str], Response],
    ) -> None:
        self.transport_of: Callable[[Scope], asyncio.Transport | None] = lambda _: None
        self._clock = clock
        self._prefixes = dict(prefixes)
        self._token_paths = token_paths
        self._error_response = error_response
        self._requests: list[SeenRequest] = []
        self._faults: list[PendingFault] = []
        renew_after_fork(self, RequestLog._make_lock)

    def _make_lock(self) -> None:
        self._lock = Lock()

    @property
    def requests(self) -> list[SeenRequest]:
        """The requests so far, in the order of their responses."""
        with self._lock:
            return list(self._requests)

    def clear(self) -> None:
        """Empty the log; pending faults remain."""
        with self._lock:
            self._requests.clear()

    def add_fault(self, fault: PendingFault) -> None:
        """Queue a fault."""
        with self._lock:
            self._faults.append(fault)

    def clear_faults(self) -> None:
        """Discard the pending faults."""
        with self._lock:
            self._faults.clear()

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """Return an ASGI application that logs each request, and passes it to ``app`` or injects a fault."""

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
                    self._requests.append(seen)

            async def send_logged(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                    record()  # before the caller can have the response, so that it finds the record
                await send(message)

            pending = self._take_fault(scope, self._prefixes.get(prefix))
            if pending is None:
                await app(scope, receive, send_logged)
                return
            context = FaultContext(
                scope,
                receive,
                send_logged,
                app,
                self._clock,
                self.transport_of(scope),
                pending.seconds,
                pending.headers,
                self._error_response,
            )
            await pending.fault(context)
            if not status:
                record()

        return logged

    def _take_fault(self, scope: Scope, vendor: str | None) -> PendingFault | None:
        with self._lock:
            for pending in self._faults:
                if (
                    pending.vendor in {None, vendor}
                    and pending.method in {None, scope["method"]}
                    and pending.path_contains in scope["path"]
                    and (scope["path"] not in self._token_paths or _names_token_call(pending, scope["path"]))
                ):
                    pending.times -= 1
                    if pending.times <= 0:
                        self._faults.remove(pending)
                    return pending
        return None


def _names_token_call(pending: PendingFault, path: str) -> bool:
    _, _, below_prefix = path.lstrip("/").partition("/")
    return bool(pending.path_contains.strip("/")) and pending.path_contains in f"/{below_prefix}"
