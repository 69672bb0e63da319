"""What a running flow asks of the runtime: send, sleep, renew the credential, block, tell the caller.

The engine's generators yield these and are sent the result; `taskbridge._runtime` carries them out, in threads or in
asyncio tasks. An error is thrown into the generator.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from taskbridge.provider.capabilities import Credential
from taskbridge.provider.http import Request

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request; the result is the `Response`.

    Attributes:
        request: The request, including the credential.
        deadline: Monotonic seconds by which the response must have been read.
        max_body: Maximum size of the decoded body in bytes.
    """

    request: Request
    deadline: float
    max_body: int


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait for some seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class RunBlocking:
    """Call a function that may block on local files; the result is what it returns.

    Attributes:
        work: The function.
    """

    work: Callable[[], object]


@dataclass(frozen=True, slots=True)
class RefreshCredential:
    """Get a credential to replace a stale one; the result is the `Credential`. One refresh at a time per connection.

    Attributes:
        stale: The credential that cannot be used, or None if there is none yet.
        deadline: Monotonic seconds by which the new one is needed.
    """

    stale: Credential | None
    deadline: float


@dataclass(frozen=True, slots=True)
class BeforeSubmit:
    """Call the caller's `before_submit` just before a submission is sent. An error from there ends the flow.

    Attributes:
        recovery_token: What `recover` needs to find the submission again.
    """

    recovery_token: Mapping[str, Any]


Effect: TypeAlias = BeforeSubmit | Send | Sleep | RefreshCredential | RunBlocking
EffectFlow: TypeAlias = Generator[Effect, Any, T]
