"""Exit codes: one stable number for each kind of outcome."""

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

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
TIMED_OUT: Final = 3
REFUSED: Final = 4
UNREACHABLE: Final = 5
PARTIAL: Final = 7
COST_REACHED: Final = 8
BROKEN: Final = 70  # EX_SOFTWARE of sysexits.h
CLOSED: Final = 141  # 128 + SIGPIPE, as shells report it

MEANINGS: Final[Mapping[int, str]] = {
    DONE: "done; for `wait`: every task completed",
    FAILED: "a task failed",
    USAGE: "wrong command, configuration, id or file",
    TIMED_OUT: "the wait timed out; the task continues",
    REFUSED: "the vendor refused: key, permission, quota, unknown task",
    UNREACHABLE: "the vendor was unreachable, also at the end of a wait, or unreadable",
    PARTIAL: "`run` finished, but some files have no result",
    COST_REACHED: "`run` reached --max-cost and left files unsubmitted",
    BROKEN: "taskbridge itself failed, or could not write its output",
    130: "interrupted (Ctrl-C)",
    CLOSED: "output pipe closed",
    143: "terminated (SIGTERM)",
}

# Error -> exit code; the most specific class of an error decides.
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
    ServerError: UNREACHABLE,  # a response, but it says nothing about the task
    TransportError: UNREACHABLE,
    ContractError: UNREACHABLE,
    SubmitUncertain: UNREACHABLE,
    TaskbridgeError: UNREACHABLE,
}


def code_of(error: TaskbridgeError | None) -> int:
    """Return the exit code of an error; 0 for None."""
    if error is None:
        return DONE
    if isinstance(error, WaitTimeout) and code_of(error.last_error) == UNREACHABLE:
        return UNREACHABLE
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


def outcome_code(outcome: Outcome) -> int:
    """Return the exit code of one task's outcome; for several tasks, the highest code is the command's."""
    try:
        outcome.unwrap()
    except TaskbridgeError as error:
        return code_of(error)
    return DONE
