"""The operations of a client, as generators of effects: submit, cancel, retry, list, check and the rest.

Each is the same for threads and for asyncio, and does no I/O. What the vendor cannot do is refused before anything is
sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from taskbridge._engine.effects import BeforeSubmitFailed, RunBlocking, UseConnection
from taskbridge._engine.inputs import SubmitRequest, TemporaryFiles, check_document, prepare, rereadable
from taskbridge._engine.lookup import identity_mismatch
from taskbridge._engine.redirects import fetch
from taskbridge._engine.retry import LIST, OTHER, SUBMIT, TOKEN, broken_provider, with_policies
from taskbridge._engine.storage import Stage
from taskbridge._engine.storage_urls import STAGED, StagedDocument
from taskbridge._engine.tracing import begin_trace, report_observation
from taskbridge._engine.uncertainty import SubmissionTracker, is_unsent
from taskbridge._engine.uploads import delete_upload, delete_uploads
from taskbridge.errors import (
    ApiError,
    ConfigError,
    ContractError,
    InvalidInput,
    InvalidTaskId,
    ServerError,
    TaskbridgeError,
    UnsupportedFeature,
    printable,
)
from taskbridge.events import ObservationSource
from taskbridge.models import Task, TaskRef, TaskStatus
from taskbridge.provider.addresses import FetchPolicy, is_http
from taskbridge.provider.capabilities import PLAIN_ID
from taskbridge.provider.submission import NATIVE, Document, Link, Query

if TYPE_CHECKING:
    from collections.abc import Iterable

    from taskbridge._engine.connection import Connection, Group
    from taskbridge._engine.effects import EffectFlow
    from taskbridge._engine.inputs import AnyInput, PreparedSubmission
    from taskbridge._engine.retry import RequestOptions
    from taskbridge._engine.tracing import PollTrace
    from taskbridge.models import Account, OperationInfo, TaskFile, WebhookEndpoint
    from taskbridge.provider.http import Flow, Response
    from taskbridge.provider.submission import Page, Submission

T = TypeVar("T")

_MIN_RATE: Final = 100_000.0  # bytes per second that a document is allowed at least on its way to the vendor
_MAX_FETCH: Final = 1 << 30  # bytes of a document that is fetched, unless the vendor states a limit


def sending_time(size: int) -> float:
    """Return the seconds that a document of so many bytes is allowed on its way to the vendor."""
    return size / _MIN_RATE


def deadline_for(connection: Connection, size: int = 0) -> float:
    """Return the monotonic seconds at which an operation must end: `request_timeout`, longer for large documents."""
    return connection.clock.monotonic() + connection.settings.request_timeout + sending_time(size)


def require(connection: Connection, call: str, what: str) -> None:
    """Refuse a client's method that the vendor does not support; `what` is the same in words that follow "cannot"."""
    if call not in connection.provider.capabilities.calls:
        raise connection.provider.unsupported(what)


def check_names(connection: Connection, given: Mapping[str, Any], known: frozenset[str], noun: str) -> None:
    """Refuse a keyword that the vendor does not have, and suggest the nearest."""
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


def perform(
    connection: Connection,
    start: Callable[[], Flow[T]],
    task_id: str | None = None,
    *,
    options: RequestOptions = OTHER,
    size: int = 0,
    trace: PollTrace | None = None,
    after: Callable[[Response], object] | None = None,
) -> EffectFlow[T]:
    """Run a provider's operation other than a submission; it must end by `deadline_for` the bytes that it sends."""
    deadline = deadline_for(connection, size)
    try:
        return (yield from with_policies(connection, start, deadline, options, trace=trace, after=after))
    except TaskbridgeError as error:
        failure = connection.refused(error, task_id)
    raise failure


# Submitting.


def submit(connection: Connection, request: SubmitRequest) -> EffectFlow[Task]:
    """Submit a document; if the vendor wants bytes and got a URL, the document is fetched first.

    All of it takes at most the connection's `request_timeout`, plus one second for each 100 kB to send; a document that
    is fetched must arrive as fast as a download.
    """
    with TemporaryFiles() as files:
        stage = Stage(connection, files)
        try:
            task = yield from _submit(connection, request, stage)
        except (TaskbridgeError, OSError, BeforeSubmitFailed) as error:
            if not isinstance(error, TaskbridgeError) or error.not_accepted:
                for url in stage.urls:
                    yield from delete_upload(connection, StagedDocument(url))
            raise
    connection.note_submitted(task)
    return task


