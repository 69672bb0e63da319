"""Reading a vendor's response: its status words by tables, its fields by typed getters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from math import isfinite
from typing import Any, Final, NamedTuple, NoReturn, TypeAlias
from urllib.parse import quote

from dateutil.parser import isoparse

from taskbridge._redaction import excerpt
from taskbridge.errors import MalformedResponse
from taskbridge.models import Reason, TaskStatus, Usage, UsageUnit

StateTable: TypeAlias = Mapping[str, tuple[TaskStatus, Reason | None]]
"""Vendor's word → our status and reason. A word with ``*`` is a pattern; rows are tried in order."""

NO_TIME: Final = datetime.min.replace(tzinfo=UTC)
"""Placeholder for an unknown time of receipt."""


# Status words.


class State(NamedTuple):
    """What a table says about a vendor's word.

    Attributes:
        status: Our status.
        reason: Our reason.
        recognized: Whether the table has the word.
    """

    status: TaskStatus
    reason: Reason | None = None
    recognized: bool = True


UNKNOWN: Final = State(TaskStatus.PROCESSING, None, recognized=False)


def read_state(table: StateTable, word: str | None) -> State:
    """Translate a vendor's status word; an unlisted word, or None, is ``processing`` with ``recognized=False``.

    Case and spaces are ignored.
    """
    if word is None:
        return UNKNOWN
    row = table.get(word)
    if row is None:
        squeezed = normalized_word(word)
        # Only * is special in a table, not brackets or question marks.
        patterns = ((normalized_word(key).replace("[", "[[]").replace("?", "[?]"), row) for key, row in table.items())
        row = next((row for pattern, row in patterns if fnmatchcase(squeezed, pattern)), None)
    return UNKNOWN if row is None else State(*row)


def normalized_word(word: str) -> str:
    """Return a status word without the differences that do not count: case and spaces."""
    return "".join(word.split()).casefold()


def read_time(value: object) -> datetime | None:
    """Read an ISO 8601 time as aware UTC; a time without a zone is UTC, an unreadable one is None."""
    if type(value) is not str:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        try:
            moment = isoparse(value)
        except (ValueError, OverflowError):
            return None
    if moment.tzinfo is UTC:
        return moment
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def path_id(native: str) -> str:
    """Quote an id for use as one segment of a URL path."""
    return quote(native, safe="")


# Fields.


class Payload:
    """The decoded body of a response, with typed getters.

    Getters named after a type require the field and raise `MalformedResponse`; those named ``maybe_…`` return None if
    it is missing or unreadable.

    Attributes:
        raw: The vendor's object, verbatim.
        connection: Name of the connection that it came from.
        observed_at: Aware UTC time of receipt.
    """

    __slots__ = ("connection", "observed_at", "raw")

    def __init__(self, raw: Mapping[str, Any], connection: str, observed_at: datetime) -> None:
        self.raw = raw
        self.connection = connection
        self.observed_at = observed_at

    @classmethod
    def of(cls, document: Any, connection: str, observed_at: datetime) -> Payload:
        """Wrap a decoded body.

        Raises:
            MalformedResponse: It is not a JSON object.
        """
        if document.__class__ is not dict:
            message = f"the vendor's answer has the wrong shape: {_kind(document)} instead of an object"
            raise MalformedResponse(message, raw=document)
        return cls(document, connection, observed_at)

    def text(self, key: str) -> str:
        """A required, non-empty text without NUL or broken characters."""
        value = self.raw.get(key)
        if type(value) is not str or not value or not _is_clean(value):
            self._refuse(key, "a text", value)
        return value

    def identifier(self, key: str) -> str:
        """A required id: printable text, so that it can be part of a `TaskRef`."""
        value = self.text(key)
        if not value.isprintable():
            raise MalformedResponse(f"the vendor's answer breaks its contract: {key!r} is no id", raw=self.raw)
        return value

    def integer(self, key: str) -> int:
        """A required integer, not a boolean."""
        value = self.raw.get(key)
        if type(value) is not int:
            self._refuse(key, "an integer", value)
        return value

    def child(self, key: str) -> Payload:
        """A required object."""
        value: Any = self.raw.get(key)
        if value.__class__ is not dict:  # type(value) would narrow it to dict[Unknown, Unknown]
            self._refuse(key, "an object", value)
        return Payload(value, self.connection, self.observed_at)

    def maybe_text(self, key: str) -> str | None:
        """A text; broken characters are replaced and NUL is made visible."""
        value = self.raw.get(key)
        if type(value) is not str:
            return None
        return value if value.isprintable() else _repaired(value)

    def maybe_message(self, key: str) -> str | None:
        """A text for people, without secrets and clipped to 2048 characters; a blank text is None."""
        text = self.maybe_text(key)
        if text is None or text.isspace() or not text:
            return None
        return excerpt(text, _MESSAGE_LIMIT)

    def maybe_integer(self, key: str) -> int | None:
        """An integer, not a boolean."""
        value = self.raw.get(key)
        return value if type(value) is int else None

    def maybe_number(self, key: str) -> float | None:
        """A finite number, not a boolean."""
        value = self.raw.get(key)
        if type(value) is int or (type(value) is float and isfinite(value)):
            return value
        return None

    def maybe_fraction(self, key: str, whole: float) -> float | None:
        """A number divided by `whole`, clamped to 0.0 … 1.0."""
        value = self.maybe_number(key)
        return None if value is None else min(max(value, 0.0), whole) / whole

    def maybe_usage(self, key: str, unit: UsageUnit) -> Usage | None:
        """A number of units that were used; a negative or absurd one is None."""
        value = self.maybe_number(key)
        return Usage(amount=value, unit=unit) if value is not None and 0 <= value <= _MOST_USAGE else None

    def maybe_time(self, key: str) -> datetime | None:
        """An ISO 8601 time as aware UTC."""
        value = self.raw.get(key)
        return None if value is None else read_time(value)

    def maybe_child(self, key: str) -> Payload | None:
        """An object."""
        value: Any = self.raw.get(key)
        return None if value.__class__ is not dict else Payload(value, self.connection, self.observed_at)

    def children(self, key: str) -> Iterator[Payload]:
        """The objects in a list; other items are skipped, and a missing list is empty."""
        value: Any = self.raw.get(key)
        if value is not None and value.__class__ is not list:
            self._refuse(key, "a list", value)
        for item in value or ():
            if item.__class__ is dict:
                yield Payload(item, self.connection, self.observed_at)

    def _refuse(self, key: str, wanted: str, value: object) -> NoReturn:
        problem = "is missing" if value is None else f"is {_kind(value)} instead of {wanted}"
        if type(value) is str and value and wanted == "a text":
            problem = "holds characters that no text may hold"
        raise MalformedResponse(f"the vendor's answer breaks its contract: {key!r} {problem}", raw=self.raw)


_MESSAGE_LIMIT: Final = 2048
_MOST_USAGE: Final = 10**15  # above, sums of integers and floats lose whole units
_NUMBER: Final = re.compile(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?", re.ASCII | re.IGNORECASE)
_KINDS: Final[Mapping[type, str]] = {
    dict: "an object",
    list: "a list",
    str: "a text",
    bool: "true or false",
    int: "a number",
    float: "a number",
}


def _kind(value: object) -> str:
    if value == "":
        return "an empty text"
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return "a number sent as text"
    return _KINDS.get(type(value), "null")


def _is_clean(text: str) -> bool:
    return text.isprintable() or text == _repaired(text)


def _repaired(text: str) -> str:
    return text.replace("\0", "␀").encode("utf-8", "replace").decode()
