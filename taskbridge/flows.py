"""Lifts a provider's flow to what a driver runs: pace, credential, retries, strict reading.

A lifted flow is still a generator without I/O. It yields actions (`Announce`, `Send`, `Sleep`, `Authorise`, `Local`)
and is sent what came of them; the two drivers (`taskbridge.drive`) do them. The time is asked of the channel's clock,
which tests replace.

What is repeated, and how often, is decided here and nowhere else: a request that the vendor surely did not see, a safe
one that failed in passing, a body that was cut, each within the attempts, the budget and the deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from taskbridge.attempts import LONGEST_PAUSE, Attempt, Authorise, Lifted, Note, Sleep, attempt
from taskbridge.channel import Channel
from taskbridge.errors import (
    ApiError,
    AuthenticationError,
    CircuitOpen,
    ContractError,
    DeadlineExceeded,
    TaskbridgeError,
)
from taskbridge.http import Flow, Request, Response
from taskbridge.provider import Credential
from taskbridge.secrecy import bare

if TYPE_CHECKING:
    from datetime import datetime

    from taskbridge.witness import Trail

__all__ = ["DOWNLOAD", "FULL", "LIST", "LOOK", "SUBMIT", "Effort", "authorise", "broken", "lift", "opened", "tapped"]

T = TypeVar("T")

_MOST_REQUESTS: Final = 32  # of one flow; more is a provider that never ends
_SPARE: Final = 5.0  # seconds before its end at which a credential is renewed


@dataclass(frozen=True, slots=True)
class Effort:
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
    trail: Trail | None = None


FULL: Final = Effort()
LOOK: Final = Effort(kind="look")
TOKEN: Final = Effort(kind="token")
LIST: Final = Effort(kind="list")
SUBMIT: Final = Effort(kind="submit")
DOWNLOAD: Final = Effort(kind="download")


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
    answer: Response | None = None
    fault: TaskbridgeError | None = None
    leave = plan.granted
    try:
        for _ in range(_MOST_REQUESTS + 1):
            try:
                request = _advance(channel, flow, answer, fault)
            except StopIteration as end:
                return cast("T", end.value)
            granted, leave = leave, False
            try:
                answer, fault = (yield from _exchange(channel, request, deadline, plan, granted=granted)), None
            except TaskbridgeError as error:
                fault = error
    finally:
        if leave:
            channel.governor.give_back()  # nothing was sent, and others wait for it
        flow.close()
    raise broken(channel, f"it sent more than {_MOST_REQUESTS} requests for one operation")


def _advance(channel: Channel, flow: Flow[Any], answer: Response | None, fault: TaskbridgeError | None) -> Request:
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
        fault_of_code = broken(channel, f"it raised {type(error).__name__} while translating")
    raise fault_of_code


def broken(channel: Channel, fault: str) -> ContractError:
    """The error for a provider that cannot be used as it is."""
    return ContractError(f"the provider {channel.provider.name} is broken: {fault}", connection=channel.name)


def _exchange(channel: Channel, request: Request, deadline: float, plan: Effort, *, granted: bool) -> Lifted[Response]:
    """One request of a flow, repeated where that is right, to an answer that the flow may see."""
    failures = 0
    last: Attempt | None = None
    renewed = False
    resends = 0
    attempts = plan.attempts or channel.retry.attempts
    while True:
        if granted and (request.foreign or channel.refusal is not None or _lacks_credential(channel, request)):
            channel.governor.give_back()  # the leave is for one request, and getting a credential may take one
            granted = False
        credential = yield from _credential(channel, request, deadline)
        if not granted and not request.foreign:
            left = yield from _leave(channel, deadline, or_not=last is not None)
            if not left and last is not None:
                return last.settle(failures)
        granted = False
        channel.tally.sent(plan.kind)
        tried = yield from attempt(channel, request, credential, deadline, _note(channel, plan, resends))
        resends += 1
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


def _note(channel: Channel, plan: Effort, resends: int) -> Note | None:
    if plan.trail is None and not channel.audience.hears_requests:
        return None
    return Note(plan.kind, plan.trail, resends)


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


def _fits(wait: float, now: float, deadline: float) -> bool:
    return wait <= LONGEST_PAUSE and now + wait < deadline


def authorise(channel: Channel, deadline: float) -> Lifted[Credential]:
    """Get a credential from the vendor.

    Raises:
        AuthenticationError: The vendor refuses what the connection was configured with, in whatever words.
        TaskbridgeError: There was no answer.
    """
    try:
        return (yield from lift(channel, opened(channel, channel.provider.authorise), deadline, plan=TOKEN))
    except ApiError as error:
        fault: TaskbridgeError = error
        if not (error.retryable or isinstance(error, AuthenticationError)):
            fault = AuthenticationError(error.message)
            fault.__dict__.update(error.__dict__)
    except TaskbridgeError as error:
        fault = error
    raise bare(fault)  # the provider's frames hold the credential


def opened(channel: Channel, operation: Callable[..., Flow[T] | None], *args: Any) -> Flow[T]:
    """The flow of a provider's operation, which begins only when it is run: whatever trips there is an error of ours.

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
            return (yield from flow)
        fault = "an operation returned no flow"
    raise broken(channel, fault)


def tapped(
    flow: Flow[T], hear: Callable[[Response], object], ready: Callable[[Request], Request] | None = None
) -> Flow[T]:
    """The same flow, with somebody beside it.

    Args:
        flow: The flow, not yet started.
        hear: Told each answer, before the flow has it; what it raises ends the flow.
        ready: Given each request, it gives the one that is sent.
    """
    try:
        request = next(flow)
        while True:
            asked = request if ready is None else ready(request)
            try:
                answer = yield asked
            except TaskbridgeError as error:
                fault = error
            else:
                hear(answer)
                request = flow.send(answer)
                continue
            request = flow.throw(fault)
    except StopIteration as end:
        return cast("T", end.value)
    finally:
        flow.close()
