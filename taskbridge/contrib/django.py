"""A Django view that receives the webhooks of one connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from django.http import HttpResponse
from django.views.decorators.csrf import csrf_exempt  # pyright: ignore[reportUnknownVariableType]  # it has no types

from taskbridge.contrib._receiver import answer_fields
from taskbridge.contrib.wsgi import WebhookApp

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskbridge.client import Client
    from taskbridge.contrib._receiver import OnEnd

__all__ = ["webhook_view"]


def webhook_view(client: Client, on_end: OnEnd) -> Callable[..., Any]:
    """Return a view for ``path("hooks/<str:secret>", …)``; see `taskbridge.contrib.wsgi.WebhookApp`.

    The vendor's limit of the body holds instead of ``DATA_UPLOAD_MAX_MEMORY_SIZE``.

    Args:
        client: A synchronous client.
        on_end: Called with each task whose end a delivery reports.
    """
    app = WebhookApp(client, on_end)

    def receive(request: Any, **_: Any) -> Any:
        # Django's stream ends where the body does.
        status = app.respond(
            request.method,
            request.headers,
            request.get_full_path(),
            length=request.META.get("CONTENT_LENGTH"),
            is_terminated=True,
            read=request.read,
        )
        return HttpResponse(status=status, headers=answer_fields(status))

    return cast("Callable[..., Any]", csrf_exempt(receive))
