"""What a client shares with other processes that use the same account: the rate, pauses, and refusals; no I/O.

Each request takes a permit of the client's own throttle and then a *slot*, a moment at which one request may start.
Slots are reserved through `SharedLimits`, up to a second's worth at a time. A reservation also shows whether the vendor
has asked another process for a pause, has refused the account, or does not respond. Without demand
there is none.

`Sharing` only decides; `taskbridge._engine.retry` calls it, and the runtimes call what may block.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from threading import Lock
from typing import TYPE_CHECKING, Final, Protocol

from taskbridge._engine.logs import log
from taskbridge._engine.throttle import MAX_PAUSE, Permit, Throttle
from taskbridge._fork import renew_after_fork
from taskbridge.errors import AuthenticationError, TaskbridgeError

if TYPE_CHECKING:
    from taskbridge.provider.clock import Clock

_FRESH: Final = 1.5  # seconds for which a reservation shows pauses, refusals and outages; longer than its slots last
_LATE: Final = 1.0  # seconds after its time in which a slot may still be used
_SLOW: Final = 1.0  # seconds that callers wait for a reservation that another one makes
_LOST: Final = 60.0  # seconds after which a reservation that has not ended never will
_AWAY: Final = 10.0  # seconds between two attempts to reserve where it failed
_REFUSED: Final = 60.0  # seconds after which a client tries the account itself, whatever others are still refused
_OWN_PART: Final = 0.1  # of the rate, which a client uses by itself meanwhile

_NOW: Final = Permit(0.0, granted=True)


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a reservation brought.

    Attributes:
        count: Slots that were reserved.
        first: Seconds until the first of them.
        gap: Seconds between two of them.
        pause: Seconds for which the vendor wants no requests.
        refusal: What the vendor said when it refused the account; None if it does not.
        outage: Why the owner of the connection sends only probes; None if the vendor responds.
    """

    count: int = 0
    first: float = 0.0
    gap: float = 0.0
    pause: float = 0.0
    refusal: str | None = None
    outage: str | None = None


class SharedLimits(Protocol):
    """Where several processes keep the limits of one connection; any number of threads use it at the same time.

    Each method may block for some seconds, and raises a `TaskbridgeError` if it cannot be used at present.
    """

    def reserve(self, rate: float | None, count: int) -> Reservation:
        """Reserve slots, unless the vendor wants or gets no requests at present.

        Args:
            rate: Requests per second that all processes together may send; None for no limit.
            count: How many slots are wanted; at least one is reserved and at most a second's worth. 0 only asks whether
                the vendor wants requests.
        """
        ...

    def report_pause(self, seconds: float) -> None:
        """Let every process know that the vendor wants no requests for so many seconds."""
        ...

    def report_refusal(self, reason: str) -> None:
        """Let every process know that the vendor refuses the account."""
        ...


