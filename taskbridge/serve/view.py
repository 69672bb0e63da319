"""What the page shows: read from the store, as data for the templates.

What several readers of the page share is read once for all of them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

from sqlalchemy import RowMapping

from taskbridge.events import POLL_REASONS
from taskbridge.models import TaskRef
from taskbridge.serve.plots import Scale
from taskbridge.serve.reading import Cached, Threads
from taskbridge.serve.texts import age_text, duration_text, meta_text, number_text, time_text
from taskbridge.store import Account, Phase, State, Store, Watched
from taskbridge.store.overview import (
    MOST_UNREAD,
    accounts,
    count_deliveries,
    deliveries,
    grouped_watches,
    refused_submissions,
    unread_events,
    waiting_submissions,
    watches_query,
)
from taskbridge.store.records import moment
from taskbridge.store.store import watched_of

_SILENT: Final = 150.0  # seconds without a report after which an owner counts as silent; one a minute is usual
_DECISIONS: Final = 50  # rows
_ROWS: Final = 50  # tasks per page
_FILTERS: Final = 32  # of which the tasks are kept


@dataclass(frozen=True, slots=True)
class Workers:
    """What this server does itself.

    Attributes:
        configured: Names of the connections in its configuration; None if it has none, because it only shows the page.
        owned: Those that it works on at present.
    """

    configured: Collection[str] | None
    owned: Collection[str]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which tasks are shown.

    Attributes:
        state: Only those in this state; None for all.
        connection: Only those of this connection; None for all.
        text: Only those with this text in their ref or meta.
        after: Only those after this one: when it was stored, and its ref.
    """

    state: State | None = State.OPEN
    connection: str | None = None
    text: str = ""
    after: tuple[float, str] | None = None

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Filter:
        """Return the filter of a URL's query; what makes no sense in it is left out."""
        query = {name: value.replace("\0", "") for name, value in query.items()}  # PostgreSQL has no text with NUL
        state = query.get("state", State.OPEN)
        at, _, ref = query.get("after", "").partition(" ")
        try:
            after = (float(at), ref) if ref else None
        except ValueError:
            after = None
        return cls(
            state=State(state) if state in list(State) else None,
            connection=query.get("connection") or None,
            text=query.get("q", "")[:200].strip(),
            after=after,
        )

    def query(self, **changes: str) -> str:
        """Return the query of a URL."""
        values = {"state": self.state or "all", "connection": self.connection or "", "q": self.text, **changes}
        if self.after is not None and "after" not in changes:
            values["after"] = f"{self.after[0]!r} {self.after[1]}"
        return urlencode({name: value for name, value in values.items() if value})


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read from a store; see `taskbridge.store.overview` for each."""

    accounts: list[Account]
    groups: Sequence[RowMapping]
    uncertain: Sequence[RowMapping]
    held: Sequence[RowMapping]
    refused: Sequence[RowMapping]
    deliveries: Sequence[RowMapping]
    delivery_counts: Sequence[RowMapping]
    unread: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Found:
    """The tasks that a filter has found.

    Attributes:
        watches: A page of them.
        more: The query for the next page; empty if there is none.
    """

    watches: Sequence[Watched]
    more: str


class Overview:
    """Reads a store for the page and the metrics.

    Args:
        store: The store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._threads = Threads("taskbridge-page")
        self._search_threads = Threads("taskbridge-search", 2)  # a long search holds up neither the rest nor the next
        self._reading = Cached(lambda: self._threads.run(self._read))
        self._found: OrderedDict[Filter, Cached[Found]] = OrderedDict()

    def close(self) -> None:
        """Read nothing more; returns at once."""
        self._threads.close()
        self._search_threads.close()

    async def read(self, *, fresh: bool = False) -> Reading:
        """Return what the store has; `fresh` reads it now.

        Raises:
            StoreUnavailable: It cannot be read.
        """
        return await self._reading.get(fresh=fresh)

    async def find(self, chosen: Filter) -> Found:
        """Return a page of tasks.

        Raises:
            StoreUnavailable: It cannot be read.
        """
        found = self._found.pop(chosen, None) or Cached(lambda: self._search_threads.run(lambda: self._find(chosen)))
        self._found[chosen] = found  # the last one was used last
        while len(self._found) > _FILTERS:
            self._found.popitem(last=False)
        return await found.get()

    def _read(self) -> Reading:
        with self._store.database.reading() as opened:
            return Reading(
                accounts=accounts(opened),
                groups=grouped_watches(opened),
                uncertain=waiting_submissions(opened, Phase.UNCERTAIN, _DECISIONS),
                held=waiting_submissions(opened, Phase.PLANNED, _DECISIONS),
                refused=refused_submissions(opened, _DECISIONS),
                deliveries=deliveries(opened, _DECISIONS),
                delivery_counts=count_deliveries(opened),
                unread=unread_events(opened),
            )

    def _find(self, chosen: Filter) -> Found:
        query = watches_query(
            state=chosen.state,
            connection=chosen.connection,
            text=chosen.text,
            after=chosen.after,
            limit=_ROWS + 1,
        )
        with self._store.database.reading() as opened:
            rows = list(opened.execute(query).mappings())
        more = f"{rows[_ROWS - 1]['created_at']!r} {rows[_ROWS - 1]['ref']}" if len(rows) > _ROWS else ""
        return Found([watched_of(row) for row in rows[:_ROWS]], chosen.query(after=more) if more else "")


