"""A request sent once: the actions that a driver does, and what came of sending.

A lifted flow (`taskbridge._engine.retry`) yields `BeforeSubmit`, `Send`, `Sleep`, `RefreshCredential`, `RunBlocking`; the two drivers
(`taskbridge._runtime.sync`) do them. Here an answer or its absence is weighed: what it says to the governor, whether it can be
read, whether the vendor may have taken what was sent, and whether asking once more can help.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import urlsplit

from taskbridge._engine.connection import Connection
from taskbridge._engine.effects import BeforeSubmit, EffectFlow, RefreshCredential, Send, Sleep
from taskbridge._engine.flows import broken_provider, guarded_flow
from taskbridge._engine.uncertainty import uncertain
from taskbridge.errors import (
    ApiError,
    AuthenticationError,
    CircuitOpen,
    ContractError,
    DeadlineExceeded,
    SubmitUncertain,
    TaskbridgeError,
    TransportError,
    TruncatedResponse,
)
from taskbridge.events import RequestEnded
from taskbridge.provider.capabilities import Credential
from taskbridge.provider.http import Flow, Request, Response
from taskbridge.provider.policy import parse_retry_after, retries_for
from taskbridge.provider.secrets import without_traceback

if TYPE_CHECKING:
    from datetime import datetime

    from taskbridge._engine.tracing import PollTrace
    from taskbridge.provider.clock import Clock

# XXDOC Lifts a provider's flow to what a driver runs: pace, credential, retries, strict reading.
#
# A lifted flow is still a generator without I/O. It yields actions (`BeforeSubmit`, `Send`, `Sleep`, `RefreshCredential`, `RunBlocking`)
# and is sent what came of them; the two drivers (`taskbridge._runtime.sync`) do them. The time is asked of the channel's clock,
# which tests replace.
#
# What is repeated, and how often, is decided here and nowhere else: a request that the vendor surely did not see, a safe
# one that failed in passing, a body that was cut, each within the attempts, the budget and the deadline.
#

T = TypeVar("T")


_POLICY: Final = 99  # as often as the retry policy allows


LONGEST_PAUSE: Final = 3600.0  # seconds; a longer Retry-After is told, not slept


_GATEWAYS: Final = frozenset({502, 504, *range(520, 525)})  # a gateway spoke, not the vendor


_TAKEN_REDIRECTS: Final = frozenset({301, 302, 303})  # what a server says that took a POST


_PORTS: Final = {"https": 443, "http": 80}


_NO_ANSWERS: Final = frozenset({203, *range(205, 300)})  # to a call that asks for JSON


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

    def uncertainty(self) -> SubmitUncertain | None:
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


def attempt(
    connection: Connection, request: Request, credential: Credential | None, deadline: float, note: Note | None = None
) -> EffectFlow[Attempt]:
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
    sent = _sent(connection, request, credential, deadline)
    tried = yield from (sent if note is None else _noted(sent, connection, request, note))
    if request.starts_work and (uncertainty := tried.uncertainty()) is not None:
        raise uncertainty from tried.error
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
    trace: PollTrace | None
    resends: int


def _noted(tried: EffectFlow[Attempt], connection: Connection, request: Request, note: Note) -> EffectFlow[Attempt]:
    """The same attempt, of which those are told who observe; not where it is broken off."""
    clock = connection.clock
    time, began = clock.now(), clock.monotonic()
    done = yield from tried
    answer, fault, url = done.answer, done.error, urlsplit(request.url)
    told = RequestEnded(
        time=time,
        provider=connection.provider.name,
        connection=connection.name,
        kind=note.kind,
        ref=note.trace.ref if note.trace is not None else None,
        method=request.method,
        scheme=url.scheme,
        host=url.hostname or "",
        port=url.port or _PORTS.get(url.scheme, 0),
        path=url.path if request.authorized or note.kind == "token" else None,
        http_status=answer.status if answer is not None else fault.http_status if fault is not None else None,
        error=None if fault is None else type(fault).__name__,
        resends=note.resends,
        retry_after=done.pause,
        duration=clock.monotonic() - began,
    )
    if note.trace is not None:
        note.trace.requests.append(told)
    connection.observers.notify(told)
    return done


def _sent(
    connection: Connection, request: Request, credential: Credential | None, deadline: float
) -> EffectFlow[Attempt]:
    clock, throttle = connection.clock, connection.throttle
    try:
        if request.starts_work:
            yield BeforeSubmit(request.recovery_token)
        answer: Response = yield Send(_with(request, credential), _limit(request, deadline, clock), connection.max_body)
    except TransportError as error:
        if not request.external:
            if isinstance(error, TruncatedResponse) and error.stale:
                throttle.abandoned()  # a kept connection that was closed says nothing of the vendor
            else:
                throttle.failed(clock.monotonic())
        return Attempt(None, error, _POLICY if error.retryable else 0)
    except ContractError as error:
        if not request.external:
            throttle.failed(clock.monotonic())
        return Attempt(None, error, error.repeats)
    except BaseException:
        if not request.external:
            throttle.abandoned()
        raise
    if request.external:
        pause = parse_retry_after(answer.headers, answer.received_at)
    else:
        pause = _note_answer(connection, answer, clock.monotonic())
    answer.retry_after = pause
    return _read(request, answer, pause)


def _read(request: Request, answer: Response, pause: float | None) -> Attempt:
    """What an answer is worth, before the flow sees it."""
    if request.response_type == "json" and (answer.status == 304 or answer.status in _NO_ANSWERS):
        return Attempt(answer, None, 1, pause)
    if answer.status >= 300 or request.response_type != "json" or request.save_to is not None:
        return Attempt(answer, None, retries_for(answer.status), pause)
    try:
        answer.json()
    except ContractError as error:
        error.http_status = answer.status
        return Attempt(
            answer, without_traceback(error), error.repeats
        )  # the reader's frames hold the body, which may echo a key
    return Attempt(answer)


def _with(request: Request, credential: Credential | None) -> Request:
    if credential is None or not credential.headers:
        return request
    return replace(request, headers={**request.headers, **credential.headers})


def _limit(request: Request, deadline: float, clock: Clock) -> float:
    return min(deadline, clock.monotonic() + request.long_poll) if request.long_poll is not None else deadline


def _note_answer(connection: Connection, answer: Response, now: float) -> float | None:
    """Tell the governor; the seconds that the vendor asks us to wait, if it does."""
    if answer.status < 400:
        connection.throttle.answered(now, answer.headers)
        return None
    pause = parse_retry_after(answer.headers, answer.received_at)
    if answer.status == 429 or (answer.status == 503 and pause is not None):
        connection.throttle.slow_down(now, None if pause is None else min(pause, LONGEST_PAUSE))
    elif answer.status >= 500:
        connection.throttle.failed(now)
    else:
        connection.throttle.answered(now, answer.headers)
    return pause


_MOST_REQUESTS: Final = 32  # of one flow; more is a provider that never ends


_SPARE: Final = 5.0  # seconds before its end at which a credential is renewed


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """How much one request of a flow is worth.

    Attributes:
        attempts: Requests at most, instead of the policy's; None for the policy's.
        granted: Whether the governor's leave for the first request is there already.
        kind: What its requests count as.
        trail: Where they are noted, where somebody wants to know.
    """

    attempts: int | None = None
    granted: bool = False
    kind: str = "other"
    trace: PollTrace | None = None


FULL: Final = RequestOptions()


LOOK: Final = RequestOptions(kind="poll")


TOKEN: Final = RequestOptions(kind="token")


LIST: Final = RequestOptions(kind="list")


SUBMIT: Final = RequestOptions(kind="submit")


DOWNLOAD: Final = RequestOptions(kind="download")


def with_policies(
    connection: Connection, flow: Flow[T], deadline: float, *, plan: RequestOptions = FULL
) -> EffectFlow[T]:
    """Run a flow with pace, credential and retries.

    Args:
        channel: The connection.
        flow: A provider's operation, not yet started.
        deadline: Monotonic seconds by which all of it must be over.
        plan: How much each request is worth.

    Raises:
        TaskbridgeError: What the provider made of the answers, or why there were none.
    """
    answer: Response | None = None
    fault: TaskbridgeError | None = None
    leave = plan.granted
    try:
        for _ in range(_MOST_REQUESTS + 1):
            try:
                request = _advance(connection, flow, answer, fault)
            except StopIteration as end:
                return cast("T", end.value)
            granted, leave = leave, False
            try:
                answer, fault = (yield from _exchange(connection, request, deadline, plan, granted=granted)), None
            except TaskbridgeError as error:
                fault = error
    finally:
        if leave:
            connection.throttle.give_back()  # nothing was sent, and others wait for it
        flow.close()
    raise broken_provider(connection, f"it sent more than {_MOST_REQUESTS} requests for one operation")


def _advance(
    connection: Connection, flow: Flow[Any], answer: Response | None, fault: TaskbridgeError | None
) -> Request:
    """The next request of a flow.

    Raises:
        StopIteration: It has ended.
        TaskbridgeError: It has failed.
    """
    try:
        if fault is not None:
            return flow.throw(fault)
        return next(flow) if answer is None else flow.send(answer)
    except (TaskbridgeError, GeneratorExit, StopIteration):
        raise
    except Exception as error:  # noqa: BLE001  # whatever a provider's own code may raise
        fault_of_code = broken_provider(connection, f"it raised {type(error).__name__} while translating")
    raise fault_of_code


def _exchange(
    connection: Connection, request: Request, deadline: float, plan: RequestOptions, *, granted: bool
) -> EffectFlow[Response]:
    """One request of a flow, repeated where that is right, to an answer that the flow may see."""
    failures = 0
    last: Attempt | None = None
    renewed = False
    resends = 0
    attempts = plan.attempts or connection.retry.attempts
    while True:
        if granted and (request.external or connection.refusal is not None or _lacks_credential(connection, request)):
            connection.throttle.give_back()  # the leave is for one request, and getting a credential may take one
            granted = False
        credential = yield from _credential(connection, request, deadline)
        if not granted and not request.external:
            left = yield from _leave(connection, deadline, or_not=last is not None)
            if not left and last is not None:
                return last.settle(failures)
        granted = False
        connection.counters.sent(plan.kind)
        tried = yield from attempt(connection, request, credential, deadline, _note(connection, plan, resends))
        resends += 1
        connection.counters.failures += tried.error is not None
        if tried.is_refusal and credential is not None and not renewed:
            renewed = True
            yield RefreshCredential(credential, deadline)
            continue
        if tried.is_accident and request.may_repeat and not request.new_connection:
            request, last = replace(request, new_connection=True), tried
            continue
        tried = tried.after(last)
        if tried.repeats == 0:
            return tried.settle(failures + 1)
        failures, last = failures + 1, tried
        wait = tried.wait(connection.retry.pause(failures, connection.clock.random()), connection.clock.random())
        allowed = failures < attempts and failures <= tried.repeats and tried.is_safe(request)
        if not (allowed and _fits(wait, connection.clock.monotonic(), deadline) and connection.throttle.may_retry()):
            return tried.settle(failures)
        if tried.error is not None:
            request = replace(request, new_connection=True)
        yield Sleep(wait)


def _note(connection: Connection, plan: RequestOptions, resends: int) -> Note | None:
    if plan.trace is None and not connection.observers.wants_requests:
        return None
    return Note(plan.kind, plan.trace, resends)


def _leave(connection: Connection, deadline: float, *, or_not: bool) -> EffectFlow[bool]:
    """Wait for the governor's leave to send one request; False where it comes too late and that is no error."""
    while True:
        now = connection.clock.monotonic()
        if now >= deadline:
            late = DeadlineExceeded("the total time for the request ran out before it could be sent")
            late.written = False
            raise late
        permit = connection.throttle.take(now, latest=deadline, ahead=True)
        if now + permit.wait >= deadline:
            if or_not:
                return False
            raise CircuitOpen(
                f"the connection is pausing; its next slot is {permit.wait:.0f} s away, beyond the deadline",
                retry_after=permit.wait,
            )
        if permit.wait > 0.0:
            yield Sleep(permit.wait)
        if permit.granted and not (permit.wait > 0.0 and connection.throttle.holds(connection.clock.monotonic())):
            return True


