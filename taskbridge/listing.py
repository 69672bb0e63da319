"""Walking through a vendor's list: what is asked for, page after page, and what of a page is wanted; without I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from taskbridge.attempts import Lifted
from taskbridge.channel import Channel
from taskbridge.errors import ContractError, InvalidInput, plain
from taskbridge.flows import LIST
from taskbridge.lifecycle import act, check_names, claim
from taskbridge.model import Task, TaskStatus
from taskbridge.submission import Page, Query

__all__ = ["Walk", "query_of"]


def query_of(channel: Channel, status: TaskStatus | str | None, filters: Mapping[str, Any]) -> Query:
    """Check what a list is asked for.

    Raises:
        UnsupportedFeature: The vendor does not list, or has no such filter.
        InvalidInput: The status is none of the four.
    """
    claim(channel, "list", "list tasks")
    listing = channel.provider.capabilities.listing
    check_names(channel, filters, listing.filters if listing else frozenset(), "filter")
    if status is not None and status not in set(TaskStatus):
        raise InvalidInput(f"a status is one of {', '.join(TaskStatus)}, not {plain(str(status), 60)!r}")
    return Query(None if status is None else TaskStatus(status), dict(filters))


class Walk:
    """A way through a vendor's list, one page at a time.

    Args:
        channel: The connection.
        query: What is asked for.
        limit: Tasks wanted at most; None for all.
    """

    def __init__(self, channel: Channel, query: Query, limit: int | None) -> None:
        if limit is not None and limit < 0:
            raise InvalidInput("limit must not be negative")
        self.channel = channel
        self._query = query
        self._left = limit
        self._cursor: str | None = None
        self._before: frozenset[str] = frozenset()
        self._over = limit == 0

    @property
    def goes_on(self) -> bool:
        """Whether there may be another page."""
        return not self._over

    def ask(self) -> Lifted[Page]:
        """Ask for the next page."""
        return act(self.channel, lambda: self.channel.provider.list_page(self._query, self._cursor), plan=LIST)

    def take(self, page: Page) -> Iterator[Task]:
        """What the page has that is wanted; the list moves while it is read, so a task at a seam comes twice."""
        ids = frozenset(task.id for task in page.tasks)
        self._cursor = page.next_cursor
        if page.next_cursor is None:
            self._over = True
        elif ids and ids <= self._before:
            raise ContractError("the vendor's list comes back to where it was", connection=self.channel.name)
        before, self._before = self._before, ids
        for task in page.tasks:
            if task.id in before or self._query.status not in (None, task.status):
                continue
            self.channel.note(task)
            if self._left is not None:
                self._left -= 1
                self._over = self._over or self._left == 0
            yield task
            if self._left == 0:
                return
