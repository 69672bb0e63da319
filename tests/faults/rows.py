"""The rows of the catalogue, and their parts: scripts and checks."""

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


def nothing(_vendor: Vendor, _get_or_error: Any) -> None:
    """No further check."""


@dataclass(frozen=True)
class Row:
    """One fault.

    Attributes:
        id: Id in the catalogue.
        fault: What is injected, in words.
        script: Makes the scripts of the connections for a vendor; the last serves all further ones.
        error: The error of `get`, or None if it succeeds.
        requests: Requests that arrive with three attempts; an upper bound if time runs out.
        state: What happens to the task.
        ends_wait: Whether a wait ends with the error instead of continuing.
        pauses: Whether a wait pauses for longer than the test runs.
        message: Text that the message contains.
        check: Checks the task or the error further.
        vendors: Vendors for which it can happen; all if empty.
        other: Error by vendor, if it differs.
        where: Which server; see `conftest.py`.
        settings: Settings of the connection.
        attempts: Most requests of one `get`.
    """

    id: str
    fault: str
    script: Callable[[Vendor], Sequence[Script]]
    error: type[TaskbridgeError] | None = None
    requests: int = 1
    state: str = "kept"
    ends_wait: bool = False
    pauses: bool = False
    message: str = ""
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
        """How often the request is retried inside one `get`, in words."""
        if self.error is DeadlineExceeded:
            return "while time remains"
        if self.pauses:
            return "after that time, if the deadline allows"
        return {1: "no", 2: "once"}.get(self.requests, "yes") if self.attempts == 3 else "yes"

    def error_of(self, vendor: Vendor) -> type[TaskbridgeError] | None:
        """The error for one vendor."""
        return self.other.get(vendor.name, self.error)

    def applies_to(self, vendor: Vendor) -> bool:
        """Whether it can happen for one vendor."""
        return not self.vendors or vendor.name in self.vendors


# Scripts.


def always(*steps: bytes) -> Callable[[Vendor], Sequence[Script]]:
    """The same response to every request, then the connection closes."""
    return lambda _vendor: [(READ, *steps, FIN)]


def responding(
    make: Callable[[Vendor], bytes], status: int = 200, *fields: str
) -> Callable[[Vendor], Sequence[Script]]:
    """The same complete body in response to every request."""
    return lambda vendor: [(READ, answer(status, make(vendor), *fields), FIN)]


def body(data: bytes, status: int = 200, *fields: str) -> Callable[[Vendor], Sequence[Script]]:
    """The same body in response to every request, for any vendor."""
    return responding(lambda _vendor: data, status, *fields)


def error_response(http: int, /, *fields: str, **said: Any) -> Callable[[Vendor], Sequence[Script]]:
    """An error response whose body no vendor's table has."""
    return body(json.dumps({"message": "refused", **said}).encode(), http, *fields)


def field_of(name: str, value: Any) -> Callable[[Vendor], Sequence[Script]]:
    """A valid response with another value in one field.

    Args:
        name: The attribute of `Vendor` that names the field.
        value: Its value.
    """
    return responding(lambda vendor: vendor.body(**{_key(vendor, name): value}))


def _key(vendor: Vendor, name: str) -> str:
    key: str | tuple[str, str] = getattr(vendor, name)
    return key if isinstance(key, str) else key[0]


def extra_member(text: bytes) -> Callable[[Vendor], Sequence[Script]]:
    """A valid response with extra bytes inserted as a member, which may be invalid JSON."""
    return responding(lambda vendor: vendor.processing.replace(b"{", b"{" + text + b", ", 1))


def head(*lines: str) -> bytes:
    """A header and the blank line after it."""
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def dripping(start: bytes, drip: bytes) -> Callable[[Vendor], Sequence[Script]]:
    """A beginning, then small pieces that never end within a test."""
    return lambda _vendor: [(READ, start, Repeat(drip, 5000, 0.002), FIN)]


@cache
def gzip_bomb(size: int) -> bytes:
    """Zeros, compressed piece by piece."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = bytes(1 << 20)
    return b"".join([*(packer.compress(block) for _ in range(size >> 20)), packer.flush()])


# Checks.


def waits(seconds: float | None) -> Callable[[Vendor, Any], None]:
    """The error says how long the vendor wants us to wait."""

    def check(_vendor: Vendor, error: TaskbridgeError) -> None:
        assert error.retry_after == seconds

    return check


def ignored_or_clipped(_vendor: Vendor, error: TaskbridgeError) -> None:
    """The error says no wait, or a finite one."""
    assert error.retry_after is None or 0 <= error.retry_after < float("inf")


def not_sent(_vendor: Vendor, error: Any) -> None:
    """No byte of a request was sent."""
    assert error.written is False


def sent(_vendor: Vendor, error: Any) -> None:
    """The request may have been sent."""
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
    """The message is that text, and can be encoded."""

    def check(_vendor: Vendor, task: Task) -> None:
        assert task.message == text
        text.encode()

    return check


def time_is(moment: datetime | None) -> Callable[[Vendor, Any], None]:
    """The time is parsed as expected."""

    def check(vendor: Vendor, task: Task) -> None:
        assert getattr(task, vendor.time[1]) == moment

    return check
