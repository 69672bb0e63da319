"""A vendor in this process whose tasks follow a script: which status a task has after how many seconds.

    with ScriptedVendor() as vendor:
        vendor.task("t1", {0: "pending", 30: "processing", 1200: "completed"}, text="Total: 12 EUR")
        with tb.connect("scripted") as client:
            client.result("t1", timeout=1800)      # twenty minutes, instantly

It uses no HTTP and no real time: its clients are ordinary clients, with a provider of their own and a `VirtualClock`.
To test what real vendors do, in their own words, use their emulators.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias, cast
from urllib.parse import urlsplit

from taskbridge._config.defaults import TransportMaker, override_defaults
from taskbridge._lazy import LazyFields, LazyPages
from taskbridge.models import Reason, Task, TaskFailure, TaskFile, TaskResult, TaskStatus
from taskbridge.provider.base import Provider, ProviderSettings, no_requests
from taskbridge.provider.capabilities import PLAIN_ID, Accepts, Capabilities, Credential, IdKind
from taskbridge.provider.http import Flow, Request, Response
from taskbridge.provider.options import NEUTRAL_OPTIONS
from taskbridge.provider.payload import Payload, StateTable, path_id
from taskbridge.provider.submission import Document, Submission
from taskbridge.testing.clock import VirtualClock
from taskbridge.testing.transport import AsyncScriptedTransport, ScriptedTransport

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge._config.defaults import TransportContext
    from taskbridge.transport import AsyncTransport, Transport

    TaskScript: TypeAlias = Mapping[float, str | int]

_HOST: Final = "https://scripted.invalid"
_DEFAULT_SCRIPT: Final[TaskScript] = MappingProxyType({0: "pending", 1: "processing", 5: "completed"})
_DEFAULT_PLAN: Final[tuple[TaskScript, Mapping[str, Any]]] = (_DEFAULT_SCRIPT, MappingProxyType({}))
_OPERATIONS: Final = ("convert", "extract-pages", "extract-text", "merge", "render", "split")
_STATES: Final[StateTable] = {
    **{status.value: (status, None) for status in TaskStatus},
    **{f"{status.value}/{reason.value}": (status, reason) for status in TaskStatus for reason in Reason},
}


class ScriptedSettings(ProviderSettings):
    """A scripted connection has no settings of its own."""


class Scripted(Provider[ScriptedSettings]):
    """The provider of a `ScriptedVendor`."""

    name = "scripted"
    title = "The scripted vendor"
    docs = "https://en.wikipedia.org/wiki/Test_double"
    Settings = ScriptedSettings
    capabilities = Capabilities(
        kinds=(IdKind(PLAIN_ID, example="t1"),),
        authentication="none",
        progress=True,
        reasons=tuple(Reason),
        operations={name: name for name in _OPERATIONS},
        inputs=frozenset({"path", "bytes", "stream", "url"}),
        accepts={"merge": Accepts(several=True)},
        options={operation: {name: name for name in names} for operation, names in NEUTRAL_OPTIONS.items()},
        cancel=True,
        external_id=True,
        result_parts={name: frozenset({"text", "pages", "fields"}) for name in _OPERATIONS},
    )

    @property
    def base_url(self) -> str:
        """An address that does not exist."""
        return _HOST

    def authorize(self) -> Flow[Credential]:
        """No credential."""
        return no_requests(Credential({}))

    def get(self, task_id: str) -> Flow[Task]:
        """Get a task."""
        return self._task_request("GET", task_id)

    def cancel(self, task_id: str) -> Flow[Task]:
        """Cancel a task."""
        return self._task_request("DELETE", task_id)

    def submit(self, submission: Submission) -> Flow[Task]:
        """Create a task."""
        body = {
            "operation": submission.native_operation,
            "names": [source.name for source in submission.sources if isinstance(source, Document)],
            "external_id": submission.external_id,
            "options": dict(submission.options),
        }
        response = yield self.request("POST", "/tasks", json=body, starts_work=True)
        return self.task(self.payload(response))

    def result(self, task: Task) -> Flow[TaskResult]:
        """The scripted result, with its pages and fields."""
        from taskbridge.layout import DocumentField, DocumentPage  # noqa: PLC0415  # only for results

        result = yield from super().result(task)
        pages = LazyPages(lambda: task.raw.get("pages") or (), DocumentPage.from_dict)
        return replace(
            result, pages=pages, fields=LazyFields(lambda: task.raw.get("fields") or (), DocumentField.from_dict)
        )

    def _task_request(self, method: str, task_id: str) -> Flow[Task]:
        _, native = self.split_id(task_id)
        response = yield self.request(method, f"/tasks/{path_id(native)}", idempotent=True)
        return self.task(self.payload(response))

    def task(self, payload: Payload) -> Task:
        """Translate the vendor's object."""
        word = payload.text("status")
        state = self.state(_STATES, word)
        result, error = None, None
        if state.status is TaskStatus.COMPLETED:
            files = tuple(TaskFile(name=each.maybe_text("name")) for each in payload.children("files"))
            text, data = payload.maybe_text("text"), payload.raw.get("data")
            has_result = files or text is not None or data or payload.raw.get("pages") or payload.raw.get("fields")
            result = TaskResult(files=files, text=text, data=data) if has_result else None
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
class _ScriptedTask:
    submitted_at: float  # monotonic seconds
    script: TaskScript
    fields: Mapping[str, Any]
    created_at: str
    cancelled: bool = False

    def state(self, now: float) -> str | int:
        if self.cancelled:
            return "failed/cancelled"
        return self.script[max(start for start in self.script if start <= max(0.0, now - self.submitted_at))]

    def cancel(self, now: float) -> None:
        ended = str(self.state(now)).startswith(("completed", "failed"))
        self.cancelled = self.cancelled or not ended


