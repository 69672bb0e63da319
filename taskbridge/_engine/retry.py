"""Runs a provider's flow with retries, rate limit and credential; no I/O.

`with_policies` takes a flow (a generator of requests, `taskbridge.provider.Flow`) and is a generator of effects itself
(`taskbridge._engine.effects`). What is repeated, and how often, is decided here and nowhere else: a request that surely
never arrived, a safe one that failed transiently, a body that was cut; each within the attempts, the retry budget and
the deadline.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import urlsplit

from taskbridge._engine.effects import BeforeSubmit, RefreshCredential, RunBlocking, Send, Sleep, WaitForSlot
from taskbridge._engine.logs import REQUESTS
from taskbridge._engine.outage import report_failure, report_response
from taskbridge._engine.read_once import read_once
from taskbridge._engine.throttle import MAX_PAUSE
from taskbridge._engine.uncertainty import uncertain_after
from taskbridge.errors import (
    ApiError,
    AuthenticationError,
    CircuitOpen,
    ConfigError,
    ContractError,
    DeadlineExceeded,
    ServerError,
    TaskbridgeError,
    TransportError,
    TruncatedResponse,
    printable,
)
from taskbridge.events import RequestEnded
from taskbridge.provider.http import Request, Response
from taskbridge.provider.json import read_json
from taskbridge.provider.policy import parse_retry_after, retries_for
from taskbridge.provider.secrets import redact, without_traceback

if TYPE_CHECKING:
    from datetime import datetime

    from taskbridge._engine.connection import Connection
    from taskbridge._engine.effects import EffectFlow
    from taskbridge._engine.sharing import Sharing
    from taskbridge._engine.tracing import PollTrace
    from taskbridge.provider.capabilities import Credential
    from taskbridge.provider.http import Flow

T = TypeVar("T")

_MAX_REQUESTS: Final = 32  # of one flow; more means that a provider never ends
_BY_POLICY: Final = 99  # retries: as often as the retry policy allows
_NOT_JSON: Final = frozenset({203, *range(205, 300)})  # no answer to a call that asks for JSON
_SLOW_DOWN: Final = frozenset({429, 503})
_LONGEST_REASON: Final = 300  # characters of a refusal that other processes get
_PORTS: Final = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """How the requests of one flow are treated."""

    kind: str = "other"  # how they are counted: poll, long-poll, list, submit, download, token, other
    attempts: int | None = None  # maximum per request; None for the retry policy's
    has_permit: bool = False  # whether the throttle has granted the first request already


OTHER: Final = RequestOptions()
POLL: Final = RequestOptions("poll")
LIST: Final = RequestOptions("list")
SUBMIT: Final = RequestOptions("submit")
DOWNLOAD: Final = RequestOptions("download")
TOKEN: Final = RequestOptions("token")


def with_policies(  # noqa: C901, PLR0912  # a function more would be a call more in each poll
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
    """
    flow: Flow[T] | None = None
    has_permit = options.has_permit
    received: Response | TaskbridgeError | None = None
    try:
        for _ in range(_MAX_REQUESTS + 1):
            try:
                flow = flow or _start(connection, start)
                request = _advance(connection, flow, received)
            except StopIteration as end:
                return cast("T", end.value)
            if before is not None:
                request = before(request)
            granted, has_permit = has_permit, False
            if request.read_once and granted:
                connection.throttle.give_back()  # perhaps nothing is sent
                granted = False
            try:
                if request.read_once:
                    send = partial(_exchange, connection, deadline=deadline, options=options, trace=trace)
                    received = yield from read_once(connection, request, deadline, send)
                else:
                    received = yield from _exchange(connection, request, deadline, options, trace, has_permit=granted)
            except TaskbridgeError as error:
                received = error
            else:
                if after is not None:
                    after(received)
    except ApiError as error:
        if connection.sharing is not None and error.http_status is not None and connection.is_refusal(error):
            reason = printable(redact(error.summary, connection.known_secrets), _LONGEST_REASON)
            yield RunBlocking(partial(connection.sharing.report_refusal, reason))
        raise
    finally:
        if has_permit:
            connection.throttle.give_back()  # nothing was sent, and others wait for it
        if flow is not None:
            flow.close()
    raise broken_provider(connection, f"it sent more than {_MAX_REQUESTS} requests for one operation")


def _start(connection: Connection, start: Callable[[], Flow[T] | None]) -> Flow[T]:
    flow = call_provider(connection, start, "before its first request")
    if isinstance(flow, Generator):
        return flow
    raise broken_provider(connection, "an operation returned no flow")


def call_provider(connection: Connection, call: Callable[[], T], when: str) -> T:
    """Call a provider's own code; an error of another kind than ours means that the provider is broken."""
    try:
        return call()
    except TaskbridgeError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever a provider's own code may raise
        problem = f"it raised {type(error).__name__} {when}"
    raise broken_provider(connection, problem)


