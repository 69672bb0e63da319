"""The tasks and jobs of the emulated CloudConvert, their states and their files.

No state is stored. A task has the time of its creation, its inputs, a plan, and the times at which a caller uploaded
its file or cancelled it. Its whole `Timeline` follows from these, and its state is the timeline at a point in vendor
time. All times are vendor seconds since the epoch; `NEVER` is infinite.

The bytes of files are the same in every run, but the formats are not real: a text output names its source, any other
output is the bytes of the input under a new name. Names that the documentation does not give are marked as assumed.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import unquote, urlsplit
from uuid import UUID

from taskbridge.emulator import Host, Plan

from .emulator_validation import TaskSpec

Options: TypeAlias = Mapping[str, Any]
Status: TypeAlias = Literal["waiting", "processing", "finished", "error"]  # doc TASKS

NEVER: Final = float("inf")
GRAIN: Final = 1e-6  # seconds; times closer than this are equal, so that rounding errors do not postpone an end
RETENTION: Final = 24 * 3600.0  # seconds after the end (doc TASKS)
QUICK: Final = Plan(queued=0.25, working=0.25)  # imports and exports, in vendor seconds
NOT_ALLOWED: Final = "SANDBOX_FILE_NOT_ALLOWED"  # wire HOOK23
ZIP_TIME: Final = (2018, 9, 19, 14, 42, 58)  # of every archive member: an archive has the same bytes in every run


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file in the vendor's storage."""

    name: str
    content: bytes

    @property
    def md5(self) -> str:
        """Its MD5 sum in hexadecimal."""
        return hashlib.md5(self.content, usedforsecurity=False).hexdigest()


@dataclass(slots=True)
class NativeTask:
    """One task of the vendor."""

    id: str  # UUID v4
    operation: str
    payload: dict[str, Any]  # the submitted options
    created: float
    depends_on: tuple[str, ...] = ()  # ids of the tasks whose files are its inputs
    job_id: str | None = None  # its job; None for a task that was created directly
    name: str | None = None  # its name in the job
    # Its duration and outcome; None while they depend on the name of a file that is not uploaded yet.
    plan: Plan | None = None
    retry_of: str | None = None  # id of the task that it retries
    cancelled_at: float = NEVER  # when a caller cancelled it
    uploaded_at: float = NEVER  # when its file arrived (`import/upload`)
    upload: StoredFile | None = None  # that file
    deleted: bool = False

    @property
    def processes(self) -> bool:
        """Whether it processes files: it then costs credits, has an engine, and has a plan."""
        return not self.operation.startswith(("import/", "export/"))


@dataclass(slots=True)
class NativeJob:
    """One job of the vendor."""

    id: str  # UUID v4
    created: float
    tag: str | None = None  # the caller's free text
    webhook_url: str | None = None  # the caller's URL for its end
    # Its tasks, in the order in which they were submitted.
    tasks: list[NativeTask] = field(default_factory=list[NativeTask])
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Timeline:
    """When a task or job starts and ends, and how."""

    started: float  # when work starts
    ended: float  # when it ends
    failed: bool = False  # whether it ends as `error`
    code: str | None = None  # the vendor's error code, if any
    message: str | None = None  # the vendor's text for the failure, if any

    def status(self, now: float) -> Status:
        """The vendor's word for the state at ``now``."""
        if has_passed(self.ended, now):
            return "error" if self.failed else "finished"
        return "processing" if has_passed(self.started, now) else "waiting"


def has_passed(moment: float, now: float) -> bool:
    """Whether ``moment`` is now or in the past."""
    return now - moment > -GRAIN


