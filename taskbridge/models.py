"""The shared model: tasks, their results and failures, the same for every vendor.

Everything is frozen and does no I/O. Each field says whether it is *normalized* (the same for every vendor) or
*verbatim* (the vendor's own data). Facts that a vendor does not give are None.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final, Self, SupportsIndex, TypeAlias, TypeVar, overload

from taskbridge._conversion import Model
from taskbridge._lazy import LazyFields, LazyPages
from taskbridge.errors import InvalidTaskId, TaskFailed, printable

if TYPE_CHECKING:
    from pydantic_core import CoreSchema

    from taskbridge.errors import TaskbridgeError

__all__ = [
    "Account",
    "OperationInfo",
    "OperationOption",
    "Outcome",
    "Outcomes",
    "Reason",
    "StorageUrl",
    "Support",
    "Task",
    "TaskFailure",
    "TaskFile",
    "TaskRef",
    "TaskResult",
    "TaskStatus",
    "Usage",
    "UsageUnit",
    "WebhookEndpoint",
    "WebhookEvent",
]


class TaskStatus(StrEnum):
    """The state of a task. There will never be a fifth."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def is_terminal(self) -> bool:
        """Whether the vendor's work has ended: completed or failed."""
        return self in (TaskStatus.COMPLETED, TaskStatus.FAILED)


class Reason(StrEnum):
    """Why a task is in its status; a closed set."""

    AWAITING_UPLOAD = "awaiting_upload"
    """Pending: nothing happens until the caller uploads the document."""
    AWAITING_REVIEW = "awaiting_review"
    """Processing: a person has to review it, which may take days."""
    PARTIAL = "partial"
    """Completed: but part of the document was not processed."""
    CANCELLED = "cancelled"
    """Failed: it was canceled."""
    DELETED = "deleted"
    """Failed: it was deleted at the vendor."""
    EXPIRED = "expired"
    """Failed: the vendor no longer has it."""
    DEPENDENCY_FAILED = "dependency_failed"
    """Failed: a task that it depends on failed; that task has the cause."""
    INTEGRATION_FAILED = "integration_failed"
    """The vendor could not deliver the result to a connected system; the task itself continues."""


class UsageUnit(StrEnum):
    """What a vendor counts to charge for work; a closed set."""

    CREDITS = "credits"
    """The vendor's own currency, bought in advance."""
    PAGES = "pages"
    """Pages of documents."""
    MINUTES = "minutes"
    """Minutes of audio or video."""


_REF: Final = re.compile(r"([a-z0-9][a-z0-9-]*):([^\x00-\x1f\x7f\ud800-\udfff]+)", re.DOTALL)


class TaskRef(str):
    """``connection:id``: the text to store in a database or to pass to another process.

    A ref is plain text: it compares, hashes, sorts and pickles as a string, holds no secret, and parses back to itself.

    Raises:
        InvalidTaskId: The text does not start with a connection name, or has no id.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Validate the text and keep it unchanged."""
        if _REF.fullmatch(text) is None:
            raise InvalidTaskId(
                f"{printable(text, 80)!r} is not a ref; a ref is connection:id, such as invoices:task_1"
            )
        return super().__new__(cls, text)

    @classmethod
    def of(cls, connection: str, task_id: str) -> Self:
        """Return the ref of a connection's name and a shared id."""
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


class StorageUrl(str):
    """The URL of an object in a storage, such as ``s3://bucket/results/report.pdf``: where `download` saved a file.

    It is plain text. As a target of `download`, it tells type checkers that URLs come back instead of paths.
    """

    __slots__ = ()

    @property
    def name(self) -> str:
        """The last part."""
        return self.rstrip("/").rpartition("/")[2]


class _UtcDatetime:
    """Makes pydantic require a time zone and convert the time to UTC."""

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> CoreSchema:
        from pydantic_core import core_schema  # noqa: PLC0415  # only for to_dict and from_dict

        return core_schema.no_info_after_validator_function(_to_utc, core_schema.datetime_schema(tz_constraint="aware"))


def _to_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("in UTC, the time is not in the years 1 to 9999") from None


UtcDatetime: TypeAlias = Annotated[datetime, _UtcDatetime()]
"""An aware `datetime` in UTC."""


_T = TypeVar("_T")


