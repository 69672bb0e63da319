"""The synchronous interface to what changes something at a vendor, and to its list; `Client` and `Bridge` inherit it.

All that is decided is decided in `taskbridge._engine.operations`, `taskbridge._engine.inputs` and `taskbridge._engine.operations`.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, Self, overload

from taskbridge._config.defaults import TransportMaker, current_defaults, default_clock
from taskbridge._config.files import load_config
from taskbridge._engine.connection import Connection
from taskbridge._engine.download import DownloadOptions, download_file, download_task
from taskbridge._engine.event_bus import listening
from taskbridge._engine.flows import guarded_flow
from taskbridge._engine.inputs import AnyInput, SubmitRequest, TemporaryFiles, prepare, prepare_again
from taskbridge._engine.locate import AnyId, Located, Rejected, connections_of, one_connection
from taskbridge._engine.operations import (
    CheckResult,
    Pager,
    cancel,
    check,
    claim,
    get,
    query_of,
    recover,
    remove,
    restart,
    retry,
    submit,
)
from taskbridge._engine.tracing import CallSpan
from taskbridge._polling.commands import Update
from taskbridge._runtime.base import (
    DEFAULT_TIMEOUT,
    AllConnections,
    Front,
    OneConnection,
    Transports,
    Waiting,
    ignore,
    in_order,
    no_wait,
)
from taskbridge._runtime.sync import Driver, WorkerPool
from taskbridge.errors import InvalidInput, TaskbridgeError
from taskbridge.models import Outcome, Outcomes, Task, TaskFile, TaskResult, TaskStatus, WebhookEvent, raise_if_failed
from taskbridge.provider.clock import Clock
from taskbridge.provider.secrets import redact_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from taskbridge._engine.webhooks import Ingested
    from taskbridge.provider.sink import Progress
    from taskbridge.transport import Network, Transport

__all__ = ["Bridge", "BridgeVerbs", "Client", "ClientVerbs", "Verbs", "connect"]

# XXDOC The synchronous interface: `Client` for one connection, `Bridge` for all of a configuration.
#
# A `Client` and a `Bridge` may be used from many threads. `close` them, or use them in a ``with`` statement: that ends
# the threads of waits for many, and closes the kept connections.
#


class Verbs(Front):
    """What is done to one task."""

    _driver: Driver

    def cancel(self, task: AnyId) -> Task:
        """Stop a task; one that has ended already is returned as it is.

        Args:
            task: A shared id, a ref or its text, or a task.

        Raises:
            UnsupportedFeature: The vendor cannot stop it; nothing was sent.
            TaskbridgeError: The vendor refuses, or nobody knows whether it heard: look the task up.
        """
        place = self._begin(task)
        connection, task_id = place.connection, place.task_id
        claim(connection, "cancel", "cancel a task")
        return self._driver.run(connection, cancel(connection, task_id))

    def retry(self, task: AnyId) -> Task:
        """Do a task once more: a new task, whose `retry_of` is the old one.

        Args:
            task: A shared id, a ref or its text, or a task.

        Raises:
            UnsupportedFeature: The vendor cannot; nothing was sent.
            SubmitUncertain: The vendor may have begun the new one.
            TaskbridgeError: The vendor refuses, or was not reached.
        """
        place = self._begin(task)
        claim(place.connection, "retry", "retry a task")
        return self._driver.run(place.connection, retry(place.connection, place.task_id))

    def delete(self, task: AnyId) -> None:
        """Remove a task, and what it made, at the vendor.

        Args:
            task: A shared id, a ref or its text, or a task.

        Raises:
            UnsupportedFeature: The vendor cannot; nothing was sent.
            TaskNotFound: The vendor does not know it, or no longer.
            TaskbridgeError: The vendor refuses, or was not reached.
        """
        place = self._begin(task)
        claim(place.connection, "delete", "delete a task")
        self._driver.run(place.connection, remove(place.connection, place.task_id))

    def restart(self, task: AnyId, *, destructive: bool = False) -> Task:
        """Do a task anew under its own id. What it made and what people changed in it are lost.

        Args:
            task: A shared id, a ref or its text, or a task.
            destructive: Must be True: that loss is meant.

        Raises:
            UnsupportedFeature: The vendor cannot; nothing was sent.
            ConfigError: `destructive` is not set; nothing was sent.
            SubmitUncertain: The vendor may have begun; the task's `restarts` tell.
            TaskbridgeError: The vendor refuses, or was not reached.
        """
        place = self._begin(task)
        claim(place.connection, "restart", "restart a task")
        return self._driver.run(place.connection, restart(place.connection, place.task_id, destructive=destructive))

    def _brought(self, task: AnyId, want: DownloadOptions) -> tuple[Path, ...]:
        place = self._begin(task)
        claim(place.connection, "download", "give out files")
        with CallSpan("download", [place.connection], self._clock, [place]):
            return self._driver.run(place.connection, download_task(place.connection, place.task_id, place.known, want))


class ClientVerbs(Verbs):
    """What is done through one connection."""

    _connection: Connection

    def submit(
        self,
        operation: str | None = None,
        input: AnyInput = None,  # noqa: A002  # what everybody calls it
        *,
        options: Mapping[str, Any] | None = None,
        external_id: str | None = None,
        callback_url: str | None = None,
        name: str | None = None,
        before_submit: Callable[[Mapping[str, Any]], object] | None = None,
    ) -> Task:
        """Hand a document to the vendor; the task that it made of it.

        It is never sent twice blindly: what surely did not reach the vendor is sent again, anything else raises
        `SubmitUncertain`. The call takes at most `request_timeout`, and a second more for each 100 kB of the document.

        Args:
            operation: A neutral operation (``capabilities.operations`` has them), or a vendor's own as ``native:…``,
                which passes through untouched; None for the connection's ``submit.operation``.
            input: A path, a URL, bytes, an open binary stream, a `TaskFile` of this vendor, or a list of these where
                documents are joined; None where the options name the document. Streams are read to their end first.
            options: The vendor's own options, verbatim; above the connection's ``submit.options``, key by key.
            external_id: Your id of the order, where the vendor keeps one.
            callback_url: Address that the vendor is to call, where it does.
            name: What the document is called at the vendor; by default the file's own name.
            before_submit: Called with the order's clue (JSON, as `error.recovery_token` has it) each time before the request leaves
                after which the vendor may have the order; what it raises ends the call, and the order stays here.
                Kept in a safe place, it finds the order after a crash: ``recover(SubmitUncertain("", recovery_token=recovery_token))``.

        Raises:
            UnsupportedFeature: The vendor has no such operation, or takes no such input; nothing was sent.
            InvalidInput: The document is empty, over the vendor's limit, or cannot be fetched; nothing was sent.
            OSError: The file cannot be read.
            SubmitUncertain: The vendor may have taken it; `recover` looks for it.
            TaskbridgeError: It was not taken; `recovery_token` tells what was made on the way.
        """
        self._refuse_if_closed()
        connection = self._connection
        connection.resume()
        with CallSpan("submit", [connection], self._clock), TemporaryFiles() as spool:
            wish = SubmitRequest(operation, input, options, external_id, callback_url, name)
            return self._driver.run(
                connection, submit(connection, prepare(connection, wish, spool)), before_submit or ignore
            )

    def list(
        self, status: TaskStatus | str | None = None, *, limit: int | None = None, **filters: Any
    ) -> Iterator[Task]:
        """The vendor's tasks, in its order; a page is fetched when the one before is used up.

        A status that the vendor cannot pick out itself is picked out here, which fetches every page on the way:
        ``capabilities.listing.statuses`` has those that cost nothing.

        Args:
            status: Only tasks of this shared status.
            limit: Tasks at most; None for all.
            filters: The vendor's own filters; ``capabilities.listing.filters`` has them.

        Raises:
            UnsupportedFeature: The vendor does not list, or has no such filter; nothing was sent.
            TaskbridgeError: A page could not be had.
        """
        self._refuse_if_closed()
        self._connection.resume()
        return self._pages(Pager(self._connection, query_of(self._connection, status, filters), limit))

    def _pages(self, walk: Pager) -> Iterator[Task]:
        while walk.goes_on:
            yield from walk.take(self._driver.run(walk.connection, walk.ask()))

    def check(self) -> CheckResult:
        """Ask whether the vendor takes the credential, by the cheapest call that needs it.

        Raises:
            AuthenticationError: It does not.
            TaskbridgeError: The vendor refuses the call, or was not reached or understood.
        """
        self._refuse_if_closed()
        self._connection.resume()
        return self._driver.run(self._connection, check(self._connection))

    def recover(self, error: TaskbridgeError, input: AnyInput = None) -> Task | None:  # noqa: A002  # as in submit
        """Look for the order that a failed submit left in doubt; None where the vendor does not have it (yet).

        A vendor may take a moment to list what it took, so a None right after the failure is no proof.

        Args:
            error: What `submit` raised.
            input: The document again, as it was given to `submit`. Where the vendor has the order but not yet its
                document, it is sent now.

        Raises:
            UnsupportedFeature: The vendor has no way to find it.
            OSError: The file cannot be read.
            ConfigError: The error is not of an order through this connection.
            TaskbridgeError: The search failed, which says nothing of the order.
        """
        self._refuse_if_closed()
        connection = self._connection
        connection.resume()
        with TemporaryFiles() as spool:
            return self._driver.run(
                connection, recover(connection, error, prepare_again(connection, error, input, spool))
            )

    @overload
    def download(
        self,
        what: TaskFile,
        to: str | os.PathLike[str],
        *,
        max_bytes: int | None = None,
        on_progress: Progress | None = None,
        overwrite: bool = False,
    ) -> Path: ...

    @overload
    def download(
        self,
        what: AnyId,
        to: str | os.PathLike[str],
        *,
        max_bytes: int | None = None,
        on_progress: Progress | None = None,
        overwrite: bool = False,
    ) -> tuple[Path, ...]: ...

    def download(
        self,
        what: TaskFile | AnyId,
        to: str | os.PathLike[str],
        *,
        max_bytes: int | None = None,
        on_progress: Progress | None = None,
        overwrite: bool = False,
    ) -> Path | tuple[Path, ...]:
        """Bring home a file that a task made, or all that a task made.

        The bytes are streamed into a file beside the target, which gets its name once it is whole and on the disk. What
        breaks off is gone on with where the host allows it, else it begins anew; a dead link of a task's file is looked
        up once more. There is no limit to the time but that a file has to come with 20 kB a second in the mean, once
        `request_timeout` is used up, and never to stand still for ten seconds.

        Args:
            what: A `TaskFile` of this connection; or a task by its shared id, ref or its text, or snapshot.
            to: For a file: a folder (one that is there, or a text that ends in a separator, made where it is missing),
                where it gets the vendor's name made safe; or the path of the file itself. For a task: a folder, made
                where it is missing.
            max_bytes: Bytes of one file at most; None for no limit.
            on_progress: Told the bytes that are there, and those in all or None where nobody knows; for a task, over
                all its files. What it raises ends the download, and comes out of this call.
            overwrite: Replace files that are there.

        Returns:
            The path of the file; of a task, the paths of all its files in the vendor's order.

        Raises:
            FileExistsError: Such a file is there; nothing was fetched.
            OSError: It cannot be written, or the disk is full; what was there is as it was.
            TaskFailed: The task failed; holds it.
            WaitTimeout: The task goes on; it is looked up once, and not waited for.
            ResponseTooLarge: A file has more than `max_bytes`.
            UnsupportedFeature: Nothing can be downloaded from the vendor; nothing was sent.
            TaskbridgeError: A file cannot be had; those of a task before it are there.
        """
        want = DownloadOptions(to, max_bytes, on_progress, overwrite)
        if not isinstance(what, TaskFile):
            return self._brought(what, want)
        self._refuse_if_closed()
        self._connection.resume()
        claim(self._connection, "download", "give out files")
        with CallSpan("download", [self._connection], self._clock):
            return self._driver.run(self._connection, download_file(self._connection, what, want))


class BridgeVerbs(Verbs):
    """What is done through any connection, by its name."""

    def __getitem__(self, name: str) -> Client:
        """The client of one connection."""
        raise NotImplementedError(name)

    def submit(
        self,
        connection: str,
        operation: str | None = None,
        input: AnyInput = None,  # noqa: A002  # what everybody calls it
        *,
        options: Mapping[str, Any] | None = None,
        external_id: str | None = None,
        callback_url: str | None = None,
        name: str | None = None,
        before_submit: Callable[[Mapping[str, Any]], object] | None = None,
    ) -> Task:
        """Hand a document to the vendor of a connection; see `Client.submit`."""
        return self[connection].submit(
            operation,
            input,
            options=options,
            external_id=external_id,
            callback_url=callback_url,
            name=name,
            before_submit=before_submit,
        )

    def list(
        self, connection: str, status: TaskStatus | str | None = None, *, limit: int | None = None, **filters: Any
    ) -> Iterator[Task]:
        """The tasks of a connection's vendor; see `Client.list`."""
        return self[connection].list(status, limit=limit, **filters)

    def recover(self, error: TaskbridgeError, input: AnyInput = None) -> Task | None:  # noqa: A002  # as in submit
        """Look for the order that a failed submit left in doubt; see `Client.recover`."""
        return self[str(error.recovery_token.get("connection", error.connection))].recover(error, input)

    def download(
        self,
        task: AnyId,
        to: str | os.PathLike[str],
        *,
        max_bytes: int | None = None,
        on_progress: Progress | None = None,
        overwrite: bool = False,
    ) -> tuple[Path, ...]:
        """Bring home all that a task made; see `taskbridge.Client.download`.

        A file alone does not say of which connection it is: ``bridge["its name"].download(file, to)``.
        """
        if isinstance(task, TaskFile):
            raise InvalidInput('a file does not say of which connection it is: bridge["its name"].download(file, to)')
        return self._brought(task, DownloadOptions(to, max_bytes, on_progress, overwrite))


