"""A small vendor, its provider and its emulator; each file beside this one changes one thing about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from pydantic import SecretStr
from starlette.requests import Request as HttpRequest
from starlette.responses import Response as HttpResponse
from starlette.routing import BaseRoute

from taskbridge.emulator import Host, Plan, VendorEmulator
from taskbridge.emulator.helpers import (
    ErrorResponse,
    FormPart,
    JsonObject,
    Life,
    multipart_parts,
    random_text,
    routes,
    to_json,
)
from taskbridge.models import Task, TaskFailure, TaskResult, TaskStatus
from taskbridge.provider import (
    PLAIN_ID,
    Body,
    Capabilities,
    Credential,
    Document,
    Downloads,
    Flow,
    IdKind,
    Payload,
    Provider,
    ProviderSettings,
    StateTable,
    Submission,
    Upload,
    no_requests,
    path_id,
)

STATES: Final[StateTable] = {
    "waiting": (TaskStatus.PENDING, None),
    "working": (TaskStatus.PROCESSING, None),
    "done": (TaskStatus.COMPLETED, None),
    "broken": (TaskStatus.FAILED, None),
}


class PlainSettings(ProviderSettings):
    """Settings of a connection to the vendor."""

    api_key: SecretStr
    """API key."""
    base_url: str = "https://plain.test/v1"
    """Base URL of the API."""


class PlainProvider(Provider[PlainSettings]):
    """One task reads one document; its text is in the status."""

    name = "plain"
    title = "Plain"
    docs = "https://plain.test/docs"
    Settings = PlainSettings
    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=(IdKind(PLAIN_ID, example="t1"),),
        authentication="API key",
        operations={"extract-text": "read"},
        inputs=frozenset({"bytes", "path", "stream"}),
        downloads=Downloads(("text",)),
        result_parts={"extract-text": frozenset({"text"})},
    )

    def authorize(self) -> Flow[Credential]:
        return no_requests(Credential({"X-Key": self.settings.api_key.get_secret_value()}))

    def submit(self, submission: Submission) -> Flow[Task]:
        request = self.request("POST", "/tasks", body=self.body(submission), starts_work=True)
        return self.task(self.payload((yield request)))

    def get(self, task_id: str) -> Flow[Task]:
        return self.task(self.payload((yield self.request("GET", f"/tasks/{path_id(task_id)}"))), task_id)

    def body(self, submission: Submission) -> Body:
        [document] = submission.sources
        assert isinstance(document, Document)
        return Upload((), "file", document.name, document.content)

    def task(self, payload: Payload, task_id: str | None = None, **more: Any) -> Task:
        word = payload.text("state")
        state = self.state(STATES, word)
        text = payload.maybe_text("text")
        facts: dict[str, Any] = {
            "id": task_id or payload.identifier("id"),
            "native_id": payload.identifier("id"),
            "status": state.status,
            "recognized": state.recognized,
            "native_status": word,
            "error": TaskFailure(message="it cannot be read") if state.status is TaskStatus.FAILED else None,
            "result": TaskResult(text=text) if text and state.status is TaskStatus.COMPLETED else None,
            "raw": payload.raw,
        }
        return Task(
            provider=self.name,
            connection=payload.connection,
            observed_at=payload.observed_at,
            **{**facts, **more},
        )


@dataclass(slots=True)
class PlainTask:
    """A task at the vendor."""

    id: str
    life: Life
    documents: list[FormPart] = field(default_factory=list[FormPart])
    fetched_at: float | None = None  # vendor seconds


class PlainEmulator(VendorEmulator):
    """The emulated vendor."""

    name = "plain"

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.key = random_text(host.random, 32)
        self.tasks: dict[str, PlainTask] = {}
        self._samples = {
            label: self.add(plan, age=3600).id
            for label, plan in {
                "completed": Plan(),
                "failed": Plan(outcome="failed"),
                "working": Plan(outcome="stuck"),
            }.items()
        }

    def mounts(self) -> Mapping[str, Sequence[BaseRoute]]:
        return {"plain": routes([(method, f"/v1{path}", call) for method, path, call in self.calls()], self.check)}

    def calls(self) -> list[tuple[str, str, Callable[..., Any]]]:
        return [("POST", "/tasks", self.create), ("GET", "/tasks/{id}", self.status)]

    def settings(self) -> Mapping[str, str]:
        return {"api_key": self.key, "base_url": f"{self.host.base_url}/plain/v1"}

    def samples(self) -> Mapping[str, str]:
        return self._samples

    def check(self, request: HttpRequest) -> None:
        if request.headers.get("x-key") != self.key:
            raise refuse(401, "who are you?")

    async def create(self, request: HttpRequest) -> HttpResponse:
        parts = multipart_parts(await request.body(), request.headers.get("content-type", ""))
        documents = [part for name, part in parts if name == "file"]
        if not documents:
            raise refuse(422, "no document")
        task = self.add(self.host.take_plan(documents[0].filename or ""))
        task.documents = documents
        return to_json(self.show(task), 201)

    async def status(self, request: HttpRequest) -> HttpResponse:
        return to_json(self.show(self.find(request)))

    def add(self, plan: Plan, age: float = 0.0) -> PlainTask:
        task = PlainTask(f"t{random_text(self.host.random, 12)}", Life(self.host.clock.time() - age, plan))
        self.tasks[task.id] = task
        return task

    def find(self, request: HttpRequest) -> PlainTask:
        task = self.tasks.get(request.path_params["id"])
        if task is None:
            raise refuse(404, "no such task")
        return task

    def state(self, task: PlainTask) -> str:
        words = {"queued": "waiting", "working": "working", "review": "working"}
        end = "broken" if task.life.plan.outcome == "failed" else "done"
        return words.get(task.life.phase(self.host.clock.time()), end)

    def show(self, task: PlainTask) -> JsonObject:
        shown: JsonObject = {"id": task.id, "state": self.state(task)}
        return {**shown, "text": self.text(task)} if shown["state"] == "done" else shown

    def text(self, task: PlainTask) -> str:
        return f"words of {len(task.documents) or 1} document(s)"


def refuse(status: int, message: str) -> ErrorResponse:
    return ErrorResponse(to_json({"message": message}, status))
