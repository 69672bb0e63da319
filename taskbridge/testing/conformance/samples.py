"""A vendor's responses for the conformance suite: recorded from an emulator, or written by the plugin's author."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

import taskbridge as tb
from taskbridge._config.connections import connection_settings
from taskbridge._config.defaults import current_defaults
from taskbridge._config.files import ConnectionConfig
from taskbridge._config.registry import load_provider
from taskbridge._engine.connection import Connection
from taskbridge._engine.kept_results import KeptResults
from taskbridge._engine.throttle import Throttle
from taskbridge._transport.requests import RequestsTransport
from taskbridge.provider.clock import SystemClock
from taskbridge.provider.http import Flow, Request, Response
from taskbridge.testing.clock import VirtualClock
from taskbridge.testing.transport import Answer, Script, ScriptedTransport
from taskbridge.transport import Network

if TYPE_CHECKING:
    from taskbridge.emulator.vendor import VendorEmulator
    from taskbridge.provider.base import Provider

T = TypeVar("T")

TIME_LIMIT: Final = 5.0  # seconds of real time for one response of an emulator
MOST_REQUESTS: Final = 32  # of one operation; more counts as endless, as in the core

UNKNOWN_WORD: Final = "Xyzzy-by-the-vendor"
"""A status word that no vendor has."""
UNKNOWN_NUMBER: Final = 987_654
"""A status number that no vendor has."""
UNKNOWN_HTTP_STATUS: Final = 201
"""A successful HTTP status with which no vendor answers a status request."""
UNKNOWN_STATUSES: Final = (UNKNOWN_WORD, str(UNKNOWN_NUMBER), str(UNKNOWN_HTTP_STATUS))
"""All of them, as a task shows them."""


def find_emulator(provider: str, speed: float, kind: type[VendorEmulator] | None = None) -> Any:
    """Return an emulator of a vendor, not yet started: of this class, or the installed one.

    It is None if none is installed, or its extra is missing. If an emulator is installed but cannot be imported, the
    import's error is raised.
    """
    try:
        from taskbridge.emulator.shell import Emulator, emulators  # noqa: PLC0415  # needs an extra
    except ImportError:
        return None
    if kind is not None:
        return Emulator(provider, speed=speed, vendors={provider: kind})
    return Emulator(provider, speed=speed) if provider in emulators() else None


@dataclass(frozen=True, slots=True)
class Sample:
    """One task of the vendor, and the vendor's responses about it.

    Attributes:
        task_id: The shared id.
        responses: The responses to one ``get``, in order.
    """

    task_id: str
    responses: tuple[Response, ...]


Samples: TypeAlias = Mapping[str, Sample]
"""Tasks by label."""


@dataclass(frozen=True, slots=True)
class RecordedSamples:
    """An emulator's responses about its sample tasks, and to the requests of ``authorize``."""

    samples: Samples
    login_responses: tuple[Response, ...]

    @classmethod
    def of(cls, provider: str, emulator: Any) -> RecordedSamples:
        """Record the samples of a running `taskbridge.testing.Emulator` of a vendor."""
        connection = connection_of(provider, emulator.settings(provider))
        implementation = connection.provider
        with closing(RequestsTransport(Network())) as transport:
            credential, logins = run_flow_at(transport, connection, implementation.authorize(), {})
            samples: dict[str, Sample] = {}
            for label, task_id in emulator.samples(provider).items():
                flow = implementation.get(task_id)
                samples[label] = Sample(task_id, run_flow_at(transport, connection, flow, credential.headers)[1])
        return cls(samples, logins)


def run_flow_at(
    transport: RequestsTransport, connection: Connection, flow: Flow[T], credential: Mapping[str, str]
) -> tuple[T, tuple[Response, ...]]:
    """Run a flow against a real server; return its result and the responses."""
    responses: list[Response] = []

    def send(request: Request) -> Response:
        whole, clock = request, SystemClock()
        if request.authorized:
            whole = connection.provider.sign(replace(request, headers={**request.headers, **credential}), clock.now())
        deadline = clock.monotonic() + TIME_LIMIT
        responses.append(transport.send(whole, deadline=deadline, max_body=connection.max_body))
        return responses[-1]

    return _run(flow, send), tuple(responses)