def _submit(connection: Connection, request: SubmitRequest, stage: Stage) -> EffectFlow[Task]:
    try:
        prepared: PreparedSubmission = yield RunBlocking(lambda: prepare(connection, request, stage.files))
        submission = yield from _fetch_documents(connection, prepared)
        submission = yield from stage.resolve(submission)
    except TaskbridgeError as error:
        error.not_accepted = is_unsent(error)
        raise
    details = {"operation": submission.native_operation, "reference": submission.reference}
    deadline = deadline_for(connection, submission.size)
    start = partial(connection.provider.submit, submission)
    return (yield from _start_work(connection, start, details, deadline, stage.urls))


def submit_to_first(group: Group, request: SubmitRequest) -> EffectFlow[Task]:
    """Submit a document to the first member of a group that accepts it.

    The next member is tried only if the one before surely did not accept the submission, see
    `TaskbridgeError.not_accepted`; each member has the time and the retries of its own settings.
    """
    refusals: list[TaskbridgeError] = []
    with TemporaryFiles() as files:
        inputs: AnyInput = yield RunBlocking(lambda: rereadable(request.inputs, files))
        for connection in group.members:
            yield UseConnection(connection)
            try:
                return (yield from submit(connection, replace(request, inputs=inputs)))
            except TaskbridgeError as error:
                if not error.not_accepted:
                    raise
                refusals.append(connection.add_context(error))
    last = refusals[-1]
    reasons = "; ".join(f"{error.connection}: {error.message}" for error in refusals)
    raise last.again(
        message=f"no member of the group {group.name!r} accepted the submission: {reasons}",
        retryable=any(error.retryable for error in refusals),
    )


def _fetch_documents(connection: Connection, prepared: PreparedSubmission) -> EffectFlow[Submission]:
    """Replace the links that have to be fetched by the documents behind them."""
    settings, submission = connection.settings, prepared.submission
    limit = connection.provider.capabilities.upload_limit or _MAX_FETCH
    policy = FetchPolicy(settings.allow_private, settings.allow_http, limit)
    sources = list(submission.sources)
    for index, path in prepared.fetch_to.items():
        link = sources[index]
        assert isinstance(link, Link)  # noqa: S101  # only links are fetched
        start = partial(fetch, link.url, path, policy)
        try:
            fetched = yield from with_policies(connection, start, deadline_for(connection))
        except TaskbridgeError as error:
            failure = error
            if not isinstance(error, InvalidInput):
                error.message = f"the document could not be fetched: {error.message}"
                error.args = (error.message,)
        else:
            document = Document(link.name or fetched.name, path, path.stat().st_size, fetched.media_type)
            if document.size == 0:
                raise InvalidInput("the document's URL gives an empty file", provider=connection.provider.name)
            check_document(document, connection, submission.native_operation)
            sources[index] = document
            continue
        raise connection.add_context(failure)
    return replace(submission, sources=tuple(sources)) if prepared.fetch_to else submission


def _start_work(
    connection: Connection,
    start: Callable[[], Flow[Task]],
    details: Mapping[str, Any],
    deadline: float | None = None,
    staged: Sequence[str] = (),
) -> EffectFlow[Task]:
    """Run an operation after which the vendor works, and say whether it may have started if that fails."""
    objects = {STAGED: list(staged)} if staged else {}
    tracker = SubmissionTracker(connection, details, objects)
    trace = begin_trace(connection, None)
    limit = deadline_for(connection) if deadline is None else deadline
    try:
        task = yield from with_policies(
            connection, start, limit, SUBMIT, trace=trace, before=tracker.before, after=tracker.after
        )
        if not isinstance(task, Task):  # pyright: ignore[reportUnnecessaryIsInstance]  # plugin code
            raise broken_provider(connection, "a submission returned no Task")
        task = _with_resumable(connection, task)
    except TaskbridgeError as error:
        failure = tracker.explain(error)
    else:
        connection.usage.add(task)
        connection.note_uploads(task, {**tracker.created, **objects})
        report_observation(connection, trace, ObservationSource.SUBMIT, task=task)
        if task.is_terminal:
            yield from delete_uploads(connection, task.id, task)
        return task
    if isinstance(failure, ApiError) and not isinstance(failure, ServerError):  # the vendor has no task for them
        for file in connection.provider.temporary_files(tracker.created):
            yield from delete_upload(connection, file)
    raise failure


def _with_resumable(connection: Connection, task: Task) -> Task:
    """Return a new task that says whether it can be got later."""
    try:
        kind, _ = connection.provider.split_id(task.id)
    except InvalidTaskId:  # the vendor has accepted it, whatever its id looks like
        return task
    return task if kind.resumable else replace(task, resumable=False)


def retry(connection: Connection, task_id: str) -> EffectFlow[Task]:
    """Run a task once more, as a new task."""
    require(connection, "retry", "retry a task")
    details = {"operation": "retry", "retry_of": task_id}
    task = yield from _start_work(connection, partial(connection.provider.retry, task_id), details)
    if task.retry_of is None:
        task = replace(task, retry_of=task_id)
    connection.note_submitted(task)
    return task


