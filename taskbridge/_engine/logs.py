"""What is logged: every record that the library writes, as a table.

Standard `logging`, below the logger ``taskbridge``, which has a `logging.NullHandler`: nothing is shown unless the
application asks. Each record carries what it says as attributes too (``extra``), under the names in the table, and its
row's name as ``event``. No record holds a credential, a body, or the query of a URL.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

LOG: Final = logging.getLogger("taskbridge")


REQUESTS: Final = logging.getLogger("taskbridge.requests")


TASKS: Final = logging.getLogger("taskbridge.tasks")


LOG.addHandler(logging.NullHandler())


class Record(NamedTuple):
    """A kind of record.

    Attributes:
        logger: Writes it.
        level: Of `logging`.
        text: The message, with the attributes that it shows.
        meaning: When it is written.
        more: Attributes that are not in the message.
    """

    logger: logging.Logger
    level: int
    text: str
    meaning: str
    more: tuple[str, ...] = ()


RECORDS: Final[Mapping[str, Record]] = {
    "account-refused": Record(
        LOG,
        logging.WARNING,
        "connection %(connection)s pauses: %(reason)s",
        "The vendor refuses the account; once, until somebody asks anew.",
    ),
    "unknown-status": Record(
        LOG,
        logging.WARNING,
        "%(connection)s: unknown status word %(native_status)r of %(vendor)s; the task counts as processing",
        "The vendor uses a status word that the provider's table does not know; once for each word.",
        ("ref",),
    ),
    "list-polling-failed": Record(
        LOG,
        logging.WARNING,
        "%(connection)s: the provider %(provider)s raised %(error)s when asked for its list, which is read no more",
        "A provider broke down where it says what to ask its list for; once for each wait.",
    ),
    "submission": Record(
        LOG,
        logging.INFO,
        "%(connection)s: sending a submission: %(submission)s",
        "Just before the request after which the vendor may have taken an order.",
        ("submission_operation", "submission_reference", "submission_restart_of", "submission_retry_of"),
    ),
    "webhook-rejected": Record(
        LOG,
        logging.WARNING,
        "connection %(connection)s: a webhook is refused: %(reason)s",
        "A delivery is not to be believed.",
    ),
    "webhook-late": Record(
        LOG,
        logging.INFO,
        "connection %(connection)s: late %(type)s of %(ref)s, which has ended",
        "An event tells of a state before the end that is known already.",
    ),
    "webhook-unknown": Record(
        LOG,
        logging.INFO,
        "connection %(connection)s: a webhook of %(ref)s, which the vendor does not know",
        "A look-up to confirm an event found no such task.",
    ),
    "observer-failed": Record(
        LOG,
        logging.ERROR,
        "an observer raised %(error)s; nothing else is hurt, and its further errors are not told",
        "An observer of yours raised; once for each observer, with the traceback.",
    ),
    "request": Record(
        REQUESTS,
        logging.DEBUG,
        "%(connection)s: %(method)s %(host)s%(path)s: %(outcome)s after %(duration).3f s",
        "A request ended.",
        ("error", "http_status", "kind", "port", "provider", "ref", "resends", "retry_after", "scheme", "time"),
    ),
    "observation": Record(
        TASKS,
        logging.DEBUG,
        "%(ref)s: %(said)s (%(source)s, %(poll_reason)s); next: %(plan)s",
        "Something was learnt of a task, or a look at it failed.",
        (
            "attempts",
            "connection",
            "delay",
            "duration",
            "error",
            "http_status",
            "overdue",
            "native_status",
            "next_poll_in",
            "next_poll_reason",
            "progress",
            "provider",
            "reason",
            "recognized",
            "status",
            "time",
            "unchanged",
        ),
    ),
}


def log(event: str, *, raised: BaseException | None = None, **values: Any) -> None:
    """Write a record.

    Args:
        event: Its row.
        raised: An error whose traceback belongs to it.
        values: What it says, by the row's names.
    """
    row = RECORDS[event]
    if row.logger.isEnabledFor(row.level):
        # A mapping as the one argument fills the names in the text.
        row.logger.log(row.level, row.text, values, exc_info=raised, extra={"event": event, **values}, stacklevel=2)
