"""One configured connection at runtime, and how it is opened; no I/O.

Each part of the state has one owner: the provider and the settings never change, `throttle` holds the rate,
`credentials` the credential, `counters` and `usage` what `stats` reports, `outage` whether the vendor responds,
`event_bus` and `observers` who is notified, `durations` what has been learned, `row_trust` whether list rows are whole,
`uploads` what is to be deleted, `kept_results` what the vendor gives once, `secrets` what must be removed from errors,
`sharing` what other processes use of the rate.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from math import inf
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Protocol, cast
from weakref import WeakSet

from taskbridge._config.connections import (
    add_vendor_variables,
    connection_settings,
    credential_origin,
    keeps_secrets_elsewhere,
)
from taskbridge._config.files import GroupConfig, load_config, provider_connection, with_keywords
from taskbridge._config.network import proxy_secrets
from taskbridge._config.registry import check_provider, load_builtin_providers, load_provider
from taskbridge._config.settings import CommonSettings
from taskbridge._engine.credentials import CredentialCache
from taskbridge._engine.durations import DurationModel
from taskbridge._engine.kept_results import KeptResults
from taskbridge._engine.logs import log
from taskbridge._engine.observers import Observers
from taskbridge._engine.row_trust import RowTrust
from taskbridge._engine.sharing import SharedLimits, Sharing
from taskbridge._engine.storage_urls import staged_documents
from taskbridge._engine.throttle import MAX_PAUSE, RetryBudget, Throttle
from taskbridge._engine.unknown_words import mapping_advice
from taskbridge._engine.usage import UsageMeter
from taskbridge._fork import renew_after_fork
from taskbridge._redaction import register
from taskbridge.errors import (
    ApiError,
    AuthenticationError,
    ConfigError,
    ContractError,
    ProviderNotFound,
    TaskbridgeError,
    UnsupportedFeature,
    printable,
)
from taskbridge.event_bus import KEPT, EventBus, MemoryEventBus
from taskbridge.provider.base import Provider
from taskbridge.provider.capabilities import LOCAL
from taskbridge.provider.clock import clip_seconds
from taskbridge.provider.secrets import redact, secrets_in_headers, secrets_of

if TYPE_CHECKING:
    import os
    from datetime import datetime

    from taskbridge._config.files import Config, ConnectionConfig
    from taskbridge._engine.storage_urls import StagedDocument
    from taskbridge.events import Outage
    from taskbridge.models import Task, TaskFile, UsageUnit
    from taskbridge.provider.base import ProviderSettings
    from taskbridge.provider.capabilities import Capabilities, Credential
    from taskbridge.provider.clock import Clock

_MOST_OPERATIONS: Final = 64  # operations whose durations are learned apart
_LONGEST_OPERATION: Final = 200  # characters
_DURATIONS_VERSION: Final = 1  # of saved durations; another one has other bins
_MOST_WORDS: Final = 100  # unknown status words that are logged
_KEPT_SECRETS: Final = 8  # sets of secrets that are still removed from errors after they were replaced
_RELOAD_PAUSE: Final = 5.0  # seconds between two readings of the secrets for webhooks that are not proved
_SUBMITTED_KEPT: Final = 3600.0  # seconds for which the time of a submission is remembered


class _Queue(Sized, Protocol):
    """A poll queue."""

    in_flight: int


@dataclass(slots=True)
class Counters:
    """What a connection has done so far; the source of `ConnectionStats`."""

    requests: Counter[str] = field(default_factory=Counter[str])
    failures: int = 0
    unchanged: int = 0
    finished: int = 0
    detection_delay: float = 0.0  # seconds, added up over `finished`: each half the time since the poll before
    slowed_down: int = 0  # responses that asked for fewer requests


@dataclass(frozen=True, slots=True)
class ConnectionStats:
    """What a connection has done so far, for monitoring.

    Attributes:
        requests: Requests sent, by kind: poll, long-poll, list, submit, download, token, other.
        failures: Requests without a usable response.
        unchanged: Polls whose response was identical to the one before, byte for byte.
        finished: Ends of tasks that were found by polling.
        detection_delay: Mean expected seconds between the end of a task and its detection; None before the first.
        durations: Mean seconds that tasks take, by operation, as far as learned; under the empty text, of tasks without
            an operation and of all operations beyond the first 64.
        quantiles: Seconds within which a tenth, a quarter, half, three quarters and nine tenths of the tasks end, by
            operation as in `durations`, once enough have ended.
        rate: Requests per second allowed at present; infinite without a limit.
        is_probing: Whether the vendor seems to be down, so that only probes are sent.
        outage: The outage that lasts at present; None while the vendor responds.
        paused_until: Until when nothing is sent, because the vendor asked for a pause (429, ``Retry-After``); None
            without a pause.
        waiting: Tasks that are being waited for.
        is_refused: Whether the vendor refuses the credential.
        usage: Cost of the tasks that were submitted, got or waited for here, by unit, as far as the vendor says; each
            counts once. Tasks that were only listed do not count.
        transport: What sends the requests: requests, curl with its version, or the name of a class of your own; empty
            before the first request.
        limit: Requests per second allowed by the configuration; infinite without a limit.
        slowed_down: Responses that asked for fewer requests: a 429, or a 503 with a time to wait.
        in_flight: Polls and pages of lists that wait for their response at present.
    """

    requests: Mapping[str, int]
    failures: int
    unchanged: int
    finished: int
    detection_delay: float | None
    durations: Mapping[str, float]
    quantiles: Mapping[str, tuple[float, ...]]
    rate: float
    is_probing: bool
    outage: Outage | None
    paused_until: datetime | None
    waiting: int
    is_refused: bool
    usage: Mapping[UsageUnit, float]
    transport: str
    limit: float
    slowed_down: int
    in_flight: int


class Connection:
    """One configured connection at runtime."""

    def __init__(
        self,
        name: str,
        provider: Provider[Any],
        settings: CommonSettings,
        clock: Clock,
        reload: Callable[[], tuple[CommonSettings, ProviderSettings]] | None = None,
    ) -> None:
        self.name = name
        self.reload = reload
        """Reads and checks the settings again; None if all secrets are in them, and none is kept elsewhere."""
        self.provider = provider
        self.settings = settings
        self.clock = clock
        provider.states = settings.state_table
        self.retry = settings.retry_policy
        self.max_body = settings.max_body or provider.max_body
        self.takes_uploads = not LOCAL.isdisjoint(provider.capabilities.inputs)
        """Whether the vendor takes documents themselves, and not only their URLs."""
        self.capabilities = _with_stage(provider.capabilities, settings)
        """What can be done through this connection: with a `stage`, documents can be given in more forms."""
        self.expects_webhook = bool(settings.webhook_secrets) and provider.capabilities.webhooks is not None
        """Whether the vendor is set up to send webhooks, so that polling is only a safety net."""
        self._proxy_secrets = proxy_secrets(settings)
        self._known = deque([self._secrets_of_settings()], _KEPT_SECRETS)
        self.secrets = self._known[0]
        self._reloaded_at = -inf  # monotonic seconds, for a webhook delivery
        self.credential_origin = ""  # where its secrets were set, for the error of a refused one
        self.signs = type(provider).sign is not Provider.sign  # pyright: ignore[reportUnknownMemberType]  # any settings
        """Whether the provider signs requests; most do not, and each poll is one call shorter."""
        self.transport = ""  # see `ConnectionStats`
        self.throttle = Throttle(settings.requests_per_second, clock.random)
        self.sharing: Sharing | None = None
        """What is shared with other processes; None if this client keeps its limits by itself."""
        self.external_retries = RetryBudget()
        """For requests to hosts that are not the vendor's; those of the vendor have the throttle's."""
        self.credentials = CredentialCache(clock)
        self.counters = Counters()
        self.outage: Outage | None = None  # see `taskbridge._engine.outage`
        self.outage_began = 0.0  # monotonic seconds
        self.usage = UsageMeter()
        self.uploads: dict[str, tuple[TaskFile | StagedDocument, ...]] = {}
        """What to delete after the end of a task, by its shared id."""
        self.kept_results = KeptResults()
        self.event_bus: EventBus = MemoryEventBus()
        self.observers = Observers()
        self.durations: dict[str | None, DurationModel] = {}
        list_polling = provider.capabilities.list_polling
        self.row_trust = RowTrust(list_polling.whole_rows if list_polling is not None else {})
        self._submitted_at: dict[str, float] = {}  # shared id -> monotonic seconds
        self._unknown_words: set[str] = set()
        self._queues = WeakSet[_Queue]()
        renew_after_fork(self, Connection._make_locks)
        self._in_use: tuple[Credential | None, frozenset[str]] = (None, self.secrets)
        register(self)

    def _make_locks(self) -> None:
        self._lock = Lock()
        self.outage_lock = Lock()

    def __repr__(self) -> str:
        return f"<Connection {self.name} ({self.provider.name})>"

    @property
    def stats(self) -> ConnectionStats:
        """What it has done so far."""
        counters = self.counters
        models = list(self.durations.items())
        return ConnectionStats(
            requests=dict(counters.requests),
            failures=counters.failures,
            unchanged=counters.unchanged,
            finished=counters.finished,
            detection_delay=counters.detection_delay / counters.finished if counters.finished else None,
            durations={operation or "": model.mean for operation, model in models if model.is_known},
            quantiles={operation or "": found for operation, model in models if (found := model.quantiles) is not None},
            rate=self.throttle.rate,
            is_probing=self.throttle.is_probing,
            outage=self.outage,
            paused_until=self.paused_until,
            waiting=self.waiting,
            is_refused=self.credentials.refusal is not None,
            usage=self.usage.totals,
            transport=self.transport,
            limit=self.throttle.ceiling,
            slowed_down=counters.slowed_down,
            in_flight=self.in_flight,
        )

    def use_event_bus(self, make: Callable[[str], EventBus] | None) -> None:
        """Use another event bus, before anything listens; None keeps the one in memory.

        Raises:
            ConfigError: It lacks a part.
        """
        if make is None:
            return
        made = make(self.name)
        if not isinstance(made, EventBus):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers need not be typed
            raise ConfigError(
                f"event_bus returned {type(made).__name__} for {self.name!r}, which lacks a part of "
                "taskbridge.EventBus; derive it from taskbridge.MemoryEventBus"
            )
        self.event_bus = made

    def share_limits(self, make: Callable[[str], SharedLimits] | None) -> None:
        """Share the limits with other processes, before anything is sent; None keeps them here."""
        if make is not None:
            self.sharing = Sharing(make(self.name), self.name, self.throttle, self.clock)

    def limit_rate(self, rate: float | None) -> None:
        """Allow another number of requests per second, and let every wait plan anew; None for no limit."""
        self.throttle.set_ceiling(rate, self.clock.monotonic())
        self.event_bus.publish(None)

    @property
    def paused_until(self) -> datetime | None:
        """Until when nothing is sent, because the vendor asked for a pause; None without a pause."""
        seconds = self.throttle.paused_until - self.clock.monotonic()
        return self.clock.now() + timedelta(seconds=seconds) if seconds > 0.0 else None

    def pause_until(self, moment: datetime) -> None:
        """Send nothing before a time, at most for an hour, in case the clock is wrong."""
        seconds = (moment - self.clock.now()).total_seconds()
        self.throttle.pause_until(self.clock.monotonic() + min(seconds, MAX_PAUSE))

    def add_queue(self, queue: _Queue) -> None:
        """Count the tasks in a poll queue as waited for, as long as the queue exists."""
        with self._lock:
            self._queues.add(queue)

    @property
    def waiting(self) -> int:
        """How many tasks are being waited for."""
        with self._lock:
            return sum(len(queue) for queue in self._queues)

    @property
    def in_flight(self) -> int:
        """How many polls and pages of lists wait for their response."""
        with self._lock:
            return sum(queue.in_flight for queue in self._queues)

    def durations_of(self, operation: str | None) -> DurationModel:
        """What has been learned about the durations of an operation; beyond the first few, they share a model."""
        if operation is not None and operation not in self.durations:
            is_kept = len(operation) <= _LONGEST_OPERATION and len(self.durations) < _MOST_OPERATIONS
            operation = operation if is_kept else None
        return self.durations.setdefault(operation, DurationModel())

    def save_durations(self) -> dict[str, Any]:
        """Return what has been learned about durations; see `Client.save_durations`."""
        models = list(self.durations.items())
        return {"version": _DURATIONS_VERSION, "operations": {name or "": model.save() for name, model in models}}

    def load_durations(self, saved: object) -> None:
        """Add what was learned elsewhere; see `Client.load_durations`.

        Raises:
            ConfigError: It is not what `save_durations` returns; nothing was added.
        """
        try:
            models = _saved_models(saved)
        except ValueError as error:
            problem = str(error)
        else:
            for name, model in models.items():
                self.durations_of(name or None).merge(model)
            return
        raise ConfigError(f"these are no saved durations ({problem}); take what save_durations returned")

    # When tasks were submitted.

    def note_submitted(self, task: Task) -> None:
        """Remember when a task was submitted, under each id that a caller may use for it."""
        now, ids = self.clock.monotonic(), [task.id]
        for kind in self.provider.capabilities.kinds:
            native = getattr(task, kind.identity) if kind.prefix and kind.identity else None
            if native is not None:
                ids.append(f"{kind.prefix}/{native}")
        self._keep_submitted(ids, now, now)

    def note_submitted_at(self, task_id: str, moment: datetime) -> None:
        """Remember when a task was submitted, as the caller says; a time in the future counts as now."""
        now = self.clock.monotonic()
        age = clip_seconds(max(0.0, (self.clock.now() - moment).total_seconds()))
        self._keep_submitted([task_id], now - age, now)

    def _keep_submitted(self, ids: Iterable[str], at: float, now: float) -> None:
        with self._lock:
            known = self._submitted_at
            while known and (len(known) >= KEPT or now - next(iter(known.values())) > _SUBMITTED_KEPT):
                del known[next(iter(known))]
            for task_id in ids:
                known.pop(task_id, None)  # the oldest stay in front
                known[task_id] = at

    def note_uploads(self, task: Task, recovery_token: Mapping[str, Any]) -> None:
        """Remember what to delete once a new task has ended."""
        staged = staged_documents(self.settings.stage, recovery_token)
        files: tuple[TaskFile | StagedDocument, ...] = (*self.provider.temporary_files(recovery_token), *staged)
        if files:
            self.uploads[task.id] = files
            if len(self.uploads) > KEPT:
                self.uploads.pop(next(iter(self.uploads)), None)

    def note_deleted(self, task_id: str) -> None:
        """Forget when a task was submitted: from now on "not found" is the truth."""
        with self._lock:
            self._submitted_at.pop(task_id, None)

    def submitted_at(self, task_id: str) -> float:
        """Return the monotonic seconds at which a task was submitted; minus infinity if that is not known."""
        return self._submitted_at.get(task_id, -inf)

    # Secrets that are kept elsewhere.

    def _secrets_of_settings(self) -> frozenset[str]:
        return secrets_of(self.provider.settings) | secrets_of(self.settings, leave_out="proxy") | self._proxy_secrets

    def reload_secrets(self) -> bool:
        """Read the secrets again that are kept elsewhere; return whether one has changed. It may block.

        Raises:
            ConfigError: One cannot be read any more, or is none.
        """
        if self.reload is None:
            return False
        common, own = self.reload()
        if own == self.provider.settings and common.webhook_secrets == self.settings.webhook_secrets:
            return False
        self.settings = self.settings.model_copy(update={"webhook_secrets": common.webhook_secrets})
        self.provider.settings = own
        self._known.append(self._secrets_of_settings())
        self.secrets = frozenset[str]().union(*self._known)  # a vendor may still echo the old ones
        self._in_use = (None, self.secrets)
        log("secrets-changed", connection=self.name)
        return True

    def reload_for_delivery(self) -> bool:
        """As `reload_secrets`, for a webhook that is not proved; anyone can send one, so not more often than that."""
        now = self.clock.monotonic()
        if self.reload is None or now - self._reloaded_at < _RELOAD_PAUSE:
            return False
        self._reloaded_at = now
        return self.reload_secrets()

    # Errors and snapshots.

    @property
    def known_secrets(self) -> frozenset[str]:
        """The secrets of the settings, and the credential in use."""
        credential, secrets = self._in_use
        current = self.credentials.current
        if current is not credential:
            secrets = self.secrets if current is None else self.secrets | secrets_in_headers(current.headers)
            self._in_use = (current, secrets)
        return secrets

    def add_context(self, error: TaskbridgeError, task_id: str | None = None) -> TaskbridgeError:
        """Add to an error where it happened, and remove credentials that the vendor may have echoed."""
        ref = None if task_id is None else f"{self.name}:{task_id}"
        error.about(provider=self.provider.name, connection=self.name, ref=ref)
        secrets = self.known_secrets
        message = redact(error.message, secrets)
        if message != error.message:
            error.message = message
            error.args = (error.message,)
        if error.raw is not None:
            error.raw = redact(error.raw, secrets)
        error.vendor_code = redact(error.vendor_code, secrets)
        error.request_id = redact(error.request_id, secrets)
        return error

    def refused(self, error: TaskbridgeError, task_id: str | None = None) -> TaskbridgeError:
        """Add context to an error; a refusal of the account also ends every other request of the connection."""
        origin = self.credential_origin
        if isinstance(error, AuthenticationError) and origin and origin not in error.message:
            error.message = f"{error.message} ({origin})"
            error.args = (error.message,)
        self.add_context(error, task_id)
        if self.is_refusal(error):
            self.credentials.refuse(error, self.name)
        return error

    def is_refusal(self, error: TaskbridgeError) -> bool:
        """Whether the vendor refuses the account, so that asking for other tasks is pointless."""
        if not isinstance(error, ApiError) or not error.authorized:
            return False
        refusals = self.provider.account_errors
        is_listed = error.vendor_code in refusals or error.http_status in refusals
        return is_listed or isinstance(error, AuthenticationError)

    def lose_row_trust(self, task: Task) -> None:
        """Take no list row as a whole task any more: the row of this task differs from its status response."""
        if self.row_trust.lose():
            log("list-rows-incomplete", connection=self.name, vendor=self.provider.title, ref=task.ref)

    def note(self, task: Task) -> None:
        """Remember whether a task has ended, and log a status word that the provider's table lacks, once.

        Raises:
            ContractError: There is such a word, and `strict` is set.
        """
        self.event_bus.record(task)
        if task.recognized:
            return
        word = printable(task.native_status or "none", 80)
        advice = mapping_advice(self.name, task.native_status)
        if self.settings.strict:
            raise ContractError(
                f"{self.provider.title} uses the status word {word!r}, which taskbridge does not know; {advice}",
                raw=task.raw,
            )
        with self._lock:
            is_new = word not in self._unknown_words and len(self._unknown_words) < _MOST_WORDS
            if is_new:
                self._unknown_words.add(word)
        if is_new:
            log(
                "unknown-status",
                connection=self.name,
                native_status=word,
                vendor=self.provider.title,
                advice=advice,
                ref=task.ref,
            )


def _saved_models(saved: object) -> dict[str, DurationModel]:
    """Return the models of saved durations, by operation.

    Raises:
        ValueError: They are none of this version, or damaged.
    """
    values = cast("dict[str, object]", saved) if isinstance(saved, dict) else {}
    version, operations = values.get("version"), values.get("operations")
    if version != _DURATIONS_VERSION or not isinstance(operations, dict):
        raise ValueError(f"version {printable(str(version), 20)}, not {_DURATIONS_VERSION}")
    named = cast("dict[str, object]", operations)
    if len(named) > _MOST_OPERATIONS:
        raise ValueError(f"more than {_MOST_OPERATIONS} operations")
    return {str(name): DurationModel.load(each) for name, each in named.items()}


def _with_stage(can: Capabilities, settings: CommonSettings) -> Capabilities:
    if settings.stage is None or "url" not in can.inputs or not LOCAL.isdisjoint(can.inputs):
        return can
    return replace(can, inputs=can.inputs | LOCAL)


@dataclass(frozen=True, slots=True)
class Group:
    """Connections of which the first that accepts a submission gets it."""

    name: str
    members: tuple[Connection, ...]

    @property
    def listed(self) -> str:
        """The members' names, for messages."""
        return ", ".join(each.name for each in self.members)

    def unsupported(self) -> UnsupportedFeature:
        """Return the error for what only a member can do."""
        return UnsupportedFeature(
            f"{self.name!r} is a group of connections, which takes submissions, and refs of its members; "
            f"for anything else name a member: {self.listed}",
            connection=self.name,
        )