def _fast_constructor(model: type[_T]) -> type[_T]:
    """Replace the constructor of a frozen, slotted, keyword-only dataclass by one that takes half the time.

    The constructor of a frozen dataclass looks each field up by name; this one calls the setters of the slots.
    """
    generated: Any = model.__init__
    defaults, names, lines = dict(generated.__kwdefaults__), dict[str, Any](), ["def __init__(self, *, "]
    for each in fields(model):  # type: ignore[arg-type]  # it is a dataclass
        names[f"set_{each.name}"] = getattr(model, each.name).__set__
        lines[0] += f"{each.name}, "
        if each.default_factory is MISSING:
            lines.append(f"    set_{each.name}(self, {each.name})")
        else:
            names[f"make_{each.name}"], defaults[each.name] = each.default_factory, None
            lines.append(f"    set_{each.name}(self, make_{each.name}() if {each.name} is None else {each.name})")
    lines[0] += "):"
    exec("\n".join(lines), names)  # noqa: S102  # as dataclasses does; only the names of fields
    init = names["__init__"]
    init.__kwdefaults__, init.__annotations__ = defaults, generated.__annotations__
    init.__qualname__ = generated.__qualname__
    model.__init__ = init  # type: ignore[method-assign]  # the same signature, faster
    return model


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFile(Model):
    """A file in the result of a task."""

    id: str | None = None
    """Verbatim: the vendor's file id, if it has one."""
    name: str | None = None
    """Verbatim: the vendor's file name. It is untrusted: make it safe before you use it as a path."""
    url: str | None = field(default=None, repr=False)
    """Verbatim: the link. Anyone who has it can get the file, so repr and logs leave it out."""
    size: int | None = None
    """Normalized: bytes."""
    media_type: str | None = None
    """Verbatim: the media type, such as ``application/pdf``."""
    expires_at: UtcDatetime | None = None
    """Normalized: aware UTC time at which the link expires."""
    properties: Mapping[str, Any] | None = None
    """Verbatim: other facts about the file (width, height, pages, …)."""


_NO_PAGES: Final = LazyPages.of(())
_NO_FIELDS: Final = LazyFields.of(())


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult(Model):
    """The result of a completed task."""

    files: tuple[TaskFile, ...] = ()
    """Normalized: the files, in the vendor's order."""
    text: str | None = field(default=None, repr=False)
    """Verbatim: recognized text, in the requested format."""
    data: Any = field(default=None, repr=False)
    """Verbatim: structured output, decoded from JSON, in the vendor's own structure."""
    pages: LazyPages = field(default=_NO_PAGES, repr=False)
    """Normalized: the pages of the document with their text, boxes and tables, where the vendor gives them; read from
    the vendor's data when first used. Only `client.result` gives them, not the status response."""
    fields: LazyFields = field(default=_NO_FIELDS, repr=False)
    """Normalized: named values that were extracted from the document, where the vendor gives them; as for `pages`."""

    @property
    def is_empty(self) -> bool:
        """Whether it has nothing: no file, data, page or field, and no text but blanks."""
        has_text = bool((self.text or "").strip())
        return self.data is None and not (has_text or self.files or self.pages or self.fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFailure(Model):
    """Why a task failed."""

    code: str | None = None
    """Verbatim: the vendor's error code."""
    message: str | None = None
    """Verbatim: the vendor's error message."""
    details: Any = None
    """Verbatim: other facts about the cause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage(Model):
    """How much of a vendor's service a task used: what the vendor charges for, not a price."""

    amount: float
    """Verbatim: the vendor's figure; of a job, the sum over those of its tasks that have one."""
    unit: UsageUnit
    """Normalized: credits, pages or minutes."""

    def __str__(self) -> str:
        return usage_text({self.unit: self.amount})


def total_usage(figures: Iterable[Usage | None]) -> dict[UsageUnit, float]:
    """Add up figures by unit."""
    totals: dict[UsageUnit, float] = {}
    for each in figures:
        if each is not None:
            totals[each.unit] = totals.get(each.unit, 0) + each.amount
    return totals


def usage_text(amounts: Mapping[UsageUnit, float]) -> str:
    """Return amounts as text: ``1 credit``, ``12.5 credits, 3 pages``."""
    parts = ((f"{amount:,.15g}", amount, str(unit)) for unit, amount in sorted(amounts.items()))
    return ", ".join(f"{figure} {unit.removesuffix('s') if amount == 1 else unit}" for figure, amount, unit in parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account(Model):
    """A snapshot of the account that a connection uses."""

    provider: str
    """Normalized: entry-point name of the provider."""
    connection: str
    """Normalized: name of the connection through which it was seen."""
    id: str | None = None
    """Verbatim: the vendor's id of the account, as text."""
    name: str | None = None
    """Verbatim: the name of the account."""
    balance: float | None = None
    """Verbatim: how much is left, in `unit`."""
    unit: UsageUnit | None = None
    """Normalized: what `balance` counts."""
    observed_at: UtcDatetime = field(compare=False)
    """Normalized: aware UTC time of the snapshot."""
    raw: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False, compare=False)
    """Verbatim: the vendor's object, without its envelope. It may hold personal data, so repr leaves it out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationOption(Model):
    """An option of a vendor's operation."""

    name: str
    """Verbatim: the name of the option."""
    type: str | None = None
    """Verbatim: the vendor's word for its type."""
    default: Any = None
    """Verbatim: its value if none is given."""
    choices: tuple[Any, ...] = ()
    """Verbatim: the values that it can have; empty if the vendor names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationInfo(Model):
    """An operation of a vendor, as the vendor lists it; of a conversion, one pair of formats and one engine."""

    name: str
    """Verbatim: the vendor's word, for ``native:…``."""
    input_format: str | None = None
    """Verbatim: the format that a conversion reads."""
    output_format: str | None = None
    """Verbatim: the format that a conversion makes."""
    engine: str | None = None
    """Verbatim: what does the work at the vendor."""
    options: tuple[OperationOption, ...] = ()
    """Normalized: its options, where they were asked for and the vendor lists them."""
    deprecated: bool = False
    """Verbatim: whether the vendor advises against it."""
    experimental: bool = False
    """Verbatim: whether the vendor calls it experimental."""
    raw: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False, compare=False)
    """Verbatim: the vendor's object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookEndpoint(Model):
    """A URL to which a vendor sends the webhooks of an account."""

    id: str
    """Verbatim: the vendor's id of it, as text."""
    url: str
    """Verbatim: where the webhooks go."""
    events: tuple[str, ...] = ()
    """Verbatim: the events that are sent."""
    secret: str | None = field(default=None, repr=False)
    """Verbatim: the signing secret, for the setting `webhook_secrets`; repr and logs leave it out."""
    disabled: bool | None = None
    """Verbatim: whether the vendor sends nothing any more."""
    failing: bool | None = None
    """Verbatim: whether deliveries fail."""
    created_at: UtcDatetime | None = None
    """Normalized: aware UTC time at which it was added."""
    raw: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False, compare=False)
    """Verbatim: the vendor's object. It holds the secret, so repr leaves it out."""


