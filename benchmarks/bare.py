"""The same polls with other HTTP clients, alone: they send a request and decode its response, nothing else."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import aiohttp
import httpx
import pycurl
from pyreqwest.client import ClientBuilder

from benchmarks.measure import KEY

PARALLEL: Final = 32
_HEADERS: Final = {"Authorization": f"Bearer {KEY}"}

Polls = Callable[[list[str]], Any]
"""Polls each of these tasks once."""


@contextmanager
def bare_clients(base: str, bundle: str) -> Iterator[dict[str, Polls]]:
    """Open one client of each library; each polls 32 tasks at once."""
    trusted = bundle if base.startswith("https") else None
    with ExitStack() as stack:
        loop = stack.enter_context(closing(asyncio.new_event_loop()))
        polls: dict[str, Polls] = {}
        for title, opener in _ASYNC.items():
            client, poll = loop.run_until_complete(_open(opener, trusted))
            stack.callback(lambda client: loop.run_until_complete(client.__aexit__(None, None, None)), client)
            polls[title] = partial(_in_parallel, loop, base, poll)
        yield {**polls, "libcurl alone": _Curl(base, trusted)}


async def _open(opener: Callable[[str | None], Any], trusted: str | None) -> Any:
    client, poll = opener(trusted)  # some have to be made where a loop runs
    return client, partial(poll, await client.__aenter__())


def _in_parallel(
    loop: asyncio.AbstractEventLoop, base: str, poll: Callable[[str], Awaitable[None]], ids: list[str]
) -> None:
    async def worker(left: Iterator[str]) -> None:
        for task in left:
            await poll(f"{base}/tasks/{task}")

    async def everything() -> None:
        left = iter(ids)
        await asyncio.gather(*(worker(left) for _ in range(PARALLEL)))

    loop.run_until_complete(everything())


def _context(trusted: str | None) -> ssl.SSLContext | None:
    return None if trusted is None else ssl.create_default_context(cafile=trusted)


# Each returns a client to enter, and a function that polls one URL with what entering it returned.


def _aiohttp(trusted: str | None) -> Any:
    async def poll(session: aiohttp.ClientSession, url: str) -> None:
        async with session.get(url, headers=_HEADERS) as response:
            await response.json()

    connector = aiohttp.TCPConnector(limit=PARALLEL, ssl=_context(trusted) or True)
    return aiohttp.ClientSession(connector=connector), poll


def _httpx(trusted: str | None) -> Any:
    async def poll(client: httpx.AsyncClient, url: str) -> None:
        (await client.get(url, headers=_HEADERS)).json()

    limits = httpx.Limits(max_connections=PARALLEL, max_keepalive_connections=PARALLEL)
    return httpx.AsyncClient(limits=limits, verify=_context(trusted) or True, trust_env=False), poll


def _pyreqwest(trusted: str | None) -> Any:
    async def poll(client: Any, url: str) -> None:
        response = await client.get(url).headers(_HEADERS).build().send()
        await response.json()

    builder = ClientBuilder().max_connections(PARALLEL).http1_only().no_proxy()
    if trusted is not None:
        builder = builder.add_root_certificate_pem(Path(trusted).read_bytes())
    return builder.build(), poll


_ASYNC: Final[dict[str, Callable[[str | None], Any]]] = {
    "aiohttp alone": _aiohttp,
    "httpx alone": _httpx,
    "pyreqwest alone": _pyreqwest,
}


class _Curl:
    """libcurl's multi interface in a loop of one thread."""

    def __init__(self, base: str, bundle: str | None) -> None:
        self._base = base
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, PARALLEL)
        self._handles = [self._handle(bundle) for _ in range(PARALLEL)]

    def _handle(self, bundle: str | None) -> pycurl.Curl:
        handle = pycurl.Curl()
        handle.setopt(pycurl.HTTPHEADER, [f"{name}: {value}" for name, value in _HEADERS.items()])
        handle.setopt(pycurl.PROXY, "")
        if bundle is not None:
            handle.setopt(pycurl.CAINFO, bundle)
        return handle

    def __call__(self, ids: list[str]) -> None:
        left = iter(ids)
        bodies: dict[pycurl.Curl, BytesIO] = {}

        def begin(handle: pycurl.Curl) -> None:
            task = next(left, None)
            if task is not None:
                bodies[handle] = BytesIO()
                handle.setopt(pycurl.URL, f"{self._base}/tasks/{task}")
                handle.setopt(pycurl.WRITEDATA, bodies[handle])
                self._multi.add_handle(handle)

        for handle in self._handles:
            begin(handle)
        while bodies:
            self._multi.perform()
            _, succeeded, failed = self._multi.info_read()
            assert not failed
            for handle in succeeded:
                self._multi.remove_handle(handle)
                json.loads(bodies.pop(handle).getvalue())
                begin(handle)
            if not succeeded:
                self._multi.select(1.0)
