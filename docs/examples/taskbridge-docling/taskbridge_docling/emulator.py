"""An emulator of docling-serve 1.38.2, written from what the real server does; times in seconds, sizes in bytes.

Bodies are those that the real server sent (README.md says how it was run). Behavior that was not seen is marked as
assumed. Nothing happens between requests: a task's state is computed when a request comes in. A task is removed 300
seconds after its result was first read; only the samples are there for half a day, so that they can be tried out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit
from uuid import UUID
from zipfile import ZipFile

from starlette.responses import PlainTextResponse, Response
from taskbridge.emulator import Plan, VendorEmulator
from taskbridge.emulator.helpers import (
    ErrorResponse,
    FormPart,
    JsonObject,
    Life,
    as_list,
    as_object,
    from_json,
    multipart_parts,
    random_text,
    routes,
    to_json,
)
from taskbridge.emulator.webhooks import OutgoingWebhook

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from starlette.requests import Request
    from starlette.routing import BaseRoute
    from taskbridge.emulator import Host

__all__ = ["DoclingEmulator"]

PREFIX: Final = "docling"
MOST_DOCUMENTS: Final = 3  # of one task
REMOVAL_DELAY: Final = 300.0  # from the first reading of a result: DOCLING_SERVE_RESULT_REMOVAL_DELAY
SAMPLE_REMOVAL_DELAY: Final = 43_200.0
RETRY_DELAYS: Final = (1.0, 2.0)  # before the second and third try of a callback

# Suffixes of documents that are converted; images are assumed. The suffix alone decides, whatever `from_formats` says.
SUFFIXES: Final = frozenset(
    ".csv .docx .htm .html .jpeg .jpg .md .pdf .png .pptx .tif .tiff .txt .xlsx".split()  # noqa: SIM905  # readable
)
# Value of `to_formats` -> the content's field, and the suffix of its file in an archive.
CONTENTS: Final[Mapping[str, tuple[str, str]]] = {
    "md": ("md_content", "md"),
    "json": ("json_content", "json"),
    "html": ("html_content", "html"),
    "text": ("text_content", "txt"),
    "doctags": ("doctags_content", "doctags"),
    "doclang": ("doclang_content", "dclg"),
}
SWITCHES: Final = frozenset(
    {"abort_on_error", "do_ocr", "do_table_structure", "force_ocr"}
)  # options that are booleans
TARGETS: Final = frozenset({"inbody", "zip"})
BOOLEANS: Final[Mapping[str, bool]] = {"true": True, "false": False, "1": True, "0": False}

# HTTP status -> `detail` of requests that reach no task.
DETAILS: Final[Mapping[int, str]] = {
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Server is busy, please try again shortly.",
    504: "Conversion is taking too long. The server is configure with DOCLING_SERVE_MAX_SYNC_WAIT=120.",
}
NO_TASK: Final = "Task not found."
NO_RESULT: Final = "Task result not found. Please wait for a completion status."


@dataclass(frozen=True, slots=True)
class _Callback:
    url: str
    headers: Mapping[str, str]


@dataclass(slots=True)
class _Task:
    id: str
    documents: Sequence[str]  # their names
    options: Mapping[str, Any]
    life: Life
    callbacks: Sequence[_Callback] = ()
    is_sample: bool = False
    read_at: float | None = None  # when its result was first read
    sent: set[str] = field(default_factory=set[str])  # what the callbacks were sent

    @property
    def formats(self) -> Sequence[str]:
        return as_list(self.options.get("to_formats")) or ["md"]

    @property
    def is_archive(self) -> bool:
        return len(self.documents) > 1 or self.options.get("target_type") == "zip"

    def outcome(self, name: str) -> str:
        """Return the ``status`` of one document in the result."""
        if PurePosixPath(name).suffix.lower() not in SUFFIXES:
            return "skipped"
        plan = self.life.plan if len(self.documents) == 1 else Plan.for_name(name)
        return {"failed": "failure", "cancelled": "failure", "partial": "partial_success"}.get(plan.outcome, "success")

    @property
    def is_broken(self) -> bool:
        """Whether the task fails as a whole, so that it has no result."""
        bad = [self.outcome(name) in ("failure", "skipped") for name in self.documents]
        is_aborted = bool(self.options.get("abort_on_error")) and any(bad)
        has_preset = any(name.endswith("_preset") for name in self.options)  # none is known here
        return has_preset or is_aborted or (self.is_archive and all(bad))

    def is_removed(self, now: float) -> bool:
        """Whether it is gone because its result was read."""
        delay = SAMPLE_REMOVAL_DELAY if self.is_sample else REMOVAL_DELAY
        return self.read_at is not None and now - self.read_at >= delay


class DoclingEmulator(VendorEmulator):
    """The emulated docling-serve, with its local engine."""

    name = "docling"

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._key = random_text(host.random, 32)
        self._tasks: dict[str, _Task] = {}
        self._callbacks: list[_Callback] = []  # of every task
        self._samples = self._make_samples()

    def mounts(self) -> Mapping[str, Sequence[BaseRoute]]:
        """The calls that convert documents, and what tells of the server."""
        table = [
            ("POST", "/v1/convert/file/async", self._submit_files),
            ("POST", "/v1/convert/source/async", self._submit_sources),
            ("GET", "/v1/status/poll/{id}", self._status),
            ("GET", "/v1/result/{id}", self._result),
            ("GET", "/health", self._health),
            ("GET", "/version", self._version),
        ]
        return {PREFIX: routes(table, self._check)}

    def settings(self) -> Mapping[str, str]:
        """The key, and the server's address."""
        return {"api_key": self._key, "base_url": f"{self.host.base_url}/{PREFIX}"}

    def samples(self) -> Mapping[str, str]:
        """A task for each status, for each status of a document, and for each form of a result."""
        return self._samples

    def error_response(self, status: int, path: str) -> Response | None:
        """Return the error with its ``detail``; that of 500 is a plain text."""
        del path
        if status == 500:
            return PlainTextResponse("Internal Server Error", 500)
        return _failure(status, DETAILS[status]).response if status in DETAILS else None

    def _check(self, request: Request) -> None:
        needs_key = request.url.path.startswith(f"/{PREFIX}/v1/")
        if needs_key and request.headers.get("x-api-key", "").strip() != self._key:
            raise _failure(401, DETAILS[401])

    # The server.

    async def _health(self, request: Request) -> Response:
        del request
        return to_json({"status": "ok"})

    async def _version(self, request: Request) -> Response:
        del request
        return to_json({"docling-serve": "1.38.2", "docling-jobkit": "3.9.1", "docling-core": "2.104.0"})

    # Submissions: unknown options are ignored without a word, wrong values of known ones are refused.

    async def _submit_files(self, request: Request) -> Response:
        parts = multipart_parts(await request.body(), request.headers.get("content-type", ""))
        files = [part for name, part in parts if name == "files"]
        if not files:
            raise _invalid("missing", ["body", "files"], "Field required")
        if not all(file.filename for file in files):
            raise _invalid("value_error", ["body", "files", 0], "Value error, Expected UploadFile")
        if len(files) > MOST_DOCUMENTS:
            raise _failure(422, f"Too many files: {len(files)} exceeds the maximum of {MOST_DOCUMENTS}.")
        options: JsonObject = {}
        for name, part in parts:
            text = part.data.decode(errors="replace")
            if name == "to_formats":
                options.setdefault(name, []).append(text)
            elif name not in ("files", "callbacks"):
                options[name] = text
        callbacks = [_callback(part) for name, part in parts if name == "callbacks"]
        return self._accept([file.filename or "" for file in files], _checked(options, "body"), callbacks)

    async def _submit_sources(self, request: Request) -> Response:
        body = await request.body()
        document = from_json(body)
        if document is None:
            if not _is_json(body):
                raise _invalid("json_invalid", ["body", 0], "JSON decode error")
            text = "Input should be a valid dictionary or object to extract fields from"
            raise _invalid("model_attributes_type", ["body"], text)
        sources = as_list(document.get("sources"))
        if sources is None:
            raise _invalid("missing", ["body", "sources"], "Field required")
        if not sources:
            raise _invalid("too_short", ["body", "sources"], "List should have at least 1 item after validation, not 0")
        if len(sources) > MOST_DOCUMENTS:
            raise _failure(422, f"Too many sources: {len(sources)} exceeds the maximum of {MOST_DOCUMENTS}.")
        names = [_source_name(as_object(each) or {}, index) for index, each in enumerate(sources)]
        options = _checked(dict(as_object(document.get("options")) or {}), "body", "options")
        target = as_object(document.get("target")) or {}
        if "kind" in target:
            options |= _checked({"target_type": target["kind"]}, "body", "target")
        callbacks = [as_object(each) or {} for each in as_list(document.get("callbacks")) or []]
        return self._accept(names, options, [_Callback(str(c.get("url")), c.get("headers") or {}) for c in callbacks])

    def _accept(self, names: Sequence[str], options: Mapping[str, Any], callbacks: Sequence[_Callback]) -> Response:
        life = Life(self.host.clock.time(), self.host.take_plan(names[0]))
        task = self._add(names, options, life)
        task.callbacks = (*callbacks, *self._callbacks)
        if task.callbacks:
            self.host.webhooks.enable()
        return to_json(self._show(task))

    def _add(self, names: Sequence[str], options: Mapping[str, Any], life: Life) -> _Task:
        task = _Task(str(UUID(int=self.host.random.getrandbits(128), version=4)), names, options, life)
        self._tasks[task.id] = task
        return task

    # Status and result.

    async def _status(self, request: Request) -> Response:
        wait = request.query_params.get("wait", "0")  # it has no effect
        try:
            float(wait)
        except ValueError:
            text = "Input should be a valid number, unable to parse string as a number"
            raise _invalid("float_parsing", ["query", "wait"], text) from None
        return to_json(self._show(self._find(request)))

    def _find(self, request: Request) -> _Task:
        task = self._tasks.get(request.path_params["id"])
        if task is not None and task.is_removed(self.host.clock.time()):
            del self._tasks[task.id]
            task = None
        if task is None:
            raise _failure(404, NO_TASK)
        return task

    def _state(self, task: _Task, now: float) -> str:
        phase = task.life.phase(now)
        if phase == "queued":
            return "pending"
        if phase != "ended":
            return "started"
        return "failure" if task.is_broken else "success"

    def _show(self, task: _Task) -> JsonObject:
        now = self.host.clock.time()  # read once: it does not stand still
        state = self._state(task, now)
        waiting = [each.id for each in self._tasks.values() if self._state(each, now) == "pending"]
        return {
            "task_id": task.id,
            "task_type": "convert",
            "task_status": state,
            "task_position": waiting.index(task.id) + 1 if state == "pending" else None,
            "task_meta": None,
            "error_message": "Internal processing error." if state == "failure" else None,
            "failure": None,
        }

    async def _result(self, request: Request) -> Response:
        task = self._find(request)
        now = self.host.clock.time()
        if self._state(task, now) != "success":
            raise _failure(404, NO_RESULT)
        task.read_at = task.read_at or now
        if task.is_archive:
            headers = {"Content-Disposition": 'attachment; filename="converted_docs.zip"'}
            return Response(_archive(task), media_type="application/zip", headers=headers)
        return to_json(_result(task))

    # Callbacks: unsigned, in any order, and without an end.

    def register_webhook(self, url: str, events: Iterable[str] | None = None) -> str:
        """Call ``url`` for each task from now on, as if each submission named it; a secret is added to it."""
        if events is not None:
            raise ValueError(f"{self.name} cannot choose among its events")
        secret = random_text(self.host.random, 24)
        self._callbacks.append(_Callback(f"{url}?key={secret}", {}))
        return secret

    def tick(self) -> None:
        """Send the callbacks that are due."""
        now = self.host.clock.time()
        for task in self._tasks.values():
            if not task.callbacks:
                continue
            for event, progress in _progress(task, task.life.phase(now)):
                if event not in task.sent:
                    task.sent.add(event)
                    self._call(task, progress)

    def _call(self, task: _Task, progress: JsonObject) -> None:
        body = json.dumps({"task_id": task.id, "progress": progress}).encode()
        for callback in task.callbacks:
            self.host.webhooks.send(
                OutgoingWebhook(
                    vendor=self.name,
                    event=str(progress["kind"]),
                    url=callback.url,
                    body=body,
                    headers=lambda _, headers=callback.headers: headers,  # type: ignore[misc]  # mypy cannot infer a lambda's default
                    retry_delays=RETRY_DELAYS,
                    retry_if=lambda status: status is None or status >= 400,
                )
            )

    # Samples.

    def _make_samples(self) -> dict[str, str]:
        hour_ago = self.host.clock.time() - 3600
        rows: dict[str, tuple[Sequence[str], Mapping[str, Any], Plan]] = {
            "completed": (["report.docx"], {}, Plan()),
            "structured": (["report.docx"], {"to_formats": ["json", "text"]}, Plan()),
            "several": (["report.docx", "sales.xlsx", "fail.pptx"], {}, Plan()),
            "partial": (["report.pdf"], {}, Plan(outcome="partial")),
            "corrupt": (["report.docx"], {}, Plan(outcome="failed")),
            "skipped": (["report.xyz"], {}, Plan()),
            "failed": (["report.docx"], {"layout_preset": "unknown"}, Plan()),
            "processing": (["report.docx"], {}, Plan(outcome="stuck")),
            "pending": (["report.docx"], {}, Plan(queued=float("inf"))),
        }
        tasks = {
            label: self._add(names, options, Life(hour_ago, plan)) for label, (names, options, plan) in rows.items()
        }
        for task in tasks.values():
            task.is_sample = True
        return {label: task.id for label, task in tasks.items()}


