"""What every receiver of webhooks decides: which request is refused unread, and which status answers a delivery.

A delivery is answered 2xx only after the caller's function has returned. If that raises, the event is forgotten, so
that the vendor's next delivery of it is processed again, and the error is the framework's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from inspect import isawaitable
from typing import TYPE_CHECKING, TypeAlias

from taskbridge._engine.webhooks import concerned
from taskbridge.errors import TaskbridgeError, WebhookRejected
from taskbridge.provider.secrets import without_traceback

if TYPE_CHECKING:
    from taskbridge import aio
    from taskbridge._engine.webhooks import Headers, Ingested
    from taskbridge.client import Client
    from taskbridge.models import Task, WebhookEvent
    from taskbridge.store import Store

OnEnd: TypeAlias = Callable[["Task"], object]
"""Called with each task whose end a delivery reports; a vendor may report an end by several events."""

DONE = int(HTTPStatus.NO_CONTENT)
UNKNOWN_PATH = int(HTTPStatus.NOT_FOUND)
TOO_LARGE = int(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
WRONG_METHOD = int(HTTPStatus.METHOD_NOT_ALLOWED)
_BAD_LENGTH = int(HTTPStatus.BAD_REQUEST)
_AGAIN = int(HTTPStatus.SERVICE_UNAVAILABLE)  # the vendor delivers it again


def refusal(method: str, length: str | None, limit: int) -> int | None:
    """Return the status for a request that is refused before its body is read, or None.

    Args:
        method: The HTTP method.
        length: The field Content-Length, if there is one.
        limit: Most bytes of the body.
    """
    if method != "POST":
        return WRONG_METHOD
    if not length:
        return None
    if not (length.isascii() and length.isdigit()):
        return _BAD_LENGTH
    return TOO_LARGE if len(length.lstrip("0")) > 18 or int(length) > limit else None


def _parse(client: Client | aio.Client, headers: Headers, body: bytes, url: str) -> WebhookEvent | int:
    try:
        return client.parse_webhook(headers, body, url=url)
    except TaskbridgeError as error:
        without_traceback(error)  # which has the URL, and that may have a secret in it
        return error.answer if isinstance(error, WebhookRejected) else _AGAIN


def _ended_task(ingested: Ingested) -> Task | None:
    """Return the task whose end an event reports, if it does."""
    return ingested.task if ingested.task is not None and ingested.task.is_terminal else None


class UnderWay:
    """The events that a receiver is processing at present; for any number of threads.

    A vendor that loses patience delivers an event again meanwhile. How that ends is not known yet, so it must be
    delivered once more: otherwise the event is lost if it ends badly.
    """

    def __init__(self) -> None:
        self._owners: dict[str, object] = {}  # by duplicate key

    def begin(self, event: WebhookEvent) -> bool:
        """Reserve an event until `end`; False if it is reserved."""
        owner = object()
        return self._owners.setdefault(event.duplicate_key, owner) is owner

    def end(self, event: WebhookEvent) -> None:
        """Let the next delivery of it be processed."""
        self._owners.pop(event.duplicate_key, None)


def answer(client: Client, on_end: OnEnd, under_way: UnderWay, headers: Headers, body: bytes, *, url: str) -> int:
    """Process a delivery, and return the status to answer with.

    Raises:
        BaseException: What `on_end` raised.
    """
    event = _parse(client, headers, body, url)
    if isinstance(event, int):
        return event
    if not under_way.begin(event):
        return _AGAIN
    try:
        return _act(client, on_end, event)
    finally:
        under_way.end(event)


def _act(client: Client, on_end: OnEnd, event: WebhookEvent) -> int:
    # Separate, so that no frame in the traceback of a caught error holds the URL, which may have a secret in it.
    try:
        task = _ended_task(client.ingest(event))
    except TaskbridgeError:
        return _AGAIN
    try:
        if task is not None:
            on_end(task)
    except BaseException:
        client.forget(event)
        raise
    return DONE


def answer_by_storing(
    client: Client | aio.Client, store: Store, headers: Headers, body: bytes, *, url: str
) -> int | Callable[[], int]:
    """Prove a delivery; return the status to answer with, or what stores the event and then returns it."""
    event = _parse(client, headers, body, url)
    return event if isinstance(event, int) else partial(_store, client, store, event)


def _store(client: Client | aio.Client, store: Store, event: WebhookEvent) -> int:
    tasks = () if event.task is None else concerned(client.capabilities, event.task)
    refs = [*([] if event.ref is None else [event.ref]), *(task.ref for task in tasks)]
    try:
        with store.begin() as tx:
            tx.add_webhook(event.connection, event.duplicate_key, refs)
    except TaskbridgeError:
        return _AGAIN
    return DONE


async def answer_async(
    client: aio.Client, on_end: OnEnd, under_way: UnderWay, headers: Headers, body: bytes, *, url: str
) -> int:
    """As `answer`; `on_end` may be a coroutine function."""
    event = _parse(client, headers, body, url)
    if isinstance(event, int):
        return event
    if not under_way.begin(event):
        return _AGAIN
    try:
        return await _act_async(client, on_end, event)
    finally:
        under_way.end(event)


async def _act_async(client: aio.Client, on_end: OnEnd, event: WebhookEvent) -> int:
    try:
        task = _ended_task(await client.ingest(event))
    except TaskbridgeError:
        return _AGAIN
    try:
        if task is not None and isawaitable(called := on_end(task)):
            await called
    except BaseException:
        client.forget(event)
        raise
    return DONE
