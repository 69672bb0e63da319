"""The tasks and jobs of the emulated CloudConvert, and what has become of them by now.

Nothing moves here. A task knows when it was made, what it waits for, how long it will work and when somebody
interfered; from these its whole `Life` follows, and a state is that life seen at a moment of vendor time.
All times are vendor seconds since the epoch; `NEVER` stands for what does not happen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias
from uuid import UUID

from taskbridge.emulator import Plan

from .emulator_files import StoredFile, make_files, source_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from taskbridge.emulator import Host

    from .emulator_checks import Draft

__all__ = ["NEVER", "Book", "Life", "NativeJob", "NativeTask", "Status"]

Status: TypeAlias = Literal["waiting", "processing", "finished", "error"]  # doc TASKS

NEVER: Final = float("inf")
GRAIN: Final = 1e-6  # seconds; moments closer than this are one, so that sums of floats postpone no end
RETENTION: Final = 24 * 3600.0  # seconds after the end (doc TASKS)
QUICK: Final = Plan(queued=0.25, working=0.25)  # imports and exports, in vendor seconds


@dataclass(slots=True)
class NativeTask:
    """One task of the vendor.

    Attributes:
        id: UUID v4.
        operation: The vendor's operation.
        payload: The submitted options.
        created: When it was created.
        depends_on: Ids of the tasks whose files it takes.
        job_id: Its job; None for a task created directly.
        name: Its name in the job.
        plan: How it goes; None while that depends on the name of a file that is still to be uploaded.
        retry_of: Id of the task that it repeats.
        stopped: When a caller cancelled it.
        uploaded: When its file arrived (``import/upload``).
        upload: That file.
        deleted: Whether a caller deleted it.
    """

    id: str
    operation: str
    payload: dict[str, Any]
    created: float
    depends_on: tuple[str, ...] = ()
    job_id: str | None = None
    name: str | None = None
    plan: Plan | None = None
    retry_of: str | None = None
    stopped: float = NEVER
    uploaded: float = NEVER
    upload: StoredFile | None = None
    deleted: bool = False

    @property
    def works(self) -> bool:
        """Whether it processes files: it costs credits, has an engine, and takes a plan."""
        return not self.operation.startswith(("import/", "export/"))


@dataclass(slots=True)
class NativeJob:
    """One job of the vendor.

    Attributes:
        id: UUID v4.
        created: When it was created.
        tag: The caller's free text.
        webhook_url: Where the caller wants to hear of its end.
        tasks: Its tasks, in the order in which they were submitted.
        deleted: Whether a caller deleted it.
    """

    id: str
    created: float
    tag: str | None = None
    webhook_url: str | None = None
    tasks: list[NativeTask] = field(default_factory=list[NativeTask])
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Life:
    """When a task or job starts and ends, and how.

    Attributes:
        started: When work starts.
        ended: When it is over.
        failed: Whether it ends as ``error``.
        code: The vendor's error code, if any.
        message: The vendor's words about the failure, if any.
    """

    started: float
    ended: float
    failed: bool = False
    code: str | None = None
    message: str | None = None

    def status(self, now: float) -> Status:
        """The vendor's word for the state at ``now``."""
        if reached(self.ended, now):
            return "error" if self.failed else "finished"
        return "processing" if reached(self.started, now) else "waiting"


def reached(moment: float, now: float) -> bool:
    """Whether ``moment`` is now or past."""
    return now - moment > -GRAIN


