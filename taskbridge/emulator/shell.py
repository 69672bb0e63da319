"""The shell: emulated vendors behind one HTTP server on this machine.

    with Emulator("cloudconvert", speed=60) as emulator:
        client = tb.connect("cloudconvert", **emulator.settings("cloudconvert"))

Emulators are found through the entry points ``taskbridge.emulators``. The shell gives each of them an address, a clock
and a seeded source of ids (`taskbridge.emulator.vendor.Host`), mounts its routes under its prefixes, logs every request
and injects the faults that a test asks for. It contains nothing specific to a vendor.
"""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from random import Random
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match, Mount, Route, Router

from taskbridge.emulator import control
from taskbridge.emulator.clock import SharedClock, VendorClock, VirtualTime
from taskbridge.emulator.faults import WEBHOOK_FAULTS, fault_named, respond_with
from taskbridge.emulator.request_log import PendingFault, RequestLog, SeenRequest
from taskbridge.emulator.server import LoopbackServer, listen, loopback
from taskbridge.emulator.vendor import Host, Plan, VendorEmulator
from taskbridge.emulator.webhooks import SentDelivery, WebhookSender

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from socket import socket
    from typing import Self

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

GROUP: Final = "taskbridge.emulators"
_SLOW: Final = 5.0  # seconds that a slow response takes by default
_LATE: Final = 60.0  # vendor seconds by which a late webhook is delayed by default


def emulators() -> dict[str, EntryPoint]:
    """Return the installed emulators by name, not yet imported.

    Raises:
        RuntimeError: Two distributions contain different emulators of one name.
    """
    found: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise RuntimeError(f"two emulators are named {point.name!r}: {other.value} and {point.value}")
    return found


@dataclass(frozen=True, slots=True)
class _Running:
    base_url: str
    clock: VendorClock
    vendors: Mapping[str, VendorEmulator]
    webhooks: WebhookSender
    log: RequestLog
    server: LoopbackServer


def _choose(
    names: Sequence[str], vendors: Mapping[str, type[VendorEmulator]] | None
) -> dict[str, type[VendorEmulator]]:
    available: Mapping[str, EntryPoint | type[VendorEmulator]] = emulators() if vendors is None else vendors
    unknown = [name for name in names if name not in available]
    if unknown or not available:
        wanted = ", ".join(unknown) or "anything"
        raise ValueError(f"no emulator of {wanted} is installed; available: {', '.join(available) or 'none'}")
    return {name: _load(available[name]) for name in names or available}


def _load(emulator: EntryPoint | type[VendorEmulator]) -> type[VendorEmulator]:
    if isinstance(emulator, type):
        return emulator
    loaded = (
        emulator.load()
    )  # perhaps of the package importlib-metadata, which replaces the classes of the standard one
    if not (isinstance(loaded, type) and issubclass(loaded, VendorEmulator)):
        raise TypeError(f"entry point {emulator.name} = {emulator.value} is not a VendorEmulator")
    return loaded


class _Application:
    """The vendors' routes as one ASGI application.

    Attributes:
        prefixes: The vendors' names by path prefix.
        asgi: The application.
    """

    def __init__(self, vendors: Mapping[str, VendorEmulator]) -> None:
        self.prefixes: dict[str, str] = {}
        self._vendors = vendors
        self._routers: dict[str, Router] = {}
        for name, vendor in vendors.items():
            for prefix, routes in vendor.mounts().items():
                if self.prefixes.setdefault(prefix, name) != name:
                    raise ValueError(f"{name} and {self.prefixes[prefix]} both use the prefix {prefix!r}")
                # without this, Starlette would answer with redirects that no vendor sends
                self._routers[prefix] = Router(routes, redirect_slashes=False)
        mounts = [Mount(f"/{prefix}", app=router) for prefix, router in self._routers.items()]
        self.asgi = Starlette(routes=mounts, exception_handlers={HTTPException: self._refuse})

    def error_response(self, status: int, path: str) -> Response:
        """Return the response with an error status of the vendor to which the path belongs."""
        vendor = self._vendors.get(self.prefixes.get(_prefix(path), ""))
        own = None if vendor is None else vendor.error_response(status, path)
        return Response(status_code=status) if own is None else own

    async def _refuse(self, request: Request, error: Exception) -> Response:
        """Respond to an unknown path or a wrong method."""
        status = error.status_code if isinstance(error, HTTPException) else 500
        path: str = request.scope["path"]
        response = self.error_response(status, path)
        if status == 405:  # Starlette names only the methods of the first route that has this path
            routes = self._routers[_prefix(path)].routes
            fitting = (route for route in routes if route.matches(request.scope)[0] is not Match.NONE)
            methods = {method for route in fitting if isinstance(route, Route) for method in route.methods or ()}
            response.headers["Allow"] = ", ".join(sorted(methods))
        return response


def _prefix(path: str) -> str:
    return path.lstrip("/").partition("/")[0]


