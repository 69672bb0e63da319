"""`Watcher`: polls the tasks of a store and sends its submissions, in asyncio."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from itertools import islice
from math import inf
from pathlib import Path
from typing import Any, Final, ParamSpec, Self, TypeVar

from sqlalchemy import RowMapping

from taskbridge._engine.connection import Connection
from taskbridge._engine.inputs import is_url
from taskbridge._engine.logs import log
from taskbridge._engine.operations import sending_time
from taskbridge._redaction import without_secrets
from taskbridge.aio import Bridge, Client, Watch
from taskbridge.errors import (
    AuthenticationError,
    ConfigError,
    InvalidInput,
    InvalidTaskId,
    SubmitUncertain,
    TaskbridgeError,
    UnsupportedFeature,
    WaitTimeout,
    printable,
)
from taskbridge.models import Outcome, Task, TaskRef
from taskbridge.store.database import StoreUnavailable
from taskbridge.store.intents import (
    Fingerprint,
    awaits_upload,
    decode_name,
    fingerprint,
    is_readable,
    is_repeatable,
    may_be_accepted,
)
from taskbridge.store.limits import ByClients
from taskbridge.store.ownership import Ownership, OwnershipLost, Seen
from taskbridge.store.records import AccountStatus, moment
from taskbridge.store.reports import status_of
from taskbridge.store.schema import LONGEST_REF, Phase, State
from taskbridge.store.store import Store

P = ParamSpec("P")
T = TypeVar("T")

_SENDERS: Final = 4  # submissions of a connection that are sent at the same time
_BATCH: Final = 500  # snapshots and ends that are stored in one transaction
_CHUNK: Final = 500  # tasks that are added between two turns of the event loop
_LEAST_WAIT: Final = 1.0  # seconds that a watch must have left
_LAST_POLL: Final = 10.0  # seconds that it gets otherwise, for one last poll
_FIRST_PAUSE: Final = 1.0  # seconds; doubles with each failure
_LONGEST_PAUSE: Final = 60.0  # seconds
_STORE_PAUSE: Final = 1.0  # seconds between two attempts to use a database that cannot be used
_HEAD_START: Final = 1.5  # seconds that the owner before an outage of the database has; longer than that pause
_LOOK: Final = 0.25  # seconds between two looks whether it is back
_GUARD: Final = 0.25  # seconds between two checks that the connection is still owned
_LEAST_PAUSE: Final = 2.0  # seconds; a shorter pause of the vendor is not stored
_SAVE_PAUSE: Final = 60.0  # seconds between two times that learned durations are stored
_KEPT_EARLY: Final = 60.0  # seconds in which a task may be watched of which a webhook came first
_PRUNE_EVERY: Final = 3600.0  # seconds
_REPORT_PAUSE: Final = 3.0  # seconds between two reports of what it does
_REPORTED: Final = 50  # tasks whose next poll is in a report
_REFUSED_PAUSE: Final = 60.0  # seconds in which nothing is asked of a vendor that refuses the account


class Watcher:
    """Sends the submissions of a store and polls its tasks; in any number of processes, each connection in one of them.

    A connection that another process owns is waited for: when that process ends, however it ends, this one takes over.

    Args:
        store: The store.
        bridge: The connections, which stay open; None opens those of the configuration.
        config: Path of the configuration; None searches the usual places.
        connections: Names of the connections to work on; None for all of them.
        interval: Seconds between two reads of what other processes have stored.
        settle: Seconds after which a submission whose response was lost, and that the vendor does not show, counts as
            not received. Longer than `request_timeout` of the connection; for a file, one second for each 100 kB, which
            sending it may take, is added.
    """

    def __init__(
        self,
        store: Store,
        bridge: Bridge | None = None,
        *,
        config: str | os.PathLike[str] | None = None,
        connections: Iterable[str] | None = None,
        interval: float = 1.0,
        settle: float = 120.0,
    ) -> None:
        self._store = store
        self._bridge = bridge
        self._config = config
        self._names = None if connections is None else tuple(connections)
        self._interval = interval
        self._settle = settle
        self._stopping = asyncio.Event()
        self._owned: set[str] = set()

    @property
    def owned(self) -> frozenset[str]:
        """Names of the connections that this watcher works on at present."""
        return frozenset(self._owned)

    async def run(self) -> None:
        """Work until `stop` is called, also while the database cannot be used for a time.

        Each connection has a thread, which waits for the database. When this ends, also if it is cancelled, these
        threads have ended and other processes can own the connections.

        Raises:
            ConfigError: A connection is not configured, or the bridge was closed.
        """
        bridge = self._bridge or Bridge.from_config(self._config)
        try:
            names = bridge.connections if self._names is None else self._names
            clients = {name: bridge[name] for name in names}
            for name, client in clients.items():
                if _connection_of(client).sharing is not None:
                    raise ConfigError(f"{name!r} was opened with limits=, which is for clients beside a watcher")
            await _together([self._serve(name, client) for name, client in clients.items()])
        finally:
            if self._bridge is None:
                await bridge.close()

    def stop(self) -> None:
        """Let `run` end, once the submissions that are being sent have a response."""
        self._stopping.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop()

    async def _serve(self, name: str, client: Client) -> None:
        store, waits = self._store.database.name, False
        unsaved: Iterable[Seen] = ()
        epoch, was_owner, head_start = 0, False, _HeadStart()
        ownership = Ownership(self._store.database, name)
        thread = _StatementThread(name)
        try:
            while not self._stopping.is_set():
                pause = self._interval
                try:
                    must_wait = not was_owner and await head_start.holds(ownership, thread)
                    is_owner = not must_wait and await thread.run(ownership.take)
                    was_owner = is_owner
                    if must_wait:
                        pause = _LOOK
                    elif is_owner:
                        waits = False
                        log("store-owner", connection=name, store=store)
                        if ownership.epoch != epoch + 1:  # another process was the owner meanwhile
                            unsaved = ()
                        epoch = ownership.epoch
                        work = _Account(
                            self._store,
                            ownership,
                            client,
                            thread,
                            self._stopping,
                            interval=self._interval,
                            settle=self._settle,
                            unsaved=unsaved,
                        )
                        # The next time has an object of its own: the thread may still write for this one.
                        owner, ownership = ownership, Ownership(self._store.database, name)
                        try:
                            await self._own(name, owner, work)
                        finally:
                            unsaved = work.unsaved()
                    elif not waits:
                        waits = True
                        log("store-owned-elsewhere", connection=name, store=store)
                except OwnershipLost:
                    pass  # the next attempt to take it says so
                except StoreUnavailable as error:
                    head_start.begin()
                    pause = _STORE_PAUSE
                    log("store-unavailable", connection=name, error=error.message, pause=pause)
                await _wait(self._stopping, pause)
        finally:
            await _in_new_thread(partial(_end, ownership, thread))

    async def _own(self, name: str, ownership: Ownership, work: _Account) -> None:
        self._owned.add(name)
        try:
            await work.run()
        finally:
            self._owned.discard(name)
            await _in_new_thread(ownership.release)


class _HeadStart:
    """Lets the owner before an outage of the database become the owner again first.

    It has seen ends meanwhile that it could not store; any other owner would poll these again.
    """

    def __init__(self) -> None:
        self._is_away = False
        self._until = -inf  # as the next one, by the loop's time
        self._reached_at = -inf  # when the database responded last

    def begin(self) -> None:
        """Note that the database cannot be used."""
        self._is_away = True

    async def holds(self, ownership: Ownership, thread: _StatementThread) -> bool:
        """Whether to wait for that owner.

        Raises:
            StoreUnavailable: The database cannot be used.
        """
        now = asyncio.get_running_loop().time
        if self._is_away or now() < self._until:
            owned_for = await thread.run(ownership.owned_for)
            if self._is_away:
                self._is_away, self._until = False, now() + _HEAD_START
            if owned_for is None or owned_for < now() - self._reached_at:
                self._until = -inf  # a new connection; or an owner is back
        self._reached_at = now()
        return now() < self._until


class _Account:
    """The work on one connection, while it is owned.

    Args:
        store: The store.
        ownership: Of the connection.
        client: Of the connection.
        thread: Executes the statements.
        stopping: Ends the work.
        interval: Seconds between two reads of what callers have stored.
        settle: As for `Watcher`.
        unsaved: Ends that this process has seen, and could not store, when it owned the connection last.
    """

    def __init__(
        self,
        store: Store,
        ownership: Ownership,
        client: Client,
        thread: _StatementThread,
        stopping: asyncio.Event,
        *,
        interval: float,
        settle: float,
        unsaved: Iterable[Seen],
    ) -> None:
        self._store = store
        self._ownership = ownership
        self._client = client
        self._connection = _connection_of(client)
        self._by_clients: ByClients | None = None  # as read last
        self._thread = thread
        self._stopping = stopping
        self._interval = interval
        self._settle = settle
        self._watch: Watch = client.open_watch()
        self._until: dict[TaskRef, float | None] = {}  # open watches; seconds since the epoch
        self._early: dict[TaskRef, float] = {}  # webhooks for tasks that are not watched, with the loop's time
        self._prune_at = 0.0  # by the loop's time
        self._seen: deque[Seen] = deque()
        self._unsaved = {each.ref: each for each in unsaved}
        self._arrived = asyncio.Event()
        self._intents: asyncio.Queue[int | None] = asyncio.Queue()
        self._attempts: dict[int, int] = {}
        self._refusals: dict[int, str] = {}  # of submissions that the vendor may have accepted all the same
        self._refused_until = 0.0  # by the loop's time
        self._refusal: tuple[object, ...] = ()  # what the last refusal said
        self._resume: set[TaskRef] = set()  # to be watched again after a refusal
        self._refusal_text: str | None = None
        self._pause: tuple[str | None, float | None] = (None, None)  # as stored: why, and until when
        self._finished = client.stats()[client.name].finished  # when durations were stored last
        self._save_at = 0.0  # by the loop's time
        self._is_closed = False
        self._is_done = asyncio.Event()
        self._senders = _SENDERS
        self._reported: AccountStatus | None = None
        self._reported_at = -inf  # by the loop's time

    async def run(self) -> None:
        """Work until the watcher stops, and finish what has begun.

        Raises:
            OwnershipLost: Another process owns the connection, or soon will.
        """
        try:
            await self._take_over()
            senders = [self._send() for _ in range(_SENDERS)]
            await _together([self._guard(), self._read_store(), self._read_watch(), self._write(), *senders])
            await self._save_durations()
        finally:
            self._watch.close()

    async def _guard(self) -> None:
        """End all work at once when the lock is lost, also without an answer from the database."""
        while not self._is_done.is_set():
            if not self._ownership.is_held:
                raise OwnershipLost
            await _wait(self._is_done, _GUARD)

    async def _take_over(self) -> None:
        """Keep to the pause of the owner before, and learn what it has learned, before the first request."""
        left = await self._thread.run(self._ownership.handover)
        paused_until = self._by_this_clock(left.paused_until)
        if paused_until is not None and paused_until > self._store.clock.now():
            self._client.pause_until(paused_until)
            self._pause = (None, left.paused_until)
        if left.durations is not None:
            try:
                await asyncio.to_thread(self._client.load_durations, left.durations)
            except ConfigError as error:
                log("store-durations-ignored", connection=self._client.name, error=error.message)
        self._save_at = asyncio.get_running_loop().time() + _SAVE_PAUSE

    async def _save_durations(self) -> None:
        """Store what was learned, if there is something new."""
        finished = self._client.stats()[self._client.name].finished
        if finished != self._finished:
            self._finished = finished
            await self._thread.run(self._ownership.set_durations, self._client.save_durations())
        self._save_at = asyncio.get_running_loop().time() + _SAVE_PAUSE

    # What callers store.

    async def _read_store(self) -> None:
        revision = -1
        while not self._stopping.is_set():
            changes = await self._thread.run(self._ownership.changes, revision)
            self._keep_to(self._ownership.by_clients)
            if changes is not None:
                revision = changes.revision
                for number, row in enumerate(changes.watches):
                    self._follow(row)
                    if number % _CHUNK == 0:
                        await asyncio.sleep(0)
                self._unsaved.clear()  # the others have ended otherwise
                for intent in changes.intents:
                    self._intents.put_nowait(intent)
                self._notify(changes.notified)
            await self._prune()
            self._resume_refused()
            await self._store_pause()
            if asyncio.get_running_loop().time() >= self._save_at:
                await self._save_durations()
            await self._report()
            await _wait(self._stopping, self._interval)
        for _ in range(_SENDERS):
            self._intents.put_nowait(None)

    async def _report(self) -> None:
        """Store how the work goes, for people: when that has changed, and from time to time."""
        now = asyncio.get_running_loop().time()
        if now < self._reported_at + _REPORT_PAUSE:
            return
        stats, oldest = self._client.stats()[self._client.name], islice(self._until, _REPORTED)
        status = status_of(stats, self._watch, oldest, self._store.clock.now())
        if status == self._reported and now < self._reported_at + _LONGEST_PAUSE:
            return
        self._reported, self._reported_at = status, now
        await self._thread.run(self._ownership.set_status, status)

    def _follow(self, row: RowMapping, known: Task | None = None) -> None:
        """Watch a task as its row says."""
        ref = TaskRef(row["ref"])
        if ref in self._until:
            self._drop(ref)  # its deadline may have changed
        if row["state"] == State.OPEN and ref in self._unsaved:
            self._put(self._unsaved.pop(ref))
        elif row["state"] == State.OPEN:
            self._until[ref] = row["until"]
            if self._refused_until:
                self._resume.add(ref)
            else:
                self._add(ref, known, self._by_this_clock(row["submitted_at"]))

    def _add(self, ref: TaskRef, known: Task | None = None, submitted_at: datetime | None = None) -> None:
        until = self._until[ref]
        timeout = None if until is None else until - self._now()
        if timeout is not None and timeout < _LEAST_WAIT:
            timeout = _LAST_POLL  # its time ran out while no process watched it
        try:
            self._watch.add(known or ref, timeout=timeout, submitted_at=submitted_at)
        except InvalidTaskId as error:
            del self._until[ref]
            self._put(Seen(ref, State.GIVEN_UP, None, _text(error)))
        else:
            if self._early.pop(ref, None) is not None:
                self._watch.poll_now(ref)

    def _notify(self, refs: Iterable[str]) -> None:
        """Poll the tasks that webhooks were about, those that are not watched yet as soon as they are."""
        now = asyncio.get_running_loop().time()
        for ref in map(TaskRef, refs):
            if ref not in self._until or not self._watch.poll_now(ref):
                self._early.pop(ref, None)
                self._early[ref] = now
        while self._early and next(iter(self._early.values())) < now - _KEPT_EARLY:
            del self._early[next(iter(self._early))]

    async def _prune(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._prune_at:
            self._prune_at = now + _PRUNE_EVERY
            await self._thread.run(self._ownership.prune_webhooks)

    def _drop(self, ref: TaskRef) -> None:
        del self._until[ref]
        self._resume.discard(ref)
        self._watch.drop(ref)

    # What the vendor says.

    async def _read_watch(self) -> None:
        async for outcome in self._watch:
            seen = self._judge(outcome)
            if seen is not None:
                self._put(seen)
        self._is_closed = True
        self._arrived.set()
        if not self._stopping.is_set():
            raise ConfigError("the bridge was closed while its tasks were watched; the store keeps them")

    def _judge(self, outcome: Outcome) -> Seen | None:
        """Return what to store of an outcome; None if it says nothing about the task."""
        ref, task, error = outcome.ref, outcome.task, outcome.error
        if ref not in self._until:
            return None
        if error is None:
            if task is None or not task.is_terminal:
                return Seen(ref, State.OPEN, task)
            del self._until[ref]
            return Seen(ref, State.ENDED, task)
        passed: float | None = None
        if isinstance(error, WaitTimeout):
            passed = until = self._until[ref]
            if until is None or self._now() < until - 1.0:
                self._add(ref)  # the clock was set back; or the bridge was closed, which this raises
                return None
        elif self._is_refused(error):
            self._resume.add(ref)
            return None
        del self._until[ref]
        return Seen(ref, State.GIVEN_UP, task, _text(error), passed)

    def _put(self, seen: Seen) -> None:
        self._seen.append(seen)
        self._arrived.set()

    async def _write(self) -> None:
        """Store what was seen, many at a time while there are many."""
        while self._seen or not self._is_closed:
            if not self._seen:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            batch = [*islice(self._seen, _BATCH)]
            ends = {each.ref: each for each in batch if each.state is not State.OPEN}
            await self._thread.run(self._ownership.write, [ends.get(each.ref, each) for each in batch])
            for _ in batch:
                self._seen.popleft()
        self._is_done.set()

    def unsaved(self) -> list[Seen]:
        """Return the ends that could not be stored; an end is final, so the vendor need not be asked again."""
        return [each for each in (*self._unsaved.values(), *self._seen) if each.state is State.ENDED]

    # Refusals of the account.

    def _is_refused(self, error: TaskbridgeError) -> bool:
        """Whether the vendor refuses the account; then nothing is asked of it for a while."""
        kind = (type(error), error.http_status, error.vendor_code)
        is_refused = isinstance(error, AuthenticationError) or self._client.stats()[self._client.name].is_refused
        if not is_refused and not (self._refused_until and kind == self._refusal):
            return False
        self._refusal = kind
        self._refused_until = asyncio.get_running_loop().time() + _REFUSED_PAUSE
        self._refusal_text = _text(error)
        return True

    def _resume_refused(self) -> None:
        """Begin again some time after a refusal."""
        if self._refused_until and asyncio.get_running_loop().time() >= self._refused_until:
            self._refused_until = 0.0
            resumed, self._resume = self._resume, set()
            for ref in resumed & self._until.keys():  # a submission may have ended one meanwhile
                self._add(ref)

    # What clients of other processes have stored.

    def _keep_to(self, found: ByClients) -> None:
        """Give up the slots that others have reserved, and keep their pauses and refusals."""
        known, self._by_clients = self._by_clients, found
        paused_until, now = self._by_this_clock(found.paused_until), self._now()
        if paused_until is not None and paused_until > self._store.clock.now():
            self._client.pause_until(paused_until)
        if known is None:
            return  # this owner may have another credential
        clock = self._connection.clock
        self._connection.throttle.give_up(found.reserved - known.reserved, clock.monotonic())
        # The first of a row: afterwards this owner asks by itself, so that a client with a wrong credential stops it
        # for a minute only.
        if found.is_refused(now) and not known.is_refused(now) and not self._refused_until:
            error = AuthenticationError(found.refusal or "")
            self._connection.credentials.refuse(error, self._client.name)  # ends the waits without another request
            self._is_refused(error)

    # What holds the work up.

    async def _store_pause(self) -> None:
        """Store why nothing is polled at present and until when, if that has changed."""
        problem, until = self._present_pause()
        stored_problem, stored_until = self._pause
        if problem != stored_problem or abs((until or 0.0) - (stored_until or 0.0)) >= 1.0:
            is_refusal = self._refused_until > 0.0 and problem != self._ownership.by_clients.refusal
            await self._thread.run(self._ownership.set_pause, problem, until, is_refusal=is_refusal)
            self._pause = (problem, until)

    def _present_pause(self) -> tuple[str | None, float | None]:
        """Return why nothing is polled at present, and until when in seconds since the epoch; None if unknown."""
        if self._refused_until:
            return self._refusal_text, None  # the next owner may have another credential
        now, stats = self._now(), self._client.stats()[self._client.name]
        paused = stats.paused_until
        left = 0.0 if paused is None else (paused - self._store.clock.now()).total_seconds()
        until = None if left < _LEAST_PAUSE else now + left
        if stats.outage is not None:
            since, error = stats.outage.since, printable(without_secrets(stats.outage.error.summary), 2000)
            return f"the vendor has been unreachable since {since:%Y-%m-%d %H:%M:%S} UTC: {error}", until
        if paused is not None and until is not None:
            return f"the vendor asked for a pause until {paused:%Y-%m-%d %H:%M:%S} UTC", until
        return None, None

    # Submissions.

    async def _send(self) -> None:
        """Send submissions one after the other, until the watcher stops."""
        while (number := await self._intents.get()) is not None:
            while self._refused_until and not self._stopping.is_set():
                await _wait(self._stopping, self._interval)
            if self._stopping.is_set():
                continue
            pause = await self._advance(number)
            if pause is not None:
                asyncio.get_running_loop().call_later(pause, self._intents.put_nowait, number)
        self._senders -= 1
        if not self._senders:
            self._watch.close()  # all that was sent is stored

    async def _advance(self, number: int) -> float | None:
        """Take a submission as far as possible; return the seconds after which to go on, or None at its end."""
        intent = await self._thread.run(self._ownership.intent, number)
        if intent["phase"] == Phase.SENDING:
            return await self._recover(intent)
        if intent["phase"] != Phase.PLANNED:
            return None
        try:
            content = await asyncio.to_thread(_read_content, intent)
        except InvalidInput as error:
            await self._store_phase(self._ownership.mark_refused, number, _text(error))
            return None
        except OSError as error:
            await self._store_phase(self._ownership.mark_planned, number, f"the file cannot be read here: {error}")
            return self._backoff(number)
        return await self._submit(intent, content)

    async def _submit(self, intent: RowMapping, content: Fingerprint | None) -> float | None:
        number, arguments, is_recorded = intent["id"], intent["arguments"], False

        async def before_submit(recovery_token: Any) -> None:
            nonlocal is_recorded
            await self._thread.run(self._ownership.mark_sending, number, recovery_token, content)
            is_recorded = True

        try:
            task = await self._client.submit(
                intent["operation"],
                _document(intent),
                options=arguments["options"],
                external_id=arguments["external_id"],
                callback_url=arguments["callback_url"],
                name=arguments["name"],
                before_submit=before_submit,
                **arguments["neutral"],
            )
        except StoreUnavailable:
            raise
        except OwnershipLost:
            raise
        except (TaskbridgeError, OSError) as error:
            return await self._after_failure(number, error, is_recorded=is_recorded)
        except Exception as error:  # noqa: BLE001  # a fault of a provider must not end the work on every connection
            if is_recorded:
                return self._backoff(number)  # it may have been sent: search for it
            text = f"it could not be sent: {type(error).__name__}"
            await self._store_phase(self._ownership.mark_refused, number, text)
            return None
        await self._taken(number, task)
        return None

    async def _after_failure(self, number: int, error: TaskbridgeError | OSError, *, is_recorded: bool) -> float | None:
        """Decide what a failed submission means."""
        if isinstance(error, OSError) and not isinstance(error, TaskbridgeError):
            if is_recorded:
                return _FIRST_PAUSE  # the file went away while it was sent: search for it
            await self._store_phase(self._ownership.mark_planned, number, f"the file cannot be read here: {error}")
            return self._backoff(number)
        if is_recorded and may_be_accepted(error):
            if not is_repeatable(error):
                self._refusals[number] = _text(error)
            await self._thread.run(self._ownership.mark_sending, number, error.recovery_token)
            return 0.0
        if self._is_refused(error) or error.retryable:
            await self._store_phase(self._ownership.mark_planned, number, _text(error))
            return max(error.retry_after or 0.0, self._backoff(number))
        await self._store_phase(self._ownership.mark_refused, number, _text(error))
        return None

    async def _recover(self, intent: RowMapping) -> float | None:
        """Search for a submission that may have been sent."""
        number, failure = intent["id"], None
        lost = SubmitUncertain("the vendor may or may not have accepted it", recovery_token=intent["recovery_token"])
        try:
            task = await self._search(intent, lost)
        except StoreUnavailable:
            raise
        except (UnsupportedFeature, InvalidInput) as error:
            await self._store_phase(self._ownership.mark_uncertain, number, _text(error))
            return None
        except (TaskbridgeError, OSError) as error:
            if not isinstance(error, TaskbridgeError) or self._is_refused(error) or error.retryable:
                return self._backoff(number)
            task, failure = None, error
        if task is not None:
            await self._taken(number, task)
            return None
        return await self._end_search(intent, failure)

    async def _end_search(self, intent: RowMapping, failure: TaskbridgeError | None) -> float | None:
        """Decide what it means that the vendor does not show a submission; `failure` says why it could not be asked."""
        number: int = intent["id"]
        left: float = self._settle + sending_time(intent["size"] or 0) - (self._now() - intent["updated_at"])
        if left > 0.0:
            return min(self._backoff(number), left + 0.05)
        refusal = self._refusals.pop(number, None)
        if failure is not None:
            await self._store_phase(self._ownership.mark_uncertain, number, _text(failure))
        elif refusal is not None:
            await self._store_phase(self._ownership.mark_refused, number, refusal)
        else:
            await self._store_phase(self._ownership.mark_planned, number, None)
            return 0.0
        return None

    async def _search(self, intent: RowMapping, lost: SubmitUncertain) -> Task | None:
        """Search for an uncertain submission once, and send its document if the vendor does not have that."""
        task, document = await self._client.recover(lost), _document(intent)
        if task is None or document is None or not awaits_upload(task) or not is_readable(document):
            return task
        content = await asyncio.to_thread(_read_content, intent)
        if content is not None:
            await self._thread.run(self._ownership.mark_uploading, intent["id"], content)
        return await self._client.recover(lost, document)

    async def _taken(self, number: int, task: Task) -> None:
        self._attempts.pop(number, None)
        self._refusals.pop(number, None)
        if len(task.ref) > LONGEST_REF:
            text = f"the vendor accepted it under an id of {len(task.id)} characters, which is too long for the store"
            await self._store_phase(self._ownership.mark_uncertain, number, text)
            return
        row = await self._thread.run(self._ownership.mark_taken, number, task)
        self._follow(row, task)

    async def _store_phase(self, mark: Callable[[int, Any], None], number: int, error: str | None) -> None:
        await self._thread.run(mark, number, error)

    def _backoff(self, number: int) -> float:
        attempts = self._attempts[number] = self._attempts.get(number, 0) + 1
        return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (attempts - 1))

    def _now(self) -> float:
        return self._store.database.now()

    def _by_this_clock(self, at: float | None) -> datetime | None:
        """Return a stored time by the clock of this machine, which the client compares it with."""
        return None if at is None else moment(at - self._now() + self._store.clock.now().timestamp())


def _connection_of(client: Client) -> Connection:
    """Return what an owner gives up and takes over from clients of other processes."""
    return client._connection  # noqa: SLF001  # for no one else


def _read_content(intent: RowMapping) -> Fingerprint | None:
    """Return what the file of a submission contains; None for a URL, and without a document.

    Raises:
        InvalidInput: It has changed since it was stored, which only a run permits; or it is no regular file.
        OSError: It cannot be read.
    """
    document = _document(intent)
    if document is None or is_url(document):
        return None
    content = fingerprint(Path(document))
    if intent["run"] is None and content.digest != intent["digest"]:
        raise InvalidInput("the file has changed since it was stored; store it under another key")
    return content


def _document(intent: RowMapping) -> str | None:
    return None if intent["input"] is None else decode_name(intent["input"])


def _text(error: TaskbridgeError) -> str:
    return printable(error.summary, 2000)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, at most so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


async def _together(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run several coroutines; the first error ends the others and is raised as it is.

    Each is cancelled once at most, so that what it does at its end is not interrupted, and waited for.
    """
    tasks = [asyncio.ensure_future(each) for each in work]
    running = set(tasks)
    try:
        while running:
            ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await _to_the_end(asyncio.gather(*tasks, return_exceptions=True))


