"""Broken providers: any exception in their code becomes an error of ours that names the provider."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import taskbridge as tb
from taskbridge.models import Task
from taskbridge.provider.base import no_requests
from taskbridge.provider.http import Flow, Request, Response
from taskbridge.provider.submission import Listing

if TYPE_CHECKING:
    from .conftest import Acme, Maker

    Says = Callable[..., Response]


def variant(base: type[Acme], get: Callable[..., Any]) -> type[Acme]:
    return type("Variant", (base,), {"get": get})


def test_an_endless_flow_is_ended(acme: Maker, acme_type: type[Acme]) -> None:
    def endless(self: Acme, _: str) -> Flow[Task]:
        while True:
            yield self.request("GET", "/again")

    made = acme(lambda _: Response(200, {}, b"{}"), provider=variant(acme_type, endless))
    with pytest.raises(tb.ContractError, match="provider acme is broken: it sent more than 32 requests"):
        made.client.get("t1")
    assert len(made.transport.requests) in (32, 33)


@pytest.mark.parametrize("kind", [KeyError, TypeError, AttributeError, IndexError, RecursionError])
def test_a_provider_that_raises_is_named(acme: Maker, acme_type: type[Acme], kind: type[Exception]) -> None:
    def trips(self: Acme, _: str) -> Flow[Task]:
        yield self.request("GET", "/tasks/t1")
        raise kind("sk-secret")

    made = acme([Response(200, {}, b"{}")], provider=variant(acme_type, trips))
    with pytest.raises(tb.ContractError, match=f"acme is broken: it raised {kind.__name__}") as caught:
        made.client.get("t1")
    assert "sk-secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.ref == "acme:t1"


def test_a_provider_that_raises_before_its_first_request_is_named(acme: Maker, acme_type: type[Acme]) -> None:
    def trips(_: Acme, __: str) -> Flow[Task]:
        raise KeyError("sk-secret")

    made = acme(provider=variant(acme_type, trips))
    with pytest.raises(tb.ContractError, match="acme is broken: it raised KeyError"):
        made.client.get("t1")


@pytest.mark.parametrize("call", ["list", "cancel", "submit"])
def test_any_call_that_raises_before_its_first_request_is_named(acme: Maker, acme_type: type[Acme], call: str) -> None:
    def trips(*_: object) -> Flow[Task]:
        raise KeyError("sk-secret")

    can = replace(
        acme_type.capabilities,
        cancel=True,
        listing=Listing(10),
        operations={"convert": "convert"},
        inputs=frozenset({"bytes"}),
    )
    said = {"capabilities": can, "list_page": trips, "cancel": trips, "submit": trips}
    made = acme(provider=type("Variant", (acme_type,), said))
    calls: dict[str, Callable[[], object]] = {
        "list": lambda: next(iter(made.client.list())),
        "cancel": lambda: made.client.cancel("t1"),
        "submit": lambda: made.client.submit("convert", b"x"),
    }
    with pytest.raises(tb.ContractError, match="acme is broken: it raised KeyError before its first request") as caught:
        calls[call]()
    assert caught.value.connection == "acme"


def test_a_flow_may_handle_an_error_and_continue(acme: Maker, acme_type: type[Acme], says: Says) -> None:
    def get(self: Acme, task_id: str) -> Flow[Task]:
        try:
            response = yield self.request("GET", "/new/t1")
        except tb.ConnectFailed:
            response = yield self.request("GET", "/old/t1")
        return self.task(self.payload(response), task_id)

    made = acme([tb.ConnectFailed("down"), says("t1", "done")], provider=variant(acme_type, get), retry={"attempts": 1})
    assert made.client.get("t1").status == "completed"
    assert [request.url[-7:] for request in made.transport.requests] == ["/new/t1", "/old/t1"]


@pytest.mark.parametrize("given", [None, 7, {}, "a flow"], ids=str)
def test_an_operation_that_is_no_flow_or_returns_no_task_is_named(
    acme: Maker, acme_type: type[Acme], given: object
) -> None:
    def get(_: Acme, __: str) -> Any:
        return no_requests("no task") if given == "a flow" else given

    made = acme(provider=variant(acme_type, get))
    with pytest.raises(tb.ContractError, match="the provider acme is broken"):
        made.client.get("t1")


def test_an_abandoned_flow_is_closed(acme: Maker, acme_type: type[Acme]) -> None:
    closed: list[bool] = []

    def get(self: Acme, _: str) -> Flow[Task]:
        try:
            yield self.request("GET", "/tasks/t1")
        finally:
            closed.append(True)
        raise AssertionError

    def interrupt(_: Request) -> Response:
        raise KeyboardInterrupt

    made = acme(interrupt, provider=variant(acme_type, get))
    with pytest.raises(KeyboardInterrupt):
        made.client.get("t1")
    assert closed == [True]