# Requests.


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


def _source_name(source: JsonObject, index: int) -> str:
    place: list[str | int] = ["body", "sources", index]
    match source.get("kind"):
        case None:
            raise _invalid("union_tag_not_found", place, "Unable to extract tag using discriminator 'kind'")
        case "file":
            return str(source.get("filename") or "file_0.pdf")
        case "http":
            url = urlsplit(str(source.get("url")))
            if not url.hostname:
                raise _invalid("url_parsing", [*place, "http", "url"], "Input should be a valid URL")
            return PurePosixPath(unquote(url.path)).name or "index.html"  # assumed
        case kind:
            raise _invalid("union_tag_invalid", place, f"Input tag '{kind}' found using 'kind' does not match")


def _callback(part: FormPart) -> _Callback:
    text = part.data.decode(errors="replace")
    document = from_json(part.data) or {"url": text}
    if not urlsplit(str(document.get("url"))).hostname:
        raise _invalid("url_parsing", ["body", "callbacks", 0], "Input should be a valid URL")
    return _Callback(str(document["url"]), as_object(document.get("headers")) or {})


def _checked(options: JsonObject, *place: str) -> JsonObject:
    for name in SWITCHES & options.keys():
        value = BOOLEANS.get(str(options[name]).lower())
        if value is None:
            raise _invalid("bool_parsing", [*place, name], "Input should be a valid boolean, unable to interpret input")
        options[name] = value
    formats = as_list(options.get("to_formats", []))
    if formats is None:
        raise _invalid("list_type", [*place, "to_formats"], "Input should be a valid list")
    for index, word in enumerate(formats):
        if word not in CONTENTS:
            known = ", ".join(f"'{each}'" for each in CONTENTS)
            raise _invalid("enum", [*place, "to_formats", index], f"Input should be {known}")
    if options.get("target_type") == "presigned_url":
        raise _failure(422, "Presigned URL target requires artifact storage to be configured.")
    if options.get("target_type", "inbody") not in TARGETS:
        raise _invalid("enum", [*place, "target_type"], "Input should be 'inbody', 'zip' or 'presigned_url'")
    return options


