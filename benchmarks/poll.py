"""One poll over keep-alive loopback, HTTP and HTTPS: CPU and polls per second of all layers, compared with `requests`."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count
from typing import Any, Final

import aiohttp
import requests

import taskbridge as tb
from benchmarks.measure import KEY, ROUNDS, Server, cpu, in_turn, ratios
from benchmarks.vendor import task_id
from benchmarks.virtual import single_polls
from taskbridge import aio

AIOHTTP: Final = "aiohttp alone (32 at once)"  # the lower bound for our layers
_serial = count()


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
    with _clients(base, bundle) as (session, client, asynchronous), _aiohttp_alone(base, bundle) as aiohttp_alone:

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
                AIOHTTP: lambda: _measured(2 * number, aiohttp_alone),
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
def _clients(base: str, bundle: str) -> Iterator[tuple[requests.Session, tb.Client, Callable[[list[str]], Any]]]:
    """Open a session and our clients, and warm up their connections."""
    settings = {"api_key": KEY, "base_url": base, "ca_bundle": bundle}
    with (
        requests.Session() as session,
        tb.connect("cloudconvert", **settings) as client,
        closing(asyncio.new_event_loop()) as loop,
    ):
        single_polls(client._connection)  # noqa: SLF001  # one poll per task
        async_client = loop.run_until_complete(_connect(settings))
        single_polls(async_client._connection)  # noqa: SLF001

        def asynchronous(ids: list[str]) -> Any:
            return loop.run_until_complete(async_client.wait_all(ids))

        for task in _ids(2):
            _get(session.get, base, task, verify=bundle)
        client.wait_all(_ids(16))
        asynchronous(_ids(64))
        yield session, client, asynchronous
        loop.run_until_complete(async_client.close())


async def _connect(settings: dict[str, str]) -> aio.Client:
    return aio.connect("cloudconvert", **settings)


@contextmanager
def _aiohttp_alone(base: str, bundle: str) -> Iterator[Callable[[list[str]], Any]]:
    """The same polls with aiohttp alone; responses are decoded, nothing else."""
    context = ssl.create_default_context(cafile=bundle) if base.startswith("https") else True

    async def open_session() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=32, ssl=context))

    with closing(asyncio.new_event_loop()) as loop:
        session = loop.run_until_complete(open_session())

        async def poll(left: Iterator[str]) -> None:
            for task in left:
                async with session.get(f"{base}/tasks/{task}", headers={"Authorization": f"Bearer {KEY}"}) as response:
                    await response.json()

        async def everything(ids: list[str]) -> None:
            left = iter(ids)
            await asyncio.gather(*(poll(left) for _ in range(32)))

        loop.run_until_complete(everything(_ids(64)))
        yield lambda ids: loop.run_until_complete(everything(ids))
        loop.run_until_complete(session.close())
