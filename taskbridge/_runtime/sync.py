"""The synchronous driver, and what both share: all that waits, and all that hands requests to a transport.

The two differ in `await` and in their locks, and in nothing else; the other is `taskbridge.drive_async`. What to do is
decided by the lifted flow (`taskbridge.flows`) and by the fleet; a driver does it.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeVar, assert_never

from taskbridge._engine.connection import Channel
from taskbridge._engine.effects import Announce, Authorise, Lifted, Local, Send, Sleep
from taskbridge._engine.event_bus import Told
from taskbridge._engine.locate import Located, Rejected
from taskbridge._engine.lookup import Look
from taskbridge._engine.retry import authorise, lift
from taskbridge._polling.commands import Done, Idle, LookAt, LookAtMany, News, WaitUntil
from taskbridge._polling.entries import Ticket
from taskbridge._polling.scheduler import Fleet
from taskbridge._runtime.base import BROKEN, deadline_of, enlist, flow_of, hear, ignore, land, no_credential
from taskbridge.errors import TaskbridgeError
from taskbridge.provider.submission import Page

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from taskbridge.provider.capabilities import Credential
    from taskbridge.provider.http import Flow
    from taskbridge.provider.policy import Clock
    from taskbridge.transport import Transport

# XXDOC The threads that wait for many tasks of one client or bridge, and what each waiting call gets of their news.

T = TypeVar("T")


class Shift:
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

    def __init__(self, clock: Clock, transport_for: Callable[[Channel], Transport]) -> None:
        self.clock = clock
        self._transport_for = transport_for

    def run(self, channel: Channel, flow: Lifted[T], announce: Callable[[Mapping[str, Any]], object] = ignore) -> T:
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
                    if isinstance(action, Announce):
                        announce(dict(action.clue))  # its errors are the caller's own, and no business of the flow
                        action = next(flow)
                        continue
                    try:
                        reply = self._do(channel, action)
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

    def call(self, channel: Channel, flow: Flow[T]) -> T:
        """Lift a provider's flow and run it within the connection's `request_timeout`."""
        deadline = self.clock.monotonic() + channel.settings.request_timeout
        try:
            return self.run(channel, lift(channel, flow, deadline))
        except TaskbridgeError as error:
            fault = channel.told(error)
        raise fault

    def _do(self, channel: Channel, action: Send | Sleep | Authorise | Local) -> Any:
        match action:
            case Send():
                transport = self._transport_for(channel)
                return transport.send(action.request, deadline=action.deadline, max_body=action.max_body)
            case Sleep():
                return self.clock.sleep(action.seconds)
            case Local():
                return action.work()
            case Authorise():
                lock = channel.renewal
                if not self.clock.acquire(lock, max(0.0, action.deadline - self.clock.monotonic())):
                    raise no_credential()
                try:
                    return self._renewed(channel, action)
                finally:
                    lock.release()
            case _:
                assert_never(action)

    def _renewed(self, channel: Channel, action: Authorise) -> Credential:
        if channel.refusal is not None:
            raise channel.refusal.again()
        if channel.credential is None or channel.credential is action.stale:
            channel.credential = self.run(channel, authorise(channel, action.deadline))
        return channel.credential

    def work(self, fleet: Fleet, shift: Shift) -> None:
        """Do what the fleet says until nobody waits for anything; several threads may do it together.

        Args:
            fleet: The fleet.
            shift: What these threads share.
        """
        with shift.lock, self.clock.acting():
            while True:
                command = fleet.next(self.clock.monotonic())
                shift.tell()
                match command:
                    case LookAt() | LookAtMany():
                        shift.lock.notify()  # somebody else may find the next thing to do
                        shift.lock.release()
                        seen: Look | Page | TaskbridgeError = BROKEN
                        try:
                            seen = self._look(command)
                        finally:
                            shift.lock.acquire()
                            land(fleet, command, seen, self.clock.monotonic())
                        if fleet.witness:
                            shift.lock.release()
                            try:
                                fleet.witness.tell()
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

    def step(self, fleet: Fleet, pause: Callable[[float], None] | None = None) -> bool:
        """Do the next thing that a fleet of one thread says; False when nobody waits for anything.

        Args:
            fleet: The fleet.
            pause: Waits so many seconds, or until somebody has something to say; None only waits.
        """
        command = fleet.next(self.clock.monotonic())
        match command:
            case LookAt() | LookAtMany():
                land(fleet, command, self._look(command), self.clock.monotonic())
                fleet.witness.tell()
            case WaitUntil():
                (pause or self.clock.sleep)(max(0.0, command.time - self.clock.monotonic()))
            case Idle():
                raise AssertionError("a fleet of one thread has nothing under way between its steps")
            case Done():
                return False
        return True

    def _look(self, command: LookAt | LookAtMany) -> Look | Page | TaskbridgeError:
        try:
            return self.run(command.channel, flow_of(command, self.clock.monotonic()))
        except TaskbridgeError as error:
            return error


_WORKERS: Final = 8  # threads


_PATIENCE: Final = 5.0  # seconds that `close` gives looks under way to end; their threads are daemons


class Batch:
    """One call's wait for many tasks."""

    def __init__(self, mutex: threading.RLock, left: int, expire: Callable[[], float | None]) -> None:
        self._news: deque[News] = deque()
        self._expire = expire
        self._arrived = threading.Condition(mutex)  # the same lock, another queue
        self.tickets: list[Ticket] = []
        self.left = left

    def put(self, news: News) -> None:
        """Hand in news, with the lock held."""
        self._news.append(news)
        self._arrived.notify()

    def take(self) -> News | None:
        """The next news; None after the last."""
        if self.left == 0:
            return None
        with self._arrived:
            while not self._news:
                # The deadline holds even where every thread is busy with a vendor that hangs.
                left = self._expire()
                if not self._news:
                    self._arrived.wait(left)
            news = self._news.popleft()
        self.left -= news.final
        return news


