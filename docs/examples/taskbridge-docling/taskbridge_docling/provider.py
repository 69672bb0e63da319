"""Docling Serve 1.38.2, API v1: its OpenAPI document, and what the real server does (run 2026-11-27).

https://github.com/docling-project/docling-serve; times in seconds, sizes in bytes. `task_status` says only that the
task ran: the outcome of the document is `status` in the result, so `get` reads the result before it says *completed*.
The first reading of a result starts a clock: the server removes the task 300 seconds later. `wait=` of the status call
is accepted and has no effect. README.md has the rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from difflib import get_close_matches
from io import BytesIO
from itertools import count
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import unquote, urlsplit
from zipfile import BadZipFile, ZipFile

from pydantic import SecretStr
from taskbridge.errors import InvalidInput, MalformedResponse, printable
from taskbridge.models import Reason, Task, TaskFailure, TaskFile, TaskRef, TaskResult, TaskStatus, WebhookEvent
from taskbridge.provider import (
    Accepts,
    Capabilities,
    Credential,
    Delivery,
    Document,
    Downloads,
    Flow,
    Form,
    FormFile,
    GeneratedFile,
    IdKind,
    Link,
    OptionTable,
    PLAIN_ID,
    Payload,
    Provider,
    ProviderSettings,
    Request,
    Response,
    StateTable,
    Submission,
    Webhooks,
    as_json,
    as_text,
    no_requests,
    path_id,
)

# `task_status` of a task, and then `status` of its document in the result -> ours.     OpenAPI: ConversionStatus
STATES: Final[StateTable] = {
    "pending": (TaskStatus.PENDING, None),
    "started": (TaskStatus.PROCESSING, None),
    "success": (TaskStatus.COMPLETED, None),  # of a task: it has run, even if its document could not be read
    "partial_success": (TaskStatus.COMPLETED, Reason.PARTIAL),
    "failure": (TaskStatus.FAILED, None),  # of a document: damaged, too large, or at a URL that cannot be read
    "skipped": (TaskStatus.FAILED, None),  # format not allowed
}

# Content of a document in the result -> suffix of its file, as in the server's own archives; the first is the text.
CONTENTS: Final[Mapping[str, str]] = {
    "md_content": "md",
    "text_content": "txt",
    "html_content": "html",
    "doctags_content": "doctags",
    "doclang_content": "dclg",
    "json_content": "json",
}
ARCHIVE: Final = "converted_docs.zip"  # Content-Disposition of the result of several documents

CONVERT: Final = "convert"  # the operation, in the server's paths and in `task_type`

# Neutral operation and option -> the server's own options.                OpenAPI: ConvertDocumentsOptions
OPTIONS: Final[OptionTable] = {
    "convert": {
        "to": {
            "md": {"to_formats": ["md"]},
            "html": {"to_formats": ["html"]},
            "txt": {"to_formats": ["text"]},
            "json": {"to_formats": ["json"]},
        },
    },
    "extract-text": {
        "text_format": {
            "plain": {"to_formats": ["text"]},
            "markdown": {"to_formats": ["md"]},
            "html": {"to_formats": ["html"]},
        },
        "language": "ocr_lang",  # BCP 47 tags
    },
}

# The server ignores options that it does not know, so a misspelled one would change nothing.
# OpenAPI of 1.38.2: Body_process_file_async, without `files` and `callbacks`
KNOWN_OPTIONS: Final = frozenset(
    """
    abort_on_error chart_extraction_custom_config chart_extraction_preset chunking_options chunking_preset
    code_formula_custom_config code_formula_preset do_chart_extraction do_code_enrichment do_formula_enrichment
    do_ocr do_pdf_heading_hierarchy do_picture_classification do_picture_description do_table_structure
    document_timeout force_ocr from_formats image_export_mode images_scale include_images include_page_images
    layout_custom_config layout_preset md_compact_tables md_page_break_placeholder ocr_custom_config ocr_engine
    ocr_lang ocr_preset page_range pdf_backend pdf_heading_hierarchy_options picture_classification_custom_config
    picture_classification_preset picture_description_api picture_description_area_threshold
    picture_description_custom_config picture_description_local picture_description_preset pipeline
    table_cell_matching table_mode table_structure_custom_config table_structure_preset target_type to_formats
    vlm_pipeline_custom_config vlm_pipeline_model vlm_pipeline_model_api vlm_pipeline_model_local
    vlm_pipeline_preset
    """.split()  # noqa: SIM905  # 50 names, one on a line, would hide the file
)
LISTS: Final = frozenset({"from_formats", "ocr_lang", "page_range", "to_formats"})  # in a form, the field is repeated

# `progress.kind` of a callback, as seen; none of them tells the end of a task.
EVENTS: Final = ("set_num_docs", "document_completed", "update_processed")


class DoclingSettings(ProviderSettings):
    """Settings of a connection to a docling-serve."""

    api_key: SecretStr | None = None
    """The key in the server's ``DOCLING_SERVE_API_KEY``; None if the server has none."""
    base_url: str = "http://127.0.0.1:5001"
    """Address of the server, without ``/v1``."""
    more_options: frozenset[str] = frozenset()
    """Names of options that a newer server has. All others that 1.38.2 does not have are refused, because the server
    would ignore them."""