@_fast_constructor
@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Task(Model):
    """A snapshot of a task.

    A task hashes by its `ref` and compares without `raw` and `observed_at`.
    """

    provider: str
    """Normalized: entry-point name of the provider."""
    connection: str
    """Normalized: name of the connection through which it was seen."""
    id: str
    """Normalized: the shared id, as you passed it: the vendor's id as text, prefixed with its kind if the vendor has
    several kinds of ids (``job/73df…``)."""
    native_id: str | int
    """Verbatim: the vendor's id, in its own type."""
    status: TaskStatus
    """Normalized: pending, processing, completed or failed."""
    native_status: str | None = None
    """Verbatim: the vendor's status word; a status number as text."""
    recognized: bool = True
    """Normalized: False if the vendor's status word is in neither the provider's table nor the setting `states`.

    `status` is then processing.
    """
    reason: Reason | None = None
    """Normalized: why the task is in its status, from a closed set."""
    operation: str | None = None
    """Verbatim: the vendor's name of the operation."""
    progress: float | None = None
    """Normalized: 0.0 to 1.0, only if the vendor reports it; it may decrease."""
    message: str | None = None
    """Verbatim: the vendor's message about the current phase."""
    created_at: UtcDatetime | None = None
    """Normalized: aware UTC time at which the task was created."""
    started_at: UtcDatetime | None = None
    """Normalized: aware UTC time at which the task started."""
    updated_at: UtcDatetime | None = None
    """Normalized: aware UTC time at which the task last changed."""
    finished_at: UtcDatetime | None = None
    """Normalized: aware UTC time at which the task ended."""
    observed_at: UtcDatetime = field(compare=False)
    """Normalized: aware UTC time of the snapshot."""
    result: TaskResult | None = None
    """Normalized: the part of the result in the status response, only when completed; `client.result` gets the rest."""
    error: TaskFailure | None = None
    """Normalized: why the task failed, only when failed."""
    subtasks: tuple[Task, ...] = ()
    """Normalized: the tasks of a job, in the vendor's order."""
    external_id: str | None = None
    """Verbatim: the id or tag that the caller gave the task at the vendor."""
    parent_id: str | None = None
    """Normalized: shared id of the job that the task belongs to."""
    retry_of: str | None = None
    """Normalized: shared id of the task that this one retries."""
    resumable: bool = True
    """Normalized: False if the vendor does not keep the task, which ended with the response to its submission.

    It cannot be got by its ref then: keep the task itself, by `to_dict`.
    """
    restarts: int | None = None
    """Verbatim: how many times the vendor restarted the task."""
    usage: Usage | None = None
    """Verbatim: what the task cost so far, as far as the vendor says; its unit is normalized. A restarted task costs
    again, which the figure does not show."""
    raw: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False, compare=False)
    """Verbatim: the vendor's object, without its envelope. It may hold links and options, so repr leaves it out."""

    @property
    def ref(self) -> TaskRef:
        """``connection:id``, the text to store."""
        return TaskRef.of(self.connection, self.id)

    @property
    def is_terminal(self) -> bool:
        """Whether the vendor's work has ended: completed or failed."""
        return TaskStatus(self.status).is_terminal

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
        """Return the status in words: ``failed (cancelled), vendor says 'error'``."""
        refinement = f" ({self.reason})" if self.reason else ""
        word = f", vendor says {printable(str(self.native_status), 60)!r}" if self.native_status else ""
        return f"{self.status}{refinement}{word}"

    def __hash__(self) -> int:
        return hash(self.ref)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the wait for one of several tasks ended, or one of its changes.

    Attributes:
        ref: The task.
        task: The last snapshot; None if no status request succeeded.
        error: Why there is no terminal snapshot: an error that no retry can fix, or `WaitTimeout`.
    """

    ref: TaskRef
    task: Task | None = None
    error: TaskbridgeError | None = None

    def unwrap(self) -> Task:
        """Return the completed task.

        Raises:
            TaskFailed: The task failed.
            TaskbridgeError: The `error` of the outcome.
        """
        if self.error is not None:
            raise self.error
        if self.task is None:
            raise AssertionError("an outcome has a task or an error")
        raise_if_failed(self.task)
        return self.task


class Outcomes(list[Outcome]):
    """The outcomes of several tasks, in the order of the ids: a list that a notebook shows as a table."""

    @overload
    def __getitem__(self, index: SupportsIndex) -> Outcome: ...

    @overload
    def __getitem__(self, index: slice) -> Outcomes: ...

    def __getitem__(self, index: SupportsIndex | slice) -> Outcome | Outcomes:
        item = super().__getitem__(index)
        return Outcomes(item) if isinstance(item, list) else item

    def _repr_html_(self) -> str:
        from taskbridge.notebook import outcomes_html  # noqa: PLC0415  # only in notebooks

        return outcomes_html(self)


@dataclass(frozen=True, slots=True)
class Support:
    """Whether a submission is possible; true or false, and its text says why not.

    Attributes:
        error: What `submit` would raise; None if the submission is possible.
    """

    error: TaskbridgeError | None = None

    def __bool__(self) -> bool:
        return self.error is None

    def __str__(self) -> str:
        return "" if self.error is None else self.error.message


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """The event in a verified webhook delivery.

    Attributes:
        provider: Entry-point name of the provider.
        connection: Name of the connection that received it.
        type: The vendor's name of the event, verbatim.
        duplicate_key: Identical for each delivery of one event; make it a unique key in your database.
        needs_confirmation: Whether the verification covers no time, or nothing but the URL. The delivery may then be a
            replay or a forgery, so `ingest` gets the task from the vendor instead of trusting the event.
        ref: The task; None if the event is not about a task or does not name one.
        task: The task as the event describes it; None if the event has no state.
        event_id: The vendor's id of the event, verbatim, if it has one.
        occurred_at: Aware UTC time of the event, if the vendor gives one.
        raw: The vendor's object, verbatim. It may hold links and options, so repr leaves it out.
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
    """Raise `TaskFailed` with the vendor's reason if the task failed."""
    if task.status != TaskStatus.FAILED:
        return
    words = task.error.message if task.error and task.error.message else task.describe()
    raise TaskFailed(
        f"the task failed: {printable(words, 500)}",
        task=task,
        provider=task.provider,
        connection=task.connection,
        ref=task.ref,
        vendor_code=printable(task.error.code) if task.error and task.error.code else None,
    )
