"""A vendor in this process whose tasks follow a script: what a task is after so many seconds, and nothing else.

    with ScriptedVendor() as vendor:
        vendor.task("t1", {0: "pending", 30: "processing", 1200: "completed"}, text="Total: 12 EUR")
        with tb.connect("scripted") as client:
            client.result("t1", timeout=1800)      # twenty minutes, at once

There is no HTTP and no real time: the connections to it are clients like any other, with a provider of their own and a
`VirtualClock`. To rehearse what vendors do, in their own words, use their emulators.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self, cast
from urllib.parse import urlsplit

from taskbridge._config.defaults import TransportMaker, override_defaults
from taskbridge.models import Reason, Task, TaskFailure, TaskFile, TaskResult, TaskStatus
from taskbridge.provider.base import Provider, ProviderSettings, no_requests
from taskbridge.provider.capabilities import PLAIN_ID, Capabilities, Credential, IdKind
from taskbridge.provider.http import Flow, Request, Response
from taskbridge.provider.payload import Payload, StateTable, path_id, read_state
from taskbridge.provider.submission import Document, Submission
from taskbridge.testing.clock import VirtualClock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge._engine.connection import Connection
    from taskbridge.transport import AsyncTransport, Transport

__all__ = ["Scripted", "ScriptedVendor"]

_HOST: Final = "https://scripted.invalid"
_USUAL: Final[Mapping[float, str | int]] = MappingProxyType({0: "pending", 1: "processing", 5: "completed"})
_NEXT: Final[tuple[Mapping[float, str | int], Mapping[str, Any]]] = (_USUAL, MappingProxyType({}))
_NEUTRAL: Final = ("convert", "extract-pages", "extract-text", "merge", "render", "split")
_STATES: Final[StateTable] = {
    **{status.value: (status, None) for status in TaskStatus},
    **{f"{status.value}/{reason.value}": (status, reason) for status in TaskStatus for reason in Reason},
}


class ScriptedSettings(ProviderSettings):
    """A scripted connection has no settings of its own."""


class Scripted(Provider[ScriptedSettings]):
    """Translates what a `ScriptedVendor` says."""

    name = "scripted"
    title = "The scripted vendor"
    docs = "https://en.wikipedia.org/wiki/Test_double"
    Settings = ScriptedSettings
    capabilities = Capabilities(
        kinds=(IdKind(PLAIN_ID, example="t1"),),
        authentication="none",
        progress=True,
        reasons=tuple(Reason),
        operations={name: name for name in _NEUTRAL},
        inputs=frozenset({"path", "bytes", "stream", "url"}),
        many_inputs=frozenset({"merge"}),
        cancel=True,
        external_id=True,
    )

    @property
    def base_url(self) -> str:
        """An address that nobody answers at."""
        return _HOST

    def authorize(self) -> Flow[Credential]:
        """Nothing proves anything."""
        return no_requests(Credential({}))

    def get(self, task_id: str) -> Flow[Task]:
        """Look at a task."""
        return self._ask("GET", task_id)

    def cancel(self, task_id: str) -> Flow[Task]:
        """Stop a task."""
        return self._ask("DELETE", task_id)

    def submit(self, submission: Submission) -> Flow[Task]:
        """Begin a task."""
        names = [source.name for source in submission.sources if isinstance(source, Document)]
        said = {"operation": submission.native_operation, "names": names, "external_id": submission.external_id}
        response = yield self.request(
            "POST", "/tasks", json={**said, "options": dict(submission.options)}, starts_work=True
        )
        return self.task(self.payload(response))

    def _ask(self, method: str, task_id: str) -> Flow[Task]:
        _, native = self.split_id(task_id)
        response = yield self.request(method, f"/tasks/{path_id(native)}", idempotent=True)
        return self.task(self.payload(response))

    def task(self, payload: Payload) -> Task:
        """A task from the vendor's object."""
        word = payload.text("status")
        state = read_state(_STATES, word)
        result, error = None, None
        if state.status is TaskStatus.COMPLETED:
            files = tuple(TaskFile(name=each.maybe_text("name")) for each in payload.children("files"))
            text, data = payload.maybe_text("text"), payload.raw.get("data")
            result = TaskResult(files=files, text=text, data=data) if files or text is not None or data else None
        elif state.status is TaskStatus.FAILED:
            error = TaskFailure(code=payload.maybe_text("code"), message=payload.maybe_message("message"))
        return Task(
            provider=self.name,
            connection=payload.connection,
            observed_at=payload.observed_at,
            id=payload.text("id"),
            native_id=payload.text("id"),
            status=state.status,
            reason=state.reason,
            recognized=state.recognized,
            native_status=word,
            operation=payload.maybe_text("operation"),
            progress=payload.maybe_fraction("progress", 1.0),
            message=payload.maybe_message("message"),
            created_at=payload.maybe_time("created_at"),
            result=result,
            error=error,
            external_id=payload.maybe_text("external_id"),
            raw=payload.raw,
        )


@dataclass(slots=True)
class _Life:
    """A task of the scripted vendor."""

    born: float  # monotonic seconds
    script: Mapping[float, str | int]
    said: Mapping[str, Any]
    created_at: str
    stopped: bool = False

    def state(self, now: float) -> str | int:
        if self.stopped:
            return "failed/cancelled"
        return self.script[max(begin for begin in self.script if begin <= max(0.0, now - self.born))]

    def has_ended(self, now: float) -> bool:
        return str(self.state(now)).partition("/")[0] in ("completed", "failed")


