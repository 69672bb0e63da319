"""Outages of a connection: detected by its throttle, reported here, once when one begins and once when it ends.

The throttle decides under its own lock whether the vendor is down, and many threads report failures and responses. So
each report compares what is known with what the throttle says now, whatever the order in which the threads get here.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from taskbridge._engine.logs import log
from taskbridge.events import Outage

if TYPE_CHECKING:
    from taskbridge._engine.connection import Connection
    from taskbridge.errors import TaskbridgeError


def report_failure(connection: Connection, url: str, error: TaskbridgeError) -> None:
    """Report an outage after a failed request, unless it is known already or the vendor seems to be up."""
    if connection.outage is not None or not connection.throttle.is_probing:
        return
    clock = connection.clock
    now, began = clock.now(), connection.throttle.failing_since
    since = now - timedelta(seconds=clock.monotonic() - began)
    host = urlsplit(url).hostname or ""
    outage = Outage(now, connection.provider.name, connection.name, host, error, since, connection.waiting)
    with connection.outage_lock:
        is_new = connection.outage is None
        if is_new:
            connection.outage, connection.outage_began = outage, began
    if is_new:
        log("outage-began", error=error.summary, **_facts(outage))
        connection.observers.notify(outage)
    report_response(connection)  # which may have come in the meantime


def report_response(connection: Connection) -> None:
    """Report that an outage is over, if there was one and the throttle says so."""
    if connection.throttle.is_probing:
        return
    with connection.outage_lock:
        outage, connection.outage = connection.outage, None
    if outage is None:
        return
    clock = connection.clock
    duration = clock.monotonic() - connection.outage_began  # the clock on the wall may have been set in the meantime
    ended = replace(outage, time=clock.now(), waiting=connection.waiting, duration=duration)
    log("outage-ended", duration=duration, **_facts(ended))
    connection.observers.notify(ended)


def _facts(outage: Outage) -> dict[str, Any]:
    since = f"{outage.since:%Y-%m-%d %H:%M:%S} UTC"
    return {"connection": outage.connection, "host": outage.host, "since": since, "waiting": outage.waiting}