def _failure(status: int, detail: object) -> ErrorResponse:
    return ErrorResponse(to_json({"detail": detail}, status))


def _invalid(kind: str, place: Sequence[str | int], message: str) -> ErrorResponse:
    return _failure(422, [{"type": kind, "loc": place, "msg": message}])


# Results.


def _content(name: str, word: str) -> Any:
    text = f"{name} as {word}\n"
    if word != "json":
        return text
    return {
        "schema_name": "DoclingDocument",
        "version": "1.10.0",
        "name": PurePosixPath(name).stem,
        "origin": {"filename": name, "binary_hash": 10495166391024819897},  # larger than 2**63
        "texts": [{"self_ref": "#/texts/0", "text": text}],
    }


def _result(task: _Task) -> JsonObject:
    [name] = task.documents
    status = task.outcome(name)
    has_content = status in ("success", "partial_success")
    contents = {entry: None for entry, _ in CONTENTS.values()}
    if has_content:
        contents |= {CONTENTS[word][0]: _content(name, word) for word in task.formats}
    return {
        "document": {"filename": name, **contents},
        "status": status,
        "errors": _errors(name, status),
        "processing_time": 0.04518675399958738,
        "timings": {},
        "confidence": {"mean_grade": "unspecified", "low_grade": "unspecified", "pages": {}} if has_content else None,
    }


