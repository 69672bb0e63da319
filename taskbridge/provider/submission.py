"""Submissions and lists as data.

A `Submission` has the operation in the vendor's word, documents as bytes or paths (never open files, so that each can
be sent again), and the caller's options verbatim. A `Query` selects tasks of a list; a `Page` is one response to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from taskbridge.models import Task, TaskStatus


@dataclass(frozen=True, slots=True)
class Document:
    """A document to send.

    Attributes:
        name: File name sent to the vendor, without path or control characters.
        content: The bytes, or the path that they are read from when sent.
        size: Bytes.
        media_type: Such as ``application/pdf``, if the caller set it; None derives it from the file name.
    """

    name: str
    content: bytes | Path = field(repr=False)
    size: int
    media_type: str | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """A document that the vendor fetches.

    Attributes:
        url: Its URL as the caller wrote it; it may be presigned, so it is hidden from repr.
        name: File name sent to the vendor, or None.
    """

    url: str = field(repr=False)
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """A document that the vendor already has: a result file of an earlier task.

    Attributes:
        id: The vendor's file id.
        name: File name sent to the vendor, or None.
    """

    id: str
    name: str | None = None


Source: TypeAlias = Document | Link | Stored
"""One document of a submission."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A submission, as a provider sees it.

    Attributes:
        operation: As the caller named it: neutral (``extract-text``) or ``native:…``.
        native_operation: The vendor's word for it.
        reference: Text that is unique to this submission: `external_id`, or a generated one. If the vendor keeps such
            a text, an uncertain submission is recovered by it.
        sources: The documents; none if `options` name them.
        options: The vendor's own options, verbatim.
        external_id: The caller's id, or None.
        callback_url: URL that the vendor calls, or None.
        name: The caller's name for the document, or None.
    """

    operation: str
    native_operation: str
    reference: str
    sources: tuple[Source, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    external_id: str | None = None
    callback_url: str | None = field(default=None, repr=False)
    name: str | None = None

    @property
    def is_native(self) -> bool:
        """Whether the caller named the vendor's own operation, so that no option is filled in."""
        return self.operation.startswith(NATIVE)

    @property
    def size(self) -> int:
        """Bytes of the documents to send."""
        return sum(source.size for source in self.sources if isinstance(source, Document))


NATIVE: Final = "native:"
"""Prefix of a vendor's own operation."""


@dataclass(frozen=True, slots=True)
class Listing:
    """How a vendor lists its tasks.

    Attributes:
        page_size: Tasks in one response.
        filters: Keywords that `client.list` passes on to the vendor.
        statuses: Statuses that the vendor filters itself; others are filtered here, page by page.
        sort_order: The documented order of the tasks, in words.
    """

    page_size: int
    filters: frozenset[str] = frozenset()
    statuses: frozenset[TaskStatus] = frozenset()
    sort_order: str = "not documented"


@dataclass(frozen=True, slots=True)
class ListPolling:
    """How a vendor's list reports many unfinished tasks at once.

    Attributes:
        page_size: Tasks in one response.
        prefixes: Prefixes of the ids that it reports; empty text for the plain kind.
        queries: Most queries of one list scan.
        numbered: Whether a page's cursor is its number, from 1, so that pages can be requested in parallel.
        whole_rows: Prefixes of the ids whose rows are all that a status request without options returns, each with the
            address of the page that documents it. Such tasks need no status requests of their own.
    """

    page_size: int
    prefixes: frozenset[str] = frozenset({""})
    queries: int = 1
    numbered: bool = False
    whole_rows: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Query:
    """What to list.

    Attributes:
        status: Only tasks of this status; None for all.
        filters: The vendor's own filters, by keyword.
        page_size: Most tasks of a page, because larger pages exceeded `max_body`; None for the provider's own number.
    """

    status: TaskStatus | None = None
    filters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    page_size: int | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a vendor's list.

    Attributes:
        tasks: In the vendor's order.
        next_cursor: Where the next page begins, in a form that the provider chooses; None after the last page.
    """

    tasks: tuple[Task, ...]
    next_cursor: str | None = None


# Characters that mean something else in a path, a form or a terminal.
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
_LONGEST_NAME: Final = 200  # characters; file systems take 255 bytes
_LONGEST_SUFFIX: Final = 20  # characters of a suffix worth keeping


def safe_name(name: str, fallback: str = "document") -> str:
    """Return a file name that is safe to send: no path, no control characters, not too long; the suffix is kept.

    If nothing is left, return the fallback.
    """
    base = _UNSAFE.sub("_", re.split(r"[/\\]", name)[-1]).strip().strip(".") or fallback
    if len(base) <= _LONGEST_NAME:
        return base
    stem, dot, suffix = base.rpartition(".")
    if not dot or len(suffix) > _LONGEST_SUFFIX:
        return base[:_LONGEST_NAME]
    return f"{stem[: _LONGEST_NAME - 1 - len(suffix)]}.{suffix}"
