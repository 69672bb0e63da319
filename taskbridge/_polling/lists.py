"""What the fleet holds of each connection: its tasks by the time at which they are due, and its lists; no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.models import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from taskbridge.provider.submission import Page, Query


class ListScan:
    """One reading of a vendor's list, for all tasks of a kind in a lane.

    Queries follow each other, so that a task that goes on from the one to the next is not lost between them. Pages that
    have numbers are asked for at the same time, the last first: a task that ends moves those behind it towards the
    front, which then come twice and not never.

    Args:
        queries: What is asked for, one query after the other.
        began: Monotonic seconds.
        unseen: Parked tasks that it has to tell of; it ends with the last of them.
        own_pages: Pages that it takes where nobody else has tasks.
        numbered: Whether any page can be asked for by its number.
        lengths: Pages that each query had the last time; updated.
    """

    def __init__(
        self,
        queries: Iterable[Query],
        began: float,
        unseen: int,
        *,
        own_pages: int,
        numbered: bool,
        lengths: dict[TaskStatus | None, int],
    ) -> None:
        self.began = began
        self.unseen = unseen
        self.pages = 0  # that were asked for
        self.own = own_pages
        self._numbered = numbered
        self._lengths = lengths
        self._queries = iter(queries)
        self._query: Query | None = None
        self._todo: list[str | None] = []  # cursors, the last is the next
        self._answers = 0  # pages under way
        self._longest = 0  # the highest number of a page that was asked for, or that had something
        self._turn()

    def _turn(self) -> None:
        """Go on to the next query."""
        self._query = next(self._queries, None)
        if self._query is not None:
            known = self._lengths.get(self._query.status, 1) if self._numbered else 1
            self._longest = known
            self._todo = [None, *(str(number) for number in range(2, known + 1))]

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to ask, nor under way."""
        return self._answers == 0 and not self.wants_page

    @property
    def wants_page(self) -> bool:
        """Whether a page can be asked for now."""
        return bool(self._todo) and self.unseen > 0 and self.pages < 2 * self.own + 4

    def ask(self) -> tuple[Query, str | None]:
        """The next page to ask for."""
        assert self._query is not None  # noqa: S101  # somebody asked `wants_page`
        self.pages += 1
        self._answers += 1
        return self._query, self._todo.pop()

    def answered(self, cursor: str | None, page: Page) -> None:
        """Take note of a page.

        Args:
            cursor: Of this page.
            page: What it brought.
        """
        self._answers -= 1
        if self._query is None:
            return
        number = 0  # of no page that has one
        if self._numbered and (cursor is None or cursor.isdecimal()):
            number = int(cursor or 1)
        if page.next_cursor is not None and number in (0, self._longest):
            self._longest += 1
            self._todo.append(page.next_cursor)
        elif page.next_cursor is None:
            self._longest = min(self._longest, max(1, number - (not page.tasks)))
        if not self._todo and self._answers == 0:
            self._lengths[self._query.status] = self._longest
            self._turn()