def _advance(connection: Connection, flow: Flow[Any], received: Response | TaskbridgeError | None) -> Request:
    """Return the next request of a flow; raise `StopIteration` at its end."""
    try:
        if received is None:
            return next(flow)
        return flow.throw(received) if isinstance(received, TaskbridgeError) else flow.send(received)
    except ApiError as error:
        if isinstance(received, Response) and not received.authorized:
            error.authorized = False
        raise
    except (TaskbridgeError, GeneratorExit, StopIteration):
        raise
    except Exception as error:  # noqa: BLE001  # whatever a provider's own code may raise
        when = "before its first request" if received is None else "while translating"
        problem = f"it raised {type(error).__name__} {when}"
    raise broken_provider(connection, problem)


def broken_provider(connection: Connection, problem: str) -> ContractError:
    """Return the error for a provider whose code does not work."""
    return ContractError(f"the provider {connection.provider.name} is broken: {problem}", connection=connection.name)


def refresh(connection: Connection, wanted: RefreshCredential) -> EffectFlow[Credential]:
    """Renew the connection's credential, unless another caller has done so or the vendor refuses it.

    Secrets that are kept elsewhere are read again if the vendor refused what was made from them: the credential that is
    replaced, or now the login.
    """
    credentials = connection.credentials
    if credentials.refusal is not None:
        raise credentials.refusal.again()
    credential = credentials.current
    if credential is not None and credential is not wanted.stale:
        return credential
    if wanted.refused and connection.reload is not None:
        yield from _reload_secrets(connection)
    try:
        credential = yield from authorize(connection, wanted.deadline)
    except AuthenticationError as error:
        failure = error
    else:
        credentials.current = credential
        return credential
    if wanted.refused or connection.reload is None or not (yield from _reload_secrets(connection)):
        raise failure
    credentials.current = credential = yield from authorize(connection, wanted.deadline)
    return credential


def _reload_secrets(connection: Connection) -> EffectFlow[bool]:
    """Read the secrets again that are kept elsewhere; return whether one has changed."""
    try:
        changed: bool = yield RunBlocking(connection.reload_secrets)
    except ConfigError as error:
        problem = error.message
    else:
        return changed
    raise AuthenticationError(f"the vendor refused the credential, which cannot be read again: {problem}")


def authorize(connection: Connection, deadline: float) -> EffectFlow[Credential]:
    """Get a credential from the vendor; any final refusal counts as an `AuthenticationError`."""
    try:
        return (yield from with_policies(connection, connection.provider.authorize, deadline, TOKEN))
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
    is_good: bool = False  # whether it needs no second thought

    def refuses(self, credential: Credential | None) -> bool:
        """Whether the vendor refuses the credential that was sent; False if there was none."""
        return credential is not None and self.response is not None and self.response.status == 401

    def is_fluke(self) -> bool:
        """Whether a new connection may help at once: a kept one had been closed, or a body did not follow its head."""
        error = self.error
        return isinstance(error, TruncatedResponse) and (error.stale or error.http_status is not None)

    def following(self, last: _Attempt | None) -> _Attempt:
        """What it means after another: if two in a row broke off after the same head, the head's status counts."""
        status = self.error.http_status if isinstance(self.error, TruncatedResponse) else None
        before = None if last is None else last.error
        if status is None or not isinstance(before, TruncatedResponse) or before.http_status != status:
            return self
        return _Attempt(Response(status))

    def may_resend(self, request: Request) -> bool:
        """Whether sending the request again cannot have an effect twice."""
        if request.may_repeat:
            return True
        if isinstance(self.error, TransportError):
            return not self.error.written
        return self.response is not None and self.response.status == 429  # rejected before any work

    def outcome(self, attempts: int) -> Response:
        """Return the response for the flow, or raise the error."""
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
    has_permit: bool = False,
) -> EffectFlow[Response]:
    """Send one request of a flow, repeatedly where that is right, until there is a response for the flow."""
    failures = resends = 0
    last: _Attempt | None = None
    may_refresh = request.authorized
    while True:
        must_renew = request.authorized and _must_renew(connection)
        if has_permit and (request.external or must_renew):
            connection.throttle.give_back()  # the permit is for one request to the vendor, and a renewal may take one
            has_permit = False
        credential = connection.credentials.current if request.authorized else None
        if must_renew:
            credential = yield RefreshCredential(credential, deadline)
        if not request.external and (not has_permit or connection.sharing is not None):
            sharing, optional = connection.sharing, last is not None
            has_permit = yield from (
                _wait_for_permit(connection, deadline, optional=optional)
                if sharing is None
                else _wait_for_slot(connection, sharing, deadline, optional=optional, has_permit=has_permit)
            )
            if last is not None and not has_permit:
                return last.outcome(failures)
        has_permit = False
        attempt = yield from _send(connection, request, credential, deadline, (options.kind, trace, resends))
        resends += 1
        if attempt.is_good:
            return attempt.outcome(failures + 1)
        # Once more with a new credential, and again if it was renewed for another caller while this was under way.
        if attempt.refuses(credential) and (may_refresh or credential is not connection.credentials.current):
            may_refresh = False
            yield RefreshCredential(credential, deadline, refused=True)
            continue
        if attempt.is_fluke() and request.may_repeat and not request.new_connection:
            request, last = replace(request, new_connection=True), attempt
            continue
        attempt, failures = attempt.following(last), failures + 1
        pause = _pause_before_retry(connection, request, attempt, failures, deadline, options=options)
        if pause is None:
            return attempt.outcome(failures)
        request = replace(request, new_connection=request.new_connection or attempt.error is not None)
        last = attempt
        yield Sleep(pause)


