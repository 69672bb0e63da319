"""What a person decides about an uncertain submission."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping, select, update

from taskbridge.errors import InvalidInput, printable
from taskbridge.store.schema import INTENT, Phase


def decide(opened: Connection, connection: str, key: str, values: Mapping[str, Any]) -> RowMapping:
    """Change an uncertain submission, and return its row.

    Args:
        opened: A transaction.
        connection: Name of its connection.
        key: Its key.
        values: By column.

    Raises:
        InvalidInput: It is not uncertain, or there is none.
    """
    own = (INTENT.c.connection == connection, INTENT.c.key == key)
    changed = update(INTENT).where(*own, INTENT.c.phase == Phase.UNCERTAIN).values(dict(values)).returning(*INTENT.c)
    row = opened.execute(changed).mappings().one_or_none()
    if row is not None:
        return row
    found: str | None = opened.execute(select(INTENT.c.phase).where(*own)).scalar_one_or_none()
    name = f"{printable(connection, 60)}, {printable(key, 60)!r}"
    if found is None:
        raise InvalidInput(f"the store has no submission {name}")
    raise InvalidInput(f"the submission {name} is {found}; only an uncertain one can be resubmitted or forgotten")
