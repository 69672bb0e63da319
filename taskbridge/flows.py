"""Lifts a provider's flow to what a driver runs: pace, credential, retries, strict reading.

A lifted flow is still a generator without I/O. It yields actions (`Send`, `Sleep`, `Authorise`) and is sent what came
of them; the two drivers (`taskbridge.drive`) do them. The time is asked of the channel's clock, which tests replace.

What is repeated, and how often, is decided here and nowhere else: a request that the vendor surely did not see, a safe
one that failed in passing, a body that was cut, each within the attempts, the budget and the deadline.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

from taskbridge.channel import Channel
from taskbridge.errors import (
    ApiError,
    AuthenticationError,
    CircuitOpen,
    ContractError,
    DeadlineExceeded,
    IdentityMismatch,
    SubmitUncertain,
    TaskbridgeError,
    TaskNotFound,
    TransportError,
    TruncatedResponse,
    UnexpectedRedirect,
    plain,
)
from taskbridge.http import Flow, Request, Response
from taskbridge.model import Task
from taskbridge.policy import parse_retry_after, retries_for
from taskbridge.provider import Credential

if TYPE_CHECKING:
    from datetime import datetime

    from taskbridge.policy import Clock
    from taskbridge.submission import Page

__all__ = [
    "Action",
    "Authorise",
    "Lifted",
    "Look",
    "Send",
    "Sleep",
    "authorise",
    "is_final",
    "lift",
    "look",
    "translate",
]

log = logging.getLogger("taskbridge")

T = TypeVar("T")

_MOST_REQUESTS: Final = 32  # of one flow; more is a provider that never ends
_POLICY: Final = 99  # as often as the retry policy allows
_LONGEST_PAUSE: Final = 3600.0  # seconds; a longer Retry-After is told, not slept
_YOUNG_PAUSE: Final = 0.25  # seconds before a young task is asked for again; it doubles up to two
_GATEWAYS: Final = frozenset({502, 504, *range(520, 525)})  # a gateway spoke, not the vendor
_TAKEN_REDIRECTS: Final = frozenset({301, 302, 303})  # what a server says that took a POST
_NO_ANSWERS: Final = frozenset({203, *range(205, 300)})  # to a call that asks for JSON
_SPARE: Final = 5.0  # seconds before its end at which a credential is renewed


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
class Authorise:
    """Get a credential other than the stale one; one renewal at a time, whoever asks.

    Attributes:
        stale: The credential that is no good, or None where there was none.
        deadline: Monotonic seconds by which it must be there.
    """

    stale: Credential | None
    deadline: float


Action: TypeAlias = Send | Sleep | Authorise
Lifted: TypeAlias = Generator[Action, Any, T]


# Lifting.


@dataclass(frozen=True, slots=True)
class Effort:
    """How much one request of a flow is worth.

    Attributes:
        attempts: Requests at most, instead of the policy's; None for the policy's.
        granted: Whether the governor's leave for the first request is there already.
        kind: What its requests count as.
    """

    attempts: int | None = None
    granted: bool = False
    kind: str = "other"


FULL: Final = Effort()
LOOK: Final = Effort(kind="look")
TOKEN: Final = Effort(kind="token")
LIST: Final = Effort(kind="list")
SUBMIT: Final = Effort(kind="submit")


def lift(channel: Channel, flow: Flow[T], deadline: float, *, plan: Effort = FULL) -> Lifted[T]:
    """Run a flow with pace, credential and retries.

    Args:
        channel: The connection.
        flow: A provider's operation, not yet started.
        deadline: Monotonic seconds by which all of it must be over.
        plan: How much each request is worth.

    Raises:
        TaskbridgeError: What the provider made of the answers, or why there were none.
    """
    if not isinstance(flow, Generator):  # pyright: ignore[reportUnnecessaryIsInstance]  # strangers write it
        raise _broken(channel, "an operation returned no flow")
    answer: Response | None = None
    fault: TaskbridgeError | None = None
    try:
        for _ in range(_MOST_REQUESTS + 1):
            try:
                if fault is not None:
                    request = flow.throw(fault)
                else:
                    request = next(flow) if answer is None else flow.send(answer)
            except StopIteration as end:
                return cast("T", end.value)
            except (TaskbridgeError, GeneratorExit):
                raise
            except Exception as error:  # noqa: BLE001  # whatever a provider's own code may raise
                broken = _broken(channel, f"it raised {type(error).__name__} while translating")
            else:
                try:
                    answer, fault = (yield from _exchange(channel, request, deadline, plan)), None
                    plan = replace(plan, granted=False)
                except TaskbridgeError as error:
                    fault = error
                continue
            raise broken
    finally:
        flow.close()
    raise _broken(channel, f"it sent more than {_MOST_REQUESTS} requests for one operation")


def _broken(channel: Channel, fault: str) -> ContractError:
    return ContractError(f"the provider {channel.provider.name} is broken: {fault}", connection=channel.name)


def _exchange(channel: Channel, request: Request, deadline: float, plan: Effort) -> Lifted[Response]:
    """One request of a flow, repeated where that is right, to an answer that the flow may see."""
    failures = 0
    last: _Attempt | None = None
    renewed = False
    granted = plan.granted
    attempts = plan.attempts or channel.retry.attempts
    while True:
        if granted and _lacks_credential(channel, request):
            channel.governor.give_back()  # the leave is for one request, and getting a credential may take one
            granted = False
        credential = yield from _credential(channel, request, deadline)
        if not granted and not request.foreign:
            left = yield from _leave(channel, deadline, or_not=last is not None)
            if not left and last is not None:
                return last.settle(failures)
        granted = False
        channel.tally.sent(plan.kind)
        tried = yield from _attempt(channel, request, credential, deadline)
        channel.tally.failures += tried.error is not None
        if tried.is_refusal and credential is not None and not renewed:
            renewed = True
            yield Authorise(credential, deadline)
            continue
        if tried.is_accident and request.may_repeat and not request.fresh:
            request, last = replace(request, fresh=True), tried
            continue
        tried = tried.after(last)
        if tried.repeats == 0:
            return tried.settle(failures + 1)
        failures, last = failures + 1, tried
        wait = tried.wait(channel.retry.pause(failures, channel.clock.random()), channel.clock.random())
        allowed = failures < attempts and failures <= tried.repeats and tried.is_safe(request)
        if not (allowed and _fits(wait, channel.clock.monotonic(), deadline) and channel.governor.may_retry()):
            return tried.settle(failures)
        if tried.error is not None:
            request = replace(request, fresh=True)
        yield Sleep(wait)


@dataclass(frozen=True, slots=True)
class _Attempt:
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

    def after(self, last: _Attempt | None) -> _Attempt:
        """What it means after another: the same head without a body twice is no accident, and counts by its status."""
        told = self.error.http_status if isinstance(self.error, TruncatedResponse) else None
        before = last.error if last is not None else None
        if told is None or not isinstance(before, TruncatedResponse) or before.http_status != told:
            return self
        return _Attempt(Response(told))

    @property
    def is_refusal(self) -> bool:
        return self.answer is not None and self.answer.status == 401

    def wait(self, backoff: float, chance: float) -> float:
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


def _attempt(channel: Channel, request: Request, credential: Credential | None, deadline: float) -> Lifted[_Attempt]:
    tried = yield from _sent(channel, request, credential, deadline)
    if request.commits and (doubt := tried.doubt()) is not None:
        raise doubt from tried.error
    return tried


def _sent(channel: Channel, request: Request, credential: Credential | None, deadline: float) -> Lifted[_Attempt]:
    clock, governor = channel.clock, channel.governor
    try:
        answer: Response = yield Send(_with(request, credential), _limit(request, deadline, clock), channel.max_body)
    except TransportError as error:
        if isinstance(error, TruncatedResponse) and error.stale:
            governor.abandoned()  # a kept connection that was closed says nothing of the vendor
        elif not request.foreign:
            governor.failed(clock.monotonic())
        return _Attempt(None, error, _POLICY if error.retryable else 0)
    except ContractError as error:
        if not request.foreign:
            governor.failed(clock.monotonic())
        return _Attempt(None, error, error.repeats)
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


def _read(request: Request, answer: Response, pause: float | None) -> _Attempt:
    """What an answer is worth, before the flow sees it."""
    if request.expect == "json" and (answer.status == 304 or answer.status in _NO_ANSWERS):
        return _Attempt(answer, None, 1, pause)
    if answer.status >= 300 or request.expect != "json" or request.save_to is not None:
        return _Attempt(answer, None, retries_for(answer.status), pause)
    try:
        answer.json()
    except ContractError as error:
        error.http_status = answer.status
        return _Attempt(answer, error, error.repeats)
    return _Attempt(answer)


def _leave(channel: Channel, deadline: float, *, or_not: bool) -> Lifted[bool]:
    """Wait for the governor's leave to send one request; False where it comes too late and that is no error."""
    while True:
        now = channel.clock.monotonic()
        if now >= deadline:
            late = DeadlineExceeded("the total time for the request ran out before it could be sent")
            late.written = False
            raise late
        grant = channel.governor.take(now, latest=deadline, ahead=True)
        if now + grant.wait >= deadline:
            if or_not:
                return False
            raise CircuitOpen(
                f"the connection is pausing; its next slot is {grant.wait:.0f} s away, beyond the deadline",
                retry_after=grant.wait,
            )
        if grant.wait > 0.0:
            yield Sleep(grant.wait)
        if grant.granted and not (grant.wait > 0.0 and channel.governor.holds(channel.clock.monotonic())):
            return True


