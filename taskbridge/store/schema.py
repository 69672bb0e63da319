"""The tables. Their names begin with ``taskbridge_``, so that they fit into an application's own database.

Refs and snapshots are stored, never credentials, and no link to a result: such a link gives access to the document.
Times are seconds since the epoch, by the clock of the machine of a SQLite file, or of the server of PostgreSQL.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

LONGEST_REF: Final = 1000  # characters
PREFIX: Final = "taskbridge_"
VERSION_TABLE: Final = f"{PREFIX}version"
HEAD: Final = "1"
"""The newest revision in ``migrations/versions``."""


class OwnerKind(StrEnum):
    """What owns a connection."""

    WATCHER = "watcher"
    """A `Watcher`, which sends what any process has stored, and polls all tasks."""
    RUN = "run"
    """A run, which works on its own files only."""


class Phase(StrEnum):
    """How far a submission is."""

    PLANNED = "planned"
    """The vendor does not have it."""
    SENDING = "sending"
    """The vendor may have it: its recovery token is stored, and the request may have been sent."""
    TAKEN = "taken"
    """The vendor accepted it; it has a ref."""
    UNCERTAIN = "uncertain"
    """The vendor may have it, and cannot be asked; it is not sent again."""
    REFUSED = "refused"
    """The vendor, or a check before anything was sent, refused it."""
    FORGOTTEN = "forgotten"
    """It was uncertain, and `forget` ended it: nothing more happens with it."""


class State(StrEnum):
    """How far a watch is."""

    OPEN = "open"
    """Its task is polled until it ends."""
    ENDED = "ended"
    """Its task has completed or failed."""
    GIVEN_UP = "given_up"
    """It ended without its task: its time ran out, or the vendor does not know the task."""
    DROPPED = "dropped"
    """`unwatch` ended it."""


class EventKind(StrEnum):
    """What an event is about."""

    SUBMITTED = "submitted"
    """The vendor accepted a submission, which now has a ref."""
    UNCERTAIN = "uncertain"
    """The vendor may or may not have accepted a submission."""
    REFUSED = "refused"
    """A submission was refused."""
    ENDED = "ended"
    """A task has completed or failed."""
    GIVEN_UP = "given_up"
    """A task is not watched any more, though it may continue."""


METADATA: Final = MetaData()

NUMBER: Final = BigInteger().with_variant(Integer, "sqlite")
"""A number that the database gives; SQLite gives them to an INTEGER only."""

ACCOUNT: Final = Table(
    f"{PREFIX}account",
    METADATA,
    Column("connection", String(100), primary_key=True),
    Column("epoch", Integer, nullable=False),  # of its owner; each takeover adds one
    Column("owner", Text),  # who has or had it, for people
    Column("owner_kind", String(20)),  # what that is
    Column("owner_since", Float),
    Column("revision", BigInteger, nullable=False),  # of what callers asked for; the owner reads what is newer
    Column("position", BigInteger, nullable=False),  # of its last event
    Column("problem", Text),  # why nothing is polled or sent at present
    Column("paused_until", Float),  # the vendor asked for a pause, which the next owner keeps, too
    Column("status", JSON),  # what the owner reported last, for people
    Column("status_at", Float),
    Column("durations", JSON),  # how long its tasks take, as learned so far
)

LIMITS: Final = Table(
    f"{PREFIX}limits",
    METADATA,
    Column("connection", String(100), primary_key=True),
    Column("reserved", BigInteger, nullable=False),  # slots, ever; the owner gives up as many
    Column("next_slot", Float),  # that is free
    Column("paused_until", Float),  # a client was asked for a pause
    Column("refusal", Text),  # what the vendor said when it refused the account to a client, or to the owner
    Column("refused_until", Float),
)

RUN: Final = Table(
    f"{PREFIX}run",
    METADATA,
    Column("id", NUMBER, primary_key=True),
    Column("connection", String(100), nullable=False),
    Column("target", String(1000), nullable=False, unique=True),  # the folder for its results, as `encode_name`
    Column("provider", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("options", JSON, nullable=False),  # of the vendor
    Column("neutral", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
)

INTENT: Final = Table(
    f"{PREFIX}intent",
    METADATA,
    Column("id", NUMBER, primary_key=True),
    Column("connection", String(100), nullable=False),
    Column("key", String(200), nullable=False),
    Column("run", NUMBER, ForeignKey(RUN.c.id)),  # the run that it belongs to
    Column("folder", Text),  # name of the folder for its results, in the run's
    Column("operation", Text),
    Column("input", Text),  # an absolute path, or a URL, as `encode_name`
    Column("size", BigInteger),  # bytes of the file
    Column("modified_ns", BigInteger),  # its last change, in nanoseconds since the epoch
    Column("digest", String(64)),  # SHA-256 of the file
    Column("arguments", JSON, nullable=False),  # the other arguments of `submit`
    Column("meta", JSON),  # for its watch
    Column("until", Float),  # for its watch
    Column("phase", String(20), nullable=False),
    Column("recovery_token", JSON),
    Column("ref", Text),
    Column("error", Text),
    Column("downloaded_at", Float),  # when its results were in their folder
    Column("revision", BigInteger, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    UniqueConstraint("connection", "key"),
)
Index(f"{PREFIX}intent_phase", INTENT.c.connection, INTENT.c.phase)
Index(f"{PREFIX}intent_ref", INTENT.c.ref)
Index(f"{PREFIX}intent_run", INTENT.c.run)

WATCH: Final = Table(
    f"{PREFIX}watch",
    METADATA,
    Column("ref", String(LONGEST_REF), primary_key=True),
    Column("connection", String(100), nullable=False),
    Column("state", String(20), nullable=False),
    Column("seq", Integer, nullable=False),  # of its last event
    Column("snapshot", JSON),
    Column("amount", Float),  # what its task cost so far
    Column("unit", String(20)),
    Column("error", Text),
    Column("until", Float),
    Column("meta", JSON),
    Column("submitted_at", Float),
    Column("revision", BigInteger, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
)
Index(f"{PREFIX}watch_state", WATCH.c.connection, WATCH.c.state)
Index(f"{PREFIX}watch_revision", WATCH.c.connection, WATCH.c.revision)
Index(f"{PREFIX}watch_created", WATCH.c.created_at, WATCH.c.ref)
Index(f"{PREFIX}watch_oldest", WATCH.c.state, WATCH.c.created_at, WATCH.c.ref)

EVENT: Final = Table(
    f"{PREFIX}event",
    METADATA,
    Column("connection", String(100), primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),  # given under the lock of the account's row
    Column("key", String(1100), nullable=False, unique=True),
    Column("kind", String(20), nullable=False),
    Column("ref", Text),
    Column("submission", String(200)),  # key of the submission
    Column("body", JSON, nullable=False),
    Column("at", Float, nullable=False),
)
Index(f"{PREFIX}event_ref", EVENT.c.ref)

CURSOR: Final = Table(
    f"{PREFIX}cursor",
    METADATA,
    Column("consumer", String(200), primary_key=True),
    Column("connection", String(100), ForeignKey(ACCOUNT.c.connection), primary_key=True),
    Column("position", BigInteger, nullable=False),  # of the last event that was acknowledged
)

DELIVERY: Final = Table(
    f"{PREFIX}delivery",
    METADATA,
    Column("consumer", String(200), primary_key=True),
    Column("connection", String(100), primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),  # of an event that the cursor has passed
    Column("ref", Text),  # later events of the same task wait for it
    Column("attempts", Integer, nullable=False),
    Column("next_at", Float),  # of the next attempt; none if it is a dead letter
    Column("error", Text, nullable=False),
    Column("updated_at", Float, nullable=False),
)

WEBHOOK: Final = Table(
    f"{PREFIX}webhook",
    METADATA,
    Column("connection", String(100), primary_key=True),
    Column("key", String(200), primary_key=True),  # the same for each delivery of one webhook
    Column("ref", Text),
    Column("revision", BigInteger, nullable=False),
    Column("received_at", Float, nullable=False),
)
Index(f"{PREFIX}webhook_revision", WEBHOOK.c.connection, WEBHOOK.c.revision)