async def _to_the_end(work: Awaitable[T]) -> T:
    """Wait until work has ended, also if this task is cancelled meanwhile, which is then raised."""
    future, is_cancelled = asyncio.ensure_future(work), False
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            is_cancelled = True
    if is_cancelled:
        raise asyncio.CancelledError
    return future.result()


async def _in_new_thread(call: Callable[[], T]) -> T:
    """Call a function in a thread of its own: it waits for no other one, and a cancellation does not prevent it."""
    executor = ThreadPoolExecutor(1, "taskbridge-store-release")
    future = asyncio.get_running_loop().run_in_executor(executor, call)
    executor.shutdown(wait=False)  # once the call has ended
    return await _to_the_end(future)


def _end(ownership: Ownership, thread: _StatementThread) -> None:
    ownership.release()  # first: a statement ends when it is not owned any more
    thread.close()


class _StatementThread:
    """The thread that executes the statements of one connection, one after the other.

    Connections share no thread: one statement may wait half a minute for a row that a caller has locked, or longer for
    a database that hangs.

    Args:
        connection: Name of the connection.
    """

    def __init__(self, connection: str) -> None:
        self._executor = ThreadPoolExecutor(1, f"taskbridge-store-{connection}")

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, partial(call, *args, **kwargs))

    def close(self) -> None:
        """End the thread, and wait for the statement that it executes."""
        self._executor.shutdown(cancel_futures=True)