# Opening.


def open_connection(
    provider: str | type[Provider[Any]] | None,
    connection: str | None,
    config: str | os.PathLike[str] | None,
    settings: Mapping[str, Any],
    clock: Clock,
) -> tuple[Connection | Group, frozenset[str]]:
    """Open the connection or group that `connect` asks for; also return all names of the configuration.

    Raises:
        ConfigError: The arguments contradict each other, or the configuration is missing or invalid.
        ProviderNotFound: No such provider is installed.
        ProviderLoadError: The provider cannot be used.
    """
    if provider is None:
        loaded = load_config(config)
        chosen = loaded.find(connection)
        known = frozenset(loaded.names)
        if isinstance(chosen, GroupConfig):
            if settings:
                names = ", ".join(sorted(settings))
                raise ConfigError(f"{chosen.name!r} is a group and takes no settings; set {names} for its members")
            return Group(chosen.name, tuple(_open(loaded.connections[each], clock) for each in chosen.first)), known
        if settings:
            chosen = with_keywords(chosen, settings)
        return _open(chosen, clock), known
    if connection is not None or config is not None:
        raise ConfigError("connect takes a provider with its settings, or connection= and config=, not both")
    if not isinstance(provider, str):
        kind = check_provider(provider)
        return _open(provider_connection(kind.name, settings), clock, kind), frozenset()
    chosen = provider_connection(provider, settings)
    try:
        return _open(chosen, clock), frozenset()
    except ProviderNotFound as error:
        missing = error
    if _is_configured(provider):
        raise ProviderNotFound(f"{missing.message}; for the connection of that name: connect(connection={provider!r})")
    raise missing