class Sharing:
    """The slots of one client.

    Args:
        limits: Where they are reserved.
        connection: Name of the connection.
        throttle: Its throttle.
        clock: The time.
    """

    def __init__(self, limits: SharedLimits, connection: str, throttle: Throttle, clock: Clock) -> None:
        self._limits = limits
        self._connection = connection
        self._throttle = throttle
        self._clock = clock
        self._refusal: str | None = None
        self._refused_since = -inf
        self._outage: str | None = None
        self._away_until = -inf  # no reservation is tried before
        self._own_slot_at = -inf  # the next slot that needs no reservation
        renew_after_fork(self, Sharing._begin_process)

    def _begin_process(self) -> None:
        """Begin without slots: those of a parent are used there."""
        self._lock = Lock()
        self._left = 0  # slots
        self._slot_at = -inf  # the first of them
        self._gap = 0.0
        self._used = 0  # of the last reservation
        self._reserved_at = -inf
        self._renewed_at = -inf
        self._renewing_since = -inf  # a call of `renew` is due or under way
        self._needs_slots = False  # which that call is to reserve
        self._denied = 0  # callers that wait for it

    def take(self, now: float, latest: float, *, has_slot: bool) -> Permit | None:
        """Ask for permission to send one request, in monotonic seconds; None if `renew` must be called first.

        A granted permit is a slot, for which its caller waits; then it asks again, with `has_slot`. No slot at `latest`
        or later is granted.

        Raises:
            AuthenticationError: The vendor has refused the account to another process.
        """
        rate = self._throttle.ceiling
        with self._lock:
            is_fresh = now - self._renewed_at < _FRESH
            if is_fresh and self._refusal is not None and now - self._refused_since < _REFUSED:
                raise _refused_elsewhere(self._refusal)
            if is_fresh and self._outage is not None:
                return Permit(self._renewed_at + _FRESH - now, granted=False)
            self._drop_late(now)
            needs_slot = not has_slot and rate != inf
            lacks_slot = needs_slot and not self._left
            renewing = now - self._renewing_since
            if (lacks_slot or not is_fresh) and now >= self._away_until:
                if renewing >= _LOST:
                    self._renewing_since, self._needs_slots = now, lacks_slot
                    return None
                if renewing < _SLOW:
                    self._denied += lacks_slot
                    return Permit(_SLOW - renewing, granted=False)
            if not needs_slot:
                return _NOW
            return self._next_slot(now, latest) if self._left else self._own_slot(now, rate)

    def _drop_late(self, now: float) -> None:
        while self._left and self._slot_at < now - _LATE:
            self._left -= 1
            self._slot_at += self._gap

    def _next_slot(self, now: float, latest: float) -> Permit:
        wait = max(0.0, self._slot_at - now)
        if now + wait >= latest:
            return Permit(wait, granted=False)
        self._left -= 1
        self._used += 1
        self._slot_at += self._gap
        return Permit(wait, granted=True)

    def _own_slot(self, now: float, rate: float) -> Permit:
        """Return a slot of the small part of the rate that needs no reservation."""
        if now < self._own_slot_at:
            return Permit(self._own_slot_at - now, granted=False)
        self._own_slot_at = now + 1.0 / (_OWN_PART * rate)
        return _NOW

    @property
    def reason(self) -> str:
        """Why a request has to wait, for people."""
        return self._outage or "other processes use its rate"

    # What may block.

    def renew(self) -> None:
        """Reserve slots if they are needed, and learn of pauses, refusals and outages; it may block."""
        rate = self._throttle.ceiling
        with self._lock:
            count = self._wanted(self._clock.monotonic()) if self._needs_slots else 0
        try:
            found = self._limits.reserve(None if rate == inf else rate, count)
        except TaskbridgeError as error:
            self._note_away(error)
        else:
            self._accept(found)
        finally:
            with self._lock:
                self._renewing_since = -inf
            self._throttle.wake()

    def _wanted(self, now: float) -> int:
        """Return how many slots to reserve: one for each caller, and as many as were used lately.

        Within a second it is twice as many as before, so that a busy client soon reserves a second's worth.
        """
        used = self._used * 2 if now - self._reserved_at < 1.0 else self._used
        waiting, self._denied = 1 + self._denied, 0
        return max(waiting, used)

    def _accept(self, found: Reservation) -> None:
        now = self._clock.monotonic()
        with self._lock:
            self._renewed_at, self._away_until = now, -inf
            if found.refusal is not None and self._refusal is None:
                self._refused_since = now
            self._refusal, self._outage = found.refusal, found.outage
            if found.count:
                self._left, self._slot_at, self._gap = found.count, now + found.first, found.gap
                self._used, self._reserved_at = 0, now
        if found.pause > 0.0:
            self._throttle.pause_until(now + min(found.pause, MAX_PAUSE))

    def _note_away(self, error: TaskbridgeError) -> None:
        now = self._clock.monotonic()
        with self._lock:
            was_away = self._away_until != -inf
            self._away_until = now + _AWAY
        if not was_away:
            log("limits-unshared", connection=self._connection, error=error.message)

    def report_pause(self) -> None:
        """Let other processes keep the pause that the vendor has just asked for; it may block."""
        seconds = self._throttle.paused_until - self._clock.monotonic()
        if seconds > 0.0 and not self._is_away():
            try:
                self._limits.report_pause(min(seconds, MAX_PAUSE))
            except TaskbridgeError as error:
                self._note_away(error)

    def report_refusal(self, reason: str) -> None:
        """Let other processes know that the vendor refuses the account; it may block."""
        if not self._is_away():
            try:
                self._limits.report_refusal(reason)
            except TaskbridgeError as error:
                self._note_away(error)

    def _is_away(self) -> bool:
        return self._clock.monotonic() < self._away_until


def _refused_elsewhere(reason: str) -> AuthenticationError:
    return AuthenticationError(f"nothing was sent, because the vendor has refused another process: {reason}")
