"""Durable state (extra ``store``): submissions, watches and events in a database that several processes share.

    store = taskbridge.Store("taskbridge.db")
    store.submit("invoices", "convert", "report.docx", key="INV-7", to="pdf")
    store.watch("scans:task_1")

    with taskbridge.Watcher(store):  # in one of the processes
        for event in store.events("billing", follow=True):
            ...
            event.ack()

A store is a SQLite file, for the processes of one machine, or in PostgreSQL (extra ``postgres``), for those of several.
What is stored survives the process. One process at a time owns a connection: it sends the submissions and polls the
tasks, and when it ends, however it ends, another takes over. The guarantees:

* A task's end is one event.
* Events are delivered at least once, and in order for each task. Act once per `Event.key`.
* A submission is sent exactly once where the vendor can be searched for it, and otherwise at most once; then it may end
  as `uncertain`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from taskbridge._config.registry import require_extra

try:
    from taskbridge.store.database import StoreUnavailable
    from taskbridge.store.records import (
        Account,
        AccountStatus,
        Event,
        Explanation,
        StoredSubmission,
        Undelivered,
        Watched,
    )
    from taskbridge.store.runs.files import FilePhase, FileUpdate, RunFile, RunSummary
    from taskbridge.store.schema import EventKind, Phase, State
except ModuleNotFoundError as error:
    if error.name != "sqlalchemy":
        raise
    raise require_extra("sqlalchemy", "store", "taskbridge.store") from None

if TYPE_CHECKING:
    from taskbridge.store.delivery import DeliveryPolicy
    from taskbridge.store.pruning import Pruned
    from taskbridge.store.relay import Relay
    from taskbridge.store.store import Store, Transaction
    from taskbridge.store.threads import Watcher

# Loaded when they are used: `taskbridge run` does without them.
_MODULES: Final = {
    "DeliveryPolicy": "delivery",
    "Pruned": "pruning",
    "Relay": "relay",
    "Store": "store",
    "Transaction": "store",
    "Watcher": "threads",
}

__all__ = [
    "Account",
    "AccountStatus",
    "DeliveryPolicy",
    "Event",
    "EventKind",
    "Explanation",
    "FilePhase",
    "FileUpdate",
    "Phase",
    "Pruned",
    "Relay",
    "RunFile",
    "RunSummary",
    "State",
    "Store",
    "StoreUnavailable",
    "StoredSubmission",
    "Transaction",
    "Undelivered",
    "Watched",
    "Watcher",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'taskbridge.store' has no attribute {name!r}")
    return getattr(import_module(f"taskbridge.store.{_MODULES[name]}"), name)