class Book:
    """All tasks and jobs of one emulated account.

    Args:
        host: Clock, source of ids, and plans.
    """

    failure: tuple[str | None, str] = (None, "can't find PDF header")  # engine text without a code: php issue 95
    """Code and message of a task whose plan says that it fails."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._lives: dict[str, Life] = {}
        self.tasks: dict[str, NativeTask] = {}
        self.jobs: dict[str, NativeJob] = {}

    @property
    def now(self) -> float:
        """Vendor seconds since the epoch."""
        return self._host.clock.time()

    def new_id(self) -> str:
        """A UUID v4 in lower case."""
        return str(UUID(int=self._host.random.getrandbits(128), version=4))

    # What callers do.

    def create(
        self, drafts: Sequence[Draft], job: NativeJob | None = None, plan: Plan | None = None
    ) -> list[NativeTask]:
        """Make tasks, in a job or outside of one.

        Args:
            drafts: Checked submissions.
            job: The job they belong to; it enters the book with them.
            plan: How their work goes; None asks the host.
        """
        ids = {draft.name: self.new_id() for draft in drafts}
        made = [
            NativeTask(
                id=ids[draft.name],
                operation=draft.operation,
                payload=draft.payload,
                created=self.now if job is None else job.created,
                depends_on=tuple(dict.fromkeys(ids.get(ref, ref) for ref in draft.inputs)),
                job_id=None if job is None else job.id,
                name=draft.name,
                plan=plan,
            )
            for draft in drafts
        ]
        self.tasks |= {task.id: task for task in made}
        if job is not None:
            job.tasks += made
            self.jobs[job.id] = job
        for task in made:
            self._take_plan(task)
        return made

    def cancel(self, task: NativeTask, at: float | None = None) -> None:
        """Stop a task now, or at a moment of its life."""
        task.stopped = self.now if at is None else at
        self._lives.clear()

    def retry(self, task: NativeTask) -> NativeTask:
        """A new task with the payload of ``task``, outside of any job (sdk PY ``retry.json``)."""
        again = NativeTask(
            self.new_id(),
            task.operation,
            dict(task.payload),
            created=self.now,
            depends_on=task.depends_on,
            retry_of=task.id,
        )
        self.tasks[again.id] = again
        self._take_plan(again)
        return again

    def receive(self, task: NativeTask, file: StoredFile) -> None:
        """Take a file for a task that waits for one; storage takes it in any case, and nobody else looks."""
        if self.life(task).status(self.now) == "waiting":
            task.upload, task.uploaded = file, self.now
            self._lives.clear()

    def delete(self, *tasks: NativeTask) -> None:
        """Forget tasks; one that was still going is stopped (assumed)."""
        for task in tasks:
            task.deleted = True
            if not reached(self.life(task).ended, self.now):
                self.cancel(task)

    def _take_plan(self, task: NativeTask) -> None:
        if task.works and task.plan is None:
            name = self._name(task)
            if name or self._host.next_plans:
                task.plan = self._host.take_plan(name)

    # What there is.

    def task(self, task_id: str) -> NativeTask | None:
        """The task, unless it is unknown, deleted or expired."""
        task = self.tasks.get(task_id)
        return task if task is not None and self._kept(task.deleted, self.life(task)) else None

    def job(self, job_id: str) -> NativeJob | None:
        """The job, unless it is unknown, deleted or expired."""
        job = self.jobs.get(job_id)
        return job if job is not None and self._kept(job.deleted, self.job_life(job)) else None

    def newest_tasks(self) -> Iterable[NativeTask]:
        """All tasks there are, the newest first."""
        return (task for task in reversed(self.tasks.values()) if self._kept(task.deleted, self.life(task)))

    def newest_jobs(self) -> Iterable[NativeJob]:
        """All jobs there are, the newest first."""
        return (job for job in reversed(self.jobs.values()) if self._kept(job.deleted, self.job_life(job)))

    def _kept(self, deleted: bool, life: Life) -> bool:
        return not deleted and not reached(life.ended + RETENTION, self.now)

    # What becomes of them.

    def life(self, task: NativeTask) -> Life:
        """The whole life of a task, as far as it is decided now."""
        life = self._lives.get(task.id)
        if life is None:
            life = self._lives[task.id] = _cut(self._natural_life(task), task.stopped)
        return life

    def job_life(self, job: NativeJob) -> Life:
        """The life of a job: it starts with its first task, ends with its last, and has no code of its own."""
        lives = [self.life(task) for task in job.tasks]
        return Life(
            started=min(min(life.started, life.ended) for life in lives),
            ended=max(life.ended for life in lives),
            failed=any(self._hurts(task) for task in job.tasks),
        )

    def files(self, task: NativeTask) -> list[StoredFile]:
        """The files of a finished task."""
        if task.upload is not None:
            return [task.upload]
        inputs = [file for before in self._before(task) if not self.life(before).failed for file in self.files(before)]
        return make_files(task.operation, task.payload, inputs)

    def _before(self, task: NativeTask) -> list[NativeTask]:
        return [self.tasks[task_id] for task_id in task.depends_on]

    def _hurts(self, task: NativeTask) -> bool:
        # ignore_error (sdk NODE): neither the job nor the tasks behind it mind; the latter is assumed
        return self.life(task).failed and not task.payload.get("ignore_error")

    def _natural_life(self, task: NativeTask) -> Life:
        """What happens unless somebody cancels."""
        if task.operation == "import/upload":
            return Life(task.uploaded, task.uploaded)  # wire VCR: started_at == ended_at
        before = self._before(task)
        broken = min((self.life(other).ended for other in before if self._hurts(other)), default=NEVER)
        if broken < NEVER:
            at = max(task.created, broken)  # wire HOOK23: started_at == ended_at
            return Life(at, at, failed=True, code="INPUT_TASK_FAILED", message="Input task has failed")
        return self._work(task, max([task.created, *(self.life(other).ended for other in before)]))

    def _work(self, task: NativeTask, ready: float) -> Life:
        plan = (task.plan or Plan.for_name(self._name(task), self._host.default_plan)) if task.works else QUICK
        started = ready + plan.queued
        ended = NEVER if plan.outcome == "stuck" else started + plan.working
        limit = task.payload.get("timeout")
        if task.works and isinstance(limit, int | float) and started + limit < ended:
            return Life(started, started + limit, failed=True, code="CANCELLED")  # doc CONV; the code is assumed
        match plan.outcome:
            case "failed":
                return Life(started, ended, True, *self.failure)
            case "cancelled":
                return Life(started, ended, failed=True, code="CANCELLED")
            case _:  # there is no partial end here
                return Life(started, ended)

    def _name(self, task: NativeTask) -> str:
        """What the caller called the documents that a task works on."""
        own = source_name(task.payload) if not task.depends_on else ""
        uploaded = task.upload.name if task.upload is not None else ""
        return " ".join(filter(None, [own, uploaded, *(self._name(before) for before in self._before(task))]))


def _cut(life: Life, stopped: float) -> Life:
    """A life that a caller cancelled at ``stopped``, if it lasted until then."""
    if stopped >= life.ended:
        return life
    started = life.started if life.started <= stopped else NEVER
    return Life(started, stopped, failed=True, code="CANCELLED")  # sdk JAVA; the message is unknown
