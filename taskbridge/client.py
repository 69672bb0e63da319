"""The synchronous interface: `Client` for one connection, `Bridge` for all connections of a configuration.

Any number of threads may use a `Client` or a `Bridge`. `close` them, or use them in a ``with`` statement: that ends the
threads that wait for many tasks, and closes the kept connections.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, Self, Unpack, overload

from taskbridge._config.defaults import TransportMaker, current_defaults, default_clock
from taskbridge._config.files import load_config
from taskbridge._engine import operations
from taskbridge._engine.connection import Connection, Group, open_connection, open_connections, open_groups
from taskbridge._engine.download import MAX_BYTES, MAX_READ, DownloadOptions
from taskbridge._engine.inputs import SubmitRequest
from taskbridge._runtime.base import DEFAULT_TIMEOUT, AnyId, ClientBase, Transports, checked, connection_of, ended
from taskbridge._runtime.sync import RunningWatch, Runtime, WorkerPool
from taskbridge.errors import TaskbridgeError
from taskbridge.models import TaskFile
from taskbridge.provider.secrets import strip_tracebacks

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from taskbridge._engine.inputs import AnyInput
    from taskbridge._engine.operations import CheckResult
    from taskbridge._engine.sharing import SharedLimits
    from taskbridge._engine.webhooks import Headers, Ingested
    from taskbridge._runtime.base import Target
    from taskbridge.event_bus import EventBus
    from taskbridge.events import NextPoll
    from taskbridge.models import (
        Account,
        OperationInfo,
        Outcome,
        Outcomes,
        StorageUrl,
        Support,
        Task,
        TaskRef,
        TaskResult,
        TaskStatus,
        WebhookEndpoint,
        WebhookEvent,
    )
    from taskbridge.provider.base import Provider
    from taskbridge.provider.capabilities import Capabilities
    from taskbridge.provider.clock import Clock
    from taskbridge.provider.options import NeutralOptions
    from taskbridge.provider.sink import Progress
    from taskbridge.transport import Network, Transport

__all__ = ["Bridge", "Client", "Watch", "connect"]


@strip_tracebacks
def connect(
    provider: str | type[Provider[Any]] | None = None,
    /,
    *,
    connection: str | None = None,
    config: str | os.PathLike[str] | None = None,
    clock: Clock | None = None,
    transport: Transport | TransportMaker | str | None = None,
    event_bus: Callable[[str], EventBus] | None = None,
    limits: Callable[[str], SharedLimits] | None = None,
    **settings: Any,
) -> Client:
    """Open a connection to a vendor. Nothing is sent yet.

    Name either a configured connection, or a provider and its settings.

    Args:
        provider: Entry-point name of a provider, such as ``cloudconvert``; or the class of a provider of your own,
            which then needs no distribution.
        connection: Name of a connection or group in the configuration; its `default` if neither is named.
        config: Path of the configuration; None searches the usual places.
        clock: Time and chance; None for the computer's. For tests, see `taskbridge.testing`.
        transport: Sends the requests: the setting of that name, or an object of your own; see `taskbridge.testing`.
        event_bus: Makes the event bus of a connection from its name, such as `Store.event_bus`, to share with other
            processes which webhooks were processed; None for one in memory.
        limits: Shares the limits of a connection with other processes, by its name, such as `Store.limits`: the rate,
            pauses, and refusals of the account; None for limits of this client's own.
        settings: Settings of the provider and of every connection; they override the configuration's.

    Raises:
        ConfigError: The configuration or a setting is invalid.
        ProviderNotFound: No such provider is installed.
        ProviderLoadError: The provider cannot be used.
    """
    clock = clock or default_clock()
    if isinstance(transport, str):
        settings, transport = {**settings, "transport": transport}, None
    opened, known = open_connection(provider, connection, config, settings, clock)
    for each in opened.members if isinstance(opened, Group) else (opened,):
        each.use_event_bus(event_bus)
        each.share_limits(limits)
    return Client(opened, known=known, clock=clock, transport=transport)


class Watch:
    """Tasks that are polled until they end, while tasks are added and dropped; opened by `Client.open_watch`.

    Iterating yields an `Outcome` for each change of a task and for its end, and blocks in between, until the watch or
    its client is closed. Any thread may add, drop and close. A task that has ended is dropped, and may be added again.

    Args:
        pool: Polls the tasks.
        running: The state of the watch.
        locate: Finds a task and its deadline.
    """

    def __init__(
        self,
        pool: WorkerPool,
        running: RunningWatch,
        locate: Callable[[AnyId, float | None, datetime | None], tuple[Target, float]],
    ) -> None:
        self._pool = pool
        self._running = running
        self._locate = locate

    def add(self, task: AnyId, *, timeout: float | None = None, submitted_at: datetime | None = None) -> TaskRef:
        """Wait for a task, too, and return its ref; one that this watch waits for already stays as it is.

        Args:
            task: A shared id, a ref or its text, or a task.
            timeout: Maximum seconds to wait for this task, whose outcome then has a `WaitTimeout`; None for no
                deadline.
            submitted_at: When the task was submitted, with a time zone, if another process did so.

        Raises:
            InvalidTaskId: It cannot be an id; nothing was sent.
            ConfigError: The watch is closed.
        """
        return self._pool.add(self._running, *self._locate(task, timeout, submitted_at))

    def drop(self, task: AnyId) -> bool:
        """Stop waiting for a task, without an outcome; return False if it was not waited for."""
        return self._pool.drop(self._running, self._locate(task, None, None)[0].ref)

    def poll_now(self, task: AnyId) -> bool:
        """Poll a task as soon as the rate limit allows, because something outside says that it has changed.

        Args:
            task: A shared id, a ref or its text, or a task.

        Returns:
            False if it is not waited for.
        """
        return self._pool.poll_now(self._running, self._locate(task, None, None)[0].ref)

    def next_poll(self, task: AnyId) -> NextPoll | None:
        """Return when and why a task is polled next; None if it is not waited for."""
        return self._pool.next_poll(self._running, self._locate(task, None, None)[0].ref)

    def demand(self) -> float:
        """Return the requests per second that polling all tasks of the client at their intervals takes.

        Beyond `ConnectionStats.rate`, polls are late. It is estimated from the tasks that are waited for the longest.
        """
        return self._pool.demand()

    def __len__(self) -> int:
        """Return how many tasks are being waited for."""
        return len(self._running.waiters)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Outcome:
        outcome = self._running.take()
        if outcome is None:
            raise StopIteration
        return outcome

    def close(self) -> None:
        """Stop waiting for all tasks; they continue at the vendor."""
        self._pool.end(self._running)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _SyncClient(ClientBase):
    """What `Client` and `Bridge` have in common."""

    def _use_runtime(self, runtime: Runtime, *, is_shared: bool = False) -> None:
        self._runtime = runtime
        self._pool = WorkerPool(runtime)
        self._owns_runtime = not is_shared

    def get(
        self, task: AnyId, *, options: Mapping[str, Any] | None = None, submitted_at: datetime | None = None
    ) -> Task:
        """Ask for the status of a task once.

        Args:
            task: A shared id, a ref or its text, or a task.
            options: The vendor's own query options; ``capabilities.get_options`` has their names.
            submitted_at: When another process submitted the task, with a time zone: a vendor that does not know it yet
                is asked again until ten seconds after that.

        Raises:
            InvalidTaskId: It cannot be an id; nothing was sent.
            UnsupportedFeature: The vendor has no such option; nothing was sent.
            TaskbridgeError: The request failed, which says nothing about the task.
        """
        return self._runtime.run(self._get(task, options, submitted_at))

    def wait(
        self,
        task: AnyId,
        *,
        timeout: float | None = DEFAULT_TIMEOUT,
        on_update: Callable[[Task], object] | None = None,
        submitted_at: datetime | None = None,
        check: bool = False,
    ) -> Task:
        """Wait until a task has completed or failed, and return the last snapshot.

        The wait runs in this thread. A poll that fails transiently does not end it.

        Args:
            task: A shared id, a ref or its text, or a task.
            timeout: Maximum seconds to wait; 0 polls once; None for no deadline.
            on_update: Called with each changed snapshot, including the last one.
            submitted_at: When another process submitted the task, with a time zone: it tells the age of the task.
            check: Whether to raise `TaskFailed` for a task that has failed, instead of returning it.

        Raises:
            WaitTimeout: The time ran out and the task is still running; holds the last snapshot and the ref.
            TaskFailed: The task failed, and `check` is set; holds it.
            TaskbridgeError: The vendor refuses, or cannot be reached.
        """
        return checked(self._runtime.wait(self._wait(task, timeout, on_update, submitted_at)), check=check)

    def result(self, task: AnyId, *, timeout: float | None = DEFAULT_TIMEOUT) -> TaskResult:
        """Wait until a task has completed, and return its result; it is fetched if the vendor keeps it apart.

        Args:
            task: A shared id, a ref or its text, or a task; a snapshot of a task that has ended is not polled again.
            timeout: Maximum seconds to wait for the end; None for no deadline.

        Raises:
            TaskFailed: The task failed; holds it.
            WaitTimeout: The time ran out and the task is still running.
            TaskbridgeError: The vendor refuses, or cannot be reached.
        """
        return self._runtime.run(self._result(ended(task, timeout) or self.wait(task, timeout=timeout)))

    def cancel(self, task: AnyId) -> Task:
        """Stop a task; one that has already ended is returned as it is.

        Args:
            task: A shared id, a ref or its text, or a task.

        Raises:
            UnsupportedFeature: The vendor cannot stop it; nothing was sent.
            TaskbridgeError: The vendor refuses, or may not have received the request: get the task to find out.
        """
        return self._runtime.run(self._change(operations.cancel, task))

    def retry(self, task: AnyId) -> Task:
        """Run a task once more, as a new task with an id of its own, and return that.

        Args:
            task: A shared id, a ref or its text, or a task.

        Raises:
            UnsupportedFeature: The vendor cannot do this; nothing was sent.
            SubmitUncertain: The vendor may or may not have started it.
            TaskbridgeError: It has not.
        """
        return self._runtime.run(self._change(operations.retry, task))

    def delete(self, what: AnyId | TaskFile) -> None:
        """Delete a task and its results at the vendor, or one file that the vendor keeps.

        Args:
            what: A shared id, a ref or its text, or a task; for a `Client`, also a file of a result, or an uploaded
                document as ``TaskFile(id=…)``.

        Raises:
            UnsupportedFeature: The vendor cannot do this; nothing was sent.
            InvalidInput: The file has no id; nothing was sent.
            TaskbridgeError: The vendor refuses, or may not have received the request.
        """
        return self._runtime.run(self._delete(what))

    def mark(self, task: AnyId, label: str) -> None:
        """Mark a task at the vendor with a text of your own, such as ``taken``; it replaces the one before.

        Args:
            task: A shared id, a ref or its text, or a task.
            label: The text.

        Raises:
            UnsupportedFeature: The vendor cannot do this; nothing was sent.
            InvalidInput: The vendor does not take such a text; nothing was sent.
            TaskbridgeError: The vendor refuses, or may not have received the request.
        """
        return self._runtime.run(self._change(partial(operations.mark, label=label), task))

    def restart(self, task: AnyId, *, destructive: bool = False) -> Task:
        """Run a task again under its own id; its results, and people's changes to them, are lost.

        Args:
            task: A shared id, a ref or its text, or a task.
            destructive: Must be True: it confirms that existing results will be lost.

        Raises:
            ConfigError: `destructive` is not True; nothing was sent.
            UnsupportedFeature: The vendor cannot do this; nothing was sent.
            SubmitUncertain: The vendor may or may not have started it.
            TaskbridgeError: It has not.
        """
        return self._runtime.run(self._change(partial(operations.restart, destructive=destructive), task))

    def as_completed(self, tasks: Iterable[AnyId], *, timeout: float | None = DEFAULT_TIMEOUT) -> Iterator[Outcome]:
        """Wait for many tasks, and yield an outcome for each as it ends.

        Nothing is sent, and no time runs, before the first outcome is taken. There is one outcome for each task given,
        duplicates included; at the deadline, one with `WaitTimeout` for each task that has not ended. One bad task
        never stops or hides another.

        Args:
            tasks: Shared ids, refs or their texts, or tasks.
            timeout: Maximum seconds to wait; None for no deadline.
        """
        return self._pool.outcomes(self._many("as_completed", tasks, timeout))

    def wait_all(self, tasks: Iterable[AnyId], *, timeout: float | None = DEFAULT_TIMEOUT) -> Outcomes:
        """Wait for many tasks, and return their outcomes in the order given, duplicates included.

        Args:
            tasks: Shared ids, refs or their texts, or tasks.
            timeout: Maximum seconds to wait; None for no deadline.
        """
        return self._pool.wait_all(self._many("wait_all", tasks, timeout))

    def watch(self, tasks: Iterable[AnyId], *, timeout: float | None = DEFAULT_TIMEOUT) -> Iterator[Outcome]:
        """Wait for many tasks, and yield an outcome for each change of each task until it ends.

        Args:
            tasks: Shared ids, refs or their texts, or tasks.
            timeout: Maximum seconds to wait; None for no deadline.
        """
        return self._pool.outcomes(self._many("watch", tasks, timeout, changes=True))

    def open_watch(self, *, changes: bool = True) -> Watch:
        """Open a watch without tasks; `Watch.add` and `Watch.drop` change what is waited for while it runs.

        Args:
            changes: Whether to yield an outcome for each change of a task, not only for its end.
        """
        return Watch(self._pool, self._pool.open_watch(self._buses(), changes=changes), self._watched)

    def ingest(self, event: WebhookEvent, *, confirm: bool | None = None) -> Ingested:
        """Process an event of `parse_webhook`: confirm it, and end the waits for a task that has ended.

        An event whose proof covers no time is confirmed by one status request. An event that was processed before, or
        that is about a state before the known end, changes nothing; the result says so, and how to answer the vendor.
        The event counts as processed when this returns: act on it within `ingesting` if it must not get lost.

        Args:
            event: The event.
            confirm: Whether to ask for the status before trusting the event; None leaves that to the event.

        Raises:
            TaskbridgeError: The status request failed: answer 503, and the vendor delivers again.
        """
        with self.ingesting(event, confirm=confirm) as ingested:
            return ingested

    @contextmanager
    def ingesting(self, event: WebhookEvent, *, confirm: bool | None = None) -> Generator[Ingested]:
        """Process an event as `ingest` does, and act on it in the block; it counts as processed when the block ends.

        If the block raises, the next delivery of the event is processed again. Other deliveries of the event have the
        status ``in-progress`` until the block ends. If its process is killed, that lasts up to five minutes with the
        event bus of a store.

        Args:
            event: The event.
            confirm: Whether to ask for the status before trusting the event; None leaves that to the event.

        Raises:
            TaskbridgeError: The status request failed: answer 503, and the vendor delivers again.
        """
        ingested, is_claimed = self._runtime.run(self._ingest(event, confirm))
        try:
            yield ingested
        except BaseException:
            if is_claimed:
                with suppress(TaskbridgeError):  # then the claim expires
                    self.forget(event)
            raise
        if is_claimed:
            self._runtime.run(self._settle(event))

    def forget(self, event: WebhookEvent) -> None:
        """Forget that an event was ingested, so that its next delivery is processed again.

        For an application whose own work on the event failed later, and which answers the vendor with an error.

        Args:
            event: The event.
        """
        self._runtime.run(self._forget(event))

    def close(self) -> None:
        """End all waits, and close the kept connections; the tasks continue at the vendor."""
        self._end_waits()
        self._pool.close()
        if self._owns_runtime:
            self._runtime.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Client(_SyncClient):
    """One connection to a vendor, or a group of connections; made by `connect`.

    Attributes:
        members: The clients of a group's members, in order; empty for one connection. They end with this client.

    Args:
        connection: The open connection or group.
        known: Names of other configured connections, whose refs are recognized and refused.
        clock: Time and chance; None for the connection's.
        transport: Sends the requests; None for the default.
        runtime: Carries out the operations; None for one of its own. A `Bridge` shares its runtime.
    """

    def __init__(
        self,
        connection: Connection | Group,
        *,
        known: frozenset[str] = frozenset(),
        clock: Clock | None = None,
        transport: Transport | TransportMaker | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        group = connection if isinstance(connection, Group) else None
        opened = (connection,) if isinstance(connection, Connection) else connection.members
        clock = clock or opened[0].clock
        self._name = connection.name
        groups = {} if group is None else {group.name: group}
        super().__init__({each.name: each for each in opened}, clock, only=self._name, known=known, groups=groups)
        runtime, is_shared = runtime or _make_runtime(clock, transport, opened), runtime is not None
        self._use_runtime(runtime, is_shared=is_shared)
        self.members = tuple(
            type(self)(each, known=self._known, clock=clock, runtime=runtime)
            for each in (group.members if group else ())
        )

    @property
    def name(self) -> str:
        """The name of the connection or group."""
        return self._name

    @property
    def provider(self) -> str:
        """Entry-point name of the provider; a group has none: `UnsupportedFeature`."""
        return self._connection.provider.name

    @property
    def capabilities(self) -> Capabilities:
        """What the vendor can do, and this connection through its `stage`; a group has none: `UnsupportedFeature`."""
        return self._connection.capabilities

    def limit_rate(self, requests_per_second: float | None) -> None:
        """Change how many requests per second may start, instead of the setting `requests_per_second`.

        Polls that wait for the old rate are planned anew, and calls that wait for their slot use a higher rate at once.
        A rate that the vendor cut by a 429 climbs on from where it is.

        Args:
            requests_per_second: The new limit; None for no limit.

        Raises:
            InvalidInput: It is no such number.
            UnsupportedFeature: This is a group; limit its `members`.
        """
        self._limit_rate(requests_per_second)

    def pause_until(self, moment: datetime) -> None:
        """Send nothing before a time, as if the vendor had asked for a pause; ``stats`` has the present one.

        So a pause that one process was asked for holds for others, too. A longer pause stays as it is.

        Args:
            moment: The time, with a time zone; one that is more than an hour away counts as an hour away.

        Raises:
            InvalidInput: It is no such time.
            UnsupportedFeature: This is a group; pause its `members`.
        """
        self._pause_until(moment)

    def save_durations(self) -> dict[str, Any]:
        """Return what was learned about the durations of tasks, as plain JSON for `load_durations`.

        It contains counts and times, some kilobytes for each operation, and nothing of documents or tasks.

        Raises:
            UnsupportedFeature: This is a group; ask its `members`.
        """
        return self._save_durations()

    def load_durations(self, saved: Mapping[str, Any]) -> None:
        """Add what another process learned about durations, so that polls are well timed from the first one on.

        It is merged with what was learned here; loading it twice counts it twice.

        Args:
            saved: What `save_durations` returned, perhaps read from JSON.

        Raises:
            ConfigError: It is something else, or damaged; nothing was added.
            UnsupportedFeature: This is a group; load them into its `members`.
        """
        self._load_durations(saved)

    def submit(
        self,
        operation: str | None = None,
        input: AnyInput = None,  # noqa: A002  # the usual name
        *,
        options: Mapping[str, Any] | None = None,
        external_id: str | None = None,
        callback_url: str | None = None,
        name: str | None = None,
        before_submit: Callable[[Mapping[str, Any]], object] | None = None,
        **neutral: Unpack[NeutralOptions],
    ) -> Task:
        """Submit a document to the vendor, and return the new task.

        Requests that never arrived, or were rejected with 429, are retried. Any other submission is sent once: if the
        vendor may or may not have accepted it, you get `SubmitUncertain`. The call takes at most `request_timeout`,
        plus one second for each 100 kB of the document.

        Args:
            operation: A neutral operation, such as ``extract-text`` (``capabilities.operations`` has them), or one of
                the vendor's own as ``native:…``, passed through as it is; None for the connection's
                `submit.operation`.
            input: A path, a URL, bytes, an open binary stream, a `TaskFile` of this vendor, or a list of these for
                operations that join documents; None if the options name the document. Streams are read to their end
                first. The URL may be an object of a storage, such as ``s3://bucket/report.pdf`` (extra ``fsspec``). For
                a vendor that takes only URLs, the setting `stage` says where documents are put.
            options: The vendor's own options, verbatim; they override neutral options, and the connection's
                `submit.options`, key by key.
            external_id: Your own id for the task, where the vendor keeps one.
            callback_url: URL that the vendor calls when the task ends, where it supports one per task.
            name: File name of the document at the vendor; by default the file's own name.
            neutral: Neutral options of the operation, the same for every vendor: ``convert`` takes `to`;
                ``extract-text`` `text_format` and `language`; ``render`` `to`, `pages` and `dpi`; ``extract-pages``
                `pages`. See `taskbridge.provider.NeutralOptions`; ``capabilities.options`` has what a vendor can do.
            before_submit: Called with the recovery token (JSON, the same as `error.recovery_token`) each time before
                the request is sent after which the vendor may have the submission. An error from there is raised here,
                and nothing is sent. A stored token finds the submission after a crash:
                ``recover(SubmitUncertain("", recovery_token=token))``.

        Raises:
            UnsupportedFeature: The vendor has no such operation or option, or does not accept such an input; nothing
                was sent.
            InvalidInput: A document or an option cannot be sent; nothing was sent.
            OSError: A file or an object cannot be read.
            ConfigError: A package for a storage is missing, or it cannot sign links; nothing was sent.
            SubmitUncertain: The vendor may or may not have accepted it; see `recover`.
            TaskbridgeError: It has not. A group has tried its members in order as long as each surely had not accepted
                it; the ref of the task says which did.
        """
        request = SubmitRequest(operation, input, options, external_id, callback_url, name, neutral)
        return self._runtime.run(self._submit(self.name, request, before_submit))

    def can(
        self,
        operation: str | None = None,
        input: AnyInput = None,  # noqa: A002  # as in submit
        *,
        options: Mapping[str, Any] | None = None,
        external_id: str | None = None,
        callback_url: str | None = None,
        name: str | None = None,
        **neutral: Unpack[NeutralOptions],
    ) -> Support:
        """Return whether `submit` would accept these arguments; nothing is sent.

        The media type of a document is found by its content, otherwise by its name. A stream is not read, a URL is not
        fetched, and a file does not have to exist: those are judged by their names. If the type is not known, or the
        vendor does not state which it accepts, the answer is true, and the vendor decides.

        Args:
            operation: As for `submit`, as are all others.
            input: The document.
            options: The vendor's own options.
            external_id: Your own id for the task.
            callback_url: URL that the vendor calls.
            name: File name of the document at the vendor.
            neutral: Neutral options.

        Returns:
            An object that is true or false; its text says why not.

        Raises:
            OSError: A file cannot be read.
        """
        request = SubmitRequest(operation, input, options, external_id, callback_url, name, neutral)
        return self._can(self.name, request)

    def list(
        self, status: TaskStatus | str | None = None, *, limit: int | None = None, **filters: Any
    ) -> Iterator[Task]:
        """Yield the vendor's tasks, in its order; a page is read when the one before is used up.

        If the vendor cannot filter by a status itself, all pages are read and filtered here:
        ``capabilities.listing.statuses`` has the statuses that it can filter by.

        Args:
            status: Only tasks of this shared status.
            limit: Maximum number of tasks; None for all.
            filters: The vendor's own filters; ``capabilities.listing.filters`` has their names.

        Raises:
            UnsupportedFeature: The vendor does not list, or has no such filter; nothing was sent.
            TaskbridgeError: A page cannot be read.
        """
        return self._runtime.pages(self._list(self.name, status, limit, filters))

    def check(self) -> CheckResult:
        """Check whether the vendor accepts the credential, by the cheapest call that needs it.

        Raises:
            AuthenticationError: It does not.
            TaskbridgeError: The vendor refuses the call, or could not be reached or understood.
        """
        return self._runtime.run(self._check())

    def account(self) -> Account:
        """Ask for the account of the connection and how much is left on it.

        Raises:
            UnsupportedFeature: The vendor does not say; nothing was sent.
            PermissionDenied: The credential may not read the account.
            TaskbridgeError: The request failed.
        """
        return self._runtime.run(self._account())

    def operations(
        self, name: str | None = None, *, input_format: str | None = None, output_format: str | None = None
    ) -> tuple[OperationInfo, ...]:
        """Ask which operations the vendor has; with a name or a format, also for the options of each.

        Args:
            name: Only the operation that the vendor calls so, such as ``convert``.
            input_format: Only conversions from this format.
            output_format: Only conversions to this format.

        Raises:
            UnsupportedFeature: The vendor does not list them; nothing was sent.
            TaskbridgeError: The request failed.
        """
        return self._runtime.run(self._operations(name, input_format, output_format))

    def recover(self, error: TaskbridgeError, input: AnyInput = None) -> Task | None:  # noqa: A002  # as in submit
        """Search for the submission that a failed `submit` left uncertain; None if the vendor does not have it (yet).

        A vendor may take a moment to list what it accepted, so None right after the failure is no proof.

        Args:
            error: What `submit` raised.
            input: The document again, as it was given to `submit`. If the vendor has the submission but not its
                document yet, it is sent now.

        Raises:
            UnsupportedFeature: The vendor has no way to find it.
            OSError: The file cannot be read.
            ConfigError: The error is not from a submission through this connection.
            TaskbridgeError: The search failed, which says nothing about the submission.
        """
        return self._runtime.run(self._recover(self.name, error, input))

    @overload
    def download(  # type: ignore[overload-overlap]  # a StorageUrl is a text, too: the first that fits counts
        self,
        what: TaskFile,
        to: StorageUrl,
        *,
        max_bytes: int | None = MAX_BYTES,
        on_progress: Progress | None = None,
        overwrite: bool = False,
    ) -> StorageUrl: ...

    @overload
    def download(  # type: ignore[overload-overlap]  # a StorageUrl is a text, too: the first that fits counts
        self,
        what: AnyId,
        to: StorageUrl,
        *,
        max_bytes: int | None = MAX_BYTES,
        on_progress: Progress | None = None,
        overwrite: bool = False,
    ) -> tuple[StorageUrl, ...]: ...

    @overload
    def download(
        self,
        what: TaskFile,
        to: str | os.PathLike[str],
        *,
        max_bytes: int | None = MAX_BYTES,
        on_progress: Progress | None = None,
        overwrite: bool = False,
    ) -> Path: ...

    @overload
    def download(
        self,
        what: AnyId,
        to: str | os.PathLike[str],
        *,
        max_bytes: int | None = MAX_BYTES,
        on_progress: Progress | None = None,
        overwrite: bool = False,
    ) -> tuple[Path, ...]: ...

    def download(
        self,
        what: TaskFile | AnyId,
        to: str | os.PathLike[str],
        *,
        max_bytes: int | None = MAX_BYTES,
        on_progress: Progress | None = None,
        overwrite: bool = False,
    ) -> Path | StorageUrl | tuple[Path, ...] | tuple[StorageUrl, ...]:
        """Download one file of a result, or all results of a task.

        The bytes are streamed into a temporary file beside the target, which gets its name once it is complete and on
        the disk. A download that breaks off is resumed where the host allows it, and otherwise starts again; if the
        link of a task's file is dead, the task is asked for a new one. Once `request_timeout` is used up, a file must
        arrive with 20 kB per second on average, and never pause for ten seconds; one of unknown size may take an hour
        more. A file that turns out larger than the vendor says is not saved.

        Args:
            what: A `TaskFile` of this connection; or a task by its shared id, ref or its text, or snapshot.
            to: For a file: a folder (an existing one, or a text that ends in a separator; created if missing), where it
                gets the vendor's name made safe; or the path of the file itself. For a task: a folder, created if
                missing. Or the URL of a storage, such as ``s3://bucket/results/`` (extra ``fsspec``), under the same
                rules.
            max_bytes: Maximum size of one file in bytes, 4 GiB by default; None for no limit.
            on_progress: Called with the bytes that have arrived, and the total or None if unknown; for a task, over all
                its files. An error from there ends the download, and is raised here.
            overwrite: Whether to replace existing files.

        Returns:
            The path of the file; for a task, the paths of all its files in the vendor's order. In a storage, a
            `StorageUrl` instead of each path.

        Raises:
            FileExistsError: Such a file exists; nothing was fetched.
            OSError: A file cannot be written, or the disk is full; existing files are unchanged.
            ConfigError: A package for a storage is missing; nothing was sent.
            TaskFailed: The task failed; holds it.
            WaitTimeout: The task is still running; download does not wait for it.
            ResponseTooLarge: A file is larger than `max_bytes`.
            UnsupportedFeature: Nothing can be downloaded from this vendor; nothing was sent.
            TaskbridgeError: A file cannot be fetched; the files before it have been saved.
        """
        options = DownloadOptions(to, max_bytes, on_progress, overwrite)
        if isinstance(what, TaskFile):
            return self._runtime.run(self._download_file(what, options))
        return self._runtime.run(self._download(what, options))

    def read(self, file: TaskFile, *, max_bytes: int | None = MAX_READ) -> bytes:
        """Return the content of one file of a result.

        It is fetched like a download, with the same checks and the same errors, but not saved.

        Args:
            file: A file of a result of this connection.
            max_bytes: Maximum size in bytes, 256 MiB by default; None for no limit.

        Raises:
            ResponseTooLarge: The file is larger than `max_bytes`.
            InvalidInput: It is no file of a result, but a task or an id; nothing was sent.
            UnsupportedFeature: Nothing can be downloaded from this vendor; nothing was sent.
            TaskbridgeError: The file cannot be fetched.
        """
        return self._runtime.run(self._read_file(file, max_bytes))

    def open(self, file: TaskFile, *, max_bytes: int | None = MAX_BYTES) -> BinaryIO:
        """Return a stream of the content of one file of a result; close it, or use it in a ``with`` statement.

        The whole file is fetched first, like a download, into a temporary file that ends with the stream. So reading
        and seeking need neither the network nor much memory.

        Args:
            file: A file of a result of this connection.
            max_bytes: Maximum size in bytes, 4 GiB by default; None for no limit.

        Raises:
            OSError: The disk is full.
            ResponseTooLarge: The file is larger than `max_bytes`.
            InvalidInput: It is no file of a result, but a task or an id; nothing was sent.
            UnsupportedFeature: Nothing can be downloaded from this vendor; nothing was sent.
            TaskbridgeError: The file cannot be fetched.
        """
        return self._runtime.run(self._open_file(file, max_bytes))

    def webhooks(self) -> tuple[WebhookEndpoint, ...]:
        """Ask for the webhooks of the account.

        Raises:
            UnsupportedFeature: The vendor's API does not list them; nothing was sent.
            TaskbridgeError: The request failed.
        """
        return self._runtime.run(self._webhooks())

    def add_webhook(self, url: str, events: Iterable[str] | None = None) -> WebhookEndpoint:
        """Make the vendor send the events of the account to a URL.

        Args:
            url: Where to; it must be reachable from the vendor.
            events: The vendor's names of the events; None for all, which ``capabilities.webhooks.events`` has.

        Returns:
            The webhook; its `secret` belongs in the setting `webhook_secrets`.

        Raises:
            UnsupportedFeature: The vendor's API cannot do this; nothing was sent.
            InvalidInput: It is no URL, or the vendor has no such event; nothing was sent.
            TaskbridgeError: The vendor refuses; or it is unknown whether it was added: `webhooks` lists it then.
        """
        return self._runtime.run(self._add_webhook(url, events))

    def remove_webhook(self, webhook: WebhookEndpoint | str) -> None:
        """Remove a webhook of the account.

        Args:
            webhook: The webhook, or its id.

        Raises:
            UnsupportedFeature: The vendor's API cannot do this; nothing was sent.
            InvalidInput: It cannot be an id; nothing was sent.
            TaskbridgeError: The vendor refuses, or does not know it.
        """
        return self._runtime.run(self._remove_webhook(webhook))

    def delivery_limit(self) -> int:
        """Return the most bytes of a webhook delivery that are accepted, for a web server that limits the body.

        Raises:
            UnsupportedFeature: The vendor sends no webhooks.
            ConfigError: `webhook_secrets` is not set, so every delivery would be refused.
        """
        return self._delivery_limit(self.name)

    @strip_tracebacks
    def parse_webhook(
        self,
        headers: Headers,
        raw_body: bytes | bytearray | memoryview,
        *,
        url: str | None = None,
        now: datetime | None = None,
    ) -> WebhookEvent:
        """Verify and read a webhook delivery; pure: nothing is sent or waited for.

        Args:
            headers: Header fields, as the web framework provides them.
            raw_body: The bytes, as they were received; a body that was decoded and encoded again proves nothing.
            url: The URL that was called, if it contains a secret.
            now: Aware time of receipt; None for the present.

        Raises:
            WebhookRejected: It cannot be trusted; `answer` is the HTTP status to answer with.
            UnsupportedFeature: The vendor sends no webhooks.
            ConfigError: `webhook_secrets` is not set, or contains a text that is no secret of this vendor.
        """
        return self._parse_webhook(self.name, headers, raw_body, url, now)

    def close(self) -> None:
        """End the threads that wait for many tasks, and close the kept connections."""
        for member in self.members:
            member.close()
        super().close()


class Bridge(_SyncClient):
    """Every connection of a configuration at once, addressed by ref; made by `from_config`.

    Args:
        connections: The open connections, by name.
        groups: Groups of these connections, by name.
        clock: Time and chance; None for the default.
        transport: Sends the requests; None for the default.
    """

    def __init__(
        self,
        connections: Mapping[str, Connection],
        *,
        clock: Clock | None = None,
        transport: Transport | TransportMaker | None = None,
        groups: Mapping[str, Group] = MappingProxyType({}),
    ) -> None:
        clock = clock or default_clock()
        super().__init__(connections, clock, groups=groups)
        self._use_runtime(_make_runtime(clock, transport, connections.values()))
        self._clients: dict[str, Client] = {}

    @classmethod
    @strip_tracebacks
    def from_config(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        event_bus: Callable[[str], EventBus] | None = None,
        limits: Callable[[str], SharedLimits] | None = None,
    ) -> Self:
        """Open every connection of a configuration. Nothing is sent yet.

        Args:
            path: The configuration; None searches the usual places.
            event_bus: As for `connect`.
            limits: As for `connect`.

        Raises:
            ConfigError: The configuration is invalid.
            ProviderNotFound: A provider is not installed.
            ProviderLoadError: A provider cannot be used.
        """
        clock = default_clock()
        config = load_config(path)
        connections = open_connections(config, clock)
        for each in connections.values():
            each.use_event_bus(event_bus)
            each.share_limits(limits)
        return cls(connections, clock=clock, groups=open_groups(config, connections))

    @property
    def connections(self) -> tuple[str, ...]:
        """Names of the connections."""
        return tuple(self._connections)

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups."""
        return tuple(self._groups)

    def __getitem__(self, name: str) -> Client:
        """Return the client of a connection or group; it shares rate and credential, and is closed with the bridge."""
        client = self._clients.get(name)
        if client is None:
            self._refuse_if_closed()
            opened = self._groups.get(name) or self._named(name)
            client = Client(opened, known=self._known, clock=self._clock, runtime=self._runtime)
            client = self._clients.setdefault(name, client)  # another thread may have been faster
        return client

    def submit(
        self,
        connection: str,
        operation: str | None = None,
        input: AnyInput = None,  # noqa: A002  # the usual name
        *,
        options: Mapping[str, Any] | None = None,
        external_id: str | None = None,
        callback_url: str | None = None,
        name: str | None = None,
        before_submit: Callable[[Mapping[str, Any]], object] | None = None,
        **neutral: Unpack[NeutralOptions],
    ) -> Task:
        """Submit a document to the vendor of a connection; see `Client.submit`."""
        request = SubmitRequest(operation, input, options, external_id, callback_url, name, neutral)
        return self._runtime.run(self._submit(connection, request, before_submit))

    def list(
        self, connection: str, status: TaskStatus | str | None = None, *, limit: int | None = None, **filters: Any
    ) -> Iterator[Task]:
        """Yield the tasks of a connection's vendor; see `Client.list`."""
        return self._runtime.pages(self._list(connection, status, limit, filters))

    def recover(self, error: TaskbridgeError, input: AnyInput = None) -> Task | None:  # noqa: A002  # as in submit
        """Search for the submission that a failed `submit` left uncertain; see `Client.recover`."""
        return self._runtime.run(self._recover(connection_of(error), error, input))

    @overload
    def download(  # type: ignore[overload-overlap]  # a StorageUrl is a text, too: the first that fits counts
        self,
        task: AnyId,
        to: StorageUrl,
        *,
        max_bytes: int | None = MAX_BYTES,
        on_progress: Progress | None = None,
        overwrite: bool = False,
    ) -> tuple[StorageUrl, ...]: ...

    @overload
    def download(
        self,
        task: AnyId,
        to: str | os.PathLike[str],
        *,
        max_bytes: int | None = MAX_BYTES,
        on_progress: Progress | None = None,
        overwrite: bool = False,
    ) -> tuple[Path, ...]: ...

    def download(
        self,
        task: AnyId,
        to: str | os.PathLike[str],
        *,
        max_bytes: int | None = MAX_BYTES,
        on_progress: Progress | None = None,
        overwrite: bool = False,
    ) -> tuple[Path, ...] | tuple[StorageUrl, ...]:
        """Download all results of a task; see `Client.download`.

        A file alone does not say of which connection it is: ``bridge["its name"].download(file, to)``.
        """
        return self._runtime.run(self._download(task, DownloadOptions(to, max_bytes, on_progress, overwrite)))

    @strip_tracebacks
    def parse_webhook(
        self,
        connection: str,
        headers: Headers,
        raw_body: bytes | bytearray | memoryview,
        *,
        url: str | None = None,
        now: datetime | None = None,
    ) -> WebhookEvent:
        """Verify and read a webhook delivery for a connection; see `Client.parse_webhook`."""
        return self._parse_webhook(connection, headers, raw_body, url, now)

    def close(self) -> None:
        """End all waits, and close the kept connections; the tasks continue at the vendor."""
        for client in list(self._clients.values()):
            client.close()
        super().close()


def _make_runtime(
    clock: Clock, transport: Transport | TransportMaker | None, connections: Iterable[Connection]
) -> Runtime:
    maker = transport if isinstance(transport, TransportMaker) else current_defaults().transports
    given = None if isinstance(transport, TransportMaker) else transport
    return Runtime(clock, Transports(_make_transport, given, None if maker is None else maker.transport, connections))


def _make_transport(network: Network, user_agent: str, size: int, kind: str) -> Transport:
    from taskbridge._transport.choice import make_transport  # noqa: PLC0415  # only once something is sent

    return make_transport(network, user_agent, size, kind)