@redact_errors
def connect(
    provider: str | None = None,
    /,
    *,
    connection: str | None = None,
    config: str | os.PathLike[str] | None = None,
    clock: Clock | None = None,
    transport: Transport | TransportMaker | None = None,
    **settings: Any,
) -> Client:
    """Open a connection to a vendor. Nothing is sent yet.

    Either name a configured connection, or a provider and its settings.

    Args:
        provider: Entry-point name of a provider, such as ``cloudconvert``.
        connection: Name of a connection in the configuration; its `default` where neither is named.
        config: Path of the configuration; None looks in the usual places.
        clock: Time and chance; None for the computer's. For tests, see `taskbridge.testing`.
        transport: Sends the requests; None for real ones. For tests, see `taskbridge.testing`.
        settings: Settings of the provider and of every connection; they stand above the configuration's.

    Raises:
        ConfigError: The configuration or a setting cannot be used.
        ProviderNotFound: No such provider is installed.
        ProviderLoadError: The provider cannot be used.
    """
    chosen = clock or default_clock()
    guarded_flow, known = one_connection(provider, connection, config, settings, chosen)
    return Client(guarded_flow, known=known, clock=chosen, transport=transport)


class _Calls(Front):
    """What `Client` and `Bridge` do alike."""

    def _open(self, transport: Transport | TransportMaker | None) -> None:
        maker = transport if isinstance(transport, TransportMaker) else current_defaults().transports
        given = None if isinstance(transport, TransportMaker) else transport
        self._transports = Transports(_make_transport, given, None if maker is None else maker.transport)
        self._driver = Driver(self._clock, self._transports)
        self._pool = WorkerPool(self._driver)

    # One task.

    def get(self, task: AnyId, *, options: Mapping[str, Any] | None = None) -> Task:
        """Look a task up once.

        Args:
            task: A shared id, a ref or its text, or a task.
            options: The vendor's own query options; ``capabilities.get_options`` has their names.

        Raises:
            InvalidTaskId: It cannot be an id; nothing was sent.
            UnsupportedFeature: The vendor has no such option; nothing was sent.
            TaskbridgeError: The look-up failed, which says nothing of the task.
        """
        place = self._begin(task)
        return self._driver.run(place.connection, get(place.connection, place.task_id, options))

    def wait(
        self,
        task: AnyId,
        timeout: float | None = DEFAULT_TIMEOUT,
        on_update: Callable[[Task], object] | None = None,
    ) -> Task:
        """Wait until a task is completed or failed; the last snapshot tells which.

        The wait runs in this thread. A look-up that fails in passing does not end it.

        Args:
            task: A shared id, a ref or its text, or a task.
            timeout: Seconds to wait at most; 0 looks once; None for no deadline.
            on_update: Called with each changed snapshot, the last one included.

        Raises:
            WaitTimeout: The time ran out, the task goes on; holds the last snapshot and the ref.
            TaskbridgeError: The vendor refuses, or cannot be asked.
        """
        if timeout is not None and timeout <= 0:
            return no_wait(self.get(task))
        place, clock = self._begin(task), self._clock
        arrived = threading.Condition()

        def wake() -> None:
            with arrived:
                arrived.notify()

        def pause(seconds: float) -> None:
            with arrived:
                if not waiting.has_heard:
                    clock.wait_on(arrived, seconds)

        with clock.acting(), Waiting(place, clock, timeout, on_update, wake) as waiting:
            while (ended := waiting.ended()) is None:
                self._driver.step(waiting.scheduler, pause)
        return ended

    def result(self, task: AnyId, timeout: float | None = DEFAULT_TIMEOUT) -> TaskResult:
        """What a task made; waits for its end, and fetches the result where the vendor keeps it apart.

        Args:
            task: A shared id, a ref or its text, or a task; a task that has ended is not looked up again.
            timeout: Seconds to wait for the end at most; None for no deadline.

        Raises:
            TaskFailed: The task failed; holds it.
            WaitTimeout: The time ran out, the task goes on.
            TaskbridgeError: The vendor refuses, or cannot be asked.
        """
        ended = task if isinstance(task, Task) and task.is_terminal else self.wait(task, timeout)
        raise_if_failed(ended)
        connection = self._begin(ended).connection
        return self._driver.call(connection, guarded_flow(connection, connection.provider.result, ended))

    # Many tasks.

    def as_completed(self, tasks: Iterable[AnyId], timeout: float | None = DEFAULT_TIMEOUT) -> Iterator[Outcome]:
        """Wait for many tasks, and tell of each as it ends.

        Nothing is asked, and no time runs, before the first outcome is taken.

        Yields one outcome for each task given, duplicates included; at the deadline one with `WaitTimeout` for each
        that did not end. One bad task never stops or hides another.

        Args:
            tasks: Shared ids, refs or their texts, or tasks.
            timeout: Seconds to wait at most; None for no deadline.
        """
        places = self._begin_many(tasks)
        return (update.outcome for update in self._follow("as_completed", places, timeout))

    def wait_all(self, tasks: Iterable[AnyId], timeout: float | None = DEFAULT_TIMEOUT) -> Outcomes:
        """Wait for many tasks; their outcomes in the order given, duplicates included.

        Args:
            tasks: Shared ids, refs or their texts, or tasks.
            timeout: Seconds to wait at most; None for no deadline.
        """
        places = self._begin_many(tasks)
        return in_order(self._follow("wait_all", places, timeout), len(places))

    def watch(self, tasks: Iterable[AnyId], timeout: float | None = DEFAULT_TIMEOUT) -> Iterator[Outcome]:
        """Wait for many tasks, and tell of every change of each until it ends.

        Args:
            tasks: Shared ids, refs or their texts, or tasks.
            timeout: Seconds to wait at most; None for no deadline.
        """
        places = self._begin_many(tasks)
        return (update.outcome for update in self._follow("watch", places, timeout, changes=True))

    # What the vendor tells unasked.

    def ingest(self, event: WebhookEvent, *, confirm: bool | None = None) -> Ingested:
        """Take in an event of `parse_webhook`: find out the truth of it, and end the waits for a task that has ended.

        An event whose proof covers no time is confirmed by one look-up. An event that was taken in before, and one that
        tells of a state before the known end, change nothing; the result says so.

        Args:
            event: The event.
            confirm: Whether to look the task up before believing the event; None leaves it to the event.

        Raises:
            TaskbridgeError: The look-up failed: answer 503, and the vendor delivers again.
        """
        return self._driver.run(*self._ingestion(event, confirm))

    # Housekeeping.

    def close(self) -> None:
        """End the threads of waits for many, and close the kept connections."""
        self._closed = True
        self._pool.close()
        for transport in self._transports.created():
            transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _follow(
        self, call: str, places: list[Located | Rejected], timeout: float | None, *, changes: bool = False
    ) -> Iterator[Update]:
        self._refuse_if_closed()
        connections = {place.connection.name: place.connection for place in places if isinstance(place, Located)}
        waits = self._pool.open(places, timeout, changes=changes)
        try:
            with (
                listening([connection.event_bus for connection in connections.values()], self._pool.hear),
                CallSpan(call, connections.values(), self._clock, places, timeout) as told,
            ):
                while (update := waits.take()) is not None:
                    if update.final:
                        told.record_outcome(update.outcome)
                    yield update
        finally:
            self._pool.leave(waits)