def run_flow(flow: Flow[T], responses: Sequence[Response]) -> T:
    """Run a flow with these responses; return its result."""
    remaining = iter(responses)

    def send(request: Request) -> Response:
        response = next(remaining, None)
        if response is None:
            raise AssertionError(f"the flow sends one request more than was recorded: {request!r}")
        return response

    return _run(flow, send)


def _run(flow: Flow[T], send: Callable[[Request], Response]) -> T:
    try:
        request = next(flow)
        for _ in range(MOST_REQUESTS):
            request = flow.send(send(request))
    except StopIteration as end:
        return cast("T", end.value)
    finally:
        flow.close()
    raise AssertionError(f"one operation sent more than {MOST_REQUESTS} requests")


def sends_requests(flow: Flow[Any]) -> bool:
    """Return whether a flow sends any request."""
    with closing(flow), suppress(StopIteration, tb.ContractError):
        next(flow)
        return True
    return False


def takes_more(flow: Flow[Any], responses: Sequence[Response]) -> bool:
    """Return whether a flow sends a request more than there are responses."""
    with closing(flow), suppress(StopIteration):
        next(flow)
        for response in responses:
            flow.send(response)
        return True
    return False


def endless_responses(connection: Connection, sample: Sample) -> Callable[[Request], Answer]:
    """Return a script that answers each ``get`` again, and any other request with an object that is not a status."""
    by_url: dict[str, Response] = {}
    with closing(connection.provider.get(sample.task_id)) as flow, suppress(StopIteration):
        request = next(flow)
        for response in sample.responses:
            by_url[request.url] = response
            request = flow.send(response)
    return lambda request: by_url.get(request.url, Response(200, {}, b'{"made": ["of", "this"]}'))


def connection_of(provider: str, settings: Mapping[str, Any]) -> Connection:
    """Return a connection with pauses short enough for tests; the settings are keywords of `taskbridge.connect`."""
    quick = {"retry": {"first": 0.0}, "poll": {"interval": 0.01}}
    kind = _loaded(provider)
    common, own = connection_settings(ConnectionConfig(provider, provider, {**quick, **settings}), kind)
    return Connection(provider, kind(own, provider), common, SystemClock())


def _loaded(provider: str) -> type[Provider[Any]]:
    return current_defaults().providers.get(provider) or _installed(provider)


@cache
def _installed(provider: str) -> type[Provider[Any]]:
    return load_provider(provider)


def scripted_client(connection: Connection, script: Script) -> tuple[tb.Client, ScriptedTransport]:
    """Return a client whose vendor is a script, and the transport that records what it sends."""
    transport = ScriptedTransport(script)
    return tb.Client(connection, clock=reset_connection(connection), transport=transport), transport


def reset_connection(connection: Connection) -> VirtualClock:
    """Give the connection a new clock, which is returned, and a new throttle; forget a refusal and kept results."""
    connection.clock = clock = VirtualClock(now=SystemClock().now())
    connection.throttle = Throttle(None, clock.random)
    connection.credentials.refusal = None
    connection.kept_results = KeptResults()
    return clock


def with_unknown_status(response: Response, word: str | None, fields: Sequence[str]) -> Response:
    """Return the response to a ``get`` with an unknown status in these fields, or else wherever it has ``word``.

    Where the vendor tells the state by the HTTP status or by a header, that is replaced instead. A response without
    JSON, such as a redirect, stays as it is.
    """
    try:
        document = json.loads(response.body)
    except ValueError:
        return response
    replaced = _replaced(document, word, fields)
    body = response.body if replaced == document else json.dumps(replaced).encode()
    status = UNKNOWN_HTTP_STATUS if word == str(response.status) and not fields else response.status
    headers = {
        name: UNKNOWN_WORD if value == word and not fields else value for name, value in response.headers.items()
    }
    return Response(status, headers, body, response.received_at)


def _replaced(value: Any, word: str | None, fields: Sequence[str], key: str = "") -> Any:
    if isinstance(value, dict):
        pairs = cast("dict[str, Any]", value)
        return {k: _replaced(v, word, fields, k) for k, v in pairs.items()}
    if isinstance(value, list):
        return [_replaced(v, word, fields) for v in value]  # pyright: ignore[reportUnknownVariableType]  # any JSON
    matches = key in fields if fields else value == word
    if not matches or value is None:
        return value
    return UNKNOWN_NUMBER if isinstance(value, int) else UNKNOWN_WORD
