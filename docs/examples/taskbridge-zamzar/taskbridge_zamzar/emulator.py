"""An emulator of the Zamzar API v1, written from its official client, zamzar 2.0.2; times in seconds, sizes in bytes.

Labels such as JOB name the client's files: zamzar/models/job.py, zamzar/api/jobs_api.py (JOBS), zamzar/facade/
job_manager.py (MANAGER). Behavior that none of them shows is marked as assumed. Nothing happens between requests: a
job's state is computed when a request comes in.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, unquote, urlsplit
from zipfile import ZipFile

from starlette.responses import Response
from taskbridge.emulator import Plan, VendorEmulator
from taskbridge.emulator.helpers import (
    ErrorResponse,
    FormPart,
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

__all__ = ["ZamzarEmulator"]

PREFIX: Final = "zamzar"
PAGE_SIZE: Final = 50  # at most: JOBS; that it is also the default is assumed
IMAGE_FORMATS: Final = frozenset({"jpg", "png"})  # one file for each page; that there are two pages is assumed
EXPORT_TIME: Final = 2.0  # seconds that an export takes: assumed

# HTTP status -> code and message. 1x is about the content, 2x about the request, 3x about the service: ERROR, whose
# only example is 22; all codes and messages here are assumed.
ERRORS: Final[Mapping[int, tuple[int, str]]] = {
    401: (21, "the API key is missing or invalid"),
    404: (20, "the requested resource does not exist"),
    422: (10, "a parameter is missing or invalid"),
}
FAILURE: Final = {"code": 3, "message": "the file could not be converted"}  # fields: FAILURE; values assumed


@dataclass(slots=True)
class _File:
    id: int
    name: str
    data: bytes
    created: float

    def show(self, key: str) -> JsonObject:
        return {
            "id": self.id,
            "key": key,
            "name": self.name,
            "size": len(self.data),
            "format": PurePosixPath(self.name).suffix.removeprefix("."),
            "created_at": utc_text(self.created),
        }


@dataclass(slots=True)
class _Job:
    id: int
    source: _File
    url: str | None  # of an import
    target_format: str
    export_url: str | None
    options: str | None
    life: Life
    export_time: float = EXPORT_TIME
    export_fails: bool = False
    cancelled: float | None = None
    targets: Sequence[_File] = ()


class ZamzarEmulator(VendorEmulator):
    """The emulated Zamzar."""

    name = "zamzar"

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._key = random_text(host.random, 32)
        self._files: dict[int, _File] = {}
        self._imports: dict[int, str] = {}  # id -> URL; that the file has the same id is assumed
        self._jobs: dict[int, _Job] = {}
        self._last = 0
        self._samples = self._make_samples()

    def mounts(self) -> Mapping[str, Sequence[BaseRoute]]:
        """The calls of JOBS and FILES, and the import of a URL that the client makes."""
        table = [
            ("GET", "/v1/", self._welcome),
            ("POST", "/v1/jobs", self._submit),
            ("GET", "/v1/jobs", self._list),
            ("GET", "/v1/jobs/successful", self._list_successful),
            ("GET", "/v1/jobs/{id:int}", self._get),
            ("DELETE", "/v1/jobs/{id:int}", self._cancel),
            ("POST", "/v1/imports", self._import),
            ("GET", "/v1/imports/{id:int}", self._get_import),
            ("POST", "/v1/files", self._upload),
            ("GET", "/v1/files/{id:int}", self._get_file),
            ("GET", "/v1/files/{id:int}/content", self._content),
            ("DELETE", "/v1/files/{id:int}", self._delete_file),
        ]
        return {PREFIX: routes(table, self._check)}

    def settings(self) -> Mapping[str, str]:
        """The key, and the base URL up to ``/v1``."""
        return {"api_key": self._key, "base_url": f"{self.host.base_url}/{PREFIX}/v1"}

    def samples(self) -> Mapping[str, str]:
        """A job for each status, and one for each status of an export."""
        return self._samples

    # Before every call.

    def _check(self, request: Request) -> None:
        if request.headers.get("authorization") != f"Bearer {self._key}":  # CONFIGURATION
            raise _error(401)

    async def _welcome(self, request: Request) -> Response:
        del request
        return to_json({"message": "Welcome to the Zamzar API"})  # WELCOME

    # Jobs.

    async def _submit(self, request: Request) -> Response:
        form = from_multipart(await request.body(), request.headers.get("content-type", ""))
        target, document = _text(form, "target_format"), form.get("source_file")
        if not target or document is None:
            raise _error(422)
        source, url = self._source(document, _text(form, "source_format"))
        plan = self.host.take_plan(source.name)
        job = self._add(source, target, Life(self.host.clock.time(), plan), _text(form, "export_url"))
        job.url, job.options = url, _text(form, "options")
        return to_json(self._show(job), 201)

    def _source(self, document: FormPart, source_format: str | None) -> tuple[_File, str | None]:
        """Return the uploaded file, a stored one by its id, or one fetched from a URL: JOBS."""
        if document.filename is not None:
            return self._store(document.filename, document.data), None
        text = document.data.decode(errors="replace")
        if text.isdecimal() and int(text) in self._files:
            return self._files[int(text)], None
        name = unquote(PurePosixPath(urlsplit(text).path).name)
        if not name or "://" not in text:
            raise _error(422)
        if "." not in name and source_format:
            name = f"{name}.{source_format}"  # facade/jobs_service.py
        file = self._store(name, b"fetched from a URL")
        self._imports[file.id] = text
        return file, text

    async def _get(self, request: Request) -> Response:
        return to_json(self._show(self._job(request)))

    async def _list(self, request: Request) -> Response:
        return self._page(request, list(self._jobs.values()))

    async def _list_successful(self, request: Request) -> Response:
        return self._page(request, [job for job in self._jobs.values() if self._status(job) == "successful"])

    async def _cancel(self, request: Request) -> Response:
        job = self._job(request)
        if self._status(job) in ("initialising", "converting"):
            job.cancelled = self.host.clock.time()
        return to_json(self._show(job))  # a job that has ended is returned unchanged: assumed

    def _job(self, request: Request) -> _Job:
        job = self._jobs.get(request.path_params["id"])
        if job is None:
            raise _error(404)
        return job

    def _page(self, request: Request, jobs: Sequence[_Job]) -> Response:
        """Newest first, as FILES documents it for files; assumed for jobs. `after` means older than that id."""
        query = request.query_params
        limit = min(int(query.get("limit", PAGE_SIZE)), PAGE_SIZE)
        older = [job for job in reversed(jobs) if "after" not in query or job.id < int(query["after"])]
        chosen = older[:limit]
        if "before" in query:
            chosen = [job for job in reversed(jobs) if job.id > int(query["before"])][-limit:]
        ends = {"first": chosen[0].id, "last": chosen[-1].id} if chosen else {}
        paging = {"total_count": len(jobs), **ends, "limit": limit}
        return to_json({"paging": paging, "data": [self._show(job) for job in chosen]})

    def _add(self, source: _File, target: str, life: Life, export_url: str | None = None) -> _Job:
        job = _Job(self._new_id(), source, None, target, export_url, None, life)
        self._jobs[job.id] = job
        return job

    def _status(self, job: _Job) -> str:
        now = self.host.clock.time()
        if job.cancelled is not None or (job.life.plan.outcome == "cancelled" and now >= job.life.finished_at):
            return "cancelled"
        phase = job.life.phase(now)
        if phase != "ended":
            return "initialising" if phase == "queued" else "converting"
        return "failed" if job.life.plan.outcome == "failed" else "successful"

    def _show(self, job: _Job) -> JsonObject:
        status = self._status(job)
        shown: JsonObject = {
            "id": job.id,
            "key": self._key,
            "status": status,
            "sandbox": False,
            "created_at": utc_text(job.life.submitted_at),
            "finished_at": utc_text(job.life.finished_at) if status == "successful" else None,  # "null otherwise": JOB
            "source_file": job.source.show(self._key),
            "target_files": [],
            "target_format": job.target_format,
            "credit_cost": 1,
        }
        if job.url is not None:
            shown["import"] = self._show_import(job.source.id)
        if status == "failed":
            shown["failure"] = FAILURE
        if status == "successful":
            job.targets = job.targets or self._convert(job)
            shown["target_files"] = [each.show(self._key) for each in job.targets]
        if job.export_url is not None:
            shown |= {"export_url": job.export_url, "exports": self._exports(job) if status == "successful" else []}
        return shown

    def _exports(self, job: _Job) -> list[JsonObject]:
        has_ended = self.host.clock.time() - job.life.finished_at >= job.export_time
        status = ("failed" if job.export_fails else "successful") if has_ended else "uploading"
        return [{"id": 1, "url": job.export_url, "status": status}]

    # Imports; each has ended as soon as it is requested: assumed.

    async def _import(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode()))  # IMPORTS
        url = form.get("url", "")
        if "://" not in url:
            raise _error(422)
        file = self._store(form.get("filename") or PurePosixPath(urlsplit(url).path).name, b"fetched from a URL")
        self._imports[file.id] = url
        return to_json(self._show_import(file.id), 201)

    async def _get_import(self, request: Request) -> Response:
        if request.path_params["id"] not in self._imports:
            raise _error(404)
        return to_json(self._show_import(request.path_params["id"]))

    def _show_import(self, import_id: int) -> JsonObject:
        file = self._files[import_id]
        created = utc_text(file.created)
        return {
            "id": import_id,
            "key": self._key,
            "url": self._imports[import_id],
            "status": "successful",
            "file": file.show(self._key),
            "created_at": created,
            "finished_at": created,
        }

    # Files.

    async def _upload(self, request: Request) -> Response:
        form = from_multipart(await request.body(), request.headers.get("content-type", ""))
        if "content" not in form:
            raise _error(422)
        name = _text(form, "name") or form["content"].filename or "file"
        return to_json(self._store(name, form["content"].data).show(self._key), 201)

    async def _get_file(self, request: Request) -> Response:
        return to_json(self._file(request).show(self._key))

    async def _content(self, request: Request) -> Response:
        return Response(self._file(request).data, media_type="application/octet-stream")

    async def _delete_file(self, request: Request) -> Response:
        file = self._files.pop(self._file(request).id)
        return to_json(file.show(self._key))

    def _file(self, request: Request) -> _File:
        file = self._files.get(request.path_params["id"])
        if file is None:
            raise _error(404)
        return file

    def _store(self, name: str, data: bytes) -> _File:
        file = _File(self._new_id(), name, data, self.host.clock.time())
        self._files[file.id] = file
        return file

    def _convert(self, job: _Job) -> Sequence[_File]:
        """Return one file; for images one for each page, and an archive of them, which MANAGER expects."""
        stem, target = PurePosixPath(job.source.name).stem, job.target_format
        content = f"{job.source.name} as {target}\n".encode()
        if target not in IMAGE_FORMATS:
            return [self._store(f"{stem}.{target}", content)]
        pages = [self._store(f"{stem}-{number}.{target}", content) for number in (1, 2)]
        packed = BytesIO()
        with ZipFile(packed, "w") as archive:
            for page in pages:
                archive.writestr(page.name, page.data)
        return [*pages, self._store(f"{stem}.zip", packed.getvalue())]

    def _new_id(self) -> int:
        self._last += 1
        return self._last

    # Samples.

    def _make_samples(self) -> dict[str, str]:
        hour_ago = self.host.clock.time() - 3600
        bucket = "s3://CREDENTIAL_NAME@my-bucket-name/report.pdf"  # JOBS
        rows: dict[str, tuple[str, Plan, str | None]] = {
            "completed": ("pdf", Plan(), None),
            "several": ("png", Plan(), None),
            "failed": ("pdf", Plan(outcome="failed"), None),
            "cancelled": ("pdf", Plan(outcome="cancelled"), None),
            "processing": ("pdf", Plan(outcome="stuck"), None),
            "pending": ("pdf", Plan(queued=float("inf")), None),
            "exporting": ("pdf", Plan(), bucket),
            "exported": ("pdf", Plan(), bucket),
            "export-failed": ("pdf", Plan(), bucket),
        }
        jobs = {
            label: self._add(self._store("report.docx", b"a report"), target, Life(hour_ago, plan), export_url)
            for label, (target, plan, export_url) in rows.items()
        }
        jobs["exporting"].export_time = float("inf")
        jobs["export-failed"].export_fails = True
        return {label: str(job.id) for label, job in jobs.items()}


def _text(form: Mapping[str, FormPart], name: str) -> str | None:
    part = form.get(name)
    return None if part is None else part.data.decode(errors="replace")


def _error(status: int) -> ErrorResponse:
    code, message = ERRORS[status]
    return ErrorResponse(to_json({"errors": [{"code": code, "message": message}]}, status))  # shape: ERRORS