def _credential(channel: Channel, request: Request, deadline: float) -> Lifted[Credential | None]:
    if not request.authorised:
        return None
    if channel.refusal is not None:
        raise channel.refusal.again()
    credential = channel.credential
    if _lacks_credential(channel, request):
        credential = yield Authorise(credential, deadline)
    return credential


def _lacks_credential(channel: Channel, request: Request) -> bool:
    if not request.authorised:
        return False
    credential = channel.credential
    return channel.refusal is not None or credential is None or _expires(credential, channel.clock.now())


def _expires(credential: Credential, now: datetime) -> bool:
    return credential.expires_at is not None and (credential.expires_at - now).total_seconds() < _SPARE


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
        channel.governor.slow_down(now, None if pause is None else min(pause, _LONGEST_PAUSE))
    elif answer.status >= 500:
        channel.governor.failed(now)
    else:
        channel.governor.answered(now, answer.headers)
    return pause


def _fits(wait: float, now: float, deadline: float) -> bool:
    return wait <= _LONGEST_PAUSE and now + wait < deadline


def authorise(channel: Channel, deadline: float) -> Lifted[Credential]:
    """Get a credential from the vendor.

    Raises:
        AuthenticationError: The vendor refuses what the connection was configured with, in whatever words.
        TaskbridgeError: There was no answer.
    """
    try:
        return (yield from lift(channel, opened(channel, channel.provider.authorise), deadline, plan=TOKEN))
    except ApiError as error:
        if error.retryable or isinstance(error, AuthenticationError):
            raise
        refused = AuthenticationError(error.message)
        refused.__dict__.update(error.__dict__)
    raise refused


