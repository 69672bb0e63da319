"""Ctrl-C and SIGTERM: when they end what runs, and what they leave behind.

A signal is kept first. It ends what runs at once only while something is waited for or written: an exception in the
middle of an import may come out of it as another one, and would read as a broken provider. Loads nothing heavy, so that
signals are heard before anything heavy is imported.
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

__all__ = ["Interrupted", "Signals"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM.

    Args:
        number: Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number

    @property
    def word(self) -> str:
        """What happened."""
        return "interrupted" if self.code == 130 else "terminated"


class Signals:
    """The signal of one command, once there was one; a second one ends the process at once."""

    def __init__(self) -> None:
        self.stop: Interrupted | None = None
        self._raises = False

    def check(self) -> None:
        """End here if there was a signal.

        Raises:
            Interrupted: There was one.
        """
        if self.stop is not None:
            raise Interrupted(self.stop.code - 128)

    def code(self, otherwise: int) -> int:
        """The exit code: the signal's, whatever else happened.

        Args:
            otherwise: Without a signal.
        """
        return otherwise if self.stop is None else self.stop.code

    @contextmanager
    def raising(self) -> Generator[None]:
        """Let a signal end what runs in here at once, also one that came before; not for imports.

        Raises:
            Interrupted: There was a signal.
        """
        self._raises = True
        try:
            self.check()
            yield
            self.check()  # something in there may have caught it
        finally:
            self._raises = False

    @contextmanager
    def told(self, tell: Callable[[str], None]) -> Generator[None]:
        """Tell of a signal that comes in here, or came before, instead of any other error that it may have made.

        Args:
            tell: Is given what happened, as a word.

        Raises:
            Interrupted: There was a signal.
        """
        try:
            self.check()
            yield
            self.check()
        except BaseException:
            if self.stop is not None:
                tell(self.stop.word)
            self.check()
            raise

    @contextmanager
    def listening(self) -> Generator[None]:
        """Hear signals; not those that this process was started to ignore."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        heard = {number: handler for number, handler in before.items() if handler not in {signal.SIG_IGN, None}}
        for number in heard:
            signal.signal(number, self._hear)
        try:
            yield
        finally:
            for number, handler in heard.items():
                signal.signal(number, handler)

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        if self.stop is not None:
            os._exit(128 + number)
        self.stop = Interrupted(number)
        if self._raises:
            self.check()