class ScriptedVendor:
    """The vendor; a context manager, inside which ``tb.connect("scripted")`` and configured connections reach it.

    Args:
        clock: The time of its tasks and of all clients; None for a new one.
        inner: Makes the transports of connections to other vendors; None for real ones.

    Attributes:
        clock: That time.
        requests: The requests that it received, in order.
    """

    def __init__(self, *, clock: VirtualClock | None = None, inner: TransportMaker | None = None) -> None:
        self.clock = clock or VirtualClock()
        self.requests: list[Request] = []
        self._inner = inner
        self._planned: list[tuple[TaskScript, Mapping[str, Any]]] = []
        self._tasks: dict[str, _ScriptedTask] = {}
        self._stack = ExitStack()

    def task(self, task_id: str, script: TaskScript = _DEFAULT_SCRIPT, /, **fields: Any) -> str:
        """Create a task now, and return its id.

        Args:
            task_id: Its id.
            script: Seconds since now -> what it is from then on: a shared status, alone or with a reason
                (``completed/partial``), an unknown word, or an HTTP status with which requests for it fail. Starts at
                0.
            fields: What else the vendor returns: ``operation``, ``progress`` (0.0 to 1.0), ``message``, ``code`` (of a
                failure), ``external_id``; of a completed task ``text``, ``data``, ``files`` (a list of names), and
                ``pages`` and ``fields`` (lists of dictionaries, as `DocumentPage` and `DocumentField` have them).

        Raises:
            ValueError: The script does not start at 0, or a field is unknown.
        """
        _check(script, fields)
        self._tasks[task_id] = self._new_task(script, fields)
        return task_id

    def plan_next(self, script: TaskScript = _DEFAULT_SCRIPT, /, **fields: Any) -> None:
        """Use this script for the next submitted task, several first in first out; see `task` for the arguments."""
        _check(script, fields)
        self._planned.append((dict(script), fields))

    def _new_task(self, script: TaskScript, fields: Mapping[str, Any]) -> _ScriptedTask:
        files = [{"name": name} for name in fields.get("files", ())]
        clock = self.clock
        return _ScriptedTask(clock.monotonic(), dict(script), {**fields, "files": files}, clock.now().isoformat())

    # How clients reach it.

    def __enter__(self) -> Self:
        self._stack.enter_context(
            override_defaults(clock=self.clock, transports=self, providers={"scripted": Scripted})
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def transport(self, connection: TransportContext) -> Transport:
        """See `taskbridge._config.defaults.TransportMaker`."""
        if isinstance(connection.provider, Scripted):
            return ScriptedTransport(self.respond)
        return self._others().transport(connection)

    def async_transport(self, connection: TransportContext) -> AsyncTransport:
        """See `taskbridge._config.defaults.TransportMaker`."""
        if isinstance(connection.provider, Scripted):
            return AsyncScriptedTransport(self.respond)
        return self._others().async_transport(connection)

    def _others(self) -> TransportMaker:
        from taskbridge.testing.virtual_connections import RealTransports  # noqa: PLC0415  # only for other vendors

        return self._inner or RealTransports()

    def respond(self, request: Request) -> Response:
        """Return the vendor's response to a request."""
        self.requests.append(request)
        if request.method == "POST":
            return self._task_response(self._create(json.loads(cast("bytes", request.body))))
        task_id = urlsplit(request.url).path.rpartition("/")[2]
        if task_id not in self._tasks:
            return self._response(404, {"message": "there is no such task in the script"})
        if request.method == "DELETE":
            self._tasks[task_id].cancel(self.clock.monotonic())
        return self._task_response(task_id)

    def _create(self, submission: Mapping[str, Any]) -> str:
        script, fields = self._planned.pop(0) if self._planned else _DEFAULT_PLAN
        task_id = f"s{len(self._tasks) + 1}"
        known = {key: submission[key] for key in ("operation", "external_id") if submission[key] is not None}
        self._tasks[task_id] = self._new_task(script, {**known, **fields})
        return task_id

    def _task_response(self, task_id: str) -> Response:
        task = self._tasks[task_id]
        state = task.state(self.clock.monotonic())
        if isinstance(state, int):
            return self._response(state, {"message": "as scripted"})
        return self._response(200, {**task.fields, "id": task_id, "status": state, "created_at": task.created_at})

    def _response(self, status: int, document: Mapping[str, Any]) -> Response:
        return Response(status, {}, json.dumps(document).encode(), self.clock.now())


_FIELDS: Final = frozenset({"operation", "progress", "message", "code", "external_id", "text", "data", "files"}) | {
    "pages",
    "fields",
}


def _check(script: TaskScript, fields: Mapping[str, Any]) -> None:
    if min(script, default=None) != 0:
        raise ValueError(f"a script starts at 0 seconds and not earlier, as in {dict(_DEFAULT_SCRIPT)}")
    if unknown := sorted(set(fields) - _FIELDS):
        raise ValueError(f"a scripted task has the fields {', '.join(sorted(_FIELDS))}, not {', '.join(unknown)}")
