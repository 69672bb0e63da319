"""List scans: the vendor's list, read page by page instead of one poll per task. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from taskbridge.models import TaskStatus
    from taskbridge.provider.submission import Page, Query


class ListScan:
    """One pass over a vendor's list, for all covered tasks of a connection.

    Queries run one after the other, so that a task that moves from one to the next (pending, then processing) is not
    missed. Numbered pages are requested in parallel, the last first: when a task ends, those behind it move towards the
    front, so they appear twice rather than never.
    """

    def __init__(
        self,
        queries: Iterable[Query],
        started_at: float,
        unseen: int,
        *,
        own_pages: int,
        numbered: bool,
        lengths: dict[TaskStatus | None, int],
    ) -> None:
        self.started_at = started_at  # monotonic seconds
        self.unseen = unseen  # covered tasks; the scan ends when it has shown them all
        self.own_pages = own_pages  # pages needed if the account has no other tasks
        self.requested = 0  # pages
        self._numbered = numbered  # whether pages can be requested by number
        self._lengths = lengths  # pages of each query in the previous scan; updated
        self._queries = iter(queries)
        self._query: Query | None = None
        self._cursors: list[str | None] = []  # pages to request, the next one last
        self._in_flight = 0  # pages
        self._last_page = 0  # highest page number that was requested or had tasks
        self._next_query()

    def _next_query(self) -> None:
        self._query = next(self._queries, None)
        if self._query is not None:
            self._last_page = self._lengths.get(self._query.status, 1) if self._numbered else 1
            self._cursors = [None, *(str(number) for number in range(2, self._last_page + 1))]

    @property
    def is_over(self) -> bool:
        """Whether no page is in flight or left to request."""
        return self._in_flight == 0 and not self.wants_page

    @property
    def wants_page(self) -> bool:
        """Whether a page can be requested now."""
        return bool(self._cursors) and self.unseen > 0 and self.requested < 2 * self.own_pages + 4

    def next_page(self) -> tuple[Query, str | None]:
        """Return the query and cursor of the next page to request."""
        assert self._query is not None  # noqa: S101  # implied by `wants_page`
        self.requested += 1
        self._in_flight += 1
        return self._query, self._cursors.pop()

    def on_page(self, cursor: str | None, page: Page) -> None:
        """Take in the page that was requested with this cursor."""
        self._in_flight -= 1
        if self._query is None:
            return
        number = 0  # for a cursor that is not a page number
        if self._numbered and (cursor is None or cursor.isdecimal()):
            number = int(cursor or 1)
        if page.next_cursor is None:
            self._last_page = min(self._last_page, max(1, number - (not page.tasks)))
        elif number in (0, self._last_page):
            self._last_page += 1
            self._cursors.append(page.next_cursor)
        if not self._cursors and self._in_flight == 0:
            self._lengths[self._query.status] = self._last_page
            self._next_query()