# Looking a task up.


@dataclass(frozen=True, slots=True)
class Look:
    """What one look-up saw.

    Attributes:
        task: The snapshot, or None where the answer was the one seen before.
        body: The answer's bytes where it took one request, so that the next look can recognise it and the snapshot
            can be made again from it.
        received_at: Aware UTC time of receipt.
    """

    task: Task | None
    body: bytes | None
    received_at: datetime


def look(
    channel: Channel,
    task_id: str,
    deadline: float,
    *,
    seen: bytes | None = None,
    operation: Callable[[str], Flow[Task] | None] | None = None,
    plan: Effort = LOOK,
) -> Lifted[Look]:
    """Look a task up, and make sure that the answer is about the task that was asked for.

    Args:
        channel: The connection.
        task_id: A shared id.
        deadline: Monotonic seconds by which it must be over.
        seen: The bytes of the last answer; the same again are not translated.
        operation: `Provider.get` by default, or `Provider.hold`.
        plan: How much each request is worth.

    Raises:
        TaskbridgeError: The look-up failed; that says nothing of the task.
    """
    start = operation or channel.provider.get
    try:
        kind, native = channel.provider.split_id(task_id)
        fresh = False
        pause = _YOUNG_PAUSE
        while True:
            watched = _Watched(opened(channel, start, task_id), seen)
            try:
                task = yield from lift(channel, watched.flow(fresh=fresh), deadline, plan=plan)
            except TaskNotFound as error:
                yield _not_yet(channel, task_id, pause, deadline, error)
                pause, plan = min(2.0, pause * 2.0), replace(plan, granted=False)
                continue
            received_at = watched.received_at or channel.clock.now()
            if task is None:
                return Look(None, seen, received_at)
            if not isinstance(task, Task):  # pyright: ignore[reportUnnecessaryIsInstance]  # strangers write it
                raise _broken(channel, "a look-up returned no Task")
            if kind.identity is None or _same(getattr(task, kind.identity), native, kind.ignore_case):
                channel.note(task)
                return Look(task, watched.body, received_at)
            if fresh:
                raise IdentityMismatch(
                    f"asked for {plain(native, 80)!r}, the vendor answered for {plain(str(task.native_id), 80)!r}",
                    retryable=True,
                    raw=task.raw,
                )
            fresh = True
            plan = replace(plan, granted=False)
    except TaskbridgeError as error:
        channel.told(error, f"{channel.name}:{task_id}")
        if channel.blames_account(error):
            channel.refuse(error)
        raise error from None