def _pause_before_retry(
    connection: Connection,
    request: Request,
    attempt: _Attempt,
    failures: int,
    deadline: float,
    *,
    options: RequestOptions,
) -> float | None:
    """Return the seconds to wait before the next attempt; None if there must be none."""
    has_more = failures < (options.attempts or connection.retry.attempts) and failures <= attempt.retries
    if not has_more or not attempt.may_resend(request):
        return None
    chance = connection.clock.random
    pause = connection.retry.pause(failures, chance())
    if attempt.pause is not None:  # the vendor's own request to wait, if that is longer, spread a little
        pause = max(pause, attempt.pause + chance() * min(1.0, attempt.pause * 0.1))
    if pause > MAX_PAUSE or connection.clock.monotonic() + pause >= deadline:
        return None
    has_budget = connection.external_retries.spend() if request.external else connection.throttle.may_retry()
    return pause if has_budget else None


def _must_renew(connection: Connection) -> bool:
    """Whether a request has to wait for a new credential; for a refused one, waiting raises the refusal."""
    credentials = connection.credentials
    current = credentials.current
    if current is None or credentials.refusal is not None:
        return True
    return current.expires_at is not None and credentials.is_expiring(current.expires_at)


def _wait_for_permit(connection: Connection, deadline: float, *, optional: bool) -> EffectFlow[bool]:
    """Wait until the throttle lets one request through; False if that comes too late and is optional."""
    clock, throttle = connection.clock, connection.throttle
    while (now := clock.monotonic()) < deadline:
        raises = throttle.raises
        permit = throttle.take(now, latest=deadline, ahead=True)
        if permit.wait == 0.0 and permit.granted:
            return True
        if now + permit.wait >= deadline:
            if optional:
                return False
            raise CircuitOpen(
                f"the connection is pausing; its next slot is {permit.wait:.0f} s away, beyond the deadline",
                retry_after=permit.wait,
            )
        if permit.wait > 0.0:
            yield WaitForSlot(permit.wait, throttle, raises)
        if permit.granted and throttle.raises != raises:
            throttle.give_back()  # at the higher rate there is an earlier one
        elif permit.granted and not throttle.holds(clock.monotonic()):
            return True
    raise unsent("the total time for the request ran out before it could be sent")


def _wait_for_slot(
    connection: Connection, sharing: Sharing, deadline: float, *, optional: bool, has_permit: bool
) -> EffectFlow[bool]:
    """Wait for a permit as `_wait_for_permit` does, and then for a slot that is shared with other processes."""
    clock, throttle = connection.clock, connection.throttle
    while has_permit or (yield from _wait_for_permit(connection, deadline, optional=optional)):
        has_permit = has_slot = is_granted = False
        try:
            while (now := clock.monotonic()) < deadline and not throttle.holds(now):
                raises = throttle.raises
                permit = sharing.take(now, deadline, has_slot=has_slot)
                if permit is None:
                    yield RunBlocking(sharing.renew)
                    continue
                is_granted = permit.granted and permit.wait == 0.0
                if is_granted:
                    return True
                if now + permit.wait >= deadline:
                    if optional:
                        return False
                    raise CircuitOpen(
                        f"the connection is pausing; its next slot is {permit.wait:.0f} s away, beyond the deadline: "
                        f"{sharing.reason}",
                        retry_after=permit.wait,
                    )
                has_slot = has_slot or permit.granted
                yield Sleep(permit.wait) if permit.granted else WaitForSlot(permit.wait, throttle, raises)
        finally:
            if not is_granted:
                throttle.give_back()
    return False


def unsent(message: str) -> DeadlineExceeded:
    """Return the error for a request whose time ran out before any byte of it was sent."""
    error = DeadlineExceeded(message)
    error.written = False
    return error


