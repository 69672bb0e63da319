"""Everything that changes something at a vendor: lifted flows, shared by both sides, without I/O.

An order is never sent twice blindly. The one request after which the vendor may have taken it goes out on a fresh
connection, after its reference was logged; what happens to it then is told apart by what was written, not by the kind
of failure (`taskbridge.flows`), and ends as the vendor's refusal or as `SubmitUncertain`, with a clue for `recover`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, TypeVar

from taskbridge.attempts import Lifted, uncertain
from taskbridge.channel import Channel
from taskbridge.errors import (
    ConfigError,
    ContractError,
    InvalidInput,
    ServerError,
    TaskbridgeError,
    UnexpectedRedirect,
    UnsupportedFeature,
    plain,
)
from taskbridge.fetch import Fetched, Rules, fetch
from taskbridge.flows import FULL, SUBMIT, Effort, lift, opened, tapped
from taskbridge.http import Flow, Request, Response
from taskbridge.logs import log
from taskbridge.looking import look, mismatch_of
from taskbridge.model import Task, TaskRef
from taskbridge.observing import Source, Why
from taskbridge.orders import check_limit, replaced
from taskbridge.submission import Document, Link, Submission
from taskbridge.witness import Trail, begin_trail, tell_seen

if TYPE_CHECKING:
    from pathlib import Path

    from taskbridge.orders import Prepared

__all__ = ["act", "cancel", "check_names", "claim", "get", "recover", "remove", "restart", "retry", "submit"]

T = TypeVar("T")

RATE: Final = 100_000.0  # bytes per second that a document is given at least, on its way here and on its way there
_LARGEST_FETCH: Final = 1 << 30  # bytes of a document that is fetched, where the vendor states no limit


# Submitting.


def submit(channel: Channel, prepared: Prepared) -> Lifted[Task]:
    """Hand an order to the vendor; documents that it wants as bytes are fetched first.

    The whole takes at most the connection's `request_timeout`, and a second more for each 100 kB to be sent; a document
    to be fetched has the same time for its largest allowed size.

    Raises:
        SubmitUncertain: The vendor may have taken it.
        TaskbridgeError: It has not; `clue` tells what was made on the way.
    """
    order = prepared.order
    if prepared.rooms:
        order = yield from _with_documents(channel, prepared)
    begun = {"operation": order.native_operation, "reference": order.reference}
    deadline = _deadline(channel, order.size)
    task = yield from _commit(channel, lambda: channel.provider.submit(order), begun, deadline)
    channel.born(task)
    return task


def _with_documents(channel: Channel, prepared: Prepared) -> Lifted[Submission]:
    """The order, with its links fetched into files."""
    can, settings, order = channel.provider.capabilities, channel.settings, prepared.order
    most = can.upload_limit or _LARGEST_FETCH
    rules = Rules(settings.allow_private, settings.allow_http, most)
    found: dict[int, Document] = {}
    for n, room in prepared.rooms.items():
        link = order.sources[n]
        assert isinstance(link, Link)  # noqa: S101  # rooms are made for links only
        got = yield from _fetched(channel, fetch(link.url, room, rules), _deadline(channel, most))
        found[n] = _document(got, link.name, room)
        if found[n].size == 0:
            raise InvalidInput("the document's URL gives an empty file", provider=channel.provider.name)
        check_limit(found[n], can, channel.provider.title)
    return replace(order, sources=tuple(replaced(order.sources, found)))


def _document(got: Fetched, name: str | None, room: Path) -> Document:
    return Document(name or got.name, room, room.stat().st_size, got.media_type)


def _fetched(channel: Channel, flow: Flow[Fetched], deadline: float) -> Lifted[Fetched]:
    try:
        return (yield from lift(channel, flow, deadline))
    except TaskbridgeError as error:
        fault = error
        if not isinstance(error, InvalidInput):
            error.message = f"the document could not be fetched: {error.message}"
            error.args = (error.message,)
    raise channel.told(fault)


def _deadline(channel: Channel, size: int = 0) -> float:
    return channel.clock.monotonic() + channel.settings.request_timeout + size / RATE


class _Sent:
    """What of a flow has been sent: the last request, and whether its answer came.

    Args:
        channel: The connection.
        begun: What is known of the order before anything is sent.
    """

    def __init__(self, channel: Channel, begun: Mapping[str, Any]) -> None:
        self._channel = channel
        self._begun = begun
        self._last: Request | None = None
        self._answered = False
        self._time = channel.clock.now()

    def watch(self, flow: Flow[T]) -> Flow[T]:
        """The same flow; its commit is logged, and goes out on a connection of its own."""
        return tapped(flow, self._hear, self._ready)

    def _hear(self, _answer: Response) -> None:
        self._answered = True

    def _ready(self, request: Request) -> Request:
        if request.commits:
            self._time = self._channel.clock.now()
            request = replace(request, fresh=True, clue=self._clue(request.clue))
            name, begun = self._channel.name, self._begun
            told = " ".join(f"{key}={plain(str(value), 200)}" for key, value in begun.items())
            log("order", connection=name, order=told, **_extra(begun))
        self._last, self._answered = request, False
        return request

    def _clue(self, made: Mapping[str, Any]) -> dict[str, Any]:
        """What is known of the order: who it was for, when, and what was made on the way."""
        channel = self._channel
        known = {"provider": channel.provider.name, "connection": channel.name, "time": self._time.isoformat()}
        return {**known, **self._begun, **made}

    def told(self, error: TaskbridgeError) -> TaskbridgeError:
        """The error that the caller sees: of unknown fate where it is, with what was made on the way."""
        channel, last = self._channel, self._last
        committing = last is not None and last.commits
        if committing and self._answered and _leaves_doubt(error, channel.provider.doubtful_statuses):
            doubt = uncertain(error.message, http_status=error.http_status, raw=error.raw)
            doubt.__cause__ = error
            error = doubt
        elif committing and isinstance(error, ServerError):
            error.retryable = False
        error.clue = self._clue({} if last is None else last.clue)
        if isinstance(error.__cause__, TaskbridgeError):
            channel.told(error.__cause__)
        if channel.blames_account(error):
            channel.refuse(error)
        return channel.told(error)


def _extra(begun: Mapping[str, Any]) -> dict[str, Any]:
    return {f"order_{key}": value for key, value in begun.items()}


def _leaves_doubt(error: TaskbridgeError, doubtful: frozenset[int]) -> bool:
    """Whether an answer that a flow could not use may have been the vendor's yes."""
    if isinstance(error, ServerError):
        return error.http_status in doubtful
    return isinstance(error, ContractError) and not isinstance(error, UnexpectedRedirect)


