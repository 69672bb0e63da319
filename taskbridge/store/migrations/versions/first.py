"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "1"
down_revision = None


def upgrade() -> None:
    """Create them."""
    op.create_table(
        "taskbridge_account",
        sa.Column("connection", sa.String(100), primary_key=True),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("problem", sa.Text),
    )
    op.create_table(
        "taskbridge_intent",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("connection", sa.String(100), nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("operation", sa.Text),
        sa.Column("input", sa.Text),
        sa.Column("size", sa.Integer),
        sa.Column("digest", sa.String(64)),
        sa.Column("arguments", sa.JSON, nullable=False),
        sa.Column("meta", sa.JSON),
        sa.Column("until", sa.Float),
        sa.Column("phase", sa.String(20), nullable=False),
        sa.Column("recovery_token", sa.JSON),
        sa.Column("ref", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
        sa.UniqueConstraint("connection", "key"),
    )
    op.create_index("taskbridge_intent_phase", "taskbridge_intent", ["connection", "phase"])
    op.create_table(
        "taskbridge_watch",
        sa.Column("ref", sa.String(1000), primary_key=True),
        sa.Column("connection", sa.String(100), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("snapshot", sa.JSON),
        sa.Column("error", sa.Text),
        sa.Column("until", sa.Float),
        sa.Column("meta", sa.JSON),
        sa.Column("submitted_at", sa.Float),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
    )
    op.create_index("taskbridge_watch_state", "taskbridge_watch", ["connection", "state"])
    op.create_table(
        "taskbridge_event",
        sa.Column("connection", sa.String(100), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("key", sa.String(1100), nullable=False, unique=True),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("ref", sa.Text),
        sa.Column("submission", sa.String(200)),
        sa.Column("body", sa.JSON, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_table(
        "taskbridge_cursor",
        sa.Column("consumer", sa.String(200), primary_key=True),
        sa.Column("connection", sa.String(100), sa.ForeignKey("taskbridge_account.connection"), primary_key=True),
        sa.Column("position", sa.Integer, nullable=False),
    )