class Crew:
    """The threads of one client or bridge, and the fleet that they work on; they end when nobody waits."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._fleet = Fleet(_WORKERS)
        self._shift = Shift(self._tell, self._left)
        self._threads: set[threading.Thread] = set()

    def open(self, places: list[Located | Rejected], timeout: float | None, *, changes: bool) -> Batch:
        """Begin a wait for many tasks."""
        if self._pid != os.getpid():
            self._reset()  # after a fork the parent's threads are not here
        lock, clock = self._shift.lock, self._driver.clock
        deadline = deadline_of(clock.monotonic(), timeout)
        batch = Batch(self._shift.mutex, len(places), lambda: self._expire(deadline))
        with lock:
            now = clock.monotonic()
            batch.tickets, rejected = enlist(self._fleet, places, now, timeout, owner=batch, changes=changes)
            for news in rejected:
                batch.put(news)
            self._hire(min(_WORKERS, len(self._fleet)))
            lock.notify()
        return batch

    def _expire(self, deadline: float) -> float | None:
        """Tell those whose time is up, with the lock held; seconds left to a deadline, None for no deadline."""
        now = self._driver.clock.monotonic()
        if now >= deadline:
            self._fleet.expire(now)
            self._tell()
        return None if deadline == inf else max(0.001, deadline - now)

    def hear(self, told: Told) -> None:
        """Take in what came from outside."""
        with self._shift.lock:
            hear(self._fleet, told, self._driver.clock.monotonic())
            self._tell()
            self._shift.lock.notify_all()

    def leave(self, batch: Batch) -> None:
        """End a wait, also one whose caller broke off."""
        with self._shift.lock:
            self._fleet.drop(batch.tickets)
            self._shift.lock.notify()

    def close(self) -> None:
        """Tell those who still wait, and end the threads."""
        with self._shift.lock:
            self._fleet.close()
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
            self._driver.work(self._fleet, self._shift)
            whole = True
        finally:
            with self._shift.lock:
                self._left()
                if not whole:  # nobody shall wait for a thread that died
                    self._fleet.close("a thread of this client broke down")
                    self._tell()

    def _left(self) -> None:
        self._threads.discard(threading.current_thread())

    def _tell(self) -> None:
        while (news := self._fleet.news()) is not None:
            news.ticket.owner.put(news)