# From the readings to the templates.


def sections(reading: Reading, workers: Workers, now: datetime) -> dict[str, dict[str, Any]]:
    """Return the data of each section that all readers share, by the section's name."""
    return {
        "summary": _summary(reading, workers, now),
        "connections": {"rows": [_account(each, workers, now) for each in all_accounts(reading, workers)]},
        "attention": _attention(reading, now),
        "groups": {"rows": [_group(each, now) for each in reading.groups]},
        "durations": _durations(reading.accounts),
    }


def all_accounts(reading: Reading, workers: Workers) -> list[Account]:
    """Return the connections of the store, and those of this server's configuration, by name."""
    known = {each.connection for each in reading.accounts}
    new = [
        Account(name, None, None, None, None, None, None, {}, {})
        for name in workers.configured or ()
        if name not in known
    ]
    return sorted([*reading.accounts, *new], key=lambda each: each.connection)


def _summary(reading: Reading, workers: Workers, now: datetime) -> dict[str, Any]:
    def count(phase: Phase) -> int:
        return sum(each.submissions.get(phase, 0) for each in reading.accounts)

    kinds = [_state(each, workers, now)[1] for each in reading.accounts]
    bad, problems = kinds.count("bad"), kinds.count("bad") + _count_left(reading, workers, now)
    dead = sum(each["dead"] for each in reading.delivery_counts)
    given_up = sum(each.watches.get(State.GIVEN_UP, 0) for each in reading.accounts)
    return {
        "figures": [
            ("open tasks", sum(_open_tasks(each) for each in reading.accounts), "", "#tasks"),
            ("to be submitted", sum(_planned(each) for each in reading.accounts), "", "#connections"),
            ("connections with problems", problems, "bad" if bad else "warn", "#connections"),
            ("given up", given_up, "warn", f"/?{Filter(State.GIVEN_UP).query()}#tasks"),
            ("uncertain submissions", count(Phase.UNCERTAIN), "warn", "#attention"),
            ("refused submissions", count(Phase.REFUSED), "warn", "#attention"),
            ("undeliverable events", dead, "bad", "#attention"),
        ]
    }


def _open_tasks(account: Account) -> int:
    return account.watches.get(State.OPEN, 0)


def _planned(account: Account) -> int:
    return account.submissions.get(Phase.PLANNED, 0) + account.submissions.get(Phase.SENDING, 0)