class Client(OneConnection, _Calls, ClientVerbs):
    """One connection to a vendor; made by `connect`.

    Args:
        channel: The connection at work.
        known: Names of other configured connections, whose refs are recognised and refused.
        clock: Time and chance; tests bring their own.
        transport: Sends the requests; None for the default.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        known: frozenset[str] = frozenset(),
        clock: Clock | None = None,
        transport: Transport | TransportMaker | None = None,
    ) -> None:
        super().__init__(connection, known, clock)
        self._open(transport)


class Bridge(AllConnections, _Calls, BridgeVerbs):
    """Every connection of a configuration at once, addressed by ref; made by `from_config`.

    Args:
        channels: The connections at work, by name.
        clock: Time and chance; tests bring their own.
        transport: Sends the requests; None for the default.
    """

    def __init__(
        self,
        connections: Mapping[str, Connection],
        *,
        clock: Clock | None = None,
        transport: Transport | TransportMaker | None = None,
    ) -> None:
        super().__init__(connections, clock or default_clock())
        self._open(transport)
        self._transport = transport
        self._clients: dict[str, Client] = {}

    @classmethod
    @redact_errors
    def from_config(cls, path: str | os.PathLike[str] | None = None) -> Self:
        """Open every connection of a configuration. Nothing is sent yet.

        Args:
            path: The configuration; None looks in the usual places.

        Raises:
            ConfigError: The configuration cannot be used.
            ProviderNotFound: A provider is not installed.
            ProviderLoadError: A provider cannot be used.
        """
        clock = default_clock()
        return cls(connections_of(load_config(path), clock), clock=clock)

    def __getitem__(self, name: str) -> Client:
        """The client of one connection; it shares the pace and the credential, and is closed with the bridge."""
        client = self._clients.get(name)
        if client is None:
            self._refuse_if_closed()  # nobody would close it
            known = frozenset(self._connections)
            made = Client(self._named(name), known=known, clock=self._clock, transport=self._transport)
            client = self._clients.setdefault(name, made)  # another thread may have been here
        return client

    def close(self) -> None:
        """End the threads of waits for many, and close the kept connections."""
        self._closed = True
        for client in list(self._clients.values()):
            client.close()
        super().close()


def _make_transport(network: Network, user_agent: str, size: int) -> Transport:
    from taskbridge._transport.requests import RequestsTransport  # noqa: PLC0415  # only once something is sent

    return RequestsTransport(network, user_agent=user_agent, size=size)
