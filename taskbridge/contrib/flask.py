"""A Flask blueprint that receives the webhooks of one connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Blueprint

from taskbridge.contrib.wsgi import WebhookApp

if TYPE_CHECKING:
    from taskbridge.client import Client
    from taskbridge.contrib._receiver import OnEnd

__all__ = ["webhook_blueprint"]


def webhook_blueprint(client: Client, path: str, on_end: OnEnd) -> Blueprint:
    """Return a blueprint for ``app.register_blueprint``; see `taskbridge.contrib.wsgi.WebhookApp`.

    Args:
        client: A synchronous client.
        path: Where the vendor delivers; a secret in it is a parameter, such as ``/hooks/<secret>``.
        on_end: Called with each task whose end a delivery reports.
    """
    app = WebhookApp(client, on_end)
    blueprint = Blueprint(f"taskbridge-{client.name}", __name__)

    def receive(**_: Any) -> Any:
        return app  # Flask answers with what a WSGI application answers

    blueprint.add_url_rule(path, view_func=receive, methods=["POST"])
    return blueprint
