"""A request sent once: the actions that a driver does, and what came of sending.

A lifted flow (`taskbridge.flows`) yields `Announce`, `Send`, `Sleep`, `Authorise`, `Local`; the two drivers
(`taskbridge.drive`) do them. Here an answer or its absence is weighed: what it says to the governor, whether it can be
read, whether the vendor may have taken what was sent, and whether asking once more can help.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar
from urllib.parse import urlsplit

from taskbridge.errors import ContractError, SubmitUncertain, TaskbridgeError, TransportError, TruncatedResponse
from taskbridge.http import Request, Response
from taskbridge.observing import Exchange
from taskbridge.policy import parse_retry_after, retries_for
from taskbridge.provider import Credential
from taskbridge.secrecy import bare

if TYPE_CHECKING:
    from taskbridge.channel import Channel
    from taskbridge.policy import Clock
    from taskbridge.witness import Trail

__all__ = [
    "Action",
    "Announce",
    "Attempt",
    "Authorise",
    "Lifted",
    "Local",
    "Note",
    "Send",
    "Sleep",
    "attempt",
    "uncertain",
]

T = TypeVar("T")

_POLICY: Final = 99  # as often as the retry policy allows
LONGEST_PAUSE: Final = 3600.0  # seconds; a longer Retry-After is told, not slept
_GATEWAYS: Final = frozenset({502, 504, *range(520, 525)})  # a gateway spoke, not the vendor
_TAKEN_REDIRECTS: Final = frozenset({301, 302, 303})  # what a server says that took a POST
_PORTS: Final = {"https": 443, "http": 80}
_NO_ANSWERS: Final = frozenset({203, *range(205, 300)})  # to a call that asks for JSON


# Actions: what a lifted flow asks of its driver.


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request; the answer is sent back, a `TransportError` is thrown back.

    Attributes:
        request: What to send, credential included.
        deadline: Monotonic seconds by which the answer must be read.
        max_body: Bytes of the decoded answer to read at most.
    """

    request: Request
    deadline: float
    max_body: int


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Local:
    """Do something with local files that may take a while; what it returns is sent back, what it raises ends the flow.

    Attributes:
        work: What to do.
    """

    work: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Authorise:
    """Get a credential other than the stale one; one renewal at a time, whoever asks.

    Attributes:
        stale: The credential that is no good, or None where there was none.
        deadline: Monotonic seconds by which it must be there.
    """

    stale: Credential | None
    deadline: float


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell whoever wants to know that an order is about to leave; it leaves once this is done.

    Attributes:
        clue: What `recover` needs to find the order again.
    """

    clue: Mapping[str, Any]


Action: TypeAlias = Announce | Send | Sleep | Authorise | Local
Lifted: TypeAlias = Generator[Action, Any, T]


# Sending once.


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of sending a request once: an answer, an error, or an answer that cannot be read."""

    answer: Response | None
    error: TaskbridgeError | None = None
    repeats: int = 0  # how often sending it once more may help
    pause: float | None = None  # seconds that the vendor asks for

    @property
    def is_accident(self) -> bool:
        """Whether a new connection may do at once: the kept one was closed, or the head came without its body."""
        error = self.error
        return isinstance(error, TruncatedResponse) and (error.stale or error.http_status is not None)

    def after(self, last: Attempt | None) -> Attempt:
        """What it means after another: the same head without a body twice is no accident, and counts by its status."""
        told = self.error.http_status if isinstance(self.error, TruncatedResponse) else None
        before = last.error if last is not None else None
        if told is None or not isinstance(before, TruncatedResponse) or before.http_status != told:
            return self
        return Attempt(Response(told))

    @property
    def is_refusal(self) -> bool:
        """Whether the vendor refuses the credential."""
        return self.answer is not None and self.answer.status == 401

    def wait(self, backoff: float, chance: float) -> float:
        """Seconds before the next one: the vendor's wish stands above our own pause, and is spread a little."""
        if self.pause is None:
            return backoff
        return max(backoff, self.pause + chance * min(1.0, self.pause * 0.1))

    def is_safe(self, request: Request) -> bool:
        """Whether sending it again cannot do a thing twice."""
        if request.may_repeat:
            return True
        if isinstance(self.error, TransportError):
            return not self.error.written
        return self.answer is not None and self.answer.status == 429  # refused before any work

    def doubt(self) -> SubmitUncertain | None:
        """The error where the vendor may have taken what was sent; None where it surely answered, or got nothing."""
        if isinstance(self.error, TransportError):
            if not self.error.written:
                return None
        elif self.error is None:
            status = 0 if self.answer is None else self.answer.status
            if status not in _GATEWAYS and status not in _TAKEN_REDIRECTS:
                return None
            return uncertain(f"HTTP {status} came from between us and the vendor", http_status=status)
        return uncertain(self.error.message, http_status=self.error.http_status, raw=self.error.raw)

    def settle(self, attempts: int) -> Response:
        """The answer that the flow sees.

        Raises:
            TaskbridgeError: There was none.
        """
        if self.error is None and self.answer is not None:
            self.answer.attempts = attempts
            return self.answer
        assert self.error is not None  # noqa: S101  # an attempt has an answer or an error
        if attempts > 1:
            self.error.message = f"{self.error.message} (after {attempts} attempts)"
            self.error.args = (self.error.message,)
        raise self.error


