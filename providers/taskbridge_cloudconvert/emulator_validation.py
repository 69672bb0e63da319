"""Which requests the emulated CloudConvert accepts, and its error bodies.

Evidence marks name the pages of https://cloudconvert.com/docs/api-reference (TASKS, JOBS), official clients and
recordings. Where only the HTTP status is known, the text is assumed and marked so.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from taskbridge.emulator.helpers import as_list, as_object

# Operation -> required fields.        import/export pages, clients NODE JAVA N8N
REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    "import/url": ("url",),
    **dict.fromkeys(("import/base64", "import/raw"), ("file", "filename")),
    **dict.fromkeys(("import/upload", "import/s3", "import/google-cloud-storage", "import/openstack"), ()),
    **dict.fromkeys(("import/sftp", "import/azure/blob", "import/azure-blob"), ()),  # the blobs: NODE, JAVA
    "convert": ("input", "output_format"),
    "capture-website": ("url", "output_format"),
    "command": ("input", "engine", "command", "arguments"),
    **dict.fromkeys(("optimize", "watermark", "thumbnail", "merge", "archive", "archive/extract"), ("input",)),
    **dict.fromkeys(("metadata", "metadata/write", "pdf/a", "pdf/ocr", "pdf/encrypt", "pdf/decrypt"), ("input",)),
    **dict.fromkeys(("pdf/merge", "pdf/extract-pages", "pdf/rotate-pages", "pdf/split-pages"), ("input",)),
    **dict.fromkeys(("export/url", "export/s3", "export/azure/blob", "export/google-cloud-storage"), ("input",)),
    **dict.fromkeys(("export/openstack", "export/sftp", "export/upload"), ("input",)),
}

TASK_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")  # doc JOBS
# An output format such as ``docx``, ``numbers`` or ``tar.gz``; the vendor's real list is long and grows.
FORMAT: Final = re.compile(r"[a-z0-9]{1,7}(\.[a-z0-9]{1,4})?")
WEBHOOK_EVENTS: Final = ("job.created", "job.finished", "job.failed")  # doc HOOK

# HTTP status -> code and message. The bodies of 403 and of the second kind of 402 are unknown.
ERRORS: Final[Mapping[int, tuple[str, str]]] = {
    400: ("INVALID_DATA", "The given data was invalid."),  # sdk PHP
    401: ("UNAUTHENTICATED", "Unauthenticated."),  # sdk JAVA, W6W probe
    402: ("CREDITS_EXCEEDED", "Your account has run out of conversion minutes"),  # sdk PHP RUBY
    404: ("NOT_FOUND", "Not Found"),  # assumed, no recording shows them
    405: ("METHOD_NOT_ALLOWED", "Method Not Allowed"),  # assumed
    422: ("INVALID_DATA", "The given data was invalid."),  # wire XSOAR, sdk JAVA
    429: ("TOO_MANY_REQUESTS", "Too Many Requests"),  # the code: W6W; the message is assumed
    500: ("INTERNAL_ERROR", "Server Error"),  # wire XSOAR
}


class VendorError(Exception):
    """An error response; raising it ends a request."""

    def __init__(self, status: int, code: str, message: str, errors: Mapping[str, list[str]] | None = None) -> None:
        super().__init__(status, code)
        self.status = status
        self.headers: dict[str, str] = {}
        self.body: dict[str, Any] = {"message": message, "code": code}
        if errors is not None:
            self.body["errors"] = dict(errors)

    @classmethod
    def of(cls, status: int, errors: Mapping[str, list[str]] | None = None) -> VendorError:
        """An error of the table."""
        return cls(status, *ERRORS[status], errors)


def invalid(errors: Mapping[str, list[str]]) -> VendorError:
    """A 422 with the invalid fields."""
    return VendorError.of(422, errors)


def not_found() -> VendorError:
    """A 404 for an unknown, deleted or expired id."""
    return VendorError.of(404)


def too_many_requests(retry_after: int) -> VendorError:
    """A 429 with the seconds after which requests are accepted again (W6W)."""
    error = VendorError.of(429)
    error.headers["Retry-After"] = str(retry_after)
    return error


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task as it was submitted."""

    operation: str
    payload: dict[str, Any]  # its options
    inputs: tuple[str, ...]  # names of tasks of the same job, or ids of tasks
    name: str | None = None  # its name in the job; None outside a job


def read_task(operation: str, body: Mapping[str, Any], exists: Callable[[str], bool]) -> TaskSpec:
    """Read a task that is created directly, or raise `VendorError`."""
    if operation not in REQUIRED:
        raise not_found()
    spec = _spec(operation, body)
    errors = _field_errors(spec, exists)
    if errors:
        raise invalid({field: [text] for field, text in errors.items()})
    _check_conversion(spec)
    return spec


