"""One interface over the asynchronous task APIs of document vendors.

Start at `connect`: it gives a `Client` for one vendor's account. `Bridge` holds every account of a configuration, and
`taskbridge.aio` has the same names, awaitable. Importing this package loads nothing else until it is needed.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # typing itself costs half of an import

if TYPE_CHECKING:
    from taskbridge import aio, errors
    from taskbridge._config.registry import ProviderInfo, providers
    from taskbridge._engine.connection import ConnectionStats
    from taskbridge._engine.operations import Checkup
    from taskbridge._engine.webhooks import Ingested
    from taskbridge.client import Bridge, Client, connect
    from taskbridge.errors import (
        ApiError,
        AuthenticationError,
        CircuitOpen,
        ConfigError,
        ConnectFailed,
        ContractError,
        DeadlineExceeded,
        IdentityMismatch,
        InvalidInput,
        InvalidRequest,
        InvalidTaskId,
        MalformedResponse,
        PermissionDenied,
        ProviderLoadError,
        ProviderNotFound,
        QuotaExceeded,
        RateLimited,
        ResponseTooLarge,
        ServerError,
        SubmitUncertain,
        TaskbridgeError,
        TaskFailed,
        TaskNotFound,
        TlsError,
        TransportError,
        TruncatedResponse,
        UnexpectedRedirect,
        UnsupportedFeature,
        WaitTimeout,
        WebhookRejected,
    )
    from taskbridge.events import CallEnded, CallStarted, Exchange, Observation, WaitOutcome
    from taskbridge.models import (
        Outcome,
        Outcomes,
        Reason,
        Task,
        TaskFailure,
        TaskFile,
        TaskRef,
        TaskResult,
        TaskStatus,
        WebhookEvent,
    )
    from taskbridge.provider.capabilities import Capabilities
    from taskbridge.provider.policy import PollPolicy, RetryPolicy

__version__ = "0.1.0"

# Name -> module that has it; None where the name is a module itself.
_HOMES: dict[str, str | None] = {
    "aio": None,
    "errors": None,
    **dict.fromkeys(("Bridge", "Client", "connect"), "client"),
    **dict.fromkeys(
        (
            "Outcome",
            "Outcomes",
            "Reason",
            "Task",
            "TaskFailure",
            "TaskFile",
            "TaskRef",
            "TaskResult",
            "TaskStatus",
            "WebhookEvent",
        ),
        "model",
    ),
    **dict.fromkeys(("CallEnded", "CallStarted", "Exchange", "Observation", "WaitOutcome"), "observing"),
    **dict.fromkeys(("PollPolicy", "RetryPolicy"), "policy"),
    "Capabilities": "provider",
    "Checkup": "checkup",
    "ConnectionStats": "channel",
    **dict.fromkeys(("ProviderInfo", "providers"), "registry"),
    "Ingested": "ingest",
}

__all__ = [
    "ApiError",
    "AuthenticationError",
    "Bridge",
    "CallEnded",
    "CallStarted",
    "Capabilities",
    "Checkup",
    "CircuitOpen",
    "Client",
    "ConfigError",
    "ConnectFailed",
    "ConnectionStats",
    "ContractError",
    "DeadlineExceeded",
    "Exchange",
    "IdentityMismatch",
    "Ingested",
    "InvalidInput",
    "InvalidRequest",
    "InvalidTaskId",
    "MalformedResponse",
    "Observation",
    "Outcome",
    "Outcomes",
    "PermissionDenied",
    "PollPolicy",
    "ProviderInfo",
    "ProviderLoadError",
    "ProviderNotFound",
    "QuotaExceeded",
    "RateLimited",
    "Reason",
    "ResponseTooLarge",
    "RetryPolicy",
    "ServerError",
    "SubmitUncertain",
    "Task",
    "TaskFailed",
    "TaskFailure",
    "TaskFile",
    "TaskNotFound",
    "TaskRef",
    "TaskResult",
    "TaskStatus",
    "TaskbridgeError",
    "TlsError",
    "TransportError",
    "TruncatedResponse",
    "UnexpectedRedirect",
    "UnsupportedFeature",
    "WaitOutcome",
    "WaitTimeout",
    "WebhookEvent",
    "WebhookRejected",
    "aio",
    "connect",
    "errors",
    "providers",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'taskbridge' has no attribute {name!r}")
    home = _HOMES.get(name, "errors")
    if home is None:
        return import_module(f"taskbridge.{name}")
    value: object = getattr(import_module(f"taskbridge.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
