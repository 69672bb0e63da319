"""The synchronous driver, and what both share: all that waits, and all that hands requests to a transport.

The two differ in `await` and in their locks, and in nothing else; the other is `taskbridge._runtime.aio`. What to do is
decided by the lifted flow (`taskbridge._engine.retry`) and by the fleet; a driver does it.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeVar, assert_never

from taskbridge._engine.connection import Connection
from taskbridge._engine.effects import BeforeSubmit, EffectFlow, RefreshCredential, RunBlocking, Send, Sleep
from taskbridge._engine.event_bus import TaskUpdate
from taskbridge._engine.locate import Located, Rejected
from taskbridge._engine.lookup import PollResult
from taskbridge._engine.retry import authorize, with_policies
from taskbridge._polling.commands import Done, Idle, PollList, PollTask, Update, WaitUntil
from taskbridge._polling.entries import Waiter
from taskbridge._polling.scheduler import PollScheduler
from taskbridge._runtime.base import BROKEN, credential_timeout, deadline_of, enlist, flow_for, hear, ignore, land
from taskbridge.errors import TaskbridgeError
from taskbridge.provider.submission import Page

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from taskbridge.provider.capabilities import Credential
    from taskbridge.provider.clock import Clock
    from taskbridge.provider.http import Flow
    from taskbridge.transport import Transport

# XXDOC The threads that wait for many tasks of one client or bridge, and what each waiting call gets of their news.

T = TypeVar("T")


class PoolState:
    """What the threads that work on one fleet share.

    One of them watches the clock; the others sleep until there is something to do.

    Args:
        tell: Called, with the lock held, when the fleet may have news.
        leave: Called, with the lock held, by a thread that finds nothing left to do and ends.
    """

    def __init__(self, tell: Callable[[], None], leave: Callable[[], None]) -> None:
        self.mutex = threading.RLock()
        self.lock = threading.Condition(self.mutex)
        self.tell = tell
        self.leave = leave
        self._watched: float | None = None  # monotonic seconds, by the thread that watches the clock

    def wait(self, clock: Clock, seconds: float | None) -> None:
        """Wait for something to do, with the lock held.

        One thread watches the clock for each time that is earlier than those being watched; the others just sleep.
        """
        until = None if seconds is None else clock.monotonic() + max(0.0, seconds)
        if seconds is None or until is None or (self._watched is not None and self._watched <= until):
            clock.wait_on(self.lock, None)
            return
        self._watched = until
        try:
            clock.wait_on(self.lock, max(0.0, seconds))
        finally:
            if self._watched == until:
                self._watched = None


class Driver:
    """Runs flows in the caller's thread.

    Args:
        clock: Time and chance.
        transport_for: The transport of a connection.
    """

    def __init__(self, clock: Clock, transport_for: Callable[[Connection], Transport]) -> None:
        self.clock = clock
        self._transport_for = transport_for

    def run(
        self, connection: Connection, flow: EffectFlow[T], announce: Callable[[Mapping[str, Any]], object] = ignore
    ) -> T:
        """Run a lifted flow to its end.

        Args:
            channel: The connection.
            flow: The flow, not yet started.
            announce: Called before an order leaves; what it raises ends the flow, and the order stays here.

        Raises:
            TaskbridgeError: What the flow raises.
        """
        try:
            with self.clock.acting():
                action = next(flow)
                while True:
                    if isinstance(action, BeforeSubmit):
                        announce(
                            dict(action.recovery_token)
                        )  # its errors are the caller's own, and no business of the flow
                        action = next(flow)
                        continue
                    try:
                        reply = self._do(connection, action)
                    except TaskbridgeError as error:
                        fault = error
                    else:
                        action = flow.send(reply)
                        continue
                    action = flow.throw(fault)
        except StopIteration as end:
            value: T = end.value
            return value
        finally:
            flow.close()

    def call(self, connection: Connection, flow: Flow[T]) -> T:
        """Lift a provider's flow and run it within the connection's `request_timeout`."""
        deadline = self.clock.monotonic() + connection.settings.request_timeout
        try:
            return self.run(connection, with_policies(connection, flow, deadline))
        except TaskbridgeError as error:
            fault = connection.add_context(error)
        raise fault

    def _do(self, connection: Connection, action: Send | Sleep | RefreshCredential | RunBlocking) -> Any:
        match action:
            case Send():
                transport = self._transport_for(connection)
                return transport.send(action.request, deadline=action.deadline, max_body=action.max_body)
            case Sleep():
                return self.clock.sleep(action.seconds)
            case RunBlocking():
                return action.work()
            case RefreshCredential():
                lock = connection.renewal
                if not self.clock.acquire(lock, max(0.0, action.deadline - self.clock.monotonic())):
                    raise credential_timeout()
                try:
                    return self._renewed(connection, action)
                finally:
                    lock.release()
            case _:
                assert_never(action)

    def _renewed(self, connection: Connection, action: RefreshCredential) -> Credential:
        if connection.refusal is not None:
            raise connection.refusal.again()
        if connection.credential is None or connection.credential is action.stale:
            connection.credential = self.run(connection, authorize(connection, action.deadline))
        return connection.credential

    def work(self, scheduler: PollScheduler, shift: PoolState) -> None:
        """Do what the fleet says until nobody waits for anything; several threads may do it together.

        Args:
            fleet: The fleet.
            shift: What these threads share.
        """
        with shift.lock, self.clock.acting():
            while True:
                command = scheduler.next(self.clock.monotonic())
                shift.tell()
                match command:
                    case PollTask() | PollList():
                        shift.lock.notify()  # somebody else may find the next thing to do
                        shift.lock.release()
                        seen: PollResult | Page | TaskbridgeError = BROKEN
                        try:
                            seen = self._look(command)
                        finally:
                            shift.lock.acquire()
                            land(scheduler, command, seen, self.clock.monotonic())
                        if scheduler.observations:
                            shift.lock.release()
                            try:
                                scheduler.observations.deliver()
                            finally:
                                shift.lock.acquire()
                    case WaitUntil():
                        shift.wait(self.clock, command.time - self.clock.monotonic())
                    case Idle():
                        shift.wait(self.clock, None)
                    case Done():
                        shift.leave()
                        shift.lock.notify_all()
                        return

    def step(self, scheduler: PollScheduler, pause: Callable[[float], None] | None = None) -> bool:
        """Do the next thing that a fleet of one thread says; False when nobody waits for anything.

        Args:
            fleet: The fleet.
            pause: Waits so many seconds, or until somebody has something to say; None only waits.
        """
        command = scheduler.next(self.clock.monotonic())
        match command:
            case PollTask() | PollList():
                land(scheduler, command, self._look(command), self.clock.monotonic())
                scheduler.observations.deliver()
            case WaitUntil():
                (pause or self.clock.sleep)(max(0.0, command.time - self.clock.monotonic()))
            case Idle():
                raise AssertionError("a fleet of one thread has nothing under way between its steps")
            case Done():
                return False
        return True

    def _look(self, command: PollTask | PollList) -> PollResult | Page | TaskbridgeError:
        try:
            return self.run(command.connection, flow_for(command, self.clock.monotonic()))
        except TaskbridgeError as error:
            return error


_WORKERS: Final = 8  # threads


_PATIENCE: Final = 5.0  # seconds that `close` gives looks under way to end; their threads are daemons


class WaitQueue:
    """One call's wait for many tasks."""

    def __init__(self, mutex: threading.RLock, left: int, expire: Callable[[], float | None]) -> None:
        self._updates: deque[Update] = deque()
        self._expire = expire
        self._arrived = threading.Condition(mutex)  # the same lock, another queue
        self.waiters: list[Waiter] = []
        self.left = left

    def put(self, update: Update) -> None:
        """Hand in news, with the lock held."""
        self._updates.append(update)
        self._arrived.notify()

    def take(self) -> Update | None:
        """The next news; None after the last."""
        if self.left == 0:
            return None
        with self._arrived:
            while not self._updates:
                # The deadline holds even where every thread is busy with a vendor that hangs.
                left = self._expire()
                if not self._updates:
                    self._arrived.wait(left)
            update = self._updates.popleft()
        self.left -= update.final
        return update