def _url(bound: socket) -> str:
    address, port = bound.getsockname()[:2]
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


class Emulator:
    """Emulated vendors on one local HTTP server; a context manager.

    Its methods need no ``name`` of a vendor if only one is running.

    Args:
        names: Which vendors; none means all that are installed (or all in ``vendors``).
        host: A loopback address; the emulator never listens on any other.
        port: 0 picks a free one.
        speed: Vendor seconds per real second; 0 stops time until ``emulator.clock.advance(seconds)``.
        seed: The same seed gives the same ids.
        plan: How long tasks take and how they end, unless the name of a document says otherwise.
        vendors: Emulator classes by name, in place of the installed ones.
        clock: A `taskbridge.testing.VirtualClock` that the vendors share with their callers; ``speed`` is then ignored.

    Attributes:
        control_token: Needed to control it over HTTP, below `control_url`; see `taskbridge.emulator.control`.

    Raises:
        ValueError: The host is not a loopback address, or a name is unknown.
    """

    def __init__(
        self,
        *names: str,
        host: str = "127.0.0.1",
        port: int = 0,
        speed: float = 1.0,
        seed: int = 0,
        plan: Plan | None = None,
        vendors: Mapping[str, type[VendorEmulator]] | None = None,
        clock: VirtualTime | None = None,
    ) -> None:
        self._clock = clock
        self._classes = _choose(names, vendors)
        self._address = (str(loopback(host)), port)
        self._speed = speed
        self._seed = seed
        self._plan = plan or Plan()
        self._running: _Running | None = None
        self.control_token = secrets.token_urlsafe(24)  # not from the seed, which anyone may know

    # Starting and stopping.

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Serve from a daemon thread; returns once the server responds.

        Raises:
            RuntimeError: The port is in use, or the emulator is already running.
        """
        self._build().server.start()

    def stop(self) -> None:
        """Stop serving and discard all tasks; does nothing if it is not running."""
        running, self._running = self._running, None
        if running is not None:
            running.server.stop()

    def serve(self, ready: Callable[[], None] | None = None) -> None:
        """Serve in the calling thread until Ctrl-C, or until `stop` is called from another thread.

        Args:
            ready: Called once the server responds; addresses, settings and samples are known by then.

        Raises:
            RuntimeError: The port is in use, or the emulator is already running.
        """
        try:
            self._build(ready).server.serve_here()
        finally:
            self.stop()

    def _build(self, ready: Callable[[], None] | None = None) -> _Running:
        if self._running is not None:
            raise RuntimeError("this emulator is already running; create another one to have two")
        with ExitStack() as stack:
            bound = stack.enter_context(listen(*self._address))
            storage = stack.enter_context(listen(self._address[0], 0))
            self._running = self._assemble(bound, storage, ready)
            stack.pop_all()  # the server closes the sockets
        return self._running

    def _assemble(self, bound: socket, storage: socket, ready: Callable[[], None] | None) -> _Running:
        base_url, storage_url = _url(bound), _url(storage)
        clock = VendorClock(self._speed) if self._clock is None else SharedClock(self._clock)
        webhooks = WebhookSender(clock)
        vendors = {
            name: kind(Host(base_url, storage_url, clock, Random(f"{self._seed}/{name}"), webhooks, self._plan))  # noqa: S311  # ids, no secrets
            for name, kind in self._classes.items()
        }
        app = _Application(vendors)
        token_paths = {path for vendor in vendors.values() for path in vendor.token_paths}
        log = RequestLog(clock, app.prefixes, token_paths, app.error_response)

        def tick() -> None:
            for vendor in vendors.values():
                vendor.tick()

        vendors_app, control_app = log.wrap(app.asgi), control.control_app(self, self.control_token)

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            controls = scope["type"] == "http" and _prefix(scope["path"]) == _prefix(control.PATH)
            await (control_app if controls else vendors_app)(scope, receive, send)

        server = LoopbackServer(serve, bound, ready, lambda: webhooks.run(tick), also=storage)
        log.transport_of = server.transport_of
        return _Running(base_url, clock, vendors, webhooks, log, server)

    # The running vendors.

    @property
    def base_url(self) -> str:
        """``http://127.0.0.1:PORT``, without a trailing slash."""
        return self._now.base_url

    @property
    def control_url(self) -> str:
        """Where it is controlled over HTTP."""
        return self.base_url + control.PATH

    @property
    def clock(self) -> VendorClock:
        """The clock that all its vendors share."""
        return self._now.clock

    @property
    def vendors(self) -> Mapping[str, VendorEmulator]:
        """The running emulators by name."""
        return self._now.vendors

    def settings(self, name: str | None = None) -> dict[str, Any]:
        """Return the keywords with which ``taskbridge.connect(name, **settings)`` reaches a vendor."""
        return dict(self._vendor(name).settings())

    def environment(self, connection: str, name: str | None = None) -> dict[str, str]:
        """Return environment variables that point a configured connection here, overriding its configuration."""
        vendor = self._vendor(name)
        prefix = f"TASKBRIDGE_{connection.replace('-', '_').upper()}__"
        settings = {"provider": vendor.name, **vendor.settings()}
        return {f"{prefix}{key.upper()}": value for key, value in settings.items()}

    def samples(self, name: str | None = None) -> dict[str, str]:
        """Return the shared ids of tasks that exist from the start, by label."""
        return dict(self._vendor(name).samples())

    def plan_next(self, name: str | None, *plans: Plan) -> None:
        """Use these plans for the next tasks that are created at a vendor and do work, first in first out."""
        self._vendor(name).host.next_plans.extend(plans)

    # Requests and faults.

    @property
    def requests(self) -> list[SeenRequest]:
        """The requests answered so far; without header values and bodies."""
        return self._now.log.requests

    def count(self, vendor: str | None = None, method: str | None = None, path_contains: str | None = None) -> int:
        """Count the `requests` to this vendor, with this method, whose path, prefix included, contains this text."""
        return sum(
            vendor in {None, seen.vendor}
            and (method is None or method.upper() == seen.method)
            and (path_contains is None or path_contains in seen.path)
            for seen in self.requests
        )

    def clear_requests(self) -> None:
        """Empty the log of requests; tasks and pending faults remain."""
        self._now.log.clear()

    def fail_next(
        self,
        fault: int | str,
        *,
        times: int = 1,
        vendor: str | None = None,
        method: str | None = None,
        path_contains: str = "",
        retry_after: float | str | None = None,
        seconds: float | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> None:
        """Inject a fault into the next requests that match; several faults are used in the order of the calls.

        Args:
            fault: An HTTP status to answer with before the vendor sees the request, or the name of a fault from the
                table in `taskbridge.emulator.faults`. Names that begin with ``webhook-`` apply to the next webhooks of
                any vendor.
            times: How many requests, or webhooks, are affected.
            vendor: Only requests to this vendor; None means any.
            method: Only requests with this HTTP method; None means any.
            path_contains: Only requests whose path, prefix included, contains this text. Calls for a token are hit only
                if it is part of their path.
            retry_after: Value of ``Retry-After``, in seconds or as an HTTP date.
            seconds: Duration, for faults that take time: real seconds for requests (virtual ones if the emulator has a
                virtual clock), vendor seconds for webhooks.
            body: The response's body, if ``fault`` is a status; None means the vendor's own body, as far
                as that is known.
            headers: Additional response headers.
            content_type: The media type of ``body``.

        Raises:
            ValueError: There is no fault of that name, or the vendor is not running.
        """
        if isinstance(fault, int) and not 200 <= fault < 600:
            raise ValueError(f"a fault's HTTP status must be 200 to 599, not {fault}")
        if fault in WEBHOOK_FAULTS:
            delay = _LATE if seconds is None else seconds
            self._now.webhooks.next_faults.extend([(str(fault), delay)] * times)
            return
        pending = PendingFault(
            respond_with(fault, body, content_type) if isinstance(fault, int) else fault_named(fault),
            None if vendor is None else self._vendor(vendor).name,
            None if method is None else method.upper(),
            path_contains,
            _SLOW if seconds is None else seconds,
            dict(headers or {}) | ({} if retry_after is None else {"Retry-After": str(retry_after)}),
            times,
        )
        self._now.log.add_fault(pending)

    def clear_faults(self) -> None:
        """Discard the faults that have not been used."""
        self._now.log.clear_faults()
        self._now.webhooks.next_faults.clear()

    # Webhooks.

    def register_webhook(self, url: str, events: Iterable[str] | None = None, *, name: str | None = None) -> str:
        """Register a webhook at a vendor and return its secret; see `VendorEmulator.register_webhook`."""
        return self._vendor(name).register_webhook(url, events)

    @property
    def deliveries(self) -> list[SentDelivery]:
        """The webhook deliveries attempted so far, in order."""
        return self._now.webhooks.log

    def disturb_deliveries(self, *, duplicate: bool = False, shuffle: bool = False) -> None:
        """Deliver webhooks more than once, or out of order, as real vendors sometimes do.

        Args:
            duplicate: Send each one twice.
            shuffle: Swap each pair of consecutive webhooks; the first waits for the second for up to 30 vendor seconds.
        """
        self._now.webhooks.duplicate = duplicate
        self._now.webhooks.shuffle = shuffle

    @property
    def _now(self) -> _Running:
        if self._running is None:
            raise RuntimeError("the emulator is not running; use it in a with statement, or call start()")
        return self._running

    def _vendor(self, name: str | None) -> VendorEmulator:
        vendors = self._now.vendors
        if name is None and len(vendors) == 1:
            return next(iter(vendors.values()))
        if name is None or name not in vendors:
            raise ValueError(f"name one of the running vendors ({', '.join(vendors)}), not {name!r}")
        return vendors[name]
