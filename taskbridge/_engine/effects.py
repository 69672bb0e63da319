"""What a running flow asks of the runtime: send, sleep, renew the credential, block, tell the caller.

The engine's generators yield these and are sent the result; `taskbridge._runtime` carries them out, in threads or in
asyncio tasks. An error is thrown into the generator.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from taskbridge.provider.capabilities import Credential
from taskbridge.provider.http import Request

if TYPE_CHECKING:
    from taskbridge._engine.connection import Connection
    from taskbridge._engine.throttle import Throttle
    from taskbridge.provider.storage import Storage

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request, which includes the credential; the result is the `Response`."""

    request: Request
    deadline: float  # monotonic seconds by which the response must have been read
    max_body: int  # bytes of the decoded body


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait for some seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class WaitForSlot:
    """Wait for some seconds, or until the throttle has let callers ask again more than so many times."""

    seconds: float
    throttle: Throttle
    raises: int


@dataclass(frozen=True, slots=True)
class RunBlocking:
    """Call a function that may block on local files; the result is what it returns."""

    work: Callable[[], object]


@dataclass(frozen=True, slots=True)
class UseStorage:
    """Call a function with the storages of objects, which may block; the result is what it returns."""

    work: Callable[[Storage], object]


@dataclass(frozen=True, slots=True)
class RefreshCredential:
    """Get a credential to replace a stale one; the result is the `Credential`. One at a time per connection."""

    stale: Credential | None  # None if there is none yet
    deadline: float  # monotonic seconds by which the new one is needed
    refused: bool = False  # whether the vendor refused the stale one, so that its secret may have been replaced


@dataclass(frozen=True, slots=True)
class BeforeSubmit:
    """Call the caller's `before_submit` just before a submission is sent.

    An error from there is thrown into the flow as `BeforeSubmitFailed`, which the flow must not catch for good.
    """

    recovery_token: Mapping[str, Any]


class BeforeSubmitFailed(BaseException):
    """The caller's `before_submit` raised, so nothing was sent; holds the error, which the caller gets."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


@dataclass(frozen=True, slots=True)
class UseConnection:
    """Carry out the following effects for this connection."""

    connection: Connection


Effect: TypeAlias = (
    BeforeSubmit | Send | Sleep | WaitForSlot | RefreshCredential | RunBlocking | UseConnection | UseStorage
)
EffectFlow: TypeAlias = Generator[Effect, Any, T]


def no_effects(value: T) -> EffectFlow[T]:
    """Return a value as a flow without effects."""
    return value
    yield  # makes it a generator
