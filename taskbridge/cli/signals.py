"""Ctrl-C and SIGTERM: when they stop a command, and what the command reports then.

A signal is only recorded at first. It raises at once only while the command waits or writes: an exception raised in the
middle of an import can come out of it as another error, and would look like a broken provider. This module imports
nothing heavy, so that signals are handled before anything heavy is imported.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import FrameType

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number

    @property
    def word(self) -> str:
        """``interrupted`` or ``terminated``."""
        return "interrupted" if self.code == 130 else "terminated"


class Signals:
    """The first signal that a command received; a second one ends the process at once."""

    def __init__(self) -> None:
        self.received: Interrupted | None = None
        self._raises = False
        self._call: Callable[[], object] | None = None

    def check(self) -> None:
        """Stop here if there was a signal.

        Raises:
            Interrupted: There was one.
        """
        if self.received is not None:
            raise Interrupted(self.received.code - 128)

    def exit_code(self, default: int) -> int:
        """Return the signal's exit code if there was one, else the default."""
        return default if self.received is None else self.received.code

    @contextmanager
    def raising(self) -> Generator[None]:
        """Let a signal, also one received earlier, stop this block at once. Not for imports.

        Raises:
            Interrupted: There was a signal.
        """
        self._raises = True
        try:
            self.check()
            yield
            self.check()  # the block may have swallowed it
        finally:
            self._raises = False

    @contextmanager
    def calling(self, call: Callable[[], object]) -> Generator[None]:
        """Call a function at a signal, also at one received earlier, in the main thread; the block ends by itself."""
        self._call = call
        try:
            if self.received is not None:
                call()
            yield
        finally:
            self._call = None

    @contextmanager
    def reporting(self, report: Callable[[str], None]) -> Generator[None]:
        """Report a signal received in this block or earlier, instead of any error that it caused.

        Raises:
            Interrupted: There was a signal.
        """
        try:
            self.check()
            yield
            self.check()
        except BaseException:
            if self.received is not None:
                report(self.received.word)
            self.check()
            raise

    @contextmanager
    def handling(self) -> Generator[None]:
        """Handle signals in this block, except those that this process was started to ignore."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        handled = {number: handler for number, handler in before.items() if handler not in {signal.SIG_IGN, None}}
        for number in handled:
            signal.signal(number, self._handle)
        try:
            yield
        finally:
            for number, handler in handled.items():
                signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + number)
        self.received = Interrupted(number)
        if self._call is not None:
            self._call()
        if self._raises:
            self.check()
