"""What a submission needs to be stored: where its document is, what identifies it, and its arguments."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import file_digest
from json import dumps, loads
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from taskbridge._engine.inputs import is_url
from taskbridge.errors import ConfigError, InvalidInput, ServerError, SubmitUncertain, TaskbridgeError, printable
from taskbridge.models import Reason, Task
from taskbridge.provider.options import NeutralOptions
from taskbridge.store.records import storable

_LONGEST_KEY: Final = 200  # characters
_ENCODED: Final = "file:"


class SubmissionOptions(NeutralOptions, total=False):
    """What a stored submission may have besides its document and its key; see `Transaction.submit`."""

    options: Mapping[str, Any] | None
    """The vendor's own options; plain JSON."""
    external_id: str | None
    """As for `Client.submit`."""
    callback_url: str | None
    """As for `Client.submit`."""
    name: str | None
    """As for `Client.submit`."""
    meta: Mapping[str, Any] | None
    """Data of your own, which events repeat; plain JSON."""
    until: datetime | None
    """When to give up waiting for the end of its task; None for never."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Identifies the content of a file.

    Attributes:
        size: Bytes.
        digest: SHA-256, in hexadecimal.
        modified_ns: Its last change, in nanoseconds since the epoch.
    """

    size: int
    digest: str
    modified_ns: int


@dataclass(frozen=True, slots=True)
class StoredInput:
    """A document that another process can find.

    Attributes:
        source: An absolute path, or a URL.
        content: What the file contains; None for a URL.
    """

    source: str
    content: Fingerprint | None


def store_input(given: object, *, read: bool = True) -> StoredInput | None:
    """Return how a document is stored; without `read`, without what it contains.

    Raises:
        InvalidInput: Another process could not find it, or it is no file.
        OSError: The file cannot be read.
    """
    if given is None:
        return None
    source = find_source(given)
    require_utf8("input", source)
    return StoredInput(encode_name(source), None if is_url(source) or not read else fingerprint(Path(source)))


def find_source(given: object) -> str:
    """Return where a document is: an absolute path, or a URL.

    Raises:
        InvalidInput: It is neither a path nor a URL.
    """
    if not isinstance(given, str | os.PathLike):
        kind = type(given).__name__
        raise InvalidInput(f"a stored submission takes a path or a URL, not {kind}: another process sends it")
    name = os.fspath(given)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]  # of bytes, too
    if not isinstance(name, str):
        raise InvalidInput("a stored submission takes a path as text")
    return name if is_url(name) else os.path.abspath(name)  # noqa: PTH100  # Path would drop a trailing slash


def fingerprint(path: Path, known: Fingerprint | None = None) -> Fingerprint:
    """Return what a file contains.

    Args:
        path: The file.
        known: What it contained before; it is not read if neither its size nor its time has changed since.

    Raises:
        InvalidInput: It is no regular file.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise InvalidInput(f"{printable(str(path), 300)} is no regular file")
        if known is not None and (known.size, known.modified_ns) == (facts.st_size, facts.st_mtime_ns):
            return known
        return Fingerprint(facts.st_size, file_digest(file, "sha256").hexdigest(), facts.st_mtime_ns)


def has_changed(source: str, known: Fingerprint | None) -> bool:
    """Whether a file's content differs from what it was; False for a URL or a missing file."""
    try:
        return known is not None and fingerprint(Path(source), known).digest != known.digest
    except (InvalidInput, OSError):
        return False


def is_readable(source: str) -> bool:
    """Whether a document can be sent from here, as far as that is known: a URL, or a file."""
    return is_url(source) or (os.access(source, os.R_OK) and os.path.isfile(source))  # noqa: PTH113  # a text, no path


def awaits_upload(task: Task) -> bool:
    """Whether the vendor has a task, but not its document."""
    return Reason.AWAITING_UPLOAD in (task.reason, *(part.reason for part in task.subtasks))


def encode_name(name: str) -> str:
    """Return a path, a URL or a file name as a text of any database; not in Unicode, it is ``file:caf%E9.pdf``."""
    if not name.startswith(_ENCODED):
        try:
            name.encode()
        except UnicodeEncodeError:
            pass
        else:
            return name
    return _ENCODED + quote_from_bytes(os.fsencode(name))


def decode_name(stored: str) -> str:
    """Return what `encode_name` got."""
    return os.fsdecode(unquote_to_bytes(stored.removeprefix(_ENCODED))) if stored.startswith(_ENCODED) else stored


def may_be_accepted(error: TaskbridgeError) -> bool:
    """Whether the vendor may have accepted a submission whose intent was stored before it failed."""
    return isinstance(error, SubmitUncertain) or not error.not_accepted


def is_repeatable(error: TaskbridgeError) -> bool:
    """Whether to send such a submission again if the vendor does not show it; a refusal would come again."""
    return isinstance(error, SubmitUncertain | ServerError) or error.retryable


def check_key(key: str) -> str:
    """Return a submission's key.

    Raises:
        InvalidInput: It is no short printable text.
    """
    given: Any = key  # callers need not be typed
    if not isinstance(given, str) or not 0 < len(given) <= _LONGEST_KEY or not given.isprintable():
        raise InvalidInput(f"a key is 1 to {_LONGEST_KEY} printable characters, such as your own id of the document")
    return given


def as_json(what: str, value: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return a mapping as it will be read from the database.

    Raises:
        InvalidInput: JSON cannot express it, or a database cannot store a text in it.
    """
    if value is None:
        return None
    try:
        read: dict[str, Any] = loads(dumps(dict(value), allow_nan=False))
    except (TypeError, ValueError) as error:
        problem = printable(str(error), 200)
    else:
        if storable(read) == read:
            return read
        problem = "a text has a NUL, or a half of a surrogate pair"
    raise InvalidInput(f"{what} must be plain JSON: {problem}")


def check_arguments(**given: object) -> None:
    """Check the types of the arguments of a submission, whose sender cannot report a mistake to the caller.

    Raises:
        InvalidInput: One has the wrong type, or cannot be stored as UTF-8.
    """
    for name, value in given.items():
        if name == "options":
            if value is not None and not isinstance(value, Mapping):
                raise InvalidInput(f"options must be a mapping, not {type(value).__name__}")
        elif value is not None and not isinstance(value, str):
            raise InvalidInput(f"{name} must be a text, not {type(value).__name__}")
        elif value is not None:
            require_utf8(name, value)


def require_utf8(name: str, value: str) -> str:
    """Return a text.

    Raises:
        InvalidInput: It has no form in UTF-8, as a file name of other bytes, or a NUL, which PostgreSQL refuses.
    """
    if "\0" in value:
        raise InvalidInput(f"{name} {printable(value, 200)!r} cannot be stored: it contains a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        pass
    else:
        return value
    raise InvalidInput(f"{name} {printable(value, 200)!r} cannot be stored: it is not valid Unicode")


def refuse_difference(key: str, stored: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if a key was used before for something else."""
    different = [name for name in given if stored[name] != given[name]]
    if different:
        raise ConfigError(
            f"the key {printable(key, 80)!r} was used before for another submission, with different "
            f"{' and '.join(different)}; a key names one submission"
        )
