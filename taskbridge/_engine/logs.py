"""The log records of the library, as a table.

Everything is logged by standard `logging`, below the logger ``taskbridge``. That logger has a `logging.NullHandler`, so
nothing is shown unless the application configures logging. Each record also carries its facts as attributes
(``extra``), under the names in the table, and the name of its row as ``event``. No record holds a credential, a body,
or the query of a URL.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final, NamedTuple

from taskbridge._redaction import without_secrets

LOG: Final = logging.getLogger("taskbridge")
REQUESTS: Final = logging.getLogger("taskbridge.requests")
TASKS: Final = logging.getLogger("taskbridge.tasks")
LOG.addHandler(logging.NullHandler())


class Record(NamedTuple):
    """A kind of log record."""

    logger: logging.Logger
    level: int
    text: str  # the message, with placeholders for attributes
    meaning: str  # when it is logged
    more: tuple[str, ...] = ()  # attributes that the message does not show


RECORDS: Final[Mapping[str, Record]] = {
    "account-refused": Record(
        LOG,
        logging.WARNING,
        "connection %(connection)s pauses: %(reason)s",
        "The vendor refuses the account; logged once, until the next call.",
    ),
    "limits-unshared": Record(
        LOG,
        logging.WARNING,
        "connection %(connection)s does not share its limits with other processes for now: %(error)s",
        "The store with the shared limits of a client cannot be used, so the client sends a tenth of its rate; logged "
        "once, until it can be used again.",
    ),
    "secrets-changed": Record(
        LOG,
        logging.INFO,
        "connection %(connection)s uses a new secret",
        "A secret that is kept in a file, in the keyring or behind a function was read again, and has changed.",
    ),
    "outage-began": Record(
        LOG,
        logging.WARNING,
        "connection %(connection)s has been unreachable since %(since)s (%(host)s: %(error)s); "
        "tasks waiting: %(waiting)d; taskbridge tries again every few seconds",
        "Five requests in a row had no usable response; logged once for each outage, however many tasks wait.",
    ),
    "outage-ended": Record(
        LOG,
        logging.WARNING,
        "connection %(connection)s is reachable again after %(duration).0f s; tasks waiting: %(waiting)d",
        "The vendor responds again after an outage.",
        ("host", "since"),
    ),
    "unknown-status": Record(
        LOG,
        logging.WARNING,
        "%(connection)s: unknown status word %(native_status)r of %(vendor)s; the task counts as processing; "
        "%(advice)s",
        "The vendor uses a status word that is missing from the provider's table and from the setting `states`; logged "
        "once for each word.",
        ("ref",),
    ),
    "list-polling-failed": Record(
        LOG,
        logging.WARNING,
        "%(connection)s: list_queries of the provider %(provider)s raised %(error)s; polling tasks one by one",
        "`list_queries` of a provider raised, so tasks are polled one by one; logged once for each wait.",
    ),
    "list-rows-incomplete": Record(
        LOG,
        logging.WARNING,
        "%(connection)s: %(ref)s in the list of %(vendor)s differs from its status response; polling ended tasks",
        "A row of the vendor's list is not the whole task, although its provider claims so; each end now takes "
        "a status request. Logged once for each connection.",
    ),
    "submission": Record(
        LOG,
        logging.INFO,
        "%(connection)s: submitting: %(submission)s",
        "Just before the request that may start work at the vendor.",
        ("submission_operation", "submission_reference", "submission_restart_of", "submission_retry_of"),
    ),
    "upload-kept": Record(
        LOG,
        logging.WARNING,
        "%(connection)s: the uploaded document %(file)s could not be deleted: %(reason)s",
        "A document that was uploaded for a task could not be deleted after the task's end.",
        ("ref",),
    ),
    "webhook-rejected": Record(
        LOG,
        logging.WARNING,
        "connection %(connection)s: rejected a webhook: %(reason)s",
        "A webhook delivery failed verification.",
    ),
    "webhook-late": Record(
        LOG,
        logging.INFO,
        "connection %(connection)s: late %(type)s event for %(ref)s, which has ended",
        "An event reports an earlier state of a task that is known to have ended.",
    ),
    "webhook-unknown": Record(
        LOG,
        logging.INFO,
        "connection %(connection)s: webhook for %(ref)s, which the vendor does not know",
        "A status request to confirm an event found no such task.",
    ),
    "store-owner": Record(
        LOG,
        logging.INFO,
        "connection %(connection)s: this process polls its tasks and sends its submissions, from the store %(store)s",
        "A watcher has become the owner of a connection.",
    ),
    "store-owned-elsewhere": Record(
        LOG,
        logging.INFO,
        "connection %(connection)s belongs to another process at present, in the store %(store)s; waiting for that to "
        "end",
        "A watcher waits for a connection that another one owns; logged once for each wait.",
    ),
    "store-unavailable": Record(
        LOG,
        logging.WARNING,
        "connection %(connection)s pauses for %(pause).0f s: %(error)s",
        "The database of a store cannot be read or written; nothing is polled or submitted meanwhile.",
    ),
    "store-durations-ignored": Record(
        LOG,
        logging.WARNING,
        "connection %(connection)s learns the durations of its tasks anew: %(error)s",
        "The durations in a store are damaged, or of another version.",
    ),
    "store-watcher-failed": Record(
        LOG,
        logging.ERROR,
        "the watcher of the store %(store)s has ended: %(error)s",
        "The thread of a `Watcher` ended by an error, which `stop` raises.",
    ),
    "delivery-dead": Record(
        LOG,
        logging.ERROR,
        "consumer %(consumer)s: the event %(key)s is a dead letter after %(attempts)d attempts: %(error)s",
        "The handler of a `Relay` failed too often on an event; `Store.redeliver` tries it again.",
    ),
    "delivery-paused": Record(
        LOG,
        logging.WARNING,
        "consumer %(consumer)s pauses for %(pause).0f s: %(error)s",
        "The handler of a `Relay` fails on one event after the other, or the database of its store cannot be used; "
        "logged when a pause becomes longer.",
    ),
    "delivered-elsewhere": Record(
        LOG,
        logging.WARNING,
        "consumer %(consumer)s: another process delivers the events of connection %(connection)s, too",
        "Two processes deliver under the same name; they may call their handlers with the same events.",
    ),
    "observer-failed": Record(
        LOG,
        logging.ERROR,
        "an observer raised %(error)s; work continues, and further errors of this observer are not logged",
        "One of your observers raised; logged once for each observer, with the traceback.",
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
        "%(ref)s: %(result)s (%(source)s, %(poll_reason)s); next poll: %(plan)s",
        "The state of a task was learned, or a poll failed.",
        (
            "attempts",
            "connection",
            "detection_delay",
            "duration",
            "error",
            "http_status",
            "native_status",
            "next_poll_in",
            "next_poll_reason",
            "overdue",
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


def log(event: str, *, raised: BaseException | None = None, **values: str | float | None) -> None:
    """Log the record of a row in `RECORDS`, with its attributes (JSON values) and the traceback of an error."""
    row = RECORDS[event]
    if row.logger.isEnabledFor(row.level):
        # With a mapping as its only argument, logging fills the placeholders by name.
        values = {name: without_secrets(value) if isinstance(value, str) else value for name, value in values.items()}
        row.logger.log(row.level, row.text, values, exc_info=raised, extra={"event": event, **values}, stacklevel=2)