def open_connections(config: Config, clock: Clock) -> dict[str, Connection]:
    """Open every connection of a configuration.

    Raises:
        ConfigError: There is none, or one of them is invalid.
        ProviderNotFound: A provider is not installed.
        ProviderLoadError: A provider cannot be used.
    """
    if not config.connections:
        raise ConfigError(f"{config.place} has no connections; add [connections.invoices]")
    return {name: _open(each, clock) for name, each in config.connections.items()}


def open_groups(config: Config, connections: Mapping[str, Connection]) -> dict[str, Group]:
    """Return the groups of a configuration, of connections that are open."""
    return {
        name: Group(name, tuple(connections[each] for each in group.first)) for name, group in config.groups.items()
    }


def _open(config: ConnectionConfig, clock: Clock, kind: type[Provider[Any]] | None = None) -> Connection:
    try:
        provider = kind or load_provider(config.provider)
    except ProviderNotFound as error:
        raise error if config.name == config.provider else error.about(connection=config.name) from None
    config = add_vendor_variables(config, provider)
    known = {*CommonSettings.model_fields, *provider.Settings.model_fields}
    # The other providers are only needed to say which one a stray setting belongs to.
    siblings = {} if known.issuperset(config.values) else dict(load_builtin_providers())
    read = partial(connection_settings, config, provider, siblings)
    common, own = read()
    reload = read if keeps_secrets_elsewhere(config, provider) else None
    opened = Connection(config.name, provider(own, config.name), common, clock, reload)
    opened.credential_origin = credential_origin(config, provider)
    return opened


def _is_configured(name: str) -> bool:
    # Separate, so that no frame in the traceback of a caught error holds settings.
    try:
        return name in load_config(None).names
    except ConfigError:
        return False
