"""Everything that changes something at a vendor: lifted flows, shared by both sides, without I/O.

An order is never sent twice blindly. The one request after which the vendor may have taken it goes out on a fresh
connection, after its reference was logged; what happens to it then is told apart by what was written, not by the kind
of failure (`taskbridge.flows`), and ends as the vendor's refusal or as `SubmitUncertain`, with a clue for `recover`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, TypeVar

from taskbridge._engine.connection import Channel
from taskbridge._engine.effects import Lifted
from taskbridge._engine.flows import opened, tapped
from taskbridge._engine.inputs import check_limit, replaced
from taskbridge._engine.lookup import look, mismatch_of
from taskbridge._engine.redirects import Fetched, fetch
from taskbridge._engine.retry import FULL, LIST, SUBMIT, Effort, lift
from taskbridge._engine.tracing import Trail, begin_trail, tell_seen
from taskbridge._engine.uncertainty import _Sent
from taskbridge.errors import (
    ConfigError,
    ContractError,
    InvalidInput,
    TaskbridgeError,
    UnsupportedFeature,
    plain,
)
from taskbridge.events import Source, Why
from taskbridge.models import Task, TaskRef, TaskStatus
from taskbridge.provider.addresses import Rules
from taskbridge.provider.http import Flow, Response
from taskbridge.provider.policy import read_http_date
from taskbridge.provider.submission import Document, Link, Page, Query, Submission

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from taskbridge._engine.inputs import Prepared

# XXDOC Walking through a vendor's list: what is asked for, page after page, and what of a page is wanted; without I/O.

# XXDOC Whether a vendor takes a connection's credential, by the cheapest call that needs it; a lifted flow, without I/O.
#
# That is the newest page of the vendor's list where it has one, else the credential itself where the vendor gives it out.
# What comes back tells more on the way: the vendor's clock, and words that our tables do not know.
#

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


def query_of(channel: Channel, status: TaskStatus | str | None, filters: Mapping[str, Any]) -> Query:
    """Check what a list is asked for.

    Raises:
        UnsupportedFeature: The vendor does not list, or has no such filter.
        InvalidInput: The status is none of the four.
    """
    claim(channel, "list", "list tasks")
    listing = channel.provider.capabilities.listing
    check_names(channel, filters, listing.filters if listing else frozenset(), "filter")
    if status is not None and status not in set(TaskStatus):
        raise InvalidInput(f"a status is one of {', '.join(TaskStatus)}, not {plain(str(status), 60)!r}")
    return Query(None if status is None else TaskStatus(status), dict(filters))


class Walk:
    """A way through a vendor's list, one page at a time.

    Args:
        channel: The connection.
        query: What is asked for.
        limit: Tasks wanted at most; None for all.
    """

    def __init__(self, channel: Channel, query: Query, limit: int | None) -> None:
        if limit is not None and limit < 0:
            raise InvalidInput("limit must not be negative")
        self.channel = channel
        self._query = query
        self._left = limit
        self._cursor: str | None = None
        self._before: frozenset[str] = frozenset()
        self._over = limit == 0

    @property
    def goes_on(self) -> bool:
        """Whether there may be another page."""
        return not self._over

    def ask(self) -> Lifted[Page]:
        """Ask for the next page."""
        return act(self.channel, lambda: self.channel.provider.list_page(self._query, self._cursor), plan=LIST)

    def take(self, page: Page) -> Iterator[Task]:
        """What the page has that is wanted; the list moves while it is read, so a task at a seam comes twice."""
        ids = frozenset(task.id for task in page.tasks)
        self._cursor = page.next_cursor
        if page.next_cursor is None:
            self._over = True
        elif ids and ids <= self._before:
            raise ContractError("the vendor's list comes back to where it was", connection=self.channel.name)
        before, self._before = self._before, ids
        for task in page.tasks:
            if task.id in before or self._query.status not in (None, task.status):
                continue
            self.channel.note(task)
            if self._left is not None:
                self._left -= 1
                self._over = self._over or self._left == 0
            yield task
            if self._left == 0:
                return


@dataclass(frozen=True, slots=True)
class Checkup:
    """What came of trying a connection.

    Attributes:
        how: What was asked, in words; None where the vendor has no call that needs no task.
        tasks: Tasks that the vendor told of.
        unknown_words: Status words among them that our tables do not know.
        skew: Seconds by which this computer's clock is ahead of the vendor's, within one or two; None where it tells
            no time.
    """

    how: str | None
    tasks: int = 0
    unknown_words: tuple[str, ...] = ()
    skew: float | None = None


def check(channel: Channel) -> Lifted[Checkup]:
    """Try a connection.

    Raises:
        AuthenticationError: The vendor refuses the credential.
        TaskbridgeError: It refuses the call, or was not reached or understood.
    """
    answers: list[Response] = []
    provider = channel.provider
    if provider.capabilities.listing is not None:
        page: Page = yield from act(channel, lambda: tapped(provider.list_page(Query(), None), answers.append))
        return Checkup("the newest tasks were listed", len(page.tasks), _unknown(page.tasks), _skew(answers))
    yield from act(channel, lambda: tapped(provider.authorise(), answers.append))
    return Checkup("a token was given out" if answers else None, skew=_skew(answers))


def _unknown(tasks: Iterable[Task]) -> tuple[str, ...]:
    return tuple(sorted({task.native_status or "none" for task in tasks if not task.recognised}))


def _skew(answers: Iterable[Response]) -> float | None:
    for answer in answers:
        told = read_http_date(answer.headers.get("date", ""))
        if told is not None:
            return (answer.received_at - told).total_seconds()
    return None


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