class WorkerPool:
    """The threads of one client or bridge, and the fleet that they work on; they end when nobody waits."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._scheduler = PollScheduler(_WORKERS)
        self._shift = PoolState(self._tell, self._left)
        self._threads: set[threading.Thread] = set()

    def open(self, places: list[Located | Rejected], timeout: float | None, *, changes: bool) -> WaitQueue:
        """Begin a wait for many tasks."""
        if self._pid != os.getpid():
            self._reset()  # after a fork the parent's threads are not here
        lock, clock = self._shift.lock, self._driver.clock
        deadline = deadline_of(clock.monotonic(), timeout)
        waits = WaitQueue(self._shift.mutex, len(places), lambda: self._expire(deadline))
        with lock:
            now = clock.monotonic()
            waits.waiters, rejected = enlist(self._scheduler, places, now, timeout, owner=waits, changes=changes)
            for update in rejected:
                waits.put(update)
            self._hire(min(_WORKERS, len(self._scheduler)))
            lock.notify()
        return waits

    def _expire(self, deadline: float) -> float | None:
        """Tell those whose time is up, with the lock held; seconds left to a deadline, None for no deadline."""
        now = self._driver.clock.monotonic()
        if now >= deadline:
            self._scheduler.expire(now)
            self._tell()
        return None if deadline == inf else max(0.001, deadline - now)

    def hear(self, told: TaskUpdate) -> None:
        """Take in what came from outside."""
        with self._shift.lock:
            hear(self._scheduler, told, self._driver.clock.monotonic())
            self._tell()
            self._shift.lock.notify_all()

    def leave(self, waits: WaitQueue) -> None:
        """End a wait, also one whose caller broke off."""
        with self._shift.lock:
            self._scheduler.drop(waits.waiters)
            self._shift.lock.notify()

    def close(self) -> None:
        """Tell those who still wait, and end the threads."""
        with self._shift.lock:
            self._scheduler.close()
            self._tell()
            self._shift.lock.notify_all()
            threads = list(self._threads)
        until = time.monotonic() + _PATIENCE
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(timeout=max(0.0, until - time.monotonic()))

    def _hire(self, wanted: int) -> None:
        for _ in range(wanted - len(self._threads)):
            thread = threading.Thread(target=self._work, name="taskbridge-wait", daemon=True)
            self._threads.add(thread)
            thread.start()

    def _work(self) -> None:
        whole = False
        try:
            self._driver.work(self._scheduler, self._shift)
            whole = True
        finally:
            with self._shift.lock:
                self._left()
                if not whole:  # nobody shall wait for a thread that died
                    self._scheduler.close("a thread of this client broke down")
                    self._tell()

    def _left(self) -> None:
        self._threads.discard(threading.current_thread())

    def _tell(self) -> None:
        while (update := self._scheduler.next_update()) is not None:
            update.waiter.owner.put(update)