def restart(connection: Connection, task_id: str, *, destructive: bool) -> EffectFlow[Task]:
    """Run a task again under its own id."""
    require(connection, "restart", "restart a task")
    if destructive is not True:
        raise ConfigError(
            f"{connection.provider.title} re-runs a task from its first request: its results and people's changes to "
            "them are lost, and it costs as much as a new one; say destructive=True where that is meant",
            ref=TaskRef.of(connection.name, task_id),
        )
    details = {"operation": "restart", "restart_of": task_id}
    return (yield from _start_work(connection, partial(connection.provider.restart, task_id), details))


def recover(connection: Connection, error: TaskbridgeError, document: AnyInput) -> EffectFlow[Task | None]:
    """Search for the submission that an error left uncertain; if it still lacks its document, send that."""
    token, provider = error.recovery_token, connection.provider
    if not token:
        raise ConfigError("recover takes the error of a submit; this one has no recovery token")
    if token.get("connection") != connection.name or token.get("provider") != provider.name:
        raise ConfigError(
            f"the submission went through {printable(str(token.get('connection')), 60)!r}, not through this"
        )
    if provider.capabilities.recover is None or "reference" not in token:
        raise provider.unsupported(f"search for an uncertain submission ({printable(str(token.get('operation')), 60)})")
    with TemporaryFiles() as files:
        prepared: PreparedSubmission | None = None
        if document is not None and "operation" in token:
            request = SubmitRequest(f"{NATIVE}{token['operation']}", document)
            prepared = yield RunBlocking(lambda: prepare(connection, request, files))
        task = yield from perform(connection, lambda: provider.recover(token))
        if task is not None and prepared is not None and not task.is_terminal:
            found, submission = task, prepared.submission
            if connection.takes_uploads:
                submission = yield from Stage(connection, files).resolve(submission)
            task = yield from perform(
                connection, lambda: provider.finish(found, submission), task.id, size=submission.size
            )
    if task is not None:
        connection.note(task)
        connection.usage.add(task)
        connection.note_uploads(task, token)
    return task


# One task.


def cancel(connection: Connection, task_id: str) -> EffectFlow[Task]:
    """Stop a task; see `Provider.cancel`.

    Raises:
        IdentityMismatch: The vendor answered for another task: it is unknown whether this one stops.
    """
    require(connection, "cancel", "cancel a task")
    kind, native = connection.provider.split_id(task_id)
    task = yield from perform(connection, lambda: connection.provider.cancel(task_id), task_id)
    mismatch = identity_mismatch(kind, native, task)
    if mismatch is not None:
        raise connection.add_context(mismatch, task_id)
    connection.usage.add(task)
    return task


def delete(connection: Connection, task_id: str) -> EffectFlow[None]:
    """Delete a task at the vendor; see `Provider.delete`."""
    require(connection, "delete", "delete a task")
    yield from perform(connection, lambda: connection.provider.delete(task_id), task_id)
    connection.note_deleted(task_id)


def mark(connection: Connection, task_id: str, *, label: str) -> EffectFlow[None]:
    """Mark a task with a text of the caller's; see `Provider.mark`."""
    require(connection, "mark", "mark a task")
    yield from perform(connection, lambda: connection.provider.mark(task_id, label), task_id)


def delete_file(connection: Connection, file: TaskFile) -> EffectFlow[None]:
    """Delete a file at the vendor; see `Provider.delete_file`."""
    provider = connection.provider
    if not provider.capabilities.delete_files:
        raise provider.unsupported("delete a file")
    if file.id is None:
        raise InvalidInput("the file has no id, by which the vendor would know it", provider=provider.name)
    yield from perform(connection, lambda: provider.delete_file(file))


# The vendor's list.


