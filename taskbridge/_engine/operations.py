"""Everything that changes something at a vendor: lifted flows, shared by both sides, without I/O.

An order is never sent twice blindly. The one request after which the vendor may have taken it goes out on a fresh
connection, after its reference was logged; what happens to it then is told apart by what was written, not by the kind
of failure (`taskbridge._engine.retry`), and ends as the vendor's refusal or as `SubmitUncertain`, with a clue for `recover`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, TypeVar

from taskbridge._engine.connection import Connection
from taskbridge._engine.effects import EffectFlow
from taskbridge._engine.flows import guarded_flow, intercepted
from taskbridge._engine.inputs import check_limit, replaced
from taskbridge._engine.lookup import identity_mismatch, poll
from taskbridge._engine.redirects import Fetched, fetch
from taskbridge._engine.retry import FULL, LIST, SUBMIT, RequestOptions, with_policies
from taskbridge._engine.tracing import PollTrace, begin_trace, report_observation
from taskbridge._engine.uncertainty import _Sent
from taskbridge.errors import (
    ConfigError,
    ContractError,
    InvalidInput,
    TaskbridgeError,
    UnsupportedFeature,
    printable,
)
from taskbridge.events import ObservationSource, PollReason
from taskbridge.models import Task, TaskRef, TaskStatus
from taskbridge.provider.addresses import Rules
from taskbridge.provider.http import Flow, Response
from taskbridge.provider.policy import read_http_date
from taskbridge.provider.submission import Document, Link, Page, Query, Submission

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from taskbridge._engine.inputs import PreparedSubmission

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


def submit(connection: Connection, prepared: PreparedSubmission) -> EffectFlow[Task]:
    """Hand an order to the vendor; documents that it wants as bytes are fetched first.

    The whole takes at most the connection's `request_timeout`, and a second more for each 100 kB to be sent; a document
    to be fetched has the same time for its largest allowed size.

    Raises:
        SubmitUncertain: The vendor may have taken it.
        TaskbridgeError: It has not; `recovery_token` tells what was made on the way.
    """
    order = prepared.order
    if prepared.rooms:
        order = yield from _with_documents(connection, prepared)
    begun = {"operation": order.native_operation, "reference": order.reference}
    deadline = _deadline(connection, order.size)
    task = yield from _commit(connection, lambda: connection.provider.submit(order), begun, deadline)
    connection.note_submitted(task)
    return task


def _with_documents(connection: Connection, prepared: PreparedSubmission) -> EffectFlow[Submission]:
    """The order, with its links fetched into files."""
    can, settings, order = connection.provider.capabilities, connection.settings, prepared.order
    most = can.upload_limit or _LARGEST_FETCH
    rules = Rules(settings.allow_private, settings.allow_http, most)
    found: dict[int, Document] = {}
    for n, room in prepared.rooms.items():
        link = order.sources[n]
        assert isinstance(link, Link)  # noqa: S101  # rooms are made for links only
        got = yield from _fetched(connection, fetch(link.url, room, rules), _deadline(connection, most))
        found[n] = _document(got, link.name, room)
        if found[n].size == 0:
            raise InvalidInput("the document's URL gives an empty file", provider=connection.provider.name)
        check_limit(found[n], can, connection.provider.title)
    return replace(order, sources=tuple(replaced(order.sources, found)))


def _document(got: Fetched, name: str | None, room: Path) -> Document:
    return Document(name or got.name, room, room.stat().st_size, got.media_type)


def _fetched(connection: Connection, flow: Flow[Fetched], deadline: float) -> EffectFlow[Fetched]:
    try:
        return (yield from with_policies(connection, flow, deadline))
    except TaskbridgeError as error:
        fault = error
        if not isinstance(error, InvalidInput):
            error.message = f"the document could not be fetched: {error.message}"
            error.args = (error.message,)
    raise connection.add_context(fault)


def _deadline(connection: Connection, size: int = 0) -> float:
    return connection.clock.monotonic() + connection.settings.request_timeout + size / RATE


def retry(connection: Connection, task_id: str) -> EffectFlow[Task]:
    """Do a task once more, as a new task.

    Raises:
        SubmitUncertain: The vendor may have begun it.
        TaskbridgeError: It has not.
    """
    begun = {"operation": "retry", "retry_of": task_id}
    task = yield from _commit(connection, lambda: connection.provider.retry(task_id), begun, _deadline(connection))
    if task.retry_of is None:
        task = replace(task, retry_of=task_id)
    connection.note_submitted(task)
    return task


def restart(connection: Connection, task_id: str, *, destructive: bool) -> EffectFlow[Task]:
    """Do a task anew under its own id.

    Raises:
        ConfigError: `destructive` is not set; nothing was sent.
        SubmitUncertain: The vendor may have begun it; its `restarts` tell.
        TaskbridgeError: It has not.
    """
    if destructive is not True:
        raise ConfigError(
            f"{connection.provider.title} does a task anew from its first request: what it made and what people changed "
            "in it are lost, and it costs as much as a new one; say destructive=True where that is meant",
            ref=TaskRef.of(connection.name, task_id),
        )
    begun = {"operation": "restart", "restart_of": task_id}
    return (yield from _commit(connection, lambda: connection.provider.restart(task_id), begun, _deadline(connection)))


def recover(
    connection: Connection, error: TaskbridgeError, prepared: PreparedSubmission | None = None
) -> EffectFlow[Task | None]:
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
    recovery_token, provider = error.recovery_token, connection.provider
    if not recovery_token:
        raise ConfigError("recover takes the error of a submit; this one tells nothing of an order")
    if recovery_token.get("connection") != connection.name or recovery_token.get("provider") != provider.name:
        raise ConfigError(
            f"the order was given through {printable(str(recovery_token.get('connection')), 60)!r}, not here"
        )
    if provider.capabilities.recover is None or "reference" not in recovery_token:
        raise provider.unsupported(
            f"look for an order of unknown fate ({printable(str(recovery_token.get('operation')), 60)})"
        )
    found = yield from act(connection, lambda: provider.recover(recovery_token))
    if found is not None and prepared is not None and not found.is_terminal:
        found = yield from _finished(connection, found, prepared.order)
    if found is not None:
        connection.record_task(found)
    return found


def _finished(connection: Connection, task: Task, order: Submission) -> EffectFlow[Task]:
    def begin() -> Flow[Task]:
        return connection.provider.finish(task, order)

    return (yield from act(connection, begin, task.id, size=order.size))


# Acting on a task.


def claim(connection: Connection, call: str, what: str) -> None:
    """Refuse a call that the vendor cannot serve.

    Args:
        channel: The connection.
        call: Name of the client's method.
        what: The same in words that follow "cannot".

    Raises:
        UnsupportedFeature: It cannot; the message tells what it can.
    """
    if call not in connection.provider.capabilities.calls:
        raise connection.provider.unsupported(what)


def act(
    connection: Connection,
    begin: Callable[[], Flow[T]],
    task_id: str | None = None,
    *,
    plan: RequestOptions = FULL,
    size: int = 0,
) -> EffectFlow[T]:
    """Run an operation that no order hangs on, within the connection's `request_timeout`.

    Args:
        channel: The connection.
        begin: The provider's operation.
        task_id: The shared id that it is about, if it is about one.
        plan: How much each request is worth.
        size: Bytes that it sends, which take their time.
    """
    try:
        return (
            yield from with_policies(
                connection, guarded_flow(connection, begin), _deadline(connection, size), plan=plan
            )
        )
    except TaskbridgeError as error:
        fault = connection.add_context(error, None if task_id is None else f"{connection.name}:{task_id}")
        if connection.blames_account(fault):
            connection.refuse(fault)
    raise fault


def cancel(connection: Connection, task_id: str) -> EffectFlow[Task]:
    """Stop a task; see `Provider.cancel`.

    Raises:
        IdentityMismatch: The vendor answered for another task: nobody knows whether this one stops.
    """
    task = yield from act(connection, lambda: connection.provider.cancel(task_id), task_id)
    mismatch = identity_mismatch(*connection.provider.split_id(task_id), task)
    if mismatch is not None:
        raise connection.add_context(mismatch, f"{connection.name}:{task_id}")
    return task


def remove(connection: Connection, task_id: str) -> EffectFlow[None]:
    """Remove a task at the vendor; see `Provider.delete`."""
    yield from act(connection, lambda: connection.provider.delete(task_id), task_id)
    connection.recent_submits.pop(task_id, None)


def get(connection: Connection, task_id: str, options: Mapping[str, Any] | None) -> EffectFlow[Task]:
    """Look a task up once, with the vendor's own query options where there are any.

    Raises:
        UnsupportedFeature: The vendor has no such option; nothing was sent.
        TaskbridgeError: The look-up failed; that says nothing of the task.
    """
    wanted = dict(options or {})
    check_names(connection, wanted, connection.provider.capabilities.get_options, "look-up option")

    def look_with(task_id: str) -> Flow[Task]:
        return connection.provider.get_with(task_id, wanted)

    operation = look_with if wanted else connection.provider.get
    trace = begin_trace(connection, task_id)
    try:
        seen = yield from poll(connection, task_id, _deadline(connection), operation=operation, trace=trace)
    except TaskbridgeError as error:
        report_observation(connection, trace, error=error)
        raise
    assert seen.task is not None  # noqa: S101  # None only where bytes were given to compare with
    report_observation(connection, trace, task=seen.task)
    return seen.task


def check_names(connection: Connection, given: Mapping[str, Any], known: frozenset[str], noun: str) -> None:
    """Refuse a keyword that the vendor does not have, offering the nearest.

    Raises:
        UnsupportedFeature: It has none of that name.
    """
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UnsupportedFeature(
                f"{connection.provider.title} has no {noun} {printable(name, 60)!r}; {hint}"
                f"it has {', '.join(sorted(known)) or 'none'}",
                provider=connection.provider.name,
                connection=connection.name,
            )


def query_of(connection: Connection, status: TaskStatus | str | None, filters: Mapping[str, Any]) -> Query:
    """Check what a list is asked for.

    Raises:
        UnsupportedFeature: The vendor does not list, or has no such filter.
        InvalidInput: The status is none of the four.
    """
    claim(connection, "list", "list tasks")
    listing = connection.provider.capabilities.listing
    check_names(connection, filters, listing.filters if listing else frozenset(), "filter")
    if status is not None and status not in set(TaskStatus):
        raise InvalidInput(f"a status is one of {', '.join(TaskStatus)}, not {printable(str(status), 60)!r}")
    return Query(None if status is None else TaskStatus(status), dict(filters))


class Pager:
    """A way through a vendor's list, one page at a time.

    Args:
        channel: The connection.
        query: What is asked for.
        limit: Tasks wanted at most; None for all.
    """

    def __init__(self, connection: Connection, query: Query, limit: int | None) -> None:
        if limit is not None and limit < 0:
            raise InvalidInput("limit must not be negative")
        self.connection = connection
        self._query = query
        self._left = limit
        self._cursor: str | None = None
        self._before: frozenset[str] = frozenset()
        self._over = limit == 0

    @property
    def goes_on(self) -> bool:
        """Whether there may be another page."""
        return not self._over

    def ask(self) -> EffectFlow[Page]:
        """Ask for the next page."""
        return act(self.connection, lambda: self.connection.provider.list_page(self._query, self._cursor), plan=LIST)

    def take(self, page: Page) -> Iterator[Task]:
        """What the page has that is wanted; the list moves while it is read, so a task at a seam comes twice."""
        ids = frozenset(task.id for task in page.tasks)
        self._cursor = page.next_cursor
        if page.next_cursor is None:
            self._over = True
        elif ids and ids <= self._before:
            raise ContractError("the vendor's list comes back to where it was", connection=self.connection.name)
        before, self._before = self._before, ids
        for task in page.tasks:
            if task.id in before or self._query.status not in (None, task.status):
                continue
            self.connection.record_task(task)
            if self._left is not None:
                self._left -= 1
                self._over = self._over or self._left == 0
            yield task
            if self._left == 0:
                return


@dataclass(frozen=True, slots=True)
class CheckResult:
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


def check(connection: Connection) -> EffectFlow[CheckResult]:
    """Try a connection.

    Raises:
        AuthenticationError: The vendor refuses the credential.
        TaskbridgeError: It refuses the call, or was not reached or understood.
    """
    answers: list[Response] = []
    provider = connection.provider
    if provider.capabilities.listing is not None:
        page: Page = yield from act(connection, lambda: intercepted(provider.list_page(Query(), None), answers.append))
        return CheckResult("the newest tasks were listed", len(page.tasks), _unknown(page.tasks), _skew(answers))
    yield from act(connection, lambda: intercepted(provider.authorize(), answers.append))
    return CheckResult("a token was given out" if answers else None, skew=_skew(answers))


def _unknown(tasks: Iterable[Task]) -> tuple[str, ...]:
    return tuple(sorted({task.native_status or "none" for task in tasks if not task.recognized}))


def _skew(answers: Iterable[Response]) -> float | None:
    for answer in answers:
        told = read_http_date(answer.headers.get("date", ""))
        if told is not None:
            return (answer.received_at - told).total_seconds()
    return None


def _commit(
    connection: Connection, begin: Callable[[], Flow[Task]], begun: Mapping[str, Any], deadline: float
) -> EffectFlow[Task]:
    sent = _Sent(connection, begun)
    trace = (
        PollTrace(None, PollReason.ASKED, connection.clock.monotonic()) if connection.observers.wants_tasks else None
    )
    plan = SUBMIT if trace is None else replace(SUBMIT, trace=trace)
    try:
        task = yield from with_policies(connection, sent.watch(guarded_flow(connection, begin)), deadline, plan=plan)
        if not isinstance(task, Task):  # pyright: ignore[reportUnnecessaryIsInstance]  # strangers write it
            raise ContractError(f"the provider {connection.provider.name} is broken: an order returned no Task")
    except TaskbridgeError as error:
        fault = sent.told(error)
    else:
        report_observation(connection, trace, ObservationSource.SUBMIT, task=task)
        return task
    raise fault
