"""The credential of one connection, and whether the vendor refuses it.

One credential serves all tasks of a connection. It is renewed before it expires; one renewal runs at a time, however
many callers need it (`taskbridge._engine.effects.RefreshCredential`). Once the vendor refuses the credential, requests
of the connection fail with the same error until a new call of the application resumes it.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Final

from taskbridge._engine.logs import log
from taskbridge._fork import renew_after_fork

if TYPE_CHECKING:
    from datetime import datetime

    from taskbridge.errors import TaskbridgeError
    from taskbridge.provider.capabilities import Credential
    from taskbridge.provider.clock import Clock

_MARGIN: Final = 5.0  # seconds before its expiry at which a credential is renewed


class CredentialCache:
    """The credential in use and the last refusal; each None if there is none."""

    __slots__ = ("__weakref__", "_clock", "_lock", "current", "refusal", "renewal")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.current: Credential | None = None
        self.refusal: TaskbridgeError | None = None
        renew_after_fork(self, CredentialCache._begin_process)

    def _begin_process(self) -> None:
        self._lock = Lock()
        self.renewal = Lock()
        """Held by the thread that renews the credential; asyncio tasks have a lock for each event loop."""

    def is_expiring(self, expires_at: datetime) -> bool:
        """Whether a credential has to be renewed before the next request."""
        return (expires_at - self._clock.now()).total_seconds() < _MARGIN

    def refuse(self, error: TaskbridgeError, connection: str) -> None:
        """Record that the vendor refuses the account; logged once until the connection resumes."""
        with self._lock:
            before, self.refusal = self.refusal, error
        if before is None:
            log("account-refused", connection=connection, reason=str(error))