def _count_left(reading: Reading, workers: Workers, now: datetime) -> int:
    """Return how many connections wait for a server that has them in its configuration."""
    return sum(
        _is_left(each, workers) and is_silent(each, now) and bool(_open_tasks(each) or _planned(each))
        for each in reading.accounts
    )


def _is_left(account: Account, workers: Workers) -> bool:
    """Whether this server's configuration does not have a connection of the store."""
    known = workers.configured
    return account.connection not in workers.owned and known is not None and account.connection not in known


def is_silent(account: Account, now: datetime) -> bool:
    """Whether the owner of a connection has not reported for so long that it has probably ended."""
    return account.status_at is None or (now - account.status_at).total_seconds() > _SILENT


def _state(account: Account, workers: Workers, now: datetime) -> tuple[str, str, str]:  # noqa: PLR0911  # a table
    """Return the state of a connection, its kind (good, warn, bad or idle), and what it means."""
    status = account.status
    if account.connection not in workers.owned:
        if _is_left(account, workers):
            return "not configured", "warn", "this server's configuration does not have it; its rows are kept"
        if account.owner is None:
            return "no owner yet", "idle", "no process has worked on it"
        if is_silent(account, now):
            return "owner silent", "bad", f"no report since {time_text(account.status_at, now) or 'it took over'}"
    if status is not None and status.is_refused:
        return "refused", "bad", account.problem or "the vendor refuses the credential"
    if status is not None and status.outage_since is not None:
        error = status.outage_error or ""
        return "unreachable", "bad", f"since {time_text(status.outage_since, now)}: {error}"
    if account.problem is not None:
        return "paused", "bad", account.problem
    if account.paused_until is not None and account.paused_until > now:
        return "paused", "warn", f"the vendor wants no requests until {time_text(account.paused_until, now)}"
    if status is not None and status.overload > 1.0:
        figures = f"{number_text(status.demand)} requests/s, its rate allows {number_text(status.rate or 0)}"
        return f"{status.overload:.1f} times too slow", "warn", f"ends are found late: its intervals need {figures}"
    return "working", "good", ""


def _account(account: Account, workers: Workers, now: datetime) -> dict[str, Any]:
    status = account.status
    word, kind, detail = _state(account, workers, now)
    is_own = account.connection in workers.owned
    row: dict[str, Any] = {
        "name": account.connection,
        "word": word,
        "kind": kind,
        "detail": detail,
        "owner": account.owner,
        "is_own": is_own,
        "owner_since": time_text(account.owner_since, now),
        "open": number_text(_open_tasks(account)),
        "planned": _planned(account),
        "has_status": status is not None,
    }
    if status is not None:
        row |= {
            "in_flight": status.in_flight,
            "rate": "no limit" if status.rate is None else number_text(status.rate),
            "limit": "" if status.limit is None else number_text(status.limit),
            "is_slowed": status.rate is not None and status.rate < (status.limit or float("inf")),
            "slowed_down": number_text(status.slowed_down),
            "requests": number_text(sum(status.requests.values())),
            "mean_delay": "" if status.mean_delay is None else duration_text(status.mean_delay),
            "usage": [f"{number_text(amount)} {unit}" for unit, amount in status.usage.items()],
        }
    return row


def _group(row: RowMapping, now: datetime) -> dict[str, Any]:
    return {
        "connection": row["connection"],
        "status": row["status"] or "not seen yet",
        "reason": row["reason"],
        "native": row["native_status"],
        "count": number_text(row["count"]),
        "oldest": _age(row["oldest"], now),
    }


def _attention(reading: Reading, now: datetime) -> dict[str, Any]:
    return {
        "uncertain": [_submission(row, now) for row in reading.uncertain],
        "held": [_submission(row, now) for row in reading.held],
        "refused": [_submission(row, now) for row in reading.refused],
        "deliveries": [_delivery(row, now) for row in reading.deliveries],
        "delivery_counts": reading.delivery_counts,
        "unread": [(consumer, _unread_text(count)) for consumer, count in reading.unread.items() if count],
        "most": _DECISIONS,
    }