def _send(  # noqa: C901  # as `with_policies`
    connection: Connection,
    request: Request,
    credential: Credential | None,
    deadline: float,
    context: tuple[str, PollTrace | None, int],
) -> EffectFlow[_Attempt]:
    """Send a request once; raise `SubmitUncertain` if the vendor may or may not have accepted a submission.

    The context is how the request is counted, the trace that collects it, and how often it was sent before.
    """
    clock = connection.clock
    kind, trace, _ = context
    connection.counters.requests[kind] += 1
    if credential is not None:
        request = _with_headers(request, credential.headers)
        request = _signed(connection, request) if connection.signs else request
    is_observed = trace is not None or connection.observers.callbacks or REQUESTS.isEnabledFor(logging.DEBUG)
    sent_at = (clock.now(), clock.monotonic()) if is_observed else None
    try:
        if request.starts_work:
            yield BeforeSubmit(request.recovery_token)
        limit = deadline if request.long_poll is None else min(deadline, clock.monotonic() + request.long_poll)
        response = yield Send(request, limit, connection.max_body)
    except (TransportError, ContractError) as error:
        attempt = _failed(connection, request, error)
    except BaseException:
        if not request.external:
            connection.throttle.abandoned()
        raise
    else:
        response.authorized = request.authorized or kind == TOKEN.kind
        attempt = _responded(connection, request, response)
        if connection.sharing is not None and response.status in _SLOW_DOWN and not request.external:
            yield RunBlocking(connection.sharing.report_pause)
    if sent_at is not None:
        _report(connection, request, attempt, context, sent_at)
    if request.starts_work and (doubt := uncertain_after(attempt.response, attempt.error)) is not None:
        raise doubt from attempt.error
    if attempt.error is not None:
        connection.counters.failures += 1
    return attempt


def _with_headers(request: Request, headers: Mapping[str, str]) -> Request:
    """Return a request with further header fields; `replace` takes three times as long, and each poll needs one."""
    return Request(
        request.method,
        request.url,
        {**request.headers, **headers},
        request.body,
        request.idempotent,
        request.authorized,
        request.long_poll,
        request.response_type,
        request.save_to,
        request.new_connection,
        request.starts_work,
        request.recovery_token,
        request.external,
        request.public_only,
        request.read_once,
    )


def _signed(connection: Connection, request: Request) -> Request:
    """Return a request with the provider's signature."""
    try:
        now = connection.clock.now()
        signed = call_provider(connection, lambda: connection.provider.sign(request, now), "while signing")
        if isinstance(signed, Request):  # pyright: ignore[reportUnnecessaryIsInstance]  # plugin code
            return signed
        raise broken_provider(connection, "sign returned no Request")
    except TaskbridgeError:
        if not request.external:
            connection.throttle.abandoned()  # nothing was sent
        raise


def _failed(connection: Connection, request: Request, error: TransportError | ContractError) -> _Attempt:
    """Record that a request got no usable response."""
    if not request.external:
        if isinstance(error, TruncatedResponse) and error.stale:
            connection.throttle.abandoned()  # a kept connection that was closed says nothing about the vendor
        else:
            connection.throttle.failed(connection.clock.monotonic())
            report_failure(connection, request.url, error)
    if isinstance(error, ContractError):
        return _Attempt(None, error, error.repeats)
    return _Attempt(None, error, _BY_POLICY if error.retryable else 0)


def _responded(connection: Connection, request: Request, response: Response) -> _Attempt:
    """Record a response, and decide what it is worth before the flow sees it."""
    status, throttle = response.status, connection.throttle
    pause: float | None = None
    if status >= 400 or request.external or "retry-after" in response.headers:
        pause = response.retry_after = parse_retry_after(response.headers, response.received_at)
    if not request.external:
        now = connection.clock.monotonic()
        if status == 429 or (status == 503 and pause is not None):
            connection.counters.slowed_down += 1
            throttle.slow_down(now, None if pause is None else min(pause, MAX_PAUSE))
        elif status >= 500:
            throttle.failed(now)
            report_failure(connection, request.url, ServerError("the vendor's server failed", http_status=status))
        else:
            throttle.answered(now, response.headers)
        if connection.outage is not None:
            report_response(connection)
    elif status < 500 and status != 429:
        connection.external_retries.earn()
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
    return _Attempt(response, is_good=True)


def _report(
    connection: Connection,
    request: Request,
    attempt: _Attempt,
    context: tuple[str, PollTrace | None, int],
    sent_at: tuple[datetime, float],
) -> None:
    """Notify observers of a request that has ended."""
    kind, trace, resends = context
    response, error, url = attempt.response, attempt.error, urlsplit(request.url)
    event = RequestEnded(
        time=sent_at[0],
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
        duration=connection.clock.monotonic() - sent_at[1],
    )
    if trace is not None:
        trace.requests.append(event)
    connection.observers.notify(event)
