"""The shell: emulated vendors behind one HTTP server on this machine.

    with Emulator("cloudconvert", speed=60) as emulator:
        client = tb.connect("cloudconvert", **emulator.settings("cloudconvert"))

Emulators are found through the entry points ``taskbridge.emulators``, whoever brings them. The shell lends each of them
an address, a clock and a seeded source of ids (`taskbridge.emulator.vendor.Host`), hangs its routes under its prefixes,
and stands in front of all of them with a log of requests and a queue of failures to order. It knows no vendor.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from random import Random
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.routing import Mount, Router

from taskbridge.emulator.clock import SharedClock, VendorClock, VirtualTime
from taskbridge.emulator.deliveries import Courier, SentDelivery
from taskbridge.emulator.faults import WEBHOOK_FAULTS
from taskbridge.emulator.journal import Journal, SeenRequest
from taskbridge.emulator.server import LoopbackServer, listen, loopback
from taskbridge.emulator.vendor import Host, Plan, VendorEmulator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from socket import socket
    from types import TracebackType
    from typing import Self

__all__ = ["Emulator", "SeenRequest", "SentDelivery", "emulators"]

GROUP: Final = "taskbridge.emulators"
_LATE: Final = 60.0  # vendor seconds by which a webhook is late where nobody says how many


def emulators() -> dict[str, EntryPoint]:
    """The installed emulators by name, not yet imported.

    Raises:
        RuntimeError: Two distributions bring different emulators of one name.
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
    courier: Courier
    journal: Journal
    server: LoopbackServer


def _choose(
    names: Sequence[str], vendors: Mapping[str, type[VendorEmulator]] | None
) -> dict[str, type[VendorEmulator]]:
    offered: Mapping[str, EntryPoint | type[VendorEmulator]] = emulators() if vendors is None else vendors
    unknown = [name for name in names if name not in offered]
    if unknown or not offered:
        wanted = ", ".join(unknown) or "anything"
        raise ValueError(f"no emulator of {wanted} is installed; there is: {', '.join(offered) or 'none'}")
    return {name: _load(offered[name]) for name in names or offered}


def _load(offer: EntryPoint | type[VendorEmulator]) -> type[VendorEmulator]:
    if not isinstance(offer, EntryPoint):
        return offer
    kind = offer.load()
    if not (isinstance(kind, type) and issubclass(kind, VendorEmulator)):
        raise TypeError(f"entry point {offer.name} = {offer.value} is no VendorEmulator")
    return kind