def _errors(name: str, status: str) -> list[JsonObject]:
    # status of a document -> component, module, message, category and page of its error
    known = {
        "failure": (
            "user_input",
            "",
            "MsWordDocumentBackend could not load document with hash 019ce2",
            "backend_failure",
            None,
        ),
        "skipped": ("user_input", "", f"File format not allowed: {name}", "policy", None),
        "partial_success": ("pipeline", "StandardPdfPipeline", "document timeout exceeded", "timeout", 1),
    }
    keys = ("component_type", "module_name", "error_message", "category", "page_no")
    return [dict(zip(keys, known[status], strict=True))] if status in known else []


def _archive(task: _Task) -> bytes:
    """One file for each document and format; documents of one stem overwrite each other, bad ones are absent."""
    files: dict[str, bytes] = {}
    for name in task.documents:
        for word in task.formats if task.outcome(name) in ("success", "partial_success") else ():
            content = _content(name, word)
            text = content if isinstance(content, str) else json.dumps(content)
            files[f"{PurePosixPath(name).stem}.{CONTENTS[word][1]}"] = text.encode()
    packed = BytesIO()
    with ZipFile(packed, "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return packed.getvalue()


def _progress(task: _Task, phase: str) -> Iterator[tuple[str, JsonObject]]:
    """Yield what the callbacks are sent until this phase, each with a name of its own."""
    if phase == "queued":
        return
    yield "begin", {"kind": "set_num_docs", "num_docs": len(task.documents)}
    if phase != "ended" or task.is_broken:  # a task that fails as a whole sends nothing more
        return
    docs = [{"source": name, "status": task.outcome(name), "error": None} for name in task.documents]
    failed = sum(doc["status"] in ("failure", "skipped") for doc in docs)
    partial = sum(doc["status"] == "partial_success" for doc in docs)
    yield (
        "end",  # before the documents: each event is sent from a thread of its own
        {
            "kind": "update_processed",
            "num_processed": len(docs),
            "num_succeeded": len(docs) - failed - partial,
            "num_partially_succeeded": partial,
            "num_failed": failed,
            "docs": docs,
        },
    )
    for done, doc in reversed(list(enumerate(docs, start=1))):
        shown = {**doc, "document_type": "md", "num_pages": 0, "num_characters": 78, "processing_time": None}
        yield (
            f"document {done}",
            {"kind": "document_completed", "document": shown, "total_processed": done, "total_docs": len(docs)},
        )
