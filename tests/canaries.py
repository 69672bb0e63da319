"""Every credential of every test is a canary: it may appear nowhere but on the wire.

Every `SecretStr` of this process counts, so that tests need not register them. The watch checks log records (ours and
urllib3's, from DEBUG on), the output of this process and of programs that it starts, and every error of ours: its
texts, causes and contexts, its pickle, its fields as JSON, and its traceback with the locals of each frame that is not
a test's.
"""

from __future__ import annotations

import json
import logging
import pickle
import re
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

TEST_CODE: Final = (
    str(Path(__file__).parent),
    "/_pytest/",
    "/taskbridge/testing/",
    "/docs/",
)  # may hold credentials
MOST_ERRORS: Final = 12  # of one test, whose frames are checked; of the others only the texts
LOGGERS: Final = ("urllib3", "requests", "asyncio")  # at DEBUG in every test
CANARIES: Final[set[str]] = set()
"""All credentials so far that cannot be mistaken for a word."""

_ADDRESS: Final = re.compile(r"([a-z0-9]+://)?[a-z0-9.-]+:[0-9]+/?")  # of a proxy: messages name it
_original_init = SecretStr.__init__


def _record(self: SecretStr, secret_value: str) -> None:
    _original_init(self, secret_value)
    if _ADDRESS.fullmatch(secret_value):
        return
    if len(secret_value) >= 8 and not secret_value.isalpha():
        CANARIES.add(secret_value)


SecretStr.__init__ = _record  # type: ignore[assignment, method-assign]


def found_in(text: str) -> list[str]:
    """Credentials that a text contains."""
    return [each for each in CANARIES if each in text]


class _Records(logging.Handler):
    def __init__(self, texts: list[str]) -> None:
        super().__init__(logging.DEBUG)
        self._texts = texts

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("urllib3") and not _is_ours(sys._getframe()):
            return
        with suppress(Exception):  # another test checks bad format strings
            self._texts.append(f"{record.getMessage()} {record.__dict__}")


def _is_ours(frame: FrameType | None) -> bool:
    """Whether the library sends, not a test's own client."""
    while frame is not None and not frame.f_code.co_filename.endswith("transport/requests.py"):
        frame = frame.f_back
    return frame is not None


class Watch:
    """Watches one test.

    Args:
        loud: Whether to read our own log from DEBUG on; this makes the library emit more observations.

    Attributes:
        texts: What was logged and printed.
        errors: Errors of ours that were created.
    """

    def __init__(self, *, loud: bool = False) -> None:
        self._loud = loud
        self.texts: list[str] = []
        self.errors: list[TaskbridgeError] = []

    @contextmanager
    def on(self) -> Generator[None]:
        """Watch while the block runs; afterwards, the loggers are as before."""
        handler = _Records(self.texts)
        loggers = [logging.getLogger(name) for name in (*LOGGERS, "taskbridge")]
        before = [(logger.level, logger.propagate, list(logger.handlers)) for logger in loggers]
        with pytest.MonkeyPatch.context() as patch:
            self._listen(patch)
            for logger in loggers:
                logger.addHandler(handler)
                if self._loud or logger.name in LOGGERS:
                    logger.setLevel(logging.DEBUG)
            try:
                yield
            finally:
                # The command line sets them for its process.
                for logger, (level, propagate, handlers) in zip(loggers, before, strict=True):
                    logger.setLevel(level)
                    logger.propagate, logger.handlers = propagate, handlers

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
            self.texts += [each if isinstance(each, str) else repr(each) for each in said if each]
            return said

        def printed(capture: Any) -> Any:
            said = read(capture)
            self.texts += [str(said.out), str(said.err)]
            return said

        patch.setattr(TaskbridgeError, "__init__", made)
        patch.setattr(started, "communicate", talked)
        patch.setattr(captured, "readouterr", printed)

    def found(self) -> list[str]:
        """Describe where a credential appeared."""
        seen = [f"text: {_around(text, key)}" for text in self.texts for key in found_in(text)]
        whole = {id(each) for each in (*self.errors[: MOST_ERRORS // 2], *self.errors[-MOST_ERRORS // 2 :])}
        for error in self.errors:
            if isinstance(error, ApiError | ContractError) and error.connection is None:
                continue  # of a provider that a test runs by hand; users' errors are redacted and have a connection
            for place, text in _texts(error, frames=id(error) in whole):
                seen += [f"{type(error).__name__}, {place}: {_around(text, key)}" for key in found_in(text)]
        return seen


def _around(text: str, key: str) -> str:
    place = text.index(key)
    return repr(text[max(0, place - 120) : place + len(key) + 40])


def _texts(error: BaseException, *, frames: bool) -> Iterator[tuple[str, str]]:
    """Yield every text of an error, with its name."""
    yield "text", f"{error} {error!r} {error.args!r}"
    yield "fields", repr(error.__dict__)
    if not frames:
        return
    with suppress(TypeError, ValueError):  # a test's own values need not be JSON
        yield "JSON", json.dumps(error.__dict__, default=str)
    with suppress(Exception):  # nor pickle
        yield "pickle", pickle.dumps(error).decode("latin-1")
    for name, other in (("cause", error.__cause__), ("context", error.__context__)):
        if other is not None:
            yield name, f"{other} {other!r} {other.args!r} {other.__dict__!r}"
    for each in _chain(error):
        for frame, _ in traceback.walk_tb(each.__traceback__):
            code = frame.f_code
            if any(place in code.co_filename for place in TEST_CODE):
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
    except Exception as error:  # noqa: BLE001  # as an error reporting tool would
        return f"<{type(error).__name__}>"
