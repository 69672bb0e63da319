"""`close` ends what runs at that moment, at once: waits, requests in flight, also from another event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

import pytest

import taskbridge as tb
from taskbridge import aio
from taskbridge._transport.choice import make_async_transport, make_transport
from taskbridge.errors import TransportError
from taskbridge.provider.http import Request, Response
from taskbridge.transport import Network

from .conftest import Place
from .server import HANG, READ, FaultServer, Play, answer
from .vendors import VENDORS

VENDOR: Final = VENDORS["cloudconvert"]
KINDS: Final = ["requests", "curl"]
PROMPT: Final = 5.0  # seconds; half of the silence after which a request ends by itself


@pytest.fixture(params=["plain", "tls"])
def place(request: pytest.FixtureRequest, places: dict[str, Place]) -> Place:
    return places[request.param]


@pytest.fixture
def server(places: dict[str, Place]) -> FaultServer:
    found = places["plain"].server
    assert found is not None
    return found


def silent(place: Place) -> Play:
    assert place.server is not None
    return place.server.play((READ, HANG))


def settings(place: Place, kind: str) -> dict[str, Any]:
    return {**VENDOR.settings(place.url), **place.settings, "transport": kind}


def in_thread(call: Callable[[], object]) -> tuple[threading.Thread, list[Exception]]:
    """Call a function in a thread, which collects the error."""
    errors: list[Exception] = []

    def run() -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001  # whatever comes out
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, errors


def wait_for_request(play: Play) -> None:
    while not play.requests:
        threading.Event().wait(0.002)


async def request_arrives(play: Play) -> None:
    while not play.requests:  # noqa: ASYNC110  # another thread's count
        await asyncio.sleep(0.002)


@pytest.mark.parametrize("kind", KINDS)
def test_close_ends_a_wait_whose_poll_is_in_flight(kind: str, place: Place) -> None:
    play = silent(place)
    client = tb.connect(VENDOR.name, **settings(place, kind))
    thread, errors = in_thread(lambda: client.wait(VENDOR.id))
    wait_for_request(play)
    client.close()
    thread.join(PROMPT)
    assert not thread.is_alive()
    (error,) = errors
    assert isinstance(error, tb.WaitTimeout)
    assert (error.ref, error.task) == (f"{VENDOR.name}:{VENDOR.id}", None)
    assert "closed" in error.message
    assert len(play.requests) == 1
    client.close()  # a second time


@pytest.mark.parametrize("kind", KINDS)
def test_async_close_ends_a_wait_whose_poll_is_in_flight(kind: str, place: Place) -> None:
    play = silent(place)

    async def run() -> None:
        client = aio.connect(VENDOR.name, **settings(place, kind))
        wait = asyncio.ensure_future(client.wait(VENDOR.id))
        await request_arrives(play)
        await client.close()
        with pytest.raises(tb.WaitTimeout, match="closed"):
            await asyncio.wait_for(wait, PROMPT)
        await client.close()  # a second time
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())
    assert len(play.requests) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_transport_ends_its_requests_and_takes_no_more(kind: str, place: Place) -> None:
    play = silent(place)
    transport = make_transport(Network(ca_bundle=place.settings.get("ca_bundle")), "tests", 32, kind)
    request = Request("GET", place.url)

    def send() -> Response:
        return transport.send(request, deadline=time.monotonic() + 30.0, max_body=1024)

    thread, errors = in_thread(send)
    wait_for_request(play)
    transport.close()
    thread.join(PROMPT)
    (error,) = errors
    assert isinstance(error, TransportError)
    assert (error.message, error.written, error.retryable) == ("the transport was closed", True, False)
    with pytest.raises(TransportError, match="was closed") as refused:
        send()
    assert not refused.value.written
    transport.close()
    assert len(play.requests) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_an_async_transport_is_closed_in_any_event_loop_and_more_than_once(kind: str, server: FaultServer) -> None:
    server.reply(lambda _: answer(200, b"{}", close=False))
    transport = make_async_transport(Network(), "tests", 32, kind)
    request = Request("GET", server.url)

    def send() -> Coroutine[Any, Any, Response]:
        return transport.send(request, deadline=time.monotonic() + 5.0, max_body=1024)

    assert asyncio.run(send()).status == 200
    asyncio.run(transport.close())
    asyncio.run(transport.close())
    with pytest.raises(TransportError, match="was closed"):
        asyncio.run(send())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("call", ["wait", "wait_all"])
def test_close_in_another_event_loop_ends_waits_as_soon_as_their_own_runs(
    call: str, kind: str, server: FaultServer
) -> None:
    play = server.play((READ, HANG))
    client = aio.connect(VENDOR.name, **VENDOR.settings(server.url), transport=kind)
    own = asyncio.new_event_loop()

    async def begin() -> asyncio.Future[Any]:
        waiting = client.wait(VENDOR.id) if call == "wait" else client.wait_all([VENDOR.id])
        task = asyncio.ensure_future(waiting)
        await request_arrives(play)
        return task

    async def end(task: asyncio.Future[Any]) -> None:
        for outcome in await asyncio.wait_for(task, PROMPT):
            outcome.unwrap()

    task = own.run_until_complete(begin())
    asyncio.run(client.close())
    with pytest.raises(tb.WaitTimeout, match="closed"):
        own.run_until_complete(end(task))
    own.run_until_complete(own.shutdown_asyncgens())
    own.close()


def test_close_after_the_event_loop_of_a_wait_is_quiet(server: FaultServer) -> None:
    play = server.play((READ, HANG))
    client = aio.connect(VENDOR.name, **VENDOR.settings(server.url))
    own = asyncio.new_event_loop()

    def ignore(_: asyncio.AbstractEventLoop, __: dict[str, Any]) -> None:
        """The loop is closed before its tasks have ended."""

    own.set_exception_handler(ignore)

    async def begin() -> set[asyncio.Task[Any]]:
        waits = [client.wait(VENDOR.id), client.wait_all([VENDOR.id])]
        tasks = [asyncio.ensure_future(each) for each in waits]
        await request_arrives(play)
        return {*tasks, *(each for each in asyncio.all_tasks() if each is not asyncio.current_task())}

    tasks = own.run_until_complete(begin())
    own.close()
    asyncio.run(client.close())
    assert not any(task.done() for task in tasks)  # their loop cannot run any more
    for task in tasks:
        with suppress(RuntimeError):
            task.get_coro().close()