def _credential(connection: Connection, request: Request, deadline: float) -> EffectFlow[Credential | None]:
    if not request.authorized:
        return None
    if connection.refusal is not None:
        raise connection.refusal.again()
    credential = connection.credential
    if _lacks_credential(connection, request):
        credential = yield RefreshCredential(credential, deadline)
    return credential


def _lacks_credential(connection: Connection, request: Request) -> bool:
    if not request.authorized:
        return False
    credential = connection.credential
    return connection.refusal is not None or credential is None or _expires(credential, connection.clock.now())


def _expires(credential: Credential, now: datetime) -> bool:
    return credential.expires_at is not None and (credential.expires_at - now).total_seconds() < _SPARE


def _fits(wait: float, now: float, deadline: float) -> bool:
    return wait <= LONGEST_PAUSE and now + wait < deadline


def authorize(connection: Connection, deadline: float) -> EffectFlow[Credential]:
    """Get a credential from the vendor.

    Raises:
        AuthenticationError: The vendor refuses what the connection was configured with, in whatever words.
        TaskbridgeError: There was no answer.
    """
    try:
        return (
            yield from with_policies(
                connection, guarded_flow(connection, connection.provider.authorize), deadline, plan=TOKEN
            )
        )
    except ApiError as error:
        fault: TaskbridgeError = error
        if not (error.retryable or isinstance(error, AuthenticationError)):
            fault = AuthenticationError(error.message)
            fault.__dict__.update(error.__dict__)
    except TaskbridgeError as error:
        fault = error
    raise without_traceback(fault)  # the provider's frames hold the credential
