"""A request sent once: the actions that a driver does, and what came of sending.

A lifted flow (`taskbridge._engine.retry`) yields `BeforeSubmit`, `Send`, `Sleep`, `RefreshCredential`, `RunBlocking`; the two drivers
(`taskbridge._runtime.sync`) do them. Here an answer or its absence is weighed: what it says to the governor, whether it can be
read, whether the vendor may have taken what was sent, and whether asking once more can help.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from taskbridge.provider.capabilities import Credential
from taskbridge.provider.http import Request

T = TypeVar("T")


# Actions: what a lifted flow asks of its driver.


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request; the answer is sent back, a `TransportError` is thrown back.

    Attributes:
        request: What to send, credential included.
        deadline: Monotonic seconds by which the answer must be read.
        max_body: Bytes of the decoded answer to read at most.
    """

    request: Request
    deadline: float
    max_body: int


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class RunBlocking:
    """Do something with local files that may take a while; what it returns is sent back, what it raises ends the flow.

    Attributes:
        work: What to do.
    """

    work: Callable[[], object]


@dataclass(frozen=True, slots=True)
class RefreshCredential:
    """Get a credential other than the stale one; one renewal at a time, whoever asks.

    Attributes:
        stale: The credential that is no good, or None where there was none.
        deadline: Monotonic seconds by which it must be there.
    """

    stale: Credential | None
    deadline: float


@dataclass(frozen=True, slots=True)
class BeforeSubmit:
    """Tell whoever wants to know that an order is about to leave; it leaves once this is done.

    Attributes:
        clue: What `recover` needs to find the order again.
    """

    recovery_token: Mapping[str, Any]


Effect: TypeAlias = BeforeSubmit | Send | Sleep | RefreshCredential | RunBlocking


EffectFlow: TypeAlias = Generator[Effect, Any, T]