class TaskStore:
    """All tasks and jobs of one emulated account."""

    failure: tuple[str | None, str] = (None, "can't find PDF header")  # engine text without a code: php issue 95
    """Code and message of a task whose plan says that it fails."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._allowed: Collection[str] | None = None  # MD5 sums of the sandbox; None outside it
        self._timelines: dict[str, Timeline] = {}
        self.tasks: dict[str, NativeTask] = {}
        self.jobs: dict[str, NativeJob] = {}

    @property
    def now(self) -> float:
        """Vendor seconds since the epoch."""
        return self._host.clock.time()

    def new_id(self) -> str:
        """A UUID v4 in lower case."""
        return str(UUID(int=self._host.random.getrandbits(128), version=4))

    # Changes by callers.

    def allow_only(self, md5: Collection[str]) -> None:
        """Fail every import of another file, as the sandbox does (doc OVER, wire HOOK23)."""
        self._allowed = md5
        self._timelines.clear()

    def create(
        self, specs: Sequence[TaskSpec], job: NativeJob | None = None, plan: Plan | None = None
    ) -> list[NativeTask]:
        """Create tasks, in a job (which is stored with them) or outside one; without a plan, the host chooses one."""
        ids = {spec.name: self.new_id() for spec in specs}
        tasks = [
            NativeTask(
                id=ids[spec.name],
                operation=spec.operation,
                payload=spec.payload,
                created=self.now if job is None else job.created,
                depends_on=tuple(dict.fromkeys(ids.get(ref, ref) for ref in spec.inputs)),
                job_id=None if job is None else job.id,
                name=spec.name,
                plan=plan,
            )
            for spec in specs
        ]
        self.tasks |= {task.id: task for task in tasks}
        if job is not None:
            job.tasks += tasks
            self.jobs[job.id] = job
        for task in tasks:
            self._take_plan(task)
        return tasks

    def cancel(self, task: NativeTask, at: float | None = None) -> None:
        """Cancel a task now, or at another time."""
        task.cancelled_at = self.now if at is None else at
        self._timelines.clear()

    def retry(self, task: NativeTask) -> NativeTask:
        """Create a task with the payload of ``task``, outside any job (sdk PY ``retry.json``)."""
        retry = NativeTask(
            self.new_id(),
            task.operation,
            dict(task.payload),
            created=self.now,
            depends_on=task.depends_on,
            retry_of=task.id,
        )
        self.tasks[retry.id] = retry
        self._take_plan(retry)
        return retry

    def receive(self, task: NativeTask, file: StoredFile) -> None:
        """Give a waiting task its file; the file of any other task is ignored."""
        if self.timeline(task).status(self.now) == "waiting":
            task.upload, task.uploaded_at = file, self.now
            self._timelines.clear()

    def delete(self, *tasks: NativeTask) -> None:
        """Delete tasks; an unfinished one is cancelled (assumed)."""
        for task in tasks:
            task.deleted = True
            if not has_passed(self.timeline(task).ended, self.now):
                self.cancel(task)

    def _take_plan(self, task: NativeTask) -> None:
        if task.processes and task.plan is None:
            name = self._name(task)
            if name or self._host.next_plans:
                task.plan = self._host.take_plan(name)

    # Tasks and jobs.

    def task(self, task_id: str) -> NativeTask | None:
        """The task, unless it is unknown, deleted or expired."""
        task = self.tasks.get(task_id)
        return task if task is not None and self._exists(task.deleted, self.timeline(task)) else None

    def job(self, job_id: str) -> NativeJob | None:
        """The job, unless it is unknown, deleted or expired."""
        job = self.jobs.get(job_id)
        return job if job is not None and self._exists(job.deleted, self.job_timeline(job)) else None

    def newest_tasks(self) -> Iterable[NativeTask]:
        """All tasks, newest first."""
        return (task for task in reversed(self.tasks.values()) if self._exists(task.deleted, self.timeline(task)))

    def newest_jobs(self) -> Iterable[NativeJob]:
        """All jobs, newest first."""
        return (job for job in reversed(self.jobs.values()) if self._exists(job.deleted, self.job_timeline(job)))

    def _exists(self, deleted: bool, timeline: Timeline) -> bool:
        return not deleted and not has_passed(timeline.ended + RETENTION, self.now)

    # Timelines and files.

    def timeline(self, task: NativeTask) -> Timeline:
        """The whole timeline of a task, as far as it is known now."""
        timeline = self._timelines.get(task.id)
        if timeline is None:
            timeline = self._timelines[task.id] = _cancelled(self._uninterrupted_timeline(task), task.cancelled_at)
        return timeline

    def job_timeline(self, job: NativeJob) -> Timeline:
        """The timeline of a job: it starts with its first task, ends with its last, and has no code of its own."""
        timelines = [self.timeline(task) for task in job.tasks]
        return Timeline(
            started=min(min(timeline.started, timeline.ended) for timeline in timelines),
            ended=max(timeline.ended for timeline in timelines),
            failed=any(self._fails_others(task) for task in job.tasks),
        )

    def credits(self, task: NativeTask) -> int | None:
        """What a task cost; None until it has ended."""
        status = self.timeline(task).status(self.now)
        return int(task.processes and status == "finished") if status in {"finished", "error"} else None

    def files(self, task: NativeTask) -> list[StoredFile]:
        """The files of a finished task."""
        if task.upload is not None:
            return [task.upload]
        inputs = [file for other in self._inputs(task) if not self.timeline(other).failed for file in self.files(other)]
        return make_files(task.operation, task.payload, inputs)

    def _inputs(self, task: NativeTask) -> list[NativeTask]:
        return [self.tasks[task_id] for task_id in task.depends_on]

    def _fails_others(self, task: NativeTask) -> bool:
        # ignore_error (sdk NODE): neither the job nor dependent tasks fail; the latter is assumed
        return self.timeline(task).failed and not task.payload.get("ignore_error")

    def _uninterrupted_timeline(self, task: NativeTask) -> Timeline:
        """The timeline if the task is not cancelled."""
        if task.operation == "import/upload":
            return Timeline(
                task.uploaded_at, task.uploaded_at, *self._refusal(task)
            )  # wire VCR: started_at == ended_at
        inputs = self._inputs(task)
        failed = min((self.timeline(other).ended for other in inputs if self._fails_others(other)), default=NEVER)
        if failed < NEVER:
            at = max(task.created, failed)  # wire HOOK23: started_at == ended_at
            return Timeline(at, at, failed=True, code="INPUT_TASK_FAILED", message="Input task has failed")
        return self._work(task, max([task.created, *(self.timeline(other).ended for other in inputs)]))

    def _work(self, task: NativeTask, ready: float) -> Timeline:
        plan = (task.plan or Plan.for_name(self._name(task), self._host.default_plan)) if task.processes else QUICK
        started = ready + plan.queued
        ended = NEVER if plan.outcome == "stuck" else started + plan.working
        limit = task.payload.get("timeout")
        if task.processes and isinstance(limit, int | float) and started + limit < ended:
            return Timeline(started, started + limit, failed=True, code="CANCELLED")  # doc CONV; the code is assumed
        match plan.outcome:
            case "failed":
                return Timeline(started, ended, True, *self.failure)
            case "cancelled":
                return Timeline(started, ended, failed=True, code="CANCELLED")
            case _:  # the vendor has no partial end
                return Timeline(started, ended, *self._refusal(task))

    def _refusal(self, task: NativeTask) -> tuple[bool, str | None, str | None]:
        """Whether the sandbox refuses the file of an import, and the code and message if so."""
        waits = task.operation == "import/upload" and task.upload is None
        if self._allowed is not None and task.operation.startswith("import/") and not waits:
            for file in self.files(task):
                if file.md5 not in self._allowed:
                    return True, NOT_ALLOWED, f"The file {file.name} is not whitelisted for sandbox use"
        return False, None, None

    def _name(self, task: NativeTask) -> str:
        """The caller's names for the documents that a task processes."""
        name = source_name(task.payload) if not task.depends_on else ""
        uploaded = task.upload.name if task.upload is not None else ""
        return " ".join(filter(None, [name, uploaded, *(self._name(other) for other in self._inputs(task))]))