def _url(bound: socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _mount(vendors: Mapping[str, VendorEmulator]) -> tuple[dict[str, str], Starlette]:
    """Names of vendors by prefix, and the application with all their routes."""
    prefixes: dict[str, str] = {}
    mounts: list[Mount] = []
    for name, vendor in vendors.items():
        for prefix, routes in vendor.mounts().items():
            if prefixes.setdefault(prefix, name) != name:
                raise ValueError(f"{name} and {prefixes[prefix]} both want the prefix {prefix!r}")
            # a redirect to another spelling of the path would be an answer that no vendor gave
            mounts.append(Mount(f"/{prefix}", app=Router(routes, redirect_slashes=False)))
    return prefixes, Starlette(routes=mounts)


class Emulator:
    """Emulated vendors on one local HTTP server; a context manager.

    Args:
        names: Which vendors; none means all that are installed (or all in ``vendors``).
        host: A loopback address; the emulator never listens on any other.
        port: 0 takes a free one.
        speed: Vendor seconds per real second; 0 stands still until ``emulator.clock.advance(seconds)``.
        seed: The same seed gives the same ids.
        plan: How long tasks take and how they end, where their documents' names ask for nothing.
        vendors: Emulator classes by name, in place of the installed ones.
        clock: A `taskbridge.testing.VirtualClock` in which the vendors live together with their callers; ``speed`` then
            says nothing.

    Raises:
        ValueError: The host is no loopback address, or a name is not known.
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

    # Life.

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Serve from a daemon thread; returns once requests are answered.

        Raises:
            RuntimeError: The port is in use, or the emulator runs already.
        """
        self._build().server.start()

    def stop(self) -> None:
        """Stop serving and forget all tasks; does nothing where nothing runs."""
        running, self._running = self._running, None
        if running is not None:
            running.server.stop()

    def serve(self, ready: Callable[[], None] | None = None) -> None:
        """Serve in the calling thread until Ctrl-C, or until `stop` is called from another thread.

        Args:
            ready: Called once requests are answered; addresses, settings and samples are known by then.

        Raises:
            RuntimeError: The port is in use, or the emulator runs already.
        """
        try:
            self._build(ready).server.serve_here()
        finally:
            self.stop()

    def _build(self, ready: Callable[[], None] | None = None) -> _Running:
        if self._running is not None:
            raise RuntimeError("this emulator runs already; make another one to have two")
        bound = listen(*self._address)
        try:
            self._running = self._fill(bound, ready)
        except BaseException:
            bound.close()
            raise
        return self._running

    def _fill(self, bound: socket, ready: Callable[[], None] | None) -> _Running:
        base_url = _url(bound)
        clock = VendorClock(self._speed) if self._clock is None else SharedClock(self._clock)
        courier = Courier(clock)
        vendors = {
            name: kind(Host(base_url, clock, Random(f"{self._seed}/{name}"), courier, self._plan))  # noqa: S311  # ids, no secrets
            for name, kind in self._classes.items()
        }
        prefixes, app = _mount(vendors)
        journal = Journal(clock, prefixes)

        def tick() -> None:
            for vendor in vendors.values():
                vendor.tick()

        server = LoopbackServer(journal.around(app), bound, ready, lambda: courier.run(tick))
        journal.line_of = server.line_of
        return _Running(base_url, clock, vendors, courier, journal, server)

    # What runs.

    @property
    def base_url(self) -> str:
        """``http://127.0.0.1:PORT``, without a trailing slash."""
        return self._now.base_url

    @property
    def clock(self) -> VendorClock:
        """The time that all its vendors share."""
        return self._now.clock

    @property
    def vendors(self) -> Mapping[str, VendorEmulator]:
        """The running emulators by name."""
        return self._now.vendors

    def settings(self, name: str | None = None) -> dict[str, Any]:
        """Keywords with which ``taskbridge.connect(name, **settings)`` reaches a vendor.

        Args:
            name: Which vendor; may be left out where there is only one.
        """
        return dict(self._vendor(name).settings())

    def environment(self, connection: str, name: str | None = None) -> dict[str, str]:
        """Environment variables that lead a configured connection here, whatever its configuration says.

        Args:
            connection: The connection's name.
            name: Which vendor; may be left out where there is only one.
        """
        vendor = self._vendor(name)
        prefix = f"TASKBRIDGE_{connection.replace('-', '_').upper()}__"
        given = {"provider": vendor.name, **vendor.settings()}
        return {f"{prefix}{key.upper()}": value for key, value in given.items()}

    def samples(self, name: str | None = None) -> dict[str, str]:
        """Shared ids of tasks that exist from the start, by label.

        Args:
            name: Which vendor; may be left out where there is only one.
        """
        return dict(self._vendor(name).samples())

    def plan_next(self, name: str, *plans: Plan) -> None:
        """Give the next tasks that are created at a vendor these plans, first in first out.

        Args:
            name: Which vendor.
            plans: One for each task that does work.
        """
        self._vendor(name).host.next_plans.extend(plans)

    # What was asked, and what goes wrong.

    @property
    def requests(self) -> list[SeenRequest]:
        """The requests answered up to now; without header values and bodies."""
        return list(self._now.journal)

    def count(self, vendor: str | None = None, method: str | None = None, path_contains: str | None = None) -> int:
        """How many of the `requests` match.

        Args:
            vendor: Only those to this vendor.
            method: Only those with this HTTP method.
            path_contains: Only those whose path, prefix included, holds this text.
        """
        return sum(
            vendor in {None, seen.vendor}
            and (method is None or method.upper() == seen.method)
            and (path_contains is None or path_contains in seen.path)
            for seen in self.requests
        )

    def forget(self) -> None:
        """Empty the log of requests; tasks and ordered failures stay."""
        self._now.journal.forget()

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
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> None:
        """Let the next requests go wrong; several orders are worked off in order, each by the requests it is for.

        Args:
            fault: An HTTP status that is answered before a vendor sees the request, or the name of a fault, of which
                `taskbridge.emulator.faults` has the table. Names that begin with ``webhook-`` are for the next
                webhooks of any vendor.
            times: How many requests, or webhooks, go wrong.
            vendor: Only requests to this vendor; None means any request.
            method: Only requests with this HTTP method; None means any.
            path_contains: Only requests whose path, prefix included, holds this text.
            retry_after: Value of ``Retry-After``, in seconds or as an HTTP date.
            seconds: How long, for faults that take time: of the callers' time for requests (real seconds, unless the
                emulator has a virtual clock), of vendor time for webhooks.
            body: The answer's body, as it is, where ``fault`` is a status.
            headers: More headers of the answer.
            content_type: The answer's media type, where ``fault`` is a status.

        Raises:
            ValueError: There is no fault of that name, or the vendor does not run.
        """
        if fault in WEBHOOK_FAULTS:
            late = _LATE if seconds is None else seconds
            self._now.courier.next_faults.extend([(str(fault), late)] * times)
            return
        self._now.journal.fail_next(
            fault,
            times=times,
            vendor=None if vendor is None else self._vendor(vendor).name,
            method=method,
            path_contains=path_contains,
            retry_after=retry_after,
            seconds=seconds,
            body=body,
            headers=headers,
            content_type=content_type,
        )

    # What the vendors tell unasked.

    @property
    def deliveries(self) -> list[SentDelivery]:
        """The webhook deliveries attempted up to now, in order."""
        return self._now.courier.log

    def disturb_deliveries(self, *, duplicate: bool = False, shuffle: bool = False) -> None:
        """Send webhooks as badly as vendors do.

        Args:
            duplicate: Send each one twice.
            shuffle: Of two that follow each other, send the later one first; the earlier one waits for it for up to
                30 vendor seconds.
        """
        self._now.courier.duplicate = duplicate
        self._now.courier.shuffle = shuffle

    @property
    def _now(self) -> _Running:
        if self._running is None:
            raise RuntimeError("the emulator does not run; use it in a with statement, or call start()")
        return self._running

    def _vendor(self, name: str | None) -> VendorEmulator:
        vendors = self._now.vendors
        if name is None and len(vendors) == 1:
            return next(iter(vendors.values()))
        if name is None or name not in vendors:
            raise ValueError(f"name one of the running vendors ({', '.join(vendors)}), not {name!r}")
        return vendors[name]