class Pager:
    """Walks through a vendor's list, one page at a time; see `Client.list`."""

    def __init__(
        self, connection: Connection, status: TaskStatus | str | None, limit: int | None, filters: Mapping[str, Any]
    ) -> None:
        require(connection, "list", "list tasks")
        listing = connection.provider.capabilities.listing
        check_names(connection, filters, listing.filters if listing else frozenset(), "filter")
        if status is not None and status not in set(TaskStatus):
            raise InvalidInput(f"a status is one of {', '.join(TaskStatus)}, not {printable(str(status), 60)!r}")
        if limit is not None and limit < 0:
            raise InvalidInput("limit must not be negative")
        self.connection = connection
        self._query = Query(None if status is None else TaskStatus(status), dict(filters))
        self._remaining = limit
        self._cursor: str | None = None
        self._last_ids: frozenset[str] = frozenset()
        self.is_done = limit == 0

    def next_page(self) -> EffectFlow[Page]:
        """Read the next page."""
        connection = self.connection
        return perform(connection, lambda: connection.provider.list_page(self._query, self._cursor), options=LIST)

    def select(self, page: Page) -> Iterator[Task]:
        """Yield the tasks of a page that match; the list moves while it is read, so a task may be on two pages."""
        ids = frozenset(task.id for task in page.tasks)
        self._cursor = page.next_cursor
        if page.next_cursor is None:
            self.is_done = True
        elif ids and ids <= self._last_ids:
            raise ContractError("the vendor's list comes back to where it was", connection=self.connection.name)
        before, self._last_ids = self._last_ids, ids
        for task in page.tasks:
            if task.id in before or self._query.status not in (None, task.status):
                continue
            self.connection.note(task)
            if self._remaining is not None:
                self._remaining -= 1
                self.is_done = self.is_done or self._remaining == 0
            yield task
            if self._remaining == 0:
                return


# The connection itself.


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of `Client.check`.

    Attributes:
        how: What was tried, in words; None if the vendor has no call that needs no task.
        tasks: Number of tasks in the response.
        unknown_words: Status words among them that are missing from our tables.
        skew: Seconds by which this computer's clock is ahead of the vendor's, accurate to one or two; None if the
            vendor sends no time.
    """

    how: str | None
    tasks: int = 0
    unknown_words: tuple[str, ...] = ()
    skew: float | None = None


def check(connection: Connection) -> EffectFlow[CheckResult]:
    """Try the connection with the cheapest call that needs the credential.

    That is the newest page of the vendor's list if it has one, else the credential itself if the vendor issues one.
    """
    responses: list[Response] = []
    provider = connection.provider
    if provider.capabilities.listing is not None:
        page = yield from perform(connection, lambda: provider.list_page(Query(), None), after=responses.append)
        unknown = {task.native_status or "none" for task in page.tasks if not task.recognized}
        return CheckResult("the newest tasks were listed", len(page.tasks), tuple(sorted(unknown)), _skew(responses))
    if connection.reload is not None:  # nothing else asks for them again before the login is refused
        yield RunBlocking(connection.reload_secrets)
    yield from perform(connection, provider.authorize, options=TOKEN, after=responses.append)
    return CheckResult("a token was issued" if responses else None, skew=_skew(responses))


def account(connection: Connection) -> EffectFlow[Account]:
    """Get the account and its balance; see `Provider.account`."""
    require(connection, "account", "tell what is left on the account")
    return (yield from perform(connection, connection.provider.account))


def list_operations(
    connection: Connection, name: str | None, input_format: str | None, output_format: str | None
) -> EffectFlow[tuple[OperationInfo, ...]]:
    """Get the operations that the vendor lists; see `Provider.operations`."""
    require(connection, "operations", "list its operations")
    start = partial(connection.provider.operations, name, input_format, output_format)
    return (yield from perform(connection, start))


def list_webhooks(connection: Connection) -> EffectFlow[tuple[WebhookEndpoint, ...]]:
    """Get the webhooks of the account; see `Provider.webhooks`."""
    require(connection, "webhooks", "list the webhooks of the account")
    return (yield from perform(connection, connection.provider.webhooks))


def add_webhook(connection: Connection, url: str, events: Iterable[str] | None) -> EffectFlow[WebhookEndpoint]:
    """Add a webhook to the account; see `Provider.add_webhook`."""
    require(connection, "add_webhook", "add a webhook")
    provider = connection.provider
    if not is_http(url):
        raise InvalidInput("the URL of a webhook must begin with https:// or http://, and hold no spaces")
    known = provider.capabilities.webhooks.events if provider.capabilities.webhooks is not None else ()
    wanted = known if events is None else tuple(events)
    unknown = [event for event in wanted if event not in known]
    if unknown or not wanted:
        what = f"event {printable(unknown[0], 60)!r}" if unknown else "webhook without an event"
        raise InvalidInput(f"{provider.title} has no {what}; its events are {', '.join(known)}")
    return (yield from perform(connection, lambda: provider.add_webhook(url, wanted)))


def remove_webhook(connection: Connection, webhook_id: str) -> EffectFlow[None]:
    """Remove a webhook of the account; see `Provider.remove_webhook`."""
    require(connection, "remove_webhook", "remove a webhook")
    if PLAIN_ID.fullmatch(webhook_id) is None:
        raise InvalidInput(f"{printable(webhook_id, 80)!r} cannot be the id of a webhook")
    yield from perform(connection, lambda: connection.provider.remove_webhook(webhook_id))


def _skew(responses: Iterable[Response]) -> float | None:
    return next((skew for response in responses if (skew := response.skew) is not None), None)