class Docling(Provider[DoclingSettings]):
    """Docling Serve: one task converts one document, or several into one archive."""

    name = "docling"
    title = "Docling Serve"
    docs = "https://github.com/docling-project/docling-serve/tree/main/docs"
    Settings = DoclingSettings
    max_body = 64 << 20  # bytes; the result is read with the status
    capabilities = Capabilities(
        kinds=(IdKind(PLAIN_ID, example="521c05b3-a35c-448f-a732-5bb400f9d54a"),),
        authentication="API key, if the server has one",
        reasons=(Reason.PARTIAL,),
        webhooks=Webhooks(EVENTS, scheme="a secret of your own in the URL", signed_time=False, per_task=True),
        operations={"convert": CONVERT, "extract-text": CONVERT},
        inputs=frozenset({"path", "bytes", "stream", "url"}),
        accepts={CONVERT: Accepts(several=True)},  # formats and number of documents are settings of the server
        options=OPTIONS,
        callback=True,
        downloads=Downloads(("files", "text", "data")),
        result_parts={"convert": frozenset({"text"}), "extract-text": frozenset({"text"})},
        result_once=True,  # and again for 300 seconds, then not even its status
    )
    wait_hints = MappingProxyType(
        {TaskStatus.PENDING: "a server with a queue in Redis leaves tasks pending while it has no worker"}
    )

    # Requests, in the order of a task's life.

    def authorize(self) -> Flow[Credential]:
        """The API key, or nothing."""
        key = self.settings.api_key
        return no_requests(Credential({} if key is None else {"X-Api-Key": key.get_secret_value()}))

    def submit(self, submission: Submission) -> Flow[Task]:
        """``POST /v1/convert/file/async`` with all documents, or ``…/source/async`` with all URLs."""
        if submission.native_operation != CONVERT:
            raise self.unsupported(f"do {printable(submission.native_operation, 60)!r}: its one operation is {CONVERT}")
        fixed = {"to_formats": ["text"]} if submission.operation == "extract-text" else {}
        options = {**fixed, **submission.options}
        self._check_options(options)
        files, links = _files(submission), _links(submission)
        if bool(files) == bool(links):
            raise InvalidInput(f"{self.title} takes documents, or URLs, in one task; submit the others separately")
        if files:
            form = Form(_fields(submission, options), files)
            response = yield self.request("POST", "/v1/convert/file/async", body=form, starts_work=True)
        else:
            sources = _sources(submission, links, options)
            response = yield self.request("POST", "/v1/convert/source/async", json=sources, starts_work=True)
        return self.task(self.payload(response))

    def get(self, task_id: str) -> Flow[Task]:
        """``GET /v1/status/poll/{id}``, and ``GET /v1/result/{id}`` once the task has run."""
        _, native = self.split_id(task_id)
        response = yield self.request("GET", f"/v1/status/poll/{path_id(native)}")
        task = self.task(self.payload(response), task_id)
        if task.status is not TaskStatus.COMPLETED:
            return task
        response = yield self._result_request(native)
        if response.media_type == "application/zip":
            self.accept(response)
            return replace(task, result=TaskResult(files=(_archive(native, response),)))
        return self._with_result(task, self.payload(response))

    def _result_request(self, native: str) -> Request:
        request = self.request("GET", f"/v1/result/{path_id(native)}", response_type="bytes", read_once=True)
        return replace(request, headers={"Accept": "application/json, application/zip"})

    # Results and downloads.

    def result_files(self, task: Task, result: TaskResult) -> tuple[TaskFile | GeneratedFile, ...]:
        """The archive, or a file for each content of the document."""
        document = Payload(task.raw, task.connection, task.observed_at).maybe_child("document")
        if result.files or document is None:
            return super().result_files(task, result)
        stem = PurePosixPath(document.maybe_text("filename") or str(task.native_id)).stem
        return tuple(
            GeneratedFile("text", f"{stem}.{suffix}", as_text(content))
            if isinstance(content, str)
            else GeneratedFile("data", f"{stem}.{suffix}", as_json(content))
            for suffix, content in _contents(document)
        )

    def download_request(self, file: TaskFile) -> Request:
        """``GET /v1/result/{id}``: the archive, whose id is that of its task."""
        return super().download_request(file) if file.id is None else self._result_request(file.id)

    # Callbacks.

    def parse_webhook(self, delivery: Delivery) -> WebhookEvent:
        """Read a callback, which is unsigned and has no status: a reason to get the task."""
        payload = delivery.payload(delivery.by_url())
        native = payload.identifier("task_id")
        self.split_id(native)
        ref, kind = TaskRef.of(payload.connection, native), payload.child("progress").text("kind")
        return WebhookEvent(
            provider=self.name,
            connection=payload.connection,
            type=kind,
            duplicate_key=f"{ref} {kind} {delivery.digest}",
            needs_confirmation=True,
            ref=ref,
            raw=payload.raw,
        )

    # Translation.

    def task(self, payload: Payload, task_id: str | None = None) -> Task:
        """Translate the status object; what it calls a success is not yet that of the document.

        Args:
            payload: The object.
            task_id: The shared id that was requested; None if the object is the response to a submission.
        """
        native, word = payload.identifier("task_id"), payload.text("task_status")
        state = self.state(STATES, word)
        return Task(
            provider=self.name,
            connection=payload.connection,
            observed_at=payload.observed_at,
            id=task_id or native,
            native_id=native,
            status=state.status,
            reason=state.reason,
            recognized=state.recognized,
            native_status=word,
            operation=payload.maybe_text("task_type"),
            error=_task_failure(payload) if state.status is TaskStatus.FAILED else None,
            raw=payload.raw,
        )

    def _with_result(self, task: Task, payload: Payload) -> Task:
        """Return a task that has run with the outcome and contents of its document, whose object is `raw` then."""
        word = payload.text("status")
        state = self.state(STATES, word)
        errors = list(payload.children("errors"))
        message = next((text for each in errors if (text := each.maybe_message("error_message"))), None)
        return replace(
            task,
            status=state.status,
            reason=state.reason,
            recognized=state.recognized,
            native_status=word,
            message=message,
            result=_result(payload.child("document")) if state.status is TaskStatus.COMPLETED else None,
            error=_document_failure(errors, message) if state.status is TaskStatus.FAILED else None,
            observed_at=payload.observed_at,
            raw=payload.raw,
        )

    # Checks that the server does not make.

    def _check_options(self, options: Mapping[str, Any]) -> None:
        known = KNOWN_OPTIONS | self.settings.more_options
        for name in options.keys() - known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InvalidInput(
                f"{self.title} has no option {printable(name, 60)!r} and would ignore it; {hint}a newer server's "
                "options are named in the setting more_options"
            )


