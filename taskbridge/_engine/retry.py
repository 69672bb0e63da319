"""Runs a provider's flow with retries, rate limit and credential; no I/O.

`with_policies` takes a flow (a generator of requests, `taskbridge.provider.Flow`) and is a generator of effects itself
(`taskbridge._engine.effects`). What is repeated, and how often, is decided here and nowhere else: a request that surely
never arrived, a safe one that failed transiently, a body that was cut; each within the attempts, the retry budget and
the deadline.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from taskbridge._engine.effects import BeforeSubmit, RefreshCredential, Send, Sleep
from taskbridge._engine.logs import REQUESTS
from taskbridge._engine.uncertainty import uncertain_after
from taskbridge.errors import (
    ApiError,
    AuthenticationError,
    CircuitOpen,
    ContractError,
    DeadlineExceeded,
    TaskbridgeError,
    TransportError,
    TruncatedResponse,
)
from taskbridge.events import RequestEnded
from taskbridge.provider.http import Request, Response
from taskbridge.provider.json import read_json
from taskbridge.provider.policy import parse_retry_after, retries_for
from taskbridge.provider.secrets import without_traceback

if TYPE_CHECKING:
    from taskbridge._engine.connection import Connection
    from taskbridge._engine.effects import EffectFlow
    from taskbridge._engine.throttle import Permit
    from taskbridge._engine.tracing import PollTrace
    from taskbridge.provider.capabilities import Credential
    from taskbridge.provider.http import Flow

T = TypeVar("T")

MAX_PAUSE: Final = 3600.0  # seconds; a longer Retry-After is reported, not slept
_MAX_REQUESTS: Final = 32  # of one flow; more means that a provider never ends
_BY_POLICY: Final = 99  # retries: as often as the retry policy allows
_NOT_JSON: Final = frozenset({203, *range(205, 300)})  # no answer to a call that asks for JSON
_PORTS: Final = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """How the requests of one flow are treated.

    Attributes:
        kind: How they are counted: poll, long-poll, list, submit, download, token, other.
        attempts: Maximum attempts per request; None for the retry policy's.
        has_permit: Whether the throttle has granted the first request already.
    """

    kind: str = "other"
    attempts: int | None = None
    has_permit: bool = False


OTHER: Final = RequestOptions()
POLL: Final = RequestOptions("poll")
LIST: Final = RequestOptions("list")
SUBMIT: Final = RequestOptions("submit")
DOWNLOAD: Final = RequestOptions("download")
_TOKEN: Final = RequestOptions("token")


def with_policies(
    connection: Connection,
    start: Callable[[], Flow[T] | None],
    deadline: float,
    options: RequestOptions = OTHER,
    *,
    trace: PollTrace | None = None,
    before: Callable[[Request], Request] | None = None,
    after: Callable[[Response], object] | None = None,
) -> EffectFlow[T]:
    """Run a flow with retries, rate limit and credential.

    Args:
        connection: The connection.
        start: Returns the flow; a provider's operation with its arguments.
        deadline: Monotonic seconds by which the whole flow must have ended.
        options: How its requests are treated.
        trace: Collects its requests for observers.
        before: Receives each request, returns the one to send.
        after: Receives each response before the flow does; an error from there ends the flow.

    Raises:
        TaskbridgeError: What the provider made of the responses, or why there were none.
    """
    flow: Flow[T] | None = None
    has_permit = options.has_permit
    response: Response | None = None
    error: TaskbridgeError | None = None
    broken = f"it sent more than {_MAX_REQUESTS} requests for one operation"
    try:
        for _ in range(_MAX_REQUESTS + 1):
            try:
                if flow is None:
                    flow = start()
                    if not isinstance(flow, Generator):
                        broken = "an operation returned no flow"
                        break
                    request = next(flow)
                else:
                    request = flow.send(response) if error is None else flow.throw(error)
            except StopIteration as end:
                result: T = end.value
                return result
            except (TaskbridgeError, GeneratorExit):
                raise
            except Exception as fault:  # noqa: BLE001  # whatever a provider's own code may raise
                broken = f"it raised {type(fault).__name__} {_WHEN[response is None and error is None]}"
                break
            if before is not None:
                request = before(request)
            granted, has_permit = has_permit, False
            try:
                response = yield from _exchange(connection, request, deadline, options, trace, has_permit=granted)
                error = None
            except TaskbridgeError as failure:
                response, error = None, failure
            else:
                if after is not None:
                    after(response)
    finally:
        if has_permit:
            connection.throttle.give_back()  # nothing was sent, and others wait for it
        if isinstance(flow, Generator):
            flow.close()
    raise broken_provider(connection, broken)


_WHEN: Final = {True: "before its first request", False: "while translating"}


def broken_provider(connection: Connection, problem: str) -> ContractError:
    """Return the error for a provider whose code does not work."""
    return ContractError(f"the provider {connection.provider.name} is broken: {problem}", connection=connection.name)


def authorize(connection: Connection, deadline: float) -> EffectFlow[Credential]:
    """Get a credential from the vendor.

    Raises:
        AuthenticationError: The vendor refuses the configured credential, in whatever words.
        TaskbridgeError: There was no response.
    """
    try:
        return (yield from with_policies(connection, connection.provider.authorize, deadline, _TOKEN))
    except ApiError as failure:
        error: TaskbridgeError = failure
        if not (failure.retryable or isinstance(failure, AuthenticationError)):
            error = AuthenticationError(failure.message)
            error.__dict__.update(failure.__dict__)
    except TaskbridgeError as failure:
        error = failure
    raise without_traceback(error)  # the provider's frames hold the credential


# One request, with its retries.


@dataclass(slots=True)
class _Attempt:
    """The outcome of sending a request once: a response, an error, or a response that cannot be read."""

    response: Response | None
    error: TaskbridgeError | None = None
    retries: int = 0  # how many more attempts may help
    pause: float | None = None  # seconds that the vendor asks for

    def is_fluke(self) -> bool:
        """Whether a new connection may help at once: a kept one had been closed, or a body did not follow its head."""
        error = self.error
        return isinstance(error, TruncatedResponse) and (error.stale or error.http_status is not None)

    def same_head_twice(self, last: _Attempt | None) -> bool:
        """Whether two responses in a row broke off after the same head: then its status counts."""
        before = None if last is None else last.error
        return (
            isinstance(self.error, TruncatedResponse)
            and self.error.http_status is not None
            and isinstance(before, TruncatedResponse)
            and before.http_status == self.error.http_status
        )

    def may_resend(self, request: Request) -> bool:
        """Whether sending the request again cannot have an effect twice."""
        if request.may_repeat:
            return True
        if isinstance(self.error, TransportError):
            return not self.error.written
        return self.response is not None and self.response.status == 429  # rejected before any work

    def outcome(self, attempts: int) -> Response:
        """Return the response for the flow.

        Raises:
            TaskbridgeError: There is none.
        """
        error = self.error
        if error is None and self.response is not None:
            self.response.attempts = attempts
            return self.response
        assert error is not None  # noqa: S101  # an attempt has a response or an error
        if attempts > 1:
            error.message = f"{error.message} (after {attempts} attempts)"
            error.args = (error.message,)
        raise error


def _exchange(
    connection: Connection,
    request: Request,
    deadline: float,
    options: RequestOptions,
    trace: PollTrace | None,
    *,
    has_permit: bool,
) -> EffectFlow[Response]:
    """Send one request of a flow, repeatedly where that is right, until there is a response for the flow."""
    clock, throttle, credentials = connection.clock, connection.throttle, connection.credentials
    max_attempts = options.attempts or connection.retry.attempts
    failures = sent = 0
    last: _Attempt | None = None
    refreshed = False
    while True:
        credential: Credential | None = None
        if request.authorized:
            must_renew = credentials.must_renew()
            if has_permit and must_renew:
                throttle.give_back()  # the permit is for one request, and renewal may take one
                has_permit = False
            if must_renew and credentials.refusal is not None:
                raise credentials.refusal.again()
            credential = (yield RefreshCredential(credentials.current, deadline)) if must_renew else credentials.current
        elif has_permit and request.external:
            throttle.give_back()
            has_permit = False
        if not has_permit and not request.external:
            now = clock.monotonic()
            permit = throttle.take(now, latest=deadline, ahead=True) if now < deadline else None
            if permit is None or permit.wait > 0.0 or not permit.granted:
                got_permit = yield from _wait_for_permit(connection, permit, deadline, optional=last is not None)
                if last is not None and not got_permit:
                    return last.outcome(failures)
        has_permit = False
        connection.counters.requests[options.kind] += 1
        is_observed = trace is not None or connection.observers.callbacks or REQUESTS.isEnabledFor(logging.DEBUG)
        started = (clock.now(), clock.monotonic()) if is_observed else None
        try:
            if request.starts_work:
                yield BeforeSubmit(request.recovery_token)
            limit = deadline if request.long_poll is None else min(deadline, clock.monotonic() + request.long_poll)
            headers = None if credential is None else credential.headers
            signed = replace(request, headers={**request.headers, **headers}) if headers else request
            response: Response = yield Send(signed, limit, connection.max_body)
        except (TransportError, ContractError) as error:
            attempt = _failed(connection, request, error)
        except BaseException:
            if not request.external:
                throttle.abandoned()
            raise
        else:
            attempt = _responded(connection, request, response)
        if started is not None:
            _report(connection, request, attempt, options.kind, trace, sent, *started)
        sent += 1
        if attempt.error is not None:
            connection.counters.failures += 1
        if request.starts_work and (doubt := uncertain_after(attempt.response, attempt.error)) is not None:
            raise doubt from attempt.error
        if attempt.error is None and attempt.retries == 0 and response.status != 401:
            response.attempts = failures + 1
            return response
        if attempt.response is not None and attempt.response.status == 401 and credential is not None and not refreshed:
            refreshed = True
            yield RefreshCredential(credential, deadline)
            continue
        if attempt.is_fluke() and request.may_repeat and not request.new_connection:
            request, last = replace(request, new_connection=True), attempt
            continue
        if attempt.same_head_twice(last):
            assert attempt.error is not None  # noqa: S101  # it broke off
            attempt = _Attempt(Response(attempt.error.http_status or 0))
        if attempt.retries == 0:
            return attempt.outcome(failures + 1)
        failures, last = failures + 1, attempt
        pause = connection.retry.pause(failures, clock.random())
        if (
            attempt.pause is not None
        ):  # the vendor's request to wait overrides a shorter backoff, and is spread a little
            pause = max(pause, attempt.pause + clock.random() * min(1.0, attempt.pause * 0.1))
        is_allowed = failures < max_attempts and failures <= attempt.retries and attempt.may_resend(request)
        fits = pause <= MAX_PAUSE and clock.monotonic() + pause < deadline
        if not (is_allowed and fits and throttle.may_retry()):
            return attempt.outcome(failures)
        if attempt.error is not None:
            request = replace(request, new_connection=True)
        yield Sleep(pause)


def _wait_for_permit(
    connection: Connection, permit: Permit | None, deadline: float, *, optional: bool
) -> EffectFlow[bool]:
    """Wait until the throttle lets one request through; False if that comes too late and is optional."""
    clock, throttle = connection.clock, connection.throttle
    while permit is not None:
        now = clock.monotonic()
        if now + permit.wait >= deadline:
            if optional:
                return False
            raise CircuitOpen(
                f"the connection is pausing; its next slot is {permit.wait:.0f} s away, beyond the deadline",
                retry_after=permit.wait,
            )
        if permit.wait > 0.0:
            yield Sleep(permit.wait)
            now = clock.monotonic()
        if permit.granted and not throttle.holds(now):
            return True
        permit = throttle.take(now, latest=deadline, ahead=True) if now < deadline else None
        if permit is not None and permit.granted and permit.wait == 0.0:
            return True
    late = DeadlineExceeded("the total time for the request ran out before it could be sent")
    late.written = False
    raise late


def _failed(connection: Connection, request: Request, error: TransportError | ContractError) -> _Attempt:
    """Record that a request got no usable response."""
    if not request.external:
        if isinstance(error, TruncatedResponse) and error.stale:
            connection.throttle.abandoned()  # a kept connection that was closed says nothing about the vendor
        else:
            connection.throttle.failed(connection.clock.monotonic())
    if isinstance(error, ContractError):
        return _Attempt(None, error, error.repeats)
    return _Attempt(None, error, _BY_POLICY if error.retryable else 0)


def _responded(connection: Connection, request: Request, response: Response) -> _Attempt:
    """Record a response, and decide what it is worth before the flow sees it."""
    status, throttle = response.status, connection.throttle
    pause: float | None = None
    if status >= 400 or request.external:
        pause = response.retry_after = parse_retry_after(response.headers, response.received_at)
    if not request.external:
        now = connection.clock.monotonic()
        if status == 429 or (status == 503 and pause is not None):
            throttle.slow_down(now, None if pause is None else min(pause, MAX_PAUSE))
        elif status >= 500:
            throttle.failed(now)
        else:
            throttle.answered(now, response.headers)
    wants_json = request.response_type == "json"
    if wants_json and (status == 304 or status in _NOT_JSON):
        return _Attempt(response, None, 1, pause)
    if status >= 300 or not wants_json or request.save_to is not None:
        return _Attempt(response, None, retries_for(status), pause)
    try:
        response.document = read_json(response.body)
    except ContractError as error:
        error.http_status = status
        # The reader's frames hold the body, which may echo a credential.
        return _Attempt(response, without_traceback(error), error.repeats)
    return _Attempt(response)


def _report(
    connection: Connection,
    request: Request,
    attempt: _Attempt,
    kind: str,
    trace: PollTrace | None,
    resends: int,
    time: Any,
    started: float,
) -> None:
    """Notify observers of a request that has ended."""
    response, error, url = attempt.response, attempt.error, urlsplit(request.url)
    event = RequestEnded(
        time=time,
        provider=connection.provider.name,
        connection=connection.name,
        kind=kind,
        ref=trace.ref if trace is not None else None,
        method=request.method,
        scheme=url.scheme,
        host=url.hostname or "",
        port=url.port or _PORTS.get(url.scheme, 0),
        path=url.path if request.authorized or kind == "token" else None,
        http_status=response.status if response is not None else error.http_status if error is not None else None,
        error=None if error is None else type(error).__name__,
        resends=resends,
        retry_after=attempt.pause,
        duration=connection.clock.monotonic() - started,
    )
    if trace is not None:
        trace.requests.append(event)
    connection.observers.notify(event)