def opened(channel: Channel, operation: Callable[..., Flow[T] | None], *args: Any) -> Flow[T]:
    """Begin an operation of a provider.

    Raises:
        ContractError: The provider tripped before its first request, or gave no flow.
    """
    try:
        flow = operation(*args)
    except TaskbridgeError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever a provider's own code may raise
        fault = f"it raised {type(error).__name__} before its first request"
    else:
        if isinstance(flow, Generator):
            return flow
        fault = "an operation returned no flow"
    raise _broken(channel, fault)


def _not_yet(channel: Channel, task_id: str, pause: float, deadline: float, error: TaskNotFound) -> Sleep:
    """A pause, where "not found" may mean "not yet" and there is time to ask again; else the error."""
    if not channel.is_young(task_id) or channel.clock.monotonic() + pause >= deadline:
        raise error
    return Sleep(pause)


def _same(answered: object, asked: str, ignore_case: bool) -> bool:
    text = str(answered)
    return text == asked or (ignore_case and text.casefold() == asked.casefold())


class _Watched:
    """A look-up's flow that notes the bytes it saw, and ends early when they are the ones seen before."""

    __slots__ = ("_flow", "_seen", "body", "received_at")

    def __init__(self, flow: Flow[Task], seen: bytes | None) -> None:
        self._flow = flow
        self._seen = seen
        self.body: bytes | None = None
        self.received_at: datetime | None = None

    def flow(self, *, fresh: bool) -> Flow[Task | None]:
        flow = self._flow
        try:
            request = next(flow)
            answers = 0
            while True:
                answer = yield replace(request, fresh=True) if fresh else request
                answers += 1
                self.received_at = answer.received_at
                self.body = answer.body if answers == 1 else None
                if self._seen is not None and answers == 1 and answer.status == 200 and answer.body == self._seen:
                    return None
                request = flow.send(answer)
        except StopIteration as end:
            return cast("Task", end.value)
        finally:
            flow.close()


def listed(channel: Channel, flow: Flow[Page], deadline: float, *, plan: Effort) -> Lifted[Page]:
    """Read one page of a vendor's list, for the fleet.

    Raises:
        TaskbridgeError: It could not be had; that says nothing of any task.
    """
    try:
        return (yield from lift(channel, flow, deadline, plan=plan))
    except TaskbridgeError as error:
        channel.told(error)
        if channel.blames_account(error):
            channel.refuse(error)
        raise error from None


def translate(channel: Channel, task_id: str, body: bytes, received_at: datetime) -> Task:
    """Make the snapshot again from the bytes of a look-up that took one request."""
    flow = channel.provider.get(task_id)
    try:
        next(flow)
        flow.send(Response(200, {}, body, received_at))
    except StopIteration as end:
        return cast("Task", end.value)
    finally:
        flow.close()
    raise _broken(channel, "a look-up of one request became longer")


# ContractError itself: a strict reading refused, or the provider is broken. Its other kinds may pass.
_FINAL_CONTRACTS: Final = frozenset({ContractError, UnexpectedRedirect})


def is_final(error: TaskbridgeError) -> bool:
    """Whether a failed look-up ends a wait at once: asking again cannot help."""
    if isinstance(error, ApiError):
        return not error.retryable
    if isinstance(error, ContractError):
        return type(error) in _FINAL_CONTRACTS
    return not isinstance(error, TransportError) or not error.retryable
