"""A small fictional vendor for the core tests, and connections to it without sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Final, Protocol

import pytest
from pydantic import SecretStr

import taskbridge as tb
from taskbridge import aio
from taskbridge._config.connections import connection_settings
from taskbridge._config.files import ConnectionConfig
from taskbridge._engine.connection import Connection
from taskbridge.models import Task, TaskFailure, TaskStatus
from taskbridge.provider.base import Provider, ProviderSettings, no_requests
from taskbridge.provider.capabilities import PLAIN_ID, Capabilities, Credential, IdKind
from taskbridge.provider.http import Flow, Request, Response
from taskbridge.provider.payload import Payload, StateTable, path_id
from taskbridge.testing import AsyncScriptedTransport, ScriptedTransport, VirtualClock
from taskbridge.testing.transport import Script

STATES: Final[StateTable] = {
    "waiting": (TaskStatus.PENDING, None),
    "working": (TaskStatus.PROCESSING, None),
    "done": (TaskStatus.COMPLETED, None),
    "broken": (TaskStatus.FAILED, None),
}


class AcmeSettings(ProviderSettings):
    """Settings of an Acme connection."""

    api_key: SecretStr
    """API key."""
    base_url: str = "https://acme.test/v1"
    """Address of the API."""
    sync_url: str | None = None
    """Address of the long poll."""
    token_life: float | None = None
    """Seconds that a token is valid; None for an API key without tokens."""


class Acme(Provider[AcmeSettings]):
    """A vendor that only has tasks."""

    name = "acme"
    title = "Acme"
    docs = "https://acme.test/docs"
    Settings = AcmeSettings
    capabilities = Capabilities(kinds=(IdKind(PLAIN_ID, example="t1"),), authentication="API key", long_poll=True)
    account_errors = frozenset({"no_account"})
    translated = 0
    """Number of payloads translated to tasks."""

    def authorize(self) -> Flow[Credential]:
        key = self.settings.api_key.get_secret_value()
        if self.settings.token_life is None:
            return no_requests(Credential({"X-Key": key}))
        return self._log_in(key, self.settings.token_life)

    def _log_in(self, key: str, life: float) -> Flow[Credential]:
        response = yield Request("POST", f"{self.base_url}/token", body=key.encode(), idempotent=True, authorized=False)
        payload = self.payload(response)
        return Credential({"X-Token": payload.text("token")}, response.received_at + timedelta(seconds=life))

    def get(self, task_id: str) -> Flow[Task]:
        return self._status_request(task_id, self.base_url, None)

    def long_poll(self, task_id: str) -> Flow[Task] | None:
        sync_url = self.settings.sync_url
        return None if sync_url is None else self._status_request(task_id, sync_url, 60.0)

    def _status_request(self, task_id: str, base: str, long_poll: float | None) -> Flow[Task]:
        _, native = self.split_id(task_id)
        response = yield self.request("GET", f"/tasks/{path_id(native)}", base=base, long_poll=long_poll)
        return self.task(self.payload(response), task_id)

    def task(self, payload: Payload, task_id: str) -> Task:
        self.translated += 1
        word = payload.text("state")
        state = self.state(STATES, word)
        return Task(
            provider=self.name,
            connection=payload.connection,
            observed_at=payload.observed_at,
            id=task_id,
            native_id=payload.text("id"),
            status=state.status,
            recognized=state.recognized,
            native_status=word,
            message=payload.maybe_message("message"),
            error=TaskFailure(message=payload.maybe_message("message")) if state.status is TaskStatus.FAILED else None,
            usage=payload.maybe_usage("pages", tb.UsageUnit.PAGES),
            raw=payload.raw,
        )


class AcmeHarness:
    """A connection to Acme, its clock, and the scripted vendor."""

    def __init__(self, connection: Connection, clock: VirtualClock, script: Script) -> None:
        self.connection = connection
        self.clock = clock
        self.transport = ScriptedTransport(script, clock=clock)
        self.client = tb.Client(connection, clock=clock, transport=self.transport)
        self._script = script

    def asynchronous(self) -> tuple[aio.Client, AsyncScriptedTransport]:
        transport = AsyncScriptedTransport(self._script, clock=self.clock)
        return aio.Client(self.connection, clock=self.clock, transport=transport), transport


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(pinned=0.5)


class Maker(Protocol):
    """Creates connections to Acme."""

    def __call__(
        self, script: Script = (), *, name: str = "acme", provider: type[Provider[Any]] = Acme, **settings: Any
    ) -> AcmeHarness: ...


@pytest.fixture
def acme(clock: VirtualClock) -> Iterator[Maker]:
    """Create connections: ``acme(script, name=…, provider=…, **settings)``. They are closed after the test."""
    made: list[AcmeHarness] = []

    def make(
        script: Script = (), *, name: str = "acme", provider: type[Provider[Any]] = Acme, **settings: Any
    ) -> AcmeHarness:
        values = {"api_key": "key-of-acme-123", **settings}
        common, own = connection_settings(ConnectionConfig(name, "acme", values), provider)
        made.append(AcmeHarness(Connection(name, provider(own, name), common, clock), clock, script))
        return made[-1]

    yield make
    for each in made:
        each.client.close()


@pytest.fixture
def acme_type() -> type[Acme]:
    """The provider class, for tests that modify it."""
    return Acme


@pytest.fixture
def says() -> Callable[..., Response]:
    """Build Acme's response about a task: ``says("t1", "done", message=…)``."""

    def build(task_id: str, state: str, /, **fields: Any) -> Response:
        return Response(200, {}, json.dumps({"id": task_id, "state": state, **fields}).encode())

    return build


class Interface:
    """The synchronous or the asynchronous client; each call opens a client, uses it and closes it."""

    def __init__(self, *, asynchronous: bool) -> None:
        self.asynchronous = asynchronous

    def call(self, provider: str, settings: Mapping[str, Any], method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method; return what an iterator yields as a list."""
        if self.asynchronous:
            return asyncio.run(self._await(provider, settings, method, *args, **kwargs))
        with tb.connect(provider, **settings) as client:
            result = getattr(client, method)(*args, **kwargs)
            return list(result) if method in _YIELDING else result

    async def _await(self, provider: str, settings: Mapping[str, Any], method: str, *args: Any, **kwargs: Any) -> Any:
        async with aio.connect(provider, **settings) as client:
            result = getattr(client, method)(*args, **kwargs)
            return [each async for each in result] if method in _YIELDING else await result


_YIELDING: Final = frozenset({"as_completed", "watch"})


@pytest.fixture(params=["synchronous", "asynchronous"])
def interface(request: pytest.FixtureRequest) -> Interface:
    """The synchronous, then the asynchronous client."""
    return Interface(asynchronous=request.param == "asynchronous")


@pytest.fixture
def interfaces() -> tuple[Interface, Interface]:
    """Both clients, to compare them."""
    return Interface(asynchronous=False), Interface(asynchronous=True)