@dataclass(slots=True)
class _Scripts:
    coming: list[tuple[Mapping[float, str | int], Mapping[str, Any]]] = field(default_factory=list[Any])
    lives: dict[str, _Life] = field(default_factory=dict[str, _Life])


class ScriptedVendor:
    """The vendor; a context manager, in which ``tb.connect("scripted")`` and configured connections reach it.

    Args:
        clock: The time that its tasks and all clients live in; None for a new one.
        inner: Makes the transports of connections to other vendors; None for real ones.

    Attributes:
        clock: That time.
        requests: What it was asked, in order.
    """

    def __init__(self, *, clock: VirtualClock | None = None, inner: TransportMaker | None = None) -> None:
        self.clock = clock or VirtualClock()
        self.requests: list[Request] = []
        self._inner = inner
        self._scripts = _Scripts()
        self._stack = ExitStack()

    def task(self, task_id: str, script: Mapping[float, str | int] = _USUAL, /, **said: Any) -> str:
        """Begin a task now; its id.

        Args:
            task_id: Its id.
            script: Seconds since now -> what it is from then on: a shared status, alone or with a reason
                (``completed/partial``), a word that no table knows, or an HTTP status that look-ups end with. Begins
                at 0.
            said: What the vendor says of it beside: ``operation``, ``progress`` (0.0 to 1.0), ``message``, ``code`` (of
                a failure), ``external_id``; of a completed task ``text``, ``data``, and ``files`` (a list of names).

        Raises:
            ValueError: The script does not begin at 0, or what is said is unknown.
        """
        _check(script, said)
        self._scripts.lives[task_id] = self._life(script, said)
        return task_id

    def plan_next(self, script: Mapping[float, str | int] = _USUAL, /, **said: Any) -> None:
        """Give the next submitted task this script; several are taken first in first out.

        Args:
            script: See `task`.
            said: See `task`.

        Raises:
            ValueError: See `task`.
        """
        _check(script, said)
        self._scripts.coming.append((dict(script), said))

    def _life(self, script: Mapping[float, str | int], said: Mapping[str, Any]) -> _Life:
        files = [{"name": name} for name in said.get("files", ())]
        clock = self.clock
        return _Life(clock.monotonic(), dict(script), {**said, "files": files}, clock.now().isoformat())

    # What the clients reach it by.

    def __enter__(self) -> Self:
        self._stack.enter_context(
            override_defaults(clock=self.clock, transports=self, providers={"scripted": Scripted})
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def transport(self, connection: Connection) -> Transport:
        """See `taskbridge.current_defaults.TransportMaker`."""
        return _Line(self) if isinstance(connection.provider, Scripted) else self._others().transport(connection)

    def async_transport(self, connection: Connection) -> AsyncTransport:
        """See `taskbridge.current_defaults.TransportMaker`."""
        return (
            _AsyncLine(self)
            if isinstance(connection.provider, Scripted)
            else self._others().async_transport(connection)
        )

    def _others(self) -> TransportMaker:
        from taskbridge.testing.virtual_connections import RealTransports  # noqa: PLC0415  # only beside other vendors

        return self._inner or RealTransports()

    def answer(self, request: Request) -> Response:
        """What it says to a request."""
        self.requests.append(request)
        if request.method == "POST":
            return self._say(self._begin(json.loads(cast("bytes", request.body))))
        name = urlsplit(request.url).path.rpartition("/")[2]
        life = self._scripts.lives.get(name)
        if life is None:
            return self._response(404, {"message": "there is no such task in the script"})
        if request.method == "DELETE" and not life.has_ended(self.clock.monotonic()):
            life.stopped = True
        return self._say(name)

    def _begin(self, order: Mapping[str, Any]) -> str:
        script, said = self._scripts.coming.pop(0) if self._scripts.coming else _NEXT
        name = f"s{len(self._scripts.lives) + 1}"
        known = {key: order[key] for key in ("operation", "external_id") if order[key] is not None}
        self._scripts.lives[name] = self._life(script, {**known, **said})
        return name

    def _say(self, name: str) -> Response:
        life = self._scripts.lives[name]
        state = life.state(self.clock.monotonic())
        if isinstance(state, int):
            return self._response(state, {"message": "as the script says"})
        return self._response(200, {**life.said, "id": name, "status": state, "created_at": life.created_at})

    def _response(self, status: int, document: Mapping[str, Any]) -> Response:
        return Response(status, {}, json.dumps(document).encode(), self.clock.now())


_SAID: Final = frozenset({"operation", "progress", "message", "code", "external_id", "text", "data", "files"})


def _check(script: Mapping[float, str | int], said: Mapping[str, Any]) -> None:
    if min(script, default=None) != 0:
        raise ValueError(f"a script begins at 0 seconds and has no earlier ones, as in {dict(_USUAL)}")
    if unknown := sorted(set(said) - _SAID):
        raise ValueError(f"a scripted task says {', '.join(sorted(_SAID))}, not {', '.join(unknown)}")


class _Line:
    def __init__(self, vendor: ScriptedVendor) -> None:
        self._vendor = vendor

    def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        del deadline, max_body
        return self._vendor.answer(request)

    def close(self) -> None:
        """Nothing is kept."""


class _AsyncLine:
    def __init__(self, vendor: ScriptedVendor) -> None:
        self._vendor = vendor

    async def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        del deadline, max_body
        return self._vendor.answer(request)

    async def close(self) -> None:
        """Nothing is kept."""