def _commit(
    channel: Channel, begin: Callable[[], Flow[Task]], begun: Mapping[str, Any], deadline: float
) -> Lifted[Task]:
    sent = _Sent(channel, begun)
    trail = Trail(None, Why.ASKED, channel.clock.monotonic()) if channel.audience.hears_tasks else None
    plan = SUBMIT if trail is None else replace(SUBMIT, trail=trail)
    try:
        task = yield from lift(channel, sent.watch(opened(channel, begin)), deadline, plan=plan)
        if not isinstance(task, Task):  # pyright: ignore[reportUnnecessaryIsInstance]  # strangers write it
            raise ContractError(f"the provider {channel.provider.name} is broken: an order returned no Task")
    except TaskbridgeError as error:
        fault = sent.told(error)
    else:
        tell_seen(channel, trail, Source.SUBMIT, task=task)
        return task
    raise fault


def retry(channel: Channel, task_id: str) -> Lifted[Task]:
    """Do a task once more, as a new task.

    Raises:
        SubmitUncertain: The vendor may have begun it.
        TaskbridgeError: It has not.
    """
    begun = {"operation": "retry", "retry_of": task_id}
    task = yield from _commit(channel, lambda: channel.provider.retry(task_id), begun, _deadline(channel))
    if task.retry_of is None:
        task = task.model_copy(update={"retry_of": task_id})
    channel.born(task)
    return task


def restart(channel: Channel, task_id: str, *, destructive: bool) -> Lifted[Task]:
    """Do a task anew under its own id.

    Raises:
        ConfigError: `destructive` is not set; nothing was sent.
        SubmitUncertain: The vendor may have begun it; its `restarts` tell.
        TaskbridgeError: It has not.
    """
    if destructive is not True:
        raise ConfigError(
            f"{channel.provider.title} does a task anew from its first request: what it made and what people changed "
            "in it are lost, and it costs as much as a new one; say destructive=True where that is meant",
            ref=TaskRef.of(channel.name, task_id),
        )
    begun = {"operation": "restart", "restart_of": task_id}
    return (yield from _commit(channel, lambda: channel.provider.restart(task_id), begun, _deadline(channel)))


