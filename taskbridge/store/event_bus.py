"""An event bus in a store: processes share which webhooks they have processed."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

from sqlalchemy import ColumnElement, and_, delete, or_, select, update

from taskbridge.event_bus import MemoryEventBus
from taskbridge.store.pruning import WEBHOOKS_KEPT
from taskbridge.store.schema import WEBHOOK

if TYPE_CHECKING:
    from taskbridge.store.database import Database

# Seconds; then the process that claimed an event has ended, or given up. Receivers answer 503 until then, and some
# vendors deliver again only a few times.
_CLAIM_LASTS: Final = 300.0
# Values of `WEBHOOK.revision`. What a caller asks of the owner has numbers from 0 on, so the owner reads neither.
_CLAIMED: Final = -2
_SETTLED: Final = -1


class StoreEventBus(MemoryEventBus):
    """The event bus of one connection, whose claims are stored; created by `Store.event_bus`.

    Which tasks have ended is remembered in memory, and listeners are those of this process.

    Args:
        database: The store's.
        connection: Name of the connection.
    """

    blocks = True

    def __init__(self, database: Database, connection: str) -> None:
        super().__init__()
        self._database = database
        self._connection = connection

    def claim(self, key: str) -> bool:
        """Start to process an event; False if a process did so in the last seven days, or is doing so.

        Raises:
            StoreUnavailable: The database cannot be used.
        """
        return self._add(f"claimed:{_digest(key)}")

    def settle(self, key: str) -> None:
        """Note that a claimed event has been processed."""
        row = self._row(f"claimed:{_digest(key)}")
        with self._database.writing() as opened:
            opened.execute(update(WEBHOOK).where(row).values(revision=_SETTLED, received_at=self._now()))

    def is_settled(self, key: str) -> bool:
        """Whether a process has processed an event, in the last seven days."""
        row, kept_since = self._row(f"claimed:{_digest(key)}"), self._now() - WEBHOOKS_KEPT
        query = select(WEBHOOK.c.key).where(row, WEBHOOK.c.revision == _SETTLED, WEBHOOK.c.received_at >= kept_since)
        with self._database.reading() as opened:
            return opened.execute(query).first() is not None

    def release(self, key: str) -> None:
        """Treat an event as not yet processed, so that the vendor's next delivery counts."""
        with self._database.writing() as opened:
            opened.execute(delete(WEBHOOK).where(self._row(f"claimed:{_digest(key)}")))

    def doubt(self, key: str) -> bool:
        """Note that the vendor does not know the task of an event; False if it was so before."""
        name = f"doubted:{_digest(key)}"
        if not self._add(name):
            return False
        with self._database.writing() as opened:
            opened.execute(update(WEBHOOK).where(self._row(name)).values(revision=_SETTLED))
        return True

    def _add(self, name: str) -> bool:
        """Add a row, or renew one that has expired; False if there is one that has not."""
        now = self._now()
        has_expired = or_(
            WEBHOOK.c.received_at < now - WEBHOOKS_KEPT,
            and_(WEBHOOK.c.revision == _CLAIMED, WEBHOOK.c.received_at < now - _CLAIM_LASTS),
        )
        with self._database.writing() as opened:
            renewed = update(WEBHOOK).where(self._row(name), has_expired).values(revision=_CLAIMED, received_at=now)
            if opened.execute(renewed).rowcount:
                return True
            values = {"connection": self._connection, "key": name, "revision": _CLAIMED, "received_at": now}
            added = self._database.insert(WEBHOOK).values(values).on_conflict_do_nothing().returning(WEBHOOK.c.key)
            return opened.execute(added).first() is not None  # PostgreSQL has no rowcount of an INSERT

    def _row(self, name: str) -> ColumnElement[bool]:
        return and_(WEBHOOK.c.connection == self._connection, WEBHOOK.c.key == name)

    def _now(self) -> float:
        return self._database.now()


def _digest(key: str) -> str:
    return sha256(key.encode(errors="backslashreplace")).hexdigest()
