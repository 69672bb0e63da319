"""Exit codes: one stable number for each kind of end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from taskbridge.errors import (
    ApiError,
    ConfigError,
    ContractError,
    InvalidInput,
    InvalidTaskId,
    ProviderLoadError,
    ProviderNotFound,
    ServerError,
    SubmitUncertain,
    TaskbridgeError,
    TaskFailed,
    TransportError,
    UnsupportedFeature,
    WaitTimeout,
    WebhookRejected,
)

if TYPE_CHECKING:
    from taskbridge.models import Outcome

__all__ = ["BROKEN", "CLOSED", "DONE", "MEANINGS", "PARTIAL", "USAGE", "code_of", "outcome_code"]

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
TIMED_OUT: Final = 3
REFUSED: Final = 4
UNREACHABLE: Final = 5
PARTIAL: Final = 7
BROKEN: Final = 70  # EX_SOFTWARE of sysexits.h
CLOSED: Final = 141  # as a shell tells of a process that SIGPIPE ended

MEANINGS: Final[Mapping[int, str]] = {
    DONE: "done; of `wait`: every task completed",
    FAILED: "a task failed",
    USAGE: "a wrong command, configuration or id; nothing was sent",
    TIMED_OUT: "the wait timed out, the task goes on",
    REFUSED: "the vendor refused: key, permission, quota, unknown task",
    UNREACHABLE: "the vendor could not be reached or understood",
    PARTIAL: "`run` came to its end, and some files have no result",
    BROKEN: "taskbridge itself failed, or its output could not be written",
    130: "interrupted (Ctrl-C)",
    CLOSED: "nobody reads the output any more",
    143: "terminated (SIGTERM)",
}

# Error -> exit code; the nearest class above an error decides.
CODES: Final[Mapping[type[BaseException], int]] = {
    TaskFailed: FAILED,
    ConfigError: USAGE,
    ProviderNotFound: USAGE,
    ProviderLoadError: USAGE,
    UnsupportedFeature: USAGE,
    InvalidTaskId: USAGE,
    InvalidInput: USAGE,
    WaitTimeout: TIMED_OUT,
    ApiError: REFUSED,
    WebhookRejected: REFUSED,
    ServerError: UNREACHABLE,  # an answer, but none that says anything about the task
    TransportError: UNREACHABLE,
    ContractError: UNREACHABLE,
    SubmitUncertain: UNREACHABLE,
    TaskbridgeError: UNREACHABLE,
}


def code_of(error: TaskbridgeError) -> int:
    """The exit code of an error."""
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


def outcome_code(outcome: Outcome) -> int:
    """The exit code of what became of one task; of several, the highest number is the gravest."""
    try:
        outcome.unwrap()
    except TaskbridgeError as error:
        return code_of(error)
    return DONE
