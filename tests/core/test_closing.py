"""`close` while a client waits: the wait ends at once, and no request follows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

import taskbridge as tb
from taskbridge import aio
from taskbridge.provider import Downloads
from taskbridge.provider.http import Request, Response
from taskbridge.testing import AsyncScriptedTransport, ScriptedTransport, VirtualClock

from .conftest import Acme, Maker

Says = Callable[..., Response]


def test_close_ends_a_wait(acme: Maker, says: Says) -> None:
    def vendor(_: Request) -> Response:
        if len(harness.transport.requests) == 3:
            harness.client.close()
        return says("t1", "working")

    harness = acme(vendor)
    with pytest.raises(tb.WaitTimeout, match="closed while waiting; the task continues") as caught:
        harness.client.wait("t1")
    assert caught.value.task is not None
    assert caught.value.task.native_status == "working"
    assert len(harness.transport.requests) == 3


def test_an_async_close_ends_a_wait(acme: Maker, says: Says) -> None:
    async def run() -> None:
        def vendor(_: Request) -> Response:
            if len(transport.requests) == 3:
                closing.append(asyncio.ensure_future(client.close()))
            return says("t1", "working")

        closing: list[asyncio.Future[None]] = []
        client, transport = acme(vendor).asynchronous()
        with pytest.raises(tb.WaitTimeout, match="closed while waiting; the task continues") as caught:
            await client.wait("t1")
        assert caught.value.task is not None
        assert len(transport.requests) == 3
        await asyncio.gather(*closing)

    asyncio.run(run())


def test_an_update_may_close_the_client(acme: Maker, says: Says) -> None:
    harness = acme(lambda _: says("t1", "working"))
    with pytest.raises(tb.WaitTimeout, match="closed"):
        harness.client.wait("t1", on_update=lambda _: harness.client.close())
    assert len(harness.transport.requests) == 1

    async def run() -> None:
        closing: list[asyncio.Future[None]] = []
        client, transport = harness.asynchronous()
        with pytest.raises(tb.WaitTimeout, match="closed"):
            await client.wait("t1", on_update=lambda _: closing.append(asyncio.ensure_future(client.close())))
        await asyncio.gather(*closing)
        assert len(transport.requests) <= 2

    asyncio.run(run())


def test_the_end_of_the_task_wins(acme: Maker, says: Says) -> None:
    def vendor(_: Request) -> Response:
        harness.client.close()
        return says("t1", "done")

    harness = acme(vendor)
    assert harness.client.wait("t1").status == "completed"


def test_a_client_that_shares_its_transport_ends_its_own_waits_only(acme: Maker, says: Says) -> None:
    async def run() -> None:
        silence = asyncio.Event()

        class Silent(AsyncScriptedTransport):
            async def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
                response = await super().send(request, deadline=deadline, max_body=max_body)
                await silence.wait()
                return response

        harness = acme()
        transport = Silent(lambda _: says("t1", "done"), clock=harness.clock)
        bridge = aio.Bridge({"acme": harness.connection}, clock=harness.clock, transport=transport)
        client = bridge["acme"]
        own, other = asyncio.ensure_future(client.wait("t1")), asyncio.ensure_future(bridge.wait("acme:t1"))
        while len(transport.requests) < 2:  # noqa: ASYNC110  # of two tasks
            await asyncio.sleep(0)
        await client.close()
        with pytest.raises(tb.WaitTimeout, match="closed"):
            await asyncio.wait_for(own, 5.0)  # although its request never ends
        silence.set()
        assert (await other).status == "completed"
        await bridge.close()

    asyncio.run(run())


def test_a_closed_client_makes_no_transport(
    acme: Maker, acme_type: type[Acme], says: Says, clock: VirtualClock
) -> None:
    """`close` overtakes an operation that has sent nothing yet."""
    made: list[ScriptedTransport] = []

    class Making:
        def transport(self, connection: object) -> ScriptedTransport:  # noqa: ARG002  # of the protocol
            made.append(ScriptedTransport(lambda _: says("t1", "working"), clock=clock))
            return made[-1]

        def async_transport(self, connection: object) -> AsyncScriptedTransport:  # noqa: ARG002  # of the protocol
            raise AssertionError("this client is synchronous")

    capabilities = replace(acme_type.capabilities, downloads=Downloads(("text",)))
    downloading = type("Downloading", (acme_type,), {"capabilities": capabilities})
    connections = {name: acme(name=name, provider=downloading).connection for name in ("first", "second")}
    with tb.Bridge(connections, clock=clock, transport=Making()) as bridge:
        assert bridge.get("first:t1").native_status == "working"
        seen: list[str] = []

        def close(event: object) -> None:
            seen.append(type(event).__name__)
            bridge.close()

        with bridge.observe(close), pytest.raises(tb.ConfigError, match="closed"):
            bridge.download("second:t1", ".")
    assert (len(made), made[0].closed, seen[0]) == (1, True, "CallStarted")
