"""Where an error shows a credential."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from .polling import Driver, get_task
from .vendors import CANARY, VENDORS

TESTS: Final = str(Path(__file__).parent)

ACCOUNTS: Final[tuple[tuple[str, dict[str, str]], ...]] = (
    *((name, {}) for name in VENDORS),
    ("smartdocumentor", {"client_id": "me", "client_secret": CANARY}),  # these log in first: the body holds it
    ("expertai-extract", {"username": "me", "password": CANARY}),
)


def shown(error: BaseException) -> Iterator[str]:
    """What a reporter of errors prints: the words, what it came from, and the locals of all frames but the tests'."""
    updates = traceback.TracebackException.from_exception(error, capture_locals=True)
    while updates is not None:
        yield f"{updates} {error.args}"
        yield from (f"{frame.name}: {frame.locals}" for frame in updates.stack if not frame.filename.startswith(TESTS))
        updates = updates.__cause__ or updates.__context__  # type: ignore[assignment]


def holds(error: BaseException, *keys: str) -> list[str]:
    """Where one of the keys shows."""
    return [text for text in shown(error) if any(key in text for key in keys)]


def interrupted(number: int, driver: Driver, url: str) -> list[str]:
    """Ask for a task with one of the accounts until an interrupt comes; return where it shows the credential."""
    name, account = ACCOUNTS[number]
    vendor = VENDORS[name]
    settings: dict[str, Any] = {**account, vendor.secret: None} if account else {}
    if "password" in account:
        settings["token_url"] = f"{url}/login"
    try:
        get_task(driver, vendor, url, **settings)
    except KeyboardInterrupt as error:
        return holds(error, CANARY)
    raise AssertionError("no interrupt came")