def recover(channel: Channel, error: TaskbridgeError, prepared: Prepared | None = None) -> Lifted[Task | None]:
    """Look for the order that an error left in doubt, and bring it to its end where it lacks its document.

    Args:
        channel: The connection.
        error: What the submit raised.
        prepared: The documents again; None where they are not at hand.

    Raises:
        ConfigError: The error has no clue, or one of another connection.
        UnsupportedFeature: The vendor has no way to find it.
        TaskbridgeError: The search failed, which says nothing of the order.
    """
    clue, provider = error.clue, channel.provider
    if not clue:
        raise ConfigError("recover takes the error of a submit; this one tells nothing of an order")
    if clue.get("connection") != channel.name or clue.get("provider") != provider.name:
        raise ConfigError(f"the order was given through {plain(str(clue.get('connection')), 60)!r}, not here")
    if provider.capabilities.recover is None or "reference" not in clue:
        raise provider.unsupported(f"look for an order of unknown fate ({plain(str(clue.get('operation')), 60)})")
    found = yield from act(channel, lambda: provider.recover(clue))
    if found is not None and prepared is not None and not found.is_terminal:
        found = yield from _finished(channel, found, prepared.order)
    if found is not None:
        channel.note(found)
    return found


def _finished(channel: Channel, task: Task, order: Submission) -> Lifted[Task]:
    def begin() -> Flow[Task]:
        return channel.provider.finish(task, order)

    return (yield from act(channel, begin, task.id, size=order.size))


# Acting on a task.


def claim(channel: Channel, call: str, what: str) -> None:
    """Refuse a call that the vendor cannot serve.

    Args:
        channel: The connection.
        call: Name of the client's method.
        what: The same in words that follow "cannot".

    Raises:
        UnsupportedFeature: It cannot; the message tells what it can.
    """
    if call not in channel.provider.capabilities.calls:
        raise channel.provider.unsupported(what)


def act(
    channel: Channel, begin: Callable[[], Flow[T]], task_id: str | None = None, *, plan: Effort = FULL, size: int = 0
) -> Lifted[T]:
    """Run an operation that no order hangs on, within the connection's `request_timeout`.

    Args:
        channel: The connection.
        begin: The provider's operation.
        task_id: The shared id that it is about, if it is about one.
        plan: How much each request is worth.
        size: Bytes that it sends, which take their time.
    """
    try:
        return (yield from lift(channel, opened(channel, begin), _deadline(channel, size), plan=plan))
    except TaskbridgeError as error:
        fault = channel.told(error, None if task_id is None else f"{channel.name}:{task_id}")
        if channel.blames_account(fault):
            channel.refuse(fault)
    raise fault


def cancel(channel: Channel, task_id: str) -> Lifted[Task]:
    """Stop a task; see `Provider.cancel`.

    Raises:
        IdentityMismatch: The vendor answered for another task: nobody knows whether this one stops.
    """
    task = yield from act(channel, lambda: channel.provider.cancel(task_id), task_id)
    mismatch = mismatch_of(*channel.provider.split_id(task_id), task)
    if mismatch is not None:
        raise channel.told(mismatch, f"{channel.name}:{task_id}")
    return task


def remove(channel: Channel, task_id: str) -> Lifted[None]:
    """Remove a task at the vendor; see `Provider.delete`."""
    yield from act(channel, lambda: channel.provider.delete(task_id), task_id)
    channel.young.pop(task_id, None)


def get(channel: Channel, task_id: str, options: Mapping[str, Any] | None) -> Lifted[Task]:
    """Look a task up once, with the vendor's own query options where there are any.

    Raises:
        UnsupportedFeature: The vendor has no such option; nothing was sent.
        TaskbridgeError: The look-up failed; that says nothing of the task.
    """
    wanted = dict(options or {})
    check_names(channel, wanted, channel.provider.capabilities.look_options, "look-up option")

    def look_with(task_id: str) -> Flow[Task]:
        return channel.provider.get_with(task_id, wanted)

    operation = look_with if wanted else channel.provider.get
    trail = begin_trail(channel, task_id)
    try:
        seen = yield from look(channel, task_id, _deadline(channel), operation=operation, trail=trail)
    except TaskbridgeError as error:
        tell_seen(channel, trail, error=error)
        raise
    assert seen.task is not None  # noqa: S101  # None only where bytes were given to compare with
    tell_seen(channel, trail, task=seen.task)
    return seen.task


def check_names(channel: Channel, given: Mapping[str, Any], known: frozenset[str], noun: str) -> None:
    """Refuse a keyword that the vendor does not have, offering the nearest.

    Raises:
        UnsupportedFeature: It has none of that name.
    """
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UnsupportedFeature(
                f"{channel.provider.title} has no {noun} {plain(name, 60)!r}; {hint}"
                f"it has {', '.join(sorted(known)) or 'none'}",
                provider=channel.provider.name,
                connection=channel.name,
            )
