"""An emulator of the Acme Docs API v1, written from the vendor's documents; times in seconds, sizes in bytes.

It shares no table with the provider, or both would contain the same mistake. Behavior that no document states is marked
as assumed. Nothing happens between requests: a task's state is computed when a request comes in.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

from starlette.responses import Response
from taskbridge.emulator import Plan, VendorEmulator
from taskbridge.emulator.helpers import (
    ErrorResponse,
    JsonObject,
    Life,
    from_multipart,
    random_text,
    routes,
    to_json,
    utc_text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.requests import Request
    from starlette.routing import BaseRoute
    from taskbridge.emulator import Host

__all__ = ["AcmeDocsEmulator"]

PREFIX: Final = "acme-docs"
UPLOAD_LIMIT: Final = 5_000_000  # bytes of a document
OPERATIONS: Final = frozenset({"ocr", "convert"})

# HTTP status -> code and message of an error response.
ERRORS: Final[Mapping[int, tuple[str, str]]] = {
    401: ("bad_key", "The API key is not known."),
    404: ("not_found", "It does not exist."),
    413: ("too_large", "A document may have at most 5 MB."),
    422: ("bad_request", "A field is missing or invalid."),
}


@dataclass(slots=True)
class _Task:
    id: str
    operation: str
    name: str
    life: Life
    stopped: bool = False


class AcmeDocsEmulator(VendorEmulator):
    """The emulated Acme Docs."""

    name = "acme-docs"

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._key = random_text(host.random, 32)
        self._tasks: dict[str, _Task] = {}
        self._samples = self._make_samples()

    def mounts(self) -> Mapping[str, Sequence[BaseRoute]]:
        """The API calls that the provider makes."""
        table = [
            ("POST", "/v1/tasks", self._create),
            ("GET", "/v1/tasks", self._list),
            ("GET", "/v1/tasks/{id}", self._get),
            ("POST", "/v1/tasks/{id}/stop", self._stop),
            ("GET", "/v1/files/{id}", self._file),
        ]
        return {PREFIX: routes(table, self._check)}

    def settings(self) -> Mapping[str, str]:
        """The key, and the base URL up to ``/v1``."""
        return {"api_key": self._key, "base_url": f"{self.host.base_url}/{PREFIX}/v1"}

    def samples(self) -> Mapping[str, str]:
        """A task for each status and each kind of result."""
        return self._samples

    # Before every call.

    def _check(self, request: Request) -> None:
        if request.headers.get("x-api-key") != self._key:
            raise _error(401)

    # Calls.

    async def _create(self, request: Request) -> Response:
        form = from_multipart(await request.body(), request.headers.get("content-type", ""))
        if "document" not in form or "operation" not in form:
            raise _error(422)
        operation, document = form["operation"].data.decode(errors="replace"), form["document"]
        if operation not in OPERATIONS:
            raise _error(422)
        if len(document.data) > UPLOAD_LIMIT:
            raise _error(413)
        name = document.filename or "document"
        return to_json(self._show(self._add(operation, name, self.host.take_plan(name))), 201)

    async def _list(self, request: Request) -> Response:
        limit, start = int(request.query_params.get("limit", 20)), int(request.query_params.get("from", 0))
        newest = list(reversed(self._tasks.values()))
        shown = [self._show(task) for task in newest[start : start + limit]]
        next_start = str(start + limit) if start + limit < len(newest) else None
        return to_json({"tasks": shown, "next": next_start})

    async def _get(self, request: Request) -> Response:
        return to_json(self._show(self._task(request.path_params["id"])))

    async def _stop(self, request: Request) -> Response:
        task = self._task(request.path_params["id"])
        task.stopped = task.stopped or self._state(task) in ("waiting", "working")
        return to_json(self._show(task))

    async def _file(self, request: Request) -> Response:
        task = self._task(request.path_params["id"].replace("f_", "t_", 1))
        return Response(f"{task.name}, converted\n".encode(), media_type="application/octet-stream")

    # Tasks.

    def _task(self, key: str) -> _Task:
        if key not in self._tasks:
            raise _error(404)
        return self._tasks[key]

    def _add(self, operation: str, name: str, plan: Plan, age: float = 0.0) -> _Task:
        key = f"t_{random_text(self.host.random, 12)}"
        self._tasks[key] = _Task(key, operation, name, Life(self.host.clock.time() - age, plan))
        return self._tasks[key]

    def _state(self, task: _Task) -> str:
        phase = task.life.phase(self.host.clock.time())
        if task.stopped:
            return "stopped"
        if phase != "ended":
            return "waiting" if phase == "queued" else "working"
        return {"failed": "broken", "cancelled": "stopped"}.get(task.life.plan.outcome, "done")

    def _show(self, task: _Task) -> JsonObject:
        now, state = self.host.clock.time(), self._state(task)
        shown: JsonObject = {
            "id": task.id,
            "operation": task.operation,
            "state": state,
            "percent": round(100 * task.life.progress(now)),
            "created": utc_text(task.life.submitted_at),
            "ended": utc_text(task.life.finished_at) if state in ("done", "broken") else None,
        }
        if state == "broken":
            shown["problem"] = {"code": "unreadable", "message": f"{task.name} cannot be read."}
        if state == "done" and task.operation == "ocr":
            shown["text"] = f"Text of {task.name}"
        elif state == "done":
            name = f"{PurePath(task.name).stem}.pdf"
            shown["files"] = [{"id": task.id.replace("t_", "f_", 1), "name": name, "bytes": len(task.name) + 12}]
        return shown

    # Samples.

    def _make_samples(self) -> dict[str, str]:
        rows = {
            "completed": ("convert", Plan()),
            "text": ("ocr", Plan()),
            "failed": ("ocr", Plan(outcome="failed")),
            "cancelled": ("ocr", Plan(outcome="cancelled")),
            "processing": ("ocr", Plan(outcome="stuck")),
            "pending": ("ocr", Plan(queued=float("inf"))),
        }
        return {label: self._add(word, "letter.docx", plan, age=3600).id for label, (word, plan) in rows.items()}


def _error(status: int) -> ErrorResponse:
    code, message = ERRORS[status]
    return ErrorResponse(to_json({"code": code, "message": message}, status))
