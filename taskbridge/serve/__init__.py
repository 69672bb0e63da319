"""``taskbridge serve`` (extra ``serve``): works on a store, and shows a page, metrics and its health over HTTP.

The page is rendered on the server and needs no build. Its few files, htmx with the extension for server-sent events
among them, are in ``static``; it loads nothing from other hosts. Everything on it passes `taskbridge.serve.texts`: no
secret, and no link that gives access to a document.
"""

from __future__ import annotations

from taskbridge._config.registry import require_extra

try:
    from taskbridge.serve.access import Access
    from taskbridge.serve.deliveries import open_recipients
    from taskbridge.serve.server import Job, Server, listen
except ModuleNotFoundError as error:
    if error.name not in {"jinja2", "markupsafe", "prometheus_client", "sqlalchemy", "starlette", "uvicorn"}:
        raise
    raise require_extra(error.name, "serve", "the server") from None

__all__ = ["Access", "Job", "Server", "listen", "open_recipients"]
