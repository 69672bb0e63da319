"""A connection at work: its provider, its pace, its credential, and what it has learnt; without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from taskbridge._engine.durations import DurationModel
from taskbridge._engine.event_bus import EventBus
from taskbridge._engine.logs import log
from taskbridge._engine.observers import Observers
from taskbridge.errors import ApiError, AuthenticationError, ContractError, TaskbridgeError, printable
from taskbridge.provider.base import Provider
from taskbridge.provider.capabilities import Credential
from taskbridge.provider.secrets import scrub, secrets_in_headers, secrets_of

if TYPE_CHECKING:
    from taskbridge._config.settings import CommonSettings
    from taskbridge._engine.throttle import Throttle
    from taskbridge.models import Task
    from taskbridge.provider.clock import Clock
    from taskbridge.provider.policy import RetryPolicy

NOT_FOUND_GRACE: Final = 10.0  # seconds after a submit of ours in which "not found" means "not yet"


@dataclass(slots=True)
class Counters:
    """What a connection has done; only for people who look.

    Attributes:
        requests: Requests sent, by kind: look, hold, list, submit, download, token, other.
        failures: Requests without a usable answer.
        unchanged: Looks whose answer was the one before, byte for byte.
        ends: Ends of tasks that were noticed by looking.
        delay: Seconds of delay expected over all of `finished`: half the time since the look before.
    """

    requests: dict[str, int] = field(default_factory=dict[str, int])
    failures: int = 0
    unchanged: int = 0
    finished: int = 0
    detection_delay: float = 0.0

    def sent(self, kind: str) -> None:
        """Count a request."""
        self.requests[kind] = self.requests.get(kind, 0) + 1


@dataclass(frozen=True, slots=True)
class ConnectionStats:
    """What a connection has done so far; only for people who look.

    Attributes:
        requests: Requests sent, by kind: look, hold, list, submit, download, token, other.
        failures: Requests without a usable answer.
        unchanged: Looks whose answer was the one before, byte for byte.
        ends: Ends of tasks that were noticed by looking.
        delay: Mean seconds expected between such an end and the news of it, or None before the first.
        duration: Mean seconds that tasks take, by operation, as far as has been learnt.
        rate: Requests a second that may go out now; infinite where nothing limits them.
        is_probing: Whether the vendor seems to be out, and only probes go out.
        is_refused: Whether the vendor refuses the credential.
    """

    requests: Mapping[str, int]
    failures: int
    unchanged: int
    finished: int
    detection_delay: float | None
    durations: Mapping[str, float]
    rate: float
    is_probing: bool
    is_refused: bool


@dataclass(eq=False)
class Connection:
    """A connection at work: its provider, its pace and its credential.

    Attributes:
        name: The connection's name.
        provider: Its translator.
        settings: What every connection takes.
        governor: Holds its pace.
        clock: Time and chance.
        credential: The one in use; None before the first.
        refusal: Why the vendor refuses the credential, until somebody asks anew.
        inbox: What it was told, and who wants to hear it.
        audience: Who wants to know what it does.
        young: Shared ids of tasks that were submitted here just now, and the monotonic second of it.
    """

    name: str
    provider: Provider[Any]
    settings: CommonSettings
    throttle: Throttle
    clock: Clock
    credential: Credential | None = field(default=None, repr=False)
    refusal: TaskbridgeError | None = None
    unknown_words: set[str] = field(default_factory=set[str])
    counters: Counters = field(default_factory=Counters)
    durations: dict[str | None, DurationModel] = field(default_factory=dict["str | None", DurationModel])
    event_bus: EventBus = field(default_factory=EventBus, repr=False)
    observers: Observers = field(default_factory=Observers, repr=False)
    renewal: Lock = field(default_factory=Lock, repr=False)  # held by the thread that renews the credential
    turn: Any = field(default=None, repr=False)  # the same for asyncio tasks; made by the first one
    recent_submits: dict[str, float] = field(default_factory=dict[str, float], repr=False)
    _once: Lock = field(
        default_factory=Lock, repr=False
    )  # held while it is found out who is the first to log something

    def __post_init__(self) -> None:
        self.retry: RetryPolicy = self.settings.retry_policy
        self.max_body = self.settings.max_body or self.provider.max_body
        self.secrets = secrets_of(self.provider.settings) | secrets_of(self.settings)

    @property
    def expects_webhook(self) -> bool:
        """Whether the vendor is set up to tell of ends, so that looking is only a safety net."""
        return bool(self.settings.webhook_secrets) and self.provider.capabilities.webhooks is not None

    def note_submitted(self, task: Task) -> None:
        """Remember that a task was submitted just now, by each of the ids that it can be asked for."""
        now = self.clock.monotonic()
        for old in [task_id for task_id, since in list(self.recent_submits.items()) if now - since > NOT_FOUND_GRACE]:
            self.recent_submits.pop(old, None)
        self.recent_submits[task.id] = now
        for kind in self.provider.capabilities.kinds:
            native = getattr(task, kind.identity) if kind.prefix and kind.identity else None
            if native is not None:
                self.recent_submits[f"{kind.prefix}/{native}"] = now

    def is_in_grace(self, task_id: str) -> bool:
        """Whether a task was submitted so short a time ago that its vendor may not know it yet."""
        since = self.recent_submits.get(task_id)
        return since is not None and self.clock.monotonic() - since < NOT_FOUND_GRACE

    @property
    def stats(self) -> ConnectionStats:
        """What it has done so far."""
        counters = self.counters
        learnt = {name or "": known.mean for name, known in list(self.durations.items()) if known.is_known}
        return ConnectionStats(
            requests=dict(counters.requests),
            failures=counters.failures,
            unchanged=counters.unchanged,
            finished=counters.finished,
            detection_delay=counters.detection_delay / counters.finished if counters.finished else None,
            durations=learnt,
            rate=self.throttle.rate,
            is_probing=self.throttle.is_probing,
            is_refused=self.refusal is not None,
        )

    def durations_of(self, operation: str | None) -> DurationModel:
        """What has been learnt of how long tasks of an operation take."""
        return self.durations.setdefault(operation, DurationModel())

    def resume(self) -> None:
        """Forget that the vendor refused the credential: somebody asks anew."""
        self.refusal = None

    def refuse(self, error: TaskbridgeError) -> None:
        """Note that the account is refused; logged once, until somebody asks anew."""
        with self._once:
            before, self.refusal = self.refusal, error
        if before is None:
            log("account-refused", connection=self.name, reason=str(error))

    def blames_account(self, error: TaskbridgeError) -> bool:
        """Whether a refusal is about the account, so that asking for other tasks is pointless."""
        if isinstance(error, AuthenticationError):
            return True
        blamed = self.provider.account_refusals
        return isinstance(error, ApiError) and (error.vendor_code in blamed or error.http_status in blamed)

    def add_context(self, error: TaskbridgeError, ref: str | None = None) -> TaskbridgeError:
        """Fill in where an error happened, and take out what a vendor may have echoed of our credentials."""
        error.about(provider=self.provider.name, connection=self.name, ref=ref)
        secrets = self.secrets | secrets_in_headers(self.credential.headers if self.credential else {})
        if any(secret in error.message for secret in secrets):
            error.message = scrub(error.message, secrets)
            error.args = (error.message,)
        if error.raw is not None:
            error.raw = scrub(error.raw, secrets)
        error.vendor_code = scrub(error.vendor_code, secrets)
        error.request_id = scrub(error.request_id, secrets)
        return error

    def record_task(self, task: Task) -> None:
        """Remember whether a task has ended, and log a word that the provider's table does not know, once.

        Raises:
            ContractError: `strict` is set.
        """
        self.event_bus.saw(task)
        if task.recognized:
            return
        word = printable(task.native_status or "none", 80)
        if self.settings.strict:
            raise ContractError(
                f"{self.provider.title} uses the status word {word!r}, which taskbridge does not know", raw=task.raw
            )
        with self._once:
            known = word in self.unknown_words
            self.unknown_words.add(word)
        if not known:
            log(
                "unknown-status",
                connection=self.name,
                native_status=word,
                vendor=self.provider.title,
                ref=task.ref,
            )
