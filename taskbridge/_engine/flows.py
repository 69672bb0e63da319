"""."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar, cast

from taskbridge._engine.connection import Connection
from taskbridge.errors import (
    ContractError,
    TaskbridgeError,
)
from taskbridge.provider.http import Flow, Request, Response

T = TypeVar("T")


def broken_provider(connection: Connection, fault: str) -> ContractError:
    """The error for a provider that cannot be used as it is."""
    return ContractError(f"the provider {connection.provider.name} is broken: {fault}", connection=connection.name)


def guarded_flow(connection: Connection, operation: Callable[..., Flow[T] | None], *args: Any) -> Flow[T]:
    """The flow of a provider's operation, which begins only when it is run: whatever trips there is an error of ours.

    Raises:
        ContractError: The provider tripped before its first request, or gave no flow.
    """
    try:
        flow = operation(*args)
    except TaskbridgeError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever a provider's own code may raise
        fault = f"it raised {type(error).__name__} before its first request"
    else:
        if isinstance(flow, Generator):
            return (yield from flow)
        fault = "an operation returned no flow"
    raise broken_provider(connection, fault)


def intercepted(
    flow: Flow[T], hear: Callable[[Response], object], ready: Callable[[Request], Request] | None = None
) -> Flow[T]:
    """The same flow, with somebody beside it.

    Args:
        flow: The flow, not yet started.
        hear: Told each answer, before the flow has it; what it raises ends the flow.
        ready: Given each request, it gives the one that is sent.
    """
    try:
        request = next(flow)
        while True:
            asked = request if ready is None else ready(request)
            try:
                answer = yield asked
            except TaskbridgeError as error:
                fault = error
            else:
                hear(answer)
                request = flow.send(answer)
                continue
            request = flow.throw(fault)
    except StopIteration as end:
        return cast("T", end.value)
    finally:
        flow.close()
