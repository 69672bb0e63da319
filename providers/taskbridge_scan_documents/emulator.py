"""An emulator of Scan Documents API v1, written from its documents; times in seconds, sizes in bytes.

Labels such as TASKS name the vendor's pages; what no page says is marked as assumed. Nothing happens between requests:
each request first ends the tasks that are due, in the order of their ends, which creates their files and events.

The vendor's dashboard has no API, so webhook endpoints are registered by a method of the emulator. The envelope, the
signature, the five seconds for a response and the 48 hours of retries are the vendor's; the growth of the delays is
assumed.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from taskbridge.emulator import Host, Plan, VendorEmulator
from taskbridge.emulator.helpers import (
    Endpoint,
    ErrorResponse,
    JsonObject,
    Life,
    as_list,
    from_json,
    from_multipart,
    random_text,
    routes,
    to_json,
    utc_text,
)
from taskbridge.emulator.webhooks import OutgoingWebhook, sign_svix

from .emulator_operations import (
    OPERATIONS,
    PNG,
    DocumentFile,
    OperationFailed,
    OperationSpec,
    make_image,
    make_pdf,
    read_document,
)

ForcedError: TypeAlias = Literal[409, 429, 500]

PREFIX: Final = "scan-documents"
UPLOAD_LIMIT: Final = 10 * 1024 * 1024  # "10 MB" a file: sdk NODE; that MB means MiB is assumed
TAKE_DEFAULT: Final = 20  # doc LIST
TAKE_LIMIT: Final = 100  # doc LIST
ID_LENGTH: Final = 16  # characters after "task_", "file_", "event_": doc GET-TASK EVENTS
INVALID_INPUT: Final = "input does not contains a valid input id."  # doc ERR
EVENTS: Final = (  # doc HOOK EVENTS
    "task.created",
    "task.completed",
    "task.failed",
    "task.deleted",
    "file.created",
    "file.deleted",
)
# Vendor seconds, 48 hours at most: doc HOOK; "exponential" is doc HOOK, the numbers are assumed.
RETRY_DELAYS: Final = tuple(30.0 * 2**n for n in range(12))
KEY_LENGTH: Final = 24  # bytes, as in the scheme's published test vector

# The schema of a sample, as sdk NODE describes schemas.
RECEIPT: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "seller": {"type": "object", "properties": {"name": {"type": "string", "example": "Example Shop"}}},
        "total": {"type": "number", "example": 12.5},
        "lines": {"type": "array", "items": {"type": "string", "example": "Paper"}},
    },
}
RESOURCE: Final = re.compile(rf"/{PREFIX}/v1/(?P<kind>file|task)s/(?P<id>[^/]+)(/download)?")

PROBLEM_TYPE: Final = "application/problem+json"  # doc ERR
PROBLEM_BASE: Final = "https://scan-documents.com/docs/errors/"  # doc GET-TASK

_LATER: Final = "Please try again later or contact support."
_UNEXPECTED: Final = "An unexpected error occurred. Contact support if the problem persists."
PROBLEMS: Final[Mapping[int, tuple[str, str, str]]] = {  # HTTP status -> type, title, message: doc ERR GET-TASK
    401: ("unauthorized", "Unauthorized", "You are not authorized to access this resource."),
    404: ("not-found", "Not Found", "{resource} with id {id} not found."),
    409: ("no-subscription", "No Subscription", "User does not have an active subscription"),
    429: ("rate-limit-error", "Rate Limit Exceeded", f"Rate limit exceeded. {_LATER}"),
    500: ("internal-error", _UNEXPECTED, _UNEXPECTED),
}


@dataclass(slots=True)
class _File:
    id: str
    document: DocumentFile
    created: float
    task_id: str | None = None

    def show(self) -> JsonObject:
        document = self.document
        return {
            "id": self.id,
            "name": document.name,
            "type": document.type,
            "properties": document.properties(),
            "task_id": self.task_id,
            "created_at": utc_text(self.created),
        }


@dataclass(slots=True)
class _Task:
    id: str
    operation: str
    parameters: JsonObject
    inputs: Sequence[str]
    subject: str  # names of its documents, from which plans are read
    life: Life
    status: str | None = None  # once it ended
    result: JsonObject = field(default_factory=dict[str, Any])
    files: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True)
class _Endpoint:
    url: str
    events: frozenset[str]
    key: bytes


class ScanDocumentsEmulator(VendorEmulator):
    """The emulated Scan Documents.

    Attributes:
        forced_error: Respond to every authorized request with this error: 409 (no subscription), 429 or 500.
        detection_operation: ``operation`` of detect-documents tasks. The vendor's API description says ``convert``,
            its events say ``detect-documents``; the wire value is unknown (sdk NODE).
    """

    name = "scan-documents"

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.forced_error: ForcedError | None = None
        self.detection_operation = "detect-documents"
        self._key = random_text(host.random, 32)
        self._files: dict[str, _File] = {}
        self._tasks: dict[str, _Task] = {}
        self._events: dict[str, JsonObject] = {}
        self._endpoints: list[_Endpoint] = []
        self._due: list[tuple[float, int, str]] = []  # a heap of ends, order of creation, task ids
        self._samples = self._make_samples()

    def mounts(self) -> Mapping[str, Sequence[BaseRoute]]:
        """All of the vendor's API."""
        table: list[tuple[str, str, Endpoint]] = [
            ("POST", "/v1/files", self._upload),
            ("GET", "/v1/files", self._list_files),
            ("GET", "/v1/files/{id}", self._get_file),
            ("GET", "/v1/files/{id}/download", self._download),
            ("DELETE", "/v1/files/{id}", self._delete_file),
            ("GET", "/v1/tasks/{id}", self._get_task),
            ("GET", "/v1/tasks", self._list_tasks),
            ("GET", "/v1/events", self._list_events),
        ]
        table += [("POST", f"/v1/{kind.folder}/{word}", self._creator(word, kind)) for word, kind in OPERATIONS.items()]
        return {PREFIX: routes(table, self._check)}

    def settings(self) -> Mapping[str, str]:
        """The key, and the address up to ``/v1``."""
        return {"api_key": self._key, "base_url": f"{self.host.base_url}/{PREFIX}/v1"}

    def samples(self) -> Mapping[str, str]:
        """``cancelled`` is a failed task: the vendor cannot cancel."""
        return self._samples

    def error_response(self, status: int, path: str) -> Response | None:
        """A problem document."""
        if status == 422:
            return invalid(input=[INVALID_INPUT])
        if status == 404 and (resource := RESOURCE.fullmatch(path)):
            return problem(404, resource=resource["kind"].capitalize(), id=resource["id"])
        if status in {404, 405}:  # no path or no method: that it is a problem document is assumed
            kind, title = ("not-found", "Not Found") if status == 404 else ("method-not-allowed", "Method Not Allowed")
            return _problem(status, kind, title, title)
        return problem(status) if status in PROBLEMS else None

    def register_webhook(self, url: str, events: Iterable[str] | None = None) -> str:
        """Register an endpoint for these types of events, as the dashboard does, and return its signing secret."""
        wanted = frozenset(EVENTS if events is None else events)
        if not wanted <= {*EVENTS}:
            raise ValueError(f"events must be among {', '.join(EVENTS)}")
        key = self.host.random.randbytes(KEY_LENGTH)
        self._endpoints.append(_Endpoint(url, wanted, key))
        self.host.webhooks.enable()
        return f"whsec_{b64encode(key).decode()}"

    def tick(self) -> None:
        """End the tasks that are due, which creates events."""
        now = self.host.clock.time()
        while self._due and self._tasks[self._due[0][-1]].life.phase(now) == "ended":
            self._end(self._tasks[heappop(self._due)[-1]])

    # Before every request.

    def _check(self, request: Request) -> None:
        if request.headers.get("x-api-key") != self._key:
            raise ErrorResponse(problem(401))
        if self.forced_error is not None:
            raise ErrorResponse(problem(self.forced_error))
        self.tick()

    # Files.

    async def _upload(self, request: Request) -> Response:
        form = from_multipart(await request.body(), request.headers.get("content-type", ""))
        part = form.get("file")
        if part is None:
            raise ErrorResponse(invalid(file=["file is required."]))  # text assumed
        if len(part.data) > UPLOAD_LIMIT:
            raise ErrorResponse(invalid(file=["file must not be larger than 10 MB."]))  # response assumed
        name = form["name"].data.decode(errors="replace") if "name" in form else part.filename or "file"
        document = read_document(name, part.data, part.content_type, part.filename)
        if document is None:
            raise ErrorResponse(invalid(file=["file type is not supported."]))  # response assumed
        return to_json(self._store(document, self.host.clock.time()).show())  # code assumed

    async def _list_files(self, request: Request) -> Response:
        return self._page(request, "files", list(self._files), lambda key: self._files[key].show())

    async def _get_file(self, request: Request) -> Response:
        return to_json(self._file(request).show())

    async def _download(self, request: Request) -> Response:
        document = self._file(request).document
        return Response(document.data, media_type=document.type)

    async def _delete_file(self, request: Request) -> Response:
        file = self._file(request)
        del self._files[file.id]
        event = {"id": file.id, "name": file.document.name, "type": file.document.type}
        self._emit("file.deleted", event, self.host.clock.time())
        return Response(status_code=204)  # code assumed

    def _file(self, request: Request) -> _File:
        key = request.path_params["id"]
        if key not in self._files:
            raise ErrorResponse(problem(404, resource="File", id=key))
        return self._files[key]

    def _store(self, document: DocumentFile, created: float, task_id: str | None = None) -> _File:
        file = _File(self._new_id("file"), document, created, task_id)
        self._files[file.id] = file
        event = {key: value for key, value in file.show().items() if key != "created_at"}
        self._emit("file.created", event, created)
        return file

    # Tasks.

    def _creator(self, word: str, kind: OperationSpec) -> Endpoint:
        async def create(request: Request) -> Response:
            body = from_json(await request.body())
            if body is None:
                raise ErrorResponse(invalid(input=[INVALID_INPUT]))  # response to a body that is not an object: assumed
            inputs = self._inputs(body.get("input"), kind)
            field_errors = ({} if inputs else {"input": [INVALID_INPUT]}) | kind.field_errors(body)
            if not inputs or field_errors:
                raise ErrorResponse(invalid(**field_errors))
            subject = f"{body.get('name') or ''} {' '.join(self._subject(key) for key in inputs)}"
            life = self._life(inputs, self.host.take_plan(subject))
            task = self._add(word, kind.parameters(body), inputs, subject, life)
            if "callback_url" in task.parameters:
                self.host.webhooks.enable()
            self.tick()
            return to_json(self._show(task))  # code assumed

        return create

    async def _get_task(self, request: Request) -> Response:
        key = request.path_params["id"]
        if key not in self._tasks:
            raise ErrorResponse(problem(404, resource="Task", id=key))
        return to_json(self._show(self._tasks[key]))

    async def _list_tasks(self, request: Request) -> Response:
        return self._page(request, "tasks", list(self._tasks), lambda key: self._show(self._tasks[key]))

    async def _list_events(self, request: Request) -> Response:
        return self._page(request, "events", list(self._events), self._events.__getitem__)

    def _inputs(self, value: object, kind: OperationSpec) -> Sequence[str]:
        """The ids of the inputs; none if one of them is invalid."""
        keys = (as_list(value) or []) if kind.many else [value]
        known = [key for key in keys if isinstance(key, str) and (key in self._files or key in self._tasks)]
        return known if len(known) == len(keys) else []

    def _subject(self, key: str) -> str:
        return self._files[key].document.name if key in self._files else self._tasks[key].subject

    def _life(self, inputs: Sequence[str], plan: Plan) -> Life:
        """The life of a task; one whose input is a task waits for that task's end (assumed)."""
        now = self.host.clock.time()
        return Life(now, replace(plan, queued=plan.queued + self._ready_at(inputs, now) - now, review=0.0))

    def _ready_at(self, inputs: Sequence[str], moment: float) -> float:
        return max([moment, *(self._tasks[key].life.finished_at for key in inputs if key in self._tasks)])

    def _add(self, word: str, parameters: JsonObject, inputs: Sequence[str], subject: str, life: Life) -> _Task:
        task = _Task(self._new_id("task"), word, parameters, inputs, subject, life)
        self._tasks[task.id] = task
        heappush(self._due, (self._ready_at(inputs, life.finished_at), len(self._tasks), task.id))
        self._emit("task.created", {"id": task.id, "operation": word}, life.submitted_at)
        return task

    def _show(self, task: _Task) -> JsonObject:
        now = self.host.clock.time()
        unfinished = "pending" if task.life.phase(now) == "queued" else "processing"  # doc TASKS
        row: JsonObject = {
            "id": task.id,
            "operation": self.detection_operation if task.operation == "detect-documents" else task.operation,
            "parameters": task.parameters,
            "status": task.status or unfinished,
            "result": task.result,
            "created_at": utc_text(task.life.submitted_at),
            "updated_at": utc_text(task.life.phase_since(now)),
        }
        if "callback_url" in task.parameters:  # that it is absent otherwise is assumed
            row["callback_url"] = task.parameters["callback_url"]
        return row

    # Ending tasks.

    def _end(self, task: _Task) -> None:
        try:
            task.result = self._work(task)
        except OperationFailed as failure:
            task.status, task.result = "failed", {"error": str(failure), "details": {}}
        else:
            task.status = "completed"
        event = {"id": task.id, "operation": task.operation, "result": task.result}
        self._emit(f"task.{task.status}", event, task.life.finished_at)
        if callback := task.parameters.get("callback_url"):
            # Method, body, and the lack of a signature and of retries are assumed: nothing is documented.
            body = _json({"id": task.id, "status": task.status})
            self.host.webhooks.send(OutgoingWebhook(PREFIX, "callback", callback, body, headers=lambda _: {}))

    def _work(self, task: _Task) -> JsonObject:
        if task.life.plan.outcome in {"failed", "cancelled"}:
            raise OperationFailed("Internal processing error")  # one of the causes in doc TASKS; the text is assumed
        kind = OPERATIONS[task.operation]
        documents = [self._files[key].document for key in self._sources(task, first_only=not kind.many)]
        output = kind.run(task.parameters, documents)
        if isinstance(output, dict):
            return output
        files = [self._store(document, task.life.finished_at, task.id) for document in output]
        task.files = [file.id for file in files]
        return {"generated_files": [file.show() for file in files]}

    def _sources(self, task: _Task, *, first_only: bool) -> list[str]:
        """The files of the inputs: those of a task are its files, or the first where only one is used (assumed)."""
        found = list[str]()
        for key in task.inputs:
            files = self._tasks[key].files if key in self._tasks else [key]
            found += [file for file in files if file in self._files]
        return found[:1] if first_only else found

    # Lists, events, ids.

    def _page(self, request: Request, path: str, keys: list[str], show: Callable[[str], JsonObject]) -> Response:
        keys.reverse()  # newest first: assumed
        take = request.query_params.get("take", str(TAKE_DEFAULT))
        if not (re.fullmatch("[0-9]{1,3}", take) and 1 <= int(take) <= TAKE_LIMIT):
            raise ErrorResponse(invalid(take=[f"take must be 1 to {TAKE_LIMIT}."]))  # text assumed
        start = request.query_params.get("from")
        if start is not None and start not in keys:
            raise ErrorResponse(invalid(**{"from": ["from is not a valid id."]}))  # response assumed
        first = keys.index(start) if start is not None else 0
        after = first + int(take)
        links = {
            "previous": self._link(path, take, keys[max(0, first - int(take))]) if first else None,
            "next": self._link(path, take, keys[after]) if after < len(keys) else None,
        }
        return to_json({"data": [show(key) for key in keys[first:after]], "links": links})

    def _link(self, path: str, take: str, start: str) -> str:
        query = urlencode({"from": start, "take": take})
        return f"{self.host.base_url}/{PREFIX}/{path}?{query}"  # without /v1, as in the example of doc FILES

    def _emit(self, kind: str, data: JsonObject, moment: float) -> None:
        key = self._new_id("event")
        event = self._events[key] = {"id": key, "type": kind, "timestamp": utc_text(moment, digits=3), "data": data}
        for endpoint in self._endpoints:
            if kind in endpoint.events:
                self._post(endpoint, kind, _json(event))

    def _post(self, endpoint: _Endpoint, kind: str, body: bytes) -> None:
        message = f"msg_{random_text(self.host.random, 27)}"

        def headers(now: int) -> dict[str, str]:
            # Wall-clock time of the attempt: a receiver compares it with its own clock, however fast vendor time is.
            signature = sign_svix(endpoint.key, message, now, body)
            return {"svix-id": message, "svix-timestamp": str(now), "svix-signature": signature}

        self.host.webhooks.send(
            OutgoingWebhook(
                PREFIX,
                kind,
                endpoint.url,
                body,
                headers=headers,
                retry_delays=RETRY_DELAYS,
                retry_if=lambda status: status is None or not 200 <= status < 300,
            )
        )

    def _new_id(self, kind: str) -> str:
        return f"{kind}_{random_text(self.host.random, ID_LENGTH)}"

    def _make_samples(self) -> dict[str, str]:
        hour_ago = Life(self.host.clock.time() - 3600, Plan())
        photo = self._store(make_image("receipt.png", PNG, 800, 600), hour_ago.submitted_at).id
        report = self._store(make_pdf("report.pdf", 3), hour_ago.submitted_at).id
        effect = {"input": photo, "name": "Example Image", "effect": "grayscale"}
        rows: dict[str, tuple[str, JsonObject, Plan]] = {
            "completed": ("apply-effect", effect, Plan()),
            "text": ("extract-text", {"input": photo, "format": "markdown"}, Plan()),
            "json": ("extract-text", {"input": photo, "format": "json", "schema": RECEIPT}, Plan()),
            "documents": ("detect-documents", {"input": photo}, Plan()),
            "failed": ("extract-pages", {"input": report, "pages": "2-7"}, Plan()),
            "cancelled": ("convert", {"input": photo, "target_format": PNG}, Plan(outcome="cancelled")),
            "processing": ("split", {"input": report}, Plan(outcome="stuck")),
            "pending": ("render", {"input": report, "dpi": 300}, Plan(queued=float("inf"))),
        }
        labels = {
            label: self._add(word, parameters, [parameters["input"]], "", replace(hour_ago, plan=plan)).id
            for label, (word, parameters, plan) in rows.items()
        }
        self.tick()
        return labels


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()


def problem(status: int, **values: str) -> Response:
    """A problem document by its HTTP status; ``values`` fill in its message."""
    kind, title, message = PROBLEMS[status]
    return _problem(status, kind, title, message.format(**values))


def _problem(status: int, kind: str, title: str, message: str) -> Response:
    body = {"type": PROBLEM_BASE + kind, "title": title, "status": status, "message": message}
    return to_json(body, status, PROBLEM_TYPE)


def invalid(**errors: list[str]) -> Response:
    """A validation error (422): texts by field."""
    body = {"type": f"{PROBLEM_BASE}validation-error", "title": "Validation Error", "status": 422, "errors": errors}
    return to_json(body, 422, PROBLEM_TYPE)
