"""The shared model: what an application sees, whoever the vendor is.

Everything is frozen and does no I/O. Each field says whether it is *normalised* (ours, the same for every vendor) or
*verbatim* (the vendor's own). What a vendor does not say is None; nothing is made up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self, SupportsIndex, cast, overload

from taskbridge.errors import InvalidInput, InvalidTaskId, TaskFailed, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import TypeAdapter

    from taskbridge.errors import TaskbridgeError

__all__ = [
    "Outcome",
    "Outcomes",
    "Reason",
    "Task",
    "TaskFailure",
    "TaskFile",
    "TaskRef",
    "TaskResult",
    "TaskStatus",
    "WebhookEvent",
]


class TaskStatus(StrEnum):
    """Where a task is. These four never grow."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def is_terminal(self) -> bool:
        """Whether the vendor has ended its work: completed or failed."""
        return self in _TERMINAL


_TERMINAL: Final = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED})


class Reason(StrEnum):
    """Why a task is in its status; a closed refinement."""

    AWAITING_UPLOAD = "awaiting_upload"
    """Pending: nothing happens until the caller uploads the document."""
    AWAITING_REVIEW = "awaiting_review"
    """Processing: a person has to look at it, which may take days."""
    PARTIAL = "partial"
    """Completed: but a part of the document was not processed."""
    CANCELLED = "cancelled"
    """Failed: somebody stopped it."""
    DELETED = "deleted"
    """Failed: it was deleted at the vendor."""
    EXPIRED = "expired"
    """Failed: the vendor no longer has it."""
    DEPENDENCY_FAILED = "dependency_failed"
    """Failed: a task before it failed; that one has the cause."""
    INTEGRATION_FAILED = "integration_failed"
    """The vendor could not hand the result to the system behind it; the task itself goes on."""


_REF: Final = re.compile(r"([a-z0-9][a-z0-9-]*):([^\x00-\x1f\x7f\ud800-\udfff]+)", re.DOTALL)


class TaskRef(str):
    """``connection:id``: the text to store in a database or to hand to another process.

    A ref is plain text: it compares, hashes, sorts and pickles as such, holds no secret and parses back to itself.

    Raises:
        InvalidTaskId: The text has no connection name in front, or no id behind it.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Check the text and keep it as it is."""
        if _REF.fullmatch(text) is None:
            raise InvalidTaskId(
                f"{printable(text, 80)!r} is not a ref; a ref is connection:id, such as invoices:task_1"
            )
        return super().__new__(cls, text)

    @classmethod
    def of(cls, connection: str, task_id: str) -> Self:
        """Join a connection's name and a shared id."""
        return cls(f"{connection}:{task_id}")

    @property
    def connection(self) -> str:
        """Name of the connection."""
        return self.partition(":")[0]

    @property
    def id(self) -> str:
        """The shared id."""
        return self.partition(":")[2]

    def __repr__(self) -> str:
        return f"TaskRef({str(self)!r})"


