"""What every receiver of webhooks decides: which request is refused unread, and which status answers a delivery.

A delivery is answered 2xx only after the caller's function has returned, for this or an earlier delivery of the event.
If that raises, the event is forgotten, so that the vendor's next delivery of it is processed again, and the error is
the framework's.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
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
_RETRY_AFTER = 10  # seconds


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


def answer_fields(status: int) -> dict[str, str]:
    """Return the header fields of an answer without a body."""
    if status == DONE:
        return {}
    fields = {"Content-Length": "0"}
    if status == WRONG_METHOD:
        fields["Allow"] = "POST"
    if status == _AGAIN:
        fields["Retry-After"] = str(_RETRY_AFTER)
    return fields


def _parse(client: Client | aio.Client, headers: Headers, body: bytes, url: str) -> WebhookEvent | int:
    try:
        return client.parse_webhook(headers, body, url=url)
    except TaskbridgeError as error:
        without_traceback(error)  # which has the URL, and that may have a secret in it
        return error.answer if isinstance(error, WebhookRejected) else _AGAIN


class _Answer:
    """How a delivery is answered.

    Attributes:
        status: The status.
        is_ingested: Whether the event was ingested, so that an error is one of acting on it.
    """

    def __init__(self) -> None:
        self.status = _AGAIN
        self.is_ingested = False

    def ended_task(self, ingested: Ingested) -> Task | None:
        """Answer as an ingested event demands; return the task whose end it reports, if it does."""
        self.status, self.is_ingested = ingested.answer, True
        return ingested.task if ingested.task is not None and ingested.task.is_terminal else None


@contextmanager
def _answering() -> Generator[_Answer]:
    """Decide how a delivery is answered while it is processed in the block."""
    answer = _Answer()
    try:
        yield answer
    except TaskbridgeError:
        if answer.is_ingested:
            raise


def answer(client: Client, on_end: OnEnd, headers: Headers, body: bytes, *, url: str) -> int:
    """Process a delivery, and return the status to answer with.

    Raises:
        BaseException: What `on_end` raised.
        StoreUnavailable: `on_end` was called, but the event bus cannot note that.
    """
    event = _parse(client, headers, body, url)
    return event if isinstance(event, int) else _act(client, on_end, event)


def _act(client: Client, on_end: OnEnd, event: WebhookEvent) -> int:
    # Separate, so that no frame in the traceback of a caught error holds the URL, which may have a secret in it.
    with _answering() as answered, client.ingesting(event) as ingested:
        task = answered.ended_task(ingested)
        if task is not None:
            on_end(task)
    return answered.status


async def answer_async(client: aio.Client, on_end: OnEnd, headers: Headers, body: bytes, *, url: str) -> int:
    """As `answer`; `on_end` may be a coroutine function."""
    event = _parse(client, headers, body, url)
    return event if isinstance(event, int) else await _act_async(client, on_end, event)


async def _act_async(client: aio.Client, on_end: OnEnd, event: WebhookEvent) -> int:
    with _answering() as answered:
        async with client.ingesting(event) as ingested:
            task = answered.ended_task(ingested)
            if task is not None and isawaitable(called := on_end(task)):
                await called
    return answered.status


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
