"""List scans: the vendor's list, read page by page instead of one poll per task. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from taskbridge.models import TaskStatus
    from taskbridge.provider.submission import Page, Query

_RUNNING_GROWTH: Final = 4  # of a list of unknown length, every fourth page already read is requested in advance
_ENDED_GROWTH: Final = 8
_SEARCH: Final = 8  # unseen tasks for which one page is risked while a list of ended tasks has shown none of ours
_GAP: Final = 2  # pages in a row without our tasks after which a list of ended tasks is not read further, if there are
_GAP_SEARCH: Final = 64  # no more than that many unseen tasks for each of them


@dataclass(frozen=True, slots=True)
class PageRange:
    """Pages of one query in the previous scan: those that were read, of ended tasks those that showed ours."""

    first: int = 1
    last: int = 1
    failed: int = 0  # tasks for which a list of ended tasks was searched, and showed none of them

    def is_worthwhile(self, unseen: int) -> bool:
        """Whether reading these pages takes fewer requests than polling the unseen tasks."""
        return self.last - self.first + 1 < unseen and unseen > 2 * self.failed

    def resized(self, factor: int) -> PageRange:
        """Return the range for pages that are smaller by a factor."""
        return PageRange((self.first - 1) * factor + 1, self.last * factor, self.failed)


QueryKey = tuple["TaskStatus | None", int]
"""Identifies a query across scans: its status, and which one of that status it is."""


def keyed(queries: Iterable[Query]) -> list[tuple[QueryKey, Query]]:
    """Return the queries of a scan with their keys, those of ended tasks last."""
    counts: dict[TaskStatus | None, int] = {}
    found: list[tuple[QueryKey, Query]] = []
    for query in sorted(queries, key=is_of_ended):
        counts[query.status] = counts.get(query.status, 0) + 1
        found.append(((query.status, counts[query.status]), query))
    return found


def is_of_ended(query: Query) -> bool:
    """Whether a query shows only tasks that have ended."""
    return query.status is not None and query.status.is_terminal


class ListScan:
    """One pass over a vendor's list, for all covered tasks of a connection.

    Queries run one after the other, so that a task that moves from one to the next (pending, then processing) is not
    missed. Numbered pages are requested in parallel. Of running tasks the last page comes first: when a task ends,
    those behind it move towards the front, so they appear twice rather than never.

    Lists of ended tasks come last, for the tasks that no other showed. Such a list is long and mostly shows other
    tasks, so only the pages near those that showed ours are read, and only while they take fewer requests than polling
    the unseen tasks.
    """

    def __init__(
        self,
        queries: Iterable[tuple[QueryKey, Query]],
        started_at: float,
        unseen: int,
        *,
        own_pages: int,
        limit: int,
        numbered: bool,
        ranges: dict[QueryKey, PageRange],
        page_size: int | None,
    ) -> None:
        self.started_at = started_at  # monotonic seconds
        self.unseen = unseen  # covered tasks; the scan ends when it has shown them all
        self.own_pages = own_pages  # pages needed if the account has no other tasks
        self.requested = 0  # pages of lists that show running tasks
        self.page_size = page_size  # tasks per page to ask for; None for the provider's own
        self._limit = limit  # most pages of lists that show running tasks
        self._numbered = numbered  # whether pages can be requested by number
        self._ranges = ranges  # of each query in the previous scan; updated
        self._queries = iter(queries)
        self._key: QueryKey | None = None
        self._query: Query | None = None
        self._is_of_ended = False
        self._cursors: list[str | None] = []  # pages to request, the next one last
        self._in_flight = 0  # pages
        self._last_page = 0  # highest page number that was requested or had tasks
        self._searched = 0  # unseen tasks when the query began
        self._read = 0  # pages of the query
        self._found: list[int] = []  # numbers of the pages that showed covered tasks
        self._fruitless = 0  # pages without covered tasks since the last one that had some
        self._next_query()

    def _next_query(self) -> None:
        for key, query in self._queries:
            pages = self._ranges.get(key, PageRange())
            self._is_of_ended = is_of_ended(query)
            if self._is_of_ended and not pages.is_worthwhile(self.unseen):
                continue
            self._key, self._query = key, query
            self._searched, self._read = self.unseen, 0
            self._found, self._fruitless = [], 0
            first = max(1, pages.first - 1) if self._is_of_ended and self._numbered else 1
            self._last_page = pages.last if self._numbered else 1
            self._cursors = [str(number) if number > 1 else None for number in range(first, self._last_page + 1)]
            if self._is_of_ended:
                self._cursors.reverse()
            return
        self._query = None
        self._cursors = []

    @property
    def is_over(self) -> bool:
        """Whether no page is in flight or left to request."""
        return self._in_flight == 0 and not self.wants_page

    @property
    def wants_page(self) -> bool:
        """Whether a page can be requested now."""
        return bool(self._cursors) and self.unseen > 0 and (self._is_of_ended or self.requested < self._limit)

    def next_page(self) -> tuple[Query, str | None]:
        """Return the query and cursor of the next page to request."""
        assert self._query is not None  # noqa: S101  # implied by `wants_page`
        self.requested += not self._is_of_ended
        self._in_flight += 1
        query = self._query if self.page_size is None else replace(self._query, page_size=self.page_size)
        return query, self._cursors.pop()

    def on_page(self, cursor: str | None, page: Page, *, found: int) -> None:
        """Take in the page that was requested with this cursor, and how many covered tasks it showed."""
        self._in_flight -= 1
        if self._query is None:
            return
        self._read += 1
        number = 0  # for a cursor that is not a page number
        if self._numbered and (cursor is None or cursor.isdecimal()):
            number = int(cursor or 1)
        if found:
            self._found.append(number or self._read)
        self._fruitless = 0 if found else self._fruitless + 1
        if page.next_cursor is None:
            self._last_page = min(self._last_page, max(1, number - (not page.tasks)))
        elif number in (0, self._last_page) and self._wants_more:
            more = max(1, number // (_ENDED_GROWTH if self._is_of_ended else _RUNNING_GROWTH))
            self._last_page += more
            self._cursors.extend(str(number + n) for n in range(more, 1, -1))
            self._cursors.append(page.next_cursor)
        if self._in_flight == 0 and not (self._cursors and self.unseen):
            self._end_query()
            self._next_query()

    @property
    def _wants_more(self) -> bool:
        if not self._is_of_ended:
            return True
        return self._fruitless < (max(_GAP, self.unseen / _GAP_SEARCH) if self._found else self.unseen / _SEARCH)

    def _end_query(self) -> None:
        assert self._key is not None  # noqa: S101  # a page of it was read
        if not self._is_of_ended:
            self._ranges[self._key] = PageRange(last=self._last_page)
        elif self._found:
            self._ranges[self._key] = PageRange(min(self._found) if self._numbered else 1, max(self._found))
        else:
            self._ranges[self._key] = PageRange(failed=self._searched)