def uncertain(why: str, **context: Any) -> SubmitUncertain:
    """The error for an order of which nobody can say whether the vendor has it.

    Args:
        why: What happened.
        context: Attributes of the error.
    """
    told = "the vendor may have taken it, so it is not sent again"
    return SubmitUncertain(f"{told}: {why}; recover(error) looks for it where the vendor has a way", **context)


def attempt(
    channel: Channel, request: Request, credential: Credential | None, deadline: float, note: Note | None = None
) -> Lifted[Attempt]:
    """Send a request once.

    Args:
        channel: The connection.
        request: What to send, without the credential.
        credential: Goes with it, if there is one.
        deadline: Monotonic seconds by which the answer must be read.
        note: For those who observe; None where nobody does.

    Raises:
        SubmitUncertain: It was the one after which the vendor may have taken an order, and nobody can say.
    """
    sent = _sent(channel, request, credential, deadline)
    tried = yield from (sent if note is None else _noted(sent, channel, request, note))
    if request.commits and (doubt := tried.doubt()) is not None:
        raise doubt from tried.error
    return tried


@dataclass(frozen=True, slots=True)
class Note:
    """What those want to know of a request who observe.

    Attributes:
        kind: What it counts as.
        trail: Where it is noted, if it belongs to a look.
        resends: How often the same was sent before.
    """

    kind: str
    trail: Trail | None
    resends: int


def _noted(tried: Lifted[Attempt], channel: Channel, request: Request, note: Note) -> Lifted[Attempt]:
    """The same attempt, of which those are told who observe; not where it is broken off."""
    clock = channel.clock
    time, began = clock.now(), clock.monotonic()
    done = yield from tried
    answer, fault, url = done.answer, done.error, urlsplit(request.url)
    told = Exchange(
        time=time,
        provider=channel.provider.name,
        connection=channel.name,
        kind=note.kind,
        ref=note.trail.ref if note.trail is not None else None,
        method=request.method,
        scheme=url.scheme,
        host=url.hostname or "",
        port=url.port or _PORTS.get(url.scheme, 0),
        path=url.path if request.authorised or note.kind == "token" else None,
        http_status=answer.status if answer is not None else fault.http_status if fault is not None else None,
        error=None if fault is None else type(fault).__name__,
        resends=note.resends,
        retry_after=done.pause,
        duration=clock.monotonic() - began,
    )
    if note.trail is not None:
        note.trail.exchanges.append(told)
    channel.audience.tell(told)
    return done


def _sent(channel: Channel, request: Request, credential: Credential | None, deadline: float) -> Lifted[Attempt]:
    clock, governor = channel.clock, channel.governor
    try:
        if request.commits:
            yield Announce(request.clue)
        answer: Response = yield Send(_with(request, credential), _limit(request, deadline, clock), channel.max_body)
    except TransportError as error:
        if not request.foreign:
            if isinstance(error, TruncatedResponse) and error.stale:
                governor.abandoned()  # a kept connection that was closed says nothing of the vendor
            else:
                governor.failed(clock.monotonic())
        return Attempt(None, error, _POLICY if error.retryable else 0)
    except ContractError as error:
        if not request.foreign:
            governor.failed(clock.monotonic())
        return Attempt(None, error, error.repeats)
    except BaseException:
        if not request.foreign:
            governor.abandoned()
        raise
    if request.foreign:
        pause = parse_retry_after(answer.headers, answer.received_at)
    else:
        pause = _note_answer(channel, answer, clock.monotonic())
    answer.retry_after = pause
    return _read(request, answer, pause)


def _read(request: Request, answer: Response, pause: float | None) -> Attempt:
    """What an answer is worth, before the flow sees it."""
    if request.expect == "json" and (answer.status == 304 or answer.status in _NO_ANSWERS):
        return Attempt(answer, None, 1, pause)
    if answer.status >= 300 or request.expect != "json" or request.save_to is not None:
        return Attempt(answer, None, retries_for(answer.status), pause)
    try:
        answer.json()
    except ContractError as error:
        error.http_status = answer.status
        return Attempt(answer, bare(error), error.repeats)  # the reader's frames hold the body, which may echo a key
    return Attempt(answer)


def _with(request: Request, credential: Credential | None) -> Request:
    if credential is None or not credential.headers:
        return request
    return replace(request, headers={**request.headers, **credential.headers})


def _limit(request: Request, deadline: float, clock: Clock) -> float:
    return min(deadline, clock.monotonic() + request.hold) if request.hold is not None else deadline


def _note_answer(channel: Channel, answer: Response, now: float) -> float | None:
    """Tell the governor; the seconds that the vendor asks us to wait, if it does."""
    if answer.status < 400:
        channel.governor.answered(now, answer.headers)
        return None
    pause = parse_retry_after(answer.headers, answer.received_at)
    if answer.status == 429 or (answer.status == 503 and pause is not None):
        channel.governor.slow_down(now, None if pause is None else min(pause, LONGEST_PAUSE))
    elif answer.status >= 500:
        channel.governor.failed(now)
    else:
        channel.governor.answered(now, answer.headers)
    return pause
