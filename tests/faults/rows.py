"""What a row of the catalogue is, and what rows are made of: scripts and checks."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any

from taskbridge.errors import DeadlineExceeded, TaskbridgeError
from taskbridge.models import Task, TaskStatus

from .server import FIN, READ, Repeat, Script, answer
from .vendors import Vendor

__all__ = [
    "Row",
    "always",
    "body",
    "bomb",
    "clipped",
    "dripping",
    "field_of",
    "head",
    "ignored_or_clipped",
    "member",
    "message_is",
    "refusal",
    "says",
    "sent",
    "status_is",
    "time_is",
    "unsent",
    "waits",
]


def nothing(_vendor: Vendor, _seen: Any) -> None:
    """No further check."""


@dataclass(frozen=True)
class Row:
    """One fault.

    Attributes:
        id: Id in the catalogue.
        fault: What is injected, in words.
        script: The connections that have it, from the vendor; the last serves all further ones.
        error: The error, or None where the look-up succeeds.
        requests: Requests that arrive at three attempts a look-up; at most that many where time runs out.
        state: What becomes of the task.
        ends: Whether a wait ends with the error, instead of going on.
        pauses: Whether a wait pauses for longer than the test lasts.
        says: What stands in the message.
        check: Looks at the task or the error more closely.
        vendors: Vendors to whom it can happen; all if empty.
        other: Error of a vendor that reads the fault in its own way.
        where: Which server: see `conftest.py`.
        settings: Settings of the connection.
        attempts: Requests of a look-up at most.
    """

    id: str
    fault: str
    script: Callable[[Vendor], Sequence[Script]]
    error: type[TaskbridgeError] | None = None
    requests: int = 1
    state: str = "kept"
    ends: bool = False
    pauses: bool = False
    says: str = ""
    check: Callable[[Vendor, Any], None] = nothing
    vendors: tuple[str, ...] = ()
    other: Mapping[str, type[TaskbridgeError]] = field(default_factory=dict[str, type[TaskbridgeError]])
    where: str = "plain"
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    attempts: int = 3

    @property
    def name(self) -> str:
        """For test ids."""
        return f"{self.id} {self.fault}"

    @property
    def retried(self) -> str:
        """How often the request is repeated inside one look-up, in words."""
        if self.error is DeadlineExceeded:
            return "while time remains"
        if self.pauses:
            return "after that time, if the deadline allows"
        return {1: "no", 2: "once"}.get(self.requests, "yes") if self.attempts == 3 else "yes"

    def error_of(self, vendor: Vendor) -> type[TaskbridgeError] | None:
        """The error at one vendor."""
        return self.other.get(vendor.name, self.error)

    def reaches(self, vendor: Vendor) -> bool:
        """Whether it can happen at one vendor."""
        return not self.vendors or vendor.name in self.vendors


# Scripts.


def always(*steps: bytes) -> Callable[[Vendor], Sequence[Script]]:
    """The same answer to every request, then the end of the connection."""
    return lambda _vendor: [(READ, *steps, FIN)]


def says(make: Callable[[Vendor], bytes], status: int = 200, *fields: str) -> Callable[[Vendor], Sequence[Script]]:
    """The same body to every request, whole."""
    return lambda vendor: [(READ, answer(status, make(vendor), *fields), FIN)]


def body(data: bytes, status: int = 200, *fields: str) -> Callable[[Vendor], Sequence[Script]]:
    """The same body to every request, whichever the vendor."""
    return says(lambda _vendor: data, status, *fields)


def refusal(http: int, /, *fields: str, **said: Any) -> Callable[[Vendor], Sequence[Script]]:
    """A refusal with a body that no vendor's table knows."""
    return body(json.dumps({"message": "refused", **said}).encode(), http, *fields)


def field_of(name: str, value: Any) -> Callable[[Vendor], Sequence[Script]]:
    """A good answer in which the field that a vendor has for something is another.

    Args:
        name: Which field, by the name of the attribute of `Vendor` that names it.
        value: Its value.
    """
    return says(lambda vendor: vendor.body(**{_key(vendor, name): value}))


def _key(vendor: Vendor, name: str) -> str:
    key: str | tuple[str, str] = getattr(vendor, name)
    return key if isinstance(key, str) else key[0]


def member(text: bytes) -> Callable[[Vendor], Sequence[Script]]:
    """A good answer with one member more, byte by byte, which may be no JSON."""
    return says(lambda vendor: vendor.processing.replace(b"{", b"{" + text + b", ", 1))


def head(*lines: str) -> bytes:
    """A head and the blank line behind it."""
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def dripping(start: bytes, drip: bytes) -> Callable[[Vendor], Sequence[Script]]:
    """A beginning, then drops that never end within a test."""
    return lambda _vendor: [(READ, start, Repeat(drip, 5000, 0.002), FIN)]


@cache
def bomb(size: int) -> bytes:
    """Zeros, compressed; made piece by piece."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = bytes(1 << 20)
    return b"".join([*(packer.compress(block) for _ in range(size >> 20)), packer.flush()])


# Checks.


def waits(seconds: float | None) -> Callable[[Vendor, Any], None]:
    """The error tells how long the vendor wants us to wait."""

    def check(_vendor: Vendor, error: TaskbridgeError) -> None:
        assert error.retry_after == seconds

    return check


def ignored_or_clipped(_vendor: Vendor, error: TaskbridgeError) -> None:
    """The error tells of no wait, or of a finite one."""
    assert error.retry_after is None or 0 <= error.retry_after < float("inf")


def unsent(_vendor: Vendor, error: Any) -> None:
    """No byte of a request left."""
    assert error.written is False


def sent(_vendor: Vendor, error: Any) -> None:
    """The request may have left."""
    assert error.written is True


def status_is(status: TaskStatus, *, recognized: bool = True) -> Callable[[Vendor, Any], None]:
    """The task has a status."""

    def check(_vendor: Vendor, task: Task) -> None:
        assert (task.status, task.recognized) == (status, recognized)

    return check


def clipped(_vendor: Vendor, task: Task) -> None:
    """The message is short."""
    assert task.message is not None
    assert len(task.message) <= 2048


def message_is(text: str) -> Callable[[Vendor, Any], None]:
    """The message is that text, and can be printed and stored."""

    def check(_vendor: Vendor, task: Task) -> None:
        assert task.message == text
        text.encode()

    return check


def time_is(moment: datetime | None) -> Callable[[Vendor, Any], None]:
    """The time is read so."""

    def check(vendor: Vendor, task: Task) -> None:
        assert getattr(task, vendor.time[1]) == moment

    return check
