"""Every credential of every test is a canary: none of them may show anywhere but on the wire.

Whatever becomes a `SecretStr` in this process is one, so that a test need not think of it. Watched are log records
(ours and urllib3's, from DEBUG on), what is printed here and by programs started here, and every error of ours: its
texts, its causes and contexts, its pickle, its fields as JSON, and its traceback with the locals of each frame that is
not a test's.
"""

from __future__ import annotations

import json
import logging
import pickle
import subprocess
import sys
import traceback
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest
from pydantic import SecretStr

from taskbridge.errors import ApiError, ContractError, TaskbridgeError

__all__ = ["CANARIES", "Watch", "found_in"]

OURS_TO_KNOW: Final = (
    str(Path(__file__).parent),
    "/_pytest/",
    "/taskbridge/testing/",
    "/docs/",
)  # tests hold what they give
MOST: Final = 12  # errors of one test whose frames are looked into; the others by their texts alone
LOUD: Final = ("urllib3", "requests", "aiohttp")  # at DEBUG in every test
CANARIES: Final[set[str]] = set()
"""What was ever a credential here and cannot be taken for a word."""

_made = SecretStr.__init__


def _note(self: SecretStr, secret_value: str) -> None:
    _made(self, secret_value)
    if len(secret_value) >= 8 and not secret_value.isalpha():
        CANARIES.add(secret_value)


SecretStr.__init__ = _note  # type: ignore[assignment, method-assign]


def found_in(text: str) -> list[str]:
    """Credentials that a text holds."""
    return [each for each in CANARIES if each in text]


class _Records(logging.Handler):
    def __init__(self, told: list[str]) -> None:
        super().__init__(logging.DEBUG)
        self._told = told

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("urllib3") and not _is_ours(sys._getframe()):
            return
        with suppress(Exception):  # a bad format string is somebody else's test
            self._told.append(f"{record.getMessage()} {record.__dict__}")


def _is_ours(frame: FrameType | None) -> bool:
    """Whether the library, and not a test's own client, has something sent."""
    while frame is not None and not frame.f_code.co_filename.endswith("transport/requests.py"):
        frame = frame.f_back
    return frame is not None


class Watch:
    """Watches one test.

    Args:
        loud: Whether our own log is read from DEBUG on; it makes the library observe what it would pass over else.

    Attributes:
        told: What was logged and printed.
        errors: Errors of ours that were made.
    """

    def __init__(self, *, loud: bool = False) -> None:
        self._loud = loud
        self.told: list[str] = []
        self.errors: list[TaskbridgeError] = []

    @contextmanager
    def on(self) -> Generator[None]:
        """Watch while it runs."""
        handler = _Records(self.told)
        loggers = [logging.getLogger(name) for name in (*LOUD, "taskbridge")]
        levels = [logger.level for logger in loggers]
        with pytest.MonkeyPatch.context() as patch:
            self._listen(patch)
            for logger in loggers:
                logger.addHandler(handler)
                if self._loud or logger.name in LOUD:
                    logger.setLevel(logging.DEBUG)
            try:
                yield
            finally:
                for logger, level in zip(loggers, levels, strict=True):
                    logger.removeHandler(handler)
                    logger.setLevel(level)

    def _listen(self, patch: pytest.MonkeyPatch) -> None:
        make: Any = TaskbridgeError.__init__
        started: Any = subprocess.Popen
        captured: Any = pytest.CaptureFixture
        talk, read = started.communicate, captured.readouterr

        def made(error: TaskbridgeError, *args: Any, **kwargs: Any) -> None:
            make(error, *args, **kwargs)
            self.errors.append(error)

        def talked(process: Any, *args: Any, **kwargs: Any) -> Any:
            said = talk(process, *args, **kwargs)
            self.told += [each if isinstance(each, str) else repr(each) for each in said if each]
            return said

        def printed(capture: Any) -> Any:
            said = read(capture)
            self.told += [str(said.out), str(said.err)]
            return said

        patch.setattr(TaskbridgeError, "__init__", made)
        patch.setattr(started, "communicate", talked)
        patch.setattr(captured, "readouterr", printed)

    def found(self) -> list[str]:
        """Where a credential was seen, in words."""
        seen = [f"told: {_around(text, key)}" for text in self.told for key in found_in(text)]
        whole = {id(each) for each in (*self.errors[: MOST // 2], *self.errors[-MOST // 2 :])}
        for error in self.errors:
            if isinstance(error, ApiError | ContractError) and error.connection is None:
                continue  # a provider's, driven by hand; what people get was scrubbed and has a connection
            for place, text in _texts(error, frames=id(error) in whole):
                seen += [f"{type(error).__name__}, {place}: {_around(text, key)}" for key in found_in(text)]
        return seen


def _around(text: str, key: str) -> str:
    place = text.index(key)
    return repr(text[max(0, place - 120) : place + len(key) + 40])


def _texts(error: BaseException, *, frames: bool) -> Iterator[tuple[str, str]]:
    """All that can be read of an error, with a name for each."""
    yield "text", f"{error} {error!r} {error.args!r}"
    yield "fields", repr(error.__dict__)
    if not frames:
        return
    with suppress(TypeError, ValueError):  # what a test put there need not be JSON
        yield "JSON", json.dumps(error.__dict__, default=str)
    with suppress(Exception):  # nor pickle
        yield "pickle", pickle.dumps(error).decode("latin-1")
    for name, other in (("cause", error.__cause__), ("context", error.__context__)):
        if other is not None:
            yield name, f"{other} {other!r} {other.args!r} {other.__dict__!r}"
    for each in _chain(error):
        for frame, _ in traceback.walk_tb(each.__traceback__):
            code = frame.f_code
            if any(place in code.co_filename for place in OURS_TO_KNOW):
                continue
            for name, value in list(frame.f_locals.items()):
                yield f"local {name} of {code.co_qualname}", _shown(value)


def _chain(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    for _ in range(6):
        if found is None:
            return
        yield found
        found = found.__cause__ or found.__context__


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001  # as a reporter of errors would
        return f"<{type(error).__name__}>"
