"""Webhooks that an emulated vendor really sends: when, how often again, and what came of it.

A vendor's emulator hands over letters; the courier delivers them by HTTP from the server's own event loop, one after
the other, at their vendor time. It never sends anything to another machine. Repeats follow each vendor's rules, in
vendor time; on request letters are sent twice, or the later one of two first.
"""

from __future__ import annotations

import asyncio
import hmac
import http.client
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import SplitResult, urlsplit

from taskbridge.emulator.server import loopback

if TYPE_CHECKING:
    from taskbridge.emulator.clock import VendorClock

__all__ = ["Courier", "Letter", "SentDelivery", "sign_hex", "sign_svix"]

TICK: Final = 0.003  # seconds of real time between two looks at what is due
ANSWER_LIMIT: Final = 5.0  # seconds of real time for an answer: Scan Documents says so, of CloudConvert it is assumed
HELD: Final = 30.0  # vendor seconds for which a letter is held back at most, to be overtaken by the next one

Status: TypeAlias = int | None
"""HTTP status of the receiver's answer; None where none came."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One event on its way to one address.

    Attributes:
        vendor: Name of the emulated vendor.
        event: The vendor's word for it.
        url: Where it goes.
        body: What it says.
        headers: The header fields of an attempt at that wall-clock time (a signature may cover it).
        pauses: Vendor seconds before each repeat.
        repeats: Whether an answer asks for a repeat.
        answered: Told of the answer to each attempt.
    """

    vendor: str
    event: str
    url: str
    body: bytes
    headers: Callable[[int], Mapping[str, str]]
    pauses: tuple[float, ...] = ()
    repeats: Callable[[Status], bool] = lambda _: False
    answered: Callable[[Status], object] = lambda _: None


@dataclass(frozen=True, slots=True)
class SentDelivery:
    """One attempt to deliver.

    Attributes:
        vendor: Name of the emulated vendor.
        event: The vendor's word for the event.
        url: Where it went; out of repr, it may hold a secret.
        attempt: 1 for the first.
        status: HTTP status of the answer; None where none came, and where the address is of another machine.
        time: Vendor seconds since the epoch (UTC).
        headers: Header fields beside those of HTTP itself; out of repr.
        body: What was sent; out of repr.
    """

    vendor: str
    event: str
    url: str = field(repr=False)
    attempt: int
    status: Status
    time: float
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(slots=True)
class _Waiting:
    letter: Letter
    due: float
    attempt: int = 1
    held: bool = False
    twice: bool = False


class Courier:
    """Delivers letters.

    Args:
        clock: The vendors' time.

    Attributes:
        duplicate: Send each letter twice.
        shuffle: Hold every other new letter back until the next one was sent.
        next_faults: What happens to the next letters, by name, first in first out; with seconds for those that take
            time.
    """

    def __init__(self, clock: VendorClock) -> None:
        self.duplicate = False
        self.shuffle = False
        self.next_faults: deque[tuple[str, float]] = deque()
        self._clock = clock
        self._log: list[SentDelivery] = []
        self._waiting: list[_Waiting] = []
        self._needed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._line: http.client.HTTPConnection | None = None

    @property
    def log(self) -> list[SentDelivery]:
        """The attempts up to now, in order."""
        return list(self._log)

    def need(self) -> None:
        """Begin to look at what is due: somebody wants to be told. From any thread."""
        if self._loop is None:
            self._needed.set()
        else:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._needed.set)

    def post(self, letter: Letter) -> None:
        """Take a letter; from the server's event loop only."""
        now = self._clock.time()
        overtaken = next((w for w in self._waiting if w.held), None)
        fault, seconds = self.next_faults.popleft() if self.next_faults and overtaken is None else (None, 0.0)
        if overtaken is not None:
            overtaken.held, overtaken.due = False, now  # its turn comes after this letter
            self._waiting.remove(overtaken)
            self._waiting += [_Waiting(letter, now), overtaken]
        elif fault == "webhook-reordered" or (self.shuffle and fault is None):
            self._waiting.append(_Waiting(letter, now + HELD, held=True))
        else:
            late = seconds if fault == "webhook-late" else 0.0
            self._waiting.append(_Waiting(letter, now + late, twice=fault == "webhook-duplicated"))
        self.need()

    async def run(self, tick: Callable[[], None]) -> None:
        """Deliver until cancelled.

        Args:
            tick: Lets the vendors do what is due; called every few milliseconds once somebody wants to be told.
        """
        self._loop = asyncio.get_running_loop()
        try:
            await self._needed.wait()
            while True:
                tick()
                for waiting in self._take(self._clock.time()):
                    await self._deliver(waiting)
                await asyncio.sleep(TICK)
        finally:
            self._hang_up()

    def _take(self, now: float) -> Iterable[_Waiting]:
        due = [w for w in self._waiting if w.due <= now]
        self._waiting = [w for w in self._waiting if w.due > now]
        return due

    async def _deliver(self, waiting: _Waiting) -> None:
        letter = waiting.letter
        sent = await self._attempt(waiting)
        if (self.duplicate or waiting.twice) and waiting.attempt == 1:
            sent = await self._attempt(waiting)
        if letter.repeats(sent.status) and waiting.attempt <= len(letter.pauses):
            due = sent.time + letter.pauses[waiting.attempt - 1]
            self._waiting.append(_Waiting(letter, due, waiting.attempt + 1))

    async def _attempt(self, waiting: _Waiting) -> SentDelivery:
        letter = waiting.letter
        headers = {"Content-Type": "application/json", **letter.headers(int(self._clock.wall()))}
        status = await asyncio.to_thread(self._send, letter, headers)
        now = self._clock.time()
        letter.answered(status)
        sent = SentDelivery(letter.vendor, letter.event, letter.url, waiting.attempt, status, now, headers, letter.body)
        self._log.append(sent)
        return sent

    def _send(self, letter: Letter, headers: Mapping[str, str]) -> Status:
        with suppress(OSError, http.client.HTTPException, ValueError):
            parts = urlsplit(letter.url)
            line = self._line = _dial(parts)
            try:
                target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                line.request("POST", target, letter.body, dict(headers))
                answer = line.getresponse()
                answer.read()
                return answer.status
            finally:
                line.close()
        return None

    def _hang_up(self) -> None:
        # A receiver that does not answer must not keep the emulator from stopping.
        line = self._line
        if line is not None and line.sock is not None:
            with suppress(OSError):
                line.sock.shutdown(2)


def _dial(parts: SplitResult) -> http.client.HTTPConnection:
    """A line to this machine.

    Raises:
        ValueError: The address is of another machine, or not http.
    """
    if parts.scheme != "http":
        raise ValueError("an emulator delivers by http to this machine")
    return http.client.HTTPConnection(str(loopback(parts.hostname or "")), parts.port, timeout=ANSWER_LIMIT)


# Signatures, from the vendors' documents; sharing nothing with the side that checks them.


def sign_hex(secret: str, body: bytes) -> str:
    """HMAC-SHA256 in hexadecimal, the key being the text of the secret."""
    return hmac.new(secret.encode(), body, sha256).hexdigest()


def sign_svix(key: bytes, message_id: str, stamp: int, body: bytes) -> str:
    """``v1,`` and the base64 of HMAC-SHA256 over id, time and body."""
    signed = f"{message_id}.{stamp}.".encode() + body
    return f"v1,{b64encode(hmac.new(key, signed, sha256).digest()).decode()}"