def _cancelled(timeline: Timeline, at: float) -> Timeline:
    """The timeline of a task that a caller cancelled at ``at``, unless it had ended."""
    if at >= timeline.ended:
        return timeline
    started = timeline.started if timeline.started <= at else NEVER
    return Timeline(started, at, failed=True, code="CANCELLED")  # sdk JAVA; the message is unknown


# Files.


def source_name(options: Options) -> str:
    """The caller's name for the document of an import or website capture; empty if there is none."""
    return " ".join(str(options[key]) for key in ("filename", "url", "key") if options.get(key))


def make_files(operation: str, options: Options, inputs: Sequence[StoredFile]) -> list[StoredFile]:
    """Return the result files of a finished task; its inputs are the result files of the tasks that it depends on."""
    name = str(options.get("filename") or "")
    match operation:
        case "import/base64":
            files = [StoredFile(name, base64.b64decode(str(options["file"])))]
        case "import/raw":
            files = [StoredFile(name, str(options["file"]).encode())]
        case "convert" | "thumbnail":
            suffix = str(options.get("output_format") or "png")  # assumed default of thumbnail
            files = [_converted(file, suffix, name if len(inputs) == 1 else "") for file in inputs]
        case "capture-website":
            url = str(options["url"])
            default = f"{urlsplit(url).hostname}.{options['output_format']}"  # assumed
            files = [StoredFile(name or default, f"Emulated capture of {url}\n".encode())]
        case "merge" | "pdf/merge":
            default = f"merged.{options.get('output_format') or 'pdf'}"  # assumed
            files = [StoredFile(name or default, b"".join(file.content for file in inputs))]
        case "archive":
            files = [_archive(name or "archive.zip", inputs)]  # assumed name
        case "export/url" if options.get("archive_multiple_files") and len(inputs) > 1:
            files = [_archive("archive.zip", inputs)]
        case _ if operation.startswith("import/"):  # a file that the vendor would fetch; the emulator fetches nothing
            source = str(options.get("url") or options.get("key") or name or "document")
            name = name or PurePosixPath(unquote(urlsplit(source).path)).name or "document"
            files = [StoredFile(name, f"Emulated contents of {source}\n".encode())]
        case _:
            files = list(inputs)
    return files


def _converted(file: StoredFile, suffix: str, name: str) -> StoredFile:
    name = name or f"{PurePosixPath(file.name).stem}.{suffix}"
    return StoredFile(name, f"Text of {file.name}\n".encode() if suffix == "txt" else file.content)


def _archive(name: str, inputs: Sequence[StoredFile]) -> StoredFile:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number, file in enumerate(inputs):
            duplicate = any(file.name == other.name for other in inputs[:number])
            member = f"{number + 1}-{file.name}" if duplicate else file.name  # assumed
            archive.writestr(zipfile.ZipInfo(member, ZIP_TIME), file.content)
    return StoredFile(name, packed.getvalue())