def read_job(body: Mapping[str, Any], exists: Callable[[str], bool]) -> list[TaskSpec]:
    """Read the tasks of a job, in the order in which they were submitted, or raise `VendorError`."""
    if not body.get("tasks"):
        raise invalid({"tasks": ["The tasks field is required."]})
    tasks = as_object(body["tasks"])
    if tasks is None:
        raise invalid({"tasks": ["The tasks must be an array."]})  # assumed; PHP calls an object an array
    options = ((name, as_object(task) or {}) for name, task in tasks.items())
    specs = [_spec(str(task.get("operation", "")), task, name) for name, task in options]
    errors: dict[str, list[str]] = {}
    for spec in specs:
        for field, text in _job_errors(spec, specs, exists).items():
            errors.setdefault(field, []).append(f"Task {spec.name}: {text}")  # names the task: node issue 74
    if not _is_url(body.get("webhook_url", "https://example.com")):
        errors["webhook_url"] = ["The webhook url format is invalid."]  # assumed
    if errors:
        raise invalid(errors)
    for spec in specs:
        _check_conversion(spec)
    return specs


def read_webhook(body: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Read the URL and the events of a webhook, or raise `VendorError`; the texts are assumed."""
    url, events = body.get("url"), as_list(body.get("events"))
    errors = {field: f"The {field} field is required." for field in ("url", "events") if not body.get(field)}
    if "url" not in errors and not _is_url(url):
        errors["url"] = "The url format is invalid."
    if "events" not in errors and events is None:
        errors["events"] = "The events must be an array."
    for number, event in enumerate(events or ()):
        if event not in WEBHOOK_EVENTS:
            errors[f"events.{number}"] = f"The selected events.{number} is invalid."
    if errors:
        raise invalid({field: [text] for field, text in errors.items()})
    return str(url), events or []


def _spec(operation: str, body: Mapping[str, Any], name: str | None = None) -> TaskSpec:
    payload = {key: value for key, value in body.items() if key != "operation"}
    value = payload.get("input")
    inputs = as_list(value) or ([value] if value else [])
    return TaskSpec(operation, payload, tuple(str(item) for item in inputs), name)


def _job_errors(spec: TaskSpec, specs: list[TaskSpec], exists: Callable[[str], bool]) -> dict[str, str]:
    if not TASK_NAME.fullmatch(spec.name or ""):
        return {"tasks": "The name format is invalid."}  # assumed
    if not spec.operation:
        return {"operation": "The operation field is required."}  # assumed
    if spec.operation not in REQUIRED:
        return {"operation": "The selected operation is invalid."}  # assumed
    names = {other.name: other for other in specs}
    errors = _field_errors(spec, lambda ref: ref in names or exists(ref))
    if spec.name in _reachable(spec, names):
        errors["input"] = "Invalid input task."
    return errors


def _reachable(spec: TaskSpec, names: Mapping[str | None, TaskSpec]) -> set[str]:
    """Names of all tasks before this one; a cycle if its own is among them."""
    found: set[str] = set()
    pending = list(spec.inputs)
    while pending:
        ref = pending.pop()
        if ref in names and ref not in found:
            found.add(ref)
            pending += names[ref].inputs
    return found


def _field_errors(spec: TaskSpec, exists: Callable[[str], bool]) -> dict[str, str]:
    payload = spec.payload
    errors = {
        field: f"The {field.replace('_', ' ')} field is required."
        for field in REQUIRED[spec.operation]
        if payload.get(field) in (None, "", [])
    }
    if "url" in REQUIRED[spec.operation] and "url" not in errors and not _is_url(payload["url"]):
        errors["url"] = "The url format is invalid."  # wire XSOAR
    if spec.operation == "import/base64" and "file" not in errors and not _is_base64(payload["file"]):
        errors["file"] = "The file format is invalid."  # assumed
    if not all(exists(ref) for ref in spec.inputs):
        errors["input"] = "Invalid input task."  # sdk JAVA
    return errors


def _check_conversion(spec: TaskSpec) -> None:
    if spec.operation == "convert" and not FORMAT.fullmatch(str(spec.payload["output_format"])):
        raise VendorError(422, "INVALID_CONVERSION_TYPE", "This conversion type is not supported")  # wire XSOAR


def _is_url(value: object) -> bool:
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
    except ValueError:
        return False
    return parts is not None and parts.scheme in {"http", "https"} and bool(parts.hostname)


def _is_base64(value: object) -> bool:
    try:
        b64decode(str(value))
    except ValueError:
        return False
    return True
