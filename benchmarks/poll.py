"""One poll over keep-alive loopback, HTTP and HTTPS: CPU and polls per second of all layers, compared with `requests`."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import Any, Final

import requests

import taskbridge as tb
from benchmarks.bare import bare_clients
from benchmarks.measure import KEY, ROUNDS, Server, cpu, in_turn, ratios
from benchmarks.vendor import Vendor, task_id
from benchmarks.virtual import single_polls
from taskbridge import aio
from taskbridge.provider.http import Request, Response

OUR_LAYERS: Final = "our layers alone, `aio`"
_serial = count()

Polls = Callable[[list[str]], Any]
"""Polls each of these tasks once."""


def run(*, quick: bool) -> dict[str, Any]:
    with Server(tls=True) as server:
        return {
            "http": scheme(server, "http", 60 if quick else 900),
            "https": scheme(server, "https", 30 if quick else 600),
        }


def _ids(number: int) -> list[str]:
    """Return new tasks that have ended."""
    run = f"p{next(_serial)}"
    return [task_id(run, n, 0.0) for n in range(number)]


def scheme(server: Server, name: str, number: int) -> dict[str, Any]:
    base = f"{server.addresses[name]}/v2"
    bundle = server.addresses["bundle"]
    # Naive HTTPS loads the certificates for each request, which is slow: a few are enough.
    naive = max(10, number // (20 if name == "https" else 3))
    with _clients(base, bundle) as (session, client, asynchronous, layers), bare_clients(base, bundle) as bare:

        def no_session() -> dict[str, float]:
            return _measured(naive, lambda ids: [_get(requests.get, base, i, verify=bundle) for i in ids])

        def with_session() -> dict[str, float]:
            return _measured(number, lambda ids: [_get(session.get, base, i, verify=bundle) for i in ids])

        def get() -> dict[str, float]:
            return _measured(number, lambda ids: [client.get(i) for i in ids])

        measured = in_turn(
            {
                "requests.get": no_session,
                "requests.Session.get": with_session,
                "client.get": get,
                "client.get in 8 threads": lambda: _measured(number, lambda ids: _in_threads(client, ids)),
                "client.wait_all (8 threads)": lambda: _measured(2 * number, client.wait_all),
                "aio.Client.wait_all (32 at once)": lambda: _measured(2 * number, asynchronous),
                OUR_LAYERS: lambda: _measured(2 * number, layers),
                **{title: partial(_measured, 2 * number, polls) for title, polls in bare.items()},
            },
            ROUNDS,
        )
    rates = {side: [one["rate"] for one in rows] for side, rows in measured.items()}
    costs = {side: [one["cpu"] for one in rows] for side, rows in measured.items()}
    return {
        "rate_to_naive": ratios(rates, "requests.get"),
        "cpu_to_naive": ratios(costs, "requests.get"),
        "cpu_to_session": ratios(costs, "requests.Session.get"),
    }


def _get(send: Callable[..., Any], base: str, task: str, **more: Any) -> Any:
    response = send(f"{base}/tasks/{task}", headers={"Authorization": f"Bearer {KEY}"}, timeout=30, **more)
    response.raise_for_status()
    return response.json()


def _measured(number: int, side: Callable[[list[str]], Any]) -> dict[str, float]:
    ids = _ids(number)
    start, used = time.perf_counter(), cpu()
    side(ids)
    return {"rate": number / (time.perf_counter() - start), "cpu": (cpu() - used) / number}


def _in_threads(client: tb.Client, ids: list[str]) -> None:
    def work(part: list[str]) -> None:
        for task in part:
            client.get(task)

    threads = [threading.Thread(target=work, args=(ids[n::8],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextmanager
def _clients(base: str, bundle: str) -> Iterator[tuple[requests.Session, tb.Client, Polls, Polls]]:
    """Open a session, our clients, and one without a network; warm up their connections."""
    settings = {"api_key": KEY, "base_url": base, "ca_bundle": bundle}
    with (
        requests.Session() as session,
        tb.connect("cloudconvert", **settings) as client,
        closing(asyncio.new_event_loop()) as loop,
    ):
        single_polls(client._connection)  # noqa: SLF001  # one poll per task
        clients = [loop.run_until_complete(_connect(settings, transport)) for transport in (None, _Scripted())]

        def asynchronous(ids: list[str], which: int = 0) -> Any:
            return loop.run_until_complete(clients[which].wait_all(ids))

        for task in _ids(2):
            _get(session.get, base, task, verify=bundle)
        client.wait_all(_ids(16))
        asynchronous(_ids(64))
        layers = partial(asynchronous, which=1)
        layers(_ids(64))
        yield session, client, asynchronous, layers
        for each in clients:
            loop.run_until_complete(each.close())


async def _connect(settings: dict[str, Any], transport: _Scripted | None) -> aio.Client:
    client = aio.connect("cloudconvert", transport=transport, **settings)
    single_polls(client._connection)  # noqa: SLF001
    return client


class _Scripted:
    """A transport without a network: what remains of a poll are our layers."""

    def __init__(self) -> None:
        self._vendor = Vendor(time.time() - 1.0)

    async def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        del deadline, max_body
        return Response(200, {}, self._vendor.show(request.url.rpartition("/")[2], time.time()), datetime.now(UTC))

    async def close(self) -> None:
        """Do nothing."""
