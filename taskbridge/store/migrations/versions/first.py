"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "1"
down_revision = None


def upgrade() -> None:
    """Create them."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "taskbridge_account",
        sa.Column("connection", sa.String(100), primary_key=True),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("owner_kind", sa.String(20)),
        sa.Column("owner_since", sa.Float),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("problem", sa.Text),
        sa.Column("paused_until", sa.Float),
        sa.Column("status", sa.JSON),
        sa.Column("status_at", sa.Float),
        sa.Column("durations", sa.JSON),
    )
    op.create_table(
        "taskbridge_limits",
        sa.Column("connection", sa.String(100), primary_key=True),
        sa.Column("reserved", sa.BigInteger, nullable=False),
        sa.Column("next_slot", sa.Float),
        sa.Column("paused_until", sa.Float),
        sa.Column("refusal", sa.Text),
        sa.Column("refused_until", sa.Float),
    )
    op.create_table(
        "taskbridge_run",
        sa.Column("id", number, primary_key=True),
        sa.Column("connection", sa.String(100), nullable=False),
        sa.Column("target", sa.String(1000), nullable=False, unique=True),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("operation", sa.Text, nullable=False),
        sa.Column("options", sa.JSON, nullable=False),
        sa.Column("neutral", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_table(
        "taskbridge_intent",
        sa.Column("id", number, primary_key=True),
        sa.Column("connection", sa.String(100), nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("run", number, sa.ForeignKey("taskbridge_run.id")),
        sa.Column("folder", sa.Text),
        sa.Column("operation", sa.Text),
        sa.Column("input", sa.Text),
        sa.Column("size", sa.BigInteger),
        sa.Column("modified_ns", sa.BigInteger),
        sa.Column("digest", sa.String(64)),
        sa.Column("arguments", sa.JSON, nullable=False),
        sa.Column("meta", sa.JSON),
        sa.Column("until", sa.Float),
        sa.Column("phase", sa.String(20), nullable=False),
        sa.Column("recovery_token", sa.JSON),
        sa.Column("ref", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("downloaded_at", sa.Float),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
        sa.UniqueConstraint("connection", "key"),
    )
    op.create_index("taskbridge_intent_phase", "taskbridge_intent", ["connection", "phase"])
    op.create_index("taskbridge_intent_ref", "taskbridge_intent", ["ref"])
    op.create_index("taskbridge_intent_run", "taskbridge_intent", ["run"])
    op.create_table(
        "taskbridge_watch",
        sa.Column("ref", sa.String(1000), primary_key=True),
        sa.Column("connection", sa.String(100), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("snapshot", sa.JSON),
        sa.Column("amount", sa.Float),
        sa.Column("unit", sa.String(20)),
        sa.Column("error", sa.Text),
        sa.Column("until", sa.Float),
        sa.Column("meta", sa.JSON),
        sa.Column("submitted_at", sa.Float),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
    )
    op.create_index("taskbridge_watch_state", "taskbridge_watch", ["connection", "state"])
    op.create_index("taskbridge_watch_revision", "taskbridge_watch", ["connection", "revision"])
    op.create_index("taskbridge_watch_created", "taskbridge_watch", ["created_at", "ref"])
    op.create_index("taskbridge_watch_oldest", "taskbridge_watch", ["state", "created_at", "ref"])
    op.create_table(
        "taskbridge_event",
        sa.Column("connection", sa.String(100), primary_key=True),
        sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("key", sa.String(1100), nullable=False, unique=True),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("ref", sa.Text),
        sa.Column("submission", sa.String(200)),
        sa.Column("body", sa.JSON, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_index("taskbridge_event_ref", "taskbridge_event", ["ref"])
    op.create_table(
        "taskbridge_cursor",
        sa.Column("consumer", sa.String(200), primary_key=True),
        sa.Column("connection", sa.String(100), sa.ForeignKey("taskbridge_account.connection"), primary_key=True),
        sa.Column("position", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "taskbridge_delivery",
        sa.Column("consumer", sa.String(200), primary_key=True),
        sa.Column("connection", sa.String(100), primary_key=True),
        sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("ref", sa.Text),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_at", sa.Float),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
    )
    op.create_table(
        "taskbridge_webhook",
        sa.Column("connection", sa.String(100), primary_key=True),
        sa.Column("key", sa.String(200), primary_key=True),
        sa.Column("ref", sa.Text),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("received_at", sa.Float, nullable=False),
    )
    op.create_index("taskbridge_webhook_revision", "taskbridge_webhook", ["connection", "revision"])
