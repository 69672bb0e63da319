"""A vendor's answers for the conformance suite: recorded from an emulator, or written down by a plugin's author."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import taskbridge as tb
from taskbridge._config.connections import connection_settings
from taskbridge._config.files import ConnectionConfig
from taskbridge._config.registry import load_provider
from taskbridge._engine.connection import Connection
from taskbridge._engine.throttle import Throttle
from taskbridge._transport.requests import RequestsTransport
from taskbridge.provider.clock import SystemClock
from taskbridge.provider.http import Flow, Request, Response
from taskbridge.testing.clock import VirtualClock
from taskbridge.testing.transport import Answer, Script, ScriptedTransport
from taskbridge.transport import Network

if TYPE_CHECKING:
    from taskbridge.provider.base import Provider

__all__ = [
    "NEW_NUMBER",
    "NEW_WORD",
    "Recording",
    "Sample",
    "answered",
    "asks",
    "connection_of",
    "client_of",
    "emulator_of",
    "endless",
    "rested",
    "with_word",
]

T = TypeVar("T")

TIME_LIMIT: Final = 5.0  # seconds of real time for one answer of an emulator
MOST_REQUESTS: Final = 32  # of one operation; more counts as endless, as in the core

NEW_WORD: Final = "Xyzzy-by-the-vendor"
"""A status word that no vendor has."""
NEW_NUMBER: Final = 987_654
"""A status number that no vendor has."""


def emulator_of(provider: str, speed: float) -> Any:
    """An emulator of a vendor, not yet started; None where none is installed, or the extra for it is not.

    One that is installed and cannot be imported raises what its import raises: it is not passed over.

    Args:
        provider: Entry-point name of the provider.
        speed: Vendor seconds per real second.
    """
    try:
        from taskbridge.emulator.shell import Emulator, emulators  # noqa: PLC0415  # needs an extra
    except ImportError:
        return None
    return Emulator(provider, speed=speed) if provider in emulators() else None


@dataclass(frozen=True, slots=True)
class Sample:
    """One task of the vendor, and what the vendor answers about it.

    Attributes:
        task_id: The shared id.
        answers: The answers to one look-up, in order.
    """

    task_id: str
    answers: tuple[Response, ...]


@dataclass(frozen=True, slots=True)
class Recording:
    """What an emulator answers about its sample tasks, and to a login."""

    samples: Mapping[str, Sample]
    logins: tuple[Response, ...]

    @classmethod
    def of(cls, provider: str, emulator: Any) -> Recording:
        """Ask a running emulator for its samples.

        Args:
            provider: Entry-point name of the provider.
            emulator: A running `taskbridge.testing.Emulator` of that vendor.
        """
        connection = connection_of(provider, emulator.settings(provider))
        translator = connection.provider
        transport = RequestsTransport(Network())
        try:
            credential, logins = recorded(transport, connection, translator.authorize(), {})
            samples = {
                label: Sample(task_id, recorded(transport, connection, translator.get(task_id), credential.headers)[1])
                for label, task_id in emulator.samples(provider).items()
            }
        finally:
            transport.close()
        return cls(samples, logins)


def recorded(
    transport: RequestsTransport, connection: Connection, flow: Flow[T], credential: Mapping[str, str]
) -> tuple[T, tuple[Response, ...]]:
    """What a flow makes of a vendor's answers, and those answers."""
    answers: list[Response] = []

    def send(request: Request) -> Response:
        whole = replace(request, headers={**request.headers, **credential}) if request.authorized else request
        deadline = SystemClock().monotonic() + TIME_LIMIT
        answers.append(transport.send(whole, deadline=deadline, max_body=connection.max_body))
        return answers[-1]

    return driven(flow, send), tuple(answers)


def answered(flow: Flow[T], answers: Sequence[Response]) -> T:
    """What a flow makes of these answers."""
    left = iter(answers)

    def send(request: Request) -> Response:
        answer = next(left, None)
        if answer is None:
            raise AssertionError(f"the flow asks once more than the vendor was asked: {request!r}")
        return answer

    return driven(flow, send)


def driven(flow: Flow[T], send: Callable[[Request], Response]) -> T:
    try:
        request = next(flow)
        for _ in range(MOST_REQUESTS):
            request = flow.send(send(request))
    except StopIteration as end:
        return cast("T", end.value)
    finally:
        flow.close()
    raise AssertionError(f"one operation sent more than {MOST_REQUESTS} requests")


def asks(flow: Flow[Any]) -> bool:
    """Whether a flow sends a request at all."""
    try:
        next(flow)
    except (StopIteration, tb.ContractError):
        return False
    finally:
        flow.close()
    return True


def endless(connection: Connection, sample: Sample) -> Callable[[Request], Answer]:
    """Answers each look-up anew, and any other request with an object that no status answer is."""
    paths: dict[str, Response] = {}
    flow = connection.provider.get(sample.task_id)
    try:
        request = next(flow)
        for answer in sample.answers:
            paths[request.url] = answer
            request = flow.send(answer)
    except StopIteration:
        pass
    finally:
        flow.close()
    return lambda request: paths.get(request.url, Response(200, {}, b'{"made": ["of", "this"]}'))


def connection_of(provider: str, settings: Mapping[str, Any]) -> Connection:
    """A connection with pauses that no test minds.

    Args:
        provider: Entry-point name of the provider.
        settings: Keywords for `taskbridge.connect`.
    """
    quick = {"retry": {"first": 0.0}, "poll": {"interval": 0.01}}
    kind = _loaded(provider)
    common, own = connection_settings(ConnectionConfig(provider, provider, {**quick, **settings}), kind)
    clock = SystemClock()
    return Connection(provider, kind(own, provider), common, Throttle(None, clock.random), clock)


@cache
def _loaded(provider: str) -> type[Provider[Any]]:
    return load_provider(provider)


def client_of(connection: Connection, script: Script) -> tuple[tb.Client, ScriptedTransport]:
    """A client whose vendor is a script, and the record of what it sent.

    Args:
        channel: The connection.
        script: What the vendor answers.
    """
    transport = ScriptedTransport(script)
    return tb.Client(connection, clock=rested(connection), transport=transport), transport


def rested(connection: Connection) -> VirtualClock:
    """Give the connection a new clock and forget what it went through."""
    connection.clock = clock = VirtualClock(now=SystemClock().now())
    connection.throttle = Throttle(None, clock.random)
    connection.resume()
    return clock


def with_word(answer: Response, word: str | None, fields: Sequence[str]) -> Response:
    """The same answer with a status word that nobody knows.

    Args:
        answer: A look-up's answer.
        word: The vendor's word in it.
        fields: Names of the fields that hold it; empty for every field with that value.
    """
    document = json.loads(answer.body)
    body = json.dumps(_replaced(document, word, fields)).encode()
    return Response(answer.status, answer.headers, body, answer.received_at)


def _replaced(value: Any, word: str | None, fields: Sequence[str], key: str = "") -> Any:
    if isinstance(value, dict):
        pairs = cast("dict[str, Any]", value)
        return {k: _replaced(v, word, fields, k) for k, v in pairs.items()}
    if isinstance(value, list):
        return [_replaced(v, word, fields) for v in value]  # pyright: ignore[reportUnknownVariableType]  # any JSON
    holds_it = key in fields if fields else value == word
    if not holds_it or value is None:
        return value
    return NEW_NUMBER if isinstance(value, int) else NEW_WORD
