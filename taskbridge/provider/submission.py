"""What is submitted and what is listed, as data; pure, and beside `taskbridge.provider.base`.

A `Submission` is an order as a provider sees it: the operation in the vendor's word, documents as bytes or paths (never
open handles, so that each can be sent again), options as the caller wrote them. A `Query` is what a list is asked for,
a `Page` is what one request of it brought.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from taskbridge.models import Task, TaskStatus

__all__ = ["ListPolling", "Document", "Link", "Listing", "Page", "Query", "Source", "Stored", "Submission", "safe_name"]


@dataclass(frozen=True, slots=True)
class Document:
    """A document to be sent.

    Attributes:
        name: File name told to the vendor; a bare name without path parts and controls.
        content: The bytes, or the path that they are read from when sent.
        size: Bytes.
        media_type: Such as ``application/pdf``, where somebody said so; None leaves it to the file name.
    """

    name: str
    content: bytes | Path = field(repr=False)
    size: int
    media_type: str | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """A document that the vendor is to fetch.

    Attributes:
        url: Its address, as the caller wrote it; may be a capability, so out of repr.
        name: File name told to the vendor, or None.
    """

    url: str = field(repr=False)
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """A document that the vendor has already: a file that one of its tasks made.

    Attributes:
        id: The vendor's file id.
        name: File name told to the vendor, or None.
    """

    id: str
    name: str | None = None


Source: TypeAlias = Document | Link | Stored
"""One document of an order."""


@dataclass(frozen=True, slots=True)
class Submission:
    """An order, as a provider sees it.

    Attributes:
        operation: As it was asked for: neutral (``extract-text``) or ``native:…``.
        native_operation: The vendor's word for it.
        reference: Text of ours that is unique to this order: `external_id`, or one made up. Where the vendor keeps
            such a text, the order is found again by it.
        sources: The documents; none where `options` name them.
        options: The vendor's own options, verbatim.
        external_id: The caller's id, or None.
        callback_url: Address that the vendor is to call, or None.
        name: What the caller calls the order's document, or None.
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
        """Whether the vendor's own word was asked for, so that nothing is filled in."""
        return self.operation.startswith(NATIVE)

    @property
    def size(self) -> int:
        """Bytes of the documents that are to be sent."""
        return sum(source.size for source in self.sources if isinstance(source, Document))


NATIVE: Final = "native:"
"""Stands before a vendor's own operation."""


@dataclass(frozen=True, slots=True)
class Listing:
    """How a vendor lists its tasks.

    Attributes:
        page_size: Tasks that one request brings.
        filters: Keywords that `client.list` hands on to the vendor.
        statuses: Shared statuses that the vendor itself picks out; others are picked out here, after all pages
            have been fetched up to the last match.
        order: What is known of the order.
    """

    page_size: int
    filters: frozenset[str] = frozenset()
    statuses: frozenset[TaskStatus] = frozenset()
    order: str = "not documented"


@dataclass(frozen=True, slots=True)
class ListPolling:
    """How a vendor's list can tell of many tasks in flight at once.

    Attributes:
        page_size: Tasks that one request brings.
        prefixes: Kinds of ids that it tells of, by what stands before their slash; empty for the plain kind.
        queries: Lists that one sweep reads at most.
        numbered: Whether a page's cursor is its number, from 1, so that several can be asked for at the same time.
    """

    page_size: int
    prefixes: frozenset[str] = frozenset({""})
    queries: int = 1
    numbered: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """What a list is asked for.

    Attributes:
        status: Only tasks of this status; None for all.
        filters: The vendor's own filters, by keyword.
    """

    status: TaskStatus | None = None
    filters: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Page:
    """What one request of a list brought.

    Attributes:
        tasks: In the vendor's order.
        next_cursor: Where the next page begins, in words of the provider; None after the last.
    """

    tasks: tuple[Task, ...]
    next_cursor: str | None = None


# Names that a path, a form or a terminal would take for something else.
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


_LONGEST_NAME: Final = 200  # characters; file systems take 255 bytes


_LONGEST_SUFFIX: Final = 20  # characters of a suffix worth keeping


def safe_name(name: str, fallback: str = "document") -> str:
    """A file name as it may be told to a vendor: no path, no controls, not too long; the suffix is kept.

    Args:
        name: What a caller, a path or a URL says.
        fallback: What stands in for a name that has nothing left.
    """
    base = _UNSAFE.sub("_", re.split(r"[/\\]", name)[-1]).strip().strip(".") or fallback
    if len(base) <= _LONGEST_NAME:
        return base
    stem, dot, suffix = base.rpartition(".")
    if not dot or len(suffix) > _LONGEST_SUFFIX:
        return base[:_LONGEST_NAME]
    return f"{stem[: _LONGEST_NAME - 1 - len(suffix)]}.{suffix}"