def _unread_text(count: int) -> str:
    return f"more than {MOST_UNREAD:,}" if count > MOST_UNREAD else f"{count:,}"


def _submission(row: RowMapping, now: datetime) -> dict[str, Any]:
    return {
        "number": row["id"],
        "connection": row["connection"],
        "key": row["key"],
        "operation": row["operation"],
        "document": row["input"] or "no document",
        "error": row["error"],
        "since": time_text(moment(row["updated_at"]), now),
        "meta": meta_text(row["meta"]),
    }


def _delivery(row: RowMapping, now: datetime) -> dict[str, Any]:
    return {
        "consumer": row["consumer"],
        "about": row["ref"] or row["submission"] or "",
        "kind": row["kind"],
        "connection": row["connection"],
        "attempts": row["attempts"],
        "next": time_text(moment(row["next_at"]), now)
        if row["attempts"]
        else "waits",  # for an earlier one of its task
        "is_dead": row["next_at"] is None,
        "error": row["error"],
        "since": time_text(moment(row["at"] if row["at"] is not None else row["updated_at"]), now),
    }


def _durations(found: Sequence[Account]) -> dict[str, Any]:
    learned = [
        (each.connection, operation, mean, each.status.quantiles.get(operation))
        for each in found
        if each.status is not None
        for operation, mean in sorted(each.status.durations.items())
    ]
    scale = Scale(value for *_, quantiles in learned for value in quantiles or ())
    return {
        "axis": scale.axis(),
        "rows": [
            {
                "connection": connection,
                "operation": operation or "any operation",
                "mean": duration_text(mean),
                "median": "" if quantiles is None else duration_text(quantiles[2]),
                "plot": None if quantiles is None else scale.row(quantiles, _words(quantiles)),
            }
            for connection, operation, mean, quantiles in learned
        ],
    }


def _words(quantiles: Sequence[float]) -> str:
    least, lower, middle, upper, most = map(duration_text, quantiles)
    return f"half within {middle}; the middle half from {lower} to {upper}; 10 % to 90 % from {least} to {most}"


def tasks(watches: Sequence[Watched], reading: Reading, now: datetime) -> list[dict[str, Any]]:
    """Return the rows of tasks, with the reason for which each is polled next."""
    owners = {each.connection: each for each in reading.accounts}
    return [_task(each, owners.get(each.ref.connection), now) for each in watches]


def _task(watched: Watched, account: Account | None, now: datetime) -> dict[str, Any]:
    task = watched.task
    return {
        "ref": watched.ref,
        "state": watched.state,
        "status": "not seen yet" if task is None else task.status,
        "reason": None if task is None else task.reason,
        "native": None if task is None else task.native_status,
        "progress": None if task is None or task.progress is None else f"{task.progress:.0%}",
        "error": watched.error or (task.error.message if task is not None and task.error is not None else None),
        "age": _age((watched.submitted_at or watched.created_at).timestamp(), now),
        "since": time_text(watched.submitted_at or watched.created_at, now),
        "seen": "" if task is None else time_text(task.observed_at, now),
        "until": time_text(watched.until, now),
        "meta": meta_text(watched.meta),
        "next": _next_poll(watched.ref, account, now) if watched.state is State.OPEN else "",
    }


def _next_poll(ref: TaskRef, account: Account | None, now: datetime) -> str:
    if account is None or account.owner is None:
        return "no process works on its connection"
    status = account.status
    if account.problem is not None:
        return f"not polled: {account.problem}"
    if status is None:
        return "its owner has just started"
    if status.outage_since is not None:
        since = time_text(status.outage_since, now)
        return f"the vendor is unreachable since {since}; one request tries every few seconds"
    planned = status.next_polls.get(ref)
    if planned is None:
        return "with the others, at the connection's intervals"
    at, reason = planned
    return POLL_REASONS[reason] if at is None else f"{time_text(at, now)}, {POLL_REASONS[reason]}"


def _age(since: float, now: datetime) -> str:
    return age_text(now.timestamp() - since)
