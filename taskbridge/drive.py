"""The synchronous driver, and what both share: all that waits, and all that hands requests to a transport.

The two differ in `await` and in their locks, and in nothing else; the other is `taskbridge.drive_async`. What to do is
decided by the lifted flow (`taskbridge.flows`) and by the fleet; a driver does it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar, assert_never

from taskbridge.attempts import Announce, Authorise, Lifted, Local, Send, Sleep
from taskbridge.channel import Channel
from taskbridge.errors import DeadlineExceeded, TaskbridgeError
from taskbridge.fleet import Fleet
from taskbridge.flows import Effort, authorise, lift, opened
from taskbridge.looking import Look, listed, look
from taskbridge.steps import Done, Idle, LookAt, LookAtMany, WaitUntil
from taskbridge.submission import Page

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from taskbridge.http import Flow
    from taskbridge.policy import Clock
    from taskbridge.provider import Credential
    from taskbridge.transport import Transport

__all__ = ["BROKEN", "Driver", "Shift", "flow_of", "ignore", "land", "no_credential"]

T = TypeVar("T")

_ONE_TRY: Final = Effort(attempts=1, granted=True, kind="look")  # in a fleet, the next look is the retry
_ONE_HOLD: Final = Effort(attempts=1, granted=True, kind="hold")
_ONE_LIST: Final = Effort(attempts=1, granted=True, kind="list")


def ignore(_clue: Mapping[str, Any]) -> None:
    """Nobody wants to know."""


def flow_of(command: LookAt | LookAtMany, now: float) -> Lifted[Look | Page]:
    """The flow for what a fleet wants to know."""
    channel = command.channel
    if isinstance(command, LookAtMany):
        flow = opened(channel, channel.provider.list_page, command.query, command.cursor)
        deadline = now + channel.settings.request_timeout
        return listed(channel, flow, deadline, plan=_ONE_LIST, trail=command.trail)
    operation: Callable[[str], Flow[Any] | None] | None = channel.provider.hold if command.hold else None
    budget = now + (_hold_limit(channel) if command.hold else channel.settings.request_timeout)
    deadline = min(command.deadline, budget)
    plan = _ONE_HOLD if command.hold else _ONE_TRY
    return look(
        channel, command.task_id, deadline, seen=command.seen, operation=operation, plan=plan, trail=command.trail
    )


def _hold_limit(channel: Channel) -> float:
    # The request itself says how long the line is held; this only bounds what comes around it.
    return channel.settings.request_timeout + 3600.0


BROKEN: Final = TaskbridgeError("the look-up was broken off")


def no_credential() -> DeadlineExceeded:
    """The error for a renewal of the credential that took too long."""
    error = DeadlineExceeded("the total time ran out while the connection's credential was being renewed")
    error.written = False
    return error


def land(fleet: Fleet, command: LookAt | LookAtMany, seen: Look | Page | TaskbridgeError, now: float) -> None:
    """Tell the fleet what came of what it wanted to know."""
    if isinstance(command, LookAtMany):
        if isinstance(seen, Page):
            fleet.listed(command, now, seen)
        else:
            fleet.unlisted(command, now, seen if isinstance(seen, TaskbridgeError) else BROKEN.again())
    elif isinstance(seen, Look):
        fleet.looked(command, now, seen)
    else:
        fleet.failed(command, now, seen if isinstance(seen, TaskbridgeError) else BROKEN.again())


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
