"""`Relay` and, for asyncio, `AsyncRelay`: call a function with each event of a store until it succeeds."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from inspect import isawaitable, iscoroutinefunction
from typing import Any, Final, TypeAlias

from taskbridge._engine.logs import log
from taskbridge._fork import renew_after_fork
from taskbridge.errors import ConfigError
from taskbridge.provider.clock import Clock
from taskbridge.store.database import StoreUnavailable
from taskbridge.store.delivery import Delivery, DeliveryPolicy, DeliveryQueue, Round
from taskbridge.store.intents import check_key
from taskbridge.store.records import Event
from taskbridge.store.store import Store

Connections: TypeAlias = Iterable[str] | Callable[[], Iterable[str]] | None
"""Names of connections, or a function that returns them each time; None for all."""

_SUSPICIOUS: Final = 5  # failures without a success in between after which the handler is tried with single events only
_LONGEST_PAUSE: Final = 60.0  # seconds between two such attempts
_STORE_EVERY: Final = 1.0  # seconds; what a killed process has to repeat at most, besides what is running


class _State:
    """What both relays decide, without waiting for anything but the database.

    A handler that fails again and again is probably broken as a whole, as a server that is down. Then single events are
    tried, with growing pauses, so that an outage does not turn all events into dead letters.
    """

    def __init__(
        self,
        store: Store,
        consumer: str,
        handler: object,
        *,
        connections: Connections,
        policy: DeliveryPolicy | None,
        batch: int,
        interval: float,
    ) -> None:
        if not callable(handler):
            raise ConfigError(f"the handler of a relay is a function of an event, not {type(handler).__name__}")
        if batch < 1 or interval <= 0:
            raise ConfigError("batch of a relay must be at least 1, and interval longer than 0")
        self.clock: Clock = store.clock
        self.interval = interval
        self._queue = DeliveryQueue(store.database, check_key(consumer), store.clock, policy or DeliveryPolicy())
        self._connections = connections
        self._batch = batch
        self._failures = 0  # since the last success
        self._stored_at = 0.0  # monotonic seconds
        self.delivered = 0
        self.error = ""  # the last one

    @property
    def is_suspicious(self) -> bool:
        """Whether the handler fails again and again."""
        return self._failures >= _SUSPICIOUS

    def names(self) -> Collection[str] | None:
        """Return the names of the connections whose events are delivered now; None for all."""
        given = self._connections() if callable(self._connections) else self._connections
        return None if given is None else frozenset(given)

    def take(self, names: Collection[str] | None) -> Round:
        """Return the next events of these connections."""
        self._stored_at = self.clock.monotonic()
        return self._queue.take(1 if self.is_suspicious else self._batch, names)

    def succeed(self, events: Round, delivery: Delivery) -> None:
        """Note that the handler has returned."""
        self._failures = 0
        self.delivered += 1
        events.succeed(delivery)

    def fail(self, events: Round, delivery: Delivery, error: Exception) -> None:
        """Note that the handler has raised."""
        self._failures += not delivery.is_retry  # those that fail for ever say nothing about the others
        events.fail(delivery, error)
        self.error = delivery.error

    def is_store_due(self) -> bool:
        """Whether to store results now; then the next time is later."""
        now = self.clock.monotonic()
        if now - self._stored_at < _STORE_EVERY:
            return False
        self._stored_at = now
        return True

    def pause_after(self, count: int) -> float:
        """Return the seconds to wait after a round with so many events."""
        if not self.is_suspicious:
            return 0.0 if count else self.interval
        pause = min(_LONGEST_PAUSE, self.interval * 2.0 ** (self._failures - _SUSPICIOUS))
        if count and pause < _LONGEST_PAUSE:
            log("delivery-paused", consumer=self._queue.consumer, pause=pause, error=self.error)
        return pause if count else self.interval

    def pause_of(self, error: StoreUnavailable, failures: int) -> float:
        """Return the seconds to wait after so many failures of the database."""
        pause = min(_LONGEST_PAUSE, 2.0 ** (failures - 1))
        log("delivery-paused", consumer=self._queue.consumer, pause=pause, error=error.message)
        return pause


class Relay:
    """Calls a function with each event of a store, at least once, and in order for each task.

    An event counts as delivered once the function returns. If it raises, the event is tried again after growing pauses;
    meanwhile the later events of its task wait, and those of other tasks do not. After the attempts of `policy` it is a
    dead letter, which `Store.dead_letters` shows and `Store.redeliver` tries again; the later events of its task wait
    for that, or for `Store.discard`. After a process was killed, the function is called again with the events that were
    not yet stored as delivered: act once per `Event.key`.

    Let one process at a time deliver the events of a connection to a consumer: others would call their functions with
    the same events. Next to a `Watcher`, ``connections=lambda: watcher.owned`` sees to that.

    Args:
        store: The store.
        consumer: Name of the consumer, under which the store keeps what it has got; see `Store.events`.
        handler: Called with each event.
        connections: Names of the connections whose events are delivered, or a function that returns them each time;
            None for all.
        policy: How often a failed delivery is tried again; None for 16 attempts within about three hours.
        batch: Most events that are read from the database at a time.
        interval: Seconds between two reads when there are no events.

    Raises:
        ConfigError: An argument has a wrong value.
        InvalidInput: The name is no short printable text.
    """

    def __init__(
        self,
        store: Store,
        consumer: str,
        handler: Callable[[Event], object],
        *,
        connections: Connections = None,
        policy: DeliveryPolicy | None = None,
        batch: int = 200,
        interval: float = 1.0,
    ) -> None:
        if _is_async(handler):
            raise ConfigError("a coroutine function needs taskbridge.aio.Relay")
        self._state = _State(
            store, consumer, handler, connections=connections, policy=policy, batch=batch, interval=interval
        )
        self._handler = handler
        self._is_stopping = False
        renew_after_fork(self, Relay._begin_process)

    def _begin_process(self) -> None:
        self._stopping = threading.Condition()

    def run(self) -> None:
        """Deliver events until another thread calls `stop`, also while the database cannot be used for a time."""
        state, failures = self._state, 0
        while not self._is_stopping:
            try:
                pause, failures = state.pause_after(self._round()), 0
            except StoreUnavailable as error:
                failures += 1
                pause = state.pause_of(error, failures)
            if pause:
                with self._stopping:
                    if not self._is_stopping:
                        state.clock.wait_on(self._stopping, pause)

    def stop(self) -> None:
        """Let `run` end, once the handler has returned."""
        self._is_stopping = True
        with self._stopping:
            self._stopping.notify_all()

    def deliver(self) -> int:
        """Deliver the events that are due now; return how many.

        Raises:
            StoreUnavailable: The database cannot be used.
        """
        before = self._state.delivered
        while not self._is_stopping and self._round() and not self._state.is_suspicious:
            pass
        return self._state.delivered - before

    def _round(self) -> int:
        """Deliver some events; return how many there were."""
        state = self._state
        events = state.take(state.names())
        try:
            self._handle(events)
        except BaseException:
            with suppress(StoreUnavailable):  # the other error counts
                events.store()
            raise
        events.store()
        return len(events)

    def _handle(self, events: Round) -> None:
        state = self._state
        for each in events:
            if self._is_stopping:
                return
            if not events.may_begin(each):
                continue
            try:
                self._handler(each.event)
            except Exception as error:  # noqa: BLE001  # whatever the caller's function raises
                state.fail(events, each, error)
                if state.is_suspicious:
                    return
            else:
                state.succeed(events, each)
            if state.is_store_due():
                events.store()


class AsyncRelay:
    """`taskbridge.aio.Relay`: `taskbridge.Relay` for asyncio; a function that is no coroutine function gets a thread.

    Args:
        store: See `taskbridge.Relay`, as for the following.
        consumer: The same.
        handler: A function, or a coroutine function.
        connections: The same.
        policy: The same.
        batch: The same.
        interval: The same.
        concurrency: Most events, of as many tasks, that are handled at the same time.

    Raises:
        ConfigError: An argument has a wrong value.
        InvalidInput: The name is no short printable text.
    """

    def __init__(
        self,
        store: Store,
        consumer: str,
        handler: Callable[[Event], Awaitable[object] | object],
        *,
        connections: Connections = None,
        policy: DeliveryPolicy | None = None,
        batch: int = 200,
        interval: float = 1.0,
        concurrency: int = 1,
    ) -> None:
        if concurrency < 1:
            raise ConfigError("concurrency of a relay must be at least 1")
        self._state = _State(
            store, consumer, handler, connections=connections, policy=policy, batch=batch, interval=interval
        )
        self._handler = handler
        self._is_async = _is_async(handler)
        self._concurrency = concurrency
        self._is_stopping = False
        self._wake = asyncio.Event()
        self._storing = asyncio.Lock()

    async def run(self) -> None:
        """Deliver events until `stop` is called, also while the database cannot be used for a time."""
        state, failures = self._state, 0
        while not self._is_stopping:
            try:
                pause, failures = state.pause_after(await self._round()), 0
            except StoreUnavailable as error:
                failures += 1
                pause = state.pause_of(error, failures)
            if pause and not self._is_stopping:
                await state.clock.async_wait_on(self._wake, pause)
                self._wake.clear()

    def stop(self) -> None:
        """Let `run` end, once the handlers that run have returned."""
        self._is_stopping = True
        self._wake.set()

    async def deliver(self) -> int:
        """Deliver the events that are due now; return how many.

        Raises:
            StoreUnavailable: The database cannot be used.
        """
        before = self._state.delivered
        while not self._is_stopping and await self._round() and not self._state.is_suspicious:
            pass
        return self._state.delivered - before

    async def _round(self) -> int:
        """Deliver some events; return how many there were."""
        events = await asyncio.to_thread(self._state.take, self._state.names())
        groups = deque(events.in_order())
        try:
            await asyncio.gather(*(self._work(events, groups) for _ in range(min(self._concurrency, len(groups)))))
        except BaseException:
            with suppress(StoreUnavailable):  # the other error counts
                await self._store(events)
            raise
        await self._store(events)
        return len(events)

    async def _work(self, events: Round, groups: deque[list[Delivery]]) -> None:
        """Handle one group of events after the other."""
        state = self._state
        while groups:
            for each in groups.popleft():
                if self._is_stopping:
                    return
                if not events.may_begin(each):
                    continue
                try:
                    await self._call(each.event)
                except Exception as error:  # noqa: BLE001  # whatever the caller's function raises
                    state.fail(events, each, error)
                    if state.is_suspicious:
                        return
                else:
                    state.succeed(events, each)
                if state.is_store_due():
                    try:
                        await self._store(events)
                    except StoreUnavailable:
                        groups.clear()  # the end of the round tries again
                        return

    async def _call(self, event: Event) -> None:
        if self._is_async:
            called: Any = self._handler(event)
        else:
            called = await asyncio.to_thread(self._handler, event)
        if isawaitable(called):
            await called

    async def _store(self, events: Round) -> None:
        async with self._storing:
            await asyncio.to_thread(events.store)


def _is_async(handler: object) -> bool:
    return iscoroutinefunction(handler) or iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004  # its kind