# Data that is sent.


def _files(submission: Submission) -> tuple[FormFile, ...]:
    """Return the documents under names whose stems differ, because the archive names files by stem."""
    files, stems = list[FormFile](), set[str]()
    for source in submission.sources:
        if not isinstance(source, Document):
            continue
        path = PurePosixPath(source.name)
        stem = next(stem for stem in _numbered(path.stem) if stem not in stems)
        stems.add(stem)
        media_type = source.media_type or "application/octet-stream"
        files.append(FormFile("files", f"{stem}{path.suffix}", source.content, media_type))
    return tuple(files)


def _numbered(stem: str) -> Iterator[str]:
    yield stem
    for number in count(2):
        yield f"{stem}-{number}"


def _links(submission: Submission) -> list[str]:
    links = [source.url for source in submission.sources if isinstance(source, Link)]
    names = [PurePosixPath(unquote(urlsplit(link).path)) for link in links]
    for index, name in enumerate(names):
        if name.stem and name.stem in {other.stem for other in names[:index]}:
            raise InvalidInput(
                f"two URLs end in {printable(name.stem, 60)}, and would overwrite each other in the archive; "
                "submit them separately"
            )
    return links


def _fields(submission: Submission, options: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    fields = [(name, text) for name, value in options.items() for text in _texts(name, value)]
    callback = submission.callback_url
    return (*fields, *(() if callback is None else (("callbacks", callback),)))


def _texts(name: str, value: Any) -> Iterator[str]:
    for each in value if name in LISTS and isinstance(value, list) else [value]:  # pyright: ignore[reportUnknownVariableType]  # any JSON
        yield each if isinstance(each, str) else json.dumps(each)


def _sources(submission: Submission, links: list[str], options: Mapping[str, Any]) -> dict[str, Any]:
    target = options.get("target_type")
    return {
        "sources": [{"kind": "http", "url": link} for link in links],
        "options": {
            name: [value] if name in LISTS and isinstance(value, str) else value
            for name, value in options.items()
            if name != "target_type"
        },
        **({} if target is None else {"target": {"kind": target}}),
        **({} if submission.callback_url is None else {"callbacks": [{"url": submission.callback_url}]}),
    }


# Data that is received.


def _contents(document: Payload) -> Iterator[tuple[str, Any]]:
    """Yield the suffix and the content of each format that was asked for; that of other formats is null."""
    names = [*CONTENTS, *(key for key in document.raw if key.endswith("_content") and key not in CONTENTS)]
    for name in names:
        if (content := document.raw.get(name)) is not None:
            yield CONTENTS.get(name, name.removesuffix("_content")), content


def _result(document: Payload) -> TaskResult | None:
    contents = [content for _, content in _contents(document)]
    text = next((each for each in contents if isinstance(each, str)), None)
    data = next((each for each in contents if not isinstance(each, str)), None)
    return None if text is None and data is None else TaskResult(text=text, data=data)


def _archive(native: str, response: Response) -> TaskFile:
    try:
        with ZipFile(BytesIO(response.body)) as archive:
            names = sorted(archive.namelist())  # the server's order varies
    except (BadZipFile, ValueError, NotImplementedError):
        raise MalformedResponse("the result is called a ZIP archive, and is none") from None
    return TaskFile(
        id=native,
        name=ARCHIVE,
        size=len(response.body),
        media_type="application/zip",
        properties={"names": names},
    )


def _task_failure(payload: Payload) -> TaskFailure:
    failure = payload.maybe_child("failure")  # null in every answer seen
    if failure is None:
        return TaskFailure(message=payload.maybe_message("error_message"))
    message = failure.maybe_message("message") or payload.maybe_message("error_message")
    return TaskFailure(code=failure.maybe_text("category"), message=message, details=failure.raw)


def _document_failure(errors: list[Payload], message: str | None) -> TaskFailure:
    code = next((code for each in errors if (code := each.maybe_text("category"))), None)
    return TaskFailure(code=code, message=message, details=[each.raw for each in errors] or None)
