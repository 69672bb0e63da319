"""Control of an emulator over HTTP, for tests that are not written in Python.

Everything is below ``/__control__`` and needs the emulator's own token in ``Authorization: Bearer …``; no credential of
a vendor is accepted. Bodies are JSON. These requests are not in the emulator's log, and faults do not hit them.
"""

from __future__ import annotations

import hmac
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from taskbridge.emulator.vendor import Plan, PlannedOutcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send


PATH: Final = "/__control__"
DEFAULT: Final = Plan()

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Fault(_Body):
    fault: int | str
    times: Annotated[int, Field(ge=1)] = 1
    vendor: str | None = None
    method: str | None = None
    path_contains: str = ""
    retry_after: int | str | None = None
    seconds: Seconds | None = None
    body: str | None = None
    headers: dict[str, str] | None = None
    content_type: str = "application/json"


class _Plan(_Body):
    queued: Seconds = DEFAULT.queued
    working: Seconds = DEFAULT.working
    review: Seconds = DEFAULT.review
    outcome: PlannedOutcome = DEFAULT.outcome


class _Plans(_Body):
    plans: list[_Plan]
    vendor: str | None = None


class _Webhook(_Body):
    url: str
    events: list[str] | None = None
    vendor: str | None = None


class _Clock(_Body):
    advance: Seconds


_AnyBody = TypeVar("_AnyBody", bound=_Body)


def control_app(emulator: Any, token: str) -> ASGIApp:
    """Return the ASGI application that controls an `Emulator`, whose module imports this one, for this token."""
    calls = _Calls(emulator)
    table: tuple[tuple[str, str, Callable[[Request], Any]], ...] = (
        ("GET", "/vendors", calls.vendors),
        ("POST", "/faults", calls.add_fault),
        ("DELETE", "/faults", calls.clear_faults),
        ("POST", "/plans", calls.add_plans),
        ("POST", "/webhooks", calls.register_webhook),
        ("GET", "/deliveries", calls.deliveries),
        ("GET", "/requests", calls.requests),
        ("DELETE", "/requests", calls.clear_requests),
        ("GET", "/clock", calls.clock),
        ("POST", "/clock", calls.advance_clock),
    )
    routes = [Route(PATH + path, endpoint, methods=[method]) for method, path, endpoint in table]
    app = Starlette(routes=routes, exception_handlers=dict.fromkeys((HTTPException, ValueError), _problem))

    async def authorized(scope: Scope, receive: Receive, send: Send) -> None:
        header = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, given = header.partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), token.encode()):
            await app(scope, receive, send)
        else:
            text = "this needs the emulator's own token, in the header Authorization: Bearer …"
            response = JSONResponse({"error": text}, 401, {"WWW-Authenticate": "Bearer"})
            await response(scope, receive, send)

    return authorized


class _Calls:
    def __init__(self, emulator: Any) -> None:
        self._emulator = emulator

    async def vendors(self, _: Request) -> Response:
        """What connects to each vendor, its sample tasks, and its signing secrets."""
        return JSONResponse(
            {
                name: {
                    "settings": dict(vendor.settings()),
                    "samples": dict(vendor.samples()),
                    "secrets": dict(vendor.webhook_secrets()),
                }
                for name, vendor in self._emulator.vendors.items()
            }
        )

    async def add_fault(self, request: Request) -> Response:
        fields = (await _read(request, _Fault)).model_dump()
        text = fields.pop("body")
        self._emulator.fail_next(**fields, body=None if text is None else text.encode())
        return Response(status_code=204)

    async def clear_faults(self, _: Request) -> Response:
        self._emulator.clear_faults()
        return Response(status_code=204)

    async def add_plans(self, request: Request) -> Response:
        body = await _read(request, _Plans)
        self._emulator.plan_next(body.vendor, *(Plan(**plan.model_dump()) for plan in body.plans))
        return Response(status_code=204)

    async def register_webhook(self, request: Request) -> Response:
        body = await _read(request, _Webhook)
        try:
            secret = self._emulator.register_webhook(body.url, body.events, name=body.vendor)
        except NotImplementedError as error:
            raise ValueError(str(error)) from None
        return JSONResponse({"secret": secret}, 201)

    async def deliveries(self, _: Request) -> Response:
        rows = [asdict(sent) | {"body": sent.body.decode(errors="replace")} for sent in self._emulator.deliveries]
        return JSONResponse(rows)

    async def requests(self, _: Request) -> Response:
        return JSONResponse([asdict(seen) for seen in self._emulator.requests])

    async def clear_requests(self, _: Request) -> Response:
        self._emulator.clear_requests()
        return Response(status_code=204)

    async def clock(self, _: Request) -> Response:
        clock = self._emulator.clock
        return JSONResponse({"time": clock.now().isoformat(), "speed": clock.speed})

    async def advance_clock(self, request: Request) -> Response:
        self._emulator.clock.advance((await _read(request, _Clock)).advance)
        return await self.clock(request)


async def _read(request: Request, kind: type[_AnyBody]) -> _AnyBody:
    try:
        return kind.model_validate_json(await request.body())
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, fault['loc'])) or 'the body'}: {fault['msg']}" for fault in error.errors())
        problem = "; ".join(faults)
    raise ValueError(problem)


def _problem(_: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)
    return JSONResponse({"error": str(error)}, 400)