class _Model:
    """What the models share: a dictionary and back, for a database or another process."""

    __slots__ = ()
    __pydantic_config__ = MappingProxyType({"extra": "forbid", "hide_input_in_errors": True})

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON has them: times as ISO 8601 text, lists for tuples, the vendor's data as it is.

        Links of files and `raw` are part of it: it may hold what `repr` leaves out.
        """
        found: dict[str, Any] = _adapter(type(self)).dump_python(self, mode="json")
        return found

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The opposite of `to_dict`.

        Args:
            values: The fields, with times as ISO 8601 text; what is left out has its default.

        Raises:
            InvalidInput: A field is unknown, missing or of another type; the message names it.
        """
        from pydantic import ValidationError  # noqa: PLC0415  # only here

        try:
            made: Self = _adapter(cls).validate_python(dict(values))
        except ValidationError as error:
            faults = [
                f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
                for fault in error.errors(include_input=False, include_url=False, include_context=False)
            ]
        else:
            faults = [f"{name}: Input should have a time zone" for name in _naive_times(made)]
            if not faults:
                return made
        told = "; ".join(faults[:5])
        raise InvalidInput(f"{cls.__name__}.from_dict: {printable(told, 500)}")

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The JSON Schema of what `to_dict` gives."""
        return _adapter(cls).json_schema(mode="serialization")


def _naive_times(model: _Model, above: str = "") -> Iterator[str]:
    for each in fields(cast("Any", model)):
        value: object = getattr(model, each.name)
        several = cast("tuple[object, ...]", value) if isinstance(value, tuple) else (value,)
        for one in several:
            if isinstance(one, datetime) and one.tzinfo is None:
                yield f"{above}{each.name}"
            elif isinstance(one, _Model):
                yield from _naive_times(one, f"{above}{each.name}.")


@cache
def _adapter(model: type) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter  # noqa: PLC0415  # costs more than all else here, and few ask for it

    return TypeAdapter(model)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFile(_Model):
    """A file that a task made."""

    id: str | None = None
    """Verbatim: the vendor's file id, where it has one."""
    name: str | None = None
    """Verbatim: the vendor's file name; a stranger wrote it: make it safe before using it as a path."""
    url: str | None = field(default=None, repr=False)
    """Verbatim: a capability (whoever has it has the file), so out of repr and logs."""
    size: int | None = None
    """Normalised: bytes."""
    media_type: str | None = None
    """Verbatim: such as ``application/pdf``."""
    expires_at: datetime | None = None
    """Normalised: aware UTC time after which the link is dead."""
    properties: Mapping[str, Any] | None = None
    """Verbatim: what else the vendor says of the file (width, height, pages, …)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult(_Model):
    """What a completed task made."""

    files: tuple[TaskFile, ...] = ()
    """Normalised: the files, in the vendor's order."""
    text: str | None = field(default=None, repr=False)
    """Verbatim: recognised text, in the format that was asked for."""
    data: Any = field(default=None, repr=False)
    """Verbatim: structured output, decoded from JSON and left as the vendor shaped it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFailure(_Model):
    """Why a task failed."""

    code: str | None = None
    """Verbatim: the vendor's code."""
    message: str | None = None
    """Verbatim: the vendor's words."""
    details: Any = None
    """Verbatim: what else the vendor says about the cause."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Task(_Model):
    """One look at a task: a frozen snapshot.

    A task hashes by its `ref` and compares without `raw` and `observed_at`: two equal snapshots say the same.
    """

    provider: str
    """Normalised: entry-point name of the provider."""
    connection: str
    """Normalised: name of the configured account through which it was seen."""
    id: str
    """Normalised: the shared id, as it was asked for: the vendor's id as text, with its kind in front where the vendor
    has several kinds of thing (``job/73df…``)."""
    native_id: str | int
    """Verbatim: the vendor's id, in its own type."""
    status: TaskStatus
    """Normalised: pending, processing, completed or failed."""
    native_status: str | None = None
    """Verbatim: the vendor's word (text, else its number as text)."""
    recognized: bool = True
    """Normalised: False when the vendor's word is not in our table; `status` is then processing."""
    reason: Reason | None = None
    """Normalised: a closed refinement of the status."""
    operation: str | None = None
    """Verbatim: the vendor's operation."""
    progress: float | None = None
    """Normalised: 0.0 to 1.0, only where the vendor really reports it; it may fall."""
    message: str | None = None
    """Verbatim: the vendor's words for the phase."""
    created_at: datetime | None = None
    """Normalised: aware UTC."""
    started_at: datetime | None = None
    """Normalised: aware UTC."""
    updated_at: datetime | None = None
    """Normalised: aware UTC."""
    finished_at: datetime | None = None
    """Normalised: aware UTC."""
    observed_at: datetime = field(compare=False)
    """Normalised: aware UTC time at which we looked."""
    result: TaskResult | None = None
    """Normalised: what the status answer itself carries, only when completed; `client.result` fetches the rest."""
    error: TaskFailure | None = None
    """Normalised: only when failed."""
    subtasks: tuple[Task, ...] = ()
    """Normalised: the tasks of a job, in the vendor's order."""
    external_id: str | None = None
    """Verbatim: the caller's own id or tag at the vendor."""
    parent_id: str | None = None
    """Normalised: shared id of the job that it belongs to."""
    retry_of: str | None = None
    """Normalised: shared id of the task that this one retries."""
    restarts: int | None = None
    """Verbatim: how often the vendor started it anew."""
    raw: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False, compare=False)
    """Verbatim: the vendor's object inside its envelope; may hold links and options, so out of repr."""

    @property
    def ref(self) -> TaskRef:
        """``connection:id``, the text to store."""
        return TaskRef.of(self.connection, self.id)

    @property
    def is_terminal(self) -> bool:
        """Whether the vendor has ended its work: completed or failed."""
        return self.status.is_terminal

    def __str__(self) -> str:
        return f"{printable(self.ref, 600)}: {self.describe()}"

    def __repr__(self) -> str:
        first = ("connection", "id", "status", "native_status", "reason")
        names = [*first, *(each.name for each in fields(self) if each.repr and each.name not in first)]
        known = ((name, getattr(self, name)) for name in names)
        return f"Task({', '.join(f'{name}={value!r}' for name, value in known if value is not None and value != ())})"

    def _repr_html_(self) -> str:
        from taskbridge.notebook import task_html  # noqa: PLC0415  # only in notebooks

        return task_html(self)

    def describe(self) -> str:
        """The status in words: ``failed (cancelled), vendor says 'error'``."""
        refinement = f" ({self.reason})" if self.reason else ""
        word = f", vendor says {printable(str(self.native_status), 60)!r}" if self.native_status else ""
        return f"{self.status}{refinement}{word}"

    def __hash__(self) -> int:
        return hash(self.ref)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How waiting for one of many tasks ended, or one change of it.

    Attributes:
        ref: Which task.
        task: The last snapshot, or None if no look-up succeeded.
        error: Why there is no terminal snapshot: a look-up that cannot succeed, or `WaitTimeout`.
    """

    ref: TaskRef
    task: Task | None = None
    error: TaskbridgeError | None = None

    def unwrap(self) -> Task:
        """The completed task.

        Raises:
            TaskFailed: The task failed.
            TaskbridgeError: `error`, if there is one.
        """
        if self.error is not None:
            raise self.error
        if self.task is None:
            raise AssertionError("an outcome has a task or an error")
        raise_if_failed(self.task)
        return self.task


class Outcomes(list[Outcome]):
    """What came of many tasks, in the order in which they were given: a list, shown as a table in a notebook."""

    @overload
    def __getitem__(self, place: SupportsIndex) -> Outcome: ...

    @overload
    def __getitem__(self, place: slice) -> Outcomes: ...

    def __getitem__(self, place: SupportsIndex | slice) -> Outcome | Outcomes:
        found = super().__getitem__(place)
        return Outcomes(found) if isinstance(found, list) else found

    def _repr_html_(self) -> str:
        from taskbridge.notebook import outcomes_html  # noqa: PLC0415  # only in notebooks

        return outcomes_html(self)


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """What a webhook delivery says, once its sender is proved.

    Attributes:
        provider: Entry-point name of the provider.
        connection: Name of the connection that it came for.
        type: The vendor's word for the event, verbatim.
        duplicate_key: The same for each delivery of one event; what to keep unique in a database.
        needs_confirmation: Whether the proof covers no time (or nothing but the address), so that the delivery may be
            an old one sent again, or made up: `ingest` then looks the task up instead of believing it.
        ref: Which task; None for events of other things, or where the delivery does not tell.
        task: The task as the event tells it; None where it tells no state.
        event_id: The vendor's id of the event, verbatim, where it has one.
        occurred_at: Aware UTC time of the event, where the vendor gives one.
        raw: The vendor's object, verbatim; may hold links and options, so out of repr.
    """

    provider: str
    connection: str
    type: str
    duplicate_key: str
    needs_confirmation: bool
    ref: TaskRef | None = None
    task: Task | None = None
    event_id: str | None = None
    occurred_at: datetime | None = None
    raw: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)


def raise_if_failed(task: Task) -> None:
    """Raise `TaskFailed` with the vendor's own reason if the task failed."""
    if task.status is not TaskStatus.FAILED:
        return
    words = task.error.message if task.error and task.error.message else task.describe()
    raise TaskFailed(
        f"the task failed: {printable(words, 500)}",
        task=task,
        provider=task.provider,
        connection=task.connection,
        ref=task.ref,
        vendor_code=task.error.code if task.error else None,
    )
