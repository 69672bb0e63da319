"""A FastAPI router that receives the webhooks of one connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.routing import Route

from taskbridge.contrib.asgi import WebhookApp

if TYPE_CHECKING:
    from taskbridge.aio import Client
    from taskbridge.contrib._receiver import OnEnd

__all__ = ["webhook_router"]


def webhook_router(client: Client, path: str, on_end: OnEnd) -> APIRouter:
    """Return a router for ``app.include_router``; see `taskbridge.contrib.asgi.WebhookApp`.

    Args:
        client: A client of `taskbridge.aio`.
        path: Where the vendor delivers; a secret in it is a parameter, such as ``/hooks/{secret}``.
        on_end: Called with each task whose end a delivery reports; may be a coroutine function.
    """
    return APIRouter(routes=[Route(path, WebhookApp(client, on_end), methods=["POST"], include_in_schema=False)])
